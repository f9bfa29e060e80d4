// SPDX-License-Identifier: EUPL-1.2
//! What the operator sees of nodes, conferences and tenants.

use std::collections::BTreeMap;

use control_core::directory::DirectoryView;
use control_core::ids::{TenantName, Uid};
use control_core::lease::Standing;
use control_core::opening::{Opening, opening};
use control_core::record::{Conference, Node};
use plenum_proto::v1::conference_state::Phase;
use plenum_proto::v1::{ConferenceState, NodeState, TenantState};

use super::{LiveRoom, Plane};

impl Plane {
    /// Whether a node takes rooms at this moment: published, heard, with its facts, and wanted.
    #[must_use]
    pub fn accepts(&self, uid: &Uid) -> bool {
        self.view()
            .node(uid)
            .is_some_and(|node| self.node_state(node).accepting)
    }

    /// State of a published node.
    pub(crate) fn node_state(&self, node: &Node) -> NodeState {
        let live = self.live();
        let heard = live
            .node(&node.uid)
            .filter(|heard| heard.standing != Standing::Dead);
        let load = heard.and_then(|heard| heard.load).unwrap_or_default();
        let registered = heard.is_some_and(|heard| {
            heard.standing == Standing::Alive
                && heard.synced
                && heard.hello.epoch == node.epoch
                && live.is_attached(&node.uid)
        });
        NodeState {
            uid: node.uid.to_string(),
            node_id: node.node_id.to_string(),
            registered,
            accepting: registered && node.accepting && load.accepting,
            rooms: load.rooms,
            participants: load.participants,
            egress_bps: load.egress_bps,
            seen_at: {
                let v4 = load.seen_at_v4.map(|ip| ip.to_string());
                let v6 = load.seen_at_v6.map(|ip| ip.to_string());
                v4.into_iter().chain(v6).collect()
            },
        }
    }

    /// State of a published conference.
    pub(crate) fn conference_state(
        &self,
        view: &DirectoryView,
        conference: &Conference,
        room: Option<&LiveRoom>,
        peak_participants: u32,
    ) -> ConferenceState {
        let phase = match view.tenant(&conference.tenant) {
            Some(tenant) => match opening(tenant, conference, self.0.clock.unix()) {
                _ if room.is_some_and(|room| room.participants > 0) => Phase::Active,
                Opening::Allowed { .. } => Phase::Open,
                Opening::NotYet { .. } => Phase::Scheduled,
                Opening::Over => Phase::Ended,
                Opening::Suspended => Phase::Suspended,
            },
            None => Phase::Unspecified,
        };
        ConferenceState {
            uid: conference.uid.to_string(),
            phase: phase.into(),
            opened: room.is_some_and(|room| room.facts.opened),
            node_id: room
                .filter(|room| room.running)
                .map(|room| room.node_id.to_string())
                .unwrap_or_default(),
            epoch: room.map_or(0, |room| room.epoch.0),
            participants: room.map_or(0, |room| room.participants),
            peak_participants,
            hold: self.0.placing.hold_of(&conference.uid).into(),
        }
    }

    /// States of all published tenants.
    pub(crate) fn tenant_states(&self, view: &DirectoryView) -> BTreeMap<TenantName, TenantState> {
        let live = self.live();
        view.tenants()
            .map(|tenant| {
                let totals = live.totals_of(&tenant.name);
                let state = TenantState {
                    name: tenant.name.to_string(),
                    rooms: totals.rooms,
                    participants: totals.participants,
                };
                (tenant.name.clone(), state)
            })
            .collect()
    }
}
