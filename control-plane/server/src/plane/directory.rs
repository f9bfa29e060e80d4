// SPDX-License-Identifier: EUPL-1.2
//! What a publication changes: the directory, orders to nodes, and what the gateway sees of it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use control_core::directory::{
    Directory, DirectoryView, Fenced, OrderRefusal, Origin, RecordRefusal, StreamId,
};
use control_core::ids::{Epoch, NodeId, Uid};
use control_core::record::{Record, RecordKind};

use super::Plane;
use crate::metrics::Reason;
use crate::store::StoreError;

/// Tries to write whether a node takes rooms.
const MARKS_MAX: u32 = 3;

/// One change of the directory.
#[derive(Debug)]
pub(crate) enum Change {
    /// A record.
    Put(Box<Record>),
    /// A record that could not be read, or not be made: in a snapshot it is not omitted.
    Keep(RecordKind, Uid),
    /// The end of one.
    Retract(RecordKind, Uid),
    /// The end of the snapshot.
    EndOfSnapshot,
}

impl Plane {
    fn directory(&self) -> MutexGuard<'_, Directory> {
        // The directory changes by whole records; a panic between two of them leaves it whole.
        self.0
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A publisher begins.
    pub(crate) fn begin_publication(&self, epoch: Epoch) -> Result<StreamId, Fenced> {
        self.directory().begin(epoch, self.0.clock.now())
    }

    /// A publisher is gone.
    pub(crate) fn end_publication(&self, stream: StreamId) {
        self.directory().end(stream);
        // Whoever keeps the records in the store looks at once who is to do it now.
        self.bump_directory();
    }

    /// What is in force, where it came from, and the epoch of the publisher while one is connected.
    pub(super) fn published(&self) -> (Arc<DirectoryView>, Origin, Option<Epoch>) {
        let directory = self.directory();
        (directory.view(), directory.origin(), directory.published())
    }

    /// Takes what the store kept, unless a publisher is connected. Whether it was taken.
    pub(super) fn load_stored(&self, records: Vec<Record>) -> bool {
        let taken = self.directory().load_stored(records);
        if taken {
            self.show_directory();
        }
        taken
    }

    /// Takes one change; it is seen with the next [`Self::show_directory`].
    pub(crate) fn publish(
        &self,
        stream: StreamId,
        epoch: Epoch,
        change: Change,
    ) -> Result<Result<(), RecordRefusal>, Fenced> {
        let mut directory = self.directory();
        directory.hear(stream, epoch, self.0.clock.now())?;
        Ok(match change {
            Change::Put(record) => directory.put(*record).map(|_| ()),
            Change::Keep(kind, uid) => {
                directory.refuse(kind, &uid);
                Ok(())
            }
            Change::Retract(kind, uid) => {
                directory.retract(kind, &uid);
                Ok(())
            }
            Change::EndOfSnapshot => {
                directory.end_snapshot();
                Ok(())
            }
        })
    }

    /// The stream is alive.
    pub(crate) fn hear_publication(&self, stream: StreamId, epoch: Epoch) -> Result<(), Fenced> {
        self.directory().hear(stream, epoch, self.0.clock.now())
    }

    /// Shows everybody what was published.
    pub(crate) fn show_directory(&self) {
        let (view, loaded) = {
            let directory = self.directory();
            (directory.view(), directory.is_loaded())
        };
        let shown = Arc::clone(&self.0.view.read().unwrap_or_else(PoisonError::into_inner));
        if !Arc::ptr_eq(&shown, &view) {
            let records = &self.0.metrics.records;
            let count = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
            records
                .get_or_create(&Reason { reason: "Tenant" })
                .set(count(view.tenants().len()));
            records
                .get_or_create(&Reason {
                    reason: "Conference",
                })
                .set(count(view.conferences().len()));
            records
                .get_or_create(&Reason { reason: "Node" })
                .set(count(view.nodes().len()));
            *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        } else if self.is_loaded() == loaded {
            return;
        }
        self.0.loaded.store(loaded, Ordering::Release);
        self.forget_unpublished_nodes();
        self.0.directory_changed.notify_one();
        self.bump_directory();
    }

    /// The operator wants rooms on a node or not: first in the store and read back, then in the directory. The node itself gets it with
    /// its facts.
    pub(crate) async fn order_accepting(
        &self,
        stream: StreamId,
        epoch: Epoch,
        node: &Uid,
        node_epoch: Epoch,
        accepting: bool,
    ) -> Result<Result<(), OrderRefusal>, Fenced> {
        let known = self
            .directory()
            .view()
            .node(node)
            .map(|known| known.node_id.clone());
        if let Some(id) = known {
            // With the store away the node is told all the same, and its next report reaches every replica.
            if let Err(error) = self.mark_accepting(id, accepting).await {
                self.store_failed(error);
            }
        }
        let ordered = {
            let mut directory = self.directory();
            directory.hear(stream, epoch, self.0.clock.now())?;
            directory.order_accepting(node, node_epoch, accepting)
        };
        if accepting && ordered.is_ok() {
            self.call_off_drain(node);
        }
        Ok(ordered.map(|_| ()))
    }

    /// Writes whether a node takes rooms, and reads it back: a report that was on its way may have written the opposite meanwhile.
    async fn mark_accepting(&self, node: NodeId, accepting: bool) -> Result<(), StoreError> {
        for _ in 0..MARKS_MAX {
            let known = self.0.store.mark_accepting(node.clone(), accepting).await?;
            let lease = self.0.store.node(node.clone()).await?;
            if !known || lease.is_none_or(|lease| lease.accepting == accepting) {
                break;
            }
        }
        Ok(())
    }

    /// All rooms of a node are to move.
    pub(crate) fn order_move(
        &self,
        stream: StreamId,
        epoch: Epoch,
        node: &Uid,
        node_epoch: Epoch,
    ) -> Result<Result<(), OrderRefusal>, Fenced> {
        let mut directory = self.directory();
        directory.hear(stream, epoch, self.0.clock.now())?;
        Ok(directory.check_move(node, node_epoch))
    }

    fn forget_unpublished_nodes(&self) {
        if !self.is_loaded() {
            return;
        }
        let view = self.view();
        let now = self.0.clock.now();
        let mut lost = false;
        {
            let mut live = self.live();
            let strangers: Vec<Uid> = live
                .nodes()
                .map(|(uid, _)| uid)
                .filter(|uid| view.node(uid).is_none())
                .cloned()
                .collect();
            for uid in strangers {
                // One that is attached waits for its facts, or to be stopped by the operator.
                if !live.is_attached(&uid) {
                    lost |= !live.forget(&uid, now).is_empty();
                    self.0.hosts.forget(&uid);
                }
            }
        }
        if lost {
            self.0.rooms_lost.notify_one();
        }
    }
}
