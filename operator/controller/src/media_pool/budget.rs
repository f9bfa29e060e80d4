// SPDX-License-Identifier: EUPL-1.2
//! The disruption budget of a pool: up before a pod is born, down after its label is gone.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{Api, ResourceExt as _, api::ListParams};
use operator_core::media_pool::disruption::{self, Change, budget, change, held, is_protected};
use plenum_api::names::{LABEL_POOL, MANAGER_OPERATOR};

use super::{Pass, PoolError, View};
use crate::ssa::{apply_child_over, get};

/// Makes the budget cover at least so many pods. Only when this has returned may a pod be born.
pub(super) async fn raise(pass: &Pass<'_>, wanted: u32) -> Result<(), PoolError> {
    let present = present(pass).await?;
    if present.is_none() && !is_protected(&pass.pool.spec) {
        return Ok(());
    }
    let number = present.as_ref().and_then(held).unwrap_or(0).max(wanted);
    write(pass, present.as_ref(), number).await
}

/// Lets the budget sink to what there is. What the watches show may lack a pod that was born a moment ago, so the pods are counted anew,
/// past all caches, before any is uncovered.
pub(super) async fn lower(pass: &Pass<'_>, view: &View) -> Result<(), PoolError> {
    let Some(present) = present(pass).await? else {
        return Ok(());
    };
    let number = held(&present);
    if change(number, view.uncovered()) != Change::Lower {
        return Ok(());
    }
    let counted = pass.uncovered_anew().await?;
    if change(number, counted) == Change::Lower {
        write(pass, Some(&present), counted).await?;
    }
    Ok(())
}

/// Budgets of others over pods of the pool, of which Kubernetes then evicts none. `None` where nobody could look: it holds nothing up.
pub(super) async fn foreign(pass: &Pass<'_>) -> Option<Vec<String>> {
    if let Some(found) = pass.memory.foreign_budgets(pass.name, pass.now) {
        return found;
    }
    let api =
        Api::<PodDisruptionBudget>::namespaced(pass.context.client.clone(), &pass.name.namespace);
    let mut has_no_pods = false;
    let found = match api.list(&ListParams::default()).await {
        Ok(budgets) => {
            let pods = pass.context.stores.pods.all();
            let of_pool = |pod: &&Arc<Pod>| {
                let own = pod.labels().get(LABEL_POOL);
                pod.namespace().as_deref() == Some(&*pass.name.namespace)
                    && own == Some(&pass.name.name)
            };
            let labels: Vec<_> = pods
                .iter()
                .filter(of_pool)
                .map(|pod| pod.labels())
                .collect();
            // Nothing to select yet: it is looked for again with the first pod.
            has_no_pods = labels.is_empty();
            Some(disruption::foreign(pass.name, &budgets.items, &labels))
        }
        Err(error) => {
            tracing::debug!(pool = %pass.name, error = %error, "the budgets of the namespace could not be read");
            None
        }
    };
    if !has_no_pods {
        pass.memory
            .found_budgets(pass.name, pass.now, found.clone());
    }
    found
}

async fn present(pass: &Pass<'_>) -> Result<Option<PodDisruptionBudget>, PoolError> {
    Ok(get(
        &pass.context.client,
        Some(&pass.name.namespace),
        &pass.name.name,
    )
    .await?)
}

async fn write(
    pass: &Pass<'_>,
    present: Option<&PodDisruptionBudget>,
    number: u32,
) -> Result<(), PoolError> {
    let wanted = budget(pass.name, number);
    apply_child_over(&pass.context.client, present, &wanted, MANAGER_OPERATOR).await?;
    Ok(())
}
