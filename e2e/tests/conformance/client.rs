// SPDX-License-Identifier: EUPL-1.2
//! A headless LiveKit client on the `webrtc` crate, as obedient as a test lets it be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use e2e::system::{GATEWAY, MACHINE};
use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use livekit_protocol::{signal_request as request, signal_response as response};
use prost::Message as _;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8};
use rtc::peer_connection::transport::RTCIceCandidateInit;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use tokio_tungstenite::tungstenite::{self, Message};
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
    RTCConfigurationBuilder, RTCPeerConnectionState, RTCSessionDescription, Registry,
    register_default_interceptors,
};

/// First bytes of every payload of ours, after one byte that says "Opus".
const MARK: &[u8; 4] = b"PLEN";

/// What a client has seen so far.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) joined: Option<proto::JoinResponse>,
    pub(crate) left: Option<proto::LeaveRequest>,
    pub(crate) published: BTreeMap<String, proto::TrackInfo>,
    pub(crate) participants: BTreeMap<String, proto::ParticipantInfo>,
    /// Numbers received, by (track sid, who sent) with how often each came.
    pub(crate) media: BTreeMap<(String, u8), BTreeMap<u32, u32>>,
    /// RTP packets of any content, by track sid.
    pub(crate) packets: BTreeMap<String, u64>,
    pub(crate) data: Vec<proto::DataPacket>,
    pub(crate) refresh_tokens: Vec<String>,
    pub(crate) answers: Vec<proto::SessionDescription>,
    /// Addresses at which the server says it is reached.
    pub(crate) candidates: Vec<String>,
    pub(crate) socket_closed: bool,
    pub(crate) publisher: Option<RTCPeerConnectionState>,
    pub(crate) subscriber: Option<RTCPeerConnectionState>,
}

type Shared = Arc<Mutex<Seen>>;

fn lock(seen: &Shared) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A track that is published or pretends to be.
pub(crate) struct Sending {
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
    kind: RtpCodecKind,
    pub(crate) cid: String,
    who: u8,
    next: u32,
}

/// How a track is announced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announce {
    /// By `AddTrack` and in the offer, as it should be.
    Properly,
    /// In the offer alone.
    NotAtAll,
    /// In the offer with another SSRC than the one that is sent.
    WithAnotherSsrc,
    /// The offer first, `AddTrack` afterwards.
    Late,
}

/// The headless client.
pub(crate) struct Client {
    seen: Shared,
    out: tokio::sync::mpsc::UnboundedSender<Message>,
    publisher: Arc<dyn PeerConnection>,
    subscriber: Arc<dyn PeerConnection>,
    reliable: Arc<dyn DataChannel>,
    lossy: Arc<dyn DataChannel>,
    incoming: tokio::sync::mpsc::UnboundedReceiver<response::Message>,
    early: Vec<(i32, RTCIceCandidateInit)>,
    offers: u32,
    munge: Vec<(u32, u32)>,
    ready: (bool, bool),
}

struct Handler {
    seen: Shared,
    publisher: bool,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let mut seen = lock(&self.seen);
        if self.publisher {
            seen.publisher = Some(state);
        } else {
            seen.subscriber = Some(state);
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        let seen = self.seen.clone();
        tokio::spawn(async move {
            while let Some(event) = channel.poll().await {
                if let DataChannelEvent::OnMessage(message) = event
                    && let Ok(packet) = proto::DataPacket::decode(message.data.freeze())
                {
                    lock(&seen).data.push(packet);
                }
            }
        });
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let seen = self.seen.clone();
        tokio::spawn(async move {
            let sid = track.track_id().await;
            let video = track.kind().await == RtpCodecKind::Video;
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let mut seen = lock(&seen);
                    *seen.packets.entry(sid.to_string()).or_default() += 1;
                    if let Some((who, number)) = read(&packet.payload, video) {
                        let numbers = seen.media.entry((sid.to_string(), who)).or_default();
                        *numbers.entry(number).or_default() += 1;
                    }
                }
            }
        });
    }
}

