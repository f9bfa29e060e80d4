// SPDX-License-Identifier: EUPL-1.2

use serde_json::{Value, json};

use super::*;

fn window(name: &str, action: &str, members: Value) -> MaintenanceWindow {
    let mut spec = json!({
        "schedule": { "start": "2026-09-01T20:00", "timeZone": "Europe/Berlin", "until": "06:00", "recurrence": "FREQ=DAILY" },
        "action": action,
        "selector": { "pools": [{ "namespace": "media", "name": "a" }] },
    });
    for (key, value) in members.as_object().expect("members") {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MaintenanceWindow",
        "metadata": { "name": name, "creationTimestamp": "2026-08-01T00:00:00Z" }, "spec": spec,
    }))
    .expect("a window")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

fn calendar(windows: &[MaintenanceWindow], now: &str) -> Calendar {
    Calendar::new(windows, at(now))
}

fn pool(name: &str) -> Name {
    Name::new("media", name)
}

/// 22:00 in Berlin: inside.
const NIGHT: &str = "2026-09-10T20:00:00Z";
/// 12:00 in Berlin: outside.
const NOON: &str = "2026-09-10T10:00:00Z";

#[test]
fn a_drain_window_empties_what_it_selects_while_it_is_open() {
    let windows = [window("w", "Drain", json!({}))];
    let (a, b) = (pool("a"), pool("b"));
    let place = |pool| Place {
        pool,
        site: "kiel",
        machine: None,
    };
    assert_eq!(calendar(&windows, NIGHT).draining(place(&a)), Some("w"));
    assert_eq!(calendar(&windows, NIGHT).draining(place(&b)), None);
    assert_eq!(calendar(&windows, NOON).draining(place(&a)), None);
    assert_eq!(calendar(&windows, NIGHT).closes(&a, "kiel"), Some("w"));
}

#[test]
fn people_are_told_of_a_window_that_empties_their_node_from_its_announcement_to_its_end() {
    let (a, b) = (pool("a"), pool("b"));
    let place = |pool| Place {
        pool,
        site: "kiel",
        machine: None,
    };
    let opens = at("2026-09-10T18:00:00Z");
    let windows = [window("w", "Drain", json!({ "announceBefore": "2h" }))];
    for (now, told) in [
        ("2026-09-10T15:59:59Z", None),
        ("2026-09-10T16:00:00Z", Some(opens)),
        ("2026-09-10T17:59:59Z", Some(opens)),
        (NIGHT, Some(opens)),
        ("2026-09-11T04:00:00Z", None),
    ] {
        assert_eq!(calendar(&windows, now).announced(place(&a)), told, "{now}");
        assert_eq!(calendar(&windows, now).announced(place(&b)), None, "{now}");
    }
    for quiet in [
        window("w", "Freeze", json!({ "announceBefore": "2h" })),
        window("w", "AllowUpdates", json!({ "announceBefore": "2h" })),
        window(
            "w",
            "Drain",
            json!({ "announceBefore": "2h", "suspended": true }),
        ),
        window("w", "Drain", json!({})),
    ] {
        let calendar = calendar(&[quiet], "2026-09-10T17:00:00Z");
        assert_eq!(calendar.announced(place(&a)), None);
    }
    // Who is not emptied after all is not told that it goes on.
    let frozen = [
        window("w", "Drain", json!({ "announceBefore": "2h" })),
        window("f", "Freeze", json!({})),
    ];
    assert_eq!(calendar(&frozen, NIGHT).announced(place(&a)), None);
    // The first of several counts.
    let several = [
        window(
            "v",
            "Drain",
            json!({ "announceBefore": "2160h", "schedule": {
                "start": "2026-09-10T23:00", "timeZone": "Europe/Berlin", "duration": "1h",
            }}),
        ),
        window("w", "Drain", json!({ "announceBefore": "2h" })),
    ];
    assert_eq!(
        calendar(&several, "2026-09-10T17:00:00Z").announced(place(&a)),
        Some(opens)
    );
}

#[test]
fn members_of_a_selector_must_all_hold() {
    let windows = [window(
        "w",
        "Drain",
        json!({ "selector": { "pools": [{ "namespace": "media", "name": "a" }], "sites": ["kiel"], "nodes": { "matchLabels": { "rack": "1" } } } }),
    )];
    let calendar = calendar(&windows, NIGHT);
    let (a, b) = (pool("a"), pool("b"));
    let rack = |number: &str| BTreeMap::from([("rack".to_owned(), number.to_owned())]);
    let (one, two) = (rack("1"), rack("2"));
    let drains = |pool, site, machine| {
        calendar
            .draining(Place {
                pool,
                site,
                machine,
            })
            .is_some()
    };
    assert!(drains(&a, "kiel", Some(&one)));
    assert!(!drains(&a, "kiel", Some(&two)));
    assert!(!drains(&a, "bonn", Some(&one)));
    assert!(!drains(&b, "kiel", Some(&one)));
    assert!(!drains(&a, "kiel", None), "no machine yet");
    assert_eq!(calendar.closes(&a, "kiel"), None, "other machines are left");
}

