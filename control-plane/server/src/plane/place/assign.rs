// SPDX-License-Identifier: EUPL-1.2
//! A node for a room that has none: chosen among a few and leased in one step of the store, then opened; the next one where that fails.

use std::sync::Arc;
use std::time::Duration;

use control_core::directory::DirectoryView;
use control_core::ids::{Epoch, NodeId, Pool, RoomKey, Uid};
use control_core::lease::{RoomLease, next_epoch};
use control_core::placement::{Candidate, Hold, NoNode, Strategy, Unfit, Wish, plan_alone};
use control_core::quota::{ReservationId, Usage};
use control_core::record::{Conference, RoomFacts, RoomPolicy, Tenant, TenantLimits};

use super::find::Known;
use super::list::{Asks, Tries};
use super::{How, TRIPS_MAX};
use crate::hosts::Host;
use crate::plane::{PlaceError, Placed, Plane};
use crate::store::{
    HoldCommand, HoldOutcome, PlaceCommand, PlaceOutcome, RequestId, RoomRecord, StoreError,
};

/// Nodes on which opening a room is tried for one request.
const OPENS_MAX: usize = 4;
/// What is held when a room is opened before its replica's calendar came to it; the calendar renews it.
const HOLD_FIRST: Duration = Duration::from_secs(60);

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

/// What the store did with an assignment.
enum Given {
    /// The node has the lease.
    Lease(Box<RoomRecord>, Option<ReservationId>),
    /// Somebody else has it.
    Held(Box<RoomRecord>),
}

impl Plane {
    /// Gives a room to a node and opens it there.
    pub(super) async fn assign(
        &self,
        view: &Arc<DirectoryView>,
        assignment: Assignment<'_>,
    ) -> Result<Placed, PlaceError> {
        self.assign_join(view, assignment, 0, TRIPS_MAX)
            .await
            .map(|(placed, _)| placed)
    }

    /// The same for a join of so many who may publish, with so many round trips of the store left.
    pub(super) async fn assign_join(
        &self,
        view: &Arc<DirectoryView>,
        mut assignment: Assignment<'_>,
        publishers: u32,
        trips: u32,
    ) -> Result<(Placed, How), PlaceError> {
        let former = assignment.runs_at.clone();
        let mut undo = assignment.replaces.is_none() || former.is_some();
        let mut given = None;
        let mut last: Option<PlaceError> = None;
        let mut opens = 0;
        let mut tries = Tries::new(trips);
        for uid in assignment.excluded.drain(..) {
            tries.refused.insert(uid, Unfit::NotAccepting);
        }
        let ended = loop {
            let answer = self.give(view, &assignment, publishers, &mut tries).await;
            let (record, reservation) = match answer {
                // What an earlier node said tells more than that no further one is left.
                Err(error) => break last.unwrap_or(error),
                Ok(Given::Lease(record, reservation)) => (*record, reservation),
                Ok(Given::Held(record)) => {
                    match self.take_found(&assignment, *record, publishers).await {
                        Ok(Found::Placed(placed)) => return Ok((*placed, How::Found)),
                        Ok(Found::Free(record)) if assignment.replaces.is_none() => {
                            // Nobody fills its lease any more: it begins where it ended.
                            assignment.replaces = Some(record.lease.epoch);
                            assignment.policy = record.policy;
                            assignment.pool = record.pool;
                            assignment.facts = record.facts;
                            undo = false;
                            continue;
                        }
                        Ok(Found::Free(_)) => {
                            break PlaceError::Contended(assignment.key.clone());
                        }
                        Err(error) => break error,
                    }
                }
            };
            if opens > 0 {
                tracing::debug!(epoch = %record.lease.epoch, "a further node got the lease");
            }
            opens += 1;
            given = Some(record.lease.epoch);
            let how = if undo && former.is_none() {
                How::New
            } else {
                How::Again
            };
            let failed = match self.open_given(view, &assignment, &record).await {
                Ok(placed) => return Ok((placed, how)),
                Err(failed) => failed,
            };
            self.give_back(assignment.key, reservation).await;
            if let Some(uid) = failed.node {
                tries.refused.insert(uid, failed.unfit);
            }
            assignment.replaces = Some(record.lease.epoch);
            // Joins that open a room are rare, and those whose node fails rarer.
            tries.trips = tries.trips.max(2);
            last = Some(failed.error);
            if opens >= OPENS_MAX {
                break last.unwrap_or_else(|| PlaceError::Contended(assignment.key.clone()));
            }
        };
        self.take_back(undo, given, assignment.key, former).await;
        Err(ended)
    }

