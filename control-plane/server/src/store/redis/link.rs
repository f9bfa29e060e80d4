// SPDX-License-Identifier: EUPL-1.2
//! The way to Redis: one multiplexed connection, a deadline for every call, a breaker after failures in a row, a probe that closes it
//! again. A call never connects; only the probe does.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Metric;
use prometheus_client::metrics::histogram::Histogram;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, TlsMode,
    Value,
};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::Instrument;

use super::address::{Address, Kind};
use super::keys::{Family, Namespace};
use super::scripts::{self, Script};
use crate::store::StoreError;

/// A call that takes longer has failed.
pub const DEADLINE: Duration = Duration::from_millis(250);
/// Failures in a row after which nobody is asked any more until a probe succeeds.
const FAILURES_MAX: u32 = 3;
/// Time between probes.
const PROBE: Duration = Duration::from_secs(1);
/// Connecting to one server may take this long.
const CONNECT: Duration = Duration::from_secs(1);
/// Finding the right server among several may take this long.
const SEEK: Duration = Duration::from_secs(5);

/// Buckets of the duration of calls; the last is the deadline.
const CALL_SECONDS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/// Labels of calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    script: &'static str,
    outcome: &'static str,
}

/// Labels of what cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Unread {
    family: &'static str,
}

/// Counters of a store.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Calls by script and outcome.
    pub(super) calls: Metric<Call, Counter>,
    /// How long calls took, those included that failed.
    pub(super) seconds: Histogram,
    /// Values that cannot be read.
    pub(super) broken: Metric<Unread, Counter>,
    /// Connections made.
    pub(super) connections: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            calls: Metric::default(),
            seconds: Histogram::new(CALL_SECONDS),
            broken: Metric::default(),
            connections: Counter::default(),
        }
    }
}

impl Counters {
    /// Counts what cannot be read.
    pub(super) fn unread(&self, family: Family) -> StoreError {
        let key_family = family.as_str();
        self.broken
            .get_or_create(&Unread { family: key_family })
            .inc();
        StoreError::Broken { key_family }
    }
}

/// Ends of the way.
enum Target {
    Single(Client),
    Sentinel(Sentinel),
    Cluster(Box<ClusterClient>),
}

/// Sentinels, and how to reach what they name.
struct Sentinel {
    /// Without and with the password of Redis: many Sentinels have none, some the same.
    sentinels: Vec<Client>,
    service: String,
    settings: RedisConnectionInfo,
    certificates: Option<TlsCertificates>,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn request(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = match self {
            Self::One(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }?;
        answer.extract_error()
    }
}

/// See the module.
pub(super) struct Link {
    target: Target,
    deadline: Duration,
    connection: RwLock<Option<Connection>>,
    failures: AtomicU32,
    open: AtomicBool,
    wake: Notify,
    probe_key: String,
    pub(super) counters: Counters,
}

/// Why a target cannot be had, whatever the server says.
#[derive(Debug, thiserror::Error)]
#[error("the client of Redis cannot be set up: {0}")]
pub struct SetupError(String);

fn setup(error: &RedisError) -> SetupError {
    // The error of the library may show an address, never a password.
    SetupError(error.to_string())
}

fn client(
    info: ConnectionInfo,
    certificates: Option<&TlsCertificates>,
) -> Result<Client, RedisError> {
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let info = info.set_redis_settings(settings);
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        None => Client::open(info),
    }
}

fn target(
    address: &Address,
    ca: Option<Vec<u8>>,
    deadline: Duration,
) -> Result<Target, SetupError> {
    let certificates = address.tls.then_some(TlsCertificates {
        client_tls: None,
        root_cert: ca,
    });
    let certificates = certificates.as_ref();
    let first = || {
        address
            .hosts
            .first()
            .ok_or_else(|| SetupError("no server is named".into()))
    };
    match address.kind {
        Kind::Single => {
            let client = client(first()?.clone(), certificates).map_err(|error| setup(&error))?;
            Ok(Target::Single(client))
        }
        Kind::Sentinel => {
            let settings = first()?.redis_settings().clone();
            let bare = address.hosts.iter().map(|host| {
                let none = RedisConnectionInfo::default();
                client(host.clone().set_redis_settings(none), certificates)
            });
            let known = address
                .hosts
                .iter()
                .filter(|_| settings.password().is_some())
                .map(|host| client(host.clone(), certificates));
            let sentinels: Result<Vec<Client>, RedisError> = bare.chain(known).collect();
            Ok(Target::Sentinel(Sentinel {
                sentinels: sentinels.map_err(|error| setup(&error))?,
                service: address.service.clone(),
                settings,
                certificates: certificates.cloned(),
            }))
        }
        Kind::Cluster => {
            let settings = first()?.redis_settings().clone();
            let mut builder = ClusterClient::builder(address.hosts.clone())
                .connection_timeout(CONNECT)
                .response_timeout(deadline)
                .retries(2);
            if let Some(username) = settings.username() {
                builder = builder.username(username);
            }
            if let Some(password) = settings.password() {
                builder = builder.password(password);
            }
            if let Some(certificates) = certificates {
                builder = builder.tls(TlsMode::Secure).certs(certificates.clone());
            }
            let client = builder.build().map_err(|error| setup(&error))?;
            Ok(Target::Cluster(Box::new(client)))
        }
    }
}

