// SPDX-License-Identifier: EUPL-1.2
//! The store of a single replica, in its memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, Pool, RoomKey, TenantName, Uid};
use control_core::lease::{NodeLease, RoomLease, keeps_lease, next_epoch};
use control_core::limits;
use control_core::quota::{NoChoice, Offer, QuotaLedger, QuotaRefusal, ReservationId, Usage};
use control_core::record::{Capacity, RecordKind, RoomFacts, RoomPolicy, TenantLimits};
use control_core::throttle::Failures;
use control_core::time::Moment;

use self::events::Queues;
use self::records::Records;
use super::{
    Answer, COUNT_LIFETIME, Choice, EventQueue, FailureScope, HOLD_MAX, HoldCommand, HoldOutcome,
    MARK, NODES_MAX, PlaceCommand, PlaceOutcome, Pushed, QueuedEvent, ROOMS_MAX, RecordOutcome,
    ReportOutcome, RequestId, RoomRecord, RoomReport, Store, StoreError, StoredRecord,
    check_choices, check_name, room_lifetime,
};

mod events;
mod records;

/// Counters of failures kept at most; beyond that the one that is oldest goes.
pub const COUNTERS_MAX: usize = 50_000;

struct Room {
    lease: RoomLease,
    /// The request that gave the lease, until it changes.
    request: Option<RequestId>,
    given: Moment,
    expires: Moment,
    policy: RoomPolicy,
    pool: Option<Pool>,
    facts: RoomFacts,
}

impl Room {
    fn record(&self, now: Moment) -> RoomRecord {
        RoomRecord {
            lease: self.lease.clone(),
            policy: self.policy.clone(),
            pool: self.pool.clone(),
            facts: self.facts.clone(),
            age: now.since(self.given),
        }
    }
}

struct Node {
    lease: NodeLease,
    expires: Moment,
}

#[derive(Default)]
struct State {
    rooms: BTreeMap<RoomKey, Room>,
    nodes: BTreeMap<NodeId, Node>,
    /// Nodes that take no rooms, and until when that is remembered.
    closed_to_rooms: BTreeMap<NodeId, Moment>,
    ledger: QuotaLedger,
    failures: BTreeMap<FailureScope, (u32, Moment)>,
    claims: BTreeMap<String, (String, Moment)>,
    records: Records,
    queues: Queues,
}

/// See the module.
pub struct MemoryStore {
    state: Mutex<State>,
    now: Arc<dyn Fn() -> Moment + Send + Sync>,
}

impl MemoryStore {
    /// Empty, with the store's own clock.
    #[must_use]
    pub fn new(now: Arc<dyn Fn() -> Moment + Send + Sync>) -> Self {
        Self {
            state: Mutex::default(),
            now,
        }
    }

    /// Runs one atomic step.
    fn step<'a, T: Send + 'a>(
        &self,
        run: impl FnOnce(&mut State, Moment) -> Result<T, StoreError>,
    ) -> Answer<'a, T> {
        let now = (self.now)();
        // A step that panicked may have left counts behind, never a lease of two owners: reports put counts right.
        let mut state: MutexGuard<'_, State> =
            self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(std::future::ready(run(&mut state, now)))
    }
}

fn refused(none: NoChoice) -> PlaceOutcome {
    match none {
        NoChoice::Refused(refusal) => PlaceOutcome::Refused(refusal),
        NoChoice::NotAccepting => PlaceOutcome::NotAccepting,
    }
}

impl State {
    fn room(&mut self, key: &RoomKey, now: Moment) -> Option<&mut Room> {
        if self.rooms.get(key).is_some_and(|room| room.expires <= now) {
            self.rooms.remove(key);
        }
        self.rooms.get_mut(key)
    }

    /// Makes sure that one more room may be kept.
    fn make_room(&mut self, now: Moment) -> Result<(), StoreError> {
        if self.rooms.len() >= ROOMS_MAX {
            self.rooms.retain(|_, room| room.expires > now);
            if self.rooms.len() >= ROOMS_MAX {
                return Err(StoreError::Full { what: "rooms" });
            }
        }
        Ok(())
    }

    fn accepts(&self, node: &NodeId, now: Moment) -> bool {
        self.closed_to_rooms
            .get(node)
            .is_none_or(|until| *until <= now)
    }

