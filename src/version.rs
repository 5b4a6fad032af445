//! Which library this is. The schema has a version of its own, pg_extension.extversion.

use pgrx::pg_extern;

#[pg_extern(sql = false)]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