impl Sentinel {
    /// The primary, as the first Sentinel that answers names it.
    async fn primary(&self, config: &AsyncConnectionConfig) -> Result<Client, RedisError> {
        let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no Sentinel answers"));
        for sentinel in &self.sentinels {
            match timeout(CONNECT, self.ask(sentinel, config)).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => last = error,
                // This one is silent; another one may not be.
                Err(_) => {}
            }
        }
        Err(last)
    }

    async fn ask(
        &self,
        sentinel: &Client,
        config: &AsyncConnectionConfig,
    ) -> Result<Client, RedisError> {
        let mut connection = sentinel
            .get_multiplexed_async_connection_with_config(config)
            .await?;
        let named: Option<(String, u16)> = redis::cmd("SENTINEL")
            .arg("get-master-addr-by-name")
            .arg(&self.service)
            .query_async(&mut connection)
            .await?;
        let unknown = (
            ErrorKind::MasterNameNotFoundBySentinel,
            "the Sentinels do not know the service",
        );
        let (host, port) = named.ok_or_else(|| RedisError::from(unknown))?;
        let at = match &self.certificates {
            Some(_) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
            None => ConnectionAddr::Tcp(host, port),
        };
        let info = at
            .into_connection_info()?
            .set_redis_settings(self.settings.clone());
        client(info, self.certificates.as_ref())
    }
}

/// What an error of Redis means.
enum Failure {
    /// The script refused, and says why.
    Refused(StoreError),
    /// The server does not know the script.
    UnknownScript,
    /// It cannot be asked here any more: another server, or a new connection, may answer.
    Gone,
    /// It cannot be asked now.
    Away,
}

impl Link {
    pub(super) fn new(
        address: &Address,
        ca: Option<Vec<u8>>,
        namespace: &Namespace,
        deadline: Duration,
    ) -> Result<Self, SetupError> {
        // Whoever came first has chosen the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let [probe_key, ..] = namespace.ledger();
        Ok(Self {
            target: target(address, ca, deadline)?,
            deadline,
            connection: RwLock::new(None),
            failures: AtomicU32::new(0),
            open: AtomicBool::new(true),
            wake: Notify::new(),
            probe_key,
            counters: Counters::default(),
        })
    }

    /// Runs a script.
    pub(super) async fn call(
        &self,
        script: &'static Script,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<Value, StoreError> {
        let span = tracing::debug_span!("store.call", script = script.name);
        let asked = Instant::now();
        let answer = self.call_in_span(script, keys, args).instrument(span).await;
        self.counters.seconds.observe(asked.elapsed().as_secs_f64());
        let outcome = match &answer {
            Ok(_) => "Done",
            Err(StoreError::Away) => "Away",
            Err(StoreError::Full { .. }) => "Full",
            Err(StoreError::Broken { .. }) => "Broken",
        };
        let script = script.name;
        self.counters
            .calls
            .get_or_create(&Call { script, outcome })
            .inc();
        answer
    }

    async fn call_in_span(
        &self,
        script: &'static Script,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<Value, StoreError> {
        if self.open.load(Ordering::Acquire) {
            return Err(StoreError::Away);
        }
        let Some(connection) = self.connection() else {
            return Err(StoreError::Away);
        };
        self.run(connection, script, keys, args).await
    }

