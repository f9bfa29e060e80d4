// SPDX-License-Identifier: EUPL-1.2
//! One claim per edge of the machine.

use super::*;

struct World {
    now: i64,
    policy: DrainPolicy,
    request: Option<DrainRequest>,
    status: Option<DrainStatus>,
    deleting: bool,
    pod: PodState,
    protected: bool,
    machine_leaves: bool,
    window_drains: bool,
    served: bool,
    closed: bool,
    ordered: Option<MoveTimes>,
    rooms: Option<u32>,
    unschedulable: bool,
}

impl World {
    fn new() -> Self {
        Self {
            now: NOON,
            policy: DrainPolicy {
                timeout: "1h".into(),
                announce_before: "5m".into(),
                ..DrainPolicy::default()
            },
            request: None,
            status: None,
            deleting: false,
            pod: PodState::There,
            protected: true,
            machine_leaves: false,
            window_drains: false,
            served: true,
            closed: false,
            ordered: None,
            rooms: Some(3),
            unschedulable: false,
        }
    }

    fn in_phase(phase: DrainPhase, reason: DrainReason) -> Self {
        let told = phase != DrainPhase::Closing;
        let mut world = Self {
            request: Some(asked(reason)),
            status: Some(DrainStatus {
                phase,
                announced_at: told.then(|| time(NOON)),
                deadline: told.then(|| time(NOON + 3600)),
            }),
            closed: told,
            ..Self::new()
        };
        world.ordered = world.times();
        world
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            now: at(self.now),
            policy: &self.policy,
            request: self.request.as_ref(),
            unschedulable: self.unschedulable,
            deleting: self.deleting,
            pod: self.pod,
            protected: self.protected,
            machine_leaves: self.machine_leaves,
            window_drains: self.window_drains,
            status: self.status.as_ref(),
            served: self.served,
            closed: self.closed,
            ordered: self.ordered,
            rooms: self.rooms,
        }
    }

    fn next(&self) -> Step {
        next(&self.seen())
    }

    fn times(&self) -> Option<MoveTimes> {
        move_times(&self.seen())
    }

    /// Carries steps out with a control plane that answers, until nothing is to be done.
    fn run(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..20 {
            let step = self.next();
            done.push(match &step {
                Step::Enter(status) => status.phase.to_string(),
                Step::Request(wish) => format!("Request {}", wish.reason),
                Step::Move(_) => "Move".to_owned(),
                Step::Rest(_) => return done,
                other => format!("{other:?}"),
            });
            match step {
                Step::Rest(_) => {}
                Step::Request(wish) => self.request = Some(wish),
                Step::Withdraw => self.request = None,
                Step::Close => self.closed = true,
                Step::Enter(status) => self.status = Some(status),
                Step::Resume => (self.status, self.closed) = (None, false),
                Step::Move(times) => self.ordered = Some(times),
                Step::Release => self.protected = false,
                Step::RemovePod => self.pod = PodState::Gone,
                Step::LetGo => return done,
            }
        }
        panic!("the machine never rests: {done:?}");
    }

    fn enters(&self) -> DrainPhase {
        match self.next() {
            Step::Enter(status) => status.phase,
            other => panic!("no phase but {other:?}"),
        }
    }
}

const NOON: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a moment")
}

fn time(second: i64) -> Time {
    Time(at(second))
}

fn asked(reason: DrainReason) -> DrainRequest {
    DrainRequest {
        reason,
        ..DrainRequest::default()
    }
}

#[test]
fn a_node_that_nobody_wants_empty_is_left_alone() {
    assert_eq!(World::new().next(), Step::Rest(None));
    assert_eq!(may_accept(&World::new().seen()), Ok(()));
}

#[test]
fn every_trigger_asks_for_a_drain_with_its_reason() {
    type Trigger = fn(&mut World);
    let table: [(&str, Trigger, DrainReason); 4] = [
        (
            "deletion",
            |world| world.deleting = true,
            DrainReason::Manual,
        ),
        (
            "the pod's own end",
            |world| {
                world.pod = PodState::Going {
                    until: at(NOON + 600),
                }
            },
            DrainReason::Manual,
        ),
        (
            "the machine",
            |world| world.machine_leaves = true,
            DrainReason::NodeCordoned,
        ),
        (
            "a window",
            |world| world.window_drains = true,
            DrainReason::Maintenance,
        ),
    ];
    for (what, trigger, reason) in table {
        let mut world = World::new();
        trigger(&mut world);
        let Step::Request(wish) = world.next() else {
            panic!("{what}: {:?}", world.next());
        };
        assert_eq!(wish.reason, reason, "{what}");
        assert_eq!(wish.requested_at, Some(time(NOON)), "{what}");
        assert_eq!(may_accept(&world.seen()), Err(Reason::Draining), "{what}");
    }
}

