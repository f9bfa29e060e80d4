// SPDX-License-Identifier: EUPL-1.2
//! What a room takes and gives: plain values, so that the shell may be gRPC, a test or a simulation.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use media_core::api::{Command, Event, Fingerprint};
use media_core::ids::{RoomIndex, ShardId};
use media_core::io::Protocol;
use media_core::time::WallAnchor;
use serde::{Deserialize, Serialize};

/// One signalling attachment; the shell numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// One person at the door; the shell numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KnockId(pub u64);

/// One administrative request; the shell numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A LiveKit signalling frame. A client is answered in the form it used last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Protobuf.
    Binary(Vec<u8>),
    /// Protojson.
    Text(Vec<u8>),
}

/// Role of a participant in a declared conference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// As in the attribute `plenum.role`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Moderator => "Moderator",
            Self::Presenter => "Presenter",
            Self::Participant => "Participant",
            Self::Guest => "Guest",
        }
    }

    /// From the attribute.
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

/// Who may write to the chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatRule {
    /// Everybody to everybody.
    Everyone,
    /// To moderators only.
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
pub struct Policy {
    /// Declared conferences need an opener; ad-hoc rooms are open from the start.
    pub declared: bool,
    /// Lobby.
    pub lobby: LobbyRule,
    /// May guests enter at all?
    pub guests_allowed: bool,
    /// By role; a role without an entry may only listen.
    pub permissions: BTreeMap<Role, Permission>,
    /// 0 = the limit of `limits.rs`.
    pub max_participants: u32,
    /// 0 = no limit of its own.
    pub max_publishers: u32,
    /// An open room without participants ends after this time.
    pub empty_timeout_ms: u64,
    /// As above, after somebody had been there.
    pub departure_timeout_ms: u64,
    /// 0 = none.
    pub max_duration_ms: u64,
    /// Screen sharing at all.
    pub screen_share: bool,
    /// Tracks must be end-to-end encrypted.
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
pub struct Facts {
    /// `RM_…`; empty = to be made.
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
    /// Room metadata, at most 16 kB.
    pub metadata: String,
    /// When the room began; 0 = with this opening.
    pub created_unix_ms: u64,
}

/// Grants of a verified token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Enter.
    pub room_join: bool,
    /// Administer this room.
    pub room_admin: bool,
    /// Publish tracks.
    pub can_publish: bool,
    /// Receive tracks.
    pub can_subscribe: bool,
    /// Send data.
    pub can_publish_data: bool,
    /// `camera`, `microphone`, `screen_share`, `screen_share_audio`; empty = all.
    pub can_publish_sources: Vec<String>,
    /// Change own name, metadata, attributes.
    pub can_update_own_metadata: bool,
    /// Not shown to others.
    pub hidden: bool,
    /// A recorder.
    pub recorder: bool,
    /// An agent.
    pub agent: bool,
}

/// What the client said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientParameters {
    /// Encoded `livekit.ClientInfo`.
    pub client_info: Vec<u8>,
    /// Signalling protocol.
    pub protocol: u32,
    /// Subscribe to everything.
    pub auto_subscribe: bool,
    /// Runs adaptive stream.
    pub adaptive_stream: bool,
    /// Suffix of a publish-only extra connection.
    pub publish_only_suffix: String,
}

/// Everything the room needs to know of a verified token and its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStart {
    /// Identity.
    pub identity: String,
    /// Name to show.
    pub name: String,
    /// Metadata.
    pub metadata: String,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Grants.
    pub grants: Grants,
    /// Role; `None` in ad-hoc rooms without roles: the grants alone decide.
    pub role: Option<Role>,
    /// Came by link.
    pub guest: bool,
    /// May open the conference.
    pub opener: bool,
    /// `iat` of the token, Unix seconds; 0 = unknown.
    pub token_issued_unix_s: i64,
    /// Client.
    pub client: ClientParameters,
    /// Resume of `participant_sid`.
    pub reconnect: bool,
    /// Sid to resume.
    pub participant_sid: String,
    /// Number of the reason.
    pub reconnect_reason: i32,
    /// `standard`, `agent`, …
    pub kind: String,
    /// True: text frames until the client sends binary ones.
    pub text_frames: bool,
}

/// What the gateway signs into a refreshed token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// Identity.
    pub identity: String,
    /// Name.
    pub name: String,
    /// Metadata.
    pub metadata: String,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Grants as they are.
    pub grants: Grants,
    /// Role.
    pub role: Option<Role>,
    /// Guest.
    pub guest: bool,
    /// Opener.
    pub opener: bool,
}

