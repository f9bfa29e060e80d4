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

#[path = "conformance/counts.rs"]
mod counts;
#[path = "conformance/kept.rs"]
mod kept;
#[path = "conformance/leases.rs"]
mod leases;

pub(crate) use counts::*;
pub(crate) use kept::*;
pub(crate) use leases::*;

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

pub(crate) fn site() -> Site {
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

pub(crate) async fn placed(store: &dyn Store, command: PlaceCommand) -> RoomRecord {
    match store.place(command).await.expect("the store answers") {
        PlaceOutcome::Placed(record, _) => record,
        other => panic!("not placed: {other:?}"),
    }
}

pub(crate) async fn used(store: &dyn Store, on: &str) -> Usage {
    store
        .usage(vec![node(on)])
        .await
        .expect("the store answers")[0]
}

pub(crate) fn reached(refusal: QuotaRefusal) -> Limit {
    match refusal {
        QuotaRefusal::Reached { limit, .. } => limit,
        QuotaRefusal::TooManyReservations(_) => panic!("{refusal}"),
    }
}

pub(crate) fn node_lease(epoch: u64) -> NodeLease {
    NodeLease {
        site: site(),
        node: node("n1"),
        epoch: Epoch(epoch),
        accepting: true,
    }
}

pub(crate) fn choices(on: &[&str]) -> Vec<Choice> {
    on.iter().map(|on| choice(on)).collect()
}

pub(crate) async fn reserved(
    store: &dyn Store,
    by: RequestId,
    room: &str,
) -> Result<(), QuotaRefusal> {
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

pub(crate) fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).expect("tenant")
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

pub(crate) async fn claims(store: &dyn Store, holder: &str, seconds: u64) -> bool {
    store
        .claim("pace".into(), holder.into(), Duration::from_secs(seconds))
        .await
        .expect("answer")
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
