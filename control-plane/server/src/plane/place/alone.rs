// SPDX-License-Identifier: EUPL-1.2
//! Calls to the store that survive a lost answer, and what is decided without the store: best effort by what nodes report, with what went
//! over a limit counted.

use std::sync::atomic::Ordering;

use control_core::ids::{NodeId, TenantName, Uid};
use control_core::quota::{self, Limit, Usage};
use control_core::record::{Tenant, TenantLimits};

use super::state::OfLimit;
use crate::live::Totals;
use crate::plane::{PlaceError, Plane};
use crate::store::{Answer, Store, StoreError};

impl Plane {
    /// Asks the store, and once more if the answer did not come: the command carries its number, so nothing happens twice.
    pub(super) async fn twice<'a, T>(
        &'a self,
        call: impl Fn(&'a dyn Store) -> Answer<'a, T>,
    ) -> Result<T, StoreError> {
        match call(&*self.0.store).await {
            Err(StoreError::Away) if !self.store_is_away() => call(&*self.0.store).await,
            answer => answer,
        }
    }

    /// Was the store away when it was asked last?
    pub(super) fn store_is_away(&self) -> bool {
        self.0.store_away.load(Ordering::Acquire)
    }

    /// What is in use on a node, by its last report and what this replica put there since.
    pub(super) fn used_alone(&self, uid: &Uid, node: &NodeId) -> Usage {
        let load = self.live().node(uid).and_then(|node| node.load);
        let reported = load.map_or(Usage::default(), |load| Usage {
            rooms: load.rooms,
            participants: load.participants,
            egress_kbps: load.egress_bps / 1_000,
            ..Usage::default()
        });
        let mut recent = self.0.placing.recent();
        recent.forget(self.0.clock.now());
        reported.plus(recent.on(node))
    }

    /// What a tenant has in use: by the store, or by what nodes report.
    pub(super) async fn used_by_tenant(&self, tenant: &TenantName) -> Usage {
        if !self.store_is_away() {
            match self.0.store.tenant_usage(tenant.clone()).await {
                Ok(used) => return used,
                Err(error) => self.store_failed(error),
            }
        }
        let reported = used(self.live().totals_of(tenant));
        reported.plus(self.0.placing.alone().on(tenant))
    }

    /// What is in use on a node: by the store, or by its last report.
    pub(super) async fn used_on(&self, uid: &Uid, node: &NodeId) -> Usage {
        if !self.store_is_away() {
            match self.0.store.usage(vec![node.clone()]).await {
                Ok(used) => return used.first().copied().unwrap_or_default(),
                Err(error) => self.store_failed(error),
            }
        }
        self.used_alone(uid, node)
    }

    /// Something was put on a node; it counts here until the node reports it.
    pub(super) fn note(&self, node: &NodeId, amount: Usage) {
        let now = self.0.clock.now();
        self.0.placing.recent().placed(node.clone(), amount, now);
    }

    /// Whether a tenant has something left, by what nodes report and this replica let in since. Others let in as well meanwhile.
    pub(super) fn admit_alone(
        &self,
        tenant: &Tenant,
        limits: &TenantLimits,
        amount: Usage,
    ) -> Result<(), PlaceError> {
        let reported = used(self.live().totals_of(&tenant.name));
        let now = self.0.clock.now();
        let mut alone = self.0.placing.alone();
        alone.forget(now);
        quota::check_tenant(limits, reported.plus(alone.on(&tenant.name)), amount)?;
        alone.placed(tenant.name.clone(), amount, now);
        Ok(())
    }

    /// Counts what tenants have in use above their limits: let in while the store was away, or since a limit was lowered.
    pub(super) fn count_over_limit(&self) {
        let view = self.view();
        let over = &self.0.placing.metrics.over_limit;
        over.clear();
        let live = self.live();
        for tenant in view.tenants() {
            let used = used(live.totals_of(&tenant.name));
            for (limit, above) in above(&tenant.limits, used) {
                let label = OfLimit {
                    tenant: tenant.name.to_string(),
                    limit: limit.reason(),
                };
                over.get_or_create(&label).set(above);
            }
        }
    }
}

fn used(totals: Totals) -> Usage {
    Usage {
        rooms: totals.rooms,
        publishers: totals.publishers,
        ..Usage::of_join(false, totals.participants)
    }
}

/// What is in use above each limit that is exceeded.
fn above(limits: &TenantLimits, used: Usage) -> Vec<(Limit, i64)> {
    let egress = limits.egress_mbps.map(|mbps| u64::from(mbps) * 1_000);
    let of = |limit, used: u64, max: Option<u64>| {
        let above = used.checked_sub(max?).filter(|above| *above > 0)?;
        Some((limit, i64::try_from(above).unwrap_or(i64::MAX)))
    };
    [
        of(
            Limit::TenantRooms,
            used.rooms.into(),
            limits.rooms.map(u64::from),
        ),
        of(
            Limit::TenantParticipants,
            used.participants.into(),
            limits.participants.map(u64::from),
        ),
        of(
            Limit::TenantPublishers,
            used.publishers.into(),
            limits.publishers.map(u64::from),
        ),
        of(Limit::TenantEgress, used.egress_kbps, egress),
    ]
    .into_iter()
    .flatten()
    .collect()
}
