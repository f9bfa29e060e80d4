// SPDX-License-Identifier: EUPL-1.2
//! The directory as one immutable value, with its lookups.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{OrderRefusal, RecordRefusal};
use crate::ids::{Epoch, NodeId, Pool, RoomId, RoomKey, TenantName, Uid};
use crate::limits;
use crate::record::{Conference, Node, Record, RecordKind, Tenant};

/// Tenants, conferences and nodes as one immutable value.
#[derive(Clone, Debug, Default)]
pub struct DirectoryView {
    pub(super) tenants: BTreeMap<Uid, Arc<Tenant>>,
    pub(super) tenant_by_name: BTreeMap<TenantName, Uid>,
    pub(super) tenant_by_key: BTreeMap<String, Uid>,
    pub(super) conferences: BTreeMap<Uid, Arc<Conference>>,
    pub(super) conference_by_room: BTreeMap<RoomKey, Uid>,
    pub(super) conference_by_id: BTreeMap<RoomId, Uid>,
    pub(super) nodes: BTreeMap<Uid, Arc<Node>>,
    pub(super) node_by_id: BTreeMap<NodeId, Uid>,
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

    pub(super) fn check(&self, record: &Record) -> Result<(), RecordRefusal> {
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

    pub(super) fn check_node(&self, node: &Node) -> Result<(), RecordRefusal> {
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
    pub(super) fn holds(&self, record: &Record) -> bool {
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

    pub(super) fn insert(&mut self, record: Record) {
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

    pub(super) fn remove(&mut self, kind: RecordKind, uid: &Uid) -> bool {
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

    pub(super) fn order_accepting(
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

    pub(super) fn check_order(&self, uid: &Uid, epoch: Epoch) -> Result<(), OrderRefusal> {
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
