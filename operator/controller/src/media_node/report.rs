// SPDX-License-Identifier: EUPL-1.2
//! The node's status, written where something differs.

use operator_core::media_node::{
    drain::PodState,
    status::{Facts, load, write_conditions},
};
use plenum_api::{
    ConditionStatus, ConditionType, MediaNodeStatus, Reason, conditions::find, media_node::NodeLoad,
};

use super::{NodeError, look::Pass};
use crate::ssa::apply_status;

impl Pass {
    pub(super) async fn report(&mut self) -> Result<(), NodeError> {
        let before = self.node.status.clone().unwrap_or_default();
        let status = self.status(before.clone());
        if apply_status(&self.context.client, &self.node, &status).await? {
            self.tell(&before, &status).await;
        }
        self.node.status = Some(status);
        self.remember();
        Ok(())
    }

    fn status(&mut self, mut status: MediaNodeStatus) -> MediaNodeStatus {
        if let Some(pod) = &self.pod
            && self.pod_state != PodState::Gone
        {
            status.pod_uid = status.pod_uid.or_else(|| pod.metadata.uid.clone());
            let machine = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            status.node_name = machine.or(status.node_name);
        }
        status.site = Some(self.context.settings.site.clone());
        if let Ok(addresses) = &self.addresses {
            status.addresses.clone_from(addresses);
        } else {
            status.addresses.clear();
        }
        if self.grpc_endpoint.is_some() {
            status.grpc_endpoint.clone_from(&self.grpc_endpoint);
            status.epoch = i64::try_from(self.epoch()).ok();
        }
        status.drain.clone_from(&self.drain);
        self.write_load(&mut status);
        let fault = self.fault.clone();
        let seen = self.seen();
        let facts = Facts {
            seen: &seen,
            pod: self.pod.as_ref(),
            addresses: self.addresses.as_ref().map(|_| ()),
            registered: self.registered(),
            fault: fault
                .as_ref()
                .map(|(reason, text)| (*reason, text.as_str())),
            held_by: self.held_by.as_deref(),
            unordered: self.unordered.as_deref(),
        };
        write_conditions(&mut status, &facts, self.node.metadata.generation);
        status
    }

    fn write_load(&mut self, status: &mut MediaNodeStatus) {
        let is = if self.pod_state == PodState::Gone {
            Some(NodeLoad::default())
        } else {
            let live = self.context.live.borrow();
            let node = live.nodes.get(&self.uid).filter(|node| node.registered);
            node.map(|node| NodeLoad {
                rooms: node.rooms,
                participants: node.participants,
                egress_mbps: u32::try_from(node.egress_bps / 1_000_000).unwrap_or(u32::MAX),
            })
        };
        // A node that was never heard shows none.
        let is = is.filter(|_| self.served());
        let (shown, again) = load(
            status.load.as_ref(),
            is.as_ref(),
            self.memory.load_written,
            self.now,
        );
        if shown != status.load {
            self.memory.load_written = Some(self.now);
        }
        status.load = shown;
        if let Some(again) = again {
            self.look_again_at(again);
        }
    }

    /// What turned bad is told once, when it does.
    async fn tell(&self, before: &MediaNodeStatus, now: &MediaNodeStatus) {
        let reason_of = |status: &MediaNodeStatus| {
            find(&status.conditions, ConditionType::Ready)
                .filter(|ready| ready.status == ConditionStatus::False)
                .map(|ready| (ready.reason.clone(), ready.message.clone()))
        };
        let Some((reason, message)) = reason_of(now) else {
            return;
        };
        if reason_of(before).is_some_and(|(old, _)| old == reason) {
            return;
        }
        let bad = [
            Reason::PodLost,
            Reason::NoPublicAddress,
            Reason::PodUnschedulable,
            Reason::ContainerFailed,
            Reason::PodRefused,
            Reason::Conflict,
        ];
        if let Some(reason) = bad.into_iter().find(|bad| bad.as_str() == reason) {
            tracing::warn!(event = "MediaNodeTrouble", namespace = self.name.namespace, node = self.name.name, reason = %reason, "a media node is in trouble");
            self.context.events.warn(&self.node, reason, message).await;
        }
    }
}
