// SPDX-License-Identifier: EUPL-1.2
//! Media nodes: certificate, pod, addresses, and the way out.
//!
//! One pass reads like its table of contents: look, hold the node with a finalizer, make what it needs, tell the control plane where it is,
//! go on emptying it, say what is seen. Decisions are in `operator_core::media_node`. A node gets one pod in its life: what is lost is
//! lost, and its pool makes another node.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    ResourceExt as _,
    runtime::{Controller, controller::Action, reflector::ObjectRef},
};
use plenum_api::{MediaNode, MediaPool, names};

use crate::{
    authority::AuthorityError,
    context::Context,
    driver::{Failure, LOOK_AGAIN_MAX, again_after, drive},
    orders::OrderError,
    ssa::{ApplyError, CallError},
};

mod look;
mod make;
mod memory;
mod offer;
mod report;
mod steps;

use look::Pass;
use memory::Memories;
pub use offer::{endpoint_in, is_pod_gone};
pub(crate) use steps::request_drain;

/// Why a media node could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An object could not be brought into its shape.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Another call to the API server failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The node's certificate could not be made.
    #[error("the node's certificate: {0}")]
    Certificate(#[from] AuthorityError),
    /// An order to the control plane was not carried out.
    #[error("tell the control plane: {0}")]
    Order(#[from] OrderError),
}

impl Failure for NodeError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Call(error) => error.reason(),
            Self::Certificate(error) => error.reason(),
            Self::Order(error) => error.reason(),
        }
    }
}

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    // What is remembered is worth something only while nobody else gives orders.
    let memories = Arc::new(Memories::default());
    offer::seed(&context);
    tokio::join!(
        reconcile_all(Arc::clone(&context), Arc::clone(&memories)),
        forget_deleted(context, memories),
    );
}

async fn reconcile_all(context: Arc<Context>, memories: Arc<Memories>) {
    let stores = &context.stores;
    let (of_machine, of_pool) = (stores.media_nodes.store(), stores.media_nodes.store());
    let controller =
        Controller::for_shared_stream(stores.media_nodes.subscribe(), stores.media_nodes.store())
            .watches_shared_stream(stores.pods.subscribe(), |pod| node_of_pod(&pod))
            .watches_shared_stream(stores.nodes.subscribe(), move |machine| {
                on_machine(&of_machine.state(), &machine)
            })
            .watches_shared_stream(stores.pools.subscribe(), move |pool| {
                in_pool(&of_pool.state(), &pool)
            })
            .reconcile_on(reported(&context))
            .reconcile_all_on(certificates(&context));
    drive(Arc::clone(&context), controller, move |node, context| {
        reconcile(node, context, Arc::clone(&memories))
    })
    .await;
}

/// Certificates of all nodes follow another authority at once.
fn certificates(context: &Context) -> impl futures::Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(context.authority.changes(), |mut changes| async move {
        changes.changed().await.ok()?;
        Some(((), changes))
    })
}

/// One pass over one node.
async fn reconcile(
    node: Arc<MediaNode>,
    context: Arc<Context>,
    memories: Arc<Memories>,
) -> Result<Action, NodeError> {
    let deleted = node.metadata.deletion_timestamp.is_some();
    if deleted
        && !node
            .finalizers()
            .iter()
            .any(|name| name == names::FINALIZER_NODE)
    {
        return Ok(again_after(LOOK_AGAIN_MAX));
    }
    let mut pass = Pass::look(context, memories, node).await?;
    pass.hold().await?;
    pass.make().await?;
    pass.offer().await?;
    let went = pass.go_on().await;
    if matches!(went, Ok(steps::Went::LetGo)) {
        return Ok(again_after(LOOK_AGAIN_MAX));
    }
    // What failed is said as well, and tried again all the same.
    pass.report().await?;
    if let steps::Went::Rests(Some(moment)) = went? {
        pass.look_again_at(moment);
    }
    pass.collect().await?;
    Ok(again_after(pass.wait()))
}

/// Nodes that are gone without having been let go take nothing along: their records and what is remembered of them go as well.
async fn forget_deleted(context: Arc<Context>, memories: Arc<Memories>) {
    let store = context.stores.media_nodes.store();
    let mut changes = context.stores.media_nodes.subscribe();
    while let Some(node) = changes.next().await {
        let Some(uid) = node.metadata.uid.as_deref() else {
            continue;
        };
        let stored = store.get(&ObjectRef::from_obj(&*node));
        if stored.is_none_or(|stored| stored.metadata.uid.as_deref() != Some(uid)) {
            context.endpoints.remove(uid);
            memories.forget(uid);
        }
    }
}

fn node_of_pod(pod: &Pod) -> Option<ObjectRef<MediaNode>> {
    let namespace = pod.metadata.namespace.as_deref()?;
    let name = pod.labels().get(names::LABEL_NODE)?;
    Some(ObjectRef::new(name).within(namespace))
}

fn on_machine(nodes: &[Arc<MediaNode>], machine: &Node) -> Vec<ObjectRef<MediaNode>> {
    let name = machine.name_any();
    let on_it = |node: &&Arc<MediaNode>| {
        let status = node.status.as_ref();
        status.and_then(|status| status.node_name.as_deref()) == Some(name.as_str())
    };
    nodes
        .iter()
        .filter(on_it)
        .map(|node| ObjectRef::from_obj(&**node))
        .collect()
}

fn in_pool(nodes: &[Arc<MediaNode>], pool: &MediaPool) -> Vec<ObjectRef<MediaNode>> {
    let of_it = |node: &&Arc<MediaNode>| {
        node.metadata.namespace == pool.metadata.namespace
            && Some(&node.spec.pool_ref.name) == pool.metadata.name.as_ref()
    };
    nodes
        .iter()
        .filter(of_it)
        .map(|node| ObjectRef::from_obj(&**node))
        .collect()
}

/// Nodes of which the control plane says something new.
fn reported(context: &Arc<Context>) -> impl stream::Stream<Item = ObjectRef<MediaNode>> + use<> {
    let (live, store) = (context.live.clone(), context.stores.media_nodes.store());
    let before = Arc::default();
    stream::unfold((live, before), move |(mut live, before)| {
        let store = store.clone();
        async move {
            live.changed().await.ok()?;
            let now = live.borrow_and_update().clone();
            let news: Vec<ObjectRef<MediaNode>> = store
                .state()
                .iter()
                .filter(|node| {
                    let uid = node.metadata.uid.as_deref().unwrap_or_default();
                    memory::is_news(&before, &now, uid)
                })
                .map(|node| ObjectRef::from_obj(&**node))
                .collect();
            Some((stream::iter(news), (live, now)))
        }
    })
    .flatten()
}

/// A node whose pod is gone stays visible for that long.
const KEPT: Duration = Duration::from_secs(600);

fn later(moment: Timestamp, length: Duration) -> Timestamp {
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    moment.saturating_add(length).unwrap_or(Timestamp::MAX)
}
