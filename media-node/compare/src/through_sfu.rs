// SPDX-License-Identifier: EUPL-1.2
//! The sfu crate (on rtc) as a forwarder; its clients are str0m's, described by SDP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::peer_connection::sdp::{RTCSdpType, RTCSessionDescription};
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use sansio::Protocol;
use sfu::{ClientId, RoomId, SFUEvent, Sfu, TaggedSFUEvent};
use str0m::Event;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::rtp::RtpWrite;

use crate::meter::{Meter, median};
use crate::peers::Peer;

const PAYLOAD: usize = 1164;
const ROUNDS: usize = 11;
const PACKETS: usize = 2000;

fn server() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 3478))
}

fn address(client: ClientId) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 10_000 + client as u16))
}

/// A server, its room and its clients; the publisher is client 0.
struct World {
    sfu: Sfu,
    room: RoomId,
    clients: Vec<Peer>,
    pending: HashMap<ClientId, SdpPendingOffer>,
    now: Instant,
    meter: Meter,
    came: usize,
    mid: Option<Mid>,
}

impl World {
    fn new() -> Self {
        Self {
            sfu: Sfu::new(1, server()),
            room: RoomId::new_v4(),
            clients: Vec::new(),
            pending: HashMap::new(),
            now: Instant::now(),
            meter: Meter::default(),
            came: 0,
            mid: None,
        }
    }

    fn tell(&mut self, event: SFUEvent) {
        self.sfu
            .handle_event(TaggedSFUEvent {
                now: self.now,
                event,
            })
            .expect("the server takes it");
    }

    fn describe(&mut self, client: ClientId, request_id: u64, sdp: RTCSessionDescription) {
        let room_id = self.room;
        self.tell(SFUEvent::SessionDescription {
            request_id,
            room_id,
            client_id: client,
            sdp,
        });
    }

    fn join(&mut self, publishes: bool) -> ClientId {
        let client = self.clients.len() as ClientId;
        let room_id = self.room;
        self.tell(SFUEvent::Join {
            request_id: client,
            room_id,
            client_id: client,
        });
        let mut peer = Peer::described(self.now, address(client));
        let mut change = peer.rtc.sdp_api();
        if publishes {
            self.mid =
                Some(change.add_media(MediaKind::Video, Direction::SendOnly, None, None, None));
        } else {
            change.add_channel("data".to_owned());
        }
        let (offer, pending) = change.apply().expect("a change");
        self.pending.insert(client, pending);
        self.clients.push(peer);
        let offer = RTCSessionDescription::offer(offer.to_sdp_string()).expect("an offer");
        self.describe(client, 1000 + client, offer);
        self.signal();
        client
    }

    /// Answers what the server says.
    fn signal(&mut self) {
        while let Some(TaggedSFUEvent { event, .. }) = self.sfu.poll_event() {
            match event {
                SFUEvent::SessionDescription {
                    request_id,
                    client_id,
                    sdp,
                    ..
                } => {
                    let peer = &mut self.clients[client_id as usize];
                    if sdp.sdp_type == RTCSdpType::Answer {
                        let answer = SdpAnswer::from_sdp_string(&sdp.sdp).expect("an answer");
                        if let Some(pending) = self.pending.remove(&client_id) {
                            peer.rtc
                                .sdp_api()
                                .accept_answer(pending, answer)
                                .expect("the answer fits");
                        }
                    } else {
                        let offer = SdpOffer::from_sdp_string(&sdp.sdp).expect("an offer");
                        let answer = peer
                            .rtc
                            .sdp_api()
                            .accept_offer(offer)
                            .expect("the offer fits");
                        let answer = RTCSessionDescription::answer(answer.to_sdp_string())
                            .expect("an answer");
                        self.describe(client_id, request_id, answer);
                    }
                }
                SFUEvent::Err { reason, .. } => panic!("the server refuses: {reason}"),
                _ => {}
            }
        }
    }

