// SPDX-License-Identifier: EUPL-1.2
//! Emptying of nodes: rooms without people leave at once, the others when their time has come, one by one and no faster than their
//! people can arrive; what finds no place by the end is given up by the node itself.
//!
//! Every replica hears of every drain; one of them at a time carries all of them out, so that arrivals are paced over the whole.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_core::ids::{RoomKey, Uid};
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::{MoveNotice, MoveOrder};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Plane;
use crate::live::Entry;

/// People told to come again per second and target, on average (`decisions.md` §3.2); a larger room goes alone.
const ARRIVALS_PER_SECOND: u32 = 50;
/// Wait before a node that is emptied is looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest drain that is waited for.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Before a node that leaves by itself gives up its rooms, places for them are looked for during this time.
const LEAVE_WINDOW: Duration = Duration::from_secs(60);
/// What one replica at a time does, and how long it is believed to be at it.
const ROLE: &str = "drain";
const ROLE_LIFETIME: Duration = Duration::from_secs(5);

/// The course of one drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainPlan {
    /// Until then only rooms without people move.
    moves_at: Instant,
    /// What is still there then is given up.
    ends_at: Instant,
    /// People are told that long before.
    announce_before: Duration,
    /// What asked for it, so that the same one again changes nothing; `None` = the node itself.
    order: Option<(i64, i64)>,
}

impl DrainPlan {
    /// As the operator orders it, at wall time `unix_ms`.
    pub(crate) fn of_order(order: &MoveOrder, now: Instant, unix_ms: i64) -> Self {
        let at = |unix: i64| {
            let left = u64::try_from(unix.saturating_sub(unix_ms)).unwrap_or(0);
            now + Duration::from_millis(left).min(DRAIN_MAX)
        };
        let ends_at = at(order.deadline_unix_ms);
        Self {
            moves_at: at(order.moves_at_unix_ms).min(ends_at),
            ends_at,
            announce_before: Duration::from_millis(order.announce_before_ms).min(DRAIN_MAX),
            order: Some((order.moves_at_unix_ms, order.deadline_unix_ms)),
        }
    }

    /// Of a node that ends after `left`; it tells its people itself.
    pub(crate) fn of_leaving(left: Duration, now: Instant) -> Self {
        let left = left.min(DRAIN_MAX);
        Self {
            moves_at: now + left.saturating_sub(LEAVE_WINDOW),
            ends_at: now + left,
            announce_before: Duration::ZERO,
            order: None,
        }
    }

    /// Whether `self` asks for nothing that `known` does not do.
    fn adds_nothing_to(&self, known: &Self) -> bool {
        match (self.order, known.order) {
            (Some(order), Some(known)) => order == known,
            // What a node says every second wavers a little.
            (None, _) => known.ends_at <= self.ends_at + AGAIN,
            (Some(_), None) => false,
        }
    }
}

/// When each target may take the next room.
#[derive(Debug, Default)]
struct Pace {
    free_at: HashMap<Uid, Instant>,
}

impl Pace {
    /// Targets whose last arrivals are not through yet.
    fn busy(&mut self, now: Instant) -> Vec<Uid> {
        self.free_at.retain(|_, at| *at > now);
        self.free_at.keys().cloned().collect()
    }

    /// A room with people went there.
    fn arrived(&mut self, target: &Uid, people: u32, now: Instant) {
        let time = Duration::from_secs(1) * people.max(1) / ARRIVALS_PER_SECOND;
        let free = self.free_at.entry(target.clone()).or_insert(now);
        *free = (*free).max(now) + time;
    }

    /// When the next target is through.
    fn next(&self) -> Option<Instant> {
        self.free_at.values().min().copied()
    }
}

/// All drains that a replica knows of.
#[derive(Default)]
pub(super) struct Drains {
    known: Mutex<HashMap<Uid, (u64, DrainPlan)>>,
    next: std::sync::atomic::AtomicU64,
    /// Held while a room moves: two rooms must not take the same free target for theirs.
    pace: tokio::sync::Mutex<Pace>,
}

