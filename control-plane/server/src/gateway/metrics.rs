// SPDX-License-Identifier: EUPL-1.2
//! What the gateway counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Reason;
use crate::plane::Plane;

/// Buckets of the time to the first frame; a client gives up after 5 s.
const BEGIN_SECONDS: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Counters of the gateway; no label names a person, room or tenant.
#[derive(Clone)]
pub(super) struct GatewayMetrics {
    /// Signalling connections.
    pub(super) sessions: Gauge,
    /// Joins and resumes refused.
    pub(super) refused: Family<Reason, Counter>,
    /// How sessions ended.
    pub(super) ended: Family<Reason, Counter>,
    /// From the request to the first frame of the room, of those who got in.
    pub(super) begin: Histogram,
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
        let metrics = Self {
            sessions: Gauge::default(),
            refused: Family::default(),
            ended: Family::default(),
            begin: Histogram::new(BEGIN_SECONDS),
            frames_up: Counter::default(),
            frames_down: Counter::default(),
            waiting: Gauge::default(),
            entries: Family::default(),
        };
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
                "session_begin_seconds",
                "From the request to the first frame of the room",
                clone.begin,
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