    /// A room whose lease somebody else has: what became of it.
    async fn take_found(
        &self,
        assignment: &Assignment<'_>,
        record: RoomRecord,
        publishers: u32,
    ) -> Result<Found, PlaceError> {
        let key = assignment.key;
        let placed = match self.judge_record(key, Some(Box::new(record))).await? {
            Known::Runs(placed) => placed,
            Known::Opening(record, host) => self.open(key, &record, host).await?,
            Known::Free(Some(record)) if assignment.runs_at.is_none() => {
                return Ok(Found::Free(record));
            }
            Known::Free(_) => return Err(PlaceError::Contended(key.clone())),
        };
        self.reserve(
            &placed,
            assignment.tenant,
            assignment.participants,
            publishers,
        )
        .await?;
        Ok(Found::Placed(Box::new(placed)))
    }

    /// Opens a room on the node that got its lease, and looks who else is there.
    async fn open_given(
        &self,
        view: &DirectoryView,
        assignment: &Assignment<'_>,
        record: &RoomRecord,
    ) -> Result<Placed, Failed> {
        let Some((uid, host)) = self.host_of_lease(&record.lease) else {
            return Err(Failed {
                node: view
                    .node_by_id(&record.lease.node)
                    .map(|node| node.uid.clone()),
                unfit: Unfit::Silent,
                error: PlaceError::NodeSilent(assignment.key.clone()),
            });
        };
        let placed = match self.open(assignment.key, record, host).await {
            Ok(placed) => placed,
            Err(error) => {
                tracing::info!(event = "RoomOpenFailed", node = %uid, %error, "a room could not be opened, another node is tried");
                return Err(Failed {
                    node: Some(uid),
                    unfit: Unfit::NotAccepting,
                    error,
                });
            }
        };
        // Two replicas may have chosen one empty node at once. The node reports rooms in the order of their opening, so whoever came
        // second sees it here, before anybody has entered.
        if self.is_shared_wrongly(view, assignment.tenant, &uid) {
            tracing::info!(event = "RoomTakenBack", node = %uid, tenant = %assignment.tenant.name, "a room is taken back from a node that another tenant's rooms are kept apart on");
            self.0.placing.metrics.kept_apart.inc();
            self.end_on(&placed).await;
            return Err(Failed {
                node: Some(uid),
                unfit: Unfit::Shared,
                error: PlaceError::NoCapacity(NoNode {
                    shared: 1,
                    ..NoNode::default()
                }),
            });
        }
        Ok(placed)
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
        view: &Arc<DirectoryView>,
        assignment: &Assignment<'_>,
        publishers: u32,
        tries: &mut Tries,
    ) -> Result<Given, PlaceError> {
        let conference = view.conference_of_room(assignment.key).map(Arc::as_ref);
        let asks = Asks {
            wish: Wish::of(
                assignment.tenant,
                conference,
                view.pools_for(assignment.tenant, assignment.pool.as_ref()),
                Usage {
                    publishers,
                    ..Usage::of_join(true, assignment.participants)
                },
            ),
            strategy: conference.map_or_else(Strategy::default, |conference| conference.strategy),
        };
        let given = if self.store_is_away() {
            Ok(None)
        } else {
            self.give_by_store(view, assignment, conference, &asks, tries)
                .await
        };
        let given = match given {
            Ok(Some(given)) => Ok(given),
            Ok(None) => self.give_alone(view, assignment, &asks.wish, tries),
            Err(error) => Err(error),
        };
        given.map_err(|error| match error {
            // Shortly after a start nodes are heard of before they have said what they take: that is no lack of capacity.
            PlaceError::NoCapacity(none)
                if none.not_ready > 0 && self.grace().lasts(|| false, self.0.clock.now()) =>
            {
                PlaceError::Settling(assignment.key.clone())
            }
            error => error,
        })
    }

