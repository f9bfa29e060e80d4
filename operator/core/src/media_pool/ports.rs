// SPDX-License-Identifier: EUPL-1.2
//! Which ports a new node gets.
//!
//! A port of the machine may be used once per machine, and where a pod will run is decided later, by the scheduler, which
//! keeps two pods with one `hostPort` apart. So ports are handed out for the whole cluster: a free block while there is
//! one, then the block that the fewest nodes have. A NodePort belongs to the whole cluster and is never shared.

use plenum_api::{
    MediaPoolSpec,
    media_node::NodePorts,
    media_pool::{NetworkType, PortRange},
};

use super::port_count;

/// Why a node cannot have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// The range is smaller than what one node takes.
    #[error(
        "the range {min}-{max} has fewer ports than the {count} that one node takes; widen spec.network's range"
    )]
    RangeTooSmall {
        /// First port.
        min: u16,
        /// Last port.
        max: u16,
        /// Ports of a node.
        count: u16,
    },
    /// Every block belongs to a node.
    #[error(
        "all ports of the range {min}-{max} are taken; widen spec.network's range or lower the number of nodes"
    )]
    Exhausted {
        /// First port.
        min: u16,
        /// Last port.
        max: u16,
    },
}

/// Ports for one more node of the pool, given those of all nodes that could meet it on a machine or in the cluster.
///
/// *Errors*: [`PortsError`], never a block that overlaps the end of the range.
/// *Cost*: O(blocks + taken).
pub fn allocate(spec: &MediaPoolSpec, taken: &[NodePorts]) -> Result<NodePorts, PortsError> {
    let range = spec.network.range();
    let count = port_count(spec);
    let PortRange { min, max } = range;
    let room = u32::from(max).saturating_sub(u32::from(min)) + 1;
    let blocks = room / u32::from(count);
    if max < min || blocks == 0 {
        return Err(PortsError::RangeTooSmall { min, max, count });
    }
    let mut users = vec![0_u32; usize::try_from(blocks).unwrap_or_default()];
    for other in taken {
        // A block of another size may overlap several of ours.
        let first = u32::from(other.base).saturating_sub(u32::from(min)) / u32::from(count);
        let end = u32::from(other.base) + u32::from(other.count);
        if end <= u32::from(min) || other.count == 0 {
            continue;
        }
        let last = (end - 1 - u32::from(min)) / u32::from(count);
        for block in first..=last {
            if let Some(user) = users.get_mut(usize::try_from(block).unwrap_or(usize::MAX)) {
                *user += 1;
            }
        }
    }
    let (block, users) = users
        .into_iter()
        .zip(0_u32..)
        .map(|(users, block)| (block, users))
        .min_by_key(|(block, users)| (*users, *block))
        .ok_or(PortsError::RangeTooSmall { min, max, count })?;
    if users > 0 && !may_share(spec) {
        return Err(PortsError::Exhausted { min, max });
    }
    let base = u32::from(min) + block * u32::from(count);
    Ok(NodePorts {
        base: u16::try_from(base).map_err(|_| PortsError::RangeTooSmall { min, max, count })?,
        count,
    })
}

/// Whether a node's ports are what the pool would give it now; a range that was narrowed or a new number of shards makes a
/// node one of yesterday.
#[must_use]
pub fn fits(spec: &MediaPoolSpec, ports: NodePorts) -> bool {
    let range = spec.network.range();
    ports.count == port_count(spec)
        && ports.base >= range.min
        && u32::from(ports.base) + u32::from(ports.count) - 1 <= u32::from(range.max)
}

