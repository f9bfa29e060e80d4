// SPDX-License-Identifier: EUPL-1.2
//! The HTTP side of the control plane: signalling, the door, the RoomService, the web client, probes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, MatchedPath, Path, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use control_core::ids::{RoomKey, Secret};
use control_core::time::UnixMillis;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_http::cors::{Any, CorsLayer};
use tracing::Instrument;

use crate::auth::{InstallationKey, KeyTooShort, Token, TokenRefusal, Verifier};
use crate::password::{PasswordError, Passwords};
use crate::plane::Plane;

pub mod admission;
pub mod client;
mod door;
pub mod listen;
mod metrics;
pub mod refusal;
mod rtc;
pub mod tls;
mod twirp;
pub mod web;

use admission::Surroundings;
use listen::{ListenError, Listener, Via};
use metrics::GatewayMetrics;
use refusal::Refusal;
use tls::{TlsFiles, TlsFilesError};
use web::Web;

/// Signalling sessions of one process. Their sockets are counted here: a connection that was upgraded is no HTTP connection any more.
const SESSIONS_MAX: usize = 30_000;
/// Longest body of a call.
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// A body that has not arrived by then is given up.
const BODY: Duration = Duration::from_secs(15);
/// After this time all nodes that live have attached and named their rooms (lease period and one re-dial).
const SETTLE: Duration = Duration::from_secs(8);
/// How often a replica that begins looks whether it knows enough.
const INFORMED: Duration = Duration::from_millis(50);

/// What the gateway is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses.
    pub http_listen: Vec<SocketAddr>,
    /// Addresses that other replicas on this machine serve as well.
    pub http_shared: Vec<SocketAddr>,
    /// Certificate and key; without them plaintext, on loopback only.
    pub http_tls_dir: Option<PathBuf>,
    /// Base URL for clients; `None` = as each request came.
    pub public_url: Option<String>,
    /// Signs own tokens.
    pub installation_key: Secret,
    /// May published keys be used on any address?
    pub insecure_dev_keys: bool,
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Key.
    #[error(transparent)]
    Key(#[from] KeyTooShort),
    /// Certificate.
    #[error("--http-tls-dir: the certificate cannot be used")]
    Tls(#[from] TlsFilesError),
    /// Address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Randomness.
    #[error("passwords cannot be checked")]
    Passwords(#[from] PasswordError),
}

/// A gateway that serves.
pub struct Serving {
    /// Addresses as bound.
    pub addresses: Vec<SocketAddr>,
    gateway: Gateway,
    tasks: JoinSet<()>,
}

impl Serving {
    /// What is served.
    #[must_use]
    pub fn gateway(&self) -> Gateway {
        self.gateway.clone()
    }

    /// Returns when everything has ended after the order to stop.
    pub async fn stopped(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(event = "ListenerFailed", %error, "a listener ended by a bug");
            }
        }
    }
}

/// Binds all addresses and serves them until `stop`.
///
/// # Errors
/// [`GatewayError`]: nothing is served then.
pub async fn start(
    plane: Plane,
    settings: Settings,
    stop: CancellationToken,
) -> Result<Serving, GatewayError> {
    let tls = settings
        .http_tls_dir
        .as_deref()
        .map(TlsFiles::read)
        .transpose()?;
    let mut listeners = Vec::new();
    for address in &settings.http_listen {
        listeners.push(Listener::bind(*address, tls.clone()).await?);
    }
    let shared: Vec<listen::Shared> = settings
        .http_shared
        .iter()
        .map(|address| listen::Shared::claim(*address, tls.clone()))
        .collect::<Result<_, _>>()?;
    let gateway = Gateway::new(plane, &settings, stop.clone())?;
    let web = gateway.0.web.clone();
    // Needed by the first visitor, not by the start.
    tokio::task::spawn_blocking(move || web.compress());
    let router = gateway.router();
    let draining = gateway.clone();
    let connections = Arc::new(Semaphore::new(listen::raise_descriptors()));
    let mut tasks = JoinSet::new();
    if let Some(tls) = tls {
        tasks.spawn(tls.watch(stop.clone()));
    }
    tasks.spawn(async move { draining.drained().await });
    for address in shared {
        let (gateway, router) = (gateway.clone(), router.clone());
        let (connections, stop) = (Arc::clone(&connections), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = gateway.informed() => {}
                () = stop.cancelled() => return,
            }
            match address.listen() {
                Ok(listener) => {
                    gateway.0.unshared.fetch_sub(1, Ordering::AcqRel);
                    listener.serve(router, connections, stop).await;
                }
                Err(error) => tracing::error!(
                    event = "SharedListenFailed",
                    error = &error as &dyn std::error::Error,
                    "the other replicas serve the shared address alone"
                ),
            }
        });
    }
    let addresses = listeners.iter().map(Listener::address).collect();
    for listener in listeners {
        tasks.spawn(listener.serve(router.clone(), Arc::clone(&connections), stop.clone()));
    }
    Ok(Serving {
        addresses,
        gateway,
        tasks,
    })
}

