// SPDX-License-Identifier: EUPL-1.2
//! `plenum probe`: is an installation reachable from where this runs? For `helm test`, which runs it in a pod.

use std::{
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::{
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    Cluster, ClusterError,
    args::{Access, Probe as Options},
    collection, object, text,
};
use crate::{FAILED, readyz};

/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Media addresses that are asked; a pool may have hundreds of nodes.
const MEDIA_MAX: usize = 16;

/// Makes every check and says how it went.
pub(crate) async fn run(access: &Access, options: &Options) -> Result<ExitCode, ClusterError> {
    if options.gateway.is_none()
        && options.media.is_empty()
        && !options.media_from_cluster
        && options.dry_run_namespace.is_none()
    {
        return Err(ClusterError::Asked(
            "nothing to check; name --gateway, --media, --media-from-cluster or --dry-run-namespace".to_owned(),
        ));
    }
    let mut good = true;
    let mut tell = |what: &str, result: Result<String, String>| match result {
        Ok(how) => sayln!("ok      {what}: {how}"),
        Err(why) => {
            good = false;
            sayln!("FAILED  {what}: {why}");
        }
    };
    if let Some(url) = &options.gateway {
        let result = again(options.timeout, || gateway(url, options)).await;
        tell(&format!("gateway {url}"), result);
    }
    let mut media = options.media.clone();
    let cluster = if options.media_from_cluster || options.dry_run_namespace.is_some() {
        Some(Cluster::connect(access).await?)
    } else {
        None
    };
    if let Some(cluster) = cluster.as_ref().filter(|_| options.media_from_cluster) {
        match again(options.timeout, || addresses(cluster)).await {
            Ok(found) => media.extend(found),
            Err(why) => tell("media addresses", Err(why)),
        }
    }
    for address in media.iter().take(MEDIA_MAX) {
        let result = again(options.timeout, || stun(*address)).await;
        tell(&format!("media udp {address}"), result);
    }
    if let (Some(cluster), Some(namespace)) = (&cluster, &options.dry_run_namespace) {
        let result = again(options.timeout, || dry_run(cluster, namespace)).await;
        tell(&format!("a Conference in {namespace}"), result);
    }
    Ok(ExitCode::from(if good { 0 } else { FAILED }))
}

/// Tries until it holds or the time is over; the last reason is told.
async fn again<T, F: Future<Output = Result<T, String>>>(
    most: Duration,
    attempt: impl Fn() -> F,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        let result = timeout(ATTEMPT, attempt())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", ATTEMPT.as_secs())));
        match result {
            Err(_) if began.elapsed() < most => sleep(PAUSE).await,
            over => return over,
        }
    }
}

/// Scheme, name and port of a URL of the gateway.
fn parts(url: &str) -> Result<(bool, &str, u16), String> {
    let wrong =
        || format!("{url} is no address of a gateway; write https://NAME or https://NAME:PORT");
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(wrong()),
    };
    let authority = rest.trim_end_matches('/');
    if authority.is_empty() || authority.contains(['/', '@', '?', '#']) {
        return Err(wrong());
    }
    let default = if tls { 443 } else { 80 };
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().map_err(|_| wrong())?),
        _ => (authority, default),
    };
    Ok((tls, name.trim_matches(['[', ']']), port))
}

async fn gateway(url: &str, options: &Options) -> Result<String, String> {
    let (tls, name, port) = parts(url)?;
    let stream = TcpStream::connect((name, port))
        .await
        .map_err(|error| format!("no connection: {error}"))?;
    let line = if tls {
        let named = options.gateway_name.as_deref().unwrap_or(name).to_owned();
        let shown = named.clone();
        let server = ServerName::try_from(named).map_err(|_| {
            format!("{shown} cannot stand in a certificate; name it with --gateway-name")
        })?;
        let stream = connector(options)?
            .connect(server, stream)
            .await
            .map_err(|error| format!("TLS as {shown}: {error}"))?;
        readyz::ask(stream, name).await
    } else {
        readyz::ask(stream, name).await
    };
    let line = line.map_err(|error| error.to_string())?;
    if readyz::is_ready(&line) {
        Ok("ready".to_owned())
    } else {
        Err(format!("/readyz answers {line:?}"))
    }
}

fn connector(options: &Options) -> Result<TlsConnector, String> {
    let file = options.gateway_ca.as_ref().ok_or(
        "the certificate is checked against a CA of yours; name it with --gateway-ca FILE",
    )?;
    let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    readyz::connector(&pem).map_err(|why| format!("{}: {why}", file.display()))
}

