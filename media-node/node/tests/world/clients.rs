// SPDX-License-Identifier: EUPL-1.2
//! The control plane's calls to a node, and people whose frames travel over them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use livekit_protocol as livekit;
use media_core::io::Protocol;
use plenum_load::driver::Driver;
use plenum_load::headless::{Event, Source};
use plenum_proto::v1::room_host_client::RoomHostClient;
use plenum_proto::v1::session_down::Item as Down;
use plenum_proto::v1::session_up::Item as Up;
use plenum_proto::v1::{
    ClientParameters, Frame, Grants, LobbyRule, OpenRequest, OpenResponse, RoomFacts, RoomKey,
    RoomPolicy, SessionStart, SessionUp, frame,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{LIVENESS, Pki, Role, UID};

/// One replica's connection to a node.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) client: RoomHostClient<Channel>,
}

pub(crate) fn key(room: &str) -> RoomKey {
    RoomKey {
        tenant: "tenant".into(),
        name: room.into(),
    }
}

/// Rules of an ad-hoc room.
pub(crate) fn policy() -> RoomPolicy {
    RoomPolicy {
        declared: false,
        lobby: LobbyRule::LobbyOff as i32,
        guests_allowed: true,
        empty_timeout_ms: 60_000,
        departure_timeout_ms: 20_000,
        screen_share: true,
        revision: "p1".into(),
        ..Default::default()
    }
}

pub(crate) fn session_start(room: &str, epoch: u64, identity: &str) -> SessionStart {
    SessionStart {
        key: Some(key(room)),
        epoch,
        identity: identity.into(),
        name: identity.to_uppercase(),
        grants: Some(Grants {
            room_join: true,
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            ..Default::default()
        }),
        client: Some(ClientParameters {
            client_info: livekit::ClientInfo {
                protocol: 16,
                ..Default::default()
            }
            .encode_to_vec(),
            protocol: 16,
            auto_subscribe: true,
            ..Default::default()
        }),
        kind: "standard".into(),
        ..Default::default()
    }
}

impl Call {
    pub(crate) async fn connect(pki: &Pki, node: SocketAddr, role: Role) -> Self {
        Self::try_connect(pki, node, Some(role))
            .await
            .expect("the node answers")
    }

