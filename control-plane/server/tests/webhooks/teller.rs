// SPDX-License-Identifier: EUPL-1.2
//! A media node of which only the events matter: it keeps them until they are acknowledged and says them again to a new primary replica,
//! as a real one does.

use std::sync::{Arc, Mutex};

use plenum_proto::v1::node_control_client::NodeControlClient;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::{NodeHello, NodeLoad, NodeReport, RoomEvent, RoomKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::world::{LIVENESS, Replica, pki};

#[derive(Default)]
struct State {
    outbox: Vec<RoomEvent>,
    asked_again: u32,
}

/// The node.
pub(crate) struct Teller {
    id: String,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    stream: JoinSet<()>,
}

impl Teller {
    pub(crate) async fn attach(replica: &Replica, id: &str) -> Self {
        let mut teller = Self {
            id: id.into(),
            state: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            stream: JoinSet::new(),
        };
        teller.move_to(replica).await;
        teller
    }

    /// Another replica is the primary one now.
    pub(crate) async fn move_to(&mut self, replica: &Replica) {
        self.stream.shutdown().await;
        let uid = format!("u-{}", self.id);
        let tls = replica.ca.node(&uid);
        let channel = pki::dial(&replica.address, &tls).await.expect("dialled");
        let (out, queue) = mpsc::channel(64);
        let hello = NodeHello {
            uid,
            node_id: self.id.clone(),
            site: "local".into(),
            epoch: 1,
            grpc_endpoint: "127.0.0.1:9".into(),
            primary: true,
            ..NodeHello::default()
        };
        let send = move |item| {
            let out = out.clone();
            async move { out.send(NodeReport { item: Some(item) }).await }
        };
        send(Report::Hello(hello)).await.expect("place");
        let mut orders = NodeControlClient::new(channel)
            .attach(ReceiverStream::new(queue))
            .await
            .expect("attached")
            .into_inner();
        send(Report::EndOfRooms(true)).await.expect("place");
        let (state, changed) = (Arc::clone(&self.state), Arc::clone(&self.changed));
        self.stream.spawn(async move {
            let mut news = changed.subscribe();
            // Up to here everything was said on this stream.
            let mut said = 0_usize;
            let mut again = true;
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(500));
            loop {
                let next = state.lock().expect("no panic").outbox.get(said).cloned();
                if let Some(mut event) = next {
                    said += 1;
                    event.again = std::mem::take(&mut again);
                    // Orders are read all the same.
                    tokio::select! {
                        biased;
                        order = orders.message() => {
                            let Ok(Some(order)) = order else { return };
                            said -= 1;
                            again = event.again;
                            obey(&state, &changed, order.item, &mut said, &mut again);
                        }
                        sent = send(Report::Event(event.clone())) => if sent.is_err() { return },
                    }
                    continue;
                }
                tokio::select! {
                    order = orders.message() => {
                        let Ok(Some(order)) = order else { return };
                        obey(&state, &changed, order.item, &mut said, &mut again);
                    }
                    _ = news.changed() => {}
                    _ = tick.tick() => if send(Report::Load(NodeLoad::default())).await.is_err() { return },
                }
            }
        });
    }

    /// An event happens.
    pub(crate) fn tell(&self, room: &str, sid: &str, seq: u64, name: &str) {
        self.tell_with(room, sid, seq, name, "");
    }

    /// An event with more to it.
    pub(crate) fn tell_with(&self, room: &str, sid: &str, seq: u64, name: &str, metadata: &str) {
        let body = serde_json::json!({
            "event": name,
            "room": { "sid": sid, "name": room, "metadata": metadata },
            "createdAt": seq.to_string(),
        });
        let event = RoomEvent {
            key: Some(RoomKey {
                tenant: "school".into(),
                name: room.into(),
            }),
            epoch: 1,
            seq,
            name: name.into(),
            body: body.to_string().into_bytes(),
            room_sid: sid.into(),
            again: false,
        };
        self.state.lock().expect("no panic").outbox.push(event);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Events that nobody acknowledged.
    pub(crate) fn kept(&self) -> usize {
        self.state.lock().expect("no panic").outbox.len()
    }

    /// How often it was asked to say everything again.
    pub(crate) fn asked_again(&self) -> u32 {
        self.state.lock().expect("no panic").asked_again
    }

    /// Waits until every event is acknowledged.
    pub(crate) async fn until_acknowledged(&self) {
        self.until("everything is acknowledged", |teller| teller.kept() == 0)
            .await;
    }

    pub(crate) async fn until(&self, what: &str, look: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let done = async {
            while !look(self) {
                changed.changed().await.expect("the node lives");
            }
        };
        tokio::time::timeout(LIVENESS, done)
            .await
            .unwrap_or_else(|_| panic!("never: {what}; {} are kept", self.kept()));
    }
}

fn obey(
    state: &Mutex<State>,
    changed: &watch::Sender<u64>,
    order: Option<Order>,
    said: &mut usize,
    again: &mut bool,
) {
    let mut state = state.lock().expect("no panic");
    match order {
        Some(Order::EventAck(ack)) => {
            let mut index = 0;
            state.outbox.retain(|event| {
                let done = event.key == ack.key
                    && event.room_sid == ack.room_sid
                    && event.epoch == ack.epoch
                    && event.seq <= ack.seq;
                if done && index < *said {
                    *said -= 1;
                } else {
                    index += 1;
                }
                !done
            });
        }
        Some(Order::EventsAgain(true)) => {
            state.asked_again += 1;
            *said = 0;
            *again = true;
        }
        _ => {}
    }
    drop(state);
    changed.send_modify(|version| *version += 1);
}