    /// Offers lists of nodes to the store until one of them has the room. `None` = it does not answer.
    async fn give_by_store(
        &self,
        view: &Arc<DirectoryView>,
        assignment: &Assignment<'_>,
        conference: Option<&Conference>,
        asks: &Asks,
        tries: &mut Tries,
    ) -> Result<Option<Given>, PlaceError> {
        if tries.held.is_none() {
            tries.held = Some(self.held_for(view, assignment, conference, tries).await?);
        }
        while tries.trips > 1 {
            let list = self.list(view, asks, tries)?;
            let Ok(request) = RequestId::random() else {
                return Ok(None);
            };
            let command = PlaceCommand {
                request,
                key: assignment.key.clone(),
                choices: list.choices,
                strategy: list.strategy,
                limits: assignment.limits,
                amount: asks.wish.amount,
                replaces: assignment.replaces,
                reported: self.live().reported_epoch(assignment.key),
                floor: assignment.floor,
                policy: assignment.policy.clone(),
                pool: assignment.pool.clone(),
                facts: assignment.facts.clone(),
            };
            tries.trips -= 1;
            tries.lists += 1;
            let unfit = match self.twice(|store| store.place(command.clone())).await {
                Ok(PlaceOutcome::Placed(record, id)) => {
                    self.note(&record.lease.node, asks.wish.amount);
                    self.0.placing.metrics.lists.observe(f64::from(tries.lists));
                    return Ok(Some(Given::Lease(Box::new(record), Some(id))));
                }
                Ok(PlaceOutcome::Held(record)) => return Ok(Some(Given::Held(Box::new(record)))),
                Ok(PlaceOutcome::Refused(refusal)) if refusal.is_of_tenant() => {
                    return Err(refusal.into());
                }
                Ok(PlaceOutcome::Refused(_)) => Unfit::Full,
                Ok(PlaceOutcome::NotAccepting) => Unfit::NotAccepting,
                Ok(PlaceOutcome::EpochsExhausted) => {
                    return Err(PlaceError::EpochsExhausted(assignment.key.clone()));
                }
                Err(StoreError::Full { .. }) => return Err(PlaceError::StoreFull),
                Err(error @ (StoreError::Away | StoreError::Broken { .. })) => {
                    self.store_failed(error);
                    return Ok(None);
                }
            };
            self.remember_refused(tries, list.nodes, unfit);
        }
        Err(self.tally(view, asks, tries).into())
    }

    /// The node that holds capacity for a planned conference whose time has come; it is held now if it was not.
    async fn held_for(
        &self,
        view: &Arc<DirectoryView>,
        assignment: &Assignment<'_>,
        conference: Option<&Conference>,
        tries: &mut Tries,
    ) -> Result<Option<NodeId>, PlaceError> {
        let now = self.0.clock.unix();
        let Some(hold) =
            conference.and_then(|conference| Hold::due(assignment.tenant, conference, now))
        else {
            return Ok(None);
        };
        let asks = Asks::of_hold(view, assignment.tenant, conference, &hold);
        let list = self.list(view, &asks, tries)?;
        tries.trips = tries.trips.saturating_sub(1);
        let command = HoldCommand {
            key: hold.key,
            choices: list.choices,
            strategy: list.strategy,
            amount: hold.amount,
            limits: assignment.tenant.limits,
            lifetime: HOLD_FIRST,
        };
        match self.twice(|store| store.hold(command.clone())).await {
            Ok(HoldOutcome::Held(node)) => Ok(Some(node)),
            // It opens all the same, with what there is.
            Ok(HoldOutcome::Refused(_) | HoldOutcome::NotAccepting) => Ok(None),
            Err(error) => {
                self.store_failed(error);
                Ok(None)
            }
        }
    }

    /// Without the store every replica chooses the same node by itself.
    fn give_alone(
        &self,
        view: &Arc<DirectoryView>,
        assignment: &Assignment<'_>,
        wish: &Wish,
        tries: &Tries,
    ) -> Result<Given, PlaceError> {
        self.admit_alone(assignment.tenant, &assignment.limits, wish.amount)?;
        let snapshot = self.candidates(view, true);
        let left: Vec<Candidate> = snapshot
            .candidates
            .iter()
            .filter(|candidate| !tries.refused.contains_key(&candidate.uid))
            .cloned()
            .collect();
        let chosen = plan_alone(wish, assignment.key, &left)?;
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
}

/// A room that somebody else placed.
enum Found {
    /// It runs.
    Placed(Box<Placed>),
    /// Its lease is left over.
    Free(Box<RoomRecord>),
}

/// Why a room does not run on the node that had got it.
struct Failed {
    node: Option<Uid>,
    unfit: Unfit,
    error: PlaceError,
}
