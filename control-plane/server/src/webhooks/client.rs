// SPDX-License-Identifier: EUPL-1.2
//! Calls one receiver: TLS by its own or the system's CAs, no redirects, no address that is not allowed, nothing read for longer or more
//! than needed.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use control_core::webhook::{Network, may_call};
use futures::StreamExt;
use futures::future::BoxFuture;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time to resolve and connect; every address of the host together.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for a whole request, connecting included.
const REQUEST: Duration = Duration::from_secs(10);
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;
/// An answer's body is read up to here, so that the connection can be used again; nobody looks at it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Connections that wait for the next event.
const IDLE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    #[error("the URL is none")]
    Url,
    #[error("the certificates of the receiver's CA cannot be used")]
    Ca,
    #[error("the signing key is not among the tenant's keys")]
    NoKey,
    #[error("the host's name does not resolve")]
    Resolve,
    #[error(
        "the host's address {0} must not be called; an installation allows networks of its own with --webhook-network"
    )]
    Address(IpAddr),
    #[error("the host cannot be reached")]
    Connect,
    #[error("the host's certificate does not hold, or it speaks no TLS")]
    Tls,
    #[error("no answer within {} s", REQUEST.as_secs())]
    Timeout,
    #[error("what came is no HTTP answer")]
    Broken,
}

impl SendError {
    /// For logs and metrics.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Url => "Url",
            Self::Ca => "Ca",
            Self::NoKey => "NoKey",
            Self::Resolve => "Resolve",
            Self::Address(_) => "AddressNotAllowed",
            Self::Connect => "Connect",
            Self::Tls => "Tls",
            Self::Timeout => "Timeout",
            Self::Broken => "Broken",
        }
    }
}

/// What a receiver answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
}

/// The way to one receiver; cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    http: HttpClient<HttpsConnector<Dial>, Body>,
    url: Uri,
}

impl Client {
    pub(super) fn new(url: &str, ca_pem: &str, allowed: Arc<[Network]>) -> Result<Self, SendError> {
        let url: Uri = url.parse().map_err(|_| SendError::Url)?;
        if url.scheme_str() != Some("https") || url.host().is_none() {
            return Err(SendError::Url);
        }
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(ca_pem)?)
            .https_only()
            .enable_http1()
            .wrap_connector(Dial { allowed });
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(control_core::limits::WEBHOOK_CONCURRENT)
            .build(connector);
        Ok(Self { http, url })
    }

    /// Offers one event.
    pub(super) async fn post(
        &self,
        body: Vec<u8>,
        authorization: &str,
    ) -> Result<Answer, SendError> {
        let mut authorization =
            HeaderValue::from_str(authorization).map_err(|_| SendError::NoKey)?;
        authorization.set_sensitive(true);
        let request = Request::post(self.url.clone())
            .header(
                CONTENT_TYPE,
                HeaderValue::from_static("application/webhook+json"),
            )
            .header(AUTHORIZATION, authorization)
            .header(
                USER_AGENT,
                HeaderValue::from_static(concat!("plenum/", env!("CARGO_PKG_VERSION"))),
            )
            .body(Body::from(body))
            .map_err(|_| SendError::Url)?;
        match timeout(REQUEST, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::Timeout),
        }
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Answer, SendError> {
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error| cause(&error))?;
        let answer = Answer {
            status: response.status().as_u16(),
            retry_after: response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        };
        let mut body = Body::new(response.into_body()).into_data_stream();
        let mut read = 0;
        // The status has been said; a body that breaks off changes nothing.
        while let Some(Ok(data)) = body.next().await {
            read += data.len();
            if read > ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok(answer)
    }
}

/// Finds what is at the bottom of a client's error.
fn cause(error: &hyper_util::client::legacy::Error) -> SendError {
    let mut found = if error.is_connect() {
        SendError::Connect
    } else {
        SendError::Broken
    };
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<SendError>() {
            return own.clone();
        }
        if error.is::<rustls::Error>() {
            return SendError::Tls;
        }
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) => {
                if io.kind() == std::io::ErrorKind::InvalidData {
                    // As rustls wraps its own.
                    found = SendError::Tls;
                }
                io.get_ref().map(|inner| inner as &(dyn Error + 'static))
            }
            None => error.source(),
        };
    }
    found
}

/// The system's CAs are read once.
static SYSTEM: OnceLock<Result<ClientConfig, SendError>> = OnceLock::new();

fn tls(ca_pem: &str) -> Result<ClientConfig, SendError> {
    if ca_pem.is_empty() {
        return SYSTEM
            .get_or_init(|| {
                let builder = builder()?.with_native_roots().map_err(|_| SendError::Ca)?;
                Ok(builder.with_no_client_auth())
            })
            .clone();
    }
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|_| SendError::Ca)?;
        roots.add(certificate).map_err(|_| SendError::Ca)?;
    }
    if roots.is_empty() {
        return Err(SendError::Ca);
    }
    let builder = builder()?.with_root_certificates(roots);
    Ok(builder.with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, SendError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| SendError::Ca)
}

/// Connects to a host whose addresses may all be called. The address that was checked is the one that is dialled: a name that resolves to
/// something else a moment later changes nothing.
#[derive(Clone)]
struct Dial {
    allowed: Arc<[Network]>,
}

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = SendError;
    type Future = BoxFuture<'static, Result<Self::Response, SendError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            timeout(CONNECT, connect(&uri, &allowed))
                .await
                .unwrap_or(Err(SendError::Connect))
        })
    }
}

async fn connect(uri: &Uri, allowed: &[Network]) -> Result<TokioIo<TcpStream>, SendError> {
    let host = uri
        .host()
        .ok_or(SendError::Url)?
        .trim_matches(['[', ']'])
        .to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|_| SendError::Resolve)?
        .take(ADDRESSES_MAX)
        .collect();
    // A name that stands for a neighbour too is no host of the tenant's.
    if let Some(forbidden) = addresses
        .iter()
        .find(|address| !may_call(address.ip(), allowed))
    {
        return Err(SendError::Address(forbidden.ip()));
    }
    let mut result = Err(SendError::Resolve);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Events are small; waiting for more to send with them helps nobody.
                let _ = stream.set_nodelay(true);
                return Ok(TokioIo::new(stream));
            }
            Err(_) => result = Err(SendError::Connect),
        }
    }
    result
}
