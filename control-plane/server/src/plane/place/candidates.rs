// SPDX-License-Identifier: EUPL-1.2
//! Nodes as placement sees them: published and heard.

use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use control_core::directory::DirectoryView;
use control_core::ids::{TenantName, Uid};
use control_core::lease::Standing;
use control_core::placement::{Candidate, NoNode, Occupants};
use control_core::quota::Usage;
use control_core::record::{Node, Tenant};

use super::state::Snapshot;
use crate::live::LiveView;
use crate::plane::Plane;

impl Plane {
    /// All published nodes as placement sees them. Not older than a tenth of a second, and true to this moment if `anew`.
    pub(super) fn candidates(&self, view: &Arc<DirectoryView>, anew: bool) -> Arc<Snapshot> {
        let version = *self.0.changed.borrow();
        let known = self.0.placing.snapshot().clone();
        let usable = |snapshot: &Arc<Snapshot>| {
            snapshot.is_current(view, version) || (!anew && snapshot.is_fresh(view, version))
        };
        if let Some(snapshot) = known.filter(usable) {
            return snapshot;
        }
        let someone_dedicated = view.tenants().any(|tenant| tenant.dedicated_nodes);
        let live = self.live();
        let candidates = view
            .nodes()
            .map(|node| {
                let occupants = if someone_dedicated {
                    occupants(view, &live, &node.uid)
                } else {
                    Occupants::Nobody
                };
                candidate(node, &live, occupants)
            })
            .collect();
        drop(live);
        let snapshot = Arc::new(Snapshot::new(Arc::clone(view), version, candidates));
        *self.0.placing.snapshot() = Some(Arc::clone(&snapshot));
        snapshot
    }

    /// Whether a node carries, beside this tenant's rooms, those of others, and one of them shares with nobody.
    pub(super) fn is_shared_wrongly(
        &self,
        view: &DirectoryView,
        tenant: &Tenant,
        node: &Uid,
    ) -> bool {
        let dedicated = tenant.dedicated_nodes;
        if !dedicated && !view.tenants().any(|tenant| tenant.dedicated_nodes) {
            return false;
        }
        let live = self.live();
        tenants_on(&live, node).iter().any(|other| {
            *other != tenant.name
                && (dedicated
                    || view
                        .tenant(other)
                        .is_some_and(|other| other.dedicated_nodes))
        })
    }
}

/// Tenants with rooms on a node, in order.
fn tenants_on(live: &LiveView, node: &Uid) -> Vec<TenantName> {
    let mut tenants: Vec<TenantName> = Vec::new();
    for key in live.keys_of(node) {
        if tenants.last() != Some(&key.tenant) {
            tenants.push(key.tenant);
        }
    }
    tenants
}

fn occupants(view: &DirectoryView, live: &LiveView, node: &Uid) -> Occupants {
    let tenants = tenants_on(live, node);
    let dedicated = |tenant: &TenantName| {
        view.tenant(tenant)
            .is_some_and(|tenant| tenant.dedicated_nodes)
    };
    match tenants.as_slice() {
        [] => Occupants::Nobody,
        [one] => Occupants::One {
            tenant: one.clone(),
            dedicated: dedicated(one),
        },
        // One of them became alone by right while it shared; nobody else comes beside it.
        several => match several.iter().find(|tenant| dedicated(tenant)) {
            Some(alone) => Occupants::One {
                tenant: alone.clone(),
                dedicated: true,
            },
            None => Occupants::Several,
        },
    }
}

fn candidate(node: &Node, live: &LiveView, occupants: Occupants) -> Candidate {
    let heard = live.node(&node.uid);
    let load = heard.and_then(|heard| heard.load);
    let used = load.map_or(Usage::default(), |load| Usage {
        rooms: load.rooms,
        participants: load.participants,
        egress_kbps: load.egress_bps / 1_000,
        ..Usage::default()
    });
    Candidate {
        uid: node.uid.clone(),
        node: node.node_id.clone(),
        pool: node.pool.clone(),
        site: node.site.clone(),
        jurisdiction: node.jurisdiction.clone(),
        accepting: node.accepting && load.is_some_and(|load| load.accepting),
        ready: heard.is_some_and(|heard| {
            heard.synced
                && heard.load.is_some()
                && heard.hello.epoch == node.epoch
                && heard.hello.node_id.as_ref() == Some(&node.node_id)
        }),
        standing: heard.map_or(Standing::Dead, |heard| heard.standing),
        capacity: node.capacity,
        used,
        occupants,
    }
}

/// A random number.
pub(super) fn random() -> Result<u64, NoNode> {
    let mut bytes = [0; 8];
    // The system's generator fails only where nothing works any more; no choice is made then.
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoNode::default())?;
    Ok(u64::from_le_bytes(bytes))
}
