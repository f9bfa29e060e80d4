// SPDX-License-Identifier: EUPL-1.2
//! What nodes report, taken into the live view and the store; what they are told in answer.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use control_core::ids::{Epoch, NodeId, RoomKey, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::record::{Node, RoomPolicy};
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::{DropRoom, NodeOrder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::writes::{Batch, RoomWrite};
use super::{OrderQueue, Plane};
use crate::convert;
use crate::live::{Attachment, Entry, Hello, LiveNode, Load, Loser, ReportRefusal};
use crate::metrics::Reason;
use crate::store::{BATCH_MAX, ReportOutcome, RoomReport, StoreError};

/// Reasons of `RoomClosed` after which the room is to be placed anew with its facts: its node could not go on with it. Every other
/// reason is the room's own end.
const GIVEN_UP: [&str; 3] = ["GivenUp", "Panicked", ELSEWHERE];
/// Among them: another replica knows where it goes on.
const ELSEWHERE: &str = "Elsewhere";

impl Plane {
    /// A node begins its stream; its orders go to `orders`.
    pub(crate) fn attach(
        &self,
        uid: &Uid,
        hello: Hello,
        orders: mpsc::Sender<NodeOrder>,
    ) -> Attachment {
        let attachment = self.live().attach(uid, hello);
        let mut queues = self.0.orders.lock().unwrap_or_else(PoisonError::into_inner);
        queues.insert(uid.clone(), OrderQueue { attachment, orders });
        self.0
            .metrics
            .nodes_attached
            .set(i64::try_from(queues.len()).unwrap_or(i64::MAX));
        drop(queues);
        self.bump();
        attachment
    }

    /// Its stream ended.
    pub(crate) fn detach(&self, uid: &Uid, attachment: Attachment) {
        let mut queues = self.0.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if queues
            .get(uid)
            .is_some_and(|queue| queue.attachment == attachment)
        {
            queues.remove(uid);
        }
        self.0
            .metrics
            .nodes_attached
            .set(i64::try_from(queues.len()).unwrap_or(i64::MAX));
        drop(queues);
        if self.live().detach(uid, attachment) {
            self.bump();
        }
    }

    /// The node says again who it is.
    pub(crate) fn hear_hello(
        &self,
        uid: &Uid,
        attachment: Attachment,
        hello: Hello,
    ) -> Result<(), ReportRefusal> {
        let (became_primary, lease) = {
            let mut live = self.live();
            let became_primary = live.hello(uid, attachment, hello)?;
            (became_primary, live.node(uid).and_then(lease_of_node))
        };
        self.bump();
        if became_primary {
            if let Some(lease) = lease {
                self.0.writes.lease(lease);
            }
            self.report_rooms_again(uid);
        }
        Ok(())
    }

    /// The node's load; its primary replica refreshes the lease.
    pub(crate) fn hear_load(
        &self,
        uid: &Uid,
        attachment: Attachment,
        load: Load,
    ) -> Result<(), ReportRefusal> {
        let (lease, changed) = {
            let mut live = self.live();
            let before = live.node(uid).and_then(|node| node.load);
            let node = live.load(uid, attachment, load)?;
            let counts = |load: Load| {
                let seen_at = (load.seen_at_v4, load.seen_at_v6);
                (load.accepting, load.rooms, load.participants, seen_at)
            };
            (
                lease_of_node(node),
                before.map(counts) != Some(counts(load)),
            )
        };
        if let Some(lease) = lease {
            self.0.writes.lease(lease);
        }
        if changed {
            self.bump();
        }
        Ok(())
    }

    /// The state of a room.
    pub(crate) fn hear_room(
        &self,
        uid: &Uid,
        attachment: Attachment,
        key: &RoomKey,
        entry: Entry,
    ) -> Result<(), ReportRefusal> {
        let losers = self.live().report(uid, attachment, key, entry)?;
        let lost = losers.iter().any(|loser| loser.uid == *uid);
        for loser in losers {
            self.fence(key, &loser);
        }
        if !lost {
            self.keep(uid, key);
        }
        self.bump_room(key);
        Ok(())
    }

    /// Tells those again who have to end a room that lives elsewhere: an order may have been lost with its stream.
    pub(super) fn fence_doubles(&self) {
        let doubles = self.live().doubles();
        for (key, losers) in doubles {
            for loser in losers {
                self.fence(&key, &loser);
            }
        }
    }

    fn fence(&self, key: &RoomKey, loser: &Loser) {
        tracing::info!(event = "RoomFenced", node = %loser.uid, room = %key.tenant, epoch_below = %loser.epoch_below, "a room lives elsewhere, the node drops it");
        self.0.metrics.rooms_fenced.inc();
        let drop = DropRoom {
            key: Some(convert::room_key_out(key)),
            epoch_below: loser.epoch_below.0,
        };
        self.order(&loser.uid, Order::Drop(drop));
    }

    /// Has a room written to the store, if this replica is its node's primary.
    fn keep(&self, uid: &Uid, key: &RoomKey) {
        let primary = self.live().node(uid).is_some_and(|node| node.hello.primary);
        if primary {
            self.write_room(key, uid, RoomWrite::State);
        }
    }

    fn write_room(&self, key: &RoomKey, uid: &Uid, write: RoomWrite) {
        if !self.0.writes.room(key.clone(), uid.clone(), write) {
            self.0
                .metrics
                .reports_dropped
                .get_or_create(&Reason {
                    reason: "WriteQueueFull",
                })
                .inc();
        }
    }

    fn lease_of(&self, uid: &Uid, epoch: Epoch) -> Option<RoomLease> {
        let live = self.live();
        let hello = &live.node(uid)?.hello;
        if !hello.primary {
            return None;
        }
        Some(RoomLease {
            site: hello.site.clone()?,
            node: hello.node_id.clone()?,
            epoch,
        })
    }

    /// Rules of a room by the directory.
    pub(super) fn policy_of(&self, key: &RoomKey) -> Option<RoomPolicy> {
        let view = self.view();
        if let Some(conference) = view.conference_of_room(key) {
            return Some(conference.policy.clone());
        }
        view.tenant(&key.tenant)?.ad_hoc_policy.clone()
    }

    /// Has all rooms of a node written to the store, so that their records do not run out.
    pub(super) fn report_rooms_again(&self, uid: &Uid) {
        let rooms = {
            let live = self.live();
            match live.node(uid) {
                Some(node) if node.hello.primary => live.keys_of(uid),
                _ => return,
            }
        };
        for key in rooms {
            self.write_room(&key, uid, RoomWrite::State);
        }
    }

    /// A room ended on a node. Told again by a node that chose another primary replica: the former one may not have come to write it.
    pub(crate) fn hear_closed(
        &self,
        uid: &Uid,
        attachment: Attachment,
        key: &RoomKey,
        epoch: Epoch,
        reason: &str,
    ) -> Result<(), ReportRefusal> {
        let again = GIVEN_UP.contains(&reason);
        let (closed, runs) = {
            let mut live = self.live();
            let entry = live.closed(uid, attachment, key, epoch)?;
            let closed = entry.is_some();
            if again && let Some(entry) = entry {
                live.mark_lost(uid, key, entry, self.0.clock.now());
                if reason == ELSEWHERE {
                    live.lost_runs_elsewhere(key);
                }
            }
            (closed, live.entry(uid, key).is_some())
        };
        // What runs there now has a later lease; its own state is written.
        if !runs && let Some(lease) = self.lease_of(uid, epoch) {
            let keep_facts = again;
            self.write_room(key, uid, RoomWrite::End { lease, keep_facts });
        }
        if closed {
            if again {
                self.0.rooms_lost.notify_one();
            }
            self.bump_room(key);
        }
        Ok(())
    }

    /// The node has named all its rooms; what it does not have any more is placed anew.
    pub(crate) fn hear_end_of_rooms(
        &self,
        uid: &Uid,
        attachment: Attachment,
    ) -> Result<(), ReportRefusal> {
        let (gone, id) = {
            let mut live = self.live();
            let gone = live.end_of_rooms(uid, attachment, self.0.clock.now())?;
            (
                gone,
                live.node(uid).and_then(|node| node.hello.node_id.clone()),
            )
        };
        if !gone.is_empty() {
            tracing::info!(event = "NodeCameBackEmpty", node = %uid, rooms = gone.len(), "a node came back without its rooms");
            self.rooms_are_lost(uid, &gone, id.as_ref());
        }
        self.bump();
        Ok(())
    }

    /// Rooms are not on their node any more: whoever is inside is told to join anew, their counts go, their facts stay.
    pub(super) fn rooms_are_lost(&self, uid: &Uid, keys: &[RoomKey], node: Option<&NodeId>) {
        self.signal_loss(node);
        self.0.rooms_lost.notify_one();
        for key in keys {
            let lease = self.live().lost_room(key).and_then(|lost| {
                Some(RoomLease {
                    site: lost.site.clone(),
                    node: node.cloned()?,
                    epoch: lost.entry.epoch,
                })
            });
            if let Some(lease) = lease {
                let keep_facts = true;
                self.write_room(key, uid, RoomWrite::End { lease, keep_facts });
            }
            self.bump_room(key);
        }
    }

    /// Tells whoever relays sessions of a node that they are over.
    pub(super) fn signal_loss(&self, node: Option<&NodeId>) {
        let Some(node) = node else { return };
        let mut losses = self.losses();
        if let Some(signal) = losses.get(node) {
            signal.send_modify(|count| *count += 1);
        }
        // Nobody waits any more; whoever comes makes a new one.
        losses.retain(|_, signal| signal.receiver_count() > 0);
    }

    /// Facts that a node has to have, if the directory knows it.
    pub(crate) fn facts_of(&self, uid: &Uid) -> Option<std::sync::Arc<Node>> {
        self.view().node(uid).cloned()
    }

    /// Writes to the store what waits for it, until the token falls and nothing waits any more.
    pub(super) async fn write_to_store(&self, stop: CancellationToken) {
        loop {
            let away = self.0.store_away.load(Ordering::Acquire);
            let batch = if away {
                self.0.writes.keep_ends();
                Batch::default()
            } else {
                self.0.writes.take(BATCH_MAX)
            };
            if !batch.is_empty() {
                self.write(batch).await;
                continue;
            }
            tokio::select! {
                () = self.0.writes.more.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn write(&self, batch: Batch) {
        if !batch.leases.is_empty()
            && let Err(error) = self.0.store.refresh_nodes(batch.leases).await
        {
            self.store_failed(error);
        }
        let states: Vec<(Uid, RoomReport)> = batch
            .states
            .into_iter()
            .filter_map(|(key, uid)| Some((uid.clone(), self.report_of(&key, &uid)?)))
            .collect();
        self.write_states(states).await;
        for end in batch.ends {
            let closed =
                self.0
                    .store
                    .close_room(end.key.clone(), end.lease.clone(), end.keep_facts);
            if let Err(error) = closed.await {
                if error == StoreError::Away {
                    self.0.writes.put_back(end);
                }
                self.store_failed(error);
            }
        }
    }

    async fn write_states(&self, states: Vec<(Uid, RoomReport)>) {
        if states.is_empty() {
            return;
        }
        let (owners, reports): (Vec<_>, Vec<_>) = states
            .into_iter()
            .map(|(uid, report)| ((uid, report.key.clone(), report.lease.epoch), report))
            .unzip();
        let outcomes = match self.0.store.report_rooms(reports).await {
            Ok(outcomes) => outcomes,
            Err(error) => return self.store_failed(error),
        };
        for ((uid, key, epoch), outcome) in owners.into_iter().zip(outcomes) {
            match outcome {
                Ok(ReportOutcome::Taken) => {}
                Ok(ReportOutcome::Fenced(held)) => {
                    // Of equal epochs the other one holds: the own one goes too.
                    let epoch_below = held.max(Epoch(epoch.0.saturating_add(1)));
                    self.fence(&key, &Loser { uid, epoch_below });
                }
                Err(error) => self.store_failed(error),
            }
        }
    }

    /// What is to be kept of a room, if it still runs there and this replica is its node's primary.
    fn report_of(&self, key: &RoomKey, uid: &Uid) -> Option<RoomReport> {
        let entry = self.live().entry(uid, key).cloned()?;
        let lease = self.lease_of(uid, entry.epoch)?;
        Some(RoomReport {
            key: key.clone(),
            lease,
            participants: entry.participants,
            publishers: entry.publishers,
            facts: entry.facts,
            policy: entry
                .policy
                .map(|policy| *policy)
                .or_else(|| self.policy_of(key)),
        })
    }
}

fn lease_of_node(node: &LiveNode) -> Option<NodeLease> {
    if !node.hello.primary {
        return None;
    }
    Some(NodeLease {
        site: node.hello.site.clone()?,
        node: node.hello.node_id.clone()?,
        epoch: node.hello.epoch,
        accepting: node.load?.accepting,
    })
}