#[test]
fn a_freeze_wins_unless_security_is_urgent() {
    let a = pool("a");
    let place = Place {
        pool: &a,
        site: "kiel",
        machine: None,
    };
    for (reason, drains) in [
        ("Maintenance", false),
        ("Agreed", false),
        ("UrgentSecurity", true),
    ] {
        let windows = [
            window("d", "Drain", json!({ "reason": reason })),
            window("u", "AllowUpdates", json!({ "reason": reason })),
            window("f", "Freeze", json!({})),
        ];
        let calendar = calendar(&windows, NIGHT);
        assert_eq!(calendar.draining(place).is_some(), drains, "{reason}");
        assert_eq!(calendar.is_frozen("d", place), !drains, "{reason}");
        let permit = calendar.permit(&a, "kiel", &[]);
        assert_eq!(
            (permit.scale_down, permit.update),
            (false, drains),
            "{reason}"
        );
        assert_eq!(permit.until, Some(at("2026-09-11T04:00:00Z")), "{reason}");
    }
}

#[test]
fn updates_keep_to_their_windows_where_a_pool_has_one() {
    let windows = [window("u", "AllowUpdates", json!({}))];
    let (a, b) = (pool("a"), pool("b"));
    let update = |now, pool| calendar(&windows, now).permit(pool, "kiel", &[]).update;
    assert!(update(NIGHT, &a));
    assert!(!update(NOON, &a));
    assert!(update(NOON, &b), "no window is about it");
    assert!(calendar(&windows, NOON).permit(&a, "kiel", &[]).scale_down);
    let suspended = [window("u", "AllowUpdates", json!({ "suspended": true }))];
    assert!(calendar(&suspended, NOON).permit(&a, "kiel", &[]).update);
    let over = [window(
        "u",
        "AllowUpdates",
        json!({ "schedule": { "start": "2026-09-01T20:00", "timeZone": "Europe/Berlin", "duration": "1h" } }),
    )];
    assert!(!calendar(&over, NOON).permit(&a, "kiel", &[]).update);
}

#[test]
fn a_freeze_over_one_machine_of_a_pool_holds_the_whole_pool() {
    let windows = [window(
        "f",
        "Freeze",
        json!({ "selector": { "nodes": { "matchLabels": { "rack": "1" } } } }),
    )];
    let (a, rack) = (
        pool("a"),
        BTreeMap::from([("rack".to_owned(), "1".to_owned())]),
    );
    let calendar = calendar(&windows, NIGHT);
    let there = [Place {
        pool: &a,
        site: "kiel",
        machine: Some(&rack),
    }];
    assert!(!calendar.permit(&a, "kiel", &there).scale_down);
    assert!(calendar.permit(&a, "kiel", &[]).scale_down);
}

#[test]
fn phases_follow_the_clock_and_say_when_they_change() {
    let windows = [window("w", "Drain", json!({ "announceBefore": "2h" }))];
    let table = [
        (
            "2026-09-10T15:00:00Z",
            WindowPhase::Scheduled,
            "2026-09-10T16:00:00Z",
        ),
        (
            "2026-09-10T16:00:00Z",
            WindowPhase::Announced,
            "2026-09-10T18:00:00Z",
        ),
        (
            "2026-09-10T18:00:00Z",
            WindowPhase::Active,
            "2026-09-11T04:00:00Z",
        ),
        (
            "2026-09-11T04:00:00Z",
            WindowPhase::Scheduled,
            "2026-09-11T16:00:00Z",
        ),
    ];
    for (now, phase, changes_at) in table {
        let calendar = calendar(&windows, now);
        let standing = calendar.standing("w").expect("a window");
        assert_eq!(standing.phase, phase, "{now}");
        assert_eq!(standing.changes_at, Some(at(changes_at)), "{now}");
        assert_eq!(calendar.changes_at(), Some(at(changes_at)), "{now}");
    }
    let once = [window(
        "w",
        "Drain",
        json!({ "schedule": { "start": "2026-09-01T20:00", "timeZone": "Europe/Berlin", "duration": "1h" } }),
    )];
    let calendar = calendar(&once, NOON);
    assert_eq!(
        calendar.standing("w").map(|standing| standing.phase),
        Some(WindowPhase::Ended)
    );
}

