// SPDX-License-Identifier: EUPL-1.2
//! What rooms tell a shard ([`Command`]) and what a shard tells rooms ([`Event`]): plain data, bounded queues.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::crypto::{DtlsFailure, SrtpProfile};
use crate::handover::TransportState;
use crate::ids::{
    ExtensionId, ParticipantId, PayloadType, PublicationId, RoomIndex, Ssrc, SubscriptionId,
    TransportId,
};
use crate::io::Path;

/// ICE credentials of one side (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IceCredentials {
    /// `ice-ufrag`, 4..=256 characters. The node's own begin with two hexadecimal digits: the shard.
    pub ufrag: String,
    /// `ice-pwd`, 22..=256 characters.
    pub password: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials({})", self.ufrag)
    }
}

/// SHA-256 fingerprint of a certificate (RFC 8122).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

/// Which of a participant's two peer connections, by who sends media on it towards the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The client publishes; the client offers.
    Publisher,
    /// The node sends; the node offers.
    Subscriber,
}

/// Kind of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// Codecs that are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// Opus, 48 kHz (RFC 7587).
    Opus,
    /// Redundant audio (RFC 2198) around Opus.
    Red,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// H.264 (RFC 6184), packetization-mode 1 unless the variant says otherwise.
    H264,
    /// AV1.
    Av1,
}

/// A codec with the format parameters that two sides must share: `variant` numbers them within the room's codec table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Format {
    /// Codec.
    pub codec: Codec,
    /// 0 unless the codec has several (H.264 profiles).
    pub variant: u8,
}

/// One negotiated payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadBinding {
    /// Payload type of the media.
    pub payload_type: PayloadType,
    /// What it carries.
    pub format: Format,
    /// Payload type of its retransmissions (RFC 4588).
    pub rtx: Option<PayloadType>,
    /// RTP clock rate, Hz.
    pub clock_rate: u32,
}

