// SPDX-License-Identifier: EUPL-1.2
//! Session descriptions (RFC 8866, RFC 8829): reading a client's, writing the node's. Reading is `rtc-sdp`'s, writing is text.

use std::fmt::Write;
use std::io::Cursor;

use media_core::api::{Codec, Encoding, ExtensionMap, Fingerprint, Format, IceCredentials, Kind, PayloadBinding};
use media_core::ids::{ExtensionId, PayloadType, Ssrc};
use media_core::io::Protocol;
use rtc_sdp::description::media::MediaDescription;
use rtc_sdp::description::session::SessionDescription;
use serde::{Deserialize, Serialize};

use crate::api::Candidate;

/// Longest description that is read.
pub const SDP_BYTES_MAX: usize = 256 * 1024;
/// Sections of one description.
pub const SECTIONS_MAX: usize = 256;

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

/// A format from `rtpmap` and `fmtp`; `None` for what is not forwarded.
fn format(name: &str, fmtp: &str) -> Option<(Format, u32)> {
    let parameter = |wanted: &str| {
        fmtp.split(';').find_map(|part| {
            let (key, value) = part.trim().split_once('=')?;
            key.eq_ignore_ascii_case(wanted).then(|| value.trim().to_ascii_lowercase())
        })
    };
    let video = |codec, variant| Some((Format { codec, variant }, 90_000));
    match name.to_ascii_lowercase().as_str() {
        "opus" => Some((Format { codec: Codec::Opus, variant: 0 }, 48_000)),
        "red" if fmtp.contains('/') => Some((Format { codec: Codec::Red, variant: 0 }, 48_000)),
        "vp8" => video(Codec::Vp8, 0),
        "vp9" if parameter("profile-id").is_none_or(|id| id == "0") => video(Codec::Vp9, 0),
        "av1" if parameter("profile").is_none_or(|profile| profile == "0") => video(Codec::Av1, 0),
        "h264" if parameter("packetization-mode").as_deref() == Some("1") => {
            let profile = parameter("profile-level-id").unwrap_or_else(|| "42e01f".to_owned());
            match profile.get(..4)? {
                "42e0" => video(Codec::H264, 0),
                "4200" => video(Codec::H264, 1),
                "4d00" => video(Codec::H264, 2),
                _ => None,
            }
        }
        _ => None,
    }
}

fn attribute<'a>(section: &'a MediaDescription, key: &str) -> Option<&'a str> {
    section.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.as_deref().unwrap_or(""))
}

fn values<'a>(section: &'a MediaDescription, key: &'a str) -> impl Iterator<Item = &'a str> {
    section.attributes.iter().filter(move |attribute| attribute.key == key).filter_map(|a| a.value.as_deref())
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    let (algorithm, hex) = text.split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut bytes = [0; 32];
    let mut parts = hex.trim().split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Fingerprint(bytes))
}

impl Description {
    /// Reads an offer or answer.
    ///
    /// # Errors
    /// [`SdpError`].
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > SDP_BYTES_MAX {
            return Err(SdpError::TooLarge);
        }
        let session = SessionDescription::unmarshal(&mut Cursor::new(text.as_bytes())).map_err(|_| SdpError::Malformed)?;
        if session.media_descriptions.len() > SECTIONS_MAX {
            return Err(SdpError::TooLarge);
        }
        let global = |key: &str| session.attribute(key).map(String::as_str);
        let find = |key: &str| global(key).or_else(|| session.media_descriptions.iter().find_map(|media| attribute(media, key)));
        let ice = match (find("ice-ufrag"), find("ice-pwd")) {
            (Some(ufrag), Some(password)) if (4..=256).contains(&ufrag.len()) && (22..=256).contains(&password.len()) => {
                IceCredentials { ufrag: ufrag.to_owned(), password: password.to_owned() }
            }
            _ => return Err(SdpError::NoCredentials),
        };
        let fingerprint = session
            .attributes
            .iter()
            .chain(session.media_descriptions.iter().flat_map(|media| &media.attributes))
            .filter(|attribute| attribute.key == "fingerprint")
            .find_map(|attribute| fingerprint(attribute.value.as_deref()?))
            .ok_or(SdpError::NoFingerprint)?;
        let sections = session.media_descriptions.iter().map(Section::parse).collect();
        Ok(Self { ice, fingerprint, sections })
    }
}

