// SPDX-License-Identifier: EUPL-1.2
//! A headless LiveKit client without sockets and clock: signalling messages and datagrams in, the same out.
//!
//! It speaks the dual peer connection of `/rtc`. It is as obedient as a test lets it be: what it sends beyond its grants is up to
//! the caller ([`Headless::publisher`] gives the bare leg).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use livekit_protocol as proto;
use livekit_protocol::{signal_request as request, signal_response as response};
use media_core::api::{Channel, IceCredentials, Side};
use media_core::crypto::Crypto;
use media_core::ids::{PayloadType, Ssrc};
use media_core::io::{Path, Protocol};
use media_core::time::Timestamp;
use media_crypto::{AwsLc, Certificate};

mod types;

pub use types::{Event, Options, Published, Source, TrackCounters};

use crate::leg::{Leg, LegEvent};
use crate::sdp::{self, Local, OfferedTrack, Remote};

/// Events kept for the caller; counters go on when they overflow.
const EVENTS_MAX: usize = 65_536;

/// The client.
pub struct Headless {
    crypto: AwsLc,
    options: Options,
    publisher: Option<Leg>,
    subscriber: Option<Leg>,
    publisher_ice: IceCredentials,
    subscriber_ice: IceCredentials,
    /// The other side's half of each connection, by which its ICE restarts are told.
    remote_ice: [Option<IceCredentials>; 2],
    /// Own offer and own answer as sent last, for a resume.
    described: [Option<proto::SessionDescription>; 2],
    session: u64,
    version: u32,
    join: Option<Box<proto::JoinResponse>>,
    tracks: Vec<Published>,
    /// The answer to our last offer is still to come.
    negotiating: bool,
    offer_again: bool,
    /// Received streams: SSRC to track SID.
    streams: HashMap<Ssrc, String>,
    rtx_streams: HashMap<Ssrc, ()>,
    received: HashMap<String, TrackCounters>,
    /// Descriptions that wait for a candidate.
    waiting: [Option<(IceCredentials, media_core::api::Fingerprint)>; 2],
    requests: VecDeque<proto::SignalRequest>,
    events: VecDeque<Event>,
    next_ssrc: u32,
    left: bool,
}

impl Headless {
    /// A client that has not joined yet.
    #[must_use]
    pub fn new(mut crypto: AwsLc, options: Options) -> Self {
        let credentials = |crypto: &mut AwsLc| IceCredentials {
            ufrag: random_text(crypto, 8),
            password: random_text(crypto, 24),
        };
        let publisher_ice = credentials(&mut crypto);
        let subscriber_ice = credentials(&mut crypto);
        let mut number = [0; 8];
        crypto.random(&mut number);
        Self {
            options,
            publisher: None,
            subscriber: None,
            publisher_ice,
            subscriber_ice,
            remote_ice: [None, None],
            described: [None, None],
            session: u64::from_be_bytes(number) >> 2,
            version: 0,
            join: None,
            tracks: Vec::new(),
            negotiating: false,
            offer_again: false,
            streams: HashMap::new(),
            rtx_streams: HashMap::new(),
            received: HashMap::new(),
            waiting: [None, None],
            requests: VecDeque::new(),
            events: VecDeque::new(),
            next_ssrc: u32::from_be_bytes([number[0] & 0x7f, number[1], number[2], number[3]]) | 1,
            left: false,
            crypto,
        }
    }

