// SPDX-License-Identifier: EUPL-1.2
//! The pod of a media node. What is rendered here is what a pool's revision is hashed from.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
        LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorRequirement,
        NodeSelectorTerm, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, Probe,
        ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Toleration,
        TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use plenum_api::{
    MediaNode, MediaPool, MediaPoolSpec,
    media_node::NodePorts,
    media_pool::{IpFamily, Mux, NetworkType, Template},
    names,
};

use crate::{
    media_pool::{
        disruption::is_protected,
        labels, media_ports,
        network::{PORT_GRPC, PORT_PROBES},
    },
    plan::shards_of,
};

/// What holds for the pods of all pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodSettings<'a> {
    /// Image of pools that name none.
    pub image: &'a str,
    /// Headless Service of the control plane's replicas, `host:port`.
    pub control_plane: &'a str,
    /// Site of the cluster.
    pub site: &'a str,
    /// Version of Plenum, for the label alone.
    pub version: &'a str,
}

/// The node's own ports inside the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePorts {
    /// RoomHost, gRPC.
    pub grpc: u16,
    /// Probes and metrics.
    pub probes: u16,
}

/// On the machine's network they are the last two of the node's ports, otherwise fixed ones.
#[must_use]
pub fn service_ports(spec: &MediaPoolSpec, ports: NodePorts) -> ServicePorts {
    if spec.network.type_ == NetworkType::HostNetwork {
        let end = ports.base.saturating_add(ports.count);
        ServicePorts {
            grpc: end.saturating_sub(2),
            probes: end.saturating_sub(1),
        }
    } else {
        ServicePorts {
            grpc: PORT_GRPC,
            probes: PORT_PROBES,
        }
    }
}

/// `host:port` of a node's RoomHost service.
#[must_use]
pub fn grpc_endpoint(spec: &MediaPoolSpec, ports: NodePorts, pod: IpAddr) -> String {
    std::net::SocketAddr::new(pod, service_ports(spec, ports).grpc).to_string()
}

/// How long a pod may take to end: its drain, and what the end itself takes.
#[must_use]
pub fn grace(spec: &MediaPoolSpec) -> Duration {
    spec.drain.timeout.to_std().unwrap_or(DRAIN_DEFAULT) + GRACE_TAIL
}

/// The pod of a node. It has the node's name, and the node controls it.
#[must_use]
pub fn pod_of(pool: &MediaPool, node: &MediaNode, settings: &PodSettings<'_>) -> Pod {
    let spec = &pool.spec;
    let (name, pool_name) = (
        node.metadata.name.clone().unwrap_or_default(),
        pool.metadata.name.as_deref().unwrap_or_default(),
    );
    let template = &spec.template;
    Pod {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: node.metadata.namespace.clone(),
            labels: Some(pod_labels(
                spec,
                pool_name,
                &name,
                &node.spec.revision,
                settings,
            )),
            annotations: Some(annotations(spec)),
            owner_references: Some(vec![owner(node)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container(spec, node, settings)],
            volumes: Some(vec![tls_volume(&name)]),
            host_network: (spec.network.type_ == NetworkType::HostNetwork).then_some(true),
            dns_policy: (spec.network.type_ == NetworkType::HostNetwork)
                .then(|| "ClusterFirstWithHostNet".to_owned()),
            // A process that crashed is started again with a higher epoch; the pod stays the one of this node.
            restart_policy: Some("Always".to_owned()),
            termination_grace_period_seconds: i64::try_from(grace(spec).as_secs()).ok(),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            node_selector: (!template.node_selector.is_empty())
                .then(|| template.node_selector.clone()),
            tolerations: (!template.tolerations.is_empty()).then(|| tolerations(template)),
            topology_spread_constraints: (!template.topology_spread_constraints.is_empty())
                .then(|| spread(template, pool_name)),
            priority_class_name: template.priority_class_name.clone(),
            image_pull_secrets: (!template.image_pull_secrets.is_empty()).then(|| {
                let secrets = template.image_pull_secrets.iter();
                secrets
                    .map(|secret| LocalObjectReference {
                        name: secret.name.clone(),
                    })
                    .collect()
            }),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// The same pod, kept away from machines: those that an open window empties. No part of a revision.
#[must_use]
pub fn avoiding(mut pod: Pod, machines: &[String]) -> Pod {
    if machines.is_empty() {
        return pod;
    }
    // One requirement per machine: for fields, `NotIn` takes a single value.
    let fields = machines
        .iter()
        .take(AVOIDED_MAX)
        .map(|machine| NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(vec![machine.clone()]),
        })
        .collect();
    let spec = pod.spec.get_or_insert_with(PodSpec::default);
    spec.affinity = Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_expressions: None,
                    match_fields: Some(fields),
                }],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    });
    pod
}

