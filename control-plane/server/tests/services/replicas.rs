// SPDX-License-Identifier: EUPL-1.2
//! Two replicas over one store, with nodes and a publisher that stream to both.

use std::collections::BTreeMap;
use std::sync::Arc;

use control_plane::clock::Clock;
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use plenum_proto::v1::publication::Item;
use tokio::task::JoinSet;

use crate::world::node::Node;
use crate::world::operator::{self, Publisher};
use crate::world::pki::Ca;
use crate::world::{LIVENESS, Replica, key};
use crate::{accepting, place};

struct Pair {
    a: Replica,
    b: Replica,
    nodes: Vec<Node>,
    _publishers: [Publisher; 2],
}

async fn pair(rooms: &[String]) -> Pair {
    let clock = Clock::start();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(move || clock.now())));
    let ca = Arc::new(Ca::new());
    let a = Replica::start_on(Arc::clone(&ca), Arc::clone(&store)).await;
    let b = Replica::start_on(ca, store).await;
    let mut publishers = [
        Publisher::connect(&a, 1).await,
        Publisher::connect(&b, 1).await,
    ];
    for publisher in &mut publishers {
        let mut items = vec![Item::Tenant(operator::tenant())];
        items.extend(
            rooms
                .iter()
                .map(|room| Item::Conference(operator::conference(room))),
        );
        items.extend(["n1", "n2"].map(|id| Item::Node(operator::node(id))));
        publisher.snapshot(items).await;
    }
    let mut nodes = Vec::new();
    for id in ["n1", "n2"] {
        nodes.push(Node::start_at(&[&a, &b], id, BTreeMap::new()).await);
        accepting(&a.plane, id).await;
        accepting(&b.plane, id).await;
    }
    Pair {
        a,
        b,
        nodes,
        _publishers: publishers,
    }
}

#[tokio::test]
async fn two_replicas_that_place_a_room_at_once_agree_on_its_owner() {
    let rooms: Vec<String> = (0..4).map(|number| format!("room{number}")).collect();
    let pair = pair(&rooms).await;
    for room in &rooms {
        let mut places = JoinSet::new();
        for plane in [&pair.a.plane, &pair.b.plane, &pair.a.plane, &pair.b.plane] {
            let (plane, room) = (plane.clone(), room.clone());
            places.spawn(async move { place(&plane, &room).await });
        }
        let mut owners = Vec::new();
        while let Some(placed) = places.join_next().await {
            let placed = placed.expect("no panic");
            owners.push((placed.node_id, placed.epoch));
        }
        owners.dedup();
        assert_eq!(owners.len(), 1, "{room}: {owners:?}");
        let holders = pair
            .nodes
            .iter()
            .filter(|node| node.room(room).is_some())
            .count();
        assert_eq!(holders, 1, "{room}");
    }
    pair.a.stop().await;
    pair.b.stop().await;
}

#[tokio::test]
async fn a_dead_nodes_room_comes_back_once_though_both_replicas_bring_it_back() {
    let rooms = ["council".to_owned()];
    let mut pair = pair(&rooms).await;
    let placed = place(&pair.a.plane, "council").await;
    let home = pair
        .nodes
        .iter()
        .position(|node| node.id == placed.node_id.as_str())
        .expect("one of both");
    pair.nodes[home]
        .change("council", |room| room.facts.opened = true)
        .await;
    for replica in [&pair.a, &pair.b] {
        replica
            .until("opened", |plane| {
                plane.room(&key("council")).filter(|room| room.facts.opened)
            })
            .await;
    }
    let lost = [&pair.a, &pair.b].map(|replica| replica.plane.node_lost(placed.node_id.as_str()));
    drop(pair.nodes.remove(home));
    for told in lost {
        tokio::time::timeout(LIVENESS, told)
            .await
            .expect("both replicas tell their relays");
    }
    let other = &pair.nodes[0];
    for replica in [&pair.a, &pair.b] {
        let room = replica
            .until("it runs again", |plane| {
                plane.room(&key("council")).filter(|room| room.running)
            })
            .await;
        assert_eq!(room.node_id.as_str(), other.id);
        assert!(room.facts.opened && room.epoch > placed.epoch);
        replica
            .until("nothing waits", |plane| {
                plane
                    .room(&key("council"))
                    .filter(|room| room.running && room.epoch.0 == 2)
            })
            .await;
    }
    assert_eq!(
        other.room("council").expect("runs").epoch,
        2,
        "one lease, not one per replica"
    );
    pair.a.stop().await;
    pair.b.stop().await;
}
