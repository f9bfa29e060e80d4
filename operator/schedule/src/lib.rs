// SPDX-License-Identifier: EUPL-1.2
//! The one evaluator of `Schedule`: a local start in a zone, an end, a recurrence and exceptions, in; windows, out.
//!
//! Pure: the clock is an argument, and zones come from the bundled database, never from the host. A start inside a spring
//! gap moves forward by the gap; an ambiguous one means the first. Work is bounded: a query looks at a limited number of
//! periods near the moment asked for, never at the whole past of the series.

use std::time::Duration;

use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, DateTime, Time},
    tz::{TimeZone, TimeZoneDatabase},
};

mod rule;
#[cfg(test)]
mod tests;

use rule::Rule;

/// The members of a schedule as they stand in a manifest.
#[derive(Clone, Debug)]
pub struct Text<'a> {
    /// Local date and time without offset.
    pub start: &'a str,
    /// IANA name.
    pub time_zone: &'a str,
    /// End of a window.
    pub end: End,
    /// RRULE without the property name.
    pub recurrence: Option<&'a str>,
    /// Local dates that are left out.
    pub except: &'a [String],
}

/// A schedule as it can be written again: parsed, it yields the same windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Local date and time without offset.
    pub start: String,
    /// IANA name.
    pub time_zone: String,
    /// End of a window.
    pub end: End,
    /// RRULE without the property name.
    pub recurrence: Option<String>,
    /// Local dates that are left out, in order.
    pub except: Vec<String>,
}

impl Written {
    /// To be parsed.
    #[must_use]
    pub fn text(&self) -> Text<'_> {
        Text {
            start: &self.start,
            time_zone: &self.time_zone,
            end: self.end,
            recurrence: self.recurrence.as_deref(),
            except: &self.except,
        }
    }
}

/// End of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Elapsed time after the start.
    After(Duration),
    /// The next such wall-clock time after the start.
    Until(Time),
}

impl End {
    /// Reads `HH:MM`.
    ///
    /// # Errors
    /// [`ScheduleError::Until`] when the text is no time of day.
    pub fn parse_until(text: &str) -> Result<Self, ScheduleError> {
        let wrong = || ScheduleError::Until { text: cut(text) };
        let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
        if hour.len() != 2 || minute.len() != 2 {
            return Err(wrong());
        }
        let time = Time::new(
            hour.parse().map_err(|_| wrong())?,
            minute.parse().map_err(|_| wrong())?,
            0,
            0,
        );
        time.map(End::Until).map_err(|_| wrong())
    }

    /// `HH:MM`, where it is a time of day.
    #[must_use]
    pub fn until(self) -> Option<String> {
        match self {
            Self::After(_) => None,
            Self::Until(time) => Some(format!("{:02}:{:02}", time.hour(), time.minute())),
        }
    }
}

/// Why a schedule cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The start is no local date and time.
    #[error(
        "start {text:?} is not a local date and time; write it as 2026-09-01T07:30, without offset"
    )]
    Start {
        /// What was written.
        text: String,
    },
    /// The zone is unknown.
    #[error("time zone {text:?} is unknown; write an IANA name such as Europe/Berlin")]
    TimeZone {
        /// What was written.
        text: String,
    },
    /// The duration is none, 0 or too long.
    #[error("duration {text:?} must be more than 0 and at most 366 days")]
    Duration {
        /// What was written.
        text: String,
    },
    /// The end is no time of day.
    #[error("until {text:?} is not a time of day; write it as 13:30")]
    Until {
        /// What was written.
        text: String,
    },
    /// Both or neither end are given.
    #[error("set exactly one of duration and until")]
    EndNotUnique,
    /// The recurrence is not in the supported subset.
    #[error("recurrence: {problem}")]
    Recurrence {
        /// What is wrong, with the part that is.
        problem: String,
    },
    /// An exception is no date.
    #[error("except {text:?} is not a date; write it as 2026-12-24")]
    Except {
        /// What was written.
        text: String,
    },
    /// More exceptions than allowed.
    #[error("except has {count} dates; at most 64 are allowed")]
    TooManyExceptions {
        /// How many were given.
        count: usize,
    },
}

/// A time from `opens` to `closes`, the end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First moment.
    pub opens: Timestamp,
    /// First moment after it.
    pub closes: Timestamp,
}

impl Window {
    /// Whether a moment lies in the window.
    #[must_use]
    pub fn contains(&self, now: Timestamp) -> bool {
        self.opens <= now && now < self.closes
    }
}

