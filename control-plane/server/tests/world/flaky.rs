// SPDX-License-Identifier: EUPL-1.2
//! A store that can be away: every call fails until it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use control_core::ids::{Epoch, NodeId, RoomKey};
use control_core::lease::{NodeLease, RoomLease};
use control_core::quota::{QuotaRefusal, ReservationId, Usage};
use control_core::record::{Capacity, TenantLimits};
use control_core::throttle::Failures;
use control_plane::store::{
    Answer, FailureScope, PlaceCommand, PlaceOutcome, ReportOutcome, RoomRecord, RoomReport, Store,
    StoreError,
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
        key: RoomKey,
        node: NodeId,
        amount: Usage,
        limits: TenantLimits,
        capacity: Capacity,
    ) -> Answer<'_, Result<ReservationId, QuotaRefusal>> {
        self.pass(|store| store.reserve(key, node, amount, limits, capacity))
    }

    fn release(&self, key: RoomKey, id: ReservationId) -> Answer<'_, ()> {
        self.pass(|store| store.release(key, id))
    }

    fn room(&self, key: RoomKey) -> Answer<'_, Option<RoomRecord>> {
        self.pass(|store| store.room(key))
    }

    fn report_room(&self, report: RoomReport) -> Answer<'_, ReportOutcome> {
        self.pass(|store| store.report_room(report))
    }

    fn close_room(&self, key: RoomKey, lease: RoomLease, keep_facts: bool) -> Answer<'_, ()> {
        self.pass(|store| store.close_room(key, lease, keep_facts))
    }

    fn usage(&self, nodes: Vec<NodeId>) -> Answer<'_, Vec<Usage>> {
        self.pass(|store| store.usage(nodes))
    }

    fn refresh_node(&self, lease: NodeLease) -> Answer<'_, ()> {
        self.pass(|store| store.refresh_node(lease))
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
}
