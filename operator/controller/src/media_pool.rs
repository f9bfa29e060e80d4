// SPDX-License-Identifier: EUPL-1.2
//! Pools: how many media nodes there are, and of which revision.
//!
//! One pass reads like its table of contents: look, make the budget large enough, make what is missing, ask those to go that are too many
//! or too old, let the budget sink, tell. Decisions are in `operator_core::media_pool`.

use std::{sync::Arc, time::Duration};

use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
    runtime::{Controller, controller::Action, reflector::ObjectRef},
};
use operator_core::{
    Name,
    media_node::pod::{PodSettings, pod_of},
    media_pool::{
        autoscale::{Load, capacity_of_node},
        plan::{Steps, count, plan},
        ports::PortsError,
        revision::{revision, specimen},
        status::{Facts, first, status},
    },
};
use plenum_api::{
    ConditionStatus, ConditionType, MediaNode, MediaPool, Reason,
    conditions::find,
    media_pool::MediaPoolStatus,
    names::{FINALIZER_POOL, LABEL_POOL, MANAGER_OPERATOR},
};
use serde_json::json;

use crate::{
    context::Context,
    driver::{self, Failure, again_after, drive},
    ssa::{self, ApplyError, CallError, apply_status},
};

mod autoscaler;
mod budget;
mod children;
mod memory;
mod steps;
mod view;

use memory::Memory;
use view::View;

/// Why a pool could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// An object could not be brought into its shape.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Another call to the API server failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Failure for PoolError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Call(error) => error.reason(),
        }
    }
}

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    // What is remembered is worth something only while nobody else writes.
    let memory = Arc::new(Memory::default());
    tokio::join!(
        reconcile_all(Arc::clone(&context), Arc::clone(&memory)),
        autoscaler::run(context, memory),
    );
}

async fn reconcile_all(context: Arc<Context>, memory: Arc<Memory>) {
    let stores = &context.stores;
    let everybody = {
        let pools = stores.pools.store();
        move || -> Vec<ObjectRef<MediaPool>> {
            let pools = pools.state();
            pools
                .iter()
                .map(|pool| ObjectRef::from_obj(&**pool))
                .collect()
        }
    };
    let (on_machine, on_window) = (everybody.clone(), everybody);
    let controller = Controller::for_shared_stream(stores.pools.subscribe(), stores.pools.store())
        .watches_shared_stream(stores.media_nodes.subscribe(), |node| pool_of_node(&node))
        .watches_shared_stream(stores.pods.subscribe(), |pod| pool_of_pod(&pod))
        .watches_shared_stream(stores.nodes.subscribe(), move |_| on_machine())
        .watches_shared_stream(stores.windows.subscribe(), move |_| on_window())
        .reconcile_all_on(reports(&context))
        .reconcile_all_on(decisions(&memory));
    drive(Arc::clone(&context), controller, move |pool, context| {
        reconcile(pool, context, Arc::clone(&memory))
    })
    .await;
}

/// Reports of the control plane, not faster than people read a status.
fn reports(context: &Context) -> impl futures::Stream<Item = ()> + Send + 'static {
    stream::unfold(context.live.clone(), |mut live| async move {
        tokio::time::sleep(REPORTS).await;
        live.changed().await.ok()?;
        live.mark_unchanged();
        Some(((), live))
    })
}

/// Decisions of the autoscaler.
fn decisions(memory: &Memory) -> impl futures::Stream<Item = ()> + Send + 'static {
    stream::unfold(memory.decisions(), |mut decisions| async move {
        decisions.changed().await.ok()?;
        Some(((), decisions))
    })
}

fn pool_of_node(node: &MediaNode) -> Option<ObjectRef<MediaPool>> {
    Some(ObjectRef::new(&node.spec.pool_ref.name).within(&node.namespace()?))
}

fn pool_of_pod(pod: &Pod) -> Option<ObjectRef<MediaPool>> {
    Some(ObjectRef::new(pod.labels().get(LABEL_POOL)?).within(&pod.namespace()?))
}

async fn reconcile(
    pool: Arc<MediaPool>,
    context: Arc<Context>,
    memory: Arc<Memory>,
) -> Result<Action, PoolError> {
    let name = Name::new(pool.namespace().unwrap_or_default(), pool.name_any());
    let pass = Pass {
        pool: &pool,
        name: &name,
        context: &context,
        memory: &memory,
        now: context.now(),
    };
    let held = pool
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER_POOL);
    if pool.meta().deletion_timestamp.is_some() {
        return if held {
            pass.let_go().await
        } else {
            Ok(driver::settled())
        };
    }
    // What an API server gives a new object says nothing but that nobody has looked at it.
    if pool
        .status
        .as_ref()
        .is_none_or(|status| status.selector.is_none())
    {
        let status = first(pool.meta().generation, &name.name, context.time().0);
        apply_status(&context.client, &*pool, &status).await?;
    }
    if !held {
        pass.hold().await?;
    }
    pass.keep().await
}