/// A schedule that can be evaluated.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: DateTime,
    zone: TimeZone,
    end: End,
    rule: Option<Rule>,
    /// The rule as it was written.
    recurrence: Option<String>,
    /// The zone's name as it was written.
    time_zone: String,
    except: Vec<Date>,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// The first member that is wrong, see [`ScheduleError`].
    pub fn parse(text: &Text<'_>) -> Result<Self, ScheduleError> {
        let start = parse_start(text.start)?;
        let zone = TimeZoneDatabase::bundled()
            .get(text.time_zone)
            .map_err(|_| ScheduleError::TimeZone {
                text: cut(text.time_zone),
            })?;
        if let End::After(length) = text.end
            && (length.is_zero() || length > DURATION_MAX)
        {
            return Err(ScheduleError::Duration {
                text: format!("{}s", length.as_secs_f64()),
            });
        }
        if text.except.len() > EXCEPTIONS_MAX {
            return Err(ScheduleError::TooManyExceptions {
                count: text.except.len(),
            });
        }
        let mut except = text
            .except
            .iter()
            .map(|date| parse_date(date))
            .collect::<Result<Vec<_>, _>>()?;
        except.sort_unstable();
        let rule = text
            .recurrence
            .map(|rule| Rule::parse(rule, start, &zone))
            .transpose()?;
        Ok(Self {
            start,
            zone,
            end: text.end,
            rule,
            recurrence: text.recurrence.map(str::to_owned),
            time_zone: text.time_zone.to_owned(),
            except,
        })
    }

    /// Its members, to be handed on.
    #[must_use]
    pub fn written(&self) -> Written {
        Written {
            start: self.start.to_string(),
            time_zone: self.time_zone.clone(),
            end: self.end,
            recurrence: self.recurrence.clone(),
            except: self.except.iter().map(Date::to_string).collect(),
        }
    }

    /// The window that a moment lies in; of several the one that closes last.
    #[must_use]
    pub fn window_at(&self, now: Timestamp) -> Option<Window> {
        self.windows_from(now)
            .take_while(|window| window.opens <= now)
            .max_by_key(|window| window.closes)
    }

    /// The first window that opens after a moment.
    #[must_use]
    pub fn next_window(&self, now: Timestamp) -> Option<Window> {
        self.windows_from(now).find(|window| window.opens > now)
    }

    /// Windows that overlap `from..to`, in order, at most `count_max`.
    #[must_use]
    pub fn windows_between(&self, from: Timestamp, to: Timestamp, count_max: usize) -> Vec<Window> {
        self.windows_from(from)
            .take_while(|window| window.opens < to)
            .take(count_max)
            .collect()
    }

    /// Whether the series has a last window.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.rule.as_ref().is_none_or(|rule| rule.last().is_some())
    }

    /// End of the last window; `None` for a series without end.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        let Some(rule) = &self.rule else {
            return self.window(self.start).map(|window| window.closes);
        };
        let last = rule.last()?;
        let from = last
            .checked_sub(LOOKBACK_DAYS.days())
            .unwrap_or(DateTime::MIN);
        let from = self.zone.to_timestamp(from).unwrap_or(Timestamp::MIN);
        let near = self.windows_from(from).map(|window| window.closes).max();
        // Nothing near the bound: the series thins out (or is all exceptions), so look from its start.
        near.or_else(|| {
            self.windows_from(Timestamp::MIN)
                .map(|window| window.closes)
                .max()
        })
    }

    /// Windows that close after a moment, in order of their start.
    fn windows_from(&self, from: Timestamp) -> impl Iterator<Item = Window> + '_ {
        let day = from
            .checked_sub(DURATION_MAX_SIGNED)
            .unwrap_or(Timestamp::MIN)
            .to_zoned(self.zone.clone())
            .date();
        let once = self.rule.is_none().then_some(self.start);
        let many = self
            .rule
            .iter()
            .flat_map(move |rule| rule.starts_from(self.start, day));
        once.into_iter()
            .chain(many)
            .filter(|start| self.except.binary_search(&start.date()).is_err())
            .filter_map(|start| self.window(start))
            .filter(move |window| window.closes > from)
    }

    fn window(&self, start: DateTime) -> Option<Window> {
        let opens = self.zone.to_ambiguous_timestamp(start).compatible().ok()?;
        let closes = match self.end {
            End::After(length) => opens
                .checked_add(SignedDuration::try_from(length).ok()?)
                .ok()?,
            End::Until(time) => {
                let same_day = DateTime::from_parts(start.date(), time);
                let next_day = DateTime::from_parts(start.date().tomorrow().ok()?, time);
                let wall = if time > start.time() {
                    same_day
                } else {
                    next_day
                };
                let closes = self.zone.to_ambiguous_timestamp(wall).compatible().ok()?;
                // A start moved out of a gap may have passed the end of its own day.
                if closes > opens {
                    closes
                } else {
                    self.zone
                        .to_ambiguous_timestamp(next_day)
                        .compatible()
                        .ok()?
                }
            }
        };
        Some(Window { opens, closes })
    }
}

fn parse_start(text: &str) -> Result<DateTime, ScheduleError> {
    let wrong = || ScheduleError::Start { text: cut(text) };
    let shape =
        matches!(text.len(), 16 | 19) && text.as_bytes().get(10) == Some(&b'T') && text.is_ascii();
    if !shape {
        return Err(wrong());
    }
    let start: DateTime = text.parse().map_err(|_| wrong())?;
    // The years of the bundled rules; it also keeps all arithmetic far from the ends of the calendar.
    if (1970..=2999).contains(&start.year()) {
        Ok(start)
    } else {
        Err(wrong())
    }
}

fn parse_date(text: &str) -> Result<Date, ScheduleError> {
    let wrong = || ScheduleError::Except { text: cut(text) };
    if text.len() != 10 || !text.is_ascii() {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

/// Text of a user for a message, cut to a length that cannot flood a log.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Longest window. Also how far a query looks back for windows that are still open.
const DURATION_MAX: Duration = Duration::from_hours(LOOKBACK_DAYS as u64 * 24);
const DURATION_MAX_SIGNED: SignedDuration = SignedDuration::from_hours(LOOKBACK_DAYS * 24 + 48);
const LOOKBACK_DAYS: i64 = 366;
/// As many as the schema allows.
const EXCEPTIONS_MAX: usize = 64;
