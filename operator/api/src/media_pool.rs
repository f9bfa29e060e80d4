// SPDX-License-Identifier: EUPL-1.2
//! `MediaPool`: media nodes of one kind, their number, exposure, drain and update.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity, apis::meta::v1::Time, util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    conditions::Condition,
    names,
    shared::{GoDuration, NameRef, Schedule, Selector, annotation_map, label_map},
};

/// How many nodes, how they are reached, and how they come and go.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "MediaPool",
    plural = "mediapools",
    shortname = "mp",
    category = "plenum",
    namespaced,
    status = "MediaPoolStatus",
    derive = "PartialEq",
    doc = "Media nodes of one kind: their number, exposure, capacity, drain and update.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("a pool's name has at most 63 characters, because it is a label of its nodes"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".status.desiredReplicas"
    ),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(
        name = "Accepting",
        type_ = "integer",
        json_path = ".status.acceptingReplicas"
    ),
    printcolumn(
        name = "Draining",
        type_ = "integer",
        json_path = ".status.drainingReplicas"
    ),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used.rooms"),
    printcolumn(name = "Network", type_ = "string", json_path = ".spec.network.type"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.autoscaling) || has(self.replicas)").message("set replicas or autoscaling"))]
pub struct MediaPoolSpec {
    /// Number of nodes; ignored while autoscaling is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_000))]
    pub replicas: Option<u32>,
    /// Adds nodes to keep a buffer of free capacity, and gives them back; `replicas` is ignored with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How media reach the nodes from outside the cluster, and which addresses are offered.
    pub network: Network,
    /// Exceptions from the cryptography that is asked of clients.
    #[serde(default)]
    pub security: Security,
    /// Most load that one node takes; rooms beyond it go to another node.
    #[serde(default)]
    pub capacity: NodeCapacity,
    /// How a node is emptied: how long rooms may go on, when people are told, what happens at the end.
    #[serde(default)]
    pub drain: DrainPolicy,
    /// How nodes of an old revision are replaced: how many at a time, and which first.
    #[serde(default)]
    pub update: UpdatePolicy,
    /// Whether the pool's disruption budget keeps others from evicting its pods.
    #[serde(default)]
    pub disruption: Disruption,
    /// Which tenants may use the pool; a tenant must name the pool as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenancy: Option<Tenancy>,
    /// What the pods look like: resources, machines, image.
    #[serde(default)]
    pub template: Template,
    /// Reconciliation stops; drains in progress go on.
    #[serde(default)]
    pub paused: bool,
}

/// Keeps a buffer of free capacity.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas must not exceed maxReplicas"),
    validation = Rule::new("!has(self.schedule) || self.schedule.all(s, s.minReplicas <= self.maxReplicas)")
        .message("minReplicas of a schedule must not exceed maxReplicas")
)]
pub struct Autoscaling {
    /// Fewest nodes, whatever the load is.
    #[schemars(range(min = 0, max = 2_000))]
    pub min_replicas: u32,
    /// Most nodes, whatever load and schedule ask for.
    #[schemars(range(min = 1, max = 2_000))]
    pub max_replicas: u32,
    /// How much capacity stays free above what is in use.
    #[serde(default)]
    pub buffer: Buffer,
    /// Higher floors at certain times; the highest active one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub schedule: Vec<ScheduledFloor>,
    /// How long a lower number must be enough before nodes go, and how many drain at a time.
    #[serde(default)]
    pub scale_down: ScaleDown,
}

/// How much stays free.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'Percent') == has(self.percent) && (self.type == 'Rooms') == has(self.rooms) && (self.type == 'Participants') == has(self.participants)")
    .message("set exactly the member that type names"))]
pub struct Buffer {
    /// Which of the other members is set: `Percent`, `Rooms` or `Participants`.
    #[serde(rename = "type")]
    pub type_: BufferType,
    /// Share of the whole capacity that stays free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 95))]
    pub percent: Option<u32>,
    /// Number of rooms for which there is always space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub rooms: Option<u32>,
    /// Number of people for whom there is always space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub participants: Option<u32>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            type_: BufferType::Percent,
            percent: Some(25),
            rooms: None,
            participants: None,
        }
    }
}

