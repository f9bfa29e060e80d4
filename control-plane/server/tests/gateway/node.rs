// SPDX-License-Identifier: EUPL-1.2
//! A media node by a script: attaches, opens every room, and answers sessions as the test says.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control_plane::identity::Tls;
use futures::Stream;
use plenum_proto::v1::node_control_client::NodeControlClient;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::room_host_server::{RoomHost, RoomHostServer};
use plenum_proto::v1::session_down::Item as Down;
use plenum_proto::v1::session_up::Item as Up;
use plenum_proto::v1::{
    AdminRequest, AdminResponse, ExportRequest, ExportResponse, Frame, KnockRequest, KnockUpdate,
    NodeHello, NodeLoad, NodeReport, OpenRequest, OpenResponse, RoomFacts, RoomKey, RoomState,
    SessionDown, SessionRefused, SessionStart, SessionUp, admin_request, frame, knock_update,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// What a session comes to.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// A frame, then everything that comes up goes down again.
    Echo,
    /// A refusal.
    Refuse(&'static str, bool),
    /// Nothing at all.
    Silent,
}

/// What the test sees and steers.
pub(crate) struct Node {
    script: Mutex<Script>,
    pub(crate) starts: Mutex<Vec<SessionStart>>,
    pub(crate) ends: watch::Sender<Vec<bool>>,
    pub(crate) admin: Mutex<Vec<AdminRequest>>,
    admin_answer: Mutex<AdminResponse>,
    pub(crate) opens: Mutex<Vec<OpenRequest>>,
    pub(crate) knocks: watch::Sender<Vec<KnockRequest>>,
    decision: watch::Sender<Option<knock_update::Item>>,
    sessions: Mutex<Vec<mpsc::Sender<Result<SessionDown, Status>>>>,
    rooms: Mutex<HashMap<(String, String), RoomState>>,
    reports: mpsc::Sender<NodeReport>,
    server: Mutex<Option<tokio::task::AbortHandle>>,
    stop: CancellationToken,
}

pub(crate) const NODE_UID: &str = "node-uid-1";
pub(crate) const NODE_ID: &str = "n1";
pub(crate) const SITE: &str = "here";

impl Node {
    /// Serves RoomHost and attaches to the control plane at `control_plane`.
    pub(crate) async fn start(tls: Tls, control_plane: String) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let endpoint = listener.local_addr().expect("address").to_string();
        let (reports, queue) = mpsc::channel(64);
        let node = Arc::new(Self {
            script: Mutex::new(Script::Echo),
            starts: Mutex::default(),
            ends: watch::Sender::default(),
            admin: Mutex::default(),
            admin_answer: Mutex::default(),
            opens: Mutex::default(),
            knocks: watch::Sender::default(),
            decision: watch::Sender::default(),
            sessions: Mutex::default(),
            rooms: Mutex::default(),
            reports,
            server: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let server = Server::builder()
            .add_service(RoomHostServer::new(Service(Arc::clone(&node))))
            .serve_with_incoming_shutdown(
                tls.accept(TcpIncoming::from(listener)),
                node.stop.clone().cancelled_owned(),
            );
        let server = tokio::spawn(server);
        node.server
            .lock()
            .expect("lock")
            .replace(server.abort_handle());
        let channel = tls
            .connector("control-plane.plenum.internal")
            .expect("name")
            .connect(&plenum_shell::tls::endpoint(&control_plane).expect("endpoint"))
            .await
            .expect("connect");
        node.report(Report::Hello(NodeHello {
            uid: NODE_UID.into(),
            node_id: NODE_ID.into(),
            site: SITE.into(),
            epoch: 1,
            grpc_endpoint: endpoint,
            version: "test".into(),
            primary: true,
        }))
        .await;
        let mut orders = NodeControlClient::new(channel)
            .attach(ReceiverStream::new(queue))
            .await
            .expect("attach")
            .into_inner();
        let (alive, stop) = (Arc::clone(&node), node.stop.clone());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            alive.report(Report::EndOfRooms(true)).await;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    order = orders.message() => if !matches!(order, Ok(Some(_))) { return },
                    _ = tick.tick() => {
                        let rooms = alive.rooms.lock().expect("lock").len() as u32;
                        alive.report(Report::Load(NodeLoad { accepting: true, rooms, ..NodeLoad::default() })).await;
                    }
                }
            }
        });
        node
    }

    async fn report(&self, item: Report) {
        self.reports
            .send(NodeReport { item: Some(item) })
            .await
            .expect("attached");
    }

    /// The node dies: no report, no stream, no answer.
    pub(crate) fn die(&self) {
        self.stop.cancel();
        if let Some(server) = self.server.lock().expect("lock").take() {
            server.abort();
        }
        self.sessions.lock().expect("lock").clear();
    }

    /// All sessions' streams end without a word; the node lives.
    pub(crate) fn break_streams(&self) {
        self.sessions.lock().expect("lock").clear();
    }

    pub(crate) fn script(&self, script: Script) {
        *self.script.lock().expect("lock") = script;
    }

    pub(crate) fn answer_admin(&self, answer: AdminResponse) {
        *self.admin_answer.lock().expect("lock") = answer;
    }

    /// Decides for everybody who knocks.
    pub(crate) fn decide(&self, decision: knock_update::Item) {
        self.decision.send_replace(Some(decision));
    }

    /// Reports a room with changed facts.
    pub(crate) async fn change(
        &self,
        tenant: &str,
        name: &str,
        change: impl FnOnce(&mut RoomFacts),
    ) {
        let state = {
            let mut rooms = self.rooms.lock().expect("lock");
            let state = rooms
                .get_mut(&(tenant.to_owned(), name.to_owned()))
                .expect("the room was opened");
            change(state.facts.get_or_insert_default());
            state.clone()
        };
        self.report(Report::Room(state)).await;
    }

    /// Sends a message down every session.
    pub(crate) async fn send_down(&self, item: Down) {
        let sessions = self.sessions.lock().expect("lock").clone();
        for session in sessions {
            let _ = session
                .send(Ok(SessionDown {
                    item: Some(item.clone()),
                }))
                .await;
        }
    }

    pub(crate) fn last_start(&self) -> SessionStart {
        self.starts
            .lock()
            .expect("lock")
            .last()
            .expect("a session began")
            .clone()
    }
}

