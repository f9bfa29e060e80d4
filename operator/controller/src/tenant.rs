// SPDX-License-Identifier: EUPL-1.2
//! Tenants: namespace, quota, policies, roles, link key, and the status of what is published.

mod changes;
mod children;
mod counts;
mod leave;
mod said;
mod secrets;
mod written;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    ResourceExt as _,
    runtime::{Controller, controller::Action, reflector::ObjectRef},
};
use operator_core::{
    Name, Problem, RecordKind,
    conference_status::Publication,
    objects::namespace_of,
    tenant::{
        LINK_KEY, Release,
        leaving::{Step, is_leaving},
        secrets::link_key_secret,
        status::{self, Facts, NamespaceState, Usage, bucket, first_pass, wants_first_pass},
    },
};
use plenum_api::{
    Condition, ConditionStatus, ConditionType, Reason, Tenant, conditions::find, names,
};

use crate::{
    context::Context,
    driver::{Failure, drive, settled},
    live::Live,
    planner::Planned,
    ssa::ApplyError,
};

pub(crate) use changes::{Fingerprints, concerned, named, print, problems};
use children::ChildStores;
pub(crate) use counts::Counts;
use leave::Doors;
pub(crate) use said::{Now, look_again};
pub use secrets::SecretError;
pub(crate) use secrets::{is_there, make, random};
pub(crate) use written::Written;

/// ServiceAccount of the operator; the chart brings it.
const SERVICE_ACCOUNT: &str = "plenum-operator";

/// Why a tenant could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// The API server refused, or is away.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A Secret could not be made.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Failure for TenantError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Secret(error) => error.reason(),
        }
    }
}

struct State {
    release: Release,
    children: ChildStores,
    written: Written<Tenant>,
    doors: Doors,
    counts: Counts,
    started: Timestamp,
}

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    let tenants = &context.stores.tenants;
    let controller = Controller::for_shared_stream(tenants.subscribe(), tenants.store())
        .watches_stream(
            concerned::<Tenant, _>(&context, fingerprints),
            named::<Tenant, _>,
        )
        .watches_shared_stream(context.stores.namespaces.subscribe(), {
            let context = Arc::clone(&context);
            move |namespace: Arc<Namespace>| tenants_of(&context, &namespace)
        })
        .watches_shared_stream(context.stores.conferences.subscribe(), {
            let context = Arc::clone(&context);
            move |conference: Arc<plenum_api::Conference>| {
                tenant_of(&context, conference.metadata.namespace.as_deref())
                    .map(|tenant| ObjectRef::<Tenant>::new(&tenant))
            }
        });
    let (children, controller) = ChildStores::watch(&context.client, controller);
    let state = Arc::new(State {
        release: Release {
            namespace: context.settings.namespace.clone(),
            service_account: SERVICE_ACCOUNT.to_owned(),
        },
        children,
        written: Written::default(),
        doors: Doors::default(),
        counts: Counts::default(),
        started: context.now(),
    });
    drive(context, controller, move |tenant, context| {
        reconcile(tenant, context, Arc::clone(&state))
    })
    .await;
}

/// Whose a namespace is, or might become.
fn tenants_of(context: &Context, namespace: &Namespace) -> Vec<ObjectRef<Tenant>> {
    let name = namespace.name_any();
    let labelled = [names::LABEL_TENANT, names::LABEL_ADOPTABLE]
        .into_iter()
        .filter_map(|label| namespace.labels().get(label).cloned());
    let naming = context
        .stores
        .tenants
        .all()
        .into_iter()
        .filter(|tenant| namespace_of(&tenant.name_any(), tenant) == name)
        .map(|tenant| tenant.name_any());
    let mut all: Vec<String> = labelled.chain(naming).collect();
    all.sort();
    all.dedup();
    all.iter().map(|name| ObjectRef::new(name)).collect()
}

/// The tenant of a namespace, by its label.
pub(crate) fn tenant_of(context: &Context, namespace: Option<&str>) -> Option<String> {
    let namespace = context.stores.namespaces.get(None, namespace?)?;
    namespace.labels().get(names::LABEL_TENANT).cloned()
}

