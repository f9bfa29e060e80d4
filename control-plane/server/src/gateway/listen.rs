// SPDX-License-Identifier: EUPL-1.2
//! Sockets of the gateway: accept, TLS, bounds on what a connection may cost before it has said anything useful.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{HeaderValue, Uri};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use plenum_shell::probe;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::tls::TlsFiles;

/// Open connections of one process: 30,000 people with a WebSocket each, a third of them opening a second connection.
pub const CONNECTIONS_MAX: usize = 40_000;
/// A client that has not finished its TLS handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that has not sent a whole request head by then is dropped; idle connections too.
const HEAD: Duration = Duration::from_secs(10);
/// Longest request head: a token in the query is at most half of it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header lines of a request.
const HEADERS_MAX: usize = 100;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// After the order to stop, connections may finish what they are about.
pub(super) const FINISH: Duration = Duration::from_secs(5);

/// A client that connected just before the order to stop has this long for its request.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// Connections that the kernel keeps until they are accepted, of an address that several replicas share.
const BACKLOG: u32 = 1_024;

/// Descriptors that something else needs: streams to nodes, files, the other listeners.
const DESCRIPTORS_KEPT: u64 = 256;

/// Raises the soft limit of open files to the hard one; how many connections that allows.
pub(super) fn raise_descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without leave the present limit holds; then fewer connections are taken.
    let current = if setrlimit(Resource::Nofile, wanted).is_ok() {
        limit.maximum
    } else {
        limit.current
    };
    let connections = current.map_or(CONNECTIONS_MAX, |files| {
        usize::try_from(files.saturating_sub(DESCRIPTORS_KEPT)).unwrap_or(CONNECTIONS_MAX)
    });
    if connections < CONNECTIONS_MAX {
        tracing::warn!(
            event = "OpenFilesLimited",
            connections,
            "the limit of open files (ulimit -n) allows fewer connections than {CONNECTIONS_MAX}"
        );
    }
    connections.clamp(64, CONNECTIONS_MAX)
}

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    /// Who connected.
    pub peer: IpAddr,
    /// Does the listener take connections of this machine only?
    pub loopback: bool,
    /// Over TLS?
    pub tls: bool,
}

/// A listener is refused.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Plaintext on an address that others reach.
    #[error(
        "--http-listen {0} is not a loopback address: give --http-tls-dir, plaintext is for loopback only"
    )]
    Plaintext(SocketAddr),
    /// The socket.
    #[error("cannot listen on {address}")]
    Socket {
        /// Wanted address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// One bound address.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<TlsFiles>>,
}

/// An address that other replicas serve as well, held and not yet served: the kernel gives it no connection.
pub(super) struct Shared {
    socket: TcpSocket,
    address: SocketAddr,
    tls: Option<Arc<TlsFiles>>,
}

impl Shared {
    /// Binds `address` so that other replicas of the same user can bind it as well (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// [`ListenError`].
    pub(super) fn claim(
        address: SocketAddr,
        tls: Option<Arc<TlsFiles>>,
    ) -> Result<Self, ListenError> {
        if tls.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(ListenError::Plaintext(address));
        }
        let bound = || {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            // As std's listeners do: connections that wait for their end do not block the address.
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        let socket = bound().map_err(|source| ListenError::Socket { address, source })?;
        Ok(Self {
            socket,
            address,
            tls,
        })
    }

    /// Takes part from now on: each connection goes to one of those who listen.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(super) fn listen(self) -> Result<Listener, ListenError> {
        let address = self.address;
        let socket = self
            .socket
            .listen(BACKLOG)
            .map_err(|source| ListenError::Socket { address, source })?;
        Listener::of(socket, address, self.tls)
    }
}

impl Listener {
    /// Binds `address`; without `tls` on loopback only.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<TlsFiles>>,
    ) -> Result<Self, ListenError> {
        if tls.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(ListenError::Plaintext(address));
        }
        let failed = |source| ListenError::Socket { address, source };
        let socket = probe::bind(address).await.map_err(failed)?;
        Self::of(socket, address, tls)
    }

    fn of(
        socket: TcpListener,
        address: SocketAddr,
        tls: Option<Arc<TlsFiles>>,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Socket { address, source };
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self {
            socket,
            address,
            tls,
        })
    }

    /// The address as bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `stop`; returns when the connections have ended or had their time.
    pub async fn serve(self, router: Router, connections: Arc<Semaphore>, stop: CancellationToken) {
        let acceptor = self
            .tls
            .as_ref()
            .map(|tls| TlsAcceptor::from(tls.server_config()));
        let alive = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let loopback = self.address.ip().to_canonical().is_loopback();
        let socket = self.socket;
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = socket.accept() => accepted,
                // Only once nobody waits any more: whoever is in the queue when the socket closes is reset.
                () = stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors or a connection that died in the queue; the loop must not spin.
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
                tracing::debug!("connection refused: {CONNECTIONS_MAX} are open");
                continue;
            };
            let Ok(local_permit) = Arc::clone(&alive).try_acquire_owned() else {
                continue;
            };
            let via = Via {
                peer: peer.ip().to_canonical(),
                loopback,
                tls: acceptor.is_some(),
            };
            tokio::spawn(connection(
                stream,
                via,
                acceptor.clone(),
                router.clone(),
                stop.clone(),
                (permit, local_permit),
            ));
        }
        // Closed before waiting: the kernel gives new connections to replicas that share the address, or to nobody.
        drop(socket);
        // All permits back = all connections gone.
        let _ = timeout(FINISH, alive.acquire_many(CONNECTIONS_MAX as u32)).await;
    }
}

