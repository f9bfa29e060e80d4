// SPDX-License-Identifier: EUPL-1.2
//! How often the store is asked for a join, and that a repeated question does nothing twice.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use control_core::ids::NodeId;
use control_plane::store::Store;
use plenum_proto::v1::node_control_client::NodeControlClient;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{NodeHello, NodeReport};
use tokio_stream::wrappers::ReceiverStream;

use crate::world::{key, request};
use crate::world::{operator, pki};
use crate::{Town, node, place, school};

/// More than a join may ask.
const TRIPS_MAX: u32 = 4;

fn directory(nodes: &[(&str, u32, u32)]) -> Vec<Item> {
    let mut items = vec![Item::Tenant(school())];
    for room in ["a", "b", "c", "d"] {
        items.push(Item::Conference(operator::conference(room)));
    }
    items.extend(
        nodes
            .iter()
            .map(|(id, rooms, participants)| Item::Node(node(id, *rooms, *participants))),
    );
    items
}

async fn a_new_room_and_a_join_to_a_running_one_ask_the_store_once_each(town: Town) {
    let (_one, _two) = (town.node("n1").await, town.node("n2").await);
    place(town.plane(0), request("a")).await.expect("placed");
    town.store.joins();

    let placed = place(town.plane(0), request("b")).await.expect("placed");
    assert_eq!(town.store.joins(), BTreeMap::from([("place", 1)]));

    crate::world::until(town.plane(1), "the other replica hears of it", |plane| {
        plane.room(&key("b"))
    })
    .await;
    for replica in [0, 1] {
        let found = place(town.plane(replica), request("b"))
            .await
            .expect("found");
        assert_eq!(found.node_id, placed.node_id);
        assert_eq!(town.store.joins(), BTreeMap::from([("reserve", 1)]));
    }
    town.stop().await;
}

#[tokio::test]
async fn a_join_asks_at_most_four_times_when_many_nodes_refuse() {
    // Each node looks free, because what is in use there only the store knows.
    let nodes: Vec<String> = (0..40).map(|number| format!("n{number:02}")).collect();
    let described: Vec<(&str, u32, u32)> = nodes.iter().map(|id| (id.as_str(), 5, 10)).collect();
    let town = Town::start(1, directory(&described)).await;
    let mut running = Vec::new();
    for id in &nodes {
        running.push(town.node(id).await);
    }
    let limits = control_core::record::TenantLimits::default();
    for id in &nodes {
        let capacity = control_core::record::Capacity {
            rooms: 5,
            participants: 10,
            egress_mbps: 20,
        };
        let full = control_core::quota::Usage {
            participants: 10,
            ..Default::default()
        };
        let elsewhere = control_core::ids::RoomKey::parse("other", id).expect("key");
        let request = control_plane::store::RequestId::random().expect("random");
        let on = NodeId::parse(id).expect("node id");
        town.store
            .reserve(request, elsewhere, on, full, limits, capacity)
            .await
            .expect("answers")
            .expect("is held");
    }
    town.store.joins();
    let refusal = place(town.plane(0), request("a"))
        .await
        .expect_err("all are full");
    assert_eq!(refusal.reason(), "NoCapacity");
    let words = refusal.to_string();
    assert!(words.contains("24 full, 16 not asked"), "{words}");
    let asked: u32 = town.store.joins().values().sum();
    assert!(asked <= TRIPS_MAX, "{asked} round trips");
    town.stop().await;
}

