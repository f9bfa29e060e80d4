// SPDX-License-Identifier: EUPL-1.2
//! Networks that fail and parts that stand still: what dies, what comes back, and that nothing else moves.

use std::time::Duration;

use control_plane::plane::PlaceError;
use plenum_proto::v1::{NodeCapacity, Revocation, Role, RoleChange, RoomFacts};

use crate::cluster::{Cluster, items};
use crate::place;
use crate::world::net::Line;
use crate::world::node::Room;
use crate::world::operator;
use crate::world::{key, request};

/// Everything that a room may know of itself.
fn all_facts(room: &mut Room) {
    room.participants = 3;
    room.facts = RoomFacts {
        room_sid: room.facts.room_sid.clone(),
        opened: true,
        locked: true,
        revoked: vec![Revocation {
            identity: "banned".into(),
            not_before_unix_s: 1_700_000_000,
        }],
        admitted: vec!["admitted".into()],
        role_changes: vec![RoleChange {
            identity: "raised".into(),
            role: Role::Moderator.into(),
        }],
        metadata: "kept".into(),
        created_unix_ms: 1_700_000_000_000,
    };
}

#[tokio::test]
async fn a_glitch_of_five_seconds_between_all_nodes_and_all_replicas_moves_nothing() {
    let cluster = Cluster::start(2, &["n1", "n2", "n3"], &["council", "class"]).await;
    let mut owners = Vec::new();
    for room in ["council", "class"] {
        let placed = place(&cluster.replicas[0].plane, room).await;
        cluster
            .change(cluster.index(placed.node_id.as_str()), room, |room| {
                room.facts.opened = true;
            })
            .await;
        owners.push(cluster.owners(room));
    }
    cluster.all_lines(Line::Held);
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.all_lines(Line::Whole);
    // Long enough for whatever the silence would have set off.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(cluster.deaths(), 0);
    for (room, before) in ["council", "class"].iter().zip(owners) {
        assert_eq!(cluster.owners(room), before);
        for replica in &cluster.replicas {
            let live = replica
                .until("it runs", |plane| {
                    plane.room(&key(room)).filter(|room| room.running)
                })
                .await;
            assert_eq!(live.node_id.as_str(), before[0].0);
            place(&replica.plane, room).await;
        }
    }
    let opens: u32 = cluster.nodes.iter().map(|node| node.opens()).sum();
    assert_eq!(opens, 2, "each was opened once");
    cluster.stop().await;
}

