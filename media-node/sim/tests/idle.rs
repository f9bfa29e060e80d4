// SPDX-License-Identifier: EUPL-1.2
//! Idle cost does not grow with tracks: what a shard does while nobody speaks is counted in timers and datagrams, not in time.

use std::time::Duration;

use media_core::api::Codec;
use media_sim::world::World;

/// Timers fired and datagrams sent in ten idle seconds with `tracks` tracks, each subscribed by everybody else.
fn idle(tracks: usize) -> (u64, usize) {
    let mut world = World::new(1);
    let clients: Vec<_> = (0..4).map(|_| world.join()).collect();
    world.open();
    for index in 0..tracks {
        let publisher = clients[index % 4];
        let track = world.publish(
            publisher,
            if index % 2 == 0 {
                Codec::Opus
            } else {
                Codec::Vp8
            },
            1,
        );
        world.source(track).layers[0].enabled = false;
        for subscriber in clients.iter().filter(|client| **client != publisher) {
            world.subscribe(*subscriber, track);
        }
    }
    world.run(Duration::from_secs(2));
    let (timers, sent) = (world.shard().counters().fired_timers, world.sent);
    world.run(Duration::from_secs(10));
    (
        world.shard().counters().fired_timers - timers,
        world.sent - sent,
    )
}

#[test]
fn an_idle_shard_does_the_same_for_two_tracks_and_for_sixty() {
    let (few, many) = (idle(2), idle(60));
    assert_eq!(few.1, 0);
    assert_eq!(many.1, 0);
    assert_eq!(few.0, many.0, "timers fired with 2 and with 60 tracks");
}
