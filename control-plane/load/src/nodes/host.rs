// SPDX-License-Identifier: EUPL-1.2
//! `RoomHost` of all simulated nodes behind one listener.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use livekit_protocol::signal_response::Message as Signal;
use livekit_protocol::{JoinResponse, ParticipantInfo, ServerInfo, SignalResponse};
use plenum_proto::v1::room_host_server::{RoomHost, RoomHostServer};
use plenum_proto::v1::session_down::Item as Down;
use plenum_proto::v1::session_up::Item as Up;
use plenum_proto::v1::{
    AdminRequest, AdminResponse, ExportRequest, ExportResponse, Frame, KnockRequest, KnockUpdate,
    OpenRequest, OpenResponse, SessionDown, SessionStart, SessionUp, frame, knock_update,
};
use prost::Message as _;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::{Nodes, Room, index_of, uid};
use crate::pki::Pki;

/// A replica that has not finished its handshake by then is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that wait to be served.
const ACCEPTED: usize = 64;
/// Frames on their way down.
const DOWN: usize = 4;

/// The listener before it serves.
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
}

#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get(named(hello.server_name()?)?).cloned()
    }
}

fn named(server_name: &str) -> Option<usize> {
    index_of(server_name.split('.').next()?)
}

impl Listener {
    pub(super) async fn bind(pki: &Pki, count: usize) -> Result<Self> {
        let certificates = (0..count)
            .map(|index| pki.node_server(&uid(index)))
            .collect::<Result<Vec<_>>>()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(pki.verifier()?)
            .with_cert_resolver(Arc::new(ByName(certificates)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = TcpListener::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            address,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for as long as the process lives.
    pub(super) fn serve(self, nodes: Nodes) {
        let (accepted, queue) = mpsc::channel(ACCEPTED);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = self.socket.accept().await else {
                    // Out of descriptors; the loop must not spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (acceptor, accepted) = (self.acceptor.clone(), accepted.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await else {
                        return;
                    };
                    let Some(node) = stream.get_ref().1.server_name().and_then(named) else {
                        return;
                    };
                    let _ = accepted
                        .send(Ok::<_, std::io::Error>(Wire { stream, node }))
                        .await;
                });
            }
        });
        tokio::spawn(
            Server::builder()
                .add_service(RoomHostServer::new(Host(nodes)))
                .serve_with_incoming(ReceiverStream::new(queue)),
        );
    }
}

/// A connection to one node.
struct Wire {
    stream: TlsStream<TcpStream>,
    node: usize,
}

/// Which node a call is for.
#[derive(Clone, Copy)]
struct Called(usize);

impl Connected for Wire {
    type ConnectInfo = Called;

    fn connect_info(&self) -> Called {
        Called(self.node)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

struct Host(Nodes);

fn called<T>(request: &Request<T>) -> Result<usize, Status> {
    request
        .extensions()
        .get::<Called>()
        .map(|called| called.0)
        .ok_or_else(|| Status::internal("a connection without a node"))
}

#[tonic::async_trait]
impl RoomHost for Host {
    type SessionStream = ReceiverStream<Result<SessionDown, Status>>;
    type KnockStream = ReceiverStream<Result<KnockUpdate, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = called(&request)?;
        let mut up = request.into_inner();
        let Some(SessionUp {
            item: Some(Up::Start(start)),
        }) = up.message().await?
        else {
            return Err(Status::invalid_argument("a session begins with its start"));
        };
        let key = start.key.clone().unwrap_or_default();
        let Some(facts) = self.0.enter(node, &(key.tenant, key.name), start.epoch) else {
            return Err(Status::failed_precondition("the room does not run here"));
        };
        let (down, queue) = mpsc::channel(DOWN);
        let frame = SessionDown {
            item: Some(Down::Frame(first_frame(&start, &facts.room_sid))),
        };
        let _ = down.try_send(Ok(frame));
        tokio::spawn(async move {
            // The stream down lives as long as the one up.
            let _down = down;
            while let Ok(Some(_)) = up.message().await {}
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenResponse>, Status> {
        let node = called(&request)?;
        let request = request.into_inner();
        let key = request.key.unwrap_or_default();
        let mut facts = request.facts.unwrap_or_default();
        if facts.room_sid.is_empty() {
            facts.room_sid = format!("RM_{}", key.name);
        }
        facts.opened = true;
        facts.created_unix_ms = 1;
        let room = Room {
            epoch: request.epoch,
            participants: 0,
            facts,
            policy: request.policy.unwrap_or_default(),
        };
        let facts = self.0.open(node, &(key.tenant, key.name), room);
        Ok(Response::new(OpenResponse {
            epoch: request.epoch,
            facts: Some(facts),
        }))
    }

    async fn knock(
        &self,
        _request: Request<KnockRequest>,
    ) -> Result<Response<Self::KnockStream>, Status> {
        let (updates, queue) = mpsc::channel(1);
        let _ = updates.try_send(Ok(KnockUpdate {
            item: Some(knock_update::Item::Admitted(true)),
        }));
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn admin(
        &self,
        _request: Request<AdminRequest>,
    ) -> Result<Response<AdminResponse>, Status> {
        Ok(Response::new(AdminResponse::default()))
    }

    async fn export(
        &self,
        _request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        Err(Status::unimplemented("a simulated node exports nothing"))
    }
}

/// A join answer of the size that a room of a few people gives.
fn first_frame(start: &SessionStart, room_sid: &str) -> Frame {
    let participant = |identity: &str, sid: String| ParticipantInfo {
        sid,
        identity: identity.to_owned(),
        name: start.name.clone(),
        metadata: start.metadata.clone(),
        attributes: start.attributes.clone(),
        joined_at: 1,
        ..ParticipantInfo::default()
    };
    let other = |number: u32| {
        participant(
            &format!("{}-{number}", start.identity),
            format!("PA_here_n0_{number:016x}"),
        )
    };
    let response = SignalResponse {
        message: Some(Signal::Join(JoinResponse {
            room: Some(livekit_protocol::Room {
                sid: room_sid.to_owned(),
                name: start.key.clone().unwrap_or_default().name,
                num_participants: 3,
                ..livekit_protocol::Room::default()
            }),
            participant: Some(participant(
                &start.identity,
                "PA_here_n0_0123456789abcdef".to_owned(),
            )),
            other_participants: vec![other(1), other(2)],
            server_version: "1.9".to_owned(),
            subscriber_primary: true,
            ping_timeout: 15,
            ping_interval: 5,
            server_info: Some(ServerInfo {
                protocol: 16,
                version: "1.9".to_owned(),
                ..ServerInfo::default()
            }),
            ..JoinResponse::default()
        })),
    };
    Frame {
        kind: frame::Kind::Binary.into(),
        data: response.encode_to_vec(),
    }
}
