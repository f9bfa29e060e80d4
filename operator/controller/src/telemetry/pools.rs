// SPDX-License-Identifier: EUPL-1.2
//! Numbers of each pool. Only the leader knows them, so they are there on the leader alone, and pools are as many as a platform team
//! declares.

use std::sync::atomic::AtomicU64;

use operator_core::media_pool::plan::Counts;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// A pool. Not `namespace`: Prometheus gives that label to everything it scrapes from a pod, and means the pod's.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pool {
    pool_namespace: String,
    pool: String,
}

/// Gauges of the pools.
#[derive(Default)]
pub(super) struct Pools {
    desired: Family<Pool, Gauge>,
    ready: Family<Pool, Gauge>,
    accepting: Family<Pool, Gauge>,
    draining: Family<Pool, Gauge>,
    used: Family<Pool, Gauge<f64, AtomicU64>>,
}

impl Pools {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let pools = Self::default();
        registry.register(
            "pool_nodes_desired",
            "Nodes that a pool should have",
            pools.desired.clone(),
        );
        registry.register(
            "pool_nodes_ready",
            "Nodes of a pool that are ready and not asked to go",
            pools.ready.clone(),
        );
        registry.register(
            "pool_nodes_accepting",
            "Nodes of a pool that take rooms",
            pools.accepting.clone(),
        );
        registry.register(
            "pool_nodes_draining",
            "Nodes of a pool that are asked to go",
            pools.draining.clone(),
        );
        registry.register(
            "pool_used_ratio",
            "Used share of what the nodes that take rooms can carry, of the scarcest of rooms, participants and egress",
            pools.used.clone(),
        );
        pools
    }

    /// What holds now; no share while nobody knows the load or no node takes rooms.
    pub(super) fn set(
        &self,
        namespace: &str,
        pool: &str,
        desired: u32,
        counts: Counts,
        used: Option<f64>,
    ) {
        let labels = Pool {
            pool_namespace: namespace.to_owned(),
            pool: pool.to_owned(),
        };
        for (family, number) in [
            (&self.desired, desired),
            (&self.ready, counts.ready),
            (&self.accepting, counts.accepting),
            (&self.draining, counts.draining),
        ] {
            family.get_or_create(&labels).set(number.into());
        }
        match used {
            Some(share) => {
                self.used.get_or_create(&labels).set(share);
            }
            None => {
                self.used.remove(&labels);
            }
        }
    }

    /// A pool is gone.
    pub(super) fn remove(&self, namespace: &str, pool: &str) {
        let labels = Pool {
            pool_namespace: namespace.to_owned(),
            pool: pool.to_owned(),
        };
        for family in [&self.desired, &self.ready, &self.accepting, &self.draining] {
            family.remove(&labels);
        }
        self.used.remove(&labels);
    }

    /// This process leads no longer; what it knew last is worth nothing.
    pub(super) fn clear(&self) {
        for family in [&self.desired, &self.ready, &self.accepting, &self.draining] {
            family.clear();
        }
        self.used.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    const COUNTS: Counts = Counts {
        replicas: 4,
        serving: 3,
        ready: 3,
        accepting: 2,
        draining: 1,
        updated: 3,
    };

    fn of_pools(metrics: &Metrics) -> Vec<String> {
        let text = metrics.text();
        let lines = text.lines().filter(|line| line.contains("pool=\"city\""));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn a_pool_has_its_numbers_until_it_is_gone_or_another_leads() {
        let metrics = Metrics::default();
        metrics.pool("media", "city", 5, COUNTS, Some(0.25));
        let lines = of_pools(&metrics);
        for line in [
            r#"plenum_operator_pool_nodes_desired{pool_namespace="media",pool="city"} 5"#,
            r#"plenum_operator_pool_nodes_ready{pool_namespace="media",pool="city"} 3"#,
            r#"plenum_operator_pool_nodes_accepting{pool_namespace="media",pool="city"} 2"#,
            r#"plenum_operator_pool_nodes_draining{pool_namespace="media",pool="city"} 1"#,
            r#"plenum_operator_pool_used_ratio{pool_namespace="media",pool="city"} 0.25"#,
        ] {
            assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
        }
        metrics.pool("media", "city", 5, COUNTS, None);
        assert_eq!(of_pools(&metrics).len(), 4, "no share of an unknown load");
        metrics.pool_gone("media", "city");
        assert_eq!(of_pools(&metrics), Vec::<String>::new());
        metrics.pool("media", "city", 5, COUNTS, Some(0.25));
        metrics.pools_unknown();
        assert_eq!(of_pools(&metrics), Vec::<String>::new());
    }
}
