// SPDX-License-Identifier: EUPL-1.2
//! str0m in RTP mode as a forwarder: one publisher, its packets written to every subscriber.

use std::time::{Duration, Instant};

use str0m::Event;
use str0m::format::Codec;
use str0m::media::MediaKind;
use str0m::rtp::{RtpWrite, Ssrc};

use crate::meter::{Meter, median};
use crate::peers::{Peer, connected, exchange};

const PAYLOAD: usize = 1164;
const ROUNDS: usize = 21;
const PACKETS: usize = 2000;

/// Prints one line per fan-out.
pub fn run() {
    println!(
        "\nstr0m 0.25, RTP mode, no bandwidth estimation\n{:>8} {:>14} {:>12}",
        "fan-out", "ns per packet", "allocations"
    );
    str0m::crypto::from_feature_flags().install_process_default();
    for fan_out in [1, 10, 50] {
        let (nanos, allocations, arrived) = measure(fan_out);
        println!(
            "{fan_out:>8} {nanos:>14.0} {allocations:>12.1}   {:.1} % arrived",
            arrived * 100.0
        );
    }
}

fn measure(fan_out: usize) -> (f64, f64, f64) {
    let mut now = Instant::now();
    let (mut publisher, mut entry) = connected(0, &mut now);
    let mut subscribers: Vec<(Peer, Peer)> = (1..=fan_out)
        .map(|number| connected(number as u16, &mut now))
        .collect();
    let (mid, ssrc): (_, Ssrc) = ("vid".into(), 1.into());
    publisher
        .rtc
        .direct_api()
        .declare_media(mid, MediaKind::Video);
    publisher
        .rtc
        .direct_api()
        .declare_stream_tx(ssrc, None, mid, None);
    entry.rtc.direct_api().declare_media(mid, MediaKind::Video);
    entry
        .rtc
        .direct_api()
        .expect_stream_rx(ssrc, None, mid, None);
    for (client, exit) in &mut subscribers {
        exit.rtc.direct_api().declare_media(mid, MediaKind::Video);
        exit.rtc
            .direct_api()
            .declare_stream_tx(ssrc, None, mid, None);
        client.rtc.direct_api().declare_media(mid, MediaKind::Video);
        client
            .rtc
            .direct_api()
            .expect_stream_rx(ssrc, None, mid, None);
    }
    let codec = publisher
        .rtc
        .codec_config()
        .find(|parameters| parameters.spec().codec == Codec::Vp8)
        .map(|parameters| parameters.pt())
        .expect("VP8");
    let payload = vec![0x11; PAYLOAD];
    let mut meter = Meter::default();
    let (mut times, mut allocations) = (Vec::new(), Vec::new());
    let (mut sequence, mut sent, mut arrived) = (1000_u64, 0_usize, 0_usize);
    let frames = (PACKETS / fan_out).max(40);
    for round in 0..=ROUNDS {
        let (mut forwarded, mut came) = (0, 0);
        for _ in 0..frames {
            now += Duration::from_millis(5);
            publisher
                .rtc
                .direct_api()
                .stream_tx(&ssrc)
                .expect("declared")
                .write_rtp(RtpWrite::new(
                    codec,
                    sequence.into(),
                    sequence as u32 * 450,
                    now,
                    payload.as_slice(),
                ));
            sequence += 1;
            publisher.tick(now);
            let datagrams = std::mem::take(&mut publisher.sent);
            // The server's part: open, hand to every subscriber, seal, and its timers.
            meter.spend(|| {
                for (source, destination, datagram) in &datagrams {
                    entry.receive(now, *source, *destination, datagram);
                }
                if entry.next <= now {
                    entry.tick(now);
                }
                for event in entry.events.drain(..) {
                    let Event::RtpPacket(packet) = event else {
                        continue;
                    };
                    for (_, exit) in &mut subscribers {
                        exit.rtc
                            .direct_api()
                            .stream_tx(&ssrc)
                            .expect("declared")
                            .write_rtp(RtpWrite::new(
                                packet.header.payload_type,
                                packet.seq_no,
                                packet.time.numer() as u32,
                                now,
                                packet.payload.clone(),
                            ));
                        exit.tick(now);
                        forwarded += 1;
                    }
                }
            });
            // The clients' part: take it, answer with RTCP; what comes back costs the server again.
            for (client, exit) in &mut subscribers {
                for (source, destination, datagram) in std::mem::take(&mut exit.sent) {
                    client.receive(now, source, destination, &datagram);
                }
                came += client
                    .events
                    .drain(..)
                    .filter(|event| matches!(event, Event::RtpPacket(_)))
                    .count();
                if client.next <= now {
                    client.tick(now);
                }
                let back = std::mem::take(&mut client.sent);
                if !back.is_empty() {
                    meter.spend(|| {
                        for (source, destination, datagram) in &back {
                            exit.receive(now, *source, *destination, datagram);
                        }
                    });
                }
                exit.events.clear();
            }
            exchange(&mut publisher, &mut entry, now);
            publisher.events.clear();
        }
        let (nanos, allocated) = meter.per(forwarded.max(1));
        if round > 0 {
            times.push(nanos);
            allocations.push(allocated);
            sent += frames * fan_out;
            arrived += came;
        }
    }
    (
        median(times),
        median(allocations),
        arrived as f64 / sent as f64,
    )
}
