// SPDX-License-Identifier: EUPL-1.2
//! The shard with real SRTP between clients over clear wires: what is forwarded, to whom, and under which numbers.

use std::time::Duration;

use media_core::api::{Channel, Codec, Command, Event};
use media_core::ids::Ssrc;
use media_core::rtp::rtcp;
use media_core::shard::DropReason;
use media_sim::inbound::Report;
use media_sim::world::{World, payloads};

const SECOND: Duration = Duration::from_secs(1);

/// No gap, no jump, no wrong number, no pause above half a second.
fn assert_clean(report: &Report, what: &str) {
    assert_eq!(
        (
            report.gaps,
            report.jumps,
            report.timestamp_errors,
            report.picture_errors,
            report.capture_errors
        ),
        (0, 0, 0, 0, 0),
        "{what}: {report:?}"
    );
    assert!(
        report.longest_pause <= Duration::from_millis(500),
        "{what}: {report:?}"
    );
}

#[test]
fn a_published_stream_of_every_codec_reaches_its_subscriber_and_nobody_else() {
    for codec in [
        Codec::Vp8,
        Codec::H264,
        Codec::Vp9,
        Codec::Av1,
        Codec::Opus,
        Codec::Red,
    ] {
        let mut world = World::new(1);
        let (publisher, subscriber, stranger) = (world.join(), world.join(), world.join());
        world.open();
        let track = world.publish(publisher, codec, 1);
        let subscription = world.subscribe(subscriber, track);
        world.run(3 * SECOND);
        let received = world.received(subscription).clone();
        assert!(received.frames >= 85, "{codec:?}: {received:?}");
        assert_clean(&received, &format!("{codec:?}"));
        let other = world.publish(stranger, Codec::Opus, 1);
        let unrelated = world.subscribe(subscriber, other);
        assert_eq!(world.received(unrelated).packets, 0);
    }
}

#[test]
fn behind_a_closed_gate_nothing_flows_and_after_it_everything() {
    for codec in [Codec::Vp8, Codec::Opus] {
        let mut world = World::new(2);
        let (publisher, subscriber) = (world.join(), world.join());
        let track = world.publish(publisher, codec, 1);
        let subscription = world.subscribe(subscriber, track);
        world.run(2 * SECOND);
        world.send_data(publisher, Channel::Reliable, b"hello");
        world.run(SECOND);
        assert_eq!(world.received(subscription).packets, 0);
        assert_eq!(world.data_events(), 0);
        assert!(world.shard().counters().dropped(DropReason::GateClosed) > 50);
        world.open();
        world.run(2 * SECOND);
        assert!(world.received(subscription).frames > 30);
        world.gate(false);
        world.run(SECOND);
        let before = world.received(subscription).packets;
        world.run(SECOND);
        assert_eq!(world.received(subscription).packets, before);
        world.forget_pause(subscription);
        world.open();
        world.run(2 * SECOND);
        assert!(world.received(subscription).packets > before);
        assert_clean(world.received(subscription), &format!("{codec:?}"));
    }
}

#[test]
fn an_undeclared_source_is_dropped_and_counted() {
    let mut world = World::new(3);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish(publisher, Codec::Vp8, 1);
    let subscription = world.subscribe(subscriber, camera);
    world.rogue_source(publisher);
    world.run(SECOND);
    assert_eq!(world.received(subscription).packets, 0);
    assert!(
        world
            .shard()
            .counters()
            .dropped(DropReason::UndeclaredSource)
            > 0
    );
}

#[test]
fn a_muted_publication_is_not_forwarded_whatever_its_publisher_sends_and_its_numbers_go_on() {
    for codec in [Codec::Vp8, Codec::H264, Codec::Opus] {
        let mut world = World::new(4);
        let (publisher, subscriber) = (world.join(), world.join());
        world.open();
        let track = world.publish(publisher, codec, 1);
        let subscription = world.subscribe(subscriber, track);
        world.run(2 * SECOND);
        world.command(Command::SetMuted {
            publication: track,
            muted: true,
        });
        world.run(SECOND / 10);
        let before = world.received(subscription).packets;
        world.run(SECOND);
        assert_eq!(world.received(subscription).packets, before);
        world.forget_pause(subscription);
        world.command(Command::SetMuted {
            publication: track,
            muted: false,
        });
        world.run(2 * SECOND);
        assert!(world.received(subscription).packets > before);
        assert_clean(world.received(subscription), &format!("{codec:?}"));
    }
}

