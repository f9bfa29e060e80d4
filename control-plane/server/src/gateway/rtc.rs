// SPDX-License-Identifier: EUPL-1.2
//! `/rtc`: from a request to a room's first frame, all of it before the upgrade, so that a no is an HTTP status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use control_core::ids::RoomKey;
use plenum_proto::v1::session_down::Item as Down;
use plenum_proto::v1::{Frame, SessionDown, SessionRefused, SessionStart, TokenFacts};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::{Code, Streaming};

use super::Gateway;
use super::admission::{self, Admission};
use super::client::ConnectQuery;
use super::listen::Via;
use super::refusal::Refusal;
use crate::auth::{RoleName, Token};
use crate::hosts::{Host, HostError, SessionSays};
use crate::metrics::Reason;

mod refresh;
mod relay;
pub(super) mod sid;

/// SDKs give up when nothing has come after 5 s; a status that comes in time tells them more.
const FIRST_FRAME: Duration = Duration::from_millis(4_500);
/// A room that is being moved is looked for again.
const TRIES: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// Frames on their way to the node; then the WebSocket is not read.
const UP_QUEUE: usize = 64;
/// Allocated for each connection from its begin; the library's 128 KiB would make 4 GB of 30,000 of them.
const READ_BYTES: usize = 4 * 1024;
/// Longest signalling message.
const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A session whose first frame has come.
struct Attached {
    up: mpsc::Sender<SessionSays>,
    down: Streaming<SessionDown>,
    first: Frame,
    facts: Option<TokenFacts>,
    host: Host,
    publish_only: bool,
}

/// What a resume comes to.
enum Outcome {
    Attached(Box<Attached>),
    /// The participant is not where its SID says: join anew.
    JoinAnew,
}

/// Why a try at one node did not work.
enum AttachError {
    /// The room is elsewhere by now.
    Elsewhere,
    Refused(Refusal),
}

/// WebSocket endpoint of v0.
pub(super) async fn connect(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return (StatusCode::NOT_FOUND, "this is a WebSocket endpoint\n").into_response();
    };
    let seat = Arc::clone(&gateway.0.sessions)
        .try_acquire_owned()
        .map_err(|_| Refusal::Busy);
    let asked = Instant::now();
    let begun = match seat {
        Ok(seat) => begin(&gateway, via, &pairs, &headers)
            .await
            .map(|begun| (seat, begun)),
        Err(refusal) => Err(refusal),
    };
    match begun {
        Err(refusal) => {
            gateway
                .0
                .metrics
                .refused
                .get_or_create(&Reason {
                    reason: refusal.label(),
                })
                .inc();
            tracing::debug!(reason = refusal.reason(), "session refused");
            refusal.into_text()
        }
        Ok((seat, (outcome, token, key))) => {
            gateway
                .0
                .metrics
                .begin
                .observe(asked.elapsed().as_secs_f64());
            let upgrade = upgrade
                .max_message_size(MESSAGE_BYTES_MAX)
                .max_frame_size(MESSAGE_BYTES_MAX)
                .write_buffer_size(0)
                .read_buffer_size(READ_BYTES);
            match outcome {
                Outcome::Attached(attached) => upgrade.on_upgrade(async move |socket| {
                    relay::run(gateway, socket, *attached, token, key).await;
                    drop(seat);
                }),
                Outcome::JoinAnew => upgrade.on_upgrade(async move |socket| {
                    relay::send_away(socket).await;
                    drop(seat);
                }),
            }
        }
    }
}

/// The checks of the upgrade without it: clients ask after a failed one, to learn why.
pub(super) async fn validate(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let checked = read(&gateway, via, &pairs, &headers).and_then(|(_, token, key)| {
        gateway.with_surroundings(&key, |around| admission::admit(around, &token, &key))
    });
    let checked = match checked {
        // What is refused for want of a place is refused here as well, with its reason.
        Ok(admission) => {
            let checked = gateway.0.plane.check(&admission.place).await;
            checked.map_err(Refusal::from)
        }
        Err(refusal) => Err(refusal),
    };
    match checked {
        Ok(()) => "success".into_response(),
        Err(refusal) => refusal.into_text(),
    }
}

