// SPDX-License-Identifier: EUPL-1.2
//! The UDP socket against the real kernel, on loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use media_core::io::{DATAGRAM_BYTES_MAX, Path, Protocol, RecvBatch, Transmit};
use media_net::{Sent, UdpSocket};

const BUFFER: usize = 1 << 20;

fn loopbacks() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    match std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => addresses.push(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        Err(error) => eprintln!("SKIPPED: IPv6, because this machine has no ::1 ({error})"),
    }
    addresses
}

fn pair(ip: IpAddr) -> (UdpSocket, UdpSocket) {
    let bind =
        || UdpSocket::bind(SocketAddr::new(ip, 0), false, BUFFER).expect("loopback can be bound");
    (bind(), bind())
}

fn path(from: &UdpSocket, to: &UdpSocket) -> Path {
    Path {
        protocol: Protocol::Udp,
        local: from.local_addr(),
        remote: to.local_addr(),
    }
}

/// Receives until `count` datagrams came; a generous bound keeps a failure from hanging.
fn datagrams(socket: &mut UdpSocket, count: usize) -> Vec<(Path, Vec<u8>)> {
    let mut batch = RecvBatch::default();
    let mut all = Vec::new();
    let until = Instant::now() + Duration::from_secs(20);
    while all.len() < count && Instant::now() < until {
        socket.recv(&mut batch).expect("receive");
        for meta in &batch.metas {
            let bytes = &batch.buffer[meta.offset..meta.offset + meta.len];
            all.extend(
                bytes
                    .chunks(meta.segment)
                    .map(|datagram| (meta.path, datagram.to_vec())),
            );
        }
        std::thread::yield_now();
    }
    all
}

/// `count` datagrams of `segment` bytes, the last shorter, each filled with its number.
fn run_of(count: usize, segment: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count)
        .flat_map(|number| vec![number as u8; segment])
        .collect();
    bytes.truncate(bytes.len() - segment / 2);
    bytes
}

#[test]
fn a_run_arrives_as_its_datagrams_on_both_families() {
    for ip in loopbacks() {
        for (segmented, count) in [(true, 1), (true, 9), (true, 40), (false, 9), (false, 64)] {
            let (mut from, mut to) = pair(ip);
            if !segmented {
                from.disable_segmentation();
            }
            let bytes = run_of(count, 1200);
            let bytes = &bytes[..bytes.len().min(60_000)];
            let expected: Vec<Vec<u8>> = bytes.chunks(1200).map(<[u8]>::to_vec).collect();
            let way = path(&from, &to);
            let sent = from.send(&Transmit {
                path: way,
                bytes,
                segment: 1200,
            });
            assert_eq!(sent.datagrams, expected.len() as u64);
            assert_eq!(sent.segmented, from.segments() && expected.len() > 1);
            assert_eq!(
                sent.sends,
                if sent.segmented {
                    1
                } else {
                    expected.len() as u64
                }
            );
            let received = datagrams(&mut to, expected.len());
            for (arrived, _) in &received {
                assert_eq!(
                    *arrived,
                    Path {
                        protocol: Protocol::Udp,
                        local: way.remote,
                        remote: way.local
                    }
                );
            }
            let received: Vec<Vec<u8>> = received.into_iter().map(|(_, bytes)| bytes).collect();
            assert_eq!(
                received, expected,
                "{ip} segmented={segmented} count={count}"
            );
        }
    }
}

#[test]
fn what_is_longer_than_a_datagram_may_be_is_dropped_and_counted() {
    let (mut from, mut to) = pair(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let long = vec![1; DATAGRAM_BYTES_MAX + 1];
    let way = path(&from, &to);
    assert_eq!(
        from.send(&Transmit {
            path: way,
            bytes: &long,
            segment: long.len()
        })
        .datagrams,
        1
    );
    assert_eq!(
        from.send(&Transmit {
            path: way,
            bytes: &[2; 100],
            segment: 100
        })
        .datagrams,
        1
    );
    let received = datagrams(&mut to, 1);
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].1, [2; 100]);
    assert_eq!(to.unusable(), 1);
}

#[test]
fn a_segment_above_the_route_falls_back_without_giving_segmentation_up() {
    let (mut from, _to) = pair(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let segments = from.segments();
    // No payload of UDP is that long, segmented or not: nothing is taken, and nothing is concluded for other runs.
    let bytes = vec![0; 140_000];
    let way = path(&from, &from);
    assert_eq!(
        from.send(&Transmit {
            path: way,
            bytes: &bytes,
            segment: 70_000
        }),
        Sent::default()
    );
    assert_eq!(from.segments(), segments);
}

#[test]
fn a_full_receive_buffer_is_counted() {
    let mut to = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), false, 4096).expect("bind");
    let mut from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), false, BUFFER).expect("bind");
    let way = path(&from, &to);
    for _ in 0..200 {
        from.send(&Transmit {
            path: way,
            bytes: &[0; 1000],
            segment: 1000,
        });
    }
    let before = datagrams(&mut to, 1).len();
    assert!(before < 200);
    // The counter comes with the first datagram queued after the drops.
    from.send(&Transmit {
        path: way,
        bytes: &[1; 1000],
        segment: 1000,
    });
    let mut batch = RecvBatch::default();
    let until = Instant::now() + Duration::from_secs(20);
    while to.overflowed() == 0 && Instant::now() < until {
        to.recv(&mut batch).expect("receive");
    }
    assert!(to.overflowed() > 0);
}

#[test]
fn sockets_that_share_a_port_get_every_datagram_once() {
    let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), true, BUFFER).expect("bind");
    let second = UdpSocket::bind(first.local_addr(), true, BUFFER).expect("the port is shared");
    let target = first.local_addr();
    let mut sockets = [first, second];
    let senders: Vec<std::net::UdpSocket> = (0..64)
        .map(|_| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind"))
        .collect();
    for (number, sender) in senders.iter().enumerate() {
        sender.send_to(&[number as u8; 10], target).expect("send");
    }
    let mut seen: Vec<u8> = Vec::new();
    let mut batch = RecvBatch::default();
    let until = Instant::now() + Duration::from_secs(20);
    while seen.len() < 64 && Instant::now() < until {
        for socket in &mut sockets {
            socket.recv(&mut batch).expect("receive");
            seen.extend(batch.metas.iter().map(|meta| batch.buffer[meta.offset]));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..64).collect::<Vec<u8>>());
    assert!(
        UdpSocket::bind(target, false, BUFFER).is_err(),
        "an unshared bind of a taken port fails"
    );
}

#[test]
fn granted_buffers_are_read_back() {
    let asked = 512 * 1024 * 1024;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), false, asked).expect("bind");
    let buffers = socket.buffers();
    assert!(buffers.receive > 0 && buffers.send > 0);
    assert_eq!(
        buffers.are_short(),
        buffers.receive < asked || buffers.send < asked
    );
}
