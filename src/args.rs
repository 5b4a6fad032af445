//! Arguments as they come: text is bytes, because a database may be in any encoding.

use crate::error::{Failure, Fault};
use keywright_core::text::Kind;
use pgrx::datum::{Array, Interval, Uuid};

pub fn required<T>(argument: &'static str, value: Option<T>) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::null(argument))
}

/// Text that names something of ours: UTF-8, and in a database of another encoding ASCII.
pub fn text<'a>(argument: &'static str, value: Option<&'a [u8]>) -> Result<&'a str, Fault> {
    let sentence = "It has other characters than ASCII, which takes a database in UTF8.";
    name(required(argument, value)?).ok_or_else(|| Fault::new(argument, sentence, ""))
}

pub fn name(bytes: &[u8]) -> Option<&str> {
    // SAFETY: looks at the database's own state.
    let utf8 = unsafe { pgrx::pg_sys::GetDatabaseEncoding() } == pgrx::pg_sys::pg_enc::PG_UTF8 as i32;
    str::from_utf8(bytes).ok().filter(|text| utf8 || text.is_ascii())
}

/// The faults of several arguments, so that they are reported together.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The value, or nothing and one more fault.
    pub fn sift<T>(&mut self, checked: Result<T, Fault>) -> Option<T> {
        checked.map_err(|fault| self.0.push(fault)).ok()
    }

    /// As `sift`, where several may be wrong; any other failure is the caller's.
    pub fn sift_all<'a, T>(&mut self, checked: Result<T, Failure<'a>>) -> Result<Option<T>, Failure<'a>> {
        match checked {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Arguments(faults)) => {
                self.0.extend(faults);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Nothing when there is no fault.
    pub fn report<'a>(self) -> Result<(), Failure<'a>> {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::Arguments(self.0)) }
    }
}

impl From<Faults> for Failure<'_> {
    fn from(faults: Faults) -> Self {
        Failure::Arguments(faults.0)
    }
}

/// Text for people to read: what can not be kept of it is shown as question marks.
pub fn readable(bytes: &[u8]) -> String {
    match name(bytes) {
        Some(name) => name.to_owned(),
        None => String::from_utf8_lossy(bytes).replace(|c: char| !c.is_ascii(), "?"),
    }
}

/// Free text that is stored: checked, left as bytes.
pub fn words<'a>(
    argument: &'static str,
    kind: Kind,
    value: Option<&'a [u8]>,
) -> Result<Option<&'a [u8]>, Fault> {
    match value.and_then(|text| kind.fault(text)) {
        None => Ok(value),
        Some(fault) => Err(Fault::new(argument, fault, kind.hint())),
    }
}

/// The elements of a text array, each with its null.
pub fn elements(argument: &'static str, value: &Option<Array<&[u8]>>) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    let array = required(argument, value.as_ref())?;
    Ok(array.iter().map(|element| element.map(<[u8]>::to_vec)).collect())
}

/// Microseconds of an interval, a month taken as 30 days; for bounds, not for calendars.
pub fn micros(interval: &Interval) -> i128 {
    const DAY: i128 = 86_400_000_000;
    i128::from(interval.months()) * 30 * DAY
        + i128::from(interval.days()) * DAY
        + i128::from(interval.micros())
}

/// A length of time from 0 to 100 years.
pub fn duration(argument: &'static str, value: Option<Interval>) -> Result<Interval, Fault> {
    let value = required(argument, value)?;
    if !is_finite(&value) || !(0..=CENTURY).contains(&micros(&value)) {
        let rule = "It must be 0 or more and at most 100 years.";
        return Err(Fault::new(argument, rule, "Give an interval such as '1 hour' or '7 days'."));
    }
    Ok(value)
}

/// Generous: by the calendar 100 years may be more days than `micros` counts.
pub const CENTURY: i128 = 101 * 366 * 86_400_000_000;

/// PostgreSQL 17 and later have infinite intervals, spelled as the extreme of every field.
pub fn is_finite(value: &Interval) -> bool {
    let fields = (value.months(), value.days());
    fields != (i32::MAX, i32::MAX) && fields != (i32::MIN, i32::MIN)
}

/// The plain form 8-4-4-4-12 of hexadecimal digits.
pub fn uuid(text: &[u8]) -> Option<Uuid> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 {
        return None;
    }
    let mut number: u128 = 0;
    for (at, byte) in text.iter().enumerate() {
        if HYPHENS.contains(&at) != (*byte == b'-') {
            return None;
        }
        if *byte != b'-' {
            number = number << 4 | u128::from(char::from(*byte).to_digit(16)?);
        }
    }
    Some(Uuid::from_bytes(number.to_be_bytes()))
}

/// A number of rows from 1 to `most`.
pub fn within(argument: &'static str, value: Option<i32>, most: i32) -> Result<i32, Fault> {
    let value = required(argument, value)?;
    if !(1..=most).contains(&value) {
        let rule = format!("It must be from 1 to {most}.");
        return Err(Fault::new(argument, rule, "Take more than one call for more rows."));
    }
    Ok(value)
}
