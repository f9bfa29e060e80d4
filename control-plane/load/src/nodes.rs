// SPDX-License-Identifier: EUPL-1.2
//! Simulated media nodes: each attaches to every replica with a certificate of its own, reports each second and at each change, and
//! serves `RoomHost`. All of them share one listener; the name that a replica asks for in its handshake tells which one is meant.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use plenum_proto::v1::node_control_client::NodeControlClient;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::{
    NodeFacts, NodeHello, NodeLoad, NodeReport, RoomClosed, RoomFacts, RoomKey, RoomPolicy,
    RoomState,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::pki::Pki;

mod host;

/// Pace of load reports, as of real nodes.
const LOAD: Duration = Duration::from_secs(1);
/// Reports on their way to one replica.
const QUEUE: usize = 1_024;
/// Handshakes at a time: more would measure this process.
const DIALS_MAX: usize = 32;
/// Wait before a stream that broke is dialled anew.
const AGAIN: Duration = Duration::from_millis(500);
/// All nodes are attached within this time, or something is wrong.
const ATTACH: Duration = Duration::from_secs(180);

/// Key of a room, tenant first.
pub(crate) type Key = (String, String);

/// A room of a simulated node.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    epoch: u64,
    participants: u32,
    facts: RoomFacts,
    policy: RoomPolicy,
}

/// One node.
struct Node {
    uid: String,
    rooms: Mutex<HashMap<Key, Room>>,
    /// Where its reports go, by replica; `None` while there is no stream.
    replicas: Vec<Mutex<Option<mpsc::Sender<NodeReport>>>>,
}

/// What happened to all nodes together.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Streams that stand, with facts.
    pub(crate) attached: AtomicU64,
    /// Streams that broke.
    pub(crate) broken: AtomicU64,
    /// Rooms opened.
    pub(crate) opened: AtomicU64,
    /// Sessions begun.
    pub(crate) sessions: AtomicU64,
    /// Rooms dropped by order.
    pub(crate) dropped: AtomicU64,
    /// Reports that found no room in their queue.
    pub(crate) reports_lost: AtomicU64,
}

struct Inner {
    nodes: Vec<Node>,
    replicas: Vec<String>,
    pki: Pki,
    host: SocketAddr,
    dials: Semaphore,
    counters: Counters,
}

/// Handle to all of them; cheap to clone.
#[derive(Clone)]
pub(crate) struct Nodes(Arc<Inner>);

/// Uid of the node with a number.
pub(crate) fn uid(index: usize) -> String {
    format!("load-{index}")
}

/// Number of the node with a uid.
fn index_of(uid: &str) -> Option<usize> {
    uid.strip_prefix("load-")?.parse().ok()
}

impl Nodes {
    /// Serves `RoomHost` for `count` nodes that will attach to `replicas`.
    pub(crate) async fn serve(pki: Pki, count: usize, replicas: Vec<String>) -> Result<Self> {
        let listener = host::Listener::bind(&pki, count).await?;
        let nodes = (0..count)
            .map(|index| Node {
                uid: uid(index),
                rooms: Mutex::default(),
                replicas: replicas.iter().map(|_| Mutex::default()).collect(),
            })
            .collect();
        let nodes = Self(Arc::new(Inner {
            nodes,
            replicas,
            pki,
            host: listener.address(),
            dials: Semaphore::new(DIALS_MAX),
            counters: Counters::default(),
        }));
        listener.serve(nodes.clone());
        Ok(nodes)
    }

    /// The CA they are all of.
    pub(crate) fn pki(&self) -> &Pki {
        &self.0.pki
    }