impl Section {
    fn parse(media: &MediaDescription) -> Self {
        let kind = match media.media_name.media.as_str() {
            "audio" => Some(Kind::Audio),
            "video" => Some(Kind::Video),
            _ => None,
        };
        let has = |key: &str| attribute(media, key).is_some();
        let direction = Direction {
            send: !has("recvonly") && !has("inactive"),
            receive: !has("sendonly") && !has("inactive"),
        };
        let fmtp = |wanted: u8| {
            values(media, "fmtp")
                .find_map(|line| line.split_once(' ').filter(|(id, _)| id.parse() == Ok(wanted)).map(|(_, text)| text))
                .unwrap_or("")
        };
        let mut payloads: Vec<PayloadBinding> = Vec::new();
        let mut formats = Vec::new();
        let mut retransmissions = Vec::new();
        for id in media.media_name.formats.iter().filter_map(|id| id.parse::<u8>().ok()).filter(|id| *id < 128).take(128) {
            let Some(map) = values(media, "rtpmap")
                .find_map(|line| line.split_once(' ').filter(|(number, _)| number.parse() == Ok(id)).map(|(_, map)| map))
            else {
                continue;
            };
            let name = map.split('/').next().unwrap_or("");
            if name.eq_ignore_ascii_case("rtx") {
                if let Some(of) = fmtp(id).trim().strip_prefix("apt=").and_then(|of| of.parse::<u8>().ok()) {
                    retransmissions.push((of, id));
                }
            } else if let Some((format, clock_rate)) = format(name, fmtp(id)) {
                payloads.push(PayloadBinding { payload_type: PayloadType(id), format, rtx: None, clock_rate });
                formats.push((id, fmtp(id).to_owned()));
            }
        }
        payloads.truncate(media_core::limits::PAYLOADS_MAX);
        for (of, rtx) in retransmissions {
            if let Some(binding) = payloads.iter_mut().find(|binding| binding.payload_type.0 == of) {
                binding.rtx = Some(PayloadType(rtx));
            }
        }
        let mut extensions = ExtensionMap::NONE;
        let mut extension_lines = Vec::new();
        for line in values(media, "extmap") {
            let mut words = line.split(' ');
            let id = words.next().and_then(|id| id.split('/').next()?.parse::<u8>().ok());
            let uri = words.next();
            if let (Some(id @ 1..=255), Some(index)) = (id, EXTENSIONS.iter().position(|known| Some(*known) == uri)) {
                *extension_field(&mut extensions, index) = ExtensionId(id);
                extension_lines.push((id, index as u8));
            }
        }
        let msid = attribute(media, "msid").map(|value| {
            let (stream, track) = value.split_once(' ').unwrap_or((value, ""));
            (stream.to_owned(), track.to_owned())
        });
        Self {
            kind,
            rejected: media.media_name.port.value == 0 && !has("bundle-only"),
            mid: attribute(media, "mid").unwrap_or("").to_owned(),
            direction,
            payloads,
            extensions,
            extension_lines,
            formats,
            encodings: encodings(media),
            msid,
        }
    }
}

/// SSRCs of a group of `semantics`.
fn group(media: &MediaDescription, semantics: &str) -> Vec<Vec<u32>> {
    values(media, "ssrc-group")
        .filter_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            (name == semantics).then(|| rest.split(' ').filter_map(|ssrc| ssrc.parse().ok()).take(8).collect())
        })
        .take(8)
        .collect()
}

/// Layers from low to high: by RID where simulcast says so, by a `SIM` group of SSRCs where that says so, else the first SSRC; each
/// SSRC with its FID partner.
fn encodings(media: &MediaDescription) -> Vec<Encoding> {
    let mut rids: Vec<&str> = values(media, "rid")
        .filter_map(|line| {
            let mut words = line.split(' ');
            let rid = words.next()?;
            (words.next() == Some("send")).then_some(rid)
        })
        .filter(|rid| !rid.is_empty() && rid.len() <= 16)
        .take(media_core::limits::ENCODINGS_MAX)
        .collect();
    if !rids.is_empty() && attribute(media, "simulcast").is_some_and(|value| value.contains("send")) {
        // LiveKit's names have an order; others are taken in the order of the description.
        let rank = |rid: &str| ["q", "h", "f"].iter().position(|known| *known == rid);
        if rids.iter().all(|rid| rank(rid).is_some()) {
            rids.sort_by_key(|rid| rank(rid));
        }
        return rids.into_iter().map(|rid| Encoding { rid: Some(rid.to_owned()), ..Encoding::default() }).collect();
    }
    let repairs = group(media, "FID");
    let encoding = |ssrc: u32| Encoding {
        rid: None,
        ssrc: Some(Ssrc(ssrc)),
        rtx_ssrc: repairs.iter().find(|pair| pair.first() == Some(&ssrc)).and_then(|pair| pair.get(1)).map(|rtx| Ssrc(*rtx)),
    };
    if let Some(layers) = group(media, "SIM").into_iter().find(|layers| !layers.is_empty()) {
        return layers.into_iter().take(media_core::limits::ENCODINGS_MAX).map(encoding).collect();
    }
    let first = repairs
        .first()
        .and_then(|pair| pair.first().copied())
        .or_else(|| values(media, "ssrc").find_map(|line| line.split(' ').next()?.parse::<u32>().ok()));
    vec![first.map_or_else(Encoding::default, encoding)]
}

