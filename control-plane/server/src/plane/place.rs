// SPDX-License-Identifier: EUPL-1.2
//! A place for a room: found where it runs, or given to a node, with a lease from the store and the facts it had.

use std::time::Duration;

use control_core::directory::DirectoryView;
use control_core::ids::{Epoch, Pool, RoomKey, Uid};
use control_core::lease::{RoomLease, Standing, next_epoch};
use control_core::placement::{Candidate, NoNode, Wish, plan_alone, plan_join};
use control_core::quota::{QuotaRefusal, ReservationId, Usage};
use control_core::record::{RoomFacts, RoomPolicy, Tenant, TenantLimits};
use plenum_proto::v1::OpenRequest;
use tokio::time::{Instant, timeout_at};

use super::{PlaceError, PlaceRequest, Placed, Plane};
use crate::convert;
use crate::hosts::{Host, HostError};
use crate::live::{Entry, LiveNode};
use crate::metrics::Reason;
use crate::store::{PlaceCommand, PlaceOutcome, RoomRecord, StoreError};

mod candidates;

use candidates::random;

/// Nodes that are tried for one request.
const ATTEMPTS_MAX: usize = 4;
/// A lease as young as this may belong to a room that is being opened at this moment.
const OPENING: Duration = Duration::from_secs(10);
/// The first report of a room that was opened comes within this time, or the room is handed out without it.
const FIRST_REPORT: Duration = Duration::from_secs(2);

/// A room to be given to a node.
struct Assignment<'a> {
    key: &'a RoomKey,
    tenant: &'a Tenant,
    policy: RoomPolicy,
    pool: Option<Pool>,
    facts: RoomFacts,
    floor: Epoch,
    participants: u32,
    /// The lease that is replaced.
    replaces: Option<Epoch>,
    /// Where it runs while it is to move; it goes on there if nobody takes it.
    runs_at: Option<RoomLease>,
    /// Ceilings of its tenant; none where what is counted already only moves.
    limits: TenantLimits,
    /// Nodes that cannot have it.
    excluded: Vec<Uid>,
}

