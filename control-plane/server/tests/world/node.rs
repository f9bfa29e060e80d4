// SPDX-License-Identifier: EUPL-1.2
//! A scripted media node: a RoomHost that keeps rooms in a map, and a NodeControl stream that reports and obeys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plenum_proto::v1::node_control_client::NodeControlClient;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::room_host_server::{RoomHost, RoomHostServer};
use plenum_proto::v1::{
    AdminRequest, AdminResponse, ExportRequest, ExportResponse, KnockRequest, KnockUpdate,
    NodeHello, NodeLoad, NodeReport, OpenRequest, OpenResponse, RoomClosed, RoomFacts, RoomKey,
    RoomPolicy, RoomState, SessionDown, SessionUp, admin_request, session_down, session_up,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::{Replica, pki};

/// A room of the script.
#[derive(Clone, Debug, Default)]
pub struct Room {
    pub epoch: u64,
    pub participants: u32,
    pub facts: RoomFacts,
    pub policy: RoomPolicy,
}

#[derive(Default)]
struct State {
    rooms: BTreeMap<String, Room>,
    orders: Vec<Order>,
    opens: u32,
    admin: Vec<AdminRequest>,
    refuse_open: bool,
    refused: u32,
}

#[derive(Clone)]
struct Script {
    state: Arc<Mutex<State>>,
    /// One per replica.
    reports: Vec<mpsc::Sender<NodeReport>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Script {
    fn with<T>(&self, run: impl FnOnce(&mut State) -> T) -> T {
        let result = run(&mut self.state.lock().expect("no panic in the script"));
        self.changed.send_modify(|version| *version += 1);
        result
    }

    async fn say(&self, report: Report) {
        for replica in &self.reports {
            // The stream may be over.
            let _ = replica
                .send(NodeReport {
                    item: Some(report.clone()),
                })
                .await;
        }
    }

    async fn report(&self, name: &str) {
        let room = self.with(|state| state.rooms.get(name).cloned());
        if let Some(room) = room {
            self.say(room_state(name, &room)).await;
        }
    }

    async fn close(&self, name: &str, reason: &str) {
        let room = self.with(|state| state.rooms.remove(name));
        if let Some(room) = room {
            self.say(Report::Closed(RoomClosed {
                key: key(name),
                epoch: room.epoch,
                reason: reason.into(),
            }))
            .await;
        }
    }
}

fn key(name: &str) -> Option<RoomKey> {
    Some(RoomKey {
        tenant: "school".into(),
        name: name.into(),
    })
}

fn room_state(name: &str, room: &Room) -> Report {
    Report::Room(RoomState {
        key: key(name),
        epoch: room.epoch,
        participants: room.participants,
        facts: Some(room.facts.clone()),
        policy_revision: room.policy.revision.clone(),
        ..Default::default()
    })
}

/// A running node; dropping it is a crash: all its connections break at once.
pub struct Node {
    pub id: String,
    script: Script,
    _tasks: JoinSet<()>,
}

impl Node {
    /// Starts a node whose process has no memory.
    pub async fn start(replica: &Replica, id: &str) -> Self {
        Self::start_with(replica, id, BTreeMap::new()).await
    }

    /// Starts a node that has rooms already, as one does that was cut off from the replica.
    pub async fn start_with(replica: &Replica, id: &str, rooms: BTreeMap<String, Room>) -> Self {
        Self::start_at(&[replica], id, rooms).await
    }

    /// Starts a node that attaches to every replica.
    pub async fn start_at(replicas: &[&Replica], id: &str, rooms: BTreeMap<String, Room>) -> Self {
        let uid = format!("u-{id}");
        let tls = replicas[0].ca.node(&uid);
        let (reports, queues): (Vec<_>, Vec<_>) =
            replicas.iter().map(|_| mpsc::channel(1_024)).unzip();
        let state = State {
            rooms,
            ..State::default()
        };
        let script = Script {
            state: Arc::new(Mutex::new(state)),
            reports,
            changed: Arc::new(watch::Sender::new(0)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let endpoint = listener.local_addr().expect("address").to_string();
        let mut tasks = JoinSet::new();
        let service = RoomHostServer::new(script.clone());
        let server = Server::builder()
            .tls_config(tls.server())
            .expect("certificates")
            .add_service(service);
        tasks.spawn(async move {
            server
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .expect("served");
        });
        for (replica, queue) in replicas.iter().zip(queues) {
            let channel = pki::dial(&replica.address, &tls).await.expect("dialled");
            tasks.spawn(attach(
                script.clone(),
                channel,
                uid.clone(),
                endpoint.clone(),
                queue,
            ));
        }
        Self {
            id: id.into(),
            script,
            _tasks: tasks,
        }
    }

    /// Waits until the script's state says so.
    pub async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&BTreeMap<String, Room>, &[Order]) -> Option<T>,
    ) -> T {
        let mut changed = self.script.changed.subscribe();
        let found = async {
            loop {
                let (rooms, orders) = {
                    let state = self.script.state.lock().expect("no panic in the script");
                    (state.rooms.clone(), state.orders.clone())
                };
                let found = look(&rooms, &orders);
                if let Some(found) = found {
                    return found;
                }
                changed.changed().await.expect("the script lives");
            }
        };
        tokio::time::timeout(super::LIVENESS, found)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"))
    }

    pub fn room(&self, name: &str) -> Option<Room> {
        self.script.with(|state| state.rooms.get(name).cloned())
    }

    pub fn opens(&self) -> u32 {
        self.script.with(|state| state.opens)
    }

    pub fn refused(&self) -> u32 {
        self.script
            .state
            .lock()
            .expect("no panic in the script")
            .refused
    }

    pub fn admin(&self) -> Vec<AdminRequest> {
        self.script.with(|state| state.admin.clone())
    }

    pub fn refuse_open(&self, refuse: bool) {
        self.script.with(|state| state.refuse_open = refuse);
    }

    /// Changes a room and reports it.
    pub async fn change(&self, name: &str, change: impl FnOnce(&mut Room)) {
        self.script
            .with(|state| change(state.rooms.get_mut(name).expect("runs here")));
        self.script.report(name).await;
    }

    /// Ends a room.
    pub async fn close(&self, name: &str, reason: &str) {
        self.script.close(name, reason).await;
    }

    /// Says anything.
    pub async fn say(&self, report: Report) {
        self.script.say(report).await;
    }
}

async fn attach(
    script: Script,
    channel: tonic::transport::Channel,
    uid: String,
    endpoint: String,
    mut reports: mpsc::Receiver<NodeReport>,
) {
    let (out, queue) = mpsc::channel(1_024);
    let mut hello = NodeHello {
        uid,
        grpc_endpoint: endpoint,
        version: "script".into(),
        primary: true,
        ..Default::default()
    };
    let rooms = script.with(|state| state.rooms.clone());
    if !rooms.is_empty() {
        // A node that has rooms has facts.
        hello.node_id = hello.uid.trim_start_matches("u-").into();
        hello.site = "local".into();
        hello.epoch = 1;
    }
    let send = async |item: Report| drop(out.send(NodeReport { item: Some(item) }).await);
    send(Report::Hello(hello.clone())).await;
    let mut orders = match NodeControlClient::new(channel)
        .attach(ReceiverStream::new(queue))
        .await
    {
        Ok(orders) => orders.into_inner(),
        Err(status) => panic!("not attached: {status}"),
    };
    for (name, room) in &rooms {
        send(room_state(name, room)).await;
    }
    send(Report::EndOfRooms(true)).await;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut accepting = false;
    loop {
        tokio::select! {
            order = orders.message() => {
                let Ok(Some(order)) = order else { return };
                let Some(item) = order.item else { continue };
                script.with(|state| state.orders.push(item.clone()));
                match item {
                    Order::Facts(facts) => {
                        hello.node_id = facts.node_id;
                        hello.site = facts.site;
                        hello.epoch = facts.epoch;
                        accepting = facts.accepting;
                        send(Report::Hello(hello.clone())).await;
                        tick.reset_immediately();
                    }
                    Order::Drop(drop) => {
                        let name = drop.key.expect("named").name;
                        if script.with(|state| state.rooms.get(&name).is_some_and(|room| room.epoch < drop.epoch_below)) {
                            script.close(&name, "GivenUp").await;
                        }
                    }
                    _ => {}
                }
            }
            Some(report) = reports.recv() => if out.send(report).await.is_err() { return },
            _ = tick.tick() => {
                let (rooms, participants) = script.state.lock().map(|state| {
                    (state.rooms.len() as u32, state.rooms.values().map(|room| room.participants).sum())
                }).expect("no panic in the script");
                send(Report::Load(NodeLoad { accepting, rooms, participants, ..Default::default() })).await;
            }
        }
    }
}

#[tonic::async_trait]
impl RoomHost for Script {
    type SessionStream = ReceiverStream<Result<SessionDown, Status>>;
    type KnockStream = ReceiverStream<Result<KnockUpdate, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut up = request.into_inner();
        let (sender, down) = mpsc::channel(16);
        tokio::spawn(async move {
            // Echo: what comes up as a frame goes down as one.
            while let Ok(Some(message)) = up.message().await {
                if let Some(session_up::Item::Frame(frame)) = message.item {
                    let _ = sender
                        .send(Ok(SessionDown {
                            item: Some(session_down::Item::Frame(frame)),
                        }))
                        .await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(down)))
    }

    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenResponse>, Status> {
        let request = request.into_inner();
        let name = request.key.expect("named").name;
        let refuse = self.with(|state| {
            state.refused += u32::from(state.refuse_open);
            state.refuse_open
        });
        if refuse {
            return Err(Status::resource_exhausted("full"));
        }
        let mut facts = request.facts.unwrap_or_default();
        if facts.room_sid.is_empty() {
            facts.room_sid = format!("RM_{name}");
        }
        let room = Room {
            epoch: request.epoch,
            participants: 0,
            facts: facts.clone(),
            policy: request.policy.unwrap_or_default(),
        };
        self.with(|state| {
            state.opens += 1;
            let known = state
                .rooms
                .entry(name.clone())
                .or_insert_with(|| room.clone());
            if known.epoch < request.epoch {
                *known = room;
            }
        });
        self.report(&name).await;
        Ok(Response::new(OpenResponse {
            epoch: request.epoch,
            facts: Some(facts),
        }))
    }

    async fn knock(
        &self,
        _request: Request<KnockRequest>,
    ) -> Result<Response<Self::KnockStream>, Status> {
        let (_, down) = mpsc::channel(1);
        Ok(Response::new(ReceiverStream::new(down)))
    }

    async fn admin(
        &self,
        request: Request<AdminRequest>,
    ) -> Result<Response<AdminResponse>, Status> {
        let request = request.into_inner();
        let name = request.key.clone().expect("named").name;
        self.with(|state| state.admin.push(request.clone()));
        match request.call {
            Some(admin_request::Call::End(true)) => self.close(&name, "Ended").await,
            Some(admin_request::Call::Policy(policy)) => {
                self.with(|state| {
                    if let Some(room) = state.rooms.get_mut(&name) {
                        room.policy = policy;
                    }
                });
                self.report(&name).await;
            }
            _ => {}
        }
        Ok(Response::new(AdminResponse::default()))
    }

    async fn export(
        &self,
        _request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        Ok(Response::new(ExportResponse {
            refused: true,
            ..Default::default()
        }))
    }
}
