// SPDX-License-Identifier: EUPL-1.2
//! The disruption budget of a pool: an integer `minAvailable` that counts every protected pod, and every one to come.
//!
//! The number goes up before a pod is born and down only after its label is gone, so that every state in between refuses an
//! eviction too many rather than too few. An integer needs no look at whoever controls the pods, so the disruption
//! controller's `expected` and `desired` never depend on `/scale`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use plenum_api::{MediaPoolSpec, Selector, media_pool::Protect, names};

use super::metadata;
use crate::objects::Name;

/// What the API server shows of a node's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSeen {
    /// None, and none was there before: one may be born at any moment.
    NotYet,
    /// One with the label that the budget selects.
    Protected,
    /// One without it.
    Released,
    /// It was there and is gone, or the node gave up on it; no second one comes.
    Gone,
}

/// Pods that the budget has to cover, of the nodes of a pool.
#[must_use]
pub fn min_available(pods: impl IntoIterator<Item = PodSeen>) -> u32 {
    let covered = pods
        .into_iter()
        .filter(|pod| matches!(pod, PodSeen::NotYet | PodSeen::Protected));
    u32::try_from(covered.count()).unwrap_or(u32::MAX)
}

/// Which way the number may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is right.
    Keep,
    /// It goes up, before anything else happens.
    Raise,
    /// It goes down, once what it counts was read anew: a cache that has not seen a pod yet must not uncover it.
    Lower,
}

/// From the number that holds to the one that should.
#[must_use]
pub const fn change(held: Option<u32>, wanted: u32) -> Change {
    match held {
        None => Change::Raise,
        Some(held) if held < wanted => Change::Raise,
        Some(held) if held > wanted => Change::Lower,
        Some(_) => Change::Keep,
    }
}

/// Whether the pool's pods are protected at all.
#[must_use]
pub fn is_protected(spec: &MediaPoolSpec) -> bool {
    match spec.disruption.protect {
        Protect::UntilDrained => true,
        Protect::Never => false,
    }
}

