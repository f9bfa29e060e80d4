// SPDX-License-Identifier: EUPL-1.2
//! Session descriptions as the load client writes and reads them: only what a headless client of a LiveKit server needs.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use media_core::api::{Fingerprint, IceCredentials};
use media_core::io::Protocol;

/// Payload type of Opus in our offers.
pub const OPUS: u8 = 111;
/// Payload type of VP8 in our offers.
pub const VP8: u8 = 96;
/// Payload type of VP8's retransmissions.
pub const VP8_RTX: u8 = 97;
/// Header extension ids of our offers.
pub mod extension {
    /// `mid`.
    pub const MID: u8 = 1;
    /// Audio level (RFC 6464).
    pub const AUDIO_LEVEL: u8 = 2;
    /// Transport-wide sequence number.
    pub const TRANSPORT_CC: u8 = 3;
    /// `rid`.
    pub const RID: u8 = 4;
    /// `repaired-rid`.
    pub const REPAIRED_RID: u8 = 5;
}

/// One track of our own offer.
#[derive(Clone, Debug)]
pub struct OfferedTrack {
    /// `mid` of its section.
    pub mid: String,
    /// Track id in `msid`.
    pub cid: String,
    /// Video or audio?
    pub video: bool,
    /// SSRC and retransmission SSRC per layer.
    pub ssrcs: Vec<(u32, u32)>,
    /// RIDs, low to high; empty without simulcast.
    pub rids: Vec<&'static str>,
}

/// Our half of a description.
#[derive(Clone, Debug)]
pub struct Local {
    /// ICE credentials.
    pub ice: IceCredentials,
    /// Certificate.
    pub fingerprint: Fingerprint,
    /// Session id.
    pub session: u64,
    /// Counts descriptions.
    pub version: u32,
}

fn head(local: &Local, mids: &[&str]) -> String {
    let mut sdp = String::with_capacity(2048);
    let _ = write!(
        sdp,
        "v=0\r\no=- {} {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=msid-semantic: WMS *\r\n",
        local.session,
        local.version,
        mids.join(" ")
    );
    sdp
}

fn transport(sdp: &mut String, local: &Local, setup: &str, mid: &str) {
    let _ = write!(
        sdp,
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\na=mid:{mid}\r\n",
        local.ice.ufrag,
        local.ice.password,
        write_fingerprint(local.fingerprint),
    );
}

/// The publisher's offer: data channels first, then the tracks.
#[must_use]
pub fn offer(local: &Local, tracks: &[OfferedTrack]) -> String {
    let mids: Vec<&str> = std::iter::once("0")
        .chain(tracks.iter().map(|track| track.mid.as_str()))
        .collect();
    let mut sdp = head(local, &mids);
    sdp.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    transport(&mut sdp, local, "actpass", "0");
    sdp.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n");
    for track in tracks {
        if track.video {
            let _ = write!(sdp, "m=video 9 UDP/TLS/RTP/SAVPF {VP8} {VP8_RTX}\r\n");
        } else {
            let _ = write!(sdp, "m=audio 9 UDP/TLS/RTP/SAVPF {OPUS}\r\n");
        }
        transport(&mut sdp, local, "actpass", &track.mid);
        let _ = write!(
            sdp,
            "a=sendonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=msid:- {cid}\r\na=extmap:{mid} urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=extmap:{cc} http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n",
            cid = track.cid,
            mid = extension::MID,
            cc = extension::TRANSPORT_CC,
        );
        if track.video {
            let _ = write!(
                sdp,
                "a=rtpmap:{VP8} VP8/90000\r\na=rtcp-fb:{VP8} transport-cc\r\na=rtcp-fb:{VP8} ccm fir\r\na=rtcp-fb:{VP8} nack\r\n\
                 a=rtcp-fb:{VP8} nack pli\r\na=rtpmap:{VP8_RTX} rtx/90000\r\na=fmtp:{VP8_RTX} apt={VP8}\r\n\
                 a=extmap:{rid} urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
                 a=extmap:{repaired} urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n",
                rid = extension::RID,
                repaired = extension::REPAIRED_RID,
            );
        } else {
            let _ = write!(
                sdp,
                "a=rtpmap:{OPUS} opus/48000/2\r\na=fmtp:{OPUS} minptime=10;useinbandfec=1\r\na=rtcp-fb:{OPUS} transport-cc\r\n\
                 a=extmap:{level} urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n",
                level = extension::AUDIO_LEVEL,
            );
        }
        if track.rids.is_empty() {
            for &(ssrc, rtx) in &track.ssrcs {
                if track.video {
                    let _ = write!(sdp, "a=ssrc-group:FID {ssrc} {rtx}\r\n");
                }
                let _ = write!(
                    sdp,
                    "a=ssrc:{ssrc} cname:plenum-load\r\na=ssrc:{ssrc} msid:- {}\r\n",
                    track.cid
                );
                if track.video {
                    let _ = write!(
                        sdp,
                        "a=ssrc:{rtx} cname:plenum-load\r\na=ssrc:{rtx} msid:- {}\r\n",
                        track.cid
                    );
                }
            }
        } else {
            for rid in &track.rids {
                let _ = write!(sdp, "a=rid:{rid} send\r\n");
            }
            let _ = write!(sdp, "a=simulcast:send {}\r\n", track.rids.join(";"));
        }
    }
    sdp
}

