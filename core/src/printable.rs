//! A caller's words, made fit for an error message.
//!
//! Arguments get mixed up, and errors reach logs: what might be a token is never repeated.

use crate::alphabet::is_base62;
use crate::token::{API_KEY_BRAND, BARE_LEN, GATEWAY_KEY_BRAND, KEY_ID_LEN};

const MOST: usize = 64;

/// `value` in double quotes: shortened, without control characters, `[redacted]` if token-like.
pub fn quoted(value: &[u8]) -> String {
    if is_hidden(value) {
        return "\"[redacted]\"".into();
    }
    let text = String::from_utf8_lossy(value);
    let mut shown: String =
        text.chars().take(MOST).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}

/// True when `value` is never repeated. Asked of what the caller wrote: in lower case a secret shows no more for what it is.
pub fn is_hidden(value: &[u8]) -> bool {
    looks_like_a_token(value) || has_a_secret(value)
}

/// What was made of `written`, unless that is never repeated.
pub(crate) fn quoted_of(written: &[u8], made: &str) -> String {
    quoted(if is_hidden(written) { written } else { made.as_bytes() })
}

/// True when a token, or a good part of one, may be inside. Errs on the side of caution.
pub fn looks_like_a_token(value: &[u8]) -> bool {
    let branded = [API_KEY_BRAND, GATEWAY_KEY_BRAND]
        .iter()
        .any(|brand| value.windows(brand.len()).any(|part| part.eq_ignore_ascii_case(brand.as_bytes())));
    let bare = value.windows(BARE_LEN).any(|part| {
        part[KEY_ID_LEN] == b'-' && is_base62(&part[..KEY_ID_LEN]) && is_base62(&part[KEY_ID_LEN + 1..])
    });
    branded || bare
}

/// True when a part of a token may be inside: 20 letters and digits in a row, of all three kinds.
fn has_a_secret(value: &[u8]) -> bool {
    value.split(|byte| !byte.is_ascii_alphanumeric()).filter(|run| run.len() >= 20).any(|run| {
        run.iter().any(u8::is_ascii_uppercase)
            && run.iter().any(u8::is_ascii_lowercase)
            && run.iter().any(u8::is_ascii_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_is_harmless() {
        assert_eq!(quoted(b"Edge_1"), "\"Edge_1\"");
        assert_eq!(quoted(b""), "\"\"");
        assert_eq!(quoted("a\n\u{7}é".as_bytes()), "\"a???\"");
        assert_eq!(quoted(&[0xff, b'a']), "\"?a\"");
        assert_eq!(quoted(&[b'a'; 65]), format!("\"{}...\"", "a".repeat(64)));
    }

    #[test]
    fn hides_what_may_be_a_token() {
        for token in [
            "kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3jZT8c",
            "  kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3jZT8c\n",
            "KWK_0123456789-abcdefghijklmnopqrstuv3jzt8c",
            "kwg_0123456",
            "Bearer 0123456789-ABCDEFGHIJKLMNOPQRSTUV",
            "a-0123456789-ABCDEFGHIJKLMNOPQRSTUV",
            "FxseHkf1GN5lYH2bD72AsI",
        ] {
            assert_eq!(quoted(token.as_bytes()), "\"[redacted]\"");
        }
    }
}
