//! When keys were used, in little room: a key's id as a number, and the file that keeps what a server has noted over a
//! shutdown.

use crate::alphabet::BASE62;
use crate::token::KEY_ID_LEN;
use std::num::NonZeroU64;

/// The moment of what never was; earlier than any other.
pub const NEVER: i64 = i64::MIN;

/// A key's id as a number that is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed(NonZeroU64);

impl Packed {
    /// Nothing for what is no key's id.
    pub fn of(id: &[u8]) -> Option<Packed> {
        if id.len() != KEY_ID_LEN {
            return None;
        }
        let mut number = 0;
        for letter in id {
            number = number * 62 + digit(*letter)?;
        }
        NonZeroU64::new(number + 1).map(Packed)
    }

    pub fn number(self) -> u64 {
        self.0.get()
    }

    /// Nothing for what no id becomes.
    pub fn from_number(number: u64) -> Option<Packed> {
        let packed = NonZeroU64::new(number)?;
        (number <= 62u64.pow(KEY_ID_LEN as u32)).then_some(Packed(packed))
    }

    pub fn id(self) -> String {
        let mut rest = self.number() - 1;
        let mut digits = [b'0'; KEY_ID_LEN];
        for digit in digits.iter_mut().rev() {
            *digit = BASE62[(rest % 62) as usize];
            rest /= 62;
        }
        digits.iter().map(|digit| char::from(*digit)).collect()
    }
}

fn digit(letter: u8) -> Option<u64> {
    match letter {
        b'0'..=b'9' => Some(u64::from(letter - b'0')),
        b'A'..=b'Z' => Some(u64::from(letter - b'A') + 10),
        b'a'..=b'z' => Some(u64::from(letter - b'a') + 36),
        _ => None,
    }
}

/// What is known of a key in one database. Moments are microseconds of a timestamptz, or `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    pub database: u32,
    pub key: Packed,
    pub used: i64,
    pub presented: i64,
}

const MAGIC: &[u8; 8] = b"KWUSAGE\x01";
const ENTRY: usize = 28;
const SUM: usize = 4;

/// The file: eight bytes that say what it is, the entries, and a CRC32 of all that.
pub fn encode(entries: &[Noted]) -> Vec<u8> {
    let mut file = Vec::with_capacity(MAGIC.len() + entries.len() * ENTRY + SUM);
    file.extend(MAGIC);
    for entry in entries {
        file.extend(entry.key.number().to_le_bytes());
        file.extend(entry.database.to_le_bytes());
        file.extend(entry.used.to_le_bytes());
        file.extend(entry.presented.to_le_bytes());
    }
    file.extend(crc32fast::hash(&file).to_le_bytes());
    file
}

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is something else, or of another version.
    Foreign,
    Damaged,
}

/// The first moment that is none of a timestamptz: 294277-01-01.
const END: i64 = 9_223_371_331_200_000_000;

pub fn decode(file: &[u8]) -> Result<Vec<Noted>, Unreadable> {
    let entries = file.strip_prefix(MAGIC).ok_or(Unreadable::Foreign)?;
    let at = entries.len().checked_sub(SUM).ok_or(Unreadable::Damaged)?;
    let (entries, sum) = entries.split_at(at);
    let right = crc32fast::hash(&file[..file.len() - SUM]).to_le_bytes();
    if right != sum || !entries.len().is_multiple_of(ENTRY) {
        return Err(Unreadable::Damaged);
    }
    // What was noted was presented, at a time that Postgres knows.
    let sound = |noted: &Noted| noted.presented != NEVER && noted.presented < END && noted.used < END;
    let entry = |entry| read(entry).filter(sound).ok_or(Unreadable::Damaged);
    entries.chunks_exact(ENTRY).map(entry).collect()
}

fn read(entry: &[u8]) -> Option<Noted> {
    let (key, rest) = entry.split_first_chunk()?;
    let (database, rest) = rest.split_first_chunk()?;
    let (used, rest) = rest.split_first_chunk()?;
    let (presented, _) = rest.split_first_chunk()?;
    Some(Noted {
        key: Packed::from_number(u64::from_le_bytes(*key))?,
        database: u32::from_le_bytes(*database),
        used: i64::from_le_bytes(*used),
        presented: i64::from_le_bytes(*presented),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_id() {
        assert_eq!(Packed::of(b"0000000000").unwrap().number(), 1);
        let last = Packed::of(b"zzzzzzzzzz").unwrap();
        assert_eq!(last.number(), 62u64.pow(10));
        assert!(last.number() < 1 << 60);
        assert_eq!(last.id(), "zzzzzzzzzz");
        assert_eq!(Packed::of(b"000000000A").unwrap().number(), 11);
        assert_eq!(Packed::from_number(0), None);
        assert_eq!(Packed::from_number(last.number() + 1), None);
    }

    #[test]
    fn what_is_no_id_has_no_number() {
        for id in [&b""[..], b"000000000", b"00000000000", b"00000-0000", b"000000000\xff"] {
            assert_eq!(Packed::of(id), None);
        }
    }

    #[test]
    fn a_file_that_is_cut_changed_or_foreign_is_not_read() {
        let entry = Noted { database: 5, key: Packed::of(b"0000000001").unwrap(), used: NEVER, presented: 7 };
        let file = encode(&[entry, entry]);
        assert_eq!(decode(&file), Ok(vec![entry, entry]));
        assert_eq!(decode(&encode(&[])), Ok(vec![]));
        let late = Noted { presented: END, ..entry };
        assert_eq!(decode(&encode(&[late])), Err(Unreadable::Damaged));
        let unpresented = Noted { presented: NEVER, ..entry };
        assert_eq!(decode(&encode(&[entry, unpresented])), Err(Unreadable::Damaged));
        for length in 0..file.len() {
            assert!(decode(&file[..length]).is_err(), "{length} bytes");
        }
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(decode(&changed).is_err(), "byte {at}");
        }
        assert_eq!(decode(b"something else"), Err(Unreadable::Foreign));
    }
}
