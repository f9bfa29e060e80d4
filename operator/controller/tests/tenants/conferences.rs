// SPDX-License-Identifier: EUPL-1.2
//! Conferences and classes: what `kubectl wait` sees, the Secrets that are made, and what a meeting costs.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use plenum_api::{ConditionStatus, ConditionType, Conference, conditions::find};
use plenum_proto::v1::ConferenceState;
use serde_json::json;

use crate::world::{OPERATOR, URL, World, eventually};

/// As a person or a pipeline waits.
pub(crate) async fn kubectl_waits_for_tenant_conference_and_class(world: &World) -> Result<()> {
    world.tenant("waits", json!({})).await?;
    let wait = |what: &'static str| async move {
        let args = ["wait", "--for=condition=Ready", "--timeout=330s", what];
        world.server.kubectl(&args).await
    };
    wait("tenant/waits").await?;
    wait("conferenceclass/meeting").await?;
    world
        .conference("tenant-waits", "council", json!({}))
        .await?;
    let args = [
        "wait",
        "--for=condition=Ready",
        "--timeout=330s",
        "-n",
        "tenant-waits",
        "conf/council",
    ];
    world.server.kubectl(&args).await?;
    let printed = world
        .server
        .kubectl(&["get", "conf", "-n", "tenant-waits", "-o", "wide"])
        .await?;
    ensure!(
        printed.contains("Open") && printed.contains("meeting"),
        "{printed}"
    );
    let conference = world
        .of::<Conference>("tenant-waits")
        .get("council")
        .await?;
    let status = conference.status.context("a status")?;
    let id = status.room_id.context("a room id")?;
    ensure!(id.len() == 26, "{id}");
    ensure!(status.join_url == Some(format!("{URL}/c/{id}")));
    ensure!(status.password_secret_name.as_deref() == Some("council-password"));
    ensure!(status.tenant.as_deref() == Some("waits"));
    Ok(())
}

/// The condition names the namespace, and an Event tells it too.
pub(crate) async fn a_conference_outside_of_a_tenants_namespace_says_so(
    world: &World,
) -> Result<()> {
    world.conference("default", "stray", json!({})).await?;
    let stray = world
        .conference_is(
            "default",
            "stray",
            ConditionType::Stalled,
            ConditionStatus::True,
        )
        .await?;
    let conditions = stray.status.context("a status")?.conditions;
    let stalled = find(&conditions, ConditionType::Stalled).context("stalled")?;
    ensure!(stalled.reason == "NamespaceWithoutTenant", "{stalled:?}");
    ensure!(
        stalled.message.starts_with("metadata.namespace: "),
        "{stalled:?}"
    );
    let events = world.of::<Event>("default");
    eventually("an Event", || async {
        let all = events.list(&ListParams::default()).await?;
        let reasons: Vec<_> = all
            .iter()
            .filter_map(|event| event.reason.clone())
            .collect();
        let there = reasons
            .iter()
            .any(|reason| reason == "NamespaceWithoutTenant");
        Ok(if there { Ok(()) } else { Err(reasons) })
    })
    .await?;
    let made = world
        .of::<Secret>("default")
        .get_opt("stray-password")
        .await?;
    ensure!(made.is_none(), "a Secret in a namespace that is nobody's");
    world
        .of::<Conference>("default")
        .delete("stray", &DeleteParams::default())
        .await?;
    Ok(())
}

/// At least 80 bits, and owned by the conference; so is the opener's key.
pub(crate) async fn a_password_is_made_and_made_anew_when_its_secret_is_deleted(
    world: &World,
) -> Result<()> {
    world.ready_tenant("keys", json!({})).await?;
    world
        .conference("tenant-keys", "council", json!({}))
        .await?;
    let ready = || {
        world.conference_is(
            "tenant-keys",
            "council",
            ConditionType::Ready,
            ConditionStatus::True,
        )
    };
    let conference = ready().await?;
    let secrets = world.of::<Secret>("tenant-keys");
    let value = |secret: &Secret, key: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        data.map(|value| String::from_utf8_lossy(&value.0).into_owned())
    };
    let first = secrets.get("council-password").await?;
    let text = value(&first, "password").context("a password")?;
    ensure!(
        text.split('-').count() == 7 && text.len() == 34,
        "{} letters",
        text.len()
    );
    let owner = first
        .owner_references()
        .first()
        .context("an owner")?
        .uid
        .clone();
    ensure!(Some(owner) == conference.metadata.uid);
    let opener = secrets.get("council-opener").await?;
    ensure!(opener.type_.as_deref() == Some("plenum.dev/opener-key"));
    ensure!(value(&opener, "key").context("a key")?.len() == 32);
    secrets
        .delete("council-password", &DeleteParams::default())
        .await?;
    let second = eventually("another password", || async {
        let found = secrets.get_opt("council-password").await?;
        let other = found.filter(|found| found.metadata.uid != first.metadata.uid);
        Ok(other.ok_or("none yet"))
    })
    .await?;
    ensure!(
        value(&second, "password") != Some(text),
        "the same password again"
    );
    ready().await?;
    // Whoever deletes the conference deletes its Secrets.
    world
        .of::<Conference>("tenant-keys")
        .delete("council", &DeleteParams::default())
        .await?;
    eventually("Secrets without owner to go", || async {
        let left = secrets.get_opt("council-password").await?;
        Ok(if left.is_none() {
            Ok(())
        } else {
            Err("the password is still there")
        })
    })
    .await
}

