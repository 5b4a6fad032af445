//! Base62: digits `0-9A-Za-z` in that order, most significant first.

use zeroize::Zeroizing;

pub const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Width of a CRC32 in base62: 62^6 > 2^32.
pub const CHECKSUM_LEN: usize = 6;

/// True when every byte is a base62 digit.
pub fn is_base62(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_alphanumeric)
}

/// The CRC32 (IEEE) of `text`, six base62 digits padded with `0`.
pub fn checksum(text: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Where random bytes come from. The operating system, except in tests.
pub trait Randomness {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The operating system gave no randomness. Nothing may be made without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandomness;

/// The operating system's generator (`getrandom(2)` on Linux).
#[derive(Debug)]
pub struct OperatingSystem;

impl Randomness for OperatingSystem {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        getrandom::fill(bytes).map_err(|_| NoRandomness)
    }
}

/// Appends `count` random base62 digits to `out`.
///
/// Six bits of each byte are a number below 64; 62 and 63 are thrown away rather than folded
/// back, so every digit is equally likely.
pub fn push_random(out: &mut String, count: usize, source: &mut impl Randomness) -> Result<(), NoRandomness> {
    let mut bytes = Zeroizing::new([0u8; 64]);
    let mut missing = count;
    while missing > 0 {
        source.fill(bytes.as_mut())?;
        for byte in bytes.iter() {
            if missing == 0 {
                break;
            }
            if let Some(&digit) = BASE62.get((byte & 0x3f) as usize) {
                out.push(digit as char);
                missing -= 1;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<u8>);
    impl Randomness for Fixed {
        fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
            for byte in bytes {
                *byte = self.0.remove(0);
            }
            Ok(())
        }
    }

    struct Broken;
    impl Randomness for Broken {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), NoRandomness> {
            Err(NoRandomness)
        }
    }

    #[test]
    fn checksum_vectors() {
        // Digits by Python's zlib.crc32; CRC32 (IEEE) check value of "123456789" is 0xCBF43926 = 3421780262.
        assert_eq!(&checksum(b"123456789"), b"3jZRME");
        assert_eq!(&checksum(b""), b"000000");
        let back = b"3jZRME".iter().fold(0u64, |sum, digit| {
            sum * 62 + BASE62.iter().position(|known| known == digit).unwrap() as u64
        });
        assert_eq!(back, 0xCBF4_3926);
    }

    #[test]
    fn every_byte_value_is_mapped_once_or_rejected() {
        // 256 byte values = 4 times 64; each digit must be hit exactly 4 times, 8 values rejected.
        let mut source = Fixed((0..=255u8).collect());
        let mut out = String::new();
        push_random(&mut out, 248, &mut source).unwrap();
        assert!(source.0.is_empty());
        for digit in BASE62 {
            assert_eq!(out.bytes().filter(|byte| byte == digit).count(), 4);
        }
    }

    #[test]
    fn no_randomness_is_an_error_not_a_weak_token() {
        assert_eq!(push_random(&mut String::new(), 1, &mut Broken), Err(NoRandomness));
    }

    #[test]
    fn digits_are_uniform() {
        // Chi-square over 620,000 digits with 61 degrees of freedom; 150 is far beyond p = 1e-8.
        let mut out = String::new();
        push_random(&mut out, 620_000, &mut OperatingSystem).unwrap();
        let chi: f64 = BASE62
            .iter()
            .map(|digit| {
                let seen = out.bytes().filter(|byte| byte == digit).count() as f64;
                (seen - 10_000.0).powi(2) / 10_000.0
            })
            .sum();
        assert!(chi < 150.0, "chi-square {chi}");
    }
}
