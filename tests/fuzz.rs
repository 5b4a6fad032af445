//! Hostile arguments to every SQL function there is, under hostile sessions.
//!
//! Nothing may crash, no internal error may come out, no error may have a SQLSTATE that is not foreseen or a part of a secret, and
//! what is stored stays sound. KEYWRIGHT_FUZZ_CALLS says how many calls are made, others each time; KEYWRIGHT_FUZZ_SEED repeats a run; a failure prints both.

use keywright_tests::{Cluster, environment, one};
use postgres::Client;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};

const PORT: u16 = 5661;
const CAPABILITIES: [&str; 7] =
    ["verifier", "issuer", "auditor", "reconciler", "maintainer", "authenticator", "admin"];

/// The SQLSTATEs that may come out, and why.
const FORESEEN: [(&str, &str); 52] = [
    // Ours, by the table in docs/errors.md.
    ("22023", "malformed argument"),
    ("23502", "an id that is null in a tracked table"),
    ("23503", "in use, or the last owner"),
    ("23505", "the name is taken"),
    ("23514", "the name breaks its rule"),
    ("25006", "writing in a READ ONLY transaction"),
    ("28000", "no live key"),
    ("39P01", "track_resource is not called as a trigger"),
    ("42501", "not allowed"),
    ("42703", "no such column to track"),
    ("42704", "no such object"),
    ("42710", "of another kind, or another manager's"),
    ("42804", "a column that can not be tracked"),
    ("42939", "reserved name"),
    ("55000", "a prerequisite is missing"),
    ("PT401", "check_request"),
    ("PT403", "check_request"),
    // Postgres's own, for what the caller does.
    (
        "0A000",
        "trigger functions can only be called as triggers; an escape in jsonb for a character that SQL_ASCII has not",
    ),
    ("21000", "the wrapper selects more than one row"),
    ("22000", "an interval that is no number of anything"),
    ("22003", "a number that does not fit its type"),
    ("22007", "text that is no moment"),
    ("22008", "a moment or interval that does not fit its type"),
    ("22015", "an interval that does not fit its type"),
    ("22021", "bytes that are not in the encoding"),
    ("22P02", "text that is not of the type"),
    ("22P03", "bytes that are not of the type"),
    ("22P05", "a character the other encoding does not have"),
    ("2202E", "an array whose dimensions do not agree"),
    ("22025", "an escape at the end"),
    ("22026", "text too long for the type"),
    ("25001", "a setting that comes too late in a transaction"),
    ("25P02", "the transaction is aborted already"),
    ("2D000", "CALL in a transaction can not commit"),
    ("34000", "the cursor was not opened"),
    ("3F000", "no such schema, in a regclass"),
    ("40001", "try again"),
    ("40P01", "deadlock with another session"),
    ("42601", "not a name, in a regclass"),
    ("42602", "not a name, in a regclass"),
    ("42725", "more than one function would do"),
    ("42809", "a procedure is called, not selected from"),
    ("42846", "a type that can not become the other"),
    ("42883", "no function takes these arguments"),
    ("42P01", "no such table, in a regclass"),
    ("42P08", "a parameter of two types"),
    ("42P18", "a parameter of no type"),
    ("42P21", "two collations"),
    ("54000", "more than there can be"),
    ("54001", "nested too deeply"),
    ("55P03", "lock_timeout"),
    ("57014", "statement_timeout"),
];

/// What verify_* may let through: what happens before it is called, and being cut off.
const BEFORE_VERIFY: [&str; 19] = [
    "0A000", "25006", "22021", "22P02", "22P03", "22P05", "2202E", "25P02", "34000", "42501", "42601",
    "42725", "42846", "42883", "42P18", "42P21", "54000", "55P03", "57014",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A session that can send what no client library would.
struct Wire {
    stream: BufReader<UnixStream>,
    pid: i32,
    /// As the server said last: I, T or E.
    status: u8,
}

#[derive(Debug, Default)]
struct Answer {
    /// The fields of an error, and the texts of all notices.
    error: Option<BTreeMap<u8, Vec<u8>>>,
    notices: Vec<u8>,
    rows: Vec<u8>,
}

impl Answer {
    fn code(&self) -> Option<String> {
        self.error.as_ref().map(|fields| String::from_utf8_lossy(&fields[&b'C']).into_owned())
    }

    /// All that a client is shown beside the rows.
    fn shown(&self) -> Vec<u8> {
        let fields = self.error.iter().flat_map(|fields| fields.values());
        let mut shown: Vec<u8> = fields.flat_map(|field| [field.as_slice(), b"\n"].concat()).collect();
        shown.extend(&self.notices);
        shown
    }
}

impl Wire {
    fn new(role: &str, database: &str) -> Wire {
        let path = format!("{}/.s.PGSQL.{PORT}", environment("PGHOST"));
        let stream = BufReader::new(UnixStream::connect(path).unwrap());
        let mut wire = Wire { stream, pid: 0, status: b'I' };
        let body = format!("user\0{role}\0database\0{database}\0\0");
        let mut packet = (body.len() as u32 + 8).to_be_bytes().to_vec();
        packet.extend(196_608u32.to_be_bytes());
        packet.extend(body.bytes());
        wire.stream.get_mut().write_all(&packet).unwrap();
        let answer = wire.answer().expect("a session");
        assert!(answer.error.is_none(), "{role} in {database}: {}", String::from_utf8_lossy(&answer.shown()));
        wire
    }

    fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    fn simple(&mut self, sql: &[u8]) -> Option<Answer> {
        self.stream.get_mut().write_all(&Self::packet(b'Q', &[sql, b"\0"].concat())).ok()?;
        self.answer()
    }

    /// By the extended protocol, every parameter as text and of whatever type it turns out to have.
    fn extended(&mut self, sql: &[u8], parameters: &[Option<Vec<u8>>]) -> Option<Answer> {
        let mut bind = vec![0, 0, 0, 0];
        bind.extend((parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            match parameter {
                None => bind.extend((-1i32).to_be_bytes()),
                Some(text) => {
                    bind.extend((text.len() as i32).to_be_bytes());
                    bind.extend(text);
                }
            }
        }
        bind.extend([0, 0]);
        let mut packets = Self::packet(b'P', &[b"\0", sql, b"\0\0\0"].concat());
        packets.extend(Self::packet(b'B', &bind));
        packets.extend(Self::packet(b'E', b"\0\0\0\0\0"));
        packets.extend(Self::packet(b'S', b""));
        self.stream.get_mut().write_all(&packets).ok()?;
        self.answer()
    }

    /// Nothing when the server is gone.
    fn answer(&mut self) -> Option<Answer> {
        let mut answer = Answer::default();
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).ok()?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).ok()?;
            match head[0] {
                b'Z' => {
                    self.status = body[0];
                    return Some(answer);
                }
                b'K' => self.pid = i32::from_be_bytes([body[0], body[1], body[2], body[3]]),
                b'D' => answer.rows.extend(body),
                b'E' | b'N' => {
                    let fields: BTreeMap<u8, Vec<u8>> = body
                        .split(|byte| *byte == 0)
                        .filter_map(|field| field.split_first().map(|(kind, text)| (*kind, text.to_vec())))
                        .collect();
                    if head[0] == b'E' {
                        let fatal = fields.get(&b'V').is_some_and(|severity| severity != b"ERROR");
                        answer.error.get_or_insert(fields);
                        if fatal {
                            return None;
                        }
                    } else {
                        answer.notices.extend(fields.into_values().flatten());
                    }
                }
                b'A' => answer.notices.extend(body),
                _ => (),
            }
        }
    }
}