/// What is known of a room before it is placed.
enum Known {
    /// It runs.
    Runs(Placed),
    /// Its node has the lease and may be opening it; opening it again is harmless.
    Opening(Box<RoomRecord>, Host),
    /// Nobody has it; what is kept of it, if anything.
    Free(Option<Box<RoomRecord>>),
}

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

    /// A room that runs, if its node can be asked.
    fn running(&self, key: &RoomKey) -> Result<Option<Placed>, PlaceError> {
        let live = self.live();
        let Some((uid, node, entry)) = live.room(key) else {
            return Ok(None);
        };
        if node.standing != Standing::Alive {
            return Err(PlaceError::NodeSilent(key.clone()));
        }
        self.placed(key, uid, node, entry.epoch)
            .map(Some)
            .ok_or_else(|| PlaceError::NodeSilent(key.clone()))
    }

    async fn known(&self, key: &RoomKey) -> Result<Known, PlaceError> {
        if let Some(placed) = self.running(key)? {
            return Ok(Known::Runs(placed));
        }
        let record = match self.0.store.room(key.clone()).await {
            Ok(record) => record,
            Err(error) => {
                self.store_failed(error);
                None
            }
        };
        let Some(record) = record.map(Box::new) else {
            // A room that nobody knows may run on a node that has not reported yet.
            if self.settling() {
                return Err(PlaceError::Settling(key.clone()));
            }
            return Ok(Known::Free(None));
        };
        let live = self.live();
        // This very lease was reported lost.
        if live
            .lost_room(key)
            .is_some_and(|lost| lost.entry.epoch >= record.lease.epoch)
        {
            return Ok(Known::Free(Some(record)));
        }
        match live.node_by_id(&record.lease.node) {
            Some((uid, node))
                if node.standing == Standing::Alive && node.synced && record.age < OPENING =>
            {
                let host = self
                    .placed(key, uid, node, record.lease.epoch)
                    .map(|placed| placed.host);
                drop(live);
                match host {
                    Some(host) => Ok(Known::Opening(record, host)),
                    None => Err(PlaceError::NodeSilent(key.clone())),
                }
            }
            // Heard, all rooms named, and this one is not among them: it is gone.
            Some((_, node)) if node.standing == Standing::Alive && node.synced => {
                Ok(Known::Free(Some(record)))
            }
            Some((_, node)) if node.standing == Standing::Dead => Ok(Known::Free(Some(record))),
            Some(_) => Err(PlaceError::NodeSilent(key.clone())),
            None => {
                drop(live);
                if self.settling() {
                    Err(PlaceError::Settling(key.clone()))
                } else {
                    Ok(Known::Free(Some(record)))
                }
            }
        }
    }

    /// Less than a lease has passed since the start, and not all published nodes have named their rooms.
    pub(super) fn settling(&self) -> bool {
        let view = self.view();
        let live = self.live();
        let all = view
            .nodes()
            .all(|node| live.node(&node.uid).is_some_and(|live| live.synced));
        let grace = *self
            .0
            .grace
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        grace.lasts(all, self.0.clock.now())
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
        let reserved = self
            .0
            .store
            .reserve(
                placed.key.clone(),
                placed.node_id.clone(),
                amount,
                tenant.limits,
                node.capacity,
            )
            .await;
        match reserved {
            Ok(reserved) => Ok(reserved.map(|_| ())?),
            Err(error) => {
                // Without the store, tenant limits are best effort; the room's own limits hold in the node.
                self.store_failed(error);
                Ok(())
            }
        }
    }

    /// Gives a room to a node and opens it there.
    async fn assign(
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
        let (mut candidates, store_answers) = self.candidates(view).await;
        candidates.retain(|candidate| !assignment.excluded.contains(&candidate.uid));
        if store_answers {
            let chosen = plan_join(&wish, &candidates, random()?)?;
            match self
                .0
                .store
                .place(self.command(assignment, chosen, wish.amount))
                .await
            {
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
                Err(error @ StoreError::Away) => self.store_failed(error),
            }
        }
        // Without the store every replica chooses the same node by itself.
        let chosen = plan_alone(&wish, assignment.key, &candidates)?;
        let command = self.command(assignment, chosen, wish.amount);
        let known = command.reported.max(command.replaces);
        let epoch = next_epoch(None, known, command.floor)
            .ok_or_else(|| PlaceError::EpochsExhausted(assignment.key.clone()))?;
        let record = RoomRecord {
            lease: RoomLease {
                site: command.site,
                node: command.node,
                epoch,
            },
            policy: command.policy,
            pool: command.pool,
            facts: command.facts,
            age: Duration::ZERO,
        };
        Ok(Given::Lease(Box::new(record), None))
    }

    fn command(
        &self,
        assignment: &Assignment<'_>,
        chosen: &Candidate,
        amount: Usage,
    ) -> PlaceCommand {
        PlaceCommand {
            key: assignment.key.clone(),
            site: chosen.site.clone(),
            node: chosen.node.clone(),
            capacity: chosen.capacity,
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

    /// Opens a room under its lease and waits for its first report.
    async fn open(
        &self,
        key: &RoomKey,
        record: &RoomRecord,
        host: Host,
    ) -> Result<Placed, PlaceError> {
        let request = OpenRequest {
            key: Some(convert::room_key_out(key)),
            epoch: record.lease.epoch.0,
            policy: Some(convert::policy_out(&record.policy)),
            facts: Some(convert::facts_out(&record.facts)),
        };
        let opened = host.open(request).await?;
        if opened.epoch != record.lease.epoch.0 {
            return Err(HostError::WrongRoom {
                node: record.lease.node.clone(),
                message: format!("it lives there under epoch {}", opened.epoch),
            }
            .into());
        }
        self.wait_for_report(key, record.lease.epoch).await;
        Ok(Placed {
            key: key.clone(),
            site: record.lease.site.clone(),
            node_id: record.lease.node.clone(),
            epoch: record.lease.epoch,
            host,
        })
    }

    async fn wait_for_report(&self, key: &RoomKey, epoch: Epoch) {
        let deadline = Instant::now() + FIRST_REPORT;
        let mut changed = self.changed();
        loop {
            if self
                .live()
                .room(key)
                .is_some_and(|(_, _, entry)| entry.epoch >= epoch)
            {
                return;
            }
            if !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Moves a room away from a node that is to be emptied: the lease first, then everybody is told to come again.
    pub(super) async fn move_room(&self, key: &RoomKey, from: &Uid) -> Result<Placed, PlaceError> {
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
            None => (self.policy_of(key), None),
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
            excluded: vec![from.clone()],
        };
        let placed = self.assign(&view, assignment).await;
        drop(guard);
        placed
    }

    /// Places a room anew whose node was lost, as opened as it was.
    pub(super) async fn restore_room(
        &self,
        key: &RoomKey,
        facts: RoomFacts,
        epoch: Epoch,
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
                    .or_else(|| self.policy_of(key));
                match policy {
                    Some(policy) => {
                        let assignment = Assignment {
                            key,
                            tenant,
                            policy,
                            pool: record.as_ref().and_then(|record| record.pool.clone()),
                            facts: record.as_ref().map_or(facts, |record| record.facts.clone()),
                            floor: epoch,
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