/// Why a session is not taken. One enum: the gRPC, HTTP and metric forms derive from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JoinRefusal {
    /// No opener has come.
    #[error("conference has not been opened yet")]
    NotOpened,
    /// Participants are at their limit.
    #[error("the room is full")]
    RoomFull,
    /// The person was removed.
    #[error("this token was revoked")]
    Revoked,
    /// Only moderators enter.
    #[error("the room is locked")]
    Locked,
    /// Guests are not allowed.
    #[error("guests are not allowed in this conference")]
    GuestsNotAllowed,
    /// The token grants no joining.
    #[error("the token does not grant joining")]
    NotGranted,
    /// The room was opened under another lease.
    #[error("the room lives elsewhere")]
    WrongEpoch,
    /// The room ends.
    #[error("the room is closing")]
    Closing,
    /// Not let in from the lobby.
    #[error("nobody has let this person in from the lobby")]
    NotAdmitted,
}

impl JoinRefusal {
    /// CamelCase reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotOpened => "NotOpened",
            Self::RoomFull => "RoomFull",
            Self::Revoked => "Revoked",
            Self::Locked => "Locked",
            Self::GuestsNotAllowed => "GuestsNotAllowed",
            Self::NotGranted => "NotGranted",
            Self::WrongEpoch => "WrongEpoch",
            Self::Closing => "Closing",
            Self::NotAdmitted => "NotAdmitted",
        }
    }

    /// May it pass?
    #[must_use]
    pub const fn retry(self) -> bool {
        matches!(
            self,
            Self::NotOpened | Self::RoomFull | Self::Locked | Self::WrongEpoch | Self::Closing
        )
    }
}

/// A person at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Identity-to-be, opaque.
    pub entry_id: String,
    /// Name to show to moderators.
    pub name: String,
    /// Came by link.
    pub guest: bool,
    /// Role.
    pub role: Option<Role>,
}

/// News for a person at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnockUpdate {
    /// Waiting, with the place in the queue from 1.
    Position(u32),
    /// In.
    Admitted,
    /// Not in.
    Refused(KnockRefusal),
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KnockRefusal {
    /// A moderator said no.
    #[error("a moderator refused")]
    Denied,
    /// Too many wait.
    #[error("too many people wait")]
    LobbyFull,
    /// The room ends.
    #[error("the room is closing")]
    Closing,
    /// Guests are not allowed.
    #[error("guests are not allowed in this conference")]
    GuestsNotAllowed,
}

impl KnockRefusal {
    /// CamelCase reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Denied => "Denied",
            Self::LobbyFull => "LobbyFull",
            Self::Closing => "Closing",
            Self::GuestsNotAllowed => "GuestsNotAllowed",
        }
    }
}

/// Administration of one room. Byte vectors are encoded livekit requests of the RoomService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCall {
    /// `ListParticipantsRequest`.
    ListParticipants(Vec<u8>),
    /// `RoomParticipantIdentity`.
    GetParticipant(Vec<u8>),
    /// `RoomParticipantIdentity`.
    RemoveParticipant(Vec<u8>),
    /// `MuteRoomTrackRequest`.
    MutePublishedTrack(Vec<u8>),
    /// `UpdateParticipantRequest`.
    UpdateParticipant(Vec<u8>),
    /// `UpdateSubscriptionsRequest`.
    UpdateSubscriptions(Vec<u8>),
    /// `SendDataRequest`.
    SendData(Vec<u8>),
    /// `UpdateRoomMetadataRequest`.
    UpdateRoomMetadata(Vec<u8>),
    /// `DeleteRoomRequest`.
    DeleteRoom(Vec<u8>),
    /// `ListRoomsRequest`; answers with one `Room`.
    GetRoom(Vec<u8>),
    /// Lobby decisions by entry id.
    Lobby {
        /// Let in.
        admit: Vec<String>,
        /// Turn away.
        deny: Vec<String>,
        /// Let all in.
        admit_all: bool,
    },
    /// Lobby entries as JSON.
    LobbyList,
    /// Locks or unlocks.
    Lock(bool),
    /// Ends the conference for everybody and closes it again.
    End,
}

/// Why an administrative call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminRefusal {
    /// No such participant or track.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// The caller may not.
    #[error("the caller may not do this")]
    PermissionDenied,
    /// A field is wrong.
    #[error("{0}")]
    InvalidArgument(&'static str),
}

impl AdminRefusal {
    /// CamelCase reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NotFound",
            Self::PermissionDenied => "PermissionDenied",
            Self::InvalidArgument(_) => "InvalidArgument",
        }
    }
}