fn read(
    gateway: &Gateway,
    via: Via,
    pairs: &[(String, String)],
    headers: &HeaderMap,
) -> Result<(ConnectQuery, Token, RoomKey), Refusal> {
    let query = ConnectQuery::parse(pairs, &via.peer.to_string())
        .map_err(|error| Refusal::BadRequest(error.to_string()))?;
    let token = gateway.authenticate(headers, query.access_token.as_deref(), via)?;
    let key = admission::room_of(&token)?;
    Ok((query, token, key))
}

async fn begin(
    gateway: &Gateway,
    via: Via,
    pairs: &[(String, String)],
    headers: &HeaderMap,
) -> Result<(Outcome, Token, RoomKey), Refusal> {
    let (query, token, key) = read(gateway, via, pairs, headers)?;
    let outcome = timeout(FIRST_FRAME, async {
        if query.reconnect {
            resume(gateway, &query, &token, &key).await
        } else {
            join(gateway, &query, &token, &key).await
        }
    })
    .await
    .map_err(|_| Refusal::NodeAway)??;
    Ok((outcome, token, key))
}

async fn join(
    gateway: &Gateway,
    query: &ConnectQuery,
    token: &Token,
    key: &RoomKey,
) -> Result<Outcome, Refusal> {
    let mut floor = control_core::ids::Epoch(0);
    for attempt in 1..=TRIES {
        let mut admission =
            gateway.with_surroundings(key, |around| admission::admit(around, token, key))?;
        admission.place.floor = admission.place.floor.max(floor);
        let placed = gateway.0.plane.place(admission.place.clone()).await?;
        let start = start(query, token, &admission, placed.epoch.0);
        match attach(&placed.host, start).await {
            Ok(attached) => return Ok(Outcome::Attached(Box::new(attached))),
            Err(AttachError::Refused(refusal)) => return Err(refusal),
            Err(AttachError::Elsewhere) if attempt < TRIES => {
                floor = placed.epoch;
                sleep(TRY_AGAIN).await;
            }
            Err(AttachError::Elsewhere) => {}
        }
    }
    Err(Refusal::NodeAway)
}

async fn resume(
    gateway: &Gateway,
    query: &ConnectQuery,
    token: &Token,
    key: &RoomKey,
) -> Result<Outcome, Refusal> {
    let admission =
        gateway.with_surroundings(key, |around| admission::admit(around, token, key))?;
    // Whatever is wrong with a SID, joining anew cures it.
    let Some(sid) = sid::parse(&query.sid) else {
        return Ok(Outcome::JoinAnew);
    };
    let Some(host) = gateway.0.plane.host_by_node(sid.site, sid.node_id) else {
        let settled = gateway.with_surroundings(key, |around| around.settled);
        return if settled {
            Ok(Outcome::JoinAnew)
        } else {
            Err(Refusal::NodeAway)
        };
    };
    let epoch = gateway
        .0
        .plane
        .room(key)
        .filter(|room| room.node_id.as_str() == sid.node_id)
        .map_or(0, |room| room.epoch.0);
    match attach(&host, start(query, token, &admission, epoch)).await {
        Ok(attached) => Ok(Outcome::Attached(Box::new(attached))),
        Err(AttachError::Elsewhere) => Ok(Outcome::JoinAnew),
        Err(AttachError::Refused(refusal)) => Err(refusal),
    }
}

