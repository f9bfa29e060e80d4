// SPDX-License-Identifier: EUPL-1.2
//! One peer connection of the load client: the controlling end of ICE and DTLS with SRTP above it.

use std::collections::HashMap;
use std::net::SocketAddr;

use media_core::api::{Channel, Fingerprint, IceCredentials, TransportFailure};
use media_core::crypto::{SrtpProfile, TAG_BYTES};
use media_core::ids::{ExtSeq, ExtensionId, PayloadType, Ssrc};
use media_core::io::{Path, Protocol};
use media_core::rtp::header::{Header, Writer};
use media_core::rtp::rtcp::{self, Message};
use media_core::srtp::{self, Direction, Replay};
use media_core::time::Timestamp;
use media_core::transport::client::ClientTransport;
use media_core::transport::{TransportEvent, TransportOut, stun};
use media_crypto::AwsLc;

/// Streams one leg keeps counters for; what comes beyond is dropped.
const STREAMS_MAX: usize = 4096;
/// Sent packets kept for retransmission, per stream.
const HISTORY: usize = 512;

/// What a leg reports.
#[derive(Debug)]
pub enum LegEvent {
    /// DTLS is complete.
    Connected(SrtpProfile),
    /// A data channel is open.
    ChannelOpen(Channel),
    /// A message arrived.
    Data(Channel, Vec<u8>),
    /// The other side wants a key frame.
    KeyFrameWanted(Ssrc),
    /// An authentic media packet, decrypted.
    Media(Received),
    /// The connection ended.
    Failed(TransportFailure),
}

/// One received packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Stream.
    pub ssrc: Ssrc,
    /// Extended sequence number.
    pub sequence: ExtSeq,
    /// Payload type.
    pub payload_type: PayloadType,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Marker.
    pub marker: bool,
    /// Payload.
    pub payload: Vec<u8>,
}

/// What is sent on one SSRC.
#[derive(Debug, Default)]
struct Sender {
    next: u64,
    packets: u32,
    bytes: u32,
    last_rtp: u32,
    rtx: Option<(Ssrc, PayloadType, u64)>,
    history: Vec<(u16, Vec<u8>, u32, bool)>,
}

/// What comes on one SSRC.
#[derive(Debug, Default)]
struct Receiver {
    replay: Replay,
    first: u64,
    highest: u64,
    packets: u64,
    last_sr: u32,
    last_sr_at: Timestamp,
    reported_expected: u64,
    reported_packets: u64,
}

/// Counters of one leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegCounters {
    /// Authentic media packets received.
    pub received: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Replayed or unauthentic packets.
    pub refused: u64,
    /// Media packets sent.
    pub sent: u64,
    /// Key frames asked for by the other side.
    pub key_frames_wanted: u64,
    /// Sequence numbers the other side asked for again.
    pub nacked: u64,
}

/// One peer connection.
pub struct Leg {
    transport: ClientTransport<AwsLc>,
    out: TransportOut,
    keys: Option<(Direction<AwsLc>, Direction<AwsLc>)>,
    senders: HashMap<Ssrc, Sender>,
    receivers: HashMap<Ssrc, Receiver>,
    rtcp_index: u32,
    own_ssrc: Ssrc,
    counters: LegCounters,
    next_report: Timestamp,
    /// When anything came from the other side.
    heard: Timestamp,
}

/// Pace of reports.
const REPORT: std::time::Duration = std::time::Duration::from_secs(1);

