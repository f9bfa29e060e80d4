// SPDX-License-Identifier: EUPL-1.2
//! Who owns a room, and which nodes are there.

use super::*;

/// Two replicas ask at once: one node gets it, the other replica learns which.
pub(crate) async fn a_room_has_one_owner_whoever_asks(harness: Harness) {
    let (a, b) = tokio::join!(
        harness.store.place(command("r", "n1")),
        harness.store.place(command("r", "n2"))
    );
    let outcomes = [a.expect("answer"), b.expect("answer")];
    let placed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, PlaceOutcome::Placed(..)))
        .collect();
    assert_eq!(placed.len(), 1, "{outcomes:?}");
    let held = outcomes.iter().find_map(|outcome| match outcome {
        PlaceOutcome::Held(record) => Some(record.lease.clone()),
        _ => None,
    });
    let PlaceOutcome::Placed(record, _) = placed[0] else {
        unreachable!("filtered")
    };
    assert_eq!(held, Some(record.lease.clone()));
    assert_eq!(
        harness
            .store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        record.lease
    );
}

/// Compare and set.
pub(crate) async fn a_lease_is_replaced_only_by_who_knows_it(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let stale = PlaceCommand {
        replaces: Some(Epoch(first.lease.epoch.0 + 1)),
        ..command("r", "n2")
    };
    assert!(matches!(
        store.place(stale).await.expect("answer"),
        PlaceOutcome::Held(_)
    ));
    let knowing = PlaceCommand {
        replaces: Some(first.lease.epoch),
        ..command("r", "n2")
    };
    let second = placed(store, knowing).await;
    assert_eq!(second.lease.node, node("n2"));
    assert!(second.lease.epoch > first.lease.epoch);
}

/// `max(store, reported, floor) + 1`.
pub(crate) async fn epochs_rise_above_store_reports_and_floor(harness: Harness) {
    let store = &*harness.store;
    let first = placed(
        store,
        PlaceCommand {
            floor: Epoch(7),
            ..command("r", "n1")
        },
    )
    .await;
    assert_eq!(first.lease.epoch, Epoch(8));
    let reported = PlaceCommand {
        replaces: Some(Epoch(8)),
        reported: Some(Epoch(20)),
        ..command("r", "n2")
    };
    assert_eq!(placed(store, reported).await.lease.epoch, Epoch(21));
    let again = PlaceCommand {
        replaces: Some(Epoch(21)),
        ..command("r", "n2")
    };
    assert_eq!(placed(store, again).await.lease.epoch, Epoch(22));
    let used_up = PlaceCommand {
        replaces: Some(Epoch(22)),
        floor: Epoch(u64::MAX),
        ..command("r", "n2")
    };
    assert_eq!(
        store.place(used_up).await.expect("answer"),
        PlaceOutcome::EpochsExhausted
    );
}

/// Opened stays opened.
pub(crate) async fn facts_survive_their_node(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let reported = report("r", first.lease.clone(), 2);
    let facts = reported.facts.clone();
    assert_eq!(
        store.report_room(reported).await.expect("answer"),
        ReportOutcome::Taken
    );
    store
        .close_room(key("r"), first.lease.clone(), true)
        .await
        .expect("answer");
    let kept = store.room(key("r")).await.expect("answer").expect("kept");
    assert_eq!((kept.facts.clone(), kept.policy), (facts.clone(), policy()));
    let again = PlaceCommand {
        replaces: Some(first.lease.epoch),
        ..command("r", "n2")
    };
    assert_eq!(placed(store, again).await.facts, facts);
}

/// A node that comes back must drop what was placed elsewhere.
pub(crate) async fn a_report_of_an_old_lease_is_fenced(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let second = placed(
        store,
        PlaceCommand {
            replaces: Some(first.lease.epoch),
            ..command("r", "n2")
        },
    )
    .await;
    let before = used(store, "n1").await;
    let outcome = store
        .report_room(report("r", first.lease, 3))
        .await
        .expect("answer");
    assert_eq!(outcome, ReportOutcome::Fenced(second.lease.epoch));
    assert_eq!(
        used(store, "n1").await,
        before,
        "a fenced room is not counted"
    );
    assert_eq!(
        store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        second.lease
    );
}

/// Leases given while the store was away are written back.
pub(crate) async fn a_report_of_a_higher_lease_takes_over(harness: Harness) {
    let store = &*harness.store;
    placed(store, command("r", "n1")).await;
    assert_eq!(
        store
            .report_room(report("r", lease("n2", 9), 1))
            .await
            .expect("answer"),
        ReportOutcome::Taken
    );
    assert_eq!(
        store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        lease("n2", 9)
    );
}

