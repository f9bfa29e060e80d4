// SPDX-License-Identifier: EUPL-1.2
//! LiveKit's RoomService over Twirp v7: what concerns the directory is answered here, the rest by the room's node.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use control_core::ids::{RoomKey, TenantName};
use control_core::record::AdHoc;
use livekit_protocol as proto;
use plenum_proto::v1::admin_request::Call;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::admission::{may_be_open, narrowed, tenant};
use super::door::administer;
use super::listen::Via;
use super::refusal::{Refusal, TwirpCode};
use super::{BODY_BYTES_MAX, Gateway, read_body};
use crate::auth::Token;
use crate::plane::{LiveRoom, PlaceRequest};

/// Services that LiveKit has and this server has not.
const UNBUILT_SERVICES: [&str; 6] = [
    "livekit.AgentDispatchService",
    "livekit.Egress",
    "livekit.Ingress",
    "livekit.SIP",
    "livekit.Connector",
    "livekit.PhoneNumberService",
];
/// Methods of the RoomService that are not built.
const UNBUILT_METHODS: [&str; 3] = ["ForwardParticipant", "MoveParticipant", "PerformRpc"];
/// Names that one listing may ask for.
const NAMES_MAX: usize = 1_000;

/// How a request is written, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

/// A no in Twirp's words.
enum Failure {
    Refused(Refusal),
    /// The path names nothing.
    BadRoute(String),
    Unimplemented(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = |code: TwirpCode, message: String, meta: serde_json::Value| {
            let body = json!({"code": code.as_str(), "msg": message, "meta": meta});
            (code.status(), Json(body)).into_response()
        };
        let reason = |reason: &str| json!({"reason": reason});
        match self {
            Self::Refused(refusal) => {
                let mut meta = reason(refusal.reason());
                // Values of `meta` are strings.
                if let Some(reached) = refusal.limit() {
                    meta["limit"] = json!(reached.limit);
                    meta["used"] = json!(reached.used.to_string());
                    meta["max"] = json!(reached.max.to_string());
                }
                refusal.with_retry(body(refusal.twirp(), refusal.to_string(), meta))
            }
            Self::BadRoute(message) => body(TwirpCode::BadRoute, message, reason("BadRoute")),
            Self::Unimplemented(message) => {
                body(TwirpCode::Unimplemented, message, reason("Unimplemented"))
            }
        }
    }
}

/// Any call below `/twirp`.
pub(super) async fn call(
    State(gateway): State<Gateway>,
    Extension(via): Extension<Via>,
    Path((service, method)): Path<(String, String)>,
    http_method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match serve(
        &gateway,
        via,
        &service,
        &method,
        &http_method,
        &headers,
        body,
    )
    .await
    {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

async fn serve(
    gateway: &Gateway,
    via: Via,
    service: &str,
    method: &str,
    http_method: &Method,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    if UNBUILT_SERVICES.contains(&service) {
        return Err(Failure::Unimplemented(format!(
            "{service} is not part of this server"
        )));
    }
    if service != "livekit.RoomService" {
        return Err(Failure::BadRoute(format!(
            "no service {}",
            shortened(service)
        )));
    }
    if *http_method != Method::POST {
        return Err(Failure::BadRoute(format!(
            "unsupported method {http_method}: only POST is allowed"
        )));
    }
    let form = form(headers)?;
    if UNBUILT_METHODS.contains(&method) {
        return Err(Failure::Unimplemented(format!(
            "{method} is not part of this server"
        )));
    }
    // Strangers are turned away before their bodies are read.
    let token = gateway.authenticate(headers, None, via)?;
    let bytes = read_body(body, BODY_BYTES_MAX).await?;
    let caller = Caller {
        gateway,
        token,
        form,
        bytes,
    };
    match method {
        "CreateRoom" => caller.create_room().await,
        "ListRooms" => caller.list_rooms(),
        "DeleteRoom" => caller.delete_room().await,
        "ListParticipants" => {
            caller
                .room_call::<proto::ListParticipantsRequest, proto::ListParticipantsResponse>(
                    Whose::Room,
                    Call::ListParticipants,
                )
                .await
        }
        "GetParticipant" => {
            caller
                .room_call::<proto::RoomParticipantIdentity, proto::ParticipantInfo>(
                    Whose::Room,
                    Call::GetParticipant,
                )
                .await
        }
        "RemoveParticipant" => {
            caller
                .room_call::<proto::RoomParticipantIdentity, proto::RemoveParticipantResponse>(
                    Whose::Room,
                    Call::RemoveParticipant,
                )
                .await
        }
        "MutePublishedTrack" => {
            caller
                .room_call::<proto::MuteRoomTrackRequest, proto::MuteRoomTrackResponse>(
                    Whose::Room,
                    Call::MutePublishedTrack,
                )
                .await
        }
        "UpdateParticipant" => {
            caller
                .room_call::<proto::UpdateParticipantRequest, proto::ParticipantInfo>(
                    Whose::Room,
                    Call::UpdateParticipant,
                )
                .await
        }
        "UpdateSubscriptions" => {
            caller
                .room_call::<proto::UpdateSubscriptionsRequest, proto::UpdateSubscriptionsResponse>(
                    Whose::Backend,
                    Call::UpdateSubscriptions,
                )
                .await
        }
        "SendData" => {
            caller
                .room_call::<proto::SendDataRequest, proto::SendDataResponse>(
                    Whose::Backend,
                    Call::SendData,
                )
                .await
        }
        "UpdateRoomMetadata" => {
            caller
                .room_call::<proto::UpdateRoomMetadataRequest, proto::Room>(
                    Whose::Backend,
                    Call::UpdateRoomMetadata,
                )
                .await
        }
        other => Err(Failure::BadRoute(format!(
            "livekit.RoomService has no method {}",
            shortened(other)
        ))),
    }
}

fn shortened(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(64)
        .collect()
}

fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/protobuf" => Ok(Form::Protobuf),
        "application/json" => Ok(Form::Json),
        other => Err(Failure::BadRoute(format!(
            "unexpected Content-Type: {:?}",
            shortened(other)
        ))),
    }
}

