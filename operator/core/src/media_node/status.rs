// SPDX-License-Identifier: EUPL-1.2
//! What a node's status says, from what is seen of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use plenum_api::{
    Condition, ConditionStatus, ConditionType, MediaNodeStatus, Reason,
    conditions::{find, set},
    media_node::{DrainPhase, NodeLoad},
};

use super::{
    addresses::NoPublicAddress,
    drain::{PodState, Seen, may_accept},
    pod::CONTAINER,
};

/// What the control plane says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It says nothing, and has done so since then.
    Silent {
        /// Since when; `None` before the first look.
        since: Option<Timestamp>,
    },
    /// It does not know the node.
    No,
    /// It hears the node.
    Yes {
        /// Whether the node takes rooms.
        accepting: bool,
    },
}

/// What the conditions are made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What the drain sees.
    pub seen: &'a Seen<'a>,
    /// The pod, where there is one.
    pub pod: Option<&'a Pod>,
    /// Why there is nothing to offer, where that is so.
    pub addresses: Result<(), &'a NoPublicAddress>,
    /// What the control plane says.
    pub registered: Registered,
    /// What stands in the way until somebody changes it.
    pub fault: Option<(Reason, &'a str)>,
    /// The open window that holds the pod back.
    pub held_by: Option<&'a str>,
    /// Why the last order to the control plane failed.
    pub unordered: Option<&'a str>,
}

/// Brings the conditions of a status up to date.
pub fn write_conditions(status: &mut MediaNodeStatus, facts: &Facts<'_>, generation: Option<i64>) {
    let now = Time(whole(facts.seen.now));
    let ready = ready(facts);
    let all = [
        (ConditionType::Ready, ready.clone()),
        (ConditionType::Reconciling, reconciling(facts, &ready)),
        (ConditionType::Stalled, stalled(facts)),
        (
            ConditionType::Accepting,
            accepting(facts, &ready, &status.conditions),
        ),
        (ConditionType::Drained, drained(facts)),
    ];
    for (type_, (holds, reason, message)) in all {
        set(
            &mut status.conditions,
            Condition::new(type_, holds, reason, message, generation, now.clone()),
        );
    }
    status.observed_generation = generation;
}

/// The largest power of two that is not above a number: buckets, so that a busy cluster does not write all day.
#[must_use]
pub const fn bucket(number: u32) -> u32 {
    match number.checked_ilog2() {
        None => 0,
        Some(bits) => 1 << bits,
    }
}

/// The load to show, and when another one may be shown. `written` is when the present one was.
#[must_use]
pub fn load(
    shown: Option<&NodeLoad>,
    is: Option<&NodeLoad>,
    written: Option<Timestamp>,
    now: Timestamp,
) -> (Option<NodeLoad>, Option<Timestamp>) {
    let is = is.map(|load| NodeLoad {
        rooms: bucket(load.rooms),
        participants: bucket(load.participants),
        egress_mbps: bucket(load.egress_mbps),
    });
    let Some(is) = is else {
        return (shown.cloned(), None);
    };
    if shown == Some(&is) {
        return (Some(is), None);
    }
    let next = written.and_then(|written| {
        let apart = SignedDuration::try_from(WRITES_APART).ok()?;
        written.checked_add(apart).ok()
    });
    match next {
        Some(next) if now < next && shown.is_some() => (shown.cloned(), Some(next)),
        _ => (Some(is), None),
    }
}

/// Whether a pod is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    condition_of(pod, "Ready").is_some_and(|condition| condition.0 == "True")
}

/// Starts of the pod's process before the present one.
#[must_use]
pub fn restarts(pod: &Pod) -> u32 {
    container(pod).map_or(0, |container| {
        u32::try_from(container.restart_count).unwrap_or(0)
    })
}

type Said = (ConditionStatus, Reason, String);

fn yes(reason: Reason, message: impl Into<String>) -> Said {
    (ConditionStatus::True, reason, message.into())
}

