// SPDX-License-Identifier: EUPL-1.2
//! Rights: what the chart grants the operator is what it used, by the audit log; what it did not use in this run is declared with a
//! reason, and nothing it asked for was refused.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Document, OPERATOR};
use e2e::cluster::AuditEntry;
use e2e::installed::Installed;
use serde_json::Value;

use crate::figure;

/// Rights that this run does not use: role, resource, verb, and what does.
const UNUSED: &[(&str, &str, &str, &str)] = &[
    (MEDIA, "services", "get", NODE_PORTS),
    (MEDIA, "services", "create", NODE_PORTS),
    (MEDIA, "services", "patch", NODE_PORTS),
    (MEDIA, "services", "delete", NODE_PORTS),
    (
        OPERATOR_ROLE,
        "clusterroles",
        "bind",
        "asked by Kubernetes when a RoleBinding is written; no request has this verb",
    ),
    (OPERATOR_ROLE, "conferences", "get", COLLECTED),
    (OPERATOR_ROLE, "conferences", "delete", COLLECTED),
    (
        OPERATOR_ROLE,
        "mediapools/finalizers",
        "update",
        "asked by the admission plugin OwnerReferencesPermissionEnforcement; no request has this verb",
    ),
    (
        OPERATOR_ROLE,
        "rolebindings",
        "delete",
        "administrators that a tenant no longer names",
    ),
    (
        TENANT,
        "secrets",
        "patch",
        "a password or a key of links that somebody emptied is filled again",
    ),
    (
        "Role/plenum-operator",
        "secrets",
        "update",
        "certificates are renewed, and the authority rotates, after months",
    ),
];

const MEDIA: &str = "ClusterRole/plenum-media-namespace";
const OPERATOR_ROLE: &str = "ClusterRole/plenum-operator";
const TENANT: &str = "ClusterRole/plenum-tenant-secrets";
const NODE_PORTS: &str = "pools behind NodePort and LoadBalancer have Services, this one has not";
const COLLECTED: &str = "conferences whose ttlAfterEnd is over, of which this run has none";

/// What everybody may ask who has a name.
const EVERYBODYS: [&str; 2] = ["authorization.k8s.io", "authentication.k8s.io"];

const PATIENCE: Duration = Duration::from_secs(180);

/// Where a role holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Cluster,
    Namespace(&'static str),
}

/// The operator's roles: kind, name, and where the chart and the operator bind them.
const ROLES: [(&str, &str, Where); 4] = [
    ("ClusterRole", "plenum-operator", Where::Cluster),
    (
        "Role",
        "plenum-operator",
        Where::Namespace(chart::NAMESPACE),
    ),
    (
        "ClusterRole",
        "plenum-media-namespace",
        Where::Namespace("media"),
    ),
    (
        "ClusterRole",
        "plenum-tenant-secrets",
        Where::Namespace("tenant-city"),
    ),
];

/// One verb on one resource by one role.
#[derive(Debug)]
struct Right {
    role: String,
    place: Where,
    group: String,
    /// With its subresource.
    resource: String,
    names: Vec<String>,
    verb: String,
}

impl Right {
    fn allows(&self, entry: &AuditEntry, verb: &str) -> bool {
        let Some(object) = &entry.object_ref else {
            return false;
        };
        self.verb == verb
            && self.group == object.api_group
            && self.resource == resource_of(entry)
            && (self.names.is_empty() || self.names.contains(&object.name))
            && match self.place {
                Where::Cluster => true,
                Where::Namespace(name) => object.namespace == name,
            }
    }
}

fn resource_of(entry: &AuditEntry) -> String {
    let Some(object) = &entry.object_ref else {
        return String::new();
    };
    if object.subresource.is_empty() {
        object.resource.clone()
    } else {
        format!("{}/{}", object.resource, object.subresource)
    }
}

