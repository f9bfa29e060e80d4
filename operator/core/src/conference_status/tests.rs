// SPDX-License-Identifier: EUPL-1.2

use jiff::SignedDuration;
use plenum_api::{Condition, conditions::set};
use serde_json::json;

use super::*;
use crate::objects::ObjectKey;

fn conference(schedule: Option<serde_json::Value>) -> Conference {
    let mut value = json!({
        "metadata": { "name": "council", "namespace": "tenant-town", "generation": 1 },
        "spec": { "openers": [{ "type": "Key", "key": { "name": "opener" } }] },
    });
    if let Some(schedule) = schedule {
        value["spec"]["schedule"] = schedule;
    }
    serde_json::from_value(value).expect("a conference")
}

fn start() -> Timestamp {
    "2026-11-25T08:00:00Z".parse().expect("a moment")
}

fn taken() -> Answer {
    Answer::Taken {
        revision: "r1".to_owned(),
    }
}

fn facts(answer: Option<&Answer>) -> Facts<'_> {
    Facts {
        tenant: Some(Of {
            name: "town",
            active: Ok(()),
            admitted: true,
        }),
        class: Some(("meeting", "c1".to_owned())),
        problems: &[],
        warnings: &[],
        record: None,
        reserve: None,
        publication: Publication {
            planned: Some("r1"),
            answer,
            silent_since: None,
        },
        room: None,
        url: "https://meet.town.example",
        now: start(),
    }
}

fn condition(seen: &Seen, type_: ConditionType) -> &Condition {
    find(&seen.status.conditions, type_).expect("a condition")
}

fn is(seen: &Seen, type_: ConditionType) -> (ConditionStatus, &str) {
    let condition = condition(seen, type_);
    (condition.status, &condition.reason)
}

/// Writes a status where it differs, as the controller does; counts the writes.
struct Written {
    conference: Conference,
    writes: u32,
}

impl Written {
    fn look(&mut self, facts: &Facts<'_>) -> Seen {
        let seen = status(&self.conference, facts);
        if self.conference.status.as_ref() != Some(&seen.status) {
            self.writes += 1;
            self.conference.status = Some(seen.status.clone());
        }
        seen
    }
}

#[test]
fn capacity_is_told_of_conferences_that_ask_for_it_and_of_no_others() {
    let answer = taken();
    let schedule = json!({ "start": "2026-11-25T08:30", "timeZone": "UTC", "duration": "1h" });
    let mut written = Written {
        conference: conference(Some(schedule)),
        writes: 0,
    };
    let mut facts = facts(Some(&answer));
    facts.reserve = Some(0);
    let seen = written.look(&facts);
    assert!(find(&seen.status.conditions, ConditionType::CapacityReserved).is_none());
    let mut at = |minute: i64, held: Option<bool>, reserve| {
        facts.now = start() + SignedDuration::from_mins(minute);
        facts.reserve = reserve;
        facts.room = Some(Room {
            held,
            ..Room::default()
        });
        let seen = written.look(&facts);
        let (status, reason) = is(&seen, ConditionType::CapacityReserved);
        (status, reason.to_owned())
    };
    let is = |status, reason: &str| (status, reason.to_owned());
    use ConditionStatus::{False, True, Unknown};
    assert_eq!(at(0, None, Some(60)), is(False, "Scheduled"));
    assert_eq!(at(20, Some(false), Some(60)), is(False, "NoCapacity"));
    assert_eq!(at(21, Some(true), Some(60)), is(True, "CapacityHeld"));
    // The replica that held it is gone, and the next one has not looked yet; or the object is just being planned anew.
    assert_eq!(at(31, None, Some(60)), is(True, "CapacityHeld"));
    assert_eq!(at(32, None, None), is(True, "CapacityHeld"));
    assert_eq!(at(33, Some(false), Some(60)), is(False, "NoCapacity"));
    assert_eq!(at(34, None, Some(60)), is(Unknown, "Progressing"));
    assert_eq!(at(240, None, Some(60)), is(False, "Ended"));
}

