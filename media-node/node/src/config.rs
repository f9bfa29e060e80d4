// SPDX-License-Identifier: EUPL-1.2
//! Command line of the node and what it says once checked. Nothing else configures a node: the rest comes as node facts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use plenum_shell::telemetry;

use crate::stun::SERVERS_MAX;

/// Shards a node may have: the shard number is two hexadecimal digits of an ICE user fragment.
pub const SHARDS_MAX: u8 = 64;
/// Own addresses a node may listen on.
pub const MEDIA_ADDRESSES_MAX: usize = 8;
/// Control-plane endpoints named on the command line.
pub const CONTROL_PLANES_MAX: usize = 16;

/// How shards share ports (`decisions.md` §3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ports {
    /// All shards bind one port; a datagram of another shard's flow is handed over.
    #[value(name = "SinglePort")]
    SinglePort,
    /// Shard `i` binds base + `i`; candidates name the shard's port.
    #[value(name = "PortPerShard")]
    PortPerShard,
}

/// The command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "media-node",
    version,
    about = "Plenum's media node: rooms and the forwarding of their media"
)]
pub struct Args {
    /// Where the RoomHost service listens; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT")]
    pub grpc_listen: SocketAddr,
    /// Directory with ca.crt, tls.crt and tls.key (PEM).
    #[arg(long, value_name = "DIR")]
    pub tls_dir: PathBuf,
    /// Control-plane replica to attach to; may be repeated, further ones are learnt from it.
    #[arg(
        long,
        value_name = "HOST:PORT",
        required = true,
        value_delimiter = ',',
        env = "PLENUM_CONTROL_PLANE"
    )]
    pub control_plane: Vec<String>,
    /// Uid of this node's MediaNode object; its certificate names the same.
    #[arg(long, value_name = "UID", env = "NODE_UID")]
    pub node_uid: String,
    /// Own address that media are received on; may be repeated or a list with commas, IPv4 and IPv6. In a pod: its addresses. What
    /// is offered to clients are the addresses of the node's facts.
    #[arg(
        long,
        value_name = "IP",
        required = true,
        value_delimiter = ',',
        env = "POD_IPS"
    )]
    pub media_address: Vec<IpAddr>,
    /// Media port (UDP, and TCP for ICE-TCP); the first of several with PortPerShard.
    #[arg(long, value_name = "PORT")]
    pub media_port: u16,
    /// How shards share ports.
    #[arg(long, value_enum, default_value = "SinglePort")]
    pub ports: Ports,
    /// Threads that forward media.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub shards: u8,
    /// Where `/metrics` is served, and the probes too (plaintext, for the scraper of the same host or cluster).
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Where `/livez`, `/readyz` and `/metrics` are served (plaintext, for the kubelet); may be the address of --metrics-listen.
    #[arg(long, value_name = "IP:PORT")]
    pub probe_listen: Option<SocketAddr>,
    /// STUN server that is asked where others see this node, for the operator to offer; may be repeated, the first that answers counts.
    #[arg(long, value_name = "HOST:PORT")]
    pub stun_server: Vec<String>,
    /// Log and traces.
    #[command(flatten)]
    pub telemetry: telemetry::Options,
}

/// What is wrong with a command line that parses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Shards out of range.
    #[error("--shards {0}: between 1 and {SHARDS_MAX} are possible")]
    Shards(u8),
    /// No port for the last shard.
    #[error(
        "--media-port {base}: with PortPerShard and {shards} shards the last port would exceed 65535"
    )]
    PortRange {
        /// First port.
        base: u16,
        /// Number of shards.
        shards: u8,
    },
    /// Port 0 with several sockets.
    #[error("--media-port 0 takes any free port, which works with one shard and one address only")]
    AnyPort,
    /// A list is too long or empty.
    #[error("{option}: between 1 and {max} are possible")]
    Count {
        /// The option.
        option: &'static str,
        /// Its bound.
        max: usize,
    },
    /// No address that can be offered.
    #[error("--media-address {0}: an address that others can send to is needed")]
    Address(IpAddr),
    /// The uid does not fit.
    #[error("--node-uid: between 1 and 63 letters, digits, '-', '_' or '.' are possible")]
    Uid,
    /// An endpoint is not `host:port`.
    #[error("--control-plane {0}: not of the form HOST:PORT")]
    Endpoint(String),
    /// A STUN server is not `host:port`.
    #[error("--stun-server {0}: not of the form HOST:PORT")]
    StunServer(String),
}

