// SPDX-License-Identifier: EUPL-1.2
//! A place for a room: found where it runs, or given to a node, with a lease from the store and the facts it had.
//!
//! A join to a room that runs asks the store once, for its reservation. A new room asks once as well where its node has room: the step
//! that gives the lease chooses the node. No join asks more often than [`TRIPS_MAX`] times while nothing fails.

use std::sync::Arc;

use control_core::directory::DirectoryView;
use control_core::ids::RoomKey;
use control_core::placement::{Wish, plan_alone};
use control_core::quota::{self, QuotaRefusal, Usage};
use control_core::record::Tenant;
use plenum_proto::v1::AdminRequest;
use plenum_proto::v1::admin_request::Call;

use super::{PlaceError, PlaceRequest, Placed, Plane};
use crate::convert;
use crate::metrics::Reason;
use crate::store::RequestId;

mod again;
mod alone;
mod assign;
mod candidates;
mod find;
mod list;
mod open;
mod planned;
mod state;

pub(super) use state::Placing;

use assign::Assignment;
use find::Known;
use state::OfLimit;

/// Round trips of the store for one join.
const TRIPS_MAX: u32 = 4;

/// How a room was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It ran.
    Found,
    /// It began.
    New,
    /// It ran elsewhere before.
    Again,
}

impl How {
    const fn reason(self) -> &'static str {
        match self {
            Self::Found => "Found",
            Self::New => "New",
            Self::Again => "Again",
        }
    }
}

impl Plane {
    /// Places or finds a room, holds a place in it and opens it on its node. Idempotent.
    ///
    /// # Errors
    /// [`PlaceError`], with status and `Retry-After`.
    pub async fn place(&self, request: PlaceRequest) -> Result<Placed, PlaceError> {
        let tenant = request.tenant.clone();
        let result = self.place_inner(request).await;
        match &result {
            Ok((_, how)) => {
                let reason = how.reason();
                let placed = &self.0.metrics.placed;
                placed.get_or_create(&Reason { reason }).inc();
            }
            Err(error) => {
                let reason = error.reason();
                let refused = &self.0.metrics.place_refused;
                refused.get_or_create(&Reason { reason }).inc();
                if let PlaceError::Quota(QuotaRefusal::Reached { limit, .. }) = error {
                    let label = OfLimit {
                        tenant: tenant.to_string(),
                        limit: limit.reason(),
                    };
                    let refused = &self.0.placing.metrics.quota_refused;
                    refused.get_or_create(&label).inc();
                }
            }
        }
        result.map(|(placed, _)| placed)
    }

    async fn place_inner(&self, request: PlaceRequest) -> Result<(Placed, How), PlaceError> {
        if !self.is_loaded() {
            return Err(PlaceError::NotLoaded);
        }
        let view = self.view();
        let tenant = view
            .tenant(&request.tenant)
            .ok_or_else(|| PlaceError::UnknownTenant(request.tenant.clone()))?;
        let key = RoomKey::new(request.tenant.clone(), request.room.clone());
        // A suspended tenant opens nothing; who is inside a running room may return to it unless that is ended too.
        if let Some(placed) = self.running(&key)? {
            return self.found(placed, tenant, &request).await;
        }
        if tenant.suspended {
            return Err(PlaceError::TenantSuspended(request.tenant.clone()));
        }
        let guard = self.0.locks.lock(&key).await;
        let placed = self.place_locked(&key, tenant, &view, request).await;
        drop(guard);
        placed
    }

