// SPDX-License-Identifier: EUPL-1.2
//! The wanted set of nodes: how many to make, which to empty, which to forget.
//!
//! Three rules bound every step. Nodes that are neither asked to go nor lost are *serving*; their number never falls below
//! what is wanted, less `maxUnavailable` during an update. Serving nodes and those that an update empties never exceed what
//! is wanted plus `maxSurge`. And only a node that takes rooms counts as available, so that nobody is asked to go before
//! somebody else can take what comes.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plenum_api::{
    MediaPoolSpec,
    media_node::{DrainPhase, DrainReason, NodePorts},
    media_pool::{ScaleDown, UpdateOrder},
};

use super::ports::fits;

/// What is known of one node, or of one whose creation is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Name.
    pub name: String,
    /// Revision it was made from.
    pub revision: String,
    /// Its ports.
    pub ports: NodePorts,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it takes new rooms.
    pub accepting: bool,
    /// Rooms on it.
    pub rooms: u32,
    /// Participants on it.
    pub participants: u32,
    /// Whether its machine takes no new pods.
    pub cordoned: bool,
    /// Why it is asked to go, if it is.
    pub drain: Option<DrainReason>,
    /// How far that is.
    pub phase: Option<DrainPhase>,
    /// Whether it is being deleted, which is a drain too.
    pub deleting: bool,
    /// When its pod was lost or let go; the node is only remembered.
    pub ended: Option<Timestamp>,
}

impl NodeState {
    /// Neither asked to go nor gone.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.drain.is_none() && !self.deleting && self.ended.is_none()
    }

    fn is_available(&self) -> bool {
        self.is_serving() && self.ready && self.accepting
    }

    /// Its going costs nobody anything: it never took a room.
    fn is_dead_weight(&self) -> bool {
        !self.ready && !self.accepting && self.rooms == 0
    }
}

/// What the calendar allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// Nodes may be emptied to have fewer.
    pub scale_down: bool,
    /// Nodes may be replaced by those of a new revision.
    pub update: bool,
    /// When the calendar says something else.
    pub until: Option<Timestamp>,
}

impl Permit {
    /// Everything is allowed.
    pub const ALL: Self = Self {
        scale_down: true,
        update: true,
        until: None,
    };
}

/// Why an update does not go on although nodes of an old revision are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The pool is paused.
    Paused,
    /// The calendar forbids it.
    Frozen,
    /// Nodes of the new revision take no rooms yet.
    NotReady,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Nodes to make.
    pub create: u32,
    /// Nodes to empty, in this order.
    pub drain: Vec<(String, DrainReason)>,
    /// Nodes that may stay after all: too few are left, and nobody was told yet.
    pub keep: Vec<String>,
    /// Nodes to forget.
    pub forget: Vec<String>,
    /// Why the update waits.
    pub blocked: Option<Blocked>,
    /// When to look again although nothing changed.
    pub next: Option<Timestamp>,
}

/// The numbers of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes with a pod, or one to come.
    pub replicas: u32,
    /// Serving nodes.
    pub serving: u32,
    /// Serving nodes that are ready.
    pub ready: u32,
    /// Nodes that take rooms.
    pub accepting: u32,
    /// Nodes that are asked to go.
    pub draining: u32,
    /// Serving nodes that the pool would make the same way.
    pub updated: u32,
}

/// Counts the nodes of a pool.
#[must_use]
pub fn count(spec: &MediaPoolSpec, revision: &str, nodes: &[NodeState]) -> Counts {
    let number = |matches: &dyn Fn(&NodeState) -> bool| {
        u32::try_from(nodes.iter().filter(|node| matches(node)).count()).unwrap_or(u32::MAX)
    };
    let outdated = |node: &NodeState| is_outdated(spec, revision, node);
    Counts {
        replicas: number(&|node| node.ended.is_none()),
        serving: number(&NodeState::is_serving),
        ready: number(&|node| node.is_serving() && node.ready),
        accepting: number(&NodeState::is_available),
        draining: number(&|node| node.ended.is_none() && !node.is_serving()),
        updated: number(&|node| node.is_serving() && !outdated(node)),
    }
}

