// SPDX-License-Identifier: EUPL-1.2
//! The cluster of a kubeconfig: one thin client over plain JSON, so that objects of another version are shown as they are,
//! and errors that say what to do.

pub(crate) mod args;
mod bundle;
mod drain;
mod probe;
mod redact;
mod report;
mod status;
mod tar;

use std::{path::Path, process::ExitCode, time::Duration};

use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use plenum_api::names::{API_VERSION, GROUP, VERSION};
use serde_json::{Value, json};

use crate::{FAILED, fail};
use args::Access;

/// How long a connection may take to come about; the API server is asked again by whoever calls.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// Objects per page of a list.
const PAGE: usize = 500;
/// Objects of one list that are read; a cluster holds at most 10,000 conferences.
pub(crate) const OBJECTS_MAX: usize = 20_000;

/// Why a cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// Nothing says where the cluster is.
    #[error(
        "no cluster to speak with: {0}; set KUBECONFIG, or name --kubeconfig FILE and --context NAME"
    )]
    NoKubeconfig(String),
    /// The credentials cannot be had.
    #[error(
        "the credentials of the kubeconfig cannot be used: {0}; log in again, `kubectl get nodes` must work"
    )]
    Credentials(String),
    /// Nobody answers.
    #[error(
        "the API server at {server} does not answer: {why}; check the route to it, or name another cluster with --context"
    )]
    Unreachable {
        /// Address of the API server.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// 401.
    #[error(
        "the API server at {0} does not know you; log in again, `kubectl auth whoami` must work"
    )]
    Unauthorized(String),
    /// 403.
    #[error("{0}; whoever administers the cluster can allow it, docs/rbac.md lists the roles")]
    Forbidden(String),
    /// The kinds are not there.
    #[error(
        "the cluster at {0} knows no kinds of plenum.dev; install the chart there, or name another cluster with --context"
    )]
    NotInstalled(String),
    /// 404.
    #[error("{0} is not there")]
    NotFound(String),
    /// 409.
    #[error("{0} was changed by somebody else at the same time; try again")]
    Conflict(String),
    /// 422 and whatever else the API server refuses.
    #[error("the API server refuses it: {0}")]
    Refused(String),
    /// An answer that cannot be read.
    #[error(
        "the API server at {server} answers in a form that this plenum does not know: {why}; use the version of the chart"
    )]
    Unknown {
        /// Address of the API server.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// What was asked for makes no sense; says what to do instead.
    #[error("{0}")]
    Asked(String),
    /// A file cannot be written or read.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

/// A connection to an API server.
pub(crate) struct Cluster {
    client: kube::Client,
    /// Address of the API server.
    pub(crate) server: String,
    /// Namespace that was named.
    pub(crate) namespace: Option<String>,
    /// Namespace of the context.
    pub(crate) default_namespace: String,
}

/// A list, and whether it holds all there is.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// Objects, with kind and version filled in.
    pub(crate) items: Vec<Value>,
    /// There are more than are read.
    pub(crate) cut: bool,
}

