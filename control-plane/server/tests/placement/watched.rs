// SPDX-License-Identifier: EUPL-1.2
//! A store that counts what it is asked, loses answers on demand, and lets something happen right after a placement.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, RoomKey, TenantName, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::quota::{QuotaRefusal, ReservationId, Usage};
use control_core::record::{Capacity, RecordKind, TenantLimits};
use control_core::throttle::Failures;
use control_plane::store::{
    Answer, EventQueue, FailureScope, HoldCommand, HoldOutcome, PlaceCommand, PlaceOutcome, Pushed,
    QueuedEvent, RecordOutcome, ReportOutcome, RequestId, RoomRecord, RoomReport, Store,
    StoreError, StoredRecord,
};
use futures::future::BoxFuture;

/// Calls that are made for somebody who joins.
const OF_JOINS: [&str; 8] = [
    "place",
    "undo_place",
    "reserve",
    "release",
    "hold",
    "room",
    "usage",
    "tenant_usage",
];

pub struct Watched {
    inner: Arc<dyn Store>,
    counts: Mutex<BTreeMap<&'static str, u32>>,
    /// So many answers of `place` are lost.
    pub lose_places: AtomicU32,
    /// So many answers of `reserve` are lost.
    pub lose_reserves: AtomicU32,
    after_place: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl Watched {
    pub fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            counts: Mutex::default(),
            lose_places: AtomicU32::new(0),
            lose_reserves: AtomicU32::new(0),
            after_place: Mutex::default(),
        })
    }

    /// Happens between the next placement and its answer.
    pub fn after_place(&self, happens: BoxFuture<'static, ()>) {
        *self.after_place.lock().expect("no panic inside") = Some(happens);
    }

    /// Calls for joins since this was asked last, by name.
    pub fn joins(&self) -> BTreeMap<&'static str, u32> {
        let mut counts = self.counts.lock().expect("no panic inside");
        let joins = counts
            .iter()
            .filter(|(name, _)| OF_JOINS.contains(*name))
            .map(|(name, count)| (*name, *count))
            .collect();
        counts.clear();
        joins
    }

    fn pass<'a, T: Send + 'a>(
        &'a self,
        name: &'static str,
        call: impl FnOnce(&'a dyn Store) -> Answer<'a, T>,
    ) -> Answer<'a, T> {
        let mut counts = self.counts.lock().expect("no panic inside");
        *counts.entry(name).or_default() += 1;
        drop(counts);
        let answer = call(&*self.inner);
        let lose = match name {
            "place" => &self.lose_places,
            "reserve" => &self.lose_reserves,
            _ => return answer,
        };
        Box::pin(async move {
            let answer = answer.await;
            let happens = if name == "place" {
                self.after_place.lock().expect("no panic inside").take()
            } else {
                None
            };
            if let Some(happens) = happens {
                happens.await;
            }
            let lost = lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
            if lost.is_ok() {
                Err(StoreError::Away)
            } else {
                answer
            }
        })
    }
}

impl Store for Watched {
    fn place(&self, command: PlaceCommand) -> Answer<'_, PlaceOutcome> {
        self.pass("place", |store| store.place(command))
    }

    fn undo_place(&self, key: RoomKey, epoch: Epoch, former: Option<RoomLease>) -> Answer<'_, ()> {
        self.pass("undo_place", |store| store.undo_place(key, epoch, former))
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
        self.pass("reserve", |store| {
            store.reserve(request, key, node, amount, limits, capacity)
        })
    }

    fn release(&self, key: RoomKey, id: ReservationId) -> Answer<'_, ()> {
        self.pass("release", |store| store.release(key, id))
    }

    fn hold(&self, command: HoldCommand) -> Answer<'_, HoldOutcome> {
        self.pass("hold", |store| store.hold(command))
    }

    fn drop_hold(&self, key: RoomKey) -> Answer<'_, ()> {
        self.pass("drop_hold", |store| store.drop_hold(key))
    }

    fn room(&self, key: RoomKey) -> Answer<'_, Option<RoomRecord>> {
        self.pass("room", |store| store.room(key))
    }

    fn report_rooms(
        &self,
        reports: Vec<RoomReport>,
    ) -> Answer<'_, Vec<Result<ReportOutcome, StoreError>>> {
        self.pass("report_rooms", |store| store.report_rooms(reports))
    }

    fn close_room(&self, key: RoomKey, lease: RoomLease, keep_facts: bool) -> Answer<'_, ()> {
        self.pass("close_room", |store| {
            store.close_room(key, lease, keep_facts)
        })
    }

    fn usage(&self, nodes: Vec<NodeId>) -> Answer<'_, Vec<Usage>> {
        self.pass("usage", |store| store.usage(nodes))
    }

    fn tenant_usage(&self, tenant: TenantName) -> Answer<'_, Usage> {
        self.pass("tenant_usage", |store| store.tenant_usage(tenant))
    }

    fn refresh_nodes(&self, leases: Vec<NodeLease>) -> Answer<'_, ()> {
        self.pass("refresh_nodes", |store| store.refresh_nodes(leases))
    }

    fn mark_accepting(&self, node: NodeId, accepting: bool) -> Answer<'_, bool> {
        self.pass("mark_accepting", |store| {
            store.mark_accepting(node, accepting)
        })
    }

    fn node(&self, node: NodeId) -> Answer<'_, Option<NodeLease>> {
        self.pass("node", |store| store.node(node))
    }

    fn count_failure(&self, scope: FailureScope) -> Answer<'_, ()> {
        self.pass("count_failure", |store| store.count_failure(scope))
    }

    fn failures(&self, scope: FailureScope) -> Answer<'_, Failures> {
        self.pass("failures", |store| store.failures(scope))
    }

    fn put_record(&self, record: StoredRecord) -> Answer<'_, RecordOutcome> {
        self.pass("put_record", |store| store.put_record(record))
    }

    fn drop_record(&self, kind: RecordKind, uid: Uid, epoch: u64) -> Answer<'_, RecordOutcome> {
        self.pass("drop_record", |store| store.drop_record(kind, uid, epoch))
    }

    fn record(&self, kind: RecordKind, uid: Uid) -> Answer<'_, Option<StoredRecord>> {
        self.pass("record", |store| store.record(kind, uid))
    }

    fn records(&self) -> Answer<'_, Vec<StoredRecord>> {
        self.pass("records", |store| store.records())
    }

    fn claim(&self, role: String, holder: String, lifetime: Duration) -> Answer<'_, bool> {
        self.pass("claim", |store| store.claim(role, holder, lifetime))
    }

    fn push_event(&self, queue: EventQueue, event: QueuedEvent) -> Answer<'_, Pushed> {
        self.pass("push_event", |store| store.push_event(queue, event))
    }

    fn events(&self, queue: EventQueue, max: usize) -> Answer<'_, Vec<QueuedEvent>> {
        self.pass("events", |store| store.events(queue, max))
    }

    fn event_done(&self, queue: EventQueue, id: String) -> Answer<'_, ()> {
        self.pass("event_done", |store| store.event_done(queue, id))
    }

    fn ping(&self) -> Answer<'_, ()> {
        self.pass("ping", |store| store.ping())
    }
}
