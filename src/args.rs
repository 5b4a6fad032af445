//! Arguments as they come: text is bytes, because a database may be in any encoding.

use crate::error::{Failure, Fault};
use keywright_core::duration::Duration;
use keywright_core::name::{Broken, Rule};
use keywright_core::text::Kind;
use pgrx::datum::{Array, Interval, Uuid};
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{IntoDatum, PgTryBuilder, direct_function_call, pg_sys};
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

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
    let utf8 = unsafe { pg_sys::GetDatabaseEncoding() } == pg_sys::pg_enc::PG_UTF8 as i32;
    str::from_utf8(bytes).ok().filter(|text| utf8 || text.is_ascii())
}

/// A name, if it follows its rule. What can not be a name in this encoding is none in any.
pub fn check(rule: Rule, bytes: &[u8]) -> Result<&str, Broken> {
    rule.check(if name(bytes).is_some() { bytes } else { &[0xff] })
}

/// A name that is stored, as the argument that its rule knows.
pub fn ruled(rule: Rule, value: Option<&[u8]>) -> Result<&str, Fault> {
    check(rule, required(rule.argument(), value)?).map_err(|broken| Fault::name(rule.argument(), broken))
}

/// What came of an object that has a name; nothing where only the name breaks its rule (`Faults::report_but_name`).
pub type Outcome = Option<&'static str>;

/// The faults of several arguments, so that they are reported together.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

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

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing when there is no fault.
    pub fn report<'a>(self) -> Result<(), Failure<'a>> {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::Arguments(self.0)) }
    }

    /// As `report`, but nothing also when a name breaks its rule and the rest is right: the SQL function refuses that, as an error
    /// that carries the name of a constraint.
    pub fn report_but_name<'a>(self) -> Result<(), Failure<'a>> {
        if matches!(&self.0[..], [Fault { is_name: true, .. }]) { Ok(()) } else { self.report() }
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

/// What an interval stands for: from 0 to 100 years.
pub fn duration(argument: &'static str, value: Option<Interval>) -> Result<Duration, Fault> {
    let value = required(argument, value)?;
    length(&value)
        .map_err(|rule| Fault::new(argument, rule, "Give an interval such as '1 hour' or '7 days'."))
}

/// How long a new key is to live.
pub fn lifetime(value: Interval) -> Result<Duration, Fault> {
    let refused = |(rule, hint): (&'static str, &'static str)| Fault::new("lifetime", rule, hint);
    let lifetime = length(&value)
        .map_err(|rule| refused((rule, "Every key expires. Give an interval such as '90 days'.")))?;
    lifetime.lifetime_fault().map_or(Ok(lifetime), |fault| Err(refused(fault)))
}

pub fn length(value: &Interval) -> Result<Duration, &'static str> {
    Duration::new(value.months(), value.days(), value.micros())
}

/// Text as the input of an interval reads it.
pub fn interval(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "It must be an interval such as \"30 days\", \"8760h\" or \"1 year 6 months\".";
    const MALFORMED: [PgSqlErrorCode; 3] = [
        PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT,
        PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
        PgSqlErrorCode::ERRCODE_INTERVAL_FIELD_OVERFLOW,
    ];
    let text = CString::new(text).map_err(|_| FORM)?;
    let args = [text.as_c_str().into_datum(), pg_sys::InvalidOid.into_datum(), (-1i32).into_datum()];
    // SAFETY: the arguments of the input function, which holds nothing when it fails, so that the error can be dropped.
    let read = || unsafe { direct_function_call::<Interval>(pg_sys::interval_in, &args) };
    let value = MALFORMED
        .into_iter()
        .fold(PgTryBuilder::new(AssertUnwindSafe(read)), |builder, code| builder.catch_when(code, |_| None))
        .execute();
    length(&value.ok_or(FORM)?)
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
