//! Names for what one control plane among several owns.

use crate::args;
use crate::error::{Failure, Fault};
use keywright_core::operator_name::key_name;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn operator_key_name(
    namespace: Option<&[u8]>,
    name: Option<&[u8]>,
    prefix: Option<&[u8]>,
) -> Result<String, ErrorReport> {
    let namespace = args::required("namespace", namespace)?;
    let name = args::required("name", name)?;
    let prefix = args::required("prefix", prefix)?;
    Ok(key_name(namespace, name, prefix).map_err(|faults| {
        let faults = faults.into_iter().map(|(argument, sentence)| Fault::new(argument, sentence, ""));
        Failure::Arguments(faults.collect())
    })?)
}