fn read(payload: &Bytes, video: bool) -> Option<(u8, u32)> {
    let at = if video { 20 } else { 1 };
    let ours = payload.get(at..at + 9)?;
    let (mark, rest) = ours.split_at(4);
    let (who, number) = rest.split_first()?;
    (mark == MARK).then(|| {
        (
            *who,
            u32::from_be_bytes(number.try_into().unwrap_or_default()),
        )
    })
}

fn write(who: u8, number: u32, video: bool) -> Bytes {
    let mut payload = BytesMut::zeroed(if video { 900 } else { 80 });
    let at = if video {
        // Descriptor with S and a 15-bit picture id, then a whole key frame of 320×180.
        let head = [
            0x90,
            0x80,
            0x80 | ((number >> 8) as u8 & 0x7f),
            number as u8,
            0x10,
            0x02,
            0x00,
            0x9d,
            0x01,
            0x2a,
            0x40,
            0x01,
            0xb4,
            0x00,
        ];
        payload[..head.len()].copy_from_slice(&head);
        20
    } else {
        payload[0] = 0x78;
        1
    };
    payload[at..at + 4].copy_from_slice(MARK);
    payload[at + 4] = who;
    payload[at + 5..at + 9].copy_from_slice(&number.to_be_bytes());
    payload.freeze()
}

async fn connection(seen: &Shared, publisher: bool) -> Result<Arc<dyn PeerConnection>> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs()?;
    let registry = register_default_interceptors(Registry::new(), &mut engine)?;
    let connection = PeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_handler(Arc::new(Handler {
            seen: seen.clone(),
            publisher,
        }))
        .with_udp_addrs(vec![format!("{MACHINE}:0")])
        .build()
        .await?;
    Ok(Arc::new(connection))
}

