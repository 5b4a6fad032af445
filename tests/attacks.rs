//! Attacks that SQL alone does not show: what the library may ask of the operating system, and tokens that nobody could find.

use keywright_tests::{Database, one, program, succeed};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// What the built library takes from elsewhere, as the dynamic linker sees it.
fn imports() -> BTreeSet<String> {
    let directory = String::from_utf8(succeed(program("pg_config").arg("--pkglibdir"))).unwrap();
    let library = PathBuf::from(directory.trim()).join("keywright.so");
    let symbols =
        String::from_utf8(succeed(Command::new("nm").args(["-D", "--undefined-only"]).arg(library))).unwrap();
    let name = |line: &str| Some(line.split_whitespace().last()?.split('@').next()?.to_owned());
    symbols.lines().filter_map(name).collect()
}

/// Tokens come from the kernel and from nothing that can be seeded (the Rust registry, 2020: `random()`); nothing is sent to
/// anybody (KeyHippo called home), no program is run, and no other library is loaded.
#[test]
fn the_library_asks_the_kernel_for_randomness_and_nobody_for_anything_else() {
    let imports = imports();
    for wanted in ["getrandom", "SPI_prepare", "memcpy"] {
        assert!(imports.contains(wanted), "{wanted}: {imports:?}");
    }
    let seeded = "rand srand rand_r random srandom random_r initstate setstate drand48 erand48 lrand48 nrand48 mrand48 srand48 \
                  pg_erand48 pg_prng_seed pg_prng_fseed pg_prng_double pg_prng_uint64 pg_global_prng_state drandom setseed";
    let outward = "socket connect bind listen accept accept4 sendto sendmsg send recv recvfrom recvmsg getaddrinfo gethostbyname \
                   PQconnectdb PQconnectStart curl_easy_init SSL_connect";
    let programs = "system popen fork vfork execve execv execvp posix_spawn posix_spawnp dlopen load_file load_external_function \
                    OpenPipeStream";
    for refused in [seeded, outward, programs].iter().flat_map(|names| names.split_whitespace()) {
        assert!(!imports.contains(refused), "the library uses {refused}");
    }
}

/// CRC32 (IEEE), bit by bit, from its definition.
fn crc32(text: &str) -> u32 {
    !text.bytes().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}

/// The checksum as docs/tokens.md describes it.
fn checksum(text: &str) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let digit = |place: u32| DIGITS[(crc32(text) / 62u32.pow(place) % 62) as usize] as char;
    (0..6).rev().map(digit).collect()
}

/// What docs/tokens.md gives to scanners finds each token that is minted, in a line of text, and the checksum tells it from others.
#[test]
fn a_leaked_token_is_found_by_the_published_patterns() {
    let readme = include_str!("../docs/tokens.md");
    let patterns: Vec<&str> =
        readme.split('`').filter(|code| code.starts_with(r"\bkw") && code.ends_with(r"\b")).collect();
    assert_eq!(patterns.len(), 2, "{patterns:?}");
    let database = Database::new("scanners");
    let mut client = database.connect();
    client.batch_execute("SELECT keywright.ensure_user('ann', '')").unwrap();
    let mint = "SELECT array_agg(token) FROM (
                  SELECT token FROM keywright.mint_api_keys(array_fill('ann'::text, '{200}'), ARRAY(SELECT 'n' || n FROM generate_series(1, 200) AS n))
                  UNION ALL SELECT m.token FROM generate_series(1, 200) AS n, LATERAL keywright.mint_gateway_key('g' || n) AS m) AS t";
    let tokens: Vec<String> = one(&mut client, mint);
    assert_eq!(tokens.len(), 400);
    for token in &tokens {
        let line = format!("curl -H 'x-api-key: {token}' https://example.org");
        let found: Vec<Option<String>> = patterns
            .iter()
            .map(|pattern| {
                let pattern = pattern.replace(r"\b", r"\y");
                client
                    .query_one("SELECT substring($1::text from $2::text)", &[&line, &pattern])
                    .unwrap()
                    .get(0)
            })
            .collect();
        assert_eq!(found.iter().flatten().collect::<Vec<_>>(), [token], "one pattern, the whole token");
        let (body, sum) = token.split_at(37);
        assert_eq!(checksum(body), sum, "{body}");
    }
}
