// SPDX-License-Identifier: EUPL-1.2
//! From checked manifests to running processes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsString,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use operator_core::{AbsentOpenerKeys, Plan, WantedNode, validate, wants};
use plenum_api::media_pool::Mux;
use plenum_publish::{issuer::Subject, streams::News};
use tokio::sync::mpsc;
use tracing::info;

use super::{CONTROL_PLANE, Machine, Node, NodeLaunch, replicas};
use crate::{
    up::{
        argument,
        children::{ChildEvent, Launch, Supervised},
        net,
        options::Options,
        pki::{Authority, spiffe},
        report::Reporter,
        secrets::Secrets,
        socket::{self, Call},
        state_dir::StateDir,
    },
    validate::Checked,
};

/// Ends of the channels that the loop hears.
pub(super) struct Channels {
    pub(super) child_send: mpsc::Sender<ChildEvent>,
    pub(super) news_send: mpsc::Sender<(usize, News)>,
    pub(super) call_send: mpsc::Sender<Call>,
    pub(super) ready_send: mpsc::Sender<(usize, u64)>,
}

/// Starts everything.
pub(super) fn start(
    options: Options,
    checked: Checked,
    reporter: Reporter,
    began: Instant,
    channels: Channels,
) -> anyhow::Result<Machine> {
    let control_plane = beside(CONTROL_PLANE)?;
    let media_node = beside("media-node")?;
    let dir = StateDir::open(&options.state_dir)?;
    let mut secrets = Secrets::open(&dir)?;
    let authority = Authority::open(&dir, Timestamp::now())?;
    let wants = match validate(&checked.objects, AbsentOpenerKeys::AreGenerated) {
        Ok(valid) => wants(&valid),
        Err(_) => return Err(anyhow!("the manifests are not valid")),
    };
    let generated = secrets.generate(&dir, &wants)?;
    let replicas = replicas::start(
        control_plane,
        &options,
        &dir,
        &authority,
        secrets.starts(),
        &channels,
    )?;
    let listener =
        socket::listen(&dir.socket()).with_context(|| dir.socket().display().to_string())?;
    tokio::spawn(socket::serve(listener, channels.call_send));
    let mut machine = Machine {
        options,
        dir,
        secrets,
        authority,
        reporter,
        began,
        checked,
        generated,
        wants,
        plan: Arc::new(Plan::default()),
        noted: BTreeSet::new(),
        rejected: None,
        failure: None,
        replicas,
        ready_send: channels.ready_send,
        media_node,
        nodes: BTreeMap::new(),
        going: Vec::new(),
        child_events: channels.child_send,
        events: VecDeque::new(),
        rolling: None,
        ready: false,
    };
    machine.tell_notes();
    machine.start_nodes()?;
    Ok(machine)
}

/// A program of this installation.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the own program")?;
    let path = own.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(anyhow!(
        "{} is missing; it belongs beside plenum. In a source tree: cargo build -p control-plane -p media-node -p plenum",
        path.display()
    ))
}

/// For browsers: it names no part of the system, so nobody takes its bearer for one.
pub(super) fn gateway_certificate(
    options: &Options,
    dir: &StateDir,
    authority: &Authority,
) -> anyhow::Result<PathBuf> {
    let mut ips: BTreeSet<IpAddr> = net::primary_addresses().into_iter().collect();
    ips.extend([
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    ]);
    if !options.http.ip().is_unspecified() {
        ips.insert(options.http.ip());
    }
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_ascii_lowercase();
    let fits = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let mut dns = vec!["localhost".to_owned()];
    dns.extend(Some(host).filter(|host| fits && !host.is_empty() && host != "localhost"));
    let subject = Subject {
        name: "gateway".into(),
        dns,
        ips: ips.into_iter().collect(),
        spiffe: None,
    };
    Ok(authority.issue(dir, &subject)?)
}

