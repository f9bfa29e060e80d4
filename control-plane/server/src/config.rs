// SPDX-License-Identifier: EUPL-1.2
//! Command line of the control plane, and what it says once checked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use control_core::webhook::Network;
use plenum_shell::telemetry;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::peers::PEERS_MAX;
use crate::seal::{SealKeyError, SealKeys};
use crate::store::redis;
use crate::store::redis::address::{Address, AddressError};
use crate::store::redis::keys::Namespace;

/// What keys in Redis are named after where nobody says otherwise.
const NAMESPACE: &str = "local";

/// HTTP listeners of one replica.
pub const HTTP_LISTENERS_MAX: usize = 16;
/// Shortest installation key.
pub const INSTALLATION_KEY_BYTES_MIN: usize = 32;
/// Longest file that is read as a key.
const INSTALLATION_KEY_BYTES_MAX: u64 = 4_096;

/// Where leases, facts and counters are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// In this process; one replica.
    Memory,
    /// In Redis, for any number of replicas.
    Redis,
}

/// A text that may hold a password; never printed.
#[derive(Clone)]
pub struct SecretText(String);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// Prints the ACL rule that the control plane's user needs in Redis, then ends. The password is to be added.
#[derive(Clone, Debug, Parser)]
#[command(name = "control-plane redis-acl", version)]
pub struct RedisAcl {
    /// As with the control plane itself.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    pub redis_namespace: String,
}

impl RedisAcl {
    /// The word that asks for it.
    pub const COMMAND: &str = "redis-acl";

    /// The rule.
    ///
    /// # Errors
    /// [`ConfigError::RedisNamespace`].
    pub fn rule(&self) -> Result<String, ConfigError> {
        Ok(redis::acl::rule(&namespace(&self.redis_namespace)?))
    }
}

/// The command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "control-plane",
    version,
    about = "Plenum's control plane: gateway, directory and placement",
    after_help = "control-plane redis-acl [--redis-namespace NAME] prints the ACL rule for Redis."
)]
pub struct Args {
    /// Name of this replica, unique among the replicas.
    #[arg(long, value_name = "ID", env = "POD_NAME")]
    pub replica_id: String,
    /// Where the gateway listens; may be repeated. Plaintext is for loopback only.
    #[arg(long, value_name = "IP:PORT", required = true)]
    pub http_listen: Vec<SocketAddr>,
    /// Where the gateway listens besides, together with other replicas of the same user on this machine (SO_REUSEPORT); may be repeated.
    #[arg(long, value_name = "IP:PORT")]
    pub http_shared: Vec<SocketAddr>,
    /// Where `/livez`, `/readyz` and `/metrics` are served besides, in plaintext, for the kubelet and the scraper of the same cluster.
    #[arg(long, value_name = "IP:PORT")]
    pub probe_listen: Option<SocketAddr>,
    /// Directory with tls.crt and tls.key of the gateway; read again when they change.
    #[arg(long, value_name = "DIR")]
    pub http_tls_dir: Option<PathBuf>,
    /// Where Directory and NodeControl listen, with mTLS; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT")]
    pub grpc_listen: SocketAddr,
    /// Directory with ca.crt, tls.crt and tls.key for gRPC; read again when they change.
    #[arg(long, value_name = "DIR")]
    pub tls_dir: PathBuf,
    /// How nodes reach this replica; by default the address of --grpc-listen, in a pod with the pod's IP.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// This pod's own address, named to nodes where --grpc-listen takes all addresses and nothing is advertised.
    #[arg(long, value_name = "IP", env = "POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// Base URL that clients are sent to; by default derived from each request.
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// File with at least 32 random bytes that sign the control plane's own tokens.
    #[arg(long, value_name = "FILE")]
    pub installation_key_file: PathBuf,
    /// Where leases, facts and counters are kept.
    #[arg(long, value_enum, default_value = "memory")]
    pub store: StoreKind,
    /// Where Redis is: redis://[USER:PASSWORD@]HOST[:PORT][/DB], redis+sentinel://[USER:PASSWORD@]HOST:PORT,…/SERVICE or
    /// redis+cluster://[USER:PASSWORD@]HOST:PORT,…; rediss for TLS. The environment keeps a password off the command line.
    #[arg(
        long,
        value_name = "URL",
        env = "PLENUM_REDIS_URL",
        hide_env_values = true
    )]
    pub redis_url: Option<SecretText>,
    /// PEM file with the authorities that sign the certificate of Redis; by default those of the system.
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// What the keys in Redis are named after; installations that share a Redis differ here.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    pub redis_namespace: String,
    /// File with the 32 random bytes that seal records in the store, and after them the 32 of the key before; needed with --store redis.
    #[arg(long, value_name = "FILE")]
    pub seal_key_file: Option<PathBuf>,
    /// How another replica is reached by nodes; may be repeated. A name with several addresses stands for all of them, this replica's among
    /// them or not.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: Vec<String>,
    /// Lets the published devkey be used on an address that others reach.
    #[arg(long)]
    pub insecure_dev_keys: bool,
    /// Network, as in 10.0.0.0/8, in which receivers of webhooks may live beside public addresses; may be repeated.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub webhook_network: Vec<Network>,
    /// Log and traces.
    #[command(flatten)]
    pub telemetry: telemetry::Options,
}

