// SPDX-License-Identifier: EUPL-1.2
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::{NodeId, RoomKey, TenantName};
use crate::placement::Strategy as Layout;
use crate::time::Moment;

fn key(tenant: u8, room: u8) -> RoomKey {
    RoomKey::parse(&format!("t{tenant}"), &format!("r{room}")).expect("key")
}

fn id(number: u128) -> ReservationId {
    ReservationId(number)
}

const LIFETIME: Duration = Duration::from_secs(60);

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
        publishers: 1,
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
fn publishers_are_checked_and_never_held() {
    let limits = TenantLimits {
        publishers: Some(1),
        ..TenantLimits::default()
    };
    let publishing = Usage {
        publishers: 1,
        ..Usage::of_join(true, 1)
    };
    let (mut ledger, now) = (QuotaLedger::default(), Moment::ZERO);
    ledger
        .reserve(
            &key(0, 0),
            &node(0),
            id(1),
            publishing,
            &limits,
            &CAPACITY,
            now,
        )
        .expect("free");
    assert_eq!(ledger.of_tenant(&key(0, 0).tenant).publishers, 0);
    ledger.report(&key(0, 0), &node(0), 1, 1, LIFETIME, now);
    assert_eq!(ledger.of_tenant(&key(0, 0).tenant).publishers, 1);
    let refused = ledger
        .reserve(
            &key(0, 1),
            &node(0),
            id(2),
            publishing,
            &limits,
            &CAPACITY,
            now,
        )
        .expect_err("reached");
    assert_eq!(
        refused,
        QuotaRefusal::Reached {
            limit: Limit::TenantPublishers,
            used: 1,
            max: 1
        }
    );
    ledger
        .reserve(
            &key(0, 1),
            &node(0),
            id(2),
            Usage::of_join(true, 1),
            &limits,
            &CAPACITY,
            now,
        )
        .expect("who only listens may come");
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
        publishers: 0,
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
        publishers: 0,
        egress_kbps: 0,
    };
    assert_eq!(check_tenant(&LIMITS, used, Usage::of_join(true, 0)), Ok(()));
}

const WIDE: Capacity = Capacity {
    rooms: u32::MAX,
    participants: u32::MAX,
    egress_mbps: u32::MAX,
};
const NONE: TenantLimits = TenantLimits {
    rooms: None,
    participants: None,
    participants_per_room: None,
    publishers_per_room: None,
    publishers: None,
    egress_mbps: None,
};

fn reserve(ledger: &mut QuotaLedger, room: u8, number: u128, more: Usage, now: Moment) {
    ledger
        .reserve(&key(0, room), &node(0), id(number), more, &NONE, &WIDE, now)
        .expect("free");
}

#[test]
fn a_person_who_arrives_is_counted_once() {
    let (mut ledger, now) = (QuotaLedger::default(), Moment::ZERO);
    reserve(&mut ledger, 0, 1, Usage::of_join(true, 1), now);
    reserve(&mut ledger, 0, 2, Usage::of_join(false, 1), now);
    ledger.report(&key(0, 0), &node(0), 1, 0, LIFETIME, now);
    assert_eq!(ledger.of_tenant(&key(0, 0).tenant), Usage::of_join(true, 2));
    ledger.report(&key(0, 0), &node(0), 2, 0, LIFETIME, now);
    assert_eq!(ledger.of_node(&node(0)), Usage::of_join(true, 2));
    // People who come beside any reservation settle none of a later one.
    reserve(&mut ledger, 0, 3, Usage::of_join(false, 1), now);
    ledger.report(&key(0, 0), &node(0), 2, 0, LIFETIME, now);
    assert_eq!(ledger.of_node(&node(0)).participants, 3);
}

#[test]
fn the_same_request_holds_nothing_twice_settled_or_not() {
    let (mut ledger, now) = (QuotaLedger::default(), Moment::ZERO);
    reserve(&mut ledger, 0, 1, Usage::of_join(false, 1), now);
    reserve(&mut ledger, 0, 1, Usage::of_join(false, 1), now);
    assert_eq!(ledger.of_node(&node(0)).participants, 1);
    ledger.report(&key(0, 0), &node(0), 1, 0, LIFETIME, now);
    reserve(&mut ledger, 0, 1, Usage::of_join(false, 1), now);
    assert_eq!(ledger.of_node(&node(0)).participants, 1);
}

