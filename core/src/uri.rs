//! URIs as network-uri reads them, the library PostgREST judges its settings by (`isURI`, `isAbsoluteURI`, RFC 3986).

/// The parts a setting is judged by.
#[derive(Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    pub scheme: &'a str,
    pub authority: Option<Authority<'a>>,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub fragment: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    pub user: Option<&'a str>,
    pub host: &'a str,
    /// What follows the colon, if there is one.
    pub port: Option<&'a str>,
}

impl Uri<'_> {
    pub fn parse(text: &str) -> Option<Uri<'_>> {
        let (scheme, rest) = text.split_once(':')?;
        let word = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !word || !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return None;
        }
        let (rest, fragment) = cut(rest, '#');
        let (rest, query) = cut(rest, '?');
        if ![fragment, query].into_iter().flatten().all(|part| consists_of(part, b":@/?")) {
            return None;
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(Authority::parse(authority)?), path)
            }
            None => (None, rest),
        };
        consists_of(path, b":@/").then_some(Uri { scheme, authority, path, query, fragment })
    }
}

impl Authority<'_> {
    fn parse(text: &str) -> Option<Authority<'_>> {
        let (user, rest) = match text.split_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        if !user.is_none_or(|user| consists_of(user, b":")) {
            return None;
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (address, after) = inner.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                let host = &rest[..address.len() + 2];
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
            }
            None => cut(rest, ':'),
        };
        let named = host.starts_with('[') || consists_of(host, b"");
        let digits = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()));
        (named && digits).then_some(Authority { user, host, port })
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// Unreserved characters, sub-delimiters, percent-encoded bytes, and these.
fn consists_of(text: &str, more: &[u8]) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let right = match byte {
            b'%' => [bytes.next(), bytes.next()].iter().all(|b| b.is_some_and(|b| b.is_ascii_hexdigit())),
            byte => {
                byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) || more.contains(&byte)
            }
        };
        if !right {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_what_is_none() {
        for right in [
            "https://shop.example",
            "https://u:p@[::1]:8443/a%20b?x=y#z",
            "urn:example:shop",
            "http://:80",
            "mailto:ada@shop.example",
            "a:",
            "http://",
        ] {
            assert!(Uri::parse(right).is_some(), "{right}");
        }
        for wrong in [
            "shop: east & west",
            "shop",
            ":x",
            "1a:b",
            "http://a b",
            "http://a/%zz",
            "http://a:b",
            "http://[x]/",
            "http://é",
            "http://a#b#c",
            "a:[b]",
            "http://a\"b",
        ] {
            assert!(Uri::parse(wrong).is_none(), "{wrong}");
        }
    }
}