choice! {
    /// What a buffer counts.
    pub enum BufferType {
        /// A share of the capacity.
        Percent,
        /// Rooms.
        Rooms,
        /// Participants.
        Participants,
    }
}

/// A higher floor at certain times.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledFloor {
    /// When the floor holds, once or recurring.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Fewest nodes while the schedule holds; never more than `maxReplicas`.
    #[schemars(range(min = 0, max = 2_000))]
    pub min_replicas: u32,
}

/// How carefully nodes are given back.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// How long fewer nodes must suffice first.
    pub stabilization: GoDuration,
    /// Nodes that are emptied at a time.
    #[schemars(range(min = 1, max = 100))]
    pub max_concurrent_drains: u32,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            stabilization: "15m".into(),
            max_concurrent_drains: 2,
        }
    }
}

/// How media reaches the nodes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.type == 'HostPort') == has(self.hostPort)").message("hostPort must be set exactly when type is HostPort"),
    validation = Rule::new("(self.type == 'HostNetwork') == has(self.hostNetwork)").message("hostNetwork must be set exactly when type is HostNetwork"),
    validation = Rule::new("(self.type == 'NodePort') == has(self.nodePort)").message("nodePort must be set exactly when type is NodePort"),
    validation = Rule::new("(self.type == 'LoadBalancer') == has(self.loadBalancer)").message("loadBalancer must be set exactly when type is LoadBalancer"),
    validation = Rule::new("!has(self.hostPort) || self.hostPort.range.max < 30000 || self.hostPort.range.min > 32767")
        .message("hostPort.range must lie outside 30000-32767, which belongs to NodePorts"),
    validation = Rule::new("!has(self.hostNetwork) || self.hostNetwork.range.max < 30000 || self.hostNetwork.range.min > 32767")
        .message("hostNetwork.range must lie outside 30000-32767, which belongs to NodePorts"),
    validation = Rule::new("!has(self.nodePort) || (self.nodePort.range.min >= 30000 && self.nodePort.range.max <= 32767)")
        .message("nodePort.range must lie inside 30000-32767")
)]
pub struct Network {
    /// How media reach a node; the member of the same name is set with it.
    #[serde(rename = "type")]
    pub type_: NetworkType,
    /// A port of the machine, mapped into the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<Ports>,
    /// The network of the machine; the node's two service ports come from the range too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_network: Option<Ports>,
    /// A Service of type NodePort per node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<Ports>,
    /// A Service of type LoadBalancer per node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// One port for all media of a pod, or one per shard.
    #[serde(default)]
    pub mux: Mux,
    /// The first source that yields an address for a family wins.
    #[serde(default = "default_sources")]
    #[schemars(length(min = 1, max = 8))]
    pub address_sources: Vec<AddressSource>,
    /// Address families that are offered to participants, in this order.
    #[serde(default = "default_families")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ip_families: Vec<IpFamily>,
}

fn default_sources() -> Vec<AddressSource> {
    let source = |type_| AddressSource {
        type_,
        key: None,
        addresses: Vec::new(),
        server: None,
    };
    vec![
        source(AddressSourceType::NodeExternalIP),
        source(AddressSourceType::NodeInternalIP),
    ]
}

fn default_families() -> Vec<IpFamily> {
    vec![IpFamily::IPv4, IpFamily::IPv6]
}

impl Network {
    /// Range of ports where the specification names none.
    pub const RANGE_DEFAULT: PortRange = PortRange {
        min: 20_000,
        max: 20_255,
    };

    /// Range of ports that media may use.
    #[must_use]
    pub fn range(&self) -> PortRange {
        [&self.host_port, &self.host_network, &self.node_port]
            .into_iter()
            .flatten()
            .map(|ports| ports.range)
            .next()
            .unwrap_or(Self::RANGE_DEFAULT)
    }
}

