// SPDX-License-Identifier: EUPL-1.2
//! Clients of the API server: one that counts its calls, and one that does not repeat them, for the lease.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Method, Request, Response, Uri};
use kube::{Client, Config, client::ClientBuilder};
use tower::{Layer, Service};

use crate::telemetry::Metrics;

/// Both clients.
pub struct Clients {
    /// For everything.
    pub common: Client,
    /// For the lease: a call that fails fails at once.
    pub lease: Client,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither in a cluster nor with a kubeconfig.
    #[error("no way to an API server: {0}; run in a cluster, or set KUBECONFIG")]
    Infer(#[from] kube::config::InferConfigError),
    /// The way cannot be used.
    #[error("the client of the API server: {0}")]
    Build(#[from] kube::Error),
}

/// Connects, by the surroundings.
///
/// # Errors
/// [`ClientError`].
pub async fn connect(metrics: &Metrics) -> Result<Clients, ClientError> {
    let config = Config::infer().await?;
    let mut impatient = config.clone();
    impatient.default_retry = false;
    let layer = Count(metrics.clone());
    Ok(Clients {
        common: ClientBuilder::try_from(config)?.with_layer(&layer).build(),
        lease: ClientBuilder::try_from(impatient)?
            .with_layer(&layer)
            .build(),
    })
}

/// Counts calls.
#[derive(Clone)]
struct Count(Metrics);

impl<S> Layer<S> for Count {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            metrics: self.0.clone(),
        }
    }
}

#[derive(Clone)]
struct Counted<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (verb, resource) = asked(request.method(), request.uri());
        let metrics = self.metrics.clone();
        let call = self.inner.call(request);
        Box::pin(async move {
            let outcome = call.await;
            let code = outcome
                .as_ref()
                .map_or(0, |response| response.status().as_u16());
            metrics.api_request(verb, &resource, code);
            outcome
        })
    }
}

/// Verb and resource as RBAC names them. There are as many as this program has kinds of calls: names of objects are not in it.
fn asked(method: &Method, uri: &Uri) -> (&'static str, String) {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    // `api/v1` or `apis/GROUP/VERSION`.
    match parts.next() {
        Some("api") => drop(parts.next()),
        Some("apis") => {
            parts.next();
            parts.next();
        }
        _ => return ("get", "other".to_owned()),
    }
    let mut parts: Vec<&str> = parts.collect();
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    let named = parts.len() > 1;
    let resource = match (parts.first(), parts.get(2)) {
        (Some(resource), Some(part)) => format!("{resource}/{part}"),
        (Some(resource), None) => (*resource).to_owned(),
        (None, _) => "other".to_owned(),
    };
    let query = uri.query().unwrap_or_default();
    let verb = match method.as_str() {
        "GET" if query.split('&').any(|pair| pair == "watch=true") => "watch",
        "GET" if named => "get",
        "GET" => "list",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_what_rbac_calls_them_and_never_by_name() {
        for (method, path, verb, resource) in [
            ("GET", "/api/v1/namespaces/a/pods/b", "get", "pods"),
            ("GET", "/api/v1/pods?watch=true&x=y", "watch", "pods"),
            ("GET", "/api/v1/namespaces", "list", "namespaces"),
            ("GET", "/api/v1/namespaces/a", "get", "namespaces"),
            (
                "PATCH",
                "/apis/plenum.dev/v1alpha1/tenants/t/status?x",
                "patch",
                "tenants/status",
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
                "update",
                "leases",
            ),
            (
                "POST",
                "/apis/plenum.dev/v1alpha1/namespaces/a/medianodes",
                "create",
                "medianodes",
            ),
            ("GET", "/version", "get", "other"),
        ] {
            let uri: Uri = path.parse().expect("a path");
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(asked(&method, &uri), (verb, resource.to_owned()), "{path}");
        }
    }
}