    /// Carries datagrams both ways until nobody has any; the server's part is metered.
    fn carry(&mut self) {
        let now = self.now;
        loop {
            let mut up = Vec::new();
            for peer in &mut self.clients {
                up.append(&mut peer.sent);
            }
            let sfu = &mut self.sfu;
            let down: Vec<TaggedBytesMut> = self.meter.spend(|| {
                for (source, destination, datagram) in &up {
                    let transport = TransportContext {
                        local_addr: *destination,
                        peer_addr: *source,
                        transport_protocol: TransportProtocol::UDP,
                        ecn: None,
                    };
                    let _ = sfu.handle_read(TaggedBytesMut {
                        now,
                        transport,
                        message: BytesMut::from(datagram.as_slice()),
                    });
                }
                // Forwarding happens while it is asked for what it never has.
                while let Some(never) = sfu.poll_read() {
                    match never {}
                }
                std::iter::from_fn(|| sfu.poll_write()).collect()
            });
            if up.is_empty() && down.is_empty() {
                return;
            }
            for datagram in down {
                let client = usize::from(datagram.transport.peer_addr.port() - 10_000);
                if let Some(peer) = self.clients.get_mut(client) {
                    peer.receive(
                        now,
                        server(),
                        datagram.transport.peer_addr,
                        &datagram.message,
                    );
                }
            }
            for (client, peer) in self.clients.iter_mut().enumerate() {
                let media = peer
                    .events
                    .drain(..)
                    .filter(|event| matches!(event, Event::RtpPacket(_)))
                    .count();
                self.came += if client > 0 { media } else { 0 };
            }
        }
    }

    fn step(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        for peer in &mut self.clients {
            if peer.next <= now {
                peer.tick(now);
            }
        }
        self.carry();
        if self.sfu.poll_timeout().is_some_and(|at| at <= now) {
            let sfu = &mut self.sfu;
            self.meter.spend(|| {
                let _ = sfu.handle_timeout(now);
            });
        }
        self.signal();
        self.carry();
    }
}

/// Prints one line per fan-out.
pub fn run() {
    println!(
        "\nsfu 0.5 on rtc 0.21\n{:>8} {:>14} {:>12}",
        "fan-out", "ns per packet", "allocations"
    );
    for fan_out in [1, 10, 50] {
        match measure(fan_out) {
            Some((nanos, allocations, arrived)) => {
                println!(
                    "{fan_out:>8} {nanos:>14.0} {allocations:>12.1}   {:.1} % arrived",
                    arrived * 100.0
                );
            }
            None => println!("{fan_out:>8} {:>14}", "no media came"),
        }
    }
}

fn measure(fan_out: usize) -> Option<(f64, f64, f64)> {
    let mut world = World::new();
    let publisher = world.join(true) as usize;
    for _ in 0..400 {
        world.step(Duration::from_millis(5));
    }
    for _ in 0..fan_out {
        world.join(false);
        for _ in 0..20 {
            world.step(Duration::from_millis(5));
        }
    }
    for _ in 0..1000 {
        world.step(Duration::from_millis(5));
    }
    let codec = world.clients[publisher]
        .rtc
        .codec_config()
        .find(|parameters| parameters.spec().codec == Codec::Vp8)
        .map(|parameters| parameters.pt())?;
    let mid = world.mid?;
    let payload = vec![0x11; PAYLOAD];
    let (mut times, mut allocations) = (Vec::new(), Vec::new());
    let (mut sequence, mut sent, mut arrived) = (1000_u64, 0_usize, 0_usize);
    let frames = (PACKETS / fan_out).max(40);
    for round in 0..=ROUNDS {
        world.meter = Meter::default();
        world.came = 0;
        for _ in 0..frames {
            let now = world.now + Duration::from_millis(5);
            let mut direct = world.clients[publisher].rtc.direct_api();
            direct.stream_tx_by_mid(mid, None)?.write_rtp(RtpWrite::new(
                codec,
                sequence.into(),
                sequence as u32 * 450,
                now,
                payload.as_slice(),
            ));
            sequence += 1;
            world.clients[publisher].tick(now);
            world.step(Duration::from_millis(5));
        }
        if world.came == 0 && round > 1 {
            return None;
        }
        let came = world.came;
        let (nanos, allocated) = world.meter.per(came.max(1));
        if round > 0 {
            times.push(nanos);
            allocations.push(allocated);
            sent += frames * fan_out;
            arrived += came;
        }
    }
    Some((
        median(times),
        median(allocations),
        arrived as f64 / sent as f64,
    ))
}
