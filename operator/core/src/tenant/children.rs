// SPDX-License-Identifier: EUPL-1.2
//! What stands in a cluster for a tenant, and whether a namespace may be the tenant's.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{
            LimitRange, LimitRangeItem, LimitRangeSpec, Namespace, ResourceQuota, ResourceQuotaSpec,
        },
        networking::v1::{NetworkPolicy, NetworkPolicySpec},
        rbac::v1::{RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};
use plenum_api::{
    Tenant, names,
    tenant::{NamespaceMode, TenantSpec},
};

use super::{CLUSTER_ROLE_ADMIN, CLUSTER_ROLE_SECRETS, Release, labels};
use crate::objects::namespace_of;

/// Name of the quota.
pub const QUOTA: &str = "plenum-conferences";
/// Name of the default sizes of containers.
pub const LIMITS: &str = "plenum-limits";
/// Name of the policy that lets nothing in or out.
pub const DENY: &str = "plenum-default-deny";
/// Name of the binding of a tenant's administrators.
pub const ADMINS: &str = "plenum-admins";
/// Name of the operator's own binding.
pub const OPERATOR: &str = "plenum-operator";

/// Everything that stands in a cluster for a tenant.
///
/// None of it is owned by the Tenant: what a kept namespace is guarded by stays with it, and access is taken away
/// explicitly when the tenant leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Children {
    /// The namespace.
    pub namespace: Namespace,
    /// The operator's access to the Secrets of the namespace.
    pub operator_binding: RoleBinding,
    /// Most conferences.
    pub quota: ResourceQuota,
    /// Sizes of containers that name none.
    pub limits: LimitRange,
    /// Nothing in, nothing out.
    pub deny: NetworkPolicy,
    /// Who administrates; with nobody named, nobody does.
    pub admin_binding: RoleBinding,
}

/// What a tenant wants.
#[must_use]
pub fn children(name: &str, tenant: &Tenant, release: &Release) -> Children {
    let namespace = namespace_of(name, tenant);
    let TenantSpec { admins, limits, .. } = &tenant.spec;
    let meta = |child: &str| ObjectMeta {
        name: Some(child.to_owned()),
        namespace: Some(namespace.clone()),
        labels: Some(labels(name)),
        ..ObjectMeta::default()
    };
    Children {
        namespace: namespace_object(name, &namespace),
        operator_binding: RoleBinding {
            metadata: meta(OPERATOR),
            role_ref: role_ref(CLUSTER_ROLE_SECRETS),
            subjects: Some(vec![Subject {
                api_group: None,
                kind: "ServiceAccount".to_owned(),
                name: release.service_account.clone(),
                namespace: Some(release.namespace.clone()),
            }]),
        },
        quota: ResourceQuota {
            metadata: meta(QUOTA),
            spec: Some(ResourceQuotaSpec {
                hard: Some(
                    [(
                        format!("count/conferences.{}", names::GROUP),
                        Quantity(limits.conferences.to_string()),
                    )]
                    .into(),
                ),
                ..ResourceQuotaSpec::default()
            }),
            status: None,
        },
        limits: LimitRange {
            metadata: meta(LIMITS),
            spec: Some(LimitRangeSpec {
                limits: vec![container_sizes()],
            }),
        },
        deny: NetworkPolicy {
            metadata: meta(DENY),
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(LabelSelector::default()),
                // Written out: what somebody adds is then seen, and taken away.
                ingress: Some(Vec::new()),
                egress: Some(Vec::new()),
                policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            }),
        },
        admin_binding: RoleBinding {
            metadata: meta(ADMINS),
            role_ref: role_ref(CLUSTER_ROLE_ADMIN),
            subjects: Some(
                admins
                    .iter()
                    .map(|group| Subject {
                        api_group: Some(RBAC.to_owned()),
                        kind: "Group".to_owned(),
                        name: group.clone(),
                        namespace: None,
                    })
                    .collect(),
            ),
        },
    }
}

