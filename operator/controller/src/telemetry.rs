// SPDX-License-Identifier: EUPL-1.2
//! Counters of the operator. No label can grow without a bound: kinds, results and reasons are small, declared sets.

mod pools;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use operator_core::media_pool::plan::Counts;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

use pools::Pools;

/// Label `kind`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: String,
}

/// Labels `kind` and `result`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindResult {
    kind: String,
    result: &'static str,
}

/// Labels `kind` and `reason`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindReason {
    kind: String,
    reason: &'static str,
}

/// Labels of calls to the API server.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    verb: String,
    resource: String,
    code: u16,
}

/// Counters; a clone counts into the same ones.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    reconciles: Family<KindResult, Counter>,
    durations: Family<Kind, Histogram, fn() -> Histogram>,
    failures: Family<KindReason, Counter>,
    in_flight: Family<Kind, Gauge>,
    calls: Family<Call, Counter>,
    watch_restarts: Family<Kind, Counter>,
    publications: Family<KindResult, Counter>,
    publication_lag: Gauge<f64, std::sync::atomic::AtomicU64>,
    replicas: Gauge,
    leader: Gauge,
    leader_transitions: Counter,
    events_lost: Counter,
    problems: Family<Kind, Gauge>,
    pools: Pools,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("plenum_operator");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                add(&mut registry, $name, $help, &metric);
                metric
            }};
        }
        let durations = Family::<Kind, Histogram, fn() -> Histogram>::new_with_constructor(|| {
            Histogram::new([0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])
        });
        registry.register(
            "reconcile_duration_seconds",
            "Time that a reconcile took",
            durations.clone(),
        );
        let reconciles = register!("reconcile", "Reconciles by result: ok or failed");
        let failures = register!("reconcile_failures", "Reconciles that failed, by reason");
        let in_flight = register!("reconciles_in_flight", "Objects that are being worked on");
        let calls = register!("api_requests", "Calls to the API server");
        let watch_restarts = register!("watch_restarts", "Watches that broke and began anew");
        let publications = register!(
            "publications",
            "Records answered by the control plane: taken or refused"
        );
        let publication_lag = register!(
            "publication_lag_seconds",
            "How long the oldest record that is not acknowledged has waited"
        );
        let replicas = register!(
            "control_plane_replicas",
            "Replicas of the control plane that report"
        );
        let leader = register!("leader", "1 while this process holds the lease");
        let leader_transitions = register!(
            "leader_transitions",
            "Times that this process took the lease"
        );
        let events_lost = register!("events_lost", "Events that could not be written");
        let problems = register!("objects_with_problems", "Objects that are not valid");
        let pools = Pools::register(&mut registry);
        Self(Arc::new(Inner {
            registry: Mutex::new(registry),
            reconciles,
            durations,
            failures,
            in_flight,
            calls,
            watch_restarts,
            publications,
            publication_lag,
            replicas,
            leader,
            leader_transitions,
            events_lost,
            problems,
            pools,
        }))
    }
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register(name, help, metric.clone());
}

/// Counts down when it is dropped, also when the work was cut off.
#[must_use]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Lets another part register its own.
    pub fn register(&self, with: impl FnOnce(&mut Registry)) {
        with(
            &mut self
                .0
                .registry
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// In the text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let registry = self
            .0
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &registry);
        out
    }

    pub(crate) fn reconcile_began(&self, kind: &str) -> InFlight {
        let gauge = self
            .0
            .in_flight
            .get_or_create(&Kind {
                kind: kind.to_owned(),
            })
            .clone();
        gauge.inc();
        InFlight(gauge)
    }

    pub(crate) fn reconciled(&self, kind: &str, took: Duration, failure: Option<&'static str>) {
        let kind = kind.to_owned();
        let result = if failure.is_some() { "failed" } else { "ok" };
        self.0
            .durations
            .get_or_create(&Kind { kind: kind.clone() })
            .observe(took.as_secs_f64());
        self.0
            .reconciles
            .get_or_create(&KindResult {
                kind: kind.clone(),
                result,
            })
            .inc();
        if let Some(reason) = failure {
            self.0
                .failures
                .get_or_create(&KindReason { kind, reason })
                .inc();
        }
    }

    /// A call to the API server was answered; 0 where it was not.
    pub fn api_request(&self, verb: &str, resource: &str, code: u16) {
        self.0
            .calls
            .get_or_create(&Call {
                verb: verb.to_owned(),
                resource: resource.to_owned(),
                code,
            })
            .inc();
    }

    /// A watch broke.
    pub fn watch_restarted(&self, kind: &str) {
        self.0
            .watch_restarts
            .get_or_create(&Kind {
                kind: kind.to_owned(),
            })
            .inc();
    }

    /// A record was answered.
    pub fn published(&self, kind: &str, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.0
            .publications
            .get_or_create(&KindResult {
                kind: kind.to_owned(),
                result,
            })
            .inc();
    }

    /// How long the oldest record that is not acknowledged has waited.
    pub fn publication_lag(&self, lag: Duration) {
        self.0.publication_lag.set(lag.as_secs_f64());
    }

    /// Replicas of the control plane that report.
    pub fn control_plane_replicas(&self, count: usize) {
        self.0
            .replicas
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether the lease is held.
    pub fn leads(&self, leads: bool) {
        if self.0.leader.set(i64::from(leads)) == 0 && leads {
            self.0.leader_transitions.inc();
        }
    }

    /// An Event could not be written.
    pub fn event_lost(&self) {
        self.0.events_lost.inc();
    }

    /// Objects of a kind that are not valid.
    pub fn objects_with_problems(&self, kind: &str, count: usize) {
        self.0
            .problems
            .get_or_create(&Kind {
                kind: kind.to_owned(),
            })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The numbers of a pool, and the used share of its capacity where that is known.
    pub fn pool(
        &self,
        namespace: &str,
        pool: &str,
        desired: u32,
        counts: Counts,
        used: Option<f64>,
    ) {
        self.0.pools.set(namespace, pool, desired, counts, used);
    }

    /// A pool is gone.
    pub fn pool_gone(&self, namespace: &str, pool: &str) {
        self.0.pools.remove(namespace, pool);
    }

    /// This process leads no longer: who does knows the pools.
    pub fn pools_unknown(&self) {
        self.0.pools.clear();
    }
}
