// SPDX-License-Identifier: EUPL-1.2
//! A participant's state exported on one shard and imported on another forwards the next packet as if nothing had happened.

use std::time::Duration;

use media_core::api::{Codec, Event};
use media_sim::world::{Weather, World};

const SECOND: Duration = Duration::from_secs(1);

/// A call of two in `codec`; both move to the other shard, the publisher first. The oracle is the subscriber's decoder: numbers,
/// timestamps and picture ids go on, no frame is lost for good.
fn moved(seed: u64, codec: Codec, layers: usize, weather: Weather) {
    println!("seed {seed}");
    let mut world = World::with_shards(seed, 2);
    let (publisher, subscriber) = (world.join(), world.join());
    world.open();
    let track = world.publish(publisher, codec, layers);
    let subscription = world.subscribe(subscriber, track);
    world.run(3 * SECOND);
    world.weather(weather);
    // Both ends at once, as a room moves.
    world.begin_move(publisher, 1);
    world.begin_move(subscriber, 1);
    world.run(3 * SECOND);
    world.weather(Weather::CLEAR);
    world.run(SECOND);
    for client in [publisher, subscriber] {
        assert_eq!(world.failure(client), None);
        let transport = client as u64;
        assert!(world.events.iter().any(
            |event| matches!(event, Event::Exported { transport: id, .. } if id.0 == transport)
        ));
        assert!(world.events.iter().any(
            |event| matches!(event, Event::Imported { transport: id, left_out, .. } if id.0 == transport && left_out.is_empty())
        ));
    }
    assert_eq!(world.shards[0].counters().connected_transports, 2);
    assert_eq!(
        world.shards[1].counters().connected_transports,
        2,
        "no handshake took place"
    );
    let captures = world.captures(subscription);
    let received = world.received(subscription);
    let what = format!(
        "seed {seed}, {codec:?}: {} of {captures} frames, {received:?}",
        received.frames
    );
    // While the new checks travel, a few datagrams reach nobody: the oracle allows a fifth of a second of them.
    assert!(received.frames as u64 + 10 >= captures, "{what}");
    assert_eq!(
        (
            received.timestamp_errors,
            received.picture_errors,
            received.capture_errors
        ),
        (0, 0, 0),
        "{what}"
    );
    assert!(
        received.longest_pause <= Duration::from_millis(500),
        "{what}"
    );
    assert!(world.shards[1].counters().forwarded_packets > 100, "{what}");
}

#[test]
fn a_call_moves_to_another_shard_between_two_packets() {
    for codec in [Codec::Vp8, Codec::H264, Codec::Opus] {
        moved(1, codec, 1, Weather::CLEAR);
    }
}

#[test]
fn a_simulcast_call_moves_to_another_shard_with_its_layers() {
    moved(2, Codec::Vp8, 3, Weather::CLEAR);
    moved(3, Codec::H264, 3, Weather::CLEAR);
}

#[test]
fn a_call_moves_in_rough_weather() {
    for seed in 1..6 {
        moved(seed, Codec::Vp8, 1, Weather::ROUGH);
    }
}
