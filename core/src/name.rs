//! The rules for names, each the twin of a CHECK constraint: here they say what is wrong and what would be right.

use crate::list::is_word;
use crate::printable::{looks_like_a_token, quoted};
use crate::{resource, scope};

const WORD: &str =
    "A word is a lower case letter and at most 62 lower case letters, digits, dots, dashes and underscores.";
const ID: &str = "An id has 1 to 255 bytes, without white space, control characters and asterisks.";

/// A named rule. The names are those of the table constraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Username,
    ApiKeyName,
    GatewayKeyName,
    RoleName,
    /// A word, as permissions are made of.
    ResourceType,
    /// A word, or two joined by a colon.
    ScopeName,
    ResourceId,
    ServiceName,
}

/// Why a name is refused, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl Rule {
    pub const ALL: [Rule; 8] = [
        Rule::Username,
        Rule::ApiKeyName,
        Rule::GatewayKeyName,
        Rule::RoleName,
        Rule::ResourceType,
        Rule::ScopeName,
        Rule::ResourceId,
        Rule::ServiceName,
    ];

    pub fn of_constraint(constraint: &str) -> Option<Rule> {
        Rule::ALL.into_iter().find(|rule| rule.constraint() == constraint)
    }

    pub fn constraint(self) -> &'static str {
        match self {
            Rule::Username => "users_username_check",
            Rule::ApiKeyName => "api_keys_name_check",
            Rule::GatewayKeyName => "gateway_keys_name_check",
            Rule::RoleName => "roles_name_check",
            Rule::ResourceType => "resource_types_type_check",
            Rule::ScopeName => "scopes_name_check",
            Rule::ResourceId => "resources_id_check",
            Rule::ServiceName => "authenticators_service_check",
        }
    }

    pub fn table(self) -> &'static str {
        match self {
            Rule::Username => "users",
            Rule::ApiKeyName => "api_keys",
            Rule::GatewayKeyName => "gateway_keys",
            Rule::RoleName => "roles",
            Rule::ResourceType => "resource_types",
            Rule::ScopeName => "scopes",
            Rule::ResourceId => "resources",
            Rule::ServiceName => "authenticators",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Rule::Username => "username",
            Rule::ApiKeyName => "API key name",
            Rule::GatewayKeyName => "gateway key name",
            Rule::RoleName => "role name",
            Rule::ResourceType => "resource type",
            Rule::ScopeName => "scope name",
            Rule::ResourceId => "resource id",
            Rule::ServiceName => "service name",
        }
    }

    /// The argument that such a name is passed as.
    pub fn argument(self) -> &'static str {
        match self {
            Rule::Username => "username",
            Rule::ApiKeyName | Rule::GatewayKeyName => "name",
            Rule::RoleName | Rule::ScopeName => "name",
            Rule::ResourceType => "type",
            Rule::ResourceId => "id",
            Rule::ServiceName => "service",
        }
    }

    fn most(self) -> usize {
        match self {
            Rule::ResourceType => 63,
            Rule::ScopeName => 127,
            _ => 64,
        }
    }

    /// True for what may stand between two groups.
    fn joins(self, byte: u8) -> bool {
        byte == b'-' || self == Rule::Username && matches!(byte, b'_' | b'.')
    }

    /// The name, if it follows the rule.
    pub fn check(self, name: &[u8]) -> Result<&str, Broken> {
        let faults = match self {
            Rule::ResourceType => form_faults(name, is_word, WORD),
            Rule::ScopeName => form_faults(name, scope::is_name, WORD),
            Rule::ResourceId => form_faults(name, resource::is_id, ID),
            _ => self.faults(name),
        };
        match str::from_utf8(name) {
            Ok(name) if faults.is_empty() => Ok(name),
            _ => Err(Broken {
                message: format!("{} {} is not allowed", self.what(), quoted(name)),
                detail: faults.join("\n"),
                hint: self.hint().into(),
            }),
        }
    }

    /// Everything that is wrong, each in a sentence.
    fn faults(self, name: &[u8]) -> Vec<String> {
        let [others, ends, twice] = match self {
            Rule::Username => [
                "It has other characters than letters, digits, dashes, underscores and dots.",
                "It starts or ends with a dash, an underscore or a dot.",
                "It has two dashes, underscores or dots in a row.",
            ],
            _ => [
                "It has other characters than letters, digits and dashes.",
                "It starts or ends with a dash.",
                "It has two dashes in a row.",
            ],
        };
        let upper = name.iter().any(u8::is_ascii_uppercase);
        let other = name.iter().any(|&byte| !byte.is_ascii_alphanumeric() && !self.joins(byte));
        let outer = [name.first(), name.last()].into_iter().flatten().any(|&byte| self.joins(byte));
        let double = name.windows(2).any(|pair| pair.iter().all(|&byte| self.joins(byte)));
        let long = name.len() > self.most();
        let long =
            long.then(|| format!("It is {} bytes long, at most {} are allowed.", name.len(), self.most()));
        [
            (name.is_empty(), "It is empty."),
            (long.is_some(), long.as_deref().unwrap_or_default()),
            (upper, "It has upper case letters."),
            (other, others),
            (outer, ends),
            (double, twice),
        ]
        .into_iter()
        .filter(|(applies, _)| *applies)
        .map(|(_, sentence)| sentence.to_owned())
        .collect()
    }

    /// Never made from the name: what two callers wrote differently must not become one.
    fn hint(self) -> &'static str {
        match self {
            Rule::ResourceType => "Use a word such as \"workspace\".",
            Rule::ScopeName => "Use a word, or two joined by a colon, such as \"deploy\" or \"ci:deploy\".",
            Rule::ResourceId => "Use the application's own id, such as a uuid or a number.",
            Rule::Username => {
                "Use 1 to 64 lower case letters and digits, in groups joined by one dash, underscore or dot: \"ada.lovelace\", or a uuid."
            }
            _ => {
                "Use 1 to 64 lower case letters and digits, in groups joined by single dashes: \"ci-deploy\"."
            }
        }
    }
}

