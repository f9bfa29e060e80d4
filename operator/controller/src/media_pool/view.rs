// SPDX-License-Identifier: EUPL-1.2
//! What there is: the nodes of a pool with their pods, machines and load.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Resource as _, ResourceExt as _, api::ListParams};
use operator_core::{
    calendar::{Calendar, Place},
    media_pool::{
        autoscale::Load,
        disruption::{PodSeen, min_available},
        plan::{NodeState, Permit},
    },
};
use plenum_api::{
    ConditionStatus, ConditionType, MediaNode, Reason, conditions,
    names::{LABEL_POOL, LABEL_PROTECTED},
};

use super::{Pass, PoolError, load_of};
use crate::live::Live;
use crate::ssa::CallError;

/// The nodes of a pool.
pub(super) struct View {
    nodes: Vec<Arc<MediaNode>>,
    /// As the watches show them, completed by what was written since.
    states: Vec<NodeState>,
    pods: BTreeMap<String, PodSeen>,
}

impl View {
    pub(super) fn nodes(&self) -> &[Arc<MediaNode>] {
        &self.nodes
    }

    pub(super) fn states(&self) -> Vec<NodeState> {
        self.states.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Pods that the budget has to cover.
    pub(super) fn uncovered(&self) -> u32 {
        min_available(self.states.iter().map(|node| {
            self.pods
                .get(&node.name)
                .copied()
                .unwrap_or(PodSeen::NotYet)
        }))
    }

    /// Load of the nodes that take rooms, where the control plane reports it.
    pub(super) fn used(&self, live: &Live) -> Option<Load> {
        if !live.reachable {
            return None;
        }
        let going: Vec<&str> = self
            .states
            .iter()
            .filter(|node| !node.is_serving())
            .map(|node| node.name.as_str())
            .collect();
        let loads = self
            .nodes
            .iter()
            .filter(|node| !going.contains(&node.name_any().as_str()))
            .filter_map(|node| live.nodes.get(node.meta().uid.as_deref()?))
            .map(load_of);
        Some(loads.fold(Load::default(), Load::plus))
    }

    /// Nodes whose addresses are known.
    pub(super) fn addressed(&self) -> u32 {
        self.number(|node| {
            node.status
                .as_ref()
                .is_some_and(|status| !status.addresses.is_empty())
        })
    }

    /// Nodes for which no source yields an address.
    pub(super) fn unaddressed(&self) -> u32 {
        self.number(|node| is_not_ready_for(node, Reason::NoPublicAddress))
    }

    fn number(&self, matches: impl Fn(&MediaNode) -> bool) -> u32 {
        let present = self.nodes.iter().filter(|node| ended(node, None).is_none());
        u32::try_from(present.filter(|node| matches(node)).count()).unwrap_or(u32::MAX)
    }
}

impl Pass<'_> {
    /// What the watches show. The first time since the lease was taken they may not show yet what the leader before did; then it is read
    /// past them.
    pub(super) async fn view(&self) -> Result<View, PoolError> {
        if !self.memory.is_listed(self.name) {
            let seen = self.nodes();
            for node in self.nodes_anew().await? {
                if !seen.iter().any(|known| known.name_any() == node.name_any()) {
                    self.memory
                        .made(self.name, self.state(&node, None), self.now);
                }
            }
            self.memory.listed(self.name);
        }
        let nodes = self.nodes();
        let pods: Vec<Arc<Pod>> = nodes
            .iter()
            .filter_map(|node| {
                self.context
                    .stores
                    .pods
                    .get(node.namespace().as_deref(), &node.name_any())
            })
            .collect();
        let pod_of = |node: &MediaNode| pods.iter().find(|pod| pod.name_any() == node.name_any());
        let mut states: Vec<NodeState> = nodes
            .iter()
            .map(|node| self.state(node, pod_of(node).map(|pod| &**pod)))
            .collect();
        let pods = nodes
            .iter()
            .map(|node| {
                (
                    node.name_any(),
                    pod_seen(node, pod_of(node).map(|pod| &**pod)),
                )
            })
            .collect();
        self.memory.complete(self.name, &mut states, self.now);
        Ok(View {
            nodes,
            states,
            pods,
        })
    }

    fn nodes(&self) -> Vec<Arc<MediaNode>> {
        let all = self.context.stores.media_nodes.all();
        all.into_iter().filter(|node| self.owns(node)).collect()
    }

    pub(super) fn owns(&self, node: &MediaNode) -> bool {
        node.spec.pool_ref.name == self.name.name
            && node.namespace().as_deref() == Some(&self.name.namespace)
    }

    /// The nodes as the API server has them at this moment.
    pub(super) async fn nodes_anew(&self) -> Result<Vec<MediaNode>, PoolError> {
        let api = Api::<MediaNode>::namespaced(self.context.client.clone(), &self.name.namespace);
        let list = api
            .list(&self.of_pool())
            .await
            .map_err(CallError::of::<PoolError>("list the nodes of a pool"))?;
        Ok(list
            .items
            .into_iter()
            .filter(|node| self.owns(node))
            .collect())
    }

