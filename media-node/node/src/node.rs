// SPDX-License-Identifier: EUPL-1.2
//! A whole node: sockets first, then threads, links, rooms, services and streams; and the way back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use media_core::shard::{Shard, ShardConfig};
use media_crypto::{AwsLc, Certificate, DtlsError};
use plenum_proto::v1::room_host_server::RoomHostServer;
use plenum_shell::probe;
use plenum_shell::tls::Watch;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Server;

use crate::acceptor::Acceptor;
use crate::clock::Clock;
use crate::config::{Args, Ports};
use crate::control::{self, Control, LoadCounters};
use crate::guard;
use crate::host::Host;
use crate::identity::Tls;
use crate::link::{self, LINK_QUEUE};
use crate::metrics::Sources;
use crate::probes::Probes;
use crate::reports::Reports;
use crate::rooms::{Media, Rooms};
use crate::state::State;
use crate::stun::{self, SeenAt};
use crate::worker::{self, BindError, Plan, ShardPort};

/// Socket buffers asked for: a second of 60 Mbit/s that a busy shard may be late.
const BUFFER_BYTES: usize = 8 << 20;
/// Largest gRPC message taken: the largest frame a room takes, and its envelope. A room's facts are well below.
const MESSAGE_BYTES_MAX: usize = media_room::limits::FRAME_BYTES_MAX + (64 << 10);
/// Connections to the service: replicas have one each, strangers are gone after the handshake's time.
const CONNECTIONS_MAX: usize = 256;
/// Sessions, knocks and calls on one connection of a replica.
const CALLS_MAX: u32 = 20_000;
/// Bytes of one session on their way.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all sessions of one replica on their way: a room that does not keep up must not hold up the others.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// A replica that answers no ping for so long is gone, and its sessions with it.
const PING: Duration = Duration::from_secs(2);
/// Time for people to be told to come again elsewhere.
const ROOMS_END: Duration = Duration::from_secs(5);
/// Before a node that leaves gives up its rooms, the control plane has this long to place them elsewhere; it does the same for a node
/// that the operator empties.
const MOVE_WINDOW: Duration = Duration::from_secs(60);
/// Longest wait for rooms to end, as the schema of pools bounds it.
const PATIENCE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Time for each later step of stopping.
const STEP: Duration = Duration::from_secs(1);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No certificate for DTLS.
    #[error("cannot make a DTLS certificate")]
    Certificate(#[from] DtlsError),
    /// Media sockets.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener.
    #[error("cannot listen on {address} ({purpose})")]
    Listen {
        /// What for.
        purpose: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start a shard's thread")]
    Thread(#[source] io::Error),
}

/// A running node.
pub struct Node {
    grpc: SocketAddr,
    metrics: Option<SocketAddr>,
    probes: Option<SocketAddr>,
    media: Vec<SocketAddr>,
    state: Arc<State>,
    clock: Clock,
    rooms: Rooms,
    shards: Vec<ShardPort>,
    threads: Vec<JoinHandle<()>>,
    stop_shards: Arc<AtomicBool>,
    stop_grpc: Option<oneshot::Sender<()>>,
    /// Every long-running task, by name: none of them ends by itself.
    tasks: JoinSet<&'static str>,
}

impl Node {
    /// Binds everything and starts. Facts and rooms come later, from the control plane.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(args: &Args, tls: Tls) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let clock = Clock::start();
        let certificate = Arc::new(Certificate::generate()?);
        let stop_shards = Arc::new(AtomicBool::new(false));
        let legacy = Arc::new(AtomicBool::new(false));
        let plan = Plan {
            addresses: (0..args.shards)
                .map(|shard| {
                    args.media_address
                        .iter()
                        .map(|ip| SocketAddr::new(*ip, args.port_of(shard)))
                        .collect()
                })
                .collect(),
            shared_port: args.ports == Ports::SinglePort && args.shards > 1,
            buffer_bytes: BUFFER_BYTES,
            clock,
        };
        let prepared = worker::prepare(
            &plan,
            |id, now| {
                Shard::new(
                    id,
                    ShardConfig::default(),
                    AwsLc::with_legacy_switch(Arc::clone(&certificate), Arc::clone(&legacy)),
                    now,
                    clock.wall(),
                )
            },
            &stop_shards,
        )?;
        let mut media: Vec<SocketAddr> = prepared
            .iter()
            .flat_map(|shard| shard.worker.local_addresses())
            .collect();
        media.sort_unstable();
        media.dedup();
        if let Some(short) = prepared
            .iter()
            .filter_map(|shard| shard.worker.buffers())
            .find(|buffers| buffers.are_short())
        {
            tracing::warn!(
                event = "SocketBuffersSmall",
                asked = short.asked,
                receive = short.receive,
                send = short.send,
                "socket buffers are smaller than asked for; raise net.core.rmem_max and net.core.wmem_max"
            );
        }
        let mut listeners = Vec::new();
        for address in &media {
            listeners.push(listen(*address, "ICE-TCP").await?);
        }
        let grpc_listener = listen(args.grpc_listen, "RoomHost").await?;
        let grpc = grpc_listener.local_addr().unwrap_or(args.grpc_listen);
        let mut probe_listeners = Vec::new();
        let mut metrics = None;
        if let Some(address) = args.metrics_listen {
            let listener = listen(address, "metrics").await?;
            metrics = listener.local_addr().ok();
            probe_listeners.push(listener);
        }
        let mut probes = metrics;
        // Both answer the same, so one listener does for both.
        if let Some(address) = args.probe_listen
            && args.metrics_listen != Some(address)
        {
            let listener = listen(address, "probes").await?;
            probes = listener.local_addr().ok();
            probe_listeners.push(listener);
        }
        let server = Server::builder()
            .max_concurrent_streams(CALLS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING));

        let state = Arc::new(State::new(args.node_uid.clone()));
        let reports = Arc::new(Reports::default());
        let mut tasks = JoinSet::new();
        let link_counters = Arc::new(link::Counters::default());
        let mut shards = Vec::new();
        let mut links = Vec::new();
        let mut threads = Vec::new();
        for shard in prepared {
            let (to_link, queue) = mpsc::channel(LINK_QUEUE);
            links.push(to_link);
            shards.push(shard.port.clone());
            let link = link::run(shard.port, queue, shard.events, Arc::clone(&link_counters));
            tasks.spawn(async move {
                link.await;
                "a shard"
            });
            threads.push(shard.worker.spawn().map_err(StartError::Thread)?);
        }
        let rooms = Rooms::new(
            links,
            Arc::clone(&state),
            Arc::clone(&reports),
            clock,
            certificate.fingerprint(),
            Media {
                port: media.first().map_or(args.media_port, SocketAddr::port),
                ports: args.ports,
                tcp: true,
            },
        );
        let acceptor = Acceptor::new(shards.clone(), clock);
        let tcp_counters = acceptor.counters();
        for listener in listeners {
            let accepting = acceptor.clone().run(listener);
            tasks.spawn(async move {
                accepting.await;
                "the ICE-TCP acceptor"
            });
        }
        let service = RoomHostServer::from_arc(Host::new(rooms.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (stop_grpc, stopped) = oneshot::channel::<()>();
        let mut server = server;
        let serving = server.add_service(service).serve_with_incoming_shutdown(
            tls.accept(guard::incoming(grpc_listener, CONNECTIONS_MAX)),
            async {
                let _ = stopped.await;
            },
        );
        tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(
                    event = "RoomHostFailed",
                    error = &error as &dyn std::error::Error,
                    "the RoomHost service broke"
                );
            }
            "the RoomHost service"
        });
        if !probe_listeners.is_empty() {
            let sources = Sources {
                shards: shards.clone(),
                rooms: rooms.clone(),
                state: Arc::clone(&state),
                reports: Arc::clone(&reports),
                tcp: tcp_counters,
                links: link_counters,
            };
            let probes: Arc<dyn probe::Source> = Arc::new(Probes::new(sources));
            for listener in probe_listeners {
                let probes = Arc::clone(&probes);
                tasks.spawn(async move {
                    probe::serve(listener, probes).await;
                    "a listener for probes and metrics"
                });
            }
        }
        tasks.spawn(follow_facts(Arc::clone(&state), rooms.clone(), legacy));
        tasks.spawn(follow_certificates(tls.watch()));
        let (seen, seen_at) = watch::channel(SeenAt::default());
        if !args.stun_server.is_empty() {
            let asking = stun::follow(args.stun_server.clone(), seen);
            tasks.spawn(async move {
                asking.await;
                "the questions to STUN servers"
            });
        }
        let counted = shards.clone();
        let control = Control {
            state: Arc::clone(&state),
            reports,
            rooms: rooms.clone(),
            clock,
            tls,
            grpc_endpoint: reachable(grpc, &args.media_address).to_string(),
            seen_at,
            load: Box::new(move || load(&counted)),
        };
        let streams = control::watch_replicas(Arc::new(control), args.control_plane.clone());
        tasks.spawn(async move {
            streams.await;
            "the control streams"
        });
        tracing::info!(event = "NodeStarted", uid = args.node_uid, %grpc, ?media, ?metrics, ?probes, shards = args.shards, "media node runs");
        Ok(Self {
            grpc,
            metrics,
            probes,
            media,
            state,
            clock,
            rooms,
            shards,
            threads,
            stop_shards,
            stop_grpc: Some(stop_grpc),
            tasks,
        })
    }

    /// Where RoomHost listens.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Where `/metrics` is served.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Where `/livez` and `/readyz` are served; the address of the metrics where none of their own is.
    #[must_use]
    pub fn probe_address(&self) -> Option<SocketAddr> {
        self.probes
    }

    /// Where media are received.
    #[must_use]
    pub fn media_addresses(&self) -> &[SocketAddr] {
        &self.media
    }

    /// Waits for a part that ends unasked, and names it. Nothing is left half alive: the caller stops the node then.
    pub async fn failed(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(part)) => part,
            Some(Err(_)) => "a task that panicked",
            None => "everything",
        }
    }

    /// Empties the node before it is stopped: takes no rooms and says so, lets those that are there end or be moved by the control
    /// plane until the pool's drain timeout, then gives up what is left. Ends early when `hurry` does. Names a part that failed
    /// meanwhile.
    pub async fn drain(&mut self, hurry: impl Future<Output = ()>) -> Option<&'static str> {
        let standing = self.state.standing();
        let patience = Duration::from_millis(
            standing
                .facts
                .as_ref()
                .map_or(0, |facts| facts.drain_timeout_ms),
        )
        .min(PATIENCE_MAX);
        let begun = self.clock.now();
        self.state.leave(begun + patience);
        let (rooms, people) = self.rooms.counts();
        if rooms == 0 {
            return None;
        }
        tracing::info!(
            event = "NodeLeaving",
            rooms,
            people,
            seconds = patience.as_secs(),
            "the node leaves once its rooms have ended or moved"
        );
        let moves_at = begun + patience.saturating_sub(MOVE_WINDOW);
        self.rooms.announce(Some(self.clock.unix_ms(moves_at)));
        let rooms = self.rooms.clone();
        let leave = async {
            // The last ones shall be gone at the end of the patience.
            let give_up = patience - rooms.time_to_move().min(patience / 2);
            if timeout(give_up, rooms.emptied()).await.is_ok() {
                return;
            }
            let (left, people) = rooms.counts();
            tracing::warn!(
                event = "NodeLeavingGivenUp",
                rooms = left,
                people,
                "rooms found no other place in time; their people are told to come again"
            );
            rooms.move_all(None);
            // Told one after the other; who does not go by then is told again when the node stops.
            let _ = timeout(rooms.time_to_move() + ROOMS_END, rooms.emptied()).await;
        };
        tokio::select! {
            part = self.failed() => Some(part),
            () = leave => None,
            () = hurry => {
                tracing::info!(event = "NodeLeavingHurried", "asked again: the rooms end at once");
                None
            }
        }
    }

    /// Stops in good order: takes no rooms, sends everybody elsewhere, says so, ends.
    pub async fn stop(mut self) {
        self.state.stop();
        self.rooms.end_all(ROOMS_END).await;
        self.state.close();
        if let Some(stop) = self.stop_grpc.take() {
            let _ = stop.send(());
        }
        let named = async {
            let mut wanted = vec!["the control streams", "the RoomHost service"];
            while !wanted.is_empty() {
                match self.tasks.join_next().await {
                    Some(Ok(part)) => wanted.retain(|name| *name != part),
                    Some(Err(_)) => {}
                    None => return,
                }
            }
        };
        if timeout(STEP, named).await.is_err() {
            tracing::debug!("a replica holds its connection; it is cut");
        }
        self.stop_shards.store(true, Ordering::Release);
        for shard in &self.shards {
            shard.wake();
        }
        let threads = std::mem::take(&mut self.threads);
        let ended =
            tokio::task::spawn_blocking(|| threads.into_iter().all(|thread| thread.join().is_ok()));
        match timeout(STEP, ended).await {
            Ok(Ok(true)) => {}
            Ok(_) => tracing::error!(event = "ShardFailed", "a shard's thread ended by a bug"),
            Err(_) => tracing::warn!(event = "ShardLate", "a shard's thread did not end in time"),
        }
        self.tasks.abort_all();
        tracing::info!(event = "NodeStopped", "media node stopped");
    }
}

async fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    probe::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            purpose,
            address,
            source,
        })
}

/// Each ICE-TCP client is a descriptor; the soft limit is often 1024 for old programs' sake only.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// What others dial: an address, also when the service listens on all of them.
fn reachable(listening: SocketAddr, own: &[std::net::IpAddr]) -> SocketAddr {
    match own.first() {
        Some(ip) if listening.ip().is_unspecified() => SocketAddr::new(*ip, listening.port()),
        _ => listening,
    }
}

fn load(shards: &[ShardPort]) -> LoadCounters {
    shards
        .iter()
        .map(ShardPort::published)
        .fold(LoadCounters::default(), |sum, shard| LoadCounters {
            sent_bytes: sum.sent_bytes + shard.worker.sent_bytes,
            dropped_packets: sum.dropped_packets + shard.dropped(),
        })
}

/// Handshakes from here on use what lies in `--tls-dir`.
async fn follow_certificates(mut files: Watch) -> &'static str {
    loop {
        match files.next().await {
            Ok(()) => tracing::info!(
                event = "NodeCertificateReplaced",
                "the node's certificate was replaced"
            ),
            Err(error) => tracing::warn!(
                event = "NodeCertificateUnusable",
                error = &error as &dyn std::error::Error,
                "the certificate on disk cannot be used, the former one stays"
            ),
        }
    }
}

/// Rooms that live get the node's present addresses, shards the pool's rule on SHA1; both hold for what begins from here on.
async fn follow_facts(state: Arc<State>, rooms: Rooms, legacy: Arc<AtomicBool>) -> &'static str {
    let mut standing = state.watch();
    let mut last = None;
    while standing.changed().await.is_ok() {
        let facts = standing.borrow_and_update().facts.clone();
        if let Some(facts) = facts
            && last.as_ref() != Some(&facts)
        {
            if legacy.swap(facts.srtp_legacy_allowed, Ordering::Relaxed)
                != facts.srtp_legacy_allowed
            {
                tracing::warn!(
                    event = "SrtpLegacyRuleChanged",
                    allowed = facts.srtp_legacy_allowed,
                    "the pool's rule on SRTP with SHA1 changed"
                );
            }
            rooms.apply_facts(&facts);
            last = Some(facts);
        }
    }
    "the node's standing"
}
