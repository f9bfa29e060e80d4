// SPDX-License-Identifier: EUPL-1.2
//! `GET /readyz` over a connection that is there already, with TLS by a CA of ours.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

/// The status line is all that matters.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Trusts the certificates of a PEM, and no other.
///
/// # Errors
/// What is wrong with the PEM.
pub(crate) fn connector(pem: &[u8]) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let der = certificate.map_err(|error| error.to_string())?;
        roots.add(der).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Asks, and gives the status line.
pub(crate) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
) -> std::io::Result<String> {
    let text = format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // A peer that closes without a TLS goodbye has still answered.
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
    if answer.is_empty() {
        read?;
    }
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Whether a status line says yes.
pub(crate) fn is_ready(line: &str) -> bool {
    line.starts_with("HTTP/1.1 200")
}
