// SPDX-License-Identifier: EUPL-1.2
//! Declared conferences: password, opener keys, publication, status, and their end.
//!
//! There is no finalizer: ten thousand objects must not hang when a namespace goes while the operator is away. What is
//! deleted drops out of the plan, and with it out of what is published.

mod facts;
mod keys;

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Preconditions},
    runtime::{Controller, controller::Action, reflector::ObjectRef},
};
use operator_core::{
    Name, RecordKind,
    conference_status::{self, class, class_in_use, collected_at},
    tenant::leaving::is_leaving,
};
use plenum_api::{ConditionStatus, ConditionType, Conference, Reason, conditions::find};
use plenum_proto::v1::ConferenceState;

use crate::{
    context::Context,
    driver::{Failure, drive, settled},
    live::Live,
    planner::Planned,
    ssa::{self, ApplyError},
    tenant::{
        Counts, Fingerprints, Now, SecretError, Written, concerned, look_again, named, print,
        problems, told,
    },
};

/// Why a conference could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum ConferenceError {
    /// The API server refused, or is away.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A Secret could not be made.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Failure for ConferenceError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Secret(error) => error.reason(),
        }
    }
}

struct State {
    written: Written<Conference>,
    counts: Counts,
    started: Timestamp,
}

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    let conferences = &context.stores.conferences;
    let controller = Controller::for_shared_stream(conferences.subscribe(), conferences.store())
        .watches_stream(
            concerned::<Conference, _>(&context, fingerprints),
            named::<Conference, _>,
        )
        .watches_shared_stream(context.stores.namespaces.subscribe(), {
            let context = Arc::clone(&context);
            move |namespace: Arc<Namespace>| in_namespace(&context, &namespace.name_any())
        });
    let state = Arc::new(State {
        written: Written::default(),
        counts: Counts::default(),
        started: context.now(),
    });
    drive(context, controller, move |conference, context| {
        reconcile(conference, context, Arc::clone(&state))
    })
    .await;
}

fn in_namespace(context: &Context, namespace: &str) -> Vec<ObjectRef<Conference>> {
    let all = context.stores.conferences.all();
    all.iter()
        .filter(|conference| conference.metadata.namespace.as_deref() == Some(namespace))
        .map(|conference| ObjectRef::from_obj(&**conference))
        .collect()
}

/// What of a plan and a report concerns a conference. How many are in does not, only whether somebody is.
fn fingerprints(planned: &Planned, live: &Live) -> Fingerprints {
    let mut all = Fingerprints::new();
    let mut add = |name: &Name, value: u64| {
        let entry = all.entry(name.clone()).or_default();
        *entry = print((*entry, value));
    };
    let tenants: HashMap<&str, u64> = planned
        .objects
        .tenants
        .iter()
        .map(|(name, tenant)| {
            let spec = &tenant.spec;
            let from = spec.active_from.as_ref().map(|from| from.0);
            let value = (
                spec.suspended,
                from,
                spec.limits.conferences,
                is_leaving(tenant),
            );
            (name.as_str(), print(value))
        })
        .collect();
    let classes: HashMap<&str, String> = planned
        .objects
        .classes
        .iter()
        .map(|(name, class)| (name.as_str(), class::revision(&class.spec)))
        .collect();
    for record in planned.plan.conferences.values() {
        let name = Name::new(&*record.namespace, &*record.name);
        let room = live.conferences.get(&record.uid).map(room_print);
        let answer = live.has(RecordKind::Conference, &record.uid, &record.revision);
        let refused = match live.ack(RecordKind::Conference, &record.uid) {
            Some(crate::live::Ack::Refused { reason, message }) => Some((reason, message)),
            _ => None,
        };
        let said = print((&record.revision, room, answer, refused, live.reachable));
        let tenant = tenants.get(record.tenant.as_str());
        add(&name, print((said, tenant)));
    }
    for (name, conference) in &planned.objects.conferences {
        let class = class_in_use(&planned.objects, conference);
        let revision = class.and_then(|(name, _)| classes.get(name));
        add(name, print((conference.metadata.generation, revision)));
    }
    for (key, wrong) in planned.problems.iter().chain(&planned.warnings) {
        if key.kind == "Conference" {
            add(&key.name, problems(wrong));
        }
    }
    all
}

fn room_print(state: &ConferenceState) -> u64 {
    print((
        state.opened,
        state.participants > 0,
        &state.node_id,
        state.epoch,
        state.hold,
    ))
}

async fn reconcile(
    conference: Arc<Conference>,
    context: Arc<Context>,
    state: Arc<State>,
) -> Result<Action, ConferenceError> {
    let now = Now::of(&context, state.started);
    if conference.metadata.deletion_timestamp.is_some() {
        state.written.forget(&conference);
        return Ok(settled());
    }
    let mut conference = state.written.over(&conference);
    let place = facts::Place::of(&context, &conference);
    let made = if place.may_hold_secrets() {
        keys::bring(&context, &now, &place, &conference).await
    } else {
        Ok(())
    };
    let again_at = report(&context, &state, &now, &place, &mut conference).await?;
    made?;
    if is_over(&conference, &now) {
        collect(&context, &conference).await?;
        state.written.forget(&conference);
        return Ok(settled());
    }
    Ok(look_again(&context, again_at))
}

async fn report(
    context: &Context,
    state: &State,
    now: &Now,
    place: &facts::Place,
    conference: &mut Conference,
) -> Result<Option<Timestamp>, ApplyError> {
    let (seen, unseen) = facts::with(context, &state.counts, now, place, conference, |facts| {
        conference_status::status(conference, facts)
    });
    let before = told(conference.status.as_ref().map(|status| &*status.conditions));
    if state
        .written
        .report(context, conference, seen.status)
        .await?
    {
        let after = conference.status.as_ref().map(|status| &*status.conditions);
        let stalled = after.and_then(|all| find(all, ConditionType::Stalled));
        let after = told(after);
        // Meetings come and go without Events; what somebody has to change is told.
        if let Some(stalled) = stalled.filter(|stalled| stalled.status == ConditionStatus::True)
            && before != after
        {
            let known = Reason::ALL
                .iter()
                .find(|known| known.as_str() == stalled.reason);
            let reason = known.copied().unwrap_or(Reason::Progressing);
            context
                .events
                .warn(conference, reason, stalled.message.clone())
                .await;
        }
    }
    let of_tenant = place.changes_at(now.at);
    Ok([seen.again_at, of_tenant, unseen]
        .into_iter()
        .flatten()
        .min())
}

/// Its time to live after the end has passed, and nobody is in.
fn is_over(conference: &Conference, now: &Now) -> bool {
    let conditions = conference
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let active = find(conditions, ConditionType::Active)
        .is_some_and(|active| active.status == ConditionStatus::True);
    !active && collected_at(&conference.spec).is_some_and(|at| now.at >= at)
}

/// Only as it was judged: whoever changed it meanwhile may have given it a new end.
async fn collect(context: &Context, conference: &Conference) -> Result<(), ApplyError> {
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: conference.metadata.uid.clone(),
        resource_version: None,
    });
    let (namespace, name) = (conference.namespace(), conference.name_any());
    let stands = ssa::get::<Conference>(&context.client, namespace.as_deref(), &name).await?;
    let same = stands.is_some_and(|stands| stands.spec == conference.spec);
    if !same {
        return Ok(());
    }
    ssa::delete::<Conference>(&context.client, namespace.as_deref(), &name, &params).await?;
    tracing::info!(
        event = "ConferenceCollected",
        namespace,
        conference = name,
        "a conference that was over was removed"
    );
    Ok(())
}
