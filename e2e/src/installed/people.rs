// SPDX-License-Identifier: EUPL-1.2
//! People of the example's tenant, outside of the pods' network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::NODE_PORT;
use crate::chart;
use crate::cluster::Cluster;

/// Key of the example's tenant.
const KEY: (&str, &str) = ("city", "an-example-secret-change-it-before-use");
/// Its conference.
pub const CONFERENCE: &str = "council";
/// Where people sit: where the cluster's network and the machine meet.
pub const MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

/// A token of the example's tenant for its conference.
///
/// # Errors
/// As [`token_to`].
pub fn token(identity: &str) -> Result<String> {
    token_to(CONFERENCE, identity)
}

/// A token of the example's tenant, good for longer than any run. Everybody moderates: others would enter a meeting muted.
///
/// # Errors
/// When the clock stands before 1970.
pub fn token_to(room: &str, identity: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({
        "iss": KEY.0, "sub": identity, "name": identity, "nbf": now - 5, "exp": now + 6 * 3600,
        "video": { "roomJoin": true, "room": room, "roomAdmin": true },
    });
    let secret = jsonwebtoken::EncodingKey::from_secret(KEY.1.as_bytes());
    let header = jsonwebtoken::Header::default();
    Ok(jsonwebtoken::encode(&header, &claims, &secret)?)
}

/// The load client speaks no TLS: a port of loopback that leads to the gateway, whose certificate is checked against the
/// installation's own authority.
///
/// # Errors
/// When the gateway's Secret cannot be read.
pub async fn plain(cluster: &Cluster, node: Ipv4Addr) -> Result<SocketAddr> {
    let secrets = Api::<Secret>::namespaced(cluster.client(), chart::NAMESPACE);
    let secret = secrets.get("plenum-gateway-tls").await?;
    let data = secret.data.unwrap_or_default();
    let authority = data
        .get("ca.crt")
        .context("the Secret names its authority")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&authority.0) {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut person, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                let name = ServerName::from(IpAddr::V4(node));
                let Ok(gateway) = TcpStream::connect((node, NODE_PORT)).await else {
                    return;
                };
                match connector.connect(name, gateway).await {
                    Ok(mut gateway) => {
                        let _ = tokio::io::copy_bidirectional(&mut person, &mut gateway).await;
                    }
                    Err(error) => eprintln!("the gateway's certificate: {error}"),
                }
            });
        }
    });
    Ok(address)
}
