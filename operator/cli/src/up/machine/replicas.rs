// SPDX-License-Identifier: EUPL-1.2
//! The replicas of the control plane: each has a process and two streams of its own, and what they say is made one view.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use plenum_publish::{
    issuer::Subject,
    live::{Acks, Observed, acks_of as joined_acks},
    streams::{self, CONTROL_PLANE_DNS, Dial, SharedHashes, Teller, Tls, Wish},
};
use tokio::sync::mpsc;

use super::{CONTROL_PLANE, QUEUE, start::Channels, start::gateway_certificate};
use crate::up::{
    argument,
    children::{Launch, Supervised},
    net,
    options::Options,
    pki::{Authority, spiffe},
    secrets::Secrets,
    state_dir::StateDir,
    view::ReplicaProcess,
};

/// A replica and its process.
pub(super) struct Replica {
    /// Its id among the replicas.
    pub(super) id: String,
    /// Name of its process.
    pub(super) name: String,
    /// Where it alone is reached.
    pub(super) http: SocketAddr,
    /// Where nodes and this process reach it.
    pub(super) grpc: SocketAddr,
    pub(super) supervised: Supervised,
    pub(super) pid: Option<u32>,
    pub(super) starts: u64,
    /// Takes plans and orders.
    pub(super) wishes: mpsc::Sender<Wish>,
    /// What it reports; `None` while it reports nothing.
    pub(super) live: Option<Observed>,
    /// What it said of records.
    pub(super) acks: Acks,
    /// It has all records.
    pub(super) snapshot_applied: bool,
    /// Its address answers.
    pub(super) serving: bool,
}

impl Replica {
    /// Whether people and nodes are served by it.
    pub(super) fn is_ready(&self) -> bool {
        self.pid.is_some() && self.serving && self.snapshot_applied && self.live.is_some()
    }

    /// It ended, or begins anew.
    pub(super) fn forget(&mut self) {
        self.serving = false;
        self.snapshot_applied = false;
        self.acks.clear();
    }
}

/// Starts all replicas and the streams to them.
pub(super) fn start(
    program: PathBuf,
    options: &Options,
    dir: &StateDir,
    authority: &Authority,
    epoch: u64,
    channels: &Channels,
) -> anyhow::Result<Vec<Replica>> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let grpc_all =
        net::free_ports(loopback, options.replicas.len()).context("no free port on loopback")?;
    let common = common_args(options, dir, authority)?;
    let operator = Subject {
        name: "operator".into(),
        spiffe: spiffe("operator"),
        ..Subject::default()
    };
    let operator = authority.make(&operator)?;
    let operator = Tls::from_pem(&operator.ca, &operator.cert, &operator.key)?;
    let hashes = SharedHashes::default();
    let mut replicas = Vec::new();
    for (index, (http, grpc)) in options.replicas.iter().zip(&grpc_all).enumerate() {
        let name = if options.is_shared() {
            format!("{CONTROL_PLANE}-{index}")
        } else {
            CONTROL_PLANE.to_owned()
        };
        let id = format!("local-{index}");
        let mut args: Vec<OsString> = argument("replica-id", &*id).into();
        if options.is_shared() {
            args.extend(argument("http-listen", http.to_string()));
            args.extend(argument("http-shared", options.http.to_string()));
        } else {
            args.extend(argument("http-listen", options.http.to_string()));
        }
        args.extend(argument("grpc-listen", grpc.to_string()));
        for peer in grpc_all.iter().filter(|peer| *peer != grpc) {
            args.extend(argument("peer", peer.to_string()));
        }
        args.extend(common.iter().cloned());
        let env = options
            .redis
            .iter()
            .map(|redis| ("PLENUM_REDIS_URL", OsString::from(&redis.url.0)))
            .collect();
        let launch = Launch {
            name: name.clone(),
            program: program.clone(),
            args: Box::new(move || Ok(args.clone())),
            env,
            log: dir.folder("logs")?.join(format!("{name}.log")),
        };
        let dial = Dial::new(*grpc, &operator)?;
        let (wishes, wished) = mpsc::channel(QUEUE);
        let teller = Teller {
            replica: index,
            send: channels.news_send.clone(),
        };
        tokio::spawn(streams::publish(
            dial.clone(),
            epoch,
            wished,
            Arc::clone(&hashes),
            teller.clone(),
        ));
        tokio::spawn(streams::observe(dial, teller));
        replicas.push(Replica {
            id,
            name,
            http: *http,
            grpc: *grpc,
            supervised: Supervised::start(launch, channels.child_send.clone()),
            pid: None,
            starts: 0,
            wishes,
            live: None,
            acks: Acks::new(),
            snapshot_applied: false,
            serving: false,
        });
    }
    Ok(replicas)
}

