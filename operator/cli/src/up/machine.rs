// SPDX-License-Identifier: EUPL-1.2
//! The running system: one loop that hears of files, children, the control plane and callers, and decides.

mod apply;
mod calls;
mod drain;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use operator_core::{Generated, Name, NodeEndpoint, Plan, RecordKind, WantedNode, Wants, validate};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, info, warn};

use super::{
    children::{ChildEvent, Supervised},
    directory::{News, Wish},
    options::Options,
    pki::Authority,
    report::{Ready, Reporter},
    secrets::Secrets,
    socket::Call,
    state_dir::StateDir,
    view::{Ack, Live, Process, View},
    watch::Watch,
};
use crate::validate::Checked;

/// Things on their way to the loop.
const QUEUE: usize = 256;
/// Events that are kept for `plenum describe`.
const EVENTS_MAX: usize = 128;
/// After that long without being ready, what is missing is told.
const SLOW: Duration = Duration::from_secs(15);
const CONTROL_PLANE: &str = "control-plane";

/// Something that happened, for `plenum describe`.
struct Happening {
    at: Timestamp,
    about: String,
    reason: &'static str,
    message: String,
}

/// A node and its process.
struct Node {
    wanted: WantedNode,
    addresses: Vec<IpAddr>,
    port: u16,
    supervised: Supervised,
    /// What the process gets at its next start, and where it then listens for the control plane.
    launch: Arc<Mutex<NodeLaunch>>,
    grpc: Option<SocketAddr>,
    pid: Option<u32>,
    starts: u64,
    drained: bool,
    /// While it is being emptied, to stay or to go.
    emptying: Option<drain::Emptying>,
}

impl Node {
    /// Whether it is on its way out.
    fn goes(&self) -> bool {
        self.emptying.as_ref().is_some_and(drain::Emptying::goes)
    }
}

/// Arguments of a node that may change.
#[derive(Clone, PartialEq, Eq)]
struct NodeLaunch {
    args: Vec<OsString>,
    grpc: Option<SocketAddr>,
}

/// The control plane and its process.
struct ControlPlane {
    supervised: Supervised,
    pid: Option<u32>,
}

struct Machine {
    options: Options,
    dir: StateDir,
    secrets: Secrets,
    authority: Authority,
    reporter: Reporter,
    began: Instant,
    /// What is in effect.
    checked: Checked,
    generated: Generated,
    wants: Wants,
    plan: Arc<Plan>,
    noted: BTreeSet<String>,
    /// Content that was reported as wrong, so that it is reported once.
    rejected: Option<[u8; 32]>,
    /// What was reported as failed, likewise.
    failure: Option<String>,
    control_plane: ControlPlane,
    control_plane_grpc: SocketAddr,
    /// The media node's program.
    media_node: PathBuf,
    nodes: BTreeMap<String, Node>,
    going: Vec<tokio::task::JoinHandle<()>>,
    child_events: mpsc::Sender<ChildEvent>,
    wishes: mpsc::Sender<Wish>,
    live: Live,
    acks: BTreeMap<(RecordKind, String), Ack>,
    events: VecDeque<Happening>,
    serving: bool,
    snapshot_applied: bool,
    ready: bool,
}

/// Why the loop ended.
enum End {
    Signal(&'static str),
    Asked,
}

/// Runs until a signal or a caller says stop.
pub(crate) async fn run(
    options: Options,
    checked: Checked,
    reporter: Reporter,
    began: Instant,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("signals")?;
    let watch = Watch::new(&options.paths).context("cannot watch the manifests")?;
    let (change_send, mut changes) = mpsc::channel(1);
    // What was saved between reading and watching is found by looking once more.
    let _ = change_send.try_send(());
    tokio::spawn(watch.tell(change_send));
    let (child_send, mut child_events) = mpsc::channel(QUEUE);
    let (news_send, mut news) = mpsc::channel(QUEUE);
    let (call_send, mut calls) = mpsc::channel(QUEUE);
    let (ready_send, mut serving) = mpsc::channel(1);
    let mut machine = start::start(
        options,
        checked,
        reporter,
        began,
        start::Channels {
            child_send,
            news_send,
            call_send,
            ready_send,
        },
    )?;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut told_slow = false;
    let mut held = Vec::new();
    let mut batch = Vec::new();
    let end = loop {
        tokio::select! {
            _ = interrupt.recv() => break End::Signal("interrupted"),
            _ = terminate.recv() => break End::Signal("terminated"),
            _ = hangup.recv() => break End::Signal("the terminal is gone"),
            Some(event) = child_events.recv() => machine.child(event).await,
            _ = news.recv_many(&mut batch, QUEUE) => batch.drain(..).for_each(|item| machine.news(item)),
            Some(()) = serving.recv() => machine.serving = true,
            Some(Call { request, answer, hold }) = calls.recv() => {
                let (said, stop) = machine.call(request).await;
                // The caller may have gone.
                let _ = answer.send(said);
                if stop {
                    held.push(hold);
                    break End::Asked;
                }
            }
            Some(()) = changes.recv() => machine.files_changed().await,
            _ = tick.tick() => {
                machine.go_on_emptying().await;
                if !machine.ready && !told_slow && began.elapsed() > SLOW {
                    told_slow = true;
                    warn!("not ready yet: {}", machine.missing());
                }
            }
        }
        machine.check_ready();
    };
    let why = match end {
        End::Signal(why) => why,
        End::Asked => "asked to",
    };
    tokio::select! {
        () = machine.stop(why) => {}
        // Who asks twice does not want to wait: the children are killed with the runtime.
        _ = interrupt.recv() => warn!("stopping at once"),
    }
    Ok(())
}

impl Machine {
    fn note(&mut self, about: impl Into<String>, reason: &'static str, message: impl Into<String>) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        let (about, message) = (about.into(), message.into());
        debug!(%about, reason, %message, "event");
        self.events.push_back(Happening {
            at: Timestamp::now(),
            about,
            reason,
            message,
        });
    }