#[tokio::test]
async fn rooms_of_a_node_that_stands_still_come_back_as_they_were_and_it_drops_them_when_it_goes_on()
 {
    let cluster = Cluster::start(2, &["n1", "n2"], &["council"]).await;
    let placed = place(&cluster.replicas[0].plane, "council").await;
    let home = cluster.index(placed.node_id.as_str());
    let other = 1 - home;
    cluster.change(home, "council", all_facts).await;
    let before = cluster.nodes[home].room("council").expect("runs");

    cluster.all_lines_of_node(home, Line::Held);
    let moved = cluster.nodes[other]
        .until("the room is opened elsewhere", |rooms, _| {
            rooms.get("council").cloned()
        })
        .await;
    assert_eq!(moved.facts, before.facts);
    assert!(moved.epoch > before.epoch);
    for replica in &cluster.replicas {
        replica
            .until("it is dead for both", |plane| {
                (plane.metrics().nodes_dead.get() == 1).then_some(())
            })
            .await;
        replica
            .until("it runs there", |plane| {
                plane
                    .room(&key("council"))
                    .filter(|room| room.running && room.epoch.0 == moved.epoch)
            })
            .await;
    }
    assert_eq!(
        cluster.owners("council").len(),
        2,
        "the one that stands still knows nothing of it"
    );

    cluster.all_lines_of_node(home, Line::Whole);
    cluster.nodes[home]
        .until("it drops what is not its own any more", |rooms, _| {
            rooms.is_empty().then_some(())
        })
        .await;
    for replica in &cluster.replicas {
        replica
            .until("the node is back", |plane| {
                let uid = control_core::ids::Uid::parse(&format!("u-{}", placed.node_id)).ok()?;
                plane.accepts(&uid).then_some(())
            })
            .await;
        let live = replica.plane.room(&key("council")).expect("runs");
        assert_eq!((live.epoch.0, live.running), (moved.epoch, true));
    }
    assert_eq!(cluster.nodes[other].opens(), 1, "nothing moved twice");
    let record = cluster
        .store
        .room(key("council"))
        .await
        .expect("answers")
        .expect("kept");
    assert_eq!(
        (record.lease.node.as_str(), record.lease.epoch.0),
        (cluster.nodes[other].id.as_str(), moved.epoch)
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_replica_that_stood_still_across_a_leases_end_believes_nobody_dead() {
    let cluster = Cluster::start(2, &["n1", "n2"], &["council", "class"]).await;
    let placed = place(&cluster.replicas[0].plane, "council").await;
    let home = cluster.index(placed.node_id.as_str());
    cluster
        .change(home, "council", |room| room.facts.opened = true)
        .await;
    let owners = cluster.owners("council");

    // The one that stands still is the nodes' primary: nobody refreshes their leases until they have chosen the other one.
    cluster.stops[0].for_a_while(Duration::from_secs(8));
    // Meanwhile the other one goes on as ever.
    let again = place(&cluster.replicas[1].plane, "council").await;
    assert_eq!(again.node_id, placed.node_id);
    place(&cluster.replicas[1].plane, "class").await;
    let class = cluster.owners("class");
    tokio::time::sleep(Duration::from_secs(8)).await;
    // It is awake, and a lease later still nobody is dead.
    for replica in &cluster.replicas {
        for id in ["n1", "n2"] {
            crate::accepting(&replica.plane, id).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(cluster.deaths(), 0);
    assert_eq!(cluster.owners("council"), owners);
    assert_eq!(cluster.owners("class"), class);
    // What was placed while it stood still is known to it.
    let found = place(&cluster.replicas[0].plane, "class").await;
    assert_eq!(found.node_id.as_str(), class[0].0);
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_one_replica_alone_hears_dies_for_nobody() {
    let cluster = Cluster::start(2, &["n1", "n2"], &["council"]).await;
    let placed = place(&cluster.replicas[0].plane, "council").await;
    let home = cluster.index(placed.node_id.as_str());
    cluster
        .change(home, "council", |room| room.facts.opened = true)
        .await;
    let owners = cluster.owners("council");
    cluster.line(home, 1, Line::Held);
    cluster.replicas[1]
        .until("it is suspect there", |plane| {
            plane
                .host_by_node("local", placed.node_id.as_str())
                .is_some()
                .then_some(())
        })
        .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(cluster.deaths(), 0, "its lease is held");
    let refusal = cluster.replicas[1]
        .plane
        .place(request("council"))
        .await
        .expect_err("it cannot be asked from there");
    assert!(matches!(refusal, PlaceError::NodeSilent(_)), "{refusal}");
    assert_eq!(refusal.status(), 503);
    place(&cluster.replicas[0].plane, "council").await;
    cluster.line(home, 1, Line::Whole);
    let found = async {
        while cluster.replicas[1]
            .plane
            .place(request("council"))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::world::LIVENESS, found)
        .await
        .expect("it is heard again");
    assert_eq!(cluster.owners("council"), owners);
    cluster.stop().await;
}

#[tokio::test]
async fn with_half_of_the_nodes_gone_capacity_is_refused_honestly_and_nothing_else_breaks() {
    let ids = ["n1", "n2", "n3", "n4"];
    let rooms = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "more"];
    let facts: Vec<_> = ids
        .iter()
        .map(|id| plenum_proto::v1::NodeFacts {
            capacity: Some(NodeCapacity {
                rooms: 2,
                participants: 100,
                egress_mbps: 1_000,
            }),
            ..operator::node(id)
        })
        .collect();
    let mut cluster = Cluster::start_with(2, items(&rooms, &facts), &ids).await;
    for room in &rooms[..8] {
        let placed = place(&cluster.replicas[0].plane, room).await;
        cluster
            .change(cluster.index(placed.node_id.as_str()), room, |room| {
                room.facts.opened = true;
            })
            .await;
    }
    let running: Vec<&str> = rooms[..8]
        .iter()
        .copied()
        .filter(|room| ["n1", "n2"].contains(&cluster.owners(room)[0].0.as_str()))
        .collect();
    assert_eq!(running.len(), 4, "two rooms each");
    for id in ["n3", "n4"] {
        let index = cluster.index(id);
        drop(cluster.nodes.remove(index));
    }
    for replica in &cluster.replicas {
        replica
            .until("both are dead", |plane| {
                (plane.metrics().nodes_dead.get() == 2).then_some(())
            })
            .await;
        for room in &running {
            place(&replica.plane, room).await;
        }
        let refusal = replica
            .plane
            .place(request("more"))
            .await
            .expect_err("all is full");
        assert_eq!((refusal.reason(), refusal.status()), ("NoCapacity", 503));
        assert!(refusal.retry_after_s().is_some());
    }
    for room in &running {
        assert_eq!(cluster.owners(room).len(), 1, "{room} is left alone");
    }
    // A node comes: what waits is placed on it, as far as it goes, and without anybody's asking.
    cluster.add_node("n3").await;
    let back = cluster.nodes[2]
        .until("two rooms come back", |rooms, _| {
            (rooms.len() == 2).then(|| rooms.clone())
        })
        .await;
    assert!(
        back.values()
            .all(|room| room.facts.opened && room.epoch > 1),
        "{back:?}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn what_happens_while_a_nodes_primary_replica_dies_reaches_the_store_through_the_next_one() {
    let cluster = Cluster::start(2, &["n1"], &["council", "class"]).await;
    for room in ["council", "class"] {
        place(&cluster.replicas[0].plane, room).await;
        cluster
            .change(0, room, |room| room.facts.opened = true)
            .await;
    }
    // The primary stands still, so it takes what is said to it along into its death.
    cluster.stops[0].for_a_while(Duration::from_secs(3_600));
    cluster.nodes[0]
        .change("council", |room| room.facts.metadata = "changed".into())
        .await;
    cluster.nodes[0].close("class", "Ended").await;
    let written = async {
        loop {
            let council = cluster.store.room(key("council")).await.expect("answers");
            let class = cluster.store.room(key("class")).await.expect("answers");
            let changed = council.is_some_and(|record| record.facts.metadata == "changed");
            if changed && class.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::world::LIVENESS, written)
        .await
        .expect("the next primary writes both");
    assert_eq!(cluster.deaths(), 0);
    // Opened again, it begins anew.
    place(&cluster.replicas[1].plane, "class").await;
    assert!(!cluster.nodes[0].room("class").expect("runs").facts.opened);
    let mut replicas = cluster.replicas.into_iter();
    drop(replicas.next());
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_replica_that_is_killed_takes_nothing_along() {
    let cluster = Cluster::start(2, &["n1", "n2"], &["council", "class"]).await;
    let placed = place(&cluster.replicas[0].plane, "council").await;
    let home = cluster.index(placed.node_id.as_str());
    cluster
        .change(home, "council", |room| room.facts.opened = true)
        .await;
    let owners = cluster.owners("council");
    cluster.stops[0].kill();
    for node in &cluster.nodes {
        let left = async {
            while node.attached() > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::world::LIVENESS, left)
            .await
            .expect("its streams break");
    }
    let found = place(&cluster.replicas[1].plane, "council").await;
    assert_eq!((found.node_id, found.epoch), (placed.node_id, placed.epoch));
    place(&cluster.replicas[1].plane, "class").await;
    // The leases that it refreshed are kept up by the one that is left.
    tokio::time::sleep(Duration::from_secs(7)).await;
    for id in ["n1", "n2"] {
        let id = control_core::ids::NodeId::parse(id).expect("node id");
        let lease = cluster.store.node(id).await.expect("answers");
        assert!(lease.is_some());
    }
    assert_eq!(cluster.deaths(), 0);
    assert_eq!(cluster.owners("council"), owners);
    assert_eq!(cluster.opens(), 2);
    let mut replicas = cluster.replicas.into_iter();
    drop(replicas.next());
    for replica in replicas {
        replica.stop().await;
    }
}