/// State behind every route; cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

struct Shared {
    plane: Plane,
    installation: InstallationKey,
    passwords: Passwords,
    web: Web,
    public_url: Option<String>,
    development_keys: bool,
    started: Instant,
    metrics: GatewayMetrics,
    waiting: door::Waiting,
    sessions: Arc<Semaphore>,
    /// Shared addresses that this replica does not serve yet: it is not ready until then.
    unshared: AtomicUsize,
    /// Could it once answer for every room? What comes later, a store that is away among it, takes nothing from that.
    settled: AtomicBool,
    stop: CancellationToken,
}

impl Gateway {
    /// Without listeners.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn new(
        plane: Plane,
        settings: &Settings,
        stop: CancellationToken,
    ) -> Result<Self, GatewayError> {
        let workers =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let metrics = GatewayMetrics::register(&plane);
        Ok(Self(Arc::new(Shared {
            plane,
            installation: InstallationKey::new(settings.installation_key.expose())?,
            passwords: Passwords::new(workers)?,
            web: Web::embedded(),
            public_url: settings
                .public_url
                .as_ref()
                .map(|url| url.trim_end_matches('/').to_owned()),
            development_keys: settings.insecure_dev_keys,
            started: Instant::now(),
            metrics,
            waiting: door::Waiting::default(),
            sessions: Arc::new(Semaphore::new(SESSIONS_MAX)),
            unshared: AtomicUsize::new(settings.http_shared.len()),
            settled: AtomicBool::new(false),
            stop,
        })))
    }

    /// All routes.
    pub fn router(&self) -> Router {
        let cors = CorsLayer::new()
            .allow_origin(Any)
            .allow_headers(Any)
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::OPTIONS])
            .max_age(Duration::from_secs(86_400));
        // What LiveKit's clients call, from any page.
        let livekit = Router::new()
            .route("/", get(root))
            .route("/rtc", any(rtc::connect))
            .route("/rtc/validate", get(rtc::validate))
            .route("/twirp/{service}/{method}", any(twirp::call))
            .layer(cors);
        let mut own = Router::new()
            .route("/api/v1/c/{room_id}", get(door::describe))
            .route("/api/v1/c/{room_id}/entry", post(door::enter))
            .route("/api/v1/c/{room_id}/lobby", post(door::lobby))
            .route("/api/v1/c/{room_id}/lock", post(door::lock))
            .route("/api/v1/c/{room_id}/end", post(door::end))
            .route("/c/{room_id}", get(page))
            .route("/c/{room_id}/", get(page))
            .route("/assets/{*path}", get(asset))
            .route("/livez", get(alive))
            .route("/readyz", get(ready))
            .route("/metrics", get(scrape));
        for path in self.0.web.root_files() {
            own = own.route(&format!("/{path}"), get(root_file));
        }
        livekit
            .merge(own)
            .fallback(nothing)
            .layer(map_response(sober))
            .layer(from_fn(traced))
            .with_state(self.clone())
    }

    /// Waits until this replica can answer for every room, or has waited long enough for those who could tell it. Others serve
    /// the shared address meanwhile; the kernel would give this one its share of connections, and they would be refused.
    async fn informed(&self) {
        let left = SETTLE.saturating_sub(self.0.started.elapsed());
        let knows = async {
            let mut changed = self.0.plane.changed();
            while !self.0.plane.is_informed() {
                // What is expected of nodes runs out without a change.
                let _ = tokio::time::timeout(INFORMED, changed.changed()).await;
            }
        };
        let _ = tokio::time::timeout(left, knows).await;
    }

    /// May clients be sent here? Not before this replica can answer for every room or has waited long enough for those who could tell
    /// it, nor once it stops. The store does not count: with it away, rooms that run go on.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), &'static str> {
        let shared = &self.0;
        if shared.stop.is_cancelled() {
            return Err("the replica stops");
        }
        if shared.unshared.load(Ordering::Acquire) > 0 {
            return Err("not all addresses are served yet");
        }
        if !shared.settled.load(Ordering::Acquire) {
            if !shared.plane.is_informed() && shared.started.elapsed() < SETTLE {
                return Err("the replica does not know yet what is declared and which rooms run");
            }
            shared.settled.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// After the order to stop, sessions have a moment to tell their clients.
    async fn drained(&self) {
        self.0.stop.cancelled().await;
        let _ = tokio::time::timeout(
            listen::FINISH,
            self.0.sessions.acquire_many(SESSIONS_MAX as u32),
        )
        .await;
    }

    fn now_unix_s(&self) -> i64 {
        self.0.plane.now_unix_ms().div_euclid(1000)
    }

    /// The token of a request: header first, then query.
    fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        via: Via,
    ) -> Result<Token, Refusal> {
        let header = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let bearer = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let text = bearer.map(|(_, token)| token.trim()).or(query);
        let view = self.0.plane.view();
        let verifier = Verifier {
            installation: &self.0.installation,
            keys: &*view,
            development_keys: via.loopback || self.0.development_keys,
        };
        verifier
            .verify(text.unwrap_or_default(), self.now_unix_s())
            .map_err(|refusal: TokenRefusal| {
                if refusal.depends_on_records() && !self.0.plane.is_certain() {
                    Refusal::NotLoaded
                } else {
                    refusal.into()
                }
            })
    }

    /// Runs `decide` on what is known of a room at this moment.
    fn with_surroundings<T>(
        &self,
        key: &RoomKey,
        decide: impl FnOnce(&Surroundings<'_>) -> T,
    ) -> T {
        let view = self.0.plane.view();
        let room = self.0.plane.room(key);
        decide(&Surroundings {
            view: &view,
            loaded: self.0.plane.is_certain(),
            settled: self.0.started.elapsed() >= SETTLE,
            room: room.as_ref(),
            now: UnixMillis(self.0.plane.now_unix_ms()),
        })
    }
}