    /// Runs a script on a connection and keeps account of failures.
    async fn run(
        &self,
        mut connection: Connection,
        script: &'static Script,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<Value, StoreError> {
        let call = async {
            let by_hash = command("EVALSHA", script.hash(), keys, args);
            match connection.request(&by_hash).await {
                Err(error)
                    if matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoScript)) =>
                {
                    let by_text = command("EVAL", script.text(), keys, args);
                    connection.request(&by_text).await
                }
                answer => answer,
            }
        };
        let failure = match timeout(self.deadline, call).await {
            Ok(Ok(value)) => {
                self.failures.store(0, Ordering::Release);
                return Ok(value);
            }
            Ok(Err(error)) => {
                tracing::debug!(script = script.name, %error, "Redis refused a call");
                self.judge(script, &error)
            }
            Err(_) => Failure::Away,
        };
        match failure {
            Failure::Refused(error) => {
                self.failures.store(0, Ordering::Release);
                return Err(error);
            }
            Failure::Gone => self.disconnect(),
            Failure::Away | Failure::UnknownScript => {}
        }
        let failures = self
            .failures
            .fetch_add(1, Ordering::AcqRel)
            .saturating_add(1);
        if failures >= FAILURES_MAX && !self.open.swap(true, Ordering::AcqRel) {
            tracing::debug!("Redis is not asked any more until it answers a probe");
        }
        Err(StoreError::Away)
    }

    fn judge(&self, script: &Script, error: &RedisError) -> Failure {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => Failure::UnknownScript,
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::Moved,
            ) => Failure::Gone,
            // The script itself stumbled: over something under its keys that is none of Plenum's.
            ErrorKind::Server(ServerErrorKind::ResponseError)
                if error
                    .detail()
                    .is_some_and(|detail| detail.starts_with("user_script:")) =>
            {
                tracing::warn!(event = "StoreScriptFailed", script = script.name, %error, "a script of the store stumbled");
                Failure::Refused(self.counters.unread(script.family))
            }
            ErrorKind::Server(_) => {
                self.explain(error);
                Failure::Away
            }
            ErrorKind::Extension => {
                let family = error
                    .detail()
                    .and_then(|detail| detail.split_whitespace().next())
                    .and_then(Family::parse);
                match (error.code(), family) {
                    (Some("BROKEN"), Some(family)) => {
                        Failure::Refused(self.counters.unread(family))
                    }
                    _ => {
                        self.explain(error);
                        Failure::Away
                    }
                }
            }
            _ => Failure::Gone,
        }
    }

    /// What people must put right is said where they look for it, once per stretch of failures.
    fn explain(&self, error: &RedisError) {
        if self.failures.load(Ordering::Acquire) == 0 {
            let code = error.code().unwrap_or_default();
            tracing::warn!(event = "StoreRefused", code, %error, "Redis refuses to serve the store");
        }
    }

    fn connection(&self) -> Option<Connection> {
        self.connection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn disconnect(&self) {
        *self
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner) = None;
        self.wake.notify_one();
    }

    /// Connects, and asks whether the server would write, until the store is dropped. While all is well it asks nothing.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            let connected = self.connection().is_some();
            if !connected || self.open.load(Ordering::Acquire) {
                self.probe().await;
            }
            // A connection that is lost is sought at once, then each second.
            if connected {
                let _ = timeout(PROBE, self.wake.notified()).await;
            } else {
                tokio::time::sleep(PROBE).await;
            }
        }
    }

    async fn probe(&self) {
        let connection = match self.connection() {
            Some(connection) => connection,
            None => match timeout(SEEK, self.connect()).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "Redis cannot be reached");
                    return;
                }
                Err(_) => return,
            },
        };
        let keys = [self.probe_key.clone()];
        let answer = self
            .run(connection.clone(), &scripts::PING, &keys, &[])
            .await;
        let mut kept = self
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match answer {
            // A foreign value under the key of the probe is no reason to ask nothing.
            Ok(_) | Err(StoreError::Broken { .. } | StoreError::Full { .. }) => {
                *kept = Some(connection);
                drop(kept);
                if self.open.swap(false, Ordering::AcqRel) {
                    tracing::debug!("Redis answers");
                }
            }
            // It may be the wrong server by now: the next probe seeks the right one.
            Err(StoreError::Away) => {
                *kept = None;
                drop(kept);
                self.open.store(true, Ordering::Release);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        // Each call has its own deadline.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(None);
        let connection = match &self.target {
            Target::Single(client) => Connection::One(
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?,
            ),
            Target::Sentinel(sentinel) => Connection::One(
                sentinel
                    .primary(&config)
                    .await?
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?,
            ),
            Target::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        };
        self.counters.connections.inc();
        Ok(connection)
    }
}

/// An argument of a script.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A number.
    Number(u64),
    /// An epoch, with all its digits.
    Epoch(u64),
    /// The number of a request.
    Request(u128),
}

fn command(name: &str, script: &str, keys: &[String], args: &[Arg<'_>]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(keys.len());
    for key in keys {
        command.arg(key);
    }
    for arg in args {
        match arg {
            Arg::Text(text) => command.arg(*text),
            Arg::Bytes(bytes) => command.arg(*bytes),
            Arg::Number(number) => command.arg(*number),
            Arg::Epoch(epoch) => command.arg(format!("{epoch:020}")),
            Arg::Request(request) => command.arg(format!("{request:032x}")),
        };
    }
    command
}
