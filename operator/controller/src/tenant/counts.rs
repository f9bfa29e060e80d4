// SPDX-License-Identifier: EUPL-1.2
//! How many conferences a namespace has: counted once for each plan, not once for each object.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use plenum_api::Conference;

use crate::{context::Context, planner::Planned};

/// Numbers by namespace.
#[derive(Default)]
pub(crate) struct Counts(Mutex<Option<Counted>>);

struct Counted {
    /// Held, so that no other plan can come to lie at its address.
    of: Arc<Planned>,
    by_namespace: Arc<HashMap<String, u32>>,
}

impl Counts {
    /// Conferences of a namespace.
    pub(crate) fn of(&self, context: &Context, planned: &Arc<Planned>, namespace: &str) -> u32 {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = counted
            .as_ref()
            .filter(|counted| Arc::ptr_eq(&counted.of, planned))
            .map(|counted| Arc::clone(&counted.by_namespace));
        let by_namespace = fresh.unwrap_or_else(|| {
            let mut numbers = HashMap::new();
            for conference in context.stores.conferences.all() {
                if let Some(namespace) = &conference.metadata.namespace {
                    *numbers.entry(namespace.clone()).or_default() += 1;
                }
            }
            let numbers = Arc::new(numbers);
            *counted = Some(Counted {
                of: Arc::clone(planned),
                by_namespace: Arc::clone(&numbers),
            });
            numbers
        });
        by_namespace.get(namespace).copied().unwrap_or_default()
    }

    /// Whether a conference is among the oldest that a limit has room for.
    pub(crate) fn fits(
        &self,
        context: &Context,
        planned: &Arc<Planned>,
        conference: &Conference,
        limit: u32,
    ) -> bool {
        let namespace = conference.metadata.namespace.as_deref().unwrap_or_default();
        if self.of(context, planned, namespace) <= limit {
            return true;
        }
        let age = |conference: &Conference| {
            let meta = &conference.metadata;
            (meta.creation_timestamp.clone(), meta.name.clone())
        };
        let own = age(conference);
        let older = context
            .stores
            .conferences
            .all()
            .iter()
            .filter(|other| other.metadata.namespace.as_deref() == Some(namespace))
            .filter(|other| age(other) < own)
            .count();
        u32::try_from(older).is_ok_and(|older| older < limit)
    }
}
