// SPDX-License-Identifier: EUPL-1.2
//! Which objects a new plan or a new report of the control plane concerns: the others are left alone.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream, stream::BoxStream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    core::{PartialObjectMeta, PartialObjectMetaExt as _},
    runtime::{reflector::ObjectRef, watcher},
};
use operator_core::{Name, Problem};
use tokio::sync::watch;

use crate::{context::Context, live::Live, planner::Planned};

/// Changes that come within this time are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);

/// What concerns each object, as one number.
pub(crate) type Fingerprints = HashMap<Name, u64>;

/// Objects of a kind whose fingerprint changes; each of them once at the beginning.
pub(crate) fn concerned<K, F>(
    context: &Context,
    of: F,
) -> BoxStream<'static, Result<PartialObjectMeta<K>, watcher::Error>>
where
    K: Resource<DynamicType = ()> + Send + 'static,
    F: Fn(&Planned, &Live) -> Fingerprints + Send + 'static,
{
    let state = State {
        planned: context.planned.clone(),
        live: context.live.clone(),
        known: Fingerprints::new(),
        queue: VecDeque::new(),
        of,
        first: true,
    };
    stream::unfold(state, |mut state| async move {
        let name = state.next().await?;
        let meta = ObjectMeta {
            name: Some(name.name),
            namespace: Some(name.namespace).filter(|namespace| !namespace.is_empty()),
            ..ObjectMeta::default()
        };
        Some((Ok(meta.into_response_partial::<K>()), state))
    })
    .boxed()
}

/// The object that a stream of [`concerned`] names.
pub(crate) fn named<K, T>(partial: T) -> Option<ObjectRef<K>>
where
    K: Resource<DynamicType = ()>,
    T: Resource,
{
    let meta = partial.meta();
    let name = ObjectRef::new(meta.name.as_deref()?);
    Some(match &meta.namespace {
        Some(namespace) => name.within(namespace),
        None => name,
    })
}

struct State<F> {
    planned: watch::Receiver<Arc<Planned>>,
    live: watch::Receiver<Arc<Live>>,
    known: Fingerprints,
    queue: VecDeque<Name>,
    of: F,
    first: bool,
}

impl<F: Fn(&Planned, &Live) -> Fingerprints> State<F> {
    async fn next(&mut self) -> Option<Name> {
        loop {
            if let Some(name) = self.queue.pop_front() {
                return Some(name);
            }
            if !std::mem::take(&mut self.first) {
                tokio::select! {
                    changed = self.planned.changed() => changed.ok()?,
                    changed = self.live.changed() => changed.ok()?,
                }
                tokio::time::sleep(TOGETHER).await;
            }
            let planned = Arc::clone(&self.planned.borrow_and_update());
            let live = Arc::clone(&self.live.borrow_and_update());
            if !planned.ready {
                continue;
            }
            let new = (self.of)(&planned, &live);
            let gone = self.known.keys().filter(|name| !new.contains_key(*name));
            self.queue.extend(gone.cloned());
            let changed = new
                .iter()
                .filter(|(name, print)| self.known.get(*name) != Some(print))
                .map(|(name, _)| name.clone());
            self.queue.extend(changed);
            self.known = new;
        }
    }
}

/// A number for a value.
pub(crate) fn print(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A number for what is wrong.
pub(crate) fn problems(problems: &[Problem]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for problem in problems {
        (
            &problem.pointer,
            &problem.rule,
            &problem.message,
            &problem.remedy,
        )
            .hash(&mut hasher);
    }
    hasher.finish()
}
