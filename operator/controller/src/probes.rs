// SPDX-License-Identifier: EUPL-1.2
//! `/livez` and `/readyz` for the kubelet, `/metrics` for Prometheus.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, extract::State, http::StatusCode, http::header, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::{lease::Role, telemetry::Metrics};

/// What the probes ask for.
#[derive(Clone)]
pub struct Health {
    /// All watches have shown everything once.
    pub stores: Arc<AtomicBool>,
    /// It is known who leads.
    pub roles: watch::Receiver<Role>,
    /// The process is asked to stop.
    pub stopping: Arc<AtomicBool>,
}

impl Health {
    /// Why the process is not ready.
    fn hindrance(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("stopping");
        }
        if !self.stores.load(Ordering::Relaxed) {
            return Some("objects are not read yet");
        }
        match *self.roles.borrow() {
            Role::Unknown => Some("it is not known who leads"),
            Role::Lapsed { .. } => Some("the API server is away"),
            Role::Following | Role::Leading { .. } => None,
        }
    }
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Listens.
///
/// # Errors
/// [`ListenError`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Answers the kubelet. That this is answered at all means that the process makes progress: nothing else counts for `/livez`, so that an
/// API server that is away restarts nobody.
pub async fn serve_probes(listener: TcpListener, health: Health) {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(health);
    serve(listener, router).await;
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    match health.hindrance() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Answers Prometheus.
pub async fn serve_metrics(listener: TcpListener, metrics: Metrics) {
    let router = Router::new()
        .route(
            "/metrics",
            get(async |State(metrics): State<Metrics>| {
                const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, TYPE)], metrics.text())
            }),
        )
        .with_state(metrics);
    serve(listener, router).await;
}

async fn serve(listener: TcpListener, router: Router) {
    // It does not end by itself.
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(event = "ProbesFailed", error = %error, "probes and metrics are not answered any more");
    }
}
