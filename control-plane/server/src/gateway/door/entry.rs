// SPDX-License-Identifier: EUPL-1.2
//! One entry: from the form to a token, as server-sent events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use control_core::grant::GrantRefusal;
use control_core::ids::Uid;
use control_core::opening::{Opening, opening};
use control_core::record::{Conference, LobbyRule, Role};
use control_core::time::UnixMillis;
use plenum_proto::v1::knock_update::Item as Update;
use plenum_proto::v1::{Grants, KnockRequest, RoomKey};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::super::Gateway;
use super::super::admission::{Surroundings, may_be_open, token_role};
use super::super::listen::Via;
use super::super::read_body;
use super::super::refusal::Refusal;
use super::credential::{Entrant, EntryBody, identify, waste};
use super::{DOOR_BODY_BYTES_MAX, Found, find, parse, rfc_3339};
use crate::auth::{self, Claims, OwnClaims, VideoGrant};
use crate::metrics::Reason;
use crate::plane::{LiveRoom, PlaceRequest, RoomNews};

/// A comment keeps the stream alive through proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// People waiting at all doors of this process: as many as may have sessions.
const WAITING_MAX: usize = 30_000;
/// People waiting at one door: the largest conference, and as many again who come in vain.
const WAITING_PER_DOOR_MAX: usize = 20_000;
/// Longest wait; the page asks again.
const WAIT_MAX: Duration = Duration::from_secs(6 * 3600);
/// Changes within this time are looked at together: thousands may wait.
const GATHER: Duration = Duration::from_millis(100);
/// A lobby that could not be reached is tried again.
const KNOCK_AGAIN: Duration = Duration::from_millis(500);
/// The token is used at once; refreshed ones follow.
const TOKEN_VALID_S: i64 = 3600;

/// Counts who waits where.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<HashMap<Uid, usize>>>);

/// One person waiting.
struct Seat {
    waiting: Waiting,
    uid: Uid,
}

