// SPDX-License-Identifier: EUPL-1.2
//! May a conference be open at this time? Who opens it is decided in the room; this is the outer bound.

use jiff::{SignedDuration, Timestamp};

use crate::record::{Conference, Tenant};
use crate::time::UnixMillis;

/// Answer to "may it be open?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// An opener may open it.
    Allowed {
        /// First moment at which it must be closed; `None` without a schedule.
        closes_at: Option<UnixMillis>,
    },
    /// Later.
    NotYet {
        /// When it may be opened.
        opens_at: UnixMillis,
    },
    /// Its last window is over.
    Over,
    /// The conference or its tenant is suspended.
    Suspended,
}

impl Opening {
    /// May it be open?
    #[must_use]
    pub const fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// Why somebody waits outside; the names are those of the door's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiting {
    /// No opener has come yet.
    NotOpened,
    /// Its time has not come.
    NotYetTime,
    /// No node takes it at the moment.
    NoCapacity,
}

impl Waiting {
    /// CamelCase reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotOpened => "NotOpened",
            Self::NotYetTime => "NotYetTime",
            Self::NoCapacity => "NoCapacity",
        }
    }
}

/// Whether a conference may be open at `now`.
#[must_use]
pub fn opening(tenant: &Tenant, conference: &Conference, now: UnixMillis) -> Opening {
    if tenant.suspended || conference.suspended {
        return Opening::Suspended;
    }
    let active_from = tenant.active_from.unwrap_or(UnixMillis(i64::MIN));
    let moment = UnixMillis(now.0.max(active_from.0));
    let scheduled = by_schedule(conference, moment);
    match scheduled {
        Opening::Allowed { .. } if now < active_from => Opening::NotYet {
            opens_at: active_from,
        },
        other => other,
    }
}

fn by_schedule(conference: &Conference, now: UnixMillis) -> Opening {
    let Some(schedule) = &conference.schedule else {
        return Opening::Allowed { closes_at: None };
    };
    let Ok(now) = Timestamp::from_millisecond(now.0) else {
        return Opening::Over;
    };
    let shift = |at: Timestamp, by: i64| {
        at.checked_add(SignedDuration::from_millis(by))
            .unwrap_or(at)
    };
    let before = i64::try_from(schedule.open_before.as_millis()).unwrap_or(0);
    let after = i64::try_from(schedule.close_after.as_millis()).unwrap_or(0);
    // One more nanosecond, because a window that begins at the end of the searched span is not in it.
    let soon = shift(now, before);
    let soon = soon
        .checked_add(SignedDuration::from_nanos(1))
        .unwrap_or(soon);
    // The window that is open with its margins closes at the latest one of those that overlap.
    let closes = schedule
        .windows
        .windows_between(shift(now, -after), soon, WINDOWS_LOOKED_AT)
        .into_iter()
        .filter(|window| shift(window.opens, -before) <= now && now < shift(window.closes, after))
        .map(|window| shift(window.closes, after))
        .max();
    if let Some(closes) = closes {
        return Opening::Allowed {
            closes_at: Some(UnixMillis(closes.as_millisecond())),
        };
    }
    match schedule.windows.next_window(now) {
        Some(window) => Opening::NotYet {
            opens_at: UnixMillis(shift(window.opens, -before).as_millisecond()),
        },
        None => Opening::Over,
    }
}

/// Whether capacity is held for a planned conference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Not by what is known now.
    Never,
    /// Later.
    From(UnixMillis),
    /// At this moment.
    Now {
        /// First moment at which it is not any more; `None` without a schedule.
        until: Option<UnixMillis>,
    },
}

/// Whether capacity is held for a conference at `now`: from the time it may be opened before a window to the window's end. Who stays
/// longer is counted as everybody is.
#[must_use]
pub fn planned(tenant: &Tenant, conference: &Conference, now: UnixMillis) -> Planned {
    if conference.reserve_participants == 0 || tenant.suspended || conference.suspended {
        return Planned::Never;
    }
    let active_from = tenant.active_from.unwrap_or(UnixMillis(i64::MIN));
    let moment = UnixMillis(now.0.max(active_from.0));
    match planned_by_schedule(conference, moment) {
        Planned::Now { .. } if now < active_from => Planned::From(active_from),
        other => other,
    }
}

