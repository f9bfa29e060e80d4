// SPDX-License-Identifier: EUPL-1.2
//! A receiver of webhooks behind real TLS, which checks what it gets as a backend does, and misbehaves on demand.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use axum::body::{Body, to_bytes};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::world::LIVENESS;

/// What a receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Takes it, after this time.
    Take(Duration),
    /// Answers with a status.
    Status(u16),
    /// Sends away.
    Redirect(String),
    /// Answers with what is no HTTP.
    Garbage,
    /// Takes the request and never answers.
    Hang,
}

/// An event that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) key: String,
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) room: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct State {
    got: Vec<Got>,
    /// Requests, taken or not.
    asked: u32,
    /// What did not hold.
    wrong: Vec<String>,
}

struct Shared {
    secrets: Mutex<Vec<(String, Vec<u8>)>>,
    manner: Mutex<Manner>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// The receiver; its port stays reserved while it is away.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    server: JoinSet<()>,
}

impl Receiver {
    /// Knows a key of the tenant.
    pub(crate) async fn start() -> Self {
        let mut receiver = Self::away();
        receiver.come_back().await;
        receiver
    }

    /// Has an address where nobody listens yet.
    pub(crate) fn away() -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("address");
        let (acceptor, ca_pem) = identity();
        let shared = Shared {
            secrets: Mutex::new(vec![("key".into(), vec![1; 32])]),
            manner: Mutex::new(Manner::Take(Duration::ZERO)),
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        };
        Self {
            address,
            ca_pem,
            acceptor,
            shared: Arc::new(shared),
            server: JoinSet::new(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/hook?from=plenum", self.address.port())
    }

    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("still free");
        let (acceptor, shared) = (self.acceptor.clone(), Arc::clone(&self.shared));
        self.server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    // Whoever does not like the certificate goes away.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, shared).await;
                    }
                });
            }
        });
    }

    pub(crate) fn manner(&self, manner: Manner) {
        *self.shared.manner.lock().expect("no panic") = manner;
    }

    pub(crate) fn knows(&self, key: &str, secret: &[u8]) {
        let mut secrets = self.shared.secrets.lock().expect("no panic");
        secrets.push((key.into(), secret.to_vec()));
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        let state = self.shared.state.lock().expect("no panic");
        assert!(state.wrong.is_empty(), "{:?}", state.wrong);
        state.got.clone()
    }

    pub(crate) fn asked(&self) -> u32 {
        self.shared.state.lock().expect("no panic").asked
    }

    /// Waits until it has been asked, or has got something, so that this holds.
    pub(crate) async fn until(
        &self,
        what: &str,
        mut look: impl FnMut(&[Got], u32) -> bool,
    ) -> Vec<Got> {
        let mut changed = self.shared.changed.subscribe();
        let found = async {
            loop {
                let got = self.got();
                if look(&got, self.asked()) {
                    return got;
                }
                changed.changed().await.expect("the receiver lives");
            }
        };
        match tokio::time::timeout(LIVENESS, found).await {
            Ok(got) => got,
            Err(_) => panic!("never: {what}; got {:?}", self.numbers()),
        }
    }

    /// Ids of what was taken, each once, by room in order.
    pub(crate) fn numbers(&self) -> Vec<(String, String)> {
        self.got()
            .iter()
            .map(|got| (got.room.clone(), got.body["createdAt"].to_string()))
            .collect()
    }
}

async fn serve(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    shared: Arc<Shared>,
) {
    let manner = shared.manner.lock().expect("no panic").clone();
    if matches!(manner, Manner::Garbage) {
        shared.asked();
        let _ = stream
            .write_all(b"\x00\xffIch bin kein HTTP.\r\n\r\n")
            .await;
        let _ = stream.shutdown().await;
        return;
    }
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let shared = Arc::clone(&shared);
        async move { answer(request, &shared).await }
    });
    // The client may break it off.
    let _ = hyper::server::conn::http1::Builder::new()
        // Each manner holds from the next request on.
        .keep_alive(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Shared {
    fn asked(&self) {
        self.state.lock().expect("no panic").asked += 1;
        self.changed.send_modify(|version| *version += 1);
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    shared: &Shared,
) -> Result<Response<Body>, Infallible> {
    let manner = shared.manner.lock().expect("no panic").clone();
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), 1024 * 1024).await;
    let Ok(body) = body else {
        return Ok(Response::new(Body::empty()));
    };
    let checked = check(&head, &body, &shared.secrets.lock().expect("no panic"));
    let mut take = false;
    let mut response = Response::new(Body::empty());
    match manner {
        Manner::Take(after) => {
            tokio::time::sleep(after).await;
            take = true;
            // What comes back is not looked at, however much it is.
            *response.body_mut() = Body::from(vec![b'x'; 300_000]);
        }
        Manner::Status(status) => {
            *response.status_mut() = status.try_into().expect("a status");
        }
        Manner::Redirect(to) => {
            *response.status_mut() = hyper::StatusCode::TEMPORARY_REDIRECT;
            response
                .headers_mut()
                .insert("location", to.parse().expect("a value"));
        }
        Manner::Hang | Manner::Garbage => {
            shared.asked();
            std::future::pending::<()>().await;
        }
    }
    {
        let mut state = shared.state.lock().expect("no panic");
        match checked {
            Ok(got) if take => state.got.push(got),
            Ok(_) => {}
            Err(wrong) => state.wrong.push(wrong),
        }
    }
    shared.asked();
    Ok(response)
}

/// As LiveKit's SDKs verify: the token's signature by the key it names, then the hash of the body.
fn check(
    head: &hyper::http::request::Parts,
    body: &[u8],
    secrets: &[(String, Vec<u8>)],
) -> Result<Got, String> {
    let header = |name: &str| {
        head.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    if head.method != "POST" || head.uri != "/hook?from=plenum" {
        return Err(format!("{} {}", head.method, head.uri));
    }
    if header("content-type") != "application/webhook+json" {
        return Err(header("content-type"));
    }
    let token = header("authorization");
    let (signed, signature) = token.rsplit_once('.').ok_or("no token")?;
    let (_, payload) = signed.split_once('.').ok_or("no payload")?;
    let decode = |part: &str| {
        BASE64URL_NOPAD
            .decode(part.as_bytes())
            .map_err(|error| error.to_string())
    };
    let claims: Value =
        serde_json::from_slice(&decode(payload)?).map_err(|error| error.to_string())?;
    let key = claims["iss"].as_str().unwrap_or_default();
    let (_, secret) = secrets
        .iter()
        .find(|(known, _)| known == key)
        .ok_or_else(|| format!("key {key}"))?;
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&secret, signed.as_bytes(), &decode(signature)?).map_err(|_| "signature")?;
    let hash = BASE64.encode(digest::digest(&digest::SHA256, body).as_ref());
    if claims["sha256"] != hash.as_str() {
        return Err("hash".into());
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Got {
        key: key.to_owned(),
        event: text(&body["event"]),
        id: text(&body["id"]),
        room: text(&body["room"]["sid"]),
        body,
    })
}

fn identity() -> (TlsAcceptor, String) {
    let ca_key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = params.self_signed(&ca_key).expect("signed").pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().expect("key");
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .expect("params")
        .signed_by(&key, &issuer)
        .expect("signed");
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_no_client_auth()
    .with_single_cert(chain, key)
    .expect("a pair");
    (TlsAcceptor::from(Arc::new(config)), ca_pem)
}
