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
use plenum_shell::tls;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::clock::Clock;
use crate::config::is_endpoint;
use crate::identity::{CONTROL_PLANE_DNS, Tls, TlsError};
use crate::replicas::{REPLICAS_MAX, Replicas};
use crate::reports::{Behind, Reports};
use crate::rooms::Rooms;
use crate::state::State;
use crate::stun::SeenAt;

/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// First wait before dialling again; doubles up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(100);
/// A replica that restarts is found again within this.
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// Names of replicas are looked up this often.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Longest name that a replica gives itself.
const NAME_MAX: usize = 64;
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
    /// Where others see the node.
    pub seen_at: watch::Receiver<SeenAt>,
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
    #[error(transparent)]
    Name(#[from] TlsError),
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
    let replicas = Arc::new(Replicas::default());
    let news = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<SocketAddr, AbortHandle> = BTreeMap::new();
    let mut looks = interval(LOOK_UP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let names = replicas.names(&named, std::time::Instant::now());
        for name in &names {
            let addresses = timeout(CONNECT, tokio::net::lookup_host(name)).await;
            replicas.resolved(
                name,
                addresses.ok().and_then(Result::ok).map(Iterator::collect),
            );
        }
        let wanted = replicas.wanted(&names);
        running.retain(|at, handle| {
            let keep = wanted.contains(at) && !handle.is_finished();
            if !keep {
                handle.abort();
                control.state.detach(&at.to_string());
                replicas.detached(*at, std::time::Instant::now());
            }
            keep
        });
        for at in wanted {
            running.entry(at).or_insert_with(|| {
                tasks.spawn(dial(
                    Arc::clone(&control),
                    at,
                    Arc::clone(&replicas),
                    Arc::clone(&news),
                ))
            });
        }
        tokio::select! {
            _ = closing.changed() => if *closing.borrow_and_update() {
                while tasks.join_next().await.is_some() {}
                return;
            },
            () = news.notified() => {}
            _ = looks.tick() => {}
            Some(ended) = tasks.join_next() => if let Err(error) = ended && error.is_panic() {
                tracing::error!(event = "ControlStreamFailed", "a control stream's task panicked, it is started again");
            },
        }
    }
}

async fn dial(control: Arc<Control>, at: SocketAddr, replicas: Arc<Replicas>, news: Arc<Notify>) {
    let endpoint = at.to_string();
    let mut wait = BACK_OFF;
    let mut closing = control.state.watch_closing();
    // A replica that stays away is not complained of every two seconds.
    let mut complained = false;
    loop {
        if *closing.borrow_and_update() {
            return;
        }
        if replicas.is_attached_elsewhere(at) {
            tokio::select! {
                () = sleep(BACK_OFF_MAX) => {}
                _ = closing.changed() => {}
            }
            continue;
        }
        let mut attached = false;
        let orders = Orders {
            at,
            replicas: &replicas,
            news: &news,
        };
        let end = stream(&control, &endpoint, &orders, &mut attached).await;
        control.state.detach(&endpoint);
        replicas.detached(at, std::time::Instant::now());
        if attached {
            wait = BACK_OFF;
            complained = false;
        }
        if *control.state.watch_closing().borrow() {
            return;
        }
        let end = match end {
            Ok(()) => StreamEnd::Closed,
            Err(end) => end,
        };
        if std::mem::replace(&mut complained, true) {
            tracing::debug!(%endpoint, error = &end as &dyn std::error::Error, "control stream ended again");
        } else {
            tracing::info!(event = "ControlStreamEnded", %endpoint, error = &end as &dyn std::error::Error, "control stream ended, dialled until it stands again");
        }
        sleep(wait).await;
        wait = (wait * 2).min(BACK_OFF_MAX);
    }
}