/// Reads a body within its bounds.
async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Refusal::BodyTooLong(bytes_max)),
        Err(_) => Err(Refusal::BodyTooSlow),
    }
}

/// Health for LiveKit's clients, the page for people.
async fn root(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if method == Method::GET && web::wants_page(&headers) {
        gateway.0.web.page(via, &headers)
    } else {
        "OK".into_response()
    }
}

async fn page(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    headers: HeaderMap,
) -> Response {
    gateway.0.web.page(via, &headers)
}

async fn asset(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    gateway.0.web.asset(&path, via, &headers)
}

async fn root_file(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    request: Request,
) -> Response {
    gateway.0.web.file(
        request.uri().path().trim_start_matches('/'),
        "no-cache",
        via,
        request.headers(),
    )
}

/// Serving is all that probes ask for; neither store nor nodes nor records are looked at.
async fn alive() -> &'static str {
    "OK"
}

/// As [`alive`], once the addresses that this replica shares with others are served by it too.
async fn ready(State(gateway): State<Gateway>) -> Response {
    match gateway.0.unshared.load(Ordering::Acquire) {
        0 => alive().await.into_response(),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not all addresses are served yet\n",
        )
            .into_response(),
    }
}

async fn scrape(State(gateway): State<Gateway>, Extension(via): Extension<Via>) -> Response {
    if !via.peer.is_loopback() {
        return nothing().await;
    }
    (
        [(
            CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        gateway.0.plane.metrics().encode(),
    )
        .into_response()
}

/// A bare 404: SDKs take it as "this version is not spoken here" and fall back.
async fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "not found\n").into_response()
}

/// One span per request, up to its answer; a trace that a client might send along is not taken over.
async fn traced(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(String::new, |route| route.as_str().to_owned());
    let span = tracing::debug_span!(
        "http.request",
        otel.kind = "server",
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

/// Headers that every answer has, unless the page set its own.
async fn sober(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers
        .entry(X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    headers
        .entry(REFERRER_POLICY)
        .or_insert(HeaderValue::from_static("no-referrer"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