impl Args {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return Err(ConfigError::Shards(self.shards));
        }
        if self.ports == Ports::PortPerShard
            && self
                .media_port
                .checked_add(u16::from(self.shards) - 1)
                .is_none()
        {
            return Err(ConfigError::PortRange {
                base: self.media_port,
                shards: self.shards,
            });
        }
        if self.media_port == 0 && (self.shards > 1 || self.media_address.len() > 1) {
            return Err(ConfigError::AnyPort);
        }
        if self.media_address.is_empty() || self.media_address.len() > MEDIA_ADDRESSES_MAX {
            return Err(ConfigError::Count {
                option: "--media-address",
                max: MEDIA_ADDRESSES_MAX,
            });
        }
        if let Some(address) = self
            .media_address
            .iter()
            .find(|address| address.is_unspecified() || address.is_multicast())
        {
            return Err(ConfigError::Address(*address));
        }
        if self.control_plane.is_empty() || self.control_plane.len() > CONTROL_PLANES_MAX {
            return Err(ConfigError::Count {
                option: "--control-plane",
                max: CONTROL_PLANES_MAX,
            });
        }
        if let Some(endpoint) = self
            .control_plane
            .iter()
            .find(|endpoint| !is_endpoint(endpoint))
        {
            return Err(ConfigError::Endpoint(endpoint.clone()));
        }
        if self.stun_server.len() > SERVERS_MAX {
            return Err(ConfigError::Count {
                option: "--stun-server",
                max: SERVERS_MAX,
            });
        }
        if let Some(server) = self.stun_server.iter().find(|server| !is_endpoint(server)) {
            return Err(ConfigError::StunServer(server.clone()));
        }
        if !is_uid(&self.node_uid) {
            return Err(ConfigError::Uid);
        }
        Ok(())
    }

    /// Port of a shard.
    #[must_use]
    pub fn port_of(&self, shard: u8) -> u16 {
        match self.ports {
            Ports::SinglePort => self.media_port,
            Ports::PortPerShard => self.media_port.saturating_add(u16::from(shard)),
        }
    }
}

/// Is `text` of the form `host:port`?
#[must_use]
pub fn is_endpoint(text: &str) -> bool {
    text.len() <= 260
        && text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(['/', '@', ' '])
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

fn is_uid(uid: &str) -> bool {
    !uid.is_empty()
        && uid.len() <= 63
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &[&str]) -> Result<Args, clap::Error> {
        let base = [
            "media-node",
            "--grpc-listen",
            "127.0.0.1:0",
            "--tls-dir",
            "/tmp",
            "--control-plane",
            "localhost:7881",
            "--node-uid",
            "u-1",
            "--media-address",
            "127.0.0.1",
            "--media-port",
            "20000",
        ];
        Args::try_parse_from(base.into_iter().chain(extra.iter().copied()))
    }

    #[test]
    fn the_contract_of_the_command_line_parses() {
        let args = parse(&[
            "--ports",
            "PortPerShard",
            "--shards",
            "3",
            "--media-address",
            "::1",
            "--log-format",
            "json",
        ])
        .expect("parses");
        args.check().expect("valid");
        assert_eq!(args.port_of(2), 20002);
        assert_eq!(args.media_address.len(), 2);
    }

    #[test]
    fn impossible_numbers_are_refused_by_name() {
        let refuse = |extra: &[&str]| parse(extra).expect("parses").check().expect_err("refused");
        assert_eq!(refuse(&["--shards", "0"]), ConfigError::Shards(0));
        assert_eq!(refuse(&["--shards", "65"]), ConfigError::Shards(65));
        assert!(matches!(
            refuse(&["--media-address", "0.0.0.0"]),
            ConfigError::Address(_)
        ));
        assert!(matches!(
            refuse(&["--control-plane", "http://x/"]),
            ConfigError::Endpoint(_)
        ));
        let mut args = parse(&["--shards", "2", "--ports", "PortPerShard"]).expect("parses");
        args.media_port = u16::MAX;
        assert!(matches!(args.check(), Err(ConfigError::PortRange { .. })));
        args.media_port = 0;
        assert_eq!(args.check(), Err(ConfigError::AnyPort));
        assert!(matches!(
            refuse(&["--stun-server", "stun.example"]),
            ConfigError::StunServer(_)
        ));
        args.node_uid = "a/b".into();
        args.media_port = 1;
        assert_eq!(args.check(), Err(ConfigError::Uid));
    }
}
