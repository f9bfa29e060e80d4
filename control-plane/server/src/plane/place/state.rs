// SPDX-License-Identifier: EUPL-1.2
//! What a replica remembers between placements.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control_core::directory::DirectoryView;
use control_core::ids::{NodeId, TenantName, Uid};
use control_core::placement::{Candidate, Recent};
use plenum_proto::v1::conference_state::Hold;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Metrics;

/// Nodes are looked at anew after this time; earlier only where no node would do.
const SNAPSHOT_AGE: Duration = Duration::from_millis(100);

/// Label of what concerns a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfTenant {
    /// Its name.
    pub(super) tenant: String,
}

/// Label of a tenant's limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfLimit {
    /// Name of the tenant.
    pub(super) tenant: String,
    /// Which limit.
    pub(super) limit: &'static str,
}

/// What is counted about placements.
pub(super) struct PlaceMetrics {
    /// Joins and openings refused, by tenant and limit.
    pub(super) quota_refused: Family<OfLimit, Counter>,
    /// What a tenant has in use above a limit.
    pub(super) over_limit: Family<OfLimit, Gauge>,
    /// Lists of nodes that one placement needed.
    pub(super) lists: Histogram,
    /// Planned conferences whose capacity is held.
    pub(super) held: Family<OfTenant, Gauge>,
    /// Planned conferences whose capacity is to be held and is not.
    pub(super) unheld: Family<OfTenant, Gauge>,
    /// Rooms taken from a node again because it carries a tenant that shares with nobody.
    pub(super) kept_apart: Counter,
}

impl PlaceMetrics {
    fn registered(metrics: &Metrics) -> Self {
        let own = Self {
            quota_refused: Family::default(),
            over_limit: Family::default(),
            lists: Histogram::new([1.0, 2.0, 3.0]),
            held: Family::default(),
            unheld: Family::default(),
            kept_apart: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "quota_refused",
                "Joins and openings refused by a limit",
                own.quota_refused.clone(),
            );
            registry.register(
                "tenant_over_limit",
                "What a tenant has in use above a limit",
                own.over_limit.clone(),
            );
            registry.register(
                "placement_lists",
                "Lists of nodes that one placement needed",
                own.lists.clone(),
            );
            registry.register(
                "planned_held",
                "Planned conferences whose capacity is held",
                own.held.clone(),
            );
            registry.register(
                "planned_unheld",
                "Planned conferences whose capacity is to be held and is not",
                own.unheld.clone(),
            );
            registry.register(
                "rooms_kept_apart",
                "Rooms taken from a node again because it carries a tenant that shares with nobody",
                own.kept_apart.clone(),
            );
        });
        own
    }
}

/// Nodes as they were at a moment.
pub(super) struct Snapshot {
    of: Arc<DirectoryView>,
    version: u64,
    taken: Instant,
    /// All published ones.
    pub(super) candidates: Vec<Candidate>,
}

impl Snapshot {
    pub(super) fn new(of: Arc<DirectoryView>, version: u64, candidates: Vec<Candidate>) -> Self {
        Self {
            of,
            version,
            taken: Instant::now(),
            candidates,
        }
    }

    /// Has nothing changed since?
    pub(super) fn is_current(&self, view: &Arc<DirectoryView>, version: u64) -> bool {
        Arc::ptr_eq(&self.of, view) && self.version == version
    }

    /// May it be used first?
    pub(super) fn is_fresh(&self, view: &Arc<DirectoryView>, version: u64) -> bool {
        self.is_current(view, version)
            || (Arc::ptr_eq(&self.of, view) && self.taken.elapsed() < SNAPSHOT_AGE)
    }
}

/// See the module.
pub(in crate::plane) struct Placing {
    recent: Mutex<Recent<NodeId>>,
    /// People let in while the store is away and nodes have not reported them yet.
    alone: Mutex<Recent<TenantName>>,
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    /// What this replica holds for planned conferences, or could not.
    holds: Mutex<HashMap<Uid, Hold>>,
    pub(super) metrics: PlaceMetrics,
}

impl Placing {
    pub(in crate::plane) fn new(metrics: &Metrics) -> Self {
        Self {
            recent: Mutex::default(),
            alone: Mutex::default(),
            snapshot: Mutex::default(),
            holds: Mutex::default(),
            metrics: PlaceMetrics::registered(metrics),
        }
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, Recent<NodeId>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn alone(&self) -> MutexGuard<'_, Recent<TenantName>> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held now for planned conferences, by conference; everything else is not.
    pub(super) fn show_holds(&self, holds: HashMap<Uid, Hold>) {
        *self.holds.lock().unwrap_or_else(PoisonError::into_inner) = holds;
    }

    /// Whether this replica holds capacity for a conference.
    pub(in crate::plane) fn hold_of(&self, conference: &Uid) -> Hold {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.get(conference).copied().unwrap_or_default()
    }

    pub(super) fn snapshot(&self) -> MutexGuard<'_, Option<Arc<Snapshot>>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