impl Leg {
    /// Begins to check `remote_address` from `local_address`.
    #[expect(
        clippy::too_many_arguments,
        reason = "the two halves of a connection, each named"
    )]
    #[must_use]
    pub fn new(
        crypto: &AwsLc,
        local: IceCredentials,
        remote: IceCredentials,
        fingerprint: Fingerprint,
        protocol: Protocol,
        local_address: SocketAddr,
        remote_address: SocketAddr,
        open_channels: bool,
        now: Timestamp,
    ) -> Self {
        let path = Path {
            protocol,
            local: local_address,
            remote: remote_address,
        };
        let dtls = crypto.dtls_client(fingerprint, now);
        Self {
            transport: ClientTransport::new(local, remote, path, dtls, open_channels, now),
            out: TransportOut::default(),
            keys: None,
            senders: HashMap::new(),
            receivers: HashMap::new(),
            rtcp_index: 0,
            own_ssrc: Ssrc(1),
            counters: LegCounters::default(),
            next_report: now + REPORT,
            heard: now,
        }
    }

    /// Is DTLS complete?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    /// The path it uses.
    #[must_use]
    pub fn path(&self) -> Path {
        self.transport.path()
    }

    /// Goes on from another own address, as after a change of network.
    pub fn move_to(&mut self, path: Path, now: Timestamp) {
        self.transport.move_to(path, now);
    }

    /// An ICE restart: fresh credentials of both sides under the same association.
    pub fn renew(&mut self, local: IceCredentials, remote: IceCredentials, now: Timestamp) {
        self.transport.renew(local, remote, now);
    }

    /// When anything came from the other side; a client gives a connection up that is silent for too long.
    #[must_use]
    pub fn heard(&self) -> Timestamp {
        self.heard
    }

    /// Counters; losses are as of now.
    #[must_use]
    pub fn counters(&self) -> LegCounters {
        let mut counters = self.counters;
        counters.lost = self
            .receivers
            .values()
            .map(|receiver| receiver.expected().saturating_sub(receiver.packets))
            .sum();
        counters
    }

    /// Names the retransmission stream of `ssrc`, so that NACKs are answered.
    pub fn set_rtx(&mut self, ssrc: Ssrc, rtx: Ssrc, payload_type: PayloadType) {
        self.senders
            .entry(ssrc)
            .or_default()
            .rtx
            .get_or_insert((rtx, payload_type, 1));
    }

    /// Seals one RTP packet and queues it; false before the connection stands.
    pub fn send_rtp(
        &mut self,
        ssrc: Ssrc,
        payload_type: PayloadType,
        timestamp: u32,
        marker: bool,
        extensions: &[(u8, &[u8])],
        payload: &[u8],
    ) -> bool {
        let Some((local, _)) = &self.keys else {
            return false;
        };
        let sender = self.senders.entry(ssrc).or_insert_with(|| Sender {
            next: 1,
            ..Sender::default()
        });
        if sender.next == 0 {
            sender.next = 1;
        }
        let index = sender.next;
        sender.next += 1;
        sender.packets = sender.packets.wrapping_add(1);
        sender.bytes = sender.bytes.wrapping_add(payload.len() as u32);
        sender.last_rtp = timestamp;
        let packet = seal(
            local,
            ssrc,
            payload_type,
            index,
            timestamp,
            marker,
            extensions,
            payload,
        );
        if sender.rtx.is_some() {
            if sender.history.len() < HISTORY {
                sender
                    .history
                    .push((index as u16, payload.to_vec(), timestamp, marker));
            } else {
                sender.history[index as usize % HISTORY] =
                    (index as u16, payload.to_vec(), timestamp, marker);
            }
        }
        self.counters.sent += 1;
        self.out
            .datagrams
            .push_back((self.transport.path(), packet));
        true
    }

    /// Seals arbitrary bytes as an RTP packet under these keys, for hostile tests. `packet` is a whole RTP packet.
    pub fn send_raw_rtp(&mut self, index: ExtSeq, packet: &[u8]) -> bool {
        let (Some((local, _)), Some(header)) = (&self.keys, Header::parse(packet)) else {
            return false;
        };
        let mut sealed = packet.to_vec();
        sealed.resize(packet.len() + TAG_BYTES, 0);
        local.seal_rtp(header.ssrc, index, &mut sealed, header.payload_at);
        self.out
            .datagrams
            .push_back((self.transport.path(), sealed));
        true
    }

    /// Sends one message on a data channel.
    ///
    /// # Errors
    /// As [`ClientTransport::send_data`].
    pub fn send_data(
        &mut self,
        now: Timestamp,
        crypto: &mut AwsLc,
        channel: Channel,
        payload: &[u8],
    ) -> Result<(), media_core::transport::SendDataError> {
        self.transport
            .send_data(now, crypto, channel, payload, &mut self.out)
    }

    /// One datagram of the other side.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        crypto: &mut AwsLc,
        datagram: &mut [u8],
        mut event: impl FnMut(LegEvent),
    ) {
        self.heard = now;
        match datagram.first() {
            Some(128..=191) => {
                // RFC 5761 §4: 192..=223 with the marker bit are RTCP packet types.
                if datagram.len() >= 8 && (192..=223).contains(&datagram[1]) {
                    self.handle_rtcp(now, datagram, &mut event);
                } else {
                    self.handle_rtp(datagram, &mut event);
                }
            }
            Some(_) if stun::is_stun(datagram) || matches!(datagram[0], 20..=63) => {
                self.transport
                    .handle_datagram(now, crypto, datagram, &mut self.out);
            }
            _ => {}
        }
        self.take_events(&mut event);
    }

    fn handle_rtp(&mut self, packet: &mut [u8], event: &mut impl FnMut(LegEvent)) {
        let (Some((_, remote)), Some(header)) = (&self.keys, Header::parse(packet)) else {
            return;
        };
        if self.receivers.len() >= STREAMS_MAX && !self.receivers.contains_key(&header.ssrc) {
            return;
        }
        let receiver = self.receivers.entry(header.ssrc).or_default();
        let index = receiver.replay.extend(header.sequence);
        if !receiver.replay.is_fresh(index.0) {
            self.counters.refused += 1;
            return;
        }
        let Some(length) = remote.open_rtp(header.ssrc, index, packet, header.payload_at) else {
            self.counters.refused += 1;
            return;
        };
        receiver.replay.accept(index.0);
        if receiver.packets == 0 {
            receiver.first = index.0;
        }
        receiver.first = receiver.first.min(index.0);
        receiver.packets += 1;
        receiver.highest = receiver.highest.max(index.0);
        self.counters.received += 1;
        let mut end = length;
        if header.padding {
            end = end
                .saturating_sub(usize::from(packet[length - 1]))
                .max(header.payload_at);
        }
        event(LegEvent::Media(Received {
            ssrc: header.ssrc,
            sequence: index,
            payload_type: header.payload_type,
            timestamp: header.timestamp,
            marker: header.marker,
            payload: packet[header.payload_at..end].to_vec(),
        }));
    }

    fn handle_rtcp(&mut self, now: Timestamp, packet: &mut [u8], event: &mut impl FnMut(LegEvent)) {
        let Some((_, remote)) = &self.keys else {
            return;
        };
        let Some((_, length)) = remote.open_rtcp(packet) else {
            self.counters.refused += 1;
            return;
        };
        let (counters, receivers) = (&mut self.counters, &mut self.receivers);
        let mut wanted: Vec<(Ssrc, u16)> = Vec::new();
        rtcp::parse(&packet[..length], |message| match message {
            Message::KeyFrameRequest { ssrc } => {
                counters.key_frames_wanted += 1;
                event(LegEvent::KeyFrameWanted(ssrc));
            }
            Message::Nack { ssrc, pid, mask } => {
                wanted.push((ssrc, pid));
                wanted.extend(
                    (0..16)
                        .filter(|bit| mask >> bit & 1 == 1)
                        .map(|bit| (ssrc, pid.wrapping_add(bit + 1))),
                );
            }
            Message::SenderReport { ssrc, ntp, .. } => {
                if let Some(receiver) = receivers.get_mut(&ssrc) {
                    receiver.last_sr = (ntp >> 16) as u32;
                    receiver.last_sr_at = now;
                }
            }
            _ => {}
        });
        for (ssrc, sequence) in wanted {
            self.counters.nacked += 1;
            self.retransmit(ssrc, sequence);
        }
    }

    fn retransmit(&mut self, ssrc: Ssrc, sequence: u16) {
        let Some((local, _)) = &self.keys else { return };
        let Some(sender) = self.senders.get_mut(&ssrc) else {
            return;
        };
        let Some((_, payload, timestamp, marker)) =
            sender.history.iter().find(|entry| entry.0 == sequence)
        else {
            return;
        };
        let Some((rtx, payload_type, next)) = &mut sender.rtx else {
            return;
        };
        let body = [&sequence.to_be_bytes(), payload.as_slice()].concat();
        let packet = seal(
            local,
            *rtx,
            *payload_type,
            *next,
            *timestamp,
            *marker,
            &[],
            &body,
        );
        *next += 1;
        self.out
            .datagrams
            .push_back((self.transport.path(), packet));
    }

    /// Timers; also sends the first check.
    pub fn handle_timeout(
        &mut self,
        now: Timestamp,
        crypto: &mut AwsLc,
        mut event: impl FnMut(LegEvent),
    ) {
        if self
            .transport
            .poll_deadline(crypto)
            .is_some_and(|deadline| deadline <= now)
        {
            self.transport.handle_timeout(now, crypto, &mut self.out);
        }
        if now >= self.next_report {
            self.next_report = now + REPORT;
            self.report(now);
        }
        self.take_events(&mut event);
    }

    fn report(&mut self, now: Timestamp) {
        let Some((local, _)) = &self.keys else { return };
        let mut compound = Vec::new();
        for (ssrc, sender) in &self.senders {
            let seconds = now.as_nanos() / 1_000_000_000;
            let fraction = ((now.as_nanos() % 1_000_000_000) << 32) / 1_000_000_000;
            rtcp::sender_report(
                &mut compound,
                *ssrc,
                seconds << 32 | fraction,
                sender.last_rtp,
                sender.packets,
                sender.bytes,
            );
        }
        let mut reports = Vec::new();
        for (ssrc, receiver) in &mut self.receivers {
            reports.push(receiver.report(*ssrc, now));
        }
        for chunk in reports.chunks(31) {
            rtcp::receiver_report(&mut compound, self.own_ssrc, chunk);
        }
        if compound.is_empty() || compound.len() > rtcp::PACKET_BYTES_MAX {
            return;
        }
        rtcp::source_description(&mut compound, self.own_ssrc);
        self.rtcp_index += 1;
        local.seal_rtcp(self.rtcp_index, &mut compound);
        self.out
            .datagrams
            .push_back((self.transport.path(), compound));
    }

    /// Asks for a key frame of a received stream.
    pub fn want_key_frame(&mut self, ssrc: Ssrc) {
        let Some((local, _)) = &self.keys else { return };
        let mut compound = Vec::new();
        rtcp::receiver_report(&mut compound, self.own_ssrc, &[]);
        rtcp::picture_loss(&mut compound, self.own_ssrc, ssrc);
        self.rtcp_index += 1;
        local.seal_rtcp(self.rtcp_index, &mut compound);
        self.out
            .datagrams
            .push_back((self.transport.path(), compound));
    }

    fn take_events(&mut self, event: &mut impl FnMut(LegEvent)) {
        while let Some(happened) = self.out.events.pop_front() {
            match happened {
                TransportEvent::Keys(keys) => {
                    let profile = keys.profile;
                    self.keys = srtp::keys::<AwsLc>(&keys);
                    event(LegEvent::Connected(profile));
                }
                TransportEvent::ChannelOpen(channel) => event(LegEvent::ChannelOpen(channel)),
                TransportEvent::Data(channel, data) => event(LegEvent::Data(channel, data)),
                TransportEvent::Failed(failure) => event(LegEvent::Failed(failure)),
                TransportEvent::PathNominated(_)
                | TransportEvent::PathProved(_)
                | TransportEvent::PathLost(_) => {}
            }
        }
    }

    /// Next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        self.out.datagrams.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_deadline(&self, crypto: &AwsLc) -> Timestamp {
        self.transport
            .poll_deadline(crypto)
            .map_or(self.next_report, |deadline| deadline.min(self.next_report))
    }

    /// Says goodbye.
    pub fn close(&mut self, now: Timestamp) {
        self.transport.close(now, &mut self.out);
    }
}

