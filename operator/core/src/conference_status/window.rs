// SPDX-License-Identifier: EUPL-1.2
//! When a conference may be open, with the time before and after its schedule.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plenum_api::{
    ConferenceSpec, GoDuration,
    conference::{ConferenceSchedule, Window},
};

/// Where a moment lies in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// There is no schedule, or none that can be evaluated.
    Always,
    /// A window is open.
    Open {
        /// Since.
        opens: Timestamp,
        /// Until.
        closes: Timestamp,
    },
    /// The next window lies ahead.
    Ahead {
        /// Since.
        opens: Timestamp,
        /// Until.
        closes: Timestamp,
    },
    /// The last window has closed.
    Over {
        /// When.
        closed: Timestamp,
    },
}

impl Moment {
    /// Where a moment lies in the schedule of a conference.
    #[must_use]
    pub fn of(spec: &ConferenceSpec, now: Timestamp) -> Self {
        let Some(schedule) = &spec.schedule else {
            return Self::Always;
        };
        evaluated(schedule, now).unwrap_or(Self::Always)
    }

    /// As it stands in a status; what is over leaves it as it was.
    #[must_use]
    pub fn window(self) -> Option<Window> {
        match self {
            Self::Open { opens, closes } | Self::Ahead { opens, closes } => Some(Window {
                opens_at: Some(Time(opens)),
                closes_at: Some(Time(closes)),
            }),
            Self::Always | Self::Over { .. } => None,
        }
    }

    /// The next moment at which this changes.
    #[must_use]
    pub fn changes_at(self) -> Option<Timestamp> {
        match self {
            Self::Open { closes, .. } => Some(closes),
            Self::Ahead { opens, .. } => Some(opens),
            Self::Always | Self::Over { .. } => None,
        }
    }
}

/// When the object of an ended conference is to be collected; `None` while it has no end or nobody asked for it.
#[must_use]
pub fn collected_at(spec: &ConferenceSpec) -> Option<Timestamp> {
    let ttl = spec.lifecycle.as_ref()?.ttl_after_end.as_ref()?;
    let schedule = spec.schedule.as_ref()?;
    let evaluator = schedule.schedule.to_evaluator().ok()?;
    let ends = evaluator.ends_at()?;
    ends.checked_add(length(&schedule.close_after))
        .ok()?
        .checked_add(length(ttl))
        .ok()
}

fn evaluated(schedule: &ConferenceSchedule, now: Timestamp) -> Option<Moment> {
    let evaluator = schedule.schedule.to_evaluator().ok()?;
    let (before, after) = (length(&schedule.open_before), length(&schedule.close_after));
    let from = now.checked_sub(after).ok()?;
    let next = evaluator
        .windows_between(from, Timestamp::MAX, 1)
        .into_iter()
        .next();
    let Some(window) = next else {
        let closed = evaluator.ends_at()?.checked_add(after).ok()?;
        return Some(Moment::Over { closed });
    };
    let opens = window.opens.checked_sub(before).ok()?;
    let closes = window.closes.checked_add(after).ok()?;
    Some(if opens <= now {
        Moment::Open { opens, closes }
    } else {
        Moment::Ahead { opens, closes }
    })
}

/// What cannot be read counts as nothing: whoever validates has said so.
fn length(duration: &GoDuration) -> SignedDuration {
    let read = duration.to_std().ok();
    read.and_then(|length| SignedDuration::try_from(length).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(recurrence: Option<&str>) -> ConferenceSpec {
        let mut value = json!({
            "schedule": {
                "start": "2026-12-01T10:00", "timeZone": "Europe/Berlin", "duration": "1h",
                "openBefore": "15m", "closeAfter": "30m",
            },
            "lifecycle": { "ttlAfterEnd": "24h" },
        });
        if let Some(rule) = recurrence {
            value["schedule"]["recurrence"] = json!(rule);
        }
        serde_json::from_value(value).expect("a conference")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    #[test]
    fn a_window_opens_before_its_start_and_closes_after_its_end() {
        let spec = spec(None);
        let (opens, closes) = (at("2026-12-01T08:45:00Z"), at("2026-12-01T10:30:00Z"));
        assert_eq!(
            Moment::of(&spec, at("2026-12-01T08:44:59Z")),
            Moment::Ahead { opens, closes }
        );
        for inside in ["2026-12-01T08:45:00Z", "2026-12-01T10:29:59Z"] {
            assert_eq!(
                Moment::of(&spec, at(inside)),
                Moment::Open { opens, closes }
            );
        }
        assert_eq!(
            Moment::of(&spec, at("2026-12-01T10:30:00Z")),
            Moment::Over { closed: closes }
        );
    }

    #[test]
    fn between_two_windows_the_next_one_counts() {
        let spec = spec(Some("FREQ=WEEKLY;COUNT=2"));
        let moment = Moment::of(&spec, at("2026-12-03T00:00:00Z"));
        let Moment::Ahead { opens, .. } = moment else {
            panic!("{moment:?}");
        };
        assert_eq!(opens, at("2026-12-08T08:45:00Z"));
        assert_eq!(moment.changes_at(), Some(opens));
    }

    #[test]
    fn an_object_is_collected_after_the_last_window_and_its_time_to_live() {
        let spec = spec(Some("FREQ=WEEKLY;COUNT=2"));
        assert_eq!(collected_at(&spec), Some(at("2026-12-09T10:30:00Z")));
        let mut forever = spec.clone();
        forever.lifecycle = None;
        assert_eq!(collected_at(&forever), None);
    }
}
