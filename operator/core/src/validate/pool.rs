// SPDX-License-Identifier: EUPL-1.2
//! `MediaPool`: schedules that can be evaluated, and drains that have somewhere to go.

use std::net::IpAddr;

use plenum_api::{MediaPool, Reason, media_pool::OnDeadline};

use super::{Found, check_schedule};
use crate::objects::Name;

pub(super) fn validate(name: &Name, pool: &MediaPool, found: &mut Found) {
    let spec = &pool.spec;
    let mut errors = found.errors_of("MediaPool", name);
    if let Some(autoscaling) = &spec.autoscaling {
        for (index, floor) in autoscaling.schedule.iter().enumerate() {
            check_schedule(
                &floor.schedule,
                &format!("/spec/autoscaling/schedule/{index}"),
                &mut errors,
            );
        }
    }
    for (index, source) in spec.network.address_sources.iter().enumerate() {
        for (at, address) in source.addresses.iter().enumerate() {
            if address.parse::<IpAddr>().is_err() {
                errors.add(
                    format!("/spec/network/addressSources/{index}/addresses/{at}"),
                    Reason::NoPublicAddress,
                    format!("`{address}` is no IP address"),
                    "write an IPv4 or IPv6 address",
                );
            }
        }
    }
    let nodes = crate::plan::nodes_of(spec);
    if nodes == 1 && spec.drain.on_deadline == OnDeadline::Move {
        found.warnings_of("MediaPool", name).add(
            "/spec/replicas",
            Reason::TooFewNodes,
            "a drain moves rooms to another node, and the pool has one only",
            "give the pool at least 2 nodes, or write drain.onDeadline: Terminate",
        );
    }
}