/// Why a join was refused before the upgrade.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Client {
    /// Joins with a token; `Err(Refused)` inside where the gateway answered with a status instead of an upgrade.
    pub(crate) async fn join(token: &str) -> Result<std::result::Result<Self, Refused>> {
        Self::join_with(token, "").await
    }

    /// Joins with a token and further query parameters.
    pub(crate) async fn join_with(
        token: &str,
        query: &str,
    ) -> Result<std::result::Result<Self, Refused>> {
        let url = format!(
            "ws://{GATEWAY}/rtc?access_token={token}&auto_subscribe=1&protocol=15&sdk=rust&version=0.1{query}"
        );
        let socket = match tokio_tungstenite::connect_async(url).await {
            Ok((socket, _)) => socket,
            Err(tungstenite::Error::Http(answer)) => {
                let text = answer.body().as_deref().map(String::from_utf8_lossy);
                return Ok(Err(Refused {
                    status: answer.status().as_u16(),
                    text: text.unwrap_or_default().into_owned(),
                }));
            }
            Err(error) => return Err(error).context("the gateway answers"),
        };
        let (mut sink, mut frames) = socket.split();
        let (out, mut frames_out) = tokio::sync::mpsc::unbounded_channel::<Message>();
        tokio::spawn(async move {
            // Who is silent for 15 s is taken for gone.
            let mut pings = tokio::time::interval(Duration::from_secs(5));
            loop {
                let frame = tokio::select! {
                    frame = frames_out.recv() => match frame {
                        Some(frame) => frame,
                        None => break,
                    },
                    _ = pings.tick() => {
                        let ping = proto::SignalRequest { message: Some(request::Message::Ping(1)) };
                        Message::Binary(ping.encode_to_vec().into())
                    }
                };
                if sink.send(frame).await.is_err() {
                    break;
                }
            }
            let _ = sink.close().await;
        });
        let seen = Shared::default();
        let (sender, incoming) = tokio::sync::mpsc::unbounded_channel();
        let noted = seen.clone();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                let Message::Binary(bytes) = frame else {
                    continue;
                };
                let Ok(proto::SignalResponse {
                    message: Some(message),
                }) = proto::SignalResponse::decode(bytes)
                else {
                    continue;
                };
                note(&mut lock(&noted), &message);
                if sender.send(message).is_err() {
                    break;
                }
            }
            lock(&noted).socket_closed = true;
        });
        let publisher = connection(&seen, true).await?;
        let subscriber = connection(&seen, false).await?;
        let reliable = publisher
            .create_data_channel(
                "_reliable",
                Some(RTCDataChannelInit {
                    ordered: true,
                    ..Default::default()
                }),
            )
            .await?;
        let lossy = publisher
            .create_data_channel(
                "_lossy",
                Some(RTCDataChannelInit {
                    ordered: false,
                    max_retransmits: Some(0),
                    ..Default::default()
                }),
            )
            .await?;
        let mut client = Self {
            seen,
            out,
            publisher,
            subscriber,
            reliable,
            lossy,
            incoming,
            early: Vec::new(),
            offers: 0,
            munge: Vec::new(),
            ready: (false, false),
        };
        client
            .until("the join response", |seen| {
                seen.joined.is_some() || seen.left.is_some()
            })
            .await?;
        Ok(Ok(client))
    }

    /// Looks at what was seen so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Own participant sid.
    pub(crate) fn sid(&self) -> String {
        let seen = self.seen();
        let joined = seen.joined.as_ref();
        joined
            .and_then(|joined| joined.participant.as_ref())
            .map(|participant| participant.sid.clone())
            .unwrap_or_default()
    }

    /// Handles what has come in on the signalling, then returns.
    pub(crate) async fn turn(&mut self) -> Result<()> {
        while let Ok(message) = self.incoming.try_recv() {
            match message {
                response::Message::Offer(offer) => {
                    note_candidates(&mut self.seen(), &offer.sdp);
                    self.subscriber
                        .set_remote_description(RTCSessionDescription::offer(offer.sdp)?)
                        .await?;
                    self.ready.1 = true;
                    let answer = self.subscriber.create_answer(None).await?;
                    self.subscriber
                        .set_local_description(answer.clone())
                        .await?;
                    self.say(request::Message::Answer(proto::SessionDescription {
                        r#type: "answer".into(),
                        sdp: answer.sdp,
                        id: offer.id,
                        ..Default::default()
                    }))
                    .await?;
                }
                response::Message::Answer(answer) if answer.id == self.offers => {
                    self.publisher
                        .set_remote_description(RTCSessionDescription::answer(answer.sdp)?)
                        .await?;
                    self.ready.0 = true;
                }
                response::Message::Trickle(trickle) => {
                    if let Ok(candidate) = serde_json::from_str(&trickle.candidate_init) {
                        self.early.push((trickle.target, candidate));
                    }
                }
                _ => {}
            }
        }
        for (target, candidate) in std::mem::take(&mut self.early) {
            let publisher = target == proto::SignalTarget::Publisher as i32;
            let (connection, ready) = if publisher {
                (&self.publisher, self.ready.0)
            } else {
                (&self.subscriber, self.ready.1)
            };
            if ready {
                connection.add_ice_candidate(candidate).await?;
            } else {
                self.early.push((target, candidate));
            }
        }
        Ok(())
    }

    /// Waits for something to have been seen, handling signalling meanwhile.
    pub(crate) async fn until(&mut self, what: &str, ask: impl Fn(&Seen) -> bool) -> Result<()> {
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            self.turn().await?;
            if ask(&self.seen()) {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                let seen = self.seen();
                bail!(
                    "{what}: not within 30 s; publisher {:?}, subscriber {:?}, left {:?}, socket closed {}",
                    seen.publisher,
                    seen.subscriber,
                    seen.left,
                    seen.socket_closed
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Handles signalling for a while, in which something must not happen.
    pub(crate) async fn linger(&mut self, time: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            self.turn().await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Sends one signalling message.
    pub(crate) async fn say(&mut self, message: request::Message) -> Result<()> {
        let bytes = proto::SignalRequest {
            message: Some(message),
        }
        .encode_to_vec();
        self.frame(bytes).await
    }

    /// Sends one binary frame, whatever it holds.
    pub(crate) async fn frame(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.out
            .send(Message::Binary(bytes.into()))
            .context("the socket is open")
    }

    /// Sends an offer for all tracks so far and waits for its answer.
    pub(crate) async fn negotiate(&mut self) -> Result<()> {
        let id = self.offer().await?;
        self.until("the answer", |seen| {
            seen.answers.iter().any(|answer| answer.id == id)
        })
        .await
    }

    async fn offer(&mut self) -> Result<u32> {
        let offer = self.publisher.create_offer(None).await?;
        self.publisher.set_local_description(offer.clone()).await?;
        self.offers += 1;
        let mut sdp = offer.sdp;
        for (real, pretended) in &self.munge {
            sdp = sdp.replace(&format!("{real}"), &format!("{pretended}"));
        }
        self.say(request::Message::Offer(proto::SessionDescription {
            r#type: "offer".into(),
            sdp,
            id: self.offers,
            ..Default::default()
        }))
        .await?;
        Ok(self.offers)
    }

    /// Adds a track and announces it as told; `who` stands in each of its payloads.
    pub(crate) async fn publish(
        &mut self,
        source: proto::TrackSource,
        who: u8,
        announce: Announce,
    ) -> Result<Sending> {
        let video = source != proto::TrackSource::Microphone;
        let (kind, codec) = if video {
            let codec = RTCRtpCodec {
                mime_type: MIME_TYPE_VP8.to_owned(),
                clock_rate: 90_000,
                ..Default::default()
            };
            (RtpCodecKind::Video, codec)
        } else {
            let codec = RTCRtpCodec {
                mime_type: MIME_TYPE_OPUS.to_owned(),
                clock_rate: 48_000,
                channels: 2,
                sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
                ..Default::default()
            };
            (RtpCodecKind::Audio, codec)
        };
        let ssrc = 1_000_000_000 + u32::from(who) * 1000 + u32::from(video);
        let cid = format!("track-{who}-{}", source.as_str_name());
        let track = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
            format!("stream-{who}"),
            cid.clone(),
            cid.clone(),
            kind,
            vec![RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters {
                    ssrc: Some(ssrc),
                    ..Default::default()
                },
                active: true,
                codec,
                ..Default::default()
            }],
        )));
        self.publisher
            .add_track(track.clone() as Arc<dyn TrackLocal>)
            .await?;
        let add = request::Message::AddTrack(proto::AddTrackRequest {
            cid: cid.clone(),
            name: cid.clone(),
            r#type: if video {
                proto::TrackType::Video
            } else {
                proto::TrackType::Audio
            } as i32,
            source: source as i32,
            width: if video { 320 } else { 0 },
            height: if video { 180 } else { 0 },
            ..Default::default()
        });
        match announce {
            Announce::Properly => {
                self.say(add).await?;
                self.negotiate().await?;
            }
            Announce::NotAtAll => self.negotiate().await?,
            Announce::WithAnotherSsrc => {
                self.munge.push((ssrc, ssrc + 500_000_000));
                self.say(add).await?;
                self.negotiate().await?;
            }
            Announce::Late => {
                self.offer().await?;
                self.linger(Duration::from_millis(300)).await?;
                self.say(add).await?;
                self.negotiate().await?;
            }
        }
        Ok(Sending {
            track,
            ssrc,
            kind,
            cid,
            who,
            next: 0,
        })
    }

    /// Waits until the server has confirmed a track.
    pub(crate) async fn confirmed(&mut self, sending: &Sending) -> Result<proto::TrackInfo> {
        let cid = sending.cid.clone();
        self.until("the track is confirmed", |seen| {
            seen.published.contains_key(&cid)
        })
        .await?;
        let seen = self.seen();
        seen.published
            .get(&sending.cid)
            .cloned()
            .context("was just seen")
    }

    /// Sends user data over one of the channels.
    pub(crate) async fn send_data(
        &mut self,
        reliable: bool,
        topic: &str,
        payload: &[u8],
    ) -> Result<()> {
        let packet = proto::DataPacket {
            value: Some(proto::data_packet::Value::User(proto::UserPacket {
                payload: payload.to_vec(),
                topic: Some(topic.to_owned()),
                ..Default::default()
            })),
            ..Default::default()
        };
        self.send_raw_data(reliable, &packet.encode_to_vec()).await
    }

    /// Sends bytes over one of the channels, whatever they hold.
    pub(crate) async fn send_raw_data(&mut self, reliable: bool, bytes: &[u8]) -> Result<()> {
        if self.offers == 0 {
            self.negotiate().await?;
        }
        self.until("the publisher's connection", |seen| {
            seen.publisher == Some(RTCPeerConnectionState::Connected)
        })
        .await?;
        let channel = if reliable {
            self.reliable.clone()
        } else {
            self.lossy.clone()
        };
        tokio::time::timeout(Duration::from_secs(20), channel.writable())
            .await
            .context("the data channel opens")??;
        channel.send(BytesMut::from(bytes)).await?;
        Ok(())
    }

    /// Goes without a word.
    pub(crate) async fn vanish(self) {
        let _ = self.publisher.close().await;
        let _ = self.subscriber.close().await;
    }

    /// Goes in good order.
    pub(crate) async fn leave(mut self) -> Result<()> {
        self.say(request::Message::Leave(proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated as i32,
            ..Default::default()
        }))
        .await?;
        self.vanish().await;
        Ok(())
    }
}

