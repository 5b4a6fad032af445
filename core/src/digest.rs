//! SHA-256 of a secret of more than 112 bits: no salt and no stretching needed (NIST SP 800-63B 5.1.1.2,
//! look-up secrets; OWASP ASVS 5.0 6.5.2).

use crate::alphabet::BASE62;
use crate::token::SECRET_LEN;
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

/// What is wrong with a hash that was made elsewhere, as far as 32 bytes can tell: that it is none, or that of something that
/// anybody would try. Whether the secret behind it was random, no hash says.
pub fn fault(digest: &[u8], key_id: &str) -> Option<&'static str> {
    let Ok(digest): Result<&Digest, _> = digest.try_into() else {
        return Some("It has not the 32 bytes of SHA-256.");
    };
    if digest.iter().all(|byte| *byte == digest[0]) {
        return Some("All its bytes are the same.");
    }
    let is_of = |secret: &[u8]| matches(&of(secret), digest);
    let alike = |digit: &u8| is_of(&[*digit; SECRET_LEN]);
    let guessed = is_of(b"") || is_of(key_id.as_bytes()) || BASE62.iter().any(alike);
    guessed.then_some("It is the hash of something that can be guessed.")
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

    #[test]
    fn faults() {
        let fault = |digest: &[u8]| fault(digest, "0123456789");
        assert_eq!(fault(&of(b"ABCDEFGHIJKLMNOPQRSTUV")), None);
        for odd in
            [&[][..], &[7; 31], &[7; 33], b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
        {
            assert!(fault(odd).is_some_and(|fault| fault.contains("32 bytes")), "{odd:?}");
        }
        assert!(fault(&[0; 32]).is_some() && fault(&[255; 32]).is_some());
        for guessed in [&b""[..], b"0123456789", &[b'0'; 22], &[b'z'; 22]] {
            assert!(fault(&of(guessed)).is_some_and(|fault| fault.contains("guessed")), "{guessed:?}");
        }
    }
}
