// SPDX-License-Identifier: EUPL-1.2
//! What is in use, held and reserved.

use super::*;

/// Rooms and participants, placed or reserved.
pub(crate) async fn a_node_never_gets_more_than_its_ceiling(harness: Harness) {
    let store = &*harness.store;
    for room in ["a", "b", "c"] {
        placed(store, command(room, "n1")).await;
    }
    match store.place(command("d", "n1")).await.expect("answer") {
        PlaceOutcome::Refused(refusal) => assert_eq!(reached(refusal), Limit::NodeRooms),
        other => panic!("{other:?}"),
    }
    let reserve = || {
        store.reserve(
            request(),
            key("a"),
            node("n1"),
            Usage::of_join(false, 1),
            TenantLimits::default(),
            CAPACITY,
        )
    };
    reserve().await.expect("answer").expect("the fourth");
    reserve().await.expect("answer").expect("the fifth");
    assert_eq!(
        reached(reserve().await.expect("answer").expect_err("the sixth")),
        Limit::NodeParticipants
    );
}

/// Over all nodes.
pub(crate) async fn a_tenant_never_gets_more_than_its_ceiling(harness: Harness) {
    let store = &*harness.store;
    let limits = TenantLimits {
        rooms: Some(2),
        participants: Some(2),
        ..Default::default()
    };
    for (room, on) in [("a", "n1"), ("b", "n2")] {
        placed(
            store,
            PlaceCommand {
                limits,
                ..command(room, on)
            },
        )
        .await;
    }
    match store
        .place(PlaceCommand {
            limits,
            ..command("c", "n3")
        })
        .await
        .expect("answer")
    {
        PlaceOutcome::Refused(refusal) => assert_eq!(reached(refusal), Limit::TenantRooms),
        other => panic!("{other:?}"),
    }
    let refused = store
        .reserve(
            request(),
            key("a"),
            node("n1"),
            Usage::of_join(false, 1),
            limits,
            CAPACITY,
        )
        .await
        .expect("answer")
        .expect_err("the third person");
    assert_eq!(reached(refused), Limit::TenantParticipants);
    let other = RoomKey::parse("u", "a").expect("key");
    store
        .reserve(
            request(),
            other,
            node("n1"),
            Usage::of_join(false, 1),
            limits,
            CAPACITY,
        )
        .await
        .expect("answer")
        .expect("another tenant has its own");
}

/// After 15 s.
pub(crate) async fn reservations_expire(harness: Harness) {
    let store = &*harness.store;
    placed(store, command("r", "n1")).await;
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 1));
    (harness.advance)(limits::RESERVATION);
    assert_eq!(used(store, "n1").await, Usage::default());
}

/// Nobody is counted twice.
pub(crate) async fn reservations_are_settled_by_reports(harness: Harness) {
    let store = &*harness.store;
    let record = placed(store, command("r", "n1")).await;
    store
        .report_room(report("r", record.lease.clone(), 0))
        .await
        .expect("answer");
    assert_eq!(
        used(store, "n1").await,
        Usage::of_join(true, 1),
        "the room is settled, the person is awaited"
    );
    store
        .report_room(report("r", record.lease.clone(), 1))
        .await
        .expect("answer");
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 1));
    store
        .report_room(report("r", record.lease.clone(), 4))
        .await
        .expect("answer");
    assert_eq!(
        used(store, "n1").await.participants,
        4,
        "a report overwrites"
    );
    store
        .close_room(key("r"), record.lease, false)
        .await
        .expect("answer");
    assert_eq!(used(store, "n1").await, Usage::default());
}

/// All or nothing.
pub(crate) async fn a_refused_placement_leaves_nothing_behind(harness: Harness) {
    let store = &*harness.store;
    let full = PlaceCommand {
        choices: vec![Choice {
            capacity: Capacity::default(),
            ..choice("n1")
        }],
        ..command("r", "n1")
    };
    assert!(matches!(
        store.place(full).await.expect("answer"),
        PlaceOutcome::Refused(_)
    ));
    assert_eq!(store.room(key("r")).await.expect("answer"), None);
    assert_eq!(used(store, "n1").await, Usage::default());
}

