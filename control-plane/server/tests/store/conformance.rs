// SPDX-License-Identifier: EUPL-1.2
//! What every store must do, against the trait alone. A backend runs it with `suite!` and a harness that can let time pass.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, RoomKey, Site, TenantName, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::limits;
use control_core::quota::{Limit, QuotaRefusal, Usage};
use control_core::record::{Capacity, LobbyRule, RecordKind, RoomFacts, RoomPolicy, TenantLimits};

use control_core::placement::Strategy;
use control_plane::store::{
    Choice, EVENT_AGE_MAX, EVENT_BYTES_MAX, EVENTS_BYTES_MAX, EVENTS_MAX, EventQueue, FailureScope,
    HoldCommand, HoldOutcome, MARK, NAME_BYTES_MAX, PlaceCommand, PlaceOutcome, Pushed,
    QueuedEvent, RECORD_BYTES_MAX, REPORT_AGAIN, ROOM_RECORD_MIN, RecordOutcome, ReportOutcome,
    RequestId, RoomRecord, RoomReport, Store, StoreError, StoredRecord, room_lifetime,
};

/// A fresh store and its time.
pub(crate) struct Harness {
    /// The store.
    pub(crate) store: Arc<dyn Store>,
    /// Lets its time pass.
    pub(crate) advance: Box<dyn Fn(Duration) + Send + Sync>,
    /// What must live as long as the store.
    pub(crate) _kept: Box<dyn Any + Send + Sync>,
}

/// Runs all claims as tests of the calling module.
macro_rules! suite {
    ($harness:ident) => {
        $crate::conformance::suite! { $harness =>
            a_room_has_one_owner_whoever_asks
            a_lease_is_replaced_only_by_who_knows_it
            epochs_rise_above_store_reports_and_floor
            facts_survive_their_node
            a_report_of_an_old_lease_is_fenced
            a_report_of_a_higher_lease_takes_over
            of_equal_leases_the_fuller_room_stays_and_then_the_lower_node
            a_report_writes_back_what_the_store_lost
            a_placement_that_never_lived_is_taken_back
            only_the_holder_closes_a_room
            a_node_never_gets_more_than_its_ceiling
            a_tenant_never_gets_more_than_its_ceiling
            reservations_are_settled_by_reports
            a_refused_placement_leaves_nothing_behind
            a_closed_node_gets_no_room
            the_same_request_places_a_room_once
            the_same_request_reserves_once
            a_reservation_is_given_back
            the_less_loaded_of_the_first_two_choices_gets_a_room
            packing_takes_the_first_choice_that_has_room
            closed_and_full_choices_are_passed_over
            a_hold_counts_until_more_is_there
            a_room_goes_where_capacity_is_held_for_it
            a_hold_is_refused_beyond_a_ceiling_and_changes_nothing
            a_room_counts_where_its_owner_reports_it
            publishers_are_reported_and_checked
            each_report_of_a_batch_has_its_own_answer
            a_tenant_uses_what_its_rooms_use_everywhere
            records_are_kept_until_they_are_dropped
            an_older_publication_changes_no_record
            records_have_bounds
            one_replica_has_a_role
            events_wait_in_their_order_once_per_id
            queues_are_bounded_and_the_oldest_go_first
            the_store_answers
            records_run_out_when_nobody_reports
            reservations_expire
            node_leases_run_out
            an_earlier_life_does_not_refresh_the_present_one
            failures_are_counted_and_forgotten
            counts_run_out_with_the_record_of_their_room
            holds_run_out_unless_they_are_renewed
            marks_outlive_the_leases_of_their_node
            an_older_publication_may_write_when_the_later_one_is_silent
            roles_fall_free
            events_grow_old
            a_settled_request_is_known_for_as_long_as_it_would_have_waited
        }
    };
    ($harness:ident => $($claim:ident)*) => {
        $(
            #[tokio::test]
            async fn $claim() {
                $crate::conformance::$claim($harness().await).await;
            }
        )*
    };
}
pub(crate) use suite;