/// A function of the schema.
struct Function {
    name: String,
    procedure: bool,
    types: Vec<String>,
    names: Vec<String>,
    defaults: usize,
}

/// What a value is handed in as: its text, or null.
type Value = Option<Vec<u8>>;

/// What can be known of a database, and what must not come out of it.
struct Known {
    tokens: Vec<String>,
    /// In lower case: secrets of tokens, and hashes in hexadecimal.
    forbidden: Vec<String>,
    words: BTreeMap<&'static str, Vec<String>>,
}

const HOSTILE: [&[u8]; 56] = [
    b"",
    b" ",
    b"\t",
    b"\n",
    b"\r\n",
    b"\x01",
    b"\x1b[2J",
    b"\x7f",
    b"\xc2\x85",
    b"\xc2\xa0",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\x83\x5c",
    b"\x8e\xa2",
    b"\x8f\xa2\xb7",
    b"\xa4\xa2",
    b"\xe9",
    b"'",
    b"''",
    b"\"",
    b"\\",
    b"\\'",
    b"';--",
    b"$$",
    b"$1",
    b"%s%n",
    b"{",
    b"{}",
    b"{NULL}",
    b"NULL",
    b"null",
    b"*",
    b"*:*",
    b":",
    b"a:b:c",
    b"-",
    b"a--b",
    b"kwk_",
    b"kwg_",
    b"pg_x",
    b"public",
    b"none",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    "аdmin".as_bytes(),
    "ＡＢＣ".as_bytes(),
    "İı".as_bytes(),
    "e\u{301}".as_bytes(),
    "ß".as_bytes(),
    "🔑".as_bytes(),
    b"../../etc/passwd",
    b"-1",
    b"1e999",
    b"0",
];

/// Values that fit, by what the argument is called; anything else is made of all of them.
const WORDS: [(&str, &[&str]); 13] = [
    ("username", &["ada", "bob", "Ada", "system-bot", "gone", "nobody", "new-1", "new-2", "new-3"]),
    ("name", &["k1", "k2", "edge", "edge-2", "deployer", "deploy", "new-a", "new-b", "rest"]),
    ("permission", &["project:read", "*:*", "project:*", "workspace:x", "nosuch:read", "PROJECT:Read"]),
    ("type", &["project", "organization", "workspace", "agent", "nosuch", "box"]),
    ("id", &["p1", "acme", "p2", "w1", "P1"]),
    ("role", &["owner", "deployer", "project-owner", "auditor", "organization-admin", "nosuch"]),
    ("scope", &["all", "deploy", "project:read", "*:*", "nosuch"]),
    ("managed_by", &["m", "other", ""]),
    ("kind", &["human", "service", "system", "user", "api_key"]),
    (
        "db_role",
        &["fuzz_app", "fuzz_anon", "fuzz_jwt", "postgres", "fuzz_nobody", "nosuch", "pg_monitor", ""],
    ),
    ("capability", &["verifier", "issuer", "auditor", "reconciler", "maintainer", "authenticator", "admin"]),
    ("key", &["db_pool", "jwt_aud", "db_max_rows", "db_pre_request", "jwt_secret", "db_schemas"]),
    ("email", &["a@b", "", "x"]),
];

/// Which of them an argument takes.
fn fitting(argument: &str) -> &str {
    let argument = argument.trim_start_matches('_');
    match argument {
        "username" | "usernames" | "granted_by" | "granter" | "after" => "username",
        "permission" | "permissions" | "allow_list" => "permission",
        "type" | "parent_type" | "resource_type" => "type",
        "id" | "ids" | "parent_id" | "parent_ids" | "resource_id" | "resource" => "id",
        "role" | "roles" | "organization_role" => "role",
        "scopes" => "scope",
        "managed_by" | "manager" => "managed_by",
        "kind" | "event" => "kind",
        "db_role" | "connect_as" | "anon_role" | "jwt_roles" | "grantee" => "db_role",
        "capability" => "capability",
        "key" | "value" => "key",
        "email" => "email",
        _ => "name",
    }
}

impl Known {
    fn harvest(&mut self, client: &mut Client) {
        let mut names = |sql: &str| -> Vec<String> {
            client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
        };
        let hashes = "SELECT encode(hashed_secret, 'hex') FROM keywright.api_keys WHERE name NOT LIKE 'bulk%' UNION SELECT encode(hashed_secret, 'hex') FROM keywright.gateway_keys LIMIT 40";
        let ids = names("SELECT key_id FROM keywright.api_keys ORDER BY created_at DESC LIMIT 20");
        let uuids = names(
            "(SELECT user_id::text FROM keywright.users ORDER BY created_at DESC LIMIT 10) UNION SELECT gateway_key_id::text FROM keywright.gateway_keys LIMIT 20",
        );
        self.words.insert("key_id", ids);
        self.words.insert("uuid", uuids);
        self.forbidden = names(hashes);
        for token in &self.tokens {
            // The secret alone: ids and prefixes are public.
            let from = if token.starts_with("kwg_") { 11 } else { token.find('-').unwrap() + 1 };
            self.forbidden.push(token[from..].chars().take(20).collect::<String>().to_ascii_lowercase());
        }
    }

