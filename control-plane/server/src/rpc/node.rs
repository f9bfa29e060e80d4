// SPDX-License-Identifier: EUPL-1.2
//! `NodeControl`: a media node dials, reports and obeys.

use std::sync::Arc;
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, Site, Uid};
use control_core::record::Node;
use plenum_proto::v1::node_control_server::NodeControl;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::{EventAck, NodeHello, NodeOrder, NodeReport, ReplicaList, RoomState};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Shared;
use crate::config::is_endpoint;
use crate::convert::{self, ConvertError};
use crate::identity::{Peer, peer_of};
use crate::live::{Attachment, Entry, Hello, Load, ReportRefusal};
use crate::metrics::Reason;
use crate::peers::Replicas;
use crate::plane::DrainPlan;
use crate::webhooks::Offered;

/// A node's first message comes at once, or not at all.
const FIRST: Duration = Duration::from_secs(5);
/// A node is kept waiting for the directory for this long before it is told to come again; it gives up by itself after 5 s.
const DIRECTORY: Duration = Duration::from_secs(3);
/// A node that says nothing for this long is told to come again; it reports every second.
const SILENT: Duration = Duration::from_secs(10);
/// Orders on their way to a node; a drain sends one per room.
const ORDERS: usize = 1_024;

/// The service.
pub(super) struct NodeControlService {
    shared: Shared,
}

