// SPDX-License-Identifier: EUPL-1.2
//! Session descriptions (RFC 8866, RFC 8829): reading a client's, writing the node's. Reading is `rtc-sdp`'s, writing is text.

mod read;
mod write;

use media_core::api::{
    Codec, Encoding, ExtensionMap, Fingerprint, IceCredentials, Kind, PayloadBinding,
};
use media_core::ids::ExtensionId;
use serde::{Deserialize, Serialize};

pub use write::{
    DATA_MID, Local, Sent, SentTrack, Taken, answer, candidate_lines, offer, sent_extensions,
    sent_payloads,
};

/// Longest description that is read.
pub const SDP_BYTES_MAX: usize = 512 * 1024;
/// Sections of one description.
pub const SECTIONS_MAX: usize = 256;
/// Attributes of one section.
pub const ATTRIBUTES_MAX: usize = 512;
/// Formats of one section.
pub const FORMATS_MAX: usize = 128;

/// Why a description is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Too long or too many sections.
    #[error("the session description is too large")]
    TooLarge,
    /// Not SDP.
    #[error("the session description cannot be read")]
    Malformed,
    /// No ICE credentials.
    #[error("the session description has no ice-ufrag or ice-pwd")]
    NoCredentials,
    /// No SHA-256 fingerprint.
    #[error("the session description has no sha-256 fingerprint")]
    NoFingerprint,
}

/// `sendrecv` and so on, from the describing side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// It sends.
    pub send: bool,
    /// It receives.
    pub receive: bool,
}

/// One m-section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// `None` for data channels.
    pub kind: Option<Kind>,
    /// Port 0: refused.
    pub rejected: bool,
    /// `mid`.
    pub mid: String,
    /// Direction.
    pub direction: Direction,
    /// Payload types of formats known here, in the order of the section.
    pub payloads: Vec<PayloadBinding>,
    /// Header extensions known here.
    pub extensions: ExtensionMap,
    /// (id, number in [`EXTENSIONS`]) of those, in the order of the section.
    pub extension_lines: Vec<(u8, u8)>,
    /// fmtp text by payload type.
    pub formats: Vec<(u8, String)>,
    /// Layers.
    pub encodings: Vec<Encoding>,
    /// Stream and track of `msid`.
    pub msid: Option<(String, String)>,
}

/// A client's description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its ICE half.
    pub ice: IceCredentials,
    /// Its certificate.
    pub fingerprint: Fingerprint,
    /// Sections in order.
    pub sections: Vec<Section>,
}

/// Header extensions that are known here.
pub const EXTENSIONS: [&str; 9] = [
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "urn:3gpp:video-orientation",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
];

fn extension_field(map: &mut ExtensionMap, index: usize) -> &mut ExtensionId {
    match index {
        0 => &mut map.mid,
        1 => &mut map.rid,
        2 => &mut map.repaired_rid,
        3 => &mut map.audio_level,
        4 => &mut map.transport_cc,
        5 => &mut map.abs_send_time,
        6 => &mut map.video_orientation,
        7 => &mut map.playout_delay,
        _ => &mut map.dependency_descriptor,
    }
}

/// `audio/opus` and so on, as in `TrackInfo.mime_type`.
#[must_use]
pub fn mime_type(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "audio/opus",
        Codec::Red => "audio/red",
        Codec::Vp8 => "video/VP8",
        Codec::Vp9 => "video/VP9",
        Codec::H264 => "video/H264",
        Codec::Av1 => "video/AV1",
    }
}

/// The codec of a mime type or codec name.
#[must_use]
pub fn codec_of(name: &str) -> Option<Codec> {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    [
        Codec::Opus,
        Codec::Red,
        Codec::Vp8,
        Codec::Vp9,
        Codec::H264,
        Codec::Av1,
    ]
    .into_iter()
    .find(|codec| {
        mime_type(*codec)
            .rsplit('/')
            .next()
            .is_some_and(|known| known.eq_ignore_ascii_case(&name))
    })
}

/// May this codec be published? A list that names no codec of its kind says nothing about that kind, and RED is a form of Opus.
#[must_use]
pub fn is_enabled(list: &[String], codec: Codec) -> bool {
    let is_audio = |codec: Codec| matches!(codec, Codec::Opus | Codec::Red);
    let mut same_kind = list
        .iter()
        .filter_map(|name| codec_of(name))
        .filter(|other| is_audio(*other) == is_audio(codec))
        .peekable();
    same_kind.peek().is_none()
        || same_kind.any(|other| other == codec || (codec == Codec::Red && other == Codec::Opus))
}

/// Does this section carry something the node takes?
#[must_use]
pub fn is_received(section: &Section) -> bool {
    section.kind.is_some()
        && section.direction.send
        && !section.rejected
        && !section.payloads.is_empty()
}