fn no(reason: Reason, message: impl Into<String>) -> Said {
    (ConditionStatus::False, reason, message.into())
}

fn ready(facts: &Facts<'_>) -> Said {
    if let Some((reason, message)) = facts.fault {
        return no(reason, message);
    }
    match facts.seen.pod {
        PodState::Gone if is_drained(facts) => no(
            Reason::PodRemoved,
            "the node was drained, and its pod is gone",
        ),
        PodState::Gone => no(Reason::PodLost, lost(facts.pod)),
        PodState::NotMade => match facts.held_by {
            Some(window) => no(
                Reason::WindowOpen,
                format!("the pod is made when the maintenance window {window} is over"),
            ),
            None => no(Reason::PodNotReady, "the pod is yet to be made"),
        },
        PodState::There | PodState::Going { .. } => {
            let Some(pod) = facts.pod else {
                return no(Reason::PodNotReady, "the pod is yet to be seen");
            };
            if let Some(trouble) = trouble(pod) {
                return trouble;
            }
            match facts.addresses {
                _ if !is_ready(pod) => no(Reason::PodNotReady, "the pod is not ready"),
                Err(error) => no(Reason::NoPublicAddress, error.to_string()),
                Ok(()) => yes(
                    Reason::Reconciled,
                    "the pod is ready and has addresses to offer",
                ),
            }
        }
    }
}

/// What keeps a pod from running, where the cluster says so.
fn trouble(pod: &Pod) -> Option<Said> {
    if let Some((status, reason, message)) = condition_of(pod, "PodScheduled")
        && status == "False"
        && reason == "Unschedulable"
    {
        return Some(no(Reason::PodUnschedulable, message));
    }
    let waiting = container(pod)?.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.as_deref().unwrap_or_default();
    Some(no(
        Reason::ContainerFailed,
        format!("{reason}: {message}")
            .trim_end_matches(": ")
            .to_owned(),
    ))
}

fn lost(pod: Option<&Pod>) -> String {
    let status = pod.and_then(|pod| pod.status.as_ref());
    let why = status.and_then(|status| status.reason.as_deref().or(status.phase.as_deref()));
    match why {
        Some(why) => format!("the pod ended: {why}; the pool makes another node"),
        None => "the pod is gone; the pool makes another node".to_owned(),
    }
}

fn reconciling(facts: &Facts<'_>, ready: &Said) -> Said {
    let gone = facts.seen.pod == PodState::Gone;
    match facts.seen.status.map(|status| status.phase) {
        Some(DrainPhase::Drained) => no(Reason::Empty, "the node is drained"),
        Some(_) => yes(Reason::Draining, "the node is being emptied"),
        None if facts.seen.deleting => yes(Reason::Deleting, "the node is being emptied"),
        None if gone || facts.fault.is_some() => no(ready.1, "nothing more is done"),
        None if ready.0 == ConditionStatus::True => no(Reason::Reconciled, "nothing is to be done"),
        None if ready.1 == Reason::NoPublicAddress => no(ready.1, "an address is waited for"),
        None => yes(Reason::Progressing, "the pod comes up"),
    }
}

fn stalled(facts: &Facts<'_>) -> Said {
    if let Some((reason, message)) = facts.fault {
        return yes(reason, message);
    }
    let up = facts.pod.is_some_and(is_ready);
    match facts.addresses {
        Err(error) if up && facts.seen.pod == PodState::There => {
            yes(Reason::NoPublicAddress, error.to_string())
        }
        _ => no(Reason::Reconciled, "nobody has to change anything"),
    }
}

