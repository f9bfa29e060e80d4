// SPDX-License-Identifier: EUPL-1.2
//! Several replicas over one store and several nodes, each pair of them with a line of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use control_plane::clock::Clock;
use control_plane::store::memory::MemoryStore;
use control_plane::store::redis;
use control_plane::store::{RoomRecord, Store};
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{NodeFacts, TenantRecord};

use crate::accepting;
use crate::world::flaky::Flaky;
use crate::world::net::{Line, Switch};
use crate::world::node::Node;
use crate::world::operator::{self, Publisher};
use crate::world::pki::Ca;
use crate::world::{LIVENESS, Replica, Stop, key};

pub(crate) struct Cluster {
    pub(crate) ca: Arc<Ca>,
    /// What the replicas share, whatever happens to their way to it.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) stops: Vec<Stop>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) publishers: Vec<Publisher>,
    /// Is the store away, by replica?
    pub(crate) away: Vec<Arc<AtomicBool>>,
    /// Lines by node and replica.
    lines: Vec<Vec<Switch>>,
    items: Vec<Item>,
    way_to_store: WayToStore,
}

/// A replica's own way to what all of them share.
type WayToStore = Arc<dyn Fn() -> Arc<dyn Store> + Send + Sync>;

pub(crate) fn memory() -> Arc<dyn Store> {
    let clock = Clock::start();
    Arc::new(MemoryStore::new(Arc::new(move || clock.now())))
}

/// What an operator publishes of these conferences and nodes.
pub(crate) fn items(rooms: &[&str], nodes: &[NodeFacts]) -> Vec<Item> {
    let tenant = TenantRecord {
        limits: None,
        ..operator::tenant()
    };
    let mut items = vec![Item::Tenant(tenant)];
    let conferences = rooms.iter().map(|room| operator::conference(room));
    items.extend(conferences.map(Item::Conference));
    items.extend(nodes.iter().cloned().map(Item::Node));
    items
}

impl Cluster {
    pub(crate) async fn start(replicas: usize, nodes: &[&str], rooms: &[&str]) -> Self {
        let facts: Vec<NodeFacts> = nodes.iter().map(|id| operator::node(id)).collect();
        Self::start_with(replicas, items(rooms, &facts), nodes).await
    }

    /// Over a store in Redis.
    pub(crate) async fn start_on_redis(
        url: &str,
        replicas: usize,
        nodes: &[&str],
        rooms: &[&str],
    ) -> Self {
        let url = url.to_owned();
        let connect: WayToStore = Arc::new(move || {
            let options = redis::Options {
                address: redis::address::Address::parse(&url).expect("an address"),
                ca: None,
                namespace: redis::keys::Namespace::parse("local").expect("a name"),
                deadline: Duration::from_millis(250),
            };
            Arc::new(redis::RedisStore::start(options).expect("started"))
        });
        let facts: Vec<NodeFacts> = nodes.iter().map(|id| operator::node(id)).collect();
        Self::start_over(connect, replicas, items(rooms, &facts), nodes).await
    }

    pub(crate) async fn start_with(replicas: usize, items: Vec<Item>, nodes: &[&str]) -> Self {
        let store = memory();
        let share: WayToStore = Arc::new(move || Arc::clone(&store));
        Self::start_over(share, replicas, items, nodes).await
    }

    async fn start_over(
        way_to_store: WayToStore,
        replicas: usize,
        items: Vec<Item>,
        nodes: &[&str],
    ) -> Self {
        let mut cluster = Self {
            ca: Arc::new(Ca::new()),
            store: way_to_store(),
            replicas: Vec::new(),
            stops: Vec::new(),
            nodes: Vec::new(),
            publishers: Vec::new(),
            away: Vec::new(),
            lines: Vec::new(),
            items,
            way_to_store,
        };
        for _ in 0..replicas {
            cluster.add_replica(false).await;
        }
        for id in nodes {
            cluster.add_node(id).await;
        }
        cluster
    }

