// SPDX-License-Identifier: EUPL-1.2
use proptest::prelude::*;

use super::*;

fn key(tenant: u8, room: u8) -> RoomKey {
    RoomKey::parse(&format!("t{tenant}"), &format!("r{room}")).expect("key")
}

fn node(number: u8) -> NodeId {
    NodeId::parse(&format!("n{number}")).expect("node id")
}

const CAPACITY: Capacity = Capacity {
    rooms: 4,
    participants: 12,
    egress_mbps: 100,
};
const LIMITS: TenantLimits = TenantLimits {
    rooms: Some(3),
    participants: Some(9),
    participants_per_room: None,
    publishers_per_room: None,
    publishers: None,
    egress_mbps: Some(10),
};

#[test]
fn a_refusal_names_the_limit_and_its_numbers() {
    let used = Usage {
        rooms: 3,
        participants: 2,
        egress_kbps: 3_000,
    };
    let refusal = check_tenant(&LIMITS, used, Usage::of_join(true, 0)).expect_err("reached");
    assert_eq!(
        refusal,
        QuotaRefusal::Reached {
            limit: Limit::TenantRooms,
            used: 3,
            max: 3
        }
    );
    assert_eq!(
        refusal.to_string(),
        "TenantRooms is reached: 3 of 3 are used"
    );
    assert_eq!(
        check_tenant(&LIMITS, used, Usage::of_join(false, 1)),
        Ok(())
    );
    let egress = check_tenant(
        &LIMITS,
        Usage {
            egress_kbps: 9_000,
            ..used
        },
        Usage::of_join(false, 1),
    )
    .expect_err("reached");
    assert!(matches!(
        egress,
        QuotaRefusal::Reached {
            limit: Limit::TenantEgress,
            ..
        }
    ));
}

#[test]
fn zero_is_a_limit_and_absent_is_none() {
    let none = TenantLimits {
        participants: Some(0),
        ..TenantLimits::default()
    };
    assert!(check_tenant(&none, Usage::default(), Usage::of_join(false, 1)).is_err());
    let much = Usage {
        rooms: u32::MAX - 1,
        participants: u32::MAX - 1,
        egress_kbps: 0,
    };
    assert_eq!(
        check_tenant(&TenantLimits::default(), much, Usage::of_join(true, 1)),
        Ok(())
    );
}

#[test]
fn nothing_more_is_asked_of_a_limit_that_is_exceeded_already() {
    // A tenant whose limit was lowered keeps its people, and may open what costs nothing.
    let used = Usage {
        rooms: 1,
        participants: 50,
        egress_kbps: 0,
    };
    assert_eq!(check_tenant(&LIMITS, used, Usage::of_join(true, 0)), Ok(()));
}

#[test]
fn a_person_who_arrives_is_counted_once() {
    let mut ledger = QuotaLedger::default();
    let now = Moment::ZERO;
    ledger
        .reserve(
            &key(0, 0),
            &node(0),
            Usage::of_join(true, 1),
            &LIMITS,
            &CAPACITY,
            now,
        )
        .expect("free");
    ledger
        .reserve(
            &key(0, 0),
            &node(0),
            Usage::of_join(false, 1),
            &LIMITS,
            &CAPACITY,
            now,
        )
        .expect("free");
    ledger.report(&key(0, 0), &node(0), 1, now);
    assert_eq!(ledger.of_tenant(&key(0, 0).tenant), Usage::of_join(true, 2));
    ledger.report(&key(0, 0), &node(0), 2, now);
    assert_eq!(ledger.of_node(&node(0)), Usage::of_join(true, 2));
    // People who come beside any reservation settle none of a later one.
    ledger
        .reserve(
            &key(0, 0),
            &node(0),
            Usage::of_join(false, 1),
            &LIMITS,
            &CAPACITY,
            now,
        )
        .expect("free");
    ledger.report(&key(0, 0), &node(0), 2, now);
    assert_eq!(ledger.of_node(&node(0)).participants, 3);
}