/// The first frame of every scripted session.
pub(crate) const FIRST: &[u8] = b"first frame, opaque to the gateway";

struct Service(Arc<Node>);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl RoomHost for Service {
    type SessionStream = Streamed<SessionDown>;
    type KnockStream = Streamed<KnockUpdate>;

    async fn session(
        &self,
        request: Request<Streaming<SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut up = request.into_inner();
        let Some(SessionUp {
            item: Some(Up::Start(start)),
        }) = up.message().await?
        else {
            return Err(Status::invalid_argument("start"));
        };
        let opener = start.opener;
        let key = start.key.clone().unwrap_or_default();
        self.0.starts.lock().expect("lock").push(start);
        let script = self.0.script.lock().expect("lock").clone();
        let (down, queue) = mpsc::channel(64);
        match script {
            Script::Refuse(reason, retry) => {
                let refused = SessionRefused {
                    reason: reason.into(),
                    message: format!("scripted {reason}"),
                    retry,
                };
                let _ = down
                    .send(Ok(SessionDown {
                        item: Some(Down::Refused(refused)),
                    }))
                    .await;
            }
            Script::Silent => self.0.sessions.lock().expect("lock").push(down),
            Script::Echo => {
                self.0.sessions.lock().expect("lock").push(down.clone());
                if opener {
                    self.0
                        .change(&key.tenant, &key.name, |facts| facts.opened = true)
                        .await;
                }
                let first = Frame {
                    kind: frame::Kind::Binary.into(),
                    data: FIRST.to_vec(),
                };
                let _ = down
                    .send(Ok(SessionDown {
                        item: Some(Down::Frame(first)),
                    }))
                    .await;
                let down = down.downgrade();
                let node = Arc::clone(&self.0);
                tokio::spawn(async move {
                    let mut clean = false;
                    while let Ok(Some(message)) = up.message().await {
                        match (message.item, down.upgrade()) {
                            (Some(Up::Frame(frame)), Some(down)) => {
                                let _ = down
                                    .send(Ok(SessionDown {
                                        item: Some(Down::Frame(frame)),
                                    }))
                                    .await;
                            }
                            (Some(Up::End(end)), _) => clean = end.clean,
                            _ => {}
                        }
                    }
                    node.ends.send_modify(|ends| ends.push(clean));
                });
            }
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenResponse>, Status> {
        let request = request.into_inner();
        self.0.opens.lock().expect("lock").push(request.clone());
        let key = request.key.clone().unwrap_or_default();
        let state = {
            let mut rooms = self.0.rooms.lock().expect("lock");
            let mut facts = request.facts.clone().unwrap_or_default();
            if facts.room_sid.is_empty() {
                facts.room_sid = format!("RM_{}", key.name);
            }
            let declared = request
                .policy
                .as_ref()
                .is_some_and(|policy| policy.declared);
            facts.opened |= !declared;
            let state = rooms
                .entry((key.tenant.clone(), key.name.clone()))
                .or_insert(RoomState {
                    key: Some(RoomKey { ..key }),
                    facts: Some(facts),
                    ..RoomState::default()
                });
            state.epoch = request.epoch;
            state.clone()
        };
        self.0.report(Report::Room(state.clone())).await;
        Ok(Response::new(OpenResponse {
            epoch: request.epoch,
            facts: state.facts,
        }))
    }

    async fn knock(
        &self,
        request: Request<KnockRequest>,
    ) -> Result<Response<Self::KnockStream>, Status> {
        let request = request.into_inner();
        self.0.knocks.send_modify(|knocks| knocks.push(request));
        let mut decided = self.0.decision.subscribe();
        let (updates, queue) = mpsc::channel(8);
        tokio::spawn(async move {
            let _ = updates
                .send(Ok(KnockUpdate {
                    item: Some(knock_update::Item::Position(1)),
                }))
                .await;
            let decision = decided
                .wait_for(Option::is_some)
                .await
                .map(|decision| decision.clone());
            if let Ok(decision) = decision {
                let _ = updates.send(Ok(KnockUpdate { item: decision })).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn admin(
        &self,
        request: Request<AdminRequest>,
    ) -> Result<Response<AdminResponse>, Status> {
        let request = request.into_inner();
        // The control plane repeats policies by itself, at its own times.
        if !matches!(request.call, Some(admin_request::Call::Policy(_))) {
            self.0.admin.lock().expect("lock").push(request);
        }
        Ok(Response::new(
            self.0.admin_answer.lock().expect("lock").clone(),
        ))
    }

    async fn export(
        &self,
        _request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}
