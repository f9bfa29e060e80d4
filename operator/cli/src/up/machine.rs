// SPDX-License-Identifier: EUPL-1.2
//! The running system: one loop that hears of files, children, the control plane and callers, and decides.

mod apply;
mod calls;
mod drain;
mod replicas;
mod rolling;
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
use plenum_publish::{
    live::{Ack, Observed},
    streams::{News, Wish},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, info, warn};

use super::{
    children::{ChildEvent, Supervised},
    options::Options,
    pki::Authority,
    probe,
    report::{Ready, Reporter},
    secrets::Secrets,
    socket::Call,
    state_dir::StateDir,
    store::{self, StoreNews},
    view::{Draining, Process, Said, View},
    watch::Watch,
};
use crate::validate::Checked;
use replicas::Replica;

pub(crate) use drain::DrainPhase;

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
    replicas: Vec<Replica>,
    ready_send: mpsc::Sender<(usize, u64)>,
    /// The media node's program.
    media_node: PathBuf,
    nodes: BTreeMap<String, Node>,
    going: Vec<tokio::task::JoinHandle<()>>,
    child_events: mpsc::Sender<ChildEvent>,
    events: VecDeque<Happening>,
    /// The rolling restart under way, or the last one.
    rolling: Option<rolling::Rolling>,
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
    let (store_send, mut store_news) = mpsc::channel(1);
    let redis = options.redis.as_ref().map(|redis| redis.url.0.clone());
    // Held here as well, so that without a store the channel is silent instead of closed.
    let _store_send = store_send.clone();
    if let Some(url) = redis {
        tokio::spawn(store::watch(url, store_send));
    }
    let (ready_send, mut serving) = mpsc::channel(QUEUE);
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
            _ = news.recv_many(&mut batch, QUEUE) => for (replica, item) in batch.drain(..) {
                machine.news(replica, item).await;
            },
            Some((replica, starts)) = serving.recv() => machine.serves(replica, starts),
            Some(Call { request, answer, hold }) = calls.recv() => {
                let (said, stop) = machine.call(request).await;
                // The caller may have gone.
                let _ = answer.send(said);
                if stop {
                    held.push(hold);
                    break End::Asked;
                }
            }
            Some(news) = store_news.recv() => machine.store(news),
            Some(()) = changes.recv() => machine.files_changed().await,
            _ = tick.tick() => {
                machine.go_on_emptying().await;
                machine.go_on_rolling().await;
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
        self.wish(&Wish::Plan(Arc::clone(&self.plan))).await;
    }

    /// Tells every replica.
    async fn wish(&self, wish: &Wish) {
        for replica in &self.replicas {
            // The publisher ends with the machine only.
            let _ = replica.wishes.send(wish.clone()).await;
        }
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
                if let Some(index) = self.replica_of(&name) {
                    return self.replica_started(index, pid, starts);
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
                if let Some(index) = self.replica_of(&name) {
                    let replica = &mut self.replicas[index];
                    replica.pid = None;
                    replica.forget();
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

    fn store(&mut self, news: StoreNews) {
        match news {
            StoreNews::Away(why) => {
                self.note("store", "StoreAway", &*why);
                self.reporter.store_away(&why);
            }
            StoreNews::Back => {
                self.note("store", "StoreBack", "it can be reached again");
                self.reporter.store_back();
            }
        }
    }

    fn replica_of(&self, process: &str) -> Option<usize> {
        self.replicas
            .iter()
            .position(|replica| replica.name == process)
    }

    /// A replica's process runs; when its address answers is found out besides.
    fn replica_started(&mut self, index: usize, pid: u32, starts: u64) {
        let replica = &mut self.replicas[index];
        (replica.pid, replica.starts) = (Some(pid), starts);
        replica.forget();
        let ca = self
            .options
            .is_public()
            .then(|| self.authority.pem().to_owned());
        let (http, ready) = (replica.http, self.ready_send.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = probe::ready(http, ca.as_deref()) => {
                    // The machine may be stopping.
                    let _ = ready.send((index, starts)).await;
                }
                () = ready.closed() => {}
            }
        });
    }

    /// The address of a replica answers.
    fn serves(&mut self, index: usize, starts: u64) {
        if let Some(replica) = self.replicas.get_mut(index)
            && replica.starts == starts
            && replica.pid.is_some()
        {
            replica.serving = true;
        }
    }

    async fn news(&mut self, index: usize, news: News) {
        let Some(replica) = self.replicas.get_mut(index) else {
            return;
        };
        match news {
            News::SnapshotApplied => {
                replica.snapshot_applied = true;
                self.repeat_moves(index).await;
            }
            News::Taken {
                kind,
                uid,
                revision,
            } => drop(replica.acks.insert((kind, uid), Ack::Taken(revision))),
            News::Refused {
                kind,
                uid,
                reason,
                message,
            } => {
                let (key, ack) = (
                    (kind, uid.clone()),
                    Ack::Refused {
                        reason: reason.clone(),
                        message: message.clone(),
                    },
                );
                replica.acks.insert(key, ack);
                let about = self.name_of(kind, &uid);
                warn!("the control plane refused {about}: {reason}: {message}");
                self.note(about, "Refused", format!("{reason}: {message}"));
            }
            News::PublishBroken(error) => {
                debug!(replica = %replica.id, "publishing broke: {error}");
                replica.snapshot_applied = false;
                replica.acks.clear();
            }
            News::Unhashed(error) => warn!("{error}"),
            News::ObserveBegins => replica.live = Some(Observed::default()),
            News::Observed(item) => {
                if let Some(live) = &mut replica.live {
                    live.take(item);
                }
            }
            News::ObserveBroken(error) => {
                debug!(replica = %replica.id, "observing broke: {error}");
                replica.live = None;
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
        let running = || self.replicas.iter().filter(|replica| replica.pid.is_some());
        if running().next().is_none() {
            missing.push("no control plane runs".to_owned());
        }
        for replica in running() {
            self.missing_of(replica, &mut missing);
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

    fn missing_of(&self, replica: &Replica, missing: &mut Vec<String>) {
        let name = &replica.name;
        if !replica.serving {
            missing.push(format!("{name} does not serve {} yet", replica.http));
        }
        if !replica.snapshot_applied {
            missing.push(format!("{name} has not taken the manifests"));
        }
        let Some(live) = &replica.live else {
            return missing.push(format!("{name} reports nothing yet"));
        };
        for (uid, node) in self.nodes.iter().filter(|(_, node)| !node.goes()) {
            let state = live.nodes.get(uid);
            if !state.is_some_and(|state| state.registered && (state.accepting || node.drained)) {
                missing.push(format!(
                    "{} has not registered with {name}",
                    node.wanted.name
                ));
            }
        }
        let all = self.plan.conferences.keys();
        let unknown = all
            .filter(|uid| !live.conferences.contains_key(*uid))
            .count();
        if unknown > 0 {
            missing.push(format!(
                "the state of {unknown} conferences is unknown to {name}"
            ));
        }
    }

    fn check_ready(&mut self) {
        if self.ready || !self.missing().is_empty() {
            return;
        }
        self.ready = true;
        let said = self.said();
        let view = self.view(&said);
        let fingerprint = self
            .options
            .is_public()
            .then(|| self.authority.fingerprint());
        self.reporter.ready(&Ready {
            url: &said.url,
            took: self.began.elapsed(),
            fingerprint: fingerprint.as_deref(),
            ca: &self.dir.path().join("ca.crt").display().to_string(),
            state_dir: &self.dir.path().display().to_string(),
            conferences: &view.access(),
            sdk: &view.sdk(),
            replicas: &said.replicas,
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
                drain: node.emptying.map(|emptying| {
                    let (moves_in, ends_in) = emptying.left(Instant::now());
                    Draining {
                        phase: emptying.phase(),
                        moves_in_seconds: moves_in.as_secs(),
                        ends_in_seconds: ends_in.as_secs(),
                        rooms_without_place: emptying.stranded().rooms,
                        participants_without_place: emptying.stranded().participants,
                    }
                }),
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

    /// What a view is made of that is put together for it.
    fn said(&self) -> Said {
        Said {
            live: replicas::live_of(&self.replicas),
            acks: replicas::acks_of(&self.replicas),
            processes: self.processes(),
            replicas: replicas::processes_of(&self.replicas),
            opener_keys: self.opener_keys(),
            url: self.options.url(),
        }
    }

    fn view<'a>(&'a self, said: &'a Said) -> View<'a> {
        View {
            objects: &self.checked.objects,
            values: &self.checked.values,
            plan: &self.plan,
            said,
        }
    }

    /// Nodes first, so that they can still say good-bye through the control plane.
    async fn stop(mut self, why: &str) {
        self.reporter.stopping(why);
        info!(
            "stopping {} media nodes, then {} replicas of the control plane",
            self.nodes.len(),
            self.replicas.len()
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
        for replica in &mut self.replicas {
            replica.supervised.ask_to_stop();
        }
        for replica in std::mem::take(&mut self.replicas) {
            replica.supervised.stopped().await;
        }
    }
}