    /// Epoch of a node: grows with each start of its process and of the whole.
    fn epoch(&self, starts: u64) -> u64 {
        (self.secrets.starts() << 20) | starts.min((1 << 20) - 1)
    }

    /// Plans anew and publishes the difference.
    async fn publish(&mut self) {
        let endpoints: BTreeMap<String, NodeEndpoint> = self
            .nodes
            .iter()
            .filter(|(_, node)| !node.goes())
            .filter_map(|(uid, node)| {
                let endpoint = NodeEndpoint {
                    epoch: self.epoch(node.starts),
                    addresses: node.addresses.iter().map(|ip| (*ip, node.port)).collect(),
                    grpc_endpoint: node.grpc?.to_string(),
                    accepting: !node.drained,
                };
                Some((uid.clone(), endpoint))
            })
            .collect();
        // Only valid sets get here, so neither can fail; should one all the same, the old plan stays in effect.
        let Ok(valid) = validate(
            &self.checked.objects,
            operator_core::AbsentOpenerKeys::AreGenerated,
        ) else {
            return warn!("the manifests in effect are no longer valid");
        };
        let mut plan = match operator_core::plan(&valid, &self.generated, &endpoints) {
            Ok(plan) => plan,
            Err(error) => return warn!("cannot plan: {error}"),
        };
        // A node on its way out is known until it is gone; its records take nobody in.
        for (uid, node) in &self.nodes {
            if let Some(record) = self.plan.nodes.get(uid).filter(|_| node.goes()) {
                plan.nodes.insert(uid.clone(), record.closed());
            }
        }
        self.plan = Arc::new(plan);
        // The publisher ends with the machine only.
        let _ = self.wishes.send(Wish::Plan(Arc::clone(&self.plan))).await;
    }

    async fn child(&mut self, event: ChildEvent) {
        match event {
            ChildEvent::Started {
                name,
                pid,
                starts,
                args,
            } => {
                debug!(%name, pid, starts, ?args, "started");
                if starts > 1 {
                    self.reporter.back(&name, starts);
                    self.note(
                        &*name,
                        "Restarted",
                        format!("start {starts}, process {pid}"),
                    );
                }
                if name == CONTROL_PLANE {
                    self.control_plane.pid = Some(pid);
                    return;
                }
                let Some(node) = self
                    .nodes
                    .values_mut()
                    .find(|node| node.wanted.name == name)
                else {
                    return;
                };
                (node.pid, node.starts) = (Some(pid), starts);
                node.grpc = node.launch.lock().ok().and_then(|launch| launch.grpc);
                self.publish().await;
            }
            ChildEvent::Died {
                name,
                how,
                again_in,
                tail,
            } => {
                self.reporter.died(&name, &how, again_in, &tail);
                self.note(&*name, "Died", how);
                if name == CONTROL_PLANE {
                    self.control_plane.pid = None;
                } else if let Some(node) = self
                    .nodes
                    .values_mut()
                    .find(|node| node.wanted.name == name)
                {
                    node.pid = None;
                }
            }
        }
    }