impl Sending {
    /// Sends the next packets, numbered on, one each 20 ms.
    pub(crate) async fn send(&mut self, count: u32) -> Result<()> {
        for _ in 0..count {
            let video = self.kind == RtpCodecKind::Video;
            let mut packet = rtc::rtp::Packet {
                payload: write(self.who, self.next, video),
                ..Default::default()
            };
            packet.header.version = 2;
            packet.header.ssrc = self.ssrc;
            packet.header.payload_type = if video { 96 } else { 111 };
            packet.header.marker = video;
            packet.header.sequence_number = self.next as u16;
            packet.header.timestamp = self.next * if video { 1800 } else { 960 };
            self.next += 1;
            self.track.write_rtp(packet).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Numbers sent so far.
    pub(crate) fn sent(&self) -> u32 {
        self.next
    }
}

fn note_candidates(seen: &mut Seen, sdp: &str) {
    let lines = sdp
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"));
    seen.candidates
        .extend(lines.map(|line| format!("candidate:{line}")));
}

/// UDP ports at which the server says it is reached.
pub(crate) fn media_ports(client: &Client) -> Vec<u16> {
    let seen = client.seen();
    let mut ports: Vec<u16> = seen
        .candidates
        .iter()
        .filter(|candidate| candidate.to_ascii_lowercase().contains(" udp "))
        .filter_map(|candidate| candidate.split_whitespace().nth(5)?.parse().ok())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn note(seen: &mut Seen, message: &response::Message) {
    let mut meet = |participants: &[proto::ParticipantInfo]| {
        for participant in participants {
            seen.participants
                .insert(participant.identity.clone(), participant.clone());
        }
    };
    match message {
        response::Message::Join(joined) => {
            meet(&joined.other_participants);
            seen.joined = Some(joined.clone());
        }
        response::Message::Update(update) => meet(&update.participants),
        response::Message::Leave(leave) => seen.left = Some(leave.clone()),
        response::Message::TrackPublished(published) => {
            if let Some(track) = &published.track {
                seen.published.insert(published.cid.clone(), track.clone());
            }
        }
        response::Message::RefreshToken(token) => seen.refresh_tokens.push(token.clone()),
        response::Message::Answer(answer) => seen.answers.push(answer.clone()),
        response::Message::Trickle(trickle) => seen.candidates.push(trickle.candidate_init.clone()),
        _ => {}
    }
}

/// All numbers of `who` that a client received on any track.
pub(crate) fn received(client: &Client, who: u8) -> BTreeMap<u32, u32> {
    let mut all = BTreeMap::new();
    for ((_, from), numbers) in &client.seen().media {
        if *from == who {
            for (number, times) in numbers {
                *all.entry(*number).or_default() += times;
            }
        }
    }
    all
}

/// Sends on until the receiver has got something of it, then returns how many numbers were sent by then.
pub(crate) async fn flows(
    sending: &mut Sending,
    sender: &mut Client,
    receiver: &mut Client,
) -> Result<u32> {
    let who = sending.who;
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        sender.turn().await?;
        receiver.turn().await?;
        sending.send(1).await?;
        if !received(receiver, who).is_empty() {
            return Ok(sending.sent());
        }
        if tokio::time::Instant::now() > end {
            bail!(
                "nothing of {who} arrives; the receiver knows {:?}",
                receiver.seen().packets
            );
        }
    }
}