fn planned_by_schedule(conference: &Conference, now: UnixMillis) -> Planned {
    let Some(schedule) = &conference.schedule else {
        return Planned::Now { until: None };
    };
    let Ok(now) = Timestamp::from_millisecond(now.0) else {
        return Planned::Never;
    };
    let before = SignedDuration::try_from(schedule.open_before).unwrap_or(SignedDuration::ZERO);
    let begins = |opens: Timestamp| opens.checked_sub(before).unwrap_or(opens);
    let soon = now.checked_add(before).unwrap_or(now);
    // One more nanosecond, because a window that begins at the end of the searched span is not in it.
    let soon = soon
        .checked_add(SignedDuration::from_nanos(1))
        .unwrap_or(soon);
    let closes = schedule
        .windows
        .windows_between(now, soon, WINDOWS_LOOKED_AT)
        .into_iter()
        .filter(|window| begins(window.opens) <= now && now < window.closes)
        .map(|window| window.closes)
        .max();
    if let Some(closes) = closes {
        return Planned::Now {
            until: Some(UnixMillis(closes.as_millisecond())),
        };
    }
    match schedule.windows.next_window(now) {
        Some(window) => Planned::From(UnixMillis(begins(window.opens).as_millisecond())),
        None => Planned::Never,
    }
}