#[test]
fn layers_switch_at_key_frames_with_contiguous_numbers() {
    for codec in [Codec::Vp8, Codec::H264] {
        let mut world = World::new(5);
        let (publisher, subscriber) = (world.join(), world.join());
        world.open();
        let camera = world.publish(publisher, codec, 3);
        let subscription = world.subscribe(subscriber, camera);
        world.run(3 * SECOND);
        assert_eq!(world.forwarded(subscription), Some(2));
        for (max_encoding, expected) in [(0, 0), (1, 1), (2, 2), (0, 0)] {
            world.wish(subscription, true, max_encoding, u8::MAX);
            world.run(2 * SECOND);
            assert_eq!(world.forwarded(subscription), Some(expected));
        }
        assert_clean(world.received(subscription), &format!("{codec:?}"));
    }
}

#[test]
fn a_layer_that_its_publisher_suspends_is_replaced_within_a_second_and_taken_again() {
    let mut world = World::new(6);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish(publisher, Codec::Vp8, 3);
    let subscription = world.subscribe(subscriber, camera);
    world.run(3 * SECOND);
    world.source(camera).layers[2].enabled = false;
    world.run(SECOND);
    assert_eq!(world.forwarded(subscription), Some(1));
    world.source(camera).layers[2].enabled = true;
    world.run(SECOND);
    assert_eq!(world.forwarded(subscription), Some(2));
    let received = world.received(subscription);
    assert_eq!(
        (
            received.gaps,
            received.jumps,
            received.picture_errors,
            received.timestamp_errors
        ),
        (0, 0, 0, 0),
        "{received:?}"
    );
}

#[test]
fn a_paused_subscription_receives_nothing_and_comes_back_with_contiguous_numbers() {
    for codec in [Codec::Vp8, Codec::Opus] {
        let mut world = World::new(7);
        let (publisher, subscriber) = (world.join(), world.join());
        world.open();
        let track = world.publish(publisher, codec, 1);
        let subscription = world.subscribe(subscriber, track);
        world.run(2 * SECOND);
        world.wish(subscription, false, 2, u8::MAX);
        world.run(SECOND / 10);
        let before = world.received(subscription).packets;
        world.run(SECOND);
        assert_eq!(world.received(subscription).packets, before);
        assert_eq!(world.forwarded(subscription), None);
        world.forget_pause(subscription);
        world.wish(subscription, true, 2, u8::MAX);
        world.run(2 * SECOND);
        assert!(world.received(subscription).packets > before);
        assert_clean(world.received(subscription), &format!("{codec:?}"));
    }
}

#[test]
fn higher_temporal_layers_are_left_out_without_gaps_and_taken_where_a_decoder_can_follow() {
    let mut world = World::new(8);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish(publisher, Codec::Vp8, 1);
    let subscription = world.subscribe(subscriber, camera);
    world.wish(subscription, true, 0, 0);
    world.run(4 * SECOND);
    let half = world.received(subscription).frames;
    assert!((50..70).contains(&half), "{half} frames");
    world.wish(subscription, true, 0, u8::MAX);
    world.run(4 * SECOND);
    let all = world.received(subscription).frames - half;
    assert!((110..125).contains(&all), "{all} frames");
    assert_clean(world.received(subscription), "temporal layers");
}

#[test]
fn who_is_loud_is_heard_of_and_who_is_silent_is_not() {
    let mut world = World::new(9);
    let (speaker, silent) = (world.join(), world.join());
    world.open();
    let loud = world.publish(speaker, Codec::Opus, 1);
    let quiet = world.publish(silent, Codec::Opus, 1);
    world.source(quiet).level = 127;
    world.run(2 * SECOND);
    let spoke = |world: &World, publication, active| {
        world.events.iter().any(|event| {
            matches!(event, Event::Speakers { levels, .. } if levels.iter().any(|level| level.publication == publication && level.active == active))
        })
    };
    assert!(spoke(&world, loud, true));
    assert!(!spoke(&world, quiet, true));
    world.events.clear();
    world.source(loud).level = 127;
    world.run(2 * SECOND);
    let last = world.events.iter().rev().find_map(|event| match event {
        Event::Speakers { levels, .. } => Some(levels.clone()),
        _ => None,
    });
    assert_eq!(last.map(|levels| levels.len()), Some(0), "silence is told");
}