    /// Whether a room would be placed and a place in it given at this moment; nothing is held. For clients that ask why they were refused.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub async fn check(&self, request: &PlaceRequest) -> Result<(), PlaceError> {
        if !self.is_loaded() {
            return Err(PlaceError::NotLoaded);
        }
        let view = self.view();
        let tenant = view
            .tenant(&request.tenant)
            .ok_or_else(|| PlaceError::UnknownTenant(request.tenant.clone()))?;
        let key = RoomKey::new(request.tenant.clone(), request.room.clone());
        let running = self.running(&key)?;
        let amount = Usage {
            publishers: request.publishers,
            ..Usage::of_join(running.is_none(), request.participants)
        };
        let used = self.used_by_tenant(&tenant.name).await;
        quota::check_tenant(&tenant.limits, used, amount)?;
        match running {
            Some(placed) => {
                if let Some(node) = view.node(placed.host.uid()) {
                    let used = self.used_on(placed.host.uid(), &placed.node_id).await;
                    quota::check_node(&node.capacity, used, amount)?;
                }
            }
            None => {
                let conference = view.conference_of_room(&key).map(Arc::as_ref);
                let pools = view.pools_for(tenant, request.pool.as_ref());
                let wish = Wish::of(tenant, conference, pools, amount);
                plan_alone(&wish, &key, &self.candidates(&view, true).candidates)?;
            }
        }
        Ok(())
    }

    async fn place_locked(
        &self,
        key: &RoomKey,
        tenant: &Tenant,
        view: &Arc<DirectoryView>,
        request: PlaceRequest,
    ) -> Result<(Placed, How), PlaceError> {
        // Whoever held the lock before has placed it.
        if let Some(placed) = self.running(key)? {
            return self.found(placed, tenant, &request).await;
        }
        let lost = self.live().lost_room(key).map(|lost| lost.entry.clone());
        // A room that had a node before is looked up first, because it goes on by its own rules; and nothing is placed that may run on a
        // node which has not reported yet. All others the placing itself finds, where they have a node.
        let mut trips = TRIPS_MAX;
        let mut record = None;
        if lost.is_some() || self.settling() {
            trips -= 1;
            match self.known(key).await? {
                Known::Runs(placed) => return self.found(placed, tenant, &request).await,
                Known::Opening(record, host) => {
                    let placed = self.open(key, &record, host).await?;
                    return self.found(placed, tenant, &request).await;
                }
                Known::Free(found) => record = found,
            }
        }
        let had_node = lost.is_some();
        let assignment = match record {
            Some(record) => Assignment {
                key,
                tenant,
                policy: record.policy,
                pool: record.pool,
                facts: record.facts,
                floor: request.floor,
                participants: request.participants,
                replaces: Some(record.lease.epoch),
                runs_at: None,
                limits: tenant.limits,
                excluded: Vec::new(),
            },
            None => Assignment {
                key,
                tenant,
                // A room that was lost goes on by the rules that it ran by.
                policy: lost
                    .as_ref()
                    .and_then(|lost| lost.policy.as_deref().cloned())
                    .unwrap_or(request.policy),
                pool: request.pool,
                facts: lost.map(|lost| lost.facts).unwrap_or_default(),
                floor: request.floor,
                participants: request.participants,
                replaces: None,
                runs_at: None,
                limits: tenant.limits,
                excluded: Vec::new(),
            },
        };
        let (placed, how) = self
            .assign_join(view, assignment, request.publishers, trips)
            .await?;
        let how = match how {
            How::New if had_node => How::Again,
            how => how,
        };
        Ok((placed, how))
    }

    async fn found(
        &self,
        placed: Placed,
        tenant: &Tenant,
        request: &PlaceRequest,
    ) -> Result<(Placed, How), PlaceError> {
        self.reserve(&placed, tenant, request.participants, request.publishers)
            .await?;
        Ok((placed, How::Found))
    }

    /// Holds places in a room that runs.
    async fn reserve(
        &self,
        placed: &Placed,
        tenant: &Tenant,
        participants: u32,
        publishers: u32,
    ) -> Result<(), PlaceError> {
        if participants == 0 {
            return Ok(());
        }
        let Some(node) = self.view().node(placed.host.uid()).cloned() else {
            return Ok(());
        };
        let amount = Usage {
            publishers,
            ..Usage::of_join(false, participants)
        };
        if !self.store_is_away()
            && let Ok(request) = RequestId::random()
        {
            let reserved = self
                .twice(|store| {
                    let (key, on) = (placed.key.clone(), placed.node_id.clone());
                    store.reserve(request, key, on, amount, tenant.limits, node.capacity)
                })
                .await;
            match reserved {
                Ok(reserved) => {
                    reserved?;
                    self.note(&placed.node_id, amount);
                    return Ok(());
                }
                Err(error) => self.store_failed(error),
            }
        }
        // Without the store, limits of the tenant and the node are best effort; the room's own limits hold in the node.
        let used = self.used_alone(placed.host.uid(), &placed.node_id);
        quota::check_node(&node.capacity, used, amount)?;
        self.admit_alone(tenant, &tenant.limits, amount)?;
        self.note(&placed.node_id, amount);
        Ok(())
    }

    /// Ends a room on a node where it must not be; nobody is in it.
    async fn end_on(&self, placed: &Placed) {
        let request = AdminRequest {
            key: Some(convert::room_key_out(&placed.key)),
            epoch: placed.epoch.0,
            actor_identity: String::new(),
            call: Some(Call::End(true)),
        };
        if let Err(error) = placed.host.admin(request).await {
            // The lease of the next node ends it as well.
            tracing::debug!(node = %placed.host.uid(), %error, "a room that was taken back did not end yet");
        }
    }
}