/// What of a plan and a report concerns a tenant.
fn fingerprints(planned: &Planned, live: &Live) -> Fingerprints {
    let mut all = Fingerprints::new();
    let mut add = |name: &str, value: u64| {
        let entry = all.entry(Name::new("", name)).or_default();
        *entry = print((*entry, value));
    };
    for record in planned.plan.tenants.values() {
        let usage = live.tenants.get(&record.name);
        let usage = usage.map(|usage| (usage.rooms, bucket(usage.participants)));
        let answer = live.has(RecordKind::Tenant, &record.uid, &record.revision);
        let refused = format!("{:?}", live.ack(RecordKind::Tenant, &record.uid));
        let known = planned.generated.link_keys.contains_key(&record.name);
        let value = print((
            &record.revision,
            usage,
            answer,
            refused,
            known,
            live.reachable,
        ));
        add(&record.name, value);
    }
    for (name, tenant) in &planned.objects.tenants {
        add(
            name,
            print((tenant.metadata.generation, is_leaving(tenant))),
        );
    }
    for (key, wrong) in &planned.problems {
        match key.kind.as_str() {
            "Tenant" => add(&key.name.name, problems(wrong)),
            // A Secret's problem is told by the tenant whose namespace it stands in.
            "Secret" => {
                let tenant = planned.objects.tenant_of(&key.name.namespace);
                if let Some((name, _)) = tenant {
                    add(name, problems(wrong));
                }
            }
            _ => {}
        }
    }
    all
}

async fn reconcile(
    tenant: Arc<Tenant>,
    context: Arc<Context>,
    state: Arc<State>,
) -> Result<Action, TenantError> {
    let mut tenant = state.written.over(&tenant);
    let name = tenant.name_any();
    let now = Now::of(&context, state.started);
    if is_leaving(&tenant) {
        return say_goodbye(&context, &state, &name, &mut tenant, &now).await;
    }
    leave::set_finalizer(&context, &tenant, true).await?;
    let namespace = namespace_of(&name, &tenant);
    if wants_first_pass(&tenant) {
        let first = first_pass(&tenant, &namespace, now.at);
        state.written.report(&context, &mut tenant, first).await?;
    }
    let brought = bring(&context, &state, &name, &namespace, &tenant, &now).await;
    let namespace_state = match &brought {
        Ok(state) => state.clone(),
        Err(error) => NamespaceState::Progressing {
            message: error.to_string(),
        },
    };
    let again_at = report(
        &context,
        &state,
        &name,
        &mut tenant,
        &now,
        namespace_state,
        None,
    )
    .await?;
    brought?;
    Ok(look_again(&context, again_at))
}

/// The namespace with everything in it, and the link key.
async fn bring(
    context: &Context,
    state: &State,
    name: &str,
    namespace: &str,
    tenant: &Tenant,
    now: &Now,
) -> Result<NamespaceState, TenantError> {
    let brought = children::bring(context, &state.children, name, tenant, &state.release).await?;
    let stands = matches!(brought, NamespaceState::Ready | NamespaceState::Uncounted);
    if stands && !now.planned.generated.link_keys.contains_key(name) {
        let secret = link_key_secret(name, namespace, &random()?);
        make(context, &secret, LINK_KEY, name).await?;
    }
    Ok(brought)
}

async fn say_goodbye(
    context: &Context,
    state: &State,
    name: &str,
    tenant: &mut Tenant,
    now: &Now,
) -> Result<Action, TenantError> {
    if !leave::has_finalizer(tenant) {
        state.written.forget(tenant);
        return Ok(settled());
    }
    let namespace = namespace_of(name, tenant);
    let (step, soon) = leave::step(&state.doors, name, tenant, now);
    let namespace_state = NamespaceState::Ready;
    let again_at = report(
        context,
        state,
        name,
        tenant,
        now,
        namespace_state,
        Some(step),
    )
    .await?;
    if let Step::Leave(policy) = step {
        let gone = leave::leave(context, &state.doors, name, &namespace, tenant, policy).await?;
        if gone {
            state.written.forget(tenant);
            return Ok(settled());
        }
    }
    let soon = soon.then(|| now.at + jiff::SignedDuration::from_secs(5));
    Ok(look_again(context, soon.or(again_at)))
}

