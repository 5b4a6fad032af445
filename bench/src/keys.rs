//! Keys by number: whoever knows the number knows the token, so that millions need not be kept.

use keywright_core::alphabet::{BASE62, checksum};
use keywright_core::digest;
use postgres::{Client, NoTls};
use std::io::Write;
use std::thread;

use crate::wire::environment;

const KEYS_OF_A_USER: u64 = 100;

pub fn id(number: u64) -> String {
    // Scattered over all ids, as random ones are: the factor has no common divisor with their number.
    const IDS: u128 = 62u128.pow(10);
    let mut rest = (u128::from(number) + 1) * 0x9e37_79b9_7f4a_7c15 % IDS;
    let mut digits = [b'0'; 10];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    String::from_utf8_lossy(&digits).into_owned()
}

pub fn secret(number: u64) -> String {
    let bytes = digest::of(format!("keywright bench {number}").as_bytes());
    bytes[..22].iter().map(|byte| BASE62[(byte % 62) as usize] as char).collect()
}

pub fn token(number: u64) -> String {
    token_of(&id(number), &secret(number))
}

pub fn token_of(id: &str, secret: &str) -> String {
    let mut token = format!("kwk_{id}-{secret}");
    let sum = checksum(token.as_bytes());
    token.push_str(&String::from_utf8_lossy(&sum));
    token
}

pub fn connect(database: &str) -> Client {
    let (host, port, user) = (environment("PGHOST"), environment("PGPORT"), environment("PGUSER"));
    Client::connect(&format!("host={host} port={port} user={user} dbname={database}"), NoTls)
        .unwrap_or_else(|error| panic!("{database}: {error}"))
}

/// A database with keywright and this many live keys, made by COPY. The indexes that are not asked are made
/// afterwards, as a restore does it.
/// The first of them are expired, as many as are said.
pub fn database(name: &str, keys: u64, expired: u64) {
    let mut client = connect("postgres");
    client.batch_execute(&format!("CREATE DATABASE {name}")).expect("create database");
    let mut client = connect(name);
    client
        .batch_execute("CREATE EXTENSION keywright; SET maintenance_work_mem = '1GB'")
        .expect("create extension");
    let later: Vec<(String, String)> = client
        .query(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
              WHERE indrelid = 'keywright.api_keys'::regclass AND NOT indisprimary",
            &[],
        )
        .expect("indexes")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (index, _) in &later {
        client.batch_execute(&format!("DROP INDEX {index}")).expect("drop index");
    }
    copy_users(&mut client, keys);
    let half = keys / 2;
    thread::scope(|scope| {
        for numbers in [0..half, half..keys] {
            scope.spawn(move || copy_keys(&mut connect(name), numbers, expired));
        }
    });
    for (_, definition) in &later {
        client.batch_execute(definition).expect("create index");
    }
    // As a server that has been up for a while: all of it is in its buffers.
    client
        .batch_execute("VACUUM (FREEZE, ANALYZE)")
        .and_then(|()| {
            client.batch_execute(
                "CREATE EXTENSION IF NOT EXISTS pg_prewarm;
                 SELECT pg_prewarm(oid) FROM pg_class
                  WHERE relnamespace = 'keywright'::regnamespace AND relkind IN ('r', 'i')",
            )
        })
        .expect("vacuum");
}

pub fn user_of(number: u64) -> u64 {
    number / KEYS_OF_A_USER
}

fn user_id(number: u64) -> String {
    let bytes = digest::of(format!("user {number}").as_bytes());
    bytes[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn copy_users(client: &mut Client, keys: u64) {
    client.batch_execute("SET session_replication_role = replica").expect("no triggers");
    let mut copy =
        client.copy_in("COPY keywright.users (user_id, username, kind) FROM STDIN").expect("copy users");
    for user in 0..keys.div_ceil(KEYS_OF_A_USER) {
        writeln!(copy, "{}\tuser-{user}\tservice", user_id(user)).expect("copy a user");
    }
    copy.finish().expect("users");
}

fn copy_keys(client: &mut Client, numbers: std::ops::Range<u64>, expired: u64) {
    client.batch_execute("SET session_replication_role = replica").expect("no triggers");
    let mut copy = client
        .copy_in(
            "COPY keywright.api_keys (key_id, user_id, name, hashed_secret, expires_at, scopes, allow_list,
                                      lifetime, created_at) FROM STDIN",
        )
        .expect("copy keys");
    for number in numbers {
        let digest: String =
            digest::of(secret(number).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, user) = (id(number), user_id(user_of(number)));
        // No two expire at the same moment.
        let (year, day, second) = (
            if number < expired { 2020 } else { 2100 },
            1 + number / 86_400 / 1000 % 28,
            number as f64 / 1000.0,
        );
        let (hour, minute) = ((second / 3600.0) as u64 % 24, (second / 60.0) as u64 % 60);
        let end = format!("{year}-01-{day:02} {hour:02}:{minute:02}:{:06.3}+00", second % 60.0);
        writeln!(
            copy,
            "{id}\t{user}\tkey-{number}\t\\\\x{digest}\t{end}\t{{all}}\t{{*:*}}\t1 year\t2026-01-01 00:00:00+00",
        )
        .expect("copy a key");
    }
    copy.finish().expect("keys");
}
