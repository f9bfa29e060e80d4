// SPDX-License-Identifier: EUPL-1.2
//! The door of a declared conference: what stands at it, and what moderators say from inside.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use control_core::ids::RoomId;
use control_core::opening::{Opening, opening};
use control_core::record::{Conference, LobbyRule, Tenant};
use control_core::time::UnixMillis;
use plenum_proto::v1::admin_request::Call;
use plenum_proto::v1::{AdminRequest, LobbyDecision, RoomKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admission;
use super::listen::Via;
use super::refusal::Refusal;
use super::{Gateway, read_body};

mod credential;
mod entry;

pub(super) use entry::{Waiting, enter};

/// Bodies at the door are short.
const DOOR_BODY_BYTES_MAX: usize = 64 * 1024;
/// Entries decided on in one call.
const DECISIONS_MAX: usize = 1_000;

/// A conference and whose it is.
struct Found {
    tenant: Arc<Tenant>,
    conference: Arc<Conference>,
}

/// What stands at the door, for everybody who has the link.
pub(super) async fn describe(
    State(gateway): State<Gateway>,
    Path(room_id): Path<String>,
) -> Response {
    match find(&gateway, &room_id) {
        Ok(found) => Json(description(&gateway, &found)).into_response(),
        Err(refusal) => refusal.into_json(),
    }
}

fn find(gateway: &Gateway, room_id: &str) -> Result<Found, Refusal> {
    let view = gateway.0.plane.view();
    let found = RoomId::parse(room_id).ok().and_then(|id| {
        let conference = view.conference(&id)?;
        Some(Found {
            tenant: Arc::clone(view.tenant(&conference.tenant)?),
            conference: Arc::clone(conference),
        })
    });
    match found {
        Some(found) => Ok(found),
        None if gateway.0.plane.is_certain() => Err(Refusal::UnknownConference),
        None => Err(Refusal::NotLoaded),
    }
}

fn description(gateway: &Gateway, Found { tenant, conference }: &Found) -> Value {
    let opened = gateway
        .0
        .plane
        .room(&conference.key())
        .is_some_and(|room| room.facts.opened);
    let (state, opens_at) = match opening(
        tenant,
        conference,
        UnixMillis(gateway.0.plane.now_unix_ms()),
    ) {
        Opening::Allowed { .. } => (if opened { "open" } else { "waiting" }, None),
        Opening::NotYet { opens_at } => ("scheduled", Some(opens_at)),
        Opening::Over | Opening::Suspended => ("closed", None),
    };
    let local = |lang: &str, text: &str| json!({"lang": lang, "text": text});
    let name = if tenant.branding_name.is_empty() {
        &tenant.display_name
    } else {
        &tenant.branding_name
    };
    let display_name = if conference.display_name.is_empty() {
        &conference.name
    } else {
        &conference.display_name
    };
    json!({
        "conference": {"displayName": display_name, "roomId": conference.room_id.as_str()},
        "tenant": {
            "name": name,
            "colour": Some(&tenant.branding_colour).filter(|colour| !colour.is_empty()),
            "texts": tenant.branding_texts.iter()
                .map(|text| json!({"key": text.key, "lang": text.lang, "text": text.text})).collect::<Vec<_>>(),
        },
        "notices": conference.notices.iter().map(|notice| json!({
            "id": notice.id,
            "acknowledge": notice.acknowledge,
            "texts": notice.texts.iter().map(|text| local(&text.lang, &text.text)).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "state": state,
        "opensAt": opens_at.map(rfc_3339),
        "passwordRequired": true,
        "lobby": match conference.policy.lobby {
            LobbyRule::Off => "Off",
            LobbyRule::Guests => "Guests",
            LobbyRule::Everyone => "Everyone",
        },
        "guests": conference.policy.guests_allowed,
    })
}

/// A point in time as pages read it.
fn rfc_3339(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map(|at| at.to_string())
        .unwrap_or_default()
}

/// Body of a lobby decision.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LobbyBody {
    admit: Vec<String>,
    deny: Vec<String>,
    admit_all: bool,
}

/// Body of the lock.
#[derive(Deserialize)]
struct LockBody {
    locked: bool,
}

/// Admits and turns away.
pub(super) async fn lobby(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    Path(room_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(moderate(&gateway, via, &room_id, &headers, body, |bytes| {
        let body: LobbyBody = parse(bytes)?;
        if body.admit.len() + body.deny.len() > DECISIONS_MAX {
            return Err(Refusal::InvalidArgument(format!(
                "at most {DECISIONS_MAX} people can be decided on at once"
            )));
        }
        Ok(Call::Lobby(LobbyDecision {
            admit: body.admit,
            deny: body.deny,
            admit_all: body.admit_all,
        }))
    }))
    .await
}

/// Locks and unlocks.
pub(super) async fn lock(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    Path(room_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(moderate(&gateway, via, &room_id, &headers, body, |bytes| {
        Ok(Call::Lock(parse::<LockBody>(bytes)?.locked))
    }))
    .await
}

/// Ends the conference for everybody.
pub(super) async fn end(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    Path(room_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(moderate(&gateway, via, &room_id, &headers, body, |_| {
        Ok(Call::End(true))
    }))
    .await
}

async fn answer(result: impl Future<Output = Result<(), Refusal>>) -> Response {
    match result.await {
        Ok(()) => Json(json!({})).into_response(),
        Err(refusal) => refusal.into_json(),
    }
}

/// A call of somebody inside: the room itself decides whether they may.
async fn moderate(
    gateway: &Gateway,
    via: Via,
    room_id: &str,
    headers: &HeaderMap,
    body: Body,
    call: impl FnOnce(&[u8]) -> Result<Call, Refusal>,
) -> Result<(), Refusal> {
    let token = gateway.authenticate(headers, None, via)?;
    let found = find(gateway, room_id)?;
    // A token that the tenant's backend signed speaks for the tenant; everybody else for themselves.
    let key = if token.own {
        admission::room_of(&token)?
    } else if token.video().room_admin {
        admission::room_named(&token)?
    } else {
        return Err(Refusal::NotGranted("roomAdmin"));
    };
    if key != found.conference.key() {
        return Err(Refusal::OtherRoom);
    }
    let call = call(&read_body(body, DOOR_BODY_BYTES_MAX).await?)?;
    let actor = if token.own {
        token.identity
    } else {
        String::new()
    };
    administer(gateway, &key, actor, call).await.map(drop)
}

/// Asks a room's node to administer it; the encoded answer.
pub(super) async fn administer(
    gateway: &Gateway,
    key: &control_core::ids::RoomKey,
    actor: String,
    call: Call,
) -> Result<Vec<u8>, Refusal> {
    let Some(placed) = gateway.0.plane.host_of(key).await else {
        return Err(match gateway.0.plane.room(key) {
            // Between two nodes.
            Some(_) => Refusal::NodeAway,
            None if gateway.0.plane.is_certain() => Refusal::RoomUnknown,
            None => Refusal::NotLoaded,
        });
    };
    let request = AdminRequest {
        key: Some(RoomKey {
            tenant: key.tenant.to_string(),
            name: key.name.to_string(),
        }),
        epoch: placed.epoch.0,
        actor_identity: actor,
        call: Some(call),
    };
    let answer = placed.host.admin(request).await?;
    match answer.refused.as_str() {
        "" => Ok(answer.response),
        "NotFound" => Err(Refusal::NotFound(answer.message)),
        "PermissionDenied" => Err(Refusal::PermissionDenied(answer.message)),
        "InvalidArgument" => Err(Refusal::InvalidArgument(answer.message)),
        _ => Err(Refusal::RoomRetry {
            reason: answer.refused,
            message: answer.message,
        }),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Refusal> {
    // Serde would read a list as the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::BadRequest("the body is no JSON object".to_owned()));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::BadRequest(format!("the body is not the expected JSON: {error}")))
}