/// Windows that overlap one moment with its margins; a series dense enough to have more is open anyway.
const WINDOWS_LOOKED_AT: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::ConferenceSchedule;
    use crate::testing::{conference, tenant};

    fn at(text: &str) -> UnixMillis {
        UnixMillis(
            text.parse::<Timestamp>()
                .expect("timestamp")
                .as_millisecond(),
        )
    }

    fn weekly() -> ConferenceSchedule {
        let text = plenum_schedule::Text {
            start: "2026-09-01T08:00",
            time_zone: "Europe/Berlin",
            end: plenum_schedule::End::After(Duration::from_secs(3600)),
            recurrence: Some("FREQ=WEEKLY;COUNT=2"),
            except: &[],
        };
        ConferenceSchedule {
            windows: plenum_schedule::Schedule::parse(&text).expect("schedule"),
            open_before: Duration::from_secs(900),
            close_after: Duration::from_secs(600),
        }
    }

    #[test]
    fn a_window_opens_and_closes_with_its_margins() {
        let tenant = tenant("t");
        let mut conference = conference("t", "c");
        conference.schedule = Some(weekly());
        let opening = |text| opening(&tenant, &conference, at(text));
        // 08:00 in Berlin is 06:00 UTC.
        let first = Opening::NotYet {
            opens_at: at("2026-09-01T05:45:00Z"),
        };
        assert_eq!(opening("2026-08-01T00:00:00Z"), first);
        assert_eq!(opening("2026-09-01T05:44:59Z"), first);
        let open = Opening::Allowed {
            closes_at: Some(at("2026-09-01T07:10:00Z")),
        };
        for moment in [
            "2026-09-01T05:45:00Z",
            "2026-09-01T06:00:00Z",
            "2026-09-01T07:09:59Z",
        ] {
            assert_eq!(opening(moment), open, "{moment}");
        }
        assert_eq!(
            opening("2026-09-01T07:10:00Z"),
            Opening::NotYet {
                opens_at: at("2026-09-08T05:45:00Z")
            }
        );
        assert_eq!(opening("2026-09-08T07:10:00Z"), Opening::Over);
    }

    #[test]
    fn a_window_without_margins_opens_in_its_first_moment() {
        let tenant = tenant("t");
        let mut conference = conference("t", "c");
        conference.schedule = Some(ConferenceSchedule {
            open_before: Duration::ZERO,
            close_after: Duration::ZERO,
            ..weekly()
        });
        let opening = |text| opening(&tenant, &conference, at(text));
        for (opens, closes) in [
            ("2026-09-01T06:00:00Z", "2026-09-01T07:00:00Z"),
            // Of the last one nothing would be left to come.
            ("2026-09-08T06:00:00Z", "2026-09-08T07:00:00Z"),
        ] {
            let open = Opening::Allowed {
                closes_at: Some(at(closes)),
            };
            assert_eq!(opening(opens), open, "{opens}");
            assert_ne!(opening(closes), open, "{closes}");
        }
        assert_eq!(
            opening("2026-09-08T05:59:59.999Z"),
            Opening::NotYet {
                opens_at: at("2026-09-08T06:00:00Z")
            }
        );
    }

    #[test]
    fn capacity_is_held_from_the_margin_before_a_window_to_its_end() {
        let tenant = tenant("t");
        let mut conference = conference("t", "c");
        conference.schedule = Some(weekly());
        assert_eq!(
            planned(&tenant, &conference, at("2026-09-01T06:00:00Z")),
            Planned::Never,
            "nothing is asked for"
        );
        conference.reserve_participants = 20;
        let planned = |text| planned(&tenant, &conference, at(text));
        assert_eq!(
            planned("2026-08-01T00:00:00Z"),
            Planned::From(at("2026-09-01T05:45:00Z"))
        );
        assert_eq!(
            planned("2026-09-01T05:44:59.999Z"),
            Planned::From(at("2026-09-01T05:45:00Z"))
        );
        for moment in [
            "2026-09-01T05:45:00Z",
            "2026-09-01T06:00:00Z",
            "2026-09-01T06:59:59.999Z",
        ] {
            let until = Some(at("2026-09-01T07:00:00Z"));
            assert_eq!(planned(moment), Planned::Now { until }, "{moment}");
        }
        assert_eq!(
            planned("2026-09-01T07:00:00Z"),
            Planned::From(at("2026-09-08T05:45:00Z"))
        );
        assert_eq!(planned("2026-09-08T07:00:00Z"), Planned::Never);
    }

    #[test]
    fn nothing_is_held_for_the_suspended_or_before_a_tenant_is_active() {
        let mut tenant = tenant("t");
        let mut conference = conference("t", "c");
        conference.reserve_participants = 20;
        let now = at("2026-09-01T06:00:00Z");
        assert_eq!(
            planned(&tenant, &conference, now),
            Planned::Now { until: None }
        );
        tenant.active_from = Some(at("2026-09-01T06:30:00Z"));
        assert_eq!(
            planned(&tenant, &conference, now),
            Planned::From(at("2026-09-01T06:30:00Z"))
        );
        tenant.active_from = None;
        conference.suspended = true;
        assert_eq!(planned(&tenant, &conference, now), Planned::Never);
        conference.suspended = false;
        tenant.suspended = true;
        assert_eq!(planned(&tenant, &conference, now), Planned::Never);
    }

    #[test]
    fn suspension_wins_over_everything() {
        let mut tenant = tenant("t");
        let mut conference = conference("t", "c");
        let now = at("2026-09-01T06:00:00Z");
        assert_eq!(
            opening(&tenant, &conference, now),
            Opening::Allowed { closes_at: None }
        );
        conference.suspended = true;
        assert_eq!(opening(&tenant, &conference, now), Opening::Suspended);
        conference.suspended = false;
        tenant.suspended = true;
        assert_eq!(opening(&tenant, &conference, now), Opening::Suspended);
    }

    #[test]
    fn nothing_opens_before_its_tenant_is_active() {
        let mut tenant = tenant("t");
        let mut conference = conference("t", "c");
        let now = at("2026-09-01T06:00:00Z");
        tenant.active_from = Some(at("2026-09-01T06:30:00Z"));
        assert_eq!(
            opening(&tenant, &conference, now),
            Opening::NotYet {
                opens_at: at("2026-09-01T06:30:00Z")
            }
        );
        conference.schedule = Some(weekly());
        assert_eq!(
            opening(&tenant, &conference, now),
            Opening::NotYet {
                opens_at: at("2026-09-01T06:30:00Z")
            }
        );
        // Active only after the first window: the second one is the next.
        tenant.active_from = Some(at("2026-09-02T00:00:00Z"));
        assert_eq!(
            opening(&tenant, &conference, now),
            Opening::NotYet {
                opens_at: at("2026-09-08T05:45:00Z")
            }
        );
    }
}