/// The node's half of every description.
pub struct Local<'a> {
    /// ICE half.
    pub ice: &'a IceCredentials,
    /// Certificate.
    pub fingerprint: Fingerprint,
    /// Addresses.
    pub candidates: &'a [Candidate],
    /// Session version, counting up.
    pub version: u64,
}

fn head(out: &mut String, local: &Local<'_>, mids: &[&str]) {
    let _ = write!(out, "v=0\r\no=- 1 {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=msid-semantic: WMS *\r\n", local.version);
    if !mids.is_empty() {
        let _ = write!(out, "a=group:BUNDLE {}\r\n", mids.join(" "));
    }
    let _ = write!(out, "a=fingerprint:sha-256 {}\r\n", hex(local.fingerprint));
}

fn hex(fingerprint: Fingerprint) -> String {
    fingerprint.0.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn transport(out: &mut String, local: &Local<'_>, mid: &str, setup: &str, candidates: bool) {
    let _ = write!(
        out,
        "c=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=setup:{setup}\r\n",
        local.ice.ufrag, local.ice.password
    );
    if candidates {
        for line in candidate_lines(local.candidates) {
            let _ = write!(out, "a={line}\r\n");
        }
    }
}

/// `candidate:…` without the `a=`; UDP before TCP, IPv6 before IPv4 (RFC 8421).
pub fn candidate_lines(candidates: &[Candidate]) -> Vec<String> {
    candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| {
            let (protocol, type_preference, tail) = match candidate.protocol {
                Protocol::Udp => ("udp", 126_u32, ""),
                Protocol::Tcp => ("tcp", 90, " tcptype passive"),
            };
            let family = if candidate.address.is_ipv6() { 60_000 } else { 30_000 };
            let local_preference = family - index as u32;
            let priority = (type_preference << 24) + (local_preference << 8) + 255;
            format!(
                "candidate:{} 1 {protocol} {priority} {} {} typ host{tail}",
                index + 1,
                candidate.address.ip(),
                candidate.address.port()
            )
        })
        .collect()
}

fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "opus/48000/2",
        Codec::Red => "red/48000/2",
        Codec::Vp8 => "VP8/90000",
        Codec::Vp9 => "VP9/90000",
        Codec::H264 => "H264/90000",
        Codec::Av1 => "AV1/90000",
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
    [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1]
        .into_iter()
        .find(|codec| mime_type(*codec).rsplit('/').next().is_some_and(|known| known.eq_ignore_ascii_case(&name)))
}

fn payload_lines(out: &mut String, payloads: &[PayloadBinding], fmtp: impl Fn(&PayloadBinding) -> String, kind: Kind) {
    for binding in payloads {
        let id = binding.payload_type.0;
        let _ = write!(out, "a=rtpmap:{id} {}\r\n", codec_name(binding.format.codec));
        let text = fmtp(binding);
        if !text.is_empty() {
            let _ = write!(out, "a=fmtp:{id} {text}\r\n");
        }
        if kind == Kind::Video {
            for feedback in ["nack", "nack pli", "ccm fir", "transport-cc"] {
                let _ = write!(out, "a=rtcp-fb:{id} {feedback}\r\n");
            }
        } else {
            let _ = write!(out, "a=rtcp-fb:{id} transport-cc\r\n");
        }
        if let Some(rtx) = binding.rtx {
            let _ = write!(out, "a=rtpmap:{} rtx/90000\r\na=fmtp:{} apt={id}\r\n", rtx.0, rtx.0);
        }
    }
}

fn payload_ids(payloads: &[PayloadBinding]) -> String {
    let mut ids = Vec::new();
    for binding in payloads {
        ids.push(binding.payload_type.0.to_string());
        ids.extend(binding.rtx.map(|rtx| rtx.0.to_string()));
    }
    ids.join(" ")
}

