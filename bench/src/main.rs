//! Measures keywright against its baselines on the server that scripts/with-cluster started, or writes the report of what
//! was measured.
//!
//! keywright-bench measure FILE: measures, and writes the figures to FILE
//! keywright-bench timing: does the time of a no tell why, run by scripts/timing
//! keywright-bench report FILE...: writes report.md and the plots from such files

#![allow(clippy::print_stdout, missing_debug_implementations, reason = "a program that prints")]

mod keys;
mod measures;
mod report;
mod rounds;
mod timing;
mod wire;

use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["measure", file] => measures::all(Path::new(file)),
        ["report", ref files @ ..] => report::write(files),
        ["timing"] => timing::all(),
        // For callgrind: so many calls of one prepared statement, or as many statements as text, and nothing else.
        ["call", what, calls] => measures::call(what, calls.parse().expect("a number of calls")),
        ["fill", keys] => measures::fill(keys.parse().expect("a number of keys")),
        _ => {
            panic!(
                "usage: keywright-bench measure FILE | timing | report FILE... | fill KEYS | call verify|key|text CALLS"
            )
        }
    }
}