/// Where leases, facts and counters are kept, checked.
#[derive(Clone, Debug)]
pub enum StoreChoice {
    /// In this process.
    Memory,
    /// In Redis.
    Redis(redis::Options),
}

/// What nodes dial: `advertise`, or the address that was bound, with the pod's own IP where that means all of them.
#[must_use]
pub fn reachable(advertise: Option<String>, bound: SocketAddr, pod_ip: Option<IpAddr>) -> String {
    advertise.unwrap_or_else(|| match pod_ip {
        Some(ip) if bound.ip().is_unspecified() => SocketAddr::new(ip, bound.port()).to_string(),
        _ => bound.to_string(),
    })
}

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this replica.
    pub replica_id: String,
    /// Where the gateway listens.
    pub http_listen: Vec<SocketAddr>,
    /// Where it listens together with other replicas.
    pub http_shared: Vec<SocketAddr>,
    /// Its certificates; `None` = plaintext on loopback.
    pub http_tls_dir: Option<PathBuf>,
    /// Where the gRPC services listen.
    pub grpc_listen: SocketAddr,
    /// Certificates of gRPC.
    pub tls_dir: PathBuf,
    /// How nodes reach this replica; `None` = the address that was bound.
    pub advertise: Option<String>,
    /// Stands in for a bound address that means all of them.
    pub pod_ip: Option<IpAddr>,
    /// Where probes are answered.
    pub probe_listen: Option<SocketAddr>,
    /// Base URL for clients, without a slash at its end; `None` = by request.
    pub public_url: Option<String>,
    /// Signs own tokens.
    pub installation_key: control_core::ids::Secret,
    /// Where leases are kept.
    pub store: StoreChoice,
    /// Seal records in the store; `None` = by a key of this process alone.
    pub seal_keys: Option<Arc<SealKeys>>,
    /// How nodes reach the other replicas.
    pub peers: Vec<String>,
    /// May the published devkey be used on any bind?
    pub insecure_dev_keys: bool,
    /// Where receivers of webhooks may live beside public addresses.
    pub webhook_networks: Vec<Network>,
}

