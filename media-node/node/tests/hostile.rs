// SPDX-License-Identifier: EUPL-1.2
//! Strangers: on the media ports, on ICE-TCP, on the service. Everything they may hold is bounded, and calls go on.

mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use media_core::api::Channel;
use media_core::io::Protocol;
use media_node::acceptor::PENDING_PER_ADDRESS_MAX;
use plenum_load::headless::Source;
use plenum_proto::v1::session_up::Item as Up;
use plenum_proto::v1::{Frame, OpenRequest, SessionUp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use world::{
    Call, LIVENESS, Role, Setting, World, act_until, eventually, key, policy, scrape, session_start,
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Two people meet now, whatever goes on beside them.
async fn people_meet(world: &World, room: &str, protocol: Protocol) {
    let call = world.call().await;
    call.open(room, 1, None).await.expect("opened");
    let mut people = Vec::new();
    for identity in ["alice", "bob"] {
        let mut person = call
            .join(session_start(room, 1, identity), LOCALHOST, protocol)
            .await;
        person.publish(Source::Microphone);
        people.push(person);
    }
    act_until("people meet", &mut people, |people| {
        people.iter_mut().all(|person| person.received(1) >= 10)
    })
    .await;
}

/// A connection from another loopback address, so that it counts as another stranger.
async fn connect_from(source: Ipv4Addr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    socket.connect(target).await
}

/// Waits until the other side closes.
async fn closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end as well.
    tokio::time::timeout(LIVENESS, stream.read_to_end(&mut rest))
        .await
        .expect("closed")
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_senseless_tcp_strangers_are_bounded_and_closed() {
    let world = World::start(Setting {
        shards: 2,
        ..Setting::default()
    })
    .await;
    let target = world.node.media_addresses()[0];
    let metrics = world.node.metrics_address().expect("metrics");
    let mut silent = Vec::new();
    for _ in 0..PENDING_PER_ADDRESS_MAX + 40 {
        silent.push(
            connect_from(Ipv4Addr::new(127, 0, 0, 2), target)
                .await
                .expect("connect"),
        );
    }
    eventually("those beyond the bound are refused", async || {
        scrape(
            metrics,
            "plenum_media_tcp_connections_total{outcome=\"refused\"}",
        )
        .await
            >= Some(40.0)
    })
    .await;
    people_meet(&world, "beside", Protocol::Tcp).await;
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        &[0xff; 2000],
        &[0, 1, 1],
        &[0; 3000],
    ] {
        let mut stranger = connect_from(Ipv4Addr::new(127, 0, 0, 3), target)
            .await
            .expect("connect");
        stranger.write_all(bytes).await.expect("write");
        closed(stranger).await;
    }
    for stranger in silent {
        closed(stranger).await;
    }
    people_meet(&world, "after", Protocol::Tcp).await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_without_the_password_is_no_admission() {
    let world = World::start(Setting::default()).await;
    let target = world.node.media_addresses()[0];
    let metrics = world.node.metrics_address().expect("metrics");
    // A well-formed check for shard 0 without integrity: handed over, never answered with success.
    let mut check = vec![
        0, 1, 0, 16, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];
    check.extend([0, 6, 0, 11]);
    check.extend(b"00abcd:peer\0");
    let mut stranger = TcpStream::connect(target).await.expect("connect");
    stranger
        .write_all(&[(check.len() as u16).to_be_bytes().as_slice(), &check].concat())
        .await
        .expect("write");
    eventually("it is handed over", async || {
        scrape(
            metrics,
            "plenum_media_tcp_connections_total{outcome=\"handed_over\"}",
        )
        .await
            == Some(1.0)
    })
    .await;
    closed(stranger).await;
    eventually("the shard holds no connection", async || {
        scrape(metrics, "plenum_media_shard_streams{shard=\"0\"}").await == Some(0.0)
    })
    .await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senseless_datagrams_are_counted_and_change_nothing() {
    let world = World::start(Setting {
        shards: 2,
        ..Setting::default()
    })
    .await;
    let target = world.node.media_addresses()[0];
    let metrics = world.node.metrics_address().expect("metrics");
    // Every first byte and many lengths, also what is longer than any datagram of ours; no randomness, so that a failure repeats.
    let stranger = std::net::UdpSocket::bind((LOCALHOST, 0)).expect("bind");
    for first in 0..=255_u8 {
        for length in [1, 2, 12, 20, 21, 100, 1_500, 2_049] {
            let mut datagram: Vec<u8> = (0..length)
                .map(|at| (at as u8).wrapping_mul(31) ^ first)
                .collect();
            datagram[0] = first;
            stranger.send_to(&datagram, target).expect("send");
        }
    }
    eventually("they are counted", async || {
        let mut dropped = 0.0;
        for shard in ["0", "1"] {
            for reason in ["unknown_protocol", "unknown_path", "unknown_fragment", "oversized"] {
                let series = format!("plenum_media_shard_dropped_packets_total{{shard=\"{shard}\",reason=\"{reason}\"}}");
                dropped += scrape(metrics, &series).await.expect("the series exists");
            }
        }
        dropped >= 256.0
    })
    .await;
    people_meet(&world, "after", Protocol::Udp).await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_without_credentials_is_refused_and_so_knows_that_somebody_is_there() {
    let world = World::start(Setting {
        shards: 2,
        ..Setting::default()
    })
    .await;
    let target = world.node.media_addresses()[0];
    // A header alone would be answered by more than was sent, and is not.
    let header = |last: u8, length: u8| {
        vec![
            0, 1, 0, length, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, last,
        ]
    };
    let mut probe = header(2, 68);
    probe.extend([0, 0x26, 0, 64]);
    probe.resize(88, 0);
    let socket = tokio::net::UdpSocket::bind((LOCALHOST, 0))
        .await
        .expect("bind");
    socket.connect(target).await.expect("connect");
    socket.send(&header(1, 0)).await.expect("send");
    socket.send(&probe).await.expect("send");
    let mut answer = [0; 576];
    let length = tokio::time::timeout(std::time::Duration::from_secs(30), socket.recv(&mut answer))
        .await
        .expect("an answer")
        .expect("received");
    assert!(length <= probe.len(), "{length} bytes");
    assert_eq!(answer[..2], [0x01, 0x11], "refused");
    assert_eq!(answer[8..20], probe[8..20], "the probe's transaction");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_reaches_its_shard_from_whatever_socket_the_kernel_chose() {
    let world = World::start(Setting {
        shards: 2,
        ..Setting::default()
    })
    .await;
    let target = world.node.media_addresses()[0];
    let metrics = world.node.metrics_address().expect("metrics");
    let mut check = vec![
        0, 1, 0, 16, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];
    check.extend([0, 6, 0, 11]);
    check.extend(b"01abcd:peer\0");
    // From 64 ports: the kernel spreads them over both sockets, all belong to the second shard.
    for _ in 0..64 {
        std::net::UdpSocket::bind((LOCALHOST, 0))
            .expect("bind")
            .send_to(&check, target)
            .expect("send");
    }
    eventually(
        "all arrive at the second shard, some by hand-over",
        async || {
            let dropped =
                "plenum_media_shard_dropped_packets_total{shard=\"1\",reason=\"unknown_fragment\"}";
            let handed = "plenum_media_shard_handed_over_datagrams_total{shard=\"0\"}";
            scrape(metrics, dropped).await == Some(64.0)
                && scrape(metrics, handed).await > Some(0.0)
        },
    )
    .await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_is_for_the_control_plane_alone() {
    let world = World::start(Setting::default()).await;
    let node = world.node.grpc_address();
    for role in [Role::Operator, Role::Node] {
        let call = Call::connect(&world.pki, node, role).await;
        assert_eq!(
            call.open("a", 1, None).await.expect_err("refused").code(),
            Code::PermissionDenied,
            "{role:?}"
        );
    }
    // Without a certificate the handshake fails; TLS 1.3 tells so with the first call.
    if let Ok(call) = Call::try_connect(&world.pki, node, None).await {
        assert!(call.open("a", 1, None).await.is_err());
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_calls_are_refused_by_name_and_bounded() {
    let world = World::start(Setting::default()).await;
    let mut client = world.call().await.client;
    let request = OpenRequest {
        key: Some(key("a")),
        epoch: 1,
        policy: None,
        facts: None,
    };
    let refused = client.open(request.clone()).await.expect_err("no policy");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "policy is missing")
    );
    let request = OpenRequest {
        policy: Some(policy()),
        epoch: 0,
        ..request
    };
    assert_eq!(
        client
            .open(request.clone())
            .await
            .expect_err("no epoch")
            .code(),
        Code::InvalidArgument
    );
    let mut huge = policy();
    huge.revision = "x".repeat(8 << 20);
    let request = OpenRequest {
        policy: Some(huge),
        ..request
    };
    assert_eq!(
        client.open(request).await.expect_err("huge").code(),
        Code::OutOfRange
    );

    let (up, queue) = tokio::sync::mpsc::channel(1);
    up.send(SessionUp {
        item: Some(Up::Frame(Frame::default())),
    })
    .await
    .expect("queue");
    let refused = client
        .session(ReceiverStream::new(queue))
        .await
        .expect_err("a frame first");
    assert_eq!(refused.code(), Code::InvalidArgument);

    // Frames that are no LiveKit messages end at most their own session.
    let call = world.call().await;
    call.open("a", 1, None).await.expect("opened");
    let (up, queue) = tokio::sync::mpsc::channel(8);
    up.send(SessionUp {
        item: Some(Up::Start(session_start("a", 1, "mallory"))),
    })
    .await
    .expect("queue");
    let _down = client
        .session(ReceiverStream::new(queue))
        .await
        .expect("a session");
    for kind in [0, 1, 2, 99] {
        let frame = Frame {
            kind,
            data: vec![0xff; 70_000],
        };
        if up
            .send(SessionUp {
                item: Some(Up::Frame(frame)),
            })
            .await
            .is_err()
        {
            break;
        }
    }
    people_meet(&world, "a", Protocol::Udp).await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_reliable_data_does_not_end_the_room() {
    let world = World::start(Setting::default()).await;
    let metrics = world.node.metrics_address().expect("metrics");
    let call = world.call().await;
    let sid = |opened: plenum_proto::v1::OpenResponse| opened.facts.expect("facts").room_sid;
    let before = sid(call.open("a", 1, None).await.expect("opened"));
    let mut people = vec![
        call.join(session_start("a", 1, "mallory"), LOCALHOST, Protocol::Udp)
            .await,
    ];
    people[0].publish(Source::Microphone);
    let mut sent = 0;
    // As fast as her own channel takes them; each is dropped by the room as no message of LiveKit's.
    act_until("a flood", &mut people, |people| {
        let driver = &mut people[0].driver;
        let now = driver.now();
        for _ in 0..500 {
            sent += u32::from(
                driver
                    .client()
                    .send_data(now, Channel::Reliable, b"\xff\xff")
                    .is_ok(),
            );
        }
        sent >= 30_000
    })
    .await;
    eventually("the room saw it, or ended her", async || {
        let dropped = scrape(metrics, "plenum_media_room_dropped_total{reason=\"data\"}").await;
        let ended = scrape(metrics, "plenum_media_data_flooders_total").await;
        dropped >= Some(1_000.0) || ended >= Some(1.0)
    })
    .await;
    people_meet(&world, "a", Protocol::Udp).await;
    assert_eq!(sid(call.open("a", 1, None).await.expect("lives")), before);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_the_service_hold_a_bounded_place_for_a_moment() {
    let world = World::start(Setting::default()).await;
    let node = world.node.grpc_address();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(node).await.expect("connect"));
    }
    for stranger in silent {
        closed(stranger).await;
    }
    people_meet(&world, "after", Protocol::Udp).await;
    let metrics = world.node.metrics_address().expect("metrics");
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(metrics).await.expect("connect"));
    }
    for stranger in silent {
        closed(stranger).await;
    }
    assert_eq!(scrape(metrics, "plenum_media_rooms").await, Some(1.0));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_foreign_checks_across_shards_leaves_calls_alone() {
    let world = World::start(Setting {
        shards: 2,
        ..Setting::default()
    })
    .await;
    let target = world.node.media_addresses()[0];
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&stop);
    // From many ports, so that both sockets get their share; all name the other shard as often as their own.
    let flood = std::thread::spawn(move || {
        let sockets: Vec<std::net::UdpSocket> = (0..16)
            .map(|_| std::net::UdpSocket::bind((LOCALHOST, 0)).expect("bind"))
            .collect();
        let mut sent = 0_u32;
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            for (number, socket) in sockets.iter().enumerate() {
                let mut check = vec![
                    0, 1, 0, 16, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
                ];
                check.extend([0, 6, 0, 11, b'0', b'0' + (number % 2) as u8]);
                check.extend(b"abcd:peer\0");
                sent += u32::from(socket.send_to(&check, target).is_ok());
            }
            std::thread::yield_now();
        }
        sent
    });
    for room in ["one", "two"] {
        people_meet(&world, room, Protocol::Udp).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(flood.join().expect("the flood") > 1_000);
    world.node.stop().await;
}
