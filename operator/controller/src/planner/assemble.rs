// SPDX-License-Identifier: EUPL-1.2
//! One plan out of everything that is known at a moment. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use operator_core::{
    AbsentOpenerKeys, Confidential, DeclaredNode, Generated, Name, NodeEndpoint, ObjectKey,
    Objects, Problem, RecordKind,
    calendar::{Calendar, Place},
    objects::namespace_of,
    plan,
    plan::node_record,
    tenant, validate, wants,
};
use plenum_api::{Conference, MediaNode, MediaPool, Reason, names};

use super::Planned;
use crate::{context::Settings, media_node::endpoint_in, stores::Stores};

/// Everything that is known at a moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All objects that can be read.
    pub objects: Objects,
    /// Labels of namespaces: the tenant each belongs to.
    pub tenant_of_namespace: BTreeMap<String, String>,
    /// Media nodes with where they are reached.
    pub nodes: Vec<DeclaredNode>,
    /// Objects that cannot be read, with the reason.
    pub unreadable: BTreeMap<ObjectKey, String>,
    /// Secrets that may or may not be there.
    pub unknown_secrets: BTreeSet<Name>,
}

impl Snapshot {
    /// What the stores hold.
    #[must_use]
    pub fn of(
        stores: &Stores,
        settings: &Settings,
        endpoints: BTreeMap<String, NodeEndpoint>,
        calendar: &Calendar,
    ) -> Self {
        let mut objects = Objects::default();
        for tenant in stores.tenants.all() {
            objects.tenants.insert(tenant.name_any(), (*tenant).clone());
        }
        for class in stores.classes.all() {
            objects.classes.insert(class.name_any(), (*class).clone());
        }
        for window in stores.windows.all() {
            objects.windows.insert(window.name_any(), (*window).clone());
        }
        for pool in stores.pools.all() {
            objects.pools.insert(name_of(&*pool), (*pool).clone());
        }
        for conference in stores.conferences.all() {
            // Ten thousand times: the status is the larger half, and no plan is made of it.
            let declared = Conference {
                metadata: conference.metadata.clone(),
                spec: conference.spec.clone(),
                status: None,
            };
            objects.conferences.insert(name_of(&*conference), declared);
        }
        let labelled = stores.namespaces.all().into_iter().filter_map(|namespace| {
            let tenant = namespace.labels().get(names::LABEL_TENANT)?.clone();
            Some((namespace.name_any(), tenant))
        });
        let nodes = stores.media_nodes.all();
        Self {
            objects,
            tenant_of_namespace: labelled.collect(),
            nodes: nodes
                .iter()
                .filter_map(|node| {
                    let mut node_of = declared(node, settings, &endpoints)?;
                    let machine = machine_of(stores, node);
                    let place = Place {
                        pool: &node_of.pool,
                        site: &settings.site,
                        machine: machine
                            .as_ref()
                            .and_then(|machine| machine.metadata.labels.as_ref()),
                    };
                    node_of.maintenance_at = calendar.announced(place);
                    Some(node_of)
                })
                .collect(),
            unreadable: stores.unreadable(),
            unknown_secrets: BTreeSet::new(),
        }
    }

    /// Namespaces that belong to a tenant that is there.
    #[must_use]
    pub fn tenant_namespaces(&self) -> BTreeSet<String> {
        let all = self.objects.tenants.iter();
        all.map(|(name, tenant)| (name, namespace_of(name, tenant)))
            .filter(|(name, namespace)| self.tenant_of_namespace.get(namespace) == Some(name))
            .map(|(_, namespace)| namespace)
            .collect()
    }
}