/// The node as an owner: its pod and its Secret go with it.
#[must_use]
pub fn owner(node: &MediaNode) -> OwnerReference {
    OwnerReference {
        api_version: names::API_VERSION.to_owned(),
        kind: "MediaNode".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        // Deleting a node waits for its drain, never for its pod.
        block_owner_deletion: None,
    }
}

/// What the template says, and above it what Plenum's own objects select by.
fn pod_labels(
    spec: &MediaPoolSpec,
    pool: &str,
    node: &str,
    revision: &str,
    settings: &PodSettings<'_>,
) -> BTreeMap<String, String> {
    let mut all = spec
        .template
        .metadata
        .as_ref()
        .map(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    all.retain(|key, _| !key.starts_with("plenum.dev/"));
    all.extend(labels(pool));
    for (key, value) in [
        ("app.kubernetes.io/instance", node),
        ("app.kubernetes.io/version", settings.version),
        (names::LABEL_NODE, node),
        (names::LABEL_REVISION, revision),
        (names::LABEL_SITE, settings.site),
    ] {
        all.insert(key.to_owned(), value.to_owned());
    }
    if is_protected(spec) {
        all.insert(names::LABEL_PROTECTED.to_owned(), "true".to_owned());
    }
    all
}

/// What keeps autoscalers of machines away. It goes with the label that the budget selects.
fn annotations(spec: &MediaPoolSpec) -> BTreeMap<String, String> {
    let mut all = spec
        .template
        .metadata
        .as_ref()
        .map(|metadata| metadata.annotations.clone())
        .unwrap_or_default();
    if is_protected(spec) {
        for (key, value) in PROTECTING_ANNOTATIONS {
            all.insert((*key).to_owned(), (*value).to_owned());
        }
    }
    all
}

fn container(spec: &MediaPoolSpec, node: &MediaNode, settings: &PodSettings<'_>) -> Container {
    let own = service_ports(spec, node.spec.ports);
    let template = &spec.template;
    Container {
        name: CONTAINER.to_owned(),
        image: Some(if template.image.is_empty() {
            settings.image.to_owned()
        } else {
            template.image.clone()
        }),
        args: Some(arguments(spec, node, settings)),
        env: Some(vec![EnvVar {
            name: ENV_ADDRESSES.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: "status.podIPs".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
        }]),
        ports: Some(container_ports(spec, node.spec.ports, own)),
        resources: template
            .resources
            .as_ref()
            .map(|resources| ResourceRequirements {
                requests: (!resources.requests.is_empty()).then(|| resources.requests.clone()),
                limits: (!resources.limits.is_empty()).then(|| resources.limits.clone()),
                claims: None,
            }),
        startup_probe: Some(Probe {
            period_seconds: Some(1),
            failure_threshold: Some(60),
            ..probe("/readyz", own.probes)
        }),
        // Process healthy and sockets bound; never the drain, the store or the control plane: a pod that turns unready loses
        // the flows of its media, and all of them would at once.
        readiness_probe: Some(Probe {
            period_seconds: Some(5),
            failure_threshold: Some(3),
            ..probe("/readyz", own.probes)
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(3),
            timeout_seconds: Some(5),
            // A process that hangs holds no conversation; without this it would be left to hang for the whole drain.
            termination_grace_period_seconds: Some(GRACE_HUNG_SECONDS),
            ..probe("/livez", own.probes)
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_owned()]),
            }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: VOLUME_TLS.to_owned(),
            mount_path: TLS_DIR.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn arguments(spec: &MediaPoolSpec, node: &MediaNode, settings: &PodSettings<'_>) -> Vec<String> {
    let own = service_ports(spec, node.spec.ports);
    // One family only where the pool offers no other: a machine without IPv6 has no `[::]`.
    let any = if spec.network.ip_families == [IpFamily::IPv4] {
        "0.0.0.0"
    } else {
        "[::]"
    };
    let uid = node.metadata.uid.as_deref().unwrap_or_default();
    let mut all = vec![
        format!("--grpc-listen={any}:{}", own.grpc),
        format!("--metrics-listen={any}:{}", own.probes),
        format!("--tls-dir={TLS_DIR}"),
        format!("--control-plane={}", settings.control_plane),
        format!("--node-uid={uid}"),
        format!("--media-address=$({ENV_ADDRESSES})"),
        format!("--media-port={}", node.spec.ports.base),
        format!("--ports={}", spec.network.mux),
        format!("--shards={}", shards(spec, node.spec.ports)),
        "--log-format=json".to_owned(),
    ];
    let servers = spec
        .network
        .address_sources
        .iter()
        .filter_map(|source| source.server.as_ref());
    all.extend(servers.map(|server| format!("--stun-server={server}")));
    all
}

/// As many as the pool wants and the node has ports for: those of a node never change.
fn shards(spec: &MediaPoolSpec, ports: NodePorts) -> u16 {
    let wanted = u16::from(shards_of(spec));
    match spec.network.mux {
        Mux::SinglePort => wanted,
        Mux::PortPerShard => wanted.min(u16::try_from(media_ports(spec, ports).len()).unwrap_or(1)),
    }
}

fn container_ports(
    spec: &MediaPoolSpec,
    ports: NodePorts,
    own: ServicePorts,
) -> Vec<ContainerPort> {
    let on_host = |port: u16| match spec.network.type_ {
        NetworkType::HostPort | NetworkType::HostNetwork => Some(i32::from(port)),
        NetworkType::NodePort | NetworkType::LoadBalancer | NetworkType::None => None,
    };
    let mut all: Vec<ContainerPort> = media_ports(spec, ports)
        .flat_map(|port| {
            [("udp", "UDP"), ("tcp", "TCP")].map(|(name, protocol)| ContainerPort {
                name: Some(format!("{name}-{port}")),
                container_port: port.into(),
                host_port: on_host(port),
                protocol: Some(protocol.to_owned()),
                host_ip: None,
            })
        })
        .collect();
    let host_network = spec.network.type_ == NetworkType::HostNetwork;
    for (name, port) in [("grpc", own.grpc), ("probes", own.probes)] {
        all.push(ContainerPort {
            name: Some(name.to_owned()),
            container_port: port.into(),
            host_port: host_network.then_some(port.into()),
            protocol: Some("TCP".to_owned()),
            host_ip: None,
        });
    }
    all
}

fn probe(path: &str, port: u16) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port.into()),
            scheme: Some("HTTP".to_owned()),
            host: None,
            http_headers: None,
        }),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn tls_volume(node: &str) -> Volume {
    Volume {
        name: VOLUME_TLS.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(names::node_tls_secret(node)),
            default_mode: Some(TLS_MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn tolerations(template: &Template) -> Vec<Toleration> {
    let all = template.tolerations.iter();
    all.map(|wanted| Toleration {
        key: wanted.key.clone(),
        operator: wanted.operator.map(|operator| operator.as_str().to_owned()),
        value: wanted.value.clone(),
        effect: wanted.effect.map(|effect| effect.as_str().to_owned()),
        toleration_seconds: wanted.toleration_seconds,
    })
    .collect()
}

fn spread(template: &Template, pool: &str) -> Vec<TopologySpreadConstraint> {
    let all = template.topology_spread_constraints.iter();
    all.map(|wanted| TopologySpreadConstraint {
        max_skew: wanted.max_skew,
        topology_key: wanted.topology_key.clone(),
        when_unsatisfiable: wanted.when_unsatisfiable.as_str().to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some([(names::LABEL_POOL.to_owned(), pool.to_owned())].into()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    })
    .collect()
}

/// Name of the one container.
pub const CONTAINER: &str = "media-node";
/// Annotations that keep the cluster autoscaler and Karpenter from removing the machine below a pod with calls.
pub const PROTECTING_ANNOTATIONS: &[(&str, &str)] = &[
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ("karpenter.sh/do-not-disrupt", "true"),
];
const VOLUME_TLS: &str = "tls";
const TLS_DIR: &str = "/etc/plenum/tls";
/// Readable by the group, which is the pod's own.
const TLS_MODE: i32 = 0o440;
/// As the image has it.
const USER: i64 = 65_532;
const ENV_ADDRESSES: &str = "POD_IPS";
/// As the schema has it.
const DRAIN_DEFAULT: Duration = Duration::from_secs(4 * 3600);
/// What the end of a node takes after its drain: rooms that found no place are given up one by one, then sockets close.
const GRACE_TAIL: Duration = Duration::from_secs(60);
const GRACE_HUNG_SECONDS: i64 = 10;
/// Machines that a pod can be kept away from; more than a window's `maxConcurrentNodes` can empty at a time.
const AVOIDED_MAX: usize = 500;

#[cfg(test)]
mod tests;
