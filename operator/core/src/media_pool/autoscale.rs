// SPDX-License-Identifier: EUPL-1.2
//! How many nodes a pool should have: load and buffer, floors at certain times, bounds, and patience on the way down.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use plenum_api::{
    MediaPoolSpec,
    media_pool::{Autoscaling, Buffer, BufferType},
};

use crate::limits;

/// Rooms, participants and egress, of one node or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Rooms.
    pub rooms: u64,
    /// Participants.
    pub participants: u64,
    /// Egress in Mbit/s.
    pub egress_mbps: u64,
}

impl Load {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rooms: self.rooms.saturating_add(other.rooms),
            participants: self.participants.saturating_add(other.participants),
            egress_mbps: self.egress_mbps.saturating_add(other.egress_mbps),
        }
    }

    /// As much of each, so many times.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        let count = u64::from(count);
        Self {
            rooms: self.rooms.saturating_mul(count),
            participants: self.participants.saturating_mul(count),
            egress_mbps: self.egress_mbps.saturating_mul(count),
        }
    }
}

impl Load {
    /// Which share of `capacity` this is, of the scarcest; none where there is no capacity.
    #[must_use]
    pub fn share_of(self, capacity: Self) -> Option<f64> {
        [
            (self.rooms, capacity.rooms),
            (self.participants, capacity.participants),
            (self.egress_mbps, capacity.egress_mbps),
        ]
        .into_iter()
        .filter(|(_, all)| *all > 0)
        // Both are far below 2^53.
        .map(|(used, all)| used as f64 / all as f64)
        .max_by(f64::total_cmp)
    }
}

/// What one node of the pool takes.
#[must_use]
pub fn capacity_of_node(spec: &MediaPoolSpec) -> Load {
    let capacity = &spec.capacity;
    Load {
        rooms: capacity.rooms.unwrap_or(limits::NODE_ROOMS).into(),
        participants: capacity
            .participants
            .unwrap_or(limits::NODE_PARTICIPANTS)
            .into(),
        egress_mbps: capacity
            .egress_mbps
            .unwrap_or(limits::NODE_EGRESS_MBPS)
            .into(),
    }
}

/// What is known when deciding.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Load of the nodes that do not drain; none while nobody can tell.
    pub used: Option<Load>,
    /// The number that holds.
    pub present: u32,
    /// What load and floors asked for before.
    pub history: &'a History,
}

/// Why a number was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Load and buffer.
    Load,
    /// A floor of the schedule.
    Schedule,
    /// The fewest allowed.
    Minimum,
    /// The most allowed.
    Maximum,
    /// Fewer would do, but not for long enough.
    Stabilizing,
    /// Nobody knows the load.
    LoadUnknown,
}

impl Cause {
    /// The name in a status, an event and a metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "Load",
            Self::Schedule => "Schedule",
            Self::Minimum => "Minimum",
            Self::Maximum => "Maximum",
            Self::Stabilizing => "Stabilizing",
            Self::LoadUnknown => "LoadUnknown",
        }
    }
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The number that should hold.
    pub desired: u32,
    /// What load and floors ask for at this moment; belongs into the history.
    pub asked: u32,
    /// Why.
    pub cause: Cause,
    /// When a floor comes or goes next.
    pub next: Option<Timestamp>,
}

/// What was asked for lately: for each moment the most since.
#[derive(Clone, Debug, Default)]
pub struct History {
    since: Option<Timestamp>,
    /// Falling numbers, so that the first that is young enough is the most of its window.
    asked: VecDeque<(Timestamp, u32)>,
}

impl History {
    /// Remembers what was asked for; *Cost*: amortised O(1), at most as many entries as there are numbers.
    pub fn record(&mut self, asked: u32, stabilization: SignedDuration, now: Timestamp) {
        self.since.get_or_insert(now);
        while self.asked.back().is_some_and(|(_, last)| *last <= asked) {
            self.asked.pop_back();
        }
        self.asked.push_back((now, asked));
        while self.asked.len() > 1
            && self
                .asked
                .front()
                .is_some_and(|(at, _)| now.duration_since(*at) > stabilization)
        {
            self.asked.pop_front();
        }
    }

    /// The most that was asked for within the window; none while the window is not full.
    #[must_use]
    pub fn most(&self, stabilization: SignedDuration, now: Timestamp) -> Option<u32> {
        let since = self.since?;
        if now.duration_since(since) < stabilization {
            return None;
        }
        // An entry stands for the time until the next one, so the one before the window counts as well.
        let inside = self
            .asked
            .iter()
            .find(|(at, _)| now.duration_since(*at) <= stabilization);
        inside.or(self.asked.back()).map(|(_, asked)| *asked)
    }
}

