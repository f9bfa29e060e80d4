// SPDX-License-Identifier: EUPL-1.2
//! Options of `plenum up` that belong together, checked before anything is started.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
};

use operator_core::{Confidential, Name, Objects};
use plenum_api::names;

use super::net;
use crate::args;

/// Secrets of the examples and of SDK documentation: everybody knows them.
const PUBLIC_SECRETS: &[&str] = &[
    "secretsecretsecretsecretsecretsecret",
    "an-example-secret-change-it-before-use",
];
const PUBLIC_KEYS: &[&str] = &["devkey"];

/// Options, checked.
#[derive(Debug)]
pub(crate) struct Options {
    /// Where manifests are.
    pub(crate) paths: Vec<PathBuf>,
    /// Where pages are served.
    pub(crate) http: SocketAddr,
    /// Own addresses for media.
    pub(crate) media: Vec<IpAddr>,
    /// State directory.
    pub(crate) state_dir: PathBuf,
    /// Whether public keys may be used by others.
    pub(crate) insecure_dev_keys: bool,
    /// Where each replica of the control plane is reached alone. One replica is reached at `http` alone.
    pub(crate) replicas: Vec<SocketAddr>,
    /// The store that they share.
    pub(crate) redis: Option<Redis>,
    /// Where receivers of webhooks may live beside this machine and public addresses.
    pub(crate) webhook_networks: Vec<String>,
}

/// The store of several replicas.
#[derive(Debug)]
pub(crate) struct Redis {
    /// Its URL, which may hold a password.
    pub(crate) url: Confidential<String>,
    /// CA of its certificate.
    pub(crate) ca: Option<PathBuf>,
    /// Part of every key; `None` = the state directory's own.
    pub(crate) namespace: Option<String>,
}

/// Replicas on one machine.
pub(crate) const REPLICAS_MAX: u32 = 8;

/// What is wrong with the options.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    /// Several copies without a store.
    #[error(
        "--replicas {0}: several replicas share their state through Redis, and there is no --redis; give --redis URL, or leave it at 1"
    )]
    ReplicasWithoutRedis(u32),
    /// Not a network.
    #[error("--webhook-network {0}: not of the form ADDRESS/PREFIX, as in 10.0.0.0/8 or fd12::/16")]
    WebhookNetwork(String),
    /// No copy at all.
    #[error("--replicas 0: without a control plane nobody can join; leave it at 1")]
    NoReplica,
    /// Too many copies.
    #[error("--replicas {0}: at most {REPLICAS_MAX} run on one machine; more are no safer there")]
    TooManyReplicas(u32),
    /// No URL of a Redis. The text may hold a password, so it is not repeated.
    #[error(
        "--redis: not of the form redis://HOST[:PORT], rediss://HOST[:PORT] for TLS, or with user and password as redis://USER:PASSWORD@HOST[:PORT]"
    )]
    RedisUrl,
    /// The namespace does not fit.
    #[error(
        "--redis-namespace {0}: between 1 and 63 lower-case letters, digits and '-' are possible"
    )]
    RedisNamespace(String),
    /// The CA cannot be read.
    #[error("--redis-ca {}: {source}", path.display())]
    RedisCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No port for a replica.
    #[error("--replicas {count}: no free port on loopback: {source}")]
    ReplicaPort {
        /// How many are wanted.
        count: u32,
        /// Why.
        source: io::Error,
    },
    /// The port is taken.
    #[error(
        "--http-port {port}: {ip}:{port} is in use by another program, or by another plenum up; stop it, or choose another port with --http-port"
    )]
    PortInUse {
        /// Address.
        ip: IpAddr,
        /// Port.
        port: u16,
    },
    /// The address is not this machine's.
    #[error("--bind {0}: this machine has no such address; use one of its own, or 0.0.0.0 for all")]
    NotOwn(IpAddr),
    /// Another reason.
    #[error("--bind {ip} --http-port {port}: {source}")]
    Bind {
        /// Address.
        ip: IpAddr,
        /// Port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The media address is not this machine's.
    #[error(
        "--media-address {ip}: media cannot be sent from there: {source}; use an address of this machine"
    )]
    Media {
        /// Address.
        ip: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// Too many.
    #[error("--media-address: {0} are given, at most {MEDIA_ADDRESSES_MAX} are possible")]
    TooManyMedia(usize),
    /// A key that everybody knows.
    #[error(
        "--bind {ip}: Secret {secret} holds an API key that stands in public documentation, and with --bind others could use it; give it an own key and secret, or add --insecure-dev-keys"
    )]
    PublicKey {
        /// Address.
        ip: IpAddr,
        /// The Secret.
        secret: Name,
    },
}

/// As many as a media node takes.
const MEDIA_ADDRESSES_MAX: usize = 8;

/// Is it a network in CIDR notation?
fn is_network(text: &str) -> bool {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        Some((address, prefix.parse::<u8>().ok()?))
    });
    parsed.is_some_and(|(address, prefix)| prefix <= if address.is_ipv4() { 32 } else { 128 })
}

