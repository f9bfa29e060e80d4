// SPDX-License-Identifier: EUPL-1.2
//! The certificates of a process, both ends: read from `--tls-dir`, and again when the files change. What is connected stays so;
//! whoever connects later sees the new certificate and the new authorities.
//!
//! tonic takes its own configuration once and for all, so the handshakes are done here: [`Tls::accept`] turns connections into ones
//! that have shown a certificate, [`Tls::connector`] dials.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

/// Time for a TLS handshake: whoever does not finish it holds a connection no longer.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes of one listener at a time; whoever comes then waits in the kernel.
const HANDSHAKES_MAX: usize = 512;
/// A renewed certificate is in use after this time at the latest.
const LOOK: Duration = Duration::from_secs(5);
/// Files longer than this are no certificates.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// What gRPC speaks.
const HTTP2: &[u8] = b"h2";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of `--tls-dir` cannot be read.
    #[error("cannot read {}; --tls-dir needs ca.crt, tls.crt and tls.key", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too long.
    #[error("{} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file holds something else.
    #[error("{} holds no {what} in PEM", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// The three do not fit together, or are of a kind that is not known.
    #[error("ca.crt, tls.crt and tls.key of --tls-dir cannot be used together")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No name that a certificate could carry.
    #[error("{0:?} is no DNS name")]
    Name(String),
}

impl TlsError {
    fn unusable(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unusable(Box::new(source))
    }
}

/// The files as they were read.
#[derive(PartialEq, Eq)]
struct Files {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(directory: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = directory.join(name);
            let failed = |source| TlsError::Read {
                path: path.clone(),
                source,
            };
            if std::fs::metadata(&path).map_err(failed)?.len() > FILE_BYTES_MAX {
                return Err(TlsError::TooLong { path });
            }
            std::fs::read(&path).map_err(failed)
        };
        Ok(Self {
            ca: read("ca.crt")?,
            certificate: read("tls.crt")?,
            key: read("tls.key")?,
        })
    }
}

/// What the next handshake uses.
struct Current {
    files: Files,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Current {
    fn of(files: Files, directory: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = certificates(&files.certificate, directory, "tls.crt")?;
        let key = || {
            PrivateKeyDer::from_pem_slice(&files.key).map_err(|_| TlsError::NotPem {
                path: directory.join("tls.key"),
                what: "private key",
            })
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.ca, directory, "ca.crt")? {
            roots.add(authority).map_err(TlsError::unusable)?;
        }
        let roots = Arc::new(roots);
        let server = server_config(&provider, &roots, chain.clone(), key()?)?;
        let client = client_config(&provider, &roots, chain, key()?)?;
        Ok(Self {
            files,
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

fn certificates(
    pem: &[u8],
    directory: &Path,
    name: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::NotPem {
            path: directory.join(name),
            what: "certificate",
        })
}

/// Whoever has no certificate of the authorities does not get through the handshake.
fn server_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(TlsError::unusable)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::unusable)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(TlsError::unusable)?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::unusable)?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::unusable)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

struct Inner {
    /// `None`: from memory, never read again.
    directory: Option<PathBuf>,
    current: RwLock<Current>,
}

/// Certificates of this process; clones share what is in use.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("directory", &self.0.directory)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads `ca.crt`, `tls.crt` and `tls.key`.
    ///
    /// # Errors
    /// [`TlsError`] with the file.
    pub fn read(directory: &Path) -> Result<Self, TlsError> {
        let current = Current::of(Files::read(directory)?, directory)?;
        Ok(Self::of(Some(directory.to_owned()), current))
    }

    /// From PEM in memory.
    ///
    /// # Errors
    /// [`TlsError`] with the file that would hold the part.
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Self, TlsError> {
        let files = Files {
            ca: ca.into(),
            certificate: certificate.into(),
            key: key.into(),
        };
        Ok(Self::of(None, Current::of(files, Path::new(""))?))
    }

