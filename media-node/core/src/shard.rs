// SPDX-License-Identifier: EUPL-1.2
//! The unit of ownership of the packet path: one thread's rooms, peers, publications and subscriptions.
//!
//! Callers hand in datagrams, commands and time, then drain transmits and events until `None`. Everything lazily sent is made in
//! [`Shard::poll_transmit`]: one run of packets to one subscriber at a time, in one buffer that stays in the cache.

mod counters;
mod forward;
mod handover;
mod receive;
mod state;
mod timers;

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use crate::api::{
    Command, CommandRefusal, Event, Kind, LayerWish, Publication, Subscription, TransportFailure,
    TransportStats,
};
use crate::crypto::Crypto;
use crate::ids::{ExtSeq, PublicationId, RoomIndex, ShardId, Ssrc, SubscriptionId, TransportId};
use crate::io::{Path, Transmit};
use crate::limits::{
    ENCODINGS_MAX, PAYLOADS_MAX, PUBLICATIONS_MAX, PUBLICATIONS_PER_TRANSPORT_MAX, ROOMS_MAX,
    RTX_BUDGET_MAX, RUN_BYTES_MAX, SUBSCRIPTIONS_MAX, TRANSPORTS_MAX,
};
use crate::rewrite::Rewriter;
use crate::rtp::rtcp::Report;
use crate::rtp::twcc::Feedback;
use crate::srtp;
use crate::time::{Timestamp, WallAnchor};
use crate::transport::{Transport, TransportEvent, TransportOut};
pub use counters::{Counters, DROP_REASONS, DropReason};
use state::{Arena, EncodingState, Level, Mix, Peer, PeerKeys, Published, Room, Subscribed};
use timers::Timer;

/// What differs between shards and pools.
#[derive(Clone, Copy, Debug)]
pub struct ShardConfig {
    /// Payload bytes kept per video encoding, a power of two: about one second at 4 Mbit/s.
    pub video_ring_bytes: usize,
    /// Payload bytes kept per audio publication, a power of two.
    pub audio_ring_bytes: usize,
    /// Packets of nearly equal size within a run are padded to equal size, so that they leave as one segmented send.
    pub pad_runs: bool,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            video_ring_bytes: 512 * 1024,
            audio_ring_bytes: 32 * 1024,
            pad_runs: true,
        }
    }
}

/// Room of a control packet: what one datagram holds.
const CONTROL_BYTES: usize = 1500;
/// Control packets whose memory is kept.
const SPARE_MAX: usize = 256;

/// What a compound RTCP packet said, kept between packets for its memory.
#[derive(Default)]
struct Heard {
    wanted: Vec<(Ssrc, u16, u16)>,
    key_frames: Vec<Ssrc>,
    reports: Vec<Report>,
    senders: Vec<(Ssrc, u64, u32)>,
}

impl Heard {
    fn clear(&mut self) {
        self.wanted.clear();
        self.key_frames.clear();
        self.reports.clear();
        self.senders.clear();
    }
}

/// Index of no publication.
const DETACHED: usize = usize::MAX;

/// Where [`Shard::poll_transmit`] stands in the publication it forwards.
struct Job {
    publication: usize,
    subscriber: usize,
    at: usize,
}

/// One shard. See the module's documentation.
pub struct Shard<C: Crypto> {
    id: ShardId,
    config: ShardConfig,
    crypto: C,
    wall: WallAnchor,
    now: Timestamp,
    rooms: Arena<RoomIndex, Room>,
    peers: Arena<TransportId, Peer<C>>,
    publications: Arena<PublicationId, Published>,
    subscriptions: Arena<SubscriptionId, Subscribed>,
    paths: HashMap<Path, usize, BuildHasherDefault<Mix>>,
    /// Random seed of this table: user fragments in checks are chosen by strangers.
    fragments: HashMap<String, usize>,
    timers: BinaryHeap<Timer>,
    control: VecDeque<(Path, Vec<u8>)>,
    control_now: Vec<u8>,
    /// Emptied buffers of control packets, so that reports and feedback allocate nothing in the long run.
    spare: Vec<Vec<u8>>,
    heard: Heard,
    report_blocks: Vec<Report>,
    retransmissions: VecDeque<(usize, u16)>,
    /// Subscriptions whose publication is not here (any more): in a hand-over participants move one after the other.
    detached: Vec<usize>,
    queue: VecDeque<usize>,
    job: Option<Job>,
    batch: Vec<(u8, ExtSeq)>,
    run: Vec<u8>,
    events: VecDeque<Event>,
    out: TransportOut,
    strangers: receive::Strangers,
    counters: Counters,
}

