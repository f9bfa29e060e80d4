// SPDX-License-Identifier: EUPL-1.2
//! Capacity that is held for planned conferences.

use control_plane::plane::PlaceRequest;
use control_plane::store::Store;
use plenum_proto::v1::conference_state::Hold;
use plenum_proto::v1::observation::Item as Observed;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{ConferenceRecord, RecordKind};

use crate::world::operator;
use crate::world::request;
use crate::{Town, node, place, school};

fn lecture(people: u32) -> ConferenceRecord {
    ConferenceRecord {
        reserve_participants: people,
        revision: format!("r{people}"),
        ..operator::conference("lecture")
    }
}

fn people(room: &str, participants: u32) -> PlaceRequest {
    PlaceRequest {
        participants,
        ..request(room)
    }
}

fn directory(nodes: &[(&str, u32)], reserve: u32) -> Vec<Item> {
    let mut items = vec![
        Item::Tenant(school()),
        Item::Conference(lecture(reserve)),
        Item::Conference(operator::conference("a")),
        Item::Conference(operator::conference("b")),
    ];
    items.extend(
        nodes
            .iter()
            .map(|(id, participants)| Item::Node(node(id, 10, *participants))),
    );
    items
}

const HELD: &str = "plenum_control_planned_held{tenant=\"school\"} 1";
const UNHELD: &str = "plenum_control_planned_unheld{tenant=\"school\"} 1";

/// Waits until one of the replicas shows this.
async fn shown(town: &Town, line: &str) {
    let shown = async {
        loop {
            let has = |replica: usize| {
                town.plane(replica)
                    .metrics()
                    .encode()
                    .lines()
                    .any(|served| served == line)
            };
            if (0..town.replicas.len()).any(has) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::world::LIVENESS, shown)
        .await
        .unwrap_or_else(|_| panic!("never: {line}"));
}

/// Waits until one of the replicas tells the operator this of the lecture.
async fn told(town: &Town, hold: Hold) {
    let told = async {
        loop {
            for replica in &town.replicas {
                let mut seen = operator::observe(replica).await;
                while let Ok(Some(message)) = seen.message().await {
                    match message.item {
                        Some(Observed::Conference(state))
                            if state.uid == "c-lecture" && state.hold() == hold =>
                        {
                            return;
                        }
                        Some(Observed::EndOfSnapshot(_)) => break,
                        _ => {}
                    }
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::world::LIVENESS, told)
        .await
        .unwrap_or_else(|_| panic!("never: {hold:?}"));
}

async fn what_is_held_no_other_room_takes_until_it_is_retracted(mut town: Town) {
    let _node = town.node("n1").await;
    shown(&town, HELD).await;
    told(&town, Hold::Held).await;
    let refusal = place(town.plane(0), people("a", 41))
        .await
        .expect_err("forty are left");
    assert_eq!(refusal.reason(), "NoCapacity");
    place(town.plane(0), people("a", 40))
        .await
        .expect("forty are left");
    place(town.plane(0), people("lecture", 60))
        .await
        .expect("what is held is for it");

    town.publish(operator::retract(RecordKind::Conference, "c-a"))
        .await;
    town.publish(operator::retract(RecordKind::Conference, "c-lecture"))
        .await;
    // Rooms of retracted conferences end, and with them their places.
    let free = async {
        while place(town.plane(0), people("b", 100)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(crate::world::LIVENESS, free)
        .await
        .expect("all of the node is free again");
    town.stop().await;
}

#[tokio::test]
async fn a_planned_room_opens_where_its_capacity_is_held_whoever_asks() {
    let nodes: Vec<(String, u32)> = (0..24)
        .map(|number| (format!("n{number:02}"), 100))
        .collect();
    let described: Vec<(&str, u32)> = nodes
        .iter()
        .map(|(id, people)| (id.as_str(), *people))
        .collect();
    let town = Town::start(2, directory(&described, 80)).await;
    let mut running = Vec::new();
    for (id, _) in &nodes {
        running.push(town.node(id).await);
    }
    shown(&town, HELD).await;
    for replica in 0..2 {
        place(town.plane(replica), people("lecture", 40))
            .await
            .expect("it is held");
    }
    // Eighty came, eighty were held: the node has twenty left, and nothing is held anywhere else.
    let refusal = place(town.plane(1), people("lecture", 21))
        .await
        .expect_err("the node is full");
    assert_eq!(refusal.reason(), "NodeParticipants");
    place(town.plane(0), people("lecture", 20))
        .await
        .expect("the rest of its node");
    let mut free = 0;
    for room in ["a", "b"] {
        free += u32::from(place(town.plane(0), people(room, 100)).await.is_ok());
    }
    assert_eq!(free, 2, "other nodes are empty");
    town.stop().await;
}

async fn what_cannot_be_held_is_shown_and_tried_again(mut town: Town) {
    let _small = town.node("n1").await;
    shown(&town, UNHELD).await;
    told(&town, Hold::Refused).await;
    town.publish(Item::Node(node("n2", 10, 1_000))).await;
    let _large = town.node("n2").await;
    shown(&town, HELD).await;
    // It opens where it is held.
    let placed = place(town.plane(0), people("lecture", 1))
        .await
        .expect("placed");
    assert_eq!(placed.node_id.as_str(), "n2");
    town.stop().await;
}

#[tokio::test]
async fn another_replica_goes_on_holding_when_the_first_is_gone() {
    let mut town = Town::start(2, directory(&[("n1", 100)], 60)).await;
    let _node = town.node("n1").await;
    shown(&town, HELD).await;
    let shows = |town: &Town, replica: usize| {
        let text = town.plane(replica).metrics().encode();
        text.lines().any(|line| line == HELD)
    };
    let first = if shows(&town, 0) { 0 } else { 1 };
    let gone = town.replicas.remove(first);
    town.publishers.remove(first);
    gone.stop().await;
    shown(&town, HELD).await;
    let refusal = place(town.plane(0), people("a", 41))
        .await
        .expect_err("still held");
    assert_eq!(refusal.reason(), "NoCapacity");
    town.stop().await;
}

#[tokio::test]
async fn a_redis_that_lost_everything_is_told_again_what_is_held() {
    let mut town = Town::start_on_redis(1, directory(&[("n1", 100)], 60)).await;
    let _node = town.node("n1").await;
    shown(&town, HELD).await;
    let server = town.server.as_mut().expect("a server");
    server.kill();
    town.metric_at_least(0, "plenum_control_store_failures_total", 1)
        .await;
    town.server.as_mut().expect("a server").restart();
    let school = crate::world::key("lecture").tenant;
    let held = async {
        while !matches!(town.store.tenant_usage(school.clone()).await, Ok(used) if used.participants == 60)
        {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::world::LIVENESS, held)
        .await
        .expect("it is held again");
    town.stop().await;
}

over_both! {
    what_is_held_no_other_room_takes_until_it_is_retracted(1, directory(&[("n1", 100)], 60));
    what_cannot_be_held_is_shown_and_tried_again(2, directory(&[("n1", 100)], 400));
}