choice! {
    /// How media reaches a node.
    pub enum NetworkType {
        /// A port of the machine, mapped into the pod.
        HostPort,
        /// The network of the machine.
        HostNetwork,
        /// A Service of type NodePort per node.
        NodePort,
        /// A Service of type LoadBalancer per node.
        LoadBalancer,
        /// The pod's own address.
        None,
    }
}

/// Ports of a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// Range the nodes take their ports from; outside the machines' `ip_local_port_range`.
    pub range: PortRange,
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.min <= self.max").message("min must not exceed max"),
    validation = Rule::new("self.max - self.min < 4096").message("a range has at most 4096 ports")
)]
pub struct PortRange {
    /// First port of the range.
    #[schemars(range(min = 1024, max = 65_535))]
    pub min: u16,
    /// Last port of the range, itself included.
    #[schemars(range(min = 1024, max = 65_535))]
    pub max: u16,
}

/// A Service of type LoadBalancer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// Class of the load balancer that serves the Services (`loadBalancerClass`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class: Option<String>,
    /// One address for all nodes, one port each.
    #[serde(default)]
    pub shared_address: bool,
    /// Annotations of the Services, for what a load balancer wants to be told so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotation_map")]
    pub annotations: BTreeMap<String, String>,
}

choice! {
    /// How the shards of a node share ports.
    #[derive(Default)]
    pub enum Mux {
        /// One port carries all media.
        #[default]
        SinglePort,
        /// A block of consecutive ports, one per shard.
        PortPerShard,
    }
}

/// Where the offered address of a node comes from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type in ['NodeLabel', 'NodeAnnotation']) == has(self.key) && (self.type == 'Static') == has(self.addresses) && (self.type == 'Stun') == has(self.server)")
    .message("set exactly the member that type needs: key for NodeLabel and NodeAnnotation, addresses for Static, server for Stun"))]
pub struct AddressSource {
    /// Where the address is read from.
    #[serde(rename = "type")]
    pub type_: AddressSourceType,
    /// Key of the machine's label or annotation that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub key: Option<String>,
    /// Addresses that are offered as they stand here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 2, max = 45)))]
    pub addresses: Vec<String>,
    /// Host and port of a STUN server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259))]
    pub server: Option<String>,
}

choice! {
    /// Where an address comes from.
    pub enum AddressSourceType {
        /// A label of the machine.
        NodeLabel,
        /// An annotation of the machine.
        NodeAnnotation,
        /// The machine's external address.
        NodeExternalIP,
        /// The machine's internal address.
        NodeInternalIP,
        /// The pod's address.
        PodIP,
        /// The status of the node's Service.
        ServiceStatus,
        /// Written here.
        Static,
        /// Asked of a STUN server.
        Stun,
    }
}

choice! {
    /// Family of addresses.
    pub enum IpFamily {
        /// IPv4
        IPv4,
        /// IPv6
        IPv6,
    }
}

/// Cryptographic exceptions.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// Whether clients without AEAD-AES-GCM may come with older SRTP; each one is logged and counted.
    #[serde(default)]
    pub srtp_legacy: SrtpLegacy,
}

choice! {
    /// SRTP without AEAD-AES-GCM.
    #[derive(Default)]
    pub enum SrtpLegacy {
        /// A client without AES-GCM is refused.
        #[default]
        Forbidden,
        /// A client without AES-GCM gets SHA1.
        Allowed,
    }
}

/// Ceiling of admission, per node; an absent one is derived from the resources.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCapacity {
    /// Most rooms that one node takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub rooms: Option<u32>,
    /// Most people that one node takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub participants: Option<u32>,
    /// Most media that one node sends, in Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub egress_mbps: Option<u32>,
}

