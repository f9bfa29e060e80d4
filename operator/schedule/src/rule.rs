// SPDX-License-Identifier: EUPL-1.2
//! The subset of RRULE: FREQ DAILY to YEARLY, INTERVAL, BYDAY with ordinals, BYMONTHDAY, COUNT, UNTIL.
//!
//! *Source*: RFC 5545 §3.3.10. A series is a sequence of periods (days, weeks from Monday, months, years), each expanded by
//! itself, so a query can begin in the period of the moment it asks for. COUNT is turned into a last date when the rule is
//! read. Like `rrule` and most calendars, a start that does not match the rule is not an occurrence by itself.

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime, Time, Weekday},
    tz::TimeZone,
};

use crate::{ScheduleError, cut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frequency {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    frequency: Frequency,
    interval: i64,
    by_day: Vec<(Option<i8>, Weekday)>,
    by_month_day: Vec<i8>,
    last: Option<DateTime>,
}

impl Rule {
    pub(crate) fn parse(
        text: &str,
        start: DateTime,
        zone: &TimeZone,
    ) -> Result<Self, ScheduleError> {
        if text.len() > TEXT_MAX {
            return Err(problem(format!("longer than {TEXT_MAX} characters")));
        }
        let (mut frequency, mut interval, mut count, mut until) = (None, None, None, None);
        let (mut by_day, mut by_month_day) = (Vec::new(), Vec::new());
        let mut seen: Vec<&str> = Vec::new();
        for part in text.split(';') {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| problem(format!("{:?} is not NAME=VALUE", cut(part))))?;
            if seen.contains(&name) {
                return Err(problem(format!("{name} stands twice")));
            }
            seen.push(name);
            let wrong = || problem(format!("{name}={} is not allowed", cut(value)));
            match name {
                "FREQ" => frequency = Some(parse_frequency(value).ok_or_else(wrong)?),
                "INTERVAL" => interval = Some(bounded(value, 1, INTERVAL_MAX).ok_or_else(wrong)?),
                "COUNT" => count = Some(bounded(value, 1, COUNT_MAX).ok_or_else(wrong)?),
                "UNTIL" => until = Some(parse_until(value, zone).ok_or_else(wrong)?),
                "BYDAY" => {
                    by_day = value
                        .split(',')
                        .map(parse_day)
                        .collect::<Option<_>>()
                        .ok_or_else(wrong)?
                }
                "BYMONTHDAY" => {
                    by_month_day = value
                        .split(',')
                        .map(parse_month_day)
                        .collect::<Option<_>>()
                        .ok_or_else(wrong)?;
                }
                _ => {
                    return Err(problem(format!(
                        "{} is not supported; known are FREQ, INTERVAL, BYDAY, BYMONTHDAY, COUNT, UNTIL",
                        cut(name)
                    )));
                }
            }
        }
        let frequency = frequency.ok_or_else(|| problem("FREQ is missing".to_owned()))?;
        if count.is_some() && until.is_some() {
            return Err(problem("COUNT and UNTIL exclude each other".to_owned()));
        }
        let ordinals = by_day.iter().any(|(ordinal, _)| ordinal.is_some());
        if ordinals
            && (matches!(frequency, Frequency::Daily | Frequency::Weekly)
                || !by_month_day.is_empty())
        {
            return Err(problem(
                "an ordinal in BYDAY needs FREQ=MONTHLY or YEARLY and no BYMONTHDAY".to_owned(),
            ));
        }
        if frequency == Frequency::Weekly && !by_month_day.is_empty() {
            return Err(problem(
                "BYMONTHDAY does not go with FREQ=WEEKLY".to_owned(),
            ));
        }
        let mut rule = Self {
            frequency,
            interval: interval.unwrap_or(1),
            by_day,
            by_month_day,
            last: until,
        };
        if let Some(count) = count {
            // The last of `count` occurrences; a rule that never yields that many ends where counting stopped.
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            rule.last = Some(
                rule.starts(start, 0, COUNT_PERIODS_MAX)
                    .take(count)
                    .last()
                    .unwrap_or(start),
            );
        }
        Ok(rule)
    }

    /// Local date and time of the last possible start.
    pub(crate) fn last(&self) -> Option<DateTime> {
        self.last
    }

    /// Starts on or after a day, and perhaps some before it.
    pub(crate) fn starts_from(
        &self,
        start: DateTime,
        day: Date,
    ) -> impl Iterator<Item = DateTime> + '_ {
        let first = start.date();
        let units = match self.frequency {
            Frequency::Daily => days_between(first, day),
            Frequency::Weekly => days_between(monday(first), day).div_euclid(7),
            Frequency::Monthly => months(day) - months(first),
            Frequency::Yearly => i64::from(day.year()) - i64::from(first.year()),
        };
        self.starts(
            start,
            (units.max(0) / self.interval).max(0),
            QUERY_PERIODS_MAX,
        )
    }

    fn starts(
        &self,
        start: DateTime,
        period: i64,
        periods_max: i64,
    ) -> impl Iterator<Item = DateTime> + '_ {
        (period..period.saturating_add(periods_max))
            .map_while(move |period| self.dates(start.date(), period))
            .flatten()
            .map(move |date| DateTime::from_parts(date, start.time()))
            .filter(move |at| *at >= start)
            .take_while(move |at| self.last.is_none_or(|last| *at <= last))
    }

    /// Dates of a period, in order; `None` behind the end of the calendar.
    fn dates(&self, first: Date, period: i64) -> Option<Vec<Date>> {
        let units = period.checked_mul(self.interval)?;
        let mut dates = match self.frequency {
            Frequency::Daily => vec![first.checked_add(units.days()).ok()?],
            Frequency::Weekly => {
                let monday = monday(first).checked_add(units.weeks()).ok()?;
                (0..7)
                    .filter_map(|day| monday.checked_add(day.days()).ok())
                    .collect()
            }
            Frequency::Monthly => span(
                first.first_of_month().checked_add(units.months()).ok()?,
                Date::days_in_month,
            ),
            Frequency::Yearly => span(
                first.first_of_year().checked_add(units.years()).ok()?,
                Date::days_in_year,
            ),
        };
        dates.retain(|date| self.admits(first, *date));
        Some(dates)
    }

    fn admits(&self, first: Date, date: Date) -> bool {
        let by_month_day = self.by_month_day.is_empty()
            || self.by_month_day.iter().any(|wanted| {
                let wanted = if *wanted > 0 {
                    *wanted
                } else {
                    date.days_in_month() + 1 + *wanted
                };
                date.day() == wanted
            });
        let by_day = self.by_day.is_empty()
            || self
                .by_day
                .iter()
                .any(|(ordinal, day)| self.is_nth(date, *ordinal, *day));
        let free = self.by_day.is_empty() && self.by_month_day.is_empty();
        let by_start = !free
            || match self.frequency {
                Frequency::Daily => true,
                Frequency::Weekly => date.weekday() == first.weekday(),
                Frequency::Monthly => date.day() == first.day(),
                Frequency::Yearly => (date.month(), date.day()) == (first.month(), first.day()),
            };
        by_month_day && by_day && by_start
    }

    /// Whether a date is the n-th such weekday of its month, or of its year with FREQ=YEARLY.
    fn is_nth(&self, date: Date, ordinal: Option<i8>, day: Weekday) -> bool {
        if date.weekday() != day {
            return false;
        }
        let Some(ordinal) = ordinal else { return true };
        let (position, length) = match self.frequency {
            Frequency::Yearly => (date.day_of_year(), date.days_in_year()),
            _ => (i16::from(date.day()), i16::from(date.days_in_month())),
        };
        let nth = if ordinal > 0 {
            (position - 1) / 7 + 1
        } else {
            -((length - position) / 7 + 1)
        };
        nth == i16::from(ordinal)
    }
}