/// Two sides that could not hear each other gave it twice.
pub(crate) async fn of_equal_leases_the_fuller_room_stays_and_then_the_lower_node(
    harness: Harness,
) {
    let store = &*harness.store;
    let say = async |room: &str, on: &str, people| {
        let said = RoomReport {
            policy: Some(policy()),
            ..report(room, lease(on, 4), people)
        };
        store.report_room(said).await.expect("answer")
    };
    let owner = async |room: &str| {
        let kept = store.room(key(room)).await.expect("answer").expect("kept");
        kept.lease.node
    };
    let fenced = ReportOutcome::Fenced(Epoch(4));
    assert_eq!(say("r", "n2", 1).await, ReportOutcome::Taken);
    assert_eq!(say("r", "n3", 1).await, fenced, "the lower node stays");
    assert_eq!(say("r", "n1", 0).await, fenced, "the fuller one stays");
    assert_eq!(owner("r").await, node("n2"));
    assert_eq!(say("r", "n1", 1).await, ReportOutcome::Taken, "lower");
    assert_eq!(say("r", "n3", 2).await, ReportOutcome::Taken, "fuller");
    assert_eq!(owner("r").await, node("n3"));
    assert_eq!(
        used(store, "n1").await,
        Usage::default(),
        "the loser counts no more"
    );
    assert_eq!(
        say("r", "n3", 0).await,
        ReportOutcome::Taken,
        "the owner itself"
    );
}

/// So that the room is placed anew as it was.
pub(crate) async fn a_report_writes_back_what_the_store_lost(harness: Harness) {
    let store = &*harness.store;
    let lost = RoomReport {
        policy: Some(policy()),
        ..report("r", lease("n1", 4), 1)
    };
    assert_eq!(
        store.report_room(lost.clone()).await.expect("answer"),
        ReportOutcome::Taken
    );
    let record = store.room(key("r")).await.expect("answer").expect("kept");
    assert_eq!(
        (record.lease, record.policy, record.facts),
        (lease("n1", 4), policy(), lost.facts)
    );
}

/// The former holder goes on; a later lease is left alone.
pub(crate) async fn a_placement_that_never_lived_is_taken_back(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let second = placed(
        store,
        PlaceCommand {
            replaces: Some(first.lease.epoch),
            ..command("r", "n2")
        },
    )
    .await;
    store
        .undo_place(key("r"), first.lease.epoch, None)
        .await
        .expect("answer");
    assert_eq!(
        store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        second.lease
    );
    store
        .undo_place(key("r"), second.lease.epoch, Some(first.lease.clone()))
        .await
        .expect("answer");
    assert_eq!(
        store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        first.lease
    );
    let reported = store
        .report_room(report("r", first.lease.clone(), 1))
        .await
        .expect("answer");
    assert_eq!(reported, ReportOutcome::Taken);
    store
        .undo_place(key("r"), first.lease.epoch, None)
        .await
        .expect("answer");
    assert_eq!(store.room(key("r")).await.expect("answer"), None);
}

/// The end of an old lease says nothing about a later one.
pub(crate) async fn only_the_holder_closes_a_room(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let second = placed(
        store,
        PlaceCommand {
            replaces: Some(first.lease.epoch),
            ..command("r", "n2")
        },
    )
    .await;
    store
        .close_room(key("r"), first.lease, false)
        .await
        .expect("answer");
    assert!(store.room(key("r")).await.expect("answer").is_some());
    store
        .close_room(key("r"), second.lease, false)
        .await
        .expect("answer");
    assert_eq!(store.room(key("r")).await.expect("answer"), None);
}

/// Nothing is kept for ever.
pub(crate) async fn records_run_out_when_nobody_reports(harness: Harness) {
    let store = &*harness.store;
    let record = placed(store, command("r", "n1")).await;
    (harness.advance)(ROOM_RECORD_MIN.max(policy().empty_timeout));
    assert!(
        store.room(key("r")).await.expect("answer").is_some(),
        "it outlives the empty timeout"
    );
    store
        .report_room(report("r", record.lease, 0))
        .await
        .expect("answer");
    (harness.advance)(ROOM_RECORD_MIN.max(policy().empty_timeout));
    assert!(
        store.room(key("r")).await.expect("answer").is_some(),
        "a report renews it"
    );
    (harness.advance)(ROOM_RECORD_MIN.max(policy().empty_timeout) + REPORT_AGAIN * 2);
    assert_eq!(store.room(key("r")).await.expect("answer"), None);
}

