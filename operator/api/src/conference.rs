// SPDX-License-Identifier: EUPL-1.2
//! `Conference`: a planned or standing conference. Its tenant is the one its namespace belongs to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    conditions::Condition,
    names,
    shared::{GoDuration, GroupRef, LocalText, Period, PoolRef, Schedule, SecretRef, SubjectRef},
    tenant::{E2ee, Guests, Recording},
};

/// Who may open, enter and do what, and when.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "plenum.dev",
    version = "v1alpha1",
    kind = "Conference",
    plural = "conferences",
    shortname = "conf",
    category = "plenum",
    namespaced,
    status = "ConferenceStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A planned or standing conference: who may open it, who waits, who may do what, and when.",
    printcolumn(name = "Room", type_ = "string", json_path = ".status.roomId"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Opens", type_ = "date", json_path = ".status.window.opensAt"),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.assignment.nodes[*].name"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Site",
        type_ = "string",
        json_path = ".status.assignment.site",
        priority = 1
    ),
    printcolumn(
        name = "Peak",
        type_ = "integer",
        json_path = ".status.peakParticipants",
        priority = 1
    ),
    printcolumn(
        name = "Class",
        type_ = "string",
        json_path = ".status.class.name",
        priority = 1
    ),
    printcolumn(
        name = "Lobby",
        type_ = "string",
        json_path = ".spec.lobby",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.lifecycle) || !has(self.lifecycle.ttlAfterEnd) || (has(self.schedule) && (!has(self.schedule.recurrence) || self.schedule.recurrence.contains('COUNT=') || self.schedule.recurrence.contains('UNTIL=')))")
        .message("ttlAfterEnd needs a schedule that ends"),
    validation = Rule::new("!has(oldSelf.roomName) || (has(self.roomName) && self.roomName == oldSelf.roomName)")
        .message("roomName is immutable once set")
)]
pub struct ConferenceSpec {
    /// A course, a series, a body; not the people in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,
    /// Class that supplies defaults; default the one annotated as such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(names::DNS_SUBDOMAIN))]
    pub class_name: Option<String>,
    /// Name of the room, immutable once set; default the object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(names::DNS_LABEL))]
    pub room_name: Option<String>,
    /// Only these may open: until one of them has joined, nobody's media flow and everybody else waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub openers: Vec<Opener>,
    /// Secret with the password; absent, one is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretRef>,
    /// Who waits until a moderator lets them in; default from the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lobby: Option<Lobby>,
    /// People without an account; default from the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<Guests>,
    /// Who gets which role; the strongest match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["role".into()]))]
    pub roles: Vec<RoleBinding>,
    /// Shown before joining, after the built-in notice and the class's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub notices: Vec<ConferenceNotice>,
    /// Recording; needs the class and the tenant to allow it.
    #[serde(default)]
    pub recording: Recording,
    /// Periods for this conference, never longer than the class's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<ContentRetention>,
    /// When it may be open; absent: always, to its openers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ConferenceSchedule>,
    /// How many people may come, how many may send, and whether capacity is held for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Quality, bit rate, screen sharing and end-to-end encryption; never weaker than the tenant's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// On which pool and in which sites the room may run, and over how many nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// When an empty or long meeting ends, and when the object goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Nobody can open or join; a running room is closed in good order.
    #[serde(default)]
    pub suspended: bool,
}

/// Somebody who may open.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'Subject') == has(self.subject) && (self.type == 'Group') == has(self.group) && (self.type == 'Key') == has(self.key)")
    .message("set exactly the member that type names"))]
pub struct Opener {
    /// Which of the other members is set: `Subject`, `Group` or `Key`.
    #[serde(rename = "type")]
    pub type_: OpenerType,
    /// A person, by the opaque id that the tenant's issuer gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectRef>,
    /// A group, by the name that the tenant's issuer gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupRef>,
    /// A Secret of type `plenum.dev/opener-key`; whoever bears the key may open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretRef>,
}

choice! {
    /// Kinds of opener.
    pub enum OpenerType {
        /// A person, by an opaque id.
        Subject,
        /// A group of the identity provider.
        Group,
        /// The bearer of a key.
        Key,
    }
}

choice! {
    /// Who waits until a moderator lets them in. Openers and moderators never wait.
    pub enum Lobby {
        /// Nobody.
        Off,
        /// Guests.
        Guests,
        /// Everyone.
        Everyone,
    }
}

/// Who gets a role.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleBinding {
    /// The role that the groups and subjects get; the strongest match wins.
    pub role: BoundRole,
    /// Groups whose members have the role; the rule, where subjects are the exception.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub groups: Vec<GroupRef>,
    /// Persons that have it, by opaque ids; the exception.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub subjects: Vec<SubjectRef>,
}

choice! {
    /// Roles that can be given, strongest first.
    pub enum BoundRole {
        /// Moderates.
        Moderator,
        /// Presents.
        Presenter,
        /// Takes part.
        Participant,
    }
}

/// A notice before joining.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConferenceNotice {
    /// Name of the notice, by which consent to it is recorded.
    #[schemars(length(min = 1, max = 63), pattern(names::DNS_LABEL))]
    pub id: String,
    /// The text that is shown before entry, once per language.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["lang".into()]))]
    pub texts: Vec<LocalText<400>>,
    /// Nobody gets in without having agreed to the notice.
    #[serde(default)]
    pub acknowledge: bool,
}

