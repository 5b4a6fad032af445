//! Hostile input to everything that parses or decides: valid text with a few things wrong, more than plain noise, and wherever
//! there is a second way to tell, both are asked.
//!
//! PROPTEST_CASES says how many cases each property gets; the slower ones get a part of that.

use keywright_core::authenticator::findings::findings;
use keywright_core::authenticator::graph::{Graph, Membership, Role};
use keywright_core::authenticator::ledger::Ledger;
use keywright_core::authenticator::{Desired, Oid};
use keywright_core::duration::Duration;
use keywright_core::list::{Faults, is_word};
use keywright_core::manifest::plan::plan;
use keywright_core::manifest::state::State;
use keywright_core::manifest::{read, read_all};
use keywright_core::name::Rule;
use keywright_core::permission::{self, Permission};
use keywright_core::postgrest::{self, Connection};
use keywright_core::redact::{blank, holds_a_token, shorten};
use keywright_core::registry::{Lazy, Registry, nearest};
use keywright_core::resource::{Resource, is_id};
use keywright_core::text::Kind;
use keywright_core::token::{ApiKey, GatewayKey, is_key_id};
use keywright_core::usage::{self, Packed};
use keywright_core::{allow_list, alphabet, digest, operator_name, printable, scope};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::{BTreeMap, BTreeSet};

const API_KEY: &str = "kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc";
const BARE: &str = "0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c";
const SECRET: &str = "Zq7xW9vT2pLm4Rk8sYbN1c";

/// What the whole suite gives each property, or a part of what the environment asks for.
fn cases(part: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").map(|_| ProptestConfig::default().cases);
    ProptestConfig::with_cases(asked.unwrap_or(20_000).div_ceil(part))
}

/// Bits of what somebody might send, right and wrong.
const BITS: [&str; 60] = [
    API_KEY,
    BARE,
    "kwk_",
    "kwg_",
    "KWK_",
    "kwk",
    "kwg_0123456",
    "0123456789",
    SECRET,
    "3q5Ksc",
    "-",
    "--",
    "_",
    ":",
    "*",
    "*:*",
    "a:b",
    "project",
    "project:read",
    "Project",
    "agent",
    "all",
    "owner",
    "ci-bot",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{200b}",
    "\u{202e}",
    "\u{feff}",
    "é",
    "ﬀ",
    "İ",
    "ſ",
    "K",
    "аеорс",
    "０",
    "🔑",
    "'",
    "\"",
    "\\",
    "$",
    "$$",
    "';--",
    "/*",
    "%",
    "%s",
    "{}",
    ",",
    "@",
    "a@b",
    "[redacted]",
    "…",
    "a",
];

/// A few bits, whole or repeated, with bytes in between that are in no encoding.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let bit = prop_oneof![
        6 => select(&BITS[..]).prop_map(|bit| bit.as_bytes().to_vec()),
        3 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => (select(&BITS[..]), 0usize..40).prop_map(|(bit, times)| bit.repeat(times).into_bytes()),
    ];
    (proptest::collection::vec(bit, 0..6), slips(3)).prop_map(|(bits, slips)| slipped(bits.concat(), &slips))
}

fn text() -> impl Strategy<Value = String> {
    bytes().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

type Slip = (u8, Index, Index, u8);

fn slips(most: usize) -> impl Strategy<Value = Vec<Slip>> {
    proptest::collection::vec((0u8..8, any::<Index>(), any::<Index>(), any::<u8>()), 0..=most)
}

/// With a few slips: a byte changed, lost, too many, in the other case, two swapped, a part lost or twice.
fn slipped(mut text: Vec<u8>, slips: &[Slip]) -> Vec<u8> {
    for (what, place, other, byte) in slips {
        if text.is_empty() || *what == 0 {
            let at = place.index(text.len() + 1);
            text.insert(at, *byte);
            continue;
        }
        let (at, to) = (place.index(text.len()), other.index(text.len()));
        let part = at.min(to)..at.max(to);
        match what {
            1 => text[at] = *byte,
            2 => text[at] ^= 0x20,
            3 => _ = text.remove(at),
            4 => text.swap(at, to),
            5 => _ = text.drain(part),
            6 => {
                let again = text[part].to_vec();
                text.splice(at..at, again);
            }
            _ => text.truncate(at),
        }
    }
    text
}

/// One of these, as it is or with a few slips.
fn nearly(right: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (select(right), slips(3)).prop_map(|(text, slips)| slipped(text.as_bytes().to_vec(), &slips))
}

fn nearly_text(right: &'static [&'static str]) -> impl Strategy<Value = String> {
    nearly(right).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn digit(number: u64) -> u8 {
    match number {
        0..10 => b'0' + number as u8,
        10..36 => b'A' + number as u8 - 10,
        _ => b'a' + number as u8 - 36,
    }
}

/// CRC32 bit by bit, and its digits by division.
fn checksum(text: &[u8]) -> Vec<u8> {
    let mut sum = u32::MAX;
    for byte in text {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    let sum = u64::from(!sum);
    (0..6).rev().map(|place| digit(sum / 62u64.pow(place) % 62)).collect()
}

/// A body with its right checksum, so that what is behind the checksum is reached.
fn with_checksum(mut body: Vec<u8>) -> Vec<u8> {
    body.extend(checksum(&body));
    body
}

/// The id and the secret, by the words of the documentation.
fn api_key(token: &[u8]) -> Option<(&str, &str)> {
    let text = str::from_utf8(token).ok()?;
    let bare = match text.len() {
        43 if text.starts_with("kwk_") && text.as_bytes()[37..] == checksum(&token[..37]) => {
            text.get(4..37)?
        }
        33 => text,
        _ => return None,
    };
    let (id, secret) = bare.split_once('-')?;
    let right = |part: &str, length| part.len() == length && part.chars().all(|c| c.is_ascii_alphanumeric());
    (right(id, 10) && right(secret, 22)).then_some((id, secret))
}

fn is_gateway_key(token: &[u8]) -> bool {
    let body = token.len() == 43 && token.starts_with(b"kwg_") && token[37..] == checksum(&token[..37]);
    body && token[4..37].iter().all(u8::is_ascii_alphanumeric)
}

fn word(text: &str) -> bool {
    let mut letters = text.chars();
    (1..=63).contains(&text.len())
        && letters.next().is_some_and(|c| c.is_ascii_lowercase())
        && letters.all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | '-'))
}

