// SPDX-License-Identifier: EUPL-1.2
//! Counters of the control plane in one registry; the gateway serves it.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A reason in CamelCase, derived from an error's variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The reason.
    pub reason: &'static str,
}

/// All metrics of this process.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Rooms placed, by "New", "Found" or "Again".
    pub placed: Family<Reason, Counter>,
    /// Placements refused.
    pub place_refused: Family<Reason, Counter>,
    /// Records refused.
    pub records_refused: Family<Reason, Counter>,
    /// Records written into the store.
    pub records_written: Counter,
    /// Records of the store that cannot be read, or cannot be kept there.
    pub records_unreadable: Family<Reason, Counter>,
    /// Writes into the store refused because a later publication wrote.
    pub records_fenced: Counter,
    /// Reports of nodes dropped as malformed.
    pub reports_dropped: Family<Reason, Counter>,
    /// Room events acknowledged that nobody receives.
    pub events_unclaimed: Counter,
    /// Nodes declared dead.
    pub nodes_dead: Counter,
    /// Rooms told to end because a higher epoch lives elsewhere.
    pub rooms_fenced: Counter,
    /// Records in force, by kind.
    pub records: Family<Reason, Gauge>,
    /// Nodes attached.
    pub nodes_attached: Gauge,
    /// Rooms that run.
    pub rooms: Gauge,
    /// People in them.
    pub participants: Gauge,
    /// How far the clocks of the machine or of the nodes are from this replica's time, in seconds.
    pub clock_offset: Gauge<f64, AtomicU64>,
    /// Failures of the store.
    pub store_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("plenum_control");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                register_clone(&mut registry, $name, $help, &metric);
                metric
            }};
        }
        let placed = register!("rooms_placed", "Rooms placed");
        let place_refused = register!("placements_refused", "Placements refused");
        let records_refused = register!("records_refused", "Published records refused");
        let records_written = register!(
            "store_records_written",
            "Published records written into the store"
        );
        let records_unreadable = register!(
            "store_records_refused",
            "Records of the store that cannot be read or kept"
        );
        let records_fenced = register!(
            "store_records_fenced",
            "Writes of records refused because a later publication wrote"
        );
        let reports_dropped = register!("reports_dropped", "Malformed reports of nodes");
        let events_unclaimed = register!("events_unclaimed", "Room events that no receiver wants");
        let nodes_dead = register!("nodes_dead", "Nodes declared dead");
        let rooms_fenced = register!(
            "rooms_fenced",
            "Rooms ended because a higher epoch lives elsewhere"
        );
        let records = register!("records", "Records in force");
        let nodes_attached = register!("nodes_attached", "Nodes attached to this replica");
        let rooms = register!("rooms", "Rooms that run");
        let participants = register!("participants", "Participants of rooms that run");
        let clock_offset = register!(
            "clock_offset_seconds",
            "How far the clocks of the machine or of the nodes are from this replica's time"
        );
        let store_failures = register!("store_failures", "Calls to the store that failed");
        Self {
            placed,
            place_refused,
            records_refused,
            records_written,
            records_unreadable,
            records_fenced,
            reports_dropped,
            events_unclaimed,
            nodes_dead,
            rooms_fenced,
            records,
            nodes_attached,
            rooms,
            participants,
            clock_offset,
            store_failures,
            registry: Mutex::new(registry),
        }
    }
}

fn register_clone<M>(registry: &mut Registry, name: &str, help: &str, metric: &M)
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
}

impl Metrics {
    /// Adds metrics of another part; called at start.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The text that a scraper reads.
    #[must_use]
    pub fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a String fails only if a metric's own encoding does.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::warn!(event = "MetricsIncomplete", %error, "metrics are incomplete");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_served() {
        let metrics = Metrics::default();
        metrics
            .placed
            .get_or_create(&Reason { reason: "New" })
            .inc();
        let text = metrics.encode();
        assert!(
            text.contains("plenum_control_rooms_placed_total{reason=\"New\"} 1"),
            "{text}"
        );
    }
}
