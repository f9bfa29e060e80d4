// SPDX-License-Identifier: EUPL-1.2
//! Starts one replica of the control plane and stops it in good order.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use control_plane::clock::Clock;
use control_plane::config::{Args, Config, RedisAcl, StoreChoice, reachable};
use control_plane::gateway;
use control_plane::hosts::Hosts;
use control_plane::identity::Tls;
use control_plane::peers::Peers;
use control_plane::plane::Plane;
use control_plane::probes::Probes;
use control_plane::rpc;
use control_plane::seal::SealKeys;
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use control_plane::store::redis::RedisStore;
use control_plane::supervise::Supervisor;
use control_plane::webhooks;
use plenum_shell::probe;
use plenum_shell::process::{self, EXIT_CONFIG};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A store that answers this soon after the start is not taken for one that is away.
const STORE_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == RedisAcl::COMMAND)
    {
        return print_acl();
    }
    let args = Args::parse();
    begin(args).unwrap_or_else(|code| code)
}

fn begin(args: Args) -> Result<ExitCode, ExitCode> {
    let runtime = process::runtime(None)?;
    let telemetry =
        process::telemetry(&runtime, &args.telemetry, "control-plane", &args.replica_id)?;
    let config = args.validate().map_err(|error| {
        tracing::error!(
            event = "ConfigurationRefused",
            "{:#}",
            anyhow::Error::from(error)
        );
        ExitCode::from(EXIT_CONFIG)
    })?;
    let outcome = runtime.block_on(run(config));
    telemetry.stop();
    outcome.map(|()| ExitCode::SUCCESS).map_err(|error| {
        tracing::error!(event = "ReplicaFailed", "{error:#}");
        ExitCode::FAILURE
    })
}

fn print_acl() -> ExitCode {
    match RedisAcl::parse_from(std::env::args_os().skip(1)).rule() {
        Ok(rule) => {
            println!("{rule}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let tls = Tls::read(&config.tls_dir)?;
    let clock = Clock::start();
    let mut redis = None;
    let store: Arc<dyn Store> = match config.store {
        StoreChoice::Memory => Arc::new(MemoryStore::new(Arc::new(move || clock.now()))),
        StoreChoice::Redis(options) => {
            tracing::info!(event = "StoreChosen", address = %options.address, namespace = ?options.namespace, "the store is in Redis");
            let store = redis.insert(Arc::new(RedisStore::start(options)?));
            store.wait(STORE_WAIT).await;
            Arc::clone(store) as Arc<dyn Store>
        }
    };
    let plane = Plane::new(store, Hosts::new(tls.clone()), clock);
    if let Some(redis) = redis {
        plane
            .metrics()
            .register(|registry| redis.register(registry));
    }
    let mut supervisor = Supervisor::new();

    let probes = Arc::new(Probes::new(plane.clone()));
    let mut probed = None;
    if let Some(address) = config.probe_listen {
        let listener = probe::bind(address)
            .await
            .with_context(|| format!("--probe-listen {address}"))?;
        probed = listener.local_addr().ok();
        let (source, stop) = (Arc::clone(&probes), supervisor.token());
        supervisor.spawn("probes", async move {
            tokio::select! {
                () = probe::serve(listener, source) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }
    let listener = probe::bind(config.grpc_listen)
        .await
        .with_context(|| format!("--grpc-listen {}", config.grpc_listen))?;
    let grpc = listener.local_addr().context("--grpc-listen")?;
    let advertise = reachable(config.advertise, grpc, config.pod_ip);
    let peers = Peers::new(advertise, config.peers);
    let (files, stop) = (tls.clone(), supervisor.token());
    supervisor.spawn("certificates of gRPC", async move {
        rpc::follow_certificates(&files, stop).await;
        Ok(())
    });
    let (served, replicas, stop) = (plane.clone(), peers.replicas(), supervisor.token());
    supervisor.spawn("gRPC", async move {
        Ok(rpc::serve(served, listener, &tls, replicas, stop).await?)
    });
    let stop = supervisor.token();
    supervisor.spawn("finding of replicas", async move {
        peers.resolve(stop).await;
        Ok(())
    });
    let seal = match config.seal_keys {
        Some(keys) => keys,
        None => Arc::new(SealKeys::random()?),
    };
    let (keep, holder, stop) = (plane.clone(), config.replica_id.clone(), supervisor.token());
    supervisor.spawn("keeping of records", async move {
        keep.keep_records(seal, holder, stop).await;
        Ok(())
    });
    let (watch, stop) = (plane.clone(), supervisor.token());
    supervisor.spawn("comparing of clocks", async move {
        watch.compare_clocks(stop).await;
        Ok(())
    });

    let settings = gateway::Settings {
        http_listen: config.http_listen,
        http_shared: config.http_shared,
        http_tls_dir: config.http_tls_dir,
        public_url: config.public_url,
        installation_key: config.installation_key,
        insecure_dev_keys: config.insecure_dev_keys,
    };
    let serving = gateway::start(plane.clone(), settings, supervisor.token()).await?;
    probes.listens(serving.gateway());
    tracing::info!(event = "ReplicaStarted", replica = config.replica_id, http = ?serving.addresses, %grpc, probes = ?probed, "control plane listens");
    supervisor.spawn("gateway", async move {
        serving.stopped().await;
        Ok(())
    });
    spawn_watches(&mut supervisor, &plane);
    let options = webhooks::Options {
        replica: config.replica_id,
        allowed: config.webhook_networks,
    };
    let (hooks, served, stop) = (plane.webhooks().clone(), plane.clone(), supervisor.token());
    supervisor.spawn("webhooks", async move {
        hooks.run(served, options, stop).await;
        Ok(())
    });
    supervisor
        .run(either(&mut terminate, &mut interrupt))
        .await?;
    tracing::info!(event = "ReplicaStopped", "control plane stopped");
    Ok(())
}

fn spawn_watches(supervisor: &mut Supervisor, plane: &Plane) {
    let (watch, stop) = (plane.clone(), supervisor.token());
    supervisor.spawn("watch over nodes", async move {
        watch.watch_nodes(stop).await;
        Ok(())
    });
    let (restore, stop) = (plane.clone(), supervisor.token());
    supervisor.spawn("restoring of rooms", async move {
        restore.restore_rooms(stop).await;
        Ok(())
    });
    let (enforce, stop) = (plane.clone(), supervisor.token());
    supervisor.spawn("enforcing of the directory", async move {
        enforce.enforce_directory(stop).await;
        Ok(())
    });
    let (planned, stop) = (plane.clone(), supervisor.token());
    supervisor.spawn("holding of capacity", async move {
        planned.hold_planned(stop).await;
        Ok(())
    });
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
