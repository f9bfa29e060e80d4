// SPDX-License-Identifier: EUPL-1.2
//! The RoomHost service: what control-plane replicas ask of this node. Only they get through ([`require_control_plane`]).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use media_room::api::{JoinRefusal, KnockUpdate, SessionId};
use plenum_proto::v1::room_host_server::RoomHost;
use plenum_proto::v1::session_down::Item as DownItem;
use plenum_proto::v1::session_up::Item as UpItem;
use plenum_proto::v1::{
    AdminRequest, AdminResponse, ExportRequest, ExportResponse, KnockRequest, OpenRequest,
    OpenResponse, SessionClose, SessionDown, SessionRefused, SessionUp, knock_update,
};
use plenum_shell::trace;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::Instrument;

use crate::convert::{self, Administration};
use crate::identity::require_control_plane;
use crate::rooms::{Down, Ended, Key, OpenRefusal, RoomHandle, Rooms};

/// A session's first message comes at once, or not at all.
const START: Duration = Duration::from_secs(5);
/// WebSocket code of a session whose room ended without a word (RFC 6455 §7.4.1: unexpected condition).
const CLOSE_INTERNAL: u16 = 1011;
/// Key of the CamelCase reason in a refusal's metadata.
const REASON: &str = "plenum-reason";

/// A call names a room that is not here, or here under another lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Absent {
    /// No such room.
    #[error("the room is not on this node")]
    Unknown,
    /// Another lease.
    #[error("the room lives here under another epoch")]
    WrongEpoch,
}

impl Absent {
    const fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::WrongEpoch => "WrongEpoch",
        }
    }
}

impl From<Ended> for Absent {
    fn from(_: Ended) -> Self {
        Self::Unknown
    }
}

impl From<Absent> for Status {
    fn from(absent: Absent) -> Self {
        status(Code::NotFound, absent.reason(), &absent)
    }
}

impl OpenRefusal {
    /// CamelCase reason.
    const fn reason(self) -> &'static str {
        match self {
            Self::NoFacts => "NoFacts",
            Self::NoAddress => "NoAddress",
            Self::NotAccepting => "NotAccepting",
            Self::Full => "NodeFull",
            Self::Stale(_) => "StaleEpoch",
            Self::Invalid => "Invalid",
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::NoFacts | Self::NoAddress | Self::NotAccepting => Code::Unavailable,
            Self::Full => Code::ResourceExhausted,
            Self::Stale(_) => Code::FailedPrecondition,
            Self::Invalid => Code::InvalidArgument,
        }
    }
}

fn status(code: Code, reason: &'static str, error: &dyn std::error::Error) -> Status {
    let mut status = Status::new(code, error.to_string());
    status
        .metadata_mut()
        .insert(REASON, MetadataValue::from_static(reason));
    status
}

/// The service.
pub struct Host {
    rooms: Rooms,
}

