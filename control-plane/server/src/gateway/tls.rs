// SPDX-License-Identifier: EUPL-1.2
//! The certificate of the gateway, read again when its files change: no restart, no dropped connection.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

/// A renewed certificate is in use after this time at the latest.
const LOOK: Duration = Duration::from_secs(5);
/// Files longer than this are no certificates.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file.
    #[error("cannot read {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Too long.
    #[error("{0} is longer than {FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// Not PEM.
    #[error("{path} holds no {what} in PEM")]
    Pem {
        /// Its path.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// Certificate and key are of different pairs, or of a kind that is not known.
    #[error("tls.crt and tls.key in {path} cannot be used together: {source}")]
    Pair {
        /// Directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// `tls.crt` and `tls.key` of a directory.
pub struct TlsFiles {
    directory: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<(Vec<u8>, Arc<CertifiedKey>)>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TlsFiles")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// Reads them.
    ///
    /// # Errors
    /// [`TlsFilesError`].
    pub fn read(directory: &Path) -> Result<Arc<Self>, TlsFilesError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let current = load(directory, &provider)?;
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            provider,
            current: RwLock::new(current),
        }))
    }

    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, the certificate of the moment.
    #[must_use]
    pub fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("invariant: the provider has cipher suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Reads the files again; true when they have changed. What cannot be used leaves the former pair in use.
    ///
    /// # Errors
    /// [`TlsFilesError`].
    pub fn reload(&self) -> Result<bool, TlsFilesError> {
        let next = load(&self.directory, &self.provider)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 == next.0 {
            return Ok(false);
        }
        *current = next;
        Ok(true)
    }

    /// Looks at the files until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut reported = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let files = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || files.reload()).await {
                Ok(Ok(changed)) => {
                    reported = false;
                    if changed {
                        tracing::info!(event = "CertificateReplaced", directory = %self.directory.display(), "certificate replaced");
                    }
                }
                Ok(Err(error)) if !reported => {
                    reported = true;
                    tracing::warn!(
                        event = "CertificateUnusable",
                        error = &error as &dyn std::error::Error,
                        "the certificate on disk cannot be used, the former one stays"
                    );
                }
                _ => {}
            }
        }
    }
}

impl ResolvesServerCert for TlsFiles {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .1,
        ))
    }
}

fn load(
    directory: &Path,
    provider: &CryptoProvider,
) -> Result<(Vec<u8>, Arc<CertifiedKey>), TlsFilesError> {
    let (certificate_path, certificate) = read(directory, "tls.crt")?;
    let (key_path, key) = read(directory, "tls.key")?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<_, _>>()
        .ok()
        .filter(|chain: &Vec<_>| !chain.is_empty())
        .ok_or(TlsFilesError::Pem {
            path: certificate_path,
            what: "certificate",
        })?;
    let parsed = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsFilesError::Pem {
        path: key_path,
        what: "private key",
    })?;
    let pair =
        CertifiedKey::from_der(chain, parsed, provider).map_err(|source| TlsFilesError::Pair {
            path: directory.to_owned(),
            source,
        })?;
    let content =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[certificate, key].concat());
    Ok((content.as_ref().to_vec(), Arc::new(pair)))
}

fn read(directory: &Path, name: &str) -> Result<(PathBuf, Vec<u8>), TlsFilesError> {
    let path = directory.join(name);
    let failed = |source| TlsFilesError::Read {
        path: path.clone(),
        source,
    };
    if std::fs::metadata(&path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(TlsFilesError::TooLong(path));
    }
    let bytes = std::fs::read(&path).map_err(failed)?;
    Ok((path, bytes))
}
