// SPDX-License-Identifier: EUPL-1.2
//! Rooms that have been somewhere before: moved away from a node that is to be emptied, or restored after the loss of theirs.

use control_core::ids::{RoomKey, Uid};
use control_core::lease::RoomLease;
use control_core::record::TenantLimits;

use super::assign::Assignment;
use super::find::Known;
use crate::live::{Entry, LiveNode};
use crate::plane::{PlaceError, Placed, Plane};

impl Plane {
    /// Moves a room away from a node that is to be emptied, to none of `busy`: the lease first, then everybody is told to come again.
    pub(in crate::plane) async fn move_room(
        &self,
        key: &RoomKey,
        from: &Uid,
        busy: &[Uid],
    ) -> Result<Placed, PlaceError> {
        let view = self.view();
        let tenant = view
            .tenant(&key.tenant)
            .ok_or_else(|| PlaceError::UnknownTenant(key.tenant.clone()))?;
        let guard = self.0.locks.lock(key).await;
        let (entry, lease) = {
            let live = self.live();
            let lease = |node: &LiveNode, entry: &Entry| {
                let (site, node) = (node.hello.site.clone()?, node.hello.node_id.clone()?);
                Some(RoomLease {
                    site,
                    node,
                    epoch: entry.epoch,
                })
            };
            match live
                .room(key)
                .map(|(uid, node, entry)| (uid, lease(node, entry), entry))
            {
                Some((uid, Some(lease), entry)) if uid == from => (entry.clone(), lease),
                _ => return Err(PlaceError::Contended(key.clone())),
            }
        };
        let record = self.0.store.room(key.clone()).await.ok().flatten();
        let (policy, pool) = match record {
            Some(record) => (Some(record.policy), record.pool),
            None => (
                entry
                    .policy
                    .as_deref()
                    .cloned()
                    .or_else(|| self.policy_of(key)),
                None,
            ),
        };
        let problem = "its rules are not published any more";
        let assignment = Assignment {
            key,
            tenant,
            policy: policy.ok_or_else(|| PlaceError::Invalid {
                key: key.clone(),
                problem,
            })?,
            pool,
            facts: entry.facts,
            floor: entry.epoch,
            participants: entry.participants,
            replaces: Some(entry.epoch),
            runs_at: Some(lease),
            limits: TenantLimits::default(),
            excluded: busy.iter().chain([from]).cloned().collect(),
        };
        let placed = self.assign(&view, assignment).await;
        drop(guard);
        placed
    }

    /// Places a room anew whose node was lost, as opened as it was.
    pub(in crate::plane) async fn restore_room(
        &self,
        key: &RoomKey,
        lost: &Entry,
    ) -> Result<Placed, PlaceError> {
        let view = self.view();
        let tenant = view
            .tenant(&key.tenant)
            .ok_or_else(|| PlaceError::UnknownTenant(key.tenant.clone()))?;
        let guard = self.0.locks.lock(key).await;
        let placed = match self.known(key).await {
            Ok(Known::Runs(placed)) => Ok(placed),
            Ok(Known::Opening(record, host)) => self.open(key, &record, host).await,
            Ok(Known::Free(record)) => {
                let policy = record
                    .as_ref()
                    .map(|record| record.policy.clone())
                    .or_else(|| lost.policy.as_deref().cloned())
                    .or_else(|| self.policy_of(key));
                match policy {
                    Some(policy) => {
                        let assignment = Assignment {
                            key,
                            tenant,
                            policy,
                            pool: record.as_ref().and_then(|record| record.pool.clone()),
                            facts: record
                                .as_ref()
                                .map_or_else(|| lost.facts.clone(), |record| record.facts.clone()),
                            floor: lost.epoch,
                            participants: 0,
                            replaces: record.map(|record| record.lease.epoch),
                            runs_at: None,
                            limits: TenantLimits::default(),
                            excluded: Vec::new(),
                        };
                        self.assign(&view, assignment).await
                    }
                    None => Err(PlaceError::Invalid {
                        key: key.clone(),
                        problem: "its rules are not published any more",
                    }),
                }
            }
            Err(error) => Err(error),
        };
        drop(guard);
        placed
    }
}