impl Machine {
    /// Fields without effect, each once in the life of the process.
    pub(super) fn tell_notes(&mut self) {
        let notes = std::mem::take(&mut self.checked.report.notes);
        for note in &notes {
            // The field, without the objects that use it: those change with the manifests.
            let field = note.split(" has no effect ").next().unwrap_or(note);
            if self.noted.insert(field.to_owned()) {
                info!("{note}");
            }
        }
        self.checked.report.notes = notes;
        for warning in &self.checked.report.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// Starts the nodes that are wanted and not there, and restarts those whose arguments changed. Names what it did.
    pub(super) fn start_nodes(&mut self) -> anyhow::Result<Vec<String>> {
        let mut did = Vec::new();
        let ports = self.ports(&self.wants.nodes)?;
        for wanted in self.wants.nodes.clone() {
            let Some(port) = ports.get(&wanted.uid).copied() else {
                continue;
            };
            let addresses = net::of_families(&self.options.media, &wanted.families);
            if addresses.is_empty() {
                return Err(anyhow!(
                    "MediaPool {}: this machine has no address of its spec.network.ipFamilies; see --media-address",
                    wanted.pool
                ));
            }
            let args = self.node_args(&wanted, port, &addresses);
            if let Some(node) = self.nodes.get_mut(&wanted.uid) {
                let mut changed = false;
                if let Ok(mut launch) = node.launch.lock() {
                    changed = launch.args != args;
                    launch.args = args;
                }
                (node.port, node.addresses, node.wanted) = (port, addresses, wanted);
                if changed {
                    did.push(format!(
                        "node {} restarts with other ports or threads",
                        node.wanted.name
                    ));
                    node.supervised.restart();
                }
                continue;
            }
            self.issue_for(&wanted)?;
            let launch = Arc::new(Mutex::new(NodeLaunch { args, grpc: None }));
            let log = self
                .dir
                .folder("logs")?
                .join(format!("{}.log", wanted.name));
            let supervised = Supervised::start(
                node_launch(&wanted.name, &self.media_node, Arc::clone(&launch), log),
                self.child_events.clone(),
            );
            did.push(format!("node {} starts", wanted.name));
            self.nodes.insert(
                wanted.uid.clone(),
                Node {
                    wanted,
                    addresses,
                    port,
                    supervised,
                    launch,
                    grpc: None,
                    pid: None,
                    starts: 0,
                    drained: false,
                    emptying: None,
                },
            );
        }
        Ok(did)
    }

    /// Ports for a set of nodes, those that run keeping theirs.
    pub(super) fn ports(
        &self,
        wanted: &[WantedNode],
    ) -> Result<BTreeMap<String, u16>, net::NoPort> {
        let held = self
            .nodes
            .iter()
            .map(|(uid, node)| (uid.clone(), node.port))
            .collect();
        net::assign(wanted, &held, |port| {
            net::is_free(port, &self.options.media)
        })
    }

    fn issue_for(&self, wanted: &WantedNode) -> anyhow::Result<PathBuf> {
        let subject = Subject {
            name: wanted.uid.clone(),
            dns: vec![format!("{}.node.plenum.internal", wanted.uid)],
            ips: vec![Ipv4Addr::LOCALHOST.into()],
            spiffe: spiffe(&format!("node/{}", wanted.uid)),
        };
        Ok(self.authority.issue(&self.dir, &subject)?)
    }

    /// Everything but the port of the node's own service, which is chosen anew at each start.
    fn node_args(&self, wanted: &WantedNode, port: u16, addresses: &[IpAddr]) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        args.extend(argument(
            "tls-dir",
            self.dir.path().join("tls").join(&wanted.uid),
        ));
        for replica in &self.replicas {
            args.extend(argument("control-plane", replica.grpc.to_string()));
        }
        args.extend(argument("node-uid", &wanted.uid));
        for ip in addresses {
            args.extend(argument("media-address", ip.to_string()));
        }
        args.extend(argument("media-port", port.to_string()));
        args.extend(argument(
            "ports",
            match wanted.mux {
                Mux::SinglePort => "SinglePort",
                Mux::PortPerShard => "PortPerShard",
            },
        ));
        args.extend(argument("shards", wanted.shards.to_string()));
        // Counters are read on this machine only; the node's log names the port.
        args.extend(argument("metrics-listen", "127.0.0.1:0"));
        args
    }
}

fn node_launch(name: &str, program: &Path, launch: Arc<Mutex<NodeLaunch>>, log: PathBuf) -> Launch {
    let args = move || {
        let grpc = net::free_port(Ipv4Addr::LOCALHOST.into())?;
        let mut launch = launch
            .lock()
            .map_err(|_| std::io::Error::other("the arguments are lost"))?;
        launch.grpc = Some(grpc);
        let mut args: Vec<OsString> = argument("grpc-listen", grpc.to_string()).into();
        args.extend(launch.args.iter().cloned());
        Ok(args)
    };
    Launch {
        name: name.to_owned(),
        program: program.to_owned(),
        args: Box::new(args),
        env: Vec::new(),
        log,
    }
}
