// SPDX-License-Identifier: EUPL-1.2
//! What is published: tenants, conferences and nodes as one value, and the streams that change it.
//!
//! A stream begins with a snapshot, which replaces everything at its end and retracts what it omits; single changes follow. A record
//! that is refused leaves the last good one of its uid in force. Streams are fenced by the publisher's epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{Epoch, NodeId, Pool, RoomId, RoomKey, TenantName, Uid};
use crate::limits;
use crate::record::{Conference, Node, Record, RecordKind, Tenant};
use crate::time::Moment;

#[cfg(test)]
mod tests;

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

/// Tenants, conferences and nodes as one immutable value.
#[derive(Clone, Debug, Default)]
pub struct DirectoryView {
    tenants: BTreeMap<Uid, Arc<Tenant>>,
    tenant_by_name: BTreeMap<TenantName, Uid>,
    tenant_by_key: BTreeMap<String, Uid>,
    conferences: BTreeMap<Uid, Arc<Conference>>,
    conference_by_room: BTreeMap<RoomKey, Uid>,
    conference_by_id: BTreeMap<RoomId, Uid>,
    nodes: BTreeMap<Uid, Arc<Node>>,
    node_by_id: BTreeMap<NodeId, Uid>,
}

impl DirectoryView {
    /// A tenant by its name.
    #[must_use]
    pub fn tenant(&self, name: &TenantName) -> Option<&Arc<Tenant>> {
        self.tenants.get(self.tenant_by_name.get(name)?)
    }

    /// The tenant that an API key names.
    #[must_use]
    pub fn tenant_of_key(&self, key: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(self.tenant_by_key.get(key)?)
    }

    /// The conference that a link names.
    #[must_use]
    pub fn conference(&self, room_id: &RoomId) -> Option<&Arc<Conference>> {
        self.conferences.get(self.conference_by_id.get(room_id)?)
    }

    /// The declared conference of a room, if it has one.
    #[must_use]
    pub fn conference_of_room(&self, key: &RoomKey) -> Option<&Arc<Conference>> {
        self.conferences.get(self.conference_by_room.get(key)?)
    }

    /// A node by its uid.
    #[must_use]
    pub fn node(&self, uid: &Uid) -> Option<&Arc<Node>> {
        self.nodes.get(uid)
    }

    /// A node by its short id.
    #[must_use]
    pub fn node_by_id(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(self.node_by_id.get(id)?)
    }

    /// All tenants, by uid.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// All conferences, by uid.
    pub fn conferences(&self) -> impl ExactSizeIterator<Item = &Arc<Conference>> {
        self.conferences.values()
    }

    /// All nodes, by uid.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Pools in which rooms of a tenant may be placed when `wanted` is asked for: that one if it is the tenant's, otherwise the
    /// tenant's default, otherwise (a tenant without pools) every pool.
    #[must_use]
    pub fn pools_for(&self, tenant: &Tenant, wanted: Option<&Pool>) -> Vec<Pool> {
        match wanted {
            Some(pool) if tenant.pools.is_empty() || tenant.pools.contains(pool) => {
                vec![pool.clone()]
            }
            _ => tenant
                .pools
                .first()
                .map_or_else(Vec::new, |pool| vec![pool.clone()]),
        }
    }

    fn check(&self, record: &Record) -> Result<(), RecordRefusal> {
        match record {
            Record::Tenant(tenant) => self.check_tenant(tenant),
            Record::Conference(conference) => self.check_conference(conference),
            Record::Node(node) => self.check_node(node),
        }
    }