#[test]
fn counts_run_out_with_nobody_to_report_them() {
    let (mut ledger, now) = (QuotaLedger::default(), Moment::ZERO);
    ledger.report(&key(0, 0), &node(0), 3, 1, LIFETIME, now);
    ledger.expire(now.after(LIFETIME - Duration::from_millis(1)));
    assert_eq!(ledger.of_node(&node(0)).participants, 3);
    ledger.expire(now.after(LIFETIME));
    assert_eq!(ledger.of_node(&node(0)), Usage::default());
    assert_eq!(ledger.of_tenant(&key(0, 0).tenant), Usage::default());
}

#[test]
fn a_room_counts_where_its_owner_reports_it_and_nowhere_else() {
    let (mut ledger, now) = (QuotaLedger::default(), Moment::ZERO);
    ledger.report(&key(0, 0), &node(0), 3, 0, LIFETIME, now);
    ledger.report(&key(0, 0), &node(1), 2, 0, LIFETIME, now);
    assert_eq!(ledger.of_node(&node(0)), Usage::default());
    assert_eq!(ledger.of_tenant(&key(0, 0).tenant), Usage::of_join(true, 2));
    // What the former owner says at its end changes nothing.
    ledger.close(&key(0, 0), &node(0), now);
    assert_eq!(ledger.of_tenant(&key(0, 0).tenant), Usage::of_join(true, 2));
}

#[test]
fn a_hold_counts_until_more_is_there() {
    let (mut ledger, now) = (QuotaLedger::default(), Moment::ZERO);
    let offers = [Offer {
        node: &node(0),
        capacity: &CAPACITY,
        accepting: true,
    }];
    let amount = Usage::of_join(true, 10);
    let hold = |ledger: &mut QuotaLedger, room| {
        ledger.hold(
            &key(0, room),
            None,
            &offers,
            Layout::Spread,
            amount,
            &NONE,
            LIFETIME,
            now,
        )
    };
    assert_eq!(hold(&mut ledger, 0), Ok(0));
    assert_eq!(hold(&mut ledger, 0), Ok(0), "again");
    assert_eq!(ledger.of_node(&node(0)), amount);
    assert!(
        matches!(hold(&mut ledger, 1), Err(NoChoice::Refused(_))),
        "no room for a second"
    );
    let taken = Usage::of_join(true, 1);
    assert_eq!(
        ledger.place(
            &key(0, 0),
            id(1),
            &offers,
            Layout::Spread,
            taken,
            &NONE,
            now
        ),
        Ok(0)
    );
    assert_eq!(
        ledger.of_node(&node(0)),
        amount,
        "who comes takes of what is held"
    );
    ledger.report(&key(0, 0), &node(0), 11, 2, LIFETIME, now);
    assert_eq!(ledger.of_node(&node(0)).participants, 11);
    ledger.report(&key(0, 0), &node(0), 1, 1, LIFETIME, now);
    assert_eq!(ledger.of_node(&node(0)).participants, 10);
    ledger.drop_hold(&key(0, 0), now);
    assert_eq!(ledger.of_node(&node(0)).participants, 1);
}

#[test]
fn a_room_goes_where_capacity_is_held_for_it() {
    let (mut ledger, now) = (QuotaLedger::default(), Moment::ZERO);
    let (a, b) = (node(0), node(1));
    let offer = |node| Offer {
        node,
        capacity: &CAPACITY,
        accepting: true,
    };
    let hold = |ledger: &mut QuotaLedger, offers: &[Offer<'_>], runs_on| {
        let amount = Usage::of_join(true, 10);
        ledger.hold(
            &key(0, 0),
            runs_on,
            offers,
            Layout::Pack,
            amount,
            &NONE,
            LIFETIME,
            now,
        )
    };
    assert_eq!(hold(&mut ledger, &[offer(&b)], None), Ok(0));
    assert_eq!(
        hold(&mut ledger, &[offer(&a), offer(&b)], None),
        Ok(1),
        "it keeps its node"
    );
    let place = |ledger: &mut QuotaLedger, number, offers: &[Offer<'_>]| {
        ledger.place(
            &key(0, 0),
            id(number),
            offers,
            Layout::Pack,
            Usage::of_join(true, 1),
            &NONE,
            now,
        )
    };
    assert_eq!(place(&mut ledger, 1, &[offer(&a), offer(&b)]), Ok(1));
    assert_eq!(
        place(&mut ledger, 2, &[offer(&a)]),
        Ok(0),
        "its node is gone"
    );
    assert_eq!(
        ledger.of_node(&b),
        Usage::of_join(true, 1),
        "the hold ended"
    );
    assert_eq!(
        hold(&mut ledger, &[offer(&b), offer(&a)], Some(&a)),
        Ok(1),
        "where the room runs"
    );
}