    /// Tokens that came back.
    fn learn(&mut self, rows: &[u8]) {
        let mut from = 0;
        while let Some(at) = rows[from..].windows(4).position(|part| part == b"kwk_" || part == b"kwg_") {
            from += at + 4;
            let token = rows.get(from - 4..from + 39).and_then(|token| str::from_utf8(token).ok());
            let whole =
                |token: &&str| token[4..].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if let Some(token) =
                token.filter(whole).filter(|token| token.starts_with("kwg_") || token.as_bytes()[14] == b'-')
            {
                let token = token.to_owned();
                if !self.tokens.contains(&token) {
                    self.tokens.truncate(39);
                    self.tokens.insert(0, token);
                }
            }
        }
    }

    fn word(&self, random: &mut Random, argument: &str) -> Vec<u8> {
        match argument {
            "token" | "tokens" | "existing_token" if !random.once_in(8) => {
                return random.pick(&self.tokens).clone().into_bytes();
            }
            "key_id" | "name_or_id" if !random.once_in(4) && !self.words["key_id"].is_empty() => {
                return random.pick(&self.words["key_id"]).clone().into_bytes();
            }
            "resource" => {
                return random
                    .pick(&["project:p1", "organization:acme", "project:nosuch", "kwk:x"][..])
                    .as_bytes()
                    .to_vec();
            }
            "kind" if random.once_in(2) => {
                return random.pick(&["human", "service", "system"][..]).as_bytes().to_vec();
            }
            _ => (),
        }
        let fits = fitting(argument);
        let (_, words) = WORDS.iter().find(|(name, _)| *name == fits).unwrap();
        random.pick(words).as_bytes().to_vec()
    }

    /// A text: what fits, what fits elsewhere, something hostile, or a word with slips.
    fn text(&self, random: &mut Random, argument: &str) -> Vec<u8> {
        match random.below(100) {
            0..55 => self.word(random, argument),
            55..65 => {
                let (argument, _) = *random.pick(&WORDS);
                self.word(random, argument)
            }
            65..72 => random.pick(&self.tokens).clone().into_bytes(),
            72..86 => random.pick(&HOSTILE).to_vec(),
            86..97 => {
                let mut text = match random.once_in(3) {
                    true => random.pick(&self.tokens).clone().into_bytes(),
                    false => self.word(random, argument),
                };
                for _ in 0..=random.below(3) {
                    let at = random.below(text.len() + 1);
                    match random.below(4) {
                        0 => text.splice(at..at, random.pick(&HOSTILE).iter().copied()).for_each(drop),
                        1 if at < text.len() => _ = text.remove(at),
                        2 if at < text.len() => text[at] ^= 0x20,
                        _ => text.truncate(at),
                    }
                }
                text
            }
            97 => random.pick(&HOSTILE).repeat(1 + random.below(300)),
            98 => random.pick(&self.tokens).repeat(1 + random.below(20)).into_bytes(),
            _ if random.once_in(8) => b"kwk_x-".repeat(170_000),
            _ => vec![b'a'; 63 + random.below(200)],
        }
    }

    fn array(&self, random: &mut Random, argument: &str) -> Vec<u8> {
        let element = |random: &mut Random| {
            if random.once_in(12) {
                return b"NULL".to_vec();
            }
            let mut quoted = b"\"".to_vec();
            for byte in self.text(random, argument) {
                if byte == b'"' || byte == b'\\' {
                    quoted.push(b'\\');
                }
                quoted.push(byte);
            }
            quoted.push(b'"');
            quoted
        };
        let list = |random: &mut Random, length: usize| {
            let elements: Vec<Vec<u8>> = (0..length).map(|_| element(random)).collect();
            [&b"{"[..], &elements.join(&b","[..]), b"}"].concat()
        };
        match random.below(40) {
            0 => b"{}".to_vec(),
            1 => b"{NULL}".to_vec(),
            2 => b"{NULL,NULL,NULL}".to_vec(),
            3 => [&b"{"[..], &list(random, 2), b",", &list(random, 2), b"}"].concat(),
            4 => [&b"[-2147483648:-2147483647]="[..], &list(random, 2)].concat(),
            5 => [&b"[2147483645:2147483646]="[..], &list(random, 2)].concat(),
            6 => b"{{{{{{a}}}}}}".to_vec(),
            7 => list(random, 130),
            8 if random.once_in(8) => [&b"{"[..], &b"a,".repeat(99_999), b"b}"].concat(),
            9 => b"{{NULL},{NULL}}".to_vec(),
            _ => {
                let length = 1 + random.below(3);
                list(random, length)
            }
        }
    }

    /// JSON text: a manifest with a few things replaced, or settings, or something odd.
    fn json(&self, random: &mut Random, argument: &str) -> Vec<u8> {
        let odd = |random: &mut Random| -> String {
            match random.below(12) {
                0 => "[".repeat(3_000) + &"]".repeat(3_000),
                1 => "9".repeat(400),
                2 => "{\"a\":1,\"a\":{\"a\":null}}".into(),
                3 => "\"\\u0000\"".into(),
                4 => "\"\\ud83d\"".into(),
                5 if random.once_in(4) => "[".repeat(100_000),
                6 => format!("{{\"{}\": \"{}\"}}", random.pick(&self.tokens), random.pick(&self.tokens)),
                7 => "1e-131072".into(),
                8 => format!("\"{}\"", random.pick(&self.tokens)),
                9 => "[null, true, [], {}]".into(),
                10 => "\"\\u202e\\u00e9\"".into(),
                _ => random
                    .pick(
                        &[
                            "null",
                            "true",
                            "0",
                            "-1",
                            "1.5",
                            "\"\"",
                            "{}",
                            "[]",
                            "\"all\"",
                            "\"m\"",
                            "\"1 year\"",
                        ][..],
                    )
                    .to_string(),
            }
        };
        if argument.ends_with("settings") || argument == "parameters" {
            return match random.below(3) {
                0 => odd(random).into_bytes(),
                _ => format!(
                    "{{\"{}\": {}}}",
                    random.pick(&["db_pool", "sslmode", "jwt_aud", "db_tx_end"][..]),
                    odd(random)
                )
                .into_bytes(),
            };
        }
        if random.once_in(8) {
            return odd(random).into_bytes();
        }
        const SECTIONS: [&str; 9] = [
            r#""resource_types":[{"type":"workspace","parent_type":"project"}]"#,
            r#""resources":[{"type":"project","id":"p1","parent_id":"acme"},{"type":"project","id":"p3"}]"#,
            r#""roles":[{"name":"deployer","permissions":["project:read"],"level":4}]"#,
            r#""scopes":[{"name":"deploy","permissions":["project:read"]}]"#,
            r#""users":[{"username":"ada","kind":"human","email":"a@b"},{"username":"bot-2","kind":"system","roles":["auditor"]}]"#,
            r#""bindings":[{"username":"ada","role":"deployer","resource_type":"project","resource_id":"p1"}]"#,
            r#""api_keys":[{"username":"ada","name":"k7","scopes":["all"],"lifetime":"2 days","existing_token":null}]"#,
            r#""gateway_keys":[{"name":"edge-7"}]"#,
            r#""authenticators":[{"service":"rest","connect_as":"fuzz_app","anon_role":"fuzz_anon","jwt_roles":["fuzz_jwt"]}]"#,
        ];
        let mut manifest = format!("{{\"manager\":\"{}\"", random.pick(&["m", "other"][..]));
        for flag in ["prune", "adopt"] {
            _ = write!(manifest, ",\"{flag}\":{}", random.once_in(3));
        }
        for section in SECTIONS {
            if random.once_in(3) {
                manifest += &format!(",{section}");
            }
        }
        manifest += "}";
        for _ in 0..random.below(3) {
            // A text in quotes is replaced, key or value.
            let quotes: Vec<usize> = manifest.match_indices('"').map(|(at, _)| at).collect();
            let at = 2 * random.below(quotes.len() / 2);
            if quotes.len().is_multiple_of(2) && !manifest.contains('\\') {
                let with = odd(random);
                manifest.replace_range(quotes[at]..=quotes[at + 1], &with);
            }
        }
        manifest.into_bytes()
    }

