// SPDX-License-Identifier: EUPL-1.2
//! What stands around the nodes of a pool: a Service per node where the exposure needs one, and the NetworkPolicy.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        networking::v1::{
            NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
            NetworkPolicyPort, NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use plenum_api::{
    MediaPoolSpec,
    media_node::NodePorts,
    media_pool::{LoadBalancer, NetworkType},
    names,
};

use super::{media_ports, metadata};
use crate::objects::Name;

/// Who may call the nodes, and whom they call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane<'a> {
    /// Namespace of the installation.
    pub namespace: &'a str,
    /// Labels of the control plane's pods.
    pub labels: &'a BTreeMap<String, String>,
}

/// Port of a node's gRPC server, and of the control plane's.
pub const PORT_GRPC: u16 = 7882;
/// Port of a node's probes and metrics.
pub const PORT_PROBES: u16 = 7881;

/// The Service of a node, where the pool's exposure needs one.
///
/// It belongs to the pool and not to the node, so that it outlives the pod: a Service without endpoints swallows what a
/// client still sends, instead of handing it to whoever gets the port next. `publishNotReadyAddresses` keeps the flows of a
/// pod that is not ready for a moment.
#[must_use]
pub fn service(pool: &Name, spec: &MediaPoolSpec, node: &str, ports: NodePorts) -> Option<Service> {
    let (type_, node_ports, balancer) = match spec.network.type_ {
        NetworkType::NodePort => ("NodePort", true, None),
        NetworkType::LoadBalancer => ("LoadBalancer", false, spec.network.load_balancer.as_ref()),
        NetworkType::HostPort | NetworkType::HostNetwork | NetworkType::None => return None,
    };
    let mut metadata = metadata(pool, node);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(names::LABEL_NODE.to_owned(), node.to_owned());
    metadata.annotations = balancer.map(|balancer| annotations(pool, balancer));
    let families: Vec<String> = spec
        .network
        .ip_families
        .iter()
        .map(|family| family.as_str().to_owned())
        .collect();
    Some(Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(type_.to_owned()),
            selector: Some([(names::LABEL_NODE.to_owned(), node.to_owned())].into()),
            ports: Some(media_service_ports(spec, ports, node_ports)),
            external_traffic_policy: Some(traffic_policy(balancer).to_owned()),
            publish_not_ready_addresses: Some(true),
            // A cluster with one family takes one; the first stands for the preferred one.
            ip_family_policy: Some(
                if families.len() > 1 {
                    "PreferDualStack"
                } else {
                    "SingleStack"
                }
                .to_owned(),
            ),
            ip_families: (families.len() == 1).then_some(families),
            load_balancer_class: balancer.and_then(|balancer| balancer.class.clone()),
            ..ServiceSpec::default()
        }),
        status: None,
    })
}

/// `Local` keeps the client's address and spares a hop. Services that share an address cannot have it: a balancer would
/// have to send one address to several machines at a time, and MetalLB refuses to share it then.
const fn traffic_policy(balancer: Option<&LoadBalancer>) -> &'static str {
    match balancer {
        Some(balancer) if balancer.shared_address => "Cluster",
        _ => "Local",
    }
}

fn media_service_ports(
    spec: &MediaPoolSpec,
    ports: NodePorts,
    node_ports: bool,
) -> Vec<ServicePort> {
    media_ports(spec, ports)
        .flat_map(|port| {
            [("udp", "UDP"), ("tcp", "TCP")].map(|(name, protocol)| ServicePort {
                name: Some(format!("{name}-{port}")),
                protocol: Some(protocol.to_owned()),
                port: port.into(),
                target_port: Some(IntOrString::Int(port.into())),
                node_port: node_ports.then(|| port.into()),
                app_protocol: None,
            })
        })
        .collect()
}

/// What the pool says, and where one address serves all nodes the keys by which MetalLB and Cilium know it.
fn annotations(pool: &Name, balancer: &LoadBalancer) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if balancer.shared_address {
        let key = format!("plenum-{}-{}", pool.namespace, pool.name);
        for annotation in SHARING_ANNOTATIONS {
            all.insert((*annotation).to_owned(), key.clone());
        }
    }
    all.extend(balancer.annotations.clone());
    all
}

/// The policy over the pods of a pool. Media comes from anywhere: whoever is called knows no addresses beforehand. Pods on
/// the machine's network are outside of what a policy governs.
#[must_use]
pub fn policy(
    pool: &Name,
    spec: &MediaPoolSpec,
    control_plane: &ControlPlane<'_>,
) -> NetworkPolicy {
    let range = spec.network.range();
    let media = |protocol| port(protocol, range.min, Some(range.max));
    let to_control_plane = || peer(control_plane.namespace, control_plane.labels.clone());
    let ingress = vec![
        NetworkPolicyIngressRule {
            ports: Some(vec![media("UDP"), media("TCP")]),
            from: None,
        },
        NetworkPolicyIngressRule {
            ports: Some(vec![port("TCP", PORT_GRPC, None)]),
            from: Some(vec![to_control_plane()]),
        },
        // Probes come from the machine; metrics from wherever Prometheus runs in the cluster.
        NetworkPolicyIngressRule {
            ports: Some(vec![port("TCP", PORT_PROBES, None)]),
            from: Some(vec![NetworkPolicyPeer {
                namespace_selector: Some(LabelSelector::default()),
                ..NetworkPolicyPeer::default()
            }]),
        },
    ];
    let egress = vec![
        NetworkPolicyEgressRule {
            ports: Some(vec![port("TCP", PORT_GRPC, None)]),
            to: Some(vec![to_control_plane()]),
        },
        NetworkPolicyEgressRule {
            ports: Some(vec![
                port("UDP", PORT_DNS, None),
                port("TCP", PORT_DNS, None),
            ]),
            to: None,
        },
        // Checks and media to participants, whatever ports they have; RFC 8445 §6.1.
        NetworkPolicyEgressRule {
            ports: Some(vec![port("UDP", PORT_CLIENT_MIN, Some(u16::MAX))]),
            to: None,
        },
    ];
    NetworkPolicy {
        metadata: metadata(pool, &pool.name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some([(names::LABEL_POOL.to_owned(), pool.name.clone())].into()),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}

fn port(protocol: &str, first: u16, last: Option<u16>) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(first.into())),
        end_port: last.map(Into::into),
    }
}

fn peer(namespace: &str, labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([(LABEL_NAMESPACE.to_owned(), namespace.to_owned())].into()),
            ..LabelSelector::default()
        }),
        pod_selector: Some(LabelSelector {
            match_labels: Some(labels),
            ..LabelSelector::default()
        }),
        ip_block: None,
    }
}

/// Every API server puts it on every namespace.
const LABEL_NAMESPACE: &str = "kubernetes.io/metadata.name";
/// Services with equal values may share an address: MetalLB, its earlier name, Cilium.
const SHARING_ANNOTATIONS: &[&str] = &[
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
    "lbipam.cilium.io/sharing-key",
];
const PORT_DNS: u16 = 53;
/// Clients send from ports that need no privilege; STUN servers listen on 3478.
const PORT_CLIENT_MIN: u16 = 1024;