/// The budget of a pool. `unhealthyPodEvictionPolicy` keeps its default: a pod with a flapping probe may have calls on it.
#[must_use]
pub fn budget(pool: &Name, min_available: u32) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(pool, &pool.name),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(
                i32::try_from(min_available).unwrap_or(i32::MAX),
            )),
            selector: Some(LabelSelector {
                match_labels: Some(
                    [
                        (names::LABEL_POOL.to_owned(), pool.name.clone()),
                        (names::LABEL_PROTECTED.to_owned(), "true".to_owned()),
                    ]
                    .into(),
                ),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// Names of budgets that select pods of a pool and are not the pool's own, in order. `pods` are the labels of its pods.
#[must_use]
pub fn foreign<'a>(
    pool: &Name,
    budgets: impl IntoIterator<Item = &'a PodDisruptionBudget>,
    pods: &[&BTreeMap<String, String>],
) -> Vec<String> {
    let mut names: Vec<String> = budgets
        .into_iter()
        .filter_map(|budget| Some((budget.metadata.name.as_deref()?, budget.spec.as_ref()?)))
        .filter(|(name, _)| *name != pool.name)
        // Of the Eviction API's own way: no selector selects nothing, an empty one everything.
        .filter(|(_, spec)| {
            spec.selector
                .as_ref()
                .and_then(own)
                .is_some_and(|selector| pods.iter().any(|labels| selector.matches(labels)))
        })
        .map(|(name, _)| name.to_owned())
        .collect();
    names.sort();
    names.truncate(FOREIGN_MAX);
    names
}

/// Budgets of others that are told.
const FOREIGN_MAX: usize = 8;

/// Kubernetes' selector as one of the API's own, which have the same shape; `None` for an operator that the API server does not know
/// either.
fn own(selector: &LabelSelector) -> Option<Selector> {
    serde_json::from_value(serde_json::to_value(selector).ok()?).ok()
}

/// The number that a budget holds.
#[must_use]
pub fn held(budget: &PodDisruptionBudget) -> Option<u32> {
    match budget.spec.as_ref()?.min_available.as_ref()? {
        IntOrString::Int(number) => u32::try_from(*number).ok(),
        IntOrString::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_counts_from_before_its_birth_until_its_label_is_gone() {
        let life = [
            PodSeen::NotYet,
            PodSeen::Protected,
            PodSeen::Released,
            PodSeen::Gone,
        ];
        assert_eq!(life.map(|pod| min_available([pod])), [1, 1, 0, 0]);
    }

    #[test]
    fn a_budget_that_is_absent_or_percent_is_raised_first() {
        assert_eq!(change(None, 0), Change::Raise);
        assert_eq!(change(Some(3), 4), Change::Raise);
        assert_eq!(change(Some(4), 3), Change::Lower);
        assert_eq!(change(Some(3), 3), Change::Keep);
    }

    #[test]
    fn a_budget_of_somebody_else_is_foreign_where_it_selects_a_pod_of_the_pool() {
        let pool = Name::new("media", "a");
        let pod: BTreeMap<String, String> = [
            (names::LABEL_POOL.to_owned(), "a".to_owned()),
            (
                "app.kubernetes.io/name".to_owned(),
                "plenum-media-node".to_owned(),
            ),
        ]
        .into();
        let named = |name: &str, selector: serde_json::Value| -> PodDisruptionBudget {
            serde_json::from_value(serde_json::json!({
                "metadata": { "name": name }, "spec": { "maxUnavailable": 1, "selector": selector },
            }))
            .expect("a budget")
        };
        let of = |selector: serde_json::Value| {
            foreign(&pool, [&named("theirs", selector)], &[&pod]).len() == 1
        };
        use serde_json::json;
        for all in [
            json!({}),
            json!({ "matchLabels": { names::LABEL_POOL: "a" } }),
            json!({ "matchExpressions": [{ "key": names::LABEL_POOL, "operator": "Exists" }] }),
            json!({ "matchExpressions": [{ "key": names::LABEL_POOL, "operator": "In", "values": ["b", "a"] }] }),
            json!({ "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["web"] }] }),
        ] {
            assert!(of(all.clone()), "{all}");
        }
        for none in [
            json!({ "matchLabels": { names::LABEL_POOL: "b" } }),
            json!({ "matchLabels": { names::LABEL_POOL: "a", "tier": "web" } }),
            json!({ "matchExpressions": [{ "key": names::LABEL_POOL, "operator": "DoesNotExist" }] }),
        ] {
            assert!(!of(none.clone()), "{none}");
        }
        let mut without = named("theirs", json!({}));
        if let Some(spec) = &mut without.spec {
            spec.selector = None;
        }
        assert!(foreign(&pool, [&without], &[&pod]).is_empty());
        assert!(
            foreign(&pool, [&budget(&pool, 1)], &[&pod]).is_empty(),
            "its own"
        );
        let many: Vec<PodDisruptionBudget> = (0..20)
            .map(|n| named(&format!("b{n:02}"), json!({})))
            .collect();
        assert_eq!(foreign(&pool, &many, &[&pod]).len(), FOREIGN_MAX);
        assert!(
            foreign(&pool, &many, &[]).is_empty(),
            "no pod, nothing to evict"
        );
    }

    #[test]
    fn the_budget_selects_protected_pods_of_its_pool_by_an_integer() {
        let budget = budget(&Name::new("media", "a"), 7);
        assert_eq!(held(&budget), Some(7));
        let spec = budget.spec.expect("a spec");
        assert_eq!(spec.max_unavailable, None);
        assert_eq!(spec.unhealthy_pod_eviction_policy, None);
        let labels = spec
            .selector
            .and_then(|selector| selector.match_labels)
            .expect("labels");
        assert_eq!(
            labels.get(names::LABEL_PROTECTED).map(String::as_str),
            Some("true")
        );
        assert_eq!(labels.get(names::LABEL_POOL).map(String::as_str), Some("a"));
    }
}