/// Addresses of nodes that are ready.
async fn addresses(cluster: &Cluster) -> Result<Vec<SocketAddr>, String> {
    let listed = cluster
        .objects("MediaNode")
        .await
        .map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for node in &listed.items {
        let ready = super::status::condition(node, "Ready")
            .is_some_and(|condition| condition["status"] == "True");
        let addresses = node
            .pointer("/status/addresses")
            .and_then(serde_json::Value::as_array);
        for address in addresses.into_iter().flatten().filter(|_| ready) {
            let ip = text(address, "/address").parse();
            let port = address["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok());
            if let (Ok(ip), Some(port)) = (ip, port) {
                found.push(SocketAddr::new(ip, port));
            }
        }
    }
    if found.is_empty() {
        return Err("no media node is ready with an address".to_owned());
    }
    Ok(found)
}

/// STUN magic cookie (RFC 8489 §5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A binding request without credentials. The attribute `PADDING` (RFC 5780 §7.6) makes it longer than any answer to it: who
/// answers need not fear to be used to amplify.
fn binding(transaction: [u8; 12]) -> Vec<u8> {
    const PADDING: [u8; 4] = [0x00, 0x26, 0x00, 0x40];
    let mut packet = vec![0x00, 0x01, 0x00, 0x44];
    packet.extend_from_slice(&COOKIE);
    packet.extend_from_slice(&transaction);
    packet.extend_from_slice(&PADDING);
    packet.resize(packet.len() + 0x40, 0);
    packet
}

/// A binding answer to this request, granted or refused: either way somebody speaks STUN there.
fn answers(packet: &[u8], transaction: [u8; 12]) -> bool {
    let kind = packet.get(..2);
    (kind == Some(&[0x01, 0x01]) || kind == Some(&[0x01, 0x11]))
        && packet.get(4..8) == Some(&COOKIE)
        && packet.get(8..20) == Some(&transaction)
}

async fn stun(address: SocketAddr) -> Result<String, String> {
    let any: SocketAddr = if address.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)
        .await
        .map_err(|error| error.to_string())?;
    socket
        .connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let mut transaction = [0; 12];
    rand::fill(&mut transaction).map_err(|_| "no randomness".to_owned())?;
    socket
        .send(&binding(transaction))
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = [0; 576];
    loop {
        let length = socket
            .recv(&mut answer)
            .await
            .map_err(|error| format!("nobody there: {error}"))?;
        if answers(&answer[..length], transaction) {
            return Ok("answers STUN".to_owned());
        }
    }
}

/// A Conference that the API server accepts by schema, rules and policies; nothing is kept.
async fn dry_run(cluster: &Cluster, namespace: &str) -> Result<String, String> {
    let metadata = json!({ "generateName": "plenum-probe-", "namespace": namespace });
    let probe = object("Conference", &metadata, &json!({ "displayName": "Probe" }));
    let path = collection("Conference", Some(namespace)).unwrap_or_default();
    let path = format!("{path}?dryRun=All&fieldManager=plenum-probe");
    cluster
        .send(
            "POST",
            &format!("namespace {namespace}"),
            &path,
            "application/json",
            &probe,
        )
        .await
        .map(|_| "accepted as a dry run".to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_gateways_are_read() {
        assert_eq!(
            parts("https://gw.example.org"),
            Ok((true, "gw.example.org", 443))
        );
        assert_eq!(parts("https://[::1]:7880/"), Ok((true, "::1", 7880)));
        assert_eq!(parts("http://127.0.0.1:80"), Ok((false, "127.0.0.1", 80)));
        for wrong in [
            "gw.example.org",
            "https://",
            "https://u@h",
            "https://h:x",
            "https://h/path",
        ] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_an_answer_to_this_very_request_counts() {
        let request = binding([7; 12]);
        assert_eq!(request.len(), 20 + 0x44);
        assert_eq!(
            usize::from(request[3]),
            request.len() - 20,
            "the length is that of what follows"
        );
        let mut answer = request.clone();
        answer[0] = 0x01;
        answer[1] = 0x01;
        assert!(answers(&answer, [7; 12]));
        assert!(!answers(&answer, [8; 12]));
        assert!(!answers(&request, [7; 12]), "an echo is no answer");
        assert!(!answers(&answer[..10], [7; 12]));
    }

    #[tokio::test]
    async fn a_port_where_nobody_speaks_stun_is_told() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = silent.local_addr().expect("bound");
        let wait = timeout(Duration::from_millis(200), stun(address)).await;
        assert!(wait.is_err(), "{wait:?}");
    }
}