#[test]
fn redundant_audio_is_unpacked_for_who_cannot_read_it_and_passed_to_who_can() {
    let mut world = World::new(10);
    let (speaker, old, new) = (world.join(), world.join(), world.join());
    world.open();
    let microphone = world.publish(speaker, Codec::Red, 1);
    let unpacked = world.subscribe(old, microphone);
    let passed = world.subscribe_with(new, microphone, payloads());
    world.run(SECOND);
    assert!(world.received(unpacked).packets > 40);
    assert_eq!(world.received(unpacked).last_body[..4], *b"opus");
    assert_eq!(world.received(passed).last_body[0], 0x80 | 111);
    assert_clean(world.received(unpacked), "unpacked");
    assert_clean(world.received(passed), "passed");
}

#[test]
fn publishers_get_transport_wide_feedback_and_theirs_from_subscribers_is_tolerated() {
    let mut world = World::new(11);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish(publisher, Codec::Vp8, 1);
    let subscription = world.subscribe(subscriber, camera);
    for _ in 0..20 {
        world.run(SECOND / 10);
        let mut compound = Vec::new();
        rtcp::receiver_report(&mut compound, Ssrc(1), &[]);
        // REMB (draft-alvestrand-rmcat-remb-03), transport-wide feedback, and a type nobody knows.
        compound.extend_from_slice(&[
            0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x0b, 0x12, 0x34,
            0, 0, 0, 9,
        ]);
        compound.extend_from_slice(&[
            0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 9, 0, 1, 0, 1, 0, 0, 1, 0, 0x20, 0x01, 4, 0,
        ]);
        compound.extend_from_slice(&[0x80, 210, 0, 1, 0, 0, 0, 1]);
        world.send_raw_rtcp(subscriber, compound);
    }
    world.run(SECOND / 10);
    assert!(
        world.feedback(publisher) >= 15,
        "{} messages",
        world.feedback(publisher)
    );
    assert_eq!(world.shard().counters().dropped(DropReason::Malformed), 0);
    assert_clean(world.received(subscription), "with feedback");
}

#[test]
fn key_frames_are_asked_for_no_more_than_twice_a_second_however_many_want_them() {
    let mut world = World::new(12);
    let publisher = world.join();
    let subscribers: Vec<_> = (0..5).map(|_| world.join()).collect();
    world.open();
    let camera = world.publish(publisher, Codec::Vp8, 1);
    world.run(SECOND);
    let subscriptions: Vec<_> = subscribers
        .iter()
        .map(|client| world.subscribe(*client, camera))
        .collect();
    world.run(SECOND);
    let before = world.shard().counters().key_frame_requests;
    for _ in 0..100 {
        for (client, subscription) in subscribers.iter().zip(&subscriptions) {
            let mut compound = Vec::new();
            rtcp::receiver_report(&mut compound, Ssrc(1), &[]);
            rtcp::picture_loss(
                &mut compound,
                Ssrc(1),
                Ssrc(500_000 + 10 * subscription.0 as u32),
            );
            world.send_raw_rtcp(*client, compound);
        }
        world.run(SECOND / 50);
    }
    let asked = world.shard().counters().key_frame_requests - before;
    assert!((1..=5).contains(&asked), "{asked} requests in two seconds");
}

#[test]
fn retransmissions_are_bounded_by_what_was_forwarded() {
    let mut world = World::new(13);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish(publisher, Codec::Vp8, 1);
    let subscription = world.subscribe(subscriber, camera);
    world.run(2 * SECOND);
    let ssrc = Ssrc(500_000 + 10 * subscription.0 as u32);
    for _ in 0..100 {
        let mut compound = Vec::new();
        rtcp::receiver_report(&mut compound, Ssrc(1), &[]);
        for pid in (0..65_520_u16).step_by(17 * 16) {
            compound.extend_from_slice(&[0x81, 205, 0, 3, 0, 0, 0, 1]);
            compound.extend_from_slice(&ssrc.0.to_be_bytes());
            compound.extend_from_slice(&pid.to_be_bytes());
            compound.extend_from_slice(&[0xff, 0xff]);
        }
        world.send_raw_rtcp(subscriber, compound);
    }
    world.run(SECOND);
    let counters = world.shard().counters();
    assert!(
        counters.retransmitted_packets <= 512 + counters.forwarded_packets,
        "{counters:?}"
    );
    assert!(counters.dropped(DropReason::Limit) > 0);
}