    fn offers<'a>(&self, choices: &'a [Choice], now: Moment) -> Vec<Offer<'a>> {
        choices
            .iter()
            .map(|choice| Offer {
                node: &choice.node,
                capacity: &choice.capacity,
                accepting: self.accepts(&choice.node, now),
            })
            .collect()
    }

    fn place(
        &mut self,
        mut command: PlaceCommand,
        now: Moment,
    ) -> Result<PlaceOutcome, StoreError> {
        check_choices(&command.choices)?;
        let stored = self.room(&command.key, now);
        let asked = stored.as_ref().and_then(|room| room.request);
        let stored = stored.map(|room| room.record(now));
        let stored_epoch = stored.as_ref().map(|record| record.lease.epoch);
        match &stored {
            Some(record) if asked == Some(command.request) => {
                let id = command.request.reservation();
                return Ok(PlaceOutcome::Placed(record.clone(), id));
            }
            Some(record) if command.replaces != Some(record.lease.epoch) => {
                return Ok(PlaceOutcome::Held(record.clone()));
            }
            // What was to be replaced ran out meanwhile: nobody holds the room, and the facts that come along are the best there are.
            _ => {}
        }
        let known = command.reported.max(command.replaces);
        let Some(epoch) = next_epoch(stored_epoch, known, command.floor) else {
            return Ok(PlaceOutcome::EpochsExhausted);
        };
        if stored.is_none() {
            self.make_room(now)?;
        }
        let offers = self.offers(&command.choices, now);
        let chosen = self.ledger.place(
            &command.key,
            command.request.reservation(),
            &offers,
            command.strategy,
            command.amount,
            &command.limits,
            now,
        );
        let choice = match chosen {
            Ok(index) => command.choices.swap_remove(index),
            Err(none) => return Ok(refused(none)),
        };
        let room = Room {
            lease: RoomLease {
                site: choice.site,
                node: choice.node,
                epoch,
            },
            request: Some(command.request),
            given: now,
            expires: now.after(room_lifetime(&command.policy)),
            policy: command.policy,
            pool: command.pool,
            facts: stored.map_or(command.facts, |record| record.facts),
        };
        let record = room.record(now);
        self.rooms.insert(command.key, room);
        let id = command.request.reservation();
        Ok(PlaceOutcome::Placed(record, id))
    }

    fn hold(&mut self, mut command: HoldCommand, now: Moment) -> Result<HoldOutcome, StoreError> {
        check_choices(&command.choices)?;
        let runs_on = self
            .room(&command.key, now)
            .map(|room| room.lease.node.clone());
        let offers = self.offers(&command.choices, now);
        let held = self.ledger.hold(
            &command.key,
            runs_on.as_ref(),
            &offers,
            command.strategy,
            command.amount,
            &command.limits,
            command.lifetime.min(HOLD_MAX),
            now,
        );
        Ok(match held {
            Ok(index) => HoldOutcome::Held(command.choices.swap_remove(index).node),
            Err(NoChoice::Refused(refusal)) => HoldOutcome::Refused(refusal),
            Err(NoChoice::NotAccepting) => HoldOutcome::NotAccepting,
        })
    }

    fn report_room(
        &mut self,
        report: RoomReport,
        now: Moment,
    ) -> Result<ReportOutcome, StoreError> {
        let mut lifetime = COUNT_LIFETIME;
        let people = self.room(&report.key, now).map(|room| room.lease.clone());
        let people = people.map_or(0, |lease| self.ledger.people_on(&report.key, &lease.node));
        if let Some(room) = self.room(&report.key, now) {
            if room.lease.epoch > report.lease.epoch
                || keeps_lease(&room.lease, people, &report.lease, report.participants)
            {
                return Ok(ReportOutcome::Fenced(room.lease.epoch));
            }
            if room.lease != report.lease {
                room.given = now;
                room.lease = report.lease.clone();
                room.request = None;
            }
            room.facts = report.facts;
            lifetime = room_lifetime(&room.policy);
            room.expires = now.after(lifetime);
        } else if let Some(policy) = report.policy {
            self.make_room(now)?;
            lifetime = room_lifetime(&policy);
            let room = Room {
                lease: report.lease.clone(),
                request: None,
                given: now,
                expires: now.after(lifetime),
                policy,
                pool: None,
                facts: report.facts,
            };
            self.rooms.insert(report.key.clone(), room);
        }
        self.ledger.report(
            &report.key,
            &report.lease.node,
            report.participants,
            report.publishers,
            lifetime,
            now,
        );
        Ok(ReportOutcome::Taken)
    }

    fn close_room(&mut self, key: &RoomKey, lease: &RoomLease, keep_facts: bool, now: Moment) {
        if !keep_facts && self.room(key, now).is_some_and(|room| room.lease == *lease) {
            self.rooms.remove(key);
        }
        self.ledger.close(key, &lease.node, now);
    }

    fn refresh_node(&mut self, lease: NodeLease, now: Moment) -> Result<(), StoreError> {
        let expires = now.after(limits::LEASE);
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&lease.node) {
            self.nodes.retain(|_, node| node.expires > now);
            if self.nodes.len() >= NODES_MAX {
                return Err(StoreError::Full { what: "nodes" });
            }
        }
        if let Some(until) = self.closed_to_rooms.get_mut(&lease.node)
            && *until > now
        {
            *until = now.after(MARK);
        }
        match self.nodes.get(&lease.node) {
            // A late word of an earlier life does not shorten the present one.
            Some(known) if known.lease.epoch > lease.epoch && known.expires > now => {}
            _ => {
                self.nodes
                    .insert(lease.node.clone(), Node { lease, expires });
            }
        }
        Ok(())
    }

    fn mark_accepting(
        &mut self,
        node: NodeId,
        accepting: bool,
        now: Moment,
    ) -> Result<bool, StoreError> {
        self.closed_to_rooms.retain(|_, until| *until > now);
        if accepting {
            self.closed_to_rooms.remove(&node);
        } else if self.closed_to_rooms.len() >= NODES_MAX
            && !self.closed_to_rooms.contains_key(&node)
        {
            return Err(StoreError::Full { what: "nodes" });
        } else {
            self.closed_to_rooms.insert(node.clone(), now.after(MARK));
        }
        Ok(self.accepts(&node, now))
    }

    fn count_failure(&mut self, scope: FailureScope, now: Moment) {
        let fresh = |last: Moment| now.since(last) < limits::FAILURES_EXPIRY;
        if self.failures.len() >= COUNTERS_MAX && !self.failures.contains_key(&scope) {
            self.failures.retain(|_, (_, last)| fresh(*last));
            while self.failures.len() >= COUNTERS_MAX
                && let Some(oldest) = self
                    .failures
                    .iter()
                    .min_by_key(|(_, (_, last))| *last)
                    .map(|(scope, _)| scope.clone())
            {
                self.failures.remove(&oldest);
            }
        }
        let (count, last) = self.failures.entry(scope).or_insert((0, now));
        *count = if fresh(*last) {
            count.saturating_add(1)
        } else {
            1
        };
        *last = now;
    }

    fn failures(&self, scope: &FailureScope, now: Moment) -> Failures {
        match self.failures.get(scope) {
            Some((count, last)) if now.since(*last) < limits::FAILURES_EXPIRY => Failures {
                count: *count,
                since_last: now.since(*last),
            },
            _ => Failures {
                count: 0,
                since_last: Duration::ZERO,
            },
        }
    }

    fn claim(
        &mut self,
        role: String,
        holder: String,
        lifetime: Duration,
        now: Moment,
    ) -> Result<bool, StoreError> {
        check_name(&role)?;
        check_name(&holder)?;
        self.claims.retain(|_, (_, expires)| *expires > now);
        if self.claims.get(&role).is_some_and(|(by, _)| *by != holder) {
            return Ok(false);
        }
        if lifetime.is_zero() {
            self.claims.remove(&role);
            return Ok(false);
        }
        if self.claims.len() >= super::CLAIMS_MAX && !self.claims.contains_key(&role) {
            return Err(StoreError::Full { what: "claims" });
        }
        self.claims.insert(role, (holder, now.after(lifetime)));
        Ok(true)
    }
}

