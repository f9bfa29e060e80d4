// SPDX-License-Identifier: EUPL-1.2
//! Planned conferences for which capacity is held at a time. Schedules are evaluated when something about them changes, not at each look.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Strategy;
use crate::directory::DirectoryView;
use crate::ids::{RoomKey, Uid};
use crate::opening::{Planned, planned};
use crate::quota::Usage;
use crate::record::{Conference, Tenant};
use crate::time::UnixMillis;

/// Capacity that is to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// For whose room.
    pub key: RoomKey,
    /// Object that asks for it.
    pub conference: Uid,
    /// How much: the room and its expected participants.
    pub amount: Usage,
    /// How the room is laid out.
    pub strategy: Strategy,
}

impl Hold {
    /// What a conference asks for at `now`, if it does.
    #[must_use]
    pub fn due(tenant: &Tenant, conference: &Conference, now: UnixMillis) -> Option<Self> {
        match planned(tenant, conference, now) {
            Planned::Now { .. } => Some(Self::of(conference)),
            Planned::From(_) | Planned::Never => None,
        }
    }

    fn of(conference: &Conference) -> Self {
        Self {
            key: conference.key(),
            conference: conference.uid.clone(),
            amount: Usage::of_join(true, conference.reserve_participants),
            strategy: conference.strategy,
        }
    }
}

/// What was found out about a conference, for as long as it holds.
#[derive(Debug)]
struct Found {
    conference: Arc<Conference>,
    tenant: Arc<Tenant>,
    planned: Planned,
    at: UnixMillis,
}

impl Found {
    fn is_of(&self, tenant: &Arc<Tenant>, conference: &Arc<Conference>, now: UnixMillis) -> bool {
        let still = match self.planned {
            Planned::Never | Planned::Now { until: None } => true,
            Planned::From(moment)
            | Planned::Now {
                until: Some(moment),
            } => now < moment,
        };
        // A clock that was put back asks again.
        still
            && self.at <= now
            && Arc::ptr_eq(&self.tenant, tenant)
            && Arc::ptr_eq(&self.conference, conference)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Calendar {
    found: BTreeMap<Uid, Found>,
}

impl Calendar {
    /// What is to be held at `now`, in the order of rooms. Cheap to ask often.
    pub fn due(&mut self, view: &DirectoryView, now: UnixMillis) -> Vec<Hold> {
        let mut before = std::mem::take(&mut self.found);
        let mut due = Vec::new();
        for conference in view.conferences() {
            if conference.reserve_participants == 0 {
                continue;
            }
            let Some(tenant) = view.tenant(&conference.tenant) else {
                continue;
            };
            let found = before
                .remove(&conference.uid)
                .filter(|found| found.is_of(tenant, conference, now))
                .unwrap_or_else(|| Found {
                    conference: Arc::clone(conference),
                    tenant: Arc::clone(tenant),
                    planned: planned(tenant, conference, now),
                    at: now,
                });
            if matches!(found.planned, Planned::Now { .. }) {
                due.push(Hold::of(conference));
            }
            self.found.insert(conference.uid.clone(), found);
        }
        due.sort_by(|a, b| a.key.cmp(&b.key));
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::Directory;
    use crate::ids::Epoch;
    use crate::record::{ConferenceSchedule, Record};
    use crate::testing::{conference, tenant};
    use crate::time::Moment;

    fn at(text: &str) -> UnixMillis {
        let moment: jiff::Timestamp = text.parse().expect("timestamp");
        UnixMillis(moment.as_millisecond())
    }

    fn lecture(name: &str, start: &str, people: u32) -> Record {
        let text = plenum_schedule::Text {
            start,
            time_zone: "UTC",
            end: plenum_schedule::End::After(Duration::from_secs(3_600)),
            recurrence: None,
            except: &[],
        };
        let mut conference = conference("t", name);
        conference.schedule = Some(ConferenceSchedule {
            windows: plenum_schedule::Schedule::parse(&text).expect("schedule"),
            open_before: Duration::from_secs(900),
            close_after: Duration::ZERO,
        });
        conference.reserve_participants = people;
        conference.revision = people.to_string();
        Record::Conference(Box::new(conference))
    }

    fn published(records: Vec<Record>) -> Directory {
        let mut directory = Directory::default();
        directory.begin(Epoch(1), Moment::ZERO).expect("first");
        directory
            .put(Record::Tenant(Box::new(tenant("t"))))
            .expect("taken");
        for record in records {
            directory.put(record).expect("taken");
        }
        directory.end_snapshot();
        directory
    }

    fn names(calendar: &mut Calendar, directory: &Directory, now: &str) -> Vec<(String, u32)> {
        calendar
            .due(&directory.view(), at(now))
            .into_iter()
            .map(|hold| (hold.key.name.to_string(), hold.amount.participants))
            .collect()
    }

    #[test]
    fn what_is_due_follows_time_and_directory() {
        let mut directory = published(vec![
            lecture("b", "2026-09-01T08:00", 20),
            lecture("a", "2026-09-01T08:30", 30),
            lecture("c", "2026-09-01T08:00", 0),
        ]);
        let mut calendar = Calendar::default();
        let held = |name: &str, people| (name.to_owned(), people);
        assert_eq!(names(&mut calendar, &directory, "2026-09-01T07:44:59Z"), []);
        assert_eq!(
            names(&mut calendar, &directory, "2026-09-01T07:45:00Z"),
            [held("b", 20)]
        );
        assert_eq!(
            names(&mut calendar, &directory, "2026-09-01T08:15:00Z"),
            [held("a", 30), held("b", 20)]
        );
        // A clock that is put back, as by an operator.
        assert_eq!(names(&mut calendar, &directory, "2026-09-01T07:00:00Z"), []);
        assert_eq!(
            names(&mut calendar, &directory, "2026-09-01T09:00:00Z"),
            [held("a", 30)]
        );
        directory
            .put(lecture("a", "2026-09-01T08:30", 40))
            .expect("taken");
        assert_eq!(
            names(&mut calendar, &directory, "2026-09-01T09:00:01Z"),
            [held("a", 40)]
        );
        directory.begin(Epoch(1), Moment::ZERO).expect("again");
        directory
            .put(Record::Tenant(Box::new(tenant("t"))))
            .expect("taken");
        directory.end_snapshot();
        assert_eq!(
            names(&mut calendar, &directory, "2026-09-01T09:00:02Z"),
            [],
            "retracted"
        );
    }
}
