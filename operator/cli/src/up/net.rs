// SPDX-License-Identifier: EUPL-1.2
//! Addresses and ports of this machine.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use operator_core::WantedNode;
use plenum_api::media_pool::IpFamily;

/// The machine's own primary addresses, IPv4 first. Connecting a UDP socket sends nothing: the kernel only looks up which
/// address it would send from. The destinations are reserved for documentation (RFC 5737, RFC 3849).
pub(crate) fn primary_addresses() -> Vec<IpAddr> {
    let ways: [(IpAddr, IpAddr); 2] = [
        (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        ),
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    ];
    let own = ways.into_iter().filter_map(|(from, to)| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    let own: Vec<IpAddr> = own
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified() && !is_link_local(*ip))
        .collect();
    if own.is_empty() {
        // Without a route to the world a machine may still have an address, and Firefox needs one.
        let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        return local_addresses(&table).into_iter().take(1).collect();
    }
    own
}

/// IPv4 addresses that the kernel takes as the machine's own, in the order of its table.
fn local_addresses(table: &str) -> Vec<IpAddr> {
    let mut lines = table.lines().map(str::trim).peekable();
    let mut found: Vec<IpAddr> = Vec::new();
    while let Some(line) = lines.next() {
        let address = line.strip_prefix("|-- ").and_then(|text| text.parse().ok());
        let is_own = lines.peek().is_some_and(|below| *below == "/32 host LOCAL");
        let Some(address) =
            address.filter(|ip: &IpAddr| is_own && !ip.is_loopback() && !is_link_local(*ip))
        else {
            continue;
        };
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Without a zone nobody else can send to it.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Addresses for media: what was asked for, or loopback and the primary ones, because Firefox uses no loopback candidates.
pub(crate) fn media_addresses(wanted: &[IpAddr]) -> Vec<IpAddr> {
    if !wanted.is_empty() {
        return wanted.to_vec();
    }
    std::iter::once(Ipv4Addr::LOCALHOST.into())
        .chain(primary_addresses())
        .collect()
}

/// Addresses of the families that a pool offers.
pub(crate) fn of_families(addresses: &[IpAddr], families: &[IpFamily]) -> Vec<IpAddr> {
    let offered = |ip: &&IpAddr| {
        families.contains(if ip.is_ipv4() {
            &IpFamily::IPv4
        } else {
            &IpFamily::IPv6
        })
    };
    addresses.iter().filter(offered).copied().collect()
}

/// A free TCP port of an address.
pub(crate) fn free_port(ip: IpAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind((ip, 0))?.local_addr()
}

/// Free TCP ports of an address, all different.
pub(crate) fn free_ports(ip: IpAddr, count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((ip, 0)))
        .collect::<Result<_, _>>()?;
    held.iter().map(TcpListener::local_addr).collect()
}

/// Whether nobody has a port for media.
pub(crate) fn is_free(port: u16, addresses: &[IpAddr]) -> bool {
    addresses
        .iter()
        .all(|ip| UdpSocket::bind((*ip, port)).is_ok() && TcpListener::bind((*ip, port)).is_ok())
}

/// A pool's range has no port left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "MediaPool {pool}: no free port for node {node} in {min}-{max}; widen spec.network's range, or run fewer nodes"
)]
pub(crate) struct NoPort {
    pool: String,
    node: String,
    min: u16,
    max: u16,
}