async fn a_lost_answer_of_a_placement_is_asked_for_again_and_nothing_is_held_twice(town: Town) {
    let (_one, _two) = (town.node("n1").await, town.node("n2").await);
    place(town.plane(0), request("a")).await.expect("placed");
    town.store.joins();

    town.store.lose_places.store(1, Ordering::SeqCst);
    let placed = place(town.plane(0), request("b")).await.expect("placed");
    assert_eq!(town.store.joins(), BTreeMap::from([("place", 2)]));
    let record = town
        .store
        .room(key("b"))
        .await
        .expect("answers")
        .expect("kept");
    assert_eq!(record.lease.node, placed.node_id);
    assert_eq!(record.lease.epoch, placed.epoch);
    let used = town
        .store
        .tenant_usage(key("b").tenant)
        .await
        .expect("answers");
    assert_eq!(
        (used.rooms, used.participants),
        (2, 2),
        "two rooms, two people"
    );

    town.store.joins();
    town.store.lose_reserves.store(1, Ordering::SeqCst);
    place(town.plane(0), request("b")).await.expect("found");
    assert_eq!(town.store.joins(), BTreeMap::from([("reserve", 2)]));
    let used = town
        .store
        .tenant_usage(key("b").tenant)
        .await
        .expect("answers");
    assert_eq!(used.participants, 3);
    town.stop().await;
}

async fn two_replicas_that_place_one_room_at_once_give_it_one_node(town: Town) {
    let (one, two) = (town.node("n1").await, town.node("n2").await);
    for room in ["a", "b", "c", "d"] {
        let mut joins = tokio::task::JoinSet::new();
        for number in 0..10 {
            let plane = town.plane(number % 2).clone();
            joins.spawn(async move { place(&plane, request(room)).await });
        }
        let mut at = Vec::new();
        while let Some(placed) = joins.join_next().await {
            let placed = placed.expect("no panic").expect("placed");
            at.push((placed.node_id.to_string(), placed.epoch));
        }
        at.dedup();
        assert_eq!(at.len(), 1, "{room} is at {at:?}");
    }
    let running = |node: &crate::world::node::Node| {
        ["a", "b", "c", "d"]
            .into_iter()
            .filter(|room| node.room(room).is_some())
            .count()
    };
    assert_eq!(running(&one) + running(&two), 4);
    town.stop().await;
}

/// A replica that has just started, and a node that has not told its load yet.
#[tokio::test]
async fn a_node_that_has_not_said_everything_is_waited_for_after_a_start() {
    let begin = Instant::now();
    let town = Town::start(1, directory(&[("n1", 10, 100)])).await;
    let replica = &town.replicas[0];
    let channel = pki::dial(&replica.address, &replica.ca.node("u-n1"))
        .await
        .expect("dialled");
    let (says, queue) = tokio::sync::mpsc::channel(8);
    let say = async |item| {
        says.send(NodeReport { item: Some(item) })
            .await
            .expect("heard");
    };
    say(Report::Hello(NodeHello {
        uid: "u-n1".into(),
        node_id: "n1".into(),
        site: "local".into(),
        epoch: 1,
        grpc_endpoint: "127.0.0.1:9".into(),
        ..NodeHello::default()
    }))
    .await;
    let mut node = NodeControlClient::new(channel);
    let attached = node.attach(ReceiverStream::new(queue)).await;
    let _orders = attached.expect("attached").into_inner();
    say(Report::EndOfRooms(true)).await;
    // While a start is fresh, it is no lack of capacity. A slow machine may see less of that time.
    while begin.elapsed() < Duration::from_secs(2) {
        let refusal = town
            .plane(0)
            .place(request("a"))
            .await
            .expect_err("not ready");
        if begin.elapsed() < Duration::from_secs(4) {
            assert_eq!(refusal.reason(), "Settling", "{refusal}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    town.stop().await;
}

fn two_nodes() -> Vec<Item> {
    directory(&[("n1", 10, 100), ("n2", 10, 100)])
}

over_both! {
    a_new_room_and_a_join_to_a_running_one_ask_the_store_once_each(2, two_nodes());
    a_lost_answer_of_a_placement_is_asked_for_again_and_nothing_is_held_twice(1, two_nodes());
    two_replicas_that_place_one_room_at_once_give_it_one_node(2, two_nodes());
}
