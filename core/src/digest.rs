//! SHA-256 of a secret of more than 112 bits: no salt and no stretching needed (NIST SP 800-63B 5.1.1.2,
//! look-up secrets; OWASP ASVS 5.0 6.5.2).

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

pub const DIGEST_LEN: usize = 32;

pub type Digest = [u8; DIGEST_LEN];

/// SHA-256 of `secret`, 32 raw bytes.
pub fn of(secret: &[u8]) -> Digest {
    Sha256::digest(secret).into()
}

/// Compares in constant time; a digest of any other length than 32 never matches.
pub fn matches(computed: &Digest, stored: &[u8]) -> bool {
    computed.as_slice().ct_eq(stored).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hex: String = of(b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn only_the_same_32_bytes_match() {
        let digest = of(b"secret");
        assert!(matches(&digest, &digest));
        for bit in 0..256 {
            let mut other = digest;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches(&digest, &other));
        }
        assert!(!matches(&digest, &digest[..31]));
        assert!(!matches(&digest, &[]));
    }
}
