// SPDX-License-Identifier: EUPL-1.2
//! The loss of nodes and what follows: dead ones are found by two witnesses, their rooms placed anew.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use control_core::ids::{Epoch, RoomKey, Uid};
use control_core::lease::{self, Grace, LeaseWitness};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{PlaceError, Plane};
use crate::live::{Lost, Silent};
use crate::store::REPORT_AGAIN;

/// Pace of the watch over nodes.
const TICK: Duration = Duration::from_millis(250);
/// A store that is away is asked this often, and so often is a room looked for that runs twice.
const PROBE: Duration = Duration::from_secs(1);
/// After the store's return rooms are written once more after this time: by then every replica has seen the return and written its own,
/// and of two owners the one who lost learns of it.
const SECOND_LOOK: Duration = Duration::from_millis(2_500);
/// Nodes are told to write their rooms again in this many portions, one after the other within [`REPORT_AGAIN`].
const PORTIONS: u32 = 60;
/// Silent nodes that are dialled at a time.
const DIALS_MAX: usize = 1_024;
/// Rooms that are placed anew at a time.
const RESTORES_MAX: usize = 32;
/// A room that nobody restored for this long, beyond its own empty timeout, is forgotten.
const LOST_MIN: Duration = Duration::from_secs(60);

/// A room that the store lacks is looked for again after this time.
const SAMPLE_AGAIN: Duration = Duration::from_millis(500);

/// A lease that the store was seen to have.
pub(super) type Kept = (RoomKey, Uid, Epoch);

/// Times of the watch.
struct Watch {
    last: Instant,
    probe: Instant,
    doubles: Instant,
    sample: Instant,
    portion: Instant,
    portions: u32,
    second_look: Option<Instant>,
}

impl Plane {
    /// Watches over nodes, and writes what they report to the store, until the token falls.
    pub async fn watch_nodes(self, stop: CancellationToken) {
        let writer = self.write_to_store(stop.clone());
        tokio::join!(self.tick_until(stop), writer);
    }

