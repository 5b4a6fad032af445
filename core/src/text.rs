//! Words a caller attaches to an object. They are stored and listed, so nothing that may be a token gets in.

use crate::printable::looks_like_a_token;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Email,
    DisplayName,
    Manager,
    Reason,
}

impl Kind {
    fn most(self) -> usize {
        match self {
            Kind::Email => 254,
            Kind::DisplayName => 128,
            Kind::Manager => 63,
            Kind::Reason => 512,
        }
    }

    /// What would be right.
    pub fn hint(self) -> &'static str {
        match self {
            Kind::Email => "Give an address such as name@example.org, or an empty text for none.",
            Kind::DisplayName => "Give at most 128 bytes of plain text.",
            Kind::Manager => "Give 1 to 63 printable ASCII characters without spaces, or null for none.",
            Kind::Reason => "Give at most 512 bytes of plain text, without any token.",
        }
    }

    /// What is wrong with `text`, without repeating it.
    pub fn fault(self, text: &[u8]) -> Option<String> {
        if looks_like_a_token(text) {
            Some("It holds what may be a token.".into())
        } else if text.len() > self.most() {
            Some(format!("It is {} bytes long, at most {} are allowed.", text.len(), self.most()))
        } else if text.iter().any(u8::is_ascii_control) {
            Some("It has control characters.".into())
        } else {
            self.form(text).map(str::to_owned)
        }
    }

    fn form(self, text: &[u8]) -> Option<&'static str> {
        match self {
            Kind::Email if !text.is_empty() && !is_email(text) => Some("It is not of the form name@domain."),
            Kind::Manager if text.is_empty() => Some("It is empty."),
            Kind::Manager if !text.iter().all(u8::is_ascii_graphic) => {
                Some("It has other characters than printable ASCII.")
            }
            _ => None,
        }
    }
}

/// One `@` with something on both sides and no white space: the mail system decides the rest.
fn is_email(text: &[u8]) -> bool {
    let mut parts = text.split(|&byte| byte == b'@');
    let both = [parts.next(), parts.next()].iter().all(|part| part.is_some_and(|part| !part.is_empty()));
    both && parts.next().is_none() && !text.contains(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        for (kind, text) in [
            (Kind::Email, ""),
            (Kind::Email, "prebuilds@system"),
            (Kind::DisplayName, "Zoë the Operator"),
            (Kind::DisplayName, ""),
            (Kind::Manager, "control-plane/a.1"),
            (Kind::Reason, "left the company"),
        ] {
            assert_eq!(kind.fault(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn refused() {
        for (kind, text) in [
            (Kind::Email, "a"),
            (Kind::Email, "@b"),
            (Kind::Email, "a@"),
            (Kind::Email, "a@b@c"),
            (Kind::Email, "a b@c"),
            (Kind::DisplayName, "a\nb"),
            (Kind::Manager, ""),
            (Kind::Manager, "a b"),
            (Kind::Reason, "was kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH"),
        ] {
            assert!(kind.fault(text.as_bytes()).is_some(), "{text}");
        }
        assert!(Kind::Reason.fault(&[b'a'; 513]).is_some());
    }
}