/// Checks all claims for which no time has to pass, each on a fresh store.
pub(crate) async fn everything_at_once<F: Future<Output = Harness>>(harness: impl Fn() -> F) {
    a_room_has_one_owner_whoever_asks(harness().await).await;
    a_lease_is_replaced_only_by_who_knows_it(harness().await).await;
    epochs_rise_above_store_reports_and_floor(harness().await).await;
    facts_survive_their_node(harness().await).await;
    a_report_of_an_old_lease_is_fenced(harness().await).await;
    a_report_of_a_higher_lease_takes_over(harness().await).await;
    of_equal_leases_the_fuller_room_stays_and_then_the_lower_node(harness().await).await;
    a_report_writes_back_what_the_store_lost(harness().await).await;
    a_placement_that_never_lived_is_taken_back(harness().await).await;
    only_the_holder_closes_a_room(harness().await).await;
    a_node_never_gets_more_than_its_ceiling(harness().await).await;
    a_tenant_never_gets_more_than_its_ceiling(harness().await).await;
    reservations_are_settled_by_reports(harness().await).await;
    a_refused_placement_leaves_nothing_behind(harness().await).await;
    a_closed_node_gets_no_room(harness().await).await;
    the_same_request_places_a_room_once(harness().await).await;
    the_same_request_reserves_once(harness().await).await;
    a_reservation_is_given_back(harness().await).await;
    the_less_loaded_of_the_first_two_choices_gets_a_room(harness().await).await;
    packing_takes_the_first_choice_that_has_room(harness().await).await;
    closed_and_full_choices_are_passed_over(harness().await).await;
    a_hold_counts_until_more_is_there(harness().await).await;
    a_room_goes_where_capacity_is_held_for_it(harness().await).await;
    a_hold_is_refused_beyond_a_ceiling_and_changes_nothing(harness().await).await;
    a_room_counts_where_its_owner_reports_it(harness().await).await;
    publishers_are_reported_and_checked(harness().await).await;
    each_report_of_a_batch_has_its_own_answer(harness().await).await;
    a_tenant_uses_what_its_rooms_use_everywhere(harness().await).await;
    records_are_kept_until_they_are_dropped(harness().await).await;
    an_older_publication_changes_no_record(harness().await).await;
    records_have_bounds(harness().await).await;
    one_replica_has_a_role(harness().await).await;
    events_wait_in_their_order_once_per_id(harness().await).await;
    queues_are_bounded_and_the_oldest_go_first(harness().await).await;
    the_store_answers(harness().await).await;
}

pub(crate) fn key(name: &str) -> RoomKey {
    RoomKey::parse("t", name).expect("key")
}

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("node id")
}

fn site() -> Site {
    Site::parse("local").expect("site")
}

pub(crate) fn lease(name: &str, epoch: u64) -> RoomLease {
    RoomLease {
        site: site(),
        node: node(name),
        epoch: Epoch(epoch),
    }
}

pub(crate) fn policy() -> RoomPolicy {
    RoomPolicy {
        declared: true,
        lobby: LobbyRule::Guests,
        guests_allowed: true,
        permissions: Default::default(),
        max_participants: 100,
        max_publishers: 10,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        max_duration: Duration::ZERO,
        max_bitrate_kbps: 0,
        screen_share: true,
        e2ee_required: false,
        codecs: vec!["vp8".into()],
        revision: "r1".into(),
    }
}

pub(crate) fn request() -> RequestId {
    RequestId::random().expect("random numbers")
}

pub(crate) fn choice(on: &str) -> Choice {
    Choice {
        site: site(),
        node: node(on),
        capacity: CAPACITY,
    }
}

pub(crate) const CAPACITY: Capacity = Capacity {
    rooms: 3,
    participants: 5,
    egress_mbps: 1_000,
};

