// SPDX-License-Identifier: EUPL-1.2
//! Publishes what is planned to every replica of the control plane, and makes one picture of what they report.
//!
//! Replicas are found by resolving a headless Service. Each has two streams of its own (`plenum_publish::streams`); one that does not keep
//! up begins anew with everything. All of it runs while this process leads, or last led and nobody else is known to.

mod replica;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use operator_core::{Plan, RecordKind};
use plenum_publish::{
    issuer::Pem,
    live::{self, Acks, Observed},
    streams::{News, OrderOutcome, SharedHashes, Wish},
};
use plenum_shell::tls::Tls;
use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    live::{Ack, Live},
    orders::{Order, OrderError},
    planner::Planned,
    telemetry::Metrics,
};
use replica::Replica;

/// How often the replicas are looked up.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How often the picture is made anew at most.
const PICTURE: Duration = Duration::from_millis(100);
/// News on their way.
const QUEUE: usize = 1024;
/// Most replicas.
const REPLICAS_MAX: usize = 16;

/// What publishing needs.
pub struct Publisher {
    /// `host:port` of the headless Service.
    pub service: String,
    /// Epoch of every stream.
    pub epoch: u64,
    /// What is planned.
    pub planned: watch::Receiver<Arc<Planned>>,
    /// The own certificate.
    pub credentials: watch::Receiver<Option<Arc<Pem>>>,
    /// Gets the picture.
    pub live: watch::Sender<Arc<Live>>,
    /// Counters.
    pub metrics: Metrics,
    /// The clock.
    pub now: fn() -> Timestamp,
}

struct Running {
    publisher: Publisher,
    /// The own certificate, once there is one.
    tls: Option<Tls>,
    /// Hashed passwords, which cost the same for every replica.
    hashes: SharedHashes,
    plan: Option<Arc<Plan>>,
    replicas: BTreeMap<usize, Replica>,
    /// Where replicas are, as it was looked up last.
    found: BTreeSet<SocketAddr>,
    next: usize,
    news: mpsc::Sender<(usize, News)>,
    /// Whether there is something new to show.
    dirty: bool,
    /// Since when a record waits for its acknowledgement.
    behind_since: Option<Instant>,
    unresolved: bool,
}

impl Publisher {
    /// Publishes until it is dropped. Orders come in besides; without a replica they are answered at once.
    pub async fn run(self, orders: &mut mpsc::Receiver<Order>) {
        let (news, mut heard) = mpsc::channel(QUEUE);
        let mut planned = self.planned.clone();
        let mut credentials = self.credentials.clone();
        let mut running = Running {
            publisher: self,
            tls: None,
            hashes: SharedHashes::default(),
            plan: None,
            replicas: BTreeMap::new(),
            found: BTreeSet::new(),
            next: 0,
            news,
            dirty: true,
            behind_since: None,
            unresolved: false,
        };
        running.replan(&planned.borrow_and_update());
        let pem = credentials.borrow_and_update().clone();
        running.certify(pem.as_deref());
        let (resolved, mut lookups) = mpsc::channel(1);
        let mut resolver = JoinSet::new();
        resolver.spawn(resolve(running.publisher.service.clone(), resolved));
        let mut picture = interval(PICTURE);
        picture.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(found) = lookups.recv() => running.looked_up(found),
                _ = picture.tick() => running.show(),
                Some((replica, news)) = heard.recv() => running.hear(replica, news),
                Some(order) = orders.recv() => running.order(order),
                Ok(()) = planned.changed() => running.replan(&planned.borrow_and_update()),
                Ok(()) = credentials.changed() => {
                    let pem = credentials.borrow_and_update().clone();
                    running.certify(pem.as_deref());
                    running.meet();
                }
            }
        }
    }
}

impl Running {
    /// Another certificate: streams go on, whoever is dialled from now on sees it.
    fn certify(&mut self, pem: Option<&Pem>) {
        let Some(pem) = pem else {
            return;
        };
        let outcome = match &self.tls {
            Some(tls) => tls.replace(&pem.ca, &pem.cert, &pem.key),
            None => Tls::from_pem(&pem.ca, &pem.cert, &pem.key).map(|tls| self.tls = Some(tls)),
        };
        if let Err(error) = outcome {
            tracing::error!(event = "CredentialsUnusable", error = %error, "the own certificate cannot be used");
        }
    }