fn accepting(facts: &Facts<'_>, ready: &Said, before: &[Condition]) -> Said {
    let kept = |reason: Reason, message: String| {
        let status = find(before, ConditionType::Accepting)
            .map_or(ConditionStatus::False, |condition| condition.status);
        (status, reason, message)
    };
    match may_accept(facts.seen) {
        Err(_) if !facts.seen.closed && facts.seen.served && still_open(facts) => kept(
            Reason::Draining,
            match facts.unordered {
                Some(why) => format!("the node is yet to be closed: {why}"),
                None => "the control plane is being told".to_owned(),
            },
        ),
        Err(Reason::Unschedulable) => no(Reason::Unschedulable, "spec.unschedulable"),
        Err(reason) => no(reason, "the node is being emptied, or is empty"),
        Ok(()) if ready.0 != ConditionStatus::True => no(ready.1, ready.2.clone()),
        Ok(()) => match facts.registered {
            Registered::Yes { accepting: true } => yes(Reason::Reconciled, "the node takes rooms"),
            Registered::Yes { accepting: false } => no(
                Reason::Progressing,
                "the node is being told that it may take rooms",
            ),
            Registered::No => no(
                Reason::NodeNotRegistered,
                "no replica of the control plane hears the node",
            ),
            Registered::Silent { since } if is_long(since, facts.seen.now) => (
                ConditionStatus::Unknown,
                Reason::ControlPlaneUnreachable,
                "the control plane cannot be reached; what was open stays open".to_owned(),
            ),
            // A moment of silence says nothing.
            Registered::Silent { .. } => match find(before, ConditionType::Accepting) {
                Some(old) if old.status == ConditionStatus::True => {
                    yes(Reason::Reconciled, "the node takes rooms")
                }
                _ => no(
                    Reason::NodeNotRegistered,
                    "no replica of the control plane has been heard yet",
                ),
            },
        },
    }
}

/// Before `Announced` what was open may still be.
fn still_open(facts: &Facts<'_>) -> bool {
    facts.seen.pod != PodState::Gone
        && facts
            .seen
            .status
            .is_none_or(|status| status.phase == DrainPhase::Closing)
}

fn drained(facts: &Facts<'_>) -> Said {
    let until = |status: &plenum_api::media_node::DrainStatus| {
        status
            .deadline
            .as_ref()
            .map_or(String::new(), |time| format!(" until {}", time.0))
    };
    match facts.seen.status {
        None => no(Reason::NotDraining, "nobody asked for a drain"),
        Some(status) => match status.phase {
            DrainPhase::Closing => no(Reason::Draining, "the control plane is being told"),
            DrainPhase::Announced | DrainPhase::Waiting => no(
                Reason::RoomsActive,
                format!("rooms may end by themselves{}", until(status)),
            ),
            DrainPhase::Moving => no(Reason::RoomsMoving, "rooms move to other nodes"),
            DrainPhase::Drained => yes(Reason::Empty, "no rooms are left"),
        },
    }
}

fn is_drained(facts: &Facts<'_>) -> bool {
    facts
        .seen
        .status
        .is_some_and(|status| status.phase == DrainPhase::Drained)
}

fn is_long(since: Option<Timestamp>, now: Timestamp) -> bool {
    let grace = SignedDuration::try_from(SILENCE_GRACE).unwrap_or(SignedDuration::ZERO);
    since.is_some_and(|since| now.duration_since(since) >= grace)
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let all = pod.status.as_ref()?.container_statuses.as_ref()?;
    all.iter().find(|container| container.name == CONTAINER)
}

/// Status, reason and message of a pod's condition.
fn condition_of<'a>(pod: &'a Pod, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let all = pod.status.as_ref()?.conditions.as_ref()?;
    let found = all.iter().find(|condition| condition.type_ == type_)?;
    Some((
        &found.status,
        found.reason.as_deref().unwrap_or_default(),
        found.message.as_deref().unwrap_or_default(),
    ))
}

fn whole(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

/// Between two writes of a node's load: 2,000 busy nodes are then at most 67 writes a second, and in practice few.
const WRITES_APART: Duration = Duration::from_secs(30);
/// The control plane may be away for that long before anything says so; `kubernetes.md` §4.14.
const SILENCE_GRACE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests;