/// The answer to the node's offer: everything it sends is taken, with its own payload types and extensions.
#[must_use]
pub fn answer(local: &Local, offer: &Remote) -> String {
    let live: Vec<&str> = offer
        .sections
        .iter()
        .filter(|section| !section.rejected)
        .map(|section| section.mid.as_str())
        .collect();
    let mut sdp = head(local, &live);
    for section in &offer.sections {
        let port = if section.rejected { 0 } else { 9 };
        let _ = write!(
            sdp,
            "m={} {port} {} {}\r\n",
            section.kind,
            section.protocol,
            section.formats.join(" ")
        );
        transport(&mut sdp, local, "active", &section.mid);
        if section.kind == "application" {
            sdp.push_str("a=sctp-port:5000\r\na=max-message-size:262144\r\n");
            continue;
        }
        sdp.push_str(if section.sends {
            "a=recvonly\r\n"
        } else {
            "a=inactive\r\n"
        });
        sdp.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
        for line in &section.echoed {
            sdp.push_str(line);
            sdp.push_str("\r\n");
        }
    }
    sdp
}

/// What a remote description says.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// ICE credentials.
    pub ice: Option<IceCredentials>,
    /// Certificate.
    pub fingerprint: Option<Fingerprint>,
    /// Candidates of all sections.
    pub candidates: Vec<(Protocol, SocketAddr)>,
    /// Sections in order.
    pub sections: Vec<Section>,
}

/// One m-section.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// `audio`, `video` or `application`.
    pub kind: String,
    /// Transport protocol of the m-line.
    pub protocol: String,
    /// Formats of the m-line.
    pub formats: Vec<String>,
    /// Port 0?
    pub rejected: bool,
    /// `mid`.
    pub mid: String,
    /// Does the other side send?
    pub sends: bool,
    /// `msid` as (stream id, track id).
    pub msid: Option<(String, String)>,
    /// SSRCs in order of appearance.
    pub ssrcs: Vec<u32>,
    /// Retransmission SSRCs of FID groups.
    pub rtx_ssrcs: Vec<u32>,
    /// Payload types of RTX.
    pub rtx_payloads: Vec<u8>,
    /// Lines that an answer repeats.
    pub echoed: Vec<String>,
    /// Header extensions by URI.
    pub extensions: Vec<(u8, String)>,
}

/// A description cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session description lacks ICE credentials, a certificate or both")]
pub struct Incomplete;

