// SPDX-License-Identifier: EUPL-1.2
//! What is declared, as checked plain data: tenants, conferences, nodes, and the rules and facts of rooms.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::ids::{
    Epoch, Jurisdiction, NodeId, Pool, RoomId, RoomKey, RoomName, Secret, Site, TenantName, Uid,
};
use crate::placement::Strategy;
use crate::time::UnixMillis;

/// Role of a person in a declared conference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Opens, admits, mutes, removes.
    Moderator,
    /// Presents.
    Presenter,
    /// Takes part.
    Participant,
    /// Came by link.
    Guest,
}

impl Role {
    /// As in tokens and in the attribute `plenum.role`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Moderator => "Moderator",
            Self::Presenter => "Presenter",
            Self::Participant => "Participant",
            Self::Guest => "Guest",
        }
    }

    /// From the text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Moderator,
            Self::Presenter,
            Self::Participant,
            Self::Guest,
        ]
        .into_iter()
        .find(|role| role.as_str() == text)
    }
}

/// Whom chat reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatRule {
    /// Everybody.
    Everyone,
    /// Moderators.
    Moderators,
    /// Nobody.
    Off,
}

/// Who waits in the lobby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LobbyRule {
    /// Nobody.
    Off,
    /// Guests.
    Guests,
    /// Everybody but openers.
    Everyone,
}

/// What one role may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Publish a microphone.
    pub microphone: bool,
    /// Publish a camera.
    pub camera: bool,
    /// Share a screen.
    pub screen_share: bool,
    /// Chat.
    pub chat: ChatRule,
    /// Admit, mute, remove, lock.
    pub moderate: bool,
    /// Begin a recording.
    pub record: bool,
    /// Audio begins muted.
    pub enter_muted: bool,
}

/// The rules a room runs by, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPolicy {
    /// Declared conferences need an opener; an ad-hoc room is open from its start.
    pub declared: bool,
    /// Lobby.
    pub lobby: LobbyRule,
    /// May guests enter at all?
    pub guests_allowed: bool,
    /// By role; a role without an entry may only listen.
    pub permissions: BTreeMap<Role, Permission>,
    /// Most participants.
    pub max_participants: u32,
    /// Most publishers.
    pub max_publishers: u32,
    /// An open room without participants ends after this time.
    pub empty_timeout: Duration,
    /// As above, after somebody had been there.
    pub departure_timeout: Duration,
    /// Longest room; none when zero.
    pub max_duration: Duration,
    /// Most bit rate of one publisher; none when 0.
    pub max_bitrate_kbps: u32,
    /// May screens be shared at all?
    pub screen_share: bool,
    /// Must media be encrypted end to end?
    pub e2ee_required: bool,
    /// Lower-case codec names, empty = all.
    pub codecs: Vec<String>,
    /// Hash of the inputs.
    pub revision: String,
}

/// A person whose older tokens are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Identity.
    pub identity: String,
    /// Tokens issued at or before (Unix seconds) are refused.
    pub not_before_unix_s: i64,
}

/// Facts of a room that survive its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomFacts {
    /// `RM_…`; empty until the first node made it.
    pub room_sid: String,
    /// Opened stays opened.
    pub opened: bool,
    /// Only moderators enter.
    pub locked: bool,
    /// Removed people.
    pub revoked: Vec<Revocation>,
    /// Identities admitted from the lobby.
    pub admitted: Vec<String>,
    /// Roles changed in the room.
    pub role_changes: Vec<(String, Role)>,
    /// Room metadata.
    pub metadata: String,
    /// When the room began; 0 = with this opening.
    pub created_unix_ms: u64,
}

impl RoomFacts {
    /// Whether a token of `identity`, issued at `issued_unix_s`, was revoked in the room.
    #[must_use]
    pub fn is_revoked(&self, identity: &str, issued_unix_s: i64) -> bool {
        self.revoked.iter().any(|revocation| {
            revocation.identity == identity && issued_unix_s <= revocation.not_before_unix_s
        })
    }
}

