// SPDX-License-Identifier: EUPL-1.2
//! Channels to the RoomHost services of media nodes: only nodes of the live view are dialled, and the certificate must name the node.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control_core::ids::{NodeId, Site, Uid};
use control_core::lease::Dialled;
use plenum_proto::v1::room_host_client::RoomHostClient;
use plenum_proto::v1::{
    AdminRequest, AdminResponse, KnockRequest, KnockUpdate, OpenRequest, OpenResponse, SessionDown,
    SessionStart,
};
use plenum_shell::tls::{self, Connector};
use plenum_shell::trace;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tracing::{Instrument, Span};

use crate::config::is_endpoint;
use crate::identity::{Tls, node_dns};

mod lean;

pub use lean::SessionSays;

/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// Time that a silent node has to answer a handshake.
const REDIAL: Duration = Duration::from_millis(750);
/// An answer to a call that is no stream.
const CALL: Duration = Duration::from_secs(5);
/// Metadata in which a node names its refusal.
const REASON: &str = "plenum-reason";
/// Largest message: a list of the participants of a full room.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a node did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HostError {
    /// It cannot be reached.
    #[error("media node {node} cannot be reached")]
    Unreachable {
        /// The node.
        node: NodeId,
    },
    /// It did not answer in time.
    #[error("media node {node} did not answer within {} s", CALL.as_secs())]
    Late {
        /// The node.
        node: NodeId,
    },
    /// It takes no (further) rooms.
    #[error("media node {node} takes no rooms: {message}")]
    NotAccepting {
        /// The node.
        node: NodeId,
        /// In its words.
        message: String,
    },
    /// The room is not there, or under another epoch.
    #[error("the room is not on media node {node}: {message}")]
    WrongRoom {
        /// The node.
        node: NodeId,
        /// In its words.
        message: String,
    },
    /// It refused for another reason.
    #[error("media node {node} refused ({code:?}): {message}")]
    Refused {
        /// The node.
        node: NodeId,
        /// gRPC code.
        code: Code,
        /// In its words.
        message: String,
    },
}

impl HostError {
    fn of(node: &NodeId, status: &Status) -> Self {
        let node = node.clone();
        let message: String = status.message().chars().take(200).collect();
        // A node names its refusals; what comes without a name is the transport's.
        let reason = status
            .metadata()
            .get(REASON)
            .and_then(|reason| reason.to_str().ok());
        match (reason, status.code()) {
            (Some("NoFacts" | "NoAddress" | "NotAccepting" | "NodeFull"), _)
            | (_, Code::ResourceExhausted) => Self::NotAccepting { node, message },
            (Some("Unknown" | "WrongEpoch" | "StaleEpoch"), _)
            | (_, Code::NotFound | Code::FailedPrecondition | Code::Aborted) => {
                Self::WrongRoom { node, message }
            }
            (None, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal) => {
                Self::Unreachable { node }
            }
            (_, Code::DeadlineExceeded) => Self::Late { node },
            (_, code) => Self::Refused {
                node,
                code,
                message,
            },
        }
    }

    /// HTTP status: what a node cannot do at the moment may pass.
    #[must_use]
    pub const fn status(&self) -> u16 {
        503
    }

    /// Seconds after which trying again makes sense.
    #[must_use]
    pub const fn retry_after_s(&self) -> u32 {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } | Self::WrongRoom { .. } => 1,
            Self::NotAccepting { .. } | Self::Refused { .. } => 5,
        }
    }

    /// CamelCase reason and metric label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "NodeUnreachable",
            Self::Late { .. } => "NodeLate",
            Self::NotAccepting { .. } => "NodeNotAccepting",
            Self::WrongRoom { .. } => "NodeHasNotTheRoom",
            Self::Refused { .. } => "NodeRefused",
        }
    }
}

/// The RoomHost of one node.
#[derive(Clone)]
pub struct Host {
    uid: Uid,
    site: Site,
    node_id: NodeId,
    client: RoomHostClient<Channel>,
    sessions: Grpc<Channel>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Uid of the node.
    #[must_use]
    pub fn uid(&self) -> &Uid {
        &self.uid
    }

