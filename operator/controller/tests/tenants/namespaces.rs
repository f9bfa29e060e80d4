// SPDX-License-Identifier: EUPL-1.2
//! Namespaces of tenants: made, guarded, put back, adopted, kept and deleted.

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::Identity;
use k8s_openapi::api::{
    core::v1::{LimitRange, Namespace, Pod, ResourceQuota, Secret},
    networking::v1::NetworkPolicy,
    rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use plenum_api::{ConditionStatus, ConditionType, Conference, Tenant, conditions::find};
use serde_json::json;

use crate::world::{World, conference_manifest, eventually};

/// Everything is there.
pub(crate) async fn a_tenant_gets_a_namespace_with_everything_that_guards_it(
    world: &World,
) -> Result<()> {
    let spec = json!({ "admins": ["guard-it"], "limits": { "conferences": 7 } });
    let tenant = world.ready_tenant("guard", spec).await?;
    let status = tenant.status.context("a status")?;
    ensure!(status.namespace.as_deref() == Some("tenant-guard"));
    let namespace = Api::<Namespace>::all(world.client.clone())
        .get("tenant-guard")
        .await?;
    let labels = namespace.labels();
    ensure!(labels["plenum.dev/tenant"] == "guard", "{labels:?}");
    ensure!(labels["pod-security.kubernetes.io/enforce"] == "restricted");
    let quota = world
        .of::<ResourceQuota>("tenant-guard")
        .get("plenum-conferences")
        .await?;
    let hard = quota.spec.and_then(|spec| spec.hard).context("a quota")?;
    ensure!(hard["count/conferences.plenum.dev"].0 == "7", "{hard:?}");
    world
        .of::<LimitRange>("tenant-guard")
        .get("plenum-limits")
        .await?;
    let deny = world
        .of::<NetworkPolicy>("tenant-guard")
        .get("plenum-default-deny")
        .await?;
    let types = deny
        .spec
        .and_then(|spec| spec.policy_types)
        .unwrap_or_default();
    ensure!(types == ["Ingress", "Egress"], "{types:?}");
    let key = world
        .of::<Secret>("tenant-guard")
        .get("plenum-link-key")
        .await?;
    let bytes = key.data.context("data")?["key"].0.len();
    ensure!(bytes == 32, "{bytes} bytes");
    // Pod Security is not only a label.
    let pod = json!({
        "metadata": { "name": "root" },
        "spec": { "hostNetwork": true, "containers": [{ "name": "c", "image": "i" }] },
    });
    let refused = world
        .of::<Pod>("tenant-guard")
        .create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await;
    ensure!(refused.is_err(), "a pod with the host's network was let in");
    Ok(())
}

/// Drift of every child.
pub(crate) async fn what_others_change_or_delete_is_put_back(world: &World) -> Result<()> {
    world
        .ready_tenant("drift", json!({ "admins": ["drift-it"] }))
        .await?;
    let merge = PatchParams::default();
    let quotas = world.of::<ResourceQuota>("tenant-drift");
    let more = json!({ "spec": { "hard": { "count/conferences.plenum.dev": "9999" } } });
    quotas
        .patch("plenum-conferences", &merge, &Patch::Merge(more))
        .await?;
    let policies = world.of::<NetworkPolicy>("tenant-drift");
    let open = json!({ "spec": { "egress": [{}] } });
    policies
        .patch("plenum-default-deny", &merge, &Patch::Merge(open))
        .await?;
    let bindings = world.of::<RoleBinding>("tenant-drift");
    let intruder = json!({ "subjects": [{ "kind": "Group", "name": "others", "apiGroup": "rbac.authorization.k8s.io" }] });
    bindings
        .patch("plenum-admins", &merge, &Patch::Merge(intruder))
        .await?;
    world
        .of::<LimitRange>("tenant-drift")
        .delete("plenum-limits", &DeleteParams::default())
        .await?;
    let namespaces = Api::<Namespace>::all(world.client.clone());
    let loose =
        json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "privileged" } } });
    namespaces
        .patch("tenant-drift", &merge, &Patch::Merge(loose))
        .await?;
    eventually("the declared state", || async {
        let quota = quotas.get("plenum-conferences").await?;
        let hard = quota.spec.and_then(|spec| spec.hard).unwrap_or_default();
        let egress = policies
            .get("plenum-default-deny")
            .await?
            .spec
            .and_then(|spec| spec.egress);
        let subjects = bindings
            .get("plenum-admins")
            .await?
            .subjects
            .unwrap_or_default();
        let groups: Vec<String> = subjects.into_iter().map(|subject| subject.name).collect();
        let limits = world
            .of::<LimitRange>("tenant-drift")
            .get_opt("plenum-limits")
            .await?;
        let enforced =
            namespaces.get("tenant-drift").await?.labels()["pod-security.kubernetes.io/enforce"]
                .clone();
        let seen = (
            hard["count/conferences.plenum.dev"].0.clone(),
            egress.unwrap_or_default().len(),
            groups,
            limits.is_some(),
            enforced,
        );
        let wanted = (
            "200".to_owned(),
            0,
            vec!["drift-it".to_owned()],
            true,
            "restricted".to_owned(),
        );
        Ok(if seen == wanted { Ok(()) } else { Err(seen) })
    })
    .await
}