/// How a node is emptied.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.announceBefore) <= duration(self.timeout)").message("announceBefore must not exceed timeout"),
    validation = Rule::new("duration(self.timeout) <= duration('24h')").message("timeout must not exceed 24h")
)]
pub struct DrainPolicy {
    /// How long rooms of a node may go on before `onDeadline` holds.
    #[serde(default = "default_drain_timeout")]
    pub timeout: GoDuration,
    /// How long before a move participants are told.
    #[serde(default = "default_announce_before")]
    pub announce_before: GoDuration,
    /// Whether rooms may end by themselves first.
    #[serde(default)]
    pub strategy: DrainStrategy,
    /// What happens to rooms at the deadline.
    #[serde(default)]
    pub on_deadline: OnDeadline,
}

fn default_drain_timeout() -> GoDuration {
    "4h".into()
}

fn default_announce_before() -> GoDuration {
    "5m".into()
}

impl Default for DrainPolicy {
    fn default() -> Self {
        Self {
            timeout: default_drain_timeout(),
            announce_before: default_announce_before(),
            strategy: DrainStrategy::default(),
            on_deadline: OnDeadline::default(),
        }
    }
}

choice! {
    /// Whether rooms may end by themselves first.
    #[derive(Default)]
    pub enum DrainStrategy {
        /// They may, until the deadline.
        #[default]
        WaitForEmpty,
        /// They are moved at once.
        Move,
    }
}

choice! {
    /// What happens to rooms at the deadline.
    #[derive(Default)]
    pub enum OnDeadline {
        /// They move to another node and go on.
        #[default]
        Move,
        /// They are closed with a reason that clients understand.
        Terminate,
    }
}

/// How nodes are replaced: surge first, then drain.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])")
    .message("maxSurge and maxUnavailable must not both be 0"))]
pub struct UpdatePolicy {
    /// Nodes above the wanted number, or percent of it.
    #[serde(default = "default_surge")]
    #[schemars(schema_with = "int_or_percent")]
    pub max_surge: IntOrString,
    /// Nodes below the wanted number, or percent of it.
    #[serde(default = "default_unavailable")]
    #[schemars(schema_with = "int_or_percent")]
    pub max_unavailable: IntOrString,
    /// Which nodes of the old revision are replaced first.
    #[serde(default)]
    pub order: UpdateOrder,
}

fn default_surge() -> IntOrString {
    IntOrString::String("25%".to_owned())
}

fn default_unavailable() -> IntOrString {
    IntOrString::Int(0)
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            max_surge: default_surge(),
            max_unavailable: default_unavailable(),
            order: UpdateOrder::default(),
        }
    }
}

choice! {
    /// Which nodes go first.
    #[derive(Default)]
    pub enum UpdateOrder {
        /// Those with the fewest rooms.
        #[default]
        EmptiestFirst,
        /// The oldest.
        OldestFirst,
    }
}

/// What the disruption budget covers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// How long a pod is covered by the pool's disruption budget.
    #[serde(default)]
    pub protect: Protect,
}

choice! {
    /// How long a pod is protected.
    #[derive(Default)]
    pub enum Protect {
        /// Until it is drained.
        #[default]
        UntilDrained,
        /// Never; the pods are left out of the budget.
        Never,
    }
}

/// Which tenants may use a pool.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenancy {
    /// Tenants by their labels; absent: every tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_tenants: Option<AllowedTenants>,
}

/// Tenants by their labels.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedTenants {
    /// Labels of the Tenants that may use the pool.
    #[serde(default)]
    pub selector: Selector,
}

impl MediaPoolSpec {
    /// Whether a tenant with these labels may use the pool: the pool's half of the handshake.
    #[must_use]
    pub fn allows(&self, tenant_labels: &BTreeMap<String, String>) -> bool {
        self.tenancy
            .as_ref()
            .and_then(|tenancy| tenancy.allowed_tenants.as_ref())
            .is_none_or(|allowed| allowed.selector.matches(tenant_labels))
    }
}