/// And opens them again.
pub(crate) async fn a_suspended_tenant_keeps_its_conferences_shut(world: &World) -> Result<()> {
    world.ready_tenant("pause", json!({})).await?;
    world
        .conference("tenant-pause", "council", json!({}))
        .await?;
    let ready =
        |status| world.conference_is("tenant-pause", "council", ConditionType::Ready, status);
    ready(ConditionStatus::True).await?;
    world.tenant("pause", json!({ "suspended": true })).await?;
    let tenant = world
        .tenant_is("pause", ConditionType::Active, ConditionStatus::False)
        .await?;
    let conditions = tenant.status.context("a status")?.conditions;
    let active = find(&conditions, ConditionType::Active).context("active")?;
    ensure!(active.reason == "Suspended", "{active:?}");
    ready(ConditionStatus::False).await?;
    world.tenant("pause", json!({})).await?;
    world
        .tenant_is("pause", ConditionType::Active, ConditionStatus::True)
        .await?;
    ready(ConditionStatus::True).await?;
    Ok(())
}

/// With its reason and its words.
pub(crate) async fn a_refusal_of_the_control_plane_stands_in_the_status(
    world: &World,
) -> Result<()> {
    world.ready_tenant("refused", json!({})).await?;
    world
        .conference("tenant-refused", "council", json!({}))
        .await?;
    let ready = world
        .conference_is(
            "tenant-refused",
            "council",
            ConditionType::Ready,
            ConditionStatus::True,
        )
        .await?;
    let uid = ready.metadata.uid.context("a uid")?;
    world
        .control
        .refuse(&uid, "LimitExceeded", "there is no room for it");
    let refused = world
        .conference_is(
            "tenant-refused",
            "council",
            ConditionType::Stalled,
            ConditionStatus::True,
        )
        .await?;
    let conditions = refused.status.context("a status")?.conditions;
    let published = find(&conditions, ConditionType::Published).context("published")?;
    ensure!(published.status == ConditionStatus::False, "{published:?}");
    ensure!(published.reason == "LimitExceeded", "{published:?}");
    ensure!(
        published.message == "there is no room for it",
        "{published:?}"
    );
    world
        .of::<Conference>("tenant-refused")
        .delete("council", &DeleteParams::default())
        .await?;
    Ok(())
}

/// Retried because it appears, not because time passes.
pub(crate) async fn a_missing_key_is_told_with_its_field_and_gone_when_it_comes(
    world: &World,
) -> Result<()> {
    let spec = json!({ "auth": { "apiKeySecretRefs": [{ "name": "backend" }] } });
    world.tenant("needs", spec).await?;
    let stalled = world
        .tenant_is("needs", ConditionType::Stalled, ConditionStatus::True)
        .await?;
    let conditions = stalled.status.context("a status")?.conditions;
    let credentials = find(&conditions, ConditionType::CredentialsValid).context("credentials")?;
    ensure!(credentials.reason == "SecretNotFound", "{credentials:?}");
    ensure!(
        credentials
            .message
            .contains("spec.auth.apiKeySecretRefs[0].name: "),
        "{credentials:?}"
    );
    world
        .apply::<Secret>(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "plenum.dev/api-key",
            "metadata": { "name": "backend", "namespace": "tenant-needs" },
            "stringData": { "apiKey": "needs-key", "apiSecret": "0123456789abcdef0123456789abcdef" },
        }))
        .await?;
    let tenant = world
        .tenant_is("needs", ConditionType::Ready, ConditionStatus::True)
        .await?;
    let text = serde_json::to_string(&tenant)?;
    ensure!(!text.contains("0123456789abcdef"), "a secret in an object");
    Ok(())
}