/// One look at one pool.
struct Pass<'a> {
    pool: &'a MediaPool,
    name: &'a Name,
    context: &'a Context,
    memory: &'a Memory,
    now: Timestamp,
}

impl Pass<'_> {
    /// The pool as it is declared.
    async fn keep(&self) -> Result<Action, PoolError> {
        let spec = &self.pool.spec;
        let revision = self.revision();
        let (desired, cause) = self.desired();
        let view = self.view().await?;
        let (permit, closing) = view::permit(self, &view);
        let mut steps = plan(spec, desired, &revision, &view.states(), permit, self.now);

        if closing.is_some() {
            steps.create = 0;
        }

        children::policy(self).await?;
        budget::raise(self, view.uncovered() + steps.create).await?;
        let held = children::services(self, &view).await?;
        let refused = self.make(&view, steps.create, &revision, held).await?;
        self.empty(&view, &steps).await?;
        budget::lower(self, &view).await?;
        self.tell(&view, &steps, &revision, (desired, cause), refused)
            .await?;
        // Whoever takes away a budget of others wants to see that it helped.
        let foreign = self.memory.foreign_budgets(self.name, self.now).flatten();
        if foreign.is_some_and(|names| !names.is_empty()) {
            return Ok(Action::requeue(memory::FOREIGN_EVERY));
        }
        Ok(self.again(&steps))
    }

    /// The pool is being deleted: its nodes drain, and what protects them stays until the last one is gone.
    async fn let_go(&self) -> Result<Action, PoolError> {
        let view = self.view().await?;
        for node in view.nodes() {
            if node.meta().deletion_timestamp.is_none() {
                self.forget(&node.name_any()).await?;
            }
        }
        if view.is_empty() && self.nodes_anew().await?.is_empty() {
            children::delete_all(self).await?;
            self.release().await?;
            self.memory.forget(self.name);
            let metrics = &self.context.metrics;
            metrics.pool_gone(&self.name.namespace, &self.name.name);
            return Ok(driver::settled());
        }
        budget::raise(self, view.uncovered()).await?;
        children::services(self, &view).await?;
        budget::lower(self, &view).await?;
        let steps = Steps::default();
        self.tell(&view, &steps, &self.revision(), (0, "Deleting"), None)
            .await?;
        Ok(driver::settled())
    }

    fn revision(&self) -> String {
        let settings = &self.context.settings;
        revision(&pod_of(
            self.pool,
            &specimen(self.pool),
            &PodSettings {
                image: &settings.media_image,
                control_plane: &settings.control_plane,
                site: &settings.site,
                version: env!("CARGO_PKG_VERSION"),
            },
        ))
    }

    /// The number that should hold, and why. The autoscaler's own word counts before what stands in the specification, where a manifest
    /// that is applied again may have put another number; whatever else owns it speaks through the specification.
    fn desired(&self) -> (u32, &'static str) {
        let declared = self.pool.spec.replicas;
        match &self.pool.spec.autoscaling {
            None => (declared.unwrap_or(0), "Declared"),
            Some(autoscaling) => match self.memory.decision(self.name) {
                Some(decision) => (decision.desired, decision.cause.as_str()),
                None => (declared.unwrap_or(autoscaling.min_replicas), "Declared"),
            },
        }
    }

    async fn tell(
        &self,
        view: &View,
        steps: &Steps,
        revision: &str,
        (desired, cause): (u32, &str),
        refused: Option<PortsError>,
    ) -> Result<(), PoolError> {
        let states = view.states();
        let counts = count(&self.pool.spec, revision, &states);
        let refusal = refused.map(|error| error.to_string());
        let problem = self.problem();
        let capacity = capacity_of_node(&self.pool.spec).times(counts.accepting);
        let used = view.used(&self.context.live.borrow());
        self.context.metrics.pool(
            &self.name.namespace,
            &self.name.name,
            desired,
            counts,
            used.and_then(|used| used.share_of(capacity)),
        );
        let stalled = refusal
            .as_deref()
            .map(|message| (Reason::LimitExceeded, message))
            .or_else(|| {
                problem
                    .as_ref()
                    .map(|(reason, message)| (*reason, message.as_str()))
            });
        let foreign_budgets = budget::foreign(self).await;
        let facts = Facts {
            pool: &self.name.name,
            generation: self.pool.meta().generation,
            desired,
            cause,
            revision,
            counts,
            steps,
            capacity,
            used,
            addressed: view.addressed(),
            unaddressed: view.unaddressed(),
            foreign_budgets: foreign_budgets.as_deref(),
            stalled,
            deleting: self.pool.meta().deletion_timestamp.is_some(),
        };
        let mut new = status(
            self.pool.status.as_ref(),
            &self.pool.spec,
            &facts,
            self.context.time().0,
        );
        self.slow_down(&mut new);
        self.announce(&new).await;
        apply_status(&self.context.client, self.pool, &new).await?;
        Ok(())
    }

    /// Numbers of load are written at most every half minute.
    fn slow_down(&self, new: &mut MediaPoolStatus) {
        let Some(old) = &self.pool.status else { return };
        if old.used != new.used && !self.memory.may_write_usage(self.name, self.now) {
            new.used.clone_from(&old.used);
        }
    }

    async fn announce(&self, new: &MediaPoolStatus) {
        let old = self.pool.status.as_ref();
        if let Some(scale) = &new.last_scale
            && old.and_then(|old| old.last_scale.as_ref()) != Some(scale)
        {
            let note = format!(
                "{} nodes are wanted instead of {}: {}",
                scale.to, scale.from, scale.reason
            );
            self.context
                .events
                .publish(self.pool, Reason::Progressing, note)
                .await;
        }
        let foreign = |status: &MediaPoolStatus| {
            find(&status.conditions, ConditionType::Evictable)
                .filter(|said| said.status == ConditionStatus::False)
                .map(|said| said.message.clone())
        };
        if let Some(message) = foreign(new)
            && old.and_then(foreign).as_ref() != Some(&message)
        {
            let reason = Reason::ForeignBudget;
            self.context.events.warn(self.pool, reason, message).await;
        }
        let revision = old.and_then(|old| old.revision.as_ref());
        if revision.is_some() && revision != new.revision.as_ref() {
            let note = format!(
                "the template is of revision {}",
                new.revision.as_deref().unwrap_or_default()
            );
            self.context
                .events
                .publish(self.pool, Reason::Progressing, note)
                .await;
        }
    }

    /// What `validate` says about the pool, in the words of its condition.
    fn problem(&self) -> Option<(Reason, String)> {
        let planned = self.context.planned.borrow();
        let problem = planned
            .problems_of("MediaPool", &self.name.namespace, &self.name.name)
            .first()?;
        let reason = Reason::ALL
            .iter()
            .find(|reason| reason.as_str() == problem.rule);
        let message = format!(
            "{}: {}; {}",
            problem.pointer, problem.message, problem.remedy
        );
        Some((reason.copied().unwrap_or(Reason::LimitExceeded), message))
    }

    fn again(&self, steps: &Steps) -> Action {
        match steps
            .next
            .and_then(|next| Duration::try_from(next.duration_since(self.now)).ok())
        {
            // A moment too early would find nothing to do and ask again at once.
            Some(wait) => {
                Action::requeue((wait + Duration::from_millis(200)).min(driver::LOOK_AGAIN_MAX))
            }
            None => again_after(driver::LOOK_AGAIN_MAX),
        }
    }

    async fn hold(&self) -> Result<(), PoolError> {
        let mut finalizers = self.pool.finalizers().to_vec();
        finalizers.push(FINALIZER_POOL.to_owned());
        self.set_finalizers(finalizers, "add the finalizer of a pool")
            .await
    }

    async fn release(&self) -> Result<(), PoolError> {
        let mut finalizers = self.pool.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER_POOL);
        self.set_finalizers(finalizers, "take the finalizer off a pool")
            .await
    }

    async fn set_finalizers(
        &self,
        finalizers: Vec<String>,
        call: &'static str,
    ) -> Result<(), PoolError> {
        // The version guards the finalizers of others.
        let patch = json!({ "metadata": {
            "finalizers": finalizers,
            "resourceVersion": self.pool.meta().resource_version,
        } });
        let params = PatchParams {
            field_manager: Some(MANAGER_OPERATOR.to_owned()),
            ..PatchParams::default()
        };
        let api = Api::<MediaPool>::namespaced(self.context.client.clone(), &self.name.namespace);
        match api
            .patch(&self.name.name, &params, &Patch::Merge(&patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(CallError::of::<PoolError>(call)(error)),
        }
    }

    /// Deletes a node, which is a drain where it still has a pod.
    async fn forget(&self, node: &str) -> Result<(), PoolError> {
        let namespace = Some(&*self.name.namespace);
        ssa::delete::<MediaNode>(
            &self.context.client,
            namespace,
            node,
            &DeleteParams::default(),
        )
        .await?;
        Ok(())
    }
}

/// The load of nodes, as their reports have it.
fn load_of(state: &plenum_proto::v1::NodeState) -> Load {
    Load {
        rooms: state.rooms.into(),
        participants: state.participants.into(),
        egress_mbps: state.egress_bps.div_ceil(1_000_000),
    }
}

/// How often reports are taken in.
const REPORTS: Duration = Duration::from_secs(15);