    pub(crate) async fn try_connect(
        pki: &Pki,
        node: SocketAddr,
        role: Option<Role>,
    ) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("https://{node}"))?
            .tls_config(pki.client(role, &format!("{UID}.node.plenum.internal")))?
            .connect()
            .await?;
        Ok(Self {
            client: RoomHostClient::new(channel),
        })
    }

    pub(crate) async fn open(
        &self,
        room: &str,
        epoch: u64,
        facts: Option<RoomFacts>,
    ) -> Result<OpenResponse, Status> {
        let request = OpenRequest {
            key: Some(key(room)),
            epoch,
            policy: Some(policy()),
            facts,
        };
        Ok(self.client.clone().open(request).await?.into_inner())
    }

    /// A person whose gateway is this test.
    pub(crate) async fn join(
        &self,
        start: SessionStart,
        ip: IpAddr,
        protocol: Protocol,
    ) -> Session {
        let (requests, responses, ending, wire) = self.attach(start).await;
        let driver = Driver::new(ip, protocol, requests, responses)
            .await
            .expect("sockets");
        Session {
            driver,
            ending,
            wire,
            tracks: Vec::new(),
            next_frame: Instant::now(),
            stamp: 0,
            left: None,
            resumed: false,
        }
    }

    /// A new WebSocket for a person whose old one was cut.
    pub(crate) async fn resume(&self, person: &mut Session, start: SessionStart) {
        let (requests, responses, ending, wire) = self.attach(start).await;
        person.driver.attach(requests, responses);
        (person.ending, person.wire) = (ending, wire);
    }

    async fn attach(&self, start: SessionStart) -> Attached {
        let (up, queue) = mpsc::channel(64);
        up.send(SessionUp {
            item: Some(Up::Start(start)),
        })
        .await
        .expect("queue");
        let mut down = self
            .client
            .clone()
            .session(ReceiverStream::new(queue))
            .await
            .expect("a session")
            .into_inner();
        let (requests, mut request_queue) = mpsc::channel::<livekit::SignalRequest>(64);
        let (responses, response_queue) = mpsc::channel(64);
        let (endings, ending) = mpsc::channel(1);
        let mut wire = JoinSet::new();
        wire.spawn(async move {
            while let Some(request) = request_queue.recv().await {
                let frame = Frame {
                    kind: frame::Kind::Binary as i32,
                    data: request.encode_to_vec(),
                };
                if up
                    .send(SessionUp {
                        item: Some(Up::Frame(frame)),
                    })
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        wire.spawn(async move {
            while let Ok(Some(item)) = down.message().await {
                match item.item {
                    Some(Down::Frame(frame)) => {
                        let response = livekit::SignalResponse::decode(frame.data.as_slice())
                            .expect("a LiveKit message");
                        if responses.send(response).await.is_err() {
                            return;
                        }
                    }
                    Some(other @ (Down::Refused(_) | Down::Close(_))) => {
                        let _ = endings.send(other).await;
                    }
                    Some(Down::TokenFacts(_)) | None => {}
                }
            }
        });
        (requests, response_queue, ending, wire)
    }
}

/// Ends of one signalling connection and the tasks that are its wire.
type Attached = (
    mpsc::Sender<livekit::SignalRequest>,
    mpsc::Receiver<livekit::SignalResponse>,
    mpsc::Receiver<Down>,
    JoinSet<()>,
);

/// A person in a room.
pub(crate) struct Session {
    pub(crate) driver: Driver,
    ending: mpsc::Receiver<Down>,
    wire: JoinSet<()>,
    tracks: Vec<(String, Source)>,
    next_frame: Instant,
    stamp: u32,
    /// The last leave of the node.
    pub(crate) left: Option<livekit::LeaveRequest>,
    /// Was a resume accepted?
    pub(crate) resumed: bool,
}

impl Session {
    pub(crate) fn publish(&mut self, source: Source) {
        let cid = self.driver.client().publish(source);
        self.tracks.push((cid, source));
    }

    /// Packets received of tracks of others, the poorest track counts; 0 with fewer than `tracks` tracks.
    pub(crate) fn received(&mut self, tracks: usize) -> u64 {
        let received = self.driver.client().received();
        if received.len() < tracks {
            0
        } else {
            received
                .values()
                .map(|track| track.packets)
                .min()
                .unwrap_or(0)
        }
    }

    /// Cuts the WebSocket without a word.
    pub(crate) fn cut(&mut self) {
        self.wire = JoinSet::new();
    }

    /// How the node ended the session, once it did.
    pub(crate) fn ending(&mut self) -> Option<Down> {
        self.ending.try_recv().ok()
    }

    async fn step(&mut self) {
        // A media socket that broke shows in what does not arrive.
        let _ = tokio::time::timeout(Duration::from_millis(5), self.driver.step()).await;
        if Instant::now() >= self.next_frame {
            self.next_frame = Instant::now() + Duration::from_millis(20);
            self.stamp = self.stamp.wrapping_add(20);
            for (cid, source) in &self.tracks {
                let (rate, payload) = if source.is_video() {
                    (90, vec![7; 4_000])
                } else {
                    (48, vec![7; 80])
                };
                self.driver
                    .client()
                    .send_frame(cid, 0, self.stamp.wrapping_mul(rate), &payload);
            }
            let _ = self.driver.flush().await;
        }
        while let Some(event) = self.driver.client().poll_event() {
            match event {
                Event::Left(leave) => self.left = Some(leave),
                Event::Reconnected(_) => self.resumed = true,
                _ => {}
            }
        }
    }
}

/// Lets all people act until `condition` holds of them.
pub(crate) async fn act_until(
    what: &str,
    people: &mut [Session],
    mut condition: impl FnMut(&mut [Session]) -> bool,
) {
    let until = Instant::now() + LIVENESS;
    while !condition(people) {
        assert!(Instant::now() < until, "{what}: did not happen");
        futures::future::join_all(people.iter_mut().map(Session::step)).await;
    }
}