/// Groups of letters and digits with one of these between.
fn joined(text: &str, joints: &[char]) -> bool {
    let letter = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase();
    text.len() <= 64 && text.split(joints).all(|group| !group.is_empty() && group.chars().all(letter))
}

fn id(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 256
        && !text.contains(|c: char| c == '*' || c.is_whitespace() || c.is_control())
}

/// No message may have the secret, in any case.
fn shows_no_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    !text.contains("zq7xw9vt2plm4rk8sybn")
}

fn registry() -> Lazy<fn() -> Registry> {
    Lazy::new(|| {
        Registry::new(
            ["project", "agent", "a"].map(String::from),
            ["all", "deploy", "ci:deploy"].map(String::from),
        )
    })
}

fn as_list(list: &[Vec<u8>]) -> Vec<Option<&[u8]>> {
    list.iter().map(|entry| Some(entry.as_slice())).collect()
}

fn no_secret_in(faults: &Faults) -> bool {
    faults.sentences.iter().chain(&faults.nearest).all(|sentence| shows_no_secret(sentence))
}

const PERMISSIONS: [&str; 14] = [
    "project:read",
    "project:*",
    "*:read",
    "*:*",
    "agent:run",
    "a:b",
    "A:B ",
    " a:*",
    "all",
    "deploy",
    "ci:deploy",
    "projct:read",
    API_KEY,
    "a:kwg_",
];
const ENTRIES: [&str; 10] =
    ["project:p1", "project:*", "*:p1", "*:*", "agent:A:b", " a:é", "a:", ":a", "agnt:1", BARE];