/// What the room is told.
fn start(query: &ConnectQuery, token: &Token, admission: &Admission, epoch: u64) -> SessionStart {
    let mut attributes = admission::without_server_attributes(&token.claims.attributes);
    if admission.grants.can_update_own_metadata {
        // At a join an empty value deletes nothing.
        let own = admission::without_server_attributes(&query.attributes);
        attributes.extend(own.into_iter().filter(|(_, value)| !value.is_empty()));
    }
    let standing = admission.standing;
    let mut grants = admission.grants.clone();
    let mut identity = admission.identity.clone();
    let suffix = &query.parameters.publish_only_suffix;
    if !suffix.is_empty() {
        // A second connection of the same person, that only publishes.
        identity = format!("{identity}#{suffix}");
        grants.can_subscribe = false;
    }
    SessionStart {
        key: Some(plenum_proto::v1::RoomKey {
            tenant: admission.key.tenant.to_string(),
            name: admission.key.name.to_string(),
        }),
        epoch,
        identity,
        name: token.claims.name.clone(),
        metadata: token.claims.metadata.clone(),
        attributes: attributes.into_iter().collect(),
        grants: Some(grants),
        role: standing
            .map_or(plenum_proto::v1::Role::Unspecified, |standing| {
                admission::token_role(standing.role).to_proto()
            })
            .into(),
        guest: standing.is_some_and(|standing| standing.guest),
        opener: standing.is_none_or(|standing| standing.opener),
        token_issued_unix_s: token.issued_unix_s,
        client: Some(query.parameters.clone()),
        reconnect: query.reconnect,
        participant_sid: query.sid.clone(),
        reconnect_reason: query.reconnect_reason,
        kind: if token.claims.kind.is_empty() {
            "standard".to_owned()
        } else {
            token.claims.kind.clone()
        },
        text_frames: false,
    }
}

/// Opens the session and waits for its first frame.
async fn attach(host: &Host, start: SessionStart) -> Result<Attached, AttachError> {
    let (up, queue) = mpsc::channel(UP_QUEUE);
    let publish_only = start
        .client
        .as_ref()
        .is_some_and(|client| !client.publish_only_suffix.is_empty());
    let mut down = match host.session(start, queue).await {
        Ok(down) => down,
        Err(HostError::WrongRoom { .. }) => return Err(AttachError::Elsewhere),
        Err(error) => return Err(AttachError::Refused(error.into())),
    };
    let mut facts = None;
    loop {
        match down.message().await {
            Ok(Some(SessionDown {
                item: Some(Down::Frame(first)),
            })) => {
                return Ok(Attached {
                    up,
                    down,
                    first,
                    facts,
                    host: host.clone(),
                    publish_only,
                });
            }
            Ok(Some(SessionDown {
                item: Some(Down::TokenFacts(told)),
            })) => facts = Some(told),
            Ok(Some(SessionDown {
                item: Some(Down::Refused(refused)),
            })) => return Err(refusal_of(refused)),
            Ok(
                Some(SessionDown {
                    item: Some(Down::Close(_)),
                })
                | None,
            ) => return Err(AttachError::Elsewhere),
            Ok(Some(SessionDown { item: None })) => {}
            Err(status)
                if matches!(
                    status.code(),
                    Code::NotFound | Code::FailedPrecondition | Code::Aborted
                ) =>
            {
                return Err(AttachError::Elsewhere);
            }
            Err(_) => return Err(AttachError::Refused(Refusal::NodeAway)),
        }
    }
}

/// The room's own words, with the statuses that clients understand.
fn refusal_of(refused: SessionRefused) -> AttachError {
    match refused.reason.as_str() {
        "NotOpened" => AttachError::Refused(Refusal::NotOpened),
        "WrongEpoch" | "Closing" | "Unknown" => AttachError::Elsewhere,
        _ if refused.retry => AttachError::Refused(Refusal::RoomRetry {
            reason: refused.reason,
            message: refused.message,
        }),
        _ => AttachError::Refused(Refusal::RoomRefused {
            reason: refused.reason,
            message: refused.message,
        }),
    }
}

/// Role of a token's facts.
fn role_of(facts: &TokenFacts) -> Option<RoleName> {
    RoleName::from_proto(facts.role())
}
