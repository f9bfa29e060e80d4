// SPDX-License-Identifier: EUPL-1.2
//! What Flux and Argo CD make of statuses that the operator wrote, and what becomes of objects that a newer version declared.

use anyhow::{Context as _, Result, ensure};
use e2e::health::{Kstatus, expect};
use k8s_openapi::{
    api::core::v1::Secret,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
    },
};
use plenum_api::{ConditionStatus, ConditionType, Conference, ConferenceClass, MediaPool, Tenant};
use serde_json::{Value, json};

use crate::world::{World, conference_manifest, eventually};

/// Tenant, Conference and ConferenceClass, from new to deleted; pools and nodes have theirs where they run.
pub(crate) async fn flux_and_argo_cd_see_what_the_conditions_say(world: &World) -> Result<()> {
    // Nobody reconciles pools here: what the API server gives says so by itself.
    let pool = world.of::<MediaPool>("media").get("local").await?;
    expect(&pool, Kstatus::InProgress, "Progressing")?;

    let new = world.tenant("seen", json!({})).await?;
    expect(&new, Kstatus::InProgress, "Progressing")?;
    let ready = || world.tenant_is("seen", ConditionType::Ready, ConditionStatus::True);
    expect(&ready().await?, Kstatus::Current, "Healthy")?;
    let class = Api::<ConferenceClass>::all(world.client.clone());
    expect(&class.get("meeting").await?, Kstatus::Current, "Healthy")?;

    let new = world
        .conference("tenant-seen", "council", json!({}))
        .await?;
    expect(&new, Kstatus::InProgress, "Progressing")?;
    let council = |type_, status| world.conference_is("tenant-seen", "council", type_, status);
    let conference = council(ConditionType::Ready, ConditionStatus::True).await?;
    expect(&conference, Kstatus::Current, "Healthy")?;

    // A class that there is not: somebody has to do something.
    let spec = json!({ "className": "nowhere" });
    world.conference("tenant-seen", "council", spec).await?;
    let conference = council(ConditionType::Stalled, ConditionStatus::True).await?;
    expect(&conference, Kstatus::Failed, "Degraded")?;
    world
        .conference("tenant-seen", "council", json!({}))
        .await?;
    let conference = council(ConditionType::Ready, ConditionStatus::True).await?;
    expect(&conference, Kstatus::Current, "Healthy")?;

    let spec = json!({ "auth": { "apiKeySecretRefs": [{ "name": "absent" }] } });
    world.tenant("seen", spec).await?;
    let tenant = world
        .tenant_is("seen", ConditionType::Stalled, ConditionStatus::True)
        .await?;
    expect(&tenant, Kstatus::Failed, "Degraded")?;

    world.tenant("seen", json!({ "suspended": true })).await?;
    for (type_, status) in [
        (ConditionType::Active, ConditionStatus::False),
        (ConditionType::Stalled, ConditionStatus::False),
        (ConditionType::Reconciling, ConditionStatus::False),
    ] {
        world.tenant_is("seen", type_, status).await?;
    }
    let tenant = Api::<Tenant>::all(world.client.clone()).get("seen").await?;
    expect(&tenant, Kstatus::Current, "Suspended")?;
    world.tenant("seen", json!({})).await?;
    ready().await?;

    world.control.usage("seen", 1, 2);
    let tenants = Api::<Tenant>::all(world.client.clone());
    tenants.delete("seen", &DeleteParams::default()).await?;
    let tenant = world
        .tenant_says("seen", "RoomsActive", |ready| ready.reason == "RoomsActive")
        .await?;
    expect(&tenant, Kstatus::Terminating, "Progressing")?;
    world.control.usage("seen", 0, 0);
    world.tenant_ends("seen").await
}

