// SPDX-License-Identifier: EUPL-1.2
//! Writing the node's answers and offers.

use std::fmt::Write;

use media_core::api::{
    Codec, ExtensionMap, Fingerprint, Format, IceCredentials, Kind, PayloadBinding,
};
use media_core::ids::{ExtensionId, PayloadType, Ssrc};
use media_core::io::Protocol;
use serde::{Deserialize, Serialize};

use super::{Description, EXTENSIONS, Section, extension_field, is_received};
use crate::api::Candidate;

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
    let _ = write!(
        out,
        "v=0\r\no=- 1 {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=msid-semantic: WMS *\r\n",
        local.version
    );
    if !mids.is_empty() {
        let _ = write!(out, "a=group:BUNDLE {}\r\n", mids.join(" "));
    }
    let _ = write!(out, "a=fingerprint:sha-256 {}\r\n", hex(local.fingerprint));
}

fn hex(fingerprint: Fingerprint) -> String {
    fingerprint
        .0
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":")
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
            let family = if candidate.address.is_ipv6() {
                60_000
            } else {
                30_000
            };
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

fn payload_lines(
    out: &mut String,
    payloads: &[PayloadBinding],
    fmtp: impl Fn(&PayloadBinding) -> String,
    kind: Kind,
) {
    for binding in payloads {
        let id = binding.payload_type.0;
        let _ = write!(
            out,
            "a=rtpmap:{id} {}\r\n",
            codec_name(binding.format.codec)
        );
        let text = fmtp(binding);
        if !text.is_empty() {
            let _ = write!(out, "a=fmtp:{id} {text}\r\n");
        }
        if kind == Kind::Video {
            for feedback in ["nack", "nack pli", "ccm fir", "transport-cc"] {
                let _ = write!(out, "a=rtcp-fb:{id} {feedback}\r\n");
            }
        } else {
            for feedback in ["nack", "transport-cc"] {
                let _ = write!(out, "a=rtcp-fb:{id} {feedback}\r\n");
            }
        }
        if let Some(rtx) = binding.rtx {
            let _ = write!(
                out,
                "a=rtpmap:{} rtx/90000\r\na=fmtp:{} apt={id}\r\n",
                rtx.0, rtx.0
            );
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

/// What the node takes of one offered section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Payload types in order of preference; empty = the section is refused.
    pub payloads: Vec<PayloadBinding>,
    /// What Opus is told beyond the client's own parameters.
    pub opus: &'static str,
}

fn refused(out: &mut String, name: &str, mid: &str) {
    let _ = write!(
        out,
        "m={name} 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=inactive\r\n"
    );
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
    let sections: Vec<(&Section, &Taken)> = offer
        .sections
        .iter()
        .enumerate()
        .map(|(index, section)| (section, taken.get(index).unwrap_or(&none)))
        .collect();
    let accepted: Vec<&str> = sections
        .iter()
        .filter(|(section, taken)| {
            !section.rejected && (section.kind.is_none() || !taken.payloads.is_empty())
        })
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
                let _ = write!(
                    out,
                    "a=sctp-port:5000\r\na=max-message-size:{}\r\n",
                    media_core::limits::DATA_MESSAGE_BYTES_MAX
                );
            }
            Some(kind) if section.rejected || taken.payloads.is_empty() => {
                refused(&mut out, media_name(kind), &section.mid)
            }
            Some(kind) => {
                let _ = write!(
                    out,
                    "m={} 9 UDP/TLS/RTP/SAVPF {}\r\n",
                    media_name(kind),
                    payload_ids(&taken.payloads)
                );
                transport(&mut out, local, &section.mid, "passive", first);
                first = false;
                out.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
                out.push_str(if is_received(section) {
                    "a=recvonly\r\n"
                } else {
                    "a=inactive\r\n"
                });
                for (id, index) in &section.extension_lines {
                    let uri = EXTENSIONS
                        .get(usize::from(*index))
                        .copied()
                        .unwrap_or_default();
                    let _ = write!(out, "a=extmap:{id} {uri}\r\n");
                }
                let fmtp = |binding: &PayloadBinding| {
                    let own = section
                        .formats
                        .iter()
                        .find(|(id, _)| *id == binding.payload_type.0)
                        .map_or("", |(_, text)| text.as_str());
                    match (binding.format.codec, own, taken.opus) {
                        (Codec::Opus, "", opus) => opus.to_owned(),
                        (Codec::Opus, own, opus) if !opus.is_empty() => format!("{own};{opus}"),
                        _ => own.to_owned(),
                    }
                };
                payload_lines(&mut out, &taken.payloads, fmtp, kind);
                let rids: Vec<&str> = section
                    .encodings
                    .iter()
                    .filter_map(|encoding| encoding.rid.as_deref())
                    .collect();
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
    (
        Codec::H264,
        0,
        102,
        Some(103),
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    ),
    (
        Codec::H264,
        1,
        104,
        Some(105),
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f",
    ),
    (
        Codec::H264,
        2,
        106,
        Some(107),
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f",
    ),
    (Codec::Av1, 0, 45, Some(46), "level-idx=5;profile=0;tier=0"),
];

/// Bindings towards subscribers for the formats of a publication. Opus always stands beside RED.
#[must_use]
pub fn sent_payloads(formats: &[Format]) -> Vec<PayloadBinding> {
    let red = formats.iter().any(|format| format.codec == Codec::Red);
    SENT.iter()
        .filter(|(codec, variant, ..)| {
            formats.contains(&Format {
                codec: *codec,
                variant: *variant,
            }) || (red && *codec == Codec::Opus)
        })
        .map(|(codec, variant, id, rtx, _)| PayloadBinding {
            payload_type: PayloadType(*id),
            format: Format {
                codec: *codec,
                variant: *variant,
            },
            rtx: rtx.map(PayloadType),
            clock_rate: if matches!(codec, Codec::Opus | Codec::Red) {
                48_000
            } else {
                90_000
            },
        })
        .collect()
}

/// Extensions towards subscribers.
#[must_use]
pub fn sent_extensions(kind: Kind) -> ExtensionMap {
    match kind {
        Kind::Audio => ExtensionMap {
            audio_level: ExtensionId(1),
            abs_send_time: ExtensionId(2),
            ..ExtensionMap::NONE
        },
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
    let live = sections
        .iter()
        .filter(|section| section.track.is_some())
        .map(|section| section.mid.as_str());
    let mids: Vec<&str> = std::iter::once(DATA_MID).chain(live).collect();
    let mut out = String::with_capacity(2048 + 1024 * sections.len());
    head(&mut out, local, &mids);
    out.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    // The node always is the DTLS server. It says so instead of `actpass`: clients on pion and webrtc-rs wait for a
    // ClientHello of their own accord when the offer is ICE-lite and leaves the choice to them.
    transport(&mut out, local, DATA_MID, "passive", true);
    let _ = write!(
        out,
        "a=sctp-port:5000\r\na=max-message-size:{}\r\n",
        media_core::limits::DATA_MESSAGE_BYTES_MAX
    );
    for section in sections {
        let Some(track) = &section.track else {
            refused(&mut out, media_name(section.kind), &section.mid);
            continue;
        };
        let _ = write!(
            out,
            "m={} 9 UDP/TLS/RTP/SAVPF {}\r\n",
            media_name(section.kind),
            payload_ids(&section.payloads)
        );
        transport(&mut out, local, &section.mid, "passive", false);
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
            let _ = write!(
                out,
                "a=ssrc:{ssrc} cname:{}\r\na=ssrc:{ssrc} msid:{} {}\r\n",
                track.stream, track.stream, track.track
            );
        }
    }
    out
}