/// Asked at the real authorizer, as one of the group.
pub(crate) async fn administrators_may_declare_conferences_and_read_no_list_of_secrets(
    world: &World,
) -> Result<()> {
    world
        .ready_tenant("rights", json!({ "admins": ["rights-it"] }))
        .await?;
    let identity = Identity {
        user: "subject-4711",
        groups: &["rights-it"],
    };
    let client = world.server.client_of(&identity).await?;
    let conferences = Api::<Conference>::namespaced(client.clone(), "tenant-rights");
    let council = serde_json::from_value(conference_manifest("tenant-rights", "council"))?;
    eventually("the right to create a conference", || async {
        let made = conferences.create(&PostParams::default(), &council).await;
        Ok(made.map_err(|error| error.to_string()))
    })
    .await?;
    world
        .conference_is(
            "tenant-rights",
            "council",
            ConditionType::Ready,
            ConditionStatus::True,
        )
        .await?;
    let secrets = Api::<Secret>::namespaced(client.clone(), "tenant-rights");
    secrets
        .get("council-password")
        .await
        .context("an administrator reads a password by name")?;
    let listed = secrets.list(&ListParams::default()).await;
    ensure!(is_forbidden(&listed), "a list of Secrets: {listed:?}");
    let pods = Api::<Pod>::namespaced(client.clone(), "tenant-rights");
    let listed = pods.list(&ListParams::default()).await;
    ensure!(is_forbidden(&listed), "a list of pods: {listed:?}");
    let elsewhere = Api::<Conference>::namespaced(client.clone(), "tenant-guard");
    let listed = elsewhere.list(&ListParams::default()).await;
    ensure!(
        is_forbidden(&listed),
        "another tenant's conferences: {listed:?}"
    );
    let tenants = Api::<Tenant>::all(client);
    let limits = json!({ "spec": { "limits": { "conferences": 1500 } } });
    let raised = tenants
        .patch("rights", &PatchParams::default(), &Patch::Merge(limits))
        .await;
    ensure!(is_forbidden(&raised), "its own limits: {raised:?}");
    Ok(())
}

fn is_forbidden<T>(result: &kube::Result<T>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.is_forbidden())
}

/// Neither taken by name, nor without its owner's word.
pub(crate) async fn a_namespace_that_is_not_the_tenants_is_left_alone_until_it_is_offered(
    world: &World,
) -> Result<()> {
    let namespaces = Api::<Namespace>::all(world.client.clone());
    let foreign = serde_json::from_value(json!({ "metadata": { "name": "foreign" } }))?;
    namespaces.create(&PostParams::default(), &foreign).await?;
    let spec = json!({ "namespace": { "name": "foreign", "mode": "Adopt" } });
    world.tenant("adopter", spec).await?;
    let stalled = world
        .tenant_is("adopter", ConditionType::Stalled, ConditionStatus::True)
        .await?;
    let conditions = stalled.status.context("a status")?.conditions;
    let condition = find(&conditions, ConditionType::Stalled).context("stalled")?;
    ensure!(condition.reason == "NamespaceNotAdoptable", "{condition:?}");
    ensure!(
        condition.message.contains("plenum.dev/adoptable=adopter"),
        "{condition:?}"
    );
    let untouched = namespaces.get("foreign").await?;
    ensure!(!untouched.labels().contains_key("plenum.dev/tenant"));
    let offer = json!({ "metadata": { "labels": { "plenum.dev/adoptable": "adopter" } } });
    namespaces
        .patch("foreign", &PatchParams::default(), &Patch::Merge(offer))
        .await?;
    world
        .tenant_is("adopter", ConditionType::Ready, ConditionStatus::True)
        .await?;
    let adopted = namespaces.get("foreign").await?;
    ensure!(adopted.labels()["plenum.dev/tenant"] == "adopter");
    ensure!(adopted.labels()["pod-security.kubernetes.io/enforce"] == "restricted");
    Ok(())
}

/// The API server itself counts, and the first comes the moment the tenant is Ready: not one is refused because nobody has counted yet.
pub(crate) async fn a_ready_tenant_takes_its_first_conference_and_not_one_more_than_its_quota(
    world: &World,
) -> Result<()> {
    let spec = json!({ "limits": { "conferences": 1 } });
    world.ready_tenant("small", spec).await?;
    world.conference("tenant-small", "first", json!({})).await?;
    let second = world.conference("tenant-small", "second", json!({})).await;
    let error = second.err().context("the second is let in")?.to_string();
    ensure!(
        error.contains("exceeded quota: plenum-conferences"),
        "{error}"
    );
    Ok(())
}

