//! Lengths of time as PostgreSQL keeps them: months and days differ in length, so they are kept apart.

use std::fmt;

/// How long something lives, or waits. No part of it is negative, and it is at most 100 years, so that the moment it leads
/// to is always there, and never before the one it is counted from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Duration {
    months: i32,
    days: i32,
    micros: i64,
}

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 86_400 * SECOND;

/// 100 years in microseconds.
pub const CENTURY: i64 = 36_525 * DAY;

const NEGATIVE: &str = "No part of it may be negative.";
const LONG: &str = "It must be at most 100 years.";

impl Duration {
    pub const fn of_days(days: i32) -> Duration {
        Duration { months: 0, days, micros: 0 }
    }

    /// From the parts of an interval, in which the infinite ones of PostgreSQL 17 are the extremes; or what is wrong.
    pub fn new(months: i32, days: i32, micros: i64) -> Result<Duration, &'static str> {
        if months < 0 || days < 0 || micros < 0 {
            return Err(NEGATIVE);
        }
        let whole = i128::from(in_days(months)) + i128::from(days);
        match whole * i128::from(DAY) + i128::from(micros) <= i128::from(CENTURY) {
            true => Ok(Duration { months, days, micros }),
            false => Err(LONG),
        }
    }

    /// Months, days and microseconds.
    pub fn parts(self) -> (i32, i32, i64) {
        (self.months, self.days, self.micros)
    }

    /// So long after a moment, which is in microseconds since 2000: by the calendar of UTC, so that no time zone makes a
    /// difference, and months first, as PostgreSQL counts. A day that the month does not have is its last.
    pub fn after(self, moment: i64) -> i64 {
        self.from(moment, 1)
    }

    /// So long before a moment.
    pub fn before(self, moment: i64) -> i64 {
        self.from(moment, -1)
    }

    fn from(self, moment: i64, sign: i64) -> i64 {
        let (day, time) = (moment.div_euclid(DAY), moment.rem_euclid(DAY));
        let day = months_later(day, sign * i64::from(self.months)) + sign * i64::from(self.days);
        day.saturating_mul(DAY).saturating_add(time).saturating_add(sign * self.micros)
    }

    /// In microseconds, a year taken as 365 days and a month as 30: what is compared with a cap, on any day of the calendar.
    pub fn nominal(self) -> i64 {
        (in_days(self.months) + i64::from(self.days)) * DAY + self.micros
    }

    /// What is wrong with it as the lifetime of a key, and what to do.
    pub fn lifetime_fault(self) -> Option<(&'static str, &'static str)> {
        (self.nominal() < MINUTE).then_some(("It must be at least 1 minute.", BARE_NUMBER))
    }

    /// What is wrong with it under a cap in microseconds.
    pub fn fault_under(self, cap: i64) -> Option<String> {
        let seconds = cap / SECOND;
        (self.nominal() > cap)
            .then(|| format!("It must be at most {seconds} seconds (keywright.max_api_key_lifetime)."))
    }

    /// Whatever the months and years.
    pub fn is_always_shorter_than(self, other: Duration) -> bool {
        self.longest() < other.shortest()
    }

    fn longest(self) -> i64 {
        let (years, months) = (i64::from(self.months / 12), i64::from(self.months % 12));
        (years * 366 + months * 31 + i64::from(self.days)) * DAY + self.micros
    }

    fn shortest(self) -> i64 {
        let short = if self.months % 12 == 0 { 0 } else { 2 * DAY };
        self.nominal() - short
    }

    /// A tenth of it, by its nominal length.
    pub fn tenth(self) -> Duration {
        let micros = self.nominal() / 10;
        Duration { months: 0, days: (micros / DAY) as i32, micros: micros % DAY }
    }
}

/// 400 years, after which the calendar repeats itself.
const ERA_DAYS: i64 = 146_097;

/// From March 1 of the year 0 to 2000-01-01.
const EPOCH: i64 = 730_425;

/// The day so many months later, days counted from 2000-01-01. Years begin in March, so that a leap day is the last of its year.
fn months_later(day: i64, months: i64) -> i64 {
    if months == 0 {
        return day;
    }
    let (era, of_era) = ((day + EPOCH).div_euclid(ERA_DAYS), (day + EPOCH).rem_euclid(ERA_DAYS));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - first_of(month);
    let all = (era * 400 + year) * 12 + month + months;
    let (first, next) = (first_of_all(all), first_of_all(all + 1));
    (first + of_month).min(next - 1)
}

