// SPDX-License-Identifier: EUPL-1.2
//! What stands around the nodes: the NetworkPolicy, and a Service per node where the exposure needs one.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::Service, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget,
};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use operator_core::media_pool::network::{self, ControlPlane};
use plenum_api::{media_node::NodePorts, media_pool::NetworkType, names::MANAGER_OPERATOR};

use super::{Pass, PoolError, View};
use crate::ssa::{CallError, apply_child, apply_child_over, delete};

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

/// The Services of all nodes; yields the ports of those that stay without one. A Service goes only once its pod is gone too: until then it
/// swallows what clients send.
pub(super) async fn services(pass: &Pass<'_>, view: &View) -> Result<Vec<NodePorts>, PoolError> {
    let wanted = matches!(
        pass.pool.spec.network.type_,
        NetworkType::NodePort | NetworkType::LoadBalancer
    );
    if !wanted && !pass.memory.may_have_services(pass.name) {
        return Ok(Vec::new());
    }
    let present = present(pass).await?;
    for node in view.nodes() {
        let name = node.name_any();
        if let Some(service) = network::service(pass.name, &pass.pool.spec, &name, node.spec.ports)
        {
            let is = present.get(&name);
            apply_child_over(&pass.context.client, is, &service, MANAGER_OPERATOR).await?;
        }
    }
    let states = view.states();
    let mut held = Vec::new();
    for (name, service) in &present {
        if states.iter().any(|node| node.name == *name) {
            continue;
        }
        let namespace = Some(&*pass.name.namespace);
        if pass.context.stores.pods.get(namespace, name).is_some() {
            held.extend(ports_of(service));
        } else {
            let params = DeleteParams::default();
            delete::<Service>(&pass.context.client, namespace, name, &params).await?;
        }
    }
    pass.memory.has_services(pass.name, !present.is_empty());
    Ok(held)
}

fn ports_of(service: &Service) -> Vec<NodePorts> {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| u16::try_from(port.port).ok())
        .map(|base| NodePorts { base, count: 1 })
        .collect()
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
        .map_err(CallError::of::<PoolError>("list the Services of a pool"))?;
    Ok(list
        .items
        .into_iter()
        .map(|service| (service.name_any(), service))
        .collect())
}