#[test]
fn a_meeting_costs_four_writes_however_many_come_and_go() {
    let answer = taken();
    let mut facts = facts(Some(&answer));
    let schedule = json!({ "start": "2026-11-25T08:30", "timeZone": "UTC", "duration": "1h" });
    let mut written = Written {
        conference: conference(Some(schedule)),
        writes: 0,
    };
    facts.room = Some(Room::default());
    let seen = written.look(&facts);
    assert_eq!(seen.status.phase, Some(Phase::Scheduled));
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::True, "Scheduled")
    );
    written.writes = 0;
    let mut at = |minute: i64, room: Room| {
        facts.now = start() + SignedDuration::from_mins(minute);
        facts.room = Some(room);
        let seen = written.look(&facts);
        (seen.status.phase, written.writes)
    };
    let placed = Room {
        place: Some(Place {
            node: "local-1".to_owned(),
            epoch: 1,
            ..Place::default()
        }),
        ..Room::default()
    };
    let waiting = Room {
        occupied: true,
        peak: 3,
        ..placed.clone()
    };
    let opened = Room {
        opened: true,
        ..waiting.clone()
    };
    assert_eq!(at(20, Room::default()), (Some(Phase::Open), 1));
    assert_eq!(at(21, waiting), (Some(Phase::Open), 2));
    for minute in 22..60 {
        let peak = u32::try_from(minute).expect("small");
        let room = Room {
            peak,
            occupied: minute % 5 != 0,
            ..opened.clone()
        };
        assert_eq!(
            at(minute, room),
            (Some(Phase::Active), 3),
            "minute {minute}"
        );
    }
    let ended = Room {
        peak: 60,
        ..Room::default()
    };
    assert_eq!(at(61, ended), (Some(Phase::Open), 4));
    let status = written.conference.status.expect("a status");
    assert_eq!(status.peak_participants, Some(60));
    assert_eq!(status.assignment, None);
}

#[test]
fn a_move_shows_the_new_node() {
    let answer = taken();
    let mut facts = facts(Some(&answer));
    let mut written = Written {
        conference: conference(None),
        writes: 0,
    };
    let mut on = |node: &str, epoch| {
        facts.room = Some(Room {
            opened: true,
            occupied: true,
            place: Some(Place {
                node: node.to_owned(),
                epoch,
                ..Place::default()
            }),
            peak: 1,
            held: None,
        });
        let status = written.look(&facts).status;
        (
            status.assignment.expect("an assignment").nodes[0]
                .name
                .clone(),
            written.writes,
        )
    };
    assert_eq!(on("a", 1), ("a".to_owned(), 1));
    assert_eq!(on("b", 2), ("b".to_owned(), 2));
    assert_eq!(on("b", 2), ("b".to_owned(), 2));
}

#[test]
fn what_is_wrong_stalls_it_with_the_path_of_the_field() {
    let problem = Problem {
        object: ObjectKey::default(),
        pointer: "/spec/openers/0/key/name".to_owned(),
        rule: "SecretNotFound".to_owned(),
        message: "there is no Secret `opener`".to_owned(),
        remedy: "declare it".to_owned(),
    };
    let problems = [&problem];
    let mut facts = facts(None);
    facts.problems = &problems;
    facts.publication.planned = None;
    let seen = status(&conference(None), &facts);
    let stalled = condition(&seen, ConditionType::Stalled);
    assert_eq!(
        (stalled.status, stalled.reason.as_str()),
        (ConditionStatus::True, "SecretNotFound")
    );
    assert_eq!(
        stalled.message,
        "spec.openers[0].key.name: there is no Secret `opener`; declare it"
    );
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::False, "SecretNotFound")
    );
    assert_eq!(
        is(&seen, ConditionType::Reconciling).0,
        ConditionStatus::False
    );
    assert_eq!(
        is(&seen, ConditionType::Published),
        (ConditionStatus::False, "SecretNotFound")
    );
    assert_eq!(seen.status.phase, Some(Phase::Failed));
}

#[test]
fn it_is_not_ready_before_the_control_plane_has_it() {
    let answer = taken();
    let seen = status(&conference(None), &facts(None));
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::False, "Progressing")
    );
    assert_eq!(
        is(&seen, ConditionType::Reconciling).0,
        ConditionStatus::True
    );
    assert_eq!(seen.status.phase, None);
    let seen = status(&conference(None), &facts(Some(&answer)));
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::True, "Reconciled")
    );
    assert_eq!(seen.status.phase, Some(Phase::Open));
}

