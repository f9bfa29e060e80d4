// SPDX-License-Identifier: EUPL-1.2
//! The process as a whole: watches and plans always, leads while it holds the lease.
//!
//! With the API server away the process lives on: the lease lapses, controllers stop, and the streams to the control plane stay open with
//! what was published last, until another leader is known. Then they are closed; its higher epoch fences them anyway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    args::Args,
    authority::{Authority, Keeper, Pem},
    class, client, conference,
    context::Context,
    endpoints::Endpoints,
    events::Events,
    lease::{Election, Role},
    live::Live,
    maintenance, media_node, media_pool,
    orders::{Order, Orders},
    planner::{Planned, Planner},
    probes::{self, Health, ListenError},
    publish::Publisher,
    secrets::Secrets,
    stores::Stores,
    telemetry::Metrics,
    tenant,
};

/// How long the lease may take to be given back.
const RELEASE: Duration = Duration::from_secs(5);

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No API server.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// A port.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Runs until told to stop.
///
/// # Errors
/// [`RunError`] where it cannot start.
pub async fn run(args: &Args, stop: CancellationToken) -> Result<(), RunError> {
    let now: fn() -> Timestamp = Timestamp::now;
    let settings = args.settings();
    let metrics = Metrics::default();
    let clients = client::connect(&metrics).await?;
    let probe_listener = probes::listen(args.probe_listen).await?;
    let metrics_listener = probes::listen(args.metrics_listen).await?;
    // Either may have been left to the system to choose.
    tracing::info!(event = "Listening", probes = %address_of(&probe_listener), metrics = %address_of(&metrics_listener), "probes and metrics are answered");
    let (stores, watches) = Stores::start(&clients.common, &metrics);
    let stores = Arc::new(stores);
    let endpoints = Endpoints::default();
    let authority = Authority::new(&settings.trust_domain, now);
    let (planned, planned_seen) = watch::channel(Arc::new(Planned::default()));
    let (live, live_seen) = watch::channel(Arc::new(Live::default()));
    let (credentials, credentials_seen) = watch::channel(None);
    let (orders, ordered) = Orders::channel();

    let election = Election::new(
        clients.lease,
        clients.fence,
        &settings.namespace,
        &identity(&settings.pod_name),
        metrics.clone(),
        now,
    );
    let roles = election.roles();
    let stores_ready = Arc::new(AtomicBool::new(false));
    let stopping = Arc::new(AtomicBool::new(false));
    let health = Health {
        stores: Arc::clone(&stores_ready),
        roles: roles.clone(),
        stopping: Arc::clone(&stopping),
    };
    let mut tasks = watches;
    tasks.spawn(probes::serve_probes(probe_listener, health));
    tasks.spawn(probes::serve_metrics(metrics_listener, metrics.clone()));
    tasks.spawn({
        let stores = Arc::clone(&stores);
        async move {
            stores.ready().await;
            stores_ready.store(true, Ordering::Relaxed);
            tracing::info!(event = "ObjectsRead", "all objects are read");
            std::future::pending::<()>().await;
        }
    });
    tasks.spawn(
        Planner {
            settings: settings.clone(),
            stores: Arc::clone(&stores),
            endpoints: endpoints.clone(),
            secrets: Secrets::new(clients.common.clone()),
            metrics: metrics.clone(),
            now,
            planned,
        }
        .run(),
    );
    tasks.spawn(
        Keeper {
            client: clients.common.clone(),
            settings: settings.clone(),
            stores: Arc::clone(&stores),
            authority: authority.clone(),
            roles: roles.clone(),
            credentials,
        }
        .run(),
    );
    let context = Arc::new(Context {
        events: Events::new(clients.common.clone(), &settings.pod_name, metrics.clone()),
        client: clients.common,
        settings,
        stores,
        planned: planned_seen,
        live: live_seen,
        endpoints,
        orders,
        authority,
        metrics,
        now,
    });
    // Outlives whatever a leader does: the lease is given back when nothing is written any more.
    let release = CancellationToken::new();
    let election = tokio::spawn(election.run(release.clone()));
    let lead = Lead {
        context,
        roles,
        credentials: credentials_seen,
        live,
    };
    tokio::select! {
        () = stop.cancelled() => {
            tracing::info!(event = "Stopping", "the operator was told to stop");
        }
        () = lead.run(ordered) => {}
        ended = tasks.join_next() => {
            tracing::error!(event = "TaskEnded", ended = ?ended.map(|ended| ended.is_ok()), "a part of the process ended that does not end by itself");
        }
    }
    stopping.store(true, Ordering::Relaxed);
    release.cancel();
    // One that hangs runs out by itself.
    let _ = timeout(RELEASE, election).await;
    Ok(())
}

