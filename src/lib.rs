//! keywright: PostgreSQL as the authority over machine credentials.
//!
//! The SQL surface is written by hand in `sql/schema/`, one file a room, and says who may call what; the
//! functions it names are here, one folder a room. What can be decided without a database is in `core/`.
//!
//! - `user`: identities that own keys
//! - `resource`: things of the application, with their parents, and the tables they are tracked from
//! - `scope`: named sets of permissions for keys to carry
//! - `role`: roles, and who holds which one where
//! - `authority`: what a user's roles and a key's limits permit
//! - `api_key`: mint, import, ensure, verify, rotate, revoke, explain, purge
//! - `gateway_key`: the same for deployment components, with a heartbeat
//! - `usage`: when keys were used and how verifications ended, in memory and from there in a table
//! - `request`: the key a transaction acts for, and what row security policies ask
//! - `authenticator`: what services need of Postgres roles, the ledger of what was granted, drift
//! - `postgrest`: its settings and its file
//! - `operator`: names for a control plane's own
//! - `manifest`: plan and apply
//! - `access`: capabilities and the privileges they stand for
//! - `audit`: what changed and who did it, and telling who listens
//! - `metrics`: how many rows a table has, cheaply
//! - `rules`: checks the SQL side asks for
//! - `redaction`: no tokens in what Postgres writes or shows of statements
//! - `version`: which library this is
//!
//! Below them: `probe` (rows by an index, under the latest snapshot), `spi` (our own statements), `definition` (what
//! is defined once by name), `manager` (whose an object is), `retry` (lost races), `lock` (by name), `record` (a row as a
//! result), `args`, `clock`, `settings`, `error`, `memory` (when it runs out) and `own` (what a process keeps).

#![feature(alloc_error_hook)]
#![allow(clippy::result_large_err, reason = "pgrx's ErrorReport is large, and leaves a function once")]

use pgrx::{extension_sql_file, pg_guard, pg_module_magic, pg_sys};

mod access;
mod api_key;
mod args;
mod audit;
mod authenticator;
mod authority;
mod clock;
mod definition;
mod error;
mod gateway_key;
mod lock;
mod manager;
mod manifest;
mod memory;
mod metrics;
mod operator;
mod own;
mod postgrest;
mod probe;
mod record;
mod redaction;
mod request;
mod resource;
mod retry;
mod role;
mod rules;
mod scope;
mod settings;
mod spi;
mod usage;
mod user;
mod version;

pg_module_magic!();

extension_sql_file!("../sql/schema/00_schema.sql", name = "schema", bootstrap);
extension_sql_file!("../sql/schema/10_user.sql", name = "user", requires = ["schema"]);
extension_sql_file!("../sql/schema/20_resource.sql", name = "resource", requires = ["user"]);
extension_sql_file!("../sql/schema/25_role.sql", name = "role", requires = ["resource"]);
extension_sql_file!("../sql/schema/30_api_key.sql", name = "api_key", requires = ["role"]);
extension_sql_file!("../sql/schema/40_gateway_key.sql", name = "gateway_key", requires = ["api_key"]);
extension_sql_file!("../sql/schema/45_usage.sql", name = "usage", requires = ["gateway_key"]);
extension_sql_file!("../sql/schema/50_request.sql", name = "request", requires = ["usage"]);
extension_sql_file!("../sql/schema/60_authenticator.sql", name = "authenticator", requires = ["request"]);
extension_sql_file!("../sql/schema/65_postgrest.sql", name = "postgrest", requires = ["authenticator"]);
extension_sql_file!("../sql/schema/70_operator.sql", name = "operator", requires = ["postgrest"]);
extension_sql_file!("../sql/schema/75_manifest.sql", name = "manifest", requires = ["operator"]);
extension_sql_file!("../sql/schema/80_access.sql", name = "access", requires = ["manifest"]);
extension_sql_file!("../sql/schema/85_audit.sql", name = "audit", requires = ["access"]);
extension_sql_file!("../sql/schema/87_metrics.sql", name = "metrics", requires = ["audit"]);
extension_sql_file!("../sql/schema/88_replication.sql", name = "replication", requires = ["metrics"]);
extension_sql_file!("../sql/schema/90_maintenance.sql", name = "maintenance", requires = ["replication"]);
extension_sql_file!("../sql/schema/95_help.sql", name = "help", requires = ["maintenance"]);
extension_sql_file!("../sql/schema/99_privileges.sql", name = "privileges", finalize);

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    memory::require();
    // Defining a setting can warn, and a warning lets a cancellation in: half of this done, each later call would do it again and fail.
    // SAFETY: a counter of this process; an error takes it to 0.
    let held = unsafe { pg_sys::InterruptHoldoffCount };
    // SAFETY: as above.
    unsafe { pg_sys::InterruptHoldoffCount = held + 1 };
    error::no_backtraces();
    memory::prepare();
    settings::define();
    probe::watch_relations();
    request::watch_transactions();
    usage::start();
    redaction::start();
    // SAFETY: as above.
    unsafe { pg_sys::InterruptHoldoffCount = held };
}
