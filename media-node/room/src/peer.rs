// SPDX-License-Identifier: EUPL-1.2
//! One participant's side of a room: signalling, session descriptions, subscriptions. Plain data; it hears of the room and tells it
//! something only by the messages of [`crate::link`].

mod publisher;
mod quality;
mod requests;
mod subscriber;

use std::collections::{BTreeMap, VecDeque};

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::{
    Channel, Command, Event, Fingerprint, IceCredentials, Side, TransportFailure,
};
use media_core::crypto::DtlsFailure;
use media_core::ids::{ParticipantId, RoomIndex, ShardId, TransportId};
use media_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{Candidate, Entropy, Output, SessionId};
use crate::counters::{Counters, Dropped};
use crate::limits::{HELD_DATA_BYTES_MAX, LIST_MAX};
use crate::link::{Client, MemberId, RemoteTrack, Start, ToPeer, ToRoster, Wire};
use crate::random;
use crate::signal;
use publisher::Publisher;
use quality::Quality;
pub(crate) use requests::sane_add_track;
use subscriber::Subscriber;

/// What a peer's node gives to all its peers of a room.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) room: RoomIndex,
    pub(crate) shard: ShardId,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) candidates: Vec<Candidate>,
}

/// What a peer may use while it handles something.
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) host: &'a Host,
    pub(crate) entropy: &'a mut (dyn Entropy + Send),
    pub(crate) next_id: &'a mut u32,
    /// Which member an object of the shard belongs to.
    pub(crate) owners: &'a mut BTreeMap<u64, MemberId>,
    pub(crate) out: &'a mut VecDeque<Output>,
    pub(crate) up: &'a mut VecDeque<(MemberId, ToRoster)>,
    pub(crate) counters: &'a mut Counters,
}

impl Context<'_> {
    /// A number that no object of this node had before: the room's number and a count.
    fn id(&mut self, owner: MemberId) -> u64 {
        *self.next_id = self.next_id.wrapping_add(1);
        let id = u64::from(self.host.room.0) << 32 | u64::from(*self.next_id);
        self.owners.insert(id, owner);
        id
    }

    fn command(&mut self, command: Command) {
        match &command {
            Command::RemoveTransport { transport } => {
                self.owners.remove(&transport.0);
            }
            Command::Unpublish { publication } => {
                self.owners.remove(&publication.0);
            }
            Command::Unsubscribe { subscription } => {
                self.owners.remove(&subscription.0);
            }
            _ => {}
        }
        self.out.push_back(Output::Media(command));
    }

    fn credentials(&mut self) -> IceCredentials {
        let shard = self.host.shard.0;
        IceCredentials {
            ufrag: format!("{shard:02x}{}", random::text(self.entropy, 10)),
            password: random::text(self.entropy, 26),
        }
    }
}

/// One peer connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Transport {
    pub(crate) id: TransportId,
    local: IceCredentials,
    remote: Option<(IceCredentials, Fingerprint)>,
    connected: bool,
}

impl Transport {
    fn new(context: &mut Context<'_>, owner: MemberId, side: Side) -> Self {
        let id = TransportId(context.id(owner));
        let local = context.credentials();
        context.command(Command::AddTransport {
            transport: id,
            room: context.host.room,
            participant: ParticipantId(owner.0),
            side,
            local: local.clone(),
        });
        Self {
            id,
            local,
            remote: None,
            connected: false,
        }
    }

    fn set_remote(
        &mut self,
        context: &mut Context<'_>,
        ice: &IceCredentials,
        fingerprint: Fingerprint,
    ) {
        if self.remote.as_ref() != Some(&(ice.clone(), fingerprint)) {
            self.remote = Some((ice.clone(), fingerprint));
            context.command(Command::SetRemote {
                transport: self.id,
                remote: ice.clone(),
                fingerprint,
            });
        }
    }

    fn restart(&mut self, context: &mut Context<'_>) {
        self.local = context.credentials();
        context.command(Command::RestartIce {
            transport: self.id,
            local: self.local.clone(),
        });
    }
}

/// What the client wishes of a track of somebody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    disabled: bool,
    quality: Option<u8>,
    width: u32,
    height: u32,
    fps: u32,
}