    fn news(&mut self, news: News) {
        match news {
            News::SnapshotApplied => self.snapshot_applied = true,
            News::Taken {
                kind,
                uid,
                revision,
            } => drop(self.acks.insert((kind, uid), Ack::Taken(revision))),
            News::Refused {
                kind,
                uid,
                reason,
                message,
            } => {
                let about = self.name_of(kind, &uid);
                warn!("the control plane refused {about}: {reason}: {message}");
                self.note(about, "Refused", format!("{reason}: {message}"));
                self.acks
                    .insert((kind, uid), Ack::Refused { reason, message });
            }
            News::PublishBroken(error) => {
                debug!("publishing broke: {error}");
                self.acks.clear();
            }
            News::Unhashed(error) => warn!("{error}"),
            News::ObserveBegins => self.live = Live::default(),
            News::Observed(item) => self.live.take(item),
            News::ObserveBroken(error) => {
                debug!("observing broke: {error}");
                self.live = Live::default();
            }
        }
    }

    fn name_of(&self, kind: RecordKind, uid: &str) -> String {
        let name = match kind {
            RecordKind::Tenant => self
                .plan
                .tenants
                .get(uid)
                .map(|record| format!("Tenant/{}", record.name)),
            RecordKind::Conference => self
                .plan
                .conferences
                .get(uid)
                .map(|record| format!("Conference/{}", record.name)),
            RecordKind::Node => self.nodes.get(uid).map(|node| node.wanted.name.clone()),
        };
        name.unwrap_or_else(|| uid.to_owned())
    }

    /// What being ready waits for.
    fn missing(&self) -> String {
        let mut missing = Vec::new();
        if !self.serving {
            missing.push(format!(
                "the control plane does not serve {} yet",
                self.options.http
            ));
        }
        if !self.snapshot_applied {
            missing.push("the control plane has not taken the manifests".to_owned());
        }
        for (uid, node) in self.nodes.iter().filter(|(_, node)| !node.goes()) {
            let state = self.live.nodes.get(uid);
            if !state.is_some_and(|state| state.registered && (state.accepting || node.drained)) {
                missing.push(format!("{} has not registered", node.wanted.name));
            }
        }
        let all = self.plan.conferences.keys();
        let unknown = all
            .filter(|uid| !self.live.conferences.contains_key(*uid))
            .count();
        if unknown > 0 {
            missing.push(format!("the state of {unknown} conferences is unknown"));
        }
        if missing.is_empty() {
            return String::new();
        }
        format!(
            "{}; see {}",
            missing.join(", "),
            self.dir.path().join("logs").display()
        )
    }

    fn check_ready(&mut self) {
        if self.ready || !self.missing().is_empty() {
            return;
        }
        self.ready = true;
        let (processes, keys, url) = (self.processes(), self.opener_keys(), self.options.url());
        let view = self.view(&processes, &keys, &url);
        let fingerprint = self
            .options
            .is_public()
            .then(|| self.authority.fingerprint());
        self.reporter.ready(&Ready {
            url: &url,
            took: self.began.elapsed(),
            fingerprint: fingerprint.as_deref(),
            ca: &self.dir.path().join("ca.crt").display().to_string(),
            state_dir: &self.dir.path().display().to_string(),
            conferences: &view.access(),
            sdk: &view.sdk(),
        });
    }

    fn processes(&self) -> BTreeMap<String, Process> {
        let one = |(uid, node): (&String, &Node)| {
            let process = Process {
                name: node.wanted.name.clone(),
                pool: node.wanted.pool.clone(),
                pid: node.pid,
                starts: node.starts,
                drained: node.drained,
                leaving: node.goes(),
            };
            (uid.clone(), process)
        };
        self.nodes.iter().map(one).collect()
    }

    fn opener_keys(&self) -> BTreeMap<Name, Vec<String>> {
        let keys = |name: &Name| {
            let keys = operator_core::plan::keys_of(&self.checked.objects, name, &self.generated);
            keys.into_iter().map(|key| key.0).collect()
        };
        self.checked
            .objects
            .conferences
            .keys()
            .map(|name| (name.clone(), keys(name)))
            .collect()
    }

    fn view<'a>(
        &'a self,
        processes: &'a BTreeMap<String, Process>,
        opener_keys: &'a BTreeMap<Name, Vec<String>>,
        url: &'a str,
    ) -> View<'a> {
        View {
            objects: &self.checked.objects,
            values: &self.checked.values,
            plan: &self.plan,
            live: &self.live,
            acks: &self.acks,
            processes,
            opener_keys,
            url,
        }
    }

    /// Nodes first, so that they can still say good-bye through the control plane.
    async fn stop(mut self, why: &str) {
        self.reporter.stopping(why);
        info!(
            "stopping {} media nodes, then the control plane",
            self.nodes.len()
        );
        for node in self.nodes.values_mut() {
            node.supervised.ask_to_stop();
        }
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.supervised.stopped().await;
        }
        for going in std::mem::take(&mut self.going) {
            // It ended either way.
            let _ = going.await;
        }
        self.control_plane.supervised.stopped().await;
    }
}