fn span<N: Into<i64>>(first: Date, length: fn(Date) -> N) -> Vec<Date> {
    (0..length(first).into())
        .filter_map(|day| first.checked_add(day.days()).ok())
        .collect()
}

fn monday(date: Date) -> Date {
    let back = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(back.days()).unwrap_or(date)
}

fn days_between(from: Date, to: Date) -> i64 {
    from.until(to).map_or(0, |span| i64::from(span.get_days()))
}

fn months(date: Date) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month())
}

fn parse_frequency(text: &str) -> Option<Frequency> {
    Some(match text {
        "DAILY" => Frequency::Daily,
        "WEEKLY" => Frequency::Weekly,
        "MONTHLY" => Frequency::Monthly,
        "YEARLY" => Frequency::Yearly,
        _ => return None,
    })
}

fn bounded(text: &str, min: i64, max: i64) -> Option<i64> {
    let digits = (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits {
        text.parse().ok()?
    } else {
        return None;
    };
    (min..=max).contains(&number).then_some(number)
}

fn parse_day(text: &str) -> Option<(Option<i8>, Weekday)> {
    let at = text.len().checked_sub(2)?;
    let (ordinal, day) = (text.get(..at)?, text.get(at..)?);
    let day = match day {
        "MO" => Weekday::Monday,
        "TU" => Weekday::Tuesday,
        "WE" => Weekday::Wednesday,
        "TH" => Weekday::Thursday,
        "FR" => Weekday::Friday,
        "SA" => Weekday::Saturday,
        "SU" => Weekday::Sunday,
        _ => return None,
    };
    if ordinal.is_empty() {
        return Some((None, day));
    }
    let ordinal: i8 = ordinal.parse().ok()?;
    (ordinal != 0 && (-53..=53).contains(&ordinal)).then_some((Some(ordinal), day))
}

fn parse_month_day(text: &str) -> Option<i8> {
    let day: i8 = text.parse().ok()?;
    (day != 0 && (-31..=31).contains(&day)).then_some(day)
}

/// A date means its whole day, a time without `Z` is local, one with `Z` is UTC.
fn parse_until(text: &str, zone: &TimeZone) -> Option<DateTime> {
    if !text.is_ascii() {
        return None;
    }
    let date = |text: &str| {
        let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits {
            return None;
        }
        Date::new(
            text[..4].parse().ok()?,
            text[4..6].parse().ok()?,
            text[6..].parse().ok()?,
        )
        .ok()
    };
    let Some((day, time)) = text.split_once('T') else {
        return Some(DateTime::from_parts(
            date(text)?,
            Time::new(23, 59, 59, 0).ok()?,
        ));
    };
    let (time, utc) = time
        .strip_suffix('Z')
        .map_or((time, false), |time| (time, true));
    if time.len() != 6 || !time.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let time = Time::new(
        time[..2].parse().ok()?,
        time[2..4].parse().ok()?,
        time[4..].parse().ok()?,
        0,
    )
    .ok()?;
    let at = DateTime::from_parts(date(day)?, time);
    if !utc {
        return Some(at);
    }
    let instant: Timestamp = TimeZone::UTC.to_timestamp(at).ok()?;
    Some(instant.to_zoned(zone.clone()).datetime())
}

fn problem(problem: String) -> ScheduleError {
    ScheduleError::Recurrence { problem }
}

/// As many characters as the schema allows.
const TEXT_MAX: usize = 256;
const INTERVAL_MAX: i64 = 1_000;
/// Ten years of days; counting them when a rule is read costs well below a millisecond.
const COUNT_MAX: i64 = 3_660;
/// Periods that counting looks at: 3,660 occurrences on every seventh day.
const COUNT_PERIODS_MAX: i64 = 30_000;
/// Periods that a query looks at: the lookback of a year of days, and ten years of days to come.
const QUERY_PERIODS_MAX: i64 = 4_020;