/// What the pods look like; deliberately not a whole pod template.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Labels and annotations that the pods get beside those of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Resources of the media container; the CPU request gives the number of shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that a machine must have to run a pod of the pool.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of machines that the pods bear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Spread over machines, zones and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topologyKey".into()]))]
    pub topology_spread_constraints: Vec<SpreadConstraint>,
    /// Priority class of the pods, which decides who goes when a machine is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(names::DNS_SUBDOMAIN))]
    pub priority_class_name: Option<String>,
    /// Image; empty means the digest pinned by the chart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub image: String,
    /// Secrets of the media namespace with credentials of the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<NameRef>,
}

/// Labels and annotations of the pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels that the pods get beside those of the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations that the pods get beside those of the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotation_map")]
    pub annotations: BTreeMap<String, String>,
}

/// Resources of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler keeps free for the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may not exceed; a CPU limit makes media stutter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// A taint that is tolerated.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint; absent with `Exists` tolerates all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub key: Option<String>,
    /// How the value is compared: `Equal` to `value`, or `Exists` whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint, with `operator: Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a `NoExecute` taint is tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub toleration_seconds: Option<i64>,
}

choice! {
    /// How a taint's value is compared.
    pub enum TolerationOperator {
        /// It must be equal.
        Equal,
        /// It does not matter.
        Exists,
    }
}

choice! {
    /// Effect of a taint.
    pub enum TaintEffect {
        /// New pods stay away.
        NoSchedule,
        /// New pods stay away if possible.
        PreferNoSchedule,
        /// Running pods go.
        NoExecute,
    }
}

/// Spread of the pool's pods; the operator adds the selector.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpreadConstraint {
    /// Most that two domains may differ in their number of pods.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// Label of the machines that names the domain.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
    /// What happens when the spread cannot be kept.
    pub when_unsatisfiable: WhenUnsatisfiable,
}

choice! {
    /// What happens when a spread cannot be kept.
    pub enum WhenUnsatisfiable {
        /// The pod waits.
        DoNotSchedule,
        /// The pod is placed all the same.
        ScheduleAnyway,
    }
}

fn int_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "maximum": 2000,
        "maxLength": 4,
        "pattern": "^(100|[1-9]?[0-9])%$",
    })
}

fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maxLength": 32,
            "pattern": r"^(\+)?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[mkMGTPE]|([eE][+-]?[0-9]+))?$",
        },
    })
}

/// Observed state of a pool.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaPoolStatus {
    /// Generation of the specification that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Number of media nodes that exist, draining ones included.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub replicas: u32,
    /// Number of media nodes whose pod is ready.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub ready_replicas: u32,
    /// Number of media nodes that take new rooms.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub accepting_replicas: u32,
    /// Number of media nodes that are being emptied.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub draining_replicas: u32,
    /// Number of media nodes of the present revision.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub updated_replicas: u32,
    /// Number of media nodes that is wanted at present.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub desired_replicas: u32,
    /// Hash of the rendered pod; nodes of another one are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,
    /// Selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// Capacity of the accepting nodes, in buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<PoolUsage>,
    /// Capacity in use, in coarse steps, so that the status is rarely written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<PoolUsage>,
    /// The last change of the wanted number, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale: Option<LastScale>,
    /// What holds and what does not, one entry per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Capacity or use of a pool.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolUsage {
    /// Rooms of all nodes of the pool together.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub rooms: u32,
    /// People of all nodes of the pool together.
    #[schemars(range(min = 0, max = 2_000_000_000))]
    pub participants: u32,
}

/// A change of the wanted number.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastScale {
    /// When the wanted number changed.
    pub time: Time,
    /// Wanted number before the change.
    #[schemars(range(min = 0, max = 2_000))]
    pub from: u32,
    /// Wanted number after the change.
    #[schemars(range(min = 0, max = 2_000))]
    pub to: u32,
    /// What asked for the change: load, schedule, bounds or a person.
    #[schemars(length(max = 128))]
    pub reason: String,
}