/// Placed, active, ended: a conference without schedule has no window that opens. How many come changes nothing.
pub(crate) async fn a_meeting_costs_three_writes_of_its_status(world: &World) -> Result<()> {
    world.ready_tenant("meets", json!({})).await?;
    world
        .conference("tenant-meets", "council", json!({}))
        .await?;
    let ready = world
        .conference_is(
            "tenant-meets",
            "council",
            ConditionType::Ready,
            ConditionStatus::True,
        )
        .await?;
    world.quiet().await?;
    let before = status_writes(world)?;
    let uid = ready.metadata.uid.context("a uid")?;
    let room = |opened, participants: u32, placed: bool| ConferenceState {
        uid: uid.clone(),
        opened,
        participants,
        node_id: if placed { "local1" } else { "" }.to_owned(),
        epoch: u64::from(placed),
        peak_participants: 40,
        ..ConferenceState::default()
    };
    let is = |type_, status| world.conference_is("tenant-meets", "council", type_, status);
    world.control.room(room(false, 1, true));
    is(ConditionType::Placed, ConditionStatus::True).await?;
    world.control.room(room(true, 2, true));
    let active = is(ConditionType::Active, ConditionStatus::True).await?;
    ensure!(
        active
            .status
            .and_then(|status| status.peak_participants)
            .is_none()
    );
    for participants in (0..40).chain((0..40).rev()) {
        world.control.room(room(true, participants, true));
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    world.control.room(room(false, 0, false));
    let ended = is(ConditionType::Active, ConditionStatus::False).await?;
    let status = ended.status.context("a status")?;
    ensure!(status.peak_participants == Some(40), "{status:?}");
    ensure!(status.assignment.is_none(), "{status:?}");
    world.quiet().await?;
    let cost = status_writes(world)? - before;
    ensure!(cost == 3, "{cost} writes");
    Ok(())
}

fn status_writes(world: &World) -> Result<usize> {
    let writes = world.writes()?.into_iter();
    let of_council = writes.filter(|entry| {
        entry.object_ref.as_ref().is_some_and(|object| {
            object.namespace == "tenant-meets" && object.subresource == "status"
        })
    });
    Ok(of_council.count())
}

/// `ttlAfterEnd` after the last window.
pub(crate) async fn a_conference_that_is_over_is_collected(world: &World) -> Result<()> {
    world.ready_tenant("over", json!({})).await?;
    let schedule = json!({
        "schedule": {
            "start": "2020-01-01T10:00", "timeZone": "Europe/Berlin", "duration": "1h",
        },
    });
    world
        .conference("tenant-over", "kept", schedule.clone())
        .await?;
    let kept = world
        .conference_is(
            "tenant-over",
            "kept",
            ConditionType::Published,
            ConditionStatus::True,
        )
        .await?;
    let phase = kept.status.context("a status")?.phase;
    ensure!(
        phase.map(|phase| phase.as_str()) == Some("Ended"),
        "{phase:?}"
    );
    let mut collected = schedule;
    collected["lifecycle"] = json!({ "ttlAfterEnd": "1h" });
    world
        .conference("tenant-over", "collected", collected)
        .await?;
    let conferences = world.of::<Conference>("tenant-over");
    eventually("its collection", || async {
        let found = conferences.get_opt("collected").await?;
        Ok(found.map_or(Ok(()), Err))
    })
    .await?;
    ensure!(conferences.get_opt("kept").await?.is_some());
    Ok(())
}

/// Asked of the audit log, after everything else.
pub(crate) async fn an_operator_with_nothing_to_do_writes_nothing(world: &World) -> Result<()> {
    let before = world.quiet().await?;
    ensure!(before > 0, "the audit log names nobody `{OPERATOR}`");
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let writes = world.writes()?;
    let new: Vec<_> = writes[before..]
        .iter()
        .map(|entry| format!("{} {}", entry.verb, entry.uri))
        .collect();
    ensure!(new.is_empty(), "{new:#?}");
    let forbidden: Vec<_> = world
        .server
        .audit()?
        .into_iter()
        .filter(|entry| entry.user.username == OPERATOR && entry.code() == 403)
        // Secrets of a namespace can be read once its binding has reached the authorizer.
        .filter(|entry| entry.resource() != "secrets")
        // Nothing can be made in a namespace that goes, an Event neither.
        .filter(|entry| {
            let answer = entry.response_status.as_ref();
            !answer.is_some_and(|answer| answer.message.contains("being terminated"))
        })
        .map(|entry| format!("{} {}", entry.verb, entry.uri))
        .collect();
    ensure!(
        forbidden.is_empty(),
        "more than the chart grants: {forbidden:#?}"
    );
    Ok(())
}
