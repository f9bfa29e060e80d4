// SPDX-License-Identifier: EUPL-1.2
//! Brings a tenant's namespace and what stands in it into the declared shape, and keeps them there.

use std::fmt::Debug;

use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{LimitRange, Namespace, ResourceQuota},
    networking::v1::NetworkPolicy,
    rbac::v1::RoleBinding,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, PostParams},
    runtime::{
        Controller, WatchStreamExt as _,
        reflector::{ObjectRef, Store, store},
        watcher,
    },
};
use operator_core::tenant::{
    Release,
    children::{ADMINS, Children, NamespaceStep, OPERATOR, children, is_counted, namespace_step},
    status::NamespaceState,
};
use plenum_api::{Tenant, names};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use crate::{
    context::Context,
    ssa::{ApplyError, apply_child_over, delete},
};

/// What stands in the namespaces of tenants, as watches show it.
pub(crate) struct ChildStores {
    quotas: Store<ResourceQuota>,
    limits: Store<LimitRange>,
    policies: Store<NetworkPolicy>,
    bindings: Store<RoleBinding>,
    read: OnceCell<()>,
}

impl ChildStores {
    /// Watches all children of tenants; a change of one leads to its tenant.
    pub(crate) fn watch(
        client: &Client,
        controller: Controller<Tenant>,
    ) -> (Self, Controller<Tenant>) {
        let (quotas, controller) = watched(client, controller);
        let (limits, controller) = watched(client, controller);
        let (policies, controller) = watched(client, controller);
        let (bindings, controller) = watched(client, controller);
        let stores = Self {
            quotas,
            limits,
            policies,
            bindings,
            read: OnceCell::new(),
        };
        (stores, controller)
    }

    /// Waits until everything that is there has been read once: before that, everything would be written anew. One waits
    /// for all, because a store of kube's wakes only one.
    async fn ready(&self) {
        let read = self.read.get_or_init(|| async {
            // An error means that a watch ended, and with it the controller.
            let _ = self.quotas.wait_until_ready().await;
            let _ = self.limits.wait_until_ready().await;
            let _ = self.policies.wait_until_ready().await;
            let _ = self.bindings.wait_until_ready().await;
        });
        read.await;
    }
}

fn watched<K>(client: &Client, controller: Controller<Tenant>) -> (Store<K>, Controller<Tenant>)
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (reader, writer) = store();
    let config = watcher::Config::default()
        .any_semantic()
        .labels(names::LABEL_TENANT);
    let stream = watcher(Api::<K>::all(client.clone()), config)
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .touched_objects()
        .boxed();
    let controller = controller.watches_stream(stream, |child: K| {
        let tenant = child.labels().get(names::LABEL_TENANT);
        tenant.map(|tenant| ObjectRef::<Tenant>::new(tenant))
    });
    (reader, controller)
}

/// Makes everything that a tenant wants. Says how far it is.
pub(crate) async fn bring(
    context: &Context,
    stores: &ChildStores,
    name: &str,
    tenant: &Tenant,
    release: &Release,
) -> Result<NamespaceState, ApplyError> {
    stores.ready().await;
    let wanted = children(name, tenant, release);
    let namespace = wanted.namespace.name_any();
    let found = context.stores.namespaces.get(None, &namespace);
    match namespace_step(name, tenant, release, found.as_deref()) {
        NamespaceStep::Refuse(refused) => {
            return Ok(NamespaceState::Refused {
                message: refused.to_string(),
            });
        }
        NamespaceStep::Wait => {
            return Ok(NamespaceState::Progressing {
                message: format!(
                    "namespace `{namespace}` is being deleted; it is made again when it is gone"
                ),
            });
        }
        NamespaceStep::Create => create(context, name, &wanted.namespace).await?,
        NamespaceStep::Apply => {
            let manager = names::MANAGER_OPERATOR;
            apply_child_over(
                &context.client,
                found.as_deref(),
                &wanted.namespace,
                manager,
            )
            .await?;
        }
    }
    apply_all(context, stores, &wanted).await?;
    let quota = stores.quotas.get(&ObjectRef::from_obj(&wanted.quota));
    if is_counted(&wanted.quota, quota.as_deref()) {
        Ok(NamespaceState::Ready)
    } else {
        // The watch of quotas leads here again.
        Ok(NamespaceState::Uncounted)
    }
}

/// Created, not applied: who applies would take over a namespace that somebody has made meanwhile.
async fn create(context: &Context, tenant: &str, namespace: &Namespace) -> Result<(), ApplyError> {
    let params = PostParams {
        field_manager: Some(names::MANAGER_OPERATOR.to_owned()),
        ..PostParams::default()
    };
    let api = Api::<Namespace>::all(context.client.clone());
    let made = api.create(&params, namespace).await;
    made.map_err(ApplyError::api::<Namespace>("create", namespace.name_any()))?;
    tracing::info!(
        event = "NamespaceMade",
        tenant,
        namespace = namespace.name_any(),
        "the namespace of a tenant was made"
    );
    Ok(())
}

async fn apply_all(
    context: &Context,
    stores: &ChildStores,
    wanted: &Children,
) -> Result<(), ApplyError> {
    let client = &context.client;
    // Guards first, then access.
    over(client, &stores.policies, &wanted.deny).await?;
    over(client, &stores.quotas, &wanted.quota).await?;
    over(client, &stores.limits, &wanted.limits).await?;
    bind(client, &stores.bindings, &wanted.operator_binding).await?;
    bind(client, &stores.bindings, &wanted.admin_binding).await
}

async fn over<K>(client: &Client, store: &Store<K>, wanted: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let found = store.get(&ObjectRef::from_obj(wanted));
    apply_child_over(client, found.as_deref(), wanted, names::MANAGER_OPERATOR).await?;
    Ok(())
}

/// A binding that names another role cannot be changed, only replaced.
async fn bind(
    client: &Client,
    store: &Store<RoleBinding>,
    wanted: &RoleBinding,
) -> Result<(), ApplyError> {
    let found = store.get(&ObjectRef::from_obj(wanted));
    if let Some(found) = found
        && found.role_ref != wanted.role_ref
    {
        let uid = found.metadata.uid.clone();
        remove(
            client,
            wanted.namespace().as_deref(),
            &wanted.name_any(),
            uid,
        )
        .await?;
    }
    over(client, store, wanted).await
}

async fn remove(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
    uid: Option<String>,
) -> Result<(), ApplyError> {
    let mut params = DeleteParams::default();
    if uid.is_some() {
        params = params.preconditions(kube::api::Preconditions {
            uid,
            resource_version: None,
        });
    }
    delete::<RoleBinding>(client, namespace, name, &params).await
}

/// Takes away everybody's access to a namespace that is kept.
pub(crate) async fn take_access(client: &Client, namespace: &str) -> Result<(), ApplyError> {
    for name in [ADMINS, OPERATOR] {
        remove(client, Some(namespace), name, None).await?;
    }
    Ok(())
}
