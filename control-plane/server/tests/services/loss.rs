// SPDX-License-Identifier: EUPL-1.2
//! What follows when a node is lost, comes back, gives rooms up or is emptied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use control_core::ids::{Epoch, NodeId};
use control_core::placement::rank;
use control_plane::plane::PlaceRequest;
use control_plane::store::Store;
use plenum_proto::v1::RoomFacts;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::publication::Item;

use crate::world::flaky::Flaky;
use crate::world::node::Node;
use crate::world::operator::{self, Publisher};
use crate::world::{LIVENESS, Replica, key, request};
use crate::{place, published, ready};

#[tokio::test]
async fn a_dead_nodes_rooms_come_back_opened_elsewhere_and_the_dead_one_is_fenced_when_it_returns()
{
    let (replica, _publisher) = published(&["n1", "n2"]).await;
    let (first, second) = (ready(&replica, "n1").await, ready(&replica, "n2").await);
    let placed = replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    let (home, other) = if placed.node_id.as_str() == "n1" {
        (first, second)
    } else {
        (second, first)
    };
    home.change("council", |room| {
        room.participants = 3;
        room.facts.opened = true;
        room.facts.metadata = "kept".into();
    })
    .await;
    replica
        .until("opened", |plane| {
            plane
                .room(&key("council"))
                .filter(|room| room.facts.opened && room.participants == 3)
        })
        .await;
    let lost = replica.plane.node_lost(&home.id);
    let before = home.room("council").expect("runs");
    let id = home.id.clone();
    drop(home);

    tokio::time::timeout(LIVENESS, lost)
        .await
        .expect("relays are told");
    let (epoch, facts) = other
        .until("the room is opened on the other node", |rooms, _| {
            rooms
                .get("council")
                .map(|room| (room.epoch, room.facts.clone()))
        })
        .await;
    assert!(epoch > before.epoch, "{epoch} after {}", before.epoch);
    assert!(facts.opened, "nobody had to open it again");
    assert_eq!(
        (facts.room_sid.as_str(), facts.metadata.as_str()),
        ("RM_council", "kept")
    );
    let live = replica
        .until("it runs", |plane| {
            plane.room(&key("council")).filter(|room| room.running)
        })
        .await;
    assert_eq!(live.node_id.as_str(), other.id);

    // The node was only cut off, and comes back with the room under its old epoch.
    let back = Node::start_with(&replica, &id, BTreeMap::from([("council".into(), before)])).await;
    let below = back
        .until("it is told to drop the room", |_, orders| {
            orders.iter().find_map(|order| match order {
                Order::Drop(drop) => Some(drop.epoch_below),
                _ => None,
            })
        })
        .await;
    assert_eq!(below, epoch);
    back.until("it drops the room", |rooms, _| {
        rooms.is_empty().then_some(())
    })
    .await;
    let live = replica.plane.room(&key("council")).expect("still runs");
    assert_eq!(
        (live.node_id.as_str(), live.epoch.0, live.running),
        (other.id.as_str(), epoch, true)
    );
    assert_eq!(other.opens(), 1, "fencing moves nothing");
    replica.stop().await;
}

#[tokio::test]
async fn a_node_that_starts_anew_gets_its_rooms_back_before_anybody_asks() {
    let (replica, _publisher) = published(&["n1"]).await;
    let node = ready(&replica, "n1").await;
    replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    node.change("council", |room| room.facts.opened = true)
        .await;
    replica
        .until("opened", |plane| {
            plane.room(&key("council")).filter(|room| room.facts.opened)
        })
        .await;
    let before = node.room("council").expect("runs");
    drop(node);
    let node = Node::start(&replica, "n1").await;
    let room = node
        .until("the room is back", |rooms, _| rooms.get("council").cloned())
        .await;
    assert!(room.epoch > before.epoch);
    assert_eq!(
        room.facts,
        RoomFacts {
            opened: true,
            ..before.facts
        }
    );
    replica.stop().await;
}

#[tokio::test]
async fn a_room_that_nobody_had_opened_is_not_brought_back() {
    let (replica, _publisher) = published(&["n1"]).await;
    let node = ready(&replica, "n1").await;
    replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    assert!(!node.room("council").expect("runs").facts.opened);
    drop(node);
    let node = ready(&replica, "n1").await;
    replica
        .until("it is gone", |plane| {
            plane
                .room(&key("council"))
                .is_none_or(|room| !room.running)
                .then_some(())
        })
        .await;
    assert_eq!(node.opens(), 0);
    // The next one to come begins it, above the old lease.
    let placed = replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    assert_eq!((placed.epoch, node.opens()), (Epoch(2), 1));
    assert!(
        replica
            .plane
            .room(&key("council"))
            .is_some_and(|room| room.running)
    );
    replica.stop().await;
}