    fn check_tenant(&self, tenant: &Tenant) -> Result<(), RecordRefusal> {
        bound(
            &self.tenants,
            &tenant.uid,
            RecordKind::Tenant,
            limits::TENANTS_MAX,
        )?;
        if let Some(holder) = other(&self.tenant_by_name, &tenant.name, &tenant.uid) {
            return Err(RecordRefusal::TenantNameTaken {
                name: tenant.name.clone(),
                holder,
            });
        }
        for key in &tenant.api_keys {
            if let Some(holder) = other(&self.tenant_by_key, &key.key, &tenant.uid)
                && let Some(holder) = self.tenants.get(&holder)
            {
                return Err(RecordRefusal::ApiKeyTaken {
                    key: key.key.clone(),
                    holder: holder.name.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_conference(&self, conference: &Conference) -> Result<(), RecordRefusal> {
        bound(
            &self.conferences,
            &conference.uid,
            RecordKind::Conference,
            limits::CONFERENCES_MAX,
        )?;
        let key = conference.key();
        if let Some(holder) = other(&self.conference_by_room, &key, &conference.uid) {
            return Err(RecordRefusal::RoomNameTaken { key, holder });
        }
        if let Some(holder) = other(&self.conference_by_id, &conference.room_id, &conference.uid) {
            return Err(RecordRefusal::RoomIdTaken {
                room_id: conference.room_id.clone(),
                holder,
            });
        }
        Ok(())
    }

    fn check_node(&self, node: &Node) -> Result<(), RecordRefusal> {
        bound(&self.nodes, &node.uid, RecordKind::Node, limits::NODES_MAX)?;
        if let Some(holder) = other(&self.node_by_id, &node.node_id, &node.uid) {
            return Err(RecordRefusal::NodeIdTaken {
                node_id: node.node_id.clone(),
                holder,
            });
        }
        match self.nodes.get(&node.uid) {
            Some(known) if known.epoch > node.epoch => Err(RecordRefusal::StaleNode {
                uid: node.uid.clone(),
                known: known.epoch,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the very revision is in force. Revisions are hashes of the inputs; an empty one never matches.
    fn holds(&self, record: &Record) -> bool {
        let known = match record.kind() {
            RecordKind::Tenant => self
                .tenants
                .get(record.uid())
                .map(|known| known.revision.as_str()),
            RecordKind::Conference => self
                .conferences
                .get(record.uid())
                .map(|known| known.revision.as_str()),
            // What an accepting order changed since is undone only by facts that differ.
            RecordKind::Node => self
                .nodes
                .get(record.uid())
                .map(|known| known.revision.as_str()),
        };
        !record.revision().is_empty() && known == Some(record.revision())
    }

    fn insert(&mut self, record: Record) {
        self.remove(record.kind(), &record.uid().clone());
        match record {
            Record::Tenant(tenant) => {
                self.tenant_by_name
                    .insert(tenant.name.clone(), tenant.uid.clone());
                for key in &tenant.api_keys {
                    self.tenant_by_key
                        .insert(key.key.clone(), tenant.uid.clone());
                }
                self.tenants.insert(tenant.uid.clone(), Arc::from(tenant));
            }
            Record::Conference(conference) => {
                self.conference_by_room
                    .insert(conference.key(), conference.uid.clone());
                self.conference_by_id
                    .insert(conference.room_id.clone(), conference.uid.clone());
                self.conferences
                    .insert(conference.uid.clone(), Arc::from(conference));
            }
            Record::Node(node) => {
                self.node_by_id
                    .insert(node.node_id.clone(), node.uid.clone());
                self.nodes.insert(node.uid.clone(), Arc::new(node));
            }
        }
    }

    fn remove(&mut self, kind: RecordKind, uid: &Uid) -> bool {
        match kind {
            RecordKind::Tenant => self.tenants.remove(uid).is_some_and(|tenant| {
                self.tenant_by_name.remove(&tenant.name);
                for key in &tenant.api_keys {
                    self.tenant_by_key.remove(&key.key);
                }
                true
            }),
            RecordKind::Conference => self.conferences.remove(uid).is_some_and(|conference| {
                self.conference_by_room.remove(&conference.key());
                self.conference_by_id.remove(&conference.room_id);
                true
            }),
            RecordKind::Node => self.nodes.remove(uid).is_some_and(|node| {
                self.node_by_id.remove(&node.node_id);
                true
            }),
        }
    }

    fn order_accepting(
        &mut self,
        uid: &Uid,
        epoch: Epoch,
        accepting: bool,
    ) -> Result<bool, OrderRefusal> {
        self.check_order(uid, epoch)?;
        let Some(known) = self.nodes.get_mut(uid) else {
            return Ok(false);
        };
        let changed = known.accepting != accepting;
        if changed {
            Arc::make_mut(known).accepting = accepting;
        }
        Ok(changed)
    }

    fn check_order(&self, uid: &Uid, epoch: Epoch) -> Result<(), OrderRefusal> {
        let known = self
            .nodes
            .get(uid)
            .ok_or_else(|| OrderRefusal::UnknownNode(uid.clone()))?;
        if known.epoch > epoch && epoch != Epoch::default() {
            return Err(OrderRefusal::StaleNode {
                uid: uid.clone(),
                known: known.epoch,
            });
        }
        Ok(())
    }
}

fn bound<V>(
    map: &BTreeMap<Uid, V>,
    uid: &Uid,
    kind: RecordKind,
    max: usize,
) -> Result<(), RecordRefusal> {
    if map.len() >= max && !map.contains_key(uid) {
        return Err(RecordRefusal::TooMany { kind, max });
    }
    Ok(())
}

fn other<K: Ord>(map: &BTreeMap<K, Uid>, key: &K, own: &Uid) -> Option<Uid> {
    map.get(key).filter(|holder| *holder != own).cloned()
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
    epoch: Epoch,
    heard: Moment,
    /// Until its end was seen.
    snapshot: Option<Snapshot>,
}

/// The directory and the one stream that may change it.
#[derive(Debug, Default)]
pub struct Directory {
    view: Arc<DirectoryView>,
    stream: Option<Stream>,
    streams: u64,
    loaded: bool,
}

impl Directory {
    /// What is in force.
    #[must_use]
    pub fn view(&self) -> Arc<DirectoryView> {
        Arc::clone(&self.view)
    }

    /// Has a whole snapshot arrived?
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded
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
            let stale = match &record {
                Record::Node(node) => self
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

    /// A record of this uid was refused before it could be read: it is not omitted from the snapshot.
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
        self.loaded = true;
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
