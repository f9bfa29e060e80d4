// SPDX-License-Identifier: EUPL-1.2
//! RTCP (RFC 3550 §6, RFC 4585): the messages a forwarder reads and writes. Own code, because building these allocates nothing.

use crate::ids::Ssrc;

/// Bytes of one RTCP datagram at most.
pub const PACKET_BYTES_MAX: usize = 1200;

/// One report block (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Stream reported on.
    pub ssrc: u32,
    /// Fraction lost, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all, 24 bits.
    pub lost: u32,
    /// Highest extended sequence number, 32 bits.
    pub highest: u32,
    /// Jitter in timestamp units.
    pub jitter: u32,
    /// Middle bits of the last sender report's NTP timestamp.
    pub last_sr: u32,
    /// Time since then, in 1/65536 s.
    pub delay: u32,
}

/// One message of a compound packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Sender report without its blocks, which follow as [`Message::Report`].
    SenderReport {
        /// Sender.
        ssrc: Ssrc,
        /// NTP timestamp, 32.32.
        ntp: u64,
        /// RTP timestamp of the same instant.
        rtp: u32,
    },
    /// One report block.
    Report(Report),
    /// Generic NACK entry: packet id and bit mask of the 16 after it.
    Nack {
        /// Stream.
        ssrc: Ssrc,
        /// First lost sequence number.
        pid: u16,
        /// Which of the following are lost too.
        mask: u16,
    },
    /// Picture loss indication or full intra request.
    KeyFrameRequest {
        /// Stream.
        ssrc: Ssrc,
    },
    /// Goodbye of a stream.
    Bye {
        /// Stream.
        ssrc: Ssrc,
    },
    /// Transport-wide feedback, unread.
    TransportFeedback(&'a [u8]),
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .first_chunk()
        .map(|chunk| u32::from_be_bytes(*chunk))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at + 2)?
        .first_chunk()
        .map(|chunk| u16::from_be_bytes(*chunk))
}

/// Visits the messages of a compound packet. `false` when it is cut short or malformed; what stood before was visited.
pub fn parse<'a>(packet: &'a [u8], mut visit: impl FnMut(Message<'a>)) -> bool {
    let mut rest = packet;
    while !rest.is_empty() {
        let Some(&[first, kind, high, low]) = rest.get(..4) else {
            return false;
        };
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        if first >> 6 != 2 || length > rest.len() {
            return false;
        }
        if one(first & 0x1f, kind, &rest[..length], &mut visit).is_none() {
            return false;
        }
        rest = &rest[length..];
    }
    true
}

fn one<'a>(count: u8, kind: u8, body: &'a [u8], visit: &mut impl FnMut(Message<'a>)) -> Option<()> {
    match (kind, count) {
        (200 | 201, blocks) => {
            let mut at = 8;
            if kind == 200 {
                visit(Message::SenderReport {
                    ssrc: Ssrc(word(body, 4)?),
                    ntp: u64::from(word(body, 8)?) << 32 | u64::from(word(body, 12)?),
                    rtp: word(body, 16)?,
                });
                at = 28;
            }
            for _ in 0..blocks {
                let loss = word(body, at + 4)?;
                visit(Message::Report(Report {
                    ssrc: word(body, at)?,
                    fraction_lost: (loss >> 24) as u8,
                    lost: loss & 0x00ff_ffff,
                    highest: word(body, at + 8)?,
                    jitter: word(body, at + 12)?,
                    last_sr: word(body, at + 16)?,
                    delay: word(body, at + 20)?,
                }));
                at += 24;
            }
        }
        (203, sources) => {
            for index in 0..usize::from(sources) {
                visit(Message::Bye {
                    ssrc: Ssrc(word(body, 4 + 4 * index)?),
                });
            }
        }
        (205, 1) => {
            let ssrc = Ssrc(word(body, 8)?);
            for at in (12..body.len()).step_by(4) {
                visit(Message::Nack {
                    ssrc,
                    pid: half(body, at)?,
                    mask: half(body, at + 2)?,
                });
            }
        }
        (205, 15) => visit(Message::TransportFeedback(body)),
        (206, 1) => visit(Message::KeyFrameRequest {
            ssrc: Ssrc(word(body, 8)?),
        }),
        (206, 4) => {
            for at in (12..body.len()).step_by(8) {
                visit(Message::KeyFrameRequest {
                    ssrc: Ssrc(word(body, at)?),
                });
            }
        }
        _ => {}
    }
    Some(())
}

fn head(out: &mut Vec<u8>, count: u8, kind: u8, words: usize) {
    out.extend_from_slice(&[0x80 | count, kind]);
    out.extend_from_slice(&(words as u16).to_be_bytes());
}

