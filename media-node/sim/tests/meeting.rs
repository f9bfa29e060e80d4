// SPDX-License-Identifier: EUPL-1.2
//! Rooms and shards together: headless clients meet, in virtual time, with real DTLS and SRTP.

mod rooms;

use std::time::Duration;

use media_room::api::Facts;
use plenum_load::headless::{Event, Source};
use rooms::{World, ad_hoc, start};

fn two(world: &mut World) -> (usize, usize) {
    world.add_node(ad_hoc(), Facts::default());
    let anna = world.add_person(start("anna", None, false));
    let ben = world.add_person(start("ben", None, false));
    for person in [anna, ben] {
        world.join(person, 0);
        world.run_for(Duration::from_secs(1));
    }
    (anna, ben)
}

#[test]
fn two_clients_hear_and_see_each_other() {
    let mut world = World::new(1);
    let (anna, ben) = two(&mut world);
    for person in [anna, ben] {
        world.people[person].client.publish(Source::Microphone);
        world.people[person].client.publish(Source::Camera);
    }
    world.run_for(Duration::from_secs(2));
    world.talk(&[anna, ben], 50);
    for person in [anna, ben] {
        let connected = world.people[person]
            .events
            .iter()
            .filter(|event| matches!(event, Event::Connected(..)))
            .count();
        assert_eq!(connected, 2, "both connections stand");
        let received = world.people[person].client.received();
        assert_eq!(received.len(), 2, "two tracks of the other: {received:?}");
        assert!(
            received
                .iter()
                .all(|(track, counters)| track.starts_with("TR_") && counters.packets >= 45),
            "{received:?}"
        );
    }
    assert_eq!(world.nodes[0].leaked, 0);
}
