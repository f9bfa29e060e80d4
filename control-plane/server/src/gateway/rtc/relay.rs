// SPDX-License-Identifier: EUPL-1.2
//! Relays frames between a WebSocket and a room's node, unchanged in both directions and with their kind.
//!
//! Two frames are the gateway's own: `refresh_token`, because the signing key lives here, and `leave` when the node is lost.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use control_core::ids::RoomKey;
use futures::StreamExt;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Signal;
use livekit_protocol::{DisconnectReason, LeaveRequest, SignalResponse};
use plenum_proto::v1::admin_request::Call;
use plenum_proto::v1::frame::Kind;
use plenum_proto::v1::session_down::Item as Down;
use plenum_proto::v1::{AdminRequest, Frame, SessionDown};
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::super::Gateway;
use super::{Attached, refresh};
use crate::auth::Token;
use crate::hosts::{Host, HostError, SessionSays};
use crate::metrics::Reason;

/// Pace of WebSocket pings.
const PING: Duration = Duration::from_secs(10);
/// A client from which nothing came for so long, pongs included, is gone.
const SILENCE: Duration = Duration::from_secs(35);
/// A client that takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(10);
/// A client of a node that does not answer is kept for so long: a dead node is known to be dead by then.
const HOLD: Duration = Duration::from_secs(12);
/// Pace at which such a node is asked.
const PROBE: Duration = Duration::from_secs(1);
/// Closing in good order may take this long.
const CLOSE: Duration = Duration::from_secs(2);

/// How a session ended; the reason of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client closed.
    ClientClosed,
    /// The client's connection broke or fell silent.
    ClientGone,
    /// The room closed.
    RoomClosed,
    /// The stream to the node broke; the client resumes.
    StreamBroke,
    /// The node is lost; the client joins anew.
    NodeLost,
    /// This process stops; the client resumes elsewhere.
    Stopping,
}

impl End {
    const fn reason(self) -> &'static str {
        match self {
            Self::ClientClosed => "ClientClosed",
            Self::ClientGone => "ClientGone",
            Self::RoomClosed => "RoomClosed",
            Self::StreamBroke => "StreamBroke",
            Self::NodeLost => "NodeLost",
            Self::Stopping => "Stopping",
        }
    }
}

/// Takes a WebSocket whose participant is not where its SID says, tells it to join anew, and closes.
pub(super) async fn send_away(mut socket: WebSocket) {
    let _ = timeout(STALL, socket.send(encode(join_anew(), false))).await;
    close(socket, close_code::NORMAL, "join anew").await;
}

/// Relays until one side ends.
pub(super) async fn run(
    gateway: Gateway,
    socket: WebSocket,
    attached: Attached,
    token: Token,
    key: RoomKey,
) {
    gateway.0.metrics.sessions.inc();
    let end = Relay {
        gateway: gateway.clone(),
        socket,
        attached,
        token,
        key,
        text: false,
    }
    .run()
    .await;
    gateway.0.metrics.sessions.dec();
    gateway
        .0
        .metrics
        .ended
        .get_or_create(&Reason {
            reason: end.reason(),
        })
        .inc();
    tracing::debug!(reason = end.reason(), "session ended");
}

struct Relay {
    gateway: Gateway,
    socket: WebSocket,
    attached: Attached,
    token: Token,
    key: RoomKey,
    /// Did the client speak text last?
    text: bool,
}

impl Relay {
    async fn run(mut self) -> End {
        let mut end = self.relay().await;
        if end == End::StreamBroke {
            end = self.after_break().await;
        }
        let clean = end == End::ClientClosed;
        let Attached { up, mut down, .. } = self.attached;
        let _ = up.try_send(SessionSays::End { clean });
        drop(up);
        if end != End::StreamBroke {
            // Dropped at once, the stream would be reset before the node has read how it ended.
            tokio::spawn(async move {
                let _ = timeout(CLOSE, async {
                    while let Ok(Some(_)) = down.message().await {}
                })
                .await;
            });
        }
        match end {
            End::ClientClosed | End::ClientGone => {}
            End::RoomClosed => close(self.socket, close_code::NORMAL, "").await,
            End::StreamBroke => close(self.socket, close_code::AWAY, "resume").await,
            End::Stopping => close(self.socket, close_code::RESTART, "resume").await,
            End::NodeLost => {
                let _ = timeout(STALL, self.socket.send(encode(join_anew(), self.text))).await;
                close(self.socket, close_code::AWAY, "join anew").await;
            }
        }
        end
    }

