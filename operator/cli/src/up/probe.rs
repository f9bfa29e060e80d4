// SPDX-License-Identifier: EUPL-1.2
//! Asks the gateway whether it is ready, as a cluster's probe would.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

const PERIOD: Duration = Duration::from_millis(25);
const ANSWER: Duration = Duration::from_secs(2);
/// The status line is all that matters.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Waits until the gateway says that it is ready.
pub(crate) async fn ready(address: SocketAddr, ca: Option<&str>) {
    let connector = ca.and_then(connector);
    loop {
        let answer = timeout(ANSWER, ask(address, connector.as_ref()));
        if let Ok(Ok(true)) = answer.await {
            return;
        }
        sleep(PERIOD).await;
    }
}

fn connector(ca: &str) -> Option<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).ok()?)
        .ok()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?;
    Some(TlsConnector::from(Arc::new(
        config.with_root_certificates(roots).with_no_client_auth(),
    )))
}

async fn ask(address: SocketAddr, connector: Option<&TlsConnector>) -> std::io::Result<bool> {
    let stream = TcpStream::connect(address).await?;
    match connector {
        Some(connector) => {
            let name = ServerName::IpAddress(address.ip().into());
            request(connector.connect(name, stream).await?).await
        }
        None => request(stream).await,
    }
}

async fn request(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<bool> {
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    // A peer that closes without a TLS goodbye has still answered.
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
    if answer.is_empty() {
        read?;
    }
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
