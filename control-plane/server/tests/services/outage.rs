// SPDX-License-Identifier: EUPL-1.2
//! The store is away, comes back, comes back empty; two sides that could not hear each other have made one room twice.

use std::sync::atomic::Ordering;
use std::time::Duration;

use control_core::ids::Epoch;
use control_core::record::RoomPolicy;
use control_plane::plane::PlaceRequest;

use crate::cluster::Cluster;
use crate::place;
use crate::world::net::Line;
use crate::world::{LIVENESS, key, policy, request};

/// Two replicas that cannot reach the store, each of which hears one node alone, have each opened the class.
async fn doubled() -> Cluster {
    let cluster = Cluster::start(2, &["n1", "n2"], &["class"]).await;
    cluster.store_away(true);
    cluster.line(0, 1, Line::Held);
    cluster.line(1, 0, Line::Held);
    for (replica, node) in [(0, 0), (1, 1)] {
        let plane = &cluster.replicas[replica].plane;
        let placed = async {
            loop {
                // Placed on the other one, as long as that one is not suspect: it cannot be opened there.
                if plane.place(request("class")).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(LIVENESS, placed)
            .await
            .expect("each side opens it by itself");
        assert!(cluster.nodes[node].room("class").is_some());
    }
    // The higher epoch would decide alone; here it takes more.
    // In one change: of two, the line that is held would let the first out on its own, and with equal numbers the other node wins.
    for (node, participants) in cluster.nodes.iter().zip([0, 3]) {
        node.change("class", |room| {
            room.epoch = 9;
            room.facts.opened = true;
            room.participants = participants;
        })
        .await;
    }
    for replica in &cluster.replicas {
        replica
            .until("it is heard", |plane| {
                plane
                    .room(&key("class"))
                    .filter(|room| room.epoch == Epoch(9) && room.facts.opened)
            })
            .await;
    }
    cluster
}

#[tokio::test]
async fn a_room_made_twice_is_settled_once_both_sides_hear_each_other() {
    let cluster = doubled().await;
    cluster.all_lines(Line::Whole);
    cluster.nodes[0]
        .until("the emptier one goes", |rooms, _| {
            rooms.is_empty().then_some(())
        })
        .await;
    for replica in &cluster.replicas {
        let live = replica
            .until("both know", |plane| {
                plane
                    .room(&key("class"))
                    .filter(|room| room.running && room.node_id.as_str() == "n2")
            })
            .await;
        assert_eq!(live.participants, 3);
    }
    assert_eq!(cluster.owners("class"), [("n2".to_owned(), 9)]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_room_made_twice_is_settled_once_both_sides_hear_the_same_store() {
    let cluster = doubled().await;
    cluster.store_away(false);
    cluster.nodes[0]
        .until("the emptier one goes", |rooms, _| {
            rooms.is_empty().then_some(())
        })
        .await;
    assert_eq!(cluster.owners("class"), [("n2".to_owned(), 9)]);
    let record = cluster
        .store
        .room(key("class"))
        .await
        .expect("answers")
        .expect("kept");
    assert_eq!(record.lease.node.as_str(), "n2");
    // Whoever was sent away is not given a third one by the side that does not hear the owner.
    let refused = async {
        loop {
            // Until the end of its own room is heard, that one is found.
            match cluster.replicas[0].plane.place(request("class")).await {
                Ok(found) => assert_eq!(found.node_id.as_str(), "n1"),
                Err(refusal) => return refusal,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let refusal = tokio::time::timeout(LIVENESS, refused)
        .await
        .expect("its owner cannot be asked from there");
    assert_eq!((refusal.reason(), refusal.status()), ("NodeSilent", 503));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.owners("class"), [("n2".to_owned(), 9)]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_that_starts_without_the_store_learns_all_from_operator_and_nodes() {
    let mut cluster = Cluster::start(1, &["n1", "n2"], &["council", "class"]).await;
    cluster.store_away(true);
    let placed = place(&cluster.replicas[0].plane, "council").await;
    cluster.add_replica(true).await;
    let newest = &cluster.replicas[1];
    let found = place(&newest.plane, "council").await;
    assert_eq!((found.node_id, found.epoch), (placed.node_id, placed.epoch));
    let class = place(&newest.plane, "class").await;
    let floor = PlaceRequest {
        floor: Epoch(0),
        ..request("class")
    };
    let same = cluster.replicas[0].plane.place(floor).await.expect("found");
    assert_eq!((same.node_id, same.epoch), (class.node_id, class.epoch));
    assert_eq!(cluster.owners("class").len(), 1);

    cluster.store_away(false);
    for room in ["council", "class"] {
        let written = async {
            while cluster
                .store
                .room(key(room))
                .await
                .expect("answers")
                .is_none()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIVENESS, written)
            .await
            .expect("leases are written back");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn without_the_store_two_replicas_choose_the_same_node() {
    let rooms: Vec<String> = (0..12).map(|number| format!("room{number}")).collect();
    let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
    let cluster = Cluster::start(2, &["n1", "n2", "n3"], &names).await;
    cluster.store_away(true);
    for room in &names {
        let (a, b) = tokio::join!(
            place(&cluster.replicas[0].plane, room),
            place(&cluster.replicas[1].plane, room)
        );
        assert_eq!((&a.node_id, a.epoch), (&b.node_id, b.epoch), "{room}");
        assert_eq!(cluster.owners(room).len(), 1, "{room}");
    }
    assert!(
        cluster.nodes.iter().all(|node| node.opens() > 0),
        "all nodes have their share"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_room_told_last_outlives_a_store_that_did_not_hear_it() {
    let mut cluster = Cluster::start(2, &["n1"], &["council"]).await;
    place(&cluster.replicas[0].plane, "council").await;
    cluster
        .change(0, "council", |room| room.facts.opened = true)
        .await;
    cluster
        .kept("council", |record| {
            record.is_some_and(|record| record.facts.opened)
        })
        .await;
    cluster.store_away(true);
    cluster
        .change(0, "council", |room| {
            room.facts.metadata = "changed".into();
            room.facts.locked = true;
        })
        .await;
    drop(cluster.nodes.remove(0));
    for replica in &cluster.replicas {
        replica
            .until("the room is lost", |plane| {
                plane.room(&key("council")).filter(|room| !room.running)
            })
            .await;
    }
    // The store is back with what it knew before.
    cluster.store_away(false);
    cluster.add_node("n1").await;
    let back = cluster.nodes[0]
        .until("the room is back", |rooms, _| rooms.get("council").cloned())
        .await;
    assert!(back.facts.opened && back.facts.locked, "{back:?}");
    assert_eq!(back.facts.metadata, "changed");
    cluster.stop().await;
}

#[tokio::test]
async fn the_rules_of_an_ad_hoc_room_outlive_its_node_and_the_store() {
    let mut cluster = Cluster::start(1, &["n1", "n2"], &[]).await;
    let own = RoomPolicy {
        declared: false,
        max_participants: 7,
        revision: "own".into(),
        ..policy()
    };
    let wish = PlaceRequest {
        policy: own,
        ..request("adhoc")
    };
    let placed = cluster.replicas[0].plane.place(wish).await.expect("placed");
    let home = cluster.index(placed.node_id.as_str());
    cluster
        .change(home, "adhoc", |room| room.facts.opened = true)
        .await;
    let before = cluster.nodes[home].room("adhoc").expect("runs");
    cluster.store_away(true);
    // A replica that never saw the store, nor the room's beginning.
    cluster.add_replica(true).await;
    cluster.replicas[1]
        .until("it is heard", |plane| plane.room(&key("adhoc")))
        .await;
    cluster.stops[0].for_a_while(Duration::from_secs(3_600));
    drop(cluster.nodes.remove(home));
    let back = cluster.nodes[0]
        .until("the room is back", |rooms, _| rooms.get("adhoc").cloned())
        .await;
    assert_eq!(back.policy, before.policy);
    assert_eq!(back.policy.max_participants, 7);
    assert_eq!(back.facts, before.facts);
    let mut replicas = cluster.replicas.into_iter();
    drop(replicas.next());
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn what_ends_while_the_store_is_away_does_not_come_back_opened() {
    let cluster = Cluster::start(2, &["n1"], &["council"]).await;
    place(&cluster.replicas[0].plane, "council").await;
    cluster
        .change(0, "council", |room| room.facts.opened = true)
        .await;
    let opened = async {
        loop {
            let record = cluster.store.room(key("council")).await.expect("answers");
            if record.is_some_and(|record| record.facts.opened) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIVENESS, opened)
        .await
        .expect("the store knows it as opened");
    cluster.store_away(true);
    cluster.nodes[0].close("council", "Ended").await;
    for replica in &cluster.replicas {
        replica
            .until("it is gone", |plane| {
                plane.room(&key("council")).is_none().then_some(())
            })
            .await;
    }
    cluster.store_away(false);
    let gone = async {
        while cluster
            .store
            .room(key("council"))
            .await
            .expect("answers")
            .is_some()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIVENESS, gone)
        .await
        .expect("its end is written when the store is back");
    place(&cluster.replicas[1].plane, "council").await;
    assert!(!cluster.nodes[0].room("council").expect("runs").facts.opened);
    assert!(!cluster.away[0].load(Ordering::SeqCst));
    cluster.stop().await;
}
