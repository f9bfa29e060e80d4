// SPDX-License-Identifier: EUPL-1.2
//! A tenant that is being deleted: the door is closed, rooms are waited for, access is taken away, the namespace is treated
//! as its policy says, and the finalizer goes last.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use operator_core::{
    RecordKind,
    tenant::leaving::{self, Farewell, Step},
};
use plenum_api::{Tenant, names, tenant::DeletionPolicy};
use serde_json::json;

use super::{children::take_access, said::Now};
use crate::{
    context::Context,
    ssa::{ApplyError, delete},
};

/// A room that was opened just before the door was closed is reported within this time.
const SETTLES: Duration = Duration::from_secs(5);

/// When the door of a tenant that is leaving was seen closed, by uid.
#[derive(Default)]
pub(crate) struct Doors(Mutex<HashMap<String, Timestamp>>);

impl Doors {
    fn closed_for(&self, uid: &str, closed: bool, now: Timestamp) -> Option<Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !closed {
            all.remove(uid);
            return None;
        }
        let since = *all.entry(uid.to_owned()).or_insert(now);
        Duration::try_from(now.duration_since(since)).ok()
    }

    fn forget(&self, uid: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(uid);
    }
}

/// The next step, and whether it has to be looked at again soon.
pub(crate) fn step(doors: &Doors, name: &str, tenant: &Tenant, now: &Now) -> (Step, bool) {
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    let closed = is_closed(name, uid, now);
    let closed_for = doors.closed_for(uid, closed, now.at);
    let settled = closed_for.is_some_and(|time| time >= SETTLES);
    let rooms = now.silent_since.is_none().then(|| {
        let state = now.live.tenants.get(name);
        state.map_or(0, |state| state.rooms)
    });
    let farewell = Farewell {
        rooms,
        closed: settled,
        now: now.at,
    };
    (leaving::step(tenant, &farewell), closed && !settled)
}

/// The control plane has the record that says that the tenant leaves, or none of it at all.
fn is_closed(name: &str, uid: &str, now: &Now) -> bool {
    if !now.planned.ready {
        return false;
    }
    match now.planned.plan.tenants.get(uid) {
        Some(record) => {
            let seen = now.planned.objects.tenants.get(name);
            seen.is_some_and(leaving::is_leaving)
                && now.live.has(RecordKind::Tenant, uid, &record.revision)
        }
        None => true,
    }
}

/// Carries out [`Step::Leave`]. Says whether the tenant is gone.
pub(crate) async fn leave(
    context: &Context,
    doors: &Doors,
    name: &str,
    namespace: &str,
    tenant: &Tenant,
    policy: DeletionPolicy,
) -> Result<bool, ApplyError> {
    let found = context.stores.namespaces.get(None, namespace);
    let own = found
        .filter(|found| found.labels().get(names::LABEL_TENANT).map(String::as_str) == Some(name));
    if let Some(own) = own {
        match policy {
            DeletionPolicy::Retain => take_access(&context.client, namespace).await?,
            DeletionPolicy::Delete => {
                if own.metadata.deletion_timestamp.is_none() {
                    let params = DeleteParams::default();
                    delete::<Namespace>(&context.client, None, namespace, &params).await?;
                }
                return Ok(false);
            }
        }
    }
    set_finalizer(context, tenant, false).await?;
    doors.forget(tenant.metadata.uid.as_deref().unwrap_or_default());
    tracing::info!(
        event = "TenantLeft",
        tenant = name,
        namespace,
        policy = policy.as_str(),
        "a tenant was deleted"
    );
    Ok(true)
}

/// Adds or removes the finalizer; refused when somebody changed the object meanwhile.
pub(crate) async fn set_finalizer(
    context: &Context,
    tenant: &Tenant,
    wanted: bool,
) -> Result<(), ApplyError> {
    let has = has_finalizer(tenant);
    if has == wanted {
        return Ok(());
    }
    let mut all: Vec<String> = tenant.finalizers().to_vec();
    if wanted {
        all.push(names::FINALIZER_TENANT.to_owned());
    } else {
        all.retain(|finalizer| finalizer != names::FINALIZER_TENANT);
    }
    let patch = json!({
        "metadata": {
            "finalizers": all,
            "uid": tenant.metadata.uid,
            "resourceVersion": tenant.metadata.resource_version,
        },
    });
    let params = PatchParams {
        field_manager: Some(names::MANAGER_OPERATOR.to_owned()),
        ..PatchParams::default()
    };
    let api = Api::<Tenant>::all(context.client.clone());
    match api
        .patch(&tenant.name_any(), &params, &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if !wanted && status.is_not_found() => Ok(()),
        Err(error) => Err(ApplyError::api::<Tenant>("patch", tenant.name_any())(error)),
    }
}

/// Whether the tenant waits for us when it is deleted.
pub(crate) fn has_finalizer(tenant: &Tenant) -> bool {
    let finalizers = tenant.finalizers();
    finalizers
        .iter()
        .any(|finalizer| finalizer == names::FINALIZER_TENANT)
}
