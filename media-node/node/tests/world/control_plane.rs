// SPDX-License-Identifier: EUPL-1.2
//! One replica of a control plane: a real NodeControl service that writes down what nodes report and sends them orders.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use plenum_proto::v1::node_control_server::{NodeControl, NodeControlServer};
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::{Address, NodeFacts, NodeHello, NodeOrder, NodeReport};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::{Pki, Role, UID, eventually};

/// Facts as an operator would publish them, of a node on 127.0.0.1; port 0: the one it has bound.
pub(crate) fn facts(accepting: bool) -> NodeFacts {
    NodeFacts {
        uid: UID.into(),
        node_id: "n1".into(),
        site: "site-a".into(),
        pool: "default/pool".into(),
        jurisdiction: "DE".into(),
        epoch: 1,
        accepting,
        addresses: vec![address(([127, 0, 0, 1], 0).into())],
        revision: "1".into(),
        ..Default::default()
    }
}

/// Facts that name one address.
pub(crate) fn address(address: SocketAddr) -> Address {
    Address {
        ip: address.ip().to_string(),
        port: u32::from(address.port()),
    }
}

#[derive(Default)]
struct Log {
    /// Of the present stream.
    reports: Vec<Report>,
    streams: usize,
    orders: Option<mpsc::Sender<Result<NodeOrder, Status>>>,
}

#[derive(Clone)]
struct Service {
    log: Arc<Mutex<Log>>,
    /// Closed when the replica dies.
    alive: watch::Receiver<()>,
    facts: Option<NodeFacts>,
}

#[tonic::async_trait]
impl NodeControl for Service {
    type AttachStream = ReceiverStream<Result<NodeOrder, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        assert!(
            request.peer_certs().is_some(),
            "nodes come with a certificate"
        );
        let mut reports = request.into_inner();
        let Some(NodeReport {
            item: Some(Report::Hello(hello)),
        }) = reports.message().await?
        else {
            return Err(Status::invalid_argument(
                "the first report has to be the hello",
            ));
        };
        let (orders, queue) = mpsc::channel(16);
        if let Some(facts) = &self.facts {
            let _ = orders
                .send(Ok(NodeOrder {
                    item: Some(Order::Facts(facts.clone())),
                }))
                .await;
        }
        {
            let mut log = self.log.lock().expect("lock");
            log.reports = vec![Report::Hello(hello)];
            log.streams += 1;
            log.orders = Some(orders.clone());
        }
        let (log, mut alive) = (Arc::clone(&self.log), self.alive.clone());
        tokio::spawn(async move {
            loop {
                let report = tokio::select! {
                    report = reports.message() => report,
                    _ = alive.changed() => break,
                };
                let Ok(Some(report)) = report else { break };
                log.lock().expect("lock").reports.extend(report.item);
            }
            // A stream that ended gives no more orders.
            let mut log = log.lock().expect("lock");
            if log
                .orders
                .as_ref()
                .is_some_and(|current| current.same_channel(&orders))
            {
                log.orders = None;
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

pub(crate) struct ControlPlane {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    server: AbortHandle,
    _alive: watch::Sender<()>,
}

impl ControlPlane {
    /// On a free port. With facts, these go out first on each stream.
    pub(crate) async fn start(pki: &Pki, facts: Option<NodeFacts>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        Self::serve(pki, facts, listener)
    }

    fn serve(pki: &Pki, facts: Option<NodeFacts>, listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("address");
        let log = Arc::new(Mutex::new(Log::default()));
        let (living, alive) = watch::channel(());
        let service = Service {
            log: Arc::clone(&log),
            alive,
            facts,
        };
        let mut server = Server::builder()
            .tls_config(pki.server(Role::ControlPlane))
            .expect("tls");
        let serving = server
            .add_service(NodeControlServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move {
            let _ = serving.await;
        })
        .abort_handle();
        Self {
            address,
            log,
            server,
            _alive: living,
        }
    }

    /// The same address again, as after a restart.
    pub(crate) async fn restart(self, pki: &Pki, facts: Option<NodeFacts>) -> Self {
        let address = self.address;
        drop(self);
        loop {
            // The listener goes with its task, a moment later.
            match TcpListener::bind(address).await {
                Ok(listener) => return Self::serve(pki, facts, listener),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Reports of the present stream so far.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.log.lock().expect("lock").reports.clone()
    }

    /// Streams since the start.
    pub(crate) fn streams(&self) -> usize {
        self.log.lock().expect("lock").streams
    }

    /// Does a stream stand?
    pub(crate) fn attached(&self) -> bool {
        self.log.lock().expect("lock").orders.is_some()
    }

    /// The last hello.
    pub(crate) fn hello(&self) -> Option<NodeHello> {
        self.reports()
            .into_iter()
            .rev()
            .find_map(|report| match report {
                Report::Hello(hello) => Some(hello),
                _ => None,
            })
    }

    /// What the last load said.
    pub(crate) fn accepting(&self) -> Option<bool> {
        self.reports()
            .into_iter()
            .rev()
            .find_map(|report| match report {
                Report::Load(load) => Some(load.accepting),
                _ => None,
            })
    }

    pub(crate) async fn wait_accepting(&self) {
        eventually("the node accepts", async || self.accepting() == Some(true)).await;
    }

    pub(crate) async fn order(&self, order: Order) {
        let orders = self
            .log
            .lock()
            .expect("lock")
            .orders
            .clone()
            .expect("a stream stands");
        orders
            .send(Ok(NodeOrder { item: Some(order) }))
            .await
            .expect("the stream stands");
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.server.abort();
        // Connections are tasks of their own: ending the orders ends their streams.
        self.log.lock().expect("lock").orders = None;
    }
}