async fn report(
    context: &Context,
    state: &State,
    name: &str,
    tenant: &mut Tenant,
    now: &Now,
    namespace_state: NamespaceState,
    leaving: Option<Step>,
) -> Result<Option<Timestamp>, ApplyError> {
    let namespace = namespace_of(name, tenant);
    let uid = tenant.metadata.uid.clone().unwrap_or_default();
    let wrong = wrong(&now.planned, name, &namespace, tenant);
    let answer = now.answer(RecordKind::Tenant, &uid);
    // A plan that has not seen this generation says nothing about it.
    let seen = now.planned.objects.tenants.get(name).is_some_and(|seen| {
        seen.metadata.generation == tenant.metadata.generation
            && seen.metadata.uid == tenant.metadata.uid
    });
    let unseen = now.until_planned("Tenant", &Name::new("", name), seen || !wrong.is_empty());
    let record = now.planned.plan.tenants.get(&uid).filter(|_| seen);
    let usage = now.silent_since.is_none().then(|| {
        let state = now.live.tenants.get(name);
        state.map_or(Usage::default(), |state| Usage {
            rooms: state.rooms,
            participants: state.participants,
        })
    });
    let facts = Facts {
        namespace: &namespace,
        namespace_state,
        problems: &wrong,
        publication: Publication {
            planned: record.map(|record| record.revision.as_str()),
            answer: answer.as_ref(),
            silent_since: now.silent_since,
        },
        conferences: state.counts.of(context, &now.planned, &namespace),
        usage,
        leaving,
        now: now.at,
    };
    let seen = status::status(tenant, &facts);
    let before = told(tenant.status.as_ref().map(|status| &*status.conditions));
    if state.written.report(context, tenant, seen.status).await? {
        let after = tenant.status.as_ref().map(|status| &*status.conditions);
        tell(context, tenant, &before, after).await;
    }
    Ok([seen.again_at, unseen].into_iter().flatten().min())
}

/// What is wrong with a tenant and with the Secrets of its namespace that it names.
fn wrong<'a>(
    planned: &'a Planned,
    name: &str,
    namespace: &str,
    tenant: &Tenant,
) -> Vec<&'a Problem> {
    let mut all: Vec<&Problem> = planned.problems_of("Tenant", "", name).iter().collect();
    for key in &tenant.spec.auth.api_key_secret_refs {
        all.extend(planned.problems_of("Secret", namespace, &key.name));
    }
    all
}

/// What an Event is written about: what keeps the object from being ready, or that it is.
pub(crate) fn told(conditions: Option<&[Condition]>) -> Option<(String, String)> {
    let conditions = conditions?;
    let of = |type_| find(conditions, type_);
    if let Some(stalled) = of(ConditionType::Stalled)
        && stalled.status == ConditionStatus::True
    {
        return Some((stalled.reason.clone(), stalled.message.clone()));
    }
    let ready = of(ConditionType::Ready)?;
    let worth_it = ready.status == ConditionStatus::True || ready.reason == "RoomsActive";
    worth_it.then(|| (ready.reason.clone(), ready.message.clone()))
}

async fn tell(
    context: &Context,
    tenant: &Tenant,
    before: &Option<(String, String)>,
    after: Option<&[Condition]>,
) {
    let after = told(after);
    if *before == after {
        return;
    }
    let Some((reason, message)) = after else {
        return;
    };
    let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
    let reason = known.copied().unwrap_or(Reason::Progressing);
    match reason {
        Reason::Reconciled | Reason::Prepared | Reason::Suspended => {
            context.events.publish(tenant, reason, message).await;
        }
        _ => context.events.warn(tenant, reason, message).await,
    }
}
