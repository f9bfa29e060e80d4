// SPDX-License-Identifier: EUPL-1.2
//! Several replicas over one store and several nodes, each pair of them with a line of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use control_plane::clock::Clock;
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use plenum_proto::v1::NodeFacts;
use plenum_proto::v1::publication::Item;

use crate::accepting;
use crate::world::flaky::Flaky;
use crate::world::net::{Line, Switch};
use crate::world::node::Node;
use crate::world::operator::{self, Publisher};
use crate::world::pki::Ca;
use crate::world::{Replica, Stop, key};

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
}

pub(crate) fn memory() -> Arc<dyn Store> {
    let clock = Clock::start();
    Arc::new(MemoryStore::new(Arc::new(move || clock.now())))
}

/// What an operator publishes of these conferences and nodes.
pub(crate) fn items(rooms: &[&str], nodes: &[NodeFacts]) -> Vec<Item> {
    let mut items = vec![Item::Tenant(operator::tenant())];
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

    pub(crate) async fn start_with(replicas: usize, items: Vec<Item>, nodes: &[&str]) -> Self {
        let mut cluster = Self {
            ca: Arc::new(Ca::new()),
            store: memory(),
            replicas: Vec::new(),
            stops: Vec::new(),
            nodes: Vec::new(),
            publishers: Vec::new(),
            away: Vec::new(),
            lines: Vec::new(),
            items,
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
        let store = Flaky::over(Arc::clone(&self.store), Arc::clone(&away));
        let (replica, stop) = Replica::start_apart(Arc::clone(&self.ca), store).await;
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

    pub(crate) async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}
