// SPDX-License-Identifier: EUPL-1.2
//! The shard with real SRTP between in-memory clients, over wires that lose, reorder and repeat. Virtual time.

#[path = "shard/world.rs"]
mod world;

use std::time::Duration;

use media_core::api::{Channel, Command, Event, LayerWish};
use media_core::shard::DropReason;
use world::{Wire, World};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_published_stream_reaches_its_subscriber_and_nobody_else() {
    let mut world = World::new(Wire::CLEAN);
    let (publisher, subscriber, stranger) = (world.join(), world.join(), world.join());
    world.open();
    let camera = world.publish_video(publisher, 1);
    world.subscribe(subscriber, camera);
    world.run(3 * SECOND);
    let received = world.received(subscriber);
    assert!(received.frames >= 80, "{received:?}");
    assert_eq!(
        (received.gaps, received.backwards, received.picture_gaps),
        (0, 0, 0),
        "{received:?}"
    );
    assert_eq!(world.received(stranger).packets, 0);
}

#[test]
fn behind_a_closed_gate_nothing_flows() {
    let mut world = World::new(Wire::CLEAN);
    let (publisher, subscriber) = (world.join(), world.join());
    let camera = world.publish_video(publisher, 1);
    world.subscribe(subscriber, camera);
    world.run(2 * SECOND);
    world.send_data(publisher, Channel::Reliable, b"hello");
    world.run(SECOND);
    assert_eq!(world.received(subscriber).packets, 0);
    assert_eq!(world.data_events(), 0);
    assert!(world.shard.counters().dropped(DropReason::GateClosed) > 50);
    world.open();
    world.run(2 * SECOND);
    assert!(world.received(subscriber).frames > 30);
}

#[test]
fn an_undeclared_source_is_dropped_and_counted() {
    let mut world = World::new(Wire::CLEAN);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish_video(publisher, 1);
    world.subscribe(subscriber, camera);
    world.rogue_source(publisher);
    world.run(SECOND);
    assert_eq!(world.received(subscriber).packets, 0);
    assert!(world.shard.counters().dropped(DropReason::UndeclaredSource) > 0);
}

#[test]
fn a_muted_publication_is_not_forwarded_whatever_its_publisher_sends() {
    let mut world = World::new(Wire::CLEAN);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish_video(publisher, 1);
    world.subscribe(subscriber, camera);
    world.run(2 * SECOND);
    world.command(Command::SetMuted {
        publication: camera,
        muted: true,
    });
    world.run(SECOND / 10);
    let before = world.received(subscriber).packets;
    world.run(SECOND);
    assert_eq!(world.received(subscriber).packets, before);
    world.command(Command::SetMuted {
        publication: camera,
        muted: false,
    });
    world.run(2 * SECOND);
    assert!(world.received(subscriber).packets > before);
}

#[test]
fn a_lossy_reordering_repeating_wire_costs_less_than_a_hundredth_of_the_frames() {
    for seed in [1, 2, 3] {
        let mut world = World::new(Wire::seeded(seed));
        let (publisher, subscriber) = (world.join(), world.join());
        world.open();
        let camera = world.publish_video(publisher, 1);
        world.subscribe(subscriber, camera);
        world.run(2 * SECOND);
        world.wire(0.05, 0.02, 0.01);
        world.run(60 * SECOND);
        world.wire(0.0, 0.0, 0.0);
        world.run(2 * SECOND);
        let received = world.received(subscriber);
        let sent = world.sent_frames(publisher);
        assert!(
            received.frames * 100 >= sent * 99,
            "seed {seed}: {} of {sent} frames, {received:?}",
            received.frames
        );
        assert_eq!(
            (received.backwards, received.picture_gaps),
            (0, 0),
            "seed {seed}: {received:?}"
        );
        assert!(
            received.longest_pause <= Duration::from_millis(500),
            "seed {seed}: {received:?}"
        );
    }
}

