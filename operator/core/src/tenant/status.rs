// SPDX-License-Identifier: EUPL-1.2
//! Status of a Tenant, from the object, its namespace, what the planner found, what the control plane said and its usage.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plenum_api::{
    Condition, ConditionStatus, Reason, Tenant,
    conditions::{ConditionType, find},
    tenant::{Limits, TenantStatus, TenantUsage},
};

use super::leaving::Step;
use crate::{
    conference_status::conditions::{
        Gathered, Publication, Published, Stalled, stalled_by, told_at,
    },
    problem::Problem,
};

/// Least time between two writes of usage.
pub const USAGE_EVERY: Duration = Duration::from_secs(60);

/// How far a tenant's namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    /// Everything stands in it.
    Ready,
    /// It is being made, or waited for.
    Progressing {
        /// What is being done.
        message: String,
    },
    /// Everything stands in it, and Kubernetes has not counted the quota: the API server refuses every conference so long.
    Uncounted,
    /// It cannot be the tenant's.
    Refused {
        /// Why, and what to do.
        message: String,
    },
}

impl NamespaceState {
    /// What is still missing, for people; `None` where nothing is, or nothing will come.
    fn missing(&self) -> Option<&str> {
        match self {
            Self::Progressing { message } => Some(message),
            Self::Uncounted => Some(
                "Kubernetes has not counted the namespace's ResourceQuota yet and refuses conferences until then; up to five minutes after \
                 an installation that is as it should be, later look whether kube-controller-manager runs its controller `resourcequota`",
            ),
            Self::Ready | Self::Refused { .. } => None,
        }
    }
}

/// What a tenant uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rooms.
    pub rooms: u32,
    /// Participants.
    pub participants: u32,
}

/// Everything a status is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// How far that is.
    pub namespace_state: NamespaceState,
    /// What is wrong with the object and with the Secrets it names.
    pub problems: &'a [&'a Problem],
    /// How its record stands.
    pub publication: Publication<'a>,
    /// Number of its conferences.
    pub conferences: u32,
    /// What it uses; `None` while the control plane is silent.
    pub usage: Option<Usage>,
    /// While it is being deleted.
    pub leaving: Option<Step>,
    /// Now.
    pub now: Timestamp,
}

/// A status, and when it is to be looked at again.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The status.
    pub status: TenantStatus,
    /// The next moment at which time alone changes something.
    pub again_at: Option<Timestamp>,
}

/// What is written in the first pass, before anything slow.
#[must_use]
pub fn first_pass(tenant: &Tenant, namespace: &str, now: Timestamp) -> TenantStatus {
    let mut status = tenant.status.clone().unwrap_or_default();
    status.observed_generation = tenant.metadata.generation;
    status.namespace = Some(namespace.to_owned());
    let mut gathered = Gathered::new(&status.conditions, tenant.metadata.generation, now);
    for (type_, holds) in [
        (ConditionType::Ready, false),
        (ConditionType::Reconciling, true),
    ] {
        gathered.say_if(
            type_,
            holds,
            Reason::Progressing,
            "the specification is being carried out",
        );
    }
    let fresh = gathered.into_conditions();
    for condition in fresh {
        plenum_api::conditions::set(&mut status.conditions, condition);
    }
    status
}

/// Whether a first pass is due: this generation was not looked at yet.
#[must_use]
pub fn wants_first_pass(tenant: &Tenant) -> bool {
    let seen = tenant
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    seen != tenant.metadata.generation || seen.is_none()
}

/// Status of a tenant.
#[must_use]
pub fn status(tenant: &Tenant, facts: &Facts<'_>) -> Seen {
    let generation = tenant.metadata.generation;
    let empty = TenantStatus::default();
    let before = tenant.status.as_ref().unwrap_or(&empty);
    let published = Published::of(
        &facts.publication,
        &before.conditions,
        generation,
        facts.now,
    );
    let stalled = stalled(facts, &published);
    let activity = Activity::of(tenant, facts.now);
    let (usage, usage_at) = sampled(before.usage.as_ref(), facts.usage, facts.now);
    let mut gathered = Gathered::new(&before.conditions, generation, facts.now);
    say_ready(&mut gathered, facts, &published, &stalled, activity);
    gathered.stalled(&stalled);
    say_namespace(&mut gathered, &facts.namespace_state);
    say_credentials(&mut gathered, facts.problems);
    gathered.published(&published, facts.problems.first().copied());
    say_active(&mut gathered, facts, activity);
    say_limits(&mut gathered, tenant, facts, before, usage_at.is_none());
    let conditions = gathered.into_conditions();
    let again_at = [
        usage_at,
        activity.changes_at(facts.now),
        told_at(facts.publication.silent_since, facts.now),
        match facts.leaving {
            Some(Step::Closing { until }) => Some(until),
            _ => None,
        },
    ];
    Seen {
        status: TenantStatus {
            observed_generation: generation,
            namespace: Some(facts.namespace.to_owned()),
            conferences: Some(facts.conferences),
            usage,
            policy_revision: match published {
                Published::Yes if facts.publication.silent_since.is_none() => {
                    facts.publication.planned.map(str::to_owned)
                }
                _ => before.policy_revision.clone(),
            },
            conditions,
        },
        again_at: again_at.into_iter().flatten().min(),
    }
}

