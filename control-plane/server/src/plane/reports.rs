// SPDX-License-Identifier: EUPL-1.2
//! What nodes report, taken into the live view and the store; what they are told in answer.

use std::sync::PoisonError;

use control_core::ids::{Epoch, NodeId, RoomKey, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::record::{Node, RoomPolicy};
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::{DropRoom, NodeOrder};
use tokio::sync::mpsc;

use super::{OrderQueue, Plane};
use crate::convert;
use crate::live::{Attachment, Entry, Hello, Load, Loser, ReportRefusal};
use crate::store::{ReportOutcome, RoomReport};

/// Reasons of `RoomClosed` after which the room is to be placed anew with its facts: its node could not go on with it. Every other
/// reason is the room's own end.
const GIVEN_UP: [&str; 2] = ["GivenUp", "Panicked"];

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
    pub(crate) async fn hear_hello(
        &self,
        uid: &Uid,
        attachment: Attachment,
        hello: Hello,
    ) -> Result<(), ReportRefusal> {
        let became_primary = self.live().hello(uid, attachment, hello)?;
        self.bump();
        if became_primary {
            self.report_rooms_again(uid).await;
        }
        Ok(())
    }

    /// The node's load; its primary replica refreshes the lease.
    pub(crate) async fn hear_load(
        &self,
        uid: &Uid,
        attachment: Attachment,
        load: Load,
    ) -> Result<(), ReportRefusal> {
        let (lease, changed) = {
            let mut live = self.live();
            let before = live.node(uid).and_then(|node| node.load);
            let node = live.load(uid, attachment, load)?;
            let counts = |load: Load| (load.accepting, load.rooms, load.participants);
            let lease = match (&node.hello.node_id, &node.hello.site) {
                (Some(id), Some(site)) if node.hello.primary => Some(NodeLease {
                    site: site.clone(),
                    node: id.clone(),
                    epoch: node.hello.epoch,
                    accepting: load.accepting,
                }),
                _ => None,
            };
            (lease, before.map(counts) != Some(counts(load)))
        };
        if let Some(lease) = lease
            && let Err(error) = self.0.store.refresh_node(lease).await
        {
            self.store_failed(error);
        }
        if changed {
            self.bump();
        }
        Ok(())
    }

    /// The state of a room.
    pub(crate) async fn hear_room(
        &self,
        uid: &Uid,
        attachment: Attachment,
        key: &RoomKey,
        entry: Entry,
    ) -> Result<(), ReportRefusal> {
        let losers = self.live().report(uid, attachment, key, entry.clone())?;
        let lost = losers.iter().any(|loser| loser.uid == *uid);
        for loser in losers {
            self.fence(key, &loser);
        }
        if !lost {
            self.keep(uid, key, &entry).await;
        }
        self.bump();
        Ok(())
    }

    fn fence(&self, key: &RoomKey, loser: &Loser) {
        tracing::info!(node = %loser.uid, room = %key.tenant, epoch_below = %loser.epoch_below, "a room lives elsewhere, the node drops it");
        self.0.metrics.rooms_fenced.inc();
        let drop = DropRoom {
            key: Some(convert::room_key_out(key)),
            epoch_below: loser.epoch_below.0,
        };
        self.order(&loser.uid, Order::Drop(drop));
    }

    /// Writes a room to the store, if this replica is its node's primary.
    async fn keep(&self, uid: &Uid, key: &RoomKey, entry: &Entry) {
        let Some(lease) = self.lease_of(uid, entry.epoch) else {
            return;
        };
        let report = RoomReport {
            key: key.clone(),
            lease,
            participants: entry.participants,
            publishers: entry.publishers,
            facts: entry.facts.clone(),
            policy: self.policy_of(key),
        };
        match self.0.store.report_room(report).await {
            Ok(ReportOutcome::Taken) => {}
            Ok(ReportOutcome::Fenced(higher)) => {
                self.fence(
                    key,
                    &Loser {
                        uid: uid.clone(),
                        epoch_below: higher,
                    },
                );
            }
            Err(error) => self.store_failed(error),
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

    /// Writes all rooms of a node to the store, so that their records do not run out.
    pub(super) async fn report_rooms_again(&self, uid: &Uid) {
        let rooms = self.live().rooms_of(uid);
        for (key, entry) in rooms {
            self.keep(uid, &key, &entry).await;
        }
    }

    /// A room ended on a node.
    pub(crate) async fn hear_closed(
        &self,
        uid: &Uid,
        attachment: Attachment,
        key: &RoomKey,
        epoch: Epoch,
        reason: &str,
    ) -> Result<(), ReportRefusal> {
        let again = GIVEN_UP.contains(&reason);
        let entry = {
            let mut live = self.live();
            let entry = live.closed(uid, attachment, key, epoch)?;
            if again && let Some(entry) = entry.clone() {
                live.mark_lost(uid, key, entry, self.0.clock.now());
            }
            entry
        };
        if let Some(entry) = entry
            && let Some(lease) = self.lease_of(uid, entry.epoch)
            && let Err(error) = self.0.store.close_room(key.clone(), lease, again).await
        {
            self.store_failed(error);
        }
        if again {
            self.0.rooms_lost.notify_one();
        }
        self.bump();
        Ok(())
    }

    /// The node has named all its rooms; what it does not have any more is placed anew.
    pub(crate) async fn hear_end_of_rooms(
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
            tracing::info!(node = %uid, rooms = gone.len(), "a node came back without its rooms");
            self.release_rooms(&gone, id.as_ref()).await;
            self.signal_loss(id.as_ref());
            self.0.rooms_lost.notify_one();
        }
        self.bump();
        Ok(())
    }

    /// Rooms are not on their node any more: their counts go, their facts stay.
    pub(super) async fn release_rooms(&self, keys: &[RoomKey], node: Option<&NodeId>) {
        let Some(node) = node else { return };
        for key in keys {
            let lost = self
                .live()
                .lost_room(key)
                .map(|lost| (lost.site.clone(), lost.entry.epoch));
            let Some((site, epoch)) = lost else { continue };
            let lease = RoomLease {
                site,
                node: node.clone(),
                epoch,
            };
            if let Err(error) = self.0.store.close_room(key.clone(), lease, true).await {
                self.store_failed(error);
            }
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
}
