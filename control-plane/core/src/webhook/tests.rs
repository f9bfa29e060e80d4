// SPDX-License-Identifier: EUPL-1.2
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn listed(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events
        .iter()
        .map(|(id, room)| ((*id).to_owned(), (*room).to_owned()))
        .collect()
}

fn send(delivery: &mut Delivery, now: Moment) -> Option<String> {
    match delivery.next(now) {
        Next::Send(id) => Some(id),
        _ => None,
    }
}

const T: Moment = Moment::from_millis(1_000);

#[test]
fn rooms_go_side_by_side_and_each_in_its_order() {
    let mut delivery = Delivery::default();
    delivery.refill(listed(&[("a1", "a"), ("a2", "a"), ("b1", "b")]));
    assert_eq!(send(&mut delivery, T).as_deref(), Some("a1"));
    assert_eq!(send(&mut delivery, T).as_deref(), Some("b1"));
    assert_eq!(delivery.next(T), Next::Idle);
    assert_eq!(delivery.answered("a1", Verdict::Taken, T, 0), Fate::Done);
    assert_eq!(send(&mut delivery, T).as_deref(), Some("a2"));
}

#[test]
fn what_was_refused_waits_and_its_room_with_it_while_others_go_on() {
    let mut delivery = Delivery::default();
    delivery.refill(listed(&[("a1", "a"), ("a2", "a"), ("b1", "b")]));
    assert_eq!(send(&mut delivery, T).as_deref(), Some("a1"));
    assert_eq!(delivery.answered("a1", Verdict::Refused, T, 0), Fate::Again);
    assert_eq!(send(&mut delivery, T).as_deref(), Some("b1"));
    let at = T.after(limits::WEBHOOK_BACK_OFF_FIRST / 2);
    assert_eq!(delivery.next(T), Next::At(at));
    assert_eq!(send(&mut delivery, at).as_deref(), Some("a1"));
}

#[test]
fn what_is_refused_every_time_is_given_up_and_its_room_goes_on() {
    let mut delivery = Delivery::default();
    delivery.refill(listed(&[("a1", "a"), ("a2", "a")]));
    let mut now = T;
    for attempt in 1..=limits::WEBHOOK_REFUSALS_MAX {
        now = now.after(limits::WEBHOOK_BACK_OFF_MAX);
        assert_eq!(send(&mut delivery, now).as_deref(), Some("a1"));
        let fate = delivery.answered("a1", Verdict::Refused, now, 0);
        assert_eq!(
            fate == Fate::Lost,
            attempt == limits::WEBHOOK_REFUSALS_MAX,
            "{attempt}"
        );
    }
    assert_eq!(send(&mut delivery, now).as_deref(), Some("a2"));
}

#[test]
fn a_receiver_that_does_not_answer_is_asked_with_one_event_at_a_time() {
    let mut delivery = Delivery::default();
    delivery.refill(listed(&[("a1", "a"), ("b1", "b"), ("c1", "c")]));
    for _ in 0..3 {
        send(&mut delivery, T).expect("one of each room");
    }
    for id in ["a1", "b1", "c1"] {
        let fate = delivery.answered(id, Verdict::Unavailable(None), T, u32::MAX);
        assert_eq!(fate, Fate::Again);
    }
    // Three that failed together are one failure.
    let at = T.after(limits::WEBHOOK_BACK_OFF_FIRST);
    assert_eq!(delivery.next(T), Next::At(at));
    assert_eq!(send(&mut delivery, at).as_deref(), Some("a1"));
    assert_eq!(delivery.next(at), Next::Idle);
    assert_eq!(delivery.answered("a1", Verdict::Taken, at, 0), Fate::Done);
    assert!(send(&mut delivery, at).is_some() && send(&mut delivery, at).is_some());
}

#[test]
fn a_wait_that_the_receiver_names_is_kept_within_bounds() {
    let mut delivery = Delivery::default();
    delivery.refill(listed(&[("a1", "a")]));
    send(&mut delivery, T).expect("sent");
    let wait = Some(Duration::from_secs(30));
    delivery.answered("a1", Verdict::Unavailable(wait), T, 0);
    assert_eq!(delivery.next(T), Next::At(T.after(Duration::from_secs(30))));
    let later = T.after(Duration::from_secs(30));
    send(&mut delivery, later).expect("sent");
    let wait = Some(Duration::from_secs(1_000_000));
    delivery.answered("a1", Verdict::Unavailable(wait), later, 0);
    assert_eq!(
        delivery.next(later),
        Next::At(later.after(limits::WEBHOOK_RETRY_AFTER_MAX))
    );
}

#[test]
fn an_event_that_comes_back_after_it_was_delivered_is_not_sent_again() {
    let mut delivery = Delivery::default();
    delivery.refill(listed(&[("a1", "a")]));
    send(&mut delivery, T).expect("sent");
    delivery.answered("a1", Verdict::Taken, T, 0);
    assert_eq!(delivery.refill(listed(&[("a1", "a"), ("a2", "a")])), ["a1"]);
    assert_eq!(send(&mut delivery, T).as_deref(), Some("a2"));
}

#[test]
fn what_is_under_way_is_not_sent_twice_when_the_queue_is_read_again() {
    let mut delivery = Delivery::default();
    delivery.refill(listed(&[("a1", "a")]));
    send(&mut delivery, T).expect("sent");
    delivery.refill(listed(&[("a1", "a"), ("a2", "a")]));
    assert_eq!((delivery.next(T), delivery.len()), (Next::Idle, 2));
}

