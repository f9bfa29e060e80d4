// SPDX-License-Identifier: EUPL-1.2
//! Runs the controller of a kind: back-off per object, bounded concurrency, counters.

use std::{fmt::Debug, future::Future, hash::Hash, sync::Arc, time::Duration, time::Instant};

use futures::StreamExt as _;
use kube::{
    Resource, ResourceExt as _,
    runtime::{
        Config, Controller,
        controller::{self, Action},
        reflector::ObjectRef,
    },
};
use serde::de::DeserializeOwned;

use crate::{
    backoff::{Backoff, dice, spread},
    context::Context,
};

/// Objects of a kind that are worked on at a time.
const CONCURRENCY: u16 = 16;
/// Longest time that an object is not looked at.
pub const LOOK_AGAIN_MAX: Duration = Duration::from_secs(600);

/// Why an object could not be reconciled.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// CamelCase reason; label of a metric, so one of a small number.
    fn reason(&self) -> &'static str;

    /// Whether only a change of the object or of what it refers to can help; then it is not tried again by itself.
    fn awaits_change(&self) -> bool {
        false
    }
}

/// Look again after this long at the latest, give or take a tenth.
#[must_use]
pub fn again_after(duration: Duration) -> Action {
    Action::requeue(spread(duration.min(LOOK_AGAIN_MAX), dice()))
}

/// Look again when something changes, or after ten minutes.
#[must_use]
pub fn settled() -> Action {
    again_after(LOOK_AGAIN_MAX)
}

/// Runs a controller until its streams end, which they do with the process. Dropping the future stops it: a call on its way is cut off,
/// which is safe, because every step is idempotent and begins from what is there.
pub async fn drive<K, R, F, E>(context: Arc<Context>, controller: Controller<K>, reconcile: R)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Debug + Clone + Eq + Hash + Unpin,
    R: Fn(Arc<K>, Arc<Context>) -> F,
    F: Future<Output = Result<Action, E>> + Send + 'static,
    E: Failure,
{
    let kind: Arc<str> = K::kind(&K::DynamicType::default()).as_ref().into();
    let backoff = Arc::new(Backoff::default());
    let controller = controller.with_config(Config::default().concurrency(CONCURRENCY));
    let reconcile = {
        let (kind, backoff) = (Arc::clone(&kind), Arc::clone(&backoff));
        move |object: Arc<K>, context: Arc<Context>| {
            let (kind, backoff) = (Arc::clone(&kind), Arc::clone(&backoff));
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            let run = reconcile(object, Arc::clone(&context));
            async move {
                let began = Instant::now();
                let running = context.metrics.reconcile_began(&kind);
                let outcome = run.await;
                drop(running);
                context.metrics.reconciled(
                    &kind,
                    began.elapsed(),
                    outcome.as_ref().err().map(Failure::reason),
                );
                if outcome.is_ok() {
                    backoff.succeeded(&namespace, &name);
                }
                outcome
            }
        }
    };
    let policy = {
        let kind = Arc::clone(&kind);
        move |object: Arc<K>, error: &E, _: Arc<Context>| {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            if error.awaits_change() {
                tracing::debug!(kind = &*kind, namespace, name, reason = error.reason(), error = %error, "an object waits for a change");
                return again_after(LOOK_AGAIN_MAX);
            }
            let wait = backoff.failed(&namespace, &name, dice());
            tracing::warn!(event = "ReconcileFailed", kind = &*kind, namespace, name, reason = error.reason(), error = %chain(error), retry_ms = wait.as_millis(), "an object could not be reconciled");
            Action::requeue(wait)
        }
    };
    controller
        .run(reconcile, policy, context)
        .for_each(|outcome| {
            note::<K, E>(&kind, outcome);
            std::future::ready(())
        })
        .await;
}

fn note<K: Resource, E: Failure>(
    kind: &str,
    outcome: Result<(ObjectRef<K>, Action), controller::Error<E, kube::runtime::watcher::Error>>,
) where
    K::DynamicType: Debug + Clone + Eq + Hash,
{
    match outcome {
        // The policy has said what there is to say; an object that went meanwhile is no error.
        Ok(_)
        | Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) => {}
        Err(error) => {
            tracing::warn!(event = "ControllerDisturbed", kind, error = %error, "a controller was disturbed");
        }
    }
}

/// An error with its causes.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