#[tokio::test]
async fn a_room_that_ended_by_itself_stays_ended_and_one_given_up_is_placed_anew() {
    let (replica, _publisher) = published(&["n1"]).await;
    let node = ready(&replica, "n1").await;
    replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    node.change("council", |room| room.facts.opened = true)
        .await;
    replica
        .until("opened", |plane| {
            plane.room(&key("council")).filter(|room| room.facts.opened)
        })
        .await;
    node.close("council", "Panicked").await;
    let again = node
        .until("it is opened again", |rooms, _| {
            rooms.get("council").cloned()
        })
        .await;
    assert!(again.facts.opened && again.epoch == 2, "{again:?}");
    replica
        .until("it runs", |plane| {
            plane.room(&key("council")).filter(|room| room.running)
        })
        .await;
    node.close("council", "Empty").await;
    replica
        .until("it is gone", |plane| {
            plane.room(&key("council")).is_none().then_some(())
        })
        .await;
    // A conference that is opened again begins anew: nobody is in it, nothing of it is kept.
    let placed = replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    assert!(
        !node.room("council").expect("runs").facts.opened,
        "{placed:?}"
    );
    replica.stop().await;
}

#[tokio::test]
async fn a_drained_node_is_emptied_room_by_room_and_the_lease_moves_first() {
    let (replica, mut publisher) = published(&["n1", "n2"]).await;
    for room in ["class", "board"] {
        publisher
            .publish(Item::Conference(operator::conference(room)))
            .await;
    }
    let first = ready(&replica, "n1").await;
    for room in ["council", "class", "board"] {
        place(&replica.plane, room).await;
        first.change(room, |room| room.facts.opened = true).await;
    }
    let second = ready(&replica, "n2").await;
    second.refuse_open(true);
    publisher.publish(operator::accepting("n1", false)).await;
    publisher.publish(operator::move_away("n1")).await;
    // Nobody takes them yet: they go on where they are, and what they report is heard.
    second
        .until("it was asked for each room", |_, _| {
            (second.refused() >= 3).then_some(())
        })
        .await;
    first.change("council", |room| room.participants = 2).await;
    replica
        .until("the room goes on", |plane| {
            plane
                .room(&key("council"))
                .filter(|room| room.participants == 2)
        })
        .await;
    assert!(first.room("council").is_some());
    second.refuse_open(false);
    first
        .until("the node is empty", |rooms, _| {
            rooms.is_empty().then_some(())
        })
        .await;
    for room in ["council", "class", "board"] {
        let moved = second.room(room).expect("runs on the other node");
        assert!(moved.facts.opened && moved.epoch >= 2, "{moved:?}");
        assert_eq!(
            replica
                .plane
                .room(&key(room))
                .expect("runs")
                .node_id
                .as_str(),
            "n2"
        );
    }
    replica.stop().await;
}

#[tokio::test]
async fn without_the_store_rooms_go_on_new_ones_are_placed_and_leases_are_written_back() {
    let away = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&away);
    let kept: Arc<OnceLock<Arc<dyn Store>>> = Arc::default();
    let inner = Arc::clone(&kept);
    let replica = Replica::start_with(move |store| {
        let _ = inner.set(Arc::clone(&store));
        Flaky::over(store, flag)
    })
    .await;
    let store = Arc::clone(kept.get().expect("set at the start"));
    let mut publisher = Publisher::connect(&replica, 1).await;
    let mut items = vec![Item::Tenant(operator::tenant())];
    items.extend(["council", "class"].map(|room| Item::Conference(operator::conference(room))));
    items.extend(["n1", "n2"].map(|id| Item::Node(operator::node(id))));
    publisher.snapshot(items).await;
    let nodes = [ready(&replica, "n1").await, ready(&replica, "n2").await];
    let running = place(&replica.plane, "council").await;

    away.store(true, Ordering::SeqCst);
    let again = replica
        .plane
        .place(request("council"))
        .await
        .expect("a running room is found");
    assert_eq!(
        (again.node_id, again.epoch),
        (running.node_id, running.epoch)
    );
    let floor = PlaceRequest {
        floor: Epoch(6),
        ..request("class")
    };
    let placed = replica
        .plane
        .place(floor)
        .await
        .expect("a new room is placed by the own view");
    assert_eq!(placed.epoch, Epoch(7), "above what the caller knows");
    let by_rank = ["n1", "n2"]
        .map(|id| NodeId::parse(id).expect("node id"))
        .into_iter()
        .max_by_key(|id| rank(&key("class"), id));
    assert_eq!(
        Some(placed.node_id.clone()),
        by_rank,
        "as every other replica would choose"
    );
    // A crash meanwhile is seen by the own view alone.
    let (dead, alive): (Vec<_>, Vec<_>) = nodes
        .into_iter()
        .partition(|node| node.id == placed.node_id.as_str());
    dead[0]
        .change("class", |room| room.facts.opened = true)
        .await;
    replica
        .until("opened", |plane| {
            plane.room(&key("class")).filter(|room| room.facts.opened)
        })
        .await;
    drop(dead);
    let moved = alive[0]
        .until("the room comes back", |rooms, _| {
            rooms.get("class").cloned()
        })
        .await;
    assert!(moved.facts.opened && moved.epoch > 7, "{moved:?}");
    assert_eq!(
        store
            .room(key("class"))
            .await
            .expect("the inner one answers"),
        None
    );

    away.store(false, Ordering::SeqCst);
    let written = async {
        loop {
            if let Some(record) = store.room(key("class")).await.expect("answers") {
                return record;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let record = tokio::time::timeout(LIVENESS, written)
        .await
        .expect("the lease is written back");
    assert_eq!(
        (record.lease.epoch.0, record.lease.node.as_str()),
        (moved.epoch, alive[0].id.as_str())
    );
    assert!(record.facts.opened);
    assert_eq!(record.policy.revision, "p1");
    replica.stop().await;
}