/// A track of somebody else and what this client does with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remote {
    track: RemoteTrack,
    /// What the roster was told last of the quality wanted.
    told: Option<Option<u8>>,
    announced: bool,
    paused: bool,
}

/// The peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    pub(crate) sid: String,
    pub(crate) session: Option<SessionId>,
    text: bool,
    client: Client,
    can_subscribe: bool,
    codecs: Vec<String>,
    active: bool,
    alive: bool,
    publisher: Publisher,
    pub(crate) subscriber: Subscriber,
    remotes: BTreeMap<String, Remote>,
    /// Explicit subscriptions, also of tracks that are not there yet.
    intents: BTreeMap<String, bool>,
    settings: BTreeMap<String, Settings>,
    reliable_open: bool,
    held: Vec<Vec<u8>>,
    held_bytes: usize,
    quality: Quality,
}

impl Peer {
    /// Begins: the first frame goes out, then the first offer.
    pub(crate) fn new(context: &mut Context<'_>, id: MemberId, start: Start) -> Self {
        let mut peer = Self {
            id,
            sid: start.sid,
            session: Some(start.session),
            text: start.text,
            client: start.client,
            can_subscribe: start.can_subscribe,
            codecs: start.codecs,
            active: false,
            alive: false,
            publisher: Publisher::default(),
            subscriber: Subscriber::new(context, id),
            remotes: BTreeMap::new(),
            intents: BTreeMap::new(),
            settings: BTreeMap::new(),
            reliable_open: false,
            held: Vec::new(),
            held_bytes: 0,
            quality: Quality::new(context.now),
        };
        peer.send(context, Response::Join(start.join.0));
        for track in start.tracks {
            peer.remotes.insert(
                track.sid.clone(),
                Remote {
                    track,
                    told: None,
                    announced: false,
                    paused: false,
                },
            );
        }
        peer.reconcile(context);
        peer.subscriber.wants_offer();
        peer.negotiate(context);
        peer
    }

    fn send(&mut self, context: &mut Context<'_>, message: Response) {
        if let Some(session) = self.session {
            context.out.push_back(Output::Frame {
                session,
                frame: signal::encode(self.text, message),
            });
        }
    }

    fn tell(&self, context: &mut Context<'_>, message: ToRoster) {
        context.up.push_back((self.id, message));
    }

    /// News from the roster. False: the peer has ended.
    pub(crate) fn handle(&mut self, context: &mut Context<'_>, message: ToPeer) -> bool {
        match message {
            // The room's shell makes peers of these.
            ToPeer::Start(_) => {}
            ToPeer::Attach { session, text } => {
                self.text = text;
                if let Some(old) = self.session.replace(session) {
                    context.out.push_back(Output::Close {
                        session: old,
                        code: 1000,
                        reason: "replaced",
                    });
                }
            }
            // Restarts ICE with the offer that follows.
            ToPeer::Resumed => self.subscriber.resume(),
            ToPeer::Send(Wire(response)) => {
                if let Some(message) = response.message
                    && (self.client.takes_unknown()
                        || !matches!(
                            message,
                            Response::TrackSubscribed(_) | Response::RequestResponse(_)
                        ))
                {
                    self.send(context, message);
                }
            }
            ToPeer::Granted(grant) => self.granted(context, *grant),
            ToPeer::Unpublish { sid, tell } => self.unpublish(context, &sid, tell),
            ToPeer::SetMuted { sid, muted, tell } => self.set_muted(context, &sid, muted, tell),
            ToPeer::Track(track) => self.remote_track(context, *track),
            ToPeer::TrackGone { sid } => {
                if self.remotes.remove(&sid).is_some() {
                    self.settings.remove(&sid);
                    self.intents.remove(&sid);
                    // What the shard forwarded of it ended with the publication.
                    self.subscriber.forget(context, &sid);
                    self.reconcile(context);
                }
            }
            ToPeer::Subscribe { sids, subscribe } => self.subscribe(context, sids, subscribe),
            ToPeer::CanSubscribe(can) => {
                self.can_subscribe = can;
                self.reconcile(context);
            }
            ToPeer::Speakers(speakers) => self.speakers(context, speakers),
            ToPeer::Qualities(updates) => self.qualities(context, updates),
            ToPeer::TokenFacts(facts) => {
                if let Some(session) = self.session {
                    context.out.push_back(Output::TokenFacts { session, facts });
                }
            }
            ToPeer::Data { channel, payload } => {
                if let Some(transport) = self.data_transport(channel, &payload) {
                    context.command(Command::SendData {
                        transports: vec![transport],
                        channel,
                        payload: payload.into(),
                    });
                }
            }
            ToPeer::End { leave } => {
                self.end(context, leave);
                return false;
            }
        }
        true
    }