    /// Uses other PEM from the next handshake on. What cannot be used leaves the former in use.
    ///
    /// # Errors
    /// [`TlsError`] with the file that would hold the part.
    pub fn replace(&self, ca: &str, certificate: &str, key: &str) -> Result<(), TlsError> {
        let next = Self::from_pem(ca, certificate, key)?;
        let next = Arc::into_inner(next.0).map(|inner| inner.current.into_inner());
        if let Some(next) = next {
            *self
                .0
                .current
                .write()
                .unwrap_or_else(PoisonError::into_inner) =
                next.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    fn of(directory: Option<PathBuf>, current: Current) -> Self {
        Self(Arc::new(Inner {
            directory,
            current: RwLock::new(current),
        }))
    }

    /// Reads the files again; true when they have changed. What cannot be used leaves the former ones in use.
    ///
    /// # Errors
    /// [`TlsError`] with the file.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(directory) = &self.0.directory else {
            return Ok(false);
        };
        let files = Files::read(directory)?;
        let same = |current: &Current| current.files == files;
        if same(
            &self
                .0
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        ) {
            return Ok(false);
        }
        let next = Current::of(files, directory)?;
        *self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner) = next;
        Ok(true)
    }

    /// Looks at the files every few seconds.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch {
            tls: self.clone(),
            complained: false,
        }
    }

    /// Server side: connections of `incoming` that got through the handshake, each with a time limit and at most
    /// [`HANDSHAKES_MAX`] of them at once.
    pub fn accept<IO, S>(
        &self,
        incoming: S,
    ) -> impl Stream<Item = io::Result<server::TlsStream<IO>>> + use<IO, S>
    where
        S: Stream<Item = io::Result<IO>>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = (Box::pin(incoming.fuse()), JoinSet::new(), self.clone());
        futures::stream::unfold(state, async |(mut incoming, mut shaking, tls)| {
            let next = loop {
                tokio::select! {
                    // Otherwise it did not get through.
                    Some(done) = shaking.join_next() => if let Ok(Some(stream)) = done {
                        break Ok(stream);
                    },
                    Some(connection) = incoming.next(), if shaking.len() < HANDSHAKES_MAX => match connection {
                        Ok(connection) => {
                            shaking.spawn(tls.shake(connection));
                        }
                        Err(error) => break Err(error),
                    },
                    else => return None,
                }
            };
            Some((next, (incoming, shaking, tls)))
        })
    }

    fn shake<IO>(
        &self,
        connection: IO,
    ) -> impl Future<Output = Option<server::TlsStream<IO>>> + use<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = Arc::clone(
            &self
                .0
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .server,
        );
        async move {
            match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(connection)).await {
                Ok(Ok(stream)) => Some(stream),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a handshake failed");
                    None
                }
                Err(_) => None,
            }
        }
    }

    /// Client side towards `dns_name`, whatever address is dialled; each dial uses the certificate of the moment.
    ///
    /// # Errors
    /// [`TlsError::Name`].
    pub fn connector(&self, dns_name: &str) -> Result<Connector, TlsError> {
        let name = ServerName::try_from(dns_name.to_owned())
            .map_err(|_| TlsError::Name(dns_name.to_owned()))?;
        Ok(Connector {
            tls: self.clone(),
            name,
        })
    }
}

/// An endpoint at `address` (`host:port`) for a [`Connector`], which does the TLS that its scheme hides from tonic.
///
/// # Errors
/// When `address` is none.
pub fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let plain = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(match format!("https://{address}").parse::<Uri>() {
        Ok(origin) => plain.origin(origin),
        Err(_) => plain,
    })
}

/// A look at the files of a [`Tls`], again and again.
pub struct Watch {
    tls: Tls,
    complained: bool,
}

impl Watch {
    /// Waits until new certificates are in use, or new ones turn out to be of no use: told once, the former ones stay.
    ///
    /// # Errors
    /// [`TlsError`] with the file.
    pub async fn next(&mut self) -> Result<(), TlsError> {
        loop {
            tokio::time::sleep(LOOK).await;
            let tls = self.tls.clone();
            match tokio::task::spawn_blocking(move || tls.reload()).await {
                Ok(Ok(changed)) => {
                    self.complained = false;
                    if changed {
                        return Ok(());
                    }
                }
                Ok(Err(error)) if !std::mem::replace(&mut self.complained, true) => {
                    return Err(error);
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

/// Dials over TCP and TLS; what tonic's channels use to connect, and to connect again.
#[derive(Clone)]
pub struct Connector {
    tls: Tls,
    name: ServerName<'static>,
}

impl Connector {
    /// A channel that is connected.
    ///
    /// # Errors
    /// When nobody of that name answers at `endpoint`, made by [`endpoint`].
    pub async fn connect(self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        endpoint.connect_with_connector(self).await
    }

    /// A channel that connects when it is used, and again when it broke.
    #[must_use]
    pub fn connect_lazy(self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(self)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<client::TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, name } = self.clone();
        Box::pin(async move {
            let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "an address is host:port",
                ));
            };
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
            stream.set_nodelay(true)?;
            // Only now, so that a certificate replaced while the other side was away is used.
            let config = Arc::clone(
                &tls.0
                    .current
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .client,
            );
            let stream = timeout(HANDSHAKE, TlsConnector::from(config).connect(name, stream))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the other side does not speak HTTP/2",
                ));
            }
            Ok(TokioIo::new(stream))
        })
    }
}
