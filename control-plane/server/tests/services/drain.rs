// SPDX-License-Identifier: EUPL-1.2
//! Emptying of nodes: what moves when, who is told, who carries it out, and what happens when there is no place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control_plane::clock::Clock;
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{MoveOrder, NodeLoad};

use crate::world::node::Node;
use crate::world::operator::{self, Publisher};
use crate::world::pki::Ca;
use crate::world::{LIVENESS, Replica};
use crate::{accepting, place};

/// Replicas over one store, each with a publisher, and nodes that stream to all of them.
struct World {
    replicas: Vec<Replica>,
    publishers: Vec<Publisher>,
    nodes: BTreeMap<&'static str, Node>,
}

impl World {
    /// With rooms of so many people, all on `n1`.
    async fn start(replicas: usize, nodes: &[&'static str], rooms: &[(&'static str, u32)]) -> Self {
        let clock = Clock::start();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(move || clock.now())));
        let ca = Arc::new(Ca::new());
        let mut world = Self {
            replicas: Vec::new(),
            publishers: Vec::new(),
            nodes: BTreeMap::new(),
        };
        for _ in 0..replicas {
            let replica = Replica::start_on(Arc::clone(&ca), Arc::clone(&store)).await;
            let mut publisher = Publisher::connect(&replica, 1).await;
            let mut items = vec![Item::Tenant(operator::tenant())];
            let conferences = rooms.iter().map(|(room, _)| operator::conference(room));
            items.extend(conferences.map(Item::Conference));
            items.extend(nodes.iter().map(|id| Item::Node(operator::node(id))));
            publisher.snapshot(items).await;
            world.replicas.push(replica);
            world.publishers.push(publisher);
        }
        // The first one gets all rooms, because nobody else is there yet.
        world.add_node(nodes[0]).await;
        for (room, people) in rooms {
            place(&world.replicas[0].plane, room).await;
            world.nodes[nodes[0]]
                .change(room, |room| {
                    room.participants = *people;
                    room.facts.opened = true;
                })
                .await;
        }
        for id in &nodes[1..] {
            world.add_node(id).await;
        }
        world
    }

    async fn add_node(&mut self, id: &'static str) {
        let replicas: Vec<&Replica> = self.replicas.iter().collect();
        let node = Node::start_at(&replicas, id, BTreeMap::new()).await;
        for replica in &self.replicas {
            accepting(&replica.plane, id).await;
        }
        self.nodes.insert(id, node);
    }

    async fn order(&mut self, item: Item) {
        for publisher in &mut self.publishers {
            publisher.publish(item.clone()).await;
        }
    }

    /// Rooms may go on for a while, and then have a minute to move.
    async fn drain(&mut self, id: &str, patience: Duration) {
        let moves_at = unix_ms() + i64::try_from(patience.as_millis()).expect("small");
        self.order(operator::accepting(id, false)).await;
        self.order(Item::Move(MoveOrder {
            node_uid: format!("u-{id}"),
            epoch: 1,
            deadline_unix_ms: moves_at + 60_000,
            moves_at_unix_ms: moves_at,
            announce_before_ms: 300_000,
        }))
        .await;
    }

    async fn empty(&self, id: &str) {
        self.nodes[id]
            .until("the node is empty", |rooms, _| {
                rooms.is_empty().then_some(())
            })
            .await;
    }

    async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}

fn unix_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(now.as_millis()).expect("in range")
}

/// When a node was told that its rooms move, in order.
fn notices(orders: &[Order]) -> Vec<i64> {
    let notice = |order: &Order| match order {
        Order::Notice(notice) => Some(notice.moves_at_unix_ms),
        _ => None,
    };
    orders.iter().filter_map(notice).collect()
}

#[tokio::test]
async fn rooms_without_people_leave_before_the_time_and_people_are_told_of_it() {
    let mut world = World::start(1, &["n1", "n2"], &[("council", 2), ("class", 0)]).await;
    let before = unix_ms();
    world.drain("n1", Duration::from_secs(250)).await;
    world.nodes["n1"]
        .until("the empty room left", |rooms, _| {
            rooms.keys().eq(["council"]).then_some(())
        })
        .await;
    let told = world.nodes["n1"]
        .until("people are told", |_, orders| {
            notices(orders).first().copied()
        })
        .await;
    assert!(
        (249_000..350_000).contains(&(told - before)),
        "{told} {before}"
    );
    assert!(world.nodes["n2"].room("class").expect("moved").facts.opened);

    // Called off: everybody is told, and after the drain's time the room is where it was.
    world.order(operator::accepting("n1", true)).await;
    world.nodes["n1"]
        .until("people are told that it is off", |_, orders| {
            (notices(orders).last() == Some(&0)).then_some(())
        })
        .await;
    world.drain("n1", Duration::from_secs(1)).await;
    world.order(operator::accepting("n1", true)).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.nodes["n1"].room("council").expect("stays").epoch, 1);
    world.stop().await;
}