    /// Replicas came or went. While none can be looked up, those that are known stay.
    fn looked_up(&mut self, found: Result<BTreeSet<SocketAddr>, String>) {
        match found {
            Ok(found) => {
                self.unresolved = false;
                self.found = found;
                self.meet();
            }
            Err(why) => self.cannot_resolve(&why),
        }
    }

    /// Keeps streams to exactly those that were found.
    fn meet(&mut self) {
        let Some(tls) = self.tls.clone() else {
            return;
        };
        let before = self.replicas.len();
        self.replicas
            .retain(|_, replica| self.found.contains(&replica.address()));
        self.dirty |= self.replicas.len() != before;
        let known: BTreeSet<SocketAddr> = self.replicas.values().map(Replica::address).collect();
        let new: Vec<SocketAddr> = self.found.difference(&known).copied().collect();
        for address in new {
            self.start(address, &tls);
        }
    }

    fn cannot_resolve(&mut self, why: &str) {
        // Once per outage.
        if !std::mem::replace(&mut self.unresolved, true) {
            tracing::warn!(
                event = "ControlPlaneUnresolved",
                service = self.publisher.service,
                why,
                "the replicas of the control plane cannot be looked up"
            );
        }
    }

    fn start(&mut self, address: SocketAddr, tls: &Tls) {
        let id = self.next;
        self.next += 1;
        let started = Replica::start(
            id,
            address,
            tls,
            self.publisher.epoch,
            Arc::clone(&self.hashes),
            self.news.clone(),
        );
        match started {
            Ok(replica) => {
                if let Some(plan) = &self.plan {
                    replica.wish(Wish::Plan(Arc::clone(plan)));
                }
                tracing::info!(event = "ReplicaFound", %address, "a replica of the control plane is published to");
                self.replicas.insert(id, replica);
                self.dirty = true;
            }
            Err(error) => {
                tracing::error!(event = "CredentialsUnusable", error = %error, "the own certificate cannot be used");
            }
        }
    }

    fn replan(&mut self, planned: &Planned) {
        if !planned.ready || self.plan.as_deref() == Some(&planned.plan) {
            return;
        }
        let plan = Arc::new(planned.plan.clone());
        self.plan = Some(Arc::clone(&plan));
        self.dirty = true;
        self.wish_all(&Wish::Plan(plan));
    }

    /// Whoever does not keep up begins anew, with everything.
    fn wish_all(&mut self, wish: &Wish) {
        let slow: Vec<usize> = self
            .replicas
            .iter()
            .filter(|(_, replica)| !replica.wish(wish.clone()))
            .map(|(id, _)| *id)
            .collect();
        for id in slow {
            self.restart(id);
        }
    }

    fn restart(&mut self, id: usize) {
        self.replicas.remove(&id);
        self.meet();
    }

    fn order(&mut self, order: Order) {
        let connected = self
            .replicas
            .values()
            .filter(|replica| replica.is_connected());
        let (answer, mut answers) = mpsc::channel(REPLICAS_MAX);
        let asked = connected
            .filter(|replica| {
                replica.wish(Wish::Asked(Box::new(order.item.clone()), answer.clone()))
            })
            .count();
        drop(answer);
        if asked == 0 {
            // Whoever asked may have given up.
            let _ = order.answer.send(Err(OrderError::Unreachable));
            return;
        }
        tokio::spawn(async move {
            let mut outcome = Err(OrderError::Interrupted);
            // A replica whose connection breaks meanwhile hears of it from the node itself, or begins with the plan.
            while let Some(answer) = answers.recv().await {
                match answer {
                    OrderOutcome::Refused { reason, message } => {
                        outcome = Err(OrderError::Refused { reason, message });
                        break;
                    }
                    OrderOutcome::Done => outcome = Ok(()),
                }
            }
            let _ = order.answer.send(outcome);
        });
    }

