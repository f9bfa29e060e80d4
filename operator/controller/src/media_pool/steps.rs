// SPDX-License-Identifier: EUPL-1.2
//! Carries out steps: makes nodes, asks nodes to go or to stay, forgets those that are gone.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::{
    Api, Resource as _,
    api::{Patch, PatchParams, PostParams},
};
use operator_core::media_pool::{
    labels, node_name,
    plan::{NodeState, Steps},
    ports::{self, PortsError},
};
use plenum_api::{
    MediaNode, Reason,
    media_node::{DrainReason, MediaNodeSpec, NodePorts},
    names::{
        API_VERSION, FINALIZER_NODE, LABEL_NODE, LABEL_REVISION, LABEL_SITE, MANAGER_DRAIN,
        MANAGER_OPERATOR,
    },
    shared::NameRef,
};
use serde_json::json;

use super::{Pass, PoolError, View, children};
use crate::{
    backoff::dice,
    ssa::{ApplyError, CallError},
};

impl Pass<'_> {
    /// Makes so many nodes, some at a time. The budget covers them already; `held` are ports of Services whose nodes are gone.
    pub(super) async fn make(
        &self,
        view: &View,
        number: u32,
        revision: &str,
        held: Vec<NodePorts>,
    ) -> Result<Option<PortsError>, PoolError> {
        let mut taken = self.taken_ports(view);
        taken.extend(held);
        let mut wanted = Vec::new();
        let mut refused = None;
        for _ in 0..number {
            match ports::allocate(&self.pool.spec, &taken) {
                Ok(ports) => {
                    taken.push(ports);
                    wanted.push(ports);
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        if wanted.is_empty() {
            return Ok(refused);
        }
        let note = format!("makes {} nodes of revision {revision}", wanted.len());
        self.context
            .events
            .publish(self.pool, Reason::Progressing, note)
            .await;
        // All are tried, also when one fails: what was made is remembered either way.
        let results: Vec<Result<(), PoolError>> = stream::iter(wanted)
            .map(|ports| self.make_one(revision, ports))
            .buffer_unordered(CREATES_AT_A_TIME)
            .collect()
            .await;
        results.into_iter().collect::<Result<(), PoolError>>()?;
        Ok(refused)
    }

    async fn make_one(&self, revision: &str, ports: NodePorts) -> Result<(), PoolError> {
        let seed = u64::from(dice()) << 32 | u64::from(dice());
        let name = node_name(&self.name.name, revision, seed);
        // Remembered before it is asked for: an answer that never comes is no reason to make another one.
        self.memory
            .made(self.name, self.unborn(&name, revision, ports), self.now);
        if let Err(error) = children::service(self, &name, ports).await {
            self.memory.not_made(self.name, &name);
            if is_port_of_others(&error) {
                self.memory.strange_port(self.name, ports.base, self.now);
            }
            return Err(error);
        }
        let api = Api::<MediaNode>::namespaced(self.context.client.clone(), &self.name.namespace);
        let params = PostParams {
            field_manager: Some(MANAGER_OPERATOR.to_owned()),
            ..PostParams::default()
        };
        match api
            .create(&params, &self.node(&name, revision, ports))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => {
                if matches!(error, kube::Error::Api(_)) {
                    self.memory.not_made(self.name, &name);
                }
                Err(CallError::of::<PoolError>("make a node of a pool")(error))
            }
        }
    }

    fn node(&self, name: &str, revision: &str, ports: NodePorts) -> MediaNode {
        let mut node = MediaNode::new(
            name,
            MediaNodeSpec {
                pool_ref: NameRef {
                    name: self.name.name.clone(),
                },
                revision: revision.to_owned(),
                ports,
                unschedulable: false,
                drain: None,
            },
        );
        let mut labels = labels(&self.name.name);
        for (key, value) in [
            ("app.kubernetes.io/instance", name),
            (LABEL_NODE, name),
            (LABEL_REVISION, revision),
            (LABEL_SITE, &self.context.settings.site),
        ] {
            labels.insert(key.to_owned(), value.to_owned());
        }
        let metadata = node.meta_mut();
        metadata.namespace = Some(self.name.namespace.clone());
        metadata.labels = Some(labels);
        // From the beginning: a node that is deleted a moment later drains as well.
        metadata.finalizers = Some(vec![FINALIZER_NODE.to_owned()]);
        metadata.owner_references = Some(vec![OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: "MediaPool".to_owned(),
            name: self.name.name.clone(),
            uid: self.pool.meta().uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]);
        node
    }

    fn unborn(&self, name: &str, revision: &str, ports: NodePorts) -> NodeState {
        NodeState {
            name: name.to_owned(),
            revision: revision.to_owned(),
            ports,
            created: self.now,
            ready: false,
            accepting: false,
            rooms: 0,
            participants: 0,
            cordoned: false,
            drain: None,
            phase: None,
            deleting: false,
            ended: None,
        }
    }

    /// Ports of all nodes that could meet on a machine, and NodePorts that belong to Services of others.
    fn taken_ports(&self, view: &View) -> Vec<NodePorts> {
        let seen = self.context.stores.media_nodes.all();
        let unseen = self.memory.unseen();
        let own = view.states();
        let strange = self.memory.strange_ports(self.name, self.now);
        let mut taken: Vec<(String, NodePorts)> = Vec::new();
        taken.extend(seen.iter().map(|node| (full_name(node), node.spec.ports)));
        taken.extend(
            own.iter()
                .chain(&unseen)
                .map(|node| (format!("{}/{}", self.name.namespace, node.name), node.ports)),
        );
        // A node may be seen and remembered at once; its ports count once.
        taken.sort_by(|one, other| one.0.cmp(&other.0));
        taken.dedup_by(|one, other| one.0 == other.0);
        let strange = strange.into_iter().map(|base| NodePorts { base, count: 1 });
        taken
            .into_iter()
            .map(|(_, ports)| ports)
            .chain(strange)
            .collect()
    }

    /// Asks nodes to go, or to stay after all, and forgets those whose pod is long gone.
    pub(super) async fn empty(&self, view: &View, steps: &Steps) -> Result<(), PoolError> {
        for (node, reason) in &steps.drain {
            self.ask(node, Some(*reason)).await?;
            let rooms = view
                .states()
                .iter()
                .find(|state| state.name == *node)
                .map_or(0, |state| state.rooms);
            let note = format!("node {node} with {rooms} rooms is to go: {reason}");
            self.context
                .events
                .publish(self.pool, Reason::Draining, note)
                .await;
        }
        for node in &steps.keep {
            self.ask(node, None).await?;
            let note = format!("node {node} stays after all");
            self.context
                .events
                .publish(self.pool, Reason::Progressing, note)
                .await;
        }
        stream::iter(steps.forget.clone())
            .map(|node| async move { self.forget(&node).await })
            .buffer_unordered(CREATES_AT_A_TIME)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    async fn ask(&self, node: &str, reason: Option<DrainReason>) -> Result<(), PoolError> {
        let mut patch = json!({
            "apiVersion": API_VERSION,
            "kind": "MediaNode",
            "metadata": { "name": node, "namespace": self.name.namespace },
        });
        if let Some(reason) = reason {
            let Time(now) = self.context.time();
            patch["spec"]["drain"] = json!({ "requestedAt": Time(now), "reason": reason });
        }
        let api = Api::<MediaNode>::namespaced(self.context.client.clone(), &self.name.namespace);
        let params = PatchParams::apply(MANAGER_DRAIN);
        match api.patch(node, &params, &Patch::Apply(&patch)).await {
            Ok(_) => {
                self.memory.asked(self.name, node, reason, self.now);
                Ok(())
            }
            // Somebody asked before, which is as good, or the node is gone.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                Ok(())
            }
            Err(error) => Err(CallError::of::<PoolError>("ask a node to go")(error)),
        }
    }
}

fn full_name(node: &MediaNode) -> String {
    let metadata = node.meta();
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}

/// The API server's word for a NodePort that another Service has.
fn is_port_of_others(error: &PoolError) -> bool {
    let PoolError::Apply(ApplyError::Api { source, .. }) = error else {
        return false;
    };
    matches!(&**source, kube::Error::Api(status) if status.is_invalid() && status.message.contains("already allocated"))
}

/// Calls to the API server at a time, of one pool.
const CREATES_AT_A_TIME: usize = 8;
