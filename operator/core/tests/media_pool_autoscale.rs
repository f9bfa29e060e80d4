// SPDX-License-Identifier: EUPL-1.2
//! The wanted number of nodes.

use jiff::{SignedDuration, Timestamp};
use operator_core::media_pool::autoscale::{
    Cause, Decision, History, Load, Observed, capacity_of_node, decide, stabilization,
};
use plenum_api::MediaPoolSpec;
use proptest::prelude::*;
use serde_json::json;

fn pool(autoscaling: serde_json::Value) -> MediaPoolSpec {
    serde_json::from_value(json!({
        "network": { "type": "None" },
        "capacity": { "rooms": 100, "participants": 1000, "egressMbps": 2000 },
        "autoscaling": autoscaling,
    }))
    .expect("a pool")
}

fn moment(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

fn load(rooms: u64, participants: u64, egress_mbps: u64) -> Option<Load> {
    Some(Load {
        rooms,
        participants,
        egress_mbps,
    })
}

fn ask(
    spec: &MediaPoolSpec,
    used: Option<Load>,
    present: u32,
    history: &History,
    now: Timestamp,
) -> Decision {
    let autoscaling = spec.autoscaling.as_ref().expect("an autoscaler");
    decide(
        spec,
        autoscaling,
        Observed {
            used,
            present,
            history,
        },
        now,
    )
}

const NOON: &str = "2026-09-02T12:00:00Z";

#[test]
fn a_percent_buffer_keeps_that_share_free_of_the_scarcest() {
    let spec = pool(
        json!({ "minReplicas": 1, "maxReplicas": 100, "buffer": { "type": "Percent", "percent": 25 } }),
    );
    let asked = |used| ask(&spec, used, 1, &History::default(), moment(NOON)).desired;
    assert_eq!(asked(load(300, 0, 0)), 4);
    assert_eq!(asked(load(301, 0, 0)), 5);
    assert_eq!(asked(load(10, 7_500, 0)), 10, "participants are scarcer");
    assert_eq!(asked(load(10, 100, 30_000)), 20, "egress is scarcer");
}

#[test]
fn a_buffer_of_rooms_or_participants_is_kept_free_beside_the_used_ones() {
    let rooms = pool(
        json!({ "minReplicas": 1, "maxReplicas": 100, "buffer": { "type": "Rooms", "rooms": 200 } }),
    );
    assert_eq!(
        ask(
            &rooms,
            load(301, 0, 0),
            1,
            &History::default(),
            moment(NOON)
        )
        .desired,
        6
    );
    let people = pool(
        json!({ "minReplicas": 1, "maxReplicas": 100, "buffer": { "type": "Participants", "participants": 3000 } }),
    );
    assert_eq!(
        ask(&people, load(0, 1, 0), 1, &History::default(), moment(NOON)).desired,
        4
    );
}

#[test]
fn the_highest_floor_holds_from_the_bell_on_and_says_when_the_next_edge_is() {
    let spec = pool(json!({ "minReplicas": 4, "maxReplicas": 60, "schedule": [
        { "start": "2026-09-01T07:30", "timeZone": "Europe/Berlin", "until": "13:30",
          "recurrence": "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "minReplicas": 40 },
        { "start": "2026-09-02T08:00", "timeZone": "Europe/Berlin", "duration": "1h", "minReplicas": 50 } ] }));
    let history = History::default();
    let before = ask(
        &spec,
        load(0, 0, 0),
        4,
        &history,
        moment("2026-09-02T05:29:59Z"),
    );
    assert_eq!((before.desired, before.cause), (4, Cause::Minimum));
    assert_eq!(before.next, Some(moment("2026-09-02T05:30:00Z")));
    let bell = ask(
        &spec,
        load(0, 0, 0),
        4,
        &history,
        moment("2026-09-02T05:30:00Z"),
    );
    assert_eq!((bell.desired, bell.cause), (40, Cause::Schedule));
    let both = ask(
        &spec,
        load(0, 0, 0),
        40,
        &history,
        moment("2026-09-02T06:30:00Z"),
    );
    assert_eq!(both.desired, 50);
    let saturday = ask(
        &spec,
        load(0, 0, 0),
        4,
        &history,
        moment("2026-09-05T06:30:00Z"),
    );
    assert_eq!(saturday.desired, 4);
}

#[test]
fn a_floor_never_exceeds_the_most() {
    let mut spec = pool(json!({ "minReplicas": 1, "maxReplicas": 10 }));
    let floor = json!([{ "start": "2026-09-02T00:00", "timeZone": "Etc/UTC", "duration": "24h", "minReplicas": 40 }]);
    if let Some(autoscaling) = &mut spec.autoscaling {
        autoscaling.schedule = serde_json::from_value(floor).expect("a schedule");
    }
    let decision = ask(&spec, load(0, 0, 0), 1, &History::default(), moment(NOON));
    assert_eq!((decision.desired, decision.cause), (10, Cause::Maximum));
}

#[test]
fn raising_is_immediate_and_lowering_waits() {
    let spec = pool(
        json!({ "minReplicas": 1, "maxReplicas": 100, "buffer": { "type": "Percent", "percent": 0 },
        "scaleDown": { "stabilization": "15m", "maxConcurrentDrains": 2 } }),
    );
    let patience = SignedDuration::from_mins(15);
    let mut history = History::default();
    let mut now = moment(NOON);
    let mut present = 5;
    let mut step = |used: u64, present: &mut u32| {
        let decision = ask(&spec, load(used, 0, 0), *present, &history, now);
        history.record(decision.asked, patience, now);
        *present = decision.desired;
        now = now
            .checked_add(SignedDuration::from_secs(15))
            .expect("in range");
        decision
    };
    assert_eq!(step(2_000, &mut present).desired, 20);
    for _ in 0..30 {
        assert_eq!(step(300, &mut present).desired, 20, "not for long enough");
    }
    // A short peak in the middle of the wait keeps its number for another quarter of an hour.
    assert_eq!(step(800, &mut present).cause, Cause::Stabilizing);
    for _ in 0..29 {
        assert_eq!(step(300, &mut present).desired, 20);
    }
    for _ in 0..31 {
        assert_eq!(step(300, &mut present).desired, 8);
    }
    step(300, &mut present);
    assert_eq!(present, 3);
}

#[test]
fn a_fresh_autoscaler_lowers_nothing_for_a_whole_window() {
    let spec = pool(json!({ "minReplicas": 1, "maxReplicas": 100 }));
    let decision = ask(&spec, load(0, 0, 0), 30, &History::default(), moment(NOON));
    assert_eq!((decision.desired, decision.cause), (30, Cause::Stabilizing));
}

#[test]
fn an_unknown_load_changes_nothing_but_floors_and_bounds_hold() {
    let spec = pool(json!({ "minReplicas": 4, "maxReplicas": 20 }));
    let history = History::default();
    assert_eq!(ask(&spec, None, 9, &history, moment(NOON)).desired, 9);
    assert_eq!(ask(&spec, None, 1, &history, moment(NOON)).desired, 4);
    assert_eq!(ask(&spec, None, 50, &history, moment(NOON)).desired, 20);
}

proptest! {
    #[test]
    fn the_number_keeps_its_bounds_and_its_buffer(
        min in 0_u32..50, span in 1_u32..200, percent in 0_u32..=95, present in 0_u32..400,
        rooms in 0_u64..50_000, participants in 0_u64..500_000, egress in 0_u64..1_000_000,
    ) {
        let max = min + span;
        let spec = pool(json!({ "minReplicas": min, "maxReplicas": max, "buffer": { "type": "Percent", "percent": percent } }));
        let used = Load { rooms, participants, egress_mbps: egress };
        let decision = ask(&spec, Some(used), present, &History::default(), moment(NOON));
        prop_assert!((min..=max).contains(&decision.desired));
        prop_assert!(decision.desired >= present.min(max), "nothing is lowered without history");
        if decision.desired < max {
            let all = capacity_of_node(&spec).times(decision.desired);
            for (used, all) in [(rooms, all.rooms), (participants, all.participants), (egress, all.egress_mbps)] {
                prop_assert!(used * 100 <= all * u64::from(100 - percent), "{used} of {all} with {percent} % free");
            }
        }
    }

    #[test]
    fn more_load_never_asks_for_fewer(percent in 0_u32..=95, low in 0_u64..50_000, more in 0_u64..50_000) {
        let spec = pool(json!({ "minReplicas": 0, "maxReplicas": 2000, "buffer": { "type": "Percent", "percent": percent } }));
        let asked = |rooms| ask(&spec, load(rooms, 0, 0), 0, &History::default(), moment(NOON)).asked;
        prop_assert!(asked(low) <= asked(low + more));
    }

    #[test]
    fn the_history_gives_the_most_of_its_window(asked in prop::collection::vec(0_u32..20, 1..200)) {
        let patience = SignedDuration::from_secs(150);
        let mut history = History::default();
        let start = moment(NOON);
        for (index, number) in asked.iter().enumerate() {
            let now = start.checked_add(SignedDuration::from_secs(10 * index as i64)).expect("in range");
            history.record(*number, patience, now);
            let from = index.saturating_sub(15);
            let most = asked[from..=index].iter().max().copied();
            prop_assert_eq!(history.most(patience, now), if index < 15 { None } else { most });
        }
    }
}

#[test]
fn nobody_waits_longer_than_a_day() {
    let spec = pool(
        json!({ "minReplicas": 1, "maxReplicas": 2, "scaleDown": { "stabilization": "999999h", "maxConcurrentDrains": 1 } }),
    );
    let autoscaling = spec.autoscaling.expect("an autoscaler");
    assert_eq!(stabilization(&autoscaling), SignedDuration::from_hours(24));
}

#[test]
fn the_used_share_is_that_of_the_scarcest() {
    let of = |rooms, participants, egress_mbps| {
        load(rooms, participants, egress_mbps).unwrap_or_default()
    };
    let capacity = of(200, 2_000, 4_000);
    assert_eq!(of(50, 1_000, 400).share_of(capacity), Some(0.5));
    assert_eq!(of(0, 0, 0).share_of(capacity), Some(0.0));
    assert_eq!(of(1, 1, 1).share_of(of(0, 0, 0)), None);
}