/// The steps towards `desired` nodes of `revision`.
///
/// `nodes` holds those whose creation is under way, so that none is made twice. *Cost*: O(n log n).
#[must_use]
pub fn plan(
    spec: &MediaPoolSpec,
    desired: u32,
    revision: &str,
    nodes: &[NodeState],
    permit: Permit,
    now: Timestamp,
) -> Steps {
    let mut steps = Steps {
        forget: forgotten(nodes, now),
        next: next_forgotten(nodes, now),
        ..Steps::default()
    };
    let counts = count(spec, revision, nodes);
    let outdated = counts.serving - counts.updated;
    if spec.paused {
        steps.blocked = (outdated > 0).then_some(Blocked::Paused);
        return steps;
    }
    let (surge, unavailable) = bounds(spec, desired);
    let updating = drains(nodes, |reason| reason == DrainReason::Update);
    let surge_now = if permit.update {
        surge.min(outdated)
    } else {
        0
    };
    let target = desired.saturating_add(surge_now);

    // 1. Take back what nobody was told, before anything new is made.
    let mut serving = counts.serving;
    steps.keep = regretted(spec, revision, nodes, desired.saturating_sub(serving));
    serving += length(&steps.keep);

    // 2. Make what is missing. What an update empties takes the place that the surge gave.
    let room = desired
        .saturating_add(surge)
        .saturating_sub(serving + updating);
    let missing = target.saturating_sub(serving).min(room);
    steps.create = match hold_off(nodes, now) {
        Some(until) if missing > 0 => {
            steps.next = earliest(steps.next, Some(until));
            0
        }
        _ => missing.min(CREATES_MAX),
    };

    // 3. Empty what is too much, then what is old.
    let mut available = counts.accepting;
    let excess = serving.saturating_sub(target);
    if permit.scale_down {
        let running = drains(nodes, |reason| reason == DrainReason::ScaleDown);
        let budget = drains_max(spec).saturating_sub(running).min(excess);
        let goers = surplus(spec, revision, nodes, desired, &mut available, budget);
        steps
            .drain
            .extend(goers.into_iter().map(|name| (name, DrainReason::ScaleDown)));
    }
    if permit.update && excess == 0 {
        let floor = desired.saturating_sub(unavailable);
        let budget = (surge + unavailable).saturating_sub(updating);
        let goers = replaced(spec, revision, nodes, floor, &mut available, budget);
        steps
            .drain
            .extend(goers.into_iter().map(|name| (name, DrainReason::Update)));
    }
    steps.blocked = if outdated == 0 {
        None
    } else if !permit.update {
        Some(Blocked::Frozen)
    } else {
        let stuck = steps.create == 0 && steps.drain.is_empty() && updating == 0 && excess == 0;
        stuck.then_some(Blocked::NotReady)
    };
    steps.next = earliest(steps.next, permit.until);
    steps
}

/// Whether the pool would make the node differently.
#[must_use]
pub fn is_outdated(spec: &MediaPoolSpec, revision: &str, node: &NodeState) -> bool {
    node.revision != revision || !fits(spec, node.ports)
}

