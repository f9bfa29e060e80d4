// SPDX-License-Identifier: EUPL-1.2
//! Carries out what the drain machine says, step by step, and looks again after each.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use operator_core::media_node::{
    drain::{MoveTimes, PodState, Step, may_accept, next},
    pod::PROTECTING_ANNOTATIONS,
    status::{Registered, is_ready},
};
use plenum_api::{
    MediaNode, Reason,
    media_node::{DrainPhase, DrainRequest, DrainStatus},
    names::{API_VERSION, FINALIZER_NODE, LABEL_PROTECTED, MANAGER_DRAIN, MANAGER_OPERATOR},
};
use serde_json::json;

use super::{KEPT, NodeError, later, look::Pass};
use crate::{
    orders::OrderError,
    ssa::{self, CallError},
};

/// How far a pass came.
pub(super) enum Went {
    /// Nothing is to be done before that moment.
    Rests(Option<Timestamp>),
    /// The node is gone.
    LetGo,
}

impl Pass {
    /// Opens or closes the node, and empties it as far as it goes.
    pub(super) async fn go_on(&mut self) -> Result<Went, NodeError> {
        let went = self.steps().await;
        self.remember();
        went
    }

    async fn steps(&mut self) -> Result<Went, NodeError> {
        // More steps than the machine has edges would be a circle.
        for _ in 0..STEPS_MAX {
            match next(&self.seen()) {
                Step::Rest(until) => {
                    self.open_or_close().await?;
                    self.release_lost().await?;
                    return Ok(Went::Rests(until));
                }
                Step::Request(wish) => self.request(&wish).await?,
                Step::Withdraw => self.withdraw().await?,
                Step::Close => self.close("Draining").await?,
                Step::Enter(status) => self.enter(status).await?,
                Step::Resume => {
                    self.drain = None;
                    self.report().await?;
                    let note = "the drain was taken back; the node goes on";
                    self.context
                        .events
                        .publish(&self.node, Reason::DrainCancelled, note)
                        .await;
                }
                Step::Move(times) => self.order_move(times).await?,
                Step::Release => self.release().await?,
                Step::RemovePod => self.remove_pod().await?,
                Step::LetGo => {
                    self.let_go().await?;
                    return Ok(Went::LetGo);
                }
            }
        }
        Ok(Went::Rests(Some(later(self.now, Duration::from_secs(1)))))
    }

    async fn request(&mut self, wish: &DrainRequest) -> Result<(), NodeError> {
        self.node = request_drain(&self.context.client, &self.node, wish)
            .await
            .map_err(CallError::of::<NodeError>("ask for a drain"))?;
        Ok(())
    }

    /// The version keeps a wish that a person wrote meanwhile.
    async fn withdraw(&mut self) -> Result<(), NodeError> {
        let patch = json!({
            "metadata": { "resourceVersion": self.node.metadata.resource_version },
            "spec": { "drain": null },
        });
        self.patch_node(&patch, MANAGER_DRAIN, "take a drain back")
            .await
    }

    /// The facts first, so that no publication that is under way opens the node again.
    async fn close(&mut self, reason: &str) -> Result<(), NodeError> {
        if let Some(mut endpoint) = self.context.endpoints.get(&self.uid) {
            endpoint.accepting = false;
            self.context.endpoints.set(&self.uid, endpoint);
        }
        let epoch = self.epoch();
        let told = self
            .context
            .orders
            .accepting(&self.uid, epoch, false, reason)
            .await;
        self.answered(told)?;
        self.memory.closed = Some(epoch);
        Ok(())
    }

    /// What people ask beside a drain: no new rooms, or rooms again.
    async fn open_or_close(&mut self) -> Result<(), NodeError> {
        if !self.served() || self.pod_state != PodState::There {
            return Ok(());
        }
        let epoch = self.epoch();
        let closed = self.memory.closed == Some(epoch);
        match may_accept(&self.seen()) {
            Err(Reason::Unschedulable) if !closed => self.close("Unschedulable").await,
            Err(_) => Ok(()),
            Ok(()) => {
                let hears_no = self.registered() == Registered::Yes { accepting: false };
                let asked = self.memory.opened;
                let again = asked.is_none_or(|asked| self.now >= later(asked, OPEN_AGAIN));
                let ready = self.pod.as_ref().is_some_and(is_ready);
                let must_tell = closed || (hears_no && again && ready);
                if !must_tell {
                    return Ok(());
                }
                if let Some(mut endpoint) = self.context.endpoints.get(&self.uid) {
                    endpoint.accepting = true;
                    self.context.endpoints.set(&self.uid, endpoint);
                }
                self.memory.opened = Some(self.now);
                let told = self
                    .context
                    .orders
                    .accepting(&self.uid, epoch, true, "Reconciled")
                    .await;
                self.answered(told)?;
                self.memory.closed = None;
                Ok(())
            }
        }
    }

    fn answered(&mut self, told: Result<(), OrderError>) -> Result<(), NodeError> {
        self.unordered = told.as_ref().err().map(ToString::to_string);
        told.map_err(NodeError::from)
    }

    async fn order_move(&mut self, times: MoveTimes) -> Result<(), NodeError> {
        let replicas = self.context.live.borrow().replicas;
        let told = self
            .context
            .orders
            .move_rooms(
                &self.uid,
                self.epoch(),
                times.deadline,
                Some(times.moves_at),
                times.announce_before,
            )
            .await;
        self.answered(told)?;
        self.memory.ordered = Some((times, replicas, self.now));
        Ok(())
    }

