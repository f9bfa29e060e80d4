// SPDX-License-Identifier: EUPL-1.2
//! Nodes as placement sees them: published, heard and reserved together.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use control_core::directory::DirectoryView;
use control_core::ids::NodeId;
use control_core::lease::Standing;
use control_core::placement::{Candidate, NoNode};
use control_core::quota::Usage;

use crate::live::LiveView;
use crate::plane::Plane;

impl Plane {
    /// All published nodes as placement sees them, and whether the store answered for their use.
    pub(super) async fn candidates(&self, view: &DirectoryView) -> (Vec<Candidate>, bool) {
        let ids: Vec<NodeId> = view.nodes().map(|node| node.node_id.clone()).collect();
        let usage = match self.0.store.usage(ids).await {
            Ok(usage) => Some(usage),
            Err(error) => {
                self.store_failed(error);
                None
            }
        };
        let live = self.live();
        let candidates = view
            .nodes()
            .enumerate()
            .map(|(index, node)| {
                let used = usage
                    .as_ref()
                    .and_then(|usage| usage.get(index))
                    .copied()
                    .unwrap_or_default();
                candidate(node, used, &live)
            })
            .collect();
        (candidates, usage.is_some())
    }
}

fn candidate(node: &control_core::record::Node, stored: Usage, live: &LiveView) -> Candidate {
    let heard = live.node(&node.uid);
    let load = heard.and_then(|heard| heard.load);
    let reported = load.map_or(Usage::default(), |load| Usage {
        rooms: load.rooms,
        participants: load.participants,
        egress_kbps: load.egress_bps / 1_000,
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
        used: Usage {
            rooms: stored.rooms.max(reported.rooms),
            participants: stored.participants.max(reported.participants),
            egress_kbps: stored.egress_kbps.max(reported.egress_kbps),
        },
    }
}

/// Two random numbers for one choice.
pub(super) fn random() -> Result<[u64; 2], NoNode> {
    let mut bytes = [0; 16];
    // The system's generator fails only where nothing works any more; no choice is made then.
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoNode::default())?;
    let (a, b) = bytes.split_at(8);
    let number = |half: &[u8]| {
        half.iter()
            .fold(0, |number, byte| (number << 8) | u64::from(*byte))
    };
    Ok([number(a), number(b)])
}
