// SPDX-License-Identifier: EUPL-1.2
//! The addresses that a node offers: from the first source of the pool's list that yields one, family by family.
//!
//! No source, no address, no guess: a node that nobody can reach says so instead of ringing in the void.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use plenum_api::{
    media_node::{NodeAddress, NodePorts},
    media_pool::{AddressSource, AddressSourceType, IpFamily, Network},
};

/// What a node stands on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The machine.
    pub machine: Option<&'a Node>,
    /// The pod.
    pub pod: Option<&'a Pod>,
    /// The node's own Service.
    pub service: Option<&'a Service>,
    /// Where STUN servers see the node.
    pub seen_at: &'a [IpAddr],
}

/// No source yields an address that can be offered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no address to offer: {}", .tried.join("; "))]
pub struct NoPublicAddress {
    /// What each source said, in order.
    pub tried: Vec<String>,
}

/// The addresses, in the order of the pool's families, with the node's port. A family that no source yields is left out:
/// a cluster may have one only.
///
/// # Errors
/// [`NoPublicAddress`] where there is none for any family.
pub fn resolve(
    network: &Network,
    ports: NodePorts,
    around: Surroundings<'_>,
) -> Result<Vec<NodeAddress>, NoPublicAddress> {
    let found: Vec<(&AddressSource, Vec<IpAddr>)> = network
        .address_sources
        .iter()
        .map(|source| (source, ask(source, around)))
        .collect();
    let mut offered = Vec::new();
    for family in &network.ip_families {
        let of_family = |ip: &&IpAddr| family_of(ip) == *family;
        let first = found
            .iter()
            .map(|(_, ips)| ips.iter().filter(of_family).collect::<Vec<_>>())
            .find(|ips| !ips.is_empty());
        for ip in first.into_iter().flatten() {
            offered.push(NodeAddress {
                family: *family,
                address: ip.to_string(),
                port: ports.base,
            });
        }
    }
    offered.truncate(ADDRESSES_MAX);
    if offered.is_empty() {
        return Err(NoPublicAddress {
            tried: found
                .iter()
                .map(|(source, ips)| explain(source, ips, around))
                .collect(),
        });
    }
    Ok(offered)
}

/// What is offered, as the control plane takes it.
#[must_use]
pub fn parsed(addresses: &[NodeAddress]) -> Vec<(IpAddr, u16)> {
    let all = addresses.iter();
    all.filter_map(|address| Some((address.address.parse().ok()?, address.port)))
        .collect()
}

/// Addresses of a pod, the one first that others reach it by.
#[must_use]
pub fn pod_ips(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let mut all: Vec<IpAddr> = status
        .pod_ip
        .iter()
        .chain(status.pod_ips.iter().flatten().map(|pod_ip| &pod_ip.ip))
        .filter_map(|ip| ip.parse().ok())
        .collect();
    let mut seen = Vec::new();
    all.retain(|ip| {
        let new = !seen.contains(ip);
        seen.push(*ip);
        new
    });
    all
}

fn ask(source: &AddressSource, around: Surroundings<'_>) -> Vec<IpAddr> {
    let given = match source.type_ {
        AddressSourceType::NodeLabel => from_map(
            around
                .machine
                .and_then(|node| node.metadata.labels.as_ref()),
            source,
        ),
        AddressSourceType::NodeAnnotation => from_map(
            around
                .machine
                .and_then(|node| node.metadata.annotations.as_ref()),
            source,
        ),
        AddressSourceType::NodeExternalIP => of_machine(around.machine, "ExternalIP"),
        AddressSourceType::NodeInternalIP => of_machine(around.machine, "InternalIP"),
        AddressSourceType::PodIP => around.pod.map(pod_ips).unwrap_or_default(),
        AddressSourceType::ServiceStatus => of_service(around.service),
        AddressSourceType::Static => source
            .addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect(),
        // The node itself asks: only its own way out crosses the translator in question.
        AddressSourceType::Stun => around.seen_at.to_vec(),
    };
    given.into_iter().filter(can_be_offered).collect()
}

/// A label's value cannot hold a colon, so `-` stands for it there: `2001-db8--1`.
fn from_map(map: Option<&BTreeMap<String, String>>, source: &AddressSource) -> Vec<IpAddr> {
    let value = source.key.as_ref().and_then(|key| map?.get(key));
    let parts = value.into_iter().flat_map(|value| value.split(','));
    parts
        .map(str::trim)
        .filter_map(|part| {
            part.parse()
                .or_else(|_| part.replace('-', ":").parse())
                .ok()
        })
        .collect()
}

fn of_machine(machine: Option<&Node>, type_: &str) -> Vec<IpAddr> {
    let status = machine.and_then(|node| node.status.as_ref());
    let all = status.and_then(|status| status.addresses.as_ref());
    all.into_iter()
        .flatten()
        .filter(|address| address.type_ == type_)
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

fn of_service(service: Option<&Service>) -> Vec<IpAddr> {
    let status = service.and_then(|service| service.status.as_ref());
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let all = balancer.and_then(|balancer| balancer.ingress.as_ref());
    all.into_iter()
        .flatten()
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
        .collect()
}

const fn family_of(ip: &IpAddr) -> IpFamily {
    match ip {
        IpAddr::V4(_) => IpFamily::IPv4,
        IpAddr::V6(_) => IpFamily::IPv6,
    }
}

/// Nobody can send to an unspecified or multicast address, and a link-local one means another host on every link.
fn can_be_offered(ip: &IpAddr) -> bool {
    !ip.is_unspecified()
        && !ip.is_multicast()
        && match ip {
            IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_broadcast(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
}

/// Why a source is of no use.
fn explain(source: &AddressSource, ips: &[IpAddr], around: Surroundings<'_>) -> String {
    let key = source.key.as_deref().unwrap_or_default();
    let machine = around.machine.is_some();
    let why = match source.type_ {
        _ if !ips.is_empty() => "has addresses of families that ipFamilies leaves out",
        AddressSourceType::NodeLabel | AddressSourceType::NodeAnnotation if !machine => {
            "the machine is not known yet"
        }
        AddressSourceType::NodeLabel | AddressSourceType::NodeAnnotation => {
            return format!(
                "{} {key}: absent on the machine, or no address",
                source.type_
            );
        }
        AddressSourceType::NodeExternalIP | AddressSourceType::NodeInternalIP if !machine => {
            "the machine is not known yet"
        }
        AddressSourceType::NodeExternalIP | AddressSourceType::NodeInternalIP => {
            "the machine has none"
        }
        AddressSourceType::PodIP => "the pod has none yet",
        AddressSourceType::ServiceStatus if around.service.is_none() => "there is no Service yet",
        AddressSourceType::ServiceStatus if has_name_only(around.service) => {
            "the load balancer has a host name only; use one that has an address, or Static"
        }
        AddressSourceType::ServiceStatus => "the load balancer has no address yet",
        AddressSourceType::Static => "no address is written there",
        AddressSourceType::Stun => {
            "the node has not heard where the server sees it; look for NodeNotSeen in its log"
        }
    };
    format!("{}: {why}", source.type_)
}

fn has_name_only(service: Option<&Service>) -> bool {
    let status = service.and_then(|service| service.status.as_ref());
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let all = balancer.and_then(|balancer| balancer.ingress.as_ref());
    all.into_iter()
        .flatten()
        .any(|ingress| ingress.hostname.is_some() && ingress.ip.is_none())
}

/// As the status takes them.
const ADDRESSES_MAX: usize = 4;

#[cfg(test)]
mod tests;