/// Negotiated header extensions; [`ExtensionId`] 0 = not negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionMap {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`.
    pub mid: ExtensionId,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`.
    pub rid: ExtensionId,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`.
    pub repaired_rid: ExtensionId,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    pub audio_level: ExtensionId,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`.
    pub transport_cc: ExtensionId,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`.
    pub abs_send_time: ExtensionId,
    /// `urn:3gpp:video-orientation`.
    pub video_orientation: ExtensionId,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`.
    pub playout_delay: ExtensionId,
    /// AV1 dependency descriptor.
    pub dependency_descriptor: ExtensionId,
}

impl ExtensionMap {
    /// Nothing negotiated.
    pub const NONE: Self = Self {
        mid: ExtensionId(0),
        rid: ExtensionId(0),
        repaired_rid: ExtensionId(0),
        audio_level: ExtensionId(0),
        transport_cc: ExtensionId(0),
        abs_send_time: ExtensionId(0),
        video_orientation: ExtensionId(0),
        playout_delay: ExtensionId(0),
        dependency_descriptor: ExtensionId(0),
    };
}

/// How one encoding (simulcast layer) of a publication is recognised. Layers are ordered from low to high quality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoding {
    /// Restriction identifier (RFC 8851), when layers are told apart by RID.
    pub rid: Option<String>,
    /// Primary SSRC, when the description names it.
    pub ssrc: Option<Ssrc>,
    /// SSRC of retransmissions, when the description names it.
    pub rtx_ssrc: Option<Ssrc>,
}

/// A published track as the publisher's session description declares it. Packets that match none are dropped and counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Its id.
    pub id: PublicationId,
    /// The publisher's transport.
    pub transport: TransportId,
    /// Kind.
    pub kind: Kind,
    /// `mid` of the m-section, at most 16 bytes.
    pub mid: String,
    /// Layers, low to high; one without simulcast; at most 3.
    pub encodings: Vec<Encoding>,
    /// Payload types of the m-section.
    pub payloads: Vec<PayloadBinding>,
    /// Header extensions of the m-section.
    pub extensions: ExtensionMap,
}

/// A publication forwarded to a transport, as the subscriber's session description declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// What is forwarded.
    pub publication: PublicationId,
    /// To whom.
    pub transport: TransportId,
    /// `mid` of the m-section.
    pub mid: String,
    /// SSRC of the forwarded stream.
    pub ssrc: Ssrc,
    /// SSRC of retransmissions.
    pub rtx_ssrc: Option<Ssrc>,
    /// Payload types; a received format without a binding here is not forwarded, except RED, which is unpacked to Opus.
    pub payloads: Vec<PayloadBinding>,
    /// Header extensions.
    pub extensions: ExtensionMap,
}

/// What a subscriber wishes of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerWish {
    /// False pauses the stream.
    pub enabled: bool,
    /// Highest encoding index, 0 = lowest.
    pub max_encoding: u8,
    /// Highest temporal layer (VP8 TID), `u8::MAX` = all.
    pub max_temporal: u8,
}

/// Data channel of LiveKit's data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Channel {
    /// `_reliable`: ordered, retransmitted.
    Reliable,
    /// `_lossy`: unordered, no retransmission.
    Lossy,
}

/// What a room tells a shard.
#[derive(Clone, Debug)]
pub enum Command {
    /// Makes a room; its gate is closed until [`Command::SetGate`].
    AddRoom {
        /// The room.
        room: RoomIndex,
    },
    /// Ends a room with everything in it.
    RemoveRoom {
        /// The room.
        room: RoomIndex,
    },
    /// Opens or closes the room's gate. Behind a closed gate no packet and no data message is forwarded, whatever else was commanded.
    SetGate {
        /// The room.
        room: RoomIndex,
        /// Open?
        open: bool,
    },
    /// Makes a transport that waits for connectivity checks.
    AddTransport {
        /// Its id.
        transport: TransportId,
        /// Its room.
        room: RoomIndex,
        /// Its participant.
        participant: ParticipantId,
        /// Publisher or subscriber.
        side: Side,
        /// Own ICE credentials.
        local: IceCredentials,
    },
    /// Tells the other side's half, from its session description. Repeated with other credentials it is an ICE restart of theirs.
    SetRemote {
        /// The transport.
        transport: TransportId,
        /// Remote credentials.
        remote: IceCredentials,
        /// Expected certificate.
        fingerprint: Fingerprint,
    },
    /// Own half of an ICE restart: fresh local credentials; the nominated path goes on until the first nominated check under them.
    RestartIce {
        /// The transport.
        transport: TransportId,
        /// Fresh own credentials.
        local: IceCredentials,
    },
    /// Closes a transport (DTLS close_notify) with its publications and subscriptions.
    RemoveTransport {
        /// The transport.
        transport: TransportId,
    },
    /// Declares a published track, or replaces its declaration.
    Publish(Box<Publication>),
    /// Ends a published track and its subscriptions.
    Unpublish {
        /// The publication.
        publication: PublicationId,
    },
    /// While muted nothing of the publication is forwarded, whatever its publisher sends.
    SetMuted {
        /// The publication.
        publication: PublicationId,
        /// Muted?
        muted: bool,
    },
    /// Begins to forward.
    Subscribe(Box<Subscription>),
    /// Ends forwarding.
    Unsubscribe {
        /// The subscription.
        subscription: SubscriptionId,
    },
    /// Changes layers or pauses.
    SetLayers {
        /// The subscription.
        subscription: SubscriptionId,
        /// The wish.
        wish: LayerWish,
    },
    /// Sends one message to many transports of one room.
    SendData {
        /// To whom; transports that are gone or not connected are skipped and counted.
        transports: Vec<TransportId>,
        /// On which channel.
        channel: Channel,
        /// Message, at most `limits::DATA_MESSAGE_BYTES_MAX`.
        payload: Arc<[u8]>,
    },
    /// Gives the state of a connected transport away with its publications and subscriptions, as [`Event::Exported`]. It is a move:
    /// the transport is gone from here, nothing is sealed for it any more, and the other side hears nothing of it.
    Export {
        /// The transport.
        transport: TransportId,
    },
    /// Fills a transport that waits for connectivity checks with what another shard exported; answered by [`Event::Imported`]. The
    /// ids of publications and subscriptions in it are this node's: whoever carries the state over renames them.
    Import {
        /// The transport, made by [`Command::AddTransport`] with fresh credentials and not told of any other side.
        transport: TransportId,
        /// The state.
        state: Box<TransportState>,
    },
    /// Asks for an [`Event::Stats`].
    ReadStats {
        /// The transport.
        transport: TransportId,
    },
}

/// Why a transport ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFailure {
    /// DTLS.
    Dtls(DtlsFailure),
    /// No authenticated check for 15 s (RFC 7675), or none at all in time.
    ConsentLost,
    /// The other side closed.
    Closed,
    /// A bound was reached.
    Limit,
    /// The other side's data packets broke the association.
    Data,
}

/// Audio level of one publication over the last interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeakerLevel {
    /// The publication.
    pub publication: PublicationId,
    /// Smoothed level, linear, 0.0..=1.0.
    pub level: f32,
    /// Speaking?
    pub active: bool,
}

/// Counters of one transport since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TransportStats {
    /// Media bytes received.
    pub received_bytes: u64,
    /// Media packets received.
    pub received_packets: u64,
    /// Media packets that never came, over all streams received.
    pub lost_packets: u64,
    /// Media bytes sent.
    pub sent_bytes: u64,
    /// Media packets sent.
    pub sent_packets: u64,
    /// Fraction lost of what was sent, by the other side's last reports, 0.0..=1.0.
    pub remote_fraction_lost: f32,
    /// Round-trip time from reports, milliseconds; 0 = unknown.
    pub rtt_ms: u32,
}

/// What a shard tells rooms.
#[derive(Clone, Debug)]
pub enum Event {
    /// ICE, DTLS done and the profile known.
    Connected {
        /// The transport.
        transport: TransportId,
        /// SRTP profile.
        profile: SrtpProfile,
        /// Nominated path.
        path: Path,
    },
    /// The nominated path changed.
    PathChanged {
        /// The transport.
        transport: TransportId,
        /// Nominated path.
        path: Path,
    },
    /// The transport ended by itself; it is removed already.
    Failed {
        /// The transport.
        transport: TransportId,
        /// Why.
        failure: TransportFailure,
    },
    /// First authentic packet of an encoding.
    EncodingBound {
        /// The publication.
        publication: PublicationId,
        /// Index in [`Publication::encodings`].
        encoding: u8,
        /// SSRC it uses.
        ssrc: Ssrc,
        /// Format it carries.
        format: Format,
    },
    /// A subscription forwards another encoding, or none (paused or nothing comes).
    EncodingForwarded {
        /// The subscription.
        subscription: SubscriptionId,
        /// Index, or `None`.
        encoding: Option<u8>,
    },
    /// The other side opened (or accepted) a data channel.
    ChannelOpen {
        /// The transport.
        transport: TransportId,
        /// Which.
        channel: Channel,
    },
    /// A message arrived. Not raised while the room's gate is closed.
    Data {
        /// From whom.
        transport: TransportId,
        /// On which channel.
        channel: Channel,
        /// Message.
        payload: Arc<[u8]>,
    },
    /// Levels of all publications of a room whose activity or level changed.
    Speakers {
        /// The room.
        room: RoomIndex,
        /// Levels.
        levels: Vec<SpeakerLevel>,
    },
    /// A nominated check came for a transport that knows no other side yet: in a hand-over the moment to fetch its state.
    AwaitsState {
        /// The transport.
        transport: TransportId,
    },
    /// Answer to [`Command::Export`].
    Exported {
        /// The transport that was here.
        transport: TransportId,
        /// Its state.
        state: Box<TransportState>,
    },
    /// Answer to [`Command::Import`].
    Imported {
        /// The transport.
        transport: TransportId,
        /// Subscriptions refused by a bound. Those whose publication is not on this shard yet wait for it.
        left_out: Vec<SubscriptionId>,
        /// Data channels were open and did not come along: the association has to be made anew by a reconnect.
        channels_lost: bool,
    },
    /// Answer to [`Command::ReadStats`].
    Stats {
        /// The transport.
        transport: TransportId,
        /// Counters.
        stats: TransportStats,
    },
    /// A command could not be done; the room shall treat what it named as gone.
    Refused {
        /// The transport concerned, if any.
        transport: Option<TransportId>,
        /// Why.
        reason: CommandRefusal,
    },
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CommandRefusal {
    /// A bound of `limits.rs` is reached.
    #[error("the shard has no room for more of this kind")]
    Limit,
    /// Names something that does not exist (any more).
    #[error("the command names something that does not exist")]
    Unknown,
    /// The id is in use.
    #[error("the id is in use")]
    Duplicate,
    /// A field breaks its documented range.
    #[error("a field of the command breaks its range")]
    Invalid,
    /// The transport is in no state to be moved: not connected yet, connected already, or its backend cannot give state away.
    #[error("the transport cannot be moved in this state")]
    Unmovable,
}
