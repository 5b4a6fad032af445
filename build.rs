//! Calls of these functions of Postgres come to `src/memory.rs` first, also those in pgrx.

fn main() {
    for name in ["errstart", "errcode", "CopyErrorData", "FlushErrorState"] {
        println!("cargo::rustc-link-arg-cdylib=-Wl,--wrap={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