/// As after a downgrade: the definitions know more than this operator. A field that it does not know stays where it is while the operator
/// writes beside it; an object that it cannot read is left alone and told, and everything else goes on.
pub(crate) async fn what_a_newer_version_declared_is_kept_and_told(world: &World) -> Result<()> {
    teach(world, true).await?;
    world.ready_tenant("newer", json!({})).await?;
    let kind = GroupVersionKind::gvk("plenum.dev", "v1alpha1", "Conference");
    let resource = ApiResource::from_gvk_with_plural(&kind, "conferences");
    // As one reads who knows what the definitions know.
    let newer =
        Api::<DynamicObject>::namespaced_with(world.client.clone(), "tenant-newer", &resource);
    let mut manifest = conference_manifest("tenant-newer", "council");
    manifest["spec"]["later"] = "kept".into();
    let params = PatchParams::apply("gitops").force();
    // The definition is in force a moment after it was taken.
    eventually("the field of the newer definition", || async {
        let patch = Patch::Apply(&manifest);
        match newer.patch("council", &params, &patch).await {
            Ok(taken) if taken.data["spec"]["later"] == "kept" => Ok(Ok(())),
            other => Ok(Err(other.map(|object| object.data))),
        }
    })
    .await?;
    let ready = |name: &'static str| {
        world.conference_is(
            "tenant-newer",
            name,
            ConditionType::Ready,
            ConditionStatus::True,
        )
    };
    ready("council").await?;
    let seen = newer.get("council").await?;
    ensure!(seen.data["spec"]["later"] == "kept", "{:#}", seen.data);

    let mut unknown = conference_manifest("tenant-newer", "unread");
    unknown["spec"]["openers"] = json!([{ "type": "Later" }]);
    let unknown: DynamicObject = serde_json::from_value(unknown)?;
    eventually("an object of the newer definition", || async {
        Ok(newer
            .create(&PostParams::default(), &unknown)
            .await
            .map(drop))
    })
    .await?;
    eventually("the note that it cannot be read", || async {
        let noted = world.stores.unreadable();
        let found = noted
            .iter()
            .find(|(key, _)| key.kind == "Conference" && key.name.name == "unread");
        Ok(match found {
            Some((_, why)) if why.contains("Later") => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    world
        .conference("tenant-newer", "beside", json!({}))
        .await?;
    ready("beside").await?;
    let left = newer.get("unread").await?;
    ensure!(
        left.data["spec"]["openers"][0]["type"] == "Later",
        "{:#}",
        left.data
    );
    let secret = world
        .of::<Secret>("tenant-newer")
        .get_opt("unread-opener")
        .await?;
    ensure!(secret.is_none(), "something was made for it");
    // A GitOps tool does not take it for done either.
    expect(&left, Kstatus::InProgress, "Progressing")?;

    newer.delete("unread", &DeleteParams::default()).await?;
    eventually("no note", || async {
        let noted = world.stores.unreadable();
        Ok(if noted.is_empty() { Ok(()) } else { Err(noted) })
    })
    .await?;
    world
        .of::<Conference>("tenant-newer")
        .delete("council", &DeleteParams::default())
        .await
        .context("an object with an unknown field goes as any other")?;
    teach(world, false).await
}

/// Lets the definition of conferences know a field and a kind of openers that this operator does not know, or no longer.
async fn teach(world: &World, newer: bool) -> Result<()> {
    let api = Api::<CustomResourceDefinition>::all(world.client.clone());
    let name = "conferences.plenum.dev";
    let mut definition = serde_json::to_value(api.get(name).await?)?;
    let spec = definition
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .context("a schema")?;
    let kinds = spec
        .pointer_mut("/openers/items/properties/type/enum")
        .and_then(Value::as_array_mut)
        .context("kinds of openers")?;
    kinds.retain(|kind| kind != "Later");
    if newer {
        kinds.push("Later".into());
        spec["later"] = json!({ "type": "string" });
    } else if let Some(spec) = spec.as_object_mut() {
        spec.remove("later");
    }
    let definition = serde_json::from_value(definition)?;
    api.replace(name, &PostParams::default(), &definition)
        .await?;
    Ok(())
}