    fn value(&self, random: &mut Random, kind: &str, argument: &str) -> Value {
        if random.once_in(15) {
            return None;
        }
        let of = |random: &mut Random, texts: &[&str]| random.pick(texts).as_bytes().to_vec();
        Some(match kind {
            "text" => self.text(random, argument),
            "text[]" => self.array(random, argument),
            "jsonb" => self.json(random, argument),
            "boolean" => of(random, &["true", "false", "t", "0", "maybe"]),
            "integer" => of(
                random,
                &["0", "1", "-1", "100", "2147483647", "-2147483648", "2147483648", "", "1000", "7"],
            ),
            "interval" => of(
                random,
                &[
                    "0",
                    "1 second",
                    "7 days",
                    "-1 day",
                    "100 years",
                    "1 mon -30 days",
                    "infinity",
                    "-infinity",
                    "178000000 years",
                    "-178000000 years",
                    "2147483647 days 2147483647 hours",
                    "1 microsecond",
                    "",
                    "P1Y",
                    "1-2 3 4:05:06",
                    "36500 days",
                    "-2147483648 mons",
                    "9223372036854775807 us",
                ],
            ),
            "timestamp with time zone" => of(
                random,
                &[
                    "now",
                    "infinity",
                    "-infinity",
                    "4714-11-24 00:00:00+00 BC",
                    "294276-12-31 23:59:59.999999+00",
                    "epoch",
                    "2000-01-01",
                    "01.02.2003",
                    "nonsense",
                ],
            ),
            "uuid" if random.once_in(2) && !self.words["uuid"].is_empty() => {
                random.pick(&self.words["uuid"]).clone().into_bytes()
            }
            "uuid" => of(
                random,
                &[
                    "00000000-0000-0000-0000-000000000000",
                    "ffffffff-ffff-ffff-ffff-ffffffffffff",
                    "x",
                    "{00000000000000000000000000000000}",
                ],
            ),
            "bytea" => match random.below(5) {
                0 => b"\\x".to_vec(),
                1 => [&b"\\x"[..], &b"00".repeat(32)].concat(),
                2 => [&b"\\x"[..], &b"ff".repeat(100_000)].concat(),
                3 => b"\\x0".to_vec(),
                _ => b"\\000\\377".to_vec(),
            },
            "regclass" => of(
                random,
                &[
                    "public.fuzz_tracked",
                    "keywright.api_keys",
                    "pg_class",
                    "0",
                    "4294967295",
                    "hostile.api_keys",
                    "nosuch",
                    "\"",
                    "public.fuzz_view",
                    "a.b.c.d",
                    "-",
                ],
            ),
            _ => of(random, &["0", "x", ""]),
        })
    }
}

