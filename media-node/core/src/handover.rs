// SPDX-License-Identifier: EUPL-1.2
//! All state of a transport as plain data: what one shard exports and another imports, so that the next packet is forwarded as if
//! nothing had happened. It holds keys, so it travels over mutually authenticated TLS between nodes only.
//!
//! Points in time are ages at the moment of the export, because nodes share no clock. Left behind are packets kept for
//! retransmission (a receiver that still misses one asks for a key frame) and SCTP associations.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{
    Fingerprint, IceCredentials, LayerWish, Publication, Side, Subscription, TransportStats,
};
use crate::ids::{ParticipantId, PublicationId, Ssrc};
use crate::rewrite::Rewriter;
use crate::rtp::twcc::FeedbackState;
use crate::srtp::Replay;

/// Version of [`TransportState`]; another one is refused.
pub const VERSION: u16 = 1;

/// Bytes that hold keys; prints nothing of itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Everything of one transport.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransportState {
    /// [`VERSION`].
    pub version: u16,
    /// Participant it belonged to.
    pub participant: ParticipantId,
    /// Publisher or subscriber.
    pub side: Side,
    /// The other side's ICE half and certificate.
    pub remote: (IceCredentials, Fingerprint),
    /// DTLS association, from which the SRTP keys follow.
    pub dtls: Secret,
    /// Were data channels open?
    pub channels_open: bool,
    /// Last SRTCP index that was sealed.
    pub rtcp_index: u32,
    /// SRTCP indices that were received.
    pub rtcp_replay: Replay,
    /// Own SSRC in RTCP.
    pub reporter: Ssrc,
    /// Next transport-wide sequence number towards the other side.
    pub next_transport_sequence: u16,
    /// Transport-wide feedback to the other side.
    pub feedback: FeedbackState,
    /// Counters.
    pub stats: TransportStats,
    /// Received SSRCs with their rollover and replay windows.
    pub streams: Vec<StreamState>,
    /// Published tracks.
    pub publications: Vec<PublicationState>,
    /// Forwarded tracks.
    pub subscriptions: Vec<SubscriptionState>,
}

/// One received SSRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// The SSRC.
    pub ssrc: Ssrc,
    /// Rollover and replay window.
    pub replay: Replay,
    /// Of which publication.
    pub publication: PublicationId,
    /// Of which layer.
    pub encoding: u8,
    /// Carries retransmissions.
    pub retransmission: bool,
}

/// A published track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublicationState {
    /// Its declaration; the importing shard sets the transport.
    pub declared: Publication,
    /// Muted?
    pub muted: bool,
    /// Layers, in the order of the declaration.
    pub encodings: Vec<LayerState>,
}

/// A layer of a published track.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerState {
    /// SSRC, once bound.
    pub ssrc: Option<Ssrc>,
    /// Clock rate, Hz.
    pub clock_rate: u32,
    /// First extended sequence number.
    pub base: u64,
    /// Highest extended sequence number.
    pub highest: Option<u64>,
    /// Packets received.
    pub received: u64,
    /// Packets expected at the last report.
    pub expected_before: u64,
    /// Packets received at the last report.
    pub received_before: u64,
    /// Interarrival jitter.
    pub jitter: f32,
    /// H.264 parameter sets were seen.
    pub parameters_seen: bool,
    /// Last sender report: NTP, RTP, age.
    pub report: Option<(u64, u32, Duration)>,
}

/// A forwarded track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionState {
    /// Its declaration; the importing shard sets the transport.
    pub declared: Subscription,
    /// The subscriber's wish.
    pub wish: LayerWish,
    /// Layer that is forwarded.
    pub current: Option<u8>,
    /// Highest temporal layer that is forwarded.
    pub temporal: u8,
    /// Numbers.
    pub rewriter: Rewriter,
    /// Next sequence number of retransmissions.
    pub rtx_next: u64,
    /// Age of the last packet.
    pub last: Duration,
    /// Packets forwarded.
    pub packets: u32,
    /// Payload bytes forwarded.
    pub bytes: u32,
}