impl Drains {
    fn known(&self) -> MutexGuard<'_, HashMap<Uid, (u64, DrainPlan)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a plan up; `None` if it adds nothing to what is done already.
    fn begin(&self, uid: &Uid, plan: DrainPlan) -> Option<u64> {
        let mut known = self.known();
        if known
            .get(uid)
            .is_some_and(|(_, known)| plan.adds_nothing_to(known))
        {
            return None;
        }
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        known.insert(uid.clone(), (number, plan));
        Some(number)
    }

    /// The plan, unless another one has taken its place.
    fn plan(&self, uid: &Uid, number: u64) -> Option<DrainPlan> {
        self.known()
            .get(uid)
            .filter(|(known, _)| *known == number)
            .map(|(_, plan)| *plan)
    }

    fn end(&self, uid: &Uid, number: u64) {
        let mut known = self.known();
        if known.get(uid).is_some_and(|(known, _)| *known == number) {
            known.remove(uid);
        }
    }
}

/// What one look at a node came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// There is more to do, later.
    Waits,
    /// The drain was replaced or called off, or this replica stops.
    Over,
}

impl Plane {
    /// A node takes rooms again: whatever was to move stays.
    pub(super) fn call_off_drain(&self, uid: &Uid) {
        if self.0.drains.known().remove(uid).is_some() {
            tracing::info!(event = "DrainCancelled", node = %uid, "the drain is called off");
            self.notice(uid, 0);
        }
    }