    async fn relay(&mut self) -> End {
        let first = std::mem::take(&mut self.attached.first);
        if let Err(end) = self.down(Down::Frame(first)).await {
            return end;
        }
        if let Some(facts) = self.attached.facts.take()
            && let Err(end) = self.down(Down::TokenFacts(facts)).await
        {
            return end;
        }
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lost = self
            .gateway
            .0
            .plane
            .node_lost(self.attached.host.node_id().as_str());
        tokio::pin!(lost);
        let stop = self.gateway.0.stop.clone();
        let mut heard = Instant::now();
        loop {
            // The WebSocket is read only when the node's queue has room: a flood stays in the client's own socket.
            let up = self.attached.up.clone();
            let step = tokio::select! {
                () = stop.cancelled() => return End::Stopping,
                () = &mut lost => return End::NodeLost,
                message = self.attached.down.message() => match message {
                    Ok(Some(SessionDown { item: Some(item) })) => self.down(item).await,
                    Ok(Some(SessionDown { item: None })) => Ok(()),
                    Ok(None) | Err(_) => return End::StreamBroke,
                },
                received = async { (up.reserve().await, self.socket.next().await) } => {
                    heard = Instant::now();
                    let (permit, message) = received;
                    match (permit, message) {
                        (Err(_), _) => return End::StreamBroke,
                        (Ok(permit), Some(Ok(message))) => match self.frame_of(message) {
                            Ok(Some(frame)) => {
                                self.gateway.0.metrics.frames_up.inc();
                                permit.send(SessionSays::Frame(frame));
                                Ok(())
                            }
                            Ok(None) => Ok(()),
                            Err(end) => return end,
                        },
                        (Ok(_), Some(Err(_)) | None) => return End::ClientGone,
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return End::ClientGone;
                    }
                    self.send(Message::Ping(axum::body::Bytes::new())).await
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// The stream to the node broke. A node that answers still holds the participant: the client resumes at once. For one that does not,
    /// clients would try in vain; they are kept until it is known to be dead, and join anew then.
    async fn after_break(&mut self) -> End {
        let lost = self
            .gateway
            .0
            .plane
            .node_lost(self.attached.host.node_id().as_str());
        let stop = self.gateway.0.stop.clone();
        tokio::pin!(lost);
        let until = Instant::now() + HOLD;
        let mut probe = interval_at(Instant::now(), PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let host = self.attached.host.clone();
            tokio::select! {
                () = stop.cancelled() => return End::Stopping,
                () = &mut lost => return End::NodeLost,
                () = sleep_until(until) => return End::StreamBroke,
                answers = async { probe.tick().await; answers(&host, &self.key).await } => if answers { return End::StreamBroke },
                // What the client says meanwhile it says again after it has resumed or joined.
                message = self.socket.next() => match message {
                    Some(Ok(Message::Close(_))) => return End::ClientClosed,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return End::ClientGone,
                },
            }
        }
    }

    /// A client's message as a frame for the room; control messages are none.
    fn frame_of(&mut self, message: Message) -> Result<Option<Frame>, End> {
        match message {
            Message::Binary(data) => {
                self.text = false;
                Ok(Some(Frame {
                    kind: Kind::Binary.into(),
                    data: data.into(),
                }))
            }
            Message::Text(text) => {
                self.text = true;
                Ok(Some(Frame {
                    kind: Kind::Text.into(),
                    data: text.as_str().as_bytes().to_vec(),
                }))
            }
            Message::Ping(_) | Message::Pong(_) => Ok(None),
            Message::Close(_) => Err(End::ClientClosed),
        }
    }

    async fn down(&mut self, item: Down) -> Result<(), End> {
        match item {
            Down::Frame(frame) => {
                self.gateway.0.metrics.frames_down.inc();
                let message = if frame.kind() == Kind::Text {
                    // A room that calls binary data text is broken; its client cannot read it either way.
                    Message::Text(Utf8Bytes::try_from(frame.data).map_err(|_| End::StreamBroke)?)
                } else {
                    Message::Binary(frame.data.into())
                };
                self.send(message).await
            }
            Down::TokenFacts(facts) => {
                let token = refresh::sign(
                    &self.gateway,
                    &self.token,
                    &self.key,
                    &facts,
                    self.attached.publish_only,
                );
                match token {
                    Some(token) => {
                        self.send(encode(Signal::RefreshToken(token), self.text))
                            .await
                    }
                    None => Ok(()),
                }
            }
            Down::Close(told) => {
                let frame = CloseFrame {
                    code: close_code_of(told.code),
                    reason: told.reason.chars().take(100).collect::<String>().into(),
                };
                let _ = timeout(CLOSE, self.socket.send(Message::Close(Some(frame)))).await;
                Err(End::RoomClosed)
            }
            Down::Refused(_) => Err(End::StreamBroke),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(STALL, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::ClientGone),
        }
    }
}

/// Does a node answer at all? What it says does not matter.
async fn answers(host: &Host, key: &RoomKey) -> bool {
    let key = plenum_proto::v1::RoomKey {
        tenant: key.tenant.to_string(),
        name: key.name.to_string(),
    };
    let request = AdminRequest {
        key: Some(key),
        call: Some(Call::GetRoom(Vec::new())),
        ..AdminRequest::default()
    };
    !matches!(
        host.admin(request).await,
        Err(HostError::Unreachable { .. } | HostError::Late { .. })
    )
}

/// Codes that an endpoint may send (RFC 6455 §7.4).
fn close_code_of(code: u32) -> u16 {
    u16::try_from(code)
        .ok()
        .filter(|code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999))
        .unwrap_or(close_code::NORMAL)
}

/// What every SDK answers by joining as if for the first time.
fn join_anew() -> Signal {
    Signal::Leave(LeaveRequest {
        can_reconnect: true,
        reason: DisconnectReason::StateMismatch.into(),
        action: Action::Reconnect.into(),
        regions: None,
    })
}

/// A message of our own, in the form that the client used last.
fn encode(signal: Signal, text: bool) -> Message {
    let response = SignalResponse {
        message: Some(signal),
    };
    if text {
        let json =
            serde_json::to_string(&response).expect("invariant: our own messages have a JSON form");
        Message::Text(json.into())
    } else {
        Message::Binary(response.encode_to_vec().into())
    }
}

/// Sends a close frame and waits a moment for the client's.
async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame {
        code,
        reason: Utf8Bytes::from_static(reason),
    };
    let _ = timeout(CLOSE, async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    })
    .await;
}