/// Who may call a method on a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The tenant's backend only.
    Backend,
    /// Also a moderator inside the room, with the token of a participant.
    Room,
}

/// Requests that are about one room.
trait OfRoom {
    fn room(&self) -> &str;
}

macro_rules! of_room {
    ($($request:ty),*) => {
        $(impl OfRoom for $request {
            fn room(&self) -> &str {
                &self.room
            }
        })*
    };
}

of_room!(
    proto::ListParticipantsRequest,
    proto::RoomParticipantIdentity,
    proto::MuteRoomTrackRequest,
    proto::UpdateParticipantRequest,
    proto::UpdateSubscriptionsRequest,
    proto::SendDataRequest,
    proto::UpdateRoomMetadataRequest
);

struct Caller<'a> {
    gateway: &'a Gateway,
    token: Token,
    form: Form,
    bytes: Bytes,
}

impl Caller<'_> {
    fn request<T: Message + Default + DeserializeOwned>(&self) -> Result<T, Refusal> {
        match self.form {
            Form::Protobuf => T::decode(self.bytes.clone()).map_err(|error| {
                Refusal::BadRequest(format!("the protobuf body cannot be read: {error}"))
            }),
            Form::Json => serde_json::from_slice(&self.bytes).map_err(|error| {
                Refusal::BadRequest(format!("the JSON body cannot be read: {error}"))
            }),
        }
    }

    fn answer<T: Message + Serialize>(&self, message: &T) -> Result<Response, Failure> {
        match self.form {
            Form::Protobuf => Ok((
                [(CONTENT_TYPE, "application/protobuf")],
                message.encode_to_vec(),
            )
                .into_response()),
            Form::Json => {
                let json = serde_json::to_string(message).map_err(|_| Refusal::Internal)?;
                Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
            }
        }
    }

    /// A grant that only tokens of the tenant's own keys carry.
    fn backend(&self, granted: bool, grant: &'static str) -> Result<(), Refusal> {
        if self.token.own || !granted {
            Err(Refusal::NotGranted(grant))
        } else {
            Ok(())
        }
    }

    fn key(&self, room: &str) -> Result<RoomKey, Refusal> {
        RoomKey::parse(&self.token.tenant, room)
            .map_err(|error| Refusal::InvalidArgument(error.to_string()))
    }

    /// A call that the room's node carries out.
    async fn room_call<Q, A>(
        &self,
        whose: Whose,
        call: fn(Vec<u8>) -> Call,
    ) -> Result<Response, Failure>
    where
        Q: Message + Default + DeserializeOwned + OfRoom,
        A: Message + Default + Serialize,
    {
        let request: Q = self.request()?;
        let video = self.token.video();
        // A moderator's token says `roomAdmin` as of its signing; the room goes by the role of the moment.
        let inside = self.token.own && whose == Whose::Room && video.room_join;
        if !inside {
            self.backend(video.room_admin, "roomAdmin")?;
        }
        if request.room() != video.room {
            return Err(Refusal::OtherRoom.into());
        }
        let key = self.key(request.room())?;
        let actor = if self.token.own {
            self.token.identity.clone()
        } else {
            String::new()
        };
        if self.token.own && actor.is_empty() {
            return Err(Refusal::NoIdentity.into());
        }
        let answer = administer(self.gateway, &key, actor, call(request.encode_to_vec())).await?;
        let answer = A::decode(answer.as_slice()).map_err(|_| Refusal::Internal)?;
        self.answer(&answer)
    }

    async fn create_room(&self) -> Result<Response, Failure> {
        let request: proto::CreateRoomRequest = self.request()?;
        self.backend(self.token.video().room_create, "roomCreate")?;
        let key = self.key(&request.name)?;
        let place = self.gateway.with_surroundings(&key, |around| {
            let tenant = tenant(around, &key.tenant)?;
            let (policy, pool) = match around.view.conference_of_room(&key) {
                // A declared name always gets the declared rules.
                Some(conference) => {
                    may_be_open(around, tenant, conference)?;
                    (conference.policy.clone(), conference.pool.clone())
                }
                None => {
                    if tenant.suspended {
                        return Err(Refusal::TenantSuspended);
                    }
                    let policy = tenant
                        .ad_hoc_policy
                        .as_ref()
                        .filter(|_| tenant.ad_hoc != AdHoc::Forbidden);
                    let policy = policy.ok_or_else(|| {
                        Refusal::PermissionDenied(
                            "the organisation allows no rooms beside its conferences".to_owned(),
                        )
                    })?;
                    (
                        narrowed(
                            policy,
                            request.max_participants,
                            request.empty_timeout,
                            request.departure_timeout,
                        ),
                        None,
                    )
                }
            };
            Ok::<_, Refusal>(PlaceRequest {
                tenant: key.tenant.clone(),
                room: key.name.clone(),
                policy,
                pool,
                floor: around.room.map(|room| room.epoch).unwrap_or_default(),
                participants: 0,
                publishers: 0,
            })
        })?;
        self.gateway
            .0
            .plane
            .place(place)
            .await
            .map_err(Refusal::from)?;
        let room = if request.metadata.is_empty() {
            let get = proto::ListRoomsRequest {
                names: vec![request.name.clone()],
            };
            administer(
                self.gateway,
                &key,
                String::new(),
                Call::GetRoom(get.encode_to_vec()),
            )
            .await?
        } else {
            let update = proto::UpdateRoomMetadataRequest {
                room: request.name.clone(),
                metadata: request.metadata.clone(),
            };
            administer(
                self.gateway,
                &key,
                String::new(),
                Call::UpdateRoomMetadata(update.encode_to_vec()),
            )
            .await?
        };
        self.answer(&proto::Room::decode(room.as_slice()).map_err(|_| Refusal::Internal)?)
    }

    fn list_rooms(&self) -> Result<Response, Failure> {
        let request: proto::ListRoomsRequest = self.request()?;
        self.backend(self.token.video().room_list, "roomList")?;
        if request.names.len() > NAMES_MAX {
            return Err(Refusal::InvalidArgument(format!(
                "at most {NAMES_MAX} names can be asked for at once"
            ))
            .into());
        }
        let tenant = TenantName::parse(&self.token.tenant).map_err(|_| Refusal::Internal)?;
        let rooms = self.gateway.0.plane.rooms(&tenant);
        let wanted = |room: &&LiveRoom| {
            request.names.is_empty()
                || request
                    .names
                    .iter()
                    .any(|name| name == room.key.name.as_str())
        };
        self.answer(&proto::ListRoomsResponse {
            rooms: rooms.iter().filter(wanted).map(described).collect(),
        })
    }

    async fn delete_room(&self) -> Result<Response, Failure> {
        let request: proto::DeleteRoomRequest = self.request()?;
        self.backend(self.token.video().room_create, "roomCreate")?;
        let key = self.key(&request.room)?;
        let answer = administer(
            self.gateway,
            &key,
            String::new(),
            Call::DeleteRoom(request.encode_to_vec()),
        )
        .await?;
        self.answer(
            &proto::DeleteRoomResponse::decode(answer.as_slice()).map_err(|_| Refusal::Internal)?,
        )
    }
}

/// A room as the live view knows it.
fn described(room: &LiveRoom) -> proto::Room {
    let created_ms = i64::try_from(room.facts.created_unix_ms).unwrap_or_default();
    proto::Room {
        sid: room.facts.room_sid.clone(),
        name: room.key.name.to_string(),
        creation_time: created_ms / 1000,
        creation_time_ms: created_ms,
        metadata: room.facts.metadata.clone(),
        num_participants: room.participants,
        num_publishers: room.publishers,
        ..proto::Room::default()
    }
}
