// SPDX-License-Identifier: EUPL-1.2
//! What is counted of webhooks, by tenant and receiver.

use control_core::webhook::Loss;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Metrics;
use crate::store::EventQueue;

/// A receiver; both are declared, so there are no more than records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Receiver {
    tenant: String,
    receiver: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiverReason {
    tenant: String,
    receiver: String,
    reason: &'static str,
}

fn receiver(queue: &EventQueue) -> Receiver {
    Receiver {
        tenant: queue.tenant.to_string(),
        receiver: queue.receiver.clone(),
    }
}

fn with_reason(queue: &EventQueue, reason: &'static str) -> ReceiverReason {
    ReceiverReason {
        tenant: queue.tenant.to_string(),
        receiver: queue.receiver.clone(),
        reason,
    }
}

/// The counters.
#[derive(Clone, Default)]
pub(super) struct HookMetrics {
    delivered: Family<Receiver, Counter>,
    failed: Family<ReceiverReason, Counter>,
    dropped: Family<ReceiverReason, Counter>,
    queued: Family<Receiver, Gauge>,
    /// Queues that this replica delivers, or waits to.
    pub(super) deliveries: Gauge,
    /// Events taken from nodes that the store does not have yet.
    pub(super) waiting: Gauge,
    /// Events that were left with their node because too many waited.
    pub(super) refused: Counter,
}

impl HookMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let own = Self::default();
        let clone = own.clone();
        metrics.register(|registry| {
            registry.register(
                "webhook_delivered",
                "Events that a receiver took",
                clone.delivered,
            );
            registry.register(
                "webhook_failed",
                "Attempts to deliver an event that failed; it is tried again",
                clone.failed,
            );
            registry.register("webhook_dropped", "Events given up", clone.dropped);
            registry.register(
                "webhook_queued",
                "Events that wait for a receiver, counted up to 256, at the replica that delivers them",
                clone.queued,
            );
            registry.register(
                "webhook_queues",
                "Queues that this replica delivers, or is ready to",
                clone.deliveries,
            );
            registry.register(
                "webhook_waiting",
                "Events of nodes that are not in the store yet",
                clone.waiting,
            );
            registry.register(
                "webhook_refused",
                "Events left with their node because too many wait for the store",
                clone.refused,
            );
        });
        own
    }

    pub(super) fn delivered(&self, queue: &EventQueue) {
        self.delivered.get_or_create(&receiver(queue)).inc();
    }

    pub(super) fn failed(&self, queue: &EventQueue, reason: &'static str) {
        self.failed.get_or_create(&with_reason(queue, reason)).inc();
    }

    pub(super) fn dropped(&self, queue: &EventQueue, loss: Loss, count: u64) {
        self.dropped
            .get_or_create(&with_reason(queue, loss.reason()))
            .inc_by(count);
    }

    pub(super) fn queued(&self, queue: &EventQueue, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.queued.get_or_create(&receiver(queue)).set(count);
    }

    /// Nothing is delivered from here any more: whoever has the queue now shows it.
    pub(super) fn released(&self, queue: &EventQueue) {
        self.queued.remove(&receiver(queue));
    }
}
