// SPDX-License-Identifier: EUPL-1.2
//! The node's streams to the control plane: it dials every replica it knows, reports, obeys.
//!
//! One task per endpoint, re-dialled with back-off for as long as the process lives; a node that nobody answers goes on serving its
//! rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plenum_proto::v1::node_control_client::NodeControlClient;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::{NodeHello, NodeLoad, NodeReport};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::clock::Clock;
use crate::config::is_endpoint;
use crate::identity::{CONTROL_PLANE_DNS, Tls};
use crate::reports::{Behind, Reports};
use crate::rooms::Rooms;
use crate::state::State;

/// Replicas attached to at most: a list longer than this is a mistake of the sender.
const REPLICAS_MAX: usize = 16;
/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// First wait before dialling again; doubles up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(100);
/// A replica that restarts is found again within this.
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// Pace of load reports (`decisions.md` §2.2: silent for 3 s is suspect).
const LOAD: Duration = Duration::from_secs(1);
/// A replica that takes no report for this long is dialled anew.
const STALL: Duration = Duration::from_secs(5);
/// Time a replica has to read the last reports of a node that stops.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Reports on their way to one replica.
const QUEUE: usize = 64;

/// What a stream needs.
pub struct Control {
    /// The node's standing.
    pub state: Arc<State>,
    /// What is reported.
    pub reports: Arc<Reports>,
    /// The rooms, for orders that concern them.
    pub rooms: Rooms,
    /// The clock.
    pub clock: Clock,
    /// Certificates.
    pub tls: Tls,
    /// Where the node's own RoomHost listens.
    pub grpc_endpoint: String,
    /// Counted by the shards.
    pub load: Box<dyn Fn() -> LoadCounters + Send + Sync>,
}