#[test]
fn cordons_and_the_taints_of_those_who_remove_machines_are_seen() {
    let machine = |unschedulable: bool, taint: &str| Node {
        spec: Some(k8s_openapi::api::core::v1::NodeSpec {
            unschedulable: Some(unschedulable),
            taints: Some(vec![Taint {
                key: taint.to_owned(),
                effect: "NoSchedule".to_owned(),
                ..Taint::default()
            }]),
            ..Default::default()
        }),
        ..Node::default()
    };
    assert!(leaves(&machine(true, "other")));
    for taint in LEAVING_TAINTS {
        assert!(leaves(&machine(false, taint)), "{taint}");
    }
    assert!(!leaves(&machine(false, "node.kubernetes.io/unreachable")));
    assert!(!leaves(&Node::default()));
}

#[test]
fn a_wish_closes_the_node_first() {
    let mut world = World::new();
    world.request = Some(asked(DrainReason::Manual));
    assert_eq!(world.enters(), DrainPhase::Closing);
}

#[test]
fn closing_waits_for_the_stored_answer_however_long_it_takes() {
    let mut world = World::in_phase(DrainPhase::Closing, DrainReason::Manual);
    assert_eq!(world.next(), Step::Close);
    world.now += 30 * 24 * 3600;
    assert_eq!(world.next(), Step::Close);
    world.closed = true;
    let Step::Enter(status) = world.next() else {
        panic!("{:?}", world.next());
    };
    assert_eq!(status.phase, DrainPhase::Announced);
    assert_eq!(status.announced_at, Some(time(world.now)));
    assert_eq!(status.deadline, Some(time(world.now + 3600)));
}

#[test]
fn a_drain_is_taken_back_before_it_is_announced_and_never_after() {
    let mut world = World::in_phase(DrainPhase::Closing, DrainReason::Manual);
    world.request = None;
    assert_eq!(world.next(), Step::Resume);
    for phase in [
        DrainPhase::Announced,
        DrainPhase::Waiting,
        DrainPhase::Moving,
    ] {
        let mut world = World::in_phase(phase, DrainReason::Manual);
        world.request = None;
        assert!(
            !matches!(world.next(), Step::Resume | Step::Withdraw),
            "{phase}"
        );
        assert_eq!(may_accept(&world.seen()), Err(Reason::Draining), "{phase}");
    }
}

#[test]
fn what_the_operator_asked_for_by_itself_is_withdrawn_with_its_reason() {
    for reason in [DrainReason::NodeCordoned, DrainReason::Maintenance] {
        let mut world = World::in_phase(DrainPhase::Closing, reason);
        assert_eq!(world.next(), Step::Withdraw, "{reason}");
        world.machine_leaves = true;
        assert_eq!(world.next(), Step::Close, "{reason}");
        let world = World::in_phase(DrainPhase::Waiting, reason);
        assert!(
            matches!(world.next(), Step::Rest(Some(_))),
            "{reason}: told is told"
        );
    }
    for reason in [
        DrainReason::ScaleDown,
        DrainReason::Update,
        DrainReason::Manual,
    ] {
        let world = World::in_phase(DrainPhase::Closing, reason);
        assert_eq!(
            world.next(),
            Step::Close,
            "{reason}: its owner takes it back"
        );
    }
}

#[test]
fn a_wish_that_is_cleared_while_its_cause_lasts_comes_back() {
    let mut world = World::in_phase(DrainPhase::Closing, DrainReason::NodeCordoned);
    (world.request, world.machine_leaves) = (None, true);
    assert!(matches!(world.next(), Step::Request(_)));
}

