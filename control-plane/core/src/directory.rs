// SPDX-License-Identifier: EUPL-1.2
//! What is published: tenants, conferences and nodes as one value, and the streams that change it.
//!
//! A stream begins with a snapshot, which replaces everything at its end and retracts what it omits; single changes follow. A record
//! that is refused leaves the last good one of its uid in force. Streams are fenced by the publisher's epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{Epoch, NodeId, RoomId, RoomKey, TenantName, Uid};
use crate::limits;
use crate::record::{Conference, Node, Record, RecordKind, Tenant};
use crate::time::Moment;

#[cfg(test)]
mod tests;
mod view;

pub use view::DirectoryView;

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefusal {
    /// Another tenant has this name.
    #[error("tenant {name} is published under the uid {holder} already; retract that one first")]
    TenantNameTaken {
        /// The name.
        name: TenantName,
        /// Who has it.
        holder: Uid,
    },
    /// Another tenant has this API key.
    #[error("API key {key:?} belongs to tenant {holder} already; a key names one tenant")]
    ApiKeyTaken {
        /// The key.
        key: String,
        /// Who has it.
        holder: TenantName,
    },
    /// Another conference has this room name.
    #[error(
        "room {key} belongs to the conference with uid {holder} already; choose another roomName"
    )]
    RoomNameTaken {
        /// The room.
        key: RoomKey,
        /// Who has it.
        holder: Uid,
    },
    /// Another conference has this room id.
    #[error("room id {room_id} belongs to the conference with uid {holder} already")]
    RoomIdTaken {
        /// The id.
        room_id: RoomId,
        /// Who has it.
        holder: Uid,
    },
    /// Another node has this id.
    #[error("node id {node_id} belongs to the node with uid {holder} already")]
    NodeIdTaken {
        /// The id.
        node_id: NodeId,
        /// Who has it.
        holder: Uid,
    },
    /// The directory is full.
    #[error("at most {max} records of kind {} can be published", kind.as_str())]
    TooMany {
        /// Kind.
        kind: RecordKind,
        /// Bound.
        max: usize,
    },
    /// A later life of the node is known.
    #[error("node {uid} is known with epoch {known} already")]
    StaleNode {
        /// The node.
        uid: Uid,
        /// What is known.
        known: Epoch,
    },
}

impl RecordRefusal {
    /// CamelCase reason for the publisher.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TenantNameTaken { .. } => "TenantNameTaken",
            Self::ApiKeyTaken { .. } => "ApiKeyTaken",
            Self::RoomNameTaken { .. } => "RoomNameTaken",
            Self::RoomIdTaken { .. } => "RoomIdTaken",
            Self::NodeIdTaken { .. } => "NodeIdTaken",
            Self::TooMany { .. } => "TooMany",
            Self::StaleNode { .. } => "StaleNode",
        }
    }
}

/// Why an order to a node is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefusal {
    /// Never published.
    #[error("node {0} is not published")]
    UnknownNode(Uid),
    /// A later life of the node is known.
    #[error("node {uid} is known with epoch {known} already")]
    StaleNode {
        /// The node.
        uid: Uid,
        /// What is known.
        known: Epoch,
    },
}

impl OrderRefusal {
    /// CamelCase reason for the publisher.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::UnknownNode(_) => "UnknownNode",
            Self::StaleNode { .. } => "StaleNode",
        }
    }
}

/// One stream of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u64);

/// Why a stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// A publisher with a higher epoch was heard within five minutes.
    #[error("a publisher with epoch {heard} was heard within 5 minutes; this stream has {own}")]
    LowerEpoch {
        /// Theirs.
        heard: Epoch,
        /// This one's.
        own: Epoch,
    },
    /// A later stream of the same epoch took over.
    #[error("a later stream took over")]
    Superseded,
    /// Epochs are positive.
    #[error("epoch 0: a publication carries the epoch of its leader, which begins with 1")]
    NoEpoch,
}

/// The records of a snapshot that has not ended. The lookups of what came so far refuse duplicates; the rest is decided at its end.
#[derive(Debug, Default)]
struct Snapshot {
    view: DirectoryView,
    /// Uids named by records that were refused: not omitted, so the last good ones stay.
    kept: BTreeSet<(RecordKind, Uid)>,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    /// Until it broke; its epoch fences others all the same.
    open: bool,
    epoch: Epoch,
    heard: Moment,
    /// Until its end was seen.
    snapshot: Option<Snapshot>,
}