/// Key pair of a tenant's backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Public part.
    pub key: String,
    /// Signing part.
    pub secret: Secret,
}

/// Rooms that are no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdHoc {
    /// None.
    Forbidden,
    /// By the call `CreateRoom`.
    OnCreate,
    /// By a valid join token too.
    OnJoin,
}

/// Ceilings of a tenant; absent = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Rooms at a time.
    pub rooms: Option<u32>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrandingText {
    /// Where it stands.
    pub key: String,
    /// Language.
    pub lang: String,
    /// Text.
    pub text: String,
}

/// Where media may be processed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Sites; empty = every one.
    pub sites: Vec<Site>,
    /// Those to be used first, in order.
    pub preferred: Vec<Site>,
    /// Jurisdictions; empty = every one.
    pub jurisdictions: Vec<Jurisdiction>,
}

/// A host that is told of a tenant's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Name, for queues, logs and metrics.
    pub name: String,
    /// Address.
    pub url: String,
    /// Names of events; empty = all.
    pub events: Vec<String>,
    /// Public part of the API key of the tenant that signs.
    pub signing_key: String,
    /// What the host's certificate is checked against, as PEM; empty = the system's.
    pub ca_pem: String,
}

impl Webhook {
    /// Is it told of this event?
    #[must_use]
    pub fn wants(&self, event: &str) -> bool {
        self.events.is_empty() || self.events.iter().any(|wanted| wanted == event)
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Uid of the object.
    pub uid: Uid,
    /// Name.
    pub name: TenantName,
    /// Hash of the inputs.
    pub revision: String,
    /// Name of the organisation.
    pub display_name: String,
    /// Keys of its backends.
    pub api_keys: Vec<ApiKey>,
    /// No new rooms.
    pub suspended: bool,
    /// Suspending ends running rooms too.
    pub suspend_terminate: bool,
    /// No conference opens earlier.
    pub active_from: Option<UnixMillis>,
    /// Rooms that are no object.
    pub ad_hoc: AdHoc,
    /// Their rules.
    pub ad_hoc_policy: Option<RoomPolicy>,
    /// Name as shown.
    pub branding_name: String,
    /// Colour.
    pub branding_colour: String,
    /// Own texts.
    pub branding_texts: Vec<BrandingText>,
    /// Ceilings.
    pub limits: TenantLimits,
    /// Keys the ids of its rooms.
    pub link_key: Secret,
    /// Pools its rooms may use, the default first; empty = every pool.
    pub pools: Vec<Pool>,
    /// Where its rooms may run.
    pub residency: Residency,
    /// Nodes that carry one of its rooms carry no other tenant's.
    pub dedicated_nodes: bool,
    /// Hosts that are told of events.
    pub webhooks: Vec<Webhook>,
}

impl Tenant {
    /// The signing part of one of its keys.
    #[must_use]
    pub fn secret(&self, key: &str) -> Option<&Secret> {
        self.api_keys
            .iter()
            .find(|candidate| candidate.key == key)
            .map(|found| &found.secret)
    }
}

/// Who may open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opener {
    /// `sub` of a token of the tenant.
    Subject(String),
    /// SHA-256 of an opener key.
    KeySha256([u8; 32]),
}

/// Who gets a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRule {
    /// The role.
    pub role: Role,
    /// `sub` of tokens.
    pub subjects: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
}

/// A text in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalText {
    /// Language.
    pub lang: String,
    /// Text.
    pub text: String,
}

/// A notice before joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Id.
    pub id: String,
    /// Per language.
    pub texts: Vec<LocalText>,
    /// Consent is a condition of entry.
    pub acknowledge: bool,
}

/// When a conference may be open.
#[derive(Clone, Debug)]
pub struct ConferenceSchedule {
    /// Its windows.
    pub windows: plenum_schedule::Schedule,
    /// It may be opened this long before a window.
    pub open_before: Duration,
    /// It may stay open this long after one.
    pub close_after: Duration,
}

