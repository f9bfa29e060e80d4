// SPDX-License-Identifier: EUPL-1.2
//! Emptying a node: no new rooms at once, time for those that are there, then a move, then for good or not. The control
//! plane does the work; here it is ordered, followed and called off.

use std::time::{Duration, Instant};

use operator_core::plan::millis;
use plenum_api::media_pool::DrainStrategy;
use plenum_proto::v1::{AcceptingOrder, MoveOrder};
use plenum_publish::streams::Wish;
use serde::Serialize;

use super::{Machine, replicas::Replica};

/// Longest patience, as the schema bounds it.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the control plane may try to find places for rooms that are to move.
const MOVE_WINDOW: Duration = Duration::from_secs(60);
/// After the window a node gives up what is left, room by room; one that goes waits for that.
const MOVE_GRACE: Duration = Duration::from_secs(5);
/// A room may have been on its way to the node when it was told to take none.
const SETTLE: Duration = Duration::from_secs(1);

/// Rooms and people of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Rooms.
    pub(super) rooms: u32,
    /// People.
    pub(super) participants: u32,
}

/// How far the emptying of a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum DrainPhase {
    /// Rooms may go on.
    Waiting,
    /// Rooms move.
    Moving,
    /// The time for it is over, and rooms are still there: the node gives them up.
    Overdue,
    /// Nothing is there any more.
    Drained,
}

/// What is new of a node that is being emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Wait,
    /// Another phase.
    Enter(DrainPhase),
    /// It goes.
    Go,
}

/// The course of emptying a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emptying {
    since: Instant,
    /// When rooms are moved that are still there.
    move_at: Instant,
    /// Whether it is stopped once it is empty or out of time.
    goes: bool,
    phase: DrainPhase,
    /// What found no place in time.
    stranded: Load,
    order: Order,
}

/// What the control plane is told of it, in wall time.
#[derive(Clone, Copy, Debug, Default)]
struct Order {
    moves_at_unix_ms: i64,
    deadline_unix_ms: i64,
    announce_before_ms: u64,
}

