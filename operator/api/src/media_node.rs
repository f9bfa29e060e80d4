// SPDX-License-Identifier: EUPL-1.2
//! `MediaNode`: one incarnation of one media pod. Deleting it means "drain, then go".

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    conditions::Condition,
    media_pool::{IpFamily, OnDeadline},
    shared::NameRef,
};

/// What the operator laid down for the node, and what people may ask of it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "MediaNode",
    plural = "medianodes",
    shortname = "mn",
    category = "plenum",
    namespaced,
    status = "MediaNodeStatus",
    derive = "PartialEq",
    doc = "One incarnation of one media pod. Written by the operator; people set drain and unschedulable, and deleting it is a graceful drain.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolRef.name"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.addresses[0].address"),
    printcolumn(name = "Rooms", type_ = "integer", json_path = ".status.load.rooms"),
    printcolumn(name = "Participants", type_ = "integer", json_path = ".status.load.participants"),
    printcolumn(name = "Accepting", type_ = "string", json_path = ".status.conditions[?(@.type=='Accepting')].status"),
    printcolumn(name = "Drained", type_ = "string", json_path = ".status.conditions[?(@.type=='Drained')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.spec.drain) || has(self.spec.drain) || !has(oldSelf.status) || !has(oldSelf.status.drain) || oldSelf.status.drain.phase == 'Closing'")
        .message("a drain can be cancelled only before it is announced")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.poolRef == oldSelf.poolRef").message("poolRef is immutable"),
    validation = Rule::new("self.revision == oldSelf.revision").message("revision is immutable"),
    validation = Rule::new("self.ports == oldSelf.ports").message("ports are immutable")
)]
pub struct MediaNodeSpec {
    /// Pool of the node, in the same namespace.
    pub pool_ref: NameRef,
    /// Hash of the template the pod was made from.
    #[schemars(length(min = 1, max = 64))]
    pub revision: String,
    /// Ports that were laid down for the node; they never change.
    pub ports: NodePorts,
    /// No new rooms, the old ones stay; can be taken back.
    #[serde(default)]
    pub unschedulable: bool,
    /// Finish or move all rooms; taking it back works only before it is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainRequest>,
}

/// Consecutive ports of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePorts {
    /// First of the consecutive ports; media come here.
    #[schemars(range(min = 1024, max = 65_535))]
    pub base: u16,
    /// Number of ports: 1 with `SinglePort`, one per shard with `PortPerShard`; 2 more with `HostNetwork`.
    #[schemars(range(min = 1, max = 258))]
    pub count: u16,
}

/// A wish to empty the node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainRequest {
    /// When the drain was asked for, which is where its time begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,
    /// Until when rooms may end by themselves; default from the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Why the node is to be emptied; `Manual` when a person asked for it.
    #[serde(default)]
    pub reason: DrainReason,
    /// What happens to rooms at the deadline; default from the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_deadline: Option<OnDeadline>,
}

choice! {
    /// Why a node is emptied.
    #[derive(Default)]
    pub enum DrainReason {
        /// A person asked for it.
        #[default]
        Manual,
        /// The machine was cordoned.
        NodeCordoned,
        /// The pool needs fewer nodes.
        ScaleDown,
        /// The node is replaced by one of a new revision.
        Update,
        /// A maintenance window begins.
        Maintenance,
        /// The pod is to be evicted.
        Eviction,
    }
}

choice! {
    /// How far a drain is.
    pub enum DrainPhase {
        /// The control plane is told to place nothing new here.
        Closing,
        /// Participants are told; there is no way back.
        Announced,
        /// Rooms may end by themselves.
        Waiting,
        /// Rooms move to other nodes.
        Moving,
        /// No rooms are left.
        Drained,
    }
}

/// Observed state of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaNodeStatus {
    /// Generation of the specification that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Id of the pod that belongs to this node; a pod of another id is not its own.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub pod_uid: Option<String>,
    /// Machine of the cluster that the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// Site in which the node runs, by which tenants are kept apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub site: Option<String>,
    /// Addresses and ports that participants are told to send media to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub addresses: Vec<NodeAddress>,
    /// Where the control plane reaches the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 259))]
    pub grpc_endpoint: Option<String>,
    /// Number by which the control plane tells this life of the node from an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<i64>,
    /// Load, in buckets of powers of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<NodeLoad>,
    /// How far the drain is, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// What holds and what does not, one entry per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// An address that is offered.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddress {
    /// Family of the address: IPv4 or IPv6.
    pub family: IpFamily,
    /// Address that participants are told, without port.
    #[schemars(length(max = 45))]
    pub address: String,
    /// UDP port that participants are told; behind a Service it may differ from the pod's.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
}

/// Load of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeLoad {
    /// Rooms on the node, in coarse steps, so that the status is rarely written.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub rooms: u32,
    /// People on the node, in coarse steps, so that the status is rarely written.
    #[schemars(range(min = 0, max = 100_000_000))]
    pub participants: u32,
    /// Media that the node sends in Mbit/s, in coarse steps, so that the status is rarely written.
    #[schemars(range(min = 0, max = 100_000_000))]
    pub egress_mbps: u32,
}

/// A drain in progress.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// How far the drain is; from `Announced` on there is no way back.
    pub phase: DrainPhase,
    /// When people on the node were told that their room moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_at: Option<Time>,
    /// Until when rooms may end by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}