    fn end(&mut self, context: &mut Context<'_>, leave: Option<Wire<proto::LeaveRequest>>) {
        if let Some(Wire(leave)) = leave {
            self.send(context, Response::Leave(leave));
        }
        if let Some(session) = self.session.take() {
            context.out.push_back(Output::Close {
                session,
                code: 1000,
                reason: "left",
            });
        }
        let transports = self
            .publisher
            .transport
            .iter()
            .map(|transport| transport.id)
            .chain([self.subscriber.transport.id]);
        for transport in transports.collect::<Vec<_>>() {
            context.command(Command::RemoveTransport { transport });
        }
    }

    /// Where a message for this client goes now; a reliable one is held while the channel is not open yet.
    pub(crate) fn data_transport(
        &mut self,
        channel: Channel,
        payload: &[u8],
    ) -> Option<TransportId> {
        if self.reliable_open {
            return Some(self.subscriber.transport.id);
        }
        if channel == Channel::Reliable && self.held_bytes + payload.len() <= HELD_DATA_BYTES_MAX {
            self.held_bytes += payload.len();
            self.held.push(payload.to_vec());
        }
        None
    }

    fn remote_track(&mut self, context: &mut Context<'_>, track: RemoteTrack) {
        match self.remotes.get_mut(&track.sid) {
            Some(remote) => {
                if remote.track.publication != track.publication {
                    // The publisher's connection is another one: the old forwarding ended with it.
                    let sid = track.sid.clone();
                    self.subscriber.forget(context, &sid);
                    remote.announced = false;
                }
                remote.track = track;
            }
            None => {
                self.remotes.insert(
                    track.sid.clone(),
                    Remote {
                        track,
                        told: None,
                        announced: false,
                        paused: false,
                    },
                );
            }
        }
        self.reconcile(context);
    }

    /// The WebSocket ended.
    pub(crate) fn signal_lost(&mut self, context: &mut Context<'_>, session: SessionId) {
        if self.session == Some(session) {
            self.session = None;
            self.tell(context, ToRoster::SignalLost);
        }
    }

    /// The node is reached elsewhere from now on: clients try the new candidates beside the proved path.
    pub(crate) fn addresses(&mut self, context: &mut Context<'_>) {
        if self.publisher.transport.is_some() {
            self.trickle(context, Side::Publisher);
        }
        self.trickle(context, Side::Subscriber);
    }

    fn trickle(&mut self, context: &mut Context<'_>, side: Side) {
        let target = match side {
            Side::Publisher => proto::SignalTarget::Publisher,
            Side::Subscriber => proto::SignalTarget::Subscriber,
        };
        let mid = match side {
            Side::Publisher => self.publisher.first_mid(),
            Side::Subscriber => crate::sdp::DATA_MID.to_owned(),
        };
        for line in crate::sdp::candidate_lines(&context.host.candidates) {
            let init = serde_json::json!({ "candidate": line, "sdpMid": mid, "sdpMLineIndex": 0 });
            self.send(
                context,
                Response::Trickle(proto::TrickleRequest {
                    candidate_init: init.to_string(),
                    target: target as i32,
                    r#final: false,
                }),
            );
        }
    }

