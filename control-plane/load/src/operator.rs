// SPDX-License-Identifier: EUPL-1.2
//! Publishes tenants and node facts to every replica through `Directory.Publish`, as the operator does.

use anyhow::{Context, Result, bail};
use plenum_proto::v1::directory_client::DirectoryClient;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::tenant_record::AdHoc;
use plenum_proto::v1::{
    ApiKey, ChatRule, Limits, LobbyRule, NodeCapacity, NodeFacts, Permission, Publication,
    PublicationAck, Role, RoomPolicy, TenantRecord,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::nodes;
use crate::people::Backend;
use crate::pki::Pki;

/// Tenants among which rooms are divided: as many as a state has school authorities in one cluster.
pub(crate) const TENANTS: usize = 20;

/// Holds the stream to one replica: a publisher that leaves is replaced by another one.
pub(crate) struct Published {
    _messages: mpsc::Sender<Publication>,
    _acks: Streaming<PublicationAck>,
}

/// Publishes everything to one replica and waits until it is taken.
pub(crate) async fn publish(pki: &Pki, grpc: &str, nodes: usize) -> Result<Published> {
    let channel = Endpoint::from_shared(format!("https://{grpc}"))?
        .tls_config(pki.operator()?)?
        .connect()
        .await
        .with_context(|| format!("the replica at {grpc} is not reached"))?;
    let (messages, queue) = mpsc::channel(256);
    let mut acks = DirectoryClient::new(channel)
        .publish(ReceiverStream::new(queue))
        .await?
        .into_inner();
    let sender = messages.clone();
    let sending = tokio::spawn(async move {
        let items = (0..TENANTS)
            .map(|number| Item::Tenant(tenant(number)))
            .chain((0..nodes).map(|index| Item::Node(facts(index))))
            .chain([Item::EndOfSnapshot(true)]);
        for item in items {
            let message = Publication {
                epoch: 1,
                item: Some(item),
            };
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    loop {
        let Some(ack) = acks.message().await? else {
            bail!("the replica at {grpc} ended the publication");
        };
        if !ack.refused_reason.is_empty() {
            bail!(
                "a record is refused: {} {}: {}",
                ack.uid,
                ack.refused_reason,
                ack.message
            );
        }
        if ack.snapshot_applied {
            break;
        }
    }
    sending.await?;
    Ok(Published {
        _messages: messages,
        _acks: acks,
    })
}

/// What signs the tokens of a tenant.
pub(crate) fn backend(number: usize) -> Backend {
    Backend::new(&format!("key-{number}"), secret(number).as_bytes())
}

/// Name of a tenant.
pub(crate) fn tenant_name(number: usize) -> String {
    format!("tenant-{number}")
}

fn secret(number: usize) -> String {
    format!("a-secret-of-a-load-run-{number:032}")
}

fn tenant(number: usize) -> TenantRecord {
    TenantRecord {
        uid: format!("tenant-uid-{number}"),
        name: tenant_name(number),
        revision: "1".to_owned(),
        display_name: format!("Tenant {number}"),
        api_keys: vec![ApiKey {
            key: format!("key-{number}"),
            secret: secret(number).into_bytes(),
        }],
        ad_hoc: AdHoc::OnJoin.into(),
        ad_hoc_policy: Some(policy()),
        // High enough never to refuse; that they are checked is what costs.
        limits: Some(Limits {
            concurrent_rooms: Some(1_000_000),
            participants: Some(10_000_000),
            participants_per_room: Some(500),
            publishers_per_room: Some(50),
            egress_mbps: Some(100_000_000),
            ..Limits::default()
        }),
        link_key: vec![7; 32],
        pools: vec!["media/load".to_owned()],
        ..TenantRecord::default()
    }
}

fn policy() -> RoomPolicy {
    let permission = |role: Role| Permission {
        role: role.into(),
        microphone: true,
        camera: true,
        screen_share: role != Role::Guest,
        chat: ChatRule::ChatEveryone.into(),
        moderate: role == Role::Moderator,
        record: false,
        enter_muted: role == Role::Guest,
    };
    RoomPolicy {
        declared: false,
        lobby: LobbyRule::LobbyOff.into(),
        guests_allowed: true,
        permissions: vec![
            permission(Role::Moderator),
            permission(Role::Presenter),
            permission(Role::Participant),
            permission(Role::Guest),
        ],
        max_participants: 500,
        max_publishers: 50,
        // Rooms of the run stay until its end.
        empty_timeout_ms: 3_600_000,
        departure_timeout_ms: 20_000,
        screen_share: true,
        revision: "1".to_owned(),
        ..RoomPolicy::default()
    }
}

fn facts(index: usize) -> NodeFacts {
    NodeFacts {
        uid: nodes::uid(index),
        node_id: format!("n{index}"),
        site: "load".to_owned(),
        pool: "media/load".to_owned(),
        jurisdiction: "DE".to_owned(),
        epoch: 1,
        capacity: Some(NodeCapacity {
            rooms: 5_000,
            participants: 50_000,
            egress_mbps: 1_000_000,
        }),
        drain_timeout_ms: 60_000,
        accepting: true,
        revision: "1".to_owned(),
        ..NodeFacts::default()
    }
}
