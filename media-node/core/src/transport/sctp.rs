// SPDX-License-Identifier: EUPL-1.2
//! Data channels (RFC 8831, RFC 8832) on `rtc-sctp`: two labels, bounded buffers.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rtc_datachannel::message::Message;
use rtc_datachannel::message::message_channel_ack::DataChannelAck;
use rtc_datachannel::message::message_channel_open::{ChannelType, DataChannelOpen};
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent,
    TransportConfig,
};
use rtc_shared::TransportProtocol;
use rtc_shared::marshal::{Marshal, Unmarshal};

use super::chunks;
use crate::api::Channel;
use crate::limits::{
    CHANNELS_MAX, DATA_MESSAGE_BYTES_MAX, LOSSY_BUFFER_BYTES_MAX, RELIABLE_BUFFER_BYTES_MAX,
};

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendDataError {
    /// No such channel (yet).
    #[error("the data channel is not open")]
    NotOpen,
    /// The bound of waiting bytes is reached.
    #[error("too many bytes are waiting on the data channel")]
    Full,
    /// The message is too long.
    #[error("the message is longer than 64 kB")]
    TooLong,
}

/// DTLS role, which decides who may use which stream ids (RFC 8832 §6) and who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Waits for INIT; odd ids.
    Server,
    /// Sends INIT; even ids.
    Client,
}

/// What happened.
#[derive(Debug)]
pub enum SctpEvent {
    /// The association stands.
    Connected,
    /// A channel with a known label is open.
    ChannelOpen(Channel),
    /// A message arrived.
    Data(Channel, Vec<u8>),
    /// The library could not go on; there is no association any more.
    Broken,
}

/// The SCTP association of one transport. Nothing is allocated before its first packet.
pub struct Sctp {
    role: Role,
    endpoint: Option<Endpoint>,
    association: Option<(AssociationHandle, Association)>,
    connected: bool,
    channels: HashMap<u16, Option<Channel>>,
    outgoing: [Option<u16>; 2],
    readable: VecDeque<u16>,
    events: VecDeque<SctpEvent>,
    packets: VecDeque<Bytes>,
    broken: bool,
    progress: chunks::Progress,
}

fn label(channel: Channel) -> &'static str {
    match channel {
        Channel::Reliable => "_reliable",
        Channel::Lossy => "_lossy",
    }
}

fn slot(channel: Channel) -> usize {
    match channel {
        Channel::Reliable => 0,
        Channel::Lossy => 1,
    }
}

/// SCTP over DTLS knows no addresses; the library wants one.
fn peer() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 5000))
}

fn transport_config() -> TransportConfig {
    TransportConfig::default()
        .with_max_message_size(DATA_MESSAGE_BYTES_MAX as u32)
        .with_max_receive_buffer_size(256 * 1024)
        .with_max_num_inbound_streams(1024)
        .with_max_num_outbound_streams(1024)
}

