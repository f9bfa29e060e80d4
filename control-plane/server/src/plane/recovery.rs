// SPDX-License-Identifier: EUPL-1.2
//! The loss of nodes and what follows: dead ones are found by two witnesses, their rooms placed anew; rooms of a node that is to be
//! emptied move first.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use control_core::ids::{RoomKey, Uid};
use control_core::lease::{Grace, LeaseWitness};
use control_core::limits;
use plenum_proto::v1::MoveOrder;
use plenum_proto::v1::node_order::Item as Order;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{PlaceError, Plane};
use crate::live::Lost;
use crate::store::REPORT_AGAIN;

/// Pace of the watch over nodes.
const TICK: Duration = Duration::from_millis(500);
/// A store that is away is asked this often.
const PROBE: Duration = Duration::from_secs(1);
/// Rooms that are placed anew at a time.
const RESTORES_MAX: usize = 16;
/// Wait before rooms that found no place are tried again.
const RESTORE_AGAIN: Duration = Duration::from_secs(1);
/// People told to come again per second, of one node that is emptied (`decisions.md` §3.2); a larger room goes alone.
const MOVES_PER_SECOND: u32 = 50;
/// A room that nobody restored for this long, beyond its own empty timeout, is forgotten.
const LOST_MIN: Duration = Duration::from_secs(60);

