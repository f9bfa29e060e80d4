// SPDX-License-Identifier: EUPL-1.2
//! Asks the gateway whether it is ready, as a cluster's probe would.

use std::{net::SocketAddr, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::readyz;

const PERIOD: Duration = Duration::from_millis(25);
const ANSWER: Duration = Duration::from_secs(2);

/// Waits until the gateway says that it is ready.
pub(crate) async fn ready(address: SocketAddr, ca: Option<&str>) {
    let connector = ca.and_then(|pem| readyz::connector(pem.as_bytes()).ok());
    loop {
        let answer = timeout(ANSWER, ask(address, connector.as_ref()));
        if let Ok(Ok(true)) = answer.await {
            return;
        }
        sleep(PERIOD).await;
    }
}

async fn ask(address: SocketAddr, connector: Option<&TlsConnector>) -> std::io::Result<bool> {
    let stream = TcpStream::connect(address).await?;
    let line = match connector {
        Some(connector) => {
            let name = ServerName::IpAddress(address.ip().into());
            readyz::ask(connector.connect(name, stream).await?, "localhost").await?
        }
        None => readyz::ask(stream, "localhost").await?,
    };
    Ok(readyz::is_ready(&line))
}