impl Sctp {
    /// An association that does not exist yet.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            endpoint: None,
            association: None,
            connected: false,
            channels: HashMap::new(),
            outgoing: [None; 2],
            readable: VecDeque::new(),
            events: VecDeque::new(),
            packets: VecDeque::new(),
            broken: false,
            progress: chunks::Progress::default(),
        }
    }

    /// Does the association stand?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    fn endpoint(&mut self) -> &mut Endpoint {
        let role = self.role;
        self.endpoint.get_or_insert_with(|| {
            let server =
                (role == Role::Server).then(|| Arc::new(ServerConfig::new(transport_config())));
            Endpoint::new(
                peer(),
                TransportProtocol::UDP,
                Arc::new(EndpointConfig::new()),
                server,
            )
        })
    }

    /// The client's INIT.
    pub fn connect(&mut self, now: Instant) {
        if self.association.is_none()
            && let Ok(association) =
                self.endpoint()
                    .connect(now, ClientConfig::new(transport_config()), peer())
        {
            self.association = Some(association);
        }
    }

    /// One packet from DTLS. What is malformed is dropped.
    pub fn handle(&mut self, now: Instant, packet: Vec<u8>) {
        if self.broken
            || !chunks::are_well_formed(&packet)
            || !self.progress.admits(&packet, !self.connected)
        {
            return;
        }
        self.guarded(|sctp| sctp.take(now, packet));
    }

    /// A panic of the library ends this association and nothing else: its input comes from strangers.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(&mut *self))).is_err() {
            self.association = None;
            self.endpoint = None;
            self.connected = false;
            self.broken = true;
            self.outgoing = [None; 2];
            self.packets.clear();
            self.events.push_back(SctpEvent::Broken);
        }
    }

    fn take(&mut self, now: Instant, packet: Vec<u8>) {
        match self
            .endpoint()
            .handle(now, peer(), None, Bytes::from(packet))
        {
            // A repeated INIT means that our answer was lost, and the library answers only from a fresh association. Under a
            // running association it replaces nothing.
            Some((handle, DatagramEvent::NewAssociation(association))) if !self.connected => {
                self.association = Some((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((known, association)) = &mut self.association
                    && *known == handle
                {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
    }

    /// Timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.guarded(|sctp| {
            if let Some((_, association)) = &mut sctp.association {
                association.handle_timeout(now);
            }
        });
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.association
            .as_ref()
            .and_then(|(_, association)| association.poll_timeout())
    }

    /// Next packet for DTLS.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if self.packets.is_empty() && self.association.is_some() {
            self.guarded(|sctp| {
                if let Some((_, association)) = &mut sctp.association
                    && let Some(message) = association.poll_transmit(now)
                    && let Payload::RawEncode(packets) = message.message
                {
                    sctp.packets.extend(packets);
                }
            });
        }
        self.packets.pop_front()
    }

    /// Next event.
    pub fn poll_event(&mut self, now: Instant) -> Option<SctpEvent> {
        if self.events.is_empty() && self.association.is_some() {
            self.guarded(|sctp| sctp.read(now));
        }
        self.events.pop_front()
    }

    fn read(&mut self, now: Instant) {
        let Some((_, association)) = &mut self.association else {
            return;
        };
        while let Some(event) = association.poll() {
            match event {
                Event::Connected => {
                    self.connected = true;
                    self.events.push_back(SctpEvent::Connected);
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => {
                    self.connected = false;
                    self.outgoing = [None; 2];
                }
                Event::Stream(StreamEvent::Opened { id } | StreamEvent::Readable { id }) => {
                    while association.accept_stream().is_some() {}
                    if !self.readable.contains(&id) {
                        self.readable.push_back(id);
                    }
                }
                _ => {}
            }
        }
        if !self.connected {
            return;
        }
        while let Some(id) = self.readable.pop_front() {
            self.read_stream(now, id);
        }
    }

    fn read_stream(&mut self, now: Instant, id: u16) {
        loop {
            let Some((_, association)) = &mut self.association else {
                return;
            };
            let Ok(mut stream) = association.stream(id) else {
                return;
            };
            let Ok(Some(chunks)) = stream.read_sctp() else {
                return;
            };
            let Ok(payload) = chunks.to_payload(DATA_MESSAGE_BYTES_MAX) else {
                continue;
            };
            if chunks.ppi == PayloadProtocolIdentifier::Dcep {
                self.handle_dcep(now, id, &payload);
            } else if let Some(Some(channel)) = self.channels.get(&id) {
                self.events
                    .push_back(SctpEvent::Data(*channel, payload.to_vec()));
            }
        }
    }

    fn handle_dcep(&mut self, now: Instant, id: u16, payload: &[u8]) {
        let mut input = payload;
        let Ok(Message::DataChannelOpen(open)) = Message::unmarshal(&mut input) else {
            return;
        };
        if self.channels.len() >= CHANNELS_MAX {
            return;
        }
        let channel = match open.label.as_slice() {
            b"_reliable" => Some(Channel::Reliable),
            b"_lossy" => Some(Channel::Lossy),
            // Taken and never answered on: clients may open labels of later protocol versions.
            _ => None,
        };
        self.channels.insert(id, channel);
        let Some((_, association)) = &mut self.association else {
            return;
        };
        if let Ok(mut stream) = association.stream(id) {
            let (unordered, reliability) = reliability(open.channel_type);
            let _ =
                stream.set_reliability_params(unordered, reliability, open.reliability_parameter);
            if let Ok(ack) = Message::DataChannelAck(DataChannelAck {}).marshal() {
                let _ = stream.write_with_ppi(now, &ack, PayloadProtocolIdentifier::Dcep);
            }
        }
        if let Some(channel) = channel {
            self.outgoing[slot(channel)].get_or_insert(id);
            self.events.push_back(SctpEvent::ChannelOpen(channel));
        }
    }

    /// Opens both channels from this side; messages may follow at once (RFC 8832 §6).
    pub fn open_channels(&mut self, now: Instant) {
        let first = match self.role {
            Role::Server => 1,
            Role::Client => 0,
        };
        for (index, channel) in [Channel::Reliable, Channel::Lossy].into_iter().enumerate() {
            if self.outgoing[slot(channel)].is_some() {
                continue;
            }
            let id = first + 2 * index as u16;
            let Some((_, association)) = &mut self.association else {
                return;
            };
            let Ok(mut stream) = association.open_stream(id, PayloadProtocolIdentifier::Binary)
            else {
                continue;
            };
            let channel_type = match channel {
                Channel::Reliable => ChannelType::Reliable,
                Channel::Lossy => ChannelType::PartialReliableRexmitUnordered,
            };
            let open = Message::DataChannelOpen(DataChannelOpen {
                channel_type,
                priority: 0,
                reliability_parameter: 0,
                label: label(channel).as_bytes().to_vec(),
                protocol: Vec::new(),
            });
            let Ok(open) = open.marshal() else { continue };
            if stream
                .write_with_ppi(now, &open, PayloadProtocolIdentifier::Dcep)
                .is_err()
            {
                continue;
            }
            let (unordered, kind) = reliability(channel_type);
            let _ = stream.set_reliability_params(unordered, kind, 0);
            self.channels.insert(id, Some(channel));
            self.outgoing[slot(channel)] = Some(id);
            self.events.push_back(SctpEvent::ChannelOpen(channel));
        }
    }

    /// Queues one message.
    ///
    /// # Errors
    /// [`SendDataError`].
    pub fn send(
        &mut self,
        now: Instant,
        channel: Channel,
        payload: &[u8],
    ) -> Result<(), SendDataError> {
        if payload.len() > DATA_MESSAGE_BYTES_MAX {
            return Err(SendDataError::TooLong);
        }
        let id = self.outgoing[slot(channel)].ok_or(SendDataError::NotOpen)?;
        let (_, association) = self.association.as_mut().ok_or(SendDataError::NotOpen)?;
        let mut stream = association.stream(id).map_err(|_| SendDataError::NotOpen)?;
        let bound = match channel {
            Channel::Reliable => RELIABLE_BUFFER_BYTES_MAX,
            Channel::Lossy => LOSSY_BUFFER_BYTES_MAX,
        };
        if stream.buffered_amount().unwrap_or(usize::MAX) + payload.len() > bound {
            return Err(SendDataError::Full);
        }
        let (payload, ppi) = if payload.is_empty() {
            // An empty message cannot be said in SCTP (RFC 8831 §6.6).
            (&[0][..], PayloadProtocolIdentifier::BinaryEmpty)
        } else {
            (payload, PayloadProtocolIdentifier::Binary)
        };
        stream
            .write_with_ppi(now, payload, ppi)
            .map_err(|_| SendDataError::NotOpen)?;
        Ok(())
    }
}

fn reliability(kind: ChannelType) -> (bool, ReliabilityType) {
    match kind {
        ChannelType::ReliableUnordered => (true, ReliabilityType::Reliable),
        ChannelType::PartialReliableRexmit => (false, ReliabilityType::Rexmit),
        ChannelType::PartialReliableRexmitUnordered => (true, ReliabilityType::Rexmit),
        ChannelType::PartialReliableTimed => (false, ReliabilityType::Timed),
        ChannelType::PartialReliableTimedUnordered => (true, ReliabilityType::Timed),
        _ => (false, ReliabilityType::Reliable),
    }
}