/// Everything that the rendered roles grant the operator.
fn granted(rendered: &[Document]) -> Result<Vec<Right>> {
    let mut all = Vec::new();
    for (kind, name, place) in ROLES {
        let role = rendered
            .iter()
            .find(|document| document.id().ends_with(name) && document.kind() == kind)
            .with_context(|| format!("the chart renders {kind} {name}"))?;
        let texts = |value: &Value| -> Vec<String> {
            let texts = value.as_array().into_iter().flatten();
            texts.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        for rule in role.value["rules"].as_array().context("rules")? {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        all.push(Right {
                            role: format!("{kind}/{name}"),
                            place,
                            group: group.clone(),
                            resource: resource.clone(),
                            names: texts(&rule["resourceNames"]),
                            verb,
                        });
                    }
                }
            }
        }
    }
    ensure!(all.len() > 60, "the roles are read: {}", all.len());
    Ok(all)
}

/// What was declared is deleted, the tenant with its namespace.
pub(crate) async fn everything_goes(installed: &Installed) -> Result<()> {
    for line in [
        "delete maintenancewindow sunday --timeout=60s",
        "-n tenant-city delete conference council --timeout=60s",
        "delete tenant city --timeout=150s",
        "-n media delete mediapool city --timeout=150s",
    ] {
        installed.kubectl(line).await?;
    }
    let end = Instant::now() + PATIENCE;
    while !installed
        .kubectl("get namespace tenant-city --ignore-not-found -o name")
        .await?
        .trim()
        .is_empty()
    {
        ensure!(Instant::now() < end, "the tenant's namespace stays");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

pub(crate) fn granted_are_used(installed: &Installed, rendered: &[Document]) -> Result<()> {
    let rights = granted(rendered)?;
    let audit = installed.cluster.api().audit()?;
    let own: Vec<&AuditEntry> = audit
        .iter()
        .filter(|entry| entry.user.username == OPERATOR && entry.object_ref.is_some())
        .collect();
    let told = |entry: &AuditEntry| format!("{} {} {}", entry.code(), entry.verb, entry.uri);
    let refused: BTreeSet<String> = own
        .iter()
        .filter(|entry| entry.code() == 403)
        // A binding that was just made takes a moment to be known, and one that goes with its namespace is gone before the Secrets
        // are; the watch begins anew, or ends.
        .filter(|entry| {
            !(entry.resource() == "secrets" && entry.uri.contains("/namespaces/tenant-city/"))
        })
        .map(|entry| told(entry))
        .collect();
    ensure!(
        refused.is_empty(),
        "the operator was refused what it asked for: {refused:#?}"
    );
    let mut used = vec![false; rights.len()];
    let mut strange = BTreeSet::new();
    for entry in &own {
        // An object that came into being by being applied took both verbs.
        let made = entry.verb == "patch" && entry.code() == 201;
        for verb in [Some(&*entry.verb), made.then_some("create")]
            .into_iter()
            .flatten()
        {
            let allowing = || (0..rights.len()).filter(|index| rights[*index].allows(entry, verb));
            // The narrowest is the one that was needed.
            let narrow = allowing().find(|index| rights[*index].place != Where::Cluster);
            let group = entry.object_ref.as_ref().map(|object| &*object.api_group);
            match narrow.or(allowing().next()) {
                Some(index) => used[index] = true,
                None if group.is_some_and(|group| EVERYBODYS.contains(&group)) => {}
                None if entry.code() == 403 => {}
                None => {
                    strange.insert(told(entry));
                }
            }
        }
    }
    ensure!(
        strange.is_empty(),
        "the operator used rights that no role of the chart grants: {strange:#?}"
    );
    figure("rights_granted", rights.len(), "rights");
    figure(
        "rights_used",
        used.iter().filter(|used| **used).count(),
        "rights",
    );
    let unused: BTreeSet<(&str, &str, &str)> = rights
        .iter()
        .zip(&used)
        .filter(|(_, used)| !**used)
        .map(|(right, _)| (&*right.role, &*right.resource, &*right.verb))
        .collect();
    let declared: BTreeSet<(&str, &str, &str)> = UNUSED
        .iter()
        .map(|(role, resource, verb, _)| (*role, *resource, *verb))
        .collect();
    let useless: Vec<_> = unused.difference(&declared).collect();
    ensure!(
        useless.is_empty(),
        "rights that are granted and were not used, and no reason is declared for: {useless:#?}"
    );
    for (role, resource, verb) in declared {
        ensure!(
            rights.iter().any(|right| right.role == role
                && right.resource == resource
                && right.verb == verb),
            "a reason is declared for a right that nobody has: {role} {resource} {verb}"
        );
    }
    Ok(())
}