pub(crate) fn command(room: &str, on: &str) -> PlaceCommand {
    PlaceCommand {
        request: request(),
        key: key(room),
        choices: vec![choice(on)],
        strategy: Strategy::Spread,
        limits: TenantLimits::default(),
        amount: Usage::of_join(true, 1),
        replaces: None,
        reported: None,
        floor: Epoch(0),
        policy: policy(),
        pool: None,
        facts: RoomFacts::default(),
    }
}

pub(crate) fn report(room: &str, lease: RoomLease, participants: u32) -> RoomReport {
    let facts = RoomFacts {
        room_sid: "RM_1".into(),
        opened: true,
        ..Default::default()
    };
    RoomReport {
        key: key(room),
        lease,
        participants,
        publishers: 0,
        facts,
        policy: None,
    }
}

async fn placed(store: &dyn Store, command: PlaceCommand) -> RoomRecord {
    match store.place(command).await.expect("the store answers") {
        PlaceOutcome::Placed(record, _) => record,
        other => panic!("not placed: {other:?}"),
    }
}

async fn used(store: &dyn Store, on: &str) -> Usage {
    store
        .usage(vec![node(on)])
        .await
        .expect("the store answers")[0]
}

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

fn reached(refusal: QuotaRefusal) -> Limit {
    match refusal {
        QuotaRefusal::Reached { limit, .. } => limit,
        QuotaRefusal::TooManyReservations(_) => panic!("{refusal}"),
    }
}

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

pub(crate) fn node_lease(epoch: u64) -> NodeLease {
    NodeLease {
        site: site(),
        node: node("n1"),
        epoch: Epoch(epoch),
        accepting: true,
    }
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

pub(crate) fn choices(on: &[&str]) -> Vec<Choice> {
    on.iter().map(|on| choice(on)).collect()
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

async fn reserved(store: &dyn Store, by: RequestId, room: &str) -> Result<(), QuotaRefusal> {
    store
        .reserve(
            by,
            key(room),
            node("n1"),
            Usage::of_join(false, 1),
            TenantLimits::default(),
            CAPACITY,
        )
        .await
        .expect("answer")
        .map(|id| assert_eq!(id, by.reservation()))
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

pub(crate) fn hold(room: &str, on: &[&str], people: u32) -> HoldCommand {
    HoldCommand {
        key: key(room),
        choices: choices(on),
        strategy: Strategy::Spread,
        amount: Usage::of_join(true, people),
        limits: TenantLimits::default(),
        lifetime: Duration::from_secs(600),
    }
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

fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).expect("tenant")
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

pub(crate) fn record(kind: RecordKind, uid: &str, epoch: u64, value: &[u8]) -> StoredRecord {
    StoredRecord {
        kind,
        uid: Uid::parse(uid).expect("uid"),
        revision: format!("r {uid}\n"),
        epoch,
        value: value.to_vec(),
    }
}

/// Whatever bytes they are.
pub(crate) async fn records_are_kept_until_they_are_dropped(harness: Harness) {
    let store = &*harness.store;
    let every: Vec<u8> = (0..=255).collect();
    let kept = [
        record(RecordKind::Tenant, "a", 1, &every),
        record(RecordKind::Conference, "a", 1, b""),
        record(RecordKind::Conference, "b", 1, b"2"),
        record(RecordKind::Node, "a", 1, b"3"),
    ];
    for record in kept.iter().rev() {
        assert_eq!(
            store.put_record(record.clone()).await,
            Ok(RecordOutcome::Taken)
        );
    }
    assert_eq!(store.records().await.expect("answer"), kept);
    let again = record(RecordKind::Conference, "b", 2, b"22");
    store.put_record(again.clone()).await.expect("answer");
    assert_eq!(
        store.record(again.kind, again.uid.clone()).await,
        Ok(Some(again))
    );
    for record in &kept {
        let gone = store.drop_record(record.kind, record.uid.clone(), 2).await;
        assert_eq!(gone, Ok(RecordOutcome::Taken));
        assert_eq!(
            store.record(record.kind, record.uid.clone()).await,
            Ok(None)
        );
    }
    assert_eq!(store.records().await, Ok(Vec::new()));
}

/// Whichever record it was that the later one wrote.
pub(crate) async fn an_older_publication_changes_no_record(harness: Harness) {
    let store = &*harness.store;
    let first = record(RecordKind::Tenant, "a", 1, b"1");
    store.put_record(first.clone()).await.expect("answer");
    let later = record(RecordKind::Tenant, "b", 3, b"2");
    store.put_record(later).await.expect("answer");
    let late = record(RecordKind::Tenant, "a", 2, b"3");
    assert_eq!(store.put_record(late).await, Ok(RecordOutcome::Fenced(3)));
    let dropped = store.drop_record(first.kind, first.uid.clone(), 2).await;
    assert_eq!(dropped, Ok(RecordOutcome::Fenced(3)));
    assert_eq!(
        store.record(first.kind, first.uid.clone()).await,
        Ok(Some(first))
    );
}

/// Each of its own, and a page at a time.
pub(crate) async fn records_have_bounds(harness: Harness) {
    let store = &*harness.store;
    let large = record(RecordKind::Tenant, "a", 1, &vec![7; RECORD_BYTES_MAX + 1]);
    assert!(matches!(
        store.put_record(large).await,
        Err(StoreError::Full { .. })
    ));
    let mut kept = Vec::new();
    for number in 0..9 {
        let largest = vec![number; RECORD_BYTES_MAX];
        kept.push(record(RecordKind::Node, &format!("n{number}"), 1, &largest));
    }
    for number in 10..300 {
        let uid = format!("n{number}");
        kept.push(record(RecordKind::Node, &uid, 1, b"small"));
    }
    for record in &kept {
        store.put_record(record.clone()).await.expect("answer");
    }
    kept.sort_by(|a, b| a.uid.cmp(&b.uid));
    assert!(store.records().await.expect("answer") == kept);
}

async fn claims(store: &dyn Store, holder: &str, seconds: u64) -> bool {
    store
        .claim("pace".into(), holder.into(), Duration::from_secs(seconds))
        .await
        .expect("answer")
}

/// Until it gives it up.
pub(crate) async fn one_replica_has_a_role(harness: Harness) {
    let store = &*harness.store;
    assert!(claims(store, "a", 10).await);
    assert!(claims(store, "a", 10).await);
    assert!(!claims(store, "b", 10).await);
    assert!(!claims(store, "b", 0).await, "only the holder gives it up");
    assert!(!claims(store, "b", 10).await);
    assert!(!claims(store, "a", 0).await);
    assert!(claims(store, "b", 10).await);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let refused = store.claim(long, "a".into(), Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })));
}