#[test]
fn spread_takes_the_less_loaded_of_two_and_pack_the_first_that_fits() {
    let (mut ledger, now) = (QuotaLedger::default(), Moment::ZERO);
    let nodes = [node(0), node(1), node(2)];
    ledger.report(&key(1, 0), &node(0), 4, 0, LIFETIME, now);
    ledger.report(&key(1, 1), &node(1), 1, 0, LIFETIME, now);
    let mut number = 0;
    let mut choose = |layout, accepting: [bool; 3], people| {
        let offers: Vec<_> = std::iter::zip(&nodes, accepting)
            .map(|(node, accepting)| Offer {
                node,
                capacity: &CAPACITY,
                accepting,
            })
            .collect();
        number += 1;
        let chosen = ledger.place(
            &key(0, 0),
            id(number),
            &offers,
            layout,
            Usage::of_join(true, people),
            &NONE,
            now,
        );
        ledger.release(&key(0, 0), id(number), now);
        chosen
    };
    assert_eq!(choose(Layout::Spread, [true, true, true], 1), Ok(1));
    assert_eq!(choose(Layout::Pack, [true, true, true], 1), Ok(0));
    assert_eq!(choose(Layout::Pack, [true, true, true], 12), Ok(2));
    assert_eq!(choose(Layout::Spread, [true, false, true], 1), Ok(0));
    assert_eq!(choose(Layout::Spread, [false, false, true], 1), Ok(2));
    assert_eq!(
        choose(Layout::Spread, [false; 3], 1),
        Err(NoChoice::NotAccepting)
    );
    assert!(matches!(
        choose(Layout::Spread, [false, true, true], 13),
        Err(NoChoice::Refused(_))
    ));
}