#[test]
fn the_number_of_reservations_is_bounded() {
    let mut ledger = QuotaLedger::default();
    let (limits, capacity) = (
        TenantLimits::default(),
        Capacity {
            rooms: u32::MAX,
            participants: u32::MAX,
            egress_mbps: u32::MAX,
        },
    );
    for _ in 0..RESERVATIONS_MAX {
        ledger
            .reserve(
                &key(0, 0),
                &node(0),
                Usage::of_join(false, 1),
                &limits,
                &capacity,
                Moment::ZERO,
            )
            .expect("free");
    }
    let refused = ledger.reserve(
        &key(0, 0),
        &node(0),
        Usage::of_join(false, 1),
        &limits,
        &capacity,
        Moment::ZERO,
    );
    assert_eq!(
        refused,
        Err(QuotaRefusal::TooManyReservations(RESERVATIONS_MAX))
    );
    let later = Moment::ZERO.after(limits::RESERVATION);
    ledger
        .reserve(
            &key(0, 0),
            &node(0),
            Usage::of_join(false, 1),
            &limits,
            &capacity,
            later,
        )
        .expect("the old ones expired");
    assert_eq!(ledger.of_node(&node(0)).participants, 1);
}

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        tenant: u8,
        room: u8,
        node: u8,
        new: bool,
        people: u32,
    },
    Release(usize),
    Report {
        tenant: u8,
        room: u8,
        node: u8,
        people: u32,
    },
    Close {
        tenant: u8,
        room: u8,
        node: u8,
    },
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u8..2, 0_u8..3, 0_u8..2, any::<bool>(), 0_u32..3).prop_map(|(tenant, room, node, new, people)| Step::Reserve { tenant, room, node, new, people }),
        1 => any::<usize>().prop_map(Step::Release),
        3 => (0_u8..2, 0_u8..3, 0_u8..2, 0_u32..4).prop_map(|(tenant, room, node, people)| Step::Report { tenant, room, node, people }),
        1 => (0_u8..2, 0_u8..3, 0_u8..2).prop_map(|(tenant, room, node)| Step::Close { tenant, room, node }),
        1 => (0_u64..20_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn a_reservation_never_exceeds_a_ceiling_and_sums_stay_consistent(steps in steps()) {
        let mut ledger = QuotaLedger::default();
        let mut now = Moment::ZERO;
        let mut ids = Vec::new();
        for step in steps {
            match step {
                Step::Reserve { tenant, room, node: on, new, people } => {
                    let (key, on) = (key(tenant, room), node(on));
                    let more = Usage::of_join(new, people);
                    ledger.expire(now);
                    let before = (ledger.of_tenant(&key.tenant), ledger.of_node(&on));
                    match ledger.reserve(&key, &on, more, &LIMITS, &CAPACITY, now) {
                        Ok(id) => {
                            ids.push(id);
                            let (tenant, node) = (ledger.of_tenant(&key.tenant), ledger.of_node(&on));
                            prop_assert!(!new || tenant.rooms <= 3 && node.rooms <= CAPACITY.rooms);
                            prop_assert!(people == 0 || tenant.participants <= 9 && node.participants <= CAPACITY.participants);
                            prop_assert!(people == 0 || tenant.egress_kbps <= 10_000 && node.egress_kbps <= 100_000);
                        }
                        Err(_) => prop_assert_eq!(before, (ledger.of_tenant(&key.tenant), ledger.of_node(&on))),
                    }
                }
                Step::Release(which) => if !ids.is_empty() {
                    ledger.release(ids.swap_remove(which % ids.len()));
                },
                Step::Report { tenant, room, node: on, people } => ledger.report(&key(tenant, room), &node(on), people, now),
                Step::Close { tenant, room, node: on } => ledger.close(&key(tenant, room), &node(on)),
                Step::Wait(millis) => now = now.after(std::time::Duration::from_millis(millis)),
            }
            // The sums equal what their parts add up to.
            let mut by_tenant: BTreeMap<TenantName, Usage> = BTreeMap::new();
            let mut by_node: BTreeMap<NodeId, Usage> = BTreeMap::new();
            let rooms = ledger.rooms.iter().flat_map(|(key, nodes)| nodes.iter().map(move |(node, usage)| (key, node, *usage)));
            let held = ledger.reservations.values().map(|held| (&held.key, &held.node, held.amount));
            for (key, node, amount) in rooms.chain(held) {
                let sum = by_tenant.entry(key.tenant.clone()).or_default();
                *sum = sum.plus(amount);
                let sum = by_node.entry(node.clone()).or_default();
                *sum = sum.plus(amount);
            }
            by_tenant.retain(|_, usage| *usage != Usage::default());
            by_node.retain(|_, usage| *usage != Usage::default());
            prop_assert_eq!(&by_tenant, &ledger.by_tenant);
            prop_assert_eq!(&by_node, &ledger.by_node);
            let indexed: usize = ledger.by_room.values().map(BTreeSet::len).sum();
            prop_assert_eq!(indexed, ledger.reservations.len());
        }
        // When everybody has left and every reservation is over, nothing is in use.
        ledger.expire(now.after(limits::RESERVATION));
        for tenant in 0..2 { for room in 0..3 { for on in 0..2 { ledger.close(&key(tenant, room), &node(on)); } } }
        prop_assert!(ledger.by_tenant.is_empty() && ledger.by_node.is_empty() && ledger.rooms.is_empty());
    }
}
