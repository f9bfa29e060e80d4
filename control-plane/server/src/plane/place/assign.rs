// SPDX-License-Identifier: EUPL-1.2
//! A node for a room that has none: chosen, leased in the store, opened; the next one where that fails.

use std::collections::BTreeMap;
use std::time::Duration;

use control_core::directory::DirectoryView;
use control_core::ids::{Epoch, Pool, RoomKey, Uid};
use control_core::lease::{RoomLease, next_epoch};
use control_core::placement::{
    Candidate, NoNode, Question, Recent, Strategy, Wish, plan_alone, plan_join,
};
use control_core::quota::{QuotaRefusal, ReservationId, Usage};
use control_core::record::{RoomFacts, RoomPolicy, Tenant, TenantLimits};

use super::candidates::random;
use super::find::Known;
use crate::hosts::Host;
use crate::plane::{PlaceError, Placed, Plane};
use crate::store::{Choice, PlaceCommand, PlaceOutcome, RequestId, RoomRecord, StoreError};

/// Nodes that are tried for one request.
const ATTEMPTS_MAX: usize = 4;

/// A room to be given to a node.
pub(super) struct Assignment<'a> {
    pub(super) key: &'a RoomKey,
    pub(super) tenant: &'a Tenant,
    pub(super) policy: RoomPolicy,
    pub(super) pool: Option<Pool>,
    pub(super) facts: RoomFacts,
    pub(super) floor: Epoch,
    pub(super) participants: u32,
    /// The lease that is replaced.
    pub(super) replaces: Option<Epoch>,
    /// Where it runs while it is to move; it goes on there if nobody takes it.
    pub(super) runs_at: Option<RoomLease>,
    /// Ceilings of its tenant; none where what is counted already only moves.
    pub(super) limits: TenantLimits,
    /// Nodes that cannot have it.
    pub(super) excluded: Vec<Uid>,
}