impl Cluster {
    /// Reads the kubeconfig; without one, takes the credentials of the pod it runs in.
    pub(crate) async fn connect(access: &Access) -> Result<Self, ClusterError> {
        // Fails only where somebody has set one already, and then it is this one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let options = KubeConfigOptions {
            context: access.context.clone(),
            ..KubeConfigOptions::default()
        };
        let missing = |error: &dyn std::fmt::Display| ClusterError::NoKubeconfig(error.to_string());
        let mut config = if let Some(file) = &access.kubeconfig {
            let read = Kubeconfig::read_from(file).map_err(|error| missing(&error))?;
            Config::from_custom_kubeconfig(read, &options)
                .await
                .map_err(|error| missing(&error))?
        } else if access.context.is_some() {
            Config::from_kubeconfig(&options)
                .await
                .map_err(|error| missing(&error))?
        } else {
            match Config::from_kubeconfig(&options).await {
                Ok(config) => config,
                Err(error) => Config::incluster().map_err(|_| missing(&error))?,
            }
        };
        config.connect_timeout = Some(CONNECT);
        let server = config.cluster_url.to_string();
        let server = server.trim_end_matches('/').to_owned();
        let default_namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config)
            .map_err(|error| ClusterError::Credentials(error.to_string()))?;
        Ok(Self {
            client,
            server,
            namespace: access.namespace.clone(),
            default_namespace,
        })
    }

    async fn answer<T>(
        &self,
        what: &str,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.explain(what, error)),
            Err(_) => Err(ClusterError::Unreachable {
                server: self.server.clone(),
                why: format!("nothing within {} s", ANSWER.as_secs()),
            }),
        }
    }

    /// What an error of the client means to the person at the keyboard.
    fn explain(&self, what: &str, error: kube::Error) -> ClusterError {
        let server = self.server.clone();
        match error {
            kube::Error::Api(status) => {
                let message = status.message.clone();
                match status.code {
                    401 => ClusterError::Unauthorized(server),
                    403 => ClusterError::Forbidden(message),
                    404 => ClusterError::NotFound(what.to_owned()),
                    409 => ClusterError::Conflict(what.to_owned()),
                    429 | 500..=599 => ClusterError::Unreachable {
                        server,
                        why: message,
                    },
                    _ => ClusterError::Refused(message),
                }
            }
            kube::Error::Auth(error) => ClusterError::Credentials(error.to_string()),
            kube::Error::SerdeError(error) => ClusterError::Unknown {
                server,
                why: error.to_string(),
            },
            other => ClusterError::Unreachable {
                server,
                why: innermost(&other),
            },
        }
    }

    fn request(
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<http::Request<Vec<u8>>, ClusterError> {
        http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body)
            .map_err(|error| ClusterError::Asked(format!("{path} is no path: {error}")))
    }

    /// Reads one object or document.
    pub(crate) async fn get(&self, what: &str, path: &str) -> Result<Value, ClusterError> {
        let request = Self::request("GET", path, "application/json", Vec::new())?;
        self.answer(what, self.client.request(request)).await
    }

    /// Reads a text, for logs.
    pub(crate) async fn text(&self, what: &str, path: &str) -> Result<String, ClusterError> {
        let request = Self::request("GET", path, "application/json", Vec::new())?;
        self.answer(what, self.client.request_text(request)).await
    }

    /// Sends a body.
    pub(crate) async fn send(
        &self,
        method: &str,
        what: &str,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Value, ClusterError> {
        let request = Self::request(method, path, content_type, body.to_string().into_bytes())?;
        self.answer(what, self.client.request(request)).await
    }

    /// Reads a list page by page.
    pub(crate) async fn list(
        &self,
        what: &str,
        path: &str,
        query: &str,
        max: usize,
    ) -> Result<Listed, ClusterError> {
        let mut listed = Listed::default();
        let mut from = String::new();
        loop {
            let page = format!("{path}?limit={PAGE}{query}{from}");
            let mut answer = self.get(what, &page).await?;
            let version = answer["apiVersion"].clone();
            let kind = answer["kind"].as_str().unwrap_or_default();
            let kind = kind.strip_suffix("List").unwrap_or(kind).to_owned();
            if let Value::Array(items) = answer["items"].take() {
                for mut item in items {
                    if listed.items.len() == max {
                        listed.cut = true;
                        return Ok(listed);
                    }
                    if let Some(members) = item.as_object_mut() {
                        members.insert("apiVersion".to_owned(), version.clone());
                        members.insert("kind".to_owned(), json!(kind));
                    }
                    if let Some(metadata) = item["metadata"].as_object_mut() {
                        metadata.remove("managedFields");
                    }
                    listed.items.push(item);
                }
            }
            match answer["metadata"]["continue"].as_str() {
                None | Some("") => return Ok(listed),
                Some(token) => from = format!("&continue={}", escaped(token)),
            }
        }
    }

    /// Objects of a kind of ours, of all namespaces or of the one that was named.
    pub(crate) async fn objects(&self, kind: &str) -> Result<Listed, ClusterError> {
        let path = collection(kind, self.namespace.as_deref()).ok_or_else(|| {
            ClusterError::Asked(format!("{kind} is no kind of this plenum's version"))
        })?;
        self.list(&format!("kind {kind}"), &path, "", OBJECTS_MAX)
            .await
    }
}

/// Path of the objects of a kind of ours; a namespace is left out where the kind has none.
pub(crate) fn collection(kind: &str, namespace: Option<&str>) -> Option<String> {
    let names = &plenum_api::crd(kind)?.spec;
    let plural = &names.names.plural;
    Some(match namespace.filter(|_| names.scope == "Namespaced") {
        Some(namespace) => {
            format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}")
        }
        None => format!("/apis/{GROUP}/{VERSION}/{plural}"),
    })
}

/// A value for a query: everything that is not plainly a letter or digit becomes `%xx`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The cause at the bottom: the wrappers of HTTP clients say nothing to people.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// The text of a member; `""` where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// What is done, with a kubeconfig.
fn block_on<T>(work: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ClusterError::Io("cannot start the runtime".to_owned(), error))?
        .block_on(work)
}

fn finish(result: Result<ExitCode, ClusterError>) -> ExitCode {
    result.unwrap_or_else(|error| fail(FAILED, &error.to_string()))
}

/// `status`.
pub(crate) fn status(access: &Access, options: &args::Status) -> ExitCode {
    finish(block_on(async {
        status::run(&Cluster::connect(access).await?, options).await
    }))
}

/// `drain`.
pub(crate) fn drain(access: &Access, options: &args::Drain) -> ExitCode {
    finish(block_on(async {
        drain::run(&Cluster::connect(access).await?, options).await
    }))
}

/// `uncordon`.
pub(crate) fn uncordon(access: &Access, options: &args::Uncordon) -> ExitCode {
    finish(block_on(async {
        drain::uncordon(&Cluster::connect(access).await?, options).await
    }))
}

/// `report`.
pub(crate) fn report(access: &Access, options: &args::Report) -> ExitCode {
    finish(block_on(async {
        report::run(&Cluster::connect(access).await?, options).await
    }))
}

/// `probe`.
pub(crate) fn probe(access: &Access, options: &args::Probe) -> ExitCode {
    finish(block_on(probe::run(access, options)))
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ClusterError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|error| ClusterError::Io(path.display().to_string(), error))
}

/// A new object of a kind of ours.
fn object(kind: &str, metadata: &Value, spec: &Value) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_scope_of_the_kind() {
        assert_eq!(
            collection("MediaNode", Some("media")).as_deref(),
            Some("/apis/plenum.dev/v1alpha1/namespaces/media/medianodes")
        );
        assert_eq!(
            collection("Tenant", Some("media")).as_deref(),
            Some("/apis/plenum.dev/v1alpha1/tenants")
        );
        assert_eq!(collection("Pod", None), None);
    }

    #[test]
    fn what_a_person_typed_cannot_leave_its_place_in_a_query() {
        assert_eq!(escaped("a&watch=1/b c"), "a%26watch%3D1%2Fb%20c");
    }
}