/// A witness of death.
pub(crate) async fn node_leases_run_out(harness: Harness) {
    let store = &*harness.store;
    assert_eq!(store.node(node("n1")).await.expect("answer"), None);
    store.refresh_node(node_lease(1)).await.expect("answer");
    (harness.advance)(limits::LEASE - Duration::from_millis(1));
    assert_eq!(
        store.node(node("n1")).await.expect("answer"),
        Some(node_lease(1))
    );
    (harness.advance)(Duration::from_millis(1));
    assert_eq!(store.node(node("n1")).await.expect("answer"), None);
}

/// A late word.
pub(crate) async fn an_earlier_life_does_not_refresh_the_present_one(harness: Harness) {
    let store = &*harness.store;
    store.refresh_node(node_lease(2)).await.expect("answer");
    (harness.advance)(limits::LEASE / 2);
    store.refresh_node(node_lease(1)).await.expect("answer");
    assert_eq!(
        store.node(node("n1")).await.expect("answer"),
        Some(node_lease(2))
    );
    (harness.advance)(limits::LEASE / 2);
    assert_eq!(store.node(node("n1")).await.expect("answer"), None);
}

/// A drain marks the store first.
pub(crate) async fn a_closed_node_gets_no_room(harness: Harness) {
    let store = &*harness.store;
    assert!(
        !store
            .mark_accepting(node("n1"), false)
            .await
            .expect("answer")
    );
    assert_eq!(
        store.place(command("r", "n1")).await.expect("answer"),
        PlaceOutcome::NotAccepting
    );
    assert!(
        store
            .mark_accepting(node("n1"), true)
            .await
            .expect("answer")
    );
    placed(store, command("r", "n1")).await;
}

/// Per scope, until they expire.
pub(crate) async fn failures_are_counted_and_forgotten(harness: Harness) {
    let store = &*harness.store;
    let conference = Uid::parse("c").expect("uid");
    let scope = |last| {
        FailureScope::Address(
            conference.clone(),
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)),
        )
    };
    store.count_failure(scope(1)).await.expect("answer");
    (harness.advance)(Duration::from_secs(3));
    store.count_failure(scope(1)).await.expect("answer");
    (harness.advance)(Duration::from_secs(2));
    let failures = store.failures(scope(1)).await.expect("answer");
    assert_eq!(
        (failures.count, failures.since_last),
        (2, Duration::from_secs(2))
    );
    assert_eq!(store.failures(scope(2)).await.expect("answer").count, 0);
    assert_eq!(
        store
            .failures(FailureScope::Conference(conference.clone()))
            .await
            .expect("answer")
            .count,
        0
    );
    (harness.advance)(limits::FAILURES_EXPIRY);
    assert_eq!(store.failures(scope(1)).await.expect("answer").count, 0);
    store.count_failure(scope(1)).await.expect("answer");
    assert_eq!(store.failures(scope(1)).await.expect("answer").count, 1);
}

/// A retry after a lost answer.
pub(crate) async fn the_same_request_places_a_room_once(harness: Harness) {
    let store = &*harness.store;
    let first = PlaceCommand {
        choices: choices(&["n1", "n2"]),
        ..command("r", "n1")
    };
    let placed_once = store.place(first.clone()).await.expect("answer");
    let PlaceOutcome::Placed(record, id) = placed_once else {
        panic!("{placed_once:?}")
    };
    let again = store.place(first.clone()).await.expect("answer");
    match again {
        PlaceOutcome::Placed(again, same) => {
            assert_eq!((again.lease, same), (record.lease.clone(), id));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 1));
    let knowing = PlaceCommand {
        replaces: Some(record.lease.epoch),
        ..command("r", "n2")
    };
    let second = placed(store, knowing).await;
    match store.place(first).await.expect("answer") {
        PlaceOutcome::Held(held) => assert_eq!(held.lease, second.lease, "its time is over"),
        other => panic!("{other:?}"),
    }
}

/// A probe.
pub(crate) async fn the_store_answers(harness: Harness) {
    assert_eq!(harness.store.ping().await, Ok(()));
    assert_eq!(harness.store.usage(Vec::new()).await, Ok(Vec::new()));
}

/// But not for ever.
pub(crate) async fn marks_outlive_the_leases_of_their_node(harness: Harness) {
    let store = &*harness.store;
    store
        .mark_accepting(node("n1"), false)
        .await
        .expect("answer");
    let placed_on_it = || store.place(command("r", "n1"));
    (harness.advance)(MARK - Duration::from_secs(1));
    store.refresh_node(node_lease(1)).await.expect("answer");
    (harness.advance)(MARK - Duration::from_secs(1));
    assert_eq!(placed_on_it().await, Ok(PlaceOutcome::NotAccepting));
    (harness.advance)(Duration::from_secs(1));
    assert!(matches!(placed_on_it().await, Ok(PlaceOutcome::Placed(..))));
}