/// May this codec be published? A list that names no codec of its kind says nothing about that kind, and RED is a form of Opus.
#[must_use]
pub fn is_enabled(list: &[String], codec: Codec) -> bool {
    let is_audio = |codec: Codec| matches!(codec, Codec::Opus | Codec::Red);
    let mut same_kind = list.iter().filter_map(|name| codec_of(name)).filter(|other| is_audio(*other) == is_audio(codec)).peekable();
    same_kind.peek().is_none() || same_kind.any(|other| other == codec || (codec == Codec::Red && other == Codec::Opus))
}

/// Does this section carry something the node takes?
#[must_use]
pub fn is_received(section: &Section) -> bool {
    section.kind.is_some() && section.direction.send && !section.rejected && !section.payloads.is_empty()
}

/// What the node takes of one offered section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Payload types in order of preference; empty = the section is refused.
    pub payloads: Vec<PayloadBinding>,
    /// What Opus is told beyond the client's own parameters.
    pub opus: &'static str,
}

fn refused(out: &mut String, name: &str, mid: &str) {
    let _ = write!(out, "m={name} 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=inactive\r\n");
}

const fn media_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    }
}

/// Answer to a publisher's offer. `taken` holds one entry per offered section.
#[must_use]
pub fn answer(offer: &Description, local: &Local<'_>, taken: &[Taken]) -> String {
    let none = Taken::default();
    let sections: Vec<(&Section, &Taken)> =
        offer.sections.iter().enumerate().map(|(index, section)| (section, taken.get(index).unwrap_or(&none))).collect();
    let accepted: Vec<&str> = sections
        .iter()
        .filter(|(section, taken)| !section.rejected && (section.kind.is_none() || !taken.payloads.is_empty()))
        .map(|(section, _)| section.mid.as_str())
        .collect();
    let mut out = String::with_capacity(4096);
    head(&mut out, local, &accepted);
    let mut first = true;
    for (section, taken) in sections {
        match section.kind {
            None if section.rejected => {
                let _ = write!(
                    out,
                    "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=inactive\r\n",
                    section.mid
                );
            }
            None => {
                out.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
                transport(&mut out, local, &section.mid, "passive", first);
                first = false;
                let _ = write!(out, "a=sctp-port:5000\r\na=max-message-size:{}\r\n", media_core::limits::DATA_MESSAGE_BYTES_MAX);
            }
            Some(kind) if section.rejected || taken.payloads.is_empty() => refused(&mut out, media_name(kind), &section.mid),
            Some(kind) => {
                let _ = write!(out, "m={} 9 UDP/TLS/RTP/SAVPF {}\r\n", media_name(kind), payload_ids(&taken.payloads));
                transport(&mut out, local, &section.mid, "passive", first);
                first = false;
                out.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
                out.push_str(if is_received(section) { "a=recvonly\r\n" } else { "a=inactive\r\n" });
                for (id, index) in &section.extension_lines {
                    let uri = EXTENSIONS.get(usize::from(*index)).copied().unwrap_or_default();
                    let _ = write!(out, "a=extmap:{id} {uri}\r\n");
                }
                let fmtp = |binding: &PayloadBinding| {
                    let own =
                        section.formats.iter().find(|(id, _)| *id == binding.payload_type.0).map_or("", |(_, text)| text.as_str());
                    match (binding.format.codec, own, taken.opus) {
                        (Codec::Opus, "", opus) => opus.to_owned(),
                        (Codec::Opus, own, opus) if !opus.is_empty() => format!("{own};{opus}"),
                        _ => own.to_owned(),
                    }
                };
                payload_lines(&mut out, &taken.payloads, fmtp, kind);
                let rids: Vec<&str> = section.encodings.iter().filter_map(|encoding| encoding.rid.as_deref()).collect();
                if !rids.is_empty() && is_received(section) {
                    for rid in &rids {
                        let _ = write!(out, "a=rid:{rid} recv\r\n");
                    }
                    let _ = write!(out, "a=simulcast:recv {}\r\n", rids.join(";"));
                }
            }
        }
    }
    out
}