/// Also after it was settled by a report.
pub(crate) async fn the_same_request_reserves_once(harness: Harness) {
    let store = &*harness.store;
    let record = placed(store, command("r", "n1")).await;
    let by = request();
    reserved(store, by, "r").await.expect("free");
    reserved(store, by, "r").await.expect("known");
    assert_eq!(used(store, "n1").await.participants, 2);
    store
        .report_room(report("r", record.lease, 2))
        .await
        .expect("answer");
    reserved(store, by, "r").await.expect("known");
    assert_eq!(used(store, "n1").await.participants, 2);
}

/// Nothing of it is left.
pub(crate) async fn a_reservation_is_given_back(harness: Harness) {
    let store = &*harness.store;
    let (one, other) = (request(), request());
    reserved(store, one, "r").await.expect("free");
    reserved(store, other, "r").await.expect("free");
    for _ in 0..2 {
        store
            .release(key("r"), one.reservation())
            .await
            .expect("answer");
        assert_eq!(used(store, "n1").await.participants, 1);
    }
    store
        .release(key("r"), other.reservation())
        .await
        .expect("answer");
    assert_eq!(used(store, "n1").await, Usage::default());
}

/// Reports and reservations together.
pub(crate) async fn the_less_loaded_of_the_first_two_choices_gets_a_room(harness: Harness) {
    let store = &*harness.store;
    for room in ["a", "b"] {
        placed(store, command(room, "n1")).await;
    }
    placed(store, command("c", "n2")).await;
    let three = |room| PlaceCommand {
        choices: choices(&["n1", "n2", "n3"]),
        ..command(room, "n1")
    };
    assert_eq!(placed(store, three("d")).await.lease.node, node("n2"));
    assert_eq!(
        placed(store, three("e")).await.lease.node,
        node("n1"),
        "of two that are alike the first"
    );
    assert_eq!(
        placed(store, three("f")).await.lease.node,
        node("n2"),
        "the only one of the two that has room"
    );
    assert_eq!(
        placed(store, three("g")).await.lease.node,
        node("n3"),
        "beyond the two, in order"
    );
}

/// However loaded it is.
pub(crate) async fn packing_takes_the_first_choice_that_has_room(harness: Harness) {
    let store = &*harness.store;
    let packed = |room| PlaceCommand {
        choices: choices(&["n1", "n2"]),
        strategy: Strategy::Pack,
        ..command(room, "n1")
    };
    for room in ["a", "b", "c"] {
        assert_eq!(placed(store, packed(room)).await.lease.node, node("n1"));
    }
    assert_eq!(placed(store, packed("d")).await.lease.node, node("n2"));
}

/// One that takes nothing hides no other.
pub(crate) async fn closed_and_full_choices_are_passed_over(harness: Harness) {
    let store = &*harness.store;
    let full = Choice {
        capacity: Capacity::default(),
        ..choice("n1")
    };
    store
        .mark_accepting(node("n2"), false)
        .await
        .expect("answer");
    let offered = PlaceCommand {
        choices: vec![full.clone(), choice("n2"), choice("n3")],
        ..command("r", "n1")
    };
    assert_eq!(placed(store, offered).await.lease.node, node("n3"));
    let none = PlaceCommand {
        choices: vec![full, choice("n2")],
        ..command("s", "n1")
    };
    match store.place(none).await.expect("answer") {
        PlaceOutcome::Refused(refusal) => assert_eq!(reached(refusal), Limit::NodeRooms),
        other => panic!("{other:?}"),
    }
    let many = PlaceCommand {
        choices: vec![choice("n1"); 9],
        ..command("s", "n1")
    };
    assert_eq!(
        store.place(many).await,
        Err(StoreError::Full { what: "choices" })
    );
}