    /// Pods that the budget has to cover, as the API server has them at this moment.
    pub(super) async fn uncovered_anew(&self) -> Result<u32, PoolError> {
        // Pods first: one that is born between the two belongs to a node of the second list.
        let api = Api::<Pod>::namespaced(self.context.client.clone(), &self.name.namespace);
        let pods = api
            .list(&self.of_pool())
            .await
            .map_err(CallError::of::<PoolError>("list the pods of a pool"))?
            .items;
        let nodes = self.nodes_anew().await?;
        let seen = nodes.iter().map(|node| {
            let pod = pods.iter().find(|pod| pod.name_any() == node.name_any());
            pod_seen(node, pod)
        });
        let orphans = pods
            .iter()
            .filter(|pod| !nodes.iter().any(|node| node.name_any() == pod.name_any()))
            .map(label_seen);
        Ok(min_available(seen.chain(orphans)))
    }

    pub(super) fn of_pool(&self) -> ListParams {
        ListParams::default().labels(&format!("{LABEL_POOL}={}", self.name.name))
    }

    fn state(&self, node: &MediaNode, pod: Option<&Pod>) -> NodeState {
        let status = node.status.as_ref();
        let conditions = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        let holds = |type_| {
            conditions::find(conditions, type_)
                .is_some_and(|condition| condition.status == ConditionStatus::True)
        };
        let live = self.context.live.borrow();
        let reported = node
            .meta()
            .uid
            .as_ref()
            .and_then(|uid| live.nodes.get(uid))
            .filter(|_| live.reachable);
        let written = status.and_then(|status| status.load.as_ref());
        let (rooms, participants) = match (reported, written) {
            (Some(state), _) => (state.rooms, state.participants),
            (None, Some(load)) => (load.rooms, load.participants),
            (None, None) => (0, 0),
        };
        NodeState {
            name: node.name_any(),
            revision: node.spec.revision.clone(),
            ports: node.spec.ports,
            created: node
                .meta()
                .creation_timestamp
                .as_ref()
                .map_or(self.now, |time| time.0),
            ready: holds(ConditionType::Ready),
            accepting: holds(ConditionType::Accepting),
            rooms,
            participants,
            cordoned: self.is_cordoned(status.and_then(|status| status.node_name.as_deref())),
            drain: node.spec.drain.as_ref().map(|drain| drain.reason),
            phase: status.and_then(|status| Some(status.drain.as_ref()?.phase)),
            deleting: node.meta().deletion_timestamp.is_some(),
            ended: ended(node, pod),
        }
    }

    fn is_cordoned(&self, machine: Option<&str>) -> bool {
        machine
            .and_then(|machine| self.context.stores.nodes.get(None, machine))
            .and_then(|node| node.spec.as_ref()?.unschedulable)
            .unwrap_or(false)
    }
}

/// When a node's pod was lost, or let go after its drain.
fn ended(node: &MediaNode, pod: Option<&Pod>) -> Option<Timestamp> {
    let status = node.status.as_ref()?;
    let ready = conditions::find(&status.conditions, ConditionType::Ready)?;
    if ready.status == ConditionStatus::False && ready.reason == Reason::PodLost.as_str() {
        return Some(ready.last_transition_time.0);
    }
    let drained = conditions::find(&status.conditions, ConditionType::Drained)?;
    let gone = drained.status == ConditionStatus::True && status.pod_uid.is_some() && pod.is_none();
    (gone && node.spec.drain.is_some()).then_some(drained.last_transition_time.0)
}

fn is_not_ready_for(node: &MediaNode, reason: Reason) -> bool {
    let conditions = node
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    conditions::find(conditions, ConditionType::Ready).is_some_and(|ready| {
        ready.status != ConditionStatus::True && ready.reason == reason.as_str()
    })
}

fn pod_seen(node: &MediaNode, pod: Option<&Pod>) -> PodSeen {
    match pod {
        Some(pod) => label_seen(pod),
        None => {
            let had_one = node
                .status
                .as_ref()
                .is_some_and(|status| status.pod_uid.is_some());
            if had_one || is_not_ready_for(node, Reason::PodLost) {
                PodSeen::Gone
            } else {
                PodSeen::NotYet
            }
        }
    }
}

fn label_seen(pod: &Pod) -> PodSeen {
    if pod.labels().contains_key(LABEL_PROTECTED) {
        PodSeen::Protected
    } else {
        PodSeen::Released
    }
}

/// What the windows of the calendar allow for a pool, and the open one that empties all of it: a new node would have to go as well.
pub(super) fn permit(pass: &Pass<'_>, view: &View) -> (Permit, Option<String>) {
    let stores = &pass.context.stores;
    let windows = stores.windows.all();
    let calendar = Calendar::new(windows.iter().map(|window| &**window), pass.now);
    let site = &pass.context.settings.site;
    let machines: Vec<_> = view
        .nodes
        .iter()
        .filter_map(|node| {
            stores
                .nodes
                .get(None, node.status.as_ref()?.node_name.as_deref()?)
        })
        .collect();
    let places: Vec<Place<'_>> = machines
        .iter()
        .map(|machine| Place {
            pool: pass.name,
            site,
            machine: machine.metadata.labels.as_ref(),
        })
        .collect();
    let permit = calendar.permit(pass.name, site, &places);
    let closing = calendar.closes(pass.name, site).map(str::to_owned);
    let until = if closing.is_some() {
        calendar.changes_at()
    } else {
        None
    };
    let until = permit.until.into_iter().chain(until).min();
    (Permit { until, ..permit }, closing)
}
