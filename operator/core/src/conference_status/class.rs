// SPDX-License-Identifier: EUPL-1.2
//! Status of a ConferenceClass: its revision, and whether it can be used.

use jiff::Timestamp;
use plenum_api::{
    ConferenceClass, Reason,
    conditions::ConditionType,
    conference_class::{ConferenceClassSpec, ConferenceClassStatus},
};

use super::conditions::{Gathered, stalled_by};
use crate::{digest, problem::Problem};

/// Revision of a class: equal specifications, equal revision.
#[must_use]
pub fn revision(spec: &ConferenceClassSpec) -> String {
    digest::revision(spec)
}

/// Status of a class that was judged with these problems.
#[must_use]
pub fn status(
    class: &ConferenceClass,
    problems: &[&Problem],
    now: Timestamp,
) -> ConferenceClassStatus {
    let generation = class.metadata.generation;
    let before = class.status.as_ref();
    let before = before.map_or(&[][..], |status| &status.conditions);
    let mut gathered = Gathered::new(before, generation, now);
    let stalled = stalled_by(problems);
    match &stalled {
        None => gathered.say_if(
            ConditionType::Ready,
            true,
            Reason::Reconciled,
            "conferences may use it",
        ),
        Some((reason, message)) => gathered.say_named(
            ConditionType::Ready,
            plenum_api::ConditionStatus::False,
            reason,
            message,
        ),
    }
    gathered.say_if(
        ConditionType::Reconciling,
        false,
        Reason::Reconciled,
        "nothing is left to do",
    );
    gathered.stalled(&stalled);
    ConferenceClassStatus {
        observed_generation: generation,
        revision: Some(revision(&class.spec)),
        conditions: gathered.into_conditions(),
    }
}