/// A declared conference.
#[derive(Clone, Debug)]
pub struct Conference {
    /// Uid of the object.
    pub uid: Uid,
    /// Hash of the inputs.
    pub revision: String,
    /// Whose.
    pub tenant: TenantName,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Name of the room.
    pub room_name: RoomName,
    /// Id of the room in links.
    pub room_id: RoomId,
    /// Name as shown.
    pub display_name: String,
    /// Who may open.
    pub openers: Vec<Opener>,
    /// argon2id in PHC string form; empty = no password.
    pub password_hash: String,
    /// Who gets which role.
    pub roles: Vec<RoleRule>,
    /// Notices, in order.
    pub notices: Vec<Notice>,
    /// When; `None` = at any time.
    pub schedule: Option<ConferenceSchedule>,
    /// The rules of its room.
    pub policy: RoomPolicy,
    /// Nobody can open or join.
    pub suspended: bool,
    /// Pool; `None` = the tenant's default.
    pub pool: Option<Pool>,
    /// Sites its room may run in; empty = those of the tenant.
    pub sites: Vec<Site>,
    /// How it is laid out over nodes.
    pub strategy: Strategy,
    /// Participants that capacity is held for before a window begins; 0 = none.
    pub reserve_participants: u32,
}

impl Conference {
    /// Key of its room.
    #[must_use]
    pub fn key(&self) -> RoomKey {
        RoomKey::new(self.tenant.clone(), self.room_name.clone())
    }

    /// Is a password asked?
    #[must_use]
    pub fn password_required(&self) -> bool {
        !self.password_hash.is_empty()
    }
}

/// An address that is offered to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Address.
    pub ip: IpAddr,
    /// Port; 0 = the one that the node bound.
    pub port: u16,
}

/// What a node takes at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Rooms.
    pub rooms: u32,
    /// Participants.
    pub participants: u32,
    /// Egress.
    pub egress_mbps: u32,
}

/// A media node as the operator declared it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Uid of the object.
    pub uid: Uid,
    /// Short id.
    pub node_id: NodeId,
    /// Data centre.
    pub site: Site,
    /// Pool.
    pub pool: Pool,
    /// Jurisdiction of the data centre.
    pub jurisdiction: Option<Jurisdiction>,
    /// Incarnation of the facts.
    pub epoch: Epoch,
    /// Addresses that are offered; empty = the node's own.
    pub addresses: Vec<Address>,
    /// Ceiling of admission.
    pub capacity: Capacity,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// `host:port` of its RoomHost; empty = as the node says.
    pub grpc_endpoint: String,
    /// Takes new rooms.
    pub accepting: bool,
    /// SRTP without AES-GCM.
    pub srtp_legacy_allowed: bool,
    /// When a maintenance window begins of which its people are to be told (milliseconds since 1970); 0 = none.
    pub maintenance_at_unix_ms: i64,
    /// Hash of the inputs.
    pub revision: String,
}

/// A record of any kind.
#[derive(Clone, Debug)]
pub enum Record {
    /// Tenant.
    Tenant(Box<Tenant>),
    /// Conference.
    Conference(Box<Conference>),
    /// Media node.
    Node(Node),
}

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Tenant.
    Tenant,
    /// Conference.
    Conference,
    /// Media node.
    Node,
}

impl RecordKind {
    /// As in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Conference => "conference",
            Self::Node => "node",
        }
    }
}

impl Record {
    /// Kind.
    #[must_use]
    pub const fn kind(&self) -> RecordKind {
        match self {
            Self::Tenant(_) => RecordKind::Tenant,
            Self::Conference(_) => RecordKind::Conference,
            Self::Node(_) => RecordKind::Node,
        }
    }

    /// Uid of the object.
    #[must_use]
    pub const fn uid(&self) -> &Uid {
        match self {
            Self::Tenant(record) => &record.uid,
            Self::Conference(record) => &record.uid,
            Self::Node(record) => &record.uid,
        }
    }

    /// Hash of the inputs.
    #[must_use]
    pub fn revision(&self) -> &str {
        match self {
            Self::Tenant(record) => &record.revision,
            Self::Conference(record) => &record.revision,
            Self::Node(record) => &record.revision,
        }
    }
}
