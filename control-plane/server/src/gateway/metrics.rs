// SPDX-License-Identifier: EUPL-1.2
//! What the gateway counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Reason;
use crate::plane::Plane;

/// Counters of the gateway; no label names a person, room or tenant.
#[derive(Clone, Default)]
pub(super) struct GatewayMetrics {
    /// Signalling connections.
    pub(super) sessions: Gauge,
    /// Joins and resumes refused.
    pub(super) refused: Family<Reason, Counter>,
    /// How sessions ended.
    pub(super) ended: Family<Reason, Counter>,
    /// Frames from clients.
    pub(super) frames_up: Counter,
    /// Frames to clients.
    pub(super) frames_down: Counter,
    /// People waiting at doors.
    pub(super) waiting: Gauge,
    /// How entries ended.
    pub(super) entries: Family<Reason, Counter>,
}

impl GatewayMetrics {
    pub(super) fn register(plane: &Plane) -> Self {
        let metrics = Self::default();
        let clone = metrics.clone();
        plane.metrics().register(|registry| {
            registry.register("sessions", "Signalling connections", clone.sessions);
            registry.register(
                "sessions_refused",
                "Joins and resumes refused",
                clone.refused,
            );
            registry.register(
                "sessions_ended",
                "Signalling connections that ended",
                clone.ended,
            );
            registry.register(
                "frames_up",
                "Signalling frames from clients",
                clone.frames_up,
            );
            registry.register(
                "frames_down",
                "Signalling frames to clients",
                clone.frames_down,
            );
            registry.register("door_waiting", "People waiting at doors", clone.waiting);
            registry.register("door_entries", "Entries at doors", clone.entries);
        });
        metrics
    }
}
