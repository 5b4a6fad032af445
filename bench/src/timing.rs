//! Whether the time of a verification that ends in no tells why. As a client sees it: one session, one prepared statement, the
//! round trip included, the causes in random order. What counts as noise is how far two halves of one cause differ.

use crate::keys::{self, connect};
use crate::rounds::Random;
use crate::wire::{Session, pin};
use std::time::Instant;

const DATABASE: &str = "keys_timing";
const KEYS: u64 = 120_000;
/// Of each cause, in two halves.
const CALLS: usize = 20_000;
/// The slowest in a hundred of all calls are left out: those in which the machine did something else.
const KEPT: usize = 99;

const CAUSES: [&str; 6] =
    ["wrong id", "wrong secret", "revoked", "expired", "owner suspended", "owner deleted"];

/// Each cause has as many keys, scattered over the table and its index as all are.
fn token(cause: usize, random: u64) -> String {
    let causes = CAUSES.len() as u64;
    let number = random / causes * causes + cause as u64;
    match cause {
        0 => keys::token(number + 1_000_000_000_000),
        1 => keys::token_of(&keys::id(number), &keys::secret(number + 1)),
        _ => keys::token(number),
    }
}

fn prepare() {
    keys::database(DATABASE, KEYS, 0);
    let mut client = connect(DATABASE);
    let set = |client: &mut postgres::Client, table: &str, set: &str, by: &str, values: Vec<String>| {
        let update = format!("UPDATE keywright.{table} SET {set} WHERE {by} = ANY ($1)");
        client.execute(&update, &[&values]).expect("dead keys");
    };
    let of = |cause: usize| {
        (0..KEYS).filter(|key| key % CAUSES.len() as u64 == cause as u64).map(keys::id).collect()
    };
    client.batch_execute("SET session_replication_role = replica").expect("no triggers");
    // Owners of the last two causes are their own, so that no other key suffers.
    client
        .batch_execute(
            "INSERT INTO keywright.users (username, kind)
               SELECT 'dead-' || n, 'service' FROM generate_series(1, 1000) AS n",
        )
        .expect("owners");
    let own = "user_id = (SELECT user_id FROM keywright.users WHERE deleted_at IS NULL AND lower(username) = 'dead-' || 2 * (hashtext(key_id) & 255) + ";
    set(&mut client, "api_keys", "revoked_at = '2026-01-02'", "key_id", of(2));
    set(&mut client, "api_keys", "expires_at = '2026-01-02'", "key_id", of(3));
    set(&mut client, "api_keys", &format!("{own}1)"), "key_id", of(4));
    set(&mut client, "api_keys", &format!("{own}2)"), "key_id", of(5));
    client
        .batch_execute(
            "UPDATE keywright.users SET status = 'suspended' WHERE username ~ '^dead-[0-9]*[13579]$';
             UPDATE keywright.users SET deleted_at = '2026-01-02' WHERE username ~ '^dead-[0-9]*[02468]$'",
        )
        .and_then(|()| client.batch_execute("VACUUM (FULL, FREEZE, ANALYZE)"))
        .expect("vacuum");
}

pub fn all() {
    prepare();
    pin(std::process::id(), "0");
    let mut session = Session::new(DATABASE);
    session.pin("0");
    let statement = session.prepare("SELECT * FROM keywright.verify_api_key($1)");
    let mut random = Random::new(17);
    let mut calls: Vec<(usize, String)> = (0..CALLS * CAUSES.len())
        .map(|n| (n % CAUSES.len(), token(n % CAUSES.len(), random.below(KEYS))))
        .collect();
    for last in (1..calls.len()).rev() {
        calls.swap(last, random.below(last as u64 + 1) as usize);
    }
    // Once unmeasured, so that everything is where it will be.
    for (_, token) in &calls {
        session.call(&statement, &[token.as_bytes()]);
    }
    let measured: Vec<(usize, f64)> = calls
        .iter()
        .map(|(cause, token)| {
            let begun = Instant::now();
            session.call(&statement, &[token.as_bytes()]);
            (*cause, begun.elapsed().as_nanos() as f64)
        })
        .collect();
    let mut sorted: Vec<f64> = measured.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted[sorted.len() * KEPT / 100];
    let samples: Vec<Sample> = (0..CAUSES.len())
        .map(|cause| {
            Sample::of(measured.iter().filter(|call| call.0 == cause && call.1 < cut).map(|call| call.1))
        })
        .collect();
    println!("{:<34} {:>8} {:>10} {:>10}", "", "calls", "mean, ns", "deviation");
    for (cause, sample) in CAUSES.iter().zip(&samples) {
        println!("{cause:<34} {:>8} {:>10.0} {:>10.0}", sample.calls, sample.mean, sample.variance.sqrt());
    }
    println!("\n{:<34} {:>8} {:>10} {:>10}", "", "", "differ, ns", "Welch's |t|");
    for (cause, name) in CAUSES.iter().enumerate() {
        // Every other call of the same cause.
        let mut halves = [Vec::new(), Vec::new()];
        let of = measured.iter().filter(|call| call.0 == cause && call.1 < cut);
        of.enumerate().for_each(|(n, call)| halves[n % 2].push(call.1));
        let [one, other] = halves.map(|half| Sample::of(half.into_iter()));
        line(&format!("{name}, two halves"), &one, &other);
    }
    for one in 0..CAUSES.len() {
        for other in one + 1..CAUSES.len() {
            line(&format!("{} / {}", CAUSES[one], CAUSES[other]), &samples[one], &samples[other]);
        }
    }
}

fn line(what: &str, one: &Sample, other: &Sample) {
    let error = (one.variance / one.calls + other.variance / other.calls).sqrt();
    let differ = other.mean - one.mean;
    println!("{what:<34} {:>8} {differ:>10.0} {:>10.1}", "", (differ / error).abs());
}

struct Sample {
    calls: f64,
    mean: f64,
    variance: f64,
}

impl Sample {
    fn of(times: impl Iterator<Item = f64> + Clone) -> Sample {
        let calls = times.clone().count() as f64;
        let mean = times.clone().sum::<f64>() / calls;
        let variance = times.map(|time| (time - mean).powi(2)).sum::<f64>() / (calls - 1.0);
        Sample { calls, mean, variance }
    }
}