#[test]
fn silence_is_told_after_two_minutes_and_takes_nothing_away() {
    let answer = taken();
    let mut object = conference(None);
    let known = status(&object, &facts(Some(&answer)));
    object.status = Some(known.status);
    let mut facts = facts(None);
    facts.publication.silent_since = Some(start());
    facts.now = start() + SignedDuration::from_secs(119);
    let seen = status(&object, &facts);
    assert_eq!(is(&seen, ConditionType::Published).0, ConditionStatus::True);
    assert_eq!(
        seen.again_at,
        Some(start() + SignedDuration::from_secs(120))
    );
    facts.now = start() + SignedDuration::from_secs(120);
    let seen = status(&object, &facts);
    assert_eq!(
        is(&seen, ConditionType::Published),
        (ConditionStatus::Unknown, "ControlPlaneUnreachable")
    );
    assert_eq!(is(&seen, ConditionType::Ready).0, ConditionStatus::True);
    assert_eq!(is(&seen, ConditionType::Stalled).0, ConditionStatus::False);
}

#[test]
fn a_suspended_or_ended_conference_cannot_be_opened() {
    let answer = taken();
    let mut object = conference(None);
    object.spec.suspended = true;
    let seen = status(&object, &facts(Some(&answer)));
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::False, "Suspended")
    );
    let mut of_suspended = facts(Some(&answer));
    of_suspended.tenant = Some(Of {
        name: "town",
        active: Err((Reason::Suspended, "the tenant is suspended")),
        admitted: true,
    });
    let seen = status(&conference(None), &of_suspended);
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::False, "Suspended")
    );
    let schedule = json!({ "start": "2026-11-25T06:00", "timeZone": "UTC", "duration": "1h" });
    let seen = status(&conference(Some(schedule)), &facts(Some(&answer)));
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::False, "Ended")
    );
    assert_eq!(
        is(&seen, ConditionType::Reconciling).0,
        ConditionStatus::False
    );
    assert_eq!(seen.status.phase, Some(Phase::Ended));
}

#[test]
fn a_conference_keeps_the_class_that_it_was_opened_with() {
    let answer = taken();
    let mut facts = facts(Some(&answer));
    facts.room = Some(Room {
        opened: true,
        occupied: true,
        ..Room::default()
    });
    let mut written = Written {
        conference: conference(None),
        writes: 0,
    };
    written.look(&facts);
    facts.class = Some(("meeting", "c2".to_owned()));
    let seen = written.look(&facts);
    let revision = |seen: &Seen| seen.status.class.clone().and_then(|class| class.revision);
    assert_eq!(revision(&seen).as_deref(), Some("c1"));
    facts.room = Some(Room::default());
    written.look(&facts);
    assert_eq!(revision(&written.look(&facts)).as_deref(), Some("c2"));
}

#[test]
fn a_class_that_is_wrong_says_so_and_one_that_is_right_has_a_revision() {
    let mut object: ConferenceClass = serde_json::from_value(json!({
        "metadata": { "name": "meeting", "generation": 2 }, "spec": { "preset": "Meeting" },
    }))
    .expect("a class");
    let good = class::status(&object, &[], start());
    assert_eq!(good.observed_generation, Some(2));
    let first = good.revision.clone();
    object.spec.display_name = Some("Other".to_owned());
    assert_ne!(class::status(&object, &[], start()).revision, first);
    let problem = Problem {
        object: ObjectKey::default(),
        pointer: "/metadata/annotations".to_owned(),
        rule: "Conflict".to_owned(),
        message: "two defaults".to_owned(),
        remedy: "leave one".to_owned(),
    };
    let bad = class::status(&object, &[&problem], start());
    let ready = find(&bad.conditions, ConditionType::Ready).expect("ready");
    assert_eq!(ready.status, ConditionStatus::False);
    let mut merged = good.conditions;
    assert!(set(&mut merged, ready.clone()));
}