const NAMES: [&str; 12] = [
    "ci-bot",
    "a",
    "A-1",
    "0",
    "project",
    "ci:deploy",
    "a.b_c-d",
    "p-1",
    "é",
    API_KEY,
    "abcdefghijklmnopqrstuvwxyz012345",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl",
];

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn tokens_are_parsed_as_documented(token in prop_oneof![
        nearly(&[API_KEY, BARE]),
        nearly(&["kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c", "kwg_0123456abcdefghijklmnopqrstuvwxyz"]).prop_map(with_checksum),
        bytes(),
    ]) {
        let parsed = ApiKey::parse(&token);
        let expected = api_key(&token);
        prop_assert_eq!(parsed.map(|key| key.id()), expected.map(|(id, _)| id));
        if let (Some(key), Some((_, secret))) = (parsed, expected) {
            prop_assert_eq!(key.digest(), digest::of(secret.as_bytes()));
            let shown = format!("{key:?}");
            prop_assert!(!shown.contains(secret));
            prop_assert!(holds_a_token(&token));
        }
        let gateway = GatewayKey::parse(&token);
        prop_assert_eq!(gateway.is_some(), is_gateway_key(&token));
        if let Some(key) = gateway {
            prop_assert_eq!(key.prefix().as_bytes(), &token[..11]);
            prop_assert_eq!(key.digest(), digest::of(&token));
            let shown = format!("{key:?}");
            prop_assert!(!shown.as_bytes().windows(26).any(|part| part == &token[11..37]));
            prop_assert!(holds_a_token(&token));
        }
    }

    #[test]
    fn checksums_and_ids_as_documented(text in bytes(), key_id in nearly(&["0123456789", "zzzzzzzzzz", "0000000000"])) {
        prop_assert_eq!(alphabet::checksum(&text).to_vec(), checksum(&text));
        prop_assert_eq!(alphabet::is_base62(&text), text.iter().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')));
        let right = key_id.len() == 10 && key_id.iter().all(u8::is_ascii_alphanumeric);
        prop_assert_eq!(is_key_id(&key_id), right);
        let number = Packed::of(&key_id);
        prop_assert_eq!(number.is_some(), right);
        if let Some(packed) = number {
            let digits: Vec<u8> = (0..10).rev().map(|place| digit((packed.number() - 1) / 62u64.pow(place) % 62)).collect();
            prop_assert_eq!(&digits, &key_id);
            prop_assert_eq!(packed.id().into_bytes(), key_id);
            prop_assert_eq!(Packed::from_number(packed.number()), Some(packed));
        }
    }

    #[test]
    fn digests_match_their_own_bytes(text in bytes(), slips in slips(2)) {
        let computed = digest::of(&text);
        let stored = slipped(computed.to_vec(), &slips);
        prop_assert_eq!(digest::matches(&computed, &stored), computed.as_slice() == stored);
    }

    #[test]
    fn names_follow_their_rule(name in prop_oneof![3 => nearly(&NAMES), 1 => bytes()]) {
        let text = str::from_utf8(&name).ok();
        for rule in Rule::ALL {
            let expected = text.is_some_and(|text| match rule {
                Rule::Username => joined(text, &['-', '_', '.']),
                Rule::ResourceType => word(text),
                Rule::ScopeName => text.split_once(':').map_or(word(text), |(left, right)| word(left) && word(right)),
                Rule::ResourceId => id(text),
                _ => joined(text, &['-']),
            });
            match rule.check(&name) {
                // What may be a token is refused though its form is right; no form but an id's leaves room for one.
                Ok(accepted) => prop_assert!(expected && Some(accepted) == text, "{:?}", rule),
                Err(broken) => {
                    prop_assert!(!expected || holds_or_looks(&name), "{:?} {:?}", rule, broken);
                    for part in [&broken.message, &broken.detail, &broken.hint] {
                        prop_assert!(shows_no_secret(part), "{}", part);
                        prop_assert!(part.is_ascii(), "{}", part);
                    }
                    prop_assert!(!broken.detail.is_empty());
                }
            }
        }
    }

    #[test]
    fn what_is_quoted_is_short_plain_and_no_token(value in bytes()) {
        let shown = printable::quoted(&value);
        prop_assert!(shown.len() <= 64 + 5);
        prop_assert!(shown.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        prop_assert!(!holds_a_token(shown.as_bytes()));
        if holds_a_token(&value) {
            prop_assert_eq!(shown, "\"[redacted]\"");
        }
    }

    #[test]
    fn words_are_refused_without_repeating_them(value in prop_oneof![nearly(&["a@b", "control-plane/a.1", "left the company", API_KEY]), bytes()]) {
        let control = value.iter().any(|byte| *byte < 32 || *byte == 127);
        let graphic = value.iter().all(|byte| (33..127).contains(byte));
        let at: Vec<usize> = (0..value.len()).filter(|at| value[*at] == b'@').collect();
        let email = value.is_empty() || (at.len() == 1 && at[0] > 0 && at[0] + 1 < value.len() && !value.contains(&b' '));
        for (kind, most, form) in [
            (Kind::Email, 254, email),
            (Kind::DisplayName, 128, true),
            (Kind::Manager, 63, graphic && !value.is_empty()),
            (Kind::Reason, 512, true),
        ] {
            let fault = kind.fault(&value);
            if !holds_or_looks(&value) {
                prop_assert_eq!(fault.is_none(), !control && form && value.len() <= most, "{:?}", kind);
            }
            if let Some(sentence) = fault {
                prop_assert!(shows_no_secret(&sentence));
            } else {
                prop_assert!(!holds_a_token(&value));
            }
        }
    }

    #[test]
    fn permissions_come_back_as_they_were_read(text in prop_oneof![3 => nearly_text(&PERMISSIONS), 1 => text()], other in nearly_text(&PERMISSIONS)) {
        let trimmed = text.trim().to_ascii_lowercase();
        let side = |part: &str| part == "*" || word(part);
        let expected = trimmed.split_once(':').is_some_and(|(kind, action)| side(kind) && side(action));
        let parsed = Permission::parse(&text);
        prop_assert_eq!(parsed.is_some(), expected);
        prop_assert_eq!(is_word(&text), word(&text));
        prop_assert_eq!(scope::is_name(&text), text.split_once(':').map_or(word(&text), |(left, right)| word(left) && word(right)));
        if let Some(permission) = parsed {
            prop_assert_eq!(permission.to_string(), trimmed);
            prop_assert!(permission.covers(&permission));
            prop_assert!(Permission::parse("*:*").unwrap().covers(&permission));
            if let Some(other) = Permission::parse(&other) && permission.covers(&other) && other.covers(&permission) {
                prop_assert_eq!(permission, other);
            }
        }
    }

    #[test]
    fn resources_and_entries_come_back_as_they_were_read(text in prop_oneof![3 => nearly_text(&ENTRIES), 1 => text()]) {
        let parts = text.trim().split_once(':').map(|(kind, id)| (kind.to_ascii_lowercase(), id));
        let right = parts.as_ref().is_some_and(|(kind, of)| word(kind) && id(of));
        let resource = Resource::parse(&text);
        prop_assert_eq!(resource.is_some(), right);
        prop_assert_eq!(is_id(&text), id(&text));
        let entry = allow_list::Entry::parse(&text);
        let wild = parts.as_ref().is_some_and(|(kind, of)| (kind == "*" || word(kind)) && (*of == "*" || id(of)));
        prop_assert_eq!(entry.is_some(), wild);
        if let Some(entry) = entry {
            prop_assert_eq!(allow_list::Entry::parse(&entry.to_string()), Some(entry.clone()));
            prop_assert_eq!(entry.resource(), resource.clone());
            prop_assert!(entry.covers(&entry));
        }
        if let Some(resource) = resource {
            prop_assert_eq!(Resource::parse(&resource.to_string()), Some(resource));
        }
    }

    #[test]
    fn the_nearest_word_is_near(word in nearly_text(&["project", "agent", "session", ""]), known in proptest::collection::vec(nearly_text(&["project", "agent"]), 0..4)) {
        let found = nearest(&word, &known);
        prop_assert!(found.is_none_or(|found| known.iter().any(|word| word == found)));
        if known.contains(&word) && word.len() <= 256 {
            prop_assert_eq!(found, Some(word.as_str()));
        }
        // One slip of the pen is always forgiven.
        if word.chars().count() > 1 {
            let shorter: String = word.chars().skip(1).collect();
            prop_assert!(word.len() > 256 || nearest(&word, &[shorter]).is_some());
        }
    }

    #[test]
    fn names_of_operators_keys(namespace in bytes(), name in bytes(), prefix in nearly(&["coder-k8s-operator-", "a-", "A-", "-", ""])) {
        let mut hash = 0xcbf2_9ce4_8422_2325u128;
        for byte in namespace.iter().chain(b"\0").chain(&name) {
            hash = ((hash ^ u128::from(*byte)) * 0x0100_0000_01b3) & u128::from(u64::MAX);
        }
        let user = str::from_utf8(&prefix).ok().and_then(|prefix| prefix.strip_suffix('-')).filter(|user| user.len() < 48 && joined(user, &['-']));
        prop_assert_eq!(operator_name::username(&prefix), user);
        match operator_name::key_name(&namespace, &name, &prefix) {
            Ok(made) => {
                prop_assert_eq!(&made, &format!("{}-{hash:016x}", user.unwrap()));
                prop_assert!(Rule::ApiKeyName.check(made.as_bytes()).is_ok());
            }
            Err(faults) => {
                let blank = |text: &[u8]| text.iter().all(u8::is_ascii_whitespace);
                prop_assert_eq!(faults.len(), usize::from(blank(&namespace)) + usize::from(blank(&name)) + usize::from(user.is_none()));
                prop_assert!(faults.iter().all(|(_, sentence)| shows_no_secret(sentence)));
            }
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_read(text in prop_oneof![
        nearly_text(&["30 days", "1 year 6 months", "1 week", "2147483647 days", "9223372036854775807 seconds", "178956970 years 7 months", "5 hours 3 minutes"]),
        text(),
    ]) {
        if let Ok(duration) = interval(&text) {
            prop_assert_eq!(interval(&duration.to_string()), Ok(duration));
        }
    }

    #[test]
    fn redacted_as_a_slower_reader_would(text in prop_oneof![
        nearly(&[
            "kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc 0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c", "kwg_0123456abcdefghijklmnopqrstuvwxyz012345'KWK_0123456789-ABC",
            "x-0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c-0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c",
            "kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksckwg_0123456abcdefghijklmnopqrstuvwxyz012345-kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc",
        ]),
        bytes(),
    ]) {
        let secrets = secrets(&text);
        prop_assert_eq!(holds_a_token(&text), !secrets.is_empty());
        let (mut short, mut places, mut from) = (Vec::new(), Vec::new(), 0);
        for secret in &secrets {
            let room = secret.len();
            let mark = match room {
                0..3 => "",
                3..13 => "...",
                _ => "...[redacted]",
            };
            short.extend(&text[from..secret.start]);
            short.extend(mark.bytes());
            places.extend(&text[from..secret.start]);
            places.extend(format!("{mark}{}", " ".repeat(room - mark.len())).bytes());
            from = secret.end;
        }
        short.extend(&text[from..]);
        places.extend(&text[from..]);
        let mut shortened = text.clone();
        let length = shorten(&mut shortened);
        prop_assert!(length <= text.len());
        prop_assert_eq!(&shortened[..length], short.as_slice());
        let mut blanked = text.clone();
        blank(&mut blanked);
        prop_assert_eq!(&blanked, &places);
        prop_assert!(!holds_a_token(&short) && !holds_a_token(&places));
    }

    #[test]
    fn a_file_of_usage_is_read_whole_or_not_at_all(entries in 0usize..4, slips in slips(3), mended in any::<bool>()) {
        let key = Packed::of(b"0123456789").unwrap();
        let noted = usage::Noted { database: 5, key, used: usage::NEVER, presented: 7 };
        let mut file = slipped(usage::encode(&vec![noted; entries]), &slips);
        if mended && file.len() >= 12 {
            // As if the sum were right, so that what is behind it is looked at.
            let end = file.len() - 4;
            let mut sum = u32::MAX;
            for byte in &file[..end] {
                sum ^= u32::from(*byte);
                for _ in 0..8 {
                    sum = (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
                }
            }
            file.splice(end.., (!sum).to_le_bytes());
        }
        if let Ok(read) = usage::decode(&file) {
            prop_assert_eq!(usage::encode(&read), file);
        }
    }
}

/// What `looks_like_a_token` may refuse, by what is documented.
fn holds_or_looks(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    let brand = lower.windows(4).any(|part| part == b"kwk_" || part == b"kwg_");
    brand || value.windows(33).any(|part| api_key(part).is_some())
}

/// Of the intervals of Postgres those that are groups of a number and a unit.
fn interval(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "It must be an interval.";
    let (months, days, micros) = added_up(text).ok_or(FORM)?;
    Duration::new(months, days, micros)
}

/// Months, days and microseconds.
fn added_up(text: &str) -> Option<(i32, i32, i64)> {
    let words: Vec<&str> = text.split(' ').collect();
    let (mut months, mut days, mut micros) = (0i128, 0i128, 0i128);
    if words.len() % 2 == 1 {
        return None;
    }
    for pair in words.chunks(2) {
        if pair[0].is_empty() || pair[0].contains(|c: char| !c.is_ascii_digit()) {
            return None;
        }
        let count: i128 = pair[0].parse().ok().filter(|count| *count <= i64::MAX.into())?;
        let unit = pair[1].strip_suffix('s').unwrap_or(pair[1]);
        match unit {
            "year" => months += count * 12,
            "month" => months += count,
            "week" => days += count * 7,
            "day" => days += count,
            "hour" => micros += count * 3_600_000_000,
            "minute" => micros += count * 60_000_000,
            "second" => micros += count * 1_000_000,
            _ => return None,
        }
    }
    let fits = months <= i32::MAX.into() && days <= i32::MAX.into() && micros <= i64::MAX.into();
    fits.then_some((months as i32, days as i32, micros as i64))
}

/// What has to go of every token: of those that may begin, the one whose brand or id ends first.
fn secrets(text: &[u8]) -> Vec<std::ops::Range<usize>> {
    let brand = |at: usize| text[at..].get(..4).map(<[u8]>::to_ascii_lowercase);
    // Up to the next token, which may touch this one.
    let run = |start: usize| {
        (start..text.len())
            .take_while(|at| text[*at].is_ascii_alphanumeric() || text[*at] == b'-')
            .take_while(|at| !matches!(brand(*at).as_deref(), Some(b"kwk_" | b"kwg_")))
            .count()
    };
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let mut next: Option<(usize, std::ops::Range<usize>)> = None;
        for start in from..text.len() {
            let rest = &text[start..];
            let public = match brand(start).as_deref() {
                Some(b"kwk_") => 10,
                Some(b"kwg_") => 7,
                _ => usize::MAX,
            };
            let candidate = if public != usize::MAX {
                let run = run(start + 4);
                (run > public).then(|| (start + 3, start + 8..start + 4 + run))
            } else if rest.len() >= 33 && api_key(&rest[..33]).is_some() {
                Some((start + 10, start + 4..start + 33 + run(start + 33)))
            } else {
                None
            };
            if let Some((sign, secret)) = candidate
                && next.as_ref().is_none_or(|(first, _)| sign < *first)
            {
                next = Some((sign, secret));
            }
        }
        let Some((_, secret)) = next else { return found };
        from = secret.end;
        found.push(secret);
    }
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn lists_keep_their_meaning(
        list in proptest::collection::vec(prop_oneof![4 => nearly(&PERMISSIONS), 4 => select(&PERMISSIONS[..11]).prop_map(|text| text.as_bytes().to_vec()), 1 => bytes()], 0..6),
        asked in select(&["project:read", "agent:run", "a:b", "x:y"][..]),
    ) {
        let asked = Permission::parse(asked).unwrap();
        let covers = |text: &[u8]| str::from_utf8(text).ok().and_then(Permission::parse).is_some_and(|it| it.covers(&asked));
        match permission::normalize(&as_list(&list), &registry()) {
            Ok(normal) => {
                let again: Vec<Vec<u8>> = normal.iter().map(|text| text.clone().into_bytes()).collect();
                prop_assert_eq!(permission::normalize(&as_list(&again), &registry()), Ok(normal.clone()));
                prop_assert_eq!(list.iter().any(|text| covers(text)), again.iter().any(|text| covers(text)));
                prop_assert!(normal.is_sorted() && normal.len() <= list.len());
            }
            Err(faults) => prop_assert!(!faults.is_empty() && no_secret_in(&faults)),
        }
        match scope::normalize(&as_list(&list), &registry()) {
            Ok(normal) => {
                let again: Vec<Vec<u8>> = normal.iter().map(|text| text.clone().into_bytes()).collect();
                prop_assert_eq!(scope::normalize(&as_list(&again), &registry()), Ok(normal));
                let everything = |text: &[u8]| String::from_utf8_lossy(text).trim().eq_ignore_ascii_case("all");
                let all = |list: &[Vec<u8>]| list.iter().any(|text| everything(text) || covers(text));
                prop_assert_eq!(all(&list), all(&again));
            }
            Err(faults) => prop_assert!(!faults.is_empty() && no_secret_in(&faults)),
        }
    }

    #[test]
    fn allow_lists_keep_their_meaning(
        list in proptest::collection::vec(prop_oneof![4 => nearly(&ENTRIES), 4 => select(&ENTRIES[..6]).prop_map(|text| text.as_bytes().to_vec()), 1 => bytes()], 0..6),
    ) {
        let permits = |list: &[Vec<u8>], kind: &str, id: &str| {
            list.iter().filter_map(|text| allow_list::Entry::parse(str::from_utf8(text).ok()?)).any(|entry| entry.permits(kind, id))
        };
        match allow_list::normalize(&as_list(&list), &registry()) {
            Ok(normal) => {
                let again: Vec<Vec<u8>> = normal.iter().map(|text| text.clone().into_bytes()).collect();
                prop_assert_eq!(allow_list::normalize(&as_list(&again), &registry()), Ok(normal));
                for (kind, id) in [("project", "p1"), ("project", "p2"), ("agent", "A:b"), ("a", "é"), ("a", "*")] {
                    prop_assert_eq!(permits(&list, kind, id), permits(&again, kind, id), "{}:{}", kind, id);
                }
            }
            Err(faults) => prop_assert!(!faults.is_empty() && no_secret_in(&faults)),
        }
    }

    #[test]
    fn settings_of_postgrest(
        key in prop_oneof![3 => select(&["db_max_rows", "db_pre_request", "jwt_aud", "db_plan_enabled", "db_tx_end", "server_cors_allowed_origins", "openapi_server_proxy_uri", "jwt_secret"][..]).prop_map(String::from), 1 => text()],
        value in prop_oneof![nearly_text(&["1000", "true", "commit", "https://a/b", "x, y", "api.check", "+7", "00001", API_KEY]), text()],
    ) {
        match postgrest::check(&BTreeMap::from([(key.clone(), Some(value.clone()))]), &BTreeMap::new()) {
            Ok(checked) => {
                prop_assert_eq!(postgrest::check(&checked, &BTreeMap::new()), Ok(checked.clone()));
                let stored = checked[&key].clone().unwrap();
                prop_assert!(!stored.contains(|c: char| c.is_control()) && !holds_a_token(stored.as_bytes()));
                let known = postgrest::in_database(&BTreeMap::from([(key, stored)]), Some("anon"), &["api".into()]);
                prop_assert_eq!(&known["db_anon_role"], "anon");
            }
            Err(sentences) => prop_assert!(sentences.len() == 1 && shows_no_secret(&sentences[0])),
        }
    }

    #[test]
    fn a_configuration_has_a_line_for_each_setting(
        user in text(), database in text(), role in text(), schema in text(), secret in text(),
        host in prop_oneof![nearly_text(&["db:5432", "[::1]:5433", "/run/x", "db.example.org", "10.0.0.1"]), text()],
        parameter in nearly_text(&["sslmode", "password", "application_name"]),
    ) {
        let connection = Connection {
            user, database, hosts: vec![host.clone()], target_session_attrs: "any".into(),
            parameters: BTreeMap::from([(parameter, secret.clone())]),
        };
        let faults = connection.faults();
        prop_assert!(faults.iter().all(|(_, sentence)| shows_no_secret(sentence)));
        if faults.is_empty() {
            let file = postgrest::render(&connection, Some(&secret), Some(&secret), Some(&role), &[schema], None, &BTreeMap::new());
            prop_assert_eq!(file.lines().filter(|line| line.contains(" = ")).count(), 6);
            prop_assert!(file.lines().all(|line| line.contains(" = ") || line.starts_with("# db-pre-request ")));
            let uri = file.lines().next().unwrap();
            prop_assert_eq!(uri.matches('@').count(), 1);
            prop_assert!(uri.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            // A host never brings in a part of the URI of its own.
            prop_assert!(host.starts_with('/') || !host.contains(['?', '#', '@', ',', '&', ' ']));
        }
        _ = (postgrest::secret_fault(&host, true), postgrest::secret_fault(&host, false));
    }

    #[test]
    fn a_ledger_comes_back_or_is_none(slips in slips(3)) {
        const LEDGER: &str = r#"{"system":"7","entries":[{"kind":"membership","member":{"oid":1,"name":"é\ud83d\udd11"},"object":{"oid":2,"name":"anon"},"made":true,"mark":9,"claims":[{"database":{"oid":5,"name":"shop"},"service":"rest","member":"app","object":"anon"}]},{"kind":"connect","member":{"oid":1,"name":"app"},"object":{"oid":5,"name":"shop"},"made":false,"claims":[]}]}"#;
        if let Some(ledger) = Ledger::parse(&slipped(LEDGER.as_bytes().to_vec(), &slips)) {
            let json = ledger.to_json();
            prop_assert!(json.is_ascii());
            prop_assert_eq!(Ledger::parse(json.as_bytes()), Some(ledger.clone()));
            prop_assert_eq!(&ledger.clone().moved_to(&ledger.system, |_| None, |_| None), &ledger);
            let gone = ledger.clone().moved_to("another", |_| None, |_| None);
            prop_assert!(gone.entries.is_empty());
            let mut pruned = ledger.clone();
            pruned.prune(|oid| oid != 2, |oid| oid == 5);
            let mut again = pruned.clone();
            again.prune(|oid| oid != 2, |oid| oid == 5);
            prop_assert_eq!(again, pruned);
        }
    }

    #[test]
    fn roles_that_are_reached(
        edges in proptest::collection::vec((0u32..6, 0u32..6, any::<bool>(), any::<bool>()), 0..10),
        powers in proptest::collection::vec(any::<u16>(), 6),
        names in proptest::collection::vec(text(), 6),
        picks in proptest::collection::vec(0usize..7, 3),
        options in any::<bool>(),
    ) {
        let mut graph = Graph::default();
        for (oid, (power, name)) in powers.iter().zip(&names).enumerate() {
            let has = |bit: u16| power & 1 << bit != 0 && power & 0x100 != 0;
            let role = Role {
                name: name.clone(), unreadable: has(0), login: power & 2 != 0, superuser: has(2), create_role: has(3), create_db: has(4),
                replication: has(5), bypass_rls: has(6), inherit: power & 4 != 0, owner: has(7), expired: has(9), closed: has(10),
                ..Role::default()
            };
            graph.roles.insert(oid as Oid, role);
        }
        for (role, member, set, inherit) in edges {
            graph.memberships.push(Membership { role, member, grantor: 0, admin: false, inherit, set, xmin: 1 });
        }
        // By closure instead of by search.
        for start in 0..6 {
            let mut reached = BTreeSet::from([start]);
            for _ in 0..6 {
                let more: Vec<Oid> = graph.memberships.iter().filter(|edge| reached.contains(&edge.member)).map(|edge| edge.role).collect();
                reached.extend(more);
            }
            reached.remove(&start);
            let found = graph.reached(start, |_| true);
            prop_assert_eq!(found.len(), reached.len());
            for (role, chain) in found {
                prop_assert!(reached.contains(&role) && chain.last() == Some(&role));
            }
        }
        let name = |at: usize| names.get(at).cloned().unwrap_or_else(|| "nobody".into());
        let desired = Desired::new("rest".into(), name(picks[0]), Some(name(picks[1])), vec![name(picks[2])], vec!["api".into()], true);
        for finding in findings(&graph, &desired, |name| graph.find(name), options) {
            prop_assert!(shows_no_secret(&finding.message), "{}", finding.message);
            prop_assert!(!finding.code.is_empty() && !finding.hint.is_empty());
        }
    }
}

const MANIFEST: &str = r#"{"manager":"m","prune":true,"adopt":false,
"resource_types":[{"type":"workspace","parent_type":"project"},{"type":"box","parent_type":null}],
"resources":[{"type":"project","id":"p1","parent_id":"acme"},{"type":"workspace","id":"w:1","parent_id":"p1","name":"Zoë's"}],
"roles":[{"name":"deployer","permissions":["project:read","workspace:*"],"level":2}],
"scopes":[{"name":"ci:deploy","permissions":["*:*"]}],
"users":[{"username":"Ann","kind":"human","email":"a@b","display_name":"Ann","db_role":"ann"},{"username":"sys","kind":"system","roles":["auditor"],"organization_role":"deployer"}],
"bindings":[{"username":"ann","role":"auditor","resource_type":"workspace","resource_id":"w:1"}],
"api_keys":[{"username":"ann","name":"k","scopes":["all"],"allow_list":["*:*"],"lifetime":"2 weeks","renew_before":"3 days","existing_token":"kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc"}],
"gateway_keys":[{"name":"g","existing_token":null}],
"authenticators":[{"service":"rest","connect_as":"app","anon_role":"anon","jwt_roles":["user"],"schemas":["api"],"noinherit":false}]}"#;

/// The JSON texts in a manifest, and what may stand in their place.
fn replaced(text: &str, place: Index, with: &str) -> String {
    let mut values: Vec<std::ops::Range<usize>> = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if inside => {
                values.push(start..at + 1);
                inside = false;
            }
            b'"' => (start, inside) = (at, true),
            _ => (),
        }
    }
    let at = values[place.index(values.len())].clone();
    format!("{}{with}{}", &text[..at.start], &text[at.end..])
}

const VALUES: [&str; 26] = [
    "null",
    "true",
    "[]",
    "{}",
    "0",
    "-1",
    "1e308",
    "1e-400",
    "99999999999999999999",
    "0.5",
    "[null]",
    "[[[[]]]]",
    "\"\"",
    "\" \"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"*:*\"",
    "\"manager\"",
    "\"ann\"",
    "\"project\"",
    "\"a:b\"",
    "{\"a\":1,\"a\":2}",
    "\"2147483648 days\"",
    "\"İ\"",
    "\"kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc\"",
    "[\"kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc\"]",
];

proptest! {
    #![proptest_config(cases(10))]

    #[test]
    fn manifests_with_something_wrong(
        values in proptest::collection::vec((any::<Index>(), select(&VALUES[..])), 0..3),
        slips in prop_oneof![2 => Just(Vec::new()), 1 => slips(3)],
    ) {
        let mut document = MANIFEST.to_owned();
        for (place, with) in values {
            document = replaced(&document, place, with);
        }
        let document = slipped(document.into_bytes(), &slips);
        let (partly, all) = read_all(&document, interval);
        match read(&document, interval) {
            Ok(mut manifest) => {
                prop_assert!(all.is_empty() && partly.as_ref() == Some(&manifest));
                let known = Registry::new(["project", "organization"].map(String::from), ["all".to_owned()]);
                let faults = manifest.normalize(&known);
                prop_assert!(faults.iter().all(|fault| shows_no_secret(&fault.sentence) && shows_no_secret(&fault.path)));
                if faults.is_empty() {
                    let once = manifest.clone();
                    prop_assert!(manifest.normalize(&known).is_empty());
                    prop_assert_eq!(&manifest, &once);
                }
                let planned = plan(&manifest, &State::default());
                prop_assert_eq!(planned.is_err(), plan(&manifest, &State::default()).is_err());
            }
            Err(faults) => {
                prop_assert_eq!(&faults, &all);
                prop_assert!(!faults.is_empty());
                for fault in faults {
                    prop_assert!(fault.path.starts_with('$'));
                    prop_assert!(shows_no_secret(&fault.path) && shows_no_secret(&fault.sentence), "{:?}", fault);
                }
            }
        }
    }
}

/// What was found: a secret without its id, in lower case, in what was said to be meant or to be right.
#[test]
fn a_lone_secret_is_not_repeated_in_another_spelling() {
    let lone = SECRET.as_bytes();
    for rule in Rule::ALL {
        for name in [[lone, b"_"].concat(), [b" ", lone].concat(), [lone, b"-0123456789-"].concat()] {
            if let Err(broken) = rule.check(&name) {
                assert!(shows_no_secret(&format!("{broken:?}")), "{broken:?}");
            }
        }
    }
    for list in [[lone, b":read"].concat(), [b"projct:", lone].concat(), [b"projct:", lone, b"-x"].concat()] {
        let list = as_list(std::slice::from_ref(&list));
        assert!(no_secret_in(&permission::normalize(&list, &registry()).unwrap_err()));
        assert!(no_secret_in(&scope::normalize(&list, &registry()).unwrap_err()));
    }
    let entry = [lone, b":1"].concat();
    assert!(no_secret_in(&allow_list::normalize(&[Some(&entry)], &registry()).unwrap_err()));
}