    fn hear(&mut self, id: usize, news: News) {
        let metrics = &self.publisher.metrics;
        match &news {
            News::Taken { kind, .. } => metrics.published(name_of(*kind), true),
            News::Refused {
                kind,
                uid,
                reason,
                message,
            } => {
                metrics.published(name_of(*kind), false);
                tracing::warn!(
                    event = "RecordRefused",
                    kind = name_of(*kind),
                    uid,
                    reason,
                    message,
                    "the control plane refuses a record"
                );
            }
            News::Unhashed(error) => {
                tracing::error!(event = "PasswordUnhashed", error = %error, "a password could not be hashed");
            }
            _ => {}
        }
        if let Some(replica) = self.replicas.get_mut(&id) {
            replica.hear(news);
            self.dirty = true;
        }
    }

    /// Makes one picture of what all report.
    fn show(&mut self) {
        let behind = self.behind();
        let lag = behind.map_or(Duration::ZERO, |since| since.elapsed());
        self.publisher.metrics.publication_lag(lag);
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let reporting = || {
            self.replicas
                .values()
                .filter(|replica| replica.is_reporting())
        };
        let observed = Observed::of(reporting().filter_map(Replica::observed));
        let acks: Vec<&Acks> = reporting().map(Replica::acks).collect();
        let acks = live::acks_of(&acks);
        let replicas = reporting().count();
        self.publisher.metrics.control_plane_replicas(replicas);
        let reachable = replicas > 0;
        let old = self.publisher.live.borrow().clone();
        let same = old.reachable == reachable && old.since.is_some();
        let since = if same {
            old.since
        } else {
            Some((self.publisher.now)())
        };
        if !same {
            if reachable {
                tracing::info!(
                    event = "ControlPlaneReachable",
                    replicas,
                    "the control plane reports"
                );
            } else if old.since.is_some() {
                tracing::warn!(
                    event = "ControlPlaneUnreachable",
                    "no replica of the control plane reports"
                );
            }
        }
        let picture = if reachable {
            Live {
                nodes: observed.nodes,
                conferences: observed.conferences,
                tenants: observed.tenants,
                acks: acks
                    .into_iter()
                    .map(|(key, ack)| (key, ack_of(ack)))
                    .collect(),
                reachable,
                since,
                replicas,
            }
        } else {
            // What was known last stays known, with the moment from which on it is old.
            Live {
                reachable,
                since,
                replicas,
                ..(*old).clone()
            }
        };
        if *old != picture {
            self.publisher.live.send_replace(Arc::new(picture));
        }
    }

    /// Since when a record waits for its acknowledgement.
    fn behind(&mut self) -> Option<Instant> {
        if !self.dirty {
            return self.behind_since;
        }
        let acks: Vec<&Acks> = self.replicas.values().map(Replica::acks).collect();
        let acks = live::acks_of(&acks);
        let all_said = self.plan.as_ref().is_none_or(|plan| {
            let said = |kind: RecordKind, uid: &str, revision: &str| match acks
                .get(&(kind, uid.to_owned()))
            {
                Some(live::Ack::Taken(taken)) => taken == revision,
                Some(live::Ack::Refused { .. }) => true,
                None => false,
            };
            plan.tenants
                .values()
                .all(|record| said(RecordKind::Tenant, &record.uid, &record.revision))
                && plan
                    .nodes
                    .values()
                    .all(|record| said(RecordKind::Node, &record.uid, &record.revision))
                && plan
                    .conferences
                    .values()
                    .all(|record| said(RecordKind::Conference, &record.uid, &record.revision))
        });
        self.behind_since = match (all_said, self.behind_since) {
            (true, _) => None,
            (false, None) => Some(Instant::now()),
            (false, since) => since,
        };
        self.behind_since
    }
}

/// Looks up the replicas again and again; a lookup that hangs delays nothing else.
async fn resolve(service: String, found: mpsc::Sender<Result<BTreeSet<SocketAddr>, String>>) {
    loop {
        let outcome = match timeout(LOOK_UP, lookup_host(&service)).await {
            Ok(Ok(addresses)) => Ok(addresses.take(REPLICAS_MAX).collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        if found.send(outcome).await.is_err() {
            return;
        }
        sleep(LOOK_UP).await;
    }
}

fn ack_of(ack: live::Ack) -> Ack {
    match ack {
        live::Ack::Taken(revision) => Ack::Taken { revision },
        live::Ack::Refused { reason, message } => Ack::Refused { reason, message },
    }
}

fn name_of(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Tenant => "Tenant",
        RecordKind::Conference => "Conference",
        RecordKind::Node => "MediaNode",
    }
}
