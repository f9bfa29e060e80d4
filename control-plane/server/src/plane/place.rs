// SPDX-License-Identifier: EUPL-1.2
//! A place for a room: found where it runs, or given to a node, with a lease from the store and the facts it had.

use control_core::directory::DirectoryView;
use control_core::ids::RoomKey;
use control_core::quota::Usage;
use control_core::record::Tenant;

use super::{PlaceError, PlaceRequest, Placed, Plane};
use crate::metrics::Reason;
use crate::store::RequestId;

mod again;
mod assign;
mod candidates;
mod find;
mod open;

use assign::Assignment;
use find::Known;

impl Plane {
    /// Places or finds a room, holds a place in it and opens it on its node. Idempotent.
    ///
    /// # Errors
    /// [`PlaceError`], with status and `Retry-After`.
    pub async fn place(&self, request: PlaceRequest) -> Result<Placed, PlaceError> {
        let result = self.place_inner(request).await;
        if let Err(error) = &result {
            self.0
                .metrics
                .place_refused
                .get_or_create(&Reason {
                    reason: error.reason(),
                })
                .inc();
        }
        result
    }

    async fn place_inner(&self, request: PlaceRequest) -> Result<Placed, PlaceError> {
        if !self.is_loaded() {
            return Err(PlaceError::NotLoaded);
        }
        let view = self.view();
        let tenant = view
            .tenant(&request.tenant)
            .ok_or_else(|| PlaceError::UnknownTenant(request.tenant.clone()))?;
        let key = RoomKey::new(request.tenant.clone(), request.room.clone());
        // A suspended tenant opens nothing; who is inside a running room may return to it unless that is ended too.
        let runs = self.running(&key)?;
        if let Some(placed) = runs {
            self.reserve(&placed, tenant, request.participants).await?;
            self.count_placed("Found");
            return Ok(placed);
        }
        if tenant.suspended {
            return Err(PlaceError::TenantSuspended(request.tenant.clone()));
        }
        let guard = self.0.locks.lock(&key).await;
        let placed = self.place_locked(&key, tenant, &view, request).await;
        drop(guard);
        placed
    }

    async fn place_locked(
        &self,
        key: &RoomKey,
        tenant: &Tenant,
        view: &DirectoryView,
        request: PlaceRequest,
    ) -> Result<Placed, PlaceError> {
        let record = match self.known(key).await? {
            Known::Runs(placed) => {
                self.reserve(&placed, tenant, request.participants).await?;
                self.count_placed("Found");
                return Ok(placed);
            }
            Known::Opening(record, host) => {
                let placed = self.open(key, &record, host).await?;
                self.reserve(&placed, tenant, request.participants).await?;
                self.count_placed("Found");
                return Ok(placed);
            }
            Known::Free(record) => record,
        };
        let lost = self
            .live()
            .lost_room(key)
            .map(|lost| lost.entry.facts.clone());
        let again = record.is_some() || lost.is_some();
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
                policy: request.policy,
                pool: request.pool,
                facts: lost.unwrap_or_default(),
                floor: request.floor,
                participants: request.participants,
                replaces: None,
                runs_at: None,
                limits: tenant.limits,
                excluded: Vec::new(),
            },
        };
        let placed = self.assign(view, assignment).await?;
        self.count_placed(if again { "Again" } else { "New" });
        Ok(placed)
    }

    fn count_placed(&self, how: &'static str) {
        self.0
            .metrics
            .placed
            .get_or_create(&Reason { reason: how })
            .inc();
    }

    async fn reserve(
        &self,
        placed: &Placed,
        tenant: &Tenant,
        participants: u32,
    ) -> Result<(), PlaceError> {
        if participants == 0 {
            return Ok(());
        }
        let Some(node) = self.view().node(placed.host.uid()).cloned() else {
            return Ok(());
        };
        let amount = Usage::of_join(false, participants);
        let reserved = match RequestId::random() {
            Ok(request) => {
                let (key, on) = (placed.key.clone(), placed.node_id.clone());
                let store = &self.0.store;
                store
                    .reserve(request, key, on, amount, tenant.limits, node.capacity)
                    .await
            }
            Err(error) => Err(error),
        };
        match reserved {
            Ok(reserved) => Ok(reserved.map(|_| ())?),
            Err(error) => {
                // Without the store, tenant limits are best effort; the room's own limits hold in the node.
                self.store_failed(error);
                Ok(())
            }
        }
    }
}