/// Who comes takes of what is held.
pub(crate) async fn a_hold_counts_until_more_is_there(harness: Harness) {
    let store = &*harness.store;
    let on = |name| Ok(HoldOutcome::Held(node(name)));
    assert_eq!(store.hold(hold("r", &["n1"], 4)).await, on("n1"));
    assert_eq!(store.hold(hold("r", &["n1"], 4)).await, on("n1"));
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 4));
    let record = placed(store, command("r", "n1")).await;
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 4));
    for (people, counted) in [(5, 5), (2, 4)] {
        store
            .report_room(report("r", record.lease.clone(), people))
            .await
            .expect("answer");
        assert_eq!(used(store, "n1").await.participants, counted);
    }
    store.drop_hold(key("r")).await.expect("answer");
    assert_eq!(used(store, "n1").await.participants, 2);
    store.drop_hold(key("r")).await.expect("answer");
}

/// If that is among the choices and has room.
pub(crate) async fn a_room_goes_where_capacity_is_held_for_it(harness: Harness) {
    let store = &*harness.store;
    let on = |name| Ok(HoldOutcome::Held(node(name)));
    assert_eq!(store.hold(hold("r", &["n2"], 3)).await, on("n2"));
    assert_eq!(
        store.hold(hold("r", &["n1", "n2"], 3)).await,
        on("n2"),
        "it keeps its node"
    );
    let both = PlaceCommand {
        choices: choices(&["n1", "n2"]),
        ..command("r", "n1")
    };
    let record = placed(store, both).await;
    assert_eq!(record.lease.node, node("n2"));
    let elsewhere = PlaceCommand {
        replaces: Some(record.lease.epoch),
        ..command("r", "n1")
    };
    placed(store, elsewhere).await;
    assert_eq!(
        used(store, "n2").await,
        Usage::of_join(true, 1),
        "the hold ended with the move"
    );
    assert_eq!(
        store.hold(hold("r", &["n2", "n1"], 3)).await,
        on("n1"),
        "where the room runs"
    );
}

/// An earlier hold stays as it was.
pub(crate) async fn a_hold_is_refused_beyond_a_ceiling_and_changes_nothing(harness: Harness) {
    let store = &*harness.store;
    store.hold(hold("r", &["n1"], 3)).await.expect("answer");
    for room in ["r", "s"] {
        match store.hold(hold(room, &["n1"], 6)).await.expect("answer") {
            HoldOutcome::Refused(refusal) => assert_eq!(reached(refusal), Limit::NodeParticipants),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 3));
    let limited = HoldCommand {
        limits: TenantLimits {
            rooms: Some(1),
            ..TenantLimits::default()
        },
        ..hold("s", &["n2"], 1)
    };
    match store.hold(limited).await.expect("answer") {
        HoldOutcome::Refused(refusal) => assert_eq!(reached(refusal), Limit::TenantRooms),
        other => panic!("{other:?}"),
    }
    store
        .mark_accepting(node("n3"), false)
        .await
        .expect("answer");
    assert_eq!(
        store.hold(hold("s", &["n3"], 1)).await,
        Ok(HoldOutcome::NotAccepting)
    );
}

/// Whoever had it before counts nothing more.
pub(crate) async fn a_room_counts_where_its_owner_reports_it(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    store
        .report_room(report("r", first.lease.clone(), 4))
        .await
        .expect("answer");
    let later = lease("n2", first.lease.epoch.0 + 1);
    store
        .report_room(report("r", later, 3))
        .await
        .expect("answer");
    assert_eq!(used(store, "n1").await, Usage::default());
    assert_eq!(used(store, "n2").await, Usage::of_join(true, 3));
    store
        .close_room(key("r"), first.lease, false)
        .await
        .expect("answer");
    assert_eq!(used(store, "n2").await, Usage::of_join(true, 3));
}

/// Nothing holds them.
pub(crate) async fn publishers_are_reported_and_checked(harness: Harness) {
    let store = &*harness.store;
    let record = placed(store, command("r", "n1")).await;
    let published = RoomReport {
        publishers: 2,
        ..report("r", record.lease, 3)
    };
    store.report_room(published).await.expect("answer");
    let used = store.tenant_usage(tenant("t")).await.expect("answer");
    assert_eq!((used.participants, used.publishers), (3, 2));
    let limits = TenantLimits {
        publishers: Some(2),
        ..TenantLimits::default()
    };
    let join = |publishers| Usage {
        publishers,
        ..Usage::of_join(false, 1)
    };
    let ask = |publishers| {
        store.reserve(
            request(),
            key("r"),
            node("n1"),
            join(publishers),
            limits,
            CAPACITY,
        )
    };
    ask(0).await.expect("answer").expect("who listens may come");
    let refused = ask(1).await.expect("answer").expect_err("the third");
    assert_eq!(
        refused,
        QuotaRefusal::Reached {
            limit: Limit::TenantPublishers,
            used: 2,
            max: 2
        }
    );
}