fn address_of(listener: &tokio::net::TcpListener) -> String {
    let address = listener.local_addr();
    address.map_or_else(|error| error.to_string(), |address| address.to_string())
}

/// No two processes have one, not even two containers of one pod after each other.
fn identity(pod_name: &str) -> String {
    let mut bytes = [0; 8];
    let random = match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    };
    format!("{pod_name}_{random:016x}")
}

/// What a leader does.
struct Lead {
    context: Arc<Context>,
    roles: watch::Receiver<Role>,
    credentials: watch::Receiver<Option<Arc<Pem>>>,
    live: watch::Sender<Arc<Live>>,
}

impl Lead {
    /// Follows the role. Dropping the future stops everything.
    async fn run(mut self, mut ordered: mpsc::Receiver<Order>) {
        self.context.stores.ready().await;
        loop {
            let role = *self.roles.borrow_and_update();
            match role {
                Role::Leading { epoch } => {
                    let publisher = self.publisher(epoch);
                    tokio::select! {
                        () = publisher.run(&mut ordered) => {}
                        () = self.while_of(epoch) => {}
                    }
                    self.context.metrics.pools_unknown();
                }
                _ => {
                    if self.roles.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Runs the controllers while this process leads in this epoch; returns when another may.
    async fn while_of(&mut self, epoch: u64) {
        let mut roles = self.roles.clone();
        let mut controllers = JoinSet::new();
        loop {
            let role = *roles.borrow_and_update();
            match role {
                Role::Leading { epoch: now } if now == epoch => {
                    if controllers.is_empty() {
                        start(&mut controllers, &self.context);
                    }
                }
                // The API server is away: nothing can be written, and what is published stays.
                Role::Lapsed { epoch: last } if last == epoch => {
                    controllers.shutdown().await;
                    self.context.metrics.pools_unknown();
                }
                _ => break,
            }
            tokio::select! {
                changed = roles.changed() => if changed.is_err() { break },
                Some(ended) = controllers.join_next() => {
                    // Begun anew with all others: a kind without a controller would go unnoticed.
                    tracing::error!(event = "ControllerEnded", panicked = ended.is_err_and(|error| error.is_panic()), "a controller ended that does not end by itself");
                    controllers.shutdown().await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        controllers.shutdown().await;
    }

    fn publisher(&self, epoch: u64) -> Publisher {
        Publisher {
            service: self.context.settings.control_plane.clone(),
            epoch,
            planned: self.context.planned.clone(),
            credentials: self.credentials.clone(),
            live: self.live.clone(),
            metrics: self.context.metrics.clone(),
            now: self.context.now,
        }
    }
}

fn start(controllers: &mut JoinSet<()>, context: &Arc<Context>) {
    controllers.spawn(once_planned(Arc::clone(context), tenant::run));
    controllers.spawn(once_planned(Arc::clone(context), class::run));
    controllers.spawn(once_planned(Arc::clone(context), conference::run));
    controllers.spawn(media_pool::run(Arc::clone(context)));
    controllers.spawn(media_node::run(Arc::clone(context)));
    controllers.spawn(maintenance::run(Arc::clone(context)));
}

/// Runs a controller whose statuses say what was planned. Before the Secrets were read once, a plan finds keys missing that are there: a
/// start would tell that of every object, and take it back a second later.
async fn once_planned<F>(context: Arc<Context>, run: fn(Arc<Context>) -> F)
where
    F: Future<Output = ()>,
{
    let mut planned = context.planned.clone();
    // The planner ends with the process.
    if planned.wait_for(|planned| planned.ready).await.is_ok() {
        run(context).await;
    }
}
