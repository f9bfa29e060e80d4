// SPDX-License-Identifier: EUPL-1.2
use control_core::record::RoomFacts;
use proptest::prelude::*;

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
        policy: None,
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

/// So many seconds pass; who is to be dialled.
fn silence(view: &mut LiveView, seconds: u64) -> Vec<Silent> {
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
fn a_room_that_was_dropped_for_one_elsewhere_is_waited_for_a_moment() {
    let mut view = LiveView::default();
    attached(&mut view, "u1", "n1", &[("given-up", 1), ("fenced", 1)]);
    for room in ["given-up", "fenced"] {
        view.lose(&uid("u1"), &key(room), NOW);
    }
    view.lost_runs_elsewhere(&key("fenced"));
    let waits = |room: &str, seconds: u64| {
        let at = NOW.after(Duration::from_secs(seconds));
        view.lost_room(&key(room)).expect("lost").runs_elsewhere(at)
    };
    assert!(waits("fenced", 0) && waits("fenced", 2));
    assert!(!waits("fenced", 3), "who said so may be out of reach");
    assert!(!waits("given-up", 0));
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
    let first = silence(&mut view, 1).remove(0);
    assert_eq!(
        (&first.uid, first.endpoint.as_str()),
        (&uid("u1"), "127.0.0.1:1")
    );
    assert_eq!(
        view.node(&uid("u1")).expect("known").standing,
        Standing::Suspect
    );
    assert_eq!(silence(&mut view, 1), [], "it is being dialled");
    assert!(!view.dialled(&first, Dialled::Refused));
    let second = silence(&mut view, 2).remove(0);
    let judge = |view: &mut LiveView, lease, in_grace| view.judge(&uid("u1"), lease, in_grace, NOW);
    assert_eq!(
        judge(&mut view, LeaseWitness::Expired, false),
        None,
        "one dial in a row failed"
    );
    assert!(
        view.dialled(&second, Dialled::Refused),
        "now the store is asked"
    );
    assert_eq!(
        judge(&mut view, LeaseWitness::Held, false),
        None,
        "another replica hears it"
    );
    assert_eq!(
        judge(&mut view, LeaseWitness::Expired, false),
        None,
        "a moment ago it did"
    );
    silence(&mut view, 3);
    assert_eq!(
        judge(&mut view, LeaseWitness::Expired, true),
        None,
        "too early after the start"
    );
    assert_eq!(
        judge(&mut view, LeaseWitness::Expired, false),
        Some(vec![key("r")])
    );
    assert_eq!(
        judge(&mut view, LeaseWitness::Expired, false),
        None,
        "it dies once"
    );
    assert!(view.lost_room(&key("r")).is_some());
    assert_eq!(
        view.load(&uid("u1"), attachment, Load::default()).err(),
        Some(ReportRefusal::Superseded)
    );
    assert_eq!(silence(&mut view, 1), [], "the dead are left alone");
}

#[test]
fn one_word_makes_a_suspect_node_alive_and_ends_what_was_held_against_it() {
    let mut view = LiveView::default();
    let attachment = attached(&mut view, "u1", "n1", &[]);
    let first = silence(&mut view, 4).remove(0);
    view.dialled(&first, Dialled::Refused);
    let second = silence(&mut view, 1).remove(0);
    view.load(&uid("u1"), attachment, Load::default())
        .expect("heard");
    assert_eq!(
        view.node(&uid("u1")).expect("known").standing,
        Standing::Alive
    );
    assert!(
        !view.dialled(&second, Dialled::Refused),
        "a dial from before it was heard does not count"
    );
    assert_eq!(silence(&mut view, 2), []);
    assert_eq!(silence(&mut view, 1).len(), 1, "it may be dialled again");
}

#[test]
fn a_replica_that_was_stopped_believes_nobody_dead() {
    let mut view = LiveView::default();
    attached(&mut view, "u1", "n1", &[("r", 1)]);
    // All that was missing to a death before the stop is one more word of a dial.
    let first = silence(&mut view, 3).remove(0);
    view.dialled(&first, Dialled::Refused);
    let second = silence(&mut view, 2).remove(0);
    assert_eq!(view.tick(Duration::from_secs(3_600)), []);
    assert!(
        !view.dialled(&second, Dialled::Refused),
        "it ran into the stop"
    );
    assert_eq!(
        view.judge(&uid("u1"), LeaseWitness::Expired, false, NOW),
        None
    );
    assert_eq!(
        view.node(&uid("u1")).expect("known").standing,
        Standing::Alive
    );
    // From here on it is listened to anew.
    let third = silence(&mut view, 2).remove(0);
    assert!(!view.dialled(&third, Dialled::Refused));
}

#[test]
fn whoever_was_asked_to_report_has_to_say_something() {
    let mut view = LiveView::default();
    let attachment = attached(&mut view, "u1", "n1", &[]);
    let reported = |view: &LiveView| view.node(&uid("u1")).expect("known").has_reported();
    assert!(reported(&view));
    view.expect_reports();
    assert!(!reported(&view));
    view.load(&uid("u1"), attachment, Load::default())
        .expect("heard");
    assert!(reported(&view));
}

#[test]
fn totals_follow_every_change() {
    let mut view = LiveView::default();
    let first = attached(&mut view, "u1", "n1", &[("a", 1), ("b", 1)]);
    view.report(&uid("u1"), first, &key("a"), entry(1, 7))
        .expect("taken");
    let totals = |rooms, participants| Totals {
        rooms,
        participants,
        publishers: 0,
    };
    assert_eq!(view.totals(), totals(2, 8));
    // A double counts once, by its better claim.
    let second = attached(&mut view, "u2", "n2", &[("a", 2)]);
    assert_eq!(view.totals(), totals(2, 2));
    assert_eq!(
        view.doubles(),
        [(
            key("a"),
            vec![Loser {
                uid: uid("u1"),
                epoch_below: Epoch(2)
            }]
        )]
    );
    view.closed(&uid("u2"), second, &key("a"), Epoch(2))
        .expect("taken");
    assert_eq!(view.totals(), totals(2, 8));
    assert_eq!(view.doubles(), []);
    view.closed(&uid("u1"), first, &key("a"), Epoch(1))
        .expect("taken");
    assert_eq!(view.totals_of(&key("a").tenant), totals(1, 1));
    view.forget(&uid("u1"), NOW);
    assert_eq!(view.totals(), totals(0, 0));
    assert_eq!(view.totals_of(&key("a").tenant), totals(0, 0));
}

#[test]
fn lost_rooms_come_up_when_their_time_has_come() {
    let mut view = LiveView::default();
    attached(&mut view, "u1", "n1", &[("a", 1), ("b", 1)]);
    view.forget(&uid("u1"), NOW);
    assert_eq!(view.lost_due(NOW), [key("a"), key("b")]);
    let second = NOW.after(Duration::from_secs(1));
    view.lost_again(&key("a"), NOW);
    view.lost_until(&key("b"), NOW.after(Duration::from_secs(60)));
    assert_eq!(view.lost_due(NOW), []);
    assert_eq!(view.lost_next(), Some(second));
    assert_eq!(view.lost_due(second), [key("a")]);
    view.lost_again(&key("a"), second);
    assert_eq!(
        view.lost_next(),
        Some(second.after(Duration::from_secs(2))),
        "later and later"
    );
    view.forget_lost(&key("a"));
    assert_eq!(
        view.lost_next(),
        Some(NOW.after(Duration::from_secs(60))),
        "nothing of it is left"
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

#[test]
fn a_question_costs_what_it_answers_however_many_rooms_there_are() {
    const NODES: u64 = 200;
    const ROOMS: u64 = 100;
    let mut view = LiveView::default();
    let name = |number: u64| format!("u{number}");
    let attachments: Vec<Attachment> = (0..NODES)
        .map(|number| {
            let attachment = view.attach(&uid(&name(number)), hello(&format!("n{number}")));
            for room in 0..ROOMS {
                let key = key(&format!("{number}.{room}"));
                view.report(&uid(&name(number)), attachment, &key, entry(1, 1))
                    .expect("taken");
            }
            view.end_of_rooms(&uid(&name(number)), attachment, NOW)
                .expect("taken");
            attachment
        })
        .collect();
    let looks = |view: &mut LiveView, ask: &mut dyn FnMut(&mut LiveView)| {
        let before = claims::LOOKS.with(std::cell::Cell::get);
        ask(view);
        claims::LOOKS.with(std::cell::Cell::get) - before
    };
    let at_rest = looks(&mut view, &mut |view| {
        view.tick(Duration::from_millis(250));
        assert_eq!(view.totals().rooms, 20_000);
        assert_eq!(view.totals_of(&key("r").tenant).participants, 20_000);
        assert!(view.doubles().is_empty() && view.lost_due(NOW).is_empty());
    });
    assert_eq!(at_rest, 0, "what is asked at every tick looks at no room");
    let report = looks(&mut view, &mut |view| {
        view.load(&uid("u7"), attachments[7], Load::default())
            .expect("heard");
        view.report(&uid("u7"), attachments[7], &key("7.7"), entry(1, 2))
            .expect("taken");
    });
    assert!(report <= 2, "{report} for a report of one room");
    let own = looks(&mut view, &mut |view| {
        assert_eq!(view.keys_of(&uid("u7")).len(), 100);
        assert_eq!(view.rooms_of(&uid("u7")).len(), 100);
    });
    assert!(own <= 200, "{own} for the rooms of one node, twice");
    let again = looks(&mut view, &mut |view| {
        let attachment = view.attach(&uid("u7"), hello("n7"));
        view.end_of_rooms(&uid("u7"), attachment, NOW)
            .expect("taken");
    });
    assert!(again <= 400, "{again} for the loss of all rooms of a node");
    assert_eq!(view.lost_due(NOW).len(), 100);
}

/// What happens to a view; numbers name nodes and rooms.
#[derive(Clone, Debug)]
enum Step {
    Attach(u8),
    Report(u8, u8, u64, u32),
    Closed(u8, u8, u64),
    EndOfRooms(u8),
    Silence(u8),
    Forget(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0..4_u8).prop_map(Step::Attach),
        6 => (0..4_u8, 0..5_u8, 1..4_u64, 0..3_u32)
            .prop_map(|(node, room, epoch, people)| Step::Report(node, room, epoch, people)),
        2 => (0..4_u8, 0..5_u8, 1..4_u64)
            .prop_map(|(node, room, epoch)| Step::Closed(node, room, epoch)),
        1 => (0..4_u8).prop_map(Step::EndOfRooms),
        1 => (0..4_u8).prop_map(Step::Silence),
        1 => (0..4_u8).prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever is reported, ends or falls silent: what is kept by index is what a count over all rooms gives, a room that runs is not
    /// lost, and of a room that runs twice all but one are told to end.
    #[test]
    fn indexes_say_what_a_count_over_all_rooms_says(steps in steps()) {
        let mut view = LiveView::default();
        let mut attached: BTreeMap<u8, Attachment> = BTreeMap::new();
        let who = |node: u8| uid(&format!("u{node}"));
        let room = |number: u8| key(&format!("r{number}"));
        for step in steps {
            match step {
                Step::Attach(node) => {
                    let attachment = view.attach(&who(node), hello(&format!("n{node}")));
                    attached.insert(node, attachment);
                }
                Step::Report(node, number, epoch, people) => {
                    if let Some(attachment) = attached.get(&node) {
                        let _ = view.report(&who(node), *attachment, &room(number), entry(epoch, people));
                    }
                }
                Step::Closed(node, number, epoch) => {
                    if let Some(attachment) = attached.get(&node) {
                        let _ = view.closed(&who(node), *attachment, &room(number), Epoch(epoch));
                    }
                }
                Step::EndOfRooms(node) => {
                    if let Some(attachment) = attached.get(&node) {
                        let _ = view.end_of_rooms(&who(node), *attachment, NOW);
                    }
                }
                Step::Silence(node) => {
                    for _ in 0..30 {
                        for silent in view.tick(Duration::from_millis(250)) {
                            let dialled = if silent.uid == who(node) { Dialled::Refused } else { Dialled::Answered };
                            view.dialled(&silent, dialled);
                        }
                    }
                    view.judge(&who(node), LeaseWitness::Expired, false, NOW);
                }
                Step::Forget(node) => {
                    view.forget(&who(node), NOW);
                    attached.remove(&node);
                }
            }
            let mut totals = Totals::default();
            for (_, _, entry) in view.rooms() {
                totals.rooms += 1;
                totals.participants += entry.participants;
                totals.publishers += entry.publishers;
            }
            prop_assert_eq!(view.totals(), totals);
            prop_assert_eq!(view.totals_of(&key("r").tenant), totals);
            let doubles: BTreeMap<RoomKey, Vec<Loser>> = view.doubles().into_iter().collect();
            for number in 0..5 {
                let key = room(number);
                let owners: Vec<u8> = (0..4).filter(|node| view.keys_of(&who(*node)).contains(&key)).collect();
                prop_assert_eq!(owners.len(), (0..4).filter(|node| view.entry(&who(*node), &key).is_some()).count());
                prop_assert_eq!(view.room(&key).is_some(), !owners.is_empty());
                prop_assert_eq!(doubles.get(&key).map_or(0, Vec::len), owners.len().saturating_sub(1));
                let lost = view.lost_room(&key).map(|lost| lost.entry.epoch);
                let held = view.room(&key).map(|(_, _, entry)| entry.epoch);
                prop_assert!(lost.is_none() || held.is_none() || lost > held, "lost {lost:?}, held {held:?}");
                prop_assert_eq!(view.lost_due(NOW).contains(&key), lost.is_some());
            }
        }
    }
}