fn may_share(spec: &MediaPoolSpec) -> bool {
    match spec.network.type_ {
        // On another machine the port is free.
        NetworkType::HostPort | NetworkType::HostNetwork => true,
        // Every pod has an address of its own.
        NetworkType::None => true,
        NetworkType::NodePort => false,
        NetworkType::LoadBalancer => !spec
            .network
            .load_balancer
            .as_ref()
            .is_some_and(|balancer| balancer.shared_address),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn spec(network: serde_json::Value) -> MediaPoolSpec {
        serde_json::from_value(json!({ "replicas": 1, "network": network })).expect("a pool")
    }

    fn host_ports(min: u16, max: u16) -> MediaPoolSpec {
        spec(json!({ "type": "HostPort", "hostPort": { "range": { "min": min, "max": max } } }))
    }

    #[test]
    fn each_node_has_a_port_of_its_own_while_there_are_some() {
        let spec = host_ports(20_000, 20_003);
        let mut taken = Vec::new();
        for want in 20_000..=20_003 {
            let ports = allocate(&spec, &taken).expect("free");
            assert_eq!(
                ports,
                NodePorts {
                    base: want,
                    count: 1
                }
            );
            taken.push(ports);
        }
        // Then another machine has to take it: the port with the fewest nodes.
        assert_eq!(allocate(&spec, &taken).expect("shared").base, 20_000);
        taken.push(NodePorts {
            base: 20_000,
            count: 1,
        });
        assert_eq!(allocate(&spec, &taken).expect("shared").base, 20_001);
    }

    #[test]
    fn node_ports_are_never_given_twice() {
        let spec = spec(
            json!({ "type": "NodePort", "nodePort": { "range": { "min": 30_000, "max": 30_001 } } }),
        );
        let taken = [
            NodePorts {
                base: 30_000,
                count: 1,
            },
            NodePorts {
                base: 30_001,
                count: 1,
            },
        ];
        assert_eq!(allocate(&spec, &taken[..1]).expect("free").base, 30_001);
        assert_eq!(
            allocate(&spec, &taken),
            Err(PortsError::Exhausted {
                min: 30_000,
                max: 30_001
            })
        );
    }

    #[test]
    fn the_machines_network_takes_two_ports_more() {
        let spec = spec(
            json!({ "type": "HostNetwork", "hostNetwork": { "range": { "min": 20_000, "max": 20_004 } } }),
        );
        let first = allocate(&spec, &[]).expect("free");
        assert_eq!(
            first,
            NodePorts {
                base: 20_000,
                count: 3
            }
        );
        // The rest of the range is too short for another block, so a second machine shares the first.
        assert_eq!(allocate(&spec, &[first]).expect("shared").base, 20_000);
    }

    #[test]
    fn a_range_smaller_than_a_node_is_refused() {
        let spec = spec(
            json!({ "type": "HostNetwork", "hostNetwork": { "range": { "min": 20_000, "max": 20_001 } } }),
        );
        assert!(matches!(
            allocate(&spec, &[]),
            Err(PortsError::RangeTooSmall { count: 3, .. })
        ));
    }

    #[test]
    fn a_narrowed_range_makes_nodes_outdated() {
        let ports = NodePorts {
            base: 20_003,
            count: 1,
        };
        assert!(fits(&host_ports(20_000, 20_003), ports));
        assert!(!fits(&host_ports(20_000, 20_002), ports));
        assert!(!fits(&host_ports(20_004, 20_010), ports));
    }

    proptest! {
        #[test]
        fn blocks_lie_in_the_range_and_are_shared_as_evenly_as_can_be(
            width in 1_u16..40, nodes in 0_usize..120, foreign in prop::collection::vec((19_990_u16..20_050, 1_u16..5), 0..4)
        ) {
            let spec = host_ports(20_000, 20_000 + width - 1);
            let mut taken: Vec<_> = foreign.into_iter().map(|(base, count)| NodePorts { base, count }).collect();
            let strangers = taken.len();
            for _ in 0..nodes {
                let ports = allocate(&spec, &taken).expect("shared at worst");
                prop_assert!(fits(&spec, ports));
                taken.push(ports);
            }
            let users = |port: u16| taken[strangers..].iter().filter(|ports| ports.base == port).count();
            let counts: Vec<_> = (20_000..20_000 + width).map(users).collect();
            let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
            prop_assert!(most <= least.map(|least| least + 1 + strangers), "{counts:?}");
        }
    }
}
