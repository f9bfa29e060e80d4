// SPDX-License-Identifier: EUPL-1.2
//! What the tests of a real node need around it: a CA, a control plane that is a real tonic server, clients on real sockets.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod clients;
mod control_plane;
mod pki;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use media_node::config::Args;
use media_node::node::Node;
use plenum_proto::v1::NodeFacts;

pub(crate) use clients::{Call, Session, act_until, key, policy, session_start};
pub(crate) use control_plane::{ControlPlane, address, facts};
pub(crate) use pki::{Pki, Role};

pub(crate) const UID: &str = "node-uid-1";
/// Everything that is waited for happens within this, or never.
pub(crate) const LIVENESS: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + LIVENESS;
    while !condition().await {
        assert!(Instant::now() < until, "{what}: did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Loopback addresses of this machine; says loudly when IPv6 is left out.
pub(crate) fn loopbacks() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => addresses.push(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        Err(error) => eprintln!("SKIPPED: IPv6, because this machine has no ::1 ({error})"),
    }
    addresses
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// One scrape of `/metrics`, with its head.
pub(crate) async fn scrape_text(address: SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("the metrics listener answers");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .await
        .expect("request");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("response");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("# EOF"), "OpenMetrics ends with # EOF");
    text
}

/// The value of a series, labels included as written.
pub(crate) async fn scrape(address: SocketAddr, series: &str) -> Option<f64> {
    let text = scrape_text(address).await;
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// First of `count` ports that are free for UDP and TCP on all `addresses`; below the range the kernel hands out itself.
fn free_ports(addresses: &[IpAddr], count: u16) -> u16 {
    let base = 22_000 + (std::process::id() % 1_000) as u16 * 8;
    for _ in 0..500 {
        let first = base + NEXT_PORT.fetch_add(count, Ordering::Relaxed) % 1_000;
        let free = addresses.iter().all(|ip| {
            (first..first + count).all(|port| {
                let address = SocketAddr::new(*ip, port);
                UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
            })
        });
        if free {
            return first;
        }
    }
    panic!("no free ports");
}

/// How a node is started.
pub(crate) struct Setting<'a> {
    pub(crate) ports: &'a str,
    pub(crate) shards: u8,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) control_planes: Vec<String>,
    pub(crate) stun_servers: Vec<String>,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self {
            ports: "SinglePort",
            shards: 1,
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            control_planes: Vec::new(),
            stun_servers: Vec::new(),
        }
    }
}

impl Setting<'_> {
    /// The command line, with free ports.
    pub(crate) fn line(&self, tls_dir: &str) -> Vec<String> {
        let port = free_ports(&self.addresses, u16::from(self.shards));
        let mut line: Vec<String> = [
            "media-node",
            "--grpc-listen",
            "127.0.0.1:0",
            "--tls-dir",
            tls_dir,
            "--node-uid",
            UID,
            "--media-port",
            &port.to_string(),
            "--ports",
            self.ports,
            "--shards",
            &self.shards.to_string(),
            "--metrics-listen",
            "127.0.0.1:0",
        ]
        .map(str::to_owned)
        .into();
        for address in &self.addresses {
            line.extend(["--media-address".to_owned(), address.to_string()]);
        }
        for endpoint in &self.control_planes {
            line.extend(["--control-plane".to_owned(), endpoint.clone()]);
        }
        for server in &self.stun_servers {
            line.extend(["--stun-server".to_owned(), server.clone()]);
        }
        line
    }
}

/// A node in this process with one replica of a control plane.
pub(crate) struct World {
    pub(crate) pki: Pki,
    pub(crate) plane: ControlPlane,
    pub(crate) node: Node,
}

impl World {
    /// Starts both and waits until the node takes rooms.
    pub(crate) async fn start(mut setting: Setting<'_>) -> Self {
        let pki = Pki::new();
        let named = setting.addresses.iter();
        let named = NodeFacts {
            addresses: named.map(|ip| address(SocketAddr::new(*ip, 0))).collect(),
            ..facts(true)
        };
        let plane = ControlPlane::start(&pki, Some(named)).await;
        setting.control_planes.push(plane.endpoint());
        let node = start_node(&pki, &setting).await;
        plane.wait_accepting().await;
        Self { pki, plane, node }
    }

    /// The control plane's way to the node.
    pub(crate) async fn call(&self) -> Call {
        Call::connect(&self.pki, self.node.grpc_address(), Role::ControlPlane).await
    }
}

/// Starts a node in this process.
pub(crate) async fn start_node(pki: &Pki, setting: &Setting<'_>) -> Node {
    let args = Args::try_parse_from(setting.line("unused")).expect("the line parses");
    args.check().expect("the line is sound");
    Node::start(&args, pki.tls(Role::Node))
        .await
        .expect("the node starts")
}