impl Store for MemoryStore {
    fn place(&self, command: PlaceCommand) -> Answer<'_, PlaceOutcome> {
        self.step(|state, now| state.place(command, now))
    }

    fn undo_place(&self, key: RoomKey, epoch: Epoch, former: Option<RoomLease>) -> Answer<'_, ()> {
        self.step(|state, now| {
            if let Some(room) = state
                .room(&key, now)
                .filter(|room| room.lease.epoch == epoch)
            {
                match former {
                    Some(former) => {
                        room.lease = former;
                        room.request = None;
                    }
                    None => {
                        state.rooms.remove(&key);
                    }
                }
            }
            Ok(())
        })
    }

    fn reserve(
        &self,
        request: RequestId,
        key: RoomKey,
        node: NodeId,
        amount: Usage,
        limits: TenantLimits,
        capacity: Capacity,
    ) -> Answer<'_, Result<ReservationId, QuotaRefusal>> {
        self.step(|state, now| {
            let id = request.reservation();
            Ok(state
                .ledger
                .reserve(&key, &node, id, amount, &limits, &capacity, now))
        })
    }

    fn release(&self, key: RoomKey, id: ReservationId) -> Answer<'_, ()> {
        self.step(|state, now| {
            state.ledger.release(&key, id, now);
            Ok(())
        })
    }

    fn hold(&self, command: HoldCommand) -> Answer<'_, HoldOutcome> {
        self.step(|state, now| state.hold(command, now))
    }

    fn drop_hold(&self, key: RoomKey) -> Answer<'_, ()> {
        self.step(|state, now| {
            state.ledger.drop_hold(&key, now);
            Ok(())
        })
    }

    fn room(&self, key: RoomKey) -> Answer<'_, Option<RoomRecord>> {
        self.step(|state, now| Ok(state.room(&key, now).map(|room| room.record(now))))
    }

    fn report_rooms(
        &self,
        reports: Vec<RoomReport>,
    ) -> Answer<'_, Vec<Result<ReportOutcome, StoreError>>> {
        self.step(|state, now| {
            Ok(reports
                .into_iter()
                .map(|report| state.report_room(report, now))
                .collect())
        })
    }

    fn close_room(&self, key: RoomKey, lease: RoomLease, keep_facts: bool) -> Answer<'_, ()> {
        self.step(|state, now| {
            state.close_room(&key, &lease, keep_facts, now);
            Ok(())
        })
    }

    fn usage(&self, nodes: Vec<NodeId>) -> Answer<'_, Vec<Usage>> {
        self.step(|state, now| {
            state.ledger.expire(now);
            let of_node = |node| state.ledger.of_node(node);
            Ok(nodes.iter().map(of_node).collect())
        })
    }

    fn tenant_usage(&self, tenant: TenantName) -> Answer<'_, Usage> {
        self.step(|state, now| {
            state.ledger.expire(now);
            Ok(state.ledger.of_tenant(&tenant))
        })
    }

    fn refresh_nodes(&self, leases: Vec<NodeLease>) -> Answer<'_, ()> {
        self.step(|state, now| {
            leases
                .into_iter()
                .try_for_each(|lease| state.refresh_node(lease, now))
        })
    }

    fn mark_accepting(&self, node: NodeId, accepting: bool) -> Answer<'_, bool> {
        self.step(|state, now| state.mark_accepting(node, accepting, now))
    }

    fn node(&self, node: NodeId) -> Answer<'_, Option<NodeLease>> {
        self.step(|state, now| {
            Ok(state
                .nodes
                .get(&node)
                .filter(|known| known.expires > now)
                .map(|known| known.lease.clone()))
        })
    }

    fn count_failure(&self, scope: FailureScope) -> Answer<'_, ()> {
        self.step(|state, now| {
            state.count_failure(scope, now);
            Ok(())
        })
    }

    fn failures(&self, scope: FailureScope) -> Answer<'_, Failures> {
        self.step(|state, now| Ok(state.failures(&scope, now)))
    }

    fn put_record(&self, record: StoredRecord) -> Answer<'_, RecordOutcome> {
        self.step(|state, now| state.records.put(record, now))
    }

    fn drop_record(&self, kind: RecordKind, uid: Uid, epoch: u64) -> Answer<'_, RecordOutcome> {
        self.step(|state, now| Ok(state.records.forget(kind, &uid, epoch, now)))
    }

    fn record(&self, kind: RecordKind, uid: Uid) -> Answer<'_, Option<StoredRecord>> {
        self.step(move |state, _| Ok(state.records.get(kind, &uid)))
    }

    fn records(&self) -> Answer<'_, Vec<StoredRecord>> {
        self.step(|state, _| Ok(state.records.all()))
    }

    fn claim(&self, role: String, holder: String, lifetime: Duration) -> Answer<'_, bool> {
        self.step(|state, now| state.claim(role, holder, lifetime, now))
    }

    fn push_event(&self, queue: EventQueue, event: QueuedEvent) -> Answer<'_, Pushed> {
        self.step(|state, now| state.queues.push(queue, event, now))
    }

    fn events(&self, queue: EventQueue, max: usize) -> Answer<'_, Vec<QueuedEvent>> {
        self.step(|state, now| Ok(state.queues.first(&queue, max, now)))
    }

    fn event_done(&self, queue: EventQueue, id: String) -> Answer<'_, ()> {
        self.step(|state, now| {
            state.queues.done(&queue, &id, now);
            Ok(())
        })
    }

    fn ping(&self) -> Answer<'_, ()> {
        self.step(|_, _| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn counters_are_bounded_and_the_oldest_goes_first() {
        let millis = Arc::new(AtomicU64::new(1_000));
        let clock = Arc::clone(&millis);
        let store = MemoryStore::new(Arc::new(move || {
            Moment::from_millis(clock.load(Ordering::Relaxed))
        }));
        let scope = |number: usize| {
            let conference = control_core::ids::Uid::parse(&format!("c{number}")).expect("uid");
            FailureScope::Conference(conference)
        };
        for number in 0..=COUNTERS_MAX {
            store.count_failure(scope(number)).await.expect("counted");
            if number == 0 {
                millis.fetch_add(1, Ordering::Relaxed);
            }
        }
        assert_eq!(store.failures(scope(0)).await.expect("answer").count, 0);
        assert_eq!(store.failures(scope(1)).await.expect("answer").count, 1);
        assert_eq!(
            store
                .failures(scope(COUNTERS_MAX))
                .await
                .expect("answer")
                .count,
            1
        );
    }
}