impl Order {
    fn new(now_unix_ms: i64, patience: Duration, announce_before: Duration) -> Self {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let moves_at_unix_ms = now_unix_ms.saturating_add(millis(patience));
        Self {
            moves_at_unix_ms,
            deadline_unix_ms: moves_at_unix_ms.saturating_add(millis(MOVE_WINDOW)),
            announce_before_ms: u64::try_from(announce_before.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Emptying {
    fn new(now: Instant, patience: Duration, goes: bool) -> Self {
        Self {
            since: now,
            move_at: now + patience.min(PATIENCE_MAX),
            goes,
            phase: DrainPhase::Waiting,
            stranded: Load::default(),
            order: Order::default(),
        }
    }

    /// Whether the node is on its way out.
    pub(super) fn goes(&self) -> bool {
        self.goes
    }

    /// How far it has come.
    pub(super) fn phase(&self) -> DrainPhase {
        self.phase
    }

    /// What found no place in time.
    pub(super) fn stranded(&self) -> Load {
        self.stranded
    }

    /// Time until rooms move, and until those that found no place are given up.
    pub(super) fn left(&self, now: Instant) -> (Duration, Duration) {
        let left = self.move_at.saturating_duration_since(now);
        let end = self.move_at + MOVE_WINDOW;
        (left, end.saturating_duration_since(now))
    }

    /// `load` is what the control plane reports; `None` where it reports nothing, which is not the same as none.
    fn next(&mut self, now: Instant, load: Option<Load>) -> Step {
        let empty = load.is_some_and(|load| load.rooms == 0) && now >= self.since + SETTLE;
        let overdue = now >= self.move_at + MOVE_WINDOW;
        if self.goes && (empty || now >= self.move_at + MOVE_WINDOW + MOVE_GRACE) {
            return Step::Go;
        }
        let phase = match load {
            _ if empty => DrainPhase::Drained,
            Some(load) if overdue && self.phase != DrainPhase::Drained => {
                if self.phase != DrainPhase::Overdue {
                    self.stranded = load;
                }
                DrainPhase::Overdue
            }
            // One that was empty is told to take nothing: what it reports was on its way.
            _ if self.phase == DrainPhase::Drained => DrainPhase::Drained,
            _ if now >= self.move_at => DrainPhase::Moving,
            _ => DrainPhase::Waiting,
        };
        if phase == self.phase {
            return Step::Wait;
        }
        self.phase = phase;
        Step::Enter(phase)
    }
}

impl Machine {
    /// How long a node's rooms may go on, and how long before they move their people are told.
    pub(super) fn patience(&self, uid: &str, asked: Option<Duration>) -> (Duration, Duration) {
        let pool = self
            .nodes
            .get(uid)
            .and_then(|node| self.checked.objects.pools.get(&node.wanted.pool));
        let patience = asked.unwrap_or_else(|| match pool {
            Some(pool) if pool.spec.drain.strategy == DrainStrategy::WaitForEmpty => {
                Duration::from_millis(millis(&pool.spec.drain.timeout))
            }
            _ => Duration::ZERO,
        });
        let announce = pool.map_or(Duration::ZERO, |pool| {
            Duration::from_millis(millis(&pool.spec.drain.announce_before))
        });
        (patience.min(PATIENCE_MAX), announce)
    }

    /// Begins to empty a node; says how long its rooms may go on.
    pub(super) async fn empty(
        &mut self,
        uid: &str,
        asked: Option<Duration>,
        goes: bool,
        reason: &str,
    ) -> Duration {
        let (patience, announce_before) = self.patience(uid, asked);
        let now_unix_ms = jiff::Timestamp::now().as_millisecond();
        if let Some(node) = self.nodes.get_mut(uid) {
            let mut emptying = Emptying::new(Instant::now(), patience, goes);
            emptying.order = Order::new(now_unix_ms, patience, announce_before);
            node.emptying = Some(emptying);
        }
        self.order_accepting(uid, false, reason).await;
        for replica in &self.replicas {
            self.order_move(uid, replica).await;
        }
        self.go_on_emptying().await;
        patience
    }

    /// A node may take rooms again.
    pub(super) async fn stop_emptying(&mut self, uid: &str, reason: &str) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        node.emptying = None;
        let accepting = !node.drained;
        self.order_accepting(uid, accepting, reason).await;
    }

    async fn order_accepting(&mut self, uid: &str, accepting: bool, reason: &str) {
        let Some(node) = self.nodes.get(uid) else {
            return;
        };
        let order = AcceptingOrder {
            node_uid: uid.to_owned(),
            epoch: self.epoch(node.starts),
            accepting,
            reason: reason.to_owned(),
        };
        self.wish(&Wish::Accepting(order)).await;
    }

    /// Follows what is being emptied, and lets go what is empty or out of time.
    pub(super) async fn go_on_emptying(&mut self) {
        let now = Instant::now();
        let (mut news, mut gone) = (Vec::new(), Vec::new());
        for (uid, node) in &mut self.nodes {
            let load = load_on(&self.replicas, uid);
            // A process that does not run holds no rooms.
            let load = if node.pid.is_none() {
                Some(Load::default())
            } else {
                load
            };
            match node
                .emptying
                .as_mut()
                .map(|emptying| emptying.next(now, load))
            {
                None | Some(Step::Wait) => {}
                Some(Step::Enter(phase)) => news.push((node.wanted.name.clone(), phase, load)),
                Some(Step::Go) => gone.push(uid.clone()),
            }
        }
        for (name, phase, load) in news {
            let Load {
                rooms,
                participants,
            } = load.unwrap_or_default();
            match phase {
                DrainPhase::Waiting => {}
                DrainPhase::Moving => self.note(
                    name,
                    "Moving",
                    format!("{rooms} rooms move to other nodes"),
                ),
                DrainPhase::Drained => self.note(name, "Drained", "it is empty"),
                DrainPhase::Overdue => self.note(
                    name,
                    "CapacityMissing",
                    format!(
                        "{rooms} rooms with {participants} people found no place in time; they are told to come again"
                    ),
                ),
            }
        }
        self.going.retain(|going| !going.is_finished());
        if gone.is_empty() {
            return;
        }
        for uid in gone {
            if let Some(node) = self.nodes.remove(&uid) {
                self.note(&*node.wanted.name, "Removed", "it is no longer wanted");
                self.going.push(tokio::spawn(node.supervised.stopped()));
            }
        }
        self.publish().await;
    }

    async fn order_move(&self, uid: &str, replica: &Replica) {
        let Some((node, emptying)) = self
            .nodes
            .get(uid)
            .and_then(|node| Some((node, node.emptying?)))
        else {
            return;
        };
        let Order {
            moves_at_unix_ms,
            deadline_unix_ms,
            announce_before_ms,
        } = emptying.order;
        let order = MoveOrder {
            node_uid: uid.to_owned(),
            epoch: self.epoch(node.starts),
            deadline_unix_ms,
            moves_at_unix_ms,
            announce_before_ms,
        };
        // The publisher ends with the machine only.
        let _ = replica.wishes.send(Wish::Move(order)).await;
    }

    /// A replica that was started anew knows of no drain that is under way.
    pub(super) async fn repeat_moves(&mut self, replica: usize) {
        let Some(replica) = self.replicas.get(replica) else {
            return;
        };
        for uid in self.nodes.keys() {
            self.order_move(uid, replica).await;
        }
    }
}

/// What the replicas that hear a node report of it; `None` where none does, which is not the same as nothing.
pub(super) fn load_on(replicas: &[Replica], uid: &str) -> Option<Load> {
    let states = replicas
        .iter()
        .filter_map(|replica| replica.live.as_ref()?.nodes.get(uid))
        .filter(|state| state.registered);
    states.fold(None, |sum: Option<Load>, state| {
        let sum = sum.unwrap_or_default();
        Some(Load {
            rooms: sum.rooms.max(state.rooms),
            participants: sum.participants.max(state.participants),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn rooms(rooms: u32) -> Option<Load> {
        Some(Load {
            rooms,
            participants: rooms * 4,
        })
    }

    #[test]
    fn rooms_have_their_time_before_they_move() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, 10 * MINUTE, false);
        assert_eq!(emptying.next(start + 9 * MINUTE, rooms(3)), Step::Wait);
        let moving = Step::Enter(DrainPhase::Moving);
        assert_eq!(emptying.next(start + 10 * MINUTE, rooms(3)), moving);
        assert_eq!(emptying.next(start + 10 * MINUTE, rooms(2)), Step::Wait);
        let drained = Step::Enter(DrainPhase::Drained);
        assert_eq!(emptying.next(start + 10 * MINUTE, rooms(0)), drained);
        assert_eq!(emptying.next(start + 999 * MINUTE, rooms(0)), Step::Wait);
        assert_eq!(emptying.stranded(), Load::default());
        assert!(!emptying.goes());
    }

    #[test]
    fn without_patience_rooms_move_at_once() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, Duration::ZERO, false);
        let moving = Step::Enter(DrainPhase::Moving);
        assert_eq!(emptying.next(start, rooms(3)), moving);
    }

    #[test]
    fn rooms_without_a_place_are_remembered_when_their_time_is_over() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, MINUTE, false);
        emptying.next(start + MINUTE, rooms(3));
        let over = start + MINUTE + MOVE_WINDOW;
        assert_eq!(
            emptying.next(over, rooms(2)),
            Step::Enter(DrainPhase::Overdue)
        );
        assert_eq!(emptying.next(over + MINUTE, rooms(1)), Step::Wait);
        assert_eq!(
            emptying.next(over + MINUTE, rooms(0)),
            Step::Enter(DrainPhase::Drained)
        );
        assert_eq!(
            emptying.stranded(),
            Load {
                rooms: 2,
                participants: 8
            }
        );
    }

    #[test]
    fn an_unwanted_node_goes_when_it_is_empty_and_has_settled() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, 10 * MINUTE, true);
        assert_eq!(emptying.next(start, rooms(0)), Step::Wait);
        assert_eq!(emptying.next(start + SETTLE, rooms(1)), Step::Wait);
        assert_eq!(emptying.next(start + SETTLE, rooms(0)), Step::Go);
    }

    #[test]
    fn silence_of_the_control_plane_does_not_make_a_node_empty() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, MINUTE, true);
        assert_eq!(emptying.next(start + SETTLE, None), Step::Wait);
        let moving = Step::Enter(DrainPhase::Moving);
        assert_eq!(emptying.next(start + MINUTE, None), moving);
        let over = start + MINUTE + MOVE_WINDOW;
        assert_eq!(emptying.next(over, None), Step::Wait);
        assert_eq!(emptying.next(over + MOVE_GRACE, None), Step::Go);
    }

    #[test]
    fn no_patience_is_longer_than_a_day() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, Duration::MAX, false);
        let moving = Step::Enter(DrainPhase::Moving);
        assert_eq!(emptying.next(start + PATIENCE_MAX, rooms(1)), moving);
    }

    #[test]
    fn what_the_control_plane_is_told_ends_a_window_after_the_patience() {
        let order = Order::new(1_000, MINUTE, 5 * MINUTE);
        assert_eq!(
            (order.moves_at_unix_ms, order.deadline_unix_ms),
            (61_000, 121_000)
        );
        assert_eq!(order.announce_before_ms, 300_000);
    }
}
