// SPDX-License-Identifier: EUPL-1.2
//! Records of nodes: in a cluster every `MediaNode` that is reached, on one machine every process.

use jiff::Timestamp;
use plenum_api::{MediaPoolSpec, media_pool::SrtpLegacy};

use super::{NodeEndpoint, WantedNode, millis};
use crate::{digest, limits, objects::Name, records::NodeRecord};

/// A node that is there, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredNode {
    /// Uid.
    pub uid: String,
    /// Pool.
    pub pool: Name,
    /// Site it stands in.
    pub site: String,
    /// Jurisdiction of the site; empty where none is declared.
    pub jurisdiction: String,
    /// Where it is reached.
    pub endpoint: NodeEndpoint,
    /// When a window begins that empties it, while its people are to be told.
    pub maintenance_at: Option<Timestamp>,
}

impl DeclaredNode {
    /// A process of this machine.
    #[must_use]
    pub fn local(wanted: &WantedNode, endpoint: &NodeEndpoint) -> Self {
        Self {
            uid: wanted.uid.clone(),
            pool: wanted.pool.clone(),
            site: limits::SITE_DEFAULT.to_owned(),
            jurisdiction: String::new(),
            endpoint: endpoint.clone(),
            maintenance_at: None,
        }
    }
}

/// What is published of a node. Capacity and patience come from its pool; without one the defaults hold, and its rooms go on.
#[must_use]
pub fn record(pool: Option<&MediaPoolSpec>, node: &DeclaredNode) -> NodeRecord {
    let capacity = pool.map(|pool| pool.capacity.clone()).unwrap_or_default();
    let mut record = NodeRecord {
        uid: node.uid.clone(),
        node_id: digest::node_id(&node.pool.name, &node.uid),
        site: node.site.clone(),
        pool: node.pool.to_string(),
        jurisdiction: node.jurisdiction.clone(),
        epoch: node.endpoint.epoch,
        addresses: node.endpoint.addresses.clone(),
        rooms: capacity.rooms.unwrap_or(limits::NODE_ROOMS),
        participants: capacity.participants.unwrap_or(limits::NODE_PARTICIPANTS),
        egress_mbps: capacity.egress_mbps.unwrap_or(limits::NODE_EGRESS_MBPS),
        drain_timeout_ms: pool.map_or(0, |pool| millis(&pool.drain.timeout)),
        grpc_endpoint: node.endpoint.grpc_endpoint.clone(),
        accepting: node.endpoint.accepting,
        srtp_legacy_allowed: pool
            .is_some_and(|pool| pool.security.srtp_legacy == SrtpLegacy::Allowed),
        maintenance_at_unix_ms: node.maintenance_at.map_or(0, Timestamp::as_millisecond),
        revision: String::new(),
    };
    record.revision = digest::revision(&record);
    record
}