/// What orders concern beside the node itself.
struct Orders<'a> {
    at: SocketAddr,
    replicas: &'a Replicas,
    news: &'a Notify,
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
    about: &Orders<'_>,
    attached: &mut bool,
) -> Result<(), StreamEnd> {
    let connect = tls::endpoint(endpoint)
        .map_err(StreamEnd::Connect)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(3));
    // A process that is stopped takes the connection and never answers the handshake.
    let connector = control.tls.connector(CONTROL_PLANE_DNS)?;
    let channel = timeout(CONNECT, connector.connect(&connect))
        .await
        .map_err(|_| StreamEnd::Stalled)?
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
    about.replicas.attached(about.at);
    tracing::info!(event = "ControlStreamAttached", %endpoint, primary, "attached");
    changes.borrow_and_update();
    let (mut version, rooms) = control.reports.snapshot();
    for room in rooms {
        send(room).await?;
    }
    send(Report::EndOfRooms(true)).await?;
    let tell_ends = async || {
        for end in control.reports.for_new_primary(control.clock.now()) {
            send(end).await?;
        }
        Ok::<(), StreamEnd>(())
    };
    if primary {
        tell_ends().await?;
    }
    // A replica that becomes primary is told every event that nobody acknowledged.
    let mut events_after = primary.then_some(0);
    let mut events_again = true;
    let mut tick = interval(LOAD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = (Instant::now(), (control.load)());
    let mut egress_bps = 0;
    let mut accepting = None;
    let machine = Clock::machine();
    loop {
        let mut load_due = false;
        let mut last_words = false;
        tokio::select! {
            order = orders.message() => match order? {
                Some(order) => match order.item {
                    Some(Order::EventsAgain(true)) if primary => {
                        events_after = Some(0);
                        events_again = true;
                    }
                    Some(item) => obey(control, endpoint, about, item),
                    None => {}
                },
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
                    events_again = true;
                    send(hello(control, endpoint)).await?;
                    if primary {
                        tell_ends().await?;
                    }
                }
            }
        }
        loop {
            let (reached, items) = control.reports.since(version, events_after)?;
            let more = !items.is_empty();
            for mut item in items {
                if let Report::Event(event) = &mut item {
                    event.again = std::mem::take(&mut events_again);
                }
                send(item).await?;
            }
            version = reached.max(version);
            if primary {
                control.reports.told_primary(version, control.clock.now());
            }
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
            let seen_at = control.seen_at.borrow().texts();
            send(Report::Load(NodeLoad {
                accepting: accepts,
                rooms,
                participants,
                egress_bps,
                dropped_packets: counters.dropped_packets,
                leaving_ms: control.state.standing().leaves_in(control.clock.now()),
                unix_ms: Clock::machine_unix_ms(),
                machine: machine.clone(),
                seen_at,
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

fn obey(control: &Control, endpoint: &str, about: &Orders<'_>, order: Order) {
    let refused = match order {
        Order::Facts(facts) => control.state.apply_facts(facts).err(),
        Order::Accepting(order) => control.state.apply_accepting(&order).err(),
        Order::Move(order) if order.node_uid == control.state.uid() => {
            tracing::info!(event = "NodeMoving", %endpoint, rooms = control.rooms.counts().0, "moving all rooms away");
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
        Order::Notice(notice) if notice.node_uid == control.state.uid() => {
            let moves_at = u64::try_from(notice.moves_at_unix_ms).ok();
            control.rooms.announce(moves_at.filter(|at| *at > 0));
            None
        }
        Order::Notice(_) => Some(crate::state::OrderRefusal::OtherNode),
        Order::Drop(drop) => {
            if let Some(key) = drop.key {
                control
                    .rooms
                    .drop_below(&(key.tenant, key.name), drop.epoch_below);
            }
            None
        }
        Order::Replicas(told) => {
            let list: BTreeSet<String> = told
                .endpoints
                .into_iter()
                .take(REPLICAS_MAX)
                .filter(|endpoint| is_endpoint(endpoint))
                .collect();
            let replica = told.replica.chars().take(NAME_MAX).collect();
            if about
                .replicas
                .tell(about.at, replica, list.into_iter().collect())
            {
                about.news.notify_one();
            }
            None
        }
        Order::EventAck(ack) => {
            control.reports.acknowledge(&ack);
            None
        }
        // Of a stream that is not the primary one's any more: whoever is was told everything.
        Order::EventsAgain(_) => None,
    };
    if let Some(refusal) = refused {
        tracing::warn!(event = "OrderRefused", %endpoint, error = &refusal as &dyn std::error::Error, "order not obeyed");
    }
}