pub(crate) fn queue(receiver: &str) -> EventQueue {
    EventQueue {
        tenant: tenant("t"),
        receiver: receiver.into(),
    }
}

pub(crate) fn event(id: &str, body: &[u8]) -> QueuedEvent {
    QueuedEvent {
        id: id.into(),
        name: "room_started".into(),
        queued_unix_ms: -1,
        body: body.to_vec(),
    }
}

/// Each queue its own.
pub(crate) async fn events_wait_in_their_order_once_per_id(harness: Harness) {
    let store = &*harness.store;
    let every: Vec<u8> = (0..=255).collect();
    let waiting = [event("b", &every), event("a", b""), event("", b"c")];
    for event in waiting.iter().chain(&waiting) {
        let pushed = store.push_event(queue("x"), event.clone()).await;
        assert_eq!(pushed, Ok(Pushed { dropped: 0 }));
    }
    assert_eq!(store.events(queue("x"), 10).await.expect("answer"), waiting);
    assert_eq!(
        store.events(queue("x"), 1).await.expect("answer"),
        waiting[..1]
    );
    assert_eq!(store.events(queue("x"), 0).await, Ok(Vec::new()));
    assert_eq!(store.events(queue("y"), 10).await, Ok(Vec::new()));
    for _ in 0..2 {
        store
            .event_done(queue("x"), "a".into())
            .await
            .expect("answer");
    }
    let left = [waiting[0].clone(), waiting[2].clone()];
    assert_eq!(store.events(queue("x"), 10).await.expect("answer"), left);
    for event in left {
        store
            .event_done(queue("x"), event.id)
            .await
            .expect("answer");
    }
    assert_eq!(store.events(queue("x"), 10).await, Ok(Vec::new()));
}

