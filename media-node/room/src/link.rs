// SPDX-License-Identifier: EUPL-1.2
//! What the roster of a room and the peers of its participants say to each other: serialisable, so that a peer may live on another
//! node than the roster. One process with both behaves like two with a lossless link between them.

use livekit_protocol as proto;
use media_core::api::{Channel, Format, Kind};
use prost::Message;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::api::{SessionId, TokenFacts};

/// One participant of one room; a rejoin is another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

/// A protobuf message within a link message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wire<T>(pub T);

impl<T: Message> Serialize for Wire<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.encode_to_vec())
    }
}

impl<'de, T: Message + Default> Deserialize<'de> for Wire<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        T::decode(bytes.as_slice())
            .map(Self)
            .map_err(D::Error::custom)
    }
}

/// What a peer must know of its client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Signalling protocol it announced.
    pub protocol: u32,
    /// Number of its SDK.
    pub sdk: i32,
    /// Firefox makes its own track ids and keeps none of ours.
    pub firefox: bool,
    /// Subscribe to everything.
    pub auto_subscribe: bool,
}

impl Client {
    /// Are tracks grouped by stream name for lip synchronisation? Where they are not, the stream is named after the track, which is
    /// the only way for Firefox to tell which track it received.
    #[must_use]
    pub fn groups_streams(&self) -> bool {
        self.protocol >= 10 && !self.firefox
    }

    /// Rust clients below protocol 10 break on responses they do not know.
    #[must_use]
    pub fn takes_unknown(&self) -> bool {
        self.sdk != proto::client_info::Sdk::Rust as i32 || self.protocol >= 10
    }
}

/// A track of somebody else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteTrack {
    /// SID of the track.
    pub sid: String,
    /// Its publisher.
    pub publisher: MemberId,
    /// SID of the publisher.
    pub publisher_sid: String,
    /// Publication on the shard.
    pub publication: u64,
    /// Kind.
    pub kind: Kind,
    /// Formats the publisher may send.
    pub formats: Vec<Format>,
    /// Stream it belongs to for lip synchronisation.
    pub stream: String,
    /// Muted?
    pub muted: bool,
    /// Width and height per layer, low to high; empty = unknown.
    pub layers: Vec<(u32, u32)>,
    /// Layers that can be told apart.
    pub encodings: u8,
    /// May this peer have it?
    pub allowed: bool,
}

/// A track that its publisher was granted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantedTrack {
    /// What clients know of it.
    pub info: Wire<proto::TrackInfo>,
    /// The client's id.
    pub cid: String,
    /// Wanted codec, if the client named one.
    pub codec: Option<media_core::api::Codec>,
    /// `usedtx` is answered.
    pub dtx: bool,
    /// Stereo is answered.
    pub stereo: bool,
    /// RED is not wanted.
    pub disable_red: bool,
    /// It begins muted, and its client does not know yet.
    pub on_entry: bool,
}

/// A granted track that the publisher's description declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundTrack {
    /// SID.
    pub sid: String,
    /// Publication on the shard.
    pub publication: u64,
    /// `mid` of the section.
    pub mid: String,
    /// Formats answered, in order of preference.
    pub formats: Vec<Format>,
    /// Layers that can be told apart.
    pub encodings: u8,
}

/// How a peer starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Its signalling.
    pub session: SessionId,
    /// Text frames?
    pub text: bool,
    /// SID of the participant.
    pub sid: String,
    /// Client.
    pub client: Client,
    /// May it have tracks of others?
    pub can_subscribe: bool,
    /// Codecs that may be published; empty = all.
    pub codecs: Vec<String>,
    /// The first frame.
    pub join: Wire<proto::JoinResponse>,
    /// Tracks that are there.
    pub tracks: Vec<RemoteTrack>,
}

