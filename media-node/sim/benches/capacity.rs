// SPDX-License-Identifier: EUPL-1.2
//! What a shard costs beside packets: idle tracks, memory, joins. `cargo bench -p media-sim --bench capacity`.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{allocations, cpu_time, live_bytes, machine, median, pin};
use media_core::api::{Codec, Command, Event, IceCredentials, Side};
use media_core::ids::{ParticipantId, ShardId, TransportId};
use media_core::io::{Path, Protocol, RecvBatch};
use media_core::shard::{Shard, ShardConfig};
use media_core::time::{Timestamp, WallAnchor};
use media_core::transport::client::ClientTransport;
use media_core::transport::{TransportEvent, TransportOut};
use media_crypto::{AwsLc, Certificate};
use media_sim::world::{ROOM, World};

/// Participants of the idle world; each may publish 16 tracks.
const IDLE_PARTICIPANTS: usize = 126;

fn main() {
    pin();
    println!("{}", machine());
    joins();
    memory();
    idle();
}

/// CPU time of the shard for one virtual second in which nobody sends: what its timers do, with `tracks` tracks declared.
fn idle() {
    println!(
        "\nidle: CPU time of the shard per virtual second, {IDLE_PARTICIPANTS} connected participants, nobody sends"
    );
    println!("{:>8} {:>16} {:>10}", "tracks", "µs per second", "timers");
    let mut world = World::new(1);
    let clients: Vec<_> = (0..IDLE_PARTICIPANTS).map(|_| world.begin_join()).collect();
    world.run(Duration::from_secs(3));
    world.open();
    let mut published = 0;
    for tracks in [2, 20, 200, 2000] {
        while published < tracks {
            let client = clients[published % IDLE_PARTICIPANTS];
            let track = world.publish(
                client,
                if published % 2 == 0 {
                    Codec::Opus
                } else {
                    Codec::Vp8
                },
                1,
            );
            world.source(track).layers[0].enabled = false;
            world.subscribe(clients[(published + 1) % IDLE_PARTICIPANTS], track);
            published += 1;
        }
        // What subscribing set off is over, and every path was checked just now.
        world.run(Duration::from_secs(3));
        let mut now = world.now();
        let shard = &mut world.shards[0];
        let (mut figures, timers) = (Vec::new(), shard.counters().fired_timers);
        for _ in 0..10 {
            let end = now + Duration::from_secs(1);
            let begin = cpu_time();
            // A node wakes twice a second at least.
            while now < end {
                now = shard
                    .poll_deadline()
                    .unwrap_or(end)
                    .min(now + Duration::from_millis(500))
                    .min(end)
                    .max(now);
                shard.handle_timeout(now);
                while shard.poll_transmit().is_some() {}
                while shard.poll_event().is_some() {}
                if now < end {
                    now = now + Duration::from_nanos(1);
                }
            }
            figures.push((cpu_time() - begin).as_nanos() as f64 / 1000.0);
        }
        let timers = shard.counters().fired_timers - timers;
        println!("{tracks:>8} {:>16.2} {timers:>10}", median(figures));
        // Back to a time in which the clients' checks keep their paths.
        world.run(Duration::from_secs(11));
    }
}

/// Bytes a shard frees when it goes, by number of participants and tracks.
fn memory() {
    println!("\nmemory: heap of the shard per participant, from the difference of two rooms");
    let heap = |subscribers: usize, tracks: usize, sending: bool| {
        let mut world = World::new(1);
        let publisher = world.begin_join();
        let joined: Vec<_> = (0..subscribers).map(|_| world.begin_join()).collect();
        world.run(Duration::from_secs(3));
        world.open();
        for track in 0..tracks {
            let track = world.publish(
                publisher,
                if track % 2 == 0 {
                    Codec::Opus
                } else {
                    Codec::Vp8
                },
                1,
            );
            world.source(track).layers[0].enabled = sending;
            for client in &joined {
                world.subscribe(*client, track);
            }
        }
        world.run(Duration::from_secs(2));
        let before = live_bytes();
        world.shards.clear();
        (before - live_bytes()) as f64 / 1024.0
    };
    let per = |more: f64, less: f64, count: usize| (more - less) / count as f64;
    let connection = per(heap(60, 0, false), heap(10, 0, false), 50);
    println!("  connection with data channels, no media    {connection:>8.1} KB");
    let one = per(heap(60, 2, true), heap(10, 2, true), 50);
    println!("  same, receiving 2 tracks                   {one:>8.1} KB");
    let ten = per(heap(60, 10, true), heap(10, 10, true), 50);
    println!("  same, receiving 10 tracks                  {ten:>8.1} KB");
    println!(
        "  subscriber: two connections, 10 tracks     {:>8.1} KB, wanted: at most 64",
        ten + connection
    );
    let video = per(heap(1, 16, true), heap(1, 0, true), 8);
    println!(
        "  publisher, in addition per camera and microphone, with their rings {video:>8.1} KB"
    );
}