#[tokio::test]
async fn of_two_replicas_one_moves_each_room_once_and_the_other_goes_on_when_it_dies() {
    let rooms = [("a", 3), ("b", 2), ("c", 1), ("d", 4)];
    let mut world = World::start(2, &["n1", "n2"], &rooms).await;
    world.nodes["n2"].refuse_open(true);
    world.drain("n1", Duration::ZERO).await;
    // The one that carries it out cannot, and then it is gone.
    world.nodes["n2"]
        .until("somebody tries", |_, _| {
            (world.nodes["n2"].refused() > 0).then_some(())
        })
        .await;
    let gone = world.replicas.remove(0);
    gone.stop().await;
    world.nodes["n2"].refuse_open(false);
    world.empty("n1").await;
    for (room, _) in rooms {
        assert!(world.nodes["n2"].room(room).is_some(), "{room} moved");
    }
    world.stop().await;

    let mut world = World::start(2, &["n1", "n2"], &rooms).await;
    world.drain("n1", Duration::ZERO).await;
    world.empty("n1").await;
    assert_eq!(world.nodes["n2"].opens(), 4, "each room once");
    for (room, _) in rooms {
        assert_eq!(world.nodes["n2"].room(room).expect("moved").epoch, 2);
    }
    world.stop().await;
}

#[tokio::test]
async fn two_nodes_drain_at_once_and_a_target_that_drains_gives_what_it_got() {
    let rooms = [("a", 1), ("b", 2), ("c", 0), ("d", 3)];
    let mut world = World::start(1, &["n1", "n2"], &rooms).await;
    world.drain("n1", Duration::ZERO).await;
    world.empty("n1").await;
    // Both are drained; what has nowhere to go stays where it is.
    world.drain("n2", Duration::ZERO).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        rooms.len(),
        world.nodes["n2"]
            .until("all", |rooms, _| Some(rooms.len()))
            .await
    );
    // A place appears for all of them.
    world.order(operator::accepting("n1", true)).await;
    world.empty("n2").await;
    for (room, _) in rooms {
        let moved = world.nodes["n1"].room(room).expect("came back");
        assert!(moved.facts.opened && moved.epoch == 3, "{moved:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn rooms_without_a_place_stay_until_the_deadline_and_are_given_up_by_their_node() {
    let mut world = World::start(1, &["n1", "n2"], &[("council", 2)]).await;
    world.nodes["n2"].refuse_open(true);
    world.order(operator::accepting("n1", false)).await;
    world
        .order(Item::Move(MoveOrder {
            node_uid: "u-n1".into(),
            epoch: 1,
            deadline_unix_ms: unix_ms() + 3_000,
            ..MoveOrder::default()
        }))
        .await;
    let ordered = world.nodes["n1"]
        .until("the node is told to give up", |rooms, orders| {
            let order = orders.iter().find_map(|order| match order {
                Order::Move(order) => Some(order.node_uid.clone()),
                _ => None,
            });
            order.map(|order| (order, rooms.len()))
        })
        .await;
    assert_eq!(ordered, ("u-n1".to_owned(), 1));
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_leaves_by_itself_is_emptied_as_well() {
    let world = World::start(2, &["n1", "n2"], &[("council", 2), ("class", 0)]).await;
    let leaving = NodeLoad {
        accepting: false,
        rooms: 2,
        participants: 2,
        leaving_ms: 30_000,
        ..NodeLoad::default()
    };
    world.nodes["n1"].say(Report::Load(leaving)).await;
    tokio::time::timeout(LIVENESS, world.empty("n1"))
        .await
        .expect("emptied");
    for room in ["council", "class"] {
        assert_eq!(world.nodes["n2"].room(room).expect("moved").epoch, 2);
    }
    world.stop().await;
}