    /// Its site.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Its short id.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    /// Attaches one participant's signalling.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn session(
        &self,
        start: SessionStart,
        says: mpsc::Receiver<SessionSays>,
    ) -> Result<Streaming<SessionDown>, HostError> {
        let span = self.span("session");
        let call = async { lean::session(&mut self.sessions.clone(), start, says).await };
        self.within(call).instrument(span).await
    }

    /// Opens or confirms a room.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn open(&self, request: OpenRequest) -> Result<OpenResponse, HostError> {
        let span = self.span("open");
        let call = async { self.client.clone().open(traced(request)).await };
        self.within(call).instrument(span).await
    }

    /// Administers a room.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn admin(&self, request: AdminRequest) -> Result<AdminResponse, HostError> {
        let span = self.span("admin");
        let call = async { self.client.clone().admin(traced(request)).await };
        self.within(call).instrument(span).await
    }

    /// Knocks at the door of an open room.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn knock(&self, request: KnockRequest) -> Result<Streaming<KnockUpdate>, HostError> {
        let span = self.span("knock");
        let call = async { self.client.clone().knock(traced(request)).await };
        self.within(call).instrument(span).await
    }

    fn span(&self, call: &'static str) -> Span {
        tracing::debug_span!("roomhost.call", call, node = %self.node_id)
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, HostError> {
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(HostError::of(&self.node_id, &status)),
            Err(_) => Err(HostError::Late {
                node: self.node_id.clone(),
            }),
        }
    }
}

/// A call that carries the trace of whoever makes it.
fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    trace::send(request.metadata_mut());
    request
}

struct Open {
    endpoint: String,
    host: Host,
}

/// One channel per node, made when first needed and dropped with the node.
pub struct Hosts {
    tls: Tls,
    open: Mutex<HashMap<Uid, Open>>,
}

impl Hosts {
    /// No channel yet.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self {
            tls,
            open: Mutex::default(),
        }
    }

    /// The host of a node of the live view. The channel connects when it is used, and again when it broke.
    #[must_use]
    pub fn host(&self, uid: &Uid, site: &Site, node_id: &NodeId, endpoint: &str) -> Option<Host> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(uid)
            && known.endpoint == endpoint
            && known.host.node_id == *node_id
            && known.host.site == *site
        {
            return Some(known.host.clone());
        }
        let (connector, address) = self.endpoint(uid, endpoint)?;
        let channel = connector.connect_lazy(&address);
        let sessions = Grpc::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let client = RoomHostClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let host = Host {
            uid: uid.clone(),
            site: site.clone(),
            node_id: node_id.clone(),
            client,
            sessions,
        };
        open.insert(
            uid.clone(),
            Open {
                endpoint: endpoint.to_owned(),
                host: host.clone(),
            },
        );
        Some(host)
    }

    /// Drops the channel of a node that is gone.
    pub fn forget(&self, uid: &Uid) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }

    /// Dials a node anew, as a witness of its life: does it answer the handshake as itself?
    pub async fn redial(&self, uid: &Uid, endpoint: &str) -> Dialled {
        let Some((connector, address)) = self.endpoint(uid, endpoint) else {
            return Dialled::Unanswered;
        };
        let refused = async {
            match tokio::time::timeout(REDIAL, TcpStream::connect(endpoint)).await {
                Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
                _ => false,
            }
        };
        match tokio::time::timeout(REDIAL, connector.connect(&address)).await {
            Ok(Ok(_)) => Dialled::Answered,
            // Whether it was refused does not come through the layers above.
            Ok(Err(_)) if refused.await => Dialled::Refused,
            _ => Dialled::Unanswered,
        }
    }

    fn endpoint(&self, uid: &Uid, endpoint: &str) -> Option<(Connector, Endpoint)> {
        if !is_endpoint(endpoint) {
            return None;
        }
        let connector = self.tls.connector(&node_dns(uid)).ok()?;
        let endpoint = tls::endpoint(endpoint)
            .ok()?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        Some((connector, endpoint))
    }
}

/// Shared by everything that dials.
pub type SharedHosts = Arc<Hosts>;
