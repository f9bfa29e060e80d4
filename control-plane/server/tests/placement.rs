// SPDX-License-Identifier: EUPL-1.2
//! Placement by real replicas on scripted nodes over one store: how often the store is asked, what is held and counted, where rooms may
//! run, and what tenants may have in use.

#![allow(missing_docs)]

/// Makes two tests of a claim: over the store in memory, and over a Redis.
macro_rules! over_both {
    ($($claim:ident($replicas:expr, $items:expr);)*) => {
        mod in_memory {
            use super::*;
            $(#[tokio::test] async fn $claim() { super::$claim(crate::Town::start($replicas, $items).await).await; })*
        }
        mod on_redis {
            use super::*;
            $(#[tokio::test] async fn $claim() { super::$claim(crate::Town::start_on_redis($replicas, $items).await).await; })*
        }
    };
}

#[path = "placement/planned.rs"]
mod planned;
#[path = "placement/quota.rs"]
mod quota;
#[path = "placement/residency.rs"]
mod residency;
#[path = "redis/mod.rs"]
mod servers;
#[path = "placement/trips.rs"]
mod trips;
#[path = "placement/watched.rs"]
mod watched;
#[allow(dead_code)]
mod world;

use std::sync::Arc;
use std::time::Duration;

use control_core::ids::Uid;
use control_plane::clock::Clock;
use control_plane::plane::{PlaceError, PlaceRequest, Placed, Plane};
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use control_plane::store::redis::address::Address;
use control_plane::store::redis::keys::Namespace;
use control_plane::store::redis::{Options, RedisStore};
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{NodeCapacity, NodeFacts};

use servers::Server;
use watched::Watched;
use world::node::Node;
use world::operator::{self, Publisher};
use world::pki::Ca;
use world::{LIVENESS, Replica};

/// Replicas over one store, and who publishes to them.
pub struct Town {
    pub replicas: Vec<Replica>,
    pub publishers: Vec<Publisher>,
    pub store: Arc<Watched>,
    pub server: Option<Server>,
}

impl Town {
    /// So many replicas that know these, over one store in memory.
    pub async fn start(replicas: usize, items: Vec<Item>) -> Self {
        let clock = Clock::start();
        let memory = MemoryStore::new(Arc::new(move || clock.now()));
        Self::over(Arc::new(memory), None, replicas, items).await
    }

    /// The same over a Redis.
    pub async fn start_on_redis(replicas: usize, items: Vec<Item>) -> Self {
        let server = Server::start();
        let options = Options {
            address: Address::parse(&server.url()).expect("a URL"),
            ca: None,
            namespace: Namespace::parse("local").expect("a name"),
            // A machine that compiles beside the tests is slow.
            deadline: Duration::from_secs(10),
        };
        let store = RedisStore::start(options).expect("a client");
        let answers = async {
            while store.ping().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIVENESS, answers)
            .await
            .expect("the store answers");
        Self::over(Arc::new(store), Some(server), replicas, items).await
    }

    async fn over(
        store: Arc<dyn Store>,
        server: Option<Server>,
        replicas: usize,
        items: Vec<Item>,
    ) -> Self {
        let store = Watched::over(store);
        let ca = Arc::new(Ca::new());
        let mut town = Self {
            replicas: Vec::new(),
            publishers: Vec::new(),
            store: Arc::clone(&store),
            server,
        };
        for _ in 0..replicas {
            let store: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
            let replica = Replica::start_on(Arc::clone(&ca), store).await;
            let mut publisher = Publisher::connect(&replica, 1).await;
            publisher.snapshot(items.clone()).await;
            town.replicas.push(replica);
            town.publishers.push(publisher);
        }
        town
    }

    pub fn plane(&self, replica: usize) -> &Plane {
        &self.replicas[replica].plane
    }

    /// Publishes to every replica.
    pub async fn publish(&mut self, item: Item) {
        for publisher in &mut self.publishers {
            publisher.publish(item.clone()).await;
        }
    }

    /// A node that all replicas may place rooms on, as the directory describes it.
    pub async fn node(&self, id: &str) -> Node {
        let all: Vec<&Replica> = self.replicas.iter().collect();
        let node = Node::start_at(&all, id, Default::default()).await;
        let uid = Uid::parse(&format!("u-{id}")).expect("uid");
        for replica in &self.replicas {
            world::until(&replica.plane, "the node accepts", |plane| {
                plane.accepts(&uid).then_some(())
            })
            .await;
        }
        node
    }

    /// Waits until a replica serves this line among its metrics.
    pub async fn metric(&self, replica: usize, line: &str) {
        world::until(self.plane(replica), line, |plane| {
            let text = plane.metrics().encode();
            text.lines().any(|served| served == line).then_some(())
        })
        .await;
    }

    /// Waits until a counter of a replica has come this far.
    pub async fn metric_at_least(&self, replica: usize, name: &str, least: u64) {
        world::until(self.plane(replica), name, |plane| {
            let text = plane.metrics().encode();
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            value.filter(|value| *value >= least).map(drop)
        })
        .await;
    }

    pub async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}

/// A node's facts with this ceiling.
pub fn node(id: &str, rooms: u32, participants: u32) -> NodeFacts {
    NodeFacts {
        capacity: Some(NodeCapacity {
            rooms,
            participants,
            egress_mbps: participants * 2,
        }),
        ..operator::node(id)
    }
}

/// A tenant without ceilings.
pub fn school() -> plenum_proto::v1::TenantRecord {
    plenum_proto::v1::TenantRecord {
        limits: None,
        ..operator::tenant()
    }
}

/// Places a room as a client does that comes again while nodes are still expected to report.
pub async fn place(plane: &Plane, request: PlaceRequest) -> Result<Placed, PlaceError> {
    let placed = async {
        loop {
            match plane.place(request.clone()).await {
                Err(PlaceError::Settling(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                placed => return placed,
            }
        }
    };
    tokio::time::timeout(LIVENESS, placed)
        .await
        .expect("nodes report or are not waited for any more")
}
