// SPDX-License-Identifier: EUPL-1.2
//! What the headless client is told and tells.

use std::net::SocketAddr;

use livekit_protocol as proto;
use livekit_protocol::signal_response as response;
use media_core::api::{Channel, Side, TransportFailure};
use media_core::crypto::SrtpProfile;
use media_core::ids::Ssrc;
use media_core::io::Protocol;

use crate::leg::Received;
use crate::sdp::OfferedTrack;

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Options {
    /// Own address of the publisher's connection.
    pub publisher_address: SocketAddr,
    /// Own address of the subscriber's connection.
    pub subscriber_address: SocketAddr,
    /// Which candidates are used.
    pub protocol: Protocol,
    /// Keep the payload of received packets as events, not only their counts.
    pub keep_media: bool,
}

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Opus.
    Microphone,
    /// VP8 in one layer.
    Camera,
    /// VP8 in three layers by RID.
    CameraSimulcast,
    /// VP8 in one layer.
    ScreenShare,
}

impl Source {
    /// Is it video?
    #[must_use]
    pub fn is_video(self) -> bool {
        self != Self::Microphone
    }

    pub(super) fn track_source(self) -> proto::TrackSource {
        match self {
            Self::Microphone => proto::TrackSource::Microphone,
            Self::Camera | Self::CameraSimulcast => proto::TrackSource::Camera,
            Self::ScreenShare => proto::TrackSource::ScreenShare,
        }
    }

    pub(super) fn rids(self) -> Vec<&'static str> {
        if self == Self::CameraSimulcast {
            vec!["q", "h", "f"]
        } else {
            Vec::new()
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The room let us in.
    Joined(Box<proto::JoinResponse>),
    /// A resume was accepted.
    Reconnected(Box<proto::ReconnectResponse>),
    /// A connection stands.
    Connected(Side, SrtpProfile),
    /// A connection ended.
    Failed(Side, TransportFailure),
    /// A channel is open.
    ChannelOpen(Side, Channel),
    /// A message on a channel.
    Data(Channel, Vec<u8>),
    /// The node knows our track.
    Published {
        /// Our id.
        cid: String,
        /// Its SID.
        sid: String,
    },
    /// A packet of somebody's track.
    Media {
        /// Track SID.
        track: String,
        /// The packet.
        packet: Received,
    },
    /// The node wants a key frame of a stream of ours.
    KeyFrameWanted(Ssrc),
    /// The node ends the session.
    Left(proto::LeaveRequest),
    /// Another signalling message, for tests that look at them.
    Signal(Box<response::Message>),
}

/// A track of ours.
#[derive(Clone, Debug)]
pub struct Published {
    /// What.
    pub source: Source,
    /// Its offered section.
    pub offered: OfferedTrack,
    /// SID once the node answered.
    pub sid: Option<String>,
    /// Key frames the node asked for, per layer since the last one sent.
    pub wants_key: Vec<bool>,
    pub(super) picture: u16,
}

/// Counters of a received track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackCounters {
    /// Packets.
    pub packets: u64,
    /// Payload bytes.
    pub bytes: u64,
}
