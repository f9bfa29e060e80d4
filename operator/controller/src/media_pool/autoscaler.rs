// SPDX-License-Identifier: EUPL-1.2
//! Keeps `spec.replicas` of autoscaled pools at what load, buffer and schedule ask for, through `/scale`.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use operator_core::{
    Name,
    media_pool::autoscale::{Observed, decide, stabilization},
};
use plenum_api::{MediaPool, names::MANAGER_AUTOSCALER};
use serde_json::json;

use super::{Memory, Pass, PoolError};
use crate::ssa::CallError;
use crate::{context::Context, driver::Failure as _};

/// Looks at all pools again and again, and at the moment when a floor of a schedule comes or goes.
pub(super) async fn run(context: Arc<Context>, memory: Arc<Memory>) {
    loop {
        let mut next: Option<Timestamp> = None;
        for pool in context.stores.pools.all() {
            if let Err(error) = scale(&pool, &context, &memory).await {
                tracing::warn!(
                    event = "ScaleFailed",
                    namespace = pool.namespace(),
                    pool = pool.name_any(),
                    reason = error.reason(),
                    error = %error,
                    "the number of a pool's nodes could not be written"
                );
            }
            let name = Name::new(pool.namespace().unwrap_or_default(), pool.name_any());
            let edge = memory.decision(&name).and_then(|decision| decision.next);
            // That of a paused pool may have passed.
            let edge = edge.filter(|edge| *edge > context.now());
            next = next.into_iter().chain(edge).min();
        }
        tokio::time::sleep(pause(next, context.now())).await;
    }
}

/// Until the next look: a bell is not heard a quarter of a minute late.
fn pause(next: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(next) = next else { return EVERY };
    // A moment too early would find nothing to do, and one that has passed was looked at already.
    let until = Duration::try_from(next.duration_since(now)).unwrap_or(EVERY);
    (until + A_MOMENT).min(EVERY)
}

async fn scale(pool: &MediaPool, context: &Context, memory: &Memory) -> Result<(), PoolError> {
    let name = Name::new(pool.namespace().unwrap_or_default(), pool.name_any());
    let Some(autoscaling) = &pool.spec.autoscaling else {
        memory.decided(&name, None);
        return Ok(());
    };
    if pool.meta().deletion_timestamp.is_some() || pool.spec.paused {
        return Ok(());
    }
    let pass = Pass {
        pool,
        name: &name,
        context,
        memory,
        now: context.now(),
    };
    let used = pass.view().await?.used(&context.live.borrow());
    let present = memory
        .decision(&name)
        .map(|decision| decision.desired)
        .or(pool.spec.replicas);
    let decision = memory.decide(&name, stabilization(autoscaling), pass.now, |history| {
        let observed = Observed {
            used,
            present: present.unwrap_or(autoscaling.min_replicas),
            history,
        };
        decide(&pool.spec, autoscaling, observed, pass.now)
    });
    if pool.spec.replicas == Some(decision.desired) {
        memory.decided(&name, Some(decision));
        return Ok(());
    }
    // Who owns the number is not in the shared watch; it is read only when it is about to be written.
    let api = Api::<MediaPool>::namespaced(context.client.clone(), &name.namespace);
    let fresh = api
        .get(&name.name)
        .await
        .map_err(CallError::of::<PoolError>("read a pool"))?;
    if let Some(owner) = other_scaler(fresh.managed_fields()) {
        tracing::debug!(
            namespace = name.namespace,
            pool = name.name,
            owner,
            "another autoscaler owns the number of a pool's nodes"
        );
        memory.decided(&name, None);
        return Ok(());
    }
    // Before it is written: whoever sees the new number also knows why.
    memory.decided(&name, Some(decision));
    write(&api, &fresh, decision.desired).await?;
    tracing::info!(
        event = "PoolScaled",
        namespace = name.namespace,
        pool = name.name,
        from = pool.spec.replicas,
        to = decision.desired,
        cause = decision.cause.as_str(),
        "another number of nodes is wanted"
    );
    Ok(())
}

/// Through `/scale`, so that the number alone is written. While nobody owns it the API server (1.35) keeps no account of who writes there,
/// and nobody could tell later whose number it is; so the first one goes to the pool itself. Server-side apply is no way: that API server
/// cannot apply to the `/scale` of a custom resource.
async fn write(api: &Api<MediaPool>, pool: &MediaPool, replicas: u32) -> Result<(), PoolError> {
    let name = pool.name_any();
    let params = PatchParams {
        field_manager: Some(MANAGER_AUTOSCALER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let written = if pool.managed_fields().iter().any(owns_replicas) {
        api.patch_scale(&name, &params, &patch).await.map(drop)
    } else {
        api.patch(&name, &params, &patch).await.map(drop)
    };
    written.map_err(CallError::of::<PoolError>(
        "write the number of a pool's nodes",
    ))
}

/// Whoever else writes the number through `/scale`, as a HorizontalPodAutoscaler does. A person with `kubectl scale` is overruled, as
/// such an autoscaler would do it; a manifest that names a number is too, because the number is ignored while autoscaling is set.
fn other_scaler(fields: &[ManagedFieldsEntry]) -> Option<String> {
    fields
        .iter()
        .filter(|entry| entry.subresource.as_deref() == Some("scale"))
        .filter(|entry| owns_replicas(entry))
        .filter_map(|entry| entry.manager.clone())
        .find(|manager| manager != MANAGER_AUTOSCALER && !manager.starts_with("kubectl"))
}

fn owns_replicas(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref();
    fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
}

/// Between the 15 and 30 seconds in which a load report is fresh.
const EVERY: Duration = Duration::from_secs(15);
const A_MOMENT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;

    use super::*;

    #[test]
    fn a_look_comes_when_a_bell_rings_and_otherwise_every_quarter_of_a_minute() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |seconds| Timestamp::from_second(seconds).expect("a time");
        assert_eq!(pause(None, now), EVERY);
        assert_eq!(
            pause(Some(after(4)), now),
            Duration::from_secs(4) + A_MOMENT
        );
        assert_eq!(pause(Some(after(3_600)), now), EVERY);
        assert_eq!(pause(Some(now), now), A_MOMENT);
        assert_eq!(pause(Some(now), after(1)), EVERY);
    }

    fn entry(manager: &str, subresource: Option<&str>) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            subresource: subresource.map(str::to_owned),
            fields_v1: Some(FieldsV1(json!({ "f:spec": { "f:replicas": {} } }))),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn only_another_autoscaler_keeps_ours_away() {
        let scale = Some("scale");
        assert_eq!(other_scaler(&[entry(MANAGER_AUTOSCALER, scale)]), None);
        assert_eq!(
            other_scaler(&[entry("kubectl", scale), entry("flux", None)]),
            None
        );
        let hpa = [
            entry(MANAGER_AUTOSCALER, scale),
            entry("kube-controller-manager", scale),
        ];
        assert_eq!(
            other_scaler(&hpa).as_deref(),
            Some("kube-controller-manager")
        );
    }
}