/// First media port of each node. A node keeps the one it has; a new one takes the next block of its pool's range that no
/// other node holds and `free` says yes to. Blocks are [`BLOCK`] ports apart where the range has room for that.
pub(crate) fn assign(
    wanted: &[WantedNode],
    held: &BTreeMap<String, u16>,
    free: impl Fn(u16) -> bool,
) -> Result<BTreeMap<String, u16>, NoPort> {
    let mut ports: BTreeMap<String, u16> = BTreeMap::new();
    let mut taken: Vec<(u16, u16)> = Vec::new();
    for node in wanted {
        let kept = held.get(&node.uid).filter(|port| {
            let last = port.saturating_add(node.ports_needed() - 1);
            (node.ports.min..=node.ports.max).contains(port) && last <= node.ports.max
        });
        if let Some(port) = kept {
            taken.push((*port, port.saturating_add(node.ports_needed() - 1)));
            ports.insert(node.uid.clone(), *port);
        }
    }
    // Nodes on their way out hold theirs as well.
    taken.extend(
        held.iter()
            .filter(|(uid, _)| !ports.contains_key(*uid))
            .map(|(_, port)| (*port, *port)),
    );
    for node in wanted {
        if ports.contains_key(&node.uid) {
            continue;
        }
        let needed = node.ports_needed();
        let wide = (node.ports.min..=node.ports.max).step_by(usize::from(BLOCK.max(needed)));
        let narrow = (node.ports.min..=node.ports.max).step_by(usize::from(needed));
        let fits = |first: &u16| {
            let Some(last) = first
                .checked_add(needed - 1)
                .filter(|last| *last <= node.ports.max)
            else {
                return false;
            };
            taken.iter().all(|(from, to)| last < *from || *to < *first)
                && (*first..=last).all(&free)
        };
        let Some(first) = wide.chain(narrow).find(fits) else {
            return Err(NoPort {
                pool: node.pool.to_string(),
                node: node.name.clone(),
                min: node.ports.min,
                max: node.ports.max,
            });
        };
        taken.push((first, first.saturating_add(needed - 1)));
        ports.insert(node.uid.clone(), first);
    }
    Ok(ports)
}

/// Distance of two nodes' ports, so that a node that grows by shards keeps its first port.
const BLOCK: u16 = 16;

#[cfg(test)]
mod tests {
    use operator_core::Name;
    use plenum_api::media_pool::{Mux, PortRange};

    use super::*;

    fn node(index: u32, min: u16, max: u16) -> WantedNode {
        WantedNode {
            pool: Name::new("media", "local"),
            name: format!("local-{index}"),
            uid: format!("u{index}"),
            ports: PortRange { min, max },
            mux: Mux::SinglePort,
            shards: 1,
            families: vec![IpFamily::IPv4],
        }
    }

    #[test]
    fn own_addresses_are_read_from_the_kernels_table_once() {
        let part = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     +-- 10.0.0.0/24 2 0 2\n        |-- 10.0.0.0\n           /24 link UNICAST\n        \
            |-- 10.0.0.7\n           /32 host LOCAL\n        |-- 10.0.0.255\n           /32 link BROADCAST\n     \
            |-- 127.0.0.1\n           /32 host LOCAL\n     |-- 169.254.1.1\n        /32 host LOCAL\n";
        let table = format!("{part}Local:\n{part}");
        let own: IpAddr = "10.0.0.7".parse().expect("an address");
        assert_eq!(local_addresses(&table), [own]);
        assert_eq!(local_addresses(""), Vec::<IpAddr>::new());
    }

    #[test]
    fn nodes_keep_their_ports_and_never_share_one() {
        let two = [node(0, 20_000, 20_255), node(1, 20_000, 20_255)];
        let first = assign(&two, &BTreeMap::new(), |_| true).expect("room");
        assert_eq!((first["u0"], first["u1"]), (20_000, 20_016));
        let three = [
            node(2, 20_000, 20_255),
            node(1, 20_000, 20_255),
            node(0, 20_000, 20_255),
        ];
        let more = assign(&three, &first, |port| port != 20_032).expect("room");
        assert_eq!(
            (more["u0"], more["u1"], more["u2"]),
            (20_000, 20_016, 20_048)
        );
        let leaving = assign(&[node(2, 20_000, 20_255)], &first, |_| true).expect("room");
        assert_eq!(leaving["u2"], 20_032);
    }

    #[test]
    fn a_small_range_is_used_up_before_it_is_refused() {
        let nodes: Vec<WantedNode> = (0..4).map(|index| node(index, 30, 33)).collect();
        let ports = assign(&nodes, &BTreeMap::new(), |_| true).expect("room for four");
        let mut all: Vec<u16> = ports.into_values().collect();
        all.sort_unstable();
        assert_eq!(all, [30, 31, 32, 33]);
        let mut nodes = nodes;
        nodes.push(node(4, 30, 33));
        let refused = assign(&nodes, &BTreeMap::new(), |_| true).expect_err("full");
        assert!(refused.to_string().contains("local-4"), "{refused}");
    }

    #[test]
    fn shards_with_ports_of_their_own_get_a_block() {
        let mut nodes = [node(0, 100, 160), node(1, 100, 160)];
        for node in &mut nodes {
            (node.mux, node.shards) = (Mux::PortPerShard, 20);
        }
        let ports = assign(&nodes, &BTreeMap::new(), |_| true).expect("room");
        assert_eq!((ports["u0"], ports["u1"]), (100, 120));
    }
}