impl Remote {
    /// Reads what is understood, ignores the rest.
    #[must_use]
    pub fn parse(sdp: &str) -> Self {
        let mut remote = Self::default();
        let (mut ufrag, mut password) = (None, None);
        for line in sdp.lines() {
            let line = line.trim_end();
            if let Some(media) = line.strip_prefix("m=") {
                let mut words = media.split(' ');
                let kind = words.next().unwrap_or_default().to_owned();
                let rejected = words.next() == Some("0");
                let protocol = words.next().unwrap_or_default().to_owned();
                remote.sections.push(Section {
                    kind,
                    protocol,
                    formats: words.map(str::to_owned).collect(),
                    rejected,
                    sends: true,
                    ..Section::default()
                });
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else {
                continue;
            };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match name {
                "ice-ufrag" if ufrag.is_none() => ufrag = Some(value.to_owned()),
                "ice-pwd" if password.is_none() => password = Some(value.to_owned()),
                "fingerprint" if remote.fingerprint.is_none() => {
                    remote.fingerprint = value.strip_prefix("sha-256 ").and_then(read_fingerprint);
                }
                "candidate" => remote.candidates.extend(read_candidate(value)),
                _ => {}
            }
            let Some(section) = remote.sections.last_mut() else {
                continue;
            };
            match name {
                "mid" => section.mid = value.to_owned(),
                "recvonly" | "inactive" => section.sends = false,
                "msid" => {
                    section.msid = value
                        .split_once(' ')
                        .map(|(stream, track)| (stream.to_owned(), track.to_owned()));
                }
                "ssrc-group" => {
                    let mut words = value.split(' ');
                    if words.next() == Some("FID") {
                        section
                            .rtx_ssrcs
                            .extend(words.nth(1).and_then(|word| word.parse::<u32>().ok()));
                    }
                }
                "ssrc" => {
                    if let Some(ssrc) = value.split(' ').next().and_then(|word| word.parse().ok())
                        && !section.ssrcs.contains(&ssrc)
                    {
                        section.ssrcs.push(ssrc);
                    }
                }
                "extmap" => {
                    if let Some((id, uri)) = value.split_once(' ') {
                        let id = id
                            .split('/')
                            .next()
                            .and_then(|id| id.parse().ok())
                            .unwrap_or(0);
                        section.extensions.push((id, uri.to_owned()));
                    }
                    section.echoed.push(line.to_owned());
                }
                "rtpmap" => {
                    if let Some((payload, format)) = value.split_once(' ')
                        && format.to_ascii_lowercase().starts_with("rtx/")
                    {
                        section.rtx_payloads.extend(payload.parse::<u8>().ok());
                    }
                    section.echoed.push(line.to_owned());
                }
                "fmtp" | "rtcp-fb" => section.echoed.push(line.to_owned()),
                _ => {}
            }
        }
        remote.ice = ufrag
            .zip(password)
            .map(|(ufrag, password)| IceCredentials { ufrag, password });
        remote
    }

    /// Credentials and certificate.
    ///
    /// # Errors
    /// [`Incomplete`].
    pub fn credentials(&self) -> Result<(IceCredentials, Fingerprint), Incomplete> {
        self.ice.clone().zip(self.fingerprint).ok_or(Incomplete)
    }
}

/// Reads `1 1 udp 2130706431 127.0.0.1 20000 typ host …`, with or without `candidate:` before it.
#[must_use]
pub fn read_candidate(value: &str) -> Option<(Protocol, SocketAddr)> {
    let value = value.strip_prefix("candidate:").unwrap_or(value);
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let protocol = match words.get(2)?.to_ascii_lowercase().as_str() {
        "udp" => Protocol::Udp,
        "tcp" => Protocol::Tcp,
        _ => return None,
    };
    let ip: IpAddr = words.get(4)?.parse().ok()?;
    Some((protocol, SocketAddr::new(ip, words.get(5)?.parse().ok()?)))
}

fn write_fingerprint(fingerprint: Fingerprint) -> String {
    let bytes: Vec<String> = fingerprint
        .0
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    bytes.join(":")
}

fn read_fingerprint(text: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    let mut words = text.trim().split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(words.next()?, 16).ok()?;
    }
    words.next().is_none().then_some(Fingerprint(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        Local {
            ice: IceCredentials {
                ufrag: "abcd".into(),
                password: "0123456789012345678901".into(),
            },
            fingerprint: Fingerprint([0xa5; 32]),
            session: 7,
            version: 2,
        }
    }

    #[test]
    fn an_own_offer_reads_back_and_its_answer_mirrors_it() {
        let track = OfferedTrack {
            mid: "1".into(),
            cid: "cam".into(),
            video: true,
            ssrcs: vec![(11, 12)],
            rids: vec![],
        };
        let offer = Remote::parse(&offer(&local(), &[track]));
        let (ice, fingerprint) = offer.credentials().expect("complete");
        assert_eq!(ice, local().ice);
        assert_eq!(fingerprint, local().fingerprint);
        assert_eq!(offer.sections.len(), 2);
        assert_eq!(offer.sections[1].ssrcs, [11, 12]);
        assert_eq!(offer.sections[1].rtx_ssrcs, [12]);
        assert_eq!(offer.sections[1].rtx_payloads, [VP8_RTX]);
        assert_eq!(offer.sections[1].msid, Some(("-".into(), "cam".into())));
        let answer = Remote::parse(&answer(&local(), &offer));
        assert_eq!(answer.sections[1].mid, "1");
        assert!(!answer.sections[1].sends);
        assert_eq!(answer.sections[1].formats, ["96", "97"]);
    }

    #[test]
    fn candidates_of_both_protocols_and_families_are_read() {
        assert_eq!(
            read_candidate("candidate:1 1 udp 2130706431 127.0.0.1 20000 typ host"),
            Some((Protocol::Udp, "127.0.0.1:20000".parse().expect("address")))
        );
        assert_eq!(
            read_candidate("2 1 TCP 1 ::1 7 typ host tcptype passive"),
            Some((Protocol::Tcp, "[::1]:7".parse().expect("address")))
        );
        assert_eq!(read_candidate("1 1 udp 1 name.local 7 typ host"), None);
    }
}
