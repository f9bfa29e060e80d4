// SPDX-License-Identifier: EUPL-1.2
use super::*;

fn uid(name: &str) -> Uid {
    Uid::parse(name).expect("uid")
}

fn hello(id: &str) -> Hello {
    Hello {
        node_id: (!id.is_empty()).then(|| NodeId::parse(id).expect("node id")),
        site: (!id.is_empty()).then(|| Site::parse("local").expect("site")),
        epoch: Epoch(1),
        endpoint: "127.0.0.1:1".into(),
        version: "test".into(),
        primary: true,
    }
}

fn key(name: &str) -> RoomKey {
    RoomKey::parse("t", name).expect("key")
}

fn entry(epoch: u64, participants: u32) -> Entry {
    Entry {
        epoch: Epoch(epoch),
        participants,
        publishers: 0,
        lobby: 0,
        facts: RoomFacts {
            opened: true,
            ..RoomFacts::default()
        },
        policy_revision: String::new(),
    }
}

const NOW: Moment = Moment::from_millis(1_000);

/// A node that has named these rooms.
fn attached(view: &mut LiveView, name: &str, id: &str, rooms: &[(&str, u64)]) -> Attachment {
    let attachment = view.attach(&uid(name), hello(id));
    for (room, epoch) in rooms {
        view.report(&uid(name), attachment, &key(room), entry(*epoch, 1))
            .expect("taken");
    }
    view.end_of_rooms(&uid(name), attachment, NOW)
        .expect("taken");
    attachment
}

fn silence(view: &mut LiveView, seconds: u64) -> Vec<(Uid, String)> {
    (0..seconds)
        .flat_map(|_| view.tick(Duration::from_secs(1)))
        .collect()
}

#[test]
fn a_room_is_where_the_best_claim_is_and_the_loser_is_told() {
    let mut view = LiveView::default();
    attached(&mut view, "u1", "n1", &[("r", 1)]);
    let second = view.attach(&uid("u2"), hello("n2"));
    let losers = view
        .report(&uid("u2"), second, &key("r"), entry(2, 0))
        .expect("taken");
    assert_eq!(
        losers,
        [Loser {
            uid: uid("u1"),
            epoch_below: Epoch(2)
        }]
    );
    assert_eq!(view.room(&key("r")).expect("runs").0, &uid("u2"));
    assert_eq!(view.reported_epoch(&key("r")), Some(Epoch(2)));
}

#[test]
fn of_equal_epochs_the_fuller_room_stays_and_the_other_ones_own_epoch_goes() {
    let mut view = LiveView::default();
    attached(&mut view, "u1", "n1", &[("r", 3)]);
    let second = view.attach(&uid("u2"), hello("n2"));
    let losers = view
        .report(&uid("u2"), second, &key("r"), entry(3, 5))
        .expect("taken");
    assert_eq!(
        losers,
        [Loser {
            uid: uid("u1"),
            epoch_below: Epoch(4)
        }]
    );
    // Equal in everything: the lower node id.
    let losers = view
        .report(&uid("u2"), second, &key("r"), entry(3, 1))
        .expect("taken");
    assert_eq!(
        losers,
        [Loser {
            uid: uid("u2"),
            epoch_below: Epoch(4)
        }]
    );
}

#[test]
fn a_node_that_comes_back_without_a_room_has_lost_it() {
    let mut view = LiveView::default();
    attached(&mut view, "u1", "n1", &[("kept", 1), ("gone", 4)]);
    // The process starts anew and has no facts yet.
    let again = view.attach(&uid("u1"), hello(""));
    assert!(
        view.room(&key("gone")).is_some(),
        "not before it has named all"
    );
    assert_eq!(
        view.report(&uid("u1"), again, &key("kept"), entry(1, 1)),
        Ok(vec![]),
        "what it was known as still holds"
    );
    assert_eq!(
        view.end_of_rooms(&uid("u1"), again, NOW).expect("taken"),
        [key("gone")]
    );
    assert!(view.room(&key("gone")).is_none());
    let lost = view.lost_room(&key("gone")).expect("waits");
    assert_eq!(
        (
            lost.node.as_str(),
            lost.entry.epoch,
            lost.entry.facts.opened
        ),
        ("n1", Epoch(4), true)
    );
    assert_eq!(
        view.reported_epoch(&key("gone")),
        Some(Epoch(4)),
        "the next lease is above it"
    );
    assert!(view.room(&key("kept")).is_some());
}

#[test]
fn a_lost_room_that_is_reported_again_waits_no_more() {
    let mut view = LiveView::default();
    let first = attached(&mut view, "u1", "n1", &[("r", 4)]);
    view.lose(&uid("u1"), &key("r"), NOW);
    view.report(&uid("u1"), first, &key("r"), entry(3, 1))
        .expect("taken");
    assert!(
        view.lost_room(&key("r")).is_some(),
        "an older lease is not that room"
    );
    view.report(&uid("u1"), first, &key("r"), entry(5, 1))
        .expect("taken");
    assert!(view.lost_room(&key("r")).is_none());
}

#[test]
fn a_stranger_without_facts_has_no_rooms() {
    let mut view = LiveView::default();
    let attachment = view.attach(&uid("u1"), hello(""));
    let refused = view.report(&uid("u1"), attachment, &key("r"), entry(1, 1));
    assert_eq!(refused, Err(ReportRefusal::NoFacts));
    assert!(view.room(&key("r")).is_none());
}

