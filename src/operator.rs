//! Names for what one control plane among several owns.

use crate::args::{self, Faults};
use crate::error::{Failure, Fault};
use crate::manager::Claim;
use keywright_core::operator_name::key_name;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn operator_key_name(
    namespace: Option<&[u8]>,
    name: Option<&[u8]>,
    prefix: Option<&[u8]>,
) -> Result<String, ErrorReport> {
    Ok(name_of(namespace, name, prefix)?)
}

/// The name of the key to revoke, once all that was given is known to be right.
#[pg_extern(sql = false)]
fn operator_key_to_revoke(
    namespace: Option<&[u8]>,
    name: Option<&[u8]>,
    prefix: Option<&[u8]>,
    managed_by: Option<&[u8]>,
) -> Result<String, ErrorReport> {
    let mut faults = Faults::default();
    let key_name = faults.sift_all(name_of(namespace, name, prefix))?;
    let claim = faults.sift(Claim::of(managed_by));
    let (Some(key_name), Some(_)) = (key_name, claim) else { return Err(Failure::from(faults).into()) };
    Ok(key_name)
}

fn name_of(
    namespace: Option<&[u8]>,
    name: Option<&[u8]>,
    prefix: Option<&[u8]>,
) -> Result<String, Failure<'static>> {
    let mut faults = Faults::default();
    // Something right stands for a null, so that what is wrong with the others is found.
    let namespace = faults.sift(args::required("namespace", namespace)).unwrap_or(b"-");
    let name = faults.sift(args::required("name", name)).unwrap_or(b"-");
    let prefix = faults.sift(args::required("prefix", prefix)).unwrap_or(b"x-");
    let made = faults.sift_all(key_name(namespace, name, prefix).map_err(|faults| {
        let faults = faults.into_iter().map(|(argument, sentence)| Fault::new(argument, sentence, ""));
        Failure::Arguments(faults.collect())
    }))?;
    match made {
        Some(made) if faults.is_empty() => Ok(made),
        _ => Err(faults.into()),
    }
}
