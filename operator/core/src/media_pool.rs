// SPDX-License-Identifier: EUPL-1.2
//! `MediaPool`: how many nodes there are, which come, which go, and what surrounds them. Pure: the pool, its nodes and the
//! moment come in, steps and objects go out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use plenum_api::{
    MediaPoolSpec,
    media_node::NodePorts,
    media_pool::{Mux, NetworkType},
    names,
};

use crate::{objects::Name, plan::shards_of};

pub mod autoscale;
pub mod disruption;
pub mod network;
pub mod plan;
pub mod ports;
pub mod revision;
pub mod status;

/// Name of a node and of everything made for it: `<pool>-<revision>-<five letters>`.
///
/// *Shape*: a DNS label, because a Service carries it; a longer pool name is cut, and a dot in it becomes a dash. The
/// letters are the caller's randomness.
#[must_use]
pub fn node_name(pool: &str, revision: &str, seed: u64) -> String {
    let mut name: String = pool
        .chars()
        .map(|letter| if letter == '.' { '-' } else { letter })
        .take(POOL_CHARS_MAX)
        .collect();
    name.truncate(name.trim_end_matches('-').len());
    let letters = LETTERS.len() as u64;
    let mut rest = seed;
    let tail: String = (0..TAIL_CHARS)
        .map(|_| {
            let letter = LETTERS[usize::try_from(rest % letters).unwrap_or(0)];
            rest /= letters;
            char::from(letter)
        })
        .collect();
    format!("{name}-{revision}-{tail}")
}

/// Number of consecutive ports that a node of the pool takes.
#[must_use]
pub fn port_count(spec: &MediaPoolSpec) -> u16 {
    let media = match spec.network.mux {
        Mux::SinglePort => 1,
        Mux::PortPerShard => u16::from(shards_of(spec)),
    };
    media + service_ports(spec)
}

/// The ports of a node that carry media; the others are the node's own.
#[must_use]
pub fn media_ports(spec: &MediaPoolSpec, ports: NodePorts) -> std::ops::Range<u16> {
    let count = ports.count.saturating_sub(service_ports(spec)).max(1);
    ports.base..ports.base.saturating_add(count)
}

/// On the machine's network two more ports: gRPC, then probes and metrics.
fn service_ports(spec: &MediaPoolSpec) -> u16 {
    match spec.network.type_ {
        NetworkType::HostNetwork => 2,
        NetworkType::HostPort
        | NetworkType::NodePort
        | NetworkType::LoadBalancer
        | NetworkType::None => 0,
    }
}

/// Labels of everything that is made for a pool.
#[must_use]
pub fn labels(pool: &str) -> std::collections::BTreeMap<String, String> {
    crate::labels::recommended("media-node", [(names::LABEL_POOL, pool)])
}

/// Metadata of what stands around the nodes of a pool.
///
/// It names no owner: the garbage collector would take budget, Services and policy away at the beginning of a foreground
/// deletion, while the nodes still drain. The pool's finalizer deletes them, once no node is left.
fn metadata(pool: &Name, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(pool.namespace.clone()),
        labels: Some(labels(&pool.name)),
        ..ObjectMeta::default()
    }
}

/// Longest part of a node's name that comes from the pool: a DNS label less revision, letters and two dashes.
pub const POOL_CHARS_MAX: usize = 63 - revision::REVISION_CHARS - TAIL_CHARS - 2;
/// Random letters at the end of a node's name: 27^5, so that two of 2,000 nodes of one revision meet in one of seven pools
/// at most; a taken name is refused by the API server and another one is drawn.
const TAIL_CHARS: usize = 5;
/// No vowels, so that no words come out, and nothing that looks like another letter.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_are_dns_labels_whatever_the_pool_is_called() {
        let long = "p".repeat(80);
        for pool in ["a", "frankfurt-a", "frankfurt.a", long.as_str()] {
            for seed in [0, 1, 27, u64::MAX] {
                let name = node_name(pool, "0a1b2c", seed);
                assert!(name.len() <= 63, "{name}");
                assert!(!name.contains('.') && !name.contains("--"), "{name}");
                assert!(name.starts_with(&pool[..1]), "{name}");
            }
        }
        assert_ne!(node_name("a", "0a1b2c", 1), node_name("a", "0a1b2c", 2));
    }
}