#[test]
fn the_number_of_reservations_is_bounded() {
    let mut ledger = QuotaLedger::default();
    let mut made = 0_u128;
    let mut fill = |ledger: &mut QuotaLedger, room: u16, now| {
        made += 1;
        let key = RoomKey::parse("t", &format!("r{room}")).expect("key");
        let more = Usage::of_join(false, 1);
        ledger.reserve(&key, &node(0), id(made), more, &NONE, &WIDE, now)
    };
    for _ in 0..ROOM_RESERVATIONS_MAX {
        fill(&mut ledger, 0, Moment::ZERO).expect("free");
    }
    assert_eq!(
        fill(&mut ledger, 0, Moment::ZERO),
        Err(QuotaRefusal::TooManyReservations(ROOM_RESERVATIONS_MAX))
    );
    for number in ROOM_RESERVATIONS_MAX..RESERVATIONS_MAX {
        let room = u16::try_from(1 + number / 20).expect("few");
        fill(&mut ledger, room, Moment::ZERO).expect("free");
    }
    assert_eq!(
        fill(&mut ledger, u16::MAX, Moment::ZERO),
        Err(QuotaRefusal::TooManyReservations(RESERVATIONS_MAX))
    );
    let later = Moment::ZERO.after(limits::RESERVATION);
    fill(&mut ledger, 0, later).expect("the old ones expired");
    assert_eq!(ledger.of_node(&node(0)).participants, 1);
    assert_eq!(ledger.reservations, 1);
}

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        room: (u8, u8),
        node: u8,
        new: bool,
        people: u32,
    },
    Place {
        room: (u8, u8),
        pack: bool,
        people: u32,
    },
    Hold {
        room: (u8, u8),
        people: u32,
    },
    DropHold {
        room: (u8, u8),
    },
    Release(usize),
    Report {
        room: (u8, u8),
        node: u8,
        people: u32,
    },
    Close {
        room: (u8, u8),
        node: u8,
    },
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let room = || (0_u8..2, 0_u8..3);
    let step = prop_oneof![
        4 => (room(), 0_u8..2, any::<bool>(), 0_u32..3)
            .prop_map(|(room, node, new, people)| Step::Reserve { room, node, new, people }),
        2 => (room(), any::<bool>(), 0_u32..3).prop_map(|(room, pack, people)| Step::Place { room, pack, people }),
        1 => (room(), 0_u32..5).prop_map(|(room, people)| Step::Hold { room, people }),
        1 => room().prop_map(|room| Step::DropHold { room }),
        1 => any::<usize>().prop_map(Step::Release),
        3 => (room(), 0_u8..2, 0_u32..4).prop_map(|(room, node, people)| Step::Report { room, node, people }),
        1 => (room(), 0_u8..2).prop_map(|(room, node)| Step::Close { room, node }),
        1 => (0_u64..20_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

fn sums(ledger: &QuotaLedger) -> (BTreeMap<TenantName, Usage>, BTreeMap<NodeId, Usage>) {
    let mut by_tenant: BTreeMap<TenantName, Usage> = BTreeMap::new();
    let mut by_node: BTreeMap<NodeId, Usage> = BTreeMap::new();
    for (key, seat) in &ledger.seats {
        for (node, amount) in seat.uses() {
            let sum = by_tenant.entry(key.tenant.clone()).or_default();
            *sum = sum.plus(amount);
            let sum = by_node.entry(node).or_default();
            *sum = sum.plus(amount);
        }
    }
    (by_tenant, by_node)
}

proptest! {
    #[test]
    fn nothing_that_is_granted_exceeds_a_ceiling_and_sums_stay_consistent(steps in steps()) {
        let (mut ledger, mut now) = (QuotaLedger::default(), Moment::ZERO);
        let (mut ids, mut last) = (Vec::new(), 0_u128);
        let key = |(tenant, room)| key(tenant, room);
        let nodes = [node(0), node(1)];
        let offers = nodes.each_ref().map(|node| Offer { node, capacity: &CAPACITY, accepting: true });
        for step in steps {
            ledger.expire(now);
            let before = (ledger.by_tenant.clone(), ledger.by_node.clone());
            last += 1;
            let granted = match &step {
                Step::Reserve { room, node: on, new, people } => Some((
                    *room,
                    ledger.reserve(&key(*room), &node(*on), id(last), Usage::of_join(*new, *people), &LIMITS, &CAPACITY, now).is_ok(),
                    Usage::of_join(*new, *people),
                )),
                Step::Place { room, pack, people } => {
                    let layout = if *pack { Layout::Pack } else { Layout::Spread };
                    let more = Usage::of_join(true, *people);
                    Some((*room, ledger.place(&key(*room), id(last), &offers, layout, more, &LIMITS, now).is_ok(), more))
                }
                Step::Hold { room, people } => {
                    let more = Usage::of_join(true, *people);
                    let held = ledger.hold(&key(*room), None, &offers, Layout::Spread, more, &LIMITS, LIFETIME, now);
                    if held.is_err() {
                        prop_assert_eq!(&before, &(ledger.by_tenant.clone(), ledger.by_node.clone()));
                    }
                    None
                }
                Step::DropHold { room } => {
                    ledger.drop_hold(&key(*room), now);
                    None
                }
                Step::Release(which) => {
                    if !ids.is_empty() {
                        let (room, id) = ids.swap_remove(which % ids.len());
                        ledger.release(&key(room), id, now);
                    }
                    None
                }
                Step::Report { room, node: on, people } => {
                    ledger.report(&key(*room), &node(*on), *people, 0, LIFETIME, now);
                    None
                }
                Step::Close { room, node: on } => {
                    ledger.close(&key(*room), &node(*on), now);
                    None
                }
                Step::Wait(millis) => {
                    now = now.after(Duration::from_millis(*millis));
                    None
                }
            };
            match granted {
                Some((room, true, _)) => {
                    ids.push((room, id(last)));
                    // Only what grows is bound: reports may lie above any ceiling.
                    let tenant = key(room).tenant;
                    let grew = |after: u64, before: u64, max: u64| after <= before || after <= max;
                    let (was, is) = (before.0.get(&tenant).copied().unwrap_or_default(), ledger.of_tenant(&tenant));
                    prop_assert!(grew(is.rooms.into(), was.rooms.into(), 3));
                    prop_assert!(grew(is.participants.into(), was.participants.into(), 9));
                    prop_assert!(grew(is.egress_kbps, was.egress_kbps, 10_000));
                    for on in &nodes {
                        let (was, is) = (before.1.get(on).copied().unwrap_or_default(), ledger.of_node(on));
                        prop_assert!(grew(is.rooms.into(), was.rooms.into(), CAPACITY.rooms.into()));
                        prop_assert!(grew(is.participants.into(), was.participants.into(), CAPACITY.participants.into()));
                        prop_assert!(grew(is.egress_kbps, was.egress_kbps, 100_000));
                    }
                }
                Some((_, false, _)) => prop_assert_eq!(before, (ledger.by_tenant.clone(), ledger.by_node.clone())),
                None => {}
            }
            // The sums equal what their parts add up to.
            prop_assert_eq!(sums(&ledger), (ledger.by_tenant.clone(), ledger.by_node.clone()));
            let reservations: usize = ledger.seats.values().map(super::seat::Seat::reservations).sum();
            prop_assert_eq!(reservations, ledger.reservations);
        }
        // When everything has run out, nothing is in use.
        ledger.expire(now.after(LIFETIME));
        prop_assert!(ledger.by_tenant.is_empty() && ledger.by_node.is_empty() && ledger.seats.is_empty());
        prop_assert_eq!(ledger.reservations, 0);
    }
}
