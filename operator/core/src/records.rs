// SPDX-License-Identifier: EUPL-1.2
//! What is published to the control plane, as plain data; the shells turn it into messages.
//!
//! A record holds inputs, never what is derived from them at a cost: the password itself, not its slow hash. So its
//! revision, a hash over the record, changes exactly when its content does, and unchanged records are never hashed again.

use std::net::IpAddr;

use plenum_api::{
    conference::{Lobby, Topology},
    conference_class::{Chat, Role},
    tenant::{AdHocRooms, BrandingKey, WebhookEvent},
};
use serde::Serialize;

use crate::objects::Confidential;

/// What one role may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PermissionRecord {
    /// The role.
    pub role: Role,
    /// May send the microphone.
    pub microphone: bool,
    /// May send the camera.
    pub camera: bool,
    /// May share the screen.
    pub screen_share: bool,
    /// Whom chat reaches.
    pub chat: Chat,
    /// May moderate.
    pub moderate: bool,
    /// May record.
    pub record: bool,
    /// Enters muted.
    pub enter_muted: bool,
}

/// The rules a room runs by, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoomPolicy {
    /// Whether openers open it.
    pub declared: bool,
    /// Who waits.
    pub lobby: Lobby,
    /// Whether people without an account may come.
    pub guests_allowed: bool,
    /// One per role.
    pub permissions: Vec<PermissionRecord>,
    /// Most participants.
    pub max_participants: u32,
    /// Most publishers.
    pub max_publishers: u32,
    /// How long it stays open with nobody in it.
    pub empty_timeout_ms: u64,
    /// How long it stays after the last one left.
    pub departure_timeout_ms: u64,
    /// Longest room; 0 is none.
    pub max_duration_ms: u64,
    /// Most bit rate of one publisher; 0 is none.
    pub max_bitrate_kbps: u32,
    /// Whether screens may be shared at all.
    pub screen_share: bool,
    /// Whether media must be encrypted end to end.
    pub e2ee_required: bool,
    /// Allowed codecs in lower case; empty is all.
    pub codecs: Vec<String>,
    /// Hash of the above.
    pub revision: String,
}

/// Key pair of a tenant's backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    /// Public part.
    pub key: String,
    /// Signing part.
    pub secret: Confidential<Vec<u8>>,
}

/// Limits of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitsRecord {
    /// Rooms at a time.
    pub concurrent_rooms: Option<u32>,
    /// Participants at a time.
    pub participants: Option<u32>,
    /// Participants of a room.
    pub participants_per_room: Option<u32>,
    /// Publishers of a room.
    pub publishers_per_room: Option<u32>,
    /// Publishers at a time, in all rooms.
    pub publishers: Option<u32>,
    /// Egress.
    pub egress_mbps: Option<u32>,
}

/// An own text of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BrandingTextRecord {
    /// Where it stands.
    pub key: BrandingKey,
    /// Language.
    pub lang: String,
    /// Text.
    pub text: String,
}

/// A host that is told of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookRecord {
    /// Name.
    pub name: String,
    /// Address.
    pub url: String,
    /// Events; empty is all.
    pub events: Vec<WebhookEvent>,
    /// Public part of the key that signs.
    pub signing_key: String,
    /// Certificates of the host as PEM; empty is the system's.
    pub ca_pem: String,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantRecord {
    /// Uid of the object.
    pub uid: String,
    /// Name.
    pub name: String,
    /// Hash of the record.
    pub revision: String,
    /// Name of the organisation.
    pub display_name: String,
    /// Keys of its backends.
    pub api_keys: Vec<ApiKey>,
    /// No new rooms.
    pub suspended: bool,
    /// Suspending ends running rooms.
    pub suspend_terminate: bool,
    /// No conference opens earlier; 0 is at once.
    pub active_from_unix_ms: i64,
    /// Rooms that are no object.
    pub ad_hoc: AdHocRooms,
    /// Their rules.
    pub ad_hoc_policy: Option<RoomPolicy>,
    /// Name as shown.
    pub branding_name: String,
    /// Colour.
    pub branding_colour: String,
    /// Own texts.
    pub branding_texts: Vec<BrandingTextRecord>,
    /// Limits.
    pub limits: LimitsRecord,
    /// Keys the ids of its rooms.
    pub link_key: Confidential<Vec<u8>>,
    /// Pools as `namespace/name`, the default first.
    pub pools: Vec<String>,
    /// Sites its rooms may run in; empty is every one.
    pub sites_allowed: Vec<String>,
    /// Sites to be used first, in order.
    pub sites_preferred: Vec<String>,
    /// Jurisdictions its rooms may run in; empty is every one.
    pub jurisdictions: Vec<String>,
    /// Nodes carry one tenant at a time.
    pub dedicated_nodes: bool,
    /// Hosts that are told of events.
    pub webhooks: Vec<WebhookRecord>,
}