/// Whether a tenant's conferences may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// They may.
    Active,
    /// Their time has not come.
    From(Timestamp),
    /// The tenant is suspended.
    Suspended,
}

impl Activity {
    /// Judges a tenant.
    #[must_use]
    pub fn of(tenant: &Tenant, now: Timestamp) -> Self {
        match &tenant.spec.active_from {
            _ if tenant.spec.suspended => Self::Suspended,
            Some(from) if from.0 > now => Self::From(from.0),
            _ => Self::Active,
        }
    }

    /// For a conference of the tenant: why it cannot open.
    ///
    /// # Errors
    /// The reason, with a text for people.
    pub fn allows(self) -> Result<(), (Reason, &'static str)> {
        match self {
            Self::Active => Ok(()),
            Self::From(_) => Err((
                Reason::NotYetActive,
                "spec.activeFrom of the tenant lies ahead",
            )),
            Self::Suspended => Err((Reason::Suspended, "the tenant is suspended")),
        }
    }

    /// The next moment at which this changes.
    #[must_use]
    pub fn changes_at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::From(at) if at > now => Some(at),
            _ => None,
        }
    }
}

fn stalled(facts: &Facts<'_>, published: &Published) -> Stalled {
    if facts.leaving.is_some() {
        return None;
    }
    if let NamespaceState::Refused { message } = &facts.namespace_state {
        let reason = Reason::NamespaceNotAdoptable.as_str().to_owned();
        return Some((reason, message.clone()));
    }
    if let Published::Refused { reason, message } = published {
        return Some((reason.clone(), message.clone()));
    }
    stalled_by(facts.problems)
}

fn say_ready(
    gathered: &mut Gathered<'_>,
    facts: &Facts<'_>,
    published: &Published,
    stalled: &Stalled,
    activity: Activity,
) {
    let ready = ConditionType::Ready;
    let mut reconciling = (
        false,
        Reason::Reconciled,
        "nothing is left to do".to_owned(),
    );
    if let Some(step) = facts.leaving {
        let (reason, message) = leaving_text(step);
        gathered.say_if(ready, false, reason, message.clone());
        reconciling = (true, reason, message);
    } else if let Some((reason, message)) = stalled {
        gathered.say_named(ready, ConditionStatus::False, reason, message);
    } else if let Some(message) = facts.namespace_state.missing() {
        gathered.say_if(ready, false, Reason::Progressing, message);
        reconciling = (true, Reason::Progressing, message.to_owned());
    } else if published.is_in_effect() {
        let (reason, message) = match activity {
            Activity::Active => (Reason::Reconciled, "everything declared is in effect"),
            Activity::From(_) => (
                Reason::Prepared,
                "everything is prepared; spec.activeFrom lies ahead",
            ),
            Activity::Suspended => (Reason::Suspended, "spec.suspended is in effect"),
        };
        gathered.say_if(ready, true, reason, message);
    } else {
        let (reason, message) = if *published == Published::NeverAndSilent {
            (
                Reason::ControlPlaneUnreachable,
                "the control plane cannot be reached",
            )
        } else {
            (Reason::Progressing, "the control plane is being told")
        };
        gathered.say_if(ready, false, reason, message);
        reconciling = (true, reason, message.to_owned());
    }
    let (holds, reason, message) = reconciling;
    gathered.say_if(ConditionType::Reconciling, holds, reason, message);
}

fn leaving_text(step: Step) -> (Reason, String) {
    match step {
        Step::WaitForRooms { .. } => (
            Reason::RoomsActive,
            format!(
                "rooms are active and no new ones open; the tenant goes when they are over, or annotate it {}=true to close them",
                plenum_api::names::ANNOTATION_FORCE_DELETE
            ),
        ),
        Step::WaitForControlPlane => (
            Reason::Deleting,
            format!(
                "waits for the control plane to say that no room is active; annotate the tenant {}=true to go on without",
                plenum_api::names::ANNOTATION_FORCE_DELETE
            ),
        ),
        Step::Closing { .. } => (Reason::Deleting, "its rooms are being closed".to_owned()),
        Step::Leave(_) => (Reason::Deleting, "it is being deleted".to_owned()),
    }
}

fn say_namespace(gathered: &mut Gathered<'_>, state: &NamespaceState) {
    let type_ = ConditionType::NamespaceReady;
    match state {
        NamespaceState::Ready => gathered.say_if(
            type_,
            true,
            Reason::Reconciled,
            "the namespace and what stands in it are there",
        ),
        NamespaceState::Progressing { .. } | NamespaceState::Uncounted => {
            let message = state.missing().unwrap_or_default();
            gathered.say_if(type_, false, Reason::Progressing, message);
        }
        NamespaceState::Refused { message } => {
            gathered.say_if(type_, false, Reason::NamespaceNotAdoptable, message.clone());
        }
    }
}