#[test]
fn a_window_that_was_declared_too_late_has_no_effect_without_a_reason() {
    let late = |members: Value| {
        let mut window = window(
            "w",
            "Drain",
            json!({ "announceBefore": "1000h", "schedule": { "start": "2026-09-10T20:00", "timeZone": "Europe/Berlin", "until": "06:00" } }),
        );
        window.metadata.creation_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at("2026-09-01T00:00:00Z")),
        );
        let mut tree = serde_json::to_value(&window).expect("JSON");
        for (key, value) in members.as_object().expect("members") {
            tree["spec"][key] = value.clone();
        }
        serde_json::from_value::<MaintenanceWindow>(tree).expect("a window")
    };
    let a = pool("a");
    let place = Place {
        pool: &a,
        site: "kiel",
        machine: None,
    };
    let refused = [late(json!({}))];
    let calendar_refused = calendar(&refused, NIGHT);
    let (reason, why) = calendar_refused
        .standing("w")
        .and_then(|standing| standing.refused.clone())
        .expect("refused");
    assert_eq!(reason, Reason::AnnouncedTooLate);
    assert!(why.contains("spec.override.reason"), "{why}");
    assert_eq!(calendar_refused.draining(place), None);
    let justified = [late(json!({ "override": { "reason": "agreed" } }))];
    assert_eq!(calendar(&justified, NIGHT).draining(place), Some("w"));
    let unannounced = late(json!({ "announceBefore": null, "schedule": {
        "start": "2026-08-31T20:00", "timeZone": "Europe/Berlin", "duration": "300h",
    } }));
    assert_eq!(
        calendar(&[unannounced], NIGHT).draining(place),
        Some("w"),
        "it promised nobody anything, and had begun when it was declared"
    );
    let in_time = [late(json!({ "announceBefore": "24h" }))];
    assert_eq!(calendar(&in_time, NIGHT).draining(place), Some("w"));
}

#[test]
fn nightly_windows_keep_their_wall_clock_on_the_days_the_clock_changes() {
    let nightly = [window(
        "w",
        "Drain",
        json!({ "schedule": { "start": "2026-01-01T00:00", "timeZone": "Europe/Berlin", "until": "06:00", "recurrence": "FREQ=DAILY" } }),
    )];
    let hours = |now: &str| {
        let calendar = calendar(&nightly, now);
        let time = calendar
            .standing("w")
            .and_then(|standing| standing.time)
            .expect("open");
        time.closes.duration_since(time.opens).as_hours()
    };
    assert_eq!(hours("2026-03-28T00:00:00Z"), 6);
    assert_eq!(hours("2026-03-29T00:30:00Z"), 5, "spring");
    assert_eq!(hours("2026-10-25T00:30:00Z"), 7, "autumn");
    let a = pool("a");
    let drains = |now: &str| {
        calendar(&nightly, now)
            .draining(Place {
                pool: &a,
                site: "kiel",
                machine: None,
            })
            .is_some()
    };
    // 05:59 and 06:00 in Berlin, in winter's and in summer's offset.
    for (inside, outside) in [
        ("2026-03-29T03:59:59Z", "2026-03-29T04:00:00Z"),
        ("2026-10-25T04:59:59Z", "2026-10-25T05:00:00Z"),
    ] {
        assert!(drains(inside), "{inside}");
        assert!(!drains(outside), "{outside}");
    }
}

#[test]
fn a_schedule_that_cannot_be_evaluated_is_named() {
    let broken = [window(
        "w",
        "Drain",
        json!({ "schedule": { "start": "2026-09-01T20:00", "timeZone": "Mars/Olympus", "duration": "1h" } }),
    )];
    let calendar = calendar(&broken, NIGHT);
    let standing = calendar.standing("w").expect("a window");
    let (reason, why) = standing.refused.clone().expect("refused");
    assert_eq!(reason, Reason::ScheduleInvalid);
    assert!(why.contains("Mars/Olympus"), "{why}");
}

#[test]
fn no_more_nodes_at_a_time_than_the_window_says_and_the_emptiest_first() {
    let windows = [window("w", "Drain", json!({ "maxConcurrentNodes": 2 }))];
    let (a, b) = (pool("a"), pool("b"));
    let calendar = calendar(&windows, NIGHT);
    let node = |pool, rooms, part| Candidate {
        place: Place {
            pool,
            site: "kiel",
            machine: None,
        },
        rooms,
        part,
    };
    let mut nodes = [
        node(&a, 5, Part::Serves),
        node(&a, 1, Part::Serves),
        node(&a, 0, Part::Other),
        node(&b, 0, Part::Serves),
        node(&a, 3, Part::Serves),
    ];
    assert_eq!(calendar.next_to_drain("w", &nodes), [1, 4]);
    nodes[1].part = Part::Maintained;
    assert_eq!(calendar.next_to_drain("w", &nodes), [4]);
    nodes[4].part = Part::Maintained;
    assert_eq!(calendar.next_to_drain("w", &nodes), [] as [usize; 0]);
}