    /// Empties a node; returns at once if that is under way as asked for.
    pub(crate) async fn empty_node(self, uid: Uid, plan: DrainPlan, stop: CancellationToken) {
        let Some(number) = self.0.drains.begin(&uid, plan) else {
            return;
        };
        tracing::info!(
            event = "DrainStarted",
            node = %uid,
            seconds = plan.ends_at.saturating_duration_since(Instant::now()).as_secs(),
            "the node is emptied"
        );
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.empty(&uid, number) => {}
        }
        self.0.drains.end(&uid, number);
    }

    async fn empty(&self, uid: &Uid, number: u64) {
        let mut told = false;
        while let Some(plan) = self.0.drains.plan(uid, number) {
            let now = Instant::now();
            let rooms = self.live().rooms_of(uid);
            if rooms.is_empty() && now >= plan.moves_at {
                return tracing::info!(event = "DrainDone", node = %uid, "the node is empty");
            }
            if !rooms.is_empty() && self.leads_drains(uid).await {
                let due = plan.order.is_some() && now + plan.announce_before >= plan.moves_at;
                if due && !std::mem::replace(&mut told, true) {
                    let left = plan.moves_at.saturating_duration_since(now);
                    let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
                    self.notice(uid, self.now_unix_ms().saturating_add(left));
                }
                if self.move_rooms(uid, number, rooms).await == Look::Over {
                    return;
                }
                if Instant::now() >= plan.ends_at {
                    let left = self.live().rooms_of(uid).len();
                    if left > 0 && plan.order.is_some() {
                        tracing::warn!(event = "DrainGivenUp", node = %uid, rooms = left, "rooms found no place in time, the node gives them up");
                        self.give_up(uid);
                    }
                    return;
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Whether this replica carries out drains now.
    async fn leads_drains(&self, uid: &Uid) -> bool {
        let claim = self
            .0
            .store
            .claim(ROLE.to_owned(), self.replica(), ROLE_LIFETIME);
        match claim.await {
            Ok(holds) => holds,
            Err(error) => {
                self.store_failed(error);
                // Without the store each node has one replica all the same: the one that it calls primary.
                self.live().node(uid).is_some_and(|node| node.hello.primary)
            }
        }
    }

    /// Moves what may move now, small rooms first: most people are elsewhere before a large room goes alone.
    async fn move_rooms(&self, uid: &Uid, number: u64, mut rooms: Vec<(RoomKey, Entry)>) -> Look {
        rooms.sort_by_key(|(_, entry)| entry.participants);
        for (key, entry) in rooms {
            let Some(plan) = self.0.drains.plan(uid, number) else {
                return Look::Over;
            };
            let unused = entry.participants == 0 && entry.lobby == 0;
            if !unused && Instant::now() < plan.moves_at {
                continue;
            }
            if !self.move_paced(uid, number, &key, entry.participants).await {
                return Look::Over;
            }
        }
        Look::Waits
    }

    /// Moves a room as soon as a target may take it. False if the drain is over, or another replica's.
    async fn move_paced(&self, uid: &Uid, number: u64, key: &RoomKey, people: u32) -> bool {
        loop {
            if self.0.drains.plan(uid, number).is_none() || !self.leads_drains(uid).await {
                return false;
            }
            let mut pace = self.0.drains.pace.lock().await;
            let busy = pace.busy(Instant::now());
            let waits = match self.move_room(key, uid, &busy).await {
                // The report from the new node, with a higher epoch, makes the old one drop the room.
                Ok(placed) => {
                    tracing::info!(event = "RoomMoved", tenant = %key.tenant, to = %placed.host.uid(), epoch = %placed.epoch, people, "a room moved");
                    pace.arrived(placed.host.uid(), people, Instant::now());
                    return true;
                }
                Err(error) if busy.is_empty() => {
                    tracing::debug!(tenant = %key.tenant, %error, "a room cannot move yet");
                    return true;
                }
                // One of those that are busy now may have room for it.
                Err(_) => pace.next(),
            };
            drop(pace);
            if let Some(until) = waits {
                sleep_until(until).await;
            }
        }
    }

    fn notice(&self, uid: &Uid, moves_at_unix_ms: i64) {
        let notice = MoveNotice {
            node_uid: uid.as_str().to_owned(),
            moves_at_unix_ms,
        };
        self.order(uid, Order::Notice(notice));
    }

    fn give_up(&self, uid: &Uid) {
        let order = MoveOrder {
            node_uid: uid.as_str().to_owned(),
            ..MoveOrder::default()
        };
        self.order(uid, Order::Move(order));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uid(name: &str) -> Uid {
        Uid::parse(name).expect("a uid")
    }

    #[test]
    fn a_large_room_has_its_target_for_itself() {
        let mut pace = Pace::default();
        let start = Instant::now();
        pace.arrived(&uid("a"), 500, start);
        let second = Duration::from_secs(1);
        assert_eq!(pace.busy(start + second * 9), [uid("a")]);
        assert_eq!(pace.next(), Some(start + second * 10));
        assert!(pace.busy(start + second * 10).is_empty());
    }

    #[test]
    fn the_same_order_again_changes_nothing_and_another_one_takes_its_place() {
        let drains = Drains::default();
        let now = Instant::now();
        let order = MoveOrder {
            deadline_unix_ms: 70_000,
            moves_at_unix_ms: 10_000,
            ..MoveOrder::default()
        };
        let plan = DrainPlan::of_order(&order, now, 0);
        let first = drains.begin(&uid("a"), plan).expect("new");
        let later = DrainPlan::of_order(&order, now + Duration::from_millis(40), 40);
        assert_eq!(drains.begin(&uid("a"), later), None);
        // The node leaves by itself, later than it is emptied anyway; then sooner.
        let leaving = |seconds| DrainPlan::of_leaving(Duration::from_secs(seconds), now);
        assert_eq!(drains.begin(&uid("a"), leaving(300)), None);
        let second = drains.begin(&uid("a"), leaving(5)).expect("sooner");
        assert_eq!(drains.plan(&uid("a"), first), None);
        assert!(drains.plan(&uid("a"), second).is_some());
        drains.end(&uid("a"), first);
        assert!(
            drains.plan(&uid("a"), second).is_some(),
            "of another number"
        );
    }

    #[test]
    fn an_order_of_the_past_means_now() {
        let now = Instant::now();
        let plan = DrainPlan::of_order(&MoveOrder::default(), now, 1_000_000);
        assert_eq!((plan.moves_at, plan.ends_at), (now, now));
    }

    proptest! {
        #[test]
        fn arrivals_average_fifty_per_second_and_target(rooms in prop::collection::vec(0..400_u32, 1..60)) {
            let mut pace = Pace::default();
            let start = Instant::now();
            let (mut now, mut arrived) = (start, 0);
            for people in &rooms {
                while !pace.busy(now).is_empty() {
                    now = pace.next().expect("busy");
                }
                // All who came before this room had their time.
                prop_assert!(Duration::from_secs(1) * arrived / ARRIVALS_PER_SECOND <= now - start);
                pace.arrived(&uid("t"), *people, now);
                arrived += people;
            }
        }
    }
}