fn say_credentials(gathered: &mut Gathered<'_>, problems: &[&Problem]) {
    let credentials = [
        Reason::SecretNotFound,
        Reason::SecretInvalid,
        Reason::KeyReused,
        Reason::IssuerMissing,
        Reason::IssuerUnavailable,
    ];
    let of_credentials: Vec<&Problem> = problems
        .iter()
        .filter(|problem| {
            credentials
                .iter()
                .any(|reason| reason.as_str() == problem.rule)
        })
        .copied()
        .collect();
    match stalled_by(&of_credentials) {
        None => gathered.say_if(
            ConditionType::CredentialsValid,
            true,
            Reason::Reconciled,
            "all keys can be used",
        ),
        Some((reason, message)) => gathered.say_named(
            ConditionType::CredentialsValid,
            ConditionStatus::False,
            &reason,
            &message,
        ),
    }
}

fn say_active(gathered: &mut Gathered<'_>, facts: &Facts<'_>, activity: Activity) {
    let (holds, reason, message) = match activity {
        _ if facts.leaving.is_some() => (false, Reason::Deleting, "the tenant is being deleted"),
        Activity::Active => (true, Reason::Reconciled, "its conferences may open"),
        Activity::From(_) => (false, Reason::NotYetActive, "spec.activeFrom lies ahead"),
        Activity::Suspended => (false, Reason::Suspended, "spec.suspended is true"),
    };
    gathered.say_if(ConditionType::Active, holds, reason, message);
}

/// Judged when usage is sampled, so that somebody at the edge of a limit costs no more than a write a minute.
fn say_limits(
    gathered: &mut Gathered<'_>,
    tenant: &Tenant,
    facts: &Facts<'_>,
    before: &TenantStatus,
    sampled_now: bool,
) {
    let type_ = ConditionType::WithinLimits;
    let old = find(&before.conditions, type_);
    let reached = match (old, facts.usage) {
        (Some(old), _) if !sampled_now => old_reached(old),
        (Some(old), None) => old_reached(old),
        (_, usage) => reached(
            &tenant.spec.limits,
            usage.unwrap_or_default(),
            facts.conferences,
        ),
    };
    match reached {
        None => gathered.say_if(
            type_,
            true,
            Reason::Reconciled,
            "its usage is below its limits",
        ),
        Some(message) => gathered.say_if(type_, false, Reason::LimitExceeded, message),
    }
}

fn old_reached(old: &Condition) -> Option<String> {
    (old.status == ConditionStatus::False).then(|| old.message.clone())
}

fn reached(limits: &Limits, usage: Usage, conferences: u32) -> Option<String> {
    let all = [
        ("concurrentRooms", limits.concurrent_rooms, usage.rooms),
        ("participants", limits.participants, usage.participants),
        ("conferences", Some(limits.conferences), conferences),
    ];
    let names: Vec<&str> = all
        .into_iter()
        .filter(|(_, limit, used)| limit.is_some_and(|limit| *used >= limit && limit > 0))
        .map(|(name, ..)| name)
        .collect();
    (!names.is_empty()).then(|| {
        let paths: Vec<String> = names
            .iter()
            .map(|name| format!("spec.limits.{name}"))
            .collect();
        format!("{} is used up; more is refused", paths.join(", "))
    })
}

/// Usage to write, and when it may be written again: a changed bucket waits until a minute has passed since the last.
fn sampled(
    before: Option<&TenantUsage>,
    usage: Option<Usage>,
    now: Timestamp,
) -> (Option<TenantUsage>, Option<Timestamp>) {
    let Some(usage) = usage else {
        return (before.cloned(), None);
    };
    let new = TenantUsage {
        rooms: bucket(usage.rooms),
        participants: bucket(usage.participants),
        sampled_at: Some(Time(now)),
    };
    let Some(before) = before else {
        return (Some(new), None);
    };
    let next = before
        .sampled_at
        .as_ref()
        .and_then(|at| at.0.checked_add(USAGE_EVERY).ok())
        .filter(|next| *next > now);
    if (before.rooms, before.participants) == (new.rooms, new.participants) {
        return (Some(before.clone()), next);
    }
    match next {
        Some(next) => (Some(before.clone()), Some(next)),
        None => (Some(new), None),
    }
}

/// Up to ten as it is, above with one significant digit, rounded down: 17 is 10, 431 is 400.
#[must_use]
pub fn bucket(count: u32) -> u32 {
    let mut unit = 1;
    while count / unit >= 10 {
        unit *= 10;
    }
    count / unit * unit
}

#[cfg(test)]
mod tests;