impl Plane {
    /// Gives a room to a node and opens it there.
    pub(super) async fn assign(
        &self,
        view: &DirectoryView,
        mut assignment: Assignment<'_>,
    ) -> Result<Placed, PlaceError> {
        let undo = assignment.replaces.is_none() || assignment.runs_at.is_some();
        let mut given = None;
        let mut last: Option<PlaceError> = None;
        for _ in 0..ATTEMPTS_MAX {
            let answer = match self.give(view, &assignment).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.take_back(undo, given, assignment.key, assignment.runs_at)
                        .await;
                    // What an earlier node said tells more than that no further one is left.
                    return Err(last.unwrap_or(error));
                }
            };
            let (record, reservation) = match answer {
                Given::Lease(record, reservation) => (*record, reservation),
                Given::Held(record) => {
                    // Another replica was faster; what it placed is as good.
                    let key = assignment.key;
                    let placed = match self.known(key).await? {
                        Known::Runs(placed) => placed,
                        Known::Opening(record, host) => self.open(key, &record, host).await?,
                        Known::Free(_) => {
                            tracing::debug!(epoch = %record.lease.epoch, "a room is held by a lease that nobody fills");
                            return Err(PlaceError::Contended(key.clone()));
                        }
                    };
                    self.reserve(&placed, assignment.tenant, assignment.participants)
                        .await?;
                    return Ok(placed);
                }
                Given::NodeRefused(uid, refusal) => {
                    assignment.excluded.push(uid);
                    last = Some(refusal);
                    continue;
                }
            };
            let Some((uid, host)) = self.host_of_lease(&record.lease) else {
                last = Some(PlaceError::NodeSilent(assignment.key.clone()));
                assignment.replaces = Some(record.lease.epoch);
                given = Some(record.lease.epoch);
                continue;
            };
            match self.open(assignment.key, &record, host).await {
                Ok(placed) => return Ok(placed),
                Err(error) => {
                    tracing::info!(node = %uid, %error, "a room could not be opened, another node is tried");
                    self.give_back(assignment.key, reservation).await;
                    assignment.excluded.push(uid);
                    assignment.replaces = Some(record.lease.epoch);
                    given = Some(record.lease.epoch);
                    last = Some(error);
                }
            }
        }
        self.take_back(undo, given, assignment.key, assignment.runs_at)
            .await;
        Err(last.unwrap_or_else(|| PlaceError::Contended(assignment.key.clone())))
    }

    /// What never came to life leaves no lease behind: a new room none at all, one that was to move the lease it had.
    async fn take_back(
        &self,
        undo: bool,
        given: Option<Epoch>,
        key: &RoomKey,
        former: Option<RoomLease>,
    ) {
        if undo
            && let Some(epoch) = given
            && let Err(error) = self.0.store.undo_place(key.clone(), epoch, former).await
        {
            self.store_failed(error);
        }
    }

    async fn give_back(&self, key: &RoomKey, reservation: Option<ReservationId>) {
        if let Some(id) = reservation
            && let Err(error) = self.0.store.release(key.clone(), id).await
        {
            self.store_failed(error);
        }
    }

    fn host_of_lease(&self, lease: &RoomLease) -> Option<(Uid, Host)> {
        let live = self.live();
        let (uid, node) = live.node_by_id(&lease.node)?;
        let host = self
            .0
            .hosts
            .host(uid, &lease.site, &lease.node, &node.hello.endpoint)?;
        Some((uid.clone(), host))
    }

    async fn give(
        &self,
        view: &DirectoryView,
        assignment: &Assignment<'_>,
    ) -> Result<Given, PlaceError> {
        let wish = Wish {
            pools: view.pools_for(assignment.tenant, assignment.pool.as_ref()),
            amount: Usage::of_join(true, assignment.participants),
            ..Wish::default()
        };
        let mut candidates = self.candidates(view);
        candidates.retain(|candidate| !assignment.excluded.contains(&candidate.uid));
        if !self.0.store_away.load(std::sync::atomic::Ordering::Acquire) {
            let question = Question {
                wish: &wish,
                strategy: Strategy::Spread,
                held: None,
                refused: &BTreeMap::new(),
                recent: &Recent::default(),
                seed: u64::from_le_bytes(random()?),
            };
            let list = plan_join(&question, &candidates)?;
            let chosen = *list.choices.first().ok_or(NoNode::default())?;
            let placed = match RequestId::random() {
                Ok(request) => {
                    let command = self.command(request, assignment, chosen, wish.amount);
                    self.0.store.place(command).await
                }
                Err(error) => Err(error),
            };
            match placed {
                Ok(PlaceOutcome::Placed(record, id)) => {
                    return Ok(Given::Lease(Box::new(record), Some(id)));
                }
                Ok(PlaceOutcome::Held(record)) => return Ok(Given::Held(Box::new(record))),
                Ok(PlaceOutcome::Refused(refusal)) if !is_of_node(refusal) => {
                    return Err(refusal.into());
                }
                Ok(PlaceOutcome::Refused(refusal)) => {
                    return Ok(Given::NodeRefused(chosen.uid.clone(), refusal.into()));
                }
                Ok(PlaceOutcome::NotAccepting) => {
                    let refusal = NoNode {
                        not_accepting: 1,
                        ..NoNode::default()
                    };
                    return Ok(Given::NodeRefused(chosen.uid.clone(), refusal.into()));
                }
                Ok(PlaceOutcome::EpochsExhausted) => {
                    return Err(PlaceError::EpochsExhausted(assignment.key.clone()));
                }
                Err(StoreError::Full { .. }) => return Err(PlaceError::StoreFull),
                Err(error @ (StoreError::Away | StoreError::Broken { .. })) => {
                    self.store_failed(error);
                }
            }
        }
        // Without the store every replica chooses the same node by itself.
        let chosen = plan_alone(&wish, assignment.key, &candidates)?;
        let reported = self.live().reported_epoch(assignment.key);
        let known = reported.max(assignment.replaces);
        let epoch = next_epoch(None, known, assignment.floor)
            .ok_or_else(|| PlaceError::EpochsExhausted(assignment.key.clone()))?;
        let record = RoomRecord {
            lease: RoomLease {
                site: chosen.site.clone(),
                node: chosen.node.clone(),
                epoch,
            },
            policy: assignment.policy.clone(),
            pool: assignment.pool.clone(),
            facts: assignment.facts.clone(),
            age: Duration::ZERO,
        };
        Ok(Given::Lease(Box::new(record), None))
    }

    fn command(
        &self,
        request: RequestId,
        assignment: &Assignment<'_>,
        chosen: &Candidate,
        amount: Usage,
    ) -> PlaceCommand {
        PlaceCommand {
            request,
            key: assignment.key.clone(),
            choices: vec![Choice {
                site: chosen.site.clone(),
                node: chosen.node.clone(),
                capacity: chosen.capacity,
            }],
            strategy: Strategy::Spread,
            limits: assignment.limits,
            amount,
            replaces: assignment.replaces,
            reported: self.live().reported_epoch(assignment.key),
            floor: assignment.floor,
            policy: assignment.policy.clone(),
            pool: assignment.pool.clone(),
            facts: assignment.facts.clone(),
        }
    }
}

/// What the store did with an assignment.
enum Given {
    /// The node has the lease.
    Lease(Box<RoomRecord>, Option<ReservationId>),
    /// Somebody else has it.
    Held(Box<RoomRecord>),
    /// Another node has to be tried.
    NodeRefused(Uid, PlaceError),
}

const fn is_of_node(refusal: QuotaRefusal) -> bool {
    match refusal {
        QuotaRefusal::Reached { limit, .. } => limit.is_of_node(),
        QuotaRefusal::TooManyReservations(_) => false,
    }
}