type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Host {
    /// Over these rooms.
    #[must_use]
    pub fn new(rooms: Rooms) -> Arc<Self> {
        Arc::new(Self { rooms })
    }

    /// The room, if it is here under the lease the caller knows.
    fn room(&self, key: &Key, epoch: u64) -> Result<RoomHandle, Absent> {
        let room = self.rooms.find(key).ok_or(Absent::Unknown)?;
        if room.epoch() == epoch {
            Ok(room)
        } else {
            Err(Absent::WrongEpoch)
        }
    }

    /// Begins a session with its first message.
    async fn begin(
        &self,
        mut up: Streaming<SessionUp>,
    ) -> Result<Response<Items<SessionDown>>, Status> {
        let first = timeout(START, up.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no start came"))??;
        let Some(SessionUp {
            item: Some(UpItem::Start(start)),
        }) = first
        else {
            return Err(Status::invalid_argument(
                "the first message has to be the start",
            ));
        };
        let (key, epoch, start) = convert::session_start(start)?;
        let only = |item: SessionDown| -> Response<Items<SessionDown>> {
            Response::new(stream::iter([Ok(item)]).boxed())
        };
        // A replica that has just started knows a participant's node by its SID before the node has named its rooms to it.
        let found = if start.reconnect && epoch == 0 {
            self.rooms.find(&key).ok_or(Absent::Unknown)
        } else {
            self.room(&key, epoch)
        };
        let room = match found {
            Ok(room) => room,
            Err(Absent::WrongEpoch) => return Ok(only(join_refused(JoinRefusal::WrongEpoch))),
            Err(absent) => return Ok(only(refused(absent.reason(), absent.to_string(), true))),
        };
        let Ok((session, queue)) = room.session(start).await else {
            return Ok(only(join_refused(JoinRefusal::Closing)));
        };
        tokio::spawn(upstream(room, session, up));
        Ok(Response::new(downstream(queue)))
    }
}

fn refused(reason: &'static str, message: String, retry: bool) -> SessionDown {
    SessionDown {
        item: Some(DownItem::Refused(SessionRefused {
            reason: reason.to_owned(),
            message,
            retry,
        })),
    }
}

fn close(code: u16, reason: &str) -> SessionDown {
    SessionDown {
        item: Some(DownItem::Close(SessionClose {
            code: u32::from(code),
            reason: reason.to_owned(),
        })),
    }
}

/// Wire form, and whether it is the last.
fn down(item: Down) -> (SessionDown, bool) {
    match item {
        Down::Frame(frame) => (
            SessionDown {
                item: Some(DownItem::Frame(convert::frame_out(frame))),
            },
            false,
        ),
        Down::TokenFacts(facts) => (
            SessionDown {
                item: Some(DownItem::TokenFacts(convert::token_facts_out(*facts))),
            },
            false,
        ),
        Down::Refused(refusal) => (join_refused(refusal), true),
        Down::Close(code, reason) => (close(code, reason), true),
    }
}

fn join_refused(refusal: JoinRefusal) -> SessionDown {
    refused(refusal.reason(), refusal.to_string(), refusal.retry())
}

/// What goes down, ended by a close also when the room ended without a word.
fn downstream(queue: mpsc::Receiver<Down>) -> Items<SessionDown> {
    Box::pin(stream::unfold(Some(queue), async |queue| {
        let mut queue = queue?;
        match queue.recv().await {
            Some(item) => {
                let (item, last) = down(item);
                Some((Ok(item), (!last).then_some(queue)))
            }
            None => Some((Ok(close(CLOSE_INTERNAL, "RoomEnded")), None)),
        }
    }))
}

/// Carries a client's frames to its room until either ends.
async fn upstream(room: RoomHandle, session: SessionId, mut up: Streaming<SessionUp>) {
    let clean = loop {
        let message = tokio::select! {
            message = up.message() => message,
            () = room.ended() => return,
        };
        let item = match message {
            Ok(Some(SessionUp { item: Some(item) })) => item,
            // A kind of message that this version does not know.
            Ok(Some(SessionUp { item: None })) => continue,
            Ok(None) | Err(_) => break false,
        };
        match item {
            UpItem::Frame(frame) => match convert::frame(frame) {
                Ok(frame) => {
                    if room.frame(session, frame).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::debug!(%error, "a relayed frame is dropped"),
            },
            UpItem::End(end) => break end.clean,
            UpItem::Start(_) => {
                tracing::debug!("a second start within one session is dropped");
            }
        }
    };
    room.session_end(session, clean).await;
}

#[tonic::async_trait]
impl RoomHost for Host {
    type SessionStream = Items<SessionDown>;
    type KnockStream = ReceiverStream<Result<plenum_proto::v1::KnockUpdate, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        require_control_plane(&request)?;
        let span = tracing::debug_span!("session.begin");
        trace::receive(&span, request.metadata());
        self.begin(request.into_inner()).instrument(span).await
    }

    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenResponse>, Status> {
        require_control_plane(&request)?;
        let span = tracing::debug_span!("room.open");
        trace::receive(&span, request.metadata());
        let request = request.into_inner();
        let key = convert::key(request.key)?;
        let rules = request.policy.clone();
        let (policy, facts) = (
            convert::policy(request.policy)?,
            convert::facts(request.facts)?,
        );
        let epoch = request.epoch;
        let facts = self
            .rooms
            .open(key, epoch, policy, rules, facts)
            .instrument(span)
            .await
            .map_err(|refusal| status(refusal.code(), refusal.reason(), &refusal))?;
        Ok(Response::new(OpenResponse {
            epoch,
            facts: Some(convert::facts_out(facts)),
        }))
    }

    async fn knock(
        &self,
        request: Request<KnockRequest>,
    ) -> Result<Response<Self::KnockStream>, Status> {
        require_control_plane(&request)?;
        let (key, epoch, entry) = convert::knock(request.into_inner())?;
        let room = self.room(&key, epoch)?;
        let (knock, mut news) = room.knock(entry).await.map_err(Absent::from)?;
        let (updates, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let update = tokio::select! {
                    update = news.recv() => update,
                    // The page is gone: nobody waits any more.
                    () = updates.closed() => break,
                };
                let (item, last) = match update {
                    Some(KnockUpdate::Position(position)) => {
                        (knock_update::Item::Position(position), false)
                    }
                    Some(KnockUpdate::Admitted) => (knock_update::Item::Admitted(true), true),
                    Some(KnockUpdate::Refused(refusal)) => (
                        knock_update::Item::Refused(refusal.reason().to_owned()),
                        true,
                    ),
                    None => {
                        let _ = updates.send(Err(Absent::Unknown.into())).await;
                        return;
                    }
                };
                if updates
                    .send(Ok(plenum_proto::v1::KnockUpdate { item: Some(item) }))
                    .await
                    .is_err()
                {
                    break;
                }
                if last {
                    return;
                }
            }
            room.knock_end(knock).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn admin(
        &self,
        request: Request<AdminRequest>,
    ) -> Result<Response<AdminResponse>, Status> {
        require_control_plane(&request)?;
        let request = request.into_inner();
        let key = convert::key(request.key)?;
        let administration = convert::admin(request.call)?;
        let room = self.room(&key, request.epoch)?;
        let actor = Some(request.actor_identity).filter(|actor| !actor.is_empty());
        let answer = match administration {
            Administration::Call(call) => room.admin(actor, call).await.map_err(Absent::from)?,
            Administration::Policy(policy) => {
                room.policy(*policy).await.map_err(Absent::from)?;
                Ok(Vec::new())
            }
        };
        Ok(Response::new(match answer {
            Ok(response) => AdminResponse {
                response,
                ..AdminResponse::default()
            },
            Err(refusal) => AdminResponse {
                refused: refusal.reason().to_owned(),
                message: refusal.to_string(),
                ..AdminResponse::default()
            },
        }))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        // The control plane is no node: participants' keys go between nodes only, and a drain moves people by RECONNECT.
        require_control_plane(&request)?;
        Ok(Response::new(ExportResponse {
            version: 1,
            state: Vec::new(),
            refused: true,
        }))
    }
}