    async fn tick_until(&self, stop: CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        let mut watch = Watch {
            last: now,
            probe: now,
            doubles: now,
            sample: now,
            portion: now,
            portions: 0,
            second_look: None,
        };
        let mut dials = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            while let Some(ended) = dials.try_join_next() {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(event = "NodeWatchFailed", %error, "the look at a silent node ended by a bug");
                }
            }
            // Nothing here waits for a node or the store: while they were waited for, nobody would be listened to.
            self.tick(&mut watch, &mut dials);
        }
    }

    fn tick(&self, watch: &mut Watch, dials: &mut JoinSet<()>) {
        let now = Instant::now();
        let since = now - std::mem::replace(&mut watch.last, now);
        if lease::was_stopped(since) {
            tracing::warn!(
                event = "ReplicaStoodStill",
                seconds = since.as_secs_f32(),
                "this replica stood still; it begins to listen anew"
            );
            self.begin_grace();
        }
        let silent = self.live().tick(since);
        if !silent.is_empty() {
            self.bump();
        }
        for silent in silent {
            let plane = self.clone();
            if dials.len() < DIALS_MAX {
                dials.spawn(async move { plane.examine(silent).await });
            } else {
                self.live().skip_dial(&silent);
            }
        }
        self.count_rooms();
        if now >= watch.doubles {
            watch.doubles = now + PROBE;
            self.fence_doubles();
        }
        if now >= watch.probe && self.0.store_away.load(Ordering::Acquire) {
            watch.probe = now + PROBE;
            let plane = self.clone();
            dials.spawn(async move { plane.probe_store().await });
        }
        if now >= watch.sample && !self.0.store_away.load(Ordering::Acquire) {
            watch.sample = now + PROBE;
            let plane = self.clone();
            dials.spawn(async move { plane.look_at_sample().await });
        }
        if self.0.store_returned.swap(false, Ordering::AcqRel) {
            self.report_all_again();
            watch.second_look = Some(now + SECOND_LOOK);
        }
        if watch.second_look.is_some_and(|at| now >= at) {
            watch.second_look = None;
            self.report_all_again();
        }
        if now >= watch.portion {
            watch.portion = now + REPORT_AGAIN / PORTIONS;
            watch.portions = (watch.portions + 1) % PORTIONS;
            self.report_portion_again(watch.portions);
        }
    }

    /// What was known before may be old: unknown rooms wait until everybody was heard again, and nobody dies for a lease period.
    fn begin_grace(&self) {
        self.live().expect_reports();
        *self.0.grace.lock().unwrap_or_else(PoisonError::into_inner) =
            Grace::begin(self.0.clock.now());
    }

    /// Asks a store that was away. What it says of leases is not believed for one lease period: it may have come back empty.
    async fn probe_store(&self) {
        if self.0.store.ping().await.is_err() || !self.0.store_away.swap(false, Ordering::AcqRel) {
            return;
        }
        tracing::info!(
            event = "StoreBack",
            "the store is back, leases are written to it"
        );
        self.begin_grace();
        self.0.store_returned.store(true, Ordering::Release);
        self.0.writes.more.notify_one();
    }

    /// Has the store lost what it kept, without ever having been away? A room that it had at an earlier look and that still runs under
    /// the same lease has to be there.
    async fn look_at_sample(&self) {
        let known = self.kept().clone();
        let sample = known.clone().or_else(|| self.live().sample());
        let Some(sample) = sample else { return };
        match self.keeps(&sample).await {
            Some(true) => *self.kept() = Some(sample),
            Some(false) if known.is_some() => {
                // Its end may have reached the store before this replica.
                sleep(SAMPLE_AGAIN).await;
                *self.kept() = None;
                if self.keeps(&sample).await == Some(false) {
                    tracing::warn!(
                        event = "StoreEmptied",
                        "the store has lost what it kept, it is written again"
                    );
                    self.begin_grace();
                    self.0.store_returned.store(true, Ordering::Release);
                }
            }
            Some(false) => {}
            None => *self.kept() = None,
        }
    }

    /// Does the store have this lease or a later one? Nothing, if the room does not run by it any more, or nobody answers.
    async fn keeps(&self, (key, uid, epoch): &Kept) -> Option<bool> {
        let kept = match self.0.store.room(key.clone()).await {
            Ok(record) => record.is_some_and(|record| record.lease.epoch >= *epoch),
            Err(error) => {
                self.store_failed(error);
                return None;
            }
        };
        let runs = self
            .live()
            .entry(uid, key)
            .is_some_and(|entry| entry.epoch == *epoch);
        runs.then_some(kept)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_all_again(&self) {
        let nodes: Vec<Uid> = self.live().nodes().map(|(uid, _)| uid.clone()).collect();
        for uid in nodes {
            self.report_rooms_again(&uid);
        }
    }

    fn report_portion_again(&self, portion: u32) {
        let due: Vec<Uid> = {
            let live = self.live();
            live.nodes()
                .filter(|(uid, _)| portion_of(uid) == portion)
                .map(|(uid, _)| uid.clone())
                .collect()
        };
        for uid in due {
            self.report_rooms_again(&uid);
        }
    }

    fn count_rooms(&self) {
        let totals = self.live().totals();
        self.0.metrics.rooms.set(totals.rooms.into());
        self.0.metrics.participants.set(totals.participants.into());
    }

    /// Dials a silent node, asks the store about it if that is all that is missing, and decides.
    async fn examine(&self, silent: Silent) {
        let dialled = self.0.hosts.redial(&silent.uid, &silent.endpoint).await;
        if self.live().dialled(&silent, dialled) {
            self.judge(&silent.uid).await;
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
        let now = self.0.clock.now();
        let in_grace = self.grace().spares(now);
        let Some(rooms) = self.live().judge(uid, lease, in_grace, now) else {
            return;
        };
        tracing::warn!(event = "NodeDead", node = %uid, rooms = rooms.len(), "media node is dead, its rooms are placed anew");
        self.0.metrics.nodes_dead.inc();
        self.0.hosts.forget(uid);
        self.rooms_are_lost(uid, &rooms, id.as_ref());
        self.bump();
    }

    /// Places lost rooms anew until the token falls.
    pub async fn restore_rooms(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            self.restore_due(&mut tasks).await;
            let next = self.live().lost_next();
            let again = async {
                match next {
                    Some(at) => sleep(at.since(self.0.clock.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.rooms_lost.notified() => {}
                () = again => {}
            }
        }
    }

    /// Tries every lost room once whose time has come.
    async fn restore_due(&self, tasks: &mut JoinSet<()>) {
        let mut due = self.live().lost_due(self.0.clock.now());
        // Each replica begins elsewhere, so that they do not meet at every room.
        let start = self.0.replica.first_of(due.len());
        due.rotate_left(start);
        for key in due {
            while tasks.len() >= RESTORES_MAX {
                tasks.join_next().await;
            }
            let plane = self.clone();
            tasks.spawn(async move { plane.restore(key).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn restore(&self, key: RoomKey) {
        let Some(lost) = self.live().lost_room(&key).cloned() else {
            // It runs again.
            return;
        };
        let now = self.0.clock.now();
        let until = lost.since.after(self.lost_timeout(&key, &lost));
        if now >= until {
            self.live().forget_lost(&key);
            self.bump_room(&key);
            return;
        }
        if !lost.entry.facts.opened {
            // Nobody had opened it: the next one to come begins it, above the lease that is remembered here.
            self.live().lost_until(&key, until);
            return;
        }
        match self.restore_room(&key, &lost.entry).await {
            Ok(placed) => {
                tracing::info!(event = "RoomRestored", tenant = %key.tenant, node = %placed.host.uid(), epoch = %placed.epoch, "a room is placed anew");
                self.live().forget_lost(&key);
                self.bump_room(&key);
            }
            Err(
                PlaceError::UnknownTenant(_)
                | PlaceError::Invalid { .. }
                | PlaceError::EpochsExhausted(_),
            ) => {
                self.live().forget_lost(&key);
                self.bump_room(&key);
            }
            Err(error) => {
                tracing::debug!(tenant = %key.tenant, %error, "a lost room waits for a place");
                self.live().lost_again(&key, self.0.clock.now());
            }
        }
    }

    fn lost_timeout(&self, key: &RoomKey, lost: &Lost) -> Duration {
        let own = lost.entry.policy.as_ref().map(|own| own.empty_timeout);
        let empty = own.or_else(|| self.policy_of(key).map(|policy| policy.empty_timeout));
        empty.unwrap_or_default().max(LOST_MIN)
    }
}

/// Portion in which a node's rooms are written again.
fn portion_of(uid: &Uid) -> u32 {
    let hash = uid.as_str().bytes().fold(0_u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    hash % PORTIONS
}