#[test]
fn people_are_told_before_anything_waits() {
    let mut world = World::in_phase(DrainPhase::Announced, DrainReason::Manual);
    world.ordered = None;
    let Step::Move(times) = world.next() else {
        panic!("{:?}", world.next());
    };
    assert_eq!(times.moves_at, at(NOON + 3600));
    assert_eq!(times.deadline, at(NOON + 3660));
    assert_eq!(times.announce_before, Duration::from_secs(300));
    world.ordered = Some(times);
    assert_eq!(world.enters(), DrainPhase::Waiting);
}

#[test]
fn with_strategy_move_nothing_waits() {
    let mut world = World::new();
    world.policy.strategy = DrainStrategy::Move;
    world.policy.on_deadline = OnDeadline::Terminate;
    world.request = Some(asked(DrainReason::Manual));
    assert_eq!(
        world.run(),
        ["Closing", "Close", "Announced", "Move", "Moving"]
    );
    assert_eq!(world.times().map(|times| times.moves_at), Some(at(NOON)));
}

#[test]
fn rooms_have_their_time_and_then_they_move() {
    let mut world = World::in_phase(DrainPhase::Waiting, DrainReason::Update);
    world.now += 10;
    assert_eq!(world.next(), Step::Rest(Some(at(NOON + 3600))));
    world.now = NOON + 3600;
    assert_eq!(world.enters(), DrainPhase::Moving);
    world.run();
    assert_eq!(world.next(), Step::Rest(Some(at(NOON + 3665))));
    world.rooms = Some(0);
    assert_eq!(world.enters(), DrainPhase::Drained);
}

#[test]
fn rooms_that_find_no_place_are_given_up_when_the_time_is_over() {
    let mut world = World::in_phase(DrainPhase::Moving, DrainReason::Update);
    world.now = NOON + 3664;
    assert!(matches!(world.next(), Step::Rest(_)));
    world.now = NOON + 3665;
    assert_eq!(world.enters(), DrainPhase::Drained);
}

#[test]
fn terminate_looks_for_no_places() {
    let mut world = World::in_phase(DrainPhase::Waiting, DrainReason::Manual);
    world.policy.on_deadline = OnDeadline::Terminate;
    world.ordered = world.times();
    assert_eq!(
        world.ordered.map(|times| (times.moves_at, times.deadline)),
        Some((at(NOON + 3600), at(NOON + 3600)))
    );
    world.now = NOON + 3601;
    assert!(
        matches!(world.next(), Step::Rest(_)),
        "the node closes them"
    );
    world.now = NOON + 3605;
    assert_eq!(world.enters(), DrainPhase::Drained);
    // What the wish says beats what the pool says.
    let mut world = World::in_phase(DrainPhase::Waiting, DrainReason::Manual);
    world.request = Some(DrainRequest {
        on_deadline: Some(OnDeadline::Terminate),
        ..asked(DrainReason::Manual)
    });
    assert_eq!(
        world.times().map(|times| times.deadline),
        Some(at(NOON + 3600))
    );
}

#[test]
fn silence_of_the_control_plane_does_not_make_a_node_empty() {
    let mut world = World::in_phase(DrainPhase::Waiting, DrainReason::Manual);
    (world.rooms, world.now) = (None, NOON + 1800);
    assert!(matches!(world.next(), Step::Rest(_)));
    // An operator that started anew knows of no answer; the time runs all the same.
    (world.ordered, world.now) = (None, NOON + 3665);
    assert_eq!(world.enters(), DrainPhase::Drained);
}

#[test]
fn an_operator_that_started_anew_says_the_move_again() {
    for phase in [DrainPhase::Waiting, DrainPhase::Moving] {
        let mut world = World::in_phase(phase, DrainReason::Manual);
        world.ordered = None;
        assert!(matches!(world.next(), Step::Move(_)), "{phase}");
    }
}

#[test]
fn an_empty_node_goes_through_at_once_and_settles_first() {
    let mut world = World::new();
    (world.rooms, world.request) = (Some(0), Some(asked(DrainReason::Update)));
    assert_eq!(
        world.run(),
        ["Closing", "Close", "Announced", "Move", "Waiting"]
    );
    assert_eq!(
        world.next(),
        Step::Rest(Some(at(NOON + 2))),
        "a room may have been on its way"
    );
    world.now += 2;
    assert_eq!(world.run(), ["Drained", "Release", "RemovePod"]);
}

