// SPDX-License-Identifier: EUPL-1.2
//! Classes of conferences: their revision, and whether they can be used.

use std::sync::Arc;

use kube::{
    ResourceExt as _,
    runtime::{Controller, controller::Action},
};
use operator_core::{Name, Problem, conference_status::class};
use plenum_api::ConferenceClass;

use crate::{
    context::Context,
    driver::{Failure, drive, settled},
    live::Live,
    planner::Planned,
    ssa::ApplyError,
    tenant::{Fingerprints, Now, Written, concerned, look_again, named, print, problems},
};

/// Why a class could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// The API server refused, or is away.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Failure for ClassError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
        }
    }
}

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    let classes = &context.stores.classes;
    let controller = Controller::for_shared_stream(classes.subscribe(), classes.store())
        .watches_stream(
            concerned::<ConferenceClass, _>(&context, fingerprints),
            named::<ConferenceClass, _>,
        );
    let written = Arc::new(Written::default());
    drive(context, controller, move |class, context| {
        reconcile(class, context, Arc::clone(&written))
    })
    .await;
}

fn fingerprints(planned: &Planned, _: &Live) -> Fingerprints {
    let mut all: Fingerprints = planned
        .objects
        .classes
        .iter()
        .map(|(name, class)| {
            (
                Name::new("", name.as_str()),
                print(class.metadata.generation),
            )
        })
        .collect();
    for (key, wrong) in &planned.problems {
        if key.kind == "ConferenceClass" {
            all.insert(key.name.clone(), problems(wrong));
        }
    }
    all
}

async fn reconcile(
    class: Arc<ConferenceClass>,
    context: Arc<Context>,
    written: Arc<Written<ConferenceClass>>,
) -> Result<Action, ClassError> {
    let now = Now::of(&context, context.now());
    if class.metadata.deletion_timestamp.is_some() {
        written.forget(&class);
        return Ok(settled());
    }
    let name = class.name_any();
    let wrong: Vec<&Problem> = now
        .planned
        .problems_of("ConferenceClass", "", &name)
        .iter()
        .collect();
    let seen = now.planned.objects.classes.get(&name);
    let judged = seen.is_some_and(|seen| seen.metadata.generation == class.metadata.generation);
    if wrong.is_empty() && !judged {
        let at = Name::new("", &*name);
        return Ok(look_again(
            &context,
            now.until_planned("ConferenceClass", &at, false),
        ));
    }
    let mut class = written.over(&class);
    let status = class::status(&class, &wrong, now.at);
    written.report(&context, &mut class, status).await?;
    Ok(settled())
}
