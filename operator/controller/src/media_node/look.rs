// SPDX-License-Identifier: EUPL-1.2
//! What is there: the node, its pool, its pod, the machine below, and what the control plane says.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use operator_core::{
    Name,
    calendar::{Calendar, Place},
    media_node::{
        addresses::NoPublicAddress,
        drain::{self, PodState, Seen},
        status::{Registered, restarts},
    },
};
use plenum_api::{
    MediaNode, MediaPool, Reason,
    media_node::{DrainReason, DrainStatus, NodeAddress},
    media_pool::DrainPolicy,
    names,
};

use super::{
    NodeError,
    memory::{Memories, Memory},
};
use crate::{context::Context, driver::LOOK_AGAIN_MAX, ssa};

/// One pass over one node.
pub(super) struct Pass {
    pub(super) context: Arc<Context>,
    memories: Arc<Memories>,
    pub(super) memory: Memory,
    /// The node as the API server has it, as far as this pass knows.
    pub(super) node: MediaNode,
    pub(super) name: Name,
    pub(super) uid: String,
    pub(super) pool: Option<Arc<MediaPool>>,
    policy: DrainPolicy,
    pub(super) pod: Option<Pod>,
    pub(super) pod_state: PodState,
    pub(super) machine: Option<Arc<Node>>,
    pub(super) calendar: Calendar,
    pub(super) now: Timestamp,
    /// `status.drain` as it is to be written.
    pub(super) drain: Option<DrainStatus>,
    /// What stands in the way until somebody changes it.
    pub(super) fault: Option<(Reason, String)>,
    /// The window that holds the pod back.
    pub(super) held_by: Option<String>,
    pub(super) addresses: Result<Vec<NodeAddress>, NoPublicAddress>,
    pub(super) grpc_endpoint: Option<String>,
    /// Why the last order failed.
    pub(super) unordered: Option<String>,
    next: Option<Timestamp>,
}

impl Pass {
    pub(super) async fn look(
        context: Arc<Context>,
        memories: Arc<Memories>,
        node: Arc<MediaNode>,
    ) -> Result<Self, NodeError> {
        let name = Name::new(node.namespace().unwrap_or_default(), node.name_any());
        let uid = node.uid().unwrap_or_default();
        let pool = context
            .stores
            .pools
            .get(Some(&name.namespace), &node.spec.pool_ref.name);
        let windows = context.stores.windows.all();
        let now = context.now();
        let status = node.status.clone().unwrap_or_default();
        let mut pass = Self {
            memory: memories.of(&uid),
            policy: pool
                .as_ref()
                .map(|pool| pool.spec.drain.clone())
                .unwrap_or_default(),
            calendar: Calendar::new(windows.iter().map(|window| &**window), now),
            pod: None,
            pod_state: PodState::NotMade,
            machine: None,
            drain: status.drain,
            fault: None,
            held_by: None,
            addresses: Ok(status.addresses),
            grpc_endpoint: status.grpc_endpoint,
            unordered: None,
            next: None,
            node: MediaNode::clone(&node),
            context,
            memories,
            name,
            uid,
            pool,
            now,
        };
        if pass.pool.is_none() {
            let pool = &pass.node.spec.pool_ref.name;
            pass.fault = Some((
                Reason::PoolNotFound,
                format!("spec.poolRef: there is no MediaPool {pool} in the namespace"),
            ));
        }
        pass.find_pod().await?;
        pass.find_machine();
        Ok(pass)
    }

    /// The pod that is this node's. A cache that shows none proves nothing: whoever had one is asked for.
    async fn find_pod(&mut self) -> Result<(), NodeError> {
        let namespace = Some(self.name.namespace.as_str());
        let known = self.pod_uid();
        let mut pod = self
            .context
            .stores
            .pods
            .get(namespace, &self.name.name)
            .map(|pod| Pod::clone(&pod));
        if pod.is_none() && known.is_some() && self.memory.gone_since.is_none() {
            pod = ssa::get::<Pod>(&self.context.client, namespace, &self.name.name).await?;
        }
        if let Some(found) = &pod
            && !self.owns(found)
        {
            self.fault = Some((
                Reason::Conflict,
                "a pod of the node's name belongs to somebody else; remove it".to_owned(),
            ));
            pod = None;
        }
        self.pod_state = match (&pod, &known) {
            (None, None) => PodState::NotMade,
            (None, Some(_)) => PodState::Gone,
            (Some(pod), known) => state_of(pod, known.as_deref()),
        };
        if self.pod_state == PodState::Gone {
            self.memory.gone_since.get_or_insert(self.now);
        }
        self.pod = pod;
        Ok(())
    }

    pub(super) fn find_machine(&mut self) {
        let of_pod = self
            .pod
            .as_ref()
            .and_then(|pod| pod.spec.as_ref()?.node_name.clone());
        self.machine = of_pod.and_then(|name| self.context.stores.nodes.get(None, &name));
    }

    fn owns(&self, pod: &Pod) -> bool {
        let owners = pod.owner_references();
        owners.iter().any(|owner| owner.uid == self.uid)
    }