/// Whether Kubernetes has counted what a quota bounds. Until then the API server refuses everything that the quota counts. Bounds are
/// compared as Kubernetes writes them: it makes 1k of 1000.
#[must_use]
pub fn is_counted(wanted: &ResourceQuota, found: Option<&ResourceQuota>) -> bool {
    let hard = |quota: Option<&ResourceQuota>| quota?.spec.as_ref()?.hard.clone();
    let Some(resources) = hard(Some(wanted)) else {
        return true;
    };
    let (Some(declared), Some(status)) =
        (hard(found), found.and_then(|found| found.status.as_ref()))
    else {
        return false;
    };
    resources.keys().all(|resource| {
        let seen = status.hard.as_ref().and_then(|hard| hard.get(resource));
        let used = status.used.as_ref().and_then(|used| used.get(resource));
        seen.is_some() && seen == declared.get(resource) && used.is_some()
    })
}

const RBAC: &str = "rbac.authorization.k8s.io";

fn namespace_object(tenant: &str, namespace: &str) -> Namespace {
    let mut all = labels(tenant);
    for mode in ["enforce", "audit", "warn"] {
        let label = format!("pod-security.kubernetes.io/{mode}");
        all.insert(format!("{label}-version"), "latest".to_owned());
        all.insert(label, "restricted".to_owned());
    }
    Namespace {
        metadata: ObjectMeta {
            name: Some(namespace.to_owned()),
            labels: Some(all),
            ..ObjectMeta::default()
        },
        spec: None,
        status: None,
    }
}

fn role_ref(name: &str) -> RoleRef {
    RoleRef {
        api_group: RBAC.to_owned(),
        kind: "ClusterRole".to_owned(),
        name: name.to_owned(),
    }
}

/// Small, because nothing of Plenum runs in a tenant's namespace; what a tenant puts there has to ask for more.
fn container_sizes() -> LimitRangeItem {
    let sizes = |cpu: &str, memory: &str| -> BTreeMap<String, Quantity> {
        [("cpu", cpu), ("memory", memory)]
            .into_iter()
            .map(|(resource, amount)| (resource.to_owned(), Quantity(amount.to_owned())))
            .collect()
    };
    LimitRangeItem {
        type_: "Container".to_owned(),
        default: Some(sizes("500m", "256Mi")),
        default_request: Some(sizes("50m", "64Mi")),
        ..LimitRangeItem::default()
    }
}

/// What is to be done about a tenant's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceStep {
    /// It is not there: make it.
    Create,
    /// It is the tenant's, or may become so: write what is wanted over it.
    Apply,
    /// It is on its way out; nothing can be made in it.
    Wait,
    /// It is somebody else's.
    Refuse(NamespaceRefused),
}

/// Why a namespace cannot be the tenant's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceRefused {
    /// It belongs to another tenant.
    #[error(
        "namespace `{namespace}` belongs to Tenant `{other}`; write another spec.namespace.name"
    )]
    OfAnotherTenant {
        /// The namespace.
        namespace: String,
        /// Whose it is.
        other: String,
    },
    /// It was there before, and the tenant wants a new one.
    #[error(
        "namespace `{namespace}` exists and was not made for this tenant; write spec.namespace.mode: Adopt and label it {}={tenant}, or write another spec.namespace.name",
        names::LABEL_ADOPTABLE
    )]
    NotMadeHere {
        /// The namespace.
        namespace: String,
        /// The tenant.
        tenant: String,
    },
    /// It may not be adopted.
    #[error(
        "namespace `{namespace}` may not be adopted; label it {}={tenant}",
        names::LABEL_ADOPTABLE
    )]
    NotAdoptable {
        /// The namespace.
        namespace: String,
        /// The tenant.
        tenant: String,
    },
    /// It is to be adopted, and is not there.
    #[error(
        "there is no namespace `{namespace}` to adopt; create it with the label {}={tenant}, or write spec.namespace.mode: Create",
        names::LABEL_ADOPTABLE
    )]
    NothingToAdopt {
        /// The namespace.
        namespace: String,
        /// The tenant.
        tenant: String,
    },
    /// It belongs to the cluster or to Plenum itself.
    #[error("namespace `{namespace}` is reserved; write another spec.namespace.name")]
    Reserved {
        /// The namespace.
        namespace: String,
    },
}

