// SPDX-License-Identifier: EUPL-1.2
//! The control plane's side of the directory, kept in memory: takes every record and says that every node has registered, so that what
//! is measured is the operator alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _};
use plenum_proto::v1::{
    NodeState, Observation, ObserveRequest, Publication, PublicationAck, RecordKind,
    directory_server::{Directory, DirectoryServer},
    observation,
    publication::Item,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// Messages on their way to the operator.
const QUEUE: usize = 256;

/// What the operator published.
#[derive(Default)]
struct Heard {
    tenants: BTreeSet<String>,
    conferences: BTreeSet<String>,
    nodes: BTreeMap<String, NodeState>,
    /// Since the last stream began.
    snapshot: bool,
    observers: Vec<mpsc::UnboundedSender<NodeState>>,
}

/// Number of records of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Whether a whole snapshot is there.
    pub(crate) snapshot: bool,
    /// Tenants.
    pub(crate) tenants: usize,
    /// Conferences.
    pub(crate) conferences: usize,
    /// Nodes that take rooms.
    pub(crate) nodes: usize,
}

/// A directory that listens.
#[derive(Clone, Default)]
pub(crate) struct Listener(Arc<Mutex<Heard>>);

impl Listener {
    /// Serves with the certificate that the operator made for the control plane.
    pub(crate) async fn serve(
        &self,
        listener: TcpListener,
        [ca, cert, key]: [String; 3],
    ) -> Result<SocketAddr> {
        let address = listener.local_addr()?;
        let tls = ServerTlsConfig::new()
            .client_ca_root(Certificate::from_pem(ca))
            .identity(Identity::from_pem(cert, key));
        let server = Server::builder()
            .tls_config(tls)
            .context("the certificates can be used")?
            .add_service(DirectoryServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Ok(address)
    }

    /// What it has.
    pub(crate) fn counts(&self) -> Counts {
        let heard = self.heard();
        Counts {
            snapshot: heard.snapshot,
            tenants: heard.tenants.len(),
            conferences: heard.conferences.len(),
            nodes: heard.nodes.values().filter(|node| node.accepting).count(),
        }
    }

    /// Forgets everything, as a replica that was started anew.
    pub(crate) fn forget(&self) {
        let mut heard = self.heard();
        let observers = std::mem::take(&mut heard.observers);
        *heard = Heard {
            observers,
            ..Heard::default()
        };
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an item; the answer to it.
    fn take(&self, item: Item) -> PublicationAck {
        let mut heard = self.heard();
        let ack = |kind: RecordKind, uid: &str, revision: &str| PublicationAck {
            kind: kind.into(),
            uid: uid.to_owned(),
            revision: revision.to_owned(),
            ..PublicationAck::default()
        };
        match item {
            Item::Tenant(record) => {
                let answer = ack(RecordKind::Tenant, &record.uid, &record.revision);
                heard.tenants.insert(record.uid);
                answer
            }
            Item::Conference(record) => {
                let answer = ack(RecordKind::Conference, &record.uid, &record.revision);
                heard.conferences.insert(record.uid);
                answer
            }
            Item::Node(record) => {
                let answer = ack(RecordKind::Node, &record.uid, &record.revision);
                let state = NodeState {
                    uid: record.uid,
                    node_id: record.node_id,
                    registered: true,
                    accepting: record.accepting,
                    ..NodeState::default()
                };
                heard.set(state);
                answer
            }
            Item::Keep(_) => PublicationAck::default(),
            Item::Retract(retraction) => {
                let uid = retraction.uid;
                heard.tenants.remove(&uid);
                heard.conferences.remove(&uid);
                heard.nodes.remove(&uid);
                PublicationAck::default()
            }
            Item::EndOfSnapshot(_) => {
                heard.snapshot = true;
                PublicationAck {
                    snapshot_applied: true,
                    ..PublicationAck::default()
                }
            }
            Item::Accepting(order) => {
                if let Some(mut state) = heard.nodes.get(&order.node_uid).cloned() {
                    state.accepting = order.accepting;
                    heard.set(state);
                }
                PublicationAck::default()
            }
            Item::Move(_) => PublicationAck::default(),
        }
    }
}

impl Heard {
    fn set(&mut self, state: NodeState) {
        if self.nodes.get(&state.uid) != Some(&state) {
            self.observers
                .retain(|observer| observer.send(state.clone()).is_ok());
            self.nodes.insert(state.uid.clone(), state);
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Directory for Listener {
    type PublishStream = Answers<PublicationAck>;
    type ObserveStream = Answers<Observation>;

    async fn publish(
        &self,
        request: Request<Streaming<Publication>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let mut items = request.into_inner();
        let (answers, answered) = mpsc::channel(QUEUE);
        let own = self.clone();
        own.forget();
        tokio::spawn(async move {
            while let Ok(Some(publication)) = items.message().await {
                let Some(item) = publication.item else {
                    continue;
                };
                let answer = own.take(item);
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answered).boxed()))
    }

    async fn observe(
        &self,
        _: Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (observer, states) = mpsc::unbounded_channel();
        {
            let mut heard = self.heard();
            for state in heard.nodes.values() {
                let _ = observer.send(state.clone());
            }
            heard.observers.push(observer);
        }
        let says = |item| Ok(Observation { item: Some(item) });
        let end = futures::stream::iter([says(observation::Item::EndOfSnapshot(true))]);
        let states = UnboundedReceiverStream::new(states)
            .map(move |state| says(observation::Item::Node(state)));
        Ok(Response::new(end.chain(states).boxed()))
    }
}