impl Waiting {
    fn sit(&self, uid: &Uid) -> Result<Seat, Refusal> {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = doors.get(uid).copied().unwrap_or_default();
        if here >= WAITING_PER_DOOR_MAX || doors.values().sum::<usize>() >= WAITING_MAX {
            return Err(Refusal::Busy);
        }
        doors.insert(uid.clone(), here + 1);
        Ok(Seat {
            waiting: self.clone(),
            uid: uid.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut doors = self
            .waiting
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = doors.get_mut(&self.uid) {
            *here -= 1;
            if *here == 0 {
                doors.remove(&self.uid);
            }
        }
    }
}

/// Lets somebody in, sooner or later.
pub(crate) async fn enter(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    Path(room_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let base = base_url(&gateway, via, &headers);
    match begin(&gateway, via, &room_id, body).await {
        Ok((entrant, found, seat)) => stream(gateway, entrant, found, seat, base),
        Err(refusal) => {
            gateway
                .0
                .metrics
                .entries
                .get_or_create(&Reason {
                    reason: refusal.label(),
                })
                .inc();
            match refusal.status().as_u16() {
                // Definite answers of the door are events; what may pass or is no entry at all is a status.
                403 | 422 => Sse::new(futures::stream::iter([Ok::<_, Infallible>(refused(
                    &refusal,
                ))]))
                .into_response(),
                _ => refusal.into_json(),
            }
        }
    }
}

async fn begin(
    gateway: &Gateway,
    via: Via,
    room_id: &str,
    body: Body,
) -> Result<(Entrant, Found, Seat), Refusal> {
    let body: EntryBody = parse(&read_body(body, DOOR_BODY_BYTES_MAX).await?)?;
    let found = match find(gateway, room_id) {
        Err(Refusal::UnknownConference) => {
            waste(gateway, via, &body).await?;
            return Err(Refusal::UnknownConference);
        }
        other => other?,
    };
    body.check_notices(&found.conference)?;
    let entrant = identify(gateway, via, &found.conference, &body).await?;
    let seat = gateway.0.waiting.sit(&found.conference.uid)?;
    Ok((entrant, found, seat))
}

fn stream(gateway: Gateway, entrant: Entrant, found: Found, seat: Seat, base: String) -> Response {
    let (events, queue) = mpsc::channel(16);
    tokio::spawn(async move {
        gateway.0.metrics.waiting.inc();
        let stop = gateway.0.stop.clone();
        let mut wait = Wait {
            gateway: gateway.clone(),
            entrant,
            room_id: found.conference.room_id.to_string(),
            events,
            base,
            last: None,
        };
        let left = wait.left();
        let outcome = tokio::select! {
            outcome = wait.decide() => outcome,
            () = left => Err(Left),
            () = sleep(WAIT_MAX) => Ok("TooLong"),
            () = stop.cancelled() => Ok("Stopping"),
        };
        drop(seat);
        gateway.0.metrics.waiting.dec();
        gateway
            .0
            .metrics
            .entries
            .get_or_create(&Reason {
                reason: outcome.unwrap_or("Left"),
            })
            .inc();
    });
    let events = futures::StreamExt::map(ReceiverStream::new(queue), Ok::<_, Infallible>);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // Buffering proxies would hold events back.
    response.headers_mut().insert(
        "x-accel-buffering",
        axum::http::HeaderValue::from_static("no"),
    );
    response
}

/// The page hung up.
#[derive(Debug)]
struct Left;

struct Wait {
    gateway: Gateway,
    entrant: Entrant,
    room_id: String,
    events: mpsc::Sender<Event>,
    base: String,
    last: Option<(&'static str, Value)>,
}

/// What to do after a look at the state of things.
enum Step {
    /// Wait for a change, or until this time.
    Wait(Option<UnixMillis>),
    /// Knock at this room.
    Knock(Box<LiveRoom>),
    /// Find the room a place, then admit.
    Place,
    Admit,
    Refuse(Refusal),
}

async fn changed(news: Option<&mut RoomNews>) -> bool {
    match news {
        Some(news) => news.changed().await,
        None => false,
    }
}

impl Wait {
    fn left(&self) -> impl Future<Output = ()> + use<> {
        let events = self.events.clone();
        async move { events.closed().await }
    }

    /// Until the door has decided; the label of how.
    async fn decide(&mut self) -> Result<&'static str, Left> {
        // Of this room and the directory: thousands may wait, and most of what changes is none of their business.
        let mut news: Option<RoomNews> = None;
        loop {
            if let Ok(found) = find(&self.gateway, &self.room_id) {
                let key = found.conference.key();
                news = news
                    .filter(|news| *news.key() == key)
                    .or_else(|| Some(self.gateway.0.plane.room_news(&key)));
            }
            if let Some(news) = &mut news {
                news.seen();
            }
            let (step, conference) = match find(&self.gateway, &self.room_id) {
                Ok(found) => (self.look(&found).await?, Some(found.conference)),
                Err(refusal) => (Step::Refuse(refusal), None),
            };
            match step {
                Step::Refuse(refusal) => return self.refuse(&refusal).await,
                Step::Admit => match conference {
                    Some(conference) => return self.admit(&conference).await,
                    None => return self.refuse(&Refusal::UnknownConference).await,
                },
                Step::Place => {
                    let Some(conference) = conference else {
                        continue;
                    };
                    // An opener who was let in before there is a place would only fail at the next step, with worse words.
                    match self.place(&conference).await {
                        Ok(()) => return self.admit(&conference).await,
                        Err(refusal) => match refusal.retry_after() {
                            Some(again) => {
                                let mut why = json!({"reason": "NoCapacity"});
                                if let Some(reached) = refusal.limit() {
                                    why["limit"] = json!(reached.limit);
                                }
                                self.say("waiting", why).await?;
                                sleep(again).await;
                            }
                            None => return self.refuse(&refusal).await,
                        },
                    }
                }
                Step::Knock(room) => {
                    if let Some(outcome) = self.knock(&room).await? {
                        return outcome;
                    }
                    sleep(KNOCK_AGAIN).await;
                }
                Step::Wait(until) => {
                    let until = until.map(|at| {
                        let ahead =
                            at.0.saturating_sub(self.gateway.0.plane.now_unix_ms())
                                .clamp(0, 3_600_000);
                        Instant::now() + Duration::from_millis(ahead.unsigned_abs())
                    });
                    tokio::select! {
                        // The plane outlives its gateway; if it did not, the timers would still look again.
                        more = changed(news.as_mut()) => sleep(if more { GATHER } else { KEEP_ALIVE }).await,
                        () = async { match until { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
                    }
                }
            }
        }
    }

    async fn look(&mut self, Found { tenant, conference }: &Found) -> Result<Step, Left> {
        let standing = self.entrant.standing;
        if standing.guest && !conference.policy.guests_allowed {
            return Ok(Step::Refuse(GrantRefusal::GuestsForbidden.into()));
        }
        let key = conference.key();
        let now = UnixMillis(self.gateway.0.plane.now_unix_ms());
        let view = self.gateway.0.plane.view();
        let room = self.gateway.0.plane.room(&key);
        let around = Surroundings {
            view: &view,
            loaded: true,
            settled: true,
            room: room.as_ref(),
            now,
        };
        match may_be_open(&around, tenant, conference) {
            Ok(()) => {}
            Err(Refusal::NotYetTime) => {
                let opens_at = match opening(tenant, conference, now) {
                    Opening::NotYet { opens_at } => Some(opens_at),
                    _ => None,
                };
                self.say(
                    "waiting",
                    json!({"reason": "NotYetTime", "opensAt": opens_at.map(rfc_3339)}),
                )
                .await?;
                return Ok(Step::Wait(opens_at));
            }
            Err(refusal) => return Ok(Step::Refuse(refusal)),
        }
        if standing.opener {
            let running = room.is_some_and(|room| room.running);
            return Ok(if running { Step::Admit } else { Step::Place });
        }
        let Some(room) = room.filter(|room| room.facts.opened) else {
            self.say("waiting", json!({"reason": "NotOpened"})).await?;
            return Ok(Step::Wait(None));
        };
        let moderator = standing.role == Role::Moderator;
        // Into a locked room one comes as into one with a lobby: by a moderator's leave.
        let waits = room.facts.locked || self.waits_in_lobby(conference);
        if moderator || !waits || room.facts.admitted.contains(&self.entrant.identity) {
            return Ok(Step::Admit);
        }
        if !room.running {
            self.say("waiting", json!({"reason": "NoCapacity"})).await?;
            return Ok(Step::Wait(None));
        }
        Ok(Step::Knock(Box::new(room)))
    }

    /// Places the room; it stays closed until an opener joins.
    async fn place(&self, conference: &Conference) -> Result<(), Refusal> {
        let key = conference.key();
        let request = PlaceRequest {
            tenant: key.tenant.clone(),
            room: key.name.clone(),
            policy: conference.policy.clone(),
            pool: conference.pool.clone(),
            floor: self
                .gateway
                .0
                .plane
                .room(&key)
                .map(|room| room.epoch)
                .unwrap_or_default(),
            participants: 0,
            publishers: 0,
        };
        self.gateway
            .0
            .plane
            .place(request)
            .await
            .map(drop)
            .map_err(Refusal::from)
    }

    fn waits_in_lobby(&self, conference: &Conference) -> bool {
        match conference.policy.lobby {
            LobbyRule::Off => false,
            LobbyRule::Guests => self.entrant.standing.guest,
            LobbyRule::Everyone => true,
        }
    }

    /// Waits in the lobby. `None`: the room could not be reached or is gone; look again.
    async fn knock(&mut self, room: &LiveRoom) -> Result<Option<Result<&'static str, Left>>, Left> {
        let Some(placed) = self.gateway.0.plane.host_of(&room.key).await else {
            return Ok(None);
        };
        let request = KnockRequest {
            key: Some(RoomKey {
                tenant: room.key.tenant.to_string(),
                name: room.key.name.to_string(),
            }),
            epoch: placed.epoch.0,
            entry_id: self.entrant.identity.clone(),
            name: self.entrant.name.clone(),
            guest: self.entrant.standing.guest,
            role: token_role(self.entrant.standing.role).to_proto().into(),
        };
        let Ok(mut updates) = placed.host.knock(request).await else {
            return Ok(None);
        };
        self.say("lobby", json!({})).await?;
        loop {
            let Ok(Some(update)) = updates.message().await else {
                return Ok(None);
            };
            match update.item {
                Some(Update::Position(position)) => {
                    self.say("lobby", json!({"position": position})).await?
                }
                Some(Update::Admitted(_)) => {
                    // Rules may have changed while waiting.
                    return match find(&self.gateway, &self.room_id) {
                        Ok(found) => Ok(Some(self.admit(&found.conference).await)),
                        Err(refusal) => Ok(Some(self.refuse(&refusal).await)),
                    };
                }
                // The room ends: perhaps it is opened again.
                Some(Update::Refused(reason)) if reason == "Closing" => return Ok(None),
                Some(Update::Refused(reason)) => {
                    let refusal = Refusal::RoomRefused {
                        message: format!("the lobby refused: {reason}"),
                        reason,
                    };
                    return Ok(Some(self.refuse(&refusal).await));
                }
                None => {}
            }
        }
    }

    async fn admit(&mut self, conference: &Conference) -> Result<&'static str, Left> {
        let Entrant {
            identity,
            name,
            standing,
            stem,
        } = self.entrant.clone();
        let permission = conference.policy.permissions.get(&standing.role);
        let moderate = permission.is_some_and(|permission| permission.moderate);
        let enters_muted = permission.is_some_and(|permission| permission.enter_muted);
        // The room narrows these by role, anew whenever the role changes.
        let grants = Grants {
            room_join: true,
            room_admin: moderate && !standing.guest,
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            can_update_own_metadata: true,
            ..Grants::default()
        };
        let role = token_role(standing.role);
        let claims = Claims {
            sub: identity.clone(),
            name,
            video: Some(VideoGrant::from_grants(
                &grants,
                conference.room_name.as_str(),
            )),
            plenum: Some(OwnClaims {
                role: Some(role),
                guest: standing.guest,
                opener: standing.opener,
            }),
            ..Claims::default()
        };
        let now = self.gateway.now_unix_s();
        let token = auth::sign(
            &self.gateway.0.installation,
            conference.tenant.as_str(),
            &stem,
            claims,
            now,
            TOKEN_VALID_S,
        );
        let admitted = json!({
            "token": token,
            "url": self.base,
            "identity": identity,
            "role": role.as_str(),
            // The room mutes such people with their first packet; a page that knows does not begin to send.
            "entersMuted": enters_muted,
        });
        self.say("admitted", admitted).await?;
        Ok("Admitted")
    }

    async fn refuse(&mut self, refusal: &Refusal) -> Result<&'static str, Left> {
        self.events.send(refused(refusal)).await.map_err(|_| Left)?;
        Ok(refusal.label())
    }

    /// Sends an event unless it says what the last one said.
    async fn say(&mut self, name: &'static str, data: Value) -> Result<(), Left> {
        let next = Some((name, data));
        if self.last == next {
            return Ok(());
        }
        if let Some((name, data)) = &next {
            self.events
                .send(event(name, data))
                .await
                .map_err(|_| Left)?;
        }
        self.last = next;
        Ok(())
    }
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

fn refused(refusal: &Refusal) -> Event {
    let mut data = json!({"reason": refusal.reason()});
    if let Some(seconds) = refusal.retry_after_seconds() {
        data["retryAfterSeconds"] = json!(seconds);
    }
    event("refused", &data)
}

/// Where the client's library connects: as configured, or where this request came.
fn base_url(gateway: &Gateway, via: Via, headers: &HeaderMap) -> String {
    if let Some(url) = &gateway.0.public_url {
        return url.clone();
    }
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| {
            host.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
        })
        .unwrap_or("localhost");
    format!("{}://{host}", if via.tls { "https" } else { "http" })
}