/// One address at which the node's media port can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Protocol; TCP candidates are passive (RFC 6544).
    pub protocol: Protocol,
    /// Address.
    pub address: SocketAddr,
}

/// What a room is made with.
#[derive(Clone, Debug)]
pub struct RoomConfig {
    /// Name that clients see.
    pub name: String,
    /// Number on this node; ids of the room's objects carry it in their upper half.
    pub index: RoomIndex,
    /// Lease epoch.
    pub epoch: u64,
    /// Rules.
    pub policy: Policy,
    /// Facts of the last epoch.
    pub facts: Facts,
    /// Site in participant SIDs.
    pub site: String,
    /// Node in participant SIDs.
    pub node_id: String,
    /// Shard of the room: first two digits of its user fragments.
    pub shard: ShardId,
    /// Fingerprint of the node's DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Where the shard is reached.
    pub candidates: Vec<Candidate>,
    /// Ties the clock to wall time: joining times, revocations, webhook times.
    pub wall: WallAnchor,
}

/// Randomness, given in so that simulations repeat.
pub trait Entropy {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// What a room takes.
#[derive(Debug)]
pub enum Input {
    /// A WebSocket came.
    SessionStart {
        /// Its number.
        session: SessionId,
        /// Token and client.
        start: Box<SessionStart>,
    },
    /// A frame from it.
    Frame {
        /// Session.
        session: SessionId,
        /// Frame.
        frame: Frame,
    },
    /// It ended.
    SessionEnd {
        /// Session.
        session: SessionId,
        /// By the client's own close frame.
        clean: bool,
    },
    /// From the shard.
    Media(Event),
    /// Somebody is at the door.
    Knock {
        /// Its number.
        knock: KnockId,
        /// Who.
        entry: Knock,
    },
    /// They left the door.
    KnockEnd {
        /// Its number.
        knock: KnockId,
    },
    /// Administration.
    Admin {
        /// Its number.
        request: RequestId,
        /// Identity of a moderator, or `None` for the API itself.
        actor: Option<String>,
        /// Call.
        call: AdminCall,
    },
    /// The declared policy changed; live fields take effect.
    Policy(Box<Policy>),
    /// The node's addresses changed.
    Candidates(Vec<Candidate>),
    /// The node gives the room up (fencing, shutdown): everybody is told to come again elsewhere.
    GiveUp,
    /// The room is going to move at this time (milliseconds since 1970), or not after all.
    Notice(Option<u64>),
    /// Maintenance of the node begins at this time (milliseconds since 1970), or is off.
    Maintenance(Option<u64>),
}

/// Numbers and facts for the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomReport {
    /// People in the room.
    pub participants: u32,
    /// Of those with a published track.
    pub publishers: u32,
    /// People at the door.
    pub lobby: u32,
    /// Facts.
    pub facts: Facts,
    /// Revision of the policy in force.
    pub policy_revision: String,
}

/// What a room gives.
#[derive(Debug)]
pub enum Output {
    /// A frame for a client.
    Frame {
        /// Session.
        session: SessionId,
        /// Frame.
        frame: Frame,
    },
    /// A session is not taken; the first and last output for it.
    Refused {
        /// Session.
        session: SessionId,
        /// Why.
        refusal: JoinRefusal,
    },
    /// Close the WebSocket after the frames before it.
    Close {
        /// Session.
        session: SessionId,
        /// WebSocket code.
        code: u16,
        /// Short reason.
        reason: &'static str,
    },
    /// Sign a refreshed token for the session's client.
    TokenFacts {
        /// Session.
        session: SessionId,
        /// Its content.
        facts: Box<TokenFacts>,
    },
    /// For the shard.
    Media(Command),
    /// For somebody at the door; after `Admitted` or `Refused` nothing follows.
    Knock {
        /// Its number.
        knock: KnockId,
        /// News.
        update: KnockUpdate,
    },
    /// Answer to an administrative request: an encoded livekit response, or why not.
    Admin {
        /// Its number.
        request: RequestId,
        /// Answer.
        result: Result<Vec<u8>, AdminRefusal>,
    },
    /// Facts or counts changed.
    Report(Box<RoomReport>),
    /// A webhook event, numbered within the epoch.
    Event {
        /// From 1.
        seq: u64,
        /// `RM_…`.
        room_sid: String,
        /// LiveKit's event name.
        name: &'static str,
        /// Protojson `WebhookEvent` without id.
        body: Vec<u8>,
    },
    /// The room has ended; nothing follows.
    Ended {
        /// CamelCase reason.
        reason: &'static str,
    },
}
