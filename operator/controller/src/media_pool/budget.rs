// SPDX-License-Identifier: EUPL-1.2
//! The disruption budget of a pool: up before a pod is born, down after its label is gone.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use operator_core::media_pool::disruption::{Change, budget, change, held, is_protected};
use plenum_api::names::MANAGER_OPERATOR;

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
