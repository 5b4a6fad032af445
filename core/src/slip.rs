//! What befell a token on its way: for explaining, never for verifying.

use crate::alphabet::{CHECKSUM_LEN, is_base62};
use crate::token::{ApiKey, KEY_ID_LEN, SECRET_LEN, is_key_id};

/// The cause, and the id of the key where one can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slip<'a> {
    pub cause: &'static str,
    pub key_id: Option<&'a str>,
}

/// Of something that is no API key as it stands. The outermost slip, when a key is within.
pub fn slip(presented: &[u8]) -> Slip<'_> {
    let mut first = None;
    let mut inner = presented;
    loop {
        if let Some(key) = ApiKey::parse(inner) {
            return Slip { cause: first.unwrap_or("malformed"), key_id: Some(key.id()) };
        }
        match unwrapped(inner) {
            Some((cause, rest)) => {
                first = first.or(Some(cause));
                inner = rest;
            }
            None => {
                let key_id = cut_key_id(inner);
                return Slip { cause: if key_id.is_some() { "cut" } else { "malformed" }, key_id };
            }
        }
    }
}

/// One layer less.
fn unwrapped(token: &[u8]) -> Option<(&'static str, &[u8])> {
    let trimmed = token.trim_ascii();
    if trimmed.len() < token.len() {
        return Some(("white-space", trimmed));
    }
    if let [first @ (b'"' | b'\'' | b'`'), rest @ .., last] = token
        && first == last
    {
        return Some(("quoted", rest));
    }
    let at = token.iter().position(u8::is_ascii_whitespace)?;
    let scheme = token[..at].trim_ascii_end();
    let known = [&b"bearer"[..], b"token", b"apikey", b"authorization:", b"x-api-key:"];
    known.iter().any(|word| scheme.eq_ignore_ascii_case(word)).then(|| ("scheme", &token[at + 1..]))
}

/// The id, when the end of a token is missing. Of the id itself nothing may be.
fn cut_key_id(token: &[u8]) -> Option<&str> {
    let brand = token.iter().rposition(|&byte| byte == b'_').map_or(0, |at| at + 1);
    let bare = &token[brand..];
    let (id, rest) = bare.split_at_checked(KEY_ID_LEN)?;
    let whole = SECRET_LEN + if brand > 0 { CHECKSUM_LEN } else { 0 };
    let secret = rest.strip_prefix(b"-").unwrap_or_default();
    let is_cut = is_key_id(id) && secret.len() < whole && is_base62(secret) && secret.len() + 1 >= rest.len();
    if is_cut { str::from_utf8(id).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH";
    const BARE: &str = "0123456789-ABCDEFGHIJKLMNOPQRSTUV";

    fn cause(text: &str) -> &'static str {
        slip(text.as_bytes()).cause
    }

    #[test]
    fn each_slip_has_its_name() {
        assert!(ApiKey::parse(TOKEN.as_bytes()).is_some());
        for token in [TOKEN, BARE] {
            for (text, expected) in [
                (format!("{token}\n"), "white-space"),
                (format!(" {token}\r\n"), "white-space"),
                (format!("\"{token}\""), "quoted"),
                (format!("'{token}'"), "quoted"),
                (format!("Bearer {token}"), "scheme"),
                (format!("bearer  {token}"), "scheme"),
                (format!("X-API-Key: {token}"), "scheme"),
                (format!("\"Bearer {token}\"\n"), "white-space"),
                (token[..token.len() - 1].to_owned(), "cut"),
                (format!("{}\n", &token[..20]), "cut"),
            ] {
                assert_eq!(
                    slip(text.as_bytes()),
                    Slip { cause: expected, key_id: Some("0123456789") },
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn all_else_is_malformed() {
        let other_checksum = TOKEN.replace("3bfOdH", "3bfOdJ");
        let longer = format!("{TOKEN}x");
        for text in
            ["x", "Bearer", "Bearer x", "\"", "''", "kwk_", "kwk_0123", "a b c", &other_checksum, &longer]
        {
            assert_eq!(cause(text), "malformed", "{text:?}");
        }
    }
}