/// What is wrong with a name that has a form of its own.
fn form_faults(name: &[u8], fits: fn(&str) -> bool, rule: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !str::from_utf8(name).is_ok_and(fits) {
        faults.push(rule.into());
    }
    if looks_like_a_token(name) {
        faults.push("It holds what may be a token.".into());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(name: &str) -> Result<&str, Broken> {
        Rule::GatewayKeyName.check(name.as_bytes())
    }

    #[test]
    fn accepted() {
        for name in ["a", "0", "edge-1", "a-b-c", &"a".repeat(64)] {
            assert_eq!(gateway(name), Ok(name));
        }
        for name in [
            "ada_lovelace",
            "ada.lovelace",
            "2-a.b_c",
            "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            &"a".repeat(64),
        ] {
            assert_eq!(Rule::Username.check(name.as_bytes()), Ok(name));
        }
    }

    #[test]
    fn refused() {
        for name in ["", "-", "a-", "-a", "a--b", "a_b", "a b", "A", "é", "a\n", "a\0", &"a".repeat(65)] {
            assert!(gateway(name).is_err(), "{name:?}");
        }
        for name in ["", "Ada", "a__b", "a-_b", "a..b", "_a", "a.", "a b", "é", &"a".repeat(65)] {
            assert!(Rule::Username.check(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(Rule::Username.check(&[0xff]).is_err());
    }

    #[test]
    fn every_fault_is_reported() {
        assert_eq!(gateway("A_b--c-").unwrap_err().detail.lines().count(), 4);
        assert_eq!(gateway("").unwrap_err().detail, "It is empty.");
    }

    #[test]
    fn no_hint_folds_two_names_into_one() {
        let hint = |name: &str| Rule::Username.check(name.as_bytes()).unwrap_err().hint;
        let long = "a".repeat(65);
        for name in ["Ada", "ADA", "a b", "a__b", &long, ""] {
            assert_eq!(hint(name), Rule::Username.hint(), "{name}");
        }
        assert_eq!(gateway("Edge_2").unwrap_err().hint, Rule::GatewayKeyName.hint());
    }

    #[test]
    fn words() {
        for name in ["project", "a", "my.type_2-x"] {
            assert_eq!(Rule::ResourceType.check(name.as_bytes()), Ok(name));
            assert_eq!(Rule::ScopeName.check(name.as_bytes()), Ok(name));
        }
        assert!(Rule::ScopeName.check(b"coder:all").is_ok());
        for name in ["", "A", "1a", "a b", "*", "a:b:c", "a:", ":a", "a%", &"a".repeat(64)] {
            assert!(Rule::ScopeName.check(name.as_bytes()).is_err(), "{name}");
            assert!(Rule::ResourceType.check(name.as_bytes()).is_err(), "{name}");
        }
        assert!(Rule::ResourceType.check(b"coder:all").is_err());
    }

    #[test]
    fn a_token_passed_as_a_name_is_not_repeated() {
        let broken = gateway("kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3jZT8c").unwrap_err();
        assert!(!format!("{broken:?}").to_lowercase().contains("0123456789-abcdef"));
    }
}