    pub(super) fn pod_uid(&self) -> Option<String> {
        self.node.status.as_ref()?.pod_uid.clone()
    }

    /// Whether the node was ever said to be anywhere. Written before the control plane is told, so that it never says too little.
    pub(super) fn served(&self) -> bool {
        let status = self.node.status.as_ref();
        status.is_some_and(|status| status.grpc_endpoint.is_some())
    }

    /// Grows with every start of the process.
    pub(super) fn epoch(&self) -> u64 {
        let known = self.node.status.as_ref().and_then(|status| status.epoch);
        let started = self.pod.as_ref().map(|pod| u64::from(restarts(pod)) + 1);
        started.unwrap_or_else(|| {
            known
                .and_then(|epoch| u64::try_from(epoch).ok())
                .unwrap_or(1)
        })
    }

    pub(super) fn is_protected(&self) -> bool {
        self.pod
            .as_ref()
            .is_some_and(|pod| pod.labels().contains_key(names::LABEL_PROTECTED))
    }

    pub(super) fn registered(&self) -> Registered {
        let live = self.context.live.borrow();
        match live.nodes.get(&self.uid) {
            Some(node) if node.registered => Registered::Yes {
                accepting: node.accepting,
            },
            _ if live.reachable => Registered::No,
            _ => Registered::Silent { since: live.since },
        }
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        let rooms = {
            let live = self.context.live.borrow();
            let node = live.nodes.get(&self.uid);
            node.filter(|node| node.registered).map(|node| node.rooms)
        };
        let request = self.node.spec.drain.as_ref();
        let (ordered, replicas) = match &self.memory.ordered {
            Some((times, replicas, _)) => (Some(*times), Some(*replicas)),
            None => (None, None),
        };
        // A replica that came later was never told.
        let told = replicas == Some(self.context.live.borrow().replicas);
        Seen {
            now: self.now,
            policy: &self.policy,
            request,
            unschedulable: self.node.spec.unschedulable,
            deleting: self.node.metadata.deletion_timestamp.is_some(),
            pod: self.pod_state,
            protected: self.is_protected(),
            machine_leaves: self
                .machine
                .as_ref()
                .is_some_and(|node| drain::leaves(node)),
            // Which nodes a window empties, and how many at a time, is the business of its own controller; here it is only seen
            // whether its wish still has a reason.
            window_drains: request.is_some_and(|wish| wish.reason == DrainReason::Maintenance)
                && self.window_is_open(),
            status: self.drain.as_ref(),
            served: self.served(),
            closed: self.memory.closed == Some(self.epoch()),
            ordered: ordered.filter(|_| told),
            rooms,
        }
    }

    fn window_is_open(&self) -> bool {
        let pool = self.pool_name();
        let labels = self
            .machine
            .as_ref()
            .and_then(|machine| machine.metadata.labels.as_ref());
        self.calendar
            .draining(Place {
                pool: &pool,
                site: &self.context.settings.site,
                machine: labels,
            })
            .is_some()
    }

    pub(super) fn pool_name(&self) -> Name {
        Name::new(&*self.name.namespace, &*self.node.spec.pool_ref.name)
    }

    pub(super) fn remember(&self) {
        self.memories.keep(&self.uid, &self.memory);
    }

    pub(super) fn forget(&self) {
        self.memories.forget(&self.uid);
        self.context.endpoints.remove(&self.uid);
    }

    pub(super) fn look_again_at(&mut self, moment: Timestamp) {
        self.next = Some(self.next.map_or(moment, |next| next.min(moment)));
    }

    pub(super) fn wait(&self) -> Duration {
        let Some(next) = self.next else {
            return LOOK_AGAIN_MAX;
        };
        let wait = next.duration_since(self.context.now());
        // A little later rather than a little too early, which would be a pass for nothing.
        Duration::try_from(wait).unwrap_or(Duration::ZERO) + WAKE_LATE
    }
}

const WAKE_LATE: Duration = Duration::from_millis(250);

fn state_of(pod: &Pod, known: Option<&str>) -> PodState {
    let uid = pod.metadata.uid.as_deref();
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if known.is_some_and(|known| uid != Some(known))
        || matches!(phase, Some("Failed" | "Succeeded"))
    {
        return PodState::Gone;
    }
    match &pod.metadata.deletion_timestamp {
        // Without a grace nothing is left that could be emptied. The API server shows such a pod for a moment before it is gone, and what
        // is said of the node must not depend on who looks in that moment.
        Some(_) if pod.metadata.deletion_grace_period_seconds == Some(0) => PodState::Gone,
        Some(until) => PodState::Going { until: until.0 },
        None => PodState::There,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_pod_that_is_deleted_without_a_grace_is_lost_and_not_told_to_go() {
        let until = Timestamp::UNIX_EPOCH;
        let mut pod = Pod::default();
        assert_eq!(state_of(&pod, None), PodState::There);
        pod.metadata.deletion_timestamp = Some(Time(until));
        pod.metadata.deletion_grace_period_seconds = Some(3660);
        assert_eq!(state_of(&pod, None), PodState::Going { until });
        pod.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(state_of(&pod, None), PodState::Gone);
    }
}