/// Counters that go into a load report.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadCounters {
    /// Bytes sent since start.
    pub sent_bytes: u64,
    /// Packets dropped since start.
    pub dropped_packets: u64,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    #[error("the stream was refused or broke")]
    Broken(#[source] Box<tonic::Status>),
    #[error("the replica closed the stream")]
    Closed,
    #[error("the replica took no report for {} s", STALL.as_secs())]
    Stalled,
    #[error(transparent)]
    Behind(#[from] Behind),
}

impl From<tonic::Status> for StreamEnd {
    fn from(status: tonic::Status) -> Self {
        Self::Broken(Box::new(status))
    }
}

/// Keeps one stream to each replica until [`State::close`], and then until all streams have passed on what was to be said.
pub async fn watch_replicas(control: Arc<Control>, named: Vec<String>) {
    let mut closing = control.state.watch_closing();
    // It may have happened already.
    closing.mark_changed();
    let (learnt, mut learnt_changed) = watch::channel(BTreeMap::<String, Vec<String>>::new());
    let learnt = Arc::new(learnt);
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<String, (Vec<SocketAddr>, AbortHandle)> = BTreeMap::new();
    loop {
        let mut wanted: Vec<String> = named.clone();
        for list in learnt_changed.borrow_and_update().values() {
            wanted.extend(
                list.iter()
                    .filter(|endpoint| !wanted.contains(endpoint))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
        wanted.truncate(REPLICAS_MAX);
        running.retain(|endpoint, (_, handle)| {
            let keep = wanted.contains(endpoint) && !handle.is_finished();
            if !keep {
                handle.abort();
                control.state.detach(endpoint);
            }
            keep
        });
        for endpoint in wanted {
            if running.contains_key(&endpoint) {
                continue;
            }
            // One replica may go by two names; two streams of one node would push each other out. Names that do not resolve
            // (yet) are tried all the same.
            let addresses: Vec<SocketAddr> =
                match timeout(CONNECT, tokio::net::lookup_host(&endpoint)).await {
                    Ok(Ok(addresses)) => addresses.collect(),
                    _ => Vec::new(),
                };
            if running
                .values()
                .any(|(known, _)| known.iter().any(|address| addresses.contains(address)))
            {
                continue;
            }
            let handle = tasks.spawn(dial(
                Arc::clone(&control),
                endpoint.clone(),
                Arc::clone(&learnt),
            ));
            running.insert(endpoint, (addresses, handle));
        }
        tokio::select! {
            _ = closing.changed() => if *closing.borrow_and_update() {
                while tasks.join_next().await.is_some() {}
                return;
            },
            changed = learnt_changed.changed() => if changed.is_err() { return },
            Some(ended) = tasks.join_next() => if let Err(error) = ended && error.is_panic() {
                tracing::error!("a control stream's task panicked, it is started again");
            },
        }
    }
}

async fn dial(
    control: Arc<Control>,
    endpoint: String,
    learnt: Arc<watch::Sender<BTreeMap<String, Vec<String>>>>,
) {
    let mut wait = BACK_OFF;
    loop {
        let mut attached = false;
        let end = stream(&control, &endpoint, &learnt, &mut attached).await;
        control.state.detach(&endpoint);
        if attached {
            wait = BACK_OFF;
        }
        if *control.state.watch_closing().borrow() {
            return;
        }
        let end = match end {
            Ok(()) => StreamEnd::Closed,
            Err(end) => end,
        };
        tracing::info!(%endpoint, error = &end as &dyn std::error::Error, retry_ms = wait.as_millis() as u64, "control stream ended");
        sleep(wait).await;
        wait = (wait * 2).min(BACK_OFF_MAX);
    }
}

fn hello(control: &Control, endpoint: &str) -> Report {
    let standing = control.state.standing();
    let facts = standing.facts.unwrap_or_default();
    Report::Hello(NodeHello {
        uid: control.state.uid().to_owned(),
        node_id: facts.node_id,
        site: facts.site,
        epoch: facts.epoch,
        grpc_endpoint: control.grpc_endpoint.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        primary: control.state.is_primary(endpoint),
    })
}

async fn stream(
    control: &Arc<Control>,
    endpoint: &str,
    learnt: &watch::Sender<BTreeMap<String, Vec<String>>>,
    attached: &mut bool,
) -> Result<(), StreamEnd> {
    let channel = Endpoint::from_shared(format!("https://{endpoint}"))
        .map_err(StreamEnd::Connect)?
        .tls_config(control.tls.client(CONTROL_PLANE_DNS))
        .map_err(StreamEnd::Connect)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(3))
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(StreamEnd::Connect)?;
    let (reports, queue) = mpsc::channel::<NodeReport>(QUEUE);
    let send =
        async |item: Report| match timeout(STALL, reports.send(NodeReport { item: Some(item) }))
            .await
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(StreamEnd::Closed),
            Err(_) => Err(StreamEnd::Stalled),
        };
    let mut standing = control.state.watch();
    let mut replicas = control.state.watch_attached();
    let mut changes = control.reports.watch();
    let mut closing = control.state.watch_closing();
    // It may have happened already.
    closing.mark_changed();
    // The first message waits in the queue before the call: a server may want it before it answers.
    replicas.borrow_and_update();
    standing.borrow_and_update();
    let mut primary = control.state.is_primary(endpoint);
    send(hello(control, endpoint)).await?;
    let mut client = NodeControlClient::new(channel);
    let call = client.attach(ReceiverStream::new(queue));
    let mut orders = timeout(STALL, call)
        .await
        .map_err(|_| StreamEnd::Stalled)??
        .into_inner();
    *attached = true;
    control.state.attach(endpoint);
    tracing::info!(%endpoint, primary, "attached");
    changes.borrow_and_update();
    let (mut version, rooms) = control.reports.snapshot();
    for room in rooms {
        send(room).await?;
    }
    send(Report::EndOfRooms(true)).await?;
    // A replica that becomes primary is told every event that nobody acknowledged.
    let mut events_after = primary.then_some(0);
    let mut tick = interval(LOAD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = (Instant::now(), (control.load)());
    let mut egress_bps = 0;
    let mut accepting = None;
    loop {
        let mut load_due = false;
        let mut last_words = false;
        tokio::select! {
            order = orders.message() => match order? {
                Some(order) => if let Some(item) = order.item { obey(control, endpoint, learnt, item) },
                None => return Ok(()),
            },
            _ = tick.tick() => load_due = true,
            _ = changes.changed() => {}
            _ = closing.changed() => last_words = *closing.borrow_and_update(),
            _ = standing.changed() => {
                send(hello(control, endpoint)).await?;
                load_due = true;
            }
            _ = replicas.changed() => {
                let now = control.state.is_primary(endpoint);
                if now != primary {
                    primary = now;
                    events_after = primary.then_some(0);
                    send(hello(control, endpoint)).await?;
                }
            }
        }
        loop {
            let (reached, items) = control.reports.since(version, events_after)?;
            let more = !items.is_empty();
            for item in items {
                send(item).await?;
            }
            version = reached.max(version);
            events_after = events_after.map(|after| after.max(reached));
            if !more {
                break;
            }
        }
        if load_due || accepting != Some(control.state.standing().accepts()) {
            let counters = (control.load)();
            let since = last.0.elapsed();
            // Reports between the ticks repeat the last rate: over a short time it would be noise.
            if since >= LOAD / 2 {
                let bits = u128::from(counters.sent_bytes.saturating_sub(last.1.sent_bytes)) * 8;
                egress_bps =
                    u64::try_from(bits * 1000 / since.as_millis().max(1)).unwrap_or(u64::MAX);
                last = (Instant::now(), counters);
            }
            let accepts = control.state.standing().accepts();
            accepting = Some(accepts);
            let (rooms, participants) = control.rooms.counts();
            send(Report::Load(NodeLoad {
                accepting: accepts,
                rooms,
                participants,
                egress_bps,
                dropped_packets: counters.dropped_packets,
            }))
            .await?;
        }
        if last_words {
            // The end of our half; the replica answers with the end of its own once it has read everything.
            drop(reports);
            while timeout(LAST_WORDS, orders.message())
                .await
                .is_ok_and(|order| matches!(order, Ok(Some(_))))
            {}
            return Ok(());
        }
    }
}

fn obey(
    control: &Control,
    endpoint: &str,
    learnt: &watch::Sender<BTreeMap<String, Vec<String>>>,
    order: Order,
) {
    let refused = match order {
        Order::Facts(facts) => control.state.apply_facts(facts).err(),
        Order::Accepting(order) => control.state.apply_accepting(&order).err(),
        Order::Move(order) if order.node_uid == control.state.uid() => {
            tracing::info!(%endpoint, rooms = control.rooms.counts().0, "moving all rooms away");
            let left = u64::try_from(order.deadline_unix_ms)
                .ok()
                .filter(|at| *at > 0)
                .map(|at| {
                    Duration::from_millis(
                        at.saturating_sub(control.clock.unix_ms(control.clock.now())),
                    )
                });
            control.rooms.move_all(left);
            None
        }
        Order::Move(_) => Some(crate::state::OrderRefusal::OtherNode),
        Order::Drop(drop) => {
            if let Some(key) = drop.key {
                control
                    .rooms
                    .drop_below(&(key.tenant, key.name), drop.epoch_below);
            }
            None
        }
        Order::Replicas(list) => {
            let list: BTreeSet<String> = list
                .endpoints
                .into_iter()
                .take(REPLICAS_MAX)
                .filter(|endpoint| is_endpoint(endpoint))
                .collect();
            let list: Vec<String> = list.into_iter().collect();
            learnt.send_if_modified(|known| {
                known.insert(endpoint.to_owned(), list.clone()).as_ref() != Some(&list)
            });
            None
        }
        Order::EventAck(ack) => {
            control.reports.acknowledge(&ack);
            None
        }
    };
    if let Some(refusal) = refused {
        tracing::warn!(%endpoint, error = &refusal as &dyn std::error::Error, "order not obeyed");
    }
}
