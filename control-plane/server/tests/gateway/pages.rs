// SPDX-License-Identifier: EUPL-1.2
//! The page, probes, and TLS.

use std::sync::Arc;

use control_core::ids::Secret;
use control_plane::clock::Clock;
use control_plane::gateway::tls::TlsFiles;
use control_plane::gateway::{self, GatewayError, Settings};
use control_plane::hosts::Hosts;
use control_plane::identity::Tls;
use control_plane::plane::Plane;
use control_plane::store::memory::MemoryStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::http::Request;
use crate::world::{COUNCIL, Pki, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_is_health_for_clients_and_a_page_for_people() {
    let world = World::start().await;
    let get =
        |accept: &str| Request::new(world.http, "GET", "/").header("Accept", accept.to_owned());
    let health = get("*/*").send().await;
    assert_eq!((health.status, health.text()), (200, "OK"));
    let head = Request::new(world.http, "HEAD", "/")
        .header("Origin", "https://elsewhere.example")
        .send()
        .await;
    assert_eq!(
        (head.status, head.header("access-control-allow-origin")),
        (200, Some("*"))
    );
    // Whether or not the web client was built into this test, its headers are there.
    for path in ["/", &format!("/c/{COUNCIL}"), &format!("/c/{COUNCIL}/")] {
        let page = Request::new(world.http, "GET", path)
            .header("Accept", "text/html,application/xhtml+xml")
            .send()
            .await;
        assert!(matches!(page.status, 200 | 503), "{path}: {}", page.status);
        let policy = page.header("content-security-policy").expect("policy");
        assert!(
            policy.contains("default-src 'none'")
                && policy.contains("script-src 'self';")
                && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(
            policy.contains(&format!("connect-src 'self' ws://{};", world.http)),
            "{policy}"
        );
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(
            page.header("cross-origin-opener-policy"),
            Some("same-origin")
        );
        assert!(
            page.header("permissions-policy")
                .expect("policy")
                .contains("camera=(self)")
        );
    }
    let missing = Request::new(world.http, "GET", "/assets/../../etc/passwd")
        .send()
        .await;
    assert_eq!(missing.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_depend_on_nothing_and_metrics_are_for_this_machine() {
    let world = World::bare().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(
            Request::new(world.http, "GET", path).send().await.status,
            200,
            "{path}"
        );
    }
    let metrics = Request::new(world.http, "GET", "/metrics").send().await;
    assert!(
        metrics.text().contains("plenum_control_sessions 0"),
        "{}",
        metrics.text()
    );
    let preflight = Request::new(
        world.http,
        "OPTIONS",
        "/twirp/livekit.RoomService/ListRooms",
    )
    .header("Origin", "https://elsewhere.example")
    .header("Access-Control-Request-Method", "POST")
    .header(
        "Access-Control-Request-Headers",
        "authorization, content-type",
    )
    .send()
    .await;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-max-age"), Some("86400"));
    // The door is for its own page.
    let door = Request::new(world.http, "GET", &format!("/api/v1/c/{COUNCIL}"))
        .header("Origin", "https://elsewhere.example")
        .send()
        .await;
    assert_eq!(door.header("access-control-allow-origin"), None);
}

fn plane(pki: &Pki) -> Plane {
    let (certificate, key) = pki.pem(
        &["control-plane.plenum.internal"],
        "spiffe://plenum.internal/control-plane",
    );
    let tls = Tls::from_pem(&pki.ca_pem(), &certificate, &key).expect("certificates");
    let clock = Clock::start();
    Plane::new(
        Arc::new(MemoryStore::new(Arc::new(move || clock.now()))),
        Hosts::new(tls),
        clock,
    )
}

fn settings(tls: Option<&std::path::Path>) -> Settings {
    Settings {
        http_listen: vec!["127.0.0.1:0".parse().expect("address")],
        http_shared: Vec::new(),
        http_tls_dir: tls.map(ToOwned::to_owned),
        public_url: None,
        installation_key: Secret::new(&[9; 32]),
        insecure_dev_keys: false,
    }
}

/// A folder of its own, gone with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("plenum-gateway-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.0.join("tls.crt"), certificate).expect("written");
        std::fs::write(self.0.join("tls.key"), key).expect("written");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Fetches `/` over TLS: the answer and the server's certificate.
async fn over_tls(pki: &Pki, address: std::net::SocketAddr) -> (String, CertificateDer<'static>) {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).expect("PEM"))
        .expect("root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("connect");
    let name = ServerName::try_from("meet.example").expect("name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .expect("handshake");
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .expect("certificates")[0]
        .clone()
        .into_owned();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: meet.example\r\nAccept: text/html\r\nConnection: close\r\n\r\n").await.expect("write");
    let mut answer = Vec::new();
    // The page may be compressed or not built; its head is text either way.
    let _ = stream.read_to_end(&mut answer).await;
    (String::from_utf8_lossy(&answer).into_owned(), certificate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_page_is_bound_to_tls() {
    let (pki, folder, stop) = (Pki::new(), Folder::new("tls"), CancellationToken::new());
    let (certificate, key) = pki.pem(&["meet.example"], "");
    folder.write(&certificate, &key);
    let serving = gateway::start(plane(&pki), settings(Some(&folder.0)), stop.clone())
        .await
        .expect("serving");
    let (answer, _) = over_tls(&pki, serving.addresses[0]).await;
    assert!(
        answer.contains("strict-transport-security: max-age="),
        "{answer}"
    );
    assert!(answer.contains("wss://meet.example;"), "{answer}");
    stop.cancel();
    serving.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let (pki, folder) = (Pki::new(), Folder::new("reload"));
    let (certificate, key) = pki.pem(&["meet.example"], "");
    folder.write(&certificate, &key);
    let files = TlsFiles::read(&folder.0).expect("read");
    assert!(!files.reload().expect("unchanged"));
    let (renewed, renewed_key) = pki.pem(&["meet.example"], "");
    folder.write(&renewed, &key);
    files
        .reload()
        .expect_err("certificate and key are of different pairs");
    folder.write("", &key);
    files.reload().expect_err("no certificate at all");
    folder.write(&renewed, &renewed_key);
    assert!(files.reload().expect("a new pair"));
    // What handshakes show is the renewed one.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("address");
    let acceptor = tokio_rustls::TlsAcceptor::from(files.server_config());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let _stream = acceptor.accept(stream).await.expect("handshake");
    });
    let (_, shown) = over_tls(&pki, address).await;
    assert_eq!(
        shown,
        CertificateDer::from_pem_slice(renewed.as_bytes()).expect("PEM")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_be_safe_is_refused() {
    let (pki, folder) = (Pki::new(), Folder::new("refused"));
    let mut open = settings(None);
    open.http_listen = vec!["0.0.0.0:0".parse().expect("address")];
    let error = gateway::start(plane(&pki), open, CancellationToken::new())
        .await
        .map(drop)
        .expect_err("plaintext for all");
    assert!(error.to_string().contains("--http-tls-dir"), "{error}");
    let error = gateway::start(
        plane(&pki),
        settings(Some(&folder.0)),
        CancellationToken::new(),
    )
    .await
    .map(drop)
    .expect_err("no files");
    assert!(matches!(error, GatewayError::Tls(_)), "{error}");
    let mut short = settings(None);
    short.installation_key = Secret::new(&[1; 16]);
    assert!(matches!(
        gateway::start(plane(&pki), short, CancellationToken::new())
            .await
            .map(drop),
        Err(GatewayError::Key(_))
    ));
}