/// Periods for the content of a conference.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContentRetention {
    /// How long it is kept what a user did, in detail; never longer than the class and the tenant allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_actions: Option<Period>,
    /// How long addresses, devices and times of connections are kept; never longer than the class and the tenant allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Period>,
    /// How long chat is kept; never longer than the class and the tenant allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Period>,
    /// How long files of the conference are kept; never longer than the class and the tenant allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Period>,
    /// How long it is kept who was there; never longer than the class and the tenant allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attendance: Option<Period>,
    /// How long recordings are kept; never longer than the class and the tenant allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recordings: Option<Period>,
}

/// When a conference may be open.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.openBefore) <= duration('24h')").message("openBefore must not exceed 24h"),
    validation = Rule::new("duration(self.closeAfter) <= duration('24h')").message("closeAfter must not exceed 24h")
)]
pub struct ConferenceSchedule {
    /// The window of the meeting.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// How long before the start it may be opened.
    #[serde(default = "default_margin")]
    pub open_before: GoDuration,
    /// How long after the end it may stay open.
    #[serde(default = "default_margin")]
    pub close_after: GoDuration,
}

fn default_margin() -> GoDuration {
    "15m".into()
}

/// How many people.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.expectedParticipants) || !has(self.maxParticipants) || self.expectedParticipants <= self.maxParticipants")
    .message("expectedParticipants must not exceed maxParticipants"))]
pub struct Capacity {
    /// Most people in the room at a time; who comes later is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_participants: Option<u32>,
    /// People that are likely to come, for which placement looks for room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub expected_participants: Option<u32>,
    /// Most people that send media at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_publishers: Option<u32>,
    /// Holds capacity on a node from `openBefore` on, so that the start does not depend on luck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<bool>,
}

/// What media.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    /// Quality of media: audio alone, standard, high, or few senders and many receivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<MediaProfile>,
    /// Most bit rate of one publisher in kbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 50, max = 50_000))]
    pub max_bitrate_kbps: Option<u32>,
    /// Whether people whose role allows it may share their screen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen_share: Option<bool>,
    /// Whether media are encrypted from participant to participant; not weaker than the tenant's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2ee: Option<E2ee>,
}

choice! {
    /// Quality of media: audio alone, standard, high, or few senders and many receivers.
    pub enum MediaProfile {
        /// No video.
        AudioOnly,
        /// For most meetings.
        Standard,
        /// More resolution and frame rate.
        HighQuality,
        /// Few send, many watch.
        Webinar,
    }
}

/// Where a room runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Media pool that carries the room; the tenant's first pool without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<PoolRef>,
    /// Sites in which the room may run, all among the tenant's allowed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub sites: Vec<String>,
    /// How a room that needs several nodes is laid out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Most media nodes that carry one room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_nodes: Option<u32>,
}

choice! {
    /// How a room that needs several nodes is laid out.
    pub enum Topology {
        /// On as few nodes as possible.
        Pack,
        /// Over nodes near the participants.
        Spread,
    }
}

/// How long a room and its object live.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// How long an empty room stays open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_timeout: Option<GoDuration>,
    /// The meeting ends after this time, whoever is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<GoDuration>,
    /// How long the object stays after the end; needs a schedule that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_end: Option<GoDuration>,
}

choice! {
    /// Phase, for printing only; derived from the conditions.
    pub enum Phase {
        /// The window lies ahead.
        Scheduled,
        /// An opener may open it now.
        Open,
        /// Somebody is in.
        Active,
        /// It is over.
        Ended,
        /// It cannot take place.
        Failed,
    }
}

/// Observed state of a conference.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConferenceStatus {
    /// Generation of the specification that the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// State in one word, for printing only; programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Tenant that the namespace belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub tenant: Option<String>,
    /// Id of the room, part of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 26))]
    pub room_id: Option<String>,
    /// Path of the link for guests, without password or key.
    #[serde(default, rename = "joinURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub join_url: Option<String>,
    /// Secret of the same namespace that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub password_secret_name: Option<String>,
    /// The present window in which the conference can be opened, or else the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Where the room runs, for information: media go where the control plane says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    /// Class of the conference and the revision of it that is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassRevision>,
    /// Most participants at a time, written when a meeting ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub peak_participants: Option<u32>,
    /// What holds and what does not, one entry per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A window in which a conference may be open.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// From then on it may be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Time>,
    /// Moment from which nobody can join any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Time>,
}

/// Where a room runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Site in which the room runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub site: Option<String>,
    /// Media pool that carries the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pool: Option<String>,
    /// Counts the moves of the room from node to node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub epoch: Option<i64>,
    /// Media nodes that carry the room, the home node first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub nodes: Vec<AssignedNode>,
}

/// A node of a room.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignedNode {
    /// Name of the MediaNode that carries the room.
    #[schemars(length(max = 253))]
    pub name: String,
}

/// A class at a revision.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassRevision {
    /// Name of the ConferenceClass that is in use.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Hash of the class's specification as it is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,
}