/// Where what is in force came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nothing came yet.
    #[default]
    Nowhere,
    /// From the store: what was published once, perhaps not all of it, perhaps not the last word.
    Store,
    /// From a publisher, whole.
    Publication,
}

/// The directory and the one stream that may change it.
#[derive(Debug, Default)]
pub struct Directory {
    view: Arc<DirectoryView>,
    stream: Option<Stream>,
    streams: u64,
    origin: Origin,
}

impl Directory {
    /// What is in force.
    #[must_use]
    pub fn view(&self) -> Arc<DirectoryView> {
        Arc::clone(&self.view)
    }

    /// Is there anything to go by?
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.origin != Origin::Nowhere
    }

    /// Where what is in force came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Epoch of the publisher that is connected and has said everything.
    #[must_use]
    pub fn published(&self) -> Option<Epoch> {
        let stream = self.stream.as_ref()?;
        (stream.open && stream.snapshot.is_none()).then_some(stream.epoch)
    }

    /// A stream broke or was ended.
    pub fn end(&mut self, id: StreamId) {
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.id == id) {
            stream.open = false;
        }
    }

    /// Takes what was published once and kept since, unless a publisher is connected, whose word counts. Whether it was taken.
    ///
    /// Of records that exclude each other the first one stays.
    pub fn load_stored(&mut self, records: Vec<Record>) -> bool {
        if self.published().is_some() {
            return false;
        }
        let mut next = DirectoryView::default();
        for record in records {
            if next.check(&record).is_ok() {
                next.insert(record);
            }
        }
        self.view = Arc::new(next);
        self.origin = Origin::Store;
        true
    }

    /// Begins a stream.
    ///
    /// # Errors
    /// [`Fenced`].
    pub fn begin(&mut self, epoch: Epoch, now: Moment) -> Result<StreamId, Fenced> {
        if epoch == Epoch::default() {
            return Err(Fenced::NoEpoch);
        }
        if let Some(stream) = &self.stream
            && stream.epoch > epoch
            && now.since(stream.heard) < limits::PUBLICATION_FENCE
        {
            return Err(Fenced::LowerEpoch {
                heard: stream.epoch,
                own: epoch,
            });
        }
        self.streams += 1;
        let id = StreamId(self.streams);
        self.stream = Some(Stream {
            id,
            open: true,
            epoch,
            heard: now,
            snapshot: Some(Snapshot::default()),
        });
        Ok(id)
    }

    /// Checks that a message of a stream may still be taken.
    ///
    /// # Errors
    /// [`Fenced`].
    pub fn hear(&mut self, id: StreamId, epoch: Epoch, now: Moment) -> Result<(), Fenced> {
        let Some(stream) = self.stream.as_mut() else {
            return Err(Fenced::Superseded);
        };
        if stream.id != id {
            return Err(if stream.epoch > epoch {
                Fenced::LowerEpoch {
                    heard: stream.epoch,
                    own: epoch,
                }
            } else {
                Fenced::Superseded
            });
        }
        if epoch < stream.epoch {
            return Err(Fenced::LowerEpoch {
                heard: stream.epoch,
                own: epoch,
            });
        }
        stream.epoch = epoch;
        stream.heard = now;
        Ok(())
    }

    /// Takes a record, into the snapshot while that lasts. Whether anything in force changed.
    ///
    /// # Errors
    /// [`RecordRefusal`]; the last good record of the uid stays.
    pub fn put(&mut self, record: Record) -> Result<bool, RecordRefusal> {
        if let Some(snapshot) = self
            .stream
            .as_mut()
            .and_then(|stream| stream.snapshot.as_mut())
        {
            // What the store kept does not outrank a publisher.
            let stale = match &record {
                Record::Node(node) if self.origin == Origin::Publication => self
                    .view
                    .check_node(node)
                    .err()
                    .filter(|error| matches!(error, RecordRefusal::StaleNode { .. })),
                _ => None,
            };
            return match stale.map_or_else(|| snapshot.view.check(&record), Err) {
                Ok(()) => {
                    snapshot.kept.remove(&(record.kind(), record.uid().clone()));
                    snapshot.view.insert(record);
                    Ok(false)
                }
                Err(refusal) => {
                    self.refuse(record.kind(), record.uid());
                    Err(refusal)
                }
            };
        }
        if self.view.holds(&record) {
            return Ok(false);
        }
        self.view.check(&record)?;
        Arc::make_mut(&mut self.view).insert(record);
        Ok(true)
    }

    /// A record of this uid was refused before it could be read, or its publisher cannot make it now: it is not omitted from the snapshot.
    pub fn refuse(&mut self, kind: RecordKind, uid: &Uid) {
        if let Some(snapshot) = self
            .stream
            .as_mut()
            .and_then(|stream| stream.snapshot.as_mut())
        {
            let max = match kind {
                RecordKind::Tenant => limits::TENANTS_MAX,
                RecordKind::Conference => limits::CONFERENCES_MAX,
                RecordKind::Node => limits::NODES_MAX,
            };
            if snapshot.kept.len() < max {
                snapshot.kept.insert((kind, uid.clone()));
            }
        }
    }

    /// Retracts a record. Whether anything in force changed.
    pub fn retract(&mut self, kind: RecordKind, uid: &Uid) -> bool {
        if let Some(snapshot) = self
            .stream
            .as_mut()
            .and_then(|stream| stream.snapshot.as_mut())
        {
            snapshot.view.remove(kind, uid);
            snapshot.kept.remove(&(kind, uid.clone()));
            return false;
        }
        let known = match kind {
            RecordKind::Tenant => self.view.tenants.contains_key(uid),
            RecordKind::Conference => self.view.conferences.contains_key(uid),
            RecordKind::Node => self.view.nodes.contains_key(uid),
        };
        known && Arc::make_mut(&mut self.view).remove(kind, uid)
    }

    /// The snapshot is complete: it replaces what was in force.
    pub fn end_snapshot(&mut self) -> bool {
        let Some(snapshot) = self
            .stream
            .as_mut()
            .and_then(|stream| stream.snapshot.take())
        else {
            return false;
        };
        let mut next = snapshot.view;
        for (kind, uid) in &snapshot.kept {
            let last_good = match kind {
                RecordKind::Tenant => self
                    .view
                    .tenants
                    .get(uid)
                    .map(|known| Record::Tenant(Box::new(Tenant::clone(known)))),
                RecordKind::Conference => self
                    .view
                    .conferences
                    .get(uid)
                    .map(|known| Record::Conference(Box::new(Conference::clone(known)))),
                RecordKind::Node => self
                    .view
                    .nodes
                    .get(uid)
                    .map(|known| Record::Node(Node::clone(known))),
            };
            if let Some(record) = last_good
                && next.check(&record).is_ok()
            {
                next.insert(record);
            }
        }
        // A repeated record does not undo an order that came after it.
        for (uid, node) in &mut next.nodes {
            if let Some(known) = self.view.nodes.get(uid)
                && known.revision == node.revision
                && !node.revision.is_empty()
            {
                *node = Arc::clone(known);
            }
        }
        self.view = Arc::new(next);
        self.origin = Origin::Publication;
        true
    }

    /// The operator wants rooms on a node or not. Whether that changed anything.
    ///
    /// # Errors
    /// [`OrderRefusal`].
    pub fn order_accepting(
        &mut self,
        uid: &Uid,
        epoch: Epoch,
        accepting: bool,
    ) -> Result<bool, OrderRefusal> {
        if let Some(snapshot) = self
            .stream
            .as_mut()
            .and_then(|stream| stream.snapshot.as_mut())
            && snapshot.view.nodes.contains_key(uid)
        {
            snapshot.view.order_accepting(uid, epoch, accepting)?;
            if !self.view.nodes.contains_key(uid) {
                return Ok(false);
            }
        }
        self.view.check_order(uid, epoch)?;
        if self
            .view
            .nodes
            .get(uid)
            .is_some_and(|known| known.accepting == accepting)
        {
            return Ok(false);
        }
        Arc::make_mut(&mut self.view).order_accepting(uid, epoch, accepting)
    }

    /// Whether a move order may be passed on to a node.
    ///
    /// # Errors
    /// [`OrderRefusal`].
    pub fn check_move(&self, uid: &Uid, epoch: Epoch) -> Result<(), OrderRefusal> {
        self.view.check_order(uid, epoch)
    }
}