impl Receiver {
    fn expected(&self) -> u64 {
        if self.packets == 0 {
            0
        } else {
            self.highest - self.first + 1
        }
    }

    fn report(&mut self, ssrc: Ssrc, now: Timestamp) -> rtcp::Report {
        let expected = self.expected();
        let interval = expected.saturating_sub(self.reported_expected);
        let lost = interval.saturating_sub(self.packets.saturating_sub(self.reported_packets));
        self.reported_expected = expected;
        self.reported_packets = self.packets;
        let delay = if self.last_sr == 0 {
            0
        } else {
            now.since(self.last_sr_at).as_nanos() * 65_536 / 1_000_000_000
        };
        rtcp::Report {
            ssrc: ssrc.0,
            fraction_lost: (lost * 256)
                .checked_div(interval)
                .map_or(0, |part| part.min(255) as u8),
            lost: expected.saturating_sub(self.packets).min(0x7f_ffff) as u32,
            highest: self.highest as u32,
            jitter: 0,
            last_sr: self.last_sr,
            delay: u32::try_from(delay).unwrap_or(u32::MAX),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of an RTP header")]
fn seal(
    keys: &Direction<AwsLc>,
    ssrc: Ssrc,
    payload_type: PayloadType,
    index: u64,
    timestamp: u32,
    marker: bool,
    extensions: &[(u8, &[u8])],
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; 12 + 4 + 64 + payload.len() + TAG_BYTES];
    let mut writer = Writer::new(
        &mut packet,
        marker,
        payload_type,
        index as u16,
        timestamp,
        ssrc,
    );
    for (id, value) in extensions {
        writer.extension(ExtensionId(*id), value);
    }
    let at = writer.finish();
    packet.truncate(at + payload.len() + TAG_BYTES);
    packet[at..at + payload.len()].copy_from_slice(payload);
    keys.seal_rtp(ssrc, ExtSeq(index), &mut packet, at);
    packet
}