#[test]
fn layers_switch_at_key_frames_with_contiguous_numbers() {
    let mut world = World::new(Wire::CLEAN);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish_video(publisher, 3);
    let subscription = world.subscribe(subscriber, camera);
    world.run(3 * SECOND);
    assert_eq!(world.forwarded(subscription), Some(2));
    for (max_encoding, expected) in [(0, 0), (1, 1), (2, 2), (0, 0)] {
        world.command(Command::SetLayers {
            subscription,
            wish: LayerWish {
                enabled: true,
                max_encoding,
                max_temporal: u8::MAX,
            },
        });
        world.run(2 * SECOND);
        assert_eq!(world.forwarded(subscription), Some(expected));
    }
    let received = world.received(subscriber);
    assert_eq!(
        (received.gaps, received.backwards, received.picture_gaps),
        (0, 0, 0),
        "{received:?}"
    );
    assert!(
        received.longest_pause <= Duration::from_millis(500),
        "{received:?}"
    );
}

#[test]
fn a_paused_subscription_receives_nothing_and_comes_back_with_a_key_frame() {
    let mut world = World::new(Wire::CLEAN);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish_video(publisher, 1);
    let subscription = world.subscribe(subscriber, camera);
    world.run(2 * SECOND);
    let wish = |enabled| Command::SetLayers {
        subscription,
        wish: LayerWish {
            enabled,
            max_encoding: 2,
            max_temporal: u8::MAX,
        },
    };
    world.command(wish(false));
    world.run(SECOND / 10);
    let before = world.received(subscriber).packets;
    world.run(SECOND);
    assert_eq!(world.received(subscriber).packets, before);
    assert_eq!(world.forwarded(subscription), None);
    world.command(wish(true));
    world.run(2 * SECOND);
    let received = world.received(subscriber);
    assert!(received.packets > before);
    assert_eq!(
        (received.gaps, received.picture_gaps),
        (0, 0),
        "{received:?}"
    );
}

#[test]
fn higher_temporal_layers_are_left_out_without_gaps() {
    let mut world = World::new(Wire::CLEAN);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let camera = world.publish_video(publisher, 1);
    let subscription = world.subscribe(subscriber, camera);
    world.command(Command::SetLayers {
        subscription,
        wish: LayerWish {
            enabled: true,
            max_encoding: 0,
            max_temporal: 0,
        },
    });
    world.run(4 * SECOND);
    let received = world.received(subscriber);
    assert!((40..70).contains(&received.frames), "{received:?}");
    assert_eq!(
        (received.gaps, received.backwards, received.picture_gaps),
        (0, 0, 0),
        "{received:?}"
    );
}

#[test]
fn who_is_loud_is_heard_of() {
    let mut world = World::new(Wire::CLEAN);
    let (speaker, listener) = (world.join(), world.join());
    world.open();
    let microphone = world.publish_audio(speaker);
    world.subscribe(listener, microphone);
    world.run(2 * SECOND);
    assert!(world.received(listener).packets > 80);
    let speaking = world.events.iter().any(|event| {
        matches!(event, Event::Speakers { levels, .. } if levels.iter().any(|level| level.publication == microphone && level.active))
    });
    assert!(speaking);
}

#[test]
fn redundant_audio_is_unpacked_for_who_cannot_read_it() {
    let mut world = World::new(Wire::CLEAN);
    let (speaker, listener) = (world.join(), world.join());
    world.open();
    let microphone = world.publish_red(speaker);
    world.subscribe(listener, microphone);
    world.run(SECOND);
    let received = world.received(listener);
    assert!(received.packets > 30);
    assert_eq!(received.last_payload, b"opus");
}

#[test]
fn forwarding_allocates_nothing_per_packet() {
    let mut world = World::new(Wire::CLEAN);
    let publisher = world.join();
    let subscribers: Vec<_> = (0..10).map(|_| world.join()).collect();
    world.open();
    let camera = world.publish_video(publisher, 1);
    for subscriber in subscribers {
        world.subscribe(subscriber, camera);
    }
    world.run(3 * SECOND);
    let (packets, allocations) = world.count_allocations(publisher);
    assert!(packets >= 1000, "{packets} packets");
    assert_eq!(
        allocations, 0,
        "{allocations} allocations for {packets} packets"
    );
}
