// SPDX-License-Identifier: EUPL-1.2
//! Emptying a node: no new rooms at once, time for those that are there, then a move, then for good or not.

use std::time::{Duration, Instant};

use operator_core::plan::millis;
use plenum_api::media_pool::DrainStrategy;
use plenum_proto::v1::{AcceptingOrder, MoveOrder};

use super::{Machine, replicas::Replica};
use crate::up::directory::Wish;

/// Longest patience, as the schema bounds it.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the control plane may try to find places for rooms that are to move.
const MOVE_WINDOW: Duration = Duration::from_secs(60);
/// A node that goes even with rooms goes that much after the window.
const MOVE_GRACE: Duration = Duration::from_secs(5);
/// A room may have been on its way to the node when it was told to take none.
const SETTLE: Duration = Duration::from_secs(1);

/// What is next for a node that is being emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing yet.
    Wait,
    /// Its rooms are moved.
    Move,
    /// It goes.
    Go,
}

/// The course of emptying a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emptying {
    since: Instant,
    /// When rooms are moved that are still there.
    move_at: Option<Instant>,
    /// When a node that is no longer wanted goes; `None` stays, empty.
    goes_at: Option<Instant>,
    /// Until when places are looked for, once rooms move; in milliseconds since 1970.
    deadline_unix_ms: Option<i64>,
}

impl Emptying {
    fn new(now: Instant, patience: Duration, goes: bool) -> Self {
        let move_at = now + patience.min(PATIENCE_MAX);
        Self {
            since: now,
            move_at: Some(move_at),
            goes_at: goes.then_some(move_at + MOVE_WINDOW + MOVE_GRACE),
            deadline_unix_ms: None,
        }
    }

    /// Whether the node is on its way out.
    pub(super) fn goes(&self) -> bool {
        self.goes_at.is_some()
    }

    /// `rooms` is what the control plane reports; `None` where it reports nothing, which is not the same as none.
    fn next(&mut self, now: Instant, rooms: Option<u32>) -> Step {
        let empty = rooms == Some(0) && now >= self.since + SETTLE;
        if self.goes_at.is_some_and(|at| empty || now >= at) {
            return Step::Go;
        }
        match self.move_at {
            Some(at) if now >= at => {
                self.move_at = None;
                if empty { Step::Wait } else { Step::Move }
            }
            _ => Step::Wait,
        }
    }
}

impl Machine {
    /// How long a node's rooms may go on.
    pub(super) fn patience(&self, uid: &str, asked: Option<Duration>) -> Duration {
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
        patience.min(PATIENCE_MAX)
    }

    /// Begins to empty a node.
    pub(super) async fn empty(&mut self, uid: &str, patience: Duration, goes: bool, reason: &str) {
        if let Some(node) = self.nodes.get_mut(uid) {
            node.emptying = Some(Emptying::new(Instant::now(), patience, goes));
        }
        self.order_accepting(uid, false, reason).await;
        self.go_on_emptying().await;
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

    /// Moves what has had its time, and lets go what is empty or out of time.
    pub(super) async fn go_on_emptying(&mut self) {
        let now = Instant::now();
        let (mut moving, mut gone) = (Vec::new(), Vec::new());
        for (uid, node) in &mut self.nodes {
            let rooms = load_on(&self.replicas, uid).map(|load| load.rooms);
            // A process that does not run holds no rooms.
            let rooms = if node.pid.is_none() { Some(0) } else { rooms };
            match node
                .emptying
                .as_mut()
                .map(|emptying| emptying.next(now, rooms))
            {
                None | Some(Step::Wait) => {}
                Some(Step::Move) => moving.push(uid.clone()),
                Some(Step::Go) => gone.push(uid.clone()),
            }
        }
        for uid in moving {
            self.order_move(&uid).await;
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

    async fn order_move(&mut self, uid: &str) {
        let window = i64::try_from(MOVE_WINDOW.as_millis()).unwrap_or(i64::MAX);
        let deadline = jiff::Timestamp::now()
            .as_millisecond()
            .saturating_add(window);
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        if let Some(emptying) = &mut node.emptying {
            emptying.deadline_unix_ms = Some(deadline);
        }
        let (name, starts) = (node.wanted.name.clone(), node.starts);
        self.note(name, "Moving", "its rooms move to other nodes");
        let order = self.move_order(uid, starts, deadline);
        self.wish(&Wish::Move(order)).await;
    }

    fn move_order(&self, uid: &str, starts: u64, deadline_unix_ms: i64) -> MoveOrder {
        MoveOrder {
            node_uid: uid.to_owned(),
            epoch: self.epoch(starts),
            deadline_unix_ms,
        }
    }

    /// A replica that was started anew knows of no move that is under way.
    pub(super) async fn repeat_moves(&mut self, replica: usize) {
        let Some(replica) = self.replicas.get(replica) else {
            return;
        };
        for (uid, node) in &self.nodes {
            let moving = node.emptying.and_then(|emptying| emptying.deadline_unix_ms);
            if let Some(deadline) = moving {
                let order = self.move_order(uid, node.starts, deadline);
                // The publisher ends with the machine only.
                let _ = replica.wishes.send(Wish::Move(order)).await;
            }
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

/// Rooms and people of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Rooms.
    pub(super) rooms: u32,
    /// People.
    pub(super) participants: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn rooms_have_their_time_before_they_are_moved_once() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, 10 * MINUTE, false);
        assert_eq!(emptying.next(start + 9 * MINUTE, Some(3)), Step::Wait);
        assert_eq!(emptying.next(start + 10 * MINUTE, Some(3)), Step::Move);
        assert_eq!(emptying.next(start + 11 * MINUTE, Some(3)), Step::Wait);
        assert_eq!(emptying.next(start + 999 * MINUTE, Some(0)), Step::Wait);
        assert!(!emptying.goes());
    }

    #[test]
    fn without_patience_rooms_move_at_once() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, Duration::ZERO, false);
        assert_eq!(emptying.next(start, Some(3)), Step::Move);
    }

    #[test]
    fn an_unwanted_node_goes_when_it_is_empty_and_has_settled() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, 10 * MINUTE, true);
        assert_eq!(emptying.next(start, Some(0)), Step::Wait);
        assert_eq!(emptying.next(start + SETTLE, Some(1)), Step::Wait);
        assert_eq!(emptying.next(start + SETTLE, Some(0)), Step::Go);
    }

    #[test]
    fn silence_of_the_control_plane_does_not_make_a_node_empty() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, MINUTE, true);
        assert_eq!(emptying.next(start + SETTLE, None), Step::Wait);
        assert_eq!(emptying.next(start + MINUTE, None), Step::Move);
        assert_eq!(
            emptying.next(start + MINUTE + MOVE_WINDOW, None),
            Step::Wait
        );
        assert_eq!(
            emptying.next(start + MINUTE + MOVE_WINDOW + MOVE_GRACE, None),
            Step::Go
        );
    }

    #[test]
    fn no_patience_is_longer_than_a_day() {
        let start = Instant::now();
        let mut emptying = Emptying::new(start, Duration::MAX, false);
        assert_eq!(emptying.next(start + PATIENCE_MAX, Some(1)), Step::Move);
    }
}