impl NodeControlService {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl NodeControl for NodeControlService {
    type AttachStream = futures::stream::BoxStream<'static, Result<NodeOrder, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let Peer::Node(uid) = peer_of(&request)? else {
            return Err(Status::permission_denied("NodeControl is for media nodes"));
        };
        let mut reports = request.into_inner();
        let first = timeout(FIRST, reports.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(NodeReport {
            item: Some(Report::Hello(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument(
                "the first message has to be the hello",
            ));
        };
        if hello.uid != uid.as_str() {
            return Err(Status::permission_denied(
                "the certificate names another node than the hello",
            ));
        }
        self.wait_for_directory().await?;
        let (orders, out) = mpsc::channel(ORDERS);
        let known = self.hello(&uid, &hello)?;
        let named = known.node_id.is_some();
        let attachment = self.shared.plane.attach(&uid, known, orders.clone());
        tracing::info!(event = "NodeAttached", node = %uid, "media node attached");
        let stream = NodeStream {
            shared: self.shared.clone(),
            uid,
            attachment,
            orders,
            told: None,
            hello,
            named,
            missed: false,
            replicas: self.shared.replicas.clone(),
        };
        let (end, ended) = mpsc::channel(1);
        self.shared.spawn(async move {
            let status = stream.run(reports).await;
            if status.code() != Code::Ok {
                // Whoever reads the orders may be gone already.
                let _ = end.send(Err(status)).await;
            }
        });
        let out = ReceiverStream::new(out).map(Ok);
        Ok(Response::new(Box::pin(
            out.merge(ReceiverStream::new(ended)),
        )))
    }
}

impl NodeControlService {
    /// Which id a node may call itself by is known from the directory alone; rooms of a node that cannot be told from another one would
    /// have to be refused.
    async fn wait_for_directory(&self) -> Result<(), Status> {
        let plane = &self.shared.plane;
        let mut changed = plane.directory_news();
        let loaded = async {
            while !plane.is_loaded() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(DIRECTORY, loaded)
            .await
            .map_err(|_| Status::unavailable("the directory has not arrived yet"))
    }

    fn hello(&self, uid: &Uid, hello: &NodeHello) -> Result<Hello, Status> {
        read_hello(&self.shared, uid, hello)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// What a node says of itself. Its id and site count only if they are those of its published facts: a node cannot pass for another one.
fn read_hello(shared: &Shared, uid: &Uid, hello: &NodeHello) -> Result<Hello, ConvertError> {
    if !is_endpoint(&hello.grpc_endpoint) {
        return Err(ConvertError::Value {
            field: "hello.grpc_endpoint",
            rule: "an endpoint is HOST:PORT",
        });
    }
    let facts = shared.plane.facts_of(uid);
    let own = |facts: &Arc<Node>| {
        facts.node_id.as_str() == hello.node_id && facts.site.as_str() == hello.site
    };
    let (node_id, site): (Option<NodeId>, Option<Site>) = match facts.filter(own) {
        Some(facts) => (Some(facts.node_id.clone()), Some(facts.site.clone())),
        None => (None, None),
    };
    Ok(Hello {
        node_id,
        site,
        epoch: Epoch(hello.epoch),
        endpoint: hello.grpc_endpoint.clone(),
        version: hello.version.chars().take(64).collect(),
        primary: hello.primary,
    })
}

struct NodeStream {
    shared: Shared,
    uid: Uid,
    attachment: Attachment,
    orders: mpsc::Sender<NodeOrder>,
    /// Facts that the node was told on this stream.
    told: Option<Arc<Node>>,
    /// What it said of itself last.
    hello: NodeHello,
    /// Its facts are known here and are those that it names.
    named: bool,
    /// A room of it could not be taken because it was not named yet.
    missed: bool,
    replicas: Replicas,
}

impl NodeStream {
    async fn run(mut self, mut reports: Streaming<NodeReport>) -> Status {
        // Of the directory alone: a node is not woken by what the others report.
        let mut changed = self.shared.plane.directory_news();
        // The first thing that the node is told.
        let mut replicas_changed = true;
        let end = loop {
            if std::mem::take(&mut replicas_changed)
                && let Err(status) = self.tell_replicas().await
            {
                break status;
            }
            changed.borrow_and_update();
            if let Err(status) = self.tell_facts().await {
                break status;
            }
            if self.named && self.missed {
                break Status::aborted("the facts came here after rooms; it names them again");
            }
            tokio::select! {
                () = self.shared.stop.cancelled() => break Status::unavailable("the replica stops"),
                () = self.orders.closed() => break Status::cancelled("the node reads no orders"),
                changed = changed.changed() => if changed.is_err() { break Status::unavailable("the replica stops") },
                () = self.replicas.changed() => replicas_changed = true,
                report = timeout(SILENT, reports.message()) => match report {
                    Ok(Ok(Some(report))) => if let Err(status) = self.hear(report) { break status },
                    Ok(Ok(None)) => break Status::ok("the node left"),
                    Ok(Err(status)) => break status,
                    Err(_) => break Status::deadline_exceeded("the node said nothing for 10 s"),
                },
            }
        };
        self.shared.plane.detach(&self.uid, self.attachment);
        tracing::info!(event = "NodeDetached", node = %self.uid, reason = end.message(), "media node detached");
        end
    }

    /// Sends how all replicas are reached.
    async fn tell_replicas(&mut self) -> Result<(), Status> {
        let endpoints = self.replicas.seen().to_vec();
        let order = NodeOrder {
            item: Some(Order::Replicas(ReplicaList {
                endpoints,
                replica: self.shared.plane.replica(),
            })),
        };
        match timeout(FIRST, self.orders.send(order)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Status::resource_exhausted("the node takes no orders")),
        }
    }

    /// Sends facts that are new or have changed, `accepting` among them.
    async fn tell_facts(&mut self) -> Result<(), Status> {
        let facts = self.shared.plane.facts_of(&self.uid);
        let Some(facts) = facts else { return Ok(()) };
        if self
            .told
            .as_ref()
            .is_some_and(|told| Arc::ptr_eq(told, &facts) || **told == *facts)
        {
            return Ok(());
        }
        let order = NodeOrder {
            item: Some(Order::Facts(convert::node_out(&facts))),
        };
        match timeout(FIRST, self.orders.send(order)).await {
            Ok(Ok(())) => self.told = Some(facts),
            _ => return Err(Status::resource_exhausted("the node takes no orders")),
        }
        // Another replica may have told the node before this one knew the facts: what it said then counts from now on, and it has no
        // reason to say it again.
        if !self.named && !self.hello.node_id.is_empty() {
            self.introduce()
                .map_err(|error| Status::aborted(error.to_string()))?;
        }
        Ok(())
    }

    /// Takes what the node said of itself last.
    fn introduce(&mut self) -> Result<(), HearError> {
        let hello = read_hello(&self.shared, &self.uid, &self.hello)?;
        self.named = hello.node_id.is_some();
        let plane = &self.shared.plane;
        plane.hear_hello(&self.uid, self.attachment, hello)?;
        Ok(())
    }

    fn hear(&mut self, report: NodeReport) -> Result<(), Status> {
        // A kind of report that this version does not know.
        let Some(item) = report.item else {
            return Ok(());
        };
        match self.take(item) {
            Ok(()) => Ok(()),
            Err(HearError::Report(ReportRefusal::Superseded)) => {
                Err(Status::aborted(ReportRefusal::Superseded.to_string()))
            }
            Err(error) => {
                self.missed |= matches!(error, HearError::Report(ReportRefusal::NoFacts));
                // One report is dropped, the node goes on: it carries many rooms.
                tracing::warn!(event = "ReportDropped", node = %self.uid, %error, "a report is dropped");
                self.shared
                    .plane
                    .metrics()
                    .reports_dropped
                    .get_or_create(&Reason {
                        reason: error.reason(),
                    })
                    .inc();
                Ok(())
            }
        }
    }

    fn take(&mut self, item: Report) -> Result<(), HearError> {
        let plane = &self.shared.plane;
        let (uid, attachment) = (&self.uid, self.attachment);
        match item {
            Report::Hello(hello) => {
                if hello.uid != self.uid.as_str() {
                    return Err(ConvertError::Value {
                        field: "hello.uid",
                        rule: "a stream is of one node",
                    }
                    .into());
                }
                self.hello = hello;
                self.introduce()?;
            }
            Report::Load(load) => {
                let leaving = Duration::from_millis(load.leaving_ms);
                if load.unix_ms > 0 {
                    plane.hear_clock(uid, &load.machine, load.unix_ms);
                }
                let load = Load {
                    accepting: load.accepting,
                    rooms: load.rooms,
                    participants: load.participants,
                    egress_bps: load.egress_bps,
                    dropped_packets: load.dropped_packets,
                    // What is no address is not passed on.
                    seen_at_v4: load.seen_at.iter().find_map(|ip| ip.parse().ok()),
                    seen_at_v6: load.seen_at.iter().find_map(|ip| ip.parse().ok()),
                };
                plane.hear_load(uid, attachment, load)?;
                if !leaving.is_zero() {
                    let plan = DrainPlan::of_leaving(leaving, Instant::now());
                    let empties =
                        plane
                            .clone()
                            .empty_node(uid.clone(), plan, self.shared.stop.clone());
                    self.shared.spawn(empties);
                }
            }
            Report::Room(room) => {
                let (key, entry) = read_room(room)?;
                plane.hear_room(uid, attachment, &key, entry)?;
            }
            Report::Closed(closed) => {
                let key = convert::room_key(closed.key)?;
                plane.hear_closed(uid, attachment, &key, Epoch(closed.epoch), &closed.reason)?;
            }
            Report::EndOfRooms(true) => plane.hear_end_of_rooms(uid, attachment)?,
            Report::EndOfRooms(false) => {}
            Report::Event(event) => {
                let own = EventAck {
                    key: event.key.clone(),
                    epoch: event.epoch,
                    seq: event.seq,
                    room_sid: event.room_sid.clone(),
                };
                let offered = plane.webhooks().offer(uid, event);
                let ack = match &offered {
                    Ok(Offered::Kept | Offered::Left) => None,
                    Ok(Offered::Acknowledge(ack)) => Some(ack.clone()),
                    // It gets no better by being said again.
                    Err(_) => Some(own),
                };
                if let Some(ack) = ack {
                    plane.order(uid, Order::EventAck(ack));
                }
                offered?;
            }
        }
        Ok(())
    }
}

/// Why a report is dropped.
#[derive(Debug, thiserror::Error)]
enum HearError {
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error(transparent)]
    Report(#[from] ReportRefusal),
}

impl HearError {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Convert(error) => error.reason(),
            Self::Report(ReportRefusal::Superseded) => "Superseded",
            Self::Report(ReportRefusal::NoFacts) => "NoFacts",
            Self::Report(ReportRefusal::TooManyRooms) => "TooManyRooms",
        }
    }
}

fn read_room(room: RoomState) -> Result<(control_core::ids::RoomKey, Entry), ConvertError> {
    let key = convert::room_key(room.key)?;
    if room.epoch == 0 {
        return Err(ConvertError::Missing {
            field: "room.epoch",
        });
    }
    let entry = Entry {
        epoch: Epoch(room.epoch),
        participants: room.participants,
        publishers: room.publishers,
        lobby: room.lobby,
        facts: convert::facts(room.facts.unwrap_or_default())?,
        policy_revision: room.policy_revision,
        policy: room.policy.map(convert::policy).transpose()?.map(Box::new),
    };
    Ok((key, entry))
}