    /// A client with a certificate of its own.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn with_certificate(options: Options) -> Result<Self, media_crypto::DtlsError> {
        Ok(Self::new(
            AwsLc::new(Arc::new(Certificate::generate()?), false),
            options,
        ))
    }

    /// What the node said at the join.
    #[must_use]
    pub fn join(&self) -> Option<&proto::JoinResponse> {
        self.join.as_deref()
    }

    /// Own participant SID.
    #[must_use]
    pub fn sid(&self) -> Option<&str> {
        self.join
            .as_ref()?
            .participant
            .as_ref()
            .map(|participant| participant.sid.as_str())
    }

    /// Own tracks.
    #[must_use]
    pub fn tracks(&self) -> &[Published] {
        &self.tracks
    }

    /// Counters per received track.
    #[must_use]
    pub fn received(&self) -> &HashMap<String, TrackCounters> {
        &self.received
    }

    /// The bare publisher's connection.
    pub fn publisher(&mut self) -> Option<&mut Leg> {
        self.publisher.as_mut()
    }

    /// The bare subscriber's connection.
    pub fn subscriber(&mut self) -> Option<&mut Leg> {
        self.subscriber.as_mut()
    }

    /// Did the node or we end the session?
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.left
    }

    /// Publishes a track; its `cid`. Media flows once [`Event::Published`] came and the connection stands.
    pub fn publish(&mut self, source: Source) -> String {
        let cid = format!("track-{}-{}", self.session, self.tracks.len());
        let layers = if source == Source::CameraSimulcast {
            3
        } else {
            1
        };
        let ssrcs = (0..layers)
            .map(|_| {
                self.next_ssrc = self.next_ssrc.wrapping_add(2);
                (self.next_ssrc, self.next_ssrc.wrapping_add(1))
            })
            .collect();
        let offered = OfferedTrack {
            mid: (self.tracks.len() + 1).to_string(),
            cid: cid.clone(),
            video: source.is_video(),
            ssrcs,
            rids: source.rids(),
        };
        let (width, height) = if source.is_video() {
            (1280, 720)
        } else {
            (0, 0)
        };
        let video_layers = [
            proto::VideoQuality::Low,
            proto::VideoQuality::Medium,
            proto::VideoQuality::High,
        ];
        self.request(request::Message::AddTrack(proto::AddTrackRequest {
            cid: cid.clone(),
            name: format!("{source:?}").to_lowercase(),
            r#type: if source.is_video() {
                proto::TrackType::Video
            } else {
                proto::TrackType::Audio
            } as i32,
            source: source.track_source() as i32,
            width,
            height,
            disable_red: true,
            layers: if layers == 3 {
                video_layers
                    .iter()
                    .zip([4, 2, 1])
                    .map(|(quality, part)| proto::VideoLayer {
                        quality: *quality as i32,
                        width: width / part,
                        height: height / part,
                        ..Default::default()
                    })
                    .collect()
            } else {
                Vec::new()
            },
            ..Default::default()
        }));
        self.tracks.push(Published {
            source,
            offered,
            sid: None,
            wants_key: vec![true; layers],
            picture: 0,
        });
        self.offer();
        cid
    }

    /// Offers the publisher's connection anew; once more after the answer when one is still to come.
    pub fn offer(&mut self) {
        if self.negotiating {
            self.offer_again = true;
            return;
        }
        self.version += 1;
        self.negotiating = true;
        let offered: Vec<OfferedTrack> = self
            .tracks
            .iter()
            .map(|track| track.offered.clone())
            .collect();
        let sdp = sdp::offer(&self.local(Side::Publisher), &offered);
        let offer = proto::SessionDescription {
            r#type: "offer".into(),
            sdp,
            id: self.version,
            ..Default::default()
        };
        self.described[half(Side::Publisher)] = Some(offer.clone());
        self.request(request::Message::Offer(offer));
    }

    /// After an accepted resume: says what this client believes, and restarts ICE on the publisher's connection. The node does
    /// the same for the subscriber's.
    pub fn resume(&mut self) {
        let publish_tracks = self
            .tracks
            .iter()
            .filter_map(|track| {
                let info = proto::TrackInfo {
                    sid: track.sid.clone()?,
                    ..Default::default()
                };
                Some(proto::TrackPublishedResponse {
                    cid: track.offered.cid.clone(),
                    track: Some(info),
                })
            })
            .collect();
        let [offer, answer] = self.described.clone();
        self.request(request::Message::SyncState(proto::SyncState {
            answer,
            offer,
            subscription: Some(proto::UpdateSubscription::default()),
            publish_tracks,
            ..Default::default()
        }));
        if self.described[half(Side::Publisher)].is_some() {
            self.publisher_ice = self.fresh_credentials();
            // An answer that was on its way is lost with the old signalling.
            self.negotiating = false;
            self.offer_again = false;
            self.offer();
        }
    }

    fn fresh_credentials(&mut self) -> IceCredentials {
        IceCredentials {
            ufrag: random_text(&mut self.crypto, 8),
            password: random_text(&mut self.crypto, 24),
        }
    }

    fn local(&self, side: Side) -> Local {
        Local {
            ice: match side {
                Side::Publisher => self.publisher_ice.clone(),
                Side::Subscriber => self.subscriber_ice.clone(),
            },
            fingerprint: self.crypto.local_fingerprint(),
            session: self.session,
            version: self.version,
        }
    }

    /// Queues any signalling request.
    pub fn request(&mut self, message: request::Message) {
        self.requests.push_back(proto::SignalRequest {
            message: Some(message),
        });
    }

    /// One signalling message of the node.
    pub fn handle_signal(&mut self, now: Timestamp, message: proto::SignalResponse) {
        let Some(message) = message.message else {
            return;
        };
        match message {
            response::Message::Join(join) => {
                let join = Box::new(join);
                self.join = Some(join.clone());
                self.event(Event::Joined(join));
            }
            response::Message::Reconnect(reconnect) => {
                self.event(Event::Reconnected(Box::new(reconnect)))
            }
            response::Message::Answer(answer) => {
                self.negotiating = false;
                let remote = Remote::parse(&answer.sdp);
                self.connect(now, Side::Publisher, &remote);
                if std::mem::take(&mut self.offer_again) {
                    self.offer();
                }
            }
            response::Message::Offer(offer) => {
                let remote = Remote::parse(&offer.sdp);
                for section in &remote.sections {
                    let Some((_, track)) = &section.msid else {
                        continue;
                    };
                    for ssrc in &section.ssrcs {
                        if section.rtx_ssrcs.contains(ssrc) {
                            self.rtx_streams.insert(Ssrc(*ssrc), ());
                        } else {
                            self.streams.insert(Ssrc(*ssrc), track.clone());
                        }
                    }
                }
                if self.restarted(Side::Subscriber, &remote) {
                    self.subscriber_ice = self.fresh_credentials();
                }
                let sdp = sdp::answer(&self.local(Side::Subscriber), &remote);
                let answer = proto::SessionDescription {
                    r#type: "answer".into(),
                    sdp,
                    id: offer.id,
                    ..Default::default()
                };
                self.described[half(Side::Subscriber)] = Some(answer.clone());
                self.request(request::Message::Answer(answer));
                self.connect(now, Side::Subscriber, &remote);
            }
            response::Message::Trickle(trickle) => {
                let side = if trickle.target == proto::SignalTarget::Publisher as i32 {
                    Side::Publisher
                } else {
                    Side::Subscriber
                };
                let candidate = serde_json::from_str::<serde_json::Value>(&trickle.candidate_init)
                    .ok()
                    .and_then(|init| sdp::read_candidate(init.get("candidate")?.as_str()?));
                if let Some((protocol, address)) = candidate {
                    self.take_candidate(now, side, protocol, address);
                }
            }
            response::Message::TrackPublished(published) => {
                let sid = published.track.map(|track| track.sid).unwrap_or_default();
                if let Some(track) = self
                    .tracks
                    .iter_mut()
                    .find(|track| track.offered.cid == published.cid)
                {
                    track.sid = Some(sid.clone());
                }
                self.event(Event::Published {
                    cid: published.cid,
                    sid,
                });
            }
            response::Message::Leave(leave) => {
                self.left = true;
                self.event(Event::Left(leave));
            }
            other => self.event(Event::Signal(Box::new(other))),
        }
    }

    /// Does a description begin an ICE restart of a connection that is known?
    fn restarted(&self, side: Side, remote: &Remote) -> bool {
        self.remote_ice[half(side)]
            .as_ref()
            .zip(remote.ice.as_ref())
            .is_some_and(|(known, told)| known != told)
    }

    fn own_address(&self, side: Side) -> SocketAddr {
        match side {
            Side::Publisher => self.options.publisher_address,
            Side::Subscriber => self.options.subscriber_address,
        }
    }

    fn connect(&mut self, now: Timestamp, side: Side, remote: &Remote) {
        let Ok(credentials) = remote.credentials() else {
            return;
        };
        let restarted = self.restarted(side, remote);
        self.remote_ice[half(side)] = Some(credentials.0.clone());
        let local = self.local(side).ice;
        let leg = match side {
            Side::Publisher => self.publisher.as_mut(),
            Side::Subscriber => self.subscriber.as_mut(),
        };
        if let Some(leg) = leg {
            if restarted {
                leg.renew(local, credentials.0, now);
            }
            return;
        }
        self.waiting[half(side)] = Some(credentials);
        for (protocol, address) in &remote.candidates {
            self.take_candidate(now, side, *protocol, *address);
        }
    }

    fn take_candidate(
        &mut self,
        now: Timestamp,
        side: Side,
        protocol: Protocol,
        address: SocketAddr,
    ) {
        let own = self.own_address(side);
        if protocol != self.options.protocol || address.is_ipv4() != own.is_ipv4() {
            return;
        }
        let Some((remote, fingerprint)) = self.waiting[half(side)].take() else {
            return;
        };
        let local = self.local(side).ice;
        let publishes = side == Side::Publisher;
        let leg = Leg::new(
            &self.crypto,
            local,
            remote,
            fingerprint,
            protocol,
            own,
            address,
            publishes,
            now,
        );
        match side {
            Side::Publisher => {
                let leg = self.publisher.insert(leg);
                for track in &self.tracks {
                    register_rtx(leg, track);
                }
            }
            Side::Subscriber => self.subscriber = Some(leg),
        }
    }

    /// Sends one frame of a track: one packet of audio, or one picture of `payload` bytes in packets of at most 1,150 bytes per
    /// layer. `stamp` is the RTP timestamp. Number of packets queued.
    pub fn send_frame(&mut self, cid: &str, layer: usize, stamp: u32, payload: &[u8]) -> usize {
        let Some(leg) = &mut self.publisher else {
            return 0;
        };
        let Some(track) = self
            .tracks
            .iter_mut()
            .find(|track| track.offered.cid == cid)
        else {
            return 0;
        };
        let Some(&(ssrc, rtx)) = track.offered.ssrcs.get(layer) else {
            return 0;
        };
        if !leg.is_connected() {
            return 0;
        }
        let mid = track.offered.mid.clone();
        if !track.source.is_video() {
            let level = [0x80 | 20];
            let extensions: [(u8, &[u8]); 2] = [
                (sdp::extension::MID, mid.as_bytes()),
                (sdp::extension::AUDIO_LEVEL, &level),
            ];
            return usize::from(leg.send_rtp(
                Ssrc(ssrc),
                PayloadType(sdp::OPUS),
                stamp,
                false,
                &extensions,
                payload,
            ));
        }
        leg.set_rtx(Ssrc(ssrc), Ssrc(rtx), PayloadType(sdp::VP8_RTX));
        let key = std::mem::replace(&mut track.wants_key[layer], false);
        if layer == 0 {
            track.picture = track.picture.wrapping_add(1) & 0x7fff;
        }
        let rid = track.offered.rids.get(layer).copied().unwrap_or_default();
        let chunks = payload.chunks(1_150).count().max(1);
        let mut sent = 0;
        for (number, chunk) in payload.chunks(1_150).enumerate() {
            // VP8 descriptor with a 15-bit picture id (RFC 7741 §4.2); the first byte of the frame tells key frames by bit 0.
            let first = number == 0;
            let mut body = Vec::with_capacity(chunk.len() + 14);
            body.extend_from_slice(&[
                0x80 | if first { 0x10 } else { 0 },
                0x80,
                0x80 | (track.picture >> 8) as u8,
                track.picture as u8,
            ]);
            if first {
                body.push(if key { 0x10 } else { 0x11 });
                if key {
                    body.extend_from_slice(&[0, 0, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
                }
            }
            body.extend_from_slice(chunk);
            let mut extensions: Vec<(u8, &[u8])> = vec![(sdp::extension::MID, mid.as_bytes())];
            if !rid.is_empty() {
                extensions.push((sdp::extension::RID, rid.as_bytes()));
            }
            sent += usize::from(leg.send_rtp(
                Ssrc(ssrc),
                PayloadType(sdp::VP8),
                stamp,
                number + 1 == chunks,
                &extensions,
                &body,
            ));
        }
        sent
    }

    /// Sends one user message to everybody.
    ///
    /// # Errors
    /// As the channel says, or `NotOpen` before there is one.
    pub fn send_data(
        &mut self,
        now: Timestamp,
        channel: Channel,
        payload: &[u8],
    ) -> Result<(), media_core::transport::SendDataError> {
        let (publisher, crypto) = (&mut self.publisher, &mut self.crypto);
        match publisher {
            Some(leg) => leg.send_data(now, crypto, channel, payload),
            None => Err(media_core::transport::SendDataError::NotOpen),
        }
    }

    /// One datagram that arrived at the address of `side`.
    pub fn handle_datagram(&mut self, now: Timestamp, side: Side, datagram: &mut [u8]) {
        let leg = match side {
            Side::Publisher => self.publisher.as_mut(),
            Side::Subscriber => self.subscriber.as_mut(),
        };
        let Some(leg) = leg else { return };
        let mut happened = Vec::new();
        leg.handle_datagram(now, &mut self.crypto, datagram, |event| {
            happened.push(event)
        });
        self.take(side, happened);
    }

    /// Timers.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for side in [Side::Publisher, Side::Subscriber] {
            let leg = match side {
                Side::Publisher => self.publisher.as_mut(),
                Side::Subscriber => self.subscriber.as_mut(),
            };
            let Some(leg) = leg else { continue };
            let mut happened = Vec::new();
            leg.handle_timeout(now, &mut self.crypto, |event| happened.push(event));
            self.take(side, happened);
        }
    }

    fn take(&mut self, side: Side, happened: Vec<LegEvent>) {
        for event in happened {
            match event {
                LegEvent::Connected(profile) => self.event(Event::Connected(side, profile)),
                LegEvent::ChannelOpen(channel) => self.event(Event::ChannelOpen(side, channel)),
                LegEvent::Data(channel, data) => self.event(Event::Data(channel, data)),
                LegEvent::Failed(failure) => self.event(Event::Failed(side, failure)),
                LegEvent::KeyFrameWanted(ssrc) => {
                    for track in &mut self.tracks {
                        for (layer, (own, _)) in track.offered.ssrcs.iter().enumerate() {
                            if Ssrc(*own) == ssrc {
                                track.wants_key[layer] = true;
                            }
                        }
                    }
                    self.event(Event::KeyFrameWanted(ssrc));
                }
                LegEvent::Media(packet) => {
                    if self.rtx_streams.contains_key(&packet.ssrc) {
                        continue;
                    }
                    // A stream the description does not name counts under its SSRC: a test sees that nobody announced it.
                    let track = self
                        .streams
                        .get(&packet.ssrc)
                        .cloned()
                        .unwrap_or_else(|| format!("ssrc:{}", packet.ssrc));
                    let counters = self.received.entry(track.clone()).or_default();
                    counters.packets += 1;
                    counters.bytes += packet.payload.len() as u64;
                    if self.options.keep_media {
                        self.event(Event::Media { track, packet });
                    }
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Next signalling request.
    pub fn poll_request(&mut self) -> Option<proto::SignalRequest> {
        self.requests.pop_front()
    }

    /// Next datagram, and from which connection's address it goes.
    pub fn poll_transmit(&mut self) -> Option<(Side, Path, Vec<u8>)> {
        if let Some((path, datagram)) = self.publisher.as_mut().and_then(Leg::poll_transmit) {
            return Some((Side::Publisher, path, datagram));
        }
        let (path, datagram) = self.subscriber.as_mut().and_then(Leg::poll_transmit)?;
        Some((Side::Subscriber, path, datagram))
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Timestamp> {
        [&self.publisher, &self.subscriber]
            .into_iter()
            .flatten()
            .map(|leg| leg.poll_deadline(&self.crypto))
            .min()
    }

    /// Leaves in good order.
    pub fn leave(&mut self, now: Timestamp) {
        self.left = true;
        self.request(request::Message::Leave(proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated as i32,
            ..Default::default()
        }));
        for leg in [&mut self.publisher, &mut self.subscriber]
            .into_iter()
            .flatten()
        {
            leg.close(now);
        }
    }
}

/// Place of a connection in pairs.
fn half(side: Side) -> usize {
    usize::from(side == Side::Subscriber)
}

fn register_rtx(leg: &mut Leg, track: &Published) {
    if track.source.is_video() {
        for (ssrc, rtx) in &track.offered.ssrcs {
            leg.set_rtx(Ssrc(*ssrc), Ssrc(*rtx), PayloadType(sdp::VP8_RTX));
        }
    }
}

/// Random letters and digits.
fn random_text(crypto: &mut AwsLc, length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = vec![0; length];
    crypto.random(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}