/// What is wrong with a command line that parses.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Redis has no address.
    #[error("--store redis: say where Redis is with --redis-url URL or PLENUM_REDIS_URL")]
    RedisUrlMissing,
    /// An address, and nobody to use it.
    #[error(
        "--redis-url or PLENUM_REDIS_URL is given, but the store is in memory: add --store redis"
    )]
    RedisUnused,
    /// The address is wrong.
    #[error("--redis-url {0}")]
    RedisUrl(AddressError),
    /// The name is wrong.
    #[error("--redis-namespace {0:?}: lower-case letters, digits and inner '-', at most 63")]
    RedisNamespace(String),
    /// Authorities, and nothing that they sign.
    #[error("--redis-ca: the URL of Redis is not one of TLS; begin it with rediss")]
    RedisCaUnused,
    /// Authorities that cannot be had.
    #[error("--redis-ca {}: is no readable PEM file with certificates", path.display())]
    RedisCa {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The id does not fit.
    #[error("--replica-id: between 1 and 63 letters, digits, '-', '_' or '.' are possible")]
    ReplicaId,
    /// Too many listeners.
    #[error("--http-listen, --http-shared: at most {HTTP_LISTENERS_MAX} are possible")]
    HttpListeners,
    /// Port 0 would give each replica another one.
    #[error("--http-shared {0}: name the port, it is the same for all replicas")]
    SharedPort(SocketAddr),
    /// Plaintext beyond loopback.
    #[error(
        "--http-listen or --http-shared {0}: plaintext is for loopback only; name certificates with --http-tls-dir"
    )]
    Plaintext(SocketAddr),
    /// Not `host:port`.
    #[error("--advertise {0}: not of the form HOST:PORT")]
    Advertise(String),
    /// No address of a pod.
    #[error("--pod-ip {0}: an address that nodes can dial is needed; in a pod it is status.podIP")]
    PodIp(IpAddr),
    /// Unspecified bind without advertise.
    #[error(
        "--grpc-listen {0}: nodes cannot dial that address; say how they reach this replica with --advertise HOST:PORT or --pod-ip IP"
    )]
    NothingToAdvertise(SocketAddr),
    /// Not `host:port`.
    #[error("--peer {0}: not of the form HOST:PORT")]
    Peer(String),
    /// Too many names.
    #[error("--peer: at most {PEERS_MAX} are possible; one name may stand for many addresses")]
    Peers,
    /// No key, and a store that outlives the process.
    #[error(
        "--seal-key-file: is needed where records outlive this process; write 32 random bytes into a file and name it on every replica"
    )]
    SealKeyMissing,
    /// No key in the file.
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
    /// Not an http(s) URL.
    #[error(
        "--public-url {0}: not of the form https://HOST[:PORT][/PATH], or http:// with a loopback host"
    )]
    PublicUrl(String),
    /// The key cannot be read.
    #[error("--installation-key-file {}: cannot be read", path.display())]
    InstallationKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key is too short or too long.
    #[error(
        "--installation-key-file {}: holds {bytes} bytes; between {INSTALLATION_KEY_BYTES_MIN} and {INSTALLATION_KEY_BYTES_MAX} \
         random ones are needed", path.display()
    )]
    InstallationKeySize {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
}

impl Args {
    /// Checks what clap cannot, and reads the installation key.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn validate(self) -> Result<Config, ConfigError> {
        if control_core::ids::Uid::parse(&self.replica_id).is_err() {
            return Err(ConfigError::ReplicaId);
        }
        if self.http_listen.len() + self.http_shared.len() > HTTP_LISTENERS_MAX {
            return Err(ConfigError::HttpListeners);
        }
        if let Some(any) = self.http_shared.iter().find(|address| address.port() == 0) {
            return Err(ConfigError::SharedPort(*any));
        }
        if self.http_tls_dir.is_none()
            && let Some(open) = self
                .http_listen
                .iter()
                .chain(&self.http_shared)
                .find(|address| !address.ip().to_canonical().is_loopback())
        {
            return Err(ConfigError::Plaintext(*open));
        }
        match &self.advertise {
            Some(endpoint) if !is_endpoint(endpoint) => {
                return Err(ConfigError::Advertise(endpoint.clone()));
            }
            None if self.grpc_listen.ip().is_unspecified() && self.pod_ip.is_none() => {
                return Err(ConfigError::NothingToAdvertise(self.grpc_listen));
            }
            _ => {}
        }
        if let Some(ip) = self
            .pod_ip
            .filter(|ip| ip.is_unspecified() || ip.is_multicast())
        {
            return Err(ConfigError::PodIp(ip));
        }
        let public_url = self
            .public_url
            .map(|url| url.trim_end_matches('/').to_owned());
        if let Some(url) = public_url.as_ref().filter(|url| !is_base_url(url)) {
            return Err(ConfigError::PublicUrl(url.clone()));
        }
        if self.peer.len() > PEERS_MAX {
            return Err(ConfigError::Peers);
        }
        if let Some(wrong) = self.peer.iter().find(|peer| !is_endpoint(peer)) {
            return Err(ConfigError::Peer(wrong.clone()));
        }
        let seal_keys = match &self.seal_key_file {
            Some(path) => Some(Arc::new(SealKeys::read(path)?)),
            None if self.store == StoreKind::Memory => None,
            None => return Err(ConfigError::SealKeyMissing),
        };
        let installation_key = read_key(&self.installation_key_file)?;
        let store = store(
            self.store,
            self.redis_url,
            self.redis_ca,
            &self.redis_namespace,
        )?;
        Ok(Config {
            replica_id: self.replica_id,
            http_listen: self.http_listen,
            http_shared: self.http_shared,
            http_tls_dir: self.http_tls_dir,
            grpc_listen: self.grpc_listen,
            tls_dir: self.tls_dir,
            advertise: self.advertise,
            pod_ip: self.pod_ip,
            probe_listen: self.probe_listen,
            public_url,
            installation_key,
            store,
            seal_keys,
            peers: self.peer,
            insecure_dev_keys: self.insecure_dev_keys,
            webhook_networks: self.webhook_network,
        })
    }
}