#[test]
fn statuses_mean_what_they_say() {
    for (status, verdict) in [
        (200, Verdict::Taken),
        (204, Verdict::Taken),
        (301, Verdict::Refused),
        (307, Verdict::Refused),
        (400, Verdict::Refused),
        (401, Verdict::Refused),
        (404, Verdict::Refused),
        (429, Verdict::Unavailable(None)),
        (500, Verdict::Refused),
        (502, Verdict::Unavailable(None)),
        (503, Verdict::Unavailable(None)),
        (504, Verdict::Unavailable(None)),
    ] {
        assert_eq!(judge(status, None), verdict, "{status}");
    }
}

#[test]
fn waits_double_up_to_a_bound_and_never_fall_below_half() {
    for failures in 0..100 {
        for random in [0, 1, u32::MAX / 3, u32::MAX] {
            let wait = back_off(failures, random);
            assert!(wait >= limits::WEBHOOK_BACK_OFF_FIRST / 2);
            assert!(wait <= limits::WEBHOOK_BACK_OFF_MAX);
        }
        assert!(back_off(failures + 1, 0) >= back_off(failures, 0));
    }
}

#[test]
fn age_is_bounded_and_a_clock_set_back_makes_nothing_old() {
    let most = i64::try_from(limits::WEBHOOK_AGE_MAX.as_millis()).expect("fits");
    assert!(!too_old(0, most));
    assert!(too_old(0, most + 1));
    assert!(!too_old(most, 0));
    assert!(!too_old(i64::MAX, i64::MIN));
}

#[test]
fn public_hosts_may_be_called_others_by_permission_and_metadata_never() {
    let ip = |text: &str| -> IpAddr { text.parse().expect("address") };
    let everything: Vec<Network> = ["0.0.0.0/0", "::/0"]
        .iter()
        .map(|text| text.parse().expect("network"))
        .collect();
    let internal: Vec<Network> = ["10.0.0.0/8", "fd12::/16", "127.0.0.0/8"]
        .iter()
        .map(|text| text.parse().expect("network"))
        .collect();
    for public in ["9.9.9.9", "2620:fe::fe", "64:ff9b::9.9.9.9", "2a00:1::1"] {
        assert!(may_call(ip(public), &[]), "{public}");
    }
    for inside in [
        "10.1.2.3",
        "127.0.0.1",
        "fd12::1",
        "::ffff:10.1.2.3",
        "64:ff9b::10.1.2.3",
    ] {
        assert!(!may_call(ip(inside), &[]), "{inside}");
        assert!(may_call(ip(inside), &internal), "{inside}");
    }
    for elsewhere in [
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "250.0.0.1",
        "0.1.2.3",
        "::1",
        "fd13::1",
        "2002:a00:1::",
        "2001::1",
        "2001:db8::1",
    ] {
        assert!(!may_call(ip(elsewhere), &internal), "{elsewhere}");
    }
    for never in [
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
    ] {
        assert!(!may_call(ip(never), &everything), "{never}");
    }
    for wrong in [
        "10.0.0.0",
        "10.0.0.0/33",
        "::/129",
        "a/8",
        "10.0.0.0/-1",
        "",
    ] {
        assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
    }
}

/// Whatever a receiver answers, however often the queue is read again: no event is under way twice, none of a room is delivered before
/// an earlier one of it left the queue, and all of them leave it in the end.
fn play(rooms: &[u8], seed: u64) {
    let queue: Vec<(String, String)> = rooms
        .iter()
        .enumerate()
        .map(|(index, room)| (format!("e{index:03}"), format!("r{}", room % 5)))
        .collect();
    let mut left: Vec<(String, String)> = queue.clone();
    let mut delivery = Delivery::default();
    let mut under_way: BTreeSet<String> = BTreeSet::new();
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut now = T;
    let mut state = seed;
    let mut answer = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut steps = 0;
    while !left.is_empty() {
        steps += 1;
        assert!(steps < 200_000, "it ends");
        if answer() % 3 == 0 || delivery.is_empty() {
            assert!(delivery.refill(left.iter().take(16).cloned()).is_empty());
        }
        match delivery.next(now) {
            Next::Send(id) => {
                let room = queue.iter().find(|(other, _)| *other == id).expect("known");
                assert!(
                    !under_way.iter().any(|other| queue
                        .iter()
                        .any(|entry| entry.0 == *other && entry.1 == room.1)),
                    "one of a room at a time"
                );
                assert!(under_way.insert(id));
                assert!(under_way.len() <= limits::WEBHOOK_CONCURRENT);
            }
            Next::At(at) => {
                assert!(at > now);
                if under_way.is_empty() {
                    now = at;
                }
            }
            Next::Idle => {}
        }
        let Some(id) = under_way
            .iter()
            .nth(usize::from(answer()) % under_way.len().max(1))
            .cloned()
        else {
            continue;
        };
        let verdict = match answer() % 8 {
            0 => Verdict::Unavailable(None),
            1 => Verdict::Unavailable(Some(Duration::from_secs(7))),
            2 | 3 => Verdict::Refused,
            _ => Verdict::Taken,
        };
        under_way.remove(&id);
        if delivery.answered(&id, verdict, now, u32::from(answer())) != Fate::Again {
            let index = left
                .iter()
                .position(|(other, _)| *other == id)
                .expect("queued");
            let (id, room) = left.remove(index);
            assert!(last.get(&room).is_none_or(|before| *before < id), "order");
            last.insert(room, id);
        }
    }
}

proptest! {
    #[test]
    fn order_holds_and_everything_leaves_the_queue(
        rooms in prop::collection::vec(any::<u8>(), 1..60),
        seed: u64,
    ) {
        play(&rooms, seed);
    }
}
