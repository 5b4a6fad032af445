//! Measures keywright against its baselines.

#![allow(clippy::print_stdout, missing_debug_implementations, reason = "a program that prints")]

mod keys;
mod rounds;
mod wire;

use rounds::{Variant, interleave};
use wire::Session;

struct Random(u64);
impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn main() {
    if let Some(sql) = std::env::args().nth(2) {
        let n: usize = std::env::args().nth(3).unwrap().parse().unwrap();
        let mut session = Session::new("small");
        let statement = session.prepare(&sql);
        for at in 0..n {
            let key = if sql.contains("verify") {
                keys::token(at as u64 * 37 % 100_000)
            } else {
                keys::id(at as u64 * 37 % 100_000)
            };
            session.call(&statement, &[key.as_bytes()]);
        }
        return;
    }
    let n: u64 = std::env::args().nth(1).map_or(100_000, |n| n.parse().unwrap());
    keys::database("small", n);
    keys::connect("small").batch_execute(include_str!("../baselines.sql")).unwrap();
    let mut random = Random(88172645463325252);
    let numbers: Vec<u64> = (0..50_000).map(|_| random.below(n)).collect();
    let tokens: Vec<String> = numbers.iter().map(|n| keys::token(*n)).collect();
    let ids: Vec<String> = numbers.iter().map(|n| keys::id(*n)).collect();
    let misses: &'static [String] =
        numbers.iter().map(|n| keys::token(*n + 1_000_000_000)).collect::<Vec<_>>().leak();
    let loop_over = |sql: &str, parameters: &'static [String]| {
        let mut session = Session::new("small");
        let statement = session.prepare(sql);
        let mut at = 0;
        move |calls: usize| {
            for _ in 0..calls {
                assert_eq!(session.call(&statement, &[parameters[at].as_bytes()]), 1);
                at = (at + 1) % parameters.len();
            }
        }
    };
    let tokens: &'static [String] = tokens.leak();
    let ids: &'static [String] = ids.leak();
    let rates = interleave(
        vec![
            Variant::new("select 1", 300, loop_over("SELECT $1::text", ids)),
            Variant::new(
                "pk",
                300,
                loop_over(
                    "SELECT key_id, user_id, name, hashed_secret, scopes, allow_list, expires_at, revoked_at FROM keywright.api_keys WHERE key_id = $1",
                    ids,
                ),
            ),
            Variant::new("verify", 300, loop_over("SELECT * FROM keywright.verify_api_key($1)", tokens)),
            Variant::new("verify row", 300, loop_over("SELECT keywright.verify_api_key($1)", tokens)),
            Variant::new("malformed", 300, loop_over("SELECT * FROM keywright.verify_api_key($1)", ids)),
            Variant::new("miss", 300, loop_over("SELECT * FROM keywright.verify_api_key($1)", misses)),
            Variant::new("malformed row", 300, loop_over("SELECT keywright.verify_api_key($1)", ids)),
            Variant::new("plpgsql join", 300, loop_over("SELECT * FROM bench.verify2($1)", tokens)),
            Variant::new("plpgsql", 300, loop_over("SELECT * FROM bench.verify($1)", tokens)),
        ],
        800,
    );
    for (at, name) in rates.names.iter().enumerate() {
        println!("{name:20} {:10.0}/s  {:.3} of pk", rates.rate(at), rates.ratio(at, 1));
    }
}
