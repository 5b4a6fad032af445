//! Tokens taken out of text that is about to be written or shown: `kwk_AbCd...[redacted]`.
//!
//! Four characters of the public id or prefix stay, so that an operator can tell which key it was. What is redacted never
//! grows, so that a text can be changed where it lies, also where nothing can be allocated.

use crate::alphabet::is_base62;
use crate::token::{API_KEY_BRAND, GATEWAY_KEY_BRAND, GATEWAY_PREFIX_LEN, KEY_ID_LEN, SECRET_LEN};
use std::ops::Range;

const BRAND_LEN: usize = API_KEY_BRAND.len();
const SHOWN: usize = 4;

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

/// Takes out what may be the end of a token where a text was cut at its front, as Postgres cuts the line of JSON that it shows: whatever
/// follows three dots and is as long as a part of a secret that matters. Returns how long it is now.
pub fn shorten_cut(text: &mut [u8]) -> usize {
    const MATTERS: usize = 12;
    let (mut end, mut from) = (0, 0);
    while let Some(dots) = memchr::memmem::find(&text[from..], ELLIPSIS) {
        let start = from + dots + ELLIPSIS.len();
        let run = text[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
            .count();
        text.copy_within(from..start, end);
        end += start - from;
        from = start;
        if run >= MATTERS {
            text[end..][..WORD.len()].copy_from_slice(WORD);
            end += WORD.len();
            from += run;
        }
    }
    text.copy_within(from.., end);
    end + text.len() - from
}

/// Takes the tokens out of `text` and fills the gaps with spaces, so that every other character stays where it is.
pub fn blank(text: &mut [u8]) {
    let mut from = 0;
    while let Some(secret) = next(text, from) {
        let gap = &mut text[secret.clone()];
        let written = mark(gap);
        gap[written..].fill(b' ');
        from = secret.end;
    }
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
    let brand = text.get(from..body)?.last_chunk::<BRAND_LEN>()?;
    let public = if brand.eq_ignore_ascii_case(API_KEY_BRAND.as_bytes()) {
        KEY_ID_LEN
    } else if brand.eq_ignore_ascii_case(GATEWAY_KEY_BRAND.as_bytes()) {
        GATEWAY_PREFIX_LEN - BRAND_LEN
    } else {
        return None;
    };
    let run = text[body..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    (run > public).then_some(body + SHOWN..body + run)
}

/// A token without a brand, whose id ends at `dash`.
#[inline]
fn bare(text: &[u8], from: usize, dash: usize) -> Option<Range<usize>> {
    let id = text.get(from..dash)?.last_chunk::<KEY_ID_LEN>()?;
    let (secret, rest) = text[dash + 1..].split_first_chunk::<SECRET_LEN>()?;
    (is_base62(id) && is_base62(secret)).then_some(())?;
    let more = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    Some(dash - KEY_ID_LEN + SHOWN..dash + 1 + SECRET_LEN + more)
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
        assert_eq!(
            shortened(&format!("kwk_abcdefghijklmn{API_KEY}")),
            "kwk_abcd...[redacted]_0123...[redacted]"
        );
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
            "0123456789-ABCDEFGHIJKLMNOPQRSTU",
            "550e8400-e29b-41d4-a716-446655440000",
            "kwk_api_key_of_somebody",
        ] {
            assert_eq!(shortened(text), text);
            assert_eq!(blanked(text), text);
            assert!(!holds_a_token(text.as_bytes()));
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