    async fn enter(&mut self, status: DrainStatus) -> Result<(), NodeError> {
        let before = self.drain.as_ref().map(|status| status.phase);
        let late = self.now
            >= status
                .deadline
                .as_ref()
                .map_or(Timestamp::MAX, |deadline| deadline.0);
        let rooms = self.seen().rooms.unwrap_or(0);
        let phase = status.phase;
        let until = status
            .deadline
            .as_ref()
            .map_or(String::new(), |deadline| deadline.0.to_string());
        self.drain = Some(status);
        self.report().await?;
        if before == Some(phase) {
            return Ok(());
        }
        tracing::info!(event = "DrainPhase", namespace = self.name.namespace, node = self.name.name, phase = %phase, "a drain went on");
        let events = &self.context.events;
        let node = &self.node;
        match phase {
            DrainPhase::Announced => {
                let note = format!("no new rooms; those that are there may end until {until}");
                events.publish(node, Reason::DrainAnnounced, note).await;
            }
            DrainPhase::Moving => {
                let note = "rooms move to other nodes";
                events.publish(node, Reason::RoomsMoving, note).await;
            }
            DrainPhase::Drained if rooms > 0 && late && self.pod_state != PodState::Gone => {
                let note = format!("{rooms} rooms found no place in time and are given up");
                events.warn(node, Reason::DeadlinePassed, note).await;
            }
            DrainPhase::Drained => {
                events
                    .publish(node, Reason::Empty, "no rooms are left")
                    .await
            }
            DrainPhase::Closing | DrainPhase::Waiting => {}
        }
        Ok(())
    }

    /// The label that the budget selects, and what keeps autoscalers of machines away.
    async fn release(&mut self) -> Result<(), NodeError> {
        let gone: serde_json::Map<String, serde_json::Value> = PROTECTING_ANNOTATIONS
            .iter()
            .map(|(key, _)| ((*key).to_owned(), serde_json::Value::Null))
            .collect();
        let patch = json!({ "metadata": {
            "uid": self.pod.as_ref().and_then(ResourceExt::uid),
            "labels": { LABEL_PROTECTED: null },
            "annotations": gone,
        } });
        let api = Api::<Pod>::namespaced(self.context.client.clone(), &self.name.namespace);
        let params = PatchParams {
            field_manager: Some(MANAGER_OPERATOR.to_owned()),
            ..PatchParams::default()
        };
        match api
            .patch(&self.name.name, &params, &Patch::Merge(&patch))
            .await
        {
            Ok(pod) => self.pod = Some(pod),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.code == 409 => {
                self.pod_state = PodState::Gone;
                self.pod = None;
            }
            Err(error) => return Err(CallError::of::<NodeError>("release the pod")(error)),
        }
        Ok(())
    }

    /// A pod that ended by itself holds nobody; its budget need not count it.
    async fn release_lost(&mut self) -> Result<(), NodeError> {
        if self.pod_state == PodState::Gone && self.is_protected() {
            self.release().await?;
        }
        Ok(())
    }

    async fn remove_pod(&mut self) -> Result<(), NodeError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: self.pod.as_ref().and_then(ResourceExt::uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let namespace = Some(self.name.namespace.as_str());
        ssa::delete::<Pod>(&self.context.client, namespace, &self.name.name, &params).await?;
        self.pod_state = PodState::Going { until: self.now };
        self.context
            .events
            .publish(&self.node, Reason::PodRemoved, "the drained pod is removed")
            .await;
        Ok(())
    }

    async fn let_go(&mut self) -> Result<(), NodeError> {
        let left: Vec<String> = self
            .node
            .finalizers()
            .iter()
            .filter(|name| *name != FINALIZER_NODE)
            .cloned()
            .collect();
        let patch = json!({ "metadata": {
            "resourceVersion": self.node.metadata.resource_version,
            "finalizers": left,
        } });
        match self
            .patch_node(&patch, MANAGER_OPERATOR, "let the media node go")
            .await
        {
            Err(NodeError::Call(error)) if error.is_not_found() => {}
            outcome => outcome?,
        }
        self.forget();
        Ok(())
    }

    /// A node whose pod is gone stays visible for a while.
    pub(super) async fn collect(&mut self) -> Result<(), NodeError> {
        let Some(since) = self
            .memory
            .gone_since
            .filter(|_| self.node.metadata.deletion_timestamp.is_none())
        else {
            return Ok(());
        };
        let until = later(since, KEPT);
        if self.now < until {
            self.look_again_at(until);
            return Ok(());
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let namespace = Some(self.name.namespace.as_str());
        ssa::delete::<MediaNode>(&self.context.client, namespace, &self.name.name, &params).await?;
        Ok(())
    }
}

/// Writes `spec.drain` as its own manager. The uid keeps a node of the same name that came later out of it.
pub(crate) async fn request_drain(
    client: &Client,
    node: &MediaNode,
    wish: &DrainRequest,
) -> Result<MediaNode, kube::Error> {
    let (namespace, name) = (node.namespace().unwrap_or_default(), node.name_any());
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": "MediaNode",
        "metadata": { "name": name, "namespace": namespace, "uid": node.uid() },
        "spec": { "drain": wish },
    });
    let asked = Api::<MediaNode>::namespaced(client.clone(), &namespace)
        .patch(
            &name,
            &PatchParams::apply(MANAGER_DRAIN),
            &Patch::Apply(&body),
        )
        .await?;
    tracing::info!(event = "DrainRequested", namespace, node = name, reason = %wish.reason, "a media node is to be emptied");
    Ok(asked)
}

const STEPS_MAX: usize = 16;
/// A node that is heard not to take rooms although it may is told so again.
const OPEN_AGAIN: Duration = Duration::from_secs(10);
