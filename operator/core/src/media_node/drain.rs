// SPDX-License-Identifier: EUPL-1.2
//! How a node is emptied: one step at a time, from what is seen.
//!
//! ```text
//!            trigger           stored            told
//! accepting ────────▶ Closing ───────▶ Announced ────▶ Waiting ──deadline──▶ Moving
//!     ▲                  │                  │              │ empty              │ empty or over
//!     └───taken back─────┘                  └── Move ──────┼───────▶ Moving     ▼
//!                                                          └────────────────▶ Drained
//! ```
//!
//! Nothing is announced before the control plane has *stored* that the node takes no rooms: until then a room may still
//! arrive, and until then the drain can be taken back. Whoever carries the steps out looks again after each.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use plenum_api::{
    Reason,
    media_node::{DrainPhase, DrainReason, DrainRequest, DrainStatus},
    media_pool::{DrainPolicy, DrainStrategy, OnDeadline},
};

/// The pod of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    /// It has not been made yet.
    NotMade,
    /// It is there.
    There,
    /// It was told to go, and is gone at that moment at the latest.
    Going {
        /// The end of its grace.
        until: Timestamp,
    },
    /// It was there, and is no more.
    Gone,
}

/// What is seen of a node.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The moment.
    pub now: Timestamp,
    /// How its pool empties nodes.
    pub policy: &'a DrainPolicy,
    /// `spec.drain`.
    pub request: Option<&'a DrainRequest>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Whether the node itself is being deleted.
    pub deleting: bool,
    /// Its pod.
    pub pod: PodState,
    /// Whether the label that the budget selects stands on the pod.
    pub protected: bool,
    /// Whether the machine below is to be emptied.
    pub machine_leaves: bool,
    /// Whether an open window empties it now.
    pub window_drains: bool,
    /// `status.drain`.
    pub status: Option<&'a DrainStatus>,
    /// Whether the control plane was ever told where the node is; if not, it has no rooms.
    pub served: bool,
    /// Whether the control plane has stored that the node takes no rooms.
    pub closed: bool,
    /// The move that the control plane has acknowledged.
    pub ordered: Option<MoveTimes>,
    /// Rooms on the node; `None` where nobody says, which is not the same as none.
    pub rooms: Option<u32>,
}

/// When the rooms of a node move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveTimes {
    /// Until then only rooms without people move.
    pub moves_at: Timestamp,
    /// What found no place by then is given up.
    pub deadline: Timestamp,
    /// People are told that long before `moves_at`.
    pub announce_before: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing, until something changes or the moment has come.
    Rest(Option<Timestamp>),
    /// Write `spec.drain`.
    Request(DrainRequest),
    /// Take `spec.drain` back: what asked for it is over, and nobody was told.
    Withdraw,
    /// Tell the control plane that the node takes no rooms.
    Close,
    /// Write `status.drain`.
    Enter(DrainStatus),
    /// Forget `status.drain`: the node goes on.
    Resume,
    /// Tell the control plane when the rooms move.
    Move(MoveTimes),
    /// Take the label off the pod, so that the budget no longer protects it.
    Release,
    /// Delete the pod.
    RemovePod,
    /// Take the finalizer off.
    LetGo,
}

/// The next step.
#[must_use]
pub fn next(seen: &Seen<'_>) -> Step {
    let phase = seen.status.map(|status| status.phase);
    if phase == Some(DrainPhase::Drained) {
        return after(seen);
    }
    let nothing_there = matches!(seen.pod, PodState::Gone | PodState::NotMade);
    if nothing_there && (seen.request.is_some() || seen.deleting || phase.is_some()) {
        return enter(seen, DrainPhase::Drained);
    }
    match (phase, seen.request) {
        (None, None) => request(seen).map_or(Step::Rest(None), Step::Request),
        (None, Some(_)) => Step::Enter(DrainStatus {
            phase: DrainPhase::Closing,
            announced_at: None,
            deadline: None,
        }),
        (Some(DrainPhase::Closing), None) => request(seen).map_or(Step::Resume, Step::Request),
        (Some(DrainPhase::Closing), Some(wish)) => closing(seen, wish),
        (Some(_), _) => announced(seen),
    }
}

