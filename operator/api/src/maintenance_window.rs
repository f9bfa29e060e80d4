// SPDX-License-Identifier: EUPL-1.2
//! `MaintenanceWindow`: when media nodes are emptied, when nothing may be disturbed, and when updates may happen.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    conditions::Condition,
    names,
    shared::{GoDuration, PoolRef, Schedule, Selector},
};

/// A time that is announced, and what it means for the media nodes that it selects.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "MaintenanceWindow",
    plural = "maintenancewindows",
    shortname = "mw",
    category = "plenum",
    status = "MaintenanceWindowStatus",
    derive = "PartialEq",
    doc = "A time in which media nodes are drained, in which nothing may be disturbed, or in which updates may happen.",
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.next.start"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Affected",
        type_ = "integer",
        json_path = ".status.affected.nodes"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.announceBefore) || duration(self.announceBefore) <= duration('2160h')").message("announceBefore must not exceed 2160h"),
    validation = Rule::new("self.reason != 'UrgentSecurity' || self.action != 'Freeze'").message("a Freeze cannot be UrgentSecurity, which overrules a Freeze")
)]
pub struct MaintenanceWindowSpec {
    /// When; once or again and again. `until` is a time of day, so a nightly window keeps it when the clock changes.
    pub schedule: Schedule,
    /// What happens inside the window: nodes are drained, nothing is disturbed, or updates are allowed.
    pub action: WindowAction,
    /// Why; service levels leave out what the contract excludes. `UrgentSecurity` overrules a `Freeze`.
    #[serde(default)]
    pub reason: WindowReason,
    /// What it is about. Members that are set must all hold.
    pub selector: WindowSelector,
    /// How long before the start people are told: on the page, in the room and in the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce_before: Option<GoDuration>,
    /// Lets a window hold that was declared too late to be announced in time.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub override_: Option<WindowOverride>,
    /// Media nodes that are emptied at a time.
    #[serde(default = "default_concurrent")]
    #[schemars(range(min = 1, max = 100))]
    pub max_concurrent_nodes: u32,
    /// Treats the window as if it were not there.
    #[serde(default)]
    pub suspended: bool,
}

fn default_concurrent() -> u32 {
    1
}

choice! {
    /// What a window means for what it selects.
    pub enum WindowAction {
        /// Media nodes are emptied at the start; what they ran on is used again at the end.
        Drain,
        /// No voluntary disruption and no update: a week of exams, say.
        Freeze,
        /// Pools that any such window selects are updated inside such windows only.
        AllowUpdates,
    }
}

choice! {
    /// Why there is a window; the exclusion code of service levels.
    #[derive(Default)]
    pub enum WindowReason {
        /// Planned work.
        #[default]
        Maintenance,
        /// A backup.
        Backup,
        /// A hole that must be closed now; overrules a `Freeze`.
        UrgentSecurity,
        /// Beyond anybody's control.
        ForceMajeure,
        /// The customer caused it.
        CustomerCaused,
        /// Agreed with the customer.
        Agreed,
    }
}

/// What a window is about; members that are set must all hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.pools) || has(self.nodes) || has(self.sites)").message("select something by pools, nodes or sites"))]
pub struct WindowSelector {
    /// Media pools that the window speaks of, by namespace and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub pools: Vec<PoolRef>,
    /// Machines (Nodes of the cluster) by their labels; media nodes on them are selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Selector>,
    /// Sites whose pools the window speaks of, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 63), pattern(names::DNS_LABEL))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub sites: Vec<String>,
}

/// Why a window holds although it was declared too late.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowOverride {
    /// The reason, for whoever asks later. No personal data.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

choice! {
    /// Where a window stands.
    pub enum WindowPhase {
        /// It lies ahead.
        Scheduled,
        /// It lies ahead, and people are told of it.
        Announced,
        /// It is open.
        Active,
        /// It is over for good.
        Ended,
        /// The specification suspends it.
        Suspended,
        /// It has no effect; the condition `Stalled` says why.
        Refused,
    }
}

/// Observed state of a window.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindowStatus {
    /// Generation of the specification that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Where the window stands: ahead, announced, going on or over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<WindowPhase>,
    /// The open time, or else the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<WindowTime>,
    /// How many pools and nodes the window selects at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected: Option<WindowAffected>,
    /// What holds and what does not, one entry per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// From when until when.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowTime {
    /// First moment that belongs to the window.
    pub start: Time,
    /// First moment that does not belong to the window any more.
    pub end: Time,
}

/// What a window selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowAffected {
    /// Number of media pools that the window selects.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub pools: u32,
    /// Number of media nodes that the window selects.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub nodes: u32,
}
