//! The name of the key of one control plane among several: the same on every run, and different for each.

use crate::name::Rule;

/// FNV-1a with 64 bits (draft-eastlake-fnv): the names of keys that operators have minted already are made by it.
fn fnv_1a(bytes: impl Iterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The prefix and 16 hexadecimal digits of namespace, NUL and name; or what is wrong, by argument.
pub fn key_name(namespace: &[u8], name: &[u8], prefix: &[u8]) -> Result<String, Vec<(&'static str, String)>> {
    let mut faults = Vec::new();
    for (argument, value) in [("namespace", namespace), ("name", name)] {
        if value.trim_ascii().is_empty() {
            faults.push((argument, "It is empty.".to_owned()));
        }
    }
    let user = username(prefix);
    if user.is_none() {
        let rule = "It must be a username of lower case letters, digits and single dashes, at most 47 bytes, and a dash.";
        faults.push(("prefix", rule.to_owned()));
    }
    match user {
        Some(user) if faults.is_empty() => {
            let bytes = namespace.iter().chain(&[0]).chain(name).copied();
            Ok(format!("{user}-{:016x}", fnv_1a(bytes)))
        }
        _ => Err(faults),
    }
}

/// The user that owns the keys of a prefix.
pub fn username(prefix: &[u8]) -> Option<&str> {
    let user = prefix.strip_suffix(b"-")?;
    // A key's name has no other characters, and 17 of its 64 bytes follow.
    Rule::ApiKeyName.check(user).ok().filter(|user| user.len() <= 47)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &[u8] = b"coder-k8s-operator-";

    #[test]
    fn known_answers() {
        assert_eq!(fnv_1a([].into_iter()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a(b"foobar".iter().copied()), 0x8594_4171_f739_67e8);
        assert_eq!(key_name(b"default", b"coder", PREFIX).unwrap(), "coder-k8s-operator-c50b092ffc0cdd1f");
        assert_eq!(key_name(b"coder", b"coder", PREFIX).unwrap(), "coder-k8s-operator-4ecae8b3d900ecfb");
    }

    #[test]
    fn where_the_namespace_ends_counts() {
        let name = |namespace: &[u8], name: &[u8]| key_name(namespace, name, PREFIX).unwrap();
        assert_ne!(name(b"a", b"bc"), name(b"ab", b"c"));
    }

    #[test]
    fn every_fault_is_reported() {
        for prefix in ["", "-", "a", "a--", "A-", "a b-", "a_b-", &format!("{}-", "a".repeat(48))] {
            assert_eq!(key_name(b" ", b"", prefix.as_bytes()).unwrap_err().len(), 3, "{prefix}");
        }
        assert!(key_name(b"a", b"b", format!("{}-", "a".repeat(47)).as_bytes()).unwrap().len() <= 64);
    }
}
