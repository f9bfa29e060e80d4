// SPDX-License-Identifier: EUPL-1.2
//! The store of a single replica, in its memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, Pool, RoomKey};
use control_core::lease::{NodeLease, RoomLease, next_epoch};
use control_core::limits;
use control_core::quota::{QuotaLedger, QuotaRefusal, ReservationId, Usage};
use control_core::record::{Capacity, RoomFacts, RoomPolicy, TenantLimits};
use control_core::throttle::Failures;
use control_core::time::Moment;

use super::{
    Answer, FailureScope, PlaceCommand, PlaceOutcome, REPORT_AGAIN, ROOM_RECORD_MIN, ReportOutcome,
    RoomRecord, RoomReport, Store, StoreError,
};

/// Rooms kept at most.
pub const ROOMS_MAX: usize = 100_000;
/// Node leases kept at most.
pub const NODES_MAX: usize = 4_096;
/// Counters of failures kept at most; beyond that the one that is oldest goes.
pub const COUNTERS_MAX: usize = 50_000;

struct Room {
    lease: RoomLease,
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

fn record_expiry(policy: &RoomPolicy, now: Moment) -> Moment {
    now.after((policy.empty_timeout + limits::LEASE).max(ROOM_RECORD_MIN) + REPORT_AGAIN)
}

struct Node {
    lease: NodeLease,
    expires: Moment,
}

#[derive(Default)]
struct State {
    rooms: BTreeMap<RoomKey, Room>,
    nodes: BTreeMap<NodeId, Node>,
    closed_to_rooms: BTreeSet<NodeId>,
    ledger: QuotaLedger,
    failures: BTreeMap<FailureScope, (u32, Moment)>,
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
    fn step<T>(
        &self,
        run: impl FnOnce(&mut State, Moment) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let now = (self.now)();
        // A step that panicked may have left counts behind, never a lease of two owners: reports put counts right.
        let mut state: MutexGuard<'_, State> =
            self.state.lock().unwrap_or_else(PoisonError::into_inner);
        run(&mut state, now)
    }
}

/// The state's answer, at once.
fn answer<'a, T: Send + 'a>(result: Result<T, StoreError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(result))
}

impl State {
    fn room(&mut self, key: &RoomKey, now: Moment) -> Option<&mut Room> {
        if self.rooms.get(key).is_some_and(|room| room.expires <= now) {
            self.rooms.remove(key);
        }
        self.rooms.get_mut(key)
    }

    fn place(&mut self, command: PlaceCommand, now: Moment) -> Result<PlaceOutcome, StoreError> {
        let stored = self.room(&command.key, now).map(|room| room.record(now));
        let stored_epoch = stored.as_ref().map(|record| record.lease.epoch);
        match &stored {
            Some(record) if command.replaces != Some(record.lease.epoch) => {
                return Ok(PlaceOutcome::Held(record.clone()));
            }
            // What was to be replaced ran out meanwhile: nobody holds the room, and the facts that come along are the best there are.
            _ => {}
        }
        if self.closed_to_rooms.contains(&command.node) {
            return Ok(PlaceOutcome::NotAccepting);
        }
        let known = command.reported.max(command.replaces);
        let Some(epoch) = next_epoch(stored_epoch, known, command.floor) else {
            return Ok(PlaceOutcome::EpochsExhausted);
        };
        if stored.is_none() && self.rooms.len() >= ROOMS_MAX {
            self.rooms.retain(|_, room| room.expires > now);
            if self.rooms.len() >= ROOMS_MAX {
                return Err(StoreError::Full { what: "rooms" });
            }
        }
        let reserved = self.ledger.reserve(
            &command.key,
            &command.node,
            command.amount,
            &command.limits,
            &command.capacity,
            now,
        );
        let id = match reserved {
            Ok(id) => id,
            Err(refusal) => return Ok(PlaceOutcome::Refused(refusal)),
        };
        let facts = stored.map_or(command.facts, |record| record.facts);
        let room = Room {
            lease: RoomLease {
                site: command.site,
                node: command.node,
                epoch,
            },
            given: now,
            expires: record_expiry(&command.policy, now),
            policy: command.policy,
            pool: command.pool,
            facts,
        };
        let record = room.record(now);
        self.rooms.insert(command.key, room);
        Ok(PlaceOutcome::Placed(record, id))
    }

    fn report_room(
        &mut self,
        report: RoomReport,
        now: Moment,
    ) -> Result<ReportOutcome, StoreError> {
        if let Some(room) = self.room(&report.key, now) {
            if room.lease.epoch > report.lease.epoch {
                return Ok(ReportOutcome::Fenced(room.lease.epoch));
            }
            if room.lease != report.lease {
                room.given = now;
                room.lease = report.lease.clone();
            }
            room.facts = report.facts;
            room.expires = record_expiry(&room.policy, now);
        } else if let Some(policy) = report.policy
            && self.rooms.len() < ROOMS_MAX
        {
            let expires = record_expiry(&policy, now);
            let room = Room {
                lease: report.lease.clone(),
                given: now,
                expires,
                policy,
                pool: None,
                facts: report.facts,
            };
            self.rooms.insert(report.key.clone(), room);
        }
        self.ledger
            .report(&report.key, &report.lease.node, report.participants, now);
        Ok(ReportOutcome::Taken)
    }

    fn close_room(&mut self, key: &RoomKey, lease: &RoomLease, keep_facts: bool, now: Moment) {
        if !keep_facts && self.room(key, now).is_some_and(|room| room.lease == *lease) {
            self.rooms.remove(key);
        }
        self.ledger.close(key, &lease.node);
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
}

impl Store for MemoryStore {
    fn place(&self, command: PlaceCommand) -> Answer<'_, PlaceOutcome> {
        answer(self.step(|state, now| state.place(command, now)))
    }