impl Plane {
    /// Watches over nodes until the token falls.
    pub async fn watch_nodes(self, stop: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        let mut report_again = Instant::now() + REPORT_AGAIN;
        let mut probe = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = Instant::now();
            let silent = self.live().tick(now - last);
            last = now;
            if !silent.is_empty() {
                self.examine(silent).await;
                // A dial may have taken longer than a tick; that time was spent listening to nobody.
                last = Instant::now();
            }
            self.count_rooms();
            let back = now >= probe && {
                probe = now + PROBE;
                self.store_is_back().await
            };
            if back || now >= report_again {
                report_again = now + REPORT_AGAIN;
                let nodes: Vec<Uid> = self.live().nodes().map(|(uid, _)| uid.clone()).collect();
                for uid in nodes {
                    self.report_rooms_again(&uid).await;
                }
            }
        }
    }

    /// Whether a store that was away answers again. What it says of leases is not believed for one lease period, unless all nodes have
    /// named their rooms.
    async fn store_is_back(&self) -> bool {
        if !self.0.store_away.load(Ordering::Acquire)
            || self.0.store.usage(Vec::new()).await.is_err()
        {
            return false;
        }
        tracing::info!("the store is back, leases are written to it");
        *self.0.grace.lock().unwrap_or_else(PoisonError::into_inner) =
            Grace::begin(self.0.clock.now());
        self.0.store_away.store(false, Ordering::Release);
        true
    }

    fn count_rooms(&self) {
        let (rooms, participants) = self
            .live()
            .rooms()
            .fold((0_i64, 0_i64), |(rooms, people), (_, _, entry)| {
                (rooms + 1, people + i64::from(entry.participants))
            });
        self.0.metrics.rooms.set(rooms);
        self.0.metrics.participants.set(participants);
    }

    /// Dials silent nodes, asks the store, decides.
    async fn examine(&self, silent: Vec<(Uid, String)>) {
        self.bump();
        let mut dials = JoinSet::new();
        for (uid, endpoint) in silent {
            let plane = self.clone();
            dials.spawn(async move {
                let answered = plane.0.hosts.redial(&uid, &endpoint).await;
                (uid, answered)
            });
        }
        while let Some(dialled) = dials.join_next().await {
            let Ok((uid, answered)) = dialled else {
                continue;
            };
            self.live().redialled(&uid, answered);
            self.judge(&uid).await;
        }
    }

    async fn judge(&self, uid: &Uid) {
        let id = self
            .live()
            .node(uid)
            .and_then(|node| node.hello.node_id.clone());
        let lease = match &id {
            Some(id) => match self.0.store.node(id.clone()).await {
                Ok(Some(_)) => LeaseWitness::Held,
                Ok(None) => LeaseWitness::Expired,
                Err(error) => {
                    self.store_failed(error);
                    LeaseWitness::Away
                }
            },
            None => LeaseWitness::Expired,
        };
        let in_grace = self.settling();
        let Some(rooms) = self.live().judge(uid, lease, in_grace, self.0.clock.now()) else {
            return;
        };
        tracing::warn!(node = %uid, rooms = rooms.len(), "media node is dead, its rooms are placed anew");
        self.0.metrics.nodes_dead.inc();
        self.0.hosts.forget(uid);
        self.release_rooms(&rooms, id.as_ref()).await;
        self.signal_loss(id.as_ref());
        self.0.rooms_lost.notify_one();
        self.bump();
    }

    /// Places lost rooms anew until the token falls.
    pub async fn restore_rooms(self, stop: CancellationToken) {
        loop {
            let waiting = self.restore_all().await;
            let again = async {
                if waiting {
                    sleep(RESTORE_AGAIN).await
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.rooms_lost.notified() => {}
                () = again => {}
            }
        }
    }

    /// Tries every lost room once. Whether some still wait.
    async fn restore_all(&self) -> bool {
        let mut lost = self.live().lost_rooms().into_iter();
        let mut tasks = JoinSet::new();
        loop {
            while tasks.len() < RESTORES_MAX
                && let Some((key, room)) = lost.next()
            {
                let plane = self.clone();
                tasks.spawn(async move { plane.restore(key, room).await });
            }
            if tasks.join_next().await.is_none() {
                break;
            }
        }
        !self.live().lost_rooms().is_empty()
    }

    async fn restore(&self, key: RoomKey, lost: Lost) {
        let empty_timeout = self
            .policy_of(&key)
            .map_or(Duration::ZERO, |policy| policy.empty_timeout);
        let waited = self.0.clock.now().since(lost.since);
        if waited > empty_timeout.max(LOST_MIN) {
            self.live().forget_lost(&key);
            self.bump();
            return;
        }
        if !lost.entry.facts.opened {
            // Nobody had opened it: the next one to come begins it, above the lease that is remembered here.
            return;
        }
        match self
            .restore_room(&key, lost.entry.facts, lost.entry.epoch)
            .await
        {
            Ok(placed) => {
                tracing::info!(tenant = %key.tenant, node = %placed.host.uid(), epoch = %placed.epoch, "a room is placed anew");
                self.live().forget_lost(&key);
                self.bump();
            }
            Err(
                PlaceError::UnknownTenant(_)
                | PlaceError::Invalid { .. }
                | PlaceError::EpochsExhausted(_),
            ) => {
                self.live().forget_lost(&key);
                self.bump();
            }
            Err(error) => {
                tracing::debug!(tenant = %key.tenant, %error, "a lost room waits for a place")
            }
        }
    }

    /// Empties a node: room by room to other nodes, paced; what finds no place until the deadline is given up by the node itself.
    pub(crate) async fn empty_node(self, uid: Uid, order: MoveOrder, stop: CancellationToken) {
        let wall = self.0.clock.unix().0;
        let left = u64::try_from(order.deadline_unix_ms.saturating_sub(wall)).unwrap_or(0);
        let deadline = Instant::now() + Duration::from_millis(left).min(DRAIN_MAX);
        tracing::info!(node = %uid, "rooms move away");
        loop {
            let rooms = self.live().rooms_of(&uid);
            if rooms.is_empty() {
                tracing::info!(node = %uid, "the node is empty");
                return;
            }
            for (key, entry) in rooms {
                let moved = self.move_room(&key, &uid).await;
                match moved {
                    // The report from the new node, with a higher epoch, makes the old one drop the room.
                    Ok(placed) => {
                        tracing::info!(tenant = %key.tenant, to = %placed.host.uid(), epoch = %placed.epoch, "a room moved")
                    }
                    Err(error) => {
                        tracing::debug!(tenant = %key.tenant, %error, "a room cannot move yet")
                    }
                }
                let pause = Duration::from_secs(1) * entry.participants.max(1) / MOVES_PER_SECOND;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(pause) => {}
                }
            }
            if Instant::now() >= deadline {
                self.order(&uid, Order::Move(order));
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(RESTORE_AGAIN.min(limits::SUSPECT_AFTER)) => {}
            }
        }
    }
}

/// Longest drain that is waited for.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3_600);