/// Roster → peer.
#[expect(
    clippy::large_enum_variant,
    reason = "the largest, a frame for the client, is by far the most frequent"
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToPeer {
    /// Begins.
    Start(Box<Start>),
    /// Its client came back with another WebSocket; the frames follow as [`ToPeer::Send`], then [`ToPeer::Resumed`].
    Attach {
        /// Signalling.
        session: SessionId,
        /// Text frames?
        text: bool,
    },
    /// All frames of a resume are sent: restart ICE.
    Resumed,
    /// A frame for the client.
    Send(Wire<proto::SignalResponse>),
    /// A track was granted to this peer's client.
    Granted(Box<GrantedTrack>),
    /// The room ends a track of this peer's client; `tell` = the client does not know yet.
    Unpublish {
        /// SID.
        sid: String,
        /// Tell the client?
        tell: bool,
    },
    /// A track of this peer's client is muted or not.
    SetMuted {
        /// SID.
        sid: String,
        /// Muted?
        muted: bool,
        /// Tell the client?
        tell: bool,
    },
    /// A track of somebody else is there, or changed.
    Track(Box<RemoteTrack>),
    /// A track of somebody else is gone.
    TrackGone {
        /// SID.
        sid: String,
    },
    /// The server subscribes or unsubscribes.
    Subscribe {
        /// SIDs.
        sids: Vec<String>,
        /// Subscribe?
        subscribe: bool,
    },
    /// The right to have tracks of others changed.
    CanSubscribe(bool),
    /// Speakers, all of the room.
    Speakers(Vec<Wire<proto::SpeakerInfo>>),
    /// Connection qualities, all of the room.
    Qualities(Vec<Wire<proto::ConnectionQualityInfo>>),
    /// For the client's next token.
    TokenFacts(Box<TokenFacts>),
    /// A data message of somebody.
    Data {
        /// On which channel.
        channel: Channel,
        /// Encoded `DataPacket`.
        payload: Vec<u8>,
    },
    /// The end: a last frame, the WebSocket, the transports.
    End {
        /// `leave`, unless the client left by itself.
        leave: Option<Wire<proto::LeaveRequest>>,
    },
}

/// Peer → roster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRoster {
    /// The primary connection stands for the first time.
    Active,
    /// Some transport lives, or none does any more.
    MediaAlive(bool),
    /// A transport ended by itself.
    MediaFailed {
        /// The client closed it.
        closed: bool,
        /// No agreement on DTLS or SRTP: coming again would not help.
        unsupported: bool,
    },
    /// The WebSocket ended.
    SignalLost,
    /// Wants to publish.
    AddTrack(Wire<proto::AddTrackRequest>),
    /// The description declares a granted track.
    Bound(BoundTrack),
    /// The client ended a track.
    Ended {
        /// SID.
        sid: String,
    },
    /// The client mutes a track of its own.
    Mute {
        /// SID.
        sid: String,
        /// Muted?
        muted: bool,
    },
    /// The codec that really comes.
    Codec {
        /// SID.
        sid: String,
        /// Format.
        format: Format,
    },
    /// Features of an audio track.
    AudioFeatures(Wire<proto::UpdateLocalAudioTrack>),
    /// Dimensions of a video track.
    Dimensions(Wire<proto::UpdateLocalVideoTrack>),
    /// Name, metadata, attributes.
    Metadata(Wire<proto::UpdateParticipantMetadata>),
    /// Who may have the client's tracks.
    SubscriptionPermission(Wire<proto::SubscriptionPermission>),
    /// A data message of the client.
    Data {
        /// On which channel.
        channel: Channel,
        /// As it came.
        payload: Vec<u8>,
    },
    /// A track of somebody else is really had.
    Subscribed {
        /// SID.
        sid: String,
    },
    /// The wanted quality of a video: 0 to 2, `None` = not at all.
    Wanted {
        /// SID.
        sid: String,
        /// Quality.
        quality: Option<u8>,
    },
    /// Connection quality.
    Quality {
        /// `ConnectionQuality`.
        quality: i32,
        /// 0 to 5.
        score: f32,
    },
    /// Client and room do not agree: after a resume it believes in tracks that are not there, or it answers no offer.
    Mismatch,
    /// A scenario of `simulate`.
    Simulate(Wire<proto::SimulateScenario>),
    /// The client leaves.
    Leave,
}
