// SPDX-License-Identifier: EUPL-1.2
//! A store that can be away: every call fails until it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

pub struct Flaky {
    inner: Arc<dyn Store>,
    away: Arc<AtomicBool>,
}

impl Flaky {
    pub fn over(inner: Arc<dyn Store>, away: Arc<AtomicBool>) -> Arc<dyn Store> {
        Arc::new(Self { inner, away })
    }

    fn pass<'a, T: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a dyn Store) -> Answer<'a, T>,
    ) -> Answer<'a, T> {
        if self.away.load(Ordering::SeqCst) {
            Box::pin(std::future::ready(Err(StoreError::Away)))
        } else {
            call(&*self.inner)
        }
    }
}

impl Store for Flaky {
    fn place(&self, command: PlaceCommand) -> Answer<'_, PlaceOutcome> {
        self.pass(|store| store.place(command))
    }

    fn undo_place(&self, key: RoomKey, epoch: Epoch, former: Option<RoomLease>) -> Answer<'_, ()> {
        self.pass(|store| store.undo_place(key, epoch, former))
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
        self.pass(|store| store.reserve(request, key, node, amount, limits, capacity))
    }

    fn release(&self, key: RoomKey, id: ReservationId) -> Answer<'_, ()> {
        self.pass(|store| store.release(key, id))
    }

    fn hold(&self, command: HoldCommand) -> Answer<'_, HoldOutcome> {
        self.pass(|store| store.hold(command))
    }

    fn drop_hold(&self, key: RoomKey) -> Answer<'_, ()> {
        self.pass(|store| store.drop_hold(key))
    }

    fn room(&self, key: RoomKey) -> Answer<'_, Option<RoomRecord>> {
        self.pass(|store| store.room(key))
    }

    fn report_rooms(
        &self,
        reports: Vec<RoomReport>,
    ) -> Answer<'_, Vec<Result<ReportOutcome, StoreError>>> {
        self.pass(|store| store.report_rooms(reports))
    }

    fn close_room(&self, key: RoomKey, lease: RoomLease, keep_facts: bool) -> Answer<'_, ()> {
        self.pass(|store| store.close_room(key, lease, keep_facts))
    }

    fn usage(&self, nodes: Vec<NodeId>) -> Answer<'_, Vec<Usage>> {
        self.pass(|store| store.usage(nodes))
    }

    fn tenant_usage(&self, tenant: TenantName) -> Answer<'_, Usage> {
        self.pass(|store| store.tenant_usage(tenant))
    }

    fn refresh_nodes(&self, leases: Vec<NodeLease>) -> Answer<'_, ()> {
        self.pass(|store| store.refresh_nodes(leases))
    }

    fn mark_accepting(&self, node: NodeId, accepting: bool) -> Answer<'_, bool> {
        self.pass(|store| store.mark_accepting(node, accepting))
    }

    fn node(&self, node: NodeId) -> Answer<'_, Option<NodeLease>> {
        self.pass(|store| store.node(node))
    }

    fn count_failure(&self, scope: FailureScope) -> Answer<'_, ()> {
        self.pass(|store| store.count_failure(scope))
    }

    fn failures(&self, scope: FailureScope) -> Answer<'_, Failures> {
        self.pass(|store| store.failures(scope))
    }

    fn put_record(&self, record: StoredRecord) -> Answer<'_, RecordOutcome> {
        self.pass(|store| store.put_record(record))
    }

    fn drop_record(&self, kind: RecordKind, uid: Uid, epoch: u64) -> Answer<'_, RecordOutcome> {
        self.pass(|store| store.drop_record(kind, uid, epoch))
    }

    fn record(&self, kind: RecordKind, uid: Uid) -> Answer<'_, Option<StoredRecord>> {
        self.pass(|store| store.record(kind, uid))
    }

    fn records(&self) -> Answer<'_, Vec<StoredRecord>> {
        self.pass(|store| store.records())
    }

    fn claim(&self, role: String, holder: String, lifetime: Duration) -> Answer<'_, bool> {
        self.pass(|store| store.claim(role, holder, lifetime))
    }

    fn push_event(&self, queue: EventQueue, event: QueuedEvent) -> Answer<'_, Pushed> {
        self.pass(|store| store.push_event(queue, event))
    }

    fn events(&self, queue: EventQueue, max: usize) -> Answer<'_, Vec<QueuedEvent>> {
        self.pass(|store| store.events(queue, max))
    }

    fn event_done(&self, queue: EventQueue, id: String) -> Answer<'_, ()> {
        self.pass(|store| store.event_done(queue, id))
    }

    fn ping(&self) -> Answer<'_, ()> {
        self.pass(|store| store.ping())
    }
}