/// Judges the namespace that a tenant names; `found` is what stands in the cluster under that name.
#[must_use]
pub fn namespace_step(
    name: &str,
    tenant: &Tenant,
    release: &Release,
    found: Option<&Namespace>,
) -> NamespaceStep {
    let namespace = namespace_of(name, tenant);
    if is_reserved(&namespace, release) {
        return NamespaceStep::Refuse(NamespaceRefused::Reserved { namespace });
    }
    let mode = tenant.spec.namespace.mode;
    let of_tenant = name.to_owned();
    let Some(found) = found else {
        return match mode {
            NamespaceMode::Create => NamespaceStep::Create,
            NamespaceMode::Adopt => NamespaceStep::Refuse(NamespaceRefused::NothingToAdopt {
                namespace,
                tenant: of_tenant,
            }),
        };
    };
    let label = |key: &str| {
        let labels = found.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    let refused = match (label(names::LABEL_TENANT), mode) {
        // A media namespace runs pods of the platform, whatever its labels say besides.
        _ if label(names::LABEL_MEDIA).is_some() => NamespaceRefused::Reserved { namespace },
        (Some(owner), _) if owner == name => {
            return if found.metadata.deletion_timestamp.is_some() {
                NamespaceStep::Wait
            } else {
                NamespaceStep::Apply
            };
        }
        (Some(other), _) => NamespaceRefused::OfAnotherTenant {
            namespace,
            other: other.to_owned(),
        },
        (None, NamespaceMode::Adopt) if label(names::LABEL_ADOPTABLE) == Some(name) => {
            return if found.metadata.deletion_timestamp.is_some() {
                NamespaceStep::Wait
            } else {
                NamespaceStep::Apply
            };
        }
        (None, NamespaceMode::Adopt) => NamespaceRefused::NotAdoptable {
            namespace,
            tenant: of_tenant,
        },
        (None, NamespaceMode::Create) => NamespaceRefused::NotMadeHere {
            namespace,
            tenant: of_tenant,
        },
    };
    NamespaceStep::Refuse(refused)
}

/// Who may write Conferences and Secrets there would own the cluster or the release.
fn is_reserved(namespace: &str, release: &Release) -> bool {
    namespace == "default" || namespace.starts_with("kube-") || namespace == release.namespace
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tenant(namespace: serde_json::Value) -> Tenant {
        serde_json::from_value(json!({
            "metadata": { "name": "town" },
            "spec": {
                "displayName": "Town", "admins": ["town-it"], "namespace": namespace,
                "contacts": [
                    { "type": "Technical", "mailbox": "it@town.example" },
                    { "type": "Functional", "mailbox": "office@town.example" },
                ],
                "limits": { "conferences": 7 },
            },
        }))
        .expect("a tenant")
    }

    fn release() -> Release {
        Release {
            namespace: "plenum-system".to_owned(),
            service_account: "plenum-operator".to_owned(),
        }
    }

    fn namespace(labels: serde_json::Value) -> Namespace {
        serde_json::from_value(json!({ "metadata": { "name": "n", "labels": labels } }))
            .expect("a namespace")
    }

    #[test]
    fn everything_stands_in_the_tenants_namespace_with_its_label() {
        let children = children("town", &tenant(json!({})), &release());
        let value = serde_json::to_value((
            &children.operator_binding,
            &children.quota,
            &children.limits,
            &children.deny,
            &children.admin_binding,
        ))
        .expect("plain data");
        for child in value.as_array().expect("all children") {
            assert_eq!(child["metadata"]["namespace"], "tenant-town", "{child}");
            assert_eq!(child["metadata"]["labels"][names::LABEL_TENANT], "town");
        }
        let labels = children.namespace.metadata.labels.expect("labels");
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
        assert_eq!(labels[names::LABEL_TENANT], "town");
        assert_eq!(
            value[1]["spec"]["hard"]["count/conferences.plenum.dev"],
            "7"
        );
        assert_eq!(
            value[3]["spec"],
            json!({
                "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": [],
            })
        );
        assert_eq!(value[4]["subjects"][0]["name"], "town-it");
    }

    #[test]
    fn a_quota_is_counted_when_its_bound_and_its_use_stand_in_its_status() {
        let wanted = children("town", &tenant(json!({})), &release()).quota;
        let key = format!("count/conferences.{}", names::GROUP);
        let found = |status: serde_json::Value| -> ResourceQuota {
            serde_json::from_value(json!({ "spec": wanted.spec, "status": status }))
                .expect("a quota")
        };
        assert!(!is_counted(&wanted, None));
        for uncounted in [
            json!({}),
            json!({ "hard": { &key: "7" } }),
            json!({ "used": { &key: "0" } }),
            json!({ "hard": { &key: "200" }, "used": { &key: "3" } }),
            json!({ "hard": { "pods": "7" }, "used": { "pods": "0" } }),
        ] {
            assert!(
                !is_counted(&wanted, Some(&found(uncounted.clone()))),
                "{uncounted}"
            );
        }
        // A thousand as Kubernetes writes it.
        let thousand: ResourceQuota = serde_json::from_value(json!({
            "spec": { "hard": { &key: "1k" } },
            "status": { "hard": { &key: "1k" }, "used": { &key: "0" } },
        }))
        .expect("a quota");
        assert!(is_counted(&wanted, Some(&thousand)));
        // More than the bound is counted too: it was lowered.
        for used in ["0", "9"] {
            let status = json!({ "hard": { &key: "7" }, "used": { &key: used } });
            assert!(is_counted(&wanted, Some(&found(status))));
        }
    }

    #[test]
    fn a_namespace_is_taken_only_from_whom_it_belongs_to() {
        let made = tenant(json!({ "name": "n" }));
        let adopted = tenant(json!({ "name": "n", "mode": "Adopt" }));
        let step = |tenant: &Tenant, found: Option<&Namespace>| {
            namespace_step("town", tenant, &release(), found)
        };
        assert_eq!(step(&made, None), NamespaceStep::Create);
        assert!(matches!(
            step(&adopted, None),
            NamespaceStep::Refuse(NamespaceRefused::NothingToAdopt { .. })
        ));
        let own = namespace(json!({ names::LABEL_TENANT: "town" }));
        assert_eq!(step(&made, Some(&own)), NamespaceStep::Apply);
        assert_eq!(step(&adopted, Some(&own)), NamespaceStep::Apply);
        let other =
            namespace(json!({ names::LABEL_TENANT: "city", names::LABEL_ADOPTABLE: "town" }));
        for tenant in [&made, &adopted] {
            assert!(matches!(
                step(tenant, Some(&other)),
                NamespaceStep::Refuse(NamespaceRefused::OfAnotherTenant { .. })
            ));
        }
        let foreign = namespace(json!({}));
        assert!(matches!(
            step(&made, Some(&foreign)),
            NamespaceStep::Refuse(NamespaceRefused::NotMadeHere { .. })
        ));
        assert!(matches!(
            step(&adopted, Some(&foreign)),
            NamespaceStep::Refuse(NamespaceRefused::NotAdoptable { .. })
        ));
        let offered = namespace(json!({ names::LABEL_ADOPTABLE: "town" }));
        assert_eq!(step(&adopted, Some(&offered)), NamespaceStep::Apply);
        let media =
            namespace(json!({ names::LABEL_ADOPTABLE: "town", names::LABEL_MEDIA: "true" }));
        assert!(matches!(
            step(&adopted, Some(&media)),
            NamespaceStep::Refuse(NamespaceRefused::Reserved { .. })
        ));
        for reserved in ["default", "kube-system", "plenum-system"] {
            let tenant = tenant(json!({ "name": reserved, "mode": "Adopt" }));
            let offered = namespace(json!({ names::LABEL_ADOPTABLE: "town" }));
            assert!(matches!(
                namespace_step("town", &tenant, &release(), Some(&offered)),
                NamespaceStep::Refuse(NamespaceRefused::Reserved { .. })
            ));
        }
    }
}
