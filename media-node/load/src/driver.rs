// SPDX-License-Identifier: EUPL-1.2
//! A [`Headless`] client on real sockets: one UDP socket or one ICE-TCP connection per peer connection, signalling over channels.
//!
//! Whoever holds the other ends of the channels carries the messages: a WebSocket, a gRPC stream, a room in the same process.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use livekit_protocol as proto;
use media_core::api::Side;
use media_core::io::{DATAGRAM_BYTES_MAX, Protocol};
use media_core::time::Timestamp;
use media_crypto::DtlsError;
use media_net::frame::{self, Deframer};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep_until;

use crate::headless::{Headless, Options};

/// Receive buffer of a media socket: a client that shares a busy machine with many others must not lose what has arrived.
const RECEIVE_BYTES: usize = 4 << 20;

/// Why a driver cannot be made or go on.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A socket.
    #[error("a media socket failed")]
    Socket(#[from] io::Error),
    /// No certificate.
    #[error("cannot make a certificate")]
    Certificate(#[from] DtlsError),
}

/// The socket of one peer connection.
enum Link {
    Udp(UdpSocket),
    /// Connected with the first datagram.
    Tcp(Option<(TcpStream, Deframer)>),
}

impl Link {
    async fn bind(ip: IpAddr, protocol: Protocol) -> io::Result<(Self, SocketAddr)> {
        match protocol {
            Protocol::Udp => {
                let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).await?;
                // What the kernel gives is taken; root may go beyond its limit.
                if set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES).is_err() {
                    let _ = set_socket_recv_buffer_size(&socket, RECEIVE_BYTES);
                }
                let address = socket.local_addr()?;
                Ok((Self::Udp(socket), address))
            }
            Protocol::Tcp => Ok((Self::Tcp(None), SocketAddr::new(ip, 9))),
        }
    }

    async fn send(&mut self, remote: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => {
                socket.send_to(datagram, remote).await?;
            }
            Self::Tcp(connection) => {
                let (stream, _) = match connection {
                    Some(connection) => connection,
                    None => {
                        let stream = TcpStream::connect(remote).await?;
                        stream.set_nodelay(true)?;
                        connection.insert((stream, Deframer::new(DATAGRAM_BYTES_MAX)))
                    }
                };
                let Some(header) = frame::header(datagram) else {
                    return Ok(());
                };
                stream.write_all(&[&header, datagram].concat()).await?;
            }
        }
        Ok(())
    }

    /// Datagrams that arrived, at least one unless the connection ended. Safe to cancel.
    async fn receive(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut datagrams = Vec::new();
        match self {
            Self::Udp(socket) => {
                let mut buffer = [0; DATAGRAM_BYTES_MAX];
                let (length, _) = socket.recv_from(&mut buffer).await?;
                datagrams.push(buffer[..length].to_vec());
                while let Ok((length, _)) = socket.try_recv_from(&mut buffer) {
                    datagrams.push(buffer[..length].to_vec());
                }
            }
            Self::Tcp(None) => std::future::pending().await,
            Self::Tcp(Some((stream, deframer))) => {
                let mut buffer = [0; 16 * 1024];
                let length = stream.read(&mut buffer).await?;
                let sound = deframer.push(&buffer[..length], |datagram| {
                    datagrams.push(datagram.to_vec())
                });
                if length == 0 || sound.is_err() {
                    *self = Self::Tcp(None);
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        Ok(datagrams)
    }
}

/// Does the network say no to one datagram, and may say yes to the next?
fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, WouldBlock,
    };
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable | PermissionDenied | WouldBlock
    )
}

/// A client with its sockets.
pub struct Driver {
    client: Headless,
    started: Instant,
    publisher: Link,
    subscriber: Link,
    requests: mpsc::Sender<proto::SignalRequest>,
    responses: mpsc::Receiver<proto::SignalResponse>,
    /// Waits for room on the way out: signalling that hangs must not hold up media.
    held: Option<proto::SignalRequest>,
    signalling_ended: bool,
}

impl Driver {
    /// Binds two sockets on `ip`; requests go out on `requests`, responses come in on `responses`.
    ///
    /// # Errors
    /// [`DriveError`].
    pub async fn new(
        ip: IpAddr,
        protocol: Protocol,
        requests: mpsc::Sender<proto::SignalRequest>,
        responses: mpsc::Receiver<proto::SignalResponse>,
    ) -> Result<Self, DriveError> {
        Self::build(ip, protocol, requests, responses, false).await
    }

