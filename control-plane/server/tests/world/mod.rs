// SPDX-License-Identifier: EUPL-1.2
//! The control plane's gRPC side as it runs, with a publisher and scripted media nodes as peers, all over mTLS.

#![allow(unreachable_pub, missing_docs)]

pub mod flaky;
pub mod net;
pub mod node;
pub mod operator;
pub mod pki;

use std::sync::Arc;
use std::time::Duration;

use control_core::ids::{Epoch, RoomKey, RoomName, TenantName};
use control_core::record::{LobbyRule, RoomPolicy};
use control_core::webhook::Network;
use control_plane::clock::Clock;
use control_plane::hosts::Hosts;
use control_plane::plane::{PlaceRequest, Plane};
use control_plane::rpc;
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use control_plane::webhooks;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use pki::Ca;

/// Whatever is waited for happens within this time or never.
pub const LIVENESS: Duration = Duration::from_secs(40);

/// One replica.
pub struct Replica {
    pub plane: Plane,
    pub address: String,
    pub ca: Arc<Ca>,
    pub stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Replica {
    pub async fn start() -> Self {
        Self::start_with(|store| store).await
    }

    /// Over a store that stands before the one in memory.
    pub async fn start_with(store: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        let clock = Clock::start();
        let store = store(Arc::new(MemoryStore::new(Arc::new(move || clock.now()))));
        Self::start_on(Arc::new(Ca::new()), store).await
    }

    /// With the CA and the store of another replica.
    pub async fn start_on(ca: Arc<Ca>, store: Arc<dyn Store>) -> Self {
        Self::start_calling(ca, store, Vec::new()).await
    }

    /// As [`Self::start_on`], with receivers of webhooks in these networks.
    pub async fn start_calling(ca: Arc<Ca>, store: Arc<dyn Store>, networks: Vec<Network>) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let tls = ca.control_plane();
        let plane = Plane::new(store, Hosts::new(tls.clone()), Clock::start());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address").to_string();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (served, replicas, token) = (plane.clone(), vec![address.clone()], stop.clone());
        tasks.spawn(async move {
            rpc::serve(served, listener, &tls, replicas, token)
                .await
                .expect("served")
        });
        tasks.spawn(plane.clone().watch_nodes(stop.clone()));
        tasks.spawn(plane.clone().restore_rooms(stop.clone()));
        tasks.spawn(plane.clone().enforce_directory(stop.clone()));
        let (hooks, served, token) = (plane.webhooks().clone(), plane.clone(), stop.clone());
        let options = webhooks::Options {
            replica: plane.replica(),
            allowed: networks,
        };
        tasks.spawn(async move { hooks.run(served, options, token).await });
        tasks.spawn(plane.clone().hold_planned(stop.clone()));
        Self {
            plane,
            address,
            ca,
            stop,
            tasks,
        }
    }

    /// As [`Self::start_on`], in a thread of its own that can be stopped.
    pub async fn start_apart(
        ca: Arc<Ca>,
        store: impl FnOnce() -> Arc<dyn Store> + Send + 'static,
    ) -> (Self, Stop) {
        let (ready, started) = tokio::sync::oneshot::channel();
        let (stops, mut stopped) = tokio::sync::mpsc::unbounded_channel::<Fate>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let replica = Self::start_on(ca, store()).await;
                let end = replica.stop.clone();
                assert!(ready.send(replica).is_ok(), "the test waits");
                loop {
                    tokio::select! {
                        fate = stopped.recv() => match fate {
                            Some(Fate::Stop(span)) => std::thread::sleep(span),
                            Some(Fate::Die) => return,
                            None => std::future::pending().await,
                        },
                        () = end.cancelled() => break,
                    }
                }
                // What stops in good order still needs this thread.
                tokio::time::sleep(Duration::from_secs(5)).await;
            });
        });
        (started.await.expect("started"), Stop(stops))
    }

    /// Stops in good order; everything has to end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let all = async {
            while self
                .tasks
                .join_next()
                .await
                .is_some_and(|ended| ended.is_ok())
            {}
        };
        tokio::time::timeout(LIVENESS, all)
            .await
            .expect("all tasks end");
    }

    /// Waits until the plane says so.
    pub async fn until<T>(&self, what: &str, look: impl FnMut(&Plane) -> Option<T>) -> T {
        until(&self.plane, what, look).await
    }
}

enum Fate {
    Stop(Duration),
    Die,
}

/// What can happen to the thread of a replica.
pub struct Stop(tokio::sync::mpsc::UnboundedSender<Fate>);

impl Stop {
    /// Its sockets stay open, nothing is read, written or counted: what SIGSTOP does.
    pub fn for_a_while(&self, span: Duration) {
        self.0.send(Fate::Stop(span)).expect("the thread lives");
    }

    /// It ends at once and says nothing to anybody: what SIGKILL does.
    pub fn kill(&self) {
        self.0.send(Fate::Die).expect("the thread lives");
    }
}

/// Waits until the plane says so, looking at each change.
pub async fn until<T>(plane: &Plane, what: &str, mut look: impl FnMut(&Plane) -> Option<T>) -> T {
    let mut changed = plane.changed();
    let found = async {
        loop {
            if let Some(found) = look(plane) {
                return found;
            }
            // Counters change without a bump.
            let _ = tokio::time::timeout(Duration::from_millis(100), changed.changed()).await;
        }
    };
    tokio::time::timeout(LIVENESS, found)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}

pub fn key(room: &str) -> RoomKey {
    RoomKey::parse("school", room).expect("key")
}

pub fn policy() -> RoomPolicy {
    RoomPolicy {
        declared: true,
        lobby: LobbyRule::Off,
        guests_allowed: true,
        permissions: Default::default(),
        max_participants: 100,
        max_publishers: 10,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        max_duration: Duration::ZERO,
        max_bitrate_kbps: 0,
        screen_share: true,
        e2ee_required: false,
        codecs: Vec::new(),
        revision: "p1".into(),
    }
}

pub fn request(room: &str) -> PlaceRequest {
    PlaceRequest {
        tenant: TenantName::parse("school").expect("name"),
        room: RoomName::parse(room).expect("name"),
        policy: policy(),
        pool: None,
        floor: Epoch(0),
        participants: 1,
        publishers: 0,
    }
}