/// Who may open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum OpenerRecord {
    /// `sub` of a token.
    Subject(String),
    /// SHA-256 of a key.
    KeySha256([u8; 32]),
}

/// Who gets a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleRecord {
    /// The role.
    pub role: Role,
    /// Opaque ids.
    pub subjects: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
}

/// A notice before joining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoticeRecord {
    /// Id.
    pub id: String,
    /// Language and text.
    pub texts: Vec<(String, String)>,
    /// Consent is a condition of entry.
    pub acknowledge: bool,
}

/// When a conference may be open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduleRecord {
    /// Local start.
    pub start: String,
    /// Zone.
    pub time_zone: String,
    /// Elapsed length; 0 where `until` holds.
    pub duration_ms: u64,
    /// Wall-clock end.
    pub until: String,
    /// Recurrence.
    pub recurrence: String,
    /// Dates left out.
    pub except: Vec<String>,
    /// How long before it may be opened.
    pub open_before_ms: u64,
    /// How long after it may stay open.
    pub close_after_ms: u64,
}

/// A declared conference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConferenceRecord {
    /// Uid of the object.
    pub uid: String,
    /// Hash of the record.
    pub revision: String,
    /// Name of the tenant.
    pub tenant: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Name of the room.
    pub room_name: String,
    /// Id of the room in links.
    pub room_id: String,
    /// Name as shown.
    pub display_name: String,
    /// Who may open.
    pub openers: Vec<OpenerRecord>,
    /// The password; it leaves the shell as a slow hash only.
    pub password: Confidential<String>,
    /// Whether it was made from randomness, so that nobody can try them all.
    pub password_generated: bool,
    /// Who gets which role.
    pub roles: Vec<RoleRecord>,
    /// Notices of the class, then of the conference.
    pub notices: Vec<NoticeRecord>,
    /// When.
    pub schedule: Option<ScheduleRecord>,
    /// The rules of its room.
    pub policy: RoomPolicy,
    /// Nobody can open or join.
    pub suspended: bool,
    /// Pool as `namespace/name`; empty is the tenant's default.
    pub pool: String,
    /// Sites its room may run in; empty is those of the tenant.
    pub sites: Vec<String>,
    /// How it is laid out over nodes.
    pub topology: Option<Topology>,
    /// Participants that capacity is held for before a window begins; 0 is none.
    pub reserve_participants: u32,
}

/// A media node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeRecord {
    /// Uid of the node.
    pub uid: String,
    /// Short id.
    pub node_id: String,
    /// Site.
    pub site: String,
    /// Pool as `namespace/name`.
    pub pool: String,
    /// Jurisdiction; empty where none is declared.
    pub jurisdiction: String,
    /// Incarnation.
    pub epoch: u64,
    /// Addresses that are offered.
    pub addresses: Vec<(IpAddr, u16)>,
    /// Most rooms.
    pub rooms: u32,
    /// Most participants.
    pub participants: u32,
    /// Most egress.
    pub egress_mbps: u32,
    /// How long a drain may take.
    pub drain_timeout_ms: u64,
    /// `host:port` of the node's own service.
    pub grpc_endpoint: String,
    /// Takes new rooms.
    pub accepting: bool,
    /// SRTP without AES-GCM.
    pub srtp_legacy_allowed: bool,
    /// When a window begins that empties the node, while its people are to be told (milliseconds since 1970); 0 = none.
    pub maintenance_at_unix_ms: i64,
    /// Hash of the record.
    pub revision: String,
}

impl NodeRecord {
    /// The same node, taking no new rooms.
    #[must_use]
    pub fn closed(&self) -> Self {
        let mut record = Self {
            accepting: false,
            revision: String::new(),
            ..self.clone()
        };
        record.revision = crate::digest::revision(&record);
        record
    }
}