/// The number of nodes that should hold.
#[must_use]
pub fn decide(
    spec: &MediaPoolSpec,
    autoscaling: &Autoscaling,
    observed: Observed<'_>,
    now: Timestamp,
) -> Decision {
    let (floor, next) = floor_at(autoscaling, now);
    let stabilization = stabilization(autoscaling);
    let present = observed.present.clamp(
        autoscaling.min_replicas.min(autoscaling.max_replicas),
        autoscaling.max_replicas,
    );
    let (mut asked, mut cause) = match observed.used {
        Some(used) => (
            by_load(&autoscaling.buffer, used, capacity_of_node(spec)),
            Cause::Load,
        ),
        None => (present, Cause::LoadUnknown),
    };
    if floor.is_some_and(|floor| floor > asked) {
        asked = floor.unwrap_or(asked);
        cause = Cause::Schedule;
    }
    if autoscaling.min_replicas > asked {
        asked = autoscaling.min_replicas;
        cause = Cause::Minimum;
    }
    if asked > autoscaling.max_replicas {
        asked = autoscaling.max_replicas;
        cause = Cause::Maximum;
    }
    let desired = if asked >= present {
        asked
    } else {
        let most = observed.history.most(stabilization, now).unwrap_or(present);
        let patient = most.clamp(asked, present);
        if patient > asked {
            cause = Cause::Stabilizing;
        }
        patient
    };
    Decision {
        desired,
        asked,
        cause,
        next,
    }
}

/// How long fewer nodes must suffice first.
#[must_use]
pub fn stabilization(autoscaling: &Autoscaling) -> SignedDuration {
    autoscaling
        .scale_down
        .stabilization
        .to_std()
        .ok()
        .and_then(|length| SignedDuration::try_from(length).ok())
        .map_or(STABILIZATION_MAX, |length| length.min(STABILIZATION_MAX))
}

/// Nodes for a load with its buffer, over the scarcest of rooms, participants and egress.
fn by_load(buffer: &Buffer, used: Load, node: Load) -> u32 {
    let free = |kind| match buffer.type_ {
        BufferType::Percent => 0,
        BufferType::Rooms if kind == BufferType::Rooms => buffer.rooms.unwrap_or(0).into(),
        BufferType::Participants if kind == BufferType::Participants => {
            buffer.participants.unwrap_or(0).into()
        }
        BufferType::Rooms | BufferType::Participants => 0_u64,
    };
    let percent = match buffer.type_ {
        BufferType::Percent => u64::from(buffer.percent.unwrap_or(0).min(PERCENT_MAX)),
        BufferType::Rooms | BufferType::Participants => 0,
    };
    let nodes = |used: u64, free: u64, node: u64| {
        // ceil((used + free) · 100 / ((100 − percent) · node)); a node that takes nothing limits nothing.
        let wanted = used.saturating_add(free).saturating_mul(100);
        let each = (100 - percent).saturating_mul(node);
        if each == 0 { 0 } else { wanted.div_ceil(each) }
    };
    let most = nodes(used.rooms, free(BufferType::Rooms), node.rooms)
        .max(nodes(
            used.participants,
            free(BufferType::Participants),
            node.participants,
        ))
        .max(nodes(used.egress_mbps, 0, node.egress_mbps));
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// The highest floor at a moment, and when a floor comes or goes next. A schedule that cannot be read has no floor;
/// `validate` says so.
fn floor_at(autoscaling: &Autoscaling, now: Timestamp) -> (Option<u32>, Option<Timestamp>) {
    let mut floor = None;
    let mut next: Option<Timestamp> = None;
    for scheduled in &autoscaling.schedule {
        let Ok(schedule) = scheduled.schedule.to_evaluator() else {
            continue;
        };
        let window = schedule.window_at(now);
        if window.is_some() {
            floor = floor.max(Some(scheduled.min_replicas));
        }
        let edges = window
            .map(|window| window.closes)
            .into_iter()
            .chain(schedule.next_window(now).map(|window| window.opens));
        next = next.into_iter().chain(edges).min();
    }
    (floor, next)
}

/// The schema's bound for a buffer.
const PERCENT_MAX: u32 = 95;
/// Nobody waits longer than a day; it also bounds the history.
const STABILIZATION_MAX: SignedDuration = SignedDuration::from_hours(24);