/// A literal that means the same whatever standard_conforming_strings says; nothing where bytes depend on an encoding.
fn literal(value: &Value) -> Option<Vec<u8>> {
    let Some(text) = value else { return Some(b"NULL".to_vec()) };
    if !text.is_ascii() || text.contains(&0) {
        return None;
    }
    let mut out = b"E'".to_vec();
    for byte in text {
        match byte {
            b'\'' => out.extend(b"''"),
            b'\\' => out.extend(b"\\\\"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    Some(out)
}

/// Settings of a session and what they may be set to.
const SETTINGS: [(&str, &[&str]); 31] = [
    ("DateStyle", &["'German, DMY'", "'SQL, MDY'", "'Postgres, YMD'", "'ISO, DMY'"]),
    ("TimeZone", &["'Asia/Kathmandu'", "'America/St_Johns'", "'<+16>-15:59'", "'UTC'"]),
    ("IntervalStyle", &["iso_8601", "sql_standard", "postgres_verbose"]),
    (
        "search_path",
        &[
            "hostile, public, pg_catalog",
            "''",
            "pg_temp, hostile, pg_catalog",
            "nosuch",
            "keywright, hostile",
        ],
    ),
    ("lc_messages", &["'C'", "'C.utf8'", "'de_DE.utf8'", "'tr_TR.utf8'"]),
    ("lc_time", &["'C.utf8'"]),
    ("standard_conforming_strings", &["off"]),
    ("backslash_quote", &["on"]),
    ("client_encoding", &["LATIN1", "SJIS", "EUC_JP", "UTF8", "SQL_ASCII", "WIN1252", "GB18030", "BIG5"]),
    ("bytea_output", &["escape"]),
    ("extra_float_digits", &["-15", "3"]),
    ("default_transaction_isolation", &["'repeatable read'", "serializable", "'read uncommitted'"]),
    ("default_transaction_read_only", &["on"]),
    ("default_transaction_deferrable", &["on"]),
    ("row_security", &["off"]),
    ("statement_timeout", &["1", "3", "10"]),
    ("lock_timeout", &["1"]),
    ("plan_cache_mode", &["force_generic_plan", "force_custom_plan"]),
    ("enable_indexscan", &["off"]),
    ("enable_seqscan", &["off"]),
    ("enable_bitmapscan", &["off"]),
    ("work_mem", &["64"]),
    ("array_nulls", &["off"]),
    ("transform_null_equals", &["on"]),
    ("quote_all_identifiers", &["on"]),
    ("client_min_messages", &["error", "debug1", "log"]),
    ("max_parallel_workers_per_gather", &["0"]),
    ("xmloption", &["document"]),
    ("check_function_bodies", &["off"]),
    ("keywright.notify", &["off"]),
    ("request.headers", &["'{\"x-api-key\": \"kwk_x\"}'", "'[1]'", "'{'", "''", "'{\"X-API-KEY\": null}'"]),
];

/// A call as it is made: statements before, the one it is about, and statements after.
struct Call {
    before: Vec<Vec<u8>>,
    sql: Vec<u8>,
    parameters: Option<Vec<Value>>,
    after: Vec<Vec<u8>>,
}

/// The arguments in SQL, each value put there by `place`.
fn arguments(
    random: &mut Random,
    function: &Function,
    known: &Known,
    odd_types: bool,
    mut place: impl FnMut(Value) -> Vec<u8>,
) -> Vec<u8> {
    let count = function.types.len();
    let least = count - function.defaults;
    let named = function.names.len() == count && random.once_in(4);
    let given = match random.below(30) {
        0 => random.below(count + 3),
        1..12 => least,
        _ => least + random.below(function.defaults + 1),
    };
    let mut order: Vec<usize> = (0..given).collect();
    if named {
        order = (0..count).filter(|at| *at < least || random.once_in(2)).collect();
        for at in (1..order.len()).rev() {
            let other = random.below(at + 1);
            order.swap(at, other);
        }
    }
    let list: Vec<Vec<u8>> = order
        .into_iter()
        .map(|at| {
            let (kind, name) = match function.types.get(at) {
                Some(kind) => (kind.as_str(), function.names.get(at).map_or("", String::as_str)),
                None => ("text", "name"),
            };
            let wrong = odd_types && random.once_in(40);
            let kind = if wrong {
                *random.pick(&["integer", "uuid", "interval", "jsonb", "text[]"][..])
            } else {
                kind
            };
            let value = place(known.value(random, kind, name));
            let cast = match (kind, random.below(20)) {
                ("text", 0) => "::public.fuzz_text",
                ("text", 1) => "::varchar",
                ("text", 2) => "::name",
                ("text", 3) => "::char(12)",
                ("text", 4) => "::pg_catalog.text COLLATE \"POSIX\"",
                ("text", 5) => "::pg_catalog.text COLLATE public.fuzz_odd",
                (_, 6..8) if !wrong && odd_types => "",
                _ => "::",
            };
            // By the full name, which nothing shadows.
            let of = match kind {
                _ if cast != "::" => "",
                "text" => "pg_catalog.text",
                "text[]" => "pg_catalog.text[]",
                kind => kind,
            };
            let arrow = if named { format!("{name} => ") } else { String::new() };
            [arrow.as_bytes(), b"(", &value, b")", cast.as_bytes(), of.as_bytes()].concat()
        })
        .collect();
    list.join(&b", "[..])
}

fn call(random: &mut Random, function: &Function, known: &Known) -> Call {
    let name = &function.name;
    let shape = if function.procedure { 100 } else { random.below(32) };
    let select = |random: &mut Random, arguments: &[u8]| -> Vec<u8> {
        let call = [format!("keywright.{name}(").as_bytes(), arguments, b")"].concat();
        let (head, tail): (&[u8], &[u8]) = match random.below(10) {
            _ if function.procedure => (b"CALL ", b""),
            0 => (b"SELECT (", b").*"),
            1 => (b"SELECT count(*) FROM generate_series(1, 3) AS n, LATERAL ", b" AS f"),
            2 => (b"SELECT f::text FROM ", b" AS f LIMIT 1"),
            3 => (b"SELECT ", b""),
            4 => (b"SELECT CASE WHEN true THEN ", b" END"),
            _ => (b"SELECT * FROM ", b""),
        };
        [head, &call, tail].concat()
    };
    let mut made = Call { before: Vec::new(), sql: Vec::new(), parameters: None, after: Vec::new() };
    match shape {
        // Inside PL/pgSQL, where a literal would be in the CONTEXT of Postgres's own: values come by settings.
        0..3 => {
            let mut settings = Vec::new();
            let list = arguments(random, function, known, false, |value| match literal(&value) {
                Some(text) if value.is_some() => {
                    settings.push(
                        [
                            format!("SELECT set_config('fuzz.a{}', ", settings.len()).as_bytes(),
                            &text,
                            b", false)",
                        ]
                        .concat(),
                    );
                    format!("current_setting('fuzz.a{}')", settings.len() - 1).into_bytes()
                }
                _ => b"NULL".to_vec(),
            });
            made.before = settings;
            let inner = select(random, &list);
            let again: &[u8] =
                if random.once_in(2) { b" EXCEPTION WHEN division_by_zero THEN NULL;" } else { b"" };
            made.sql = match shape {
                0 => [b"DO $do$ BEGIN EXECUTE $sql$", &inner[..], b"$sql$;", again, b" END $do$"].concat(),
                1 => [
                    b"DO $do$ BEGIN BEGIN PERFORM 1/0; EXCEPTION WHEN OTHERS THEN EXECUTE $sql$",
                    &inner[..],
                    b"$sql$; END; END $do$",
                ]
                .concat(),
                _ => {
                    made.before.push(
                        [b"SELECT set_config('fuzz.sql', $set$", &inner[..], b"$set$, false)"].concat(),
                    );
                    b"INSERT INTO public.fuzz_trigger VALUES (1)".to_vec()
                }
            };
        }
        // In transactions of all kinds, literals in the statement.
        3..14 => {
            let mut unsafe_bytes = false;
            let list = arguments(random, function, known, true, |value| {
                literal(&value).unwrap_or_else(|| {
                    unsafe_bytes = true;
                    b"NULL".to_vec()
                })
            });
            made.sql = select(random, &list);
            let (before, after): (&[&str], &[&str]) = match shape {
                3 => (&["BEGIN", "SAVEPOINT s", "SELECT 1/0", "ROLLBACK TO s"], &["COMMIT"]),
                4 => (&["BEGIN", "SELECT 1/0"], &["ROLLBACK"]),
                5 => (&["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"], &["COMMIT"]),
                6 => (&["BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"], &["COMMIT"]),
                7 => (&["BEGIN READ ONLY"], &["ROLLBACK"]),
                8 => (&["BEGIN", "SAVEPOINT s"], &["ROLLBACK TO s", "RELEASE s", "COMMIT"]),
                9 => (&["BEGIN"], &["FETCH 2 FROM c", "FETCH BACKWARD 1 FROM c", "CLOSE c", "COMMIT"]),
                10 => (&["BEGIN"], &["COMMIT", "FETCH 2 FROM c", "CLOSE c"]),
                _ => (&[], &[]),
            };
            made.before = before.iter().map(|sql| sql.as_bytes().to_vec()).collect();
            made.after = after.iter().map(|sql| sql.as_bytes().to_vec()).collect();
            let declare = match shape {
                9 => &b"DECLARE c SCROLL CURSOR FOR "[..],
                10 => b"DECLARE c CURSOR WITH HOLD FOR ",
                _ => b"",
            };
            made.sql = [declare, &made.sql].concat();
        }
        // By the extended protocol, any bytes.
        _ => {
            let mut parameters = Vec::new();
            let list = arguments(random, function, known, true, |value| {
                parameters.push(value);
                format!("${}", parameters.len()).into_bytes()
            });
            made.sql = select(random, &list);
            made.parameters = Some(parameters);
        }
    }
    made
}

const DATABASES: [(&str, &str); 5] = [
    ("fuzz_utf8", "ENCODING 'UTF8' LOCALE 'C'"),
    ("fuzz_latin1", "ENCODING 'LATIN1' LOCALE 'C'"),
    ("fuzz_euc_jp", "ENCODING 'EUC_JP' LOCALE 'C'"),
    ("fuzz_sql_ascii", "ENCODING 'SQL_ASCII' LOCALE 'C'"),
    ("fuzz_collated", "ENCODING 'UTF8' LOCALE 'C.UTF-8'"),
];

/// What a call is to find: users, keys, resources, and objects that get in the way.
const SEEDS: &str = "
    SELECT keywright.ensure_user('ada', 'a@b', db_role => 'fuzz_jwt'); SELECT keywright.ensure_user('bob', ''), keywright.ensure_system_user('system-bot');
    SELECT keywright.activate_user(u) FROM unnest('{ada,bob}'::text[]) AS u;
    SELECT keywright.register_resource_type('workspace', 'project');
    SELECT keywright.ensure_resource('organization', 'acme'), keywright.ensure_resource('project', 'p1', 'acme'), keywright.ensure_resource('project', 'p2');
    SELECT keywright.define_role('deployer', '{project:read}', 4), keywright.define_scope('deploy', '{project:read}');
    SELECT keywright.bind_role('ada', 'owner'), keywright.bind_role('bob', 'deployer', 'project', 'p1');
    SELECT keywright.allow_authenticator('fuzz_app', '{fuzz_anon,fuzz_jwt}')";

fn prepare(cluster: &Cluster) {
    let mut client = cluster.connect("postgres");
    for role in ["nobody", "app", "anon", "jwt"].into_iter().chain(CAPABILITIES) {
        client.batch_execute(&format!("CREATE ROLE fuzz_{role} LOGIN")).unwrap();
    }
    for (database, options) in DATABASES {
        client.batch_execute(&format!("CREATE DATABASE {database} TEMPLATE template0 {options}")).unwrap();
        let mut client = cluster.connect(database);
        client.batch_execute("CREATE EXTENSION keywright").unwrap();
        for capability in CAPABILITIES {
            client
                .batch_execute(&format!("SELECT keywright.grant_access('fuzz_{capability}', '{capability}')"))
                .unwrap();
        }
        client
            .batch_execute(
                "GRANT CREATE, TEMPORARY ON DATABASE fuzz_utf8 TO PUBLIC;
                 CREATE DOMAIN public.fuzz_text AS text;
                 CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO PUBLIC;
                 CREATE FUNCTION hostile.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT NULL::text';
                 CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$SELECT 'infinity'::timestamptz$$;
                 CREATE FUNCTION hostile.eq(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT 1/0 = 0';
                 CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.eq);
                 CREATE OPERATOR hostile.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.eq);
                 CREATE TABLE hostile.api_keys (key_id text); CREATE TABLE hostile.users (username text);
                 CREATE DOMAIN hostile.text AS integer CHECK (value > 7);
                 CREATE TABLE public.fuzz_tracked (id text PRIMARY KEY, parent text); CREATE VIEW public.fuzz_view AS SELECT 1 AS id;
                 CREATE TABLE public.fuzz_trigger (n integer); GRANT ALL ON public.fuzz_trigger, public.fuzz_tracked TO PUBLIC;
                 CREATE FUNCTION public.fuzz_run() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN EXECUTE current_setting(''fuzz.sql''); RETURN NULL; END';
                 CREATE TRIGGER fuzz BEFORE INSERT ON public.fuzz_trigger FOR EACH ROW EXECUTE FUNCTION public.fuzz_run()",
            )
            .unwrap();
        // Where there is ICU, a collation in which texts that differ are equal.
        let odd = "CREATE COLLATION public.fuzz_odd (provider = icu, locale = 'und-u-ks-level1', deterministic = false)";
        if client.batch_execute(odd).is_err() {
            client.batch_execute("CREATE COLLATION public.fuzz_odd FROM \"C\"").unwrap();
        }
        client.batch_execute(SEEDS).unwrap();
    }
}

fn functions(client: &mut Client) -> Vec<Function> {
    const SQL: &str = "SELECT proname::text, prokind = 'p', ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) WITH ORDINALITY AS a (t, n) ORDER BY n),
                              coalesce(proargnames[1:pronargs], '{}'), pronargdefaults::integer
                         FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace ORDER BY oid::regprocedure::text";
    let function = |row: &postgres::Row| Function {
        name: row.get(0),
        procedure: row.get(1),
        types: row.get(2),
        names: row.get(3),
        defaults: row.get::<_, i32>(4) as usize,
    };
    client.query(SQL, &[]).unwrap().iter().map(function).collect()
}

/// What a backend has of memory that is its own, in kB.
fn memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

struct Session {
    wire: Wire,
    role: String,
    settings: Vec<String>,
    /// The functions its role may call.
    own: Vec<usize>,
    calls: usize,
    half_way: Option<u64>,
}

#[test]
fn hostile_calls() {
    let asked = number("KEYWRIGHT_FUZZ_CALLS");
    let calls = asked.unwrap_or(5_000) as usize;
    // What nobody asked for tells whether something broke since the last run, and so makes the same calls.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("KEYWRIGHT_FUZZ_SEED").unwrap_or(if asked.is_some() { now } else { 1 });
    let cluster = Cluster::new(
        PORT,
        "-c fsync=off -c autovacuum=off -c log_line_prefix='%e|' -c max_connections=100 -c log_min_messages=warning -c max_stack_depth=1MB",
    );
    prepare(&cluster);
    let mut random = Random(seed);
    let (mut codes, mut reached) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    for (at, (database, _)) in DATABASES.into_iter().enumerate() {
        let share = if at == 0 { calls - calls / 10 * 4 } else { calls / 10 };
        let run = format!("KEYWRIGHT_FUZZ_SEED={seed} KEYWRIGHT_FUZZ_CALLS={calls}, database {database}");
        fuzz(&cluster, database, share, &mut random, &run, &mut codes, &mut reached);
    }
    if std::env::var_os("KEYWRIGHT_FUZZ_CALLS").is_some() {
        eprintln!("seed {seed}, {calls} calls: {codes:?}\nanswered: {reached:?}");
    }
    let log = cluster.log();
    for sign in ["\nXX", "PANIC", "terminated by signal", "TRAP", "stack smashing"] {
        assert!(!log.contains(sign), "KEYWRIGHT_FUZZ_SEED={seed}: {sign:?} in {log}");
    }
    // Most calls get past the door, and every function that takes calls has answered one.
    let answered = codes.get("answered").copied().unwrap_or_default();
    assert!(answered * 5 > calls, "only {answered} of {calls} calls were answered: {codes:?}");
}

fn fuzz(
    cluster: &Cluster,
    database: &str,
    calls: usize,
    random: &mut Random,
    run: &str,
    codes: &mut BTreeMap<String, usize>,
    reached: &mut BTreeMap<String, usize>,
) {
    let mut client = cluster.connect(database);
    let functions = functions(&mut client);
    assert!(functions.len() > 100);
    let mut known = Known { tokens: Vec::new(), forbidden: Vec::new(), words: BTreeMap::new() };
    let mut roles: Vec<String> = CAPABILITIES.iter().map(|capability| format!("fuzz_{capability}")).collect();
    roles.extend(["fuzz_nobody".to_owned(), "postgres".to_owned()]);
    let mut sessions: Vec<Session> = roles
        .into_iter()
        .map(|role| {
            let sql = "SELECT has_function_privilege($1, oid, 'EXECUTE') FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace ORDER BY oid::regprocedure::text";
            let may: Vec<bool> = client.query(sql, &[&role]).unwrap().iter().map(|row| row.get(0)).collect();
            let own = (0..functions.len()).filter(|at| may[*at] && !functions[*at].name.starts_with('_')).collect();
            let wire = Wire::new(&role, database);
            Session { wire, role, settings: Vec::new(), own, calls: 0, half_way: None }
        })
        .collect();
    let mut found = BTreeMap::<String, String>::new();
    for number in 0..calls {
        if number % 250 == 0 {
            // What calls have taken away is there again.
            for role in CAPABILITIES {
                client
                    .batch_execute(&format!("SELECT keywright.grant_access('fuzz_{role}', '{role}')"))
                    .unwrap();
            }
            seed_again(&mut client);
            for mint in ["mint_api_key('ada', 'seed-' || $1)", "mint_gateway_key('seed-' || $1)"] {
                let row =
                    client.query_one(&format!("SELECT token FROM keywright.{mint}"), &[&number.to_string()]);
                if let Ok(row) = row {
                    known.learn(row.get::<_, String>(0).as_bytes());
                }
            }
            known.harvest(&mut client);
        }
        // The admin and the superuser reach the most.
        let pick = random.below(sessions.len() + 7);
        let pick = if pick < sessions.len() { pick } else { [6, 6, 6, 6, 3, 1, 8][pick - sessions.len()] };
        let session = &mut sessions[pick];
        if session.calls.is_multiple_of(12) {
            session.settings = vec!["RESET ALL".to_owned()];
            for _ in 0..random.below(5) {
                let (name, values) = random.pick(&SETTINGS);
                session.settings.push(format!("SET {name} = {}", random.pick(values)));
            }
            if session.wire.pid % 2 == 0 && random.once_in(6) {
                let parallel =
                    if cfg_version() >= 16 { "debug_parallel_query" } else { "force_parallel_mode" };
                session.settings.push(format!("SET {parallel} = on"));
            }
            for setting in &session.settings {
                _ = session.wire.simple(setting.as_bytes());
            }
        }
        session.calls += 1;
        let superuser = session.role == "postgres";
        let at = match session.own.is_empty() || random.once_in(if superuser { 20 } else { 10 }) {
            false => *random.pick(&session.own),
            true => random.below(functions.len()),
        };
        let function = &functions[at];
        // It raises what it is told to.
        if superuser && function.name == "_refuse" {
            continue;
        }
        let call = call(random, function, &known);
        let mut all = Vec::new();
        let mut dead = false;
        for sql in &call.before {
            match session.wire.simple(sql) {
                Some(answer) => all.push(answer),
                None => dead = true,
            }
        }
        let answer = match &call.parameters {
            _ if dead => None,
            Some(parameters) => session.wire.extended(&call.sql, parameters),
            None => session.wire.simple(&call.sql),
        };
        let said = |answer: &Answer| {
            let parameters: Vec<String> = call
                .parameters
                .iter()
                .flatten()
                .map(|value| {
                    value.as_ref().map_or("NULL".into(), |text| {
                        format!("{:?}", String::from_utf8_lossy(&text[..text.len().min(300)]))
                    })
                })
                .collect();
            let before: Vec<_> = call
                .before
                .iter()
                .map(|sql| String::from_utf8_lossy(&sql[..sql.len().min(300)]).into_owned())
                .collect();
            format!(
                "{run}, call {number} as {}\nsettings {:?}\nbefore {before:?}\n{}\nparameters {parameters:?}\nanswer {}",
                session.role,
                session.settings,
                String::from_utf8_lossy(&call.sql[..call.sql.len().min(2_000)]),
                String::from_utf8_lossy(&answer.shown()),
            )
        };
        let Some(answer) = answer else {
            panic!(
                "the backend is gone: {}
{}",
                said(&Answer::default()),
                cluster.log()
            )
        };
        let code = answer.code();
        for sql in &call.after {
            match session.wire.simple(sql) {
                Some(answer) => all.push(answer),
                None => panic!("the backend is gone afterwards: {}", said(&Answer::default())),
            }
        }
        if session.wire.status != b'I' {
            all.push(session.wire.simple(b"ROLLBACK").expect("a backend"));
        }
        let internal = function.name.starts_with('_') && superuser;
        if let Some(code) = &code {
            let message = String::from_utf8_lossy(&answer.error.as_ref().unwrap()[&b'M']).into_owned();
            let door = ["trigger", "set-returning", "cursor", "conversion between"]
                .iter()
                .any(|word| message.contains(word));
            let foreseen = FORESEEN.iter().any(|(known, _)| known == code)
                && (code != "0A000" || door || function.procedure);
            if !foreseen && !internal {
                found
                    .entry(format!("not foreseen: {} {code}", function.name))
                    .or_insert_with(|| said(&answer));
            }
            // What is cast to a type that it does not take does not reach it.
            let elsewhere = ["::integer", "::interval", "::jsonb"]
                .iter()
                .any(|cast| call.sql.windows(cast.len()).any(|part| part == cast.as_bytes()));
            let before = BEFORE_VERIFY.contains(&code.as_str())
                || message.starts_with("invalid hexadecimal")
                || elsewhere;
            if function.name.starts_with("verify_") && !before {
                found
                    .entry(format!("verification raised: {} {code}", function.name))
                    .or_insert_with(|| said(&answer));
            }
        }
        all.push(answer);
        for answer in &all {
            let code = answer.code().unwrap_or_default();
            if code.starts_with("XX") || code.starts_with("F0") {
                found.entry(format!("internal error: {}", function.name)).or_insert_with(|| said(answer));
            }
            let mut shown = answer.shown();
            shown.make_ascii_lowercase();
            let shown = String::from_utf8_lossy(&shown);
            // Text that is not jsonb is not handed to anything of ours: Postgres repeats what it was.
            let is_postgres = matches!(&*code, "22P02" | "22P05")
                && answer.error.as_ref().is_some_and(|error| error[&b'F'].starts_with(b"json"));
            // A superuser that calls what is internal has the tables, too.
            if !is_postgres
                && !internal
                && known.forbidden.iter().any(|secret| shown.contains(secret.as_str()))
            {
                found
                    .entry(format!("secret shown: {} {code}", function.name))
                    .or_insert_with(|| said(answer));
            }
            known.learn(&answer.rows);
        }
        let answered = code.is_none();
        if answered {
            *reached.entry(function.name.clone()).or_default() += 1;
        }
        *codes.entry(code.unwrap_or_else(|| "answered".into())).or_default() += 1;
        if number == calls / 2 {
            for session in &mut sessions {
                session.half_way = Some(memory(session.wire.pid));
            }
        }
    }
    for (what, said) in &found {
        eprintln!("\n-- {what}\n{said}");
    }
    assert!(found.is_empty(), "{run}: {:?}", found.keys());
    for session in &mut sessions {
        let (before, after) = (session.half_way.unwrap(), memory(session.wire.pid));
        assert!(after < before + 96 * 1024, "{run}: {} grew from {before} to {after} kB", session.role);
        // The same backend all along.
        let pid = session.wire.pid;
        assert!(session.wire.simple(b"RESET ALL").is_some());
        assert!(
            one::<bool>(
                &mut client,
                &format!("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})")
            ),
            "{run}"
        );
    }
    drop(sessions);
    is_sound(&mut client, run);
}

/// One by one: what cannot be made again, such as a user that is of another kind now, leaves the rest.
fn seed_again(client: &mut Client) {
    for sql in SEEDS.split(';') {
        _ = client.batch_execute(sql);
    }
}

fn cfg_version() -> u32 {
    environment("PG_VERSION").parse().unwrap()
}

/// What is stored keeps every rule, and everything still works.
fn is_sound(client: &mut Client, run: &str) {
    let constraints = client
        .query(
            "SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
              WHERE connamespace = 'keywright'::regnamespace AND contype IN ('c', 'f') AND conrelid <> 0 AND conparentid = 0 ORDER BY contype, conname",
            &[],
        )
        .unwrap();
    assert!(constraints.len() > 20);
    let mut transaction = client.transaction().unwrap();
    for row in constraints {
        let (table, name, definition): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let sql = format!("ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {definition}");
        transaction.batch_execute(&sql).unwrap_or_else(|error| panic!("{run}: {sql}: {error:?}"));
    }
    transaction.rollback().unwrap();
    client.batch_execute("REINDEX SCHEMA keywright").unwrap();
    for (what, sql) in [
        (
            "keys without an event",
            "SELECT count(*) FROM keywright.api_keys AS k WHERE NOT EXISTS (SELECT FROM keywright.audit_events AS e WHERE e.id = k.key_id)",
        ),
        (
            "users without an event",
            "SELECT count(*) FROM keywright.users AS u WHERE NOT EXISTS (SELECT FROM keywright.audit_events AS e WHERE e.id = u.user_id::text)",
        ),
        (
            "gateway keys without an event",
            "SELECT count(*) FROM keywright.gateway_keys AS k WHERE NOT EXISTS (SELECT FROM keywright.audit_events AS e WHERE e.id = k.gateway_key_id::text)",
        ),
        (
            "half-superseded keys",
            "SELECT count(*) FROM keywright.api_keys WHERE (superseded_at IS NULL) <> (superseded_by IS NULL)",
        ),
        (
            "live keys of users that are deleted",
            "SELECT count(*) FROM keywright.api_keys JOIN keywright.users USING (user_id) WHERE deleted_at IS NOT NULL AND revoked_at IS NULL AND expires_at > clock_timestamp()",
        ),
    ] {
        assert_eq!(one::<i64>(client, sql), 0, "{run}: {what}");
    }
    let lists: Vec<String> = client
        .query("SELECT proname::text FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace AND (proname ~ '^list_' OR proname IN ('metrics', 'authenticator_status', 'key_usage'))", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for list in lists {
        let arguments = if list == "list_resources" { "'project'" } else { "" };
        let sql = format!("SELECT count(*) FROM keywright.{list}({arguments})");
        client.query(&sql, &[]).unwrap_or_else(|error| panic!("{run}: {sql}: {error:?}"));
    }
    for call in ["plan", "apply"] {
        let sql = format!("SELECT count(*) FROM keywright.{call}('{{\"manager\": \"nobody-else\"}}')");
        assert_eq!(one::<i64>(client, &sql), 0, "{run}: {call}");
    }
    client.batch_execute("SELECT keywright.ensure_user('the-last-one', '')").unwrap();
    let token: String = one(client, "SELECT token FROM keywright.mint_api_key('the-last-one', 'k')");
    assert!(one::<bool>(client, &format!("SELECT active FROM keywright.verify_api_key('{token}')")), "{run}");
}