    /// What happened so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Attaches the nodes of `range` to every replica and waits until they have their facts.
    pub(crate) async fn attach(&self, range: std::ops::Range<usize>) -> Result<()> {
        let replicas = self.0.replicas.len();
        let wanted = (range.end * replicas) as u64;
        for index in range {
            for replica in 0..replicas {
                tokio::spawn(self.clone().keep_attached(index, replica));
            }
        }
        let end = Instant::now() + ATTACH;
        while self.0.counters.attached.load(Ordering::Relaxed) < wanted {
            if Instant::now() > end {
                bail!(
                    "{} of {wanted} streams of nodes stand after {} s, {} broke",
                    self.0.counters.attached.load(Ordering::Relaxed),
                    ATTACH.as_secs(),
                    self.0.counters.broken.load(Ordering::Relaxed),
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn keep_attached(self, index: usize, replica: usize) {
        loop {
            let mut attached = false;
            let end = self.stream(index, replica, &mut attached).await;
            lock(&self.0.nodes[index].replicas[replica]).take();
            if attached {
                self.0.counters.attached.fetch_sub(1, Ordering::Relaxed);
            }
            if self.0.counters.broken.fetch_add(1, Ordering::Relaxed) < 5
                && let Err(error) = end
            {
                tracing::warn!(node = index, replica, "a node's stream broke: {error:#}");
            }
            sleep(AGAIN).await;
        }
    }

    async fn stream(&self, index: usize, replica: usize, attached: &mut bool) -> Result<()> {
        let node = &self.0.nodes[index];
        let (reports, queue) = mpsc::channel(QUEUE);
        let mut orders = {
            let _turn = self.0.dials.acquire().await?;
            let channel = Endpoint::from_shared(format!("https://{}", self.0.replicas[replica]))?
                .tls_config(self.0.pki.node(&node.uid)?)?
                .tcp_nodelay(true)
                .connect()
                .await?;
            // The first message waits in the queue before the call: the replica wants it before it answers.
            reports.try_send(report(self.hello(index, replica, None)))?;
            NodeControlClient::new(channel)
                .attach(ReceiverStream::new(queue))
                .await?
                .into_inner()
        };
        let facts = facts(&mut orders).await?;
        let accepting = facts.accepting;
        reports
            .send(report(self.hello(index, replica, Some(facts))))
            .await?;
        // From here on each change is reported; what exists already follows, and nothing is lost between the two.
        lock(&node.replicas[replica]).replace(reports.clone());
        let known: Vec<NodeReport> = lock(&node.rooms)
            .iter()
            .map(|(key, room)| report(state(key, room)))
            .collect();
        for room in known {
            reports.send(room).await?;
        }
        reports.send(report(Report::EndOfRooms(true))).await?;
        self.0.counters.attached.fetch_add(1, Ordering::Relaxed);
        *attached = true;
        // Nodes of a real site do not tick together.
        let phase = LOAD.mul_f64((index * 37 % 1_000) as f64 / 1_000.0);
        let mut tick = interval_at(Instant::now() + phase, LOAD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reports.send(report(self.load(index, accepting))).await?;
        loop {
            tokio::select! {
                order = orders.message() => match order? {
                    Some(order) => self.obey(index, order.item),
                    None => bail!("the replica ended it"),
                },
                _ = tick.tick() => reports.send(report(self.load(index, accepting))).await?,
            }
        }
    }

    fn hello(&self, index: usize, replica: usize, facts: Option<NodeFacts>) -> Report {
        let facts = facts.unwrap_or_default();
        Report::Hello(NodeHello {
            uid: uid(index),
            node_id: facts.node_id,
            site: facts.site,
            epoch: facts.epoch,
            grpc_endpoint: self.0.host.to_string(),
            version: "load".to_owned(),
            // Nodes spread over the replicas, each has one that writes its lease.
            primary: index % self.0.replicas.len() == replica,
        })
    }

    fn load(&self, index: usize, accepting: bool) -> Report {
        let (rooms, participants) = {
            let rooms = lock(&self.0.nodes[index].rooms);
            let participants = rooms.values().map(|room| room.participants).sum();
            (u32::try_from(rooms.len()).unwrap_or(u32::MAX), participants)
        };
        Report::Load(NodeLoad {
            accepting,
            rooms,
            participants,
            egress_bps: u64::from(participants) * 1_500_000,
            unix_ms: now_unix_ms(),
            ..NodeLoad::default()
        })
    }

    fn obey(&self, index: usize, order: Option<Order>) {
        let Some(Order::Drop(drop)) = order else {
            return;
        };
        let Some(key) = drop.key.map(|key| (key.tenant, key.name)) else {
            return;
        };
        let gone = {
            let mut rooms = lock(&self.0.nodes[index].rooms);
            match rooms.get(&key) {
                Some(room) if room.epoch < drop.epoch_below => rooms.remove(&key),
                _ => None,
            }
        };
        if let Some(room) = gone {
            self.0.counters.dropped.fetch_add(1, Ordering::Relaxed);
            self.say(
                index,
                &Report::Closed(RoomClosed {
                    key: Some(room_key(&key)),
                    epoch: room.epoch,
                    reason: "Fenced".to_owned(),
                }),
            );
        }
    }

    /// Tells every replica.
    fn say(&self, index: usize, item: &Report) {
        for replica in &self.0.nodes[index].replicas {
            if let Some(queue) = &*lock(replica)
                && queue.try_send(report(item.clone())).is_err()
            {
                self.0.counters.reports_lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Opens or confirms a room, and reports it.
    fn open(&self, index: usize, key: &Key, room: Room) -> RoomFacts {
        let (facts, report) = {
            let mut rooms = lock(&self.0.nodes[index].rooms);
            let known = rooms.entry(key.clone()).or_insert_with(|| room.clone());
            if known.epoch < room.epoch {
                known.epoch = room.epoch;
            }
            (known.facts.clone(), state(key, known))
        };
        self.0.counters.opened.fetch_add(1, Ordering::Relaxed);
        self.say(index, &report);
        facts
    }

    /// A participant enters; `None` where the room does not run under that epoch.
    fn enter(&self, index: usize, key: &Key, epoch: u64) -> Option<RoomFacts> {
        let (facts, report) = {
            let mut rooms = lock(&self.0.nodes[index].rooms);
            let room = rooms.get_mut(key).filter(|room| room.epoch == epoch)?;
            room.participants += 1;
            (room.facts.clone(), state(key, room))
        };
        self.0.counters.sessions.fetch_add(1, Ordering::Relaxed);
        self.say(index, &report);
        Some(facts)
    }
}

/// Waits for the order that carries the node's facts.
async fn facts(orders: &mut Streaming<plenum_proto::v1::NodeOrder>) -> Result<NodeFacts> {
    while let Some(order) = orders.message().await? {
        if let Some(Order::Facts(facts)) = order.item {
            return Ok(facts);
        }
    }
    bail!("the replica ended the stream before it told the facts")
}

fn now_unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

fn report(item: Report) -> NodeReport {
    NodeReport { item: Some(item) }
}

fn room_key(key: &Key) -> RoomKey {
    RoomKey {
        tenant: key.0.clone(),
        name: key.1.clone(),
    }
}

fn state(key: &Key, room: &Room) -> Report {
    Report::Room(RoomState {
        key: Some(room_key(key)),
        epoch: room.epoch,
        participants: room.participants,
        // As in a lesson: one speaks, the others listen.
        publishers: room.participants.min(1),
        facts: Some(room.facts.clone()),
        policy_revision: room.policy.revision.clone(),
        // Ad-hoc rooms tell the rules that they were opened with.
        policy: Some(room.policy.clone()),
        lobby: 0,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
