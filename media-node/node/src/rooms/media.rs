// SPDX-License-Identifier: EUPL-1.2
//! Where clients are told to send their media.

use std::net::SocketAddr;

use media_core::ids::ShardId;
use media_core::io::Protocol;
use media_room::api::Candidate;
use plenum_proto::v1::NodeFacts;

use crate::config::Ports;

/// How media of the node are reached.
#[derive(Clone, Copy, Debug)]
pub struct Media {
    /// First port, as really bound; for facts that name none.
    pub port: u16,
    /// How shards share ports.
    pub ports: Ports,
    /// Is ICE-TCP accepted on the same numbers?
    pub tcp: bool,
}

impl Media {
    /// Candidates of a shard: the facts' addresses and no other. Where the sockets are bound is no business of clients: in a pod it
    /// is an address behind the one that they reach.
    pub(super) fn candidates(self, facts: &NodeFacts, shard: ShardId) -> Vec<Candidate> {
        let offset = match self.ports {
            Ports::SinglePort => 0,
            Ports::PortPerShard => u16::from(shard.0),
        };
        let addresses: Vec<SocketAddr> = facts
            .addresses
            .iter()
            .filter_map(|address| {
                let port = u16::try_from(address.port)
                    .ok()
                    .filter(|port| *port != 0)
                    .unwrap_or(self.port);
                Some(SocketAddr::new(
                    address.ip.parse().ok()?,
                    port.saturating_add(offset),
                ))
            })
            .collect();
        let protocols: &[Protocol] = if self.tcp {
            &[Protocol::Udp, Protocol::Tcp]
        } else {
            &[Protocol::Udp]
        };
        protocols
            .iter()
            .flat_map(|protocol| {
                addresses.iter().map(|address| Candidate {
                    protocol: *protocol,
                    address: *address,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use plenum_proto::v1::Address;

    use super::*;

    fn offered(ports: Ports, addresses: &[(&str, u32)], shard: u8) -> Vec<(Protocol, SocketAddr)> {
        let facts = NodeFacts {
            addresses: addresses
                .iter()
                .map(|(ip, port)| Address {
                    ip: (*ip).to_owned(),
                    port: *port,
                })
                .collect(),
            ..Default::default()
        };
        let media = Media {
            port: 20_000,
            ports,
            tcp: true,
        };
        let candidates = media.candidates(&facts, ShardId(shard)).into_iter();
        candidates
            .map(|candidate| (candidate.protocol, candidate.address))
            .collect()
    }

    #[test]
    fn exactly_the_addresses_of_the_facts_are_offered() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let public = [("203.0.113.7", 31_000), ("2001:db8::7", 31_000)];
        let both = [at("203.0.113.7:31000"), at("[2001:db8::7]:31000")];
        let expected: Vec<_> = [Protocol::Udp, Protocol::Tcp]
            .into_iter()
            .flat_map(|protocol| both.map(|address| (protocol, address)))
            .collect();
        assert_eq!(offered(Ports::SinglePort, &public, 1), expected);
        assert_eq!(
            offered(Ports::PortPerShard, &public[..1], 2),
            [
                (Protocol::Udp, at("203.0.113.7:31002")),
                (Protocol::Tcp, at("203.0.113.7:31002"))
            ]
        );
        assert_eq!(
            offered(Ports::SinglePort, &[("203.0.113.7", 0)], 0)[0].1,
            at("203.0.113.7:20000"),
            "without a port: the one that is bound"
        );
        assert!(offered(Ports::SinglePort, &[], 0).is_empty());
    }
}