/// In the order of the reports.
pub(crate) async fn each_report_of_a_batch_has_its_own_answer(harness: Harness) {
    let store = &*harness.store;
    let mut reports = Vec::new();
    for number in 0..300_u32 {
        let room = format!("r{number}");
        let policy = Some(policy());
        reports.push(RoomReport {
            policy,
            ..report(&room, lease("n1", 2), number % 3)
        });
    }
    store
        .report_room(report("r7", lease("n2", 9), 1))
        .await
        .expect("answer");
    let lost = RoomReport {
        policy: Some(policy()),
        ..report("r7", lease("n2", 9), 1)
    };
    store.report_room(lost).await.expect("answer");
    let outcomes = store.report_rooms(reports).await.expect("answer");
    assert_eq!(outcomes.len(), 300);
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let wanted = match number {
            7 => ReportOutcome::Fenced(Epoch(9)),
            _ => ReportOutcome::Taken,
        };
        assert_eq!(outcome, Ok(wanted), "{number}");
    }
    let used = used(store, "n1").await;
    assert_eq!((used.rooms, used.participants), (299, 299));
    assert_eq!(store.report_rooms(Vec::new()).await, Ok(Vec::new()));
}

/// Over all nodes, and nothing of another tenant.
pub(crate) async fn a_tenant_uses_what_its_rooms_use_everywhere(harness: Harness) {
    let store = &*harness.store;
    placed(store, command("a", "n1")).await;
    placed(store, command("b", "n2")).await;
    store.hold(hold("c", &["n3"], 5)).await.expect("answer");
    let used = store.tenant_usage(tenant("t")).await.expect("answer");
    assert_eq!((used.rooms, used.participants), (3, 7));
    assert_eq!(store.tenant_usage(tenant("u")).await, Ok(Usage::default()));
}

/// A node that died counts no longer than its rooms are kept.
pub(crate) async fn counts_run_out_with_the_record_of_their_room(harness: Harness) {
    let store = &*harness.store;
    let record = placed(store, command("r", "n1")).await;
    store
        .report_room(report("r", record.lease, 3))
        .await
        .expect("answer");
    (harness.advance)(room_lifetime(&policy()) - Duration::from_millis(1));
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 3));
    (harness.advance)(Duration::from_millis(1));
    assert_eq!(used(store, "n1").await, Usage::default());
    assert_eq!(store.tenant_usage(tenant("t")).await, Ok(Usage::default()));
    assert_eq!(store.room(key("r")).await, Ok(None));
}

/// Each renewal counts from itself.
pub(crate) async fn holds_run_out_unless_they_are_renewed(harness: Harness) {
    let store = &*harness.store;
    store.hold(hold("r", &["n1"], 3)).await.expect("answer");
    (harness.advance)(Duration::from_secs(599));
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 3));
    store.hold(hold("r", &["n1"], 3)).await.expect("answer");
    (harness.advance)(Duration::from_secs(599));
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 3));
    (harness.advance)(Duration::from_secs(1));
    assert_eq!(used(store, "n1").await, Usage::default());
}

/// After that it is a new one.
pub(crate) async fn a_settled_request_is_known_for_as_long_as_it_would_have_waited(
    harness: Harness,
) {
    let store = &*harness.store;
    let by = request();
    reserved(store, by, "r").await.expect("free");
    store
        .report_room(report("r", lease("n1", 1), 1))
        .await
        .expect("answer");
    (harness.advance)(limits::RESERVATION - Duration::from_millis(1));
    reserved(store, by, "r").await.expect("known");
    assert_eq!(used(store, "n1").await.participants, 1);
    (harness.advance)(Duration::from_millis(1));
    reserved(store, by, "r").await.expect("new");
    assert_eq!(used(store, "n1").await.participants, 2);
}