fn name_of<K: kube::Resource>(object: &K) -> Name {
    Name::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn declared(
    node: &MediaNode,
    settings: &Settings,
    endpoints: &BTreeMap<String, NodeEndpoint>,
) -> Option<DeclaredNode> {
    let uid = node.metadata.uid.clone()?;
    Some(DeclaredNode {
        // A leader that starts anew knows no endpoints yet; what the status says keeps the record from being retracted.
        endpoint: match endpoints.get(&uid) {
            Some(endpoint) => endpoint.clone(),
            None => endpoint_in(node)?.1,
        },
        uid,
        pool: Name::new(
            node.namespace().unwrap_or_default(),
            &*node.spec.pool_ref.name,
        ),
        site: settings.site.clone(),
        jurisdiction: settings.jurisdiction.clone(),
        maintenance_at: None,
    })
}

/// The machine that a media node's pod stands on.
pub(crate) fn machine_of(stores: &Stores, node: &MediaNode) -> Option<Arc<Node>> {
    let name = node.status.as_ref()?.node_name.as_deref()?;
    stores.nodes.get(None, name)
}

/// Plans. Rounds are bounded by the number of objects: each leaves out at least one. `None` is a bug: then the plan before stays.
#[must_use]
pub fn assemble(snapshot: Snapshot) -> Option<Planned> {
    let Snapshot {
        mut objects,
        tenant_of_namespace,
        nodes,
        unreadable,
        unknown_secrets,
    } = snapshot;
    // Nodes keep the patience and the bounds of their pool, valid or not: their rooms run.
    let pools: BTreeMap<Name, MediaPool> = objects.pools.clone();
    let mut planned = Planned {
        ready: unknown_secrets.is_empty(),
        ..Planned::default()
    };
    for (key, why) in unreadable {
        let problem = problem(
            &key,
            "type",
            why,
            "write it as this version defines the kind",
        );
        leave_out(&mut objects, &mut planned, key, Why::Wrong(vec![problem]));
    }
    strangers(&mut objects, &tenant_of_namespace, &mut planned);
    await_secrets(&mut objects, &unknown_secrets, &mut planned);
    loop {
        let count = objects.count();
        let left_out = match validate(&objects, AbsentOpenerKeys::AreErrors) {
            Ok(valid) => {
                planned.warnings = by_object(valid.warnings.clone());
                let wanted = wants(&valid);
                let (generated, missing) = generated(&objects, &wanted);
                if missing.is_empty() {
                    match plan(&valid, &generated, &BTreeMap::new()) {
                        Ok(plan) => planned.plan = plan,
                        // Everything that is wanted was brought.
                        Err(error) => {
                            tracing::error!(event = "PlanImpossible", error = %error, "there is no plan for valid objects");
                            return None;
                        }
                    }
                    planned.generated = generated;
                    break;
                }
                missing.into_iter().map(|key| (key, Why::Waits)).collect()
            }
            Err(problems) => by_object(problems)
                .into_iter()
                .map(|(key, problems)| (key, Why::Wrong(problems)))
                .collect::<Vec<_>>(),
        };
        for (key, why) in left_out {
            leave_out(&mut objects, &mut planned, key, why);
        }
        if objects.count() == count {
            tracing::error!(
                event = "PlanImpossible",
                "objects are not valid, and none of them can be left out"
            );
            return None;
        }
    }
    planned.plan.nodes = node_records(&pools, &nodes);
    planned.plan.kept = std::mem::take(&mut planned.kept);
    orphans(&objects, &mut planned);
    planned.objects = Arc::new(objects);
    Some(planned)
}

fn node_records(
    pools: &BTreeMap<Name, MediaPool>,
    nodes: &[DeclaredNode],
) -> BTreeMap<String, operator_core::records::NodeRecord> {
    nodes
        .iter()
        .map(|node| {
            let pool = pools.get(&node.pool).map(|pool| &pool.spec);
            (node.uid.clone(), node_record(pool, node))
        })
        .collect()
}

/// Conferences in namespaces that the operator has not given to their tenant: nobody acts on somebody else's account by the name of a
/// namespace alone.
fn strangers(
    objects: &mut Objects,
    tenant_of_namespace: &BTreeMap<String, String>,
    planned: &mut Planned,
) {
    let strange = objects.conferences.keys().filter(|name| {
        let tenant = objects.tenant_of(&name.namespace).map(|(name, _)| name);
        // Without a tenant the validation says so.
        tenant.is_some_and(|tenant| {
            tenant_of_namespace
                .get(&name.namespace)
                .is_none_or(|label| label != tenant)
        })
    });
    let strange: Vec<Name> = strange.cloned().collect();
    for name in strange {
        let key = ObjectKey {
            kind: "Conference".to_owned(),
            name,
        };
        let problem = problem(
            &key,
            Reason::NamespaceWithoutTenant.as_str(),
            format!(
                "the namespace `{}` does not belong to a tenant",
                key.name.namespace
            ),
            "declare conferences in the namespace that the operator made or adopted for the tenant",
        );
        leave_out(objects, planned, key, Why::Wrong(vec![problem]));
    }
}

/// Where nobody knows whether a Secret is there, nothing is said about who names it.
fn await_secrets(objects: &mut Objects, unknown: &BTreeSet<Name>, planned: &mut Planned) {
    if unknown.is_empty() {
        return;
    }
    let mut waiting = Vec::new();
    for (kind, named) in waiting_on(objects) {
        if named.iter().any(|secret| unknown.contains(secret)) {
            waiting.push(kind);
        }
    }
    for key in waiting {
        leave_out(objects, planned, key, Why::Waits);
    }
}

/// Every object that names Secrets, with those.
fn waiting_on(objects: &Objects) -> Vec<(ObjectKey, BTreeSet<Name>)> {
    let only = |fill: &dyn Fn(&mut Objects)| {
        let mut one = Objects::default();
        fill(&mut one);
        crate::secrets::named_by(&one)
    };
    let tenants = objects.tenants.iter().map(|(name, tenant)| {
        let named = only(&|one| drop(one.tenants.insert(name.clone(), tenant.clone())));
        (key("Tenant", Name::new("", &**name)), named)
    });
    let conferences = objects.conferences.iter().map(|(name, conference)| {
        let named = only(&|one| drop(one.conferences.insert(name.clone(), conference.clone())));
        (key("Conference", name.clone()), named)
    });
    tenants.chain(conferences).collect()
}

/// Link keys and passwords from the Secrets that the operator made, and the objects whose is not there yet.
fn generated(objects: &Objects, wanted: &operator_core::Wants) -> (Generated, Vec<ObjectKey>) {
    let mut generated = Generated::default();
    let mut missing = Vec::new();
    for name in &wanted.link_keys {
        let namespace = objects
            .tenants
            .get(name)
            .map(|tenant| namespace_of(name, tenant))
            .unwrap_or_default();
        let secret = objects
            .secrets
            .get(&Name::new(namespace, tenant::LINK_KEY_SECRET));
        match secret.and_then(|secret| secret.value(tenant::LINK_KEY)) {
            Some(value) if !value.is_empty() => {
                let value = Confidential(value.to_vec());
                generated.link_keys.insert(name.clone(), value);
            }
            _ => missing.push(key("Tenant", Name::new("", &**name))),
        }
    }
    for name in &wanted.passwords {
        let secret = objects.secrets.get(&Name::new(
            &*name.namespace,
            names::password_secret(&name.name),
        ));
        match secret.and_then(|secret| secret.text(names::SECRET_KEY_PASSWORD)) {
            Some(text) if !text.is_empty() => {
                let value = Confidential(text.to_owned());
                generated.passwords.insert(name.clone(), value);
            }
            _ => missing.push(key("Conference", name.clone())),
        }
    }
    (generated, missing)
}

/// Conferences that are right by themselves and have no record, because their class is left out.
fn orphans(objects: &Objects, planned: &mut Planned) {
    let published: BTreeSet<Name> = planned
        .plan
        .conferences
        .values()
        .map(|record| Name::new(&*record.namespace, &*record.name))
        .collect();
    for name in objects.conferences.keys() {
        if published.contains(name) {
            continue;
        }
        let key = key("Conference", name.clone());
        let problem = problem(
            &key,
            Reason::ClassNotFound.as_str(),
            "its class is not valid",
            "look at the conditions of the class",
        );
        planned.problems.entry(key).or_default().push(problem);
    }
}

/// Why an object is left out.
enum Why {
    /// Something has to be changed.
    Wrong(Vec<Problem>),
    /// What it needs is on its way.
    Waits,
}

/// Leaves out an object, and with a tenant its conferences, which are not at fault.
fn leave_out(objects: &mut Objects, planned: &mut Planned, key: ObjectKey, why: Why) {
    if key.kind == "Tenant"
        && let Some(tenant) = objects.tenants.get(&key.name.name)
    {
        let namespace = namespace_of(&key.name.name, tenant);
        let inside = objects.conferences.keys();
        let inside: Vec<Name> = inside
            .filter(|name| name.namespace == namespace)
            .cloned()
            .collect();
        for name in inside {
            let conference = self::key("Conference", name);
            let why = match why {
                Why::Waits => Why::Waits,
                Why::Wrong(_) => Why::Wrong(vec![problem(
                    &conference,
                    Reason::TenantNotFound.as_str(),
                    format!("its tenant `{}` is not valid", key.name.name),
                    "look at the conditions of the tenant",
                )]),
            };
            leave_out(objects, planned, conference, why);
        }
    }
    if matches!(why, Why::Waits)
        && let Some(kept) = kept(objects, &key)
    {
        planned.kept.insert(kept);
    }
    remove(objects, &key);
    objects.unreadable.insert(key.clone());
    match why {
        Why::Wrong(problems) => planned.problems.entry(key).or_default().extend(problems),
        Why::Waits => drop(planned.waiting.insert(key)),
    }
}

fn problem(
    object: &ObjectKey,
    rule: &str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Problem {
    Problem {
        object: object.clone(),
        pointer: String::new(),
        rule: rule.to_owned(),
        message: message.into(),
        remedy: remedy.into(),
    }
}

fn by_object(problems: Vec<Problem>) -> BTreeMap<ObjectKey, Vec<Problem>> {
    let mut map: BTreeMap<ObjectKey, Vec<Problem>> = BTreeMap::new();
    for problem in problems {
        map.entry(problem.object.clone()).or_default().push(problem);
    }
    map
}

fn key(kind: &str, name: Name) -> ObjectKey {
    ObjectKey {
        kind: kind.to_owned(),
        name,
    }
}

/// What is known of an object that waits stays published; one that is on its way out has nothing to wait for.
fn kept(objects: &Objects, key: &ObjectKey) -> Option<(RecordKind, String)> {
    let (kind, metadata) = match key.kind.as_str() {
        "Tenant" => (
            RecordKind::Tenant,
            &objects.tenants.get(&key.name.name)?.metadata,
        ),
        "Conference" => (
            RecordKind::Conference,
            &objects.conferences.get(&key.name)?.metadata,
        ),
        _ => return None,
    };
    let tenant = objects.tenant_of(&key.name.namespace);
    let tenant_leaves =
        tenant.is_some_and(|(_, tenant)| tenant.metadata.deletion_timestamp.is_some());
    let leaving = metadata.deletion_timestamp.is_some() || tenant_leaves;
    let uid = metadata.uid.clone().filter(|_| !leaving)?;
    Some((kind, uid))
}

fn remove(objects: &mut Objects, key: &ObjectKey) {
    match key.kind.as_str() {
        "Tenant" => drop(objects.tenants.remove(&key.name.name)),
        "ConferenceClass" => drop(objects.classes.remove(&key.name.name)),
        "MaintenanceWindow" => drop(objects.windows.remove(&key.name.name)),
        "Conference" => drop(objects.conferences.remove(&key.name)),
        "MediaPool" => drop(objects.pools.remove(&key.name)),
        "Secret" => drop(objects.secrets.remove(&key.name)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