/// Payload types of what the node sends: the same for every subscriber.
const SENT: [(Codec, u8, u8, Option<u8>, &str); 8] = [
    (Codec::Opus, 0, 111, None, "minptime=10;useinbandfec=1"),
    (Codec::Red, 0, 63, None, "111/111"),
    (Codec::Vp8, 0, 96, Some(97), ""),
    (Codec::Vp9, 0, 98, Some(99), "profile-id=0"),
    (Codec::H264, 0, 102, Some(103), "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    (Codec::H264, 1, 104, Some(105), "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
    (Codec::H264, 2, 106, Some(107), "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f"),
    (Codec::Av1, 0, 45, Some(46), "level-idx=5;profile=0;tier=0"),
];

/// Bindings towards subscribers for the formats of a publication. Opus always stands beside RED.
#[must_use]
pub fn sent_payloads(formats: &[Format]) -> Vec<PayloadBinding> {
    let red = formats.iter().any(|format| format.codec == Codec::Red);
    SENT.iter()
        .filter(|(codec, variant, ..)| {
            formats.contains(&Format { codec: *codec, variant: *variant }) || (red && *codec == Codec::Opus)
        })
        .map(|(codec, variant, id, rtx, _)| PayloadBinding {
            payload_type: PayloadType(*id),
            format: Format { codec: *codec, variant: *variant },
            rtx: rtx.map(PayloadType),
            clock_rate: if matches!(codec, Codec::Opus | Codec::Red) { 48_000 } else { 90_000 },
        })
        .collect()
}

/// Extensions towards subscribers.
#[must_use]
pub fn sent_extensions(kind: Kind) -> ExtensionMap {
    match kind {
        Kind::Audio => ExtensionMap { audio_level: ExtensionId(1), abs_send_time: ExtensionId(2), ..ExtensionMap::NONE },
        Kind::Video => ExtensionMap {
            abs_send_time: ExtensionId(2),
            video_orientation: ExtensionId(3),
            dependency_descriptor: ExtensionId(4),
            ..ExtensionMap::NONE
        },
    }
}

/// One section of the node's offer to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Kind.
    pub kind: Kind,
    /// `mid`.
    pub mid: String,
    /// What it carries; `None` = refused, so that its place may be taken by another section (RFC 8829 §5.2.2).
    pub track: Option<SentTrack>,
    /// Payload types.
    pub payloads: Vec<PayloadBinding>,
}

/// The track of a [`Sent`] section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentTrack {
    /// `msid` stream.
    pub stream: String,
    /// `msid` track.
    pub track: String,
    /// SSRC.
    pub ssrc: Ssrc,
    /// SSRC of retransmissions.
    pub rtx_ssrc: Option<Ssrc>,
}

/// Mid of the data-channel section of the node's offers.
pub const DATA_MID: &str = "data";

/// Offer to a subscriber.
#[must_use]
pub fn offer(local: &Local<'_>, sections: &[Sent]) -> String {
    let live = sections.iter().filter(|section| section.track.is_some()).map(|section| section.mid.as_str());
    let mids: Vec<&str> = std::iter::once(DATA_MID).chain(live).collect();
    let mut out = String::with_capacity(2048 + 1024 * sections.len());
    head(&mut out, local, &mids);
    out.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    transport(&mut out, local, DATA_MID, "actpass", true);
    let _ = write!(out, "a=sctp-port:5000\r\na=max-message-size:{}\r\n", media_core::limits::DATA_MESSAGE_BYTES_MAX);
    for section in sections {
        let Some(track) = &section.track else {
            refused(&mut out, media_name(section.kind), &section.mid);
            continue;
        };
        let _ = write!(out, "m={} 9 UDP/TLS/RTP/SAVPF {}\r\n", media_name(section.kind), payload_ids(&section.payloads));
        transport(&mut out, local, &section.mid, "actpass", false);
        out.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\na=sendonly\r\n");
        let mut map = sent_extensions(section.kind);
        for (index, uri) in EXTENSIONS.iter().enumerate() {
            let id = *extension_field(&mut map, index);
            if id.0 != 0 {
                let _ = write!(out, "a=extmap:{} {uri}\r\n", id.0);
            }
        }
        let fmtp = |binding: &PayloadBinding| {
            SENT.iter()
                .find(|(_, _, id, ..)| *id == binding.payload_type.0)
                .map_or(String::new(), |(.., text)| (*text).to_owned())
        };
        payload_lines(&mut out, &section.payloads, fmtp, section.kind);
        let _ = write!(out, "a=msid:{} {}\r\n", track.stream, track.track);
        if let Some(rtx) = track.rtx_ssrc {
            let _ = write!(out, "a=ssrc-group:FID {} {}\r\n", track.ssrc, rtx);
        }
        for ssrc in std::iter::once(track.ssrc).chain(track.rtx_ssrc) {
            let _ = write!(out, "a=ssrc:{ssrc} cname:{}\r\na=ssrc:{ssrc} msid:{} {}\r\n", track.stream, track.stream, track.track);
        }
    }
    out
}