#[test]
fn a_node_that_never_served_needs_no_control_plane() {
    let mut world = World::new();
    (world.served, world.rooms) = (false, None);
    world.request = Some(asked(DrainReason::ScaleDown));
    assert_eq!(
        world.run(),
        ["Closing", "Announced", "Drained", "Release", "RemovePod"]
    );
}

#[test]
fn a_node_without_a_pod_is_empty() {
    for pod in [PodState::NotMade, PodState::Gone] {
        let mut world = World::new();
        (world.pod, world.protected) = (pod, false);
        assert_eq!(world.next(), Step::Rest(None), "{pod:?}: lost is no drain");
        world.deleting = true;
        assert_eq!(world.run(), ["Drained", "LetGo"], "{pod:?}");
    }
    let mut world = World::in_phase(DrainPhase::Moving, DrainReason::Manual);
    world.pod = PodState::Gone;
    assert_eq!(world.enters(), DrainPhase::Drained);
}

#[test]
fn the_label_falls_before_the_pod_does() {
    let mut world = World::in_phase(DrainPhase::Drained, DrainReason::ScaleDown);
    assert_eq!(world.next(), Step::Release);
    world.protected = false;
    assert_eq!(world.next(), Step::RemovePod);
    world.pod = PodState::Going {
        until: at(NOON + 60),
    };
    assert_eq!(world.next(), Step::Rest(None));
}

#[test]
fn who_wanted_it_empty_takes_the_pod_away() {
    for reason in [
        DrainReason::NodeCordoned,
        DrainReason::ScaleDown,
        DrainReason::Update,
        DrainReason::Maintenance,
        DrainReason::Eviction,
    ] {
        let world = World::in_phase(DrainPhase::Drained, reason);
        assert_eq!(
            World {
                protected: false,
                ..world
            }
            .next(),
            Step::RemovePod,
            "{reason}"
        );
    }
    let mut person = World::in_phase(DrainPhase::Drained, DrainReason::Manual);
    person.protected = false;
    assert_eq!(person.next(), Step::Rest(None), "the person decides");
    person.deleting = true;
    assert_eq!(person.next(), Step::RemovePod, "the person has decided");
    person.pod = PodState::Going {
        until: at(NOON + 60),
    };
    assert_eq!(person.next(), Step::LetGo);
}

#[test]
fn deleting_a_node_with_rooms_is_a_drain_from_end_to_end() {
    let mut world = World::new();
    world.deleting = true;
    assert_eq!(
        world.run(),
        [
            "Request Manual",
            "Closing",
            "Close",
            "Announced",
            "Move",
            "Waiting"
        ]
    );
    (world.rooms, world.now) = (Some(0), NOON + 60);
    assert_eq!(world.run(), ["Drained", "Release", "RemovePod", "LetGo"]);
}

#[test]
fn a_pod_that_must_go_shortens_the_drain() {
    let mut world = World::in_phase(DrainPhase::Closing, DrainReason::Manual);
    (world.closed, world.pod) = (
        true,
        PodState::Going {
            until: at(NOON + 600),
        },
    );
    let Step::Enter(status) = world.next() else {
        panic!("{:?}", world.next());
    };
    assert_eq!(status.deadline, Some(time(NOON + 600 - 65)));
}

#[test]
fn a_person_may_move_the_deadline_while_rooms_may_end() {
    let mut world = World::in_phase(DrainPhase::Waiting, DrainReason::Manual);
    world.request = Some(DrainRequest {
        deadline: Some(time(NOON + 120)),
        ..asked(DrainReason::Manual)
    });
    assert_eq!(world.run(), ["Waiting", "Move"]);
    assert_eq!(
        world.times().map(|times| times.moves_at),
        Some(at(NOON + 120))
    );
    // Nobody waits longer than a day, whatever is written.
    world.request = Some(DrainRequest {
        deadline: Some(time(NOON + 100 * 24 * 3600)),
        ..asked(DrainReason::Manual)
    });
    world.run();
    assert_eq!(
        world.times().map(|times| times.moves_at),
        Some(at(NOON + 24 * 3600))
    );
    assert!(matches!(world.next(), Step::Rest(_)));
}

#[test]
fn unschedulable_closes_and_drains_nothing() {
    let mut world = World::new();
    world.unschedulable = true;
    assert_eq!(world.next(), Step::Rest(None));
    assert_eq!(may_accept(&world.seen()), Err(Reason::Unschedulable));
}