/// By number and by bytes.
pub(crate) async fn queues_are_bounded_and_the_oldest_go_first(harness: Harness) {
    let store = &*harness.store;
    let push = |receiver: &'static str, number: usize, bytes: usize| {
        store.push_event(queue(receiver), event(&number.to_string(), &vec![1; bytes]))
    };
    for number in 0..EVENTS_MAX {
        assert_eq!(push("x", number, 1).await, Ok(Pushed { dropped: 0 }));
    }
    assert_eq!(push("x", EVENTS_MAX, 1).await, Ok(Pushed { dropped: 1 }));
    let first = store.events(queue("x"), 1).await.expect("answer");
    assert_eq!(first[0].id, "1");
    let fit = EVENTS_BYTES_MAX / EVENT_BYTES_MAX;
    for number in 0..fit {
        let pushed = push("y", number, EVENT_BYTES_MAX).await;
        assert_eq!(pushed, Ok(Pushed { dropped: 0 }));
    }
    assert_eq!(push("y", fit, 1).await, Ok(Pushed { dropped: 1 }));
    let all = store.events(queue("y"), EVENTS_MAX).await.expect("answer");
    assert_eq!((all.len(), all[0].id.as_str()), (fit, "1"));
    let large = push("y", 0, EVENT_BYTES_MAX + 1).await;
    assert!(matches!(large, Err(StoreError::Full { .. })));
}

/// A probe.
pub(crate) async fn the_store_answers(harness: Harness) {
    assert_eq!(harness.store.ping().await, Ok(()));
    assert_eq!(harness.store.usage(Vec::new()).await, Ok(Vec::new()));
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

/// Epochs of publications may begin anew.
pub(crate) async fn an_older_publication_may_write_when_the_later_one_is_silent(harness: Harness) {
    let store = &*harness.store;
    let at = |epoch| record(RecordKind::Tenant, "a", epoch, b"");
    store.put_record(at(9)).await.expect("answer");
    (harness.advance)(limits::PUBLICATION_FENCE - Duration::from_millis(1));
    assert_eq!(
        store.put_record(at(1)).await,
        Ok(RecordOutcome::Fenced(9)),
        "a refused one does not renew the fence"
    );
    (harness.advance)(Duration::from_millis(1));
    assert_eq!(store.put_record(at(1)).await, Ok(RecordOutcome::Taken));
}

/// When their holder is silent.
pub(crate) async fn roles_fall_free(harness: Harness) {
    let store = &*harness.store;
    assert!(claims(store, "a", 10).await);
    (harness.advance)(Duration::from_millis(9_999));
    assert!(!claims(store, "b", 10).await);
    assert!(claims(store, "a", 10).await);
    (harness.advance)(Duration::from_secs(10));
    assert!(claims(store, "b", 10).await);
}

/// And are counted as lost by who comes after them.
pub(crate) async fn events_grow_old(harness: Harness) {
    let store = &*harness.store;
    let push = |id: &'static str| store.push_event(queue("x"), event(id, b"1"));
    push("a").await.expect("answer");
    (harness.advance)(EVENT_AGE_MAX - Duration::from_secs(1));
    assert_eq!(push("b").await, Ok(Pushed { dropped: 0 }));
    (harness.advance)(Duration::from_secs(1));
    assert_eq!(push("c").await, Ok(Pushed { dropped: 1 }));
    let waiting = store.events(queue("x"), 9).await.expect("answer");
    let ids: Vec<&str> = waiting.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["b", "c"]);
    (harness.advance)(EVENT_AGE_MAX);
    assert_eq!(store.events(queue("x"), 9).await, Ok(Vec::new()));
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