fn namespace(name: &str) -> Result<Namespace, ConfigError> {
    Namespace::parse(name)
        .ok_or_else(|| ConfigError::RedisNamespace(name.chars().take(64).collect()))
}

/// Where the store is.
fn store(
    kind: StoreKind,
    url: Option<SecretText>,
    ca: Option<PathBuf>,
    name: &str,
) -> Result<StoreChoice, ConfigError> {
    let namespace = namespace(name)?;
    let url = match (kind, url) {
        (StoreKind::Memory, None) => return Ok(StoreChoice::Memory),
        (StoreKind::Memory, Some(_)) => return Err(ConfigError::RedisUnused),
        (StoreKind::Redis, None) => return Err(ConfigError::RedisUrlMissing),
        (StoreKind::Redis, Some(SecretText(url))) => url,
    };
    let address = Address::parse(&url).map_err(ConfigError::RedisUrl)?;
    if ca.is_some() && !address.is_tls() {
        return Err(ConfigError::RedisCaUnused);
    }
    let ca = ca.map(|path| read_authorities(&path)).transpose()?;
    Ok(StoreChoice::Redis(redis::Options {
        address,
        ca,
        namespace,
        deadline: redis::link::DEADLINE,
    }))
}

fn read_authorities(path: &std::path::Path) -> Result<Vec<u8>, ConfigError> {
    let wrong = |source| ConfigError::RedisCa {
        path: path.to_owned(),
        source,
    };
    let pem = std::fs::read(path).map_err(|error| wrong(Some(error)))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(found) if !found.is_empty() => Ok(pem),
        _ => Err(wrong(None)),
    }
}

