// SPDX-License-Identifier: EUPL-1.2
//! Clients of the API server: one that counts its calls and writes only while this process leads, and one for the lease, which does
//! not repeat calls.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use http::{Method, Request, Response, Uri};
use kube::{Client, Config, client::ClientBuilder};
use tower::{BoxError, Layer, Service};

use crate::telemetry::Metrics;

/// Both clients.
pub struct Clients {
    /// For everything.
    pub common: Client,
    /// For the lease: a call that fails fails at once.
    pub lease: Client,
    /// Until when the first may write.
    pub fence: Fence,
}

/// Until when this process may write. A process that was paused goes on in the middle of whatever it did, and learns only a moment later
/// that somebody else leads by now; what it had in hand then must not be written.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// Writes may begin until then; `None`: not at all.
    pub fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn admits(&self, method: &Method, now: Instant) -> Result<(), NotLeading> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *method == Method::GET || until.is_some_and(|until| now < until) {
            Ok(())
        } else {
            Err(NotLeading)
        }
    }
}

/// A write was not begun.
#[derive(Debug, thiserror::Error)]
#[error("nothing is written: this process does not lead, or its lease has run out")]
pub struct NotLeading;

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
    let fence = Fence::default();
    Ok(Clients {
        common: ClientBuilder::try_from(config)?
            .with_layer(&layer)
            .with_layer(&fence)
            .build(),
        lease: ClientBuilder::try_from(impatient)?
            .with_layer(&layer)
            .build(),
        fence,
    })
}

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced {
            inner,
            fence: self.clone(),
        }
    }
}

/// Behind a [`Fence`].
#[derive(Clone)]
pub struct Fenced<S> {
    inner: S,
    fence: Fence,
}

impl<S, B, R> Service<Request<B>> for Fenced<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.fence.admits(request.method(), Instant::now()) {
            Ok(()) => {
                let call = self.inner.call(request);
                Box::pin(async move { call.await.map_err(Into::into) })
            }
            Err(refused) => Box::pin(async move { Err(refused.into()) }),
        }
    }
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
    use std::{convert::Infallible, time::Duration};

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn only_who_leads_begins_to_write_and_everybody_reads() {
        let fence = Fence::default();
        let server = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let client = fence.layer(server);
        let ask = async |method: Method| {
            let request = Request::builder().method(method).body(())?;
            client.clone().oneshot(request).await
        };
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let now = Instant::now();
        for (until, may) in [
            (None, false),
            (now.checked_add(Duration::from_secs(600)), true),
            // Nobody had the time to say so: the process was paused.
            (now.checked_sub(Duration::from_millis(1)), false),
        ] {
            fence.set(until);
            assert!(ask(Method::GET).await.is_ok());
            for method in &writes {
                let outcome = ask(method.clone()).await;
                assert_eq!(outcome.is_ok(), may, "{method} with {until:?}");
                if let Err(error) = outcome {
                    assert!(error.is::<NotLeading>(), "{error}");
                }
            }
        }
    }

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
