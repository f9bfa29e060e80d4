// SPDX-License-Identifier: EUPL-1.2
//! What is seen of the cluster: media nodes and where they run, and who leads.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::installed::Installed;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use operator_core::digest;
use plenum_api::MediaNode;
use plenum_api::conditions::ConditionStatus;
use plenum_api::media_node::DrainPhase;

use crate::people::LIVENESS;

/// Namespace of the media nodes.
pub(crate) const MEDIA: &str = "media";
const SYSTEM: &str = "plenum-system";
/// Nodes of the example's pool.
const NODES: usize = 2;

/// A media node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Name of the object and its pod.
    pub(crate) name: String,
    /// As it stands in SIDs.
    pub(crate) id: String,
    /// The Kubernetes node below; empty while there is none.
    pub(crate) machine: String,
    /// Of its pool's template.
    pub(crate) revision: String,
    /// Whether new rooms come to it.
    pub(crate) accepting: bool,
    /// Whether it is to be emptied or to go.
    pub(crate) leaving: bool,
    /// Whether it is empty and only its pod is still to go.
    pub(crate) drained: bool,
}

/// All media nodes; those whose pod is gone are kept for ten minutes, so that people see why, and are left out.
pub(crate) async fn nodes(installed: &Installed) -> Result<Vec<Node>> {
    let api = Api::<MediaNode>::namespaced(installed.cluster.client(), MEDIA);
    let list = api.list(&ListParams::default()).await?;
    let there = list.items.into_iter().filter(|node| !is_gone(node));
    Ok(there.map(Node::of).collect())
}

fn is_gone(node: &MediaNode) -> bool {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|ready| matches!(&*ready.reason, "PodRemoved" | "PodLost"))
}

impl Node {
    fn of(node: MediaNode) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let accepting = status.conditions.iter().any(|condition| {
            condition.type_ == "Accepting" && condition.status == ConditionStatus::True
        });
        Self {
            id: digest::node_id(&node.spec.pool_ref.name, &node.uid().unwrap_or_default()),
            name: node.name_any(),
            machine: status.node_name.unwrap_or_default(),
            revision: node.spec.revision.clone(),
            accepting,
            leaving: node.spec.drain.is_some() || node.metadata.deletion_timestamp.is_some(),
            drained: status
                .drain
                .is_some_and(|drain| drain.phase == DrainPhase::Drained),
        }
    }
}

/// Each machine carries one of the two media nodes.
pub(crate) async fn spread_over_both(installed: &Installed) -> Result<()> {
    let nodes = nodes(installed).await?;
    let machines: std::collections::BTreeSet<&str> =
        nodes.iter().map(|node| &*node.machine).collect();
    ensure!(machines.len() == NODES, "{nodes:?}");
    Ok(())
}

/// Waits until the pool has its two nodes again and no others, all of them taking rooms; gives them.
pub(crate) async fn settled(installed: &Installed) -> Result<Vec<Node>> {
    until(
        "two media nodes take rooms, and no other is left",
        async || {
            let nodes = nodes(installed).await?;
            let settled =
                nodes.len() == NODES && nodes.iter().all(|node| node.accepting && !node.leaving);
            ensure!(settled, "{nodes:?}");
            Ok(nodes)
        },
    )
    .await
}

/// Pods that were not told to go, by name and machine.
pub(crate) async fn pods(installed: &Installed, namespace: &str) -> Result<Vec<(String, String)>> {
    let api = Api::<Pod>::namespaced(installed.cluster.client(), namespace);
    let list = api.list(&ListParams::default()).await?.items;
    Ok(list
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| {
            let machine = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            (pod.name_any(), machine.unwrap_or_default())
        })
        .collect())
}

/// The machine of the one Redis.
pub(crate) async fn machine_of_store(installed: &Installed) -> Result<String> {
    let pods = pods(installed, SYSTEM).await?;
    let store = pods
        .into_iter()
        .find(|(name, _)| name.starts_with("plenum-redis"));
    Ok(store.context("Redis runs in the cluster")?.1)
}

/// Who leads among the operators, as the Lease says: a pod, and a number of its process.
pub(crate) async fn leader(installed: &Installed) -> Result<String> {
    let leases = Api::<Lease>::namespaced(installed.cluster.client(), SYSTEM);
    let lease = leases.get("plenum-operator").await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    holder.context("an operator leads")
}

/// Waits until `what` holds.
pub(crate) async fn until<T>(claim: &str, mut what: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + LIVENESS;
    loop {
        match what().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("within {LIVENESS:?}: {claim}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