/// Appends an empty receiver report, which must begin a compound packet that has no other report (RFC 3550 §6.1).
pub fn receiver_report(out: &mut Vec<u8>, from: Ssrc, reports: &[Report]) {
    head(out, reports.len() as u8, 201, 1 + 6 * reports.len());
    out.extend_from_slice(&from.0.to_be_bytes());
    for report in reports {
        out.extend_from_slice(&report.ssrc.to_be_bytes());
        out.extend_from_slice(
            &(u32::from(report.fraction_lost) << 24 | report.lost & 0x00ff_ffff).to_be_bytes(),
        );
        for value in [report.highest, report.jitter, report.last_sr, report.delay] {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Appends a sender report without blocks.
pub fn sender_report(out: &mut Vec<u8>, from: Ssrc, ntp: u64, rtp: u32, packets: u32, bytes: u32) {
    head(out, 0, 200, 6);
    out.extend_from_slice(&from.0.to_be_bytes());
    out.extend_from_slice(&ntp.to_be_bytes());
    for value in [rtp, packets, bytes] {
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends the CNAME that every compound packet carries (RFC 3550 §6.5.1). It names no person.
pub fn source_description(out: &mut Vec<u8>, from: Ssrc) {
    head(out, 1, 202, 4);
    out.extend_from_slice(&from.0.to_be_bytes());
    out.extend_from_slice(&[1, 6]);
    out.extend_from_slice(b"plenum");
    out.extend_from_slice(&[0; 4]);
}

/// Appends a picture loss indication (RFC 4585 §6.3.1).
pub fn picture_loss(out: &mut Vec<u8>, from: Ssrc, media: Ssrc) {
    head(out, 1, 206, 2);
    out.extend_from_slice(&from.0.to_be_bytes());
    out.extend_from_slice(&media.0.to_be_bytes());
}

/// Appends generic NACKs (RFC 4585 §6.2.1) for sorted sequence numbers.
pub fn nack(out: &mut Vec<u8>, from: Ssrc, media: Ssrc, lost: &[u16]) {
    let start = out.len();
    head(out, 1, 205, 0);
    out.extend_from_slice(&from.0.to_be_bytes());
    out.extend_from_slice(&media.0.to_be_bytes());
    let mut index = 0;
    while index < lost.len() {
        let pid = lost[index];
        let mut mask = 0_u16;
        index += 1;
        while index < lost.len() && (1..=16).contains(&lost[index].wrapping_sub(pid)) {
            mask |= 1 << (lost[index].wrapping_sub(pid) - 1);
            index += 1;
        }
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(&mask.to_be_bytes());
    }
    let words = (out.len() - start) / 4 - 1;
    out[start + 2..start + 4].copy_from_slice(&(words as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages(packet: &[u8]) -> (Vec<Message<'_>>, bool) {
        let mut seen = Vec::new();
        let whole = parse(packet, |message| seen.push(message));
        (seen, whole)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut packet = Vec::new();
        let report = Report {
            ssrc: 5,
            fraction_lost: 3,
            lost: 7,
            highest: 9,
            jitter: 11,
            last_sr: 13,
            delay: 15,
        };
        receiver_report(&mut packet, Ssrc(1), &[report]);
        source_description(&mut packet, Ssrc(1));
        picture_loss(&mut packet, Ssrc(1), Ssrc(2));
        nack(&mut packet, Ssrc(1), Ssrc(2), &[65_535, 0, 15, 40]);
        sender_report(&mut packet, Ssrc(3), 1 << 40, 77, 1, 2);
        let (seen, whole) = messages(&packet);
        assert!(whole);
        assert_eq!(
            seen,
            vec![
                Message::Report(report),
                Message::KeyFrameRequest { ssrc: Ssrc(2) },
                Message::Nack {
                    ssrc: Ssrc(2),
                    pid: 65_535,
                    mask: 1 | 1 << 15
                },
                Message::Nack {
                    ssrc: Ssrc(2),
                    pid: 40,
                    mask: 0
                },
                Message::SenderReport {
                    ssrc: Ssrc(3),
                    ntp: 1 << 40,
                    rtp: 77
                },
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(packet in proptest::collection::vec(any::<u8>(), 0..80), kind in 200_u8..208) {
            let mut packet = packet;
            if packet.len() >= 4 {
                packet[0] = 0x80 | packet[0] & 0x1f;
                packet[1] = kind;
                packet[2] = 0;
                packet[3] %= 20;
            }
            let _ = messages(&packet);
        }
    }
}