fn read_key(path: &std::path::Path) -> Result<control_core::ids::Secret, ConfigError> {
    let wrong = |source| ConfigError::InstallationKey {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(wrong)?.len();
    let size = |bytes| ConfigError::InstallationKeySize {
        path: path.to_owned(),
        bytes,
    };
    if bytes > INSTALLATION_KEY_BYTES_MAX {
        return Err(size(bytes));
    }
    let key = std::fs::read(path).map_err(wrong)?;
    if key.len() < INSTALLATION_KEY_BYTES_MIN {
        return Err(size(key.len() as u64));
    }
    Ok(control_core::ids::Secret::new(&key))
}

/// Is `text` of the form `host:port`?
#[must_use]
pub fn is_endpoint(text: &str) -> bool {
    text.len() <= 260
        && text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(['/', '@', ' ', '?', '#'])
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

fn is_base_url(text: &str) -> bool {
    let (rest, secure) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return false,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    let loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    !host.is_empty()
        && text.len() <= 512
        && !text.contains(['@', '?', '#', ' '])
        && (secure || loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_file(bytes: usize) -> PathBuf {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("plenum-config-{}-{number}", std::process::id()));
        std::fs::write(&path, vec![7; bytes]).expect("written");
        path
    }

    fn validate(extra: &[&str], key_bytes: usize) -> Result<Config, String> {
        let key = key_file(key_bytes);
        let base = [
            "control-plane",
            "--replica-id",
            "a",
            "--http-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "127.0.0.1:0",
            "--tls-dir",
            "tls",
            "--installation-key-file",
            key.to_str().expect("utf-8"),
        ];
        let args =
            Args::try_parse_from(base.into_iter().chain(extra.iter().copied())).expect("parses");
        let result = args.validate().map_err(|error| error.to_string());
        std::fs::remove_file(key).expect("removed");
        result
    }

    #[test]
    fn the_contract_of_the_command_line_is_taken() {
        let extra = [
            "--http-listen",
            "[::1]:0",
            "--advertise",
            "cp-0.cp:7881",
            "--public-url",
            "https://meet.example/",
            "--store",
            "memory",
            "--insecure-dev-keys",
            "--webhook-network",
            "10.0.0.0/8",
            "--webhook-network",
            "fd12::/16",
            "--log-format",
            "json",
        ];
        let config = validate(&extra, 32).expect("valid");
        assert_eq!(config.http_listen.len(), 2);
        assert_eq!(config.webhook_networks.len(), 2);
        assert_eq!(config.public_url.as_deref(), Some("https://meet.example"));
        assert!(validate(&["--public-url", "http://localhost:7880"], 32).is_ok());
    }

    #[test]
    fn errors_name_the_option_and_the_remedy() {
        let refuse = |extra: &[&str], text: &str| {
            let error = validate(extra, 32).expect_err("refused");
            assert!(error.contains(text), "{error}");
        };
        refuse(&["--http-listen", "192.0.2.1:80"], "--http-tls-dir");
        refuse(&["--http-shared", "192.0.2.1:80"], "--http-tls-dir");
        refuse(&["--http-shared", "127.0.0.1:0"], "name the port");
        refuse(&["--advertise", "nohost"], "HOST:PORT");
        refuse(&["--public-url", "http://meet.example"], "--public-url");
        refuse(&["--public-url", "ftp://x"], "--public-url");
        refuse(&["--public-url", "https://user@x"], "--public-url");
        refuse(&["--redis-url", "redis://h"], "--store redis");
        refuse(&["--redis-namespace", "a:b"], "--redis-namespace");
        refuse(&["--peer", "nohost"], "--peer nohost: not of the form");
        refuse(&["--peer", "a:1"].repeat(17), "--peer: at most 16");
        refuse(&["--seal-key-file", "absent"], "--seal-key-file absent");
        let redis = ["--store", "redis", "--redis-url", "redis://h"];
        refuse(&redis, "--seal-key-file: is needed");
        let short = validate(&[], 31).expect_err("refused");
        assert!(short.contains("31 bytes"), "{short}");
    }

    #[test]
    fn a_store_in_redis_is_checked_at_the_start() {
        let key = key_file(32);
        let file = key.to_str().expect("utf-8");
        let with = |extra: &[&str]| {
            let all = [&["--store", "redis", "--seal-key-file", file], extra].concat();
            validate(&all, 32)
        };
        let config = with(&["--redis-url", "redis://u:hunter2@h"]).expect("valid");
        assert!(matches!(config.store, StoreChoice::Redis(_)));
        assert!(!format!("{config:?}").contains("hunter2"));
        for (extra, text) in [
            (&[][..], "--redis-url URL or PLENUM_REDIS_URL"),
            (&["--redis-url", "http://u:hunter2@h"], "--redis-url begins"),
            (
                &["--redis-url", "redis://h", "--redis-ca", file],
                "begin it with rediss",
            ),
            (
                &["--redis-url", "rediss://h", "--redis-ca", file],
                "no readable PEM file",
            ),
            (
                &["--redis-url", "redis://h", "--redis-namespace", "A"],
                "--redis-namespace",
            ),
        ] {
            let error = with(extra).expect_err("refused");
            assert!(
                error.contains(text) && !error.contains("hunter2"),
                "{error}"
            );
        }
        std::fs::remove_file(key).expect("removed");
    }

    #[test]
    fn a_bind_to_every_address_needs_a_name_to_dial() {
        let key = key_file(32);
        let args = [
            "control-plane",
            "--replica-id",
            "a",
            "--http-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "0.0.0.0:1",
            "--tls-dir",
            "tls",
            "--installation-key-file",
            key.to_str().expect("utf-8"),
        ];
        let error = Args::try_parse_from(args)
            .expect("parses")
            .validate()
            .expect_err("refused");
        assert!(
            matches!(error, ConfigError::NothingToAdvertise(_)),
            "{error}"
        );
        Args::try_parse_from(args.into_iter().chain(["--pod-ip", "10.0.0.3"]))
            .expect("parses")
            .validate()
            .expect("the pod's address is one");
        std::fs::remove_file(key).expect("removed");
    }

    #[test]
    fn a_replica_in_a_pod_names_the_pod_where_it_listens_on_all_addresses() {
        let config = validate(&["--pod-ip", "2001:db8::3"], 32).expect("valid");
        let bound = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 7_882);
        let named = |advertise: Option<&str>, ip: &str| {
            reachable(advertise.map(str::to_owned), bound(ip), config.pod_ip)
        };
        assert_eq!(named(None, "::"), "[2001:db8::3]:7882");
        assert_eq!(named(None, "0.0.0.0"), "[2001:db8::3]:7882");
        assert_eq!(named(None, "10.0.0.1"), "10.0.0.1:7882");
        assert_eq!(named(Some("replica-1:7882"), "::"), "replica-1:7882");
        let refused = validate(&["--pod-ip", "0.0.0.0"], 32).expect_err("refused");
        assert!(refused.contains("--pod-ip"), "{refused}");
    }
}
