// SPDX-License-Identifier: EUPL-1.2

use plenum_api::{
    media_node::{DrainReason, DrainRequest, DrainStatus},
    media_pool::DrainPolicy,
};
use serde_json::{Value, json};

use super::*;

struct World {
    policy: DrainPolicy,
    request: Option<DrainRequest>,
    status: Option<DrainStatus>,
    pod_state: PodState,
    pod: Option<Pod>,
    served: bool,
    closed: bool,
    unschedulable: bool,
    addresses: Result<(), NoPublicAddress>,
    registered: Registered,
    fault: Option<(Reason, &'static str)>,
    held_by: Option<&'static str>,
    before: MediaNodeStatus,
}

const NOON: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a moment")
}

fn pod(ready: bool, more: Value) -> Option<Pod> {
    let mut status = json!({ "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] });
    for (key, value) in more.as_object().expect("members") {
        status[key] = value.clone();
    }
    serde_json::from_value(json!({ "status": status })).expect("a pod")
}

impl World {
    fn serving() -> Self {
        Self {
            policy: DrainPolicy::default(),
            request: None,
            status: None,
            pod_state: PodState::There,
            pod: pod(true, json!({})),
            served: true,
            closed: false,
            unschedulable: false,
            addresses: Ok(()),
            registered: Registered::Yes { accepting: true },
            fault: None,
            held_by: None,
            before: MediaNodeStatus::default(),
        }
    }

    fn draining(phase: DrainPhase) -> Self {
        Self {
            request: Some(DrainRequest {
                reason: DrainReason::Manual,
                ..DrainRequest::default()
            }),
            status: Some(DrainStatus {
                phase,
                announced_at: None,
                deadline: Some(Time(at(NOON + 60))),
            }),
            closed: phase != DrainPhase::Closing,
            before: Self::serving().written(),
            ..Self::serving()
        }
    }

    fn written(&self) -> MediaNodeStatus {
        let seen = Seen {
            now: at(NOON),
            policy: &self.policy,
            request: self.request.as_ref(),
            unschedulable: self.unschedulable,
            deleting: false,
            pod: self.pod_state,
            protected: true,
            machine_leaves: false,
            window_drains: false,
            status: self.status.as_ref(),
            served: self.served,
            closed: self.closed,
            ordered: None,
            rooms: Some(1),
        };
        let facts = Facts {
            seen: &seen,
            pod: self.pod.as_ref(),
            addresses: self.addresses.as_ref().copied(),
            registered: self.registered,
            fault: self.fault,
            held_by: self.held_by,
            unordered: None,
        };
        let mut status = self.before.clone();
        write_conditions(&mut status, &facts, Some(3));
        status
    }

    fn says(&self, type_: ConditionType) -> (ConditionStatus, String) {
        let status = self.written();
        let found = find(&status.conditions, type_).expect("every condition is written");
        (found.status, found.reason.clone())
    }
}

fn is(status: ConditionStatus, reason: Reason) -> (ConditionStatus, String) {
    (status, reason.as_str().to_owned())
}

use ConditionStatus::{False, True, Unknown};
use ConditionType::{Accepting, Drained, Ready, Reconciling, Stalled};

#[test]
fn a_node_that_serves_says_so() {
    let world = World::serving();
    assert_eq!(world.says(Ready), is(True, Reason::Reconciled));
    assert_eq!(world.says(Accepting), is(True, Reason::Reconciled));
    assert_eq!(world.says(Reconciling), is(False, Reason::Reconciled));
    assert_eq!(world.says(Stalled), is(False, Reason::Reconciled));
    assert_eq!(world.says(Drained), is(False, Reason::NotDraining));
}

#[test]
fn what_keeps_a_node_from_being_ready_is_named() {
    let not_placed = json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available" }] });
    let no_image = json!({ "containerStatuses": [{ "name": "media-node", "ready": false, "restartCount": 0, "image": "x", "imageID": "", "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } }] });
    let coming = json!({ "containerStatuses": [{ "name": "media-node", "ready": false, "restartCount": 0, "image": "x", "imageID": "", "state": { "waiting": { "reason": "ContainerCreating" } } }] });
    for (what, reason) in [
        (not_placed, Reason::PodUnschedulable),
        (no_image, Reason::ContainerFailed),
        (coming, Reason::PodNotReady),
        (json!({}), Reason::PodNotReady),
    ] {
        let world = World {
            pod: pod(false, what.clone()),
            registered: Registered::No,
            ..World::serving()
        };
        assert_eq!(world.says(Ready), is(False, reason), "{what}");
        assert_eq!(world.says(Accepting), is(False, reason), "{what}");
        assert_eq!(
            world.says(Reconciling),
            is(True, Reason::Progressing),
            "{what}"
        );
    }
}

#[test]
fn without_an_address_somebody_has_to_act() {
    let none = NoPublicAddress {
        tried: vec!["NodeExternalIP: the machine has none".to_owned()],
    };
    let world = World {
        addresses: Err(none),
        registered: Registered::No,
        ..World::serving()
    };
    assert_eq!(world.says(Ready), is(False, Reason::NoPublicAddress));
    assert_eq!(world.says(Stalled), is(True, Reason::NoPublicAddress));
    assert_eq!(world.says(Reconciling), is(False, Reason::NoPublicAddress));
}

#[test]
fn a_lost_pod_is_lost_and_a_drained_one_was_removed() {
    let world = World {
        pod_state: PodState::Gone,
        pod: None,
        ..World::serving()
    };
    assert_eq!(world.says(Ready), is(False, Reason::PodLost));
    assert_eq!(world.says(Reconciling), is(False, Reason::PodLost));
    let world = World {
        pod_state: PodState::Gone,
        pod: None,
        ..World::draining(DrainPhase::Drained)
    };
    assert_eq!(world.says(Ready), is(False, Reason::PodRemoved));
    assert_eq!(world.says(Drained), is(True, Reason::Empty));
}

#[test]
fn a_node_says_that_it_takes_no_rooms_only_once_that_is_stored() {
    let mut world = World::draining(DrainPhase::Closing);
    assert_eq!(
        world.says(Accepting),
        is(True, Reason::Draining),
        "it may still be given rooms"
    );
    world.closed = true;
    assert_eq!(world.says(Accepting), is(False, Reason::Draining));
    for (phase, reason) in [
        (DrainPhase::Announced, Reason::RoomsActive),
        (DrainPhase::Waiting, Reason::RoomsActive),
        (DrainPhase::Moving, Reason::RoomsMoving),
    ] {
        let world = World::draining(phase);
        assert_eq!(
            world.says(Accepting),
            is(False, Reason::Draining),
            "{phase}"
        );
        assert_eq!(world.says(Drained), is(False, reason), "{phase}");
        assert_eq!(
            world.says(Reconciling),
            is(True, Reason::Draining),
            "{phase}"
        );
        assert_eq!(
            world.says(Ready),
            is(True, Reason::Reconciled),
            "a drain is no failure: {phase}"
        );
    }
}

#[test]
fn unschedulable_says_so_once_it_is_stored() {
    let mut world = World {
        unschedulable: true,
        before: World::serving().written(),
        ..World::serving()
    };
    assert_eq!(world.says(Accepting).0, True);
    world.closed = true;
    assert_eq!(world.says(Accepting), is(False, Reason::Unschedulable));
    assert_eq!(world.says(Drained), is(False, Reason::NotDraining));
}

#[test]
fn a_silent_control_plane_changes_nothing_for_two_minutes() {
    let quiet = |seconds: i64| World {
        registered: Registered::Silent {
            since: Some(at(NOON - seconds)),
        },
        before: World::serving().written(),
        ..World::serving()
    };
    assert_eq!(quiet(119).says(Accepting), is(True, Reason::Reconciled));
    assert_eq!(
        quiet(120).says(Accepting),
        is(Unknown, Reason::ControlPlaneUnreachable)
    );
    assert_eq!(quiet(600).says(Ready), is(True, Reason::Reconciled));
    assert_eq!(quiet(600).says(Stalled), is(False, Reason::Reconciled));
}

#[test]
fn a_fault_stalls_and_a_window_holds_the_pod_back() {
    let world = World {
        fault: Some((Reason::PoolNotFound, "there is no MediaPool a")),
        ..World::serving()
    };
    assert_eq!(world.says(Stalled), is(True, Reason::PoolNotFound));
    assert_eq!(world.says(Ready), is(False, Reason::PoolNotFound));
    let world = World {
        pod_state: PodState::NotMade,
        pod: None,
        held_by: Some("night"),
        ..World::serving()
    };
    assert_eq!(world.says(Ready), is(False, Reason::WindowOpen));
}

#[test]
fn the_second_look_changes_nothing() {
    let world = World::serving();
    let first = world.written();
    let again = World {
        before: first.clone(),
        ..World::serving()
    }
    .written();
    assert_eq!(first, again);
}

#[test]
fn load_is_shown_in_powers_of_two_and_at_most_every_half_minute() {
    assert_eq!(
        [0, 1, 2, 3, 4, 1000, u32::MAX].map(bucket),
        [0, 1, 2, 2, 4, 512, 1 << 31]
    );
    let of = |rooms| NodeLoad {
        rooms,
        ..NodeLoad::default()
    };
    let shown = of(2);
    let say = |is: u32, written: i64| {
        load(
            Some(&shown),
            Some(&of(is)),
            Some(at(NOON - written)),
            at(NOON),
        )
    };
    assert_eq!(say(3, 0), (Some(of(2)), None), "the same bucket");
    assert_eq!(say(4, 10), (Some(of(2)), Some(at(NOON + 20))));
    assert_eq!(say(4, 30), (Some(of(4)), None));
    assert_eq!(
        load(Some(&shown), None, None, at(NOON)),
        (Some(of(2)), None),
        "silence is no zero"
    );
    assert_eq!(
        load(None, Some(&of(1)), Some(at(NOON)), at(NOON)),
        (Some(of(1)), None)
    );
}