async fn connection(
    stream: TcpStream,
    via: Via,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) {
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => talk(stream, via, router, stop).await,
        Some(acceptor) => match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => talk(stream, via, router, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    via: Via,
    router: Router,
    stop: CancellationToken,
) {
    // Guards only what comes before the first request; what comes after, hyper bounds by itself.
    let asked = CancellationToken::new();
    let ask = asked.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        ask.cancel();
        let router = router.clone();
        async move {
            let mut request: Request = request.map(Body::new);
            collapse_slashes(request.uri_mut());
            name_host(&mut request);
            request.extensions_mut().insert(via);
            Ok::<_, Infallible>(
                router
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {}),
            )
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(HEAD)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let says_nothing = async {
        if timeout(HEAD, asked.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        done = connection.as_mut() => if let Err(error) = done { tracing::debug!(%error, "connection") },
        () = says_nothing => tracing::debug!("connection without a request"),
        () = stop.cancelled() => {
            // A shutdown before the first request would close a connection whose client is about to ask.
            let asks = timeout(LAST_REQUEST, asked.cancelled());
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = asks => {}
            }
            connection.as_mut().graceful_shutdown();
            let _ = timeout(FINISH, connection).await;
        }
    }
}

/// HTTP/2 says `:authority` where HTTP/1.1 says `Host`; everything behind reads the latter.
fn name_host(request: &mut Request) {
    if !request.headers().contains_key(HOST)
        && let Some(host) = request
            .uri()
            .authority()
            .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// `//rtc` is what clients make of a base URL with a slash at its end.
fn collapse_slashes(uri: &mut Uri) {
    let path = uri.path();
    if !path.starts_with("//") {
        return;
    }
    let collapsed = format!("/{}", path.trim_start_matches('/'));
    let target = match uri.query() {
        Some(query) => format!("{collapsed}?{query}"),
        None => collapsed,
    };
    if let Ok(target) = target.parse() {
        *uri = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_slashes_become_one() {
        for (given, expected) in [
            ("//rtc?a=1", "/rtc?a=1"),
            ("///rtc/validate", "/rtc/validate"),
            ("/a//b", "/a//b"),
            ("//", "/"),
            ("/", "/"),
        ] {
            // An origin-form target with two slashes parses as such, not as an authority.
            let mut uri = Uri::builder().path_and_query(given).build().expect("uri");
            collapse_slashes(&mut uri);
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn a_shared_address_is_served_by_all_and_by_who_is_left() {
        let claim = |address: SocketAddr| Shared::claim(address, None);
        let first = claim("127.0.0.1:0".parse().expect("address"))
            .and_then(Shared::listen)
            .expect("a shared address");
        let address = first.address();
        // One that is only held takes no connection from the others.
        let _held = claim(address).expect("the same address");
        let second = claim(address)
            .and_then(Shared::listen)
            .expect("the same address");
        assert!(
            Listener::bind(address, None).await.is_err(),
            "nobody takes it who does not share it"
        );
        let open = "0.0.0.0:0".parse().expect("address");
        assert!(matches!(claim(open), Err(ListenError::Plaintext(_))));
        let connections = Arc::new(Semaphore::new(1_000));
        let answer = |text: &'static str| {
            Router::new().route("/", axum::routing::get(move || async move { text }))
        };
        let stop = [CancellationToken::new(), CancellationToken::new()];
        let mut serving = Vec::new();
        for ((listener, name), stop) in [(first, "a"), (second, "b")].into_iter().zip(&stop) {
            serving.push(tokio::spawn(listener.serve(
                answer(name),
                Arc::clone(&connections),
                stop.clone(),
            )));
        }
        let ask = async || {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut stream = TcpStream::connect(address).await?;
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok::<_, std::io::Error>(text.chars().next_back().expect("a body"))
        };
        let ask = async || {
            // Who arrives between the last look into the queue and the end of the socket is reset by the kernel; clients try again.
            match ask().await {
                Ok(answer) => answer,
                Err(_) => ask().await.expect("an answer"),
            }
        };
        let mut seen = std::collections::BTreeSet::new();
        // 64 connections to one side only: once in 2^63 runs.
        for _ in 0..64 {
            seen.insert(ask().await);
        }
        assert_eq!(seen.into_iter().collect::<String>(), "ab");
        // While one stops, everybody is still answered.
        let stopping = stop[0].clone();
        for index in 0..200 {
            if index == 50 {
                stopping.cancel();
            }
            ask().await;
        }
        assert_eq!(ask().await, 'b');
        stop[1].cancel();
        for one in serving {
            one.await.expect("ends");
        }
    }

    #[tokio::test]
    async fn plaintext_is_for_loopback() {
        let open = "0.0.0.0:0".parse().expect("address");
        assert!(matches!(
            Listener::bind(open, None).await,
            Err(ListenError::Plaintext(_))
        ));
        for loopback in ["127.0.0.1:0", "[::ffff:127.0.0.1]:0"] {
            Listener::bind(loopback.parse().expect("address"), None)
                .await
                .expect("loopback");
        }
    }
}
