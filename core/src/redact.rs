//! Tokens taken out of text that is about to be written or shown: `kwk_AbCd...[redacted]`.
//!
//! Four characters of the public id or prefix stay, so that an operator can tell which key it was. What is redacted never
//! grows, so that a text can be changed where it lies, also where nothing can be allocated. Everything takes time that is
//! linear in the length of the text.

use crate::alphabet::is_base62;
use crate::token::{API_KEY_BRAND, GATEWAY_KEY_BRAND, GATEWAY_PREFIX_LEN, KEY_ID_LEN, SECRET_LEN};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

const BRAND_LEN: usize = API_KEY_BRAND.len();
const SHOWN: usize = 4;
/// A part of a secret that is as long is never left where something was cut.
const MATTERS: usize = 12;

/// What stands for the rest of a token: in ASCII, which is itself in the encoding of each database and each client, has as many
/// characters as bytes, and can be read as tokens of SQL also where a number or a name was taken for a token of ours.
const ELLIPSIS: &[u8] = b"...";
const WORD: &[u8] = b"[redacted]";

/// True when `text` holds a token, or so much of one that a part of its secret is in it.
#[inline]
pub fn holds_a_token(text: &[u8]) -> bool {
    next(text, 0).is_some()
}

/// Takes the tokens out of `text` and closes the gaps. Returns how long it is now.
pub fn shorten(text: &mut [u8]) -> usize {
    take_out(text, next)
}

/// Takes the tokens out of `text` and fills the gaps with spaces, so that every other character stays where it is.
pub fn blank(text: &mut [u8]) {
    fill(text, next);
}

/// Takes out what may be the end of a token where a text was cut at its front, as Postgres cuts the line of JSON that it shows:
/// whatever follows three dots and is as long as a part of a secret that matters. Returns how long it is now.
pub fn shorten_cut(text: &mut [u8]) -> usize {
    take_out_ends(text, ELLIPSIS, |_| true)
}

/// The same of what libxml tells, `line 1: ...`, with lines of XML that it cut at their front: what begins such a line, and is
/// no word of one kind of letters.
pub fn shorten_xml(text: &mut [u8]) -> usize {
    if text.starts_with(b"line ") { take_out_ends(text, b"\n", is_mixed) } else { text.len() }
}

fn take_out(text: &mut [u8], next: impl Fn(&[u8], usize) -> Option<Range<usize>>) -> usize {
    let (mut end, mut from) = (0, 0);
    while let Some(secret) = next(text, from) {
        text.copy_within(from..secret.start, end);
        end += secret.start - from;
        let written = mark(&mut text[end..][..secret.len()]);
        end += written;
        from = secret.end;
    }
    text.copy_within(from.., end);
    end + text.len() - from
}

fn fill(text: &mut [u8], next: impl Fn(&[u8], usize) -> Option<Range<usize>>) {
    let mut from = 0;
    while let Some(secret) = next(text, from) {
        let gap = &mut text[secret.clone()];
        let written = mark(gap);
        gap[written..].fill(b' ');
        from = secret.end;
    }
}