    /// One more replica, with what the operator publishes; `away` if it cannot reach the store.
    pub(crate) async fn add_replica(&mut self, away: bool) {
        let away = Arc::new(AtomicBool::new(away));
        let (way, flag) = (Arc::clone(&self.way_to_store), Arc::clone(&away));
        let connect = move || Flaky::over(way(), flag);
        let (replica, stop) = Replica::start_apart(Arc::clone(&self.ca), connect).await;
        let mut publisher = Publisher::connect(&replica, 1).await;
        publisher.snapshot(self.items.clone()).await;
        for (node, lines) in self.nodes.iter_mut().zip(&mut self.lines) {
            let switch = Switch::default();
            node.learn(&replica, &switch).await;
            lines.push(switch);
        }
        self.replicas.push(replica);
        self.stops.push(stop);
        self.publishers.push(publisher);
        self.away.push(away);
    }

    /// One more node, attached to every replica there is.
    pub(crate) async fn add_node(&mut self, id: &str) {
        let lines: Vec<Switch> = self.replicas.iter().map(|_| Switch::default()).collect();
        let ways: Vec<(&Replica, &Switch)> = self.replicas.iter().zip(&lines).collect();
        let node = Node::start_behind(&ways, id).await;
        for replica in &self.replicas {
            accepting(&replica.plane, id).await;
        }
        self.nodes.push(node);
        self.lines.push(lines);
    }

    /// A node's process ends and starts anew, with no memory and behind the same lines.
    pub(crate) async fn restart_node(&mut self, node: usize) {
        let id = self.nodes[node].id.clone();
        let ways: Vec<(&Replica, &Switch)> = self.replicas.iter().zip(&self.lines[node]).collect();
        // The former one is gone before the new one begins.
        let place = Node::gone(&id);
        drop(std::mem::replace(&mut self.nodes[node], place));
        self.nodes[node] = Node::start_cut_off(&ways, &id).await;
    }

    pub(crate) fn line(&self, node: usize, replica: usize, line: Line) {
        self.lines[node][replica].set(line);
    }

    pub(crate) fn all_lines_of_node(&self, node: usize, line: Line) {
        for switch in &self.lines[node] {
            switch.set(line);
        }
    }

    pub(crate) fn all_lines(&self, line: Line) {
        for node in 0..self.lines.len() {
            self.all_lines_of_node(node, line);
        }
    }

    pub(crate) fn store_away(&self, away: bool) {
        for flag in &self.away {
            flag.store(away, Ordering::SeqCst);
        }
    }

    /// Where a node stands in the list.
    pub(crate) fn index(&self, id: &str) -> usize {
        self.nodes
            .iter()
            .position(|node| node.id == id)
            .expect("one of the cluster")
    }

    /// Changes a room where it runs, and waits until every replica has heard of it.
    pub(crate) async fn change(
        &self,
        node: usize,
        room: &str,
        change: impl FnOnce(&mut crate::world::node::Room),
    ) {
        self.nodes[node].change(room, change).await;
        let wanted = self.nodes[node].room(room).expect("runs");
        for replica in &self.replicas {
            replica
                .until("the change is heard", |plane| {
                    plane.room(&key(room)).filter(|room| {
                        room.participants == wanted.participants
                            && room.facts.opened == wanted.facts.opened
                            && room.facts.metadata.as_str() == wanted.facts.metadata
                    })
                })
                .await;
        }
    }

    /// Owners of a room by the nodes themselves: node and epoch.
    pub(crate) fn owners(&self, room: &str) -> Vec<(String, u64)> {
        let owners: BTreeMap<String, u64> = self
            .nodes
            .iter()
            .filter_map(|node| Some((node.id.clone(), node.room(room)?.epoch)))
            .collect();
        owners.into_iter().collect()
    }

    /// Nodes that any replica has declared dead so far.
    pub(crate) fn deaths(&self) -> u64 {
        self.replicas
            .iter()
            .map(|replica| replica.plane.metrics().nodes_dead.get())
            .sum()
    }

    /// How often rooms were opened, on all nodes.
    pub(crate) fn opens(&self) -> u32 {
        self.nodes.iter().map(|node| node.opens()).sum()
    }

    /// Waits until the store keeps of a room what is wanted.
    pub(crate) async fn kept(
        &self,
        room: &str,
        wanted: impl Fn(Option<&RoomRecord>) -> bool,
    ) -> Option<RoomRecord> {
        let look = async {
            loop {
                // It may be on its way back.
                if let Ok(record) = self.store.room(key(room)).await
                    && wanted(record.as_ref())
                {
                    return record;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIVENESS, look)
            .await
            .expect("the store keeps what is so")
    }

    pub(crate) async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}