/// Whether the node may take rooms, as far as it is asked to; otherwise why not.
///
/// # Errors
/// The reason that stands in the condition `Accepting`.
pub fn may_accept(seen: &Seen<'_>) -> Result<(), Reason> {
    if seen.status.is_some() || seen.request.is_some() || trigger(seen).is_some() {
        Err(Reason::Draining)
    } else if seen.unschedulable {
        Err(Reason::Unschedulable)
    } else {
        Ok(())
    }
}

/// Whether pods should leave a machine: it is cordoned, or somebody who removes machines has marked it.
#[must_use]
pub fn leaves(machine: &Node) -> bool {
    let Some(spec) = &machine.spec else {
        return false;
    };
    let marks = |taint: &Taint| LEAVING_TAINTS.contains(&taint.key.as_str());
    spec.unschedulable == Some(true) || spec.taints.iter().flatten().any(marks)
}

/// When rooms move; `None` before the drain has a deadline.
#[must_use]
pub fn move_times(seen: &Seen<'_>) -> Option<MoveTimes> {
    let deadline = seen.status?.deadline.as_ref()?.0;
    Some(MoveTimes {
        moves_at: deadline,
        deadline: match on_deadline(seen) {
            OnDeadline::Move => plus(deadline, MOVE_WINDOW),
            // With no time to look for places, the node closes what is left.
            OnDeadline::Terminate => deadline,
        },
        announce_before: seen
            .policy
            .announce_before
            .to_std()
            .unwrap_or(Duration::ZERO),
    })
}

fn closing(seen: &Seen<'_>, wish: &DrainRequest) -> Step {
    if is_over(seen, wish) {
        return Step::Withdraw;
    }
    // A node that the control plane never heard of is closed: its facts will say so.
    if seen.served && !seen.closed {
        return Step::Close;
    }
    let deadline = deadline(seen, wish);
    Step::Enter(DrainStatus {
        phase: DrainPhase::Announced,
        announced_at: Some(whole(seen.now)),
        deadline: Some(whole(deadline)),
    })
}

/// From `Announced` on: there is no way back.
fn announced(seen: &Seen<'_>) -> Step {
    let Some((status, times)) = seen.status.zip(move_times(seen)) else {
        // A status that lost its deadline gets a new one.
        return seen.request.map_or_else(
            || enter(seen, DrainPhase::Drained),
            |wish| closing(seen, wish),
        );
    };
    let announced = status.announced_at.as_ref().map_or(seen.now, |time| time.0);
    let settled = plus(announced, SETTLE);
    let over = plus(times.deadline, GIVE_UP);
    let empty = !seen.served || (seen.rooms == Some(0) && seen.now >= settled);
    if empty || seen.now >= over {
        return enter(seen, DrainPhase::Drained);
    }
    if let Some(deadline) = postponed(seen, status) {
        return Step::Enter(DrainStatus {
            deadline: Some(whole(deadline)),
            ..status.clone()
        });
    }
    if seen.ordered != Some(times) {
        return Step::Move(times);
    }
    let moving = seen.now >= times.moves_at && on_deadline(seen) == OnDeadline::Move;
    match status.phase {
        DrainPhase::Announced if moving => enter(seen, DrainPhase::Moving),
        DrainPhase::Announced => enter(seen, DrainPhase::Waiting),
        DrainPhase::Waiting if moving => enter(seen, DrainPhase::Moving),
        _ => {
            let moments = [settled, times.moves_at, over];
            Step::Rest(moments.into_iter().find(|moment| *moment > seen.now))
        }
    }
}

/// Nobody is left; who takes the pod away depends on who wanted it empty.
fn after(seen: &Seen<'_>) -> Step {
    let there = matches!(seen.pod, PodState::There | PodState::Going { .. });
    if seen.protected && there {
        return Step::Release;
    }
    let by_operator = seen
        .request
        .is_some_and(|wish| wish.reason != DrainReason::Manual);
    match seen.pod {
        PodState::There if seen.deleting || by_operator => Step::RemovePod,
        // Its owner's end takes the pod along, should it still be there.
        PodState::Going { .. } | PodState::Gone | PodState::NotMade if seen.deleting => Step::LetGo,
        _ => Step::Rest(None),
    }
}

