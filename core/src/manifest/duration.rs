//! Lengths of time as PostgreSQL keeps them: months and days differ in length, so they are kept apart.

use std::fmt;

/// As an interval has it. Only what is made by `parse` is sure to be 0 or more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Duration {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Which part a unit counts in.
#[derive(Clone, Copy)]
enum Unit {
    Months(i32),
    Days(i32),
    Micros(i64),
}

/// In the order they are written in.
const UNITS: [(&str, Unit); 7] = [
    ("year", Unit::Months(12)),
    ("month", Unit::Months(1)),
    ("week", Unit::Days(7)),
    ("day", Unit::Days(1)),
    ("hour", Unit::Micros(3_600 * SECOND)),
    ("minute", Unit::Micros(60 * SECOND)),
    ("second", Unit::Micros(SECOND)),
];

const FORM: &str = "It must be whole numbers with the units second, minute, hour, day, week, month or year, such as \"30 days\" or \"1 year 6 months\".";
const LONG: &str = "It is too long.";

impl Duration {
    /// Groups `<integer> <unit>` separated by single spaces, which add up; or what is wrong.
    pub fn parse(text: &str) -> Result<Duration, &'static str> {
        let mut sum = Duration::default();
        let mut words = text.split(' ');
        while let Some(number) = words.next() {
            let word = words.next().ok_or(FORM)?;
            let word = word.strip_suffix('s').unwrap_or(word);
            let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == word).ok_or(FORM)?;
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(FORM);
            }
            sum = number.parse().ok().and_then(|count| sum.plus(count, unit)).ok_or(LONG)?;
        }
        Ok(sum)
    }

    fn plus(self, count: i64, unit: Unit) -> Option<Duration> {
        let small = || i32::try_from(count).ok();
        Some(match unit {
            Unit::Months(each) => {
                Duration { months: self.months.checked_add(small()?.checked_mul(each)?)?, ..self }
            }
            Unit::Days(each) => {
                Duration { days: self.days.checked_add(small()?.checked_mul(each)?)?, ..self }
            }
            Unit::Micros(each) => {
                Duration { micros: self.micros.checked_add(count.checked_mul(each)?)?, ..self }
            }
        })
    }

    /// A month taken as 30 days: for bounds, not for calendars.
    pub fn total_micros(self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * i128::from(DAY) + i128::from(self.micros)
    }
}

/// Fit for PostgreSQL's interval input, and for `parse` when it came from there.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (months, days) = (i64::from(self.months), i64::from(self.days));
        let seconds = self.micros / SECOND;
        let parts: [(i64, &str); 7] = [
            (months / 12, "year"),
            (months % 12, "month"),
            (days, "day"),
            (seconds / 3_600, "hour"),
            (seconds % 3_600 / 60, "minute"),
            (seconds % 60, "second"),
            (self.micros % SECOND, "microsecond"),
        ];
        let mut space = "";
        for (count, unit) in parts.into_iter().filter(|(count, _)| *count != 0) {
            let plural = if count == 1 { "" } else { "s" };
            write!(f, "{space}{count} {unit}{plural}")?;
            space = " ";
        }
        if space.is_empty() { f.write_str("0 seconds") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn new(months: i32, days: i32, micros: i64) -> Duration {
        Duration { months, days, micros }
    }

    #[test]
    fn parsed() {
        for (text, months, days, seconds) in [
            ("30 days", 0, 30, 0),
            ("1 year 6 months", 18, 0, 0),
            ("12 hours", 0, 0, 43_200),
            ("2 weeks 1 day", 0, 15, 0),
            ("1 second 1 seconds", 0, 0, 2),
            ("0 minutes", 0, 0, 0),
            ("007 minute", 0, 0, 420),
        ] {
            assert_eq!(Duration::parse(text), Ok(new(months, days, seconds * SECOND)), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "", " ", "days", "1", "1day", "1  day", " 1 day", "1 day ", "-1 days", "+1 days", "1.5 days",
            "1 Days", "1 dayss", "1 s", "1\tday", "1 day 2", "١ day", "infinity",
        ] {
            assert_eq!(Duration::parse(text), Err(FORM), "{text:?}");
        }
        for text in [
            "2147483648 days",
            "99999999999999999999 seconds",
            "9223372036855 seconds",
            "178956971 years",
            "306783379 weeks",
            "2147483647 days 1 day",
        ] {
            assert_eq!(Duration::parse(text), Err(LONG), "{text}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(
            new(18, 1, 3_661 * SECOND + 5).to_string(),
            "1 year 6 months 1 day 1 hour 1 minute 1 second 5 microseconds"
        );
        assert_eq!(new(-13, 0, -SECOND).to_string(), "-1 years -1 months -1 seconds");
        assert_eq!(Duration::default().to_string(), "0 seconds");
    }

    #[test]
    fn a_month_counts_30_days() {
        assert_eq!(new(1, 1, 1).total_micros(), 31 * 86_400_000_000 + 1);
        assert!(new(i32::MAX, i32::MAX, i64::MAX).total_micros() > i128::from(i64::MAX));
    }

    proptest! {
        #[test]
        fn round_trip(months in 0..=i32::MAX, days in 0..=i32::MAX, seconds in 0..=i64::MAX / SECOND) {
            let duration = new(months, days, seconds * SECOND);
            prop_assert_eq!(Duration::parse(&duration.to_string()), Ok(duration));
        }

        #[test]
        fn any_text(text in "\\PC*", like in "([0-9]{0,20} (second|day|week|month|year)s? ?){0,4}") {
            _ = Duration::parse(&text);
            _ = Duration::parse(&like);
        }
    }
}
