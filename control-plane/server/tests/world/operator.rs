// SPDX-License-Identifier: EUPL-1.2
//! A publisher.

use plenum_proto::v1::directory_client::DirectoryClient;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{
    AcceptingOrder, ChatRule, ConferenceRecord, Limits, LobbyRule, MoveOrder, NodeCapacity,
    NodeFacts, Observation, ObserveRequest, Permission, Publication, PublicationAck, RecordKind,
    Retraction, Role, RoomPolicy, TenantRecord, tenant_record,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{LIVENESS, Replica, pki};

pub struct Publisher {
    epoch: u64,
    out: mpsc::Sender<Publication>,
    acks: Streaming<PublicationAck>,
}

impl Publisher {
    pub async fn connect(replica: &Replica, epoch: u64) -> Self {
        let channel = pki::dial(&replica.address, &replica.ca.operator())
            .await
            .expect("dialled");
        let (out, queue) = mpsc::channel(64);
        let acks = DirectoryClient::new(channel)
            .publish(ReceiverStream::new(queue))
            .await
            .expect("called")
            .into_inner();
        Self { epoch, out, acks }
    }

    /// Sends an item and waits for its answer.
    pub async fn send(&mut self, item: Item) -> Result<PublicationAck, Status> {
        // The stream may be over already; then its status says why.
        let _ = self
            .out
            .send(Publication {
                epoch: self.epoch,
                item: Some(item),
            })
            .await;
        let answer = tokio::time::timeout(LIVENESS, self.acks.message())
            .await
            .expect("an answer comes");
        answer?.ok_or_else(|| Status::unavailable("the stream ended"))
    }

    /// Sends an item that has to be taken.
    pub async fn publish(&mut self, item: Item) {
        let ack = self.send(item).await.expect("the stream lives");
        assert_eq!(ack.refused_reason, "", "{}", ack.message);
    }

    /// A snapshot of these items, all of which have to be taken.
    pub async fn snapshot(&mut self, items: Vec<Item>) {
        for item in items {
            self.publish(item).await;
        }
        let ack = self
            .send(Item::EndOfSnapshot(true))
            .await
            .expect("the stream lives");
        assert!(ack.snapshot_applied);
    }
}

/// What the operator sees.
pub async fn observe(replica: &Replica) -> Streaming<Observation> {
    let channel = pki::dial(&replica.address, &replica.ca.operator())
        .await
        .expect("dialled");
    DirectoryClient::new(channel)
        .observe(ObserveRequest {})
        .await
        .expect("called")
        .into_inner()
}

pub fn tenant() -> TenantRecord {
    TenantRecord {
        uid: "t-school".into(),
        name: "school".into(),
        revision: "1".into(),
        api_keys: vec![plenum_proto::v1::ApiKey {
            key: "key".into(),
            secret: vec![1; 32],
        }],
        ad_hoc: tenant_record::AdHoc::Forbidden.into(),
        limits: Some(Limits {
            participants: Some(20),
            ..Default::default()
        }),
        link_key: vec![2; 32],
        ..Default::default()
    }
}

pub fn policy() -> RoomPolicy {
    RoomPolicy {
        declared: true,
        lobby: LobbyRule::LobbyOff.into(),
        guests_allowed: true,
        permissions: vec![Permission {
            role: Role::Guest.into(),
            chat: ChatRule::ChatEveryone.into(),
            ..Default::default()
        }],
        max_participants: 100,
        max_publishers: 10,
        empty_timeout_ms: 300_000,
        revision: "p1".into(),
        ..Default::default()
    }
}

pub fn conference(name: &str) -> ConferenceRecord {
    let letters: String = name
        .bytes()
        .map(|byte| char::from(b'a' + byte % 26))
        .cycle()
        .take(26)
        .collect();
    ConferenceRecord {
        uid: format!("c-{name}"),
        revision: "1".into(),
        tenant: "school".into(),
        name: name.into(),
        room_name: name.into(),
        room_id: letters,
        policy: Some(policy()),
        ..Default::default()
    }
}

pub fn node(id: &str) -> NodeFacts {
    NodeFacts {
        uid: format!("u-{id}"),
        node_id: id.into(),
        site: "local".into(),
        pool: "media/default".into(),
        epoch: 1,
        capacity: Some(NodeCapacity {
            rooms: 10,
            participants: 100,
            egress_mbps: 1_000,
        }),
        accepting: true,
        revision: "1".into(),
        ..Default::default()
    }
}

pub fn retract(kind: RecordKind, uid: &str) -> Item {
    Item::Retract(Retraction {
        kind: kind.into(),
        uid: uid.into(),
    })
}

pub fn accepting(id: &str, accepting: bool) -> Item {
    Item::Accepting(AcceptingOrder {
        node_uid: format!("u-{id}"),
        epoch: 1,
        accepting,
        reason: "Drain".into(),
    })
}

pub fn move_away(id: &str) -> Item {
    Item::Move(MoveOrder {
        node_uid: format!("u-{id}"),
        epoch: 1,
        deadline_unix_ms: i64::MAX,
        ..Default::default()
    })
}