#[test]
fn an_earlier_stream_is_not_heard_any_more() {
    let mut view = LiveView::default();
    let first = attached(&mut view, "u1", "n1", &[]);
    let second = view.attach(&uid("u1"), hello("n1"));
    assert_eq!(
        view.load(&uid("u1"), first, Load::default()).err(),
        Some(ReportRefusal::Superseded)
    );
    assert!(!view.detach(&uid("u1"), first), "its end is not the node's");
    assert!(view.is_attached(&uid("u1")));
    assert!(view.load(&uid("u1"), second, Load::default()).is_ok());
}

#[test]
fn the_end_of_an_old_lease_does_not_close_a_later_one() {
    let mut view = LiveView::default();
    let attachment = attached(&mut view, "u1", "n1", &[("r", 2)]);
    assert_eq!(
        view.closed(&uid("u1"), attachment, &key("r"), Epoch(1)),
        Ok(None)
    );
    assert!(view.room(&key("r")).is_some());
    assert!(
        view.closed(&uid("u1"), attachment, &key("r"), Epoch(2))
            .expect("taken")
            .is_some()
    );
    assert!(view.room(&key("r")).is_none());
}

#[test]
fn a_silent_node_is_suspect_and_then_dead_by_both_witnesses() {
    let mut view = LiveView::default();
    let attachment = attached(&mut view, "u1", "n1", &[("r", 1)]);
    assert_eq!(silence(&mut view, 2), []);
    assert_eq!(
        silence(&mut view, 1),
        [(uid("u1"), "127.0.0.1:1".to_owned())]
    );
    assert_eq!(
        view.node(&uid("u1")).expect("known").standing,
        Standing::Suspect
    );
    silence(&mut view, 2);
    view.redialled(&uid("u1"), false);
    view.redialled(&uid("u1"), true);
    view.redialled(&uid("u1"), false);
    assert_eq!(
        view.judge(&uid("u1"), LeaseWitness::Expired, false, NOW),
        None,
        "one dial in a row failed"
    );
    view.redialled(&uid("u1"), false);
    assert_eq!(
        view.judge(&uid("u1"), LeaseWitness::Held, false, NOW),
        None,
        "another replica hears it"
    );
    assert_eq!(
        view.judge(&uid("u1"), LeaseWitness::Expired, true, NOW),
        None,
        "too early after the start"
    );
    assert_eq!(
        view.judge(&uid("u1"), LeaseWitness::Expired, false, NOW),
        Some(vec![key("r")])
    );
    assert_eq!(
        view.judge(&uid("u1"), LeaseWitness::Expired, false, NOW),
        None,
        "it dies once"
    );
    assert!(view.lost_room(&key("r")).is_some());
    assert_eq!(
        view.load(&uid("u1"), attachment, Load::default()).err(),
        Some(ReportRefusal::Superseded)
    );
}

#[test]
fn one_word_makes_a_suspect_node_alive() {
    let mut view = LiveView::default();
    let attachment = attached(&mut view, "u1", "n1", &[]);
    silence(&mut view, 4);
    view.load(&uid("u1"), attachment, Load::default())
        .expect("heard");
    assert_eq!(
        view.node(&uid("u1")).expect("known").standing,
        Standing::Alive
    );
    assert_eq!(silence(&mut view, 2), []);
}

#[test]
fn a_replica_that_slept_believes_nobody_dead() {
    let mut view = LiveView::default();
    attached(&mut view, "u1", "n1", &[("r", 1)]);
    assert_eq!(view.tick(Duration::from_secs(3_600)), []);
    assert_eq!(
        view.node(&uid("u1")).expect("known").standing,
        Standing::Alive
    );
}

#[test]
fn a_node_reports_a_bounded_number_of_rooms() {
    let mut view = LiveView::default();
    let attachment = view.attach(&uid("u1"), hello("n1"));
    for number in 0..ROOMS_PER_NODE_MAX {
        view.report(
            &uid("u1"),
            attachment,
            &key(&number.to_string()),
            entry(1, 0),
        )
        .expect("taken");
    }
    let refused = view.report(&uid("u1"), attachment, &key("more"), entry(1, 0));
    assert_eq!(refused, Err(ReportRefusal::TooManyRooms));
    assert!(
        view.report(&uid("u1"), attachment, &key("0"), entry(1, 7))
            .is_ok(),
        "known ones go on"
    );
    view.closed(&uid("u1"), attachment, &key("1"), Epoch(1))
        .expect("taken");
    assert!(
        view.report(&uid("u1"), attachment, &key("more"), entry(1, 0))
            .is_ok()
    );
}

#[test]
fn a_forgotten_node_leaves_its_rooms_to_others() {
    let mut view = LiveView::default();
    attached(&mut view, "u1", "n1", &[("r", 1)]);
    assert_eq!(view.forget(&uid("u1"), NOW), [key("r")]);
    assert!(view.node(&uid("u1")).is_none());
    assert!(
        view.node_by_id(&NodeId::parse("n1").expect("node id"))
            .is_none()
    );
    assert!(view.lost_room(&key("r")).is_some());
}
