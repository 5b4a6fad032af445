//! Gateway keys: belong to a deployment component, have a name and a heartbeat, no expiry.

pub mod declared;
mod delete;
mod ensure;
mod heartbeat;
mod mint;
mod rotate;
mod verify;