fn take_out_ends(text: &mut [u8], cut: &[u8], matters: fn(&[u8]) -> bool) -> usize {
    let (mut end, mut from) = (0, 0);
    while let Some(sign) = memchr::memmem::find(&text[from..], cut) {
        let start = from + sign + cut.len();
        let run = text[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
            .count();
        text.copy_within(from..start, end);
        end += start - from;
        from = start;
        if run >= MATTERS && matters(&text[start..][..run]) {
            text[end..][..WORD.len()].copy_from_slice(WORD);
            end += WORD.len();
            from += run;
        }
    }
    text.copy_within(from.., end);
    end + text.len() - from
}

/// Writes as much of the marker as there is room for: a token that was cut off gets the ellipsis alone.
fn mark(gap: &mut [u8]) -> usize {
    let mut end = 0;
    for part in [ELLIPSIS, WORD] {
        let Some(room) = gap.get_mut(end..end + part.len()) else { break };
        room.copy_from_slice(part);
        end += part.len();
    }
    end
}

/// What has to go of the first token that begins at `from` or later. Looks for bytes that are rare in statements.
#[inline]
fn next(text: &[u8], from: usize) -> Option<Range<usize>> {
    memchr::memchr3_iter(b'w', b'W', b'-', text.get(from..)?).find_map(|sign| {
        if text[from + sign] == b'-' {
            bare(text, from, from + sign)
        } else {
            branded(text, from, from + sign)
        }
    })
}

/// A token with `w` as the second letter of its brand.
#[inline]
fn branded(text: &[u8], from: usize, w: usize) -> Option<Range<usize>> {
    let body = w + BRAND_LEN - 1;
    if text.get(body - 1) != Some(&b'_') {
        return None;
    }
    let public = public_of(text.get(from..body)?.last_chunk::<BRAND_LEN>()?)?;
    let run = run_at(text, body);
    (run > public).then_some(body + SHOWN..body + run)
}

/// A token without a brand, whose id ends at `dash`.
#[inline]
fn bare(text: &[u8], from: usize, dash: usize) -> Option<Range<usize>> {
    let id = text.get(from..dash)?.last_chunk::<KEY_ID_LEN>()?;
    let secret = text[dash + 1..].first_chunk::<SECRET_LEN>()?;
    (is_base62(id) && is_base62(secret)).then_some(())?;
    let end = dash + 1 + SECRET_LEN;
    Some(dash - KEY_ID_LEN + SHOWN..end + run_at(text, end))
}

/// How many characters of the body are public behind this brand.
fn public_of(brand: &[u8; BRAND_LEN]) -> Option<usize> {
    if brand.eq_ignore_ascii_case(API_KEY_BRAND.as_bytes()) {
        Some(KEY_ID_LEN)
    } else if brand.eq_ignore_ascii_case(GATEWAY_KEY_BRAND.as_bytes()) {
        Some(GATEWAY_PREFIX_LEN - BRAND_LEN)
    } else {
        None
    }
}

/// How many characters of tokens there are from `start` on, up to the brand of the next one.
fn run_at(text: &[u8], start: usize) -> usize {
    let is_brand = |at: usize| text[at..].first_chunk().is_some_and(|brand| public_of(brand).is_some());
    (start..text.len())
        .take_while(|at| (text[*at].is_ascii_alphanumeric() || text[*at] == b'-') && !is_brand(*at))
        .count()
}

/// True of letters and digits of more than one kind, as what is chosen at random is.
fn is_mixed(text: &[u8]) -> bool {
    let kinds: [fn(&u8) -> bool; 3] = [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit];
    kinds.iter().filter(|kind| text.iter().any(kind)).count() > 1
}

/// Parts of the secrets that a process has seen, to know them again where a message shows a part of a token: as hashes of eight
/// characters each, in any case. A part that is shorter is neither known nor worth guessing from.
#[derive(Debug)]
pub struct Fragments {
    slots: [AtomicU32; Fragments::SLOTS],
    any: AtomicBool,
}

impl Fragments {
    const LENGTH: usize = 8;
    /// A hundred tokens fill a quarter. Parts overlap, so that one whose place was taken seldom leaves a gap.
    const SLOTS: usize = 1 << 13;

    #[allow(clippy::new_without_default, reason = "there is one, in a static")]
    pub const fn new() -> Fragments {
        Fragments { slots: [const { AtomicU32::new(0) }; Fragments::SLOTS], any: AtomicBool::new(false) }
    }

    /// Notes the tokens in a text. Words are not noted: of a name that looks like a token, they are in other texts, too.
    pub fn remember(&self, text: &[u8]) {
        let mut from = 0;
        while let Some(token) = next(text, from) {
            from = token.end;
            for secret in text[token].split(|byte| *byte == b'-').filter(|run| run.len() >= SECRET_LEN) {
                for part in secret.windows(Fragments::LENGTH).filter(|part| is_mixed(part)) {
                    if let Some((slot, hash)) = Fragments::place(part) {
                        self.slots[slot].store(hash, Relaxed);
                        self.any.store(true, Relaxed);
                    }
                }
            }
        }
    }

    /// Takes the tokens and the fragments out of `text` and closes the gaps. Returns how long it is now.
    pub fn shorten(&self, text: &mut [u8]) -> usize {
        let length = shorten(text);
        take_out(&mut text[..length], |text, from| self.next(text, from))
    }

    /// Notes the tokens in `text`, takes them and the fragments out, and fills the gaps with spaces.
    pub fn blank(&self, text: &mut [u8]) {
        self.remember(text);
        blank(text);
        fill(text, |text, from| self.next(text, from));
    }

    /// The first fragment, and those that overlap it.
    fn next(&self, text: &[u8], from: usize) -> Option<Range<usize>> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let start = (from..text.len()).find(|at| self.is_known(text, *at))?;
        let (mut at, mut end) = (start, start);
        while at <= end {
            if self.is_known(text, at) {
                end = at + Fragments::LENGTH;
            }
            at += 1;
        }
        Some(start..end)
    }

    fn is_known(&self, text: &[u8], at: usize) -> bool {
        let part = text.get(at..at + Fragments::LENGTH);
        part.and_then(Fragments::place).is_some_and(|(slot, hash)| self.slots[slot].load(Relaxed) == hash)
    }

    /// None unless all are letters and digits. A hash is never 0.
    #[inline]
    fn place(part: &[u8]) -> Option<(usize, u32)> {
        is_base62(part).then_some(())?;
        let mut letters = *part.first_chunk::<{ Fragments::LENGTH }>()?;
        letters.make_ascii_lowercase();
        let mixed = u64::from_le_bytes(letters).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        Some(((mixed >> 51) as usize, mixed as u32 | 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alphabet::OperatingSystem;
    use crate::token::{Form, mint_api_key, mint_gateway_key};
    use proptest::prelude::*;

    const API_KEY: &str = "kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3jZT8c";

    fn shortened(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let length = shorten(&mut bytes);
        bytes.truncate(length);
        String::from_utf8(bytes).unwrap()
    }

    fn blanked(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        blank(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn takes_out_tokens() {
        for (text, expected) in [
            (API_KEY, "kwk_0123...[redacted]"),
            ("a 'kwg_0123456abcdefghijklmnopqrstuvwxyz012345' b", "a 'kwg_0123...[redacted]' b"),
            ("0123456789-ABCDEFGHIJKLMNOPQRSTUV", "0123...[redacted]"),
            ("x0123456789-ABCDEFGHIJKLMNOPQRSTUVWX,", "x0123...[redacted],"),
            // In another case it is none, but shows all the same.
            ("KWK_0123456789-ABCDEFGHIJKLMNOPQRSTUV3jZT8c", "KWK_0123...[redacted]"),
            // A character lost, or too many.
            ("kwk_012345678-ABCDEFGHIJKLMNOPQRSTUV3jZT8c", "kwk_0123...[redacted]"),
            ("kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3jZT8cAAA-b c", "kwk_0123...[redacted] c"),
            // Cut off.
            ("kwk_0123456789-AB", "kwk_0123..."),
            ("kwg_0123456a", "kwg_0123..."),
        ] {
            assert_eq!(shortened(text), expected);
            assert!(holds_a_token(text.as_bytes()));
        }
        let two = format!("{API_KEY} 0123456789-ABCDEFGHIJKLMNOPQRSTUV {API_KEY}é");
        assert_eq!(shortened(&two), "kwk_0123...[redacted] 0123...[redacted] kwk_0123...[redacted]é");
        assert_eq!(shortened(&format!("kwk_{API_KEY}")), "kwk_kwk_0123...[redacted]");
        assert_eq!(shortened(&format!("kwk_abcdefghijklmn{API_KEY}")), "kwk_abcd...kwk_0123...[redacted]");
    }

    #[test]
    fn leaves_what_is_public() {
        for text in [
            "",
            "k",
            "kwk_",
            "kwk_0123456789",
            "kwg_0123456",
            "SELECT keywright.verify_api_key($1) -- kwk_ and kwg_ are the brands",
            "0123456789-ABCDEFGHIJKLMNOPQRSTU,",
            "transaction-characteristics",
            "550e8400-e29b-41d4-a716-446655440000",
            "kwk_api_key_of_somebody",
        ] {
            assert_eq!(shortened(text), text);
            assert_eq!(blanked(text), text);
            assert!(!holds_a_token(text.as_bytes()));
        }
    }

    #[test]
    fn takes_out_tokens_that_touch() {
        const GATEWAY: &str = "kwg_0123456abcdefghijklmnopqrstuvwxyz012345";
        const BARE: &str = "0123456789-ABCDEFGHIJKLMNOPQRSTUV";
        for (text, expected) in [
            (format!("{API_KEY}{GATEWAY}"), "kwk_0123...[redacted]kwg_0123...[redacted]"),
            (format!("{API_KEY}-{GATEWAY}"), "kwk_0123...[redacted]kwg_0123...[redacted]"),
            (
                format!("{GATEWAY}{GATEWAY}_{API_KEY}"),
                "kwg_0123...[redacted]kwg_0123...[redacted]_kwk_0123...[redacted]",
            ),
            (format!("{BARE}{BARE}"), "0123...[redacted]"),
            (format!("{BARE}-{BARE}{GATEWAY}"), "0123...[redacted]kwg_0123...[redacted]"),
            (format!("{BARE}_{BARE}{API_KEY}"), "0123...[redacted]_0123...[redacted]kwk_0123...[redacted]"),
        ] {
            assert_eq!(shortened(&text), expected);
        }
    }

    #[test]
    fn takes_out_what_libxml_left_of_a_token() {
        for (text, expected) in [
            (
                "line 1: Premature end\nZq7xW9vT2pLm4Rk8sYbN1c3q5Ksc..<\nconfigurations\nWord",
                "line 1: Premature end\n[redacted]..<\nconfigurations\nWord",
            ),
            ("Tables:\norder_items_2024\nOrderManagement", "Tables:\norder_items_2024\nOrderManagement"),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            let length = shorten_xml(&mut bytes);
            assert_eq!(str::from_utf8(&bytes[..length]).unwrap(), expected);
        }
    }

    #[test]
    fn knows_fragments_of_what_it_has_seen() {
        let fragments = Fragments::new();
        let text = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            let length = fragments.shorten(&mut bytes);
            bytes.truncate(length);
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(text("2pLm4Rk8"), "2pLm4Rk8");
        fragments.remember(b"SELECT 'kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc', kwk_customer_database, 'kwk_CustomerDatabase'");
        fragments.remember(b"kwk_organization-internationalizationofthedatabase");
        assert_eq!(text("column \"9vt2plm4rk8s\", 2pLm4Rk8"), "column \"...\", ...");
        assert_eq!(text("xvT2pLm4Rk8sYbN1c3q5Ksc 0a1B2c3D4e Zq7xW9v"), "x...[redacted] 0a1B2c3D4e Zq7xW9v");
        let plain = "column \"customer\" of the database, CustomerDatabase, internationalization";
        assert_eq!(text(plain), plain);
    }

    /// Eight times the text takes no more than some eight times as long.
    #[test]
    fn takes_time_that_is_linear() {
        const TOKEN: &str = "kwk_0a1B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc";
        let fragments = Fragments::new();
        fragments.remember(TOKEN.as_bytes());
        for part in [
            "kwk_",
            "0123456789-",
            "kwk_0123456789",
            "-w",
            TOKEN,
            &TOKEN[4..37],
            "...aaaaaaaaaaaa\n",
            "Zq7xW9vT2pLm4Rk8sYbN1c ",
            "Zq7xW9vT2pLm4Rk8sYbN1c",
        ] {
            let time = |length: usize| {
                let text = part.repeat(length / part.len()).into_bytes();
                let once = || {
                    let mut text = text.clone();
                    let from = std::time::Instant::now();
                    fragments.blank(&mut text.clone());
                    let length = fragments.shorten(&mut text);
                    let length = shorten_cut(&mut text[..length]);
                    shorten_xml(&mut text[..length]);
                    from.elapsed()
                };
                (0..5).map(|_| once()).min().unwrap()
            };
            let (short, long) = (time(1 << 15), time(1 << 18));
            assert!(long < 32 * short, "{part:?}: {short:?}, {long:?}");
        }
    }

    #[test]
    fn keeps_the_places() {
        let text = format!("SELECT '{API_KEY}', 2");
        let shown = blanked(&text);
        assert_eq!(shown.len(), text.len());
        assert_eq!(shown.trim_end_matches("', 2").trim_end(), "SELECT 'kwk_0123...[redacted]");
        assert!(shown.ends_with("', 2"));
    }

    #[test]
    fn takes_out_what_a_cut_left_of_a_token() {
        for (text, expected) in [
            ("...B2c3D4e-Zq7xW9vT2pLm4Rk8sYbN1c3q5Ksc\", tru...", "...[redacted]\", tru..."),
            ("line 1: ...wk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3jZT8c", "line 1: ...[redacted]"),
            (
                "...V3jZT8c\", \"a\": ...[redacted], ...a12345678901",
                "...V3jZT8c\", \"a\": ...[redacted], ...[redacted]",
            ),
            ("......", "......"),
            ("", ""),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            let length = shorten_cut(&mut bytes);
            assert_eq!(str::from_utf8(&bytes[..length]).unwrap(), expected);
        }
    }

    proptest! {
        /// Whatever is around them, nothing of a secret stays, nothing else goes, and nothing is left for another round.
        #[test]
        fn of_minted_tokens_nothing_stays(
            before in "[^A-Za-z0-9-]{0,9}", between in "[ ,;'\"()=:]{1,5}", after in "([^A-Za-z0-9-].{0,9})?",
        ) {
            let branded = mint_api_key(Form::Branded, &mut OperatingSystem).unwrap();
            let bare = mint_api_key(Form::Bare, &mut OperatingSystem).unwrap();
            let gateway = mint_gateway_key(&mut OperatingSystem).unwrap();
            let [first, second, third] = [&branded, &bare, &gateway].map(|minted| minted.token.expose());
            let text = format!("{before}{first}{between}{second}{between}{third}{after}");
            let expected = format!(
                "{before}{}...[redacted]{between}{}...[redacted]{between}{}...[redacted]{after}",
                &first[..8], &second[..4], &third[..8]
            );
            prop_assert_eq!(shortened(&text), expected.clone());
            prop_assert!(!holds_a_token(expected.as_bytes()));
            prop_assert!(!holds_a_token(blanked(&text).as_bytes()));
        }

        /// However tokens are written, and however they touch, no twelve characters of a secret stay.
        #[test]
        fn however_they_touch(
            tokens in proptest::collection::vec((0..3usize, 0..5u8, 0..8usize), 1..6),
            cut in 0..43usize, around in "[a-z ,;'\"()=\n]{0,9}",
        ) {
            let (mut text, mut secrets) = (around.clone(), Vec::new());
            for (kind, manner, join) in tokens {
                let minted = match kind {
                    0 => mint_api_key(Form::Branded, &mut OperatingSystem).unwrap(),
                    1 => mint_api_key(Form::Bare, &mut OperatingSystem).unwrap(),
                    _ => mint_gateway_key(&mut OperatingSystem).unwrap(),
                };
                let token = minted.token.expose();
                secrets.push(token[[15, 11, 11][kind]..].to_ascii_lowercase());
                text += &match manner {
                    0 => token.to_owned(),
                    1 => token.to_uppercase(),
                    2 => token.to_lowercase(),
                    3 => format!("\\\"{token}\\\""),
                    _ => format!("''{token}''"),
                };
                text += ["", "", "-", "_", "','", "\n", "\\", "..."][join];
            }
            // The last one may be cut off, but for one without a brand.
            text += &around;
            let branded = mint_api_key(Form::Branded, &mut OperatingSystem).unwrap();
            text += &branded.token.expose()[..cut];
            secrets.push(branded.token.expose()[15..].to_ascii_lowercase());
            let (short, blank) = (shortened(&text).to_ascii_lowercase(), blanked(&text).to_ascii_lowercase());
            for secret in &secrets {
                for at in 0..secret.len() - 11 {
                    let part = &secret[at..][..12];
                    prop_assert!(!short.contains(part) && !blank.contains(part), "{part} of {text}: {short}");
                }
            }
            prop_assert!(!holds_a_token(short.as_bytes()) && !holds_a_token(blank.as_bytes()), "{text}: {blank}");
        }

        /// Of a token that was seen, no part of eight characters stays, wherever it is cut.
        #[test]
        fn fragments(from in 0..39usize, length in 4..43usize, before in "[a-z0-9 ]{0,9}", after in "[A-Z_. ]{0,9}") {
            let fragments = Fragments::new();
            for minted in [mint_api_key(Form::Branded, &mut OperatingSystem), mint_gateway_key(&mut OperatingSystem)] {
                let token = minted.unwrap().token.expose().to_owned();
                fragments.remember(token.as_bytes());
                let secret = if token.as_bytes()[14] == b'-' { 15 } else { 11 };
                let text = format!("{before}{}{after}", &token[from..token.len().min(from + length)]);
                let mut short = text.clone().into_bytes();
                let end = fragments.shorten(&mut short);
                let mut blank = text.clone().into_bytes();
                fragments.blank(&mut blank);
                prop_assert_eq!(blank.len(), text.len());
                for part in token.as_bytes()[secret..].windows(8).filter(|part| is_mixed(part)) {
                    let in_it = |text: &[u8]| memchr::memmem::find(text, part).is_some();
                    prop_assert!(!in_it(&short[..end]) && !in_it(&blank), "{token} in {text}");
                }
            }
        }

        /// Any bytes at all: no panic, never longer, and what was done once is done.
        #[test]
        fn any_bytes(text in proptest::collection::vec(prop_oneof![
            4 => any::<u8>(),
            4 => proptest::sample::select(b"kwgKWG_-0aZ".to_vec()),
        ], 0..200)) {
            let mut short = text.clone();
            let length = shorten(&mut short);
            short.truncate(length);
            prop_assert!(!holds_a_token(&short));
            let cut = shorten_cut(&mut short);
            prop_assert!(cut <= length);
            prop_assert_eq!(shorten_cut(&mut short[..cut]), cut);
            let mut same = text.clone();
            blank(&mut same);
            prop_assert!(!holds_a_token(&same));
            prop_assert_eq!(holds_a_token(&text), same != text);
        }
    }
}
