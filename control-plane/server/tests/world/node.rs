// SPDX-License-Identifier: EUPL-1.2
//! A scripted media node: a RoomHost that keeps rooms in a map, and a NodeControl stream that reports and obeys.

use std::collections::{BTreeMap, BTreeSet};
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
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use control_plane::identity::Tls;

use super::net::{Link, Switch};
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
    /// Replicas with a stream that stands, by their place in the list; the first of them is primary.
    attached: BTreeSet<usize>,
    /// Ended rooms, for a replica that becomes primary.
    closed: Vec<RoomClosed>,
    accepting: bool,
}

#[derive(Clone)]
struct Script {
    state: Arc<Mutex<State>>,
    /// For every stream that stands.
    reports: broadcast::Sender<NodeReport>,
    changed: Arc<watch::Sender<u64>>,
}

impl Script {
    fn new(rooms: BTreeMap<String, Room>) -> Self {
        let state = State {
            rooms,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            reports: broadcast::Sender::new(1_024),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    fn with<T>(&self, run: impl FnOnce(&mut State) -> T) -> T {
        let result = run(&mut self.state.lock().expect("no panic in the script"));
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// The first replica with a stream that stands writes the node's lease; one that is being attached counts itself.
    fn is_primary(&self, index: usize) -> bool {
        let state = self.state.lock().expect("no panic in the script");
        state.attached.iter().all(|other| *other >= index)
    }

    fn closed(&self) -> Vec<RoomClosed> {
        let state = self.state.lock().expect("no panic in the script");
        state.closed.clone()
    }

    fn say(&self, report: Report) {
        // Nobody may be attached.
        let _ = self.reports.send(NodeReport { item: Some(report) });
    }

    fn report(&self, name: &str) {
        let room = self.with(|state| state.rooms.get(name).cloned());
        if let Some(room) = room {
            self.say(room_state(name, &room));
        }
    }

    fn close(&self, name: &str, reason: &str) {
        let room = self.with(|state| state.rooms.remove(name));
        if let Some(room) = room {
            let closed = RoomClosed {
                key: key(name),
                epoch: room.epoch,
                reason: reason.into(),
            };
            self.with(|state| state.closed.push(closed.clone()));
            self.say(Report::Closed(closed));
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
        policy: (!room.policy.declared).then(|| room.policy.clone()),
        ..Default::default()
    })
}

/// A running node; dropping it is a crash: all its connections break at once.
pub struct Node {
    pub id: String,
    script: Script,
    tasks: JoinSet<()>,
    links: Vec<Link>,
    endpoint: String,
    ways: usize,
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
        let whole: Vec<_> = replicas
            .iter()
            .map(|replica| (*replica, Switch::default()))
            .collect();
        let ways: Vec<_> = whole
            .iter()
            .map(|(replica, switch)| (*replica, switch))
            .collect();
        Self::start_over(&ways, id, rooms, false).await
    }

    /// Starts a node that reaches every replica, and is reached by it, over a line that can fail.
    pub async fn start_behind(replicas: &[(&Replica, &Switch)], id: &str) -> Self {
        Self::start_over(replicas, id, BTreeMap::new(), true).await
    }

    async fn start_over(
        replicas: &[(&Replica, &Switch)],
        id: &str,
        rooms: BTreeMap<String, Room>,
        lines: bool,
    ) -> Self {
        let mut node = Self::listening(&replicas[0].0.ca, id, rooms).await;
        for (replica, switch) in replicas {
            node.go_to(replica, lines.then_some(*switch)).await;
        }
        node.attached_to_all().await;
        node
    }

    /// Its RoomHost listens; no replica is known yet.
    async fn listening(ca: &pki::Ca, id: &str, rooms: BTreeMap<String, Room>) -> Self {
        let tls = ca.node(&format!("u-{id}"));
        let script = Script::new(rooms);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let endpoint = listener.local_addr().expect("address").to_string();
        let mut tasks = JoinSet::new();
        let service = RoomHostServer::new(script.clone());
        let server = Server::builder().add_service(service);
        tasks.spawn(async move {
            server
                .serve_with_incoming(tls.accept(TcpIncoming::from(listener)))
                .await
                .expect("served");
        });
        Self {
            id: id.into(),
            script,
            tasks,
            links: Vec::new(),
            endpoint,
            ways: 0,
        }
    }

    /// As [`Self::start_behind`], without waiting for any replica: the lines may be held.
    pub async fn start_cut_off(replicas: &[(&Replica, &Switch)], id: &str) -> Self {
        let mut node = Self::listening(&replicas[0].0.ca, id, BTreeMap::new()).await;
        for (replica, switch) in replicas {
            node.go_to(replica, Some(*switch)).await;
        }
        node
    }

    /// Nothing: what is left of a node between its end and its next start.
    pub fn gone(id: &str) -> Self {
        Self {
            id: id.into(),
            script: Script::new(BTreeMap::new()),
            tasks: JoinSet::new(),
            links: Vec::new(),
            endpoint: String::new(),
            ways: 0,
        }
    }

    /// Learns of one more replica, reached over a line that can fail.
    pub async fn learn(&mut self, replica: &Replica, switch: &Switch) {
        self.go_to(replica, Some(switch)).await;
        self.attached_to_all().await;
    }

    async fn go_to(&mut self, replica: &Replica, switch: Option<&Switch>) {
        let uid = format!("u-{}", self.id);
        let mut way = Way {
            index: self.ways,
            replica: replica.address.clone(),
            endpoint: self.endpoint.clone(),
            tls: replica.ca.node(&uid),
        };
        if let Some(switch) = switch {
            let there = Link::to(&way.replica, switch).await;
            let back = Link::to(&way.endpoint, switch).await;
            way.replica = there.address.clone();
            way.endpoint = back.address.clone();
            self.links.extend([there, back]);
        }
        self.ways += 1;
        self.tasks
            .spawn(keep_attached(self.script.clone(), way, uid));
    }

    async fn attached_to_all(&self) {
        let all = async {
            let mut changed = self.script.changed.subscribe();
            while self.attached() < self.ways {
                changed.changed().await.expect("the script lives");
            }
        };
        tokio::time::timeout(super::LIVENESS, all)
            .await
            .expect("every replica takes it");
    }

    /// Replicas with a stream that stands.
    pub fn attached(&self) -> usize {
        let state = self.script.state.lock().expect("no panic in the script");
        state.attached.len()
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

    /// Rooms opened so far, those that were only confirmed left out.
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
        self.script.report(name);
    }

    /// Ends a room.
    pub async fn close(&self, name: &str, reason: &str) {
        self.script.close(name, reason);
    }

    /// Says anything.
    pub async fn say(&self, report: Report) {
        self.script.say(report);
    }
}

/// The way to one replica and back.
struct Way {
    index: usize,
    replica: String,
    endpoint: String,
    tls: Tls,
}

/// As a node does: one stream, dialled anew for as long as the process lives.
async fn keep_attached(script: Script, way: Way, uid: String) {
    loop {
        let _ = attach(&script, &way, &uid).await;
        script.with(|state| state.attached.remove(&way.index));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn attach(
    script: &Script,
    way: &Way,
    uid: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dial = pki::dial_with_keep_alive(&way.replica, &way.tls);
    let channel = tokio::time::timeout(Duration::from_secs(2), dial).await??;
    let (out, queue) = mpsc::channel(1_024);
    let mut reports = script.reports.subscribe();
    let mut changed = script.changed.subscribe();
    let mut hello = NodeHello {
        uid: uid.into(),
        grpc_endpoint: way.endpoint.clone(),
        version: "script".into(),
        primary: script.is_primary(way.index),
        ..Default::default()
    };
    let rooms = script.with(|state| state.rooms.clone());
    if !rooms.is_empty() {
        // A node that has rooms has facts.
        hello.node_id = hello.uid.trim_start_matches("u-").into();
        hello.site = "local".into();
        hello.epoch = 1;
    }
    let send = async |item: Report| out.send(NodeReport { item: Some(item) }).await;
    send(Report::Hello(hello.clone())).await?;
    let call = NodeControlClient::new(channel);
    let mut call = call;
    let call = call.attach(ReceiverStream::new(queue));
    let mut orders = tokio::time::timeout(Duration::from_secs(5), call)
        .await??
        .into_inner();
    script.with(|state| state.attached.insert(way.index));
    for (name, room) in &rooms {
        send(room_state(name, room)).await?;
    }
    send(Report::EndOfRooms(true)).await?;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        let primary = script.is_primary(way.index);
        if primary != hello.primary {
            hello.primary = primary;
            send(Report::Hello(hello.clone())).await?;
            if primary {
                for closed in script.closed() {
                    send(Report::Closed(closed)).await?;
                }
            }
        }
        tokio::select! {
            order = orders.message() => {
                let Some(order) = order? else { return Ok(()) };
                let Some(item) = order.item else { continue };
                script.with(|state| state.orders.push(item.clone()));
                match item {
                    Order::Facts(facts) => {
                        let before = hello.clone();
                        hello.node_id = facts.node_id;
                        hello.site = facts.site;
                        hello.epoch = facts.epoch;
                        script.with(|state| state.accepting = facts.accepting);
                        // As a real node does: what it has said already it does not say again.
                        if hello != before {
                            send(Report::Hello(hello.clone())).await?;
                        }
                        tick.reset_immediately();
                    }
                    Order::Drop(drop) => {
                        let name = drop.key.expect("named").name;
                        if script.with(|state| state.rooms.get(&name).is_some_and(|room| room.epoch < drop.epoch_below)) {
                            script.close(&name, "GivenUp");
                        }
                    }
                    _ => {}
                }
            }
            report = reports.recv() => out.send(report?).await?,
            _ = changed.changed() => {}
            _ = tick.tick() => {
                let load = script.state.lock().map(|state| NodeLoad {
                    accepting: state.accepting,
                    rooms: state.rooms.len() as u32,
                    participants: state.rooms.values().map(|room| room.participants).sum(),
                    ..Default::default()
                }).expect("no panic in the script");
                send(Report::Load(load)).await?;
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
            // Opened again under the same lease, it is only confirmed.
            if state
                .rooms
                .get(&name)
                .is_none_or(|known| known.epoch < request.epoch)
            {
                state.opens += 1;
                state.rooms.insert(name.clone(), room);
            }
        });
        self.report(&name);
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
            Some(admin_request::Call::End(true)) => self.close(&name, "Ended"),
            Some(admin_request::Call::Policy(policy)) => {
                self.with(|state| {
                    if let Some(room) = state.rooms.get_mut(&name) {
                        room.policy = policy;
                    }
                });
                self.report(&name);
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