    /// An event of the shard that concerns an object of this peer.
    pub(crate) fn event(&mut self, context: &mut Context<'_>, event: Event) {
        match event {
            Event::Connected { transport, .. } => {
                if let Some(own) = self.transport(transport) {
                    own.connected = true;
                }
                self.told_alive(context);
                if !self.active {
                    self.active = true;
                    self.tell(context, ToRoster::Active);
                }
            }
            Event::Failed { transport, failure } => {
                context.owners.remove(&transport.0);
                if let Some(own) = self.transport(transport) {
                    own.connected = false;
                }
                if self
                    .publisher
                    .transport
                    .as_ref()
                    .is_some_and(|own| own.id == transport)
                {
                    self.publisher.transport = None;
                }
                self.told_alive(context);
                self.tell(
                    context,
                    ToRoster::MediaFailed {
                        closed: failure == TransportFailure::Closed,
                        unsupported: matches!(
                            failure,
                            TransportFailure::Dtls(DtlsFailure::Profile | DtlsFailure::Fingerprint)
                        ),
                    },
                );
            }
            Event::ChannelOpen {
                transport,
                channel: Channel::Reliable,
            } if transport == self.subscriber.transport.id => {
                self.reliable_open = true;
                self.held_bytes = 0;
                for payload in std::mem::take(&mut self.held) {
                    context.command(Command::SendData {
                        transports: vec![transport],
                        channel: Channel::Reliable,
                        payload: payload.into(),
                    });
                }
            }
            Event::Data {
                channel, payload, ..
            } => {
                self.tell(
                    context,
                    ToRoster::Data {
                        channel,
                        payload: payload.to_vec(),
                    },
                );
            }
            Event::EncodingBound {
                publication,
                format,
                ..
            } => self.codec_seen(context, publication, format),
            Event::EncodingForwarded {
                subscription,
                encoding,
            } => self.forwarded(context, subscription, encoding),
            Event::Stats { transport, stats } => self.stats(context, transport, &stats),
            Event::Refused { reason, .. } => {
                context.counters.drop(Dropped::CommandRefused);
                tracing::debug!(participant = self.id.0, %reason, "the shard refused a command");
                if reason == media_core::api::CommandRefusal::Limit {
                    self.tell(
                        context,
                        ToRoster::MediaFailed {
                            closed: false,
                            unsupported: false,
                        },
                    );
                }
            }
            // Paths are the shard's business, speakers the roster's; a hand-over is not asked for yet.
            _ => {}
        }
    }

    fn transport(&mut self, id: TransportId) -> Option<&mut Transport> {
        if self.subscriber.transport.id == id {
            return Some(&mut self.subscriber.transport);
        }
        self.publisher
            .transport
            .as_mut()
            .filter(|transport| transport.id == id)
    }

    fn told_alive(&mut self, context: &mut Context<'_>) {
        let alive = self.subscriber.transport.connected
            || self
                .publisher
                .transport
                .as_ref()
                .is_some_and(|own| own.connected);
        if alive != self.alive {
            self.alive = alive;
            self.tell(context, ToRoster::MediaAlive(alive));
        }
    }

    fn subscribe(&mut self, context: &mut Context<'_>, sids: Vec<String>, subscribe: bool) {
        for sid in sids {
            if self.intents.len() < LIST_MAX || self.intents.contains_key(&sid) {
                self.intents.insert(sid, subscribe);
            } else {
                context.counters.drop(Dropped::Limit);
            }
        }
        self.reconcile(context);
    }

    fn has(&self, publisher_sid: &str) -> bool {
        publisher_sid == self.sid
            || self
                .remotes
                .values()
                .any(|remote| remote.announced && remote.track.publisher_sid == publisher_sid)
    }

    fn speakers(&mut self, context: &mut Context<'_>, speakers: Vec<Wire<proto::SpeakerInfo>>) {
        let speakers: Vec<_> = speakers
            .into_iter()
            .map(|Wire(speaker)| speaker)
            .filter(|speaker| self.has(&speaker.sid))
            .collect();
        if !speakers.is_empty() {
            self.send(
                context,
                Response::SpeakersChanged(proto::SpeakersChanged { speakers }),
            );
        }
    }

    fn qualities(
        &mut self,
        context: &mut Context<'_>,
        updates: Vec<Wire<proto::ConnectionQualityInfo>>,
    ) {
        if self.client.protocol < 5 {
            return;
        }
        let updates: Vec<_> = updates
            .into_iter()
            .map(|Wire(update)| update)
            .filter(|update| self.has(&update.participant_sid))
            .collect();
        if !updates.is_empty() {
            self.send(
                context,
                Response::ConnectionQuality(proto::ConnectionQualityUpdate { updates }),
            );
        }
    }
}
