// SPDX-License-Identifier: EUPL-1.2
//! Nodes as placement sees them: published and heard.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use control_core::directory::DirectoryView;
use control_core::lease::Standing;
use control_core::placement::{Candidate, NoNode, Occupants};
use control_core::quota::Usage;

use crate::live::LiveView;
use crate::plane::Plane;

impl Plane {
    /// All published nodes as placement sees them.
    pub(super) fn candidates(&self, view: &DirectoryView) -> Vec<Candidate> {
        let live = self.live();
        view.nodes().map(|node| candidate(node, &live)).collect()
    }
}

fn candidate(node: &control_core::record::Node, live: &LiveView) -> Candidate {
    let heard = live.node(&node.uid);
    let load = heard.and_then(|heard| heard.load);
    let reported = load.map_or(Usage::default(), |load| Usage {
        rooms: load.rooms,
        participants: load.participants,
        egress_kbps: load.egress_bps / 1_000,
        ..Usage::default()
    });
    Candidate {
        uid: node.uid.clone(),
        node: node.node_id.clone(),
        pool: node.pool.clone(),
        site: node.site.clone(),
        jurisdiction: node.jurisdiction.clone(),
        accepting: node.accepting && load.is_some_and(|load| load.accepting),
        ready: heard.is_some_and(|heard| {
            heard.synced
                && heard.load.is_some()
                && heard.hello.epoch == node.epoch
                && heard.hello.node_id.as_ref() == Some(&node.node_id)
        }),
        standing: heard.map_or(Standing::Dead, |heard| heard.standing),
        capacity: node.capacity,
        used: reported,
        occupants: Occupants::Nobody,
    }
}

/// A random number, or 128 bits of one.
pub(super) fn random<const BYTES: usize>() -> Result<[u8; BYTES], NoNode> {
    let mut bytes = [0; BYTES];
    // The system's generator fails only where nothing works any more; no choice is made then.
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoNode::default())?;
    Ok(bytes)
}