    /// As [`Self::new`], with received payloads as events, not only their counts.
    ///
    /// # Errors
    /// [`DriveError`].
    pub async fn with_payloads(
        ip: IpAddr,
        protocol: Protocol,
        requests: mpsc::Sender<proto::SignalRequest>,
        responses: mpsc::Receiver<proto::SignalResponse>,
    ) -> Result<Self, DriveError> {
        Self::build(ip, protocol, requests, responses, true).await
    }

    async fn build(
        ip: IpAddr,
        protocol: Protocol,
        requests: mpsc::Sender<proto::SignalRequest>,
        responses: mpsc::Receiver<proto::SignalResponse>,
        keep_media: bool,
    ) -> Result<Self, DriveError> {
        let (publisher, publisher_address) = Link::bind(ip, protocol).await?;
        let (subscriber, subscriber_address) = Link::bind(ip, protocol).await?;
        let client = Headless::with_certificate(Options {
            publisher_address,
            subscriber_address,
            protocol,
            keep_media,
        })?;
        Ok(Self {
            client,
            started: Instant::now(),
            publisher,
            subscriber,
            requests,
            responses,
            held: None,
            signalling_ended: false,
        })
    }

    /// The client.
    pub fn client(&mut self) -> &mut Headless {
        &mut self.client
    }

    /// New signalling after the old one broke, as for a resume.
    pub fn attach(
        &mut self,
        requests: mpsc::Sender<proto::SignalRequest>,
        responses: mpsc::Receiver<proto::SignalResponse>,
    ) {
        (self.requests, self.responses) = (requests, responses);
        self.held = None;
        self.signalling_ended = false;
    }

    /// Did the other end of the signalling go?
    #[must_use]
    pub fn signalling_ended(&self) -> bool {
        self.signalling_ended
    }

    /// The client's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000) + self.started.elapsed()
    }

    /// Waits for one thing to happen and lets the client answer it. Safe to cancel between what arrives and what is sent.
    ///
    /// # Errors
    /// [`DriveError::Socket`].
    pub async fn step(&mut self) -> Result<(), DriveError> {
        self.flush().await?;
        let deadline = self.client.poll_deadline().map(|at| {
            let from_now = at.since(self.now());
            tokio::time::Instant::now() + from_now
        });
        let timer = async {
            match deadline {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            response = self.responses.recv(), if !self.signalling_ended => match response {
                Some(response) => {
                    let now = self.now();
                    self.client.handle_signal(now, response);
                }
                None => self.signalling_ended = true,
            },
            datagrams = self.publisher.receive() => self.arrived(Side::Publisher, datagrams)?,
            datagrams = self.subscriber.receive() => self.arrived(Side::Subscriber, datagrams)?,
            () = timer => {
                let now = self.now();
                self.client.handle_timeout(now);
            }
        }
        self.flush().await
    }

    fn arrived(
        &mut self,
        side: Side,
        datagrams: io::Result<Vec<Vec<u8>>>,
    ) -> Result<(), DriveError> {
        let now = self.now();
        match datagrams {
            Ok(datagrams) => {
                for mut datagram in datagrams {
                    self.client.handle_datagram(now, side, &mut datagram);
                }
                Ok(())
            }
            Err(error) if passes(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what the client has to send.
    ///
    /// # Errors
    /// [`DriveError::Socket`].
    pub async fn flush(&mut self) -> Result<(), DriveError> {
        while let Some((side, path, datagram)) = self.client.poll_transmit() {
            let link = match side {
                Side::Publisher => &mut self.publisher,
                Side::Subscriber => &mut self.subscriber,
            };
            match link.send(path.remote, &datagram).await {
                // An answer to something sent before to a port that is closed by now, or a way that is cut: media are lost,
                // and consent tells the client.
                Err(error) if passes(&error) => {}
                sent => sent?,
            }
        }
        while let Some(request) = self.held.take().or_else(|| self.client.poll_request()) {
            match self.requests.try_send(request) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => self.signalling_ended = true,
                Err(TrySendError::Full(request)) => {
                    self.held = Some(request);
                    break;
                }
            }
        }
        Ok(())
    }
}