impl<C: Crypto> Shard<C> {
    /// An empty shard. Allocates one run buffer; everything else grows with rooms.
    #[must_use]
    pub fn new(
        id: ShardId,
        config: ShardConfig,
        crypto: C,
        now: Timestamp,
        wall: WallAnchor,
    ) -> Self {
        Self {
            id,
            config,
            crypto,
            wall,
            now,
            rooms: Arena::new(),
            peers: Arena::new(),
            publications: Arena::new(),
            subscriptions: Arena::new(),
            paths: HashMap::default(),
            fragments: HashMap::new(),
            timers: BinaryHeap::new(),
            control: VecDeque::new(),
            control_now: Vec::new(),
            spare: Vec::new(),
            heard: Heard::default(),
            report_blocks: Vec::new(),
            retransmissions: VecDeque::new(),
            detached: Vec::new(),
            queue: VecDeque::new(),
            job: None,
            batch: Vec::with_capacity(256),
            run: vec![0; RUN_BYTES_MAX + 2048],
            events: VecDeque::new(),
            out: TransportOut::default(),
            strangers: receive::Strangers::default(),
            counters: Counters::default(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Shard::handle_timeout`] wants to be called. O(1).
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Timestamp> {
        self.timers.peek().map(|timer| timer.at)
    }

    /// Next run of datagrams to one destination. To be drained after every `handle_*`.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        if let Some((path, datagram)) = self.control.pop_front() {
            let sent = std::mem::replace(&mut self.control_now, datagram);
            self.recycle(sent);
            return Some(Transmit {
                path,
                bytes: &self.control_now,
                segment: self.control_now.len(),
            });
        }
        let (path, bytes, segment) = self.next_run()?;
        Some(Transmit {
            path,
            bytes: &self.run[..bytes],
            segment,
        })
    }

    /// An empty buffer for a control packet.
    fn buffer(&mut self) -> Vec<u8> {
        self.spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(CONTROL_BYTES))
    }

    /// Keeps the memory of a control packet for another.
    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX
            && (CONTROL_BYTES..=4 * CONTROL_BYTES).contains(&buffer.capacity())
        {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// One command. Refusals come as [`Event::Refused`].
    pub fn handle_command(&mut self, now: Timestamp, command: Command) {
        self.now = now;
        let transport = match &command {
            Command::AddTransport { transport, .. }
            | Command::SetRemote { transport, .. }
            | Command::RestartIce { transport, .. }
            | Command::Export { transport }
            | Command::Import { transport, .. }
            | Command::ReadStats { transport } => Some(*transport),
            Command::Publish(publication) => Some(publication.transport),
            Command::Subscribe(subscription) => Some(subscription.transport),
            _ => None,
        };
        if let Err(reason) = self.command(now, command) {
            self.events.push_back(Event::Refused { transport, reason });
        }
    }

    fn command(&mut self, now: Timestamp, command: Command) -> Result<(), CommandRefusal> {
        match command {
            Command::AddRoom { room } => self.add_room(room),
            Command::RemoveRoom { room } => self.remove_room(now, room),
            Command::SetGate { room, open } => {
                let index = self.rooms.index(room).ok_or(CommandRefusal::Unknown)?;
                let room = self.rooms.get_mut(index).ok_or(CommandRefusal::Unknown)?;
                let opened = open && !room.open;
                room.open = open;
                if opened {
                    let peers = room.peers.clone();
                    for peer in peers {
                        let published = self.peers.get(peer).map(|peer| peer.publications.clone());
                        for publication in published.unwrap_or_default() {
                            self.restart_subscriptions(publication);
                        }
                    }
                }
                Ok(())
            }
            Command::AddTransport {
                transport,
                room,
                participant,
                side,
                local,
            } => {
                if self.peers.index(transport).is_some()
                    || self.fragments.contains_key(&local.ufrag)
                {
                    return Err(CommandRefusal::Duplicate);
                }
                if self.peers.len() >= TRANSPORTS_MAX {
                    return Err(CommandRefusal::Limit);
                }
                let room = self.rooms.index(room).ok_or(CommandRefusal::Unknown)?;
                let mut reporter = [0; 4];
                self.crypto.random(&mut reporter);
                let ufrag = local.ufrag.clone();
                let mut peer = Peer {
                    room,
                    participant,
                    side,
                    ice: Transport::new(transport, local),
                    keys: None,
                    streams: Vec::new(),
                    publications: Vec::new(),
                    subscriptions: Vec::new(),
                    feedback: Feedback::default(),
                    feedback_armed: None,
                    feedback_media: Ssrc(0),
                    next_transport_sequence: 0,
                    reports_armed: None,
                    timer_at: None,
                    old_fragment: None,
                    reporter: Ssrc(u32::from_be_bytes(reporter)),
                    stats: TransportStats::default(),
                };
                if side == crate::api::Side::Subscriber {
                    peer.ice.open_channels(now, &mut self.crypto, &mut self.out);
                }
                let index = self.peers.insert(transport, peer);
                self.fragments.insert(ufrag, index);
                if let Some(room) = self.rooms.get_mut(room) {
                    room.peers.push(index);
                }
                Ok(())
            }
            Command::SetRemote {
                transport,
                remote,
                fingerprint,
            } => {
                let index = self.peers.index(transport).ok_or(CommandRefusal::Unknown)?;
                let peer = self.peers.get_mut(index).ok_or(CommandRefusal::Unknown)?;
                peer.ice
                    .set_remote(now, &mut self.crypto, remote, fingerprint, &mut self.out);
                self.settle(now, index);
                Ok(())
            }
            Command::RestartIce { transport, local } => {
                let index = self.peers.index(transport).ok_or(CommandRefusal::Unknown)?;
                if self.fragments.contains_key(&local.ufrag) {
                    return Err(CommandRefusal::Duplicate);
                }
                let peer = self.peers.get_mut(index).ok_or(CommandRefusal::Unknown)?;
                let before: Vec<String> = peer.ice.local_ufrags().map(str::to_owned).collect();
                peer.old_fragment = before.first().cloned();
                self.fragments.insert(local.ufrag.clone(), index);
                peer.ice.restart_ice(local);
                // A second restart before the first was nominated leaves that one behind.
                for gone in before {
                    if !peer.ice.local_ufrags().any(|ufrag| ufrag == gone) {
                        self.fragments.remove(&gone);
                    }
                }
                Ok(())
            }
            Command::RemoveTransport { transport } => {
                let index = self.peers.index(transport).ok_or(CommandRefusal::Unknown)?;
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.ice.close(now, &mut self.out);
                }
                self.control.extend(self.out.datagrams.drain(..));
                self.out.events.clear();
                self.remove_peer(transport);
                Ok(())
            }
            Command::Publish(publication) => self.publish(*publication),
            Command::Unpublish { publication } => {
                self.publications
                    .index(publication)
                    .ok_or(CommandRefusal::Unknown)?;
                self.remove_publication(publication);
                Ok(())
            }
            Command::SetMuted { publication, muted } => {
                let index = self
                    .publications
                    .index(publication)
                    .ok_or(CommandRefusal::Unknown)?;
                let published = self
                    .publications
                    .get_mut(index)
                    .ok_or(CommandRefusal::Unknown)?;
                let unmuted = published.muted && !muted;
                published.muted = muted;
                if unmuted {
                    self.restart_subscriptions(index);
                }
                Ok(())
            }
            Command::Subscribe(subscription) => self.subscribe(*subscription),
            Command::Unsubscribe { subscription } => {
                self.subscriptions
                    .index(subscription)
                    .ok_or(CommandRefusal::Unknown)?;
                self.remove_subscription(subscription);
                Ok(())
            }
            Command::SetLayers { subscription, wish } => {
                let index = self
                    .subscriptions
                    .index(subscription)
                    .ok_or(CommandRefusal::Unknown)?;
                let subscribed = self
                    .subscriptions
                    .get_mut(index)
                    .ok_or(CommandRefusal::Unknown)?;
                subscribed.wish = wish;
                subscribed.temporal = subscribed.temporal.min(wish.max_temporal);
                if !wish.enabled {
                    subscribed.current = None;
                    self.announce(index);
                }
                self.request_target_key_frame(index);
                Ok(())
            }
            Command::SendData {
                transports,
                channel,
                payload,
            } => {
                for transport in transports {
                    let sent = self.peers.index(transport).and_then(|index| {
                        let peer = self.peers.get_mut(index)?;
                        peer.ice
                            .send_data(now, &mut self.crypto, channel, &payload, &mut self.out)
                            .ok()?;
                        Some(index)
                    });
                    match sent {
                        Some(index) => {
                            self.counters.data_messages += 1;
                            self.settle(now, index);
                        }
                        None => self.counters.drop(DropReason::DataNotSent),
                    }
                }
                Ok(())
            }
            Command::Export { transport } => self.export(now, transport),
            Command::Import { transport, state } => self.import(now, transport, *state),
            Command::ReadStats { transport } => {
                let index = self.peers.index(transport).ok_or(CommandRefusal::Unknown)?;
                let stats = self.peers.get(index).ok_or(CommandRefusal::Unknown)?.stats;
                self.events.push_back(Event::Stats { transport, stats });
                Ok(())
            }
        }
    }

    fn add_room(&mut self, room: RoomIndex) -> Result<(), CommandRefusal> {
        if self.rooms.index(room).is_some() {
            return Err(CommandRefusal::Duplicate);
        }
        if self.rooms.len() >= ROOMS_MAX {
            return Err(CommandRefusal::Limit);
        }
        let state = Room {
            id: room,
            open: false,
            peers: Vec::new(),
            audio: Vec::new(),
            speakers_armed: None,
        };
        self.rooms.insert(room, state);
        Ok(())
    }

    fn remove_room(&mut self, now: Timestamp, room: RoomIndex) -> Result<(), CommandRefusal> {
        let (_, state) = self.rooms.remove(room).ok_or(CommandRefusal::Unknown)?;
        for index in state.peers {
            if let Some(peer) = self.peers.get_mut(index) {
                peer.ice.close(now, &mut self.out);
                let transport = peer.ice.id();
                self.control.extend(self.out.datagrams.drain(..));
                self.out.events.clear();
                self.remove_peer(transport);
            }
        }
        Ok(())
    }

    fn remove_peer(&mut self, transport: TransportId) {
        let Some((index, peer)) = self.peers.remove(transport) else {
            return;
        };
        for path in peer.ice.paths() {
            self.forget_path(path, index);
        }
        for ufrag in peer.ice.local_ufrags() {
            self.fragments.remove(ufrag);
        }
        if let Some(room) = self.rooms.get_mut(peer.room) {
            room.peers.retain(|other| *other != index);
        }
        for publication in peer.publications {
            if let Some(id) = self
                .publications
                .get(publication)
                .map(|published| published.declared.id)
            {
                self.remove_publication(id);
            }
        }
        for subscription in peer.subscriptions {
            if let Some(id) = self
                .subscriptions
                .get(subscription)
                .map(|subscribed| subscribed.declared.id)
            {
                self.remove_subscription(id);
            }
        }
    }

    /// A path that meanwhile belongs to another peer stays that one's.
    fn forget_path(&mut self, path: Path, index: usize) {
        if self.paths.get(&path) == Some(&index) {
            self.paths.remove(&path);
        }
    }

    fn publish(&mut self, declared: Publication) -> Result<(), CommandRefusal> {
        if declared.encodings.is_empty()
            || declared.encodings.len() > ENCODINGS_MAX
            || declared.payloads.is_empty()
            || declared.payloads.len() > PAYLOADS_MAX
            || declared.mid.len() > 16
        {
            return Err(CommandRefusal::Invalid);
        }
        let peer = self
            .peers
            .index(declared.transport)
            .ok_or(CommandRefusal::Unknown)?;
        if let Some(index) = self.publications.index(declared.id) {
            let published = self
                .publications
                .get_mut(index)
                .ok_or(CommandRefusal::Unknown)?;
            if published.peer != peer
                || published.declared.encodings.len() != declared.encodings.len()
            {
                return Err(CommandRefusal::Invalid);
            }
            published.declared = declared;
            return Ok(());
        }
        let state = self.peers.get(peer).ok_or(CommandRefusal::Unknown)?;
        if self.publications.len() >= PUBLICATIONS_MAX
            || state.publications.len() >= PUBLICATIONS_PER_TRANSPORT_MAX
        {
            return Err(CommandRefusal::Limit);
        }
        let room = state.room;
        let audio = declared.kind == Kind::Audio;
        let published = Published {
            peer,
            room,
            encodings: declared
                .encodings
                .iter()
                .map(|_| EncodingState::new())
                .collect(),
            muted: false,
            subscriptions: Vec::new(),
            fresh: Vec::with_capacity(if audio { 8 } else { 64 }),
            queued: false,
            key_armed: None,
            nack_armed: None,
            level: Level {
                loudest: 127,
                ..Level::default()
            },
            declared,
        };
        let id = published.declared.id;
        let index = self.publications.insert(id, published);
        self.attach(id, index, room);
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.publications.push(index);
        }
        if audio && let Some(room) = self.rooms.get_mut(room) {
            room.audio.push(index);
        }
        Ok(())
    }

    fn remove_publication(&mut self, id: PublicationId) {
        for subscription in self.take_publication(id) {
            if let Some(id) = self
                .subscriptions
                .get(subscription)
                .map(|subscribed| subscribed.declared.id)
            {
                self.remove_subscription(id);
            }
        }
    }

    /// Removes a publication and tells who was subscribed to it.
    fn take_publication(&mut self, id: PublicationId) -> Vec<usize> {
        let Some((index, published)) = self.publications.remove(id) else {
            return Vec::new();
        };
        if let Some(peer) = self.peers.get_mut(published.peer) {
            peer.publications.retain(|other| *other != index);
            peer.streams.retain(|stream| stream.publication != index);
        }
        if let Some(room) = self.rooms.get_mut(published.room) {
            room.audio.retain(|other| *other != index);
        }
        self.queue.retain(|queued| *queued != index);
        if self
            .job
            .as_ref()
            .is_some_and(|job| job.publication == index)
        {
            self.job = None;
        }
        published.subscriptions
    }

    fn subscribe(&mut self, declared: Subscription) -> Result<(), CommandRefusal> {
        if declared.payloads.len() > PAYLOADS_MAX {
            return Err(CommandRefusal::Invalid);
        }
        if self.subscriptions.index(declared.id).is_some() {
            return Err(CommandRefusal::Duplicate);
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(CommandRefusal::Limit);
        }
        self.publications
            .index(declared.publication)
            .ok_or(CommandRefusal::Unknown)?;
        self.subscribe_early(declared)
    }

    /// As [`Self::subscribe`], but the publication may come later.
    fn subscribe_early(&mut self, declared: Subscription) -> Result<(), CommandRefusal> {
        let publication = self
            .publications
            .index(declared.publication)
            .unwrap_or(DETACHED);
        let peer = self
            .peers
            .index(declared.transport)
            .ok_or(CommandRefusal::Unknown)?;
        let rooms = (
            self.publications
                .get(publication)
                .map(|published| published.room),
            self.peers.get(peer).map(|peer| peer.room),
        );
        // Nothing is ever forwarded from one room to another.
        if publication != DETACHED && rooms.0 != rooms.1 {
            return Err(CommandRefusal::Invalid);
        }
        let mut random = [0; 4];
        self.crypto.random(&mut random);
        let [a, b, c, d] = random;
        let subscribed = Subscribed {
            declared,
            publication,
            peer,
            wish: LayerWish {
                enabled: true,
                max_encoding: u8::MAX,
                max_temporal: u8::MAX,
            },
            current: None,
            temporal: u8::MAX,
            announced: None,
            // RFC 3550 §5.1 wants random starts; the upper half is left free, so that no rollover comes at once (RFC 3711 §3.3.1).
            rewriter: Rewriter::new(u16::from_be_bytes([a & 0x7f, b])),
            rtx_next: u64::from(u16::from_be_bytes([c & 0x7f, d])),
            rtx_budget: RTX_BUDGET_MAX,
            last_at: self.now,
            packets: 0,
            bytes: 0,
            packets_reported: 0,
        };
        let index = self
            .subscriptions
            .insert(subscribed.declared.id, subscribed);
        match self.publications.get_mut(publication) {
            Some(published) => published.subscriptions.push(index),
            None => self.detached.push(index),
        }
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.subscriptions.push(index);
        }
        self.request_target_key_frame(index);
        Ok(())
    }

    /// Subscriptions that were there before their publication, in a hand-over.
    fn attach(&mut self, id: PublicationId, publication: usize, room: usize) {
        let mut waiting = std::mem::take(&mut self.detached);
        waiting.retain(|index| {
            let Some(subscribed) = self.subscriptions.get_mut(*index) else {
                return false;
            };
            let same_room = self
                .peers
                .get(subscribed.peer)
                .is_some_and(|peer| peer.room == room);
            if subscribed.declared.publication != id || !same_room {
                return true;
            }
            subscribed.publication = publication;
            if let Some(published) = self.publications.get_mut(publication) {
                published.subscriptions.push(*index);
            }
            false
        });
        self.detached = waiting;
    }

    fn remove_subscription(&mut self, id: SubscriptionId) {
        let Some((index, subscribed)) = self.subscriptions.remove(id) else {
            return;
        };
        if let Some(published) = self.publications.get_mut(subscribed.publication) {
            published.subscriptions.retain(|other| *other != index);
        }
        if let Some(peer) = self.peers.get_mut(subscribed.peer) {
            peer.subscriptions.retain(|other| *other != index);
        }
        self.detached.retain(|other| *other != index);
        self.retransmissions.retain(|(other, _)| *other != index);
    }

    /// After an interruption a decoder needs a key frame again, and the numbers go on where they stopped.
    fn restart_subscriptions(&mut self, publication: usize) {
        let Some(published) = self.publications.get(publication) else {
            return;
        };
        for index in published.subscriptions.clone() {
            if let Some(subscribed) = self.subscriptions.get_mut(index) {
                subscribed.current = None;
            }
            self.request_target_key_frame(index);
        }
    }

    /// Tells the room which encoding is forwarded, when it changed.
    fn announce(&mut self, index: usize) {
        let Some(subscribed) = self.subscriptions.get_mut(index) else {
            return;
        };
        if subscribed.announced != Some(subscribed.current) {
            subscribed.announced = Some(subscribed.current);
            self.events.push_back(Event::EncodingForwarded {
                subscription: subscribed.declared.id,
                encoding: subscribed.current,
            });
        }
    }

    /// Takes what a transport wants done and keeps its timer.
    fn settle(&mut self, now: Timestamp, index: usize) {
        self.control.extend(self.out.datagrams.drain(..));
        while let Some(event) = self.out.events.pop_front() {
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            let transport = peer.ice.id();
            match event {
                TransportEvent::PathProved(path) => {
                    self.paths.insert(path, index);
                }
                TransportEvent::PathLost(path) => self.forget_path(path, index),
                TransportEvent::PathNominated(path) => {
                    if peer.keys.is_some() {
                        self.events
                            .push_back(Event::PathChanged { transport, path });
                    } else if !peer.ice.has_remote() {
                        self.events.push_back(Event::AwaitsState { transport });
                    }
                    // A restart's old fragment is gone with the first nominated check under the fresh one.
                    if let Some(old) = peer
                        .old_fragment
                        .take_if(|old| !peer.ice.local_ufrags().any(|known| known == old))
                    {
                        self.fragments.remove(&old);
                    }
                }
                TransportEvent::Keys(material) => {
                    let Some((local, remote)) = srtp::keys::<C>(&material) else {
                        self.fail(
                            now,
                            index,
                            TransportFailure::Dtls(crate::crypto::DtlsFailure::Profile),
                        );
                        return;
                    };
                    peer.keys = Some(PeerKeys {
                        local,
                        remote,
                        rtcp_index: 0,
                        rtcp_replay: srtp::Replay::default(),
                    });
                    self.counters.connected_transports += 1;
                    if material.profile == crate::crypto::SrtpProfile::Aes128CmSha1_80 {
                        self.counters.legacy_transports += 1;
                        tracing::warn!(%transport, "SRTP falls back to AES-CM with HMAC-SHA1, which this pool allows");
                    }
                    // Browsers shake hands on a proved path and may nominate it only afterwards.
                    if let Some(path) = peer.ice.dtls_target() {
                        self.events.push_back(Event::Connected {
                            transport,
                            profile: material.profile,
                            path,
                        });
                    }
                    let subscriptions = peer.subscriptions.clone();
                    for subscription in subscriptions {
                        self.request_target_key_frame(subscription);
                    }
                }
                TransportEvent::ChannelOpen(channel) => self
                    .events
                    .push_back(Event::ChannelOpen { transport, channel }),
                TransportEvent::Data(channel, data) => {
                    if self.rooms.get(peer.room).is_some_and(|room| room.open) {
                        self.events.push_back(Event::Data {
                            transport,
                            channel,
                            payload: data.into(),
                        });
                    } else {
                        self.counters.drop(DropReason::GateClosed);
                    }
                }
                TransportEvent::Failed(failure) => {
                    self.control.extend(self.out.datagrams.drain(..));
                    self.events.push_back(Event::Failed { transport, failure });
                    self.remove_peer(transport);
                    return;
                }
            }
        }
        self.arm_peer(index);
    }

    fn fail(&mut self, now: Timestamp, index: usize, failure: TransportFailure) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let transport = peer.ice.id();
        peer.ice.close(now, &mut self.out);
        self.control.extend(self.out.datagrams.drain(..));
        self.out.events.clear();
        self.events.push_back(Event::Failed { transport, failure });
        self.remove_peer(transport);
    }
}