/// The first day of a month, counted from March, in days of its year.
fn first_of(month: i64) -> i64 {
    (153 * month + 2) / 5
}

/// The first day of a month, counted from March of the year 0, in days since 2000-01-01.
fn first_of_all(month: i64) -> i64 {
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12));
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + first_of(month) - EPOCH
}

const BARE_NUMBER: &str = "A number without a unit is seconds: write '90 days' for days.";

fn in_days(months: i32) -> i64 {
    i64::from(months / 12) * 365 + i64::from(months % 12) * 30
}

/// Fit for PostgreSQL's interval input.
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
        Duration::new(months, days, micros).unwrap()
    }

    #[test]
    fn no_part_is_negative() {
        for (months, days, micros) in [
            (-1200, 36_000, 0),
            (1200, -36_000, 0),
            (0, 1, -1),
            (0, 0, -1),
            (i32::MIN, i32::MIN, i64::MIN),
            (i32::MIN, i32::MAX, i64::MAX),
            (i32::MAX, i32::MIN, i64::MAX),
            (i32::MAX, i32::MAX, i64::MIN),
        ] {
            assert_eq!(Duration::new(months, days, micros), Err(NEGATIVE), "{months} {days} {micros}");
        }
    }

    #[test]
    fn a_century_is_the_most() {
        for (months, days, micros) in [(1200, 25, 0), (0, 36_525, 0), (0, 0, 36_525 * DAY), (600, 18_275, 0)]
        {
            assert_eq!(new(months, days, micros).nominal(), 36_525 * DAY);
            for (months, days, micros) in
                [(months + 1, days, micros), (months, days + 1, micros), (months, days, micros + 1)]
            {
                assert_eq!(Duration::new(months, days, micros), Err(LONG), "{months} {days} {micros}");
            }
        }
        for (months, days, micros) in
            [(i32::MAX, i32::MAX, i64::MAX), (i32::MAX, 0, 0), (0, i32::MAX, 0), (0, 0, i64::MAX)]
        {
            assert_eq!(Duration::new(months, days, micros), Err(LONG), "{months} {days} {micros}");
        }
    }

    #[test]
    fn a_year_counts_365_days_and_a_month_30() {
        assert_eq!(new(1, 1, 1).nominal(), 31 * DAY + 1);
        assert_eq!(new(12, 0, 0).nominal(), 365 * DAY);
        assert_eq!(new(23, 0, 0).nominal(), (365 + 330) * DAY);
    }

    #[test]
    fn a_cap_is_the_same_on_any_day() {
        let cap = 365 * DAY;
        for fits in [new(12, 0, 0), new(0, 365, 0), new(0, 0, cap), new(11, 35, 0)] {
            assert_eq!(fits.fault_under(cap), None, "{fits}");
        }
        for over in [new(12, 0, 1), new(0, 366, 0), new(13, 0, 0), new(11, 36, 0)] {
            assert!(over.fault_under(cap).is_some(), "{over}");
        }
    }

    #[test]
    fn shorter_in_any_month_and_year() {
        for (short, long, always) in [
            (new(0, 27, 0), new(1, 0, 0), true),
            (new(0, 28, 0), new(1, 0, 0), false),
            (new(1, 0, 0), new(0, 31, 0), false),
            (new(1, 0, 0), new(0, 32, 0), true),
            (new(11, 0, 0), new(12, 0, 0), true),
            (new(12, 0, 0), new(0, 366, 0), false),
            (new(0, 365, 0), new(12, 0, 0), false),
            (new(0, 364, 0), new(12, 0, 0), true),
            (new(1, 0, 0), new(2, 0, 0), true),
            (new(0, 0, DAY), new(0, 1, 0), false),
            (new(0, 0, 0), new(0, 0, 1), true),
        ] {
            assert_eq!(short.is_always_shorter_than(long), always, "{short} against {long}");
        }
    }

    #[test]
    fn a_lifetime_is_a_minute_or_more() {
        assert_eq!(new(0, 0, MINUTE).lifetime_fault(), None);
        assert!(new(0, 0, MINUTE - 1).lifetime_fault().is_some());
        assert!(Duration::default().lifetime_fault().is_some());
    }

    /// Days since 2000-01-01, in the slow way.
    fn date(year: i64, month: i64, day: i64) -> i64 {
        let leap = |year: i64| i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        let years: i64 = match year >= 2000 {
            true => (2000..year).map(|year| 365 + leap(year)).sum(),
            false => -(year..2000).map(|year| 365 + leap(year)).sum::<i64>(),
        };
        let lengths = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        years + lengths[..month as usize - 1].iter().sum::<i64>() + day - 1
    }

    /// With the clock told: what leads from one day to another, and the other way round.
    #[test]
    fn by_the_calendar() {
        for (from, duration, to) in [
            ((2027, 3, 1), new(12, 0, 0), (2028, 3, 1)),
            ((2024, 2, 29), new(12, 0, 0), (2025, 2, 28)),
            ((2024, 2, 29), new(48, 0, 0), (2028, 2, 29)),
            ((2096, 2, 29), new(48, 0, 0), (2100, 2, 28)),
            ((2000, 2, 29), new(1200, 0, 0), (2100, 2, 28)),
            ((2026, 1, 31), new(1, 0, 0), (2026, 2, 28)),
            ((2028, 1, 31), new(1, 0, 0), (2028, 2, 29)),
            ((2026, 1, 31), new(1, 1, 0), (2026, 3, 1)),
            ((2026, 10, 31), new(1, 0, 0), (2026, 11, 30)),
            ((2026, 11, 30), new(15, 0, 0), (2028, 2, 29)),
            ((2026, 12, 31), new(0, 1, 0), (2027, 1, 1)),
            ((2026, 12, 31), new(0, 0, DAY), (2027, 1, 1)),
            ((1999, 12, 31), new(2, 0, 0), (2000, 2, 29)),
            ((2026, 5, 17), new(0, 0, 0), (2026, 5, 17)),
        ] {
            let day = |(year, month, day)| date(year, month, day) * DAY + 12_345;
            assert_eq!(duration.after(day(from)), day(to), "{from:?} and {duration}");
        }
        for (from, duration, to) in [
            ((2026, 3, 31), new(1, 0, 0), (2026, 2, 28)),
            ((2028, 2, 29), new(12, 0, 0), (2027, 2, 28)),
            ((2026, 3, 1), new(1, 1, 0), (2026, 1, 31)),
            ((2026, 11, 30), new(1200, 0, 0), (1926, 11, 30)),
        ] {
            let day = |(year, month, day)| date(year, month, day) * DAY;
            assert_eq!(duration.before(day(from)), day(to), "{from:?} less {duration}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(
            new(18, 1, 3_661 * SECOND + 5).to_string(),
            "1 year 6 months 1 day 1 hour 1 minute 1 second 5 microseconds"
        );
        assert_eq!(Duration::default().to_string(), "0 seconds");
    }

    proptest! {
        #[test]
        fn any_parts(months: i32, days: i32, micros: i64) {
            if let Ok(duration) = Duration::new(months, days, micros) {
                prop_assert!(months >= 0 && days >= 0 && micros >= 0);
                prop_assert!(duration.shortest() <= duration.nominal());
                prop_assert!(duration.nominal() <= duration.longest());
                prop_assert!(duration.tenth().nominal() <= duration.nominal() / 10);
                prop_assert_eq!(duration.parts(), (months, days, micros));
            }
        }

        #[test]
        fn never_back(year in 1900i64..2200, month in 1i64..=12, day in 1i64..=28, months in 0..1200, more in 0i64..DAY) {
            let moment = date(year, month, day) * DAY + more;
            let all = year * 12 + month - 1 + i64::from(months);
            let later = Duration::new(months, 0, 0).unwrap();
            prop_assert_eq!(later.after(moment), date(all / 12, all % 12 + 1, day) * DAY + more);
            prop_assert_eq!(later.before(later.after(moment)), moment);
            prop_assert!((later.shortest()..=later.longest()).contains(&(later.after(moment) - moment)));
        }

        #[test]
        fn ends_of_months(day in 0i64..80_000, months in 0..1200) {
            let later = Duration::new(months, 0, 0).unwrap();
            prop_assert!((later.shortest()..=later.longest()).contains(&(later.after(day * DAY) - day * DAY)));
        }

        #[test]
        fn parts_in_range(months in 0..600, days in 0..10_000, micros in 0..10 * DAY) {
            prop_assert!(Duration::new(months, days, micros).is_ok());
        }
    }
}