/// What all replicas are told alike.
fn common_args(
    options: &Options,
    dir: &StateDir,
    authority: &Authority,
) -> anyhow::Result<Vec<OsString>> {
    let tls = authority.issue(
        dir,
        &Subject {
            name: CONTROL_PLANE.into(),
            dns: vec![CONTROL_PLANE_DNS.into(), "localhost".into()],
            ips: vec![Ipv4Addr::LOCALHOST.into()],
            spiffe: spiffe(CONTROL_PLANE),
        },
    )?;
    let key = Secrets::installation_key(dir)?;
    let mut args: Vec<OsString> = Vec::new();
    if options.is_public() {
        args.extend(argument(
            "http-tls-dir",
            gateway_certificate(options, dir, authority)?,
        ));
    }
    args.extend(argument("tls-dir", tls));
    args.extend(argument("installation-key-file", key));
    match &options.redis {
        None => args.extend(argument("store", "memory")),
        Some(redis) => {
            args.extend(argument("store", "redis"));
            let namespace = match &redis.namespace {
                Some(name) => name.clone(),
                None => Secrets::namespace(dir)?,
            };
            args.extend(argument("redis-namespace", namespace));
            if let Some(ca) = &redis.ca {
                args.extend(argument("redis-ca", ca));
            }
            args.extend(argument("seal-key-file", Secrets::seal_key(dir)?));
        }
    }
    // Whoever declares receivers here runs programs on this machine anyway.
    let own = ["127.0.0.0/8", "::1/128"].map(str::to_owned);
    for network in own.iter().chain(&options.webhook_networks) {
        args.extend(argument("webhook-network", network));
    }
    if options.insecure_dev_keys {
        args.push("--insecure-dev-keys".into());
    }
    Ok(args)
}

/// What the replicas that run report, made one: of each thing the newest that any of them knows.
pub(super) fn live_of(replicas: &[Replica]) -> Observed {
    Observed::of(replicas.iter().filter_map(|replica| replica.live.as_ref()))
}

/// What the replicas that run said of records, made one: taken is what all have taken.
pub(super) fn acks_of(replicas: &[Replica]) -> Acks {
    let running = replicas.iter().filter(|replica| replica.pid.is_some());
    let acks: Vec<&Acks> = running.map(|replica| &replica.acks).collect();
    joined_acks(&acks)
}

/// Replicas as `plenum get replicas` shows them.
pub(super) fn processes_of(replicas: &[Replica]) -> Vec<ReplicaProcess> {
    let one = |replica: &Replica| ReplicaProcess {
        name: replica.name.clone(),
        id: replica.id.clone(),
        http: replica.http,
        grpc: replica.grpc,
        pid: replica.pid,
        starts: replica.starts,
        ready: replica.is_ready(),
        serving: replica.serving,
        snapshot_applied: replica.snapshot_applied,
        records: replica.acks.len(),
        nodes: replica.live.as_ref().map_or(0, |live| {
            live.nodes.values().filter(|node| node.registered).count()
        }),
    };
    replicas.iter().map(one).collect()
}