fn enter(seen: &Seen<'_>, phase: DrainPhase) -> Step {
    let status = seen.status;
    Step::Enter(DrainStatus {
        phase,
        announced_at: status.and_then(|status| status.announced_at.clone()),
        deadline: status.and_then(|status| status.deadline.clone()),
    })
}

/// A drain that nobody asked for in words, if there is a reason for one.
fn request(seen: &Seen<'_>) -> Option<DrainRequest> {
    Some(DrainRequest {
        requested_at: Some(whole(seen.now)),
        deadline: None,
        reason: trigger(seen)?,
        on_deadline: None,
    })
}

fn trigger(seen: &Seen<'_>) -> Option<DrainReason> {
    if seen.deleting || matches!(seen.pod, PodState::Going { .. }) {
        Some(DrainReason::Manual)
    } else if seen.machine_leaves {
        Some(DrainReason::NodeCordoned)
    } else if seen.window_drains {
        Some(DrainReason::Maintenance)
    } else {
        None
    }
}

/// Whether what the operator asked for by itself has lost its reason.
fn is_over(seen: &Seen<'_>, wish: &DrainRequest) -> bool {
    let found_by_operator = matches!(
        wish.reason,
        DrainReason::NodeCordoned | DrainReason::Maintenance
    );
    found_by_operator && trigger(seen).is_none()
}

fn on_deadline(seen: &Seen<'_>) -> OnDeadline {
    if seen.policy.strategy == DrainStrategy::Move {
        return OnDeadline::Move;
    }
    seen.request
        .and_then(|wish| wish.on_deadline)
        .unwrap_or(seen.policy.on_deadline)
}

fn deadline(seen: &Seen<'_>, wish: &DrainRequest) -> Timestamp {
    let patience = seen.policy.timeout.to_std().unwrap_or(Duration::ZERO);
    let wanted = match (seen.policy.strategy, &wish.deadline) {
        (DrainStrategy::Move, _) => seen.now,
        (DrainStrategy::WaitForEmpty, Some(deadline)) => deadline.0,
        (DrainStrategy::WaitForEmpty, None) => plus(seen.now, patience),
    };
    clipped(seen, wanted)
}

/// Not in the past, not further than the schema allows, and not later than the pod itself can wait.
fn clipped(seen: &Seen<'_>, wanted: Timestamp) -> Timestamp {
    let mut latest = plus(seen.now, PATIENCE_MAX);
    if let PodState::Going { until } = seen.pod {
        latest = latest.min(minus(until, MOVE_WINDOW + GIVE_UP));
    }
    wanted.min(latest).max(seen.now)
}

/// Another deadline that a person wrote while rooms may still end by themselves.
fn postponed(seen: &Seen<'_>, status: &DrainStatus) -> Option<Timestamp> {
    let wanted = seen.request?.deadline.as_ref()?.0;
    let waits = matches!(status.phase, DrainPhase::Announced | DrainPhase::Waiting)
        && seen.policy.strategy == DrainStrategy::WaitForEmpty;
    let wanted = clipped(seen, wanted);
    let now = status.deadline.as_ref()?.0;
    // Only the person's word counts, not that time has passed meanwhile.
    let differs = whole(wanted).0 != now && wanted > seen.now;
    (waits && differs).then_some(wanted)
}

fn plus(moment: Timestamp, length: Duration) -> Timestamp {
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    moment.saturating_add(length).unwrap_or(Timestamp::MAX)
}

fn minus(moment: Timestamp, length: Duration) -> Timestamp {
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    moment.saturating_sub(length).unwrap_or(Timestamp::MIN)
}

/// As the API server keeps it: whole seconds.
fn whole(moment: Timestamp) -> Time {
    Time(Timestamp::from_second(moment.as_second()).unwrap_or(moment))
}

/// Taints of those who remove machines: cluster-autoscaler, Karpenter, and whoever declares a machine dead.
const LEAVING_TAINTS: &[&str] = &[
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "node.kubernetes.io/out-of-service",
];
/// A room may have been on its way to the node when it was told to take none.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the control plane looks for places of rooms that are to move.
pub const MOVE_WINDOW: Duration = Duration::from_secs(60);
/// Then the node gives up what is left, room by room.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Longest drain, as the schema bounds it.
const PATIENCE_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests;
