// SPDX-License-Identifier: EUPL-1.2
//! Session descriptions as browsers write them.

use std::fmt::Write as _;

const HEAD: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
const FINGERPRINT: &str = "12:34:56:78:9A:BC:DE:F0:12:34:56:78:9A:BC:DE:F0:12:34:56:78:9A:BC:DE:F0:12:34:56:78:9A:BC:DE:F0";

/// One track of a client's offer.
#[derive(Clone, Copy)]
pub struct Offered<'a> {
    pub mid: &'a str,
    pub cid: &'a str,
    pub video: bool,
    pub simulcast: bool,
    pub active: bool,
}

/// A publisher's offer as Chromium writes it. `generation` tells ICE restarts apart.
pub fn chromium_offer(session: u64, generation: u32, tracks: &[Offered<'_>]) -> String {
    let mids: Vec<&str> = std::iter::once("0")
        .chain(tracks.iter().map(|track| track.mid))
        .collect();
    let mut sdp = format!(
        "{HEAD}a=group:BUNDLE {}\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n",
        mids.join(" ")
    );
    let transport = format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:u{session}g{generation}\r\na=ice-pwd:asd88fgpdd777uzjYhagZg{generation}\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\na=setup:actpass\r\n"
    );
    let _ = write!(
        sdp,
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=mid:0\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n"
    );
    for track in tracks {
        let direction = if track.active { "sendonly" } else { "inactive" };
        if track.video {
            let _ = write!(
                sdp,
                "m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 45 46 98 99 119 120 116\r\n{transport}a=mid:{mid}\r\n\
                 a=extmap:1 urn:ietf:params:rtp-hdrext:toffset\r\n\
                 a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
                 a=extmap:3 urn:3gpp:video-orientation\r\n\
                 a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                 a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
                 a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
                 a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
                 a={direction}\r\na=msid:- {cid}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
                 a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 ccm fir\r\n\
                 a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
                 a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
                 a=rtpmap:104 rtx/90000\r\na=fmtp:104 apt=103\r\n\
                 a=rtpmap:45 AV1/90000\r\na=fmtp:45 level-idx=5;profile=0;tier=0\r\na=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n\
                 a=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n\
                 a=rtpmap:119 red/90000\r\na=rtpmap:120 rtx/90000\r\na=fmtp:120 apt=119\r\na=rtpmap:116 ulpfec/90000\r\n",
                mid = track.mid,
                cid = track.cid,
            );
            if track.simulcast {
                sdp.push_str(
                    "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n",
                );
            } else {
                sdp.push_str(
                    "a=ssrc-group:FID 3111 3112\r\na=ssrc:3111 cname:x\r\na=ssrc:3112 cname:x\r\n",
                );
            }
        } else {
            let _ = write!(
                sdp,
                "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n{transport}a=mid:{mid}\r\n\
                 a=extmap:14 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
                 a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
                 a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
                 a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
                 a={direction}\r\na=msid:- {cid}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
                 a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
                 a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\n\
                 a=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n\
                 a=ssrc:2111 cname:x\r\na=ssrc:2111 msid:- {cid}\r\n",
                mid = track.mid,
                cid = track.cid,
            );
        }
    }
    sdp
}

/// A publisher's offer with simulcast as Firefox writes it: SSRC lines beside RIDs, extensions by direction, own track ids.
pub fn firefox_offer() -> String {
    let transport = "c=IN IP4 0.0.0.0\r\na=ice-pwd:9ee7f61cc2b4bd8ba36db87dc9efd4a4\r\na=ice-ufrag:c5b7ed4a\r\n";
    format!(
        "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 3456789 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=sendrecv\r\n\
         a=fingerprint:sha-256 {FINGERPRINT}\r\na=group:BUNDLE 0 1\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=sendrecv\r\na=mid:0\r\na=setup:actpass\r\n\
         a=sctp-port:5000\r\na=max-message-size:1073741823\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 120 124 121 125 126 127\r\n{transport}a=sendonly\r\n\
         a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
         a=extmap:7 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=extmap:9/sendonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
         a=extmap:10/sendonly urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
         a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1\r\n\
         a=fmtp:120 max-fs=12288;max-fr=60\r\na=fmtp:124 apt=120\r\na=fmtp:121 max-fs=12288;max-fr=60\r\na=fmtp:125 apt=121\r\n\
         a=fmtp:127 apt=126\r\na=mid:1\r\na=msid:{{b1}} {{3c4c}}\r\na=rid:f send\r\na=rid:h send\r\na=rid:q send\r\n\
         a=rtcp-fb:120 nack\r\na=rtcp-fb:120 nack pli\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=rtpmap:120 VP8/90000\r\na=rtpmap:124 rtx/90000\r\na=rtpmap:121 VP9/90000\r\na=rtpmap:125 rtx/90000\r\n\
         a=rtpmap:126 H264/90000\r\na=rtpmap:127 rtx/90000\r\na=setup:actpass\r\na=simulcast:send f;h;q\r\n\
         a=ssrc:1001 cname:x\r\na=ssrc:1002 cname:x\r\na=ssrc:1003 cname:x\r\na=ssrc:2001 cname:x\r\na=ssrc:2002 cname:x\r\n\
         a=ssrc:2003 cname:x\r\na=ssrc-group:FID 1001 2001\r\na=ssrc-group:FID 1002 2002\r\na=ssrc-group:FID 1003 2003\r\n"
    )
}

/// An answer to an offer of the node that takes everything, with the same numbers.
pub fn answer_to(offer: &str, session: u64) -> String {
    let mut sdp = String::new();
    for line in offer.lines() {
        match line {
            line if line.starts_with("a=candidate")
                || line.starts_with("a=ice-lite")
                || line.starts_with("a=ssrc") => {}
            line if line.starts_with("a=msid:") => {}
            line if line.starts_with("a=ice-ufrag") => {
                let _ = write!(sdp, "a=ice-ufrag:s{session}xx\r\n");
            }
            line if line.starts_with("a=ice-pwd") => {
                sdp.push_str("a=ice-pwd:asd88fgpdd777uzjYhagZg\r\n")
            }
            line if line.starts_with("a=fingerprint") => {
                let _ = write!(sdp, "a=fingerprint:sha-256 {FINGERPRINT}\r\n");
            }
            "a=setup:passive" => sdp.push_str("a=setup:active\r\n"),
            "a=sendonly" => sdp.push_str("a=recvonly\r\n"),
            line => {
                sdp.push_str(line);
                sdp.push_str("\r\n");
            }
        }
    }
    sdp
}

pub fn audio_section<'a>(mid: &'a str, cid: &'a str) -> Offered<'a> {
    Offered {
        mid,
        cid,
        video: false,
        simulcast: false,
        active: true,
    }
}

pub fn video_section<'a>(mid: &'a str, cid: &'a str) -> Offered<'a> {
    Offered {
        mid,
        cid,
        video: true,
        simulcast: true,
        active: true,
    }
}