/// And whoever comes again under the same name finds everything as it was.
pub(crate) async fn a_tenant_with_active_rooms_stays_until_they_are_over_and_its_namespace_is_kept(
    world: &World,
) -> Result<()> {
    world
        .ready_tenant("busy", json!({ "admins": ["busy-it"] }))
        .await?;
    world
        .conference("tenant-busy", "council", json!({}))
        .await?;
    let before = world
        .conference_is(
            "tenant-busy",
            "council",
            ConditionType::Ready,
            ConditionStatus::True,
        )
        .await?;
    world.control.usage("busy", 1, 3);
    let tenants = Api::<Tenant>::all(world.client.clone());
    tenants.delete("busy", &DeleteParams::default()).await?;
    world
        .tenant_says("busy", "RoomsActive", |ready| ready.reason == "RoomsActive")
        .await?;
    world.control.usage("busy", 0, 0);
    world.tenant_ends("busy").await?;
    let namespace = Api::<Namespace>::all(world.client.clone())
        .get("tenant-busy")
        .await?;
    ensure!(
        namespace.metadata.deletion_timestamp.is_none(),
        "it is kept"
    );
    let bindings = world.of::<RoleBinding>("tenant-busy");
    for name in ["plenum-admins", "plenum-operator"] {
        ensure!(
            bindings.get_opt(name).await?.is_none(),
            "{name} is still there"
        );
    }
    world
        .conference_is(
            "tenant-busy",
            "council",
            ConditionType::Stalled,
            ConditionStatus::True,
        )
        .await?;
    world
        .ready_tenant("busy", json!({ "admins": ["busy-it"] }))
        .await?;
    let after = world
        .conference_is(
            "tenant-busy",
            "council",
            ConditionType::Ready,
            ConditionStatus::True,
        )
        .await?;
    let id = |conference: Conference| conference.status.and_then(|status| status.room_id);
    ensure!(id(before) == id(after), "links changed");
    Ok(())
}

/// With rooms that never end.
pub(crate) async fn a_forced_deletion_takes_the_namespace_along(world: &World) -> Result<()> {
    let spec = json!({ "namespace": { "deletionPolicy": "Delete" } });
    world.ready_tenant("gone", spec).await?;
    world
        .conference("tenant-gone", "council", json!({}))
        .await?;
    world.control.usage("gone", 1, 3);
    let tenants = Api::<Tenant>::all(world.client.clone());
    tenants.delete("gone", &DeleteParams::default()).await?;
    let force = json!({ "metadata": { "annotations": { "plenum.dev/force-delete": "true" } } });
    tenants
        .patch("gone", &PatchParams::default(), &Patch::Merge(force))
        .await?;
    // The control plane closes the rooms.
    world.control.usage("gone", 0, 0);
    world.tenant_ends("gone").await?;
    let namespace = Api::<Namespace>::all(world.client.clone())
        .get_opt("tenant-gone")
        .await?;
    ensure!(namespace.is_none(), "{namespace:?}");
    Ok(())
}

/// The control plane never says that the rooms are closed.
pub(crate) async fn a_forced_deletion_waits_for_its_grace_and_no_longer(
    world: &World,
) -> Result<()> {
    let spec = json!({ "namespace": { "deletionPolicy": "Delete" } });
    world.ready_tenant("stuck", spec).await?;
    world
        .conference("tenant-stuck", "council", json!({}))
        .await?;
    world.control.usage("stuck", 1, 3);
    let tenants = Api::<Tenant>::all(world.client.clone());
    let annotate = |key: &str, value: &str| {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        let tenants = tenants.clone();
        async move {
            tenants
                .patch("stuck", &PatchParams::default(), &Patch::Merge(patch))
                .await
        }
    };
    annotate("plenum.dev/force-delete", "true").await?;
    tenants.delete("stuck", &DeleteParams::default()).await?;
    world
        .tenant_says("stuck", "that its rooms are being closed", |ready| {
            ready.message.contains("being closed")
        })
        .await?;
    // Within the grace it waits, whatever makes it look.
    world.put_forward(60);
    annotate("test/look", "1").await?;
    world.quiet().await?;
    ensure!(tenants.get_opt("stuck").await?.is_some(), "too early");
    let namespaces = Api::<Namespace>::all(world.client.clone());
    let namespace = namespaces.get("tenant-stuck").await?;
    ensure!(namespace.metadata.deletion_timestamp.is_none(), "too early");
    world.put_forward(121);
    annotate("test/look", "2").await?;
    let gone = world.tenant_ends("stuck").await;
    world.put_forward(0);
    gone?;
    ensure!(namespaces.get_opt("tenant-stuck").await?.is_none());
    Ok(())
}