/// CPU time of the shard for whole joins: checks, DTLS handshake, SCTP association, both data channels.
fn joins() {
    let certificate = Arc::new(Certificate::generate().expect("certificate"));
    let fingerprint = certificate.fingerprint();
    let mut now = Timestamp::from_millis(1000);
    let wall = WallAnchor {
        at: now,
        unix_nanos: 1_700_000_000_000_000_000,
    };
    let mut shard = Shard::new(
        ShardId(0),
        ShardConfig::default(),
        AwsLc::new(certificate, false),
        now,
        wall,
    );
    shard.handle_command(now, Command::AddRoom { room: ROOM });
    let (mut figures, mut allocated) = (Vec::new(), 0);
    const JOINS: usize = 300;
    for join in 0..JOINS {
        let credentials = |name: &str| IceCredentials {
            ufrag: format!("00{name}{join}"),
            password: format!("{name}-and-some-more-characters"),
        };
        let (ours, theirs) = (credentials("node"), credentials("client"));
        let path = Path {
            protocol: Protocol::Udp,
            local: SocketAddr::from(([127, 0, 0, 1], 2000)),
            remote: SocketAddr::from(([127, 0, 0, 1], 10_000 + join as u16)),
        };
        let turned = Path {
            local: path.remote,
            remote: path.local,
            ..path
        };
        let own = Arc::new(Certificate::generate().expect("certificate"));
        let mut crypto = AwsLc::new(Arc::clone(&own), false);
        let dtls = crypto.dtls_client(fingerprint, now);
        let mut client =
            ClientTransport::new(theirs.clone(), ours.clone(), turned, dtls, true, now);
        let transport = TransportId(join as u64);
        let mut spent = Duration::ZERO;
        let mut allocations_here = 0;
        let mut channels = 0;
        let mut at_client: Vec<Vec<u8>> = Vec::new();
        let mut at_shard: Vec<Vec<u8>> = Vec::new();
        let mut work = |shard: &mut Shard<AwsLc>,
                        at_client: &mut Vec<Vec<u8>>,
                        work: &mut dyn FnMut(&mut Shard<AwsLc>)| {
            let (begin, before) = (cpu_time(), allocations());
            work(shard);
            while let Some(transmit) = shard.poll_transmit() {
                at_client.push(transmit.bytes.to_vec());
            }
            spent += cpu_time() - begin;
            allocations_here += allocations() - before;
        };
        work(&mut shard, &mut at_client, &mut |shard| {
            shard.handle_command(
                now,
                Command::AddTransport {
                    transport,
                    room: ROOM,
                    participant: ParticipantId(join as u64),
                    side: Side::Publisher,
                    local: ours.clone(),
                },
            );
            shard.handle_command(
                now,
                Command::SetRemote {
                    transport,
                    remote: theirs.clone(),
                    fingerprint: own.fingerprint(),
                },
            );
        });
        for _ in 0..1000 {
            now = now + Duration::from_millis(1);
            let mut out = TransportOut::default();
            client.handle_timeout(now, &mut crypto, &mut out);
            for datagram in at_client.drain(..) {
                client.handle_datagram(now, &mut crypto, &datagram, &mut out);
            }
            at_shard.extend(out.datagrams.drain(..).map(|(_, datagram)| datagram));
            channels += out
                .events
                .iter()
                .filter(|event| matches!(event, TransportEvent::ChannelOpen(_)))
                .count();
            if !at_shard.is_empty() {
                let mut batch = RecvBatch::default();
                at_shard
                    .drain(..)
                    .for_each(|datagram| batch.push(path, &datagram));
                work(&mut shard, &mut at_client, &mut |shard| {
                    shard.handle_datagrams(now, &mut batch)
                });
            }
            if shard
                .poll_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                work(&mut shard, &mut at_client, &mut |shard| {
                    shard.handle_timeout(now)
                });
            }
            let open = std::iter::from_fn(|| shard.poll_event())
                .filter(|event| matches!(event, Event::ChannelOpen { .. }))
                .count();
            if open > 0 && channels >= 2 && at_client.is_empty() {
                break;
            }
        }
        assert!(channels >= 2, "join {join} opened its channels");
        figures.push(spent.as_nanos() as f64 / 1000.0);
        allocated += allocations_here;
        shard.handle_command(now, Command::RemoveTransport { transport });
        while shard.poll_transmit().is_some() {}
        while shard.poll_event().is_some() {}
    }
    let micros = median(figures);
    println!(
        "joins: ICE, DTLS and SCTP of one connection cost the shard {micros:.0} µs of CPU (median of {JOINS}), {} allocations",
        allocated / JOINS as u64
    );
    println!(
        "  {:.0} connections, or {:.0} participants of two connections, per CPU-second; wanted: at most 400 µs",
        1e6 / micros,
        5e5 / micros
    );
}
