// SPDX-License-Identifier: EUPL-1.2
//! What stands around the nodes: the NetworkPolicy, and a Service per node where the exposure needs one.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::Service, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget,
};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use operator_core::media_pool::network::{self, ControlPlane};
use plenum_api::{media_node::NodePorts, media_pool::NetworkType, names::MANAGER_OPERATOR};

use super::{Pass, PoolError, View, names_of};
use crate::ssa::{apply_child, apply_child_over, delete};

/// The policy over the pool's pods.
pub(super) async fn policy(pass: &Pass<'_>) -> Result<(), PoolError> {
    let labels = [(
        "app.kubernetes.io/component".to_owned(),
        "control-plane".to_owned(),
    )]
    .into();
    let control_plane = ControlPlane {
        namespace: &pass.context.settings.namespace,
        labels: &labels,
    };
    let policy = network::policy(pass.name, &pass.pool.spec, &control_plane);
    apply_child(&pass.context.client, &policy, MANAGER_OPERATOR).await?;
    Ok(())
}

/// The Service of a node, before its pod is made.
pub(super) async fn service(
    pass: &Pass<'_>,
    node: &str,
    ports: NodePorts,
) -> Result<(), PoolError> {
    if let Some(service) = network::service(pass.name, &pass.pool.spec, node, ports) {
        apply_child_over(&pass.context.client, None, &service, MANAGER_OPERATOR).await?;
    }
    Ok(())
}

/// The Services of all nodes. One without a node goes only once its pod is gone too: until then it swallows what clients send.
pub(super) async fn services(pass: &Pass<'_>, view: &View) -> Result<(), PoolError> {
    let had = pass.memory.has_services(pass.name);
    let wanted = matches!(
        pass.pool.spec.network.type_,
        NetworkType::NodePort | NetworkType::LoadBalancer
    );
    if !had && !wanted {
        return Ok(());
    }
    let present = present(pass).await?;
    for node in view.nodes() {
        let name = node.name_any();
        if let Some(service) = network::service(pass.name, &pass.pool.spec, &name, node.spec.ports)
        {
            apply_child_over(
                &pass.context.client,
                present.get(&name),
                &service,
                MANAGER_OPERATOR,
            )
            .await?;
        }
    }
    let known = names_of(view.nodes());
    let unseen = view.states();
    let mut left = present.len();
    for name in present.keys() {
        let pod = pass
            .context
            .stores
            .pods
            .get(Some(&pass.name.namespace), name);
        let is_node = known.contains(name) || unseen.iter().any(|node| node.name == *name);
        if !is_node && pod.is_none() {
            delete::<Service>(
                &pass.context.client,
                Some(&pass.name.namespace),
                name,
                &DeleteParams::default(),
            )
            .await?;
            left -= 1;
        }
    }
    pass.memory.services(pass.name, left > 0);
    Ok(())
}

/// Takes everything away, once no node is left.
pub(super) async fn delete_all(pass: &Pass<'_>) -> Result<(), PoolError> {
    let (client, namespace) = (&pass.context.client, Some(&*pass.name.namespace));
    let params = DeleteParams::default();
    for name in present(pass).await?.keys() {
        delete::<Service>(client, namespace, name, &params).await?;
    }
    delete::<NetworkPolicy>(client, namespace, &pass.name.name, &params).await?;
    delete::<PodDisruptionBudget>(client, namespace, &pass.name.name, &params).await?;
    Ok(())
}

async fn present(pass: &Pass<'_>) -> Result<BTreeMap<String, Service>, PoolError> {
    let api = Api::<Service>::namespaced(pass.context.client.clone(), &pass.name.namespace);
    let list = api
        .list(&pass.of_pool())
        .await
        .map_err(PoolError::api("list the Services of a pool"))?;
    Ok(list
        .items
        .into_iter()
        .map(|service| (service.name_any(), service))
        .collect())
}