impl Options {
    /// Checks what can be checked before anything is read.
    pub(crate) fn new(args: &args::Up) -> Result<Self, OptionsError> {
        let redis = redis(args)?;
        match args.replicas {
            0 => return Err(OptionsError::NoReplica),
            1 => {}
            more if redis.is_none() => return Err(OptionsError::ReplicasWithoutRedis(more)),
            more if more > REPLICAS_MAX => return Err(OptionsError::TooManyReplicas(more)),
            _ => {}
        }
        if let Some(wrong) = args.webhook_network.iter().find(|text| !is_network(text)) {
            return Err(OptionsError::WebhookNetwork(wrong.clone()));
        }
        if args.media_address.len() > MEDIA_ADDRESSES_MAX {
            return Err(OptionsError::TooManyMedia(args.media_address.len()));
        }
        for ip in &args.media_address {
            let refuse = |source| OptionsError::Media { ip: *ip, source };
            if ip.is_unspecified() {
                return Err(refuse(io::Error::other("others cannot send to it")));
            }
            UdpSocket::bind((*ip, 0)).map_err(refuse)?;
        }
        let (ip, port) = (args.bind, args.http_port);
        let listener = TcpListener::bind((ip, port)).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => OptionsError::PortInUse { ip, port },
            io::ErrorKind::AddrNotAvailable => OptionsError::NotOwn(ip),
            _ => OptionsError::Bind { ip, port, source },
        })?;
        // Port 0 takes a free one, and keeps it over restarts of the control plane.
        let http =
            listener
                .local_addr()
                .map_err(|source| OptionsError::Bind { ip, port, source })?;
        Ok(Self {
            paths: args.files.clone(),
            replicas: replica_addresses(http, args.replicas)?,
            redis,
            http,
            media: net::media_addresses(&args.media_address),
            state_dir: args.state.path(),
            insecure_dev_keys: args.insecure_dev_keys,
            webhook_networks: args.webhook_network.clone(),
        })
    }

    /// Whether several replicas share the address of the pages.
    pub(crate) fn is_shared(&self) -> bool {
        self.replicas.len() > 1
    }

    /// Whether others can reach the pages.
    pub(crate) fn is_public(&self) -> bool {
        !self.http.ip().is_loopback()
    }

    /// Address at which this machine reaches its own pages.
    pub(crate) fn local_http(&self) -> SocketAddr {
        local(self.http)
    }

    /// Base address for people.
    pub(crate) fn url(&self) -> String {
        let ip = match self.http.ip() {
            ip if ip.is_unspecified() => net::primary_addresses()
                .first()
                .copied()
                .unwrap_or(self.local_http().ip()),
            ip => ip,
        };
        let scheme = if self.is_public() { "https" } else { "http" };
        format!("{scheme}://{}", SocketAddr::new(ip, self.http.port()))
    }

    /// Whether the manifests may be served under these options.
    pub(crate) fn judge(&self, objects: &Objects) -> Result<(), OptionsError> {
        if !self.is_public() || self.insecure_dev_keys {
            return Ok(());
        }
        for (name, secret) in &objects.secrets {
            if secret.type_ != names::SECRET_TYPE_API_KEY {
                continue;
            }
            let holds = |key: &str, known: &[&str]| {
                secret.text(key).is_some_and(|text| known.contains(&text))
            };
            if holds(names::SECRET_KEY_API_SECRET, PUBLIC_SECRETS)
                || holds(names::SECRET_KEY_API_KEY, PUBLIC_KEYS)
            {
                return Err(OptionsError::PublicKey {
                    ip: self.http.ip(),
                    secret: name.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Address at which this machine reaches what listens.
fn local(listening: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// One address for each replica: the shared one where there is nobody to share it with.
fn replica_addresses(http: SocketAddr, count: u32) -> Result<Vec<SocketAddr>, OptionsError> {
    if count == 1 {
        return Ok(vec![local(http)]);
    }
    net::free_ports(Ipv4Addr::LOCALHOST.into(), count as usize)
        .map_err(|source| OptionsError::ReplicaPort { count, source })
}

fn redis(args: &args::Up) -> Result<Option<Redis>, OptionsError> {
    let Some(url) = args.redis.clone().filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    let named = url
        .split_once("://")
        .is_some_and(|(scheme, rest)| scheme.starts_with("redis") && !rest.is_empty());
    if !named {
        return Err(OptionsError::RedisUrl);
    }
    let fits = |name: &String| {
        (1..=63).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if let Some(name) = args.redis_namespace.clone().filter(|name| !fits(name)) {
        return Err(OptionsError::RedisNamespace(name));
    }
    // The replicas run elsewhere than the shell.
    let absolute = |path: &PathBuf| {
        path.canonicalize().map_err(|source| OptionsError::RedisCa {
            path: path.clone(),
            source,
        })
    };
    Ok(Some(Redis {
        url: Confidential(url),
        ca: args.redis_ca.as_ref().map(absolute).transpose()?,
        namespace: args.redis_namespace.clone(),
    }))
}