/// `maxSurge` rounded up and `maxUnavailable` rounded down, as a Deployment does it; both 0 would never get anywhere.
#[must_use]
pub fn bounds(spec: &MediaPoolSpec, desired: u32) -> (u32, u32) {
    let share = |value: &IntOrString, up: bool| match value {
        IntOrString::Int(number) => u32::try_from(*number).unwrap_or(0),
        IntOrString::String(text) => {
            let percent: u32 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = desired.saturating_mul(percent.min(100));
            if up {
                product.div_ceil(100)
            } else {
                product / 100
            }
        }
    };
    let surge = share(&spec.update.max_surge, true);
    let unavailable = share(&spec.update.max_unavailable, false);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

fn drains_max(spec: &MediaPoolSpec) -> u32 {
    match &spec.autoscaling {
        Some(autoscaling) => autoscaling.scale_down.max_concurrent_drains,
        None => ScaleDown::default().max_concurrent_drains,
    }
    .max(1)
}

/// Nodes that are being emptied for a reason. A deletion is its owner's wish, not one of ours.
fn drains(nodes: &[NodeState], reason: impl Fn(DrainReason) -> bool) -> u32 {
    let going = nodes
        .iter()
        .filter(|node| node.ended.is_none() && node.drain.is_some_and(&reason));
    u32::try_from(going.count()).unwrap_or(u32::MAX)
}

/// Nodes that scale-down had asked to go and that are wanted again. Of an old revision none comes back.
fn regretted(
    spec: &MediaPoolSpec,
    revision: &str,
    nodes: &[NodeState],
    missing: u32,
) -> Vec<String> {
    let mut back: Vec<&NodeState> = nodes
        .iter()
        .filter(|node| {
            node.drain == Some(DrainReason::ScaleDown)
                && node.phase.is_none_or(|phase| phase == DrainPhase::Closing)
                && !node.deleting
                && node.ended.is_none()
                && !node.cordoned
                && !is_outdated(spec, revision, node)
        })
        .collect();
    back.sort_by_key(|node| (std::cmp::Reverse(node.rooms), &node.name));
    back.truncate(usize::try_from(missing).unwrap_or(usize::MAX));
    back.into_iter().map(|node| node.name.clone()).collect()
}

/// Whom fewer nodes can spare: old revision, cordoned machine, fewest rooms, fewest participants, youngest.
fn surplus(
    spec: &MediaPoolSpec,
    revision: &str,
    nodes: &[NodeState],
    desired: u32,
    available: &mut u32,
    budget: u32,
) -> Vec<String> {
    let mut candidates: Vec<&NodeState> = nodes.iter().filter(|node| node.is_serving()).collect();
    candidates.sort_by_key(|node| {
        (
            !is_outdated(spec, revision, node),
            !node.cordoned,
            node.rooms,
            node.participants,
            std::cmp::Reverse(node.created),
            node.name.clone(),
        )
    });
    take(candidates, desired, available, budget)
}

/// Whom a new revision replaces: those that never took a room at once, then the emptiest or the oldest.
fn replaced(
    spec: &MediaPoolSpec,
    revision: &str,
    nodes: &[NodeState],
    floor: u32,
    available: &mut u32,
    budget: u32,
) -> Vec<String> {
    let old = nodes
        .iter()
        .filter(|node| node.is_serving() && is_outdated(spec, revision, node));
    let (dead, mut living): (Vec<_>, Vec<_>) = old.partition(|node| node.is_dead_weight());
    living.sort_by_key(|node| {
        let load = match spec.update.order {
            UpdateOrder::EmptiestFirst => (node.rooms, node.participants),
            UpdateOrder::OldestFirst => (0, 0),
        };
        (load, node.created, node.name.clone())
    });
    let mut goers: Vec<String> = dead.into_iter().map(|node| node.name.clone()).collect();
    goers.sort();
    goers.extend(take(living, floor, available, budget));
    goers
}

/// Takes from the front while enough nodes remain that accept rooms. One that accepts none may go without being missed.
fn take(candidates: Vec<&NodeState>, floor: u32, available: &mut u32, budget: u32) -> Vec<String> {
    let mut goers = Vec::new();
    for node in candidates {
        if length(&goers) >= budget {
            break;
        }
        if node.is_available() {
            if *available <= floor {
                continue;
            }
            *available -= 1;
        } else if !node.is_dead_weight() && *available < floor {
            // It has rooms that would have to move, and too few others take some.
            continue;
        }
        goers.push(node.name.clone());
    }
    goers
}

/// Pods that are lost young are made again more and more slowly; otherwise a broken image would fill the cluster with
/// remembered nodes.
fn hold_off(nodes: &[NodeState], now: Timestamp) -> Option<Timestamp> {
    let mut losses = 0_u32;
    let mut last = Timestamp::MIN;
    for node in nodes {
        let Some(ended) = node.ended else { continue };
        let young = ended.duration_since(node.created) < YOUNG;
        if node.drain.is_none() && !node.deleting && young {
            losses += 1;
            last = last.max(ended);
        }
    }
    let doublings = losses.checked_sub(LOSSES_FREE)?;
    let wait = SignedDuration::from_secs(1 << doublings.min(8)).min(HOLD_OFF_MAX);
    let until = last.checked_add(wait).ok()?;
    (until > now).then_some(until)
}

fn forgotten(nodes: &[NodeState], now: Timestamp) -> Vec<String> {
    let mut ended: Vec<(Timestamp, &NodeState)> = nodes
        .iter()
        .filter_map(|node| Some((node.ended?, node)))
        .collect();
    ended.sort_by_key(|(at, node)| (std::cmp::Reverse(*at), node.name.clone()));
    let mut names: Vec<String> = ended
        .into_iter()
        .enumerate()
        .filter(|(index, (at, node))| {
            !node.deleting && (now.duration_since(*at) >= REMEMBERED || *index >= REMEMBERED_MAX)
        })
        .map(|(_, (_, node))| node.name.clone())
        .collect();
    names.sort();
    names
}

fn next_forgotten(nodes: &[NodeState], now: Timestamp) -> Option<Timestamp> {
    nodes
        .iter()
        .filter(|node| !node.deleting)
        .filter_map(|node| node.ended?.checked_add(REMEMBERED).ok())
        .filter(|at| *at > now)
        .min()
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

fn length<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// How long a node is remembered after its pod is gone, so that people see why.
pub const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);
/// Most nodes of a pool that are remembered; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 64;
/// Most nodes made in one pass: 2,000 come in 32 passes, and each sees what the one before did.
pub const CREATES_MAX: u32 = 64;
/// A pod lost within a minute points to itself, not to its machine.
const YOUNG: SignedDuration = SignedDuration::from_secs(60);
/// Losses without a wait: machines die too.
const LOSSES_FREE: u32 = 3;
const HOLD_OFF_MAX: SignedDuration = SignedDuration::from_mins(5);
