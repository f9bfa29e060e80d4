// SPDX-License-Identifier: EUPL-1.2
//! Events on objects, in `events.k8s.io`. They tell people what happened; nothing depends on them, so a lost one is no failure.

use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use plenum_api::Reason;

use crate::telemetry::Metrics;

/// Longest note, as the API takes it.
const NOTE_BYTES_MAX: usize = 1024;

/// Writes Events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    metrics: Metrics,
}

impl Events {
    /// Events of this process.
    #[must_use]
    pub fn new(client: Client, pod_name: &str, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: "plenum.dev/operator".to_owned(),
            instance: Some(pod_name.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            metrics,
        }
    }

    /// Something took place. The note names neither people nor secrets.
    pub async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: Reason,
        note: impl Into<String>,
    ) {
        self.write(object, EventType::Normal, reason, note.into())
            .await;
    }

    /// Something is not as it should be.
    pub async fn warn<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: Reason,
        note: impl Into<String>,
    ) {
        self.write(object, EventType::Warning, reason, note.into())
            .await;
    }

    async fn write<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        type_: EventType,
        reason: Reason,
        mut note: String,
    ) {
        let mut end = note.len().min(NOTE_BYTES_MAX);
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        let event = Event {
            type_,
            reason: reason.as_str().to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            self.metrics.event_lost();
            tracing::debug!(kind = %K::kind(&()), reason = reason.as_str(), error = %error, "an Event could not be written");
        }
    }
}
