// SPDX-License-Identifier: EUPL-1.2
//! Where a node is reached, as the control plane is told.

use std::{net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::Service;
use operator_core::{
    NodeEndpoint,
    media_node::{
        addresses::{Surroundings, parsed, pod_ips, resolve},
        drain::{PodState, may_accept},
        pod::grpc_endpoint,
        status::is_ready,
    },
};
use plenum_api::{
    ConditionStatus, ConditionType, MediaNode, MediaNodeStatus, Reason, conditions::find,
    media_pool::AddressSourceType,
};

use super::{NodeError, later, look::Pass};
use crate::{context::Context, ssa};

/// What earlier leaders found out, so that the first plan of this one retracts no node.
pub(super) fn seed(context: &Context) {
    for node in context.stores.media_nodes.all() {
        if let Some((uid, endpoint)) = endpoint_in(&node) {
            context.endpoints.set(uid, endpoint);
        }
    }
}

/// Whether a status tells that the pod was there and is no more.
#[must_use]
pub fn is_pod_gone(status: &MediaNodeStatus) -> bool {
    let gone = [Reason::PodLost, Reason::PodRemoved];
    find(&status.conditions, ConditionType::Ready).is_some_and(|ready| {
        ready.status == ConditionStatus::False
            && gone.iter().any(|reason| reason.as_str() == ready.reason)
    })
}

/// The endpoint that a status tells of, unless the pod is gone.
#[must_use]
pub fn endpoint_in(node: &MediaNode) -> Option<(&str, NodeEndpoint)> {
    let (uid, status) = (node.metadata.uid.as_deref()?, node.status.as_ref()?);
    if is_pod_gone(status) {
        return None;
    }
    Some((
        uid,
        NodeEndpoint {
            epoch: u64::try_from(status.epoch?).ok()?,
            addresses: parsed(&status.addresses),
            grpc_endpoint: status.grpc_endpoint.clone()?,
            accepting: node.spec.drain.is_none()
                && status.drain.is_none()
                && !node.spec.unschedulable
                && node.metadata.deletion_timestamp.is_none(),
        },
    ))
}

impl Pass {
    /// Where STUN servers see the node. While nobody says, what it was offered at holds.
    fn seen_at(&self) -> Vec<IpAddr> {
        let live = self.context.live.borrow();
        let said = live.nodes.get(&self.uid).map(|node| &node.seen_at);
        let said: Vec<IpAddr> = said
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        if !said.is_empty() {
            return said;
        }
        let status = self.node.status.as_ref();
        let offered = status.map_or(&[][..], |status| &status.addresses);
        offered
            .iter()
            .filter_map(|address| address.address.parse().ok())
            .collect()
    }

    /// Finds the node's addresses and says where it is; first in its status, then to the control plane.
    pub(super) async fn offer(&mut self) -> Result<(), NodeError> {
        if matches!(self.pod_state, PodState::Gone | PodState::NotMade) {
            self.context.endpoints.remove(&self.uid);
            return Ok(());
        }
        let Some((pool, pod)) = self.pool.clone().zip(self.pod.clone()) else {
            return Ok(());
        };
        let Some(ip) = pod_ips(&pod).first().copied() else {
            return Ok(());
        };
        if !is_ready(&pod) && !self.served() {
            return Ok(());
        }
        let network = &pool.spec.network;
        let asks_service = network
            .address_sources
            .iter()
            .any(|source| source.type_ == AddressSourceType::ServiceStatus);
        let service = if asks_service {
            let namespace = Some(self.name.namespace.as_str());
            ssa::get::<Service>(&self.context.client, namespace, &self.name.name).await?
        } else {
            None
        };
        let ports = self.node.spec.ports;
        let seen_at = self.seen_at();
        self.addresses = resolve(
            network,
            ports,
            Surroundings {
                machine: self.machine.as_deref(),
                pod: Some(&pod),
                service: service.as_ref(),
                seen_at: &seen_at,
            },
        );
        let asks_stun = network
            .address_sources
            .iter()
            .any(|source| source.type_ == AddressSourceType::Stun);
        if asks_stun && self.addresses.is_err() && self.context.endpoints.get(&self.uid).is_none() {
            // What a node was told is heard only of those that are published; without an address it takes no rooms.
            let endpoint = NodeEndpoint {
                epoch: self.epoch(),
                addresses: Vec::new(),
                grpc_endpoint: grpc_endpoint(&pool.spec, ports, ip),
                accepting: false,
            };
            self.context.endpoints.set(&self.uid, endpoint);
        }
        let Ok(addresses) = &self.addresses else {
            // Machines announce themselves; Services are not watched.
            self.look_again_at(later(self.now, ADDRESS_AGAIN));
            return Ok(());
        };
        let endpoint = NodeEndpoint {
            epoch: self.epoch(),
            addresses: parsed(addresses),
            grpc_endpoint: grpc_endpoint(&pool.spec, ports, ip),
            accepting: may_accept(&self.seen()).is_ok(),
        };
        self.grpc_endpoint = Some(endpoint.grpc_endpoint.clone());
        if self.context.endpoints.get(&self.uid).as_ref() == Some(&endpoint) {
            return Ok(());
        }
        self.report().await?;
        self.context.endpoints.set(&self.uid, endpoint);
        Ok(())
    }
}

const ADDRESS_AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(ready: Value, spec: Value) -> MediaNode {
        let mut object = json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaNode",
            "metadata": { "name": "a-1", "namespace": "media", "uid": "u-1" },
            "spec": { "poolRef": { "name": "a" }, "revision": "abc123", "ports": { "base": 20000, "count": 1 } },
            "status": {
                "epoch": 2, "grpcEndpoint": "10.0.0.7:7882",
                "addresses": [{ "family": "IPv4", "address": "192.0.2.1", "port": 20000 }],
                "conditions": [{
                    "type": "Ready", "lastTransitionTime": "2026-09-01T05:30:00Z", "message": "",
                    "status": ready[0], "reason": ready[1],
                }],
            },
        });
        for (key, value) in spec.as_object().expect("members") {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).expect("a node")
    }

    #[test]
    fn a_new_leader_knows_where_nodes_are_from_what_the_former_one_wrote() {
        let known = node(json!(["True", "Reconciled"]), json!({}));
        let (uid, endpoint) = endpoint_in(&known).expect("an endpoint");
        assert_eq!((uid, endpoint.epoch, endpoint.accepting), ("u-1", 2, true));
        assert_eq!(endpoint.addresses.len(), 1);
        for spec in [json!({ "unschedulable": true }), json!({ "drain": {} })] {
            let closed = node(json!(["True", "Reconciled"]), spec.clone());
            let accepting = endpoint_in(&closed).map(|(_, endpoint)| endpoint.accepting);
            assert_eq!(accepting, Some(false), "{spec}");
        }
        let flapping = node(json!(["False", "PodNotReady"]), json!({}));
        assert!(
            endpoint_in(&flapping).is_some(),
            "a probe that fails retracts nothing"
        );
        for reason in ["PodLost", "PodRemoved"] {
            let gone = node(json!(["False", reason]), json!({}));
            assert!(endpoint_in(&gone).is_none(), "{reason}");
        }
    }
}