    fn undo_place(&self, key: RoomKey, epoch: Epoch, former: Option<RoomLease>) -> Answer<'_, ()> {
        answer(self.step(|state, now| {
            if let Some(room) = state
                .room(&key, now)
                .filter(|room| room.lease.epoch == epoch)
            {
                match former {
                    Some(former) => room.lease = former,
                    None => {
                        state.rooms.remove(&key);
                    }
                }
            }
            Ok(())
        }))
    }

    fn reserve(
        &self,
        key: RoomKey,
        node: NodeId,
        amount: Usage,
        limits: TenantLimits,
        capacity: Capacity,
    ) -> Answer<'_, Result<ReservationId, QuotaRefusal>> {
        answer(self.step(|state, now| {
            Ok(state
                .ledger
                .reserve(&key, &node, amount, &limits, &capacity, now))
        }))
    }

    fn release(&self, _key: RoomKey, id: ReservationId) -> Answer<'_, ()> {
        answer(self.step(|state, _| {
            state.ledger.release(id);
            Ok(())
        }))
    }

    fn room(&self, key: RoomKey) -> Answer<'_, Option<RoomRecord>> {
        answer(self.step(|state, now| Ok(state.room(&key, now).map(|room| room.record(now)))))
    }

    fn report_room(&self, report: RoomReport) -> Answer<'_, ReportOutcome> {
        answer(self.step(|state, now| state.report_room(report, now)))
    }

    fn close_room(&self, key: RoomKey, lease: RoomLease, keep_facts: bool) -> Answer<'_, ()> {
        answer(self.step(|state, now| {
            state.close_room(&key, &lease, keep_facts, now);
            Ok(())
        }))
    }

    fn usage(&self, nodes: Vec<NodeId>) -> Answer<'_, Vec<Usage>> {
        answer(self.step(|state, now| {
            state.ledger.expire(now);
            Ok(nodes
                .iter()
                .map(|node| state.ledger.of_node(node))
                .collect())
        }))
    }

    fn refresh_node(&self, lease: NodeLease) -> Answer<'_, ()> {
        answer(self.step(|state, now| {
            let expires = now.after(limits::LEASE);
            if state.nodes.len() >= NODES_MAX && !state.nodes.contains_key(&lease.node) {
                state.nodes.retain(|_, node| node.expires > now);
                if state.nodes.len() >= NODES_MAX {
                    return Err(StoreError::Full { what: "nodes" });
                }
            }
            match state.nodes.get(&lease.node) {
                // A late word of an earlier life does not shorten the present one.
                Some(known) if known.lease.epoch > lease.epoch && known.expires > now => {}
                _ => {
                    state
                        .nodes
                        .insert(lease.node.clone(), Node { lease, expires });
                }
            }
            Ok(())
        }))
    }

    fn mark_accepting(&self, node: NodeId, accepting: bool) -> Answer<'_, bool> {
        answer(self.step(|state, _| {
            if accepting {
                state.closed_to_rooms.remove(&node);
            } else if state.closed_to_rooms.len() >= NODES_MAX
                && !state.closed_to_rooms.contains(&node)
            {
                return Err(StoreError::Full { what: "nodes" });
            } else {
                state.closed_to_rooms.insert(node.clone());
            }
            Ok(!state.closed_to_rooms.contains(&node))
        }))
    }

    fn node(&self, node: NodeId) -> Answer<'_, Option<NodeLease>> {
        answer(self.step(|state, now| {
            Ok(state
                .nodes
                .get(&node)
                .filter(|known| known.expires > now)
                .map(|known| known.lease.clone()))
        }))
    }

    fn count_failure(&self, scope: FailureScope) -> Answer<'_, ()> {
        answer(self.step(|state, now| {
            state.count_failure(scope, now);
            Ok(())
        }))
    }

    fn failures(&self, scope: FailureScope) -> Answer<'_, Failures> {
        answer(self.step(|state, now| Ok(state.failures(&scope, now))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::store::conformance::{self, Harness};

    fn harness() -> Harness {
        let millis = Arc::new(AtomicU64::new(1_000));
        let clock = Arc::clone(&millis);
        let store = MemoryStore::new(Arc::new(move || {
            Moment::from_millis(clock.load(Ordering::Relaxed))
        }));
        Harness {
            store: Arc::new(store),
            advance: Box::new(move |span| {
                millis.fetch_add(
                    u64::try_from(span.as_millis()).expect("short"),
                    Ordering::Relaxed,
                );
            }),
        }
    }

    conformance::suite!(harness);

    #[tokio::test]
    async fn counters_are_bounded_and_the_oldest_goes_first() {
        let harness = harness();
        let scope = |number: usize| {
            let conference = control_core::ids::Uid::parse(&format!("c{number}")).expect("uid");
            FailureScope::Conference(conference)
        };
        for number in 0..=COUNTERS_MAX {
            harness
                .store
                .count_failure(scope(number))
                .await
                .expect("counted");
            if number == 0 {
                (harness.advance)(Duration::from_millis(1));
            }
        }
        assert_eq!(
            harness
                .store
                .failures(scope(0))
                .await
                .expect("answer")
                .count,
            0
        );
        assert_eq!(
            harness
                .store
                .failures(scope(1))
                .await
                .expect("answer")
                .count,
            1
        );
        assert_eq!(
            harness
                .store
                .failures(scope(COUNTERS_MAX))
                .await
                .expect("answer")
                .count,
            1
        );
    }
}
