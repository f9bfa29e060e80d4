// SPDX-License-Identifier: EUPL-1.2
//! The list of replicas that each node gets when it attaches, and again when it changes.

#[allow(dead_code)]
mod world;

use std::sync::Arc;

use control_plane::clock::Clock;
use control_plane::hosts::Hosts;
use control_plane::plane::Plane;
use control_plane::rpc;
use control_plane::store::memory::MemoryStore;
use plenum_proto::v1::directory_client::DirectoryClient;
use plenum_proto::v1::node_control_client::NodeControlClient;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{NodeHello, NodeOrder, NodeReport, Publication};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use world::pki::{self, Ca};
use world::{LIVENESS, operator};

/// The next list that a node is told.
async fn told(orders: &mut Streaming<NodeOrder>) -> Vec<String> {
    let list = async {
        loop {
            let order = orders.message().await.expect("attached").expect("an order");
            if let Some(Order::Replicas(list)) = order.item {
                return list.endpoints;
            }
        }
    };
    tokio::time::timeout(LIVENESS, list)
        .await
        .expect("a list comes")
}

#[tokio::test]
async fn a_node_learns_of_all_replicas_when_it_attaches_and_of_every_change() {
    let ca = Ca::new();
    let tls = ca.control_plane();
    let clock = Clock::start();
    let store = Arc::new(MemoryStore::new(Arc::new(move || clock.now())));
    let plane = Plane::new(store, Hosts::new(tls.clone()), clock);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address").to_string();
    let all = |names: &[&str]| -> Arc<[String]> { names.iter().map(|&name| name.into()).collect() };
    let replicas = watch::Sender::new(all(&["a:1", "b:1"]));
    let stop = CancellationToken::new();
    let (list, token) = (replicas.subscribe(), stop.clone());
    let served = tokio::spawn(async move { rpc::serve(plane, listener, &tls, list, token).await });

    let mut publisher =
        DirectoryClient::new(pki::dial(&address, &ca.operator()).await.expect("dialled"));
    let items = [
        Item::Tenant(operator::tenant()),
        Item::Node(operator::node("n1")),
        Item::EndOfSnapshot(true),
    ];
    let (say, queue) = mpsc::channel(8);
    let acks = publisher
        .publish(ReceiverStream::new(queue))
        .await
        .expect("called");
    for item in items {
        let item = Some(item);
        say.send(Publication { epoch: 1, item })
            .await
            .expect("published");
    }
    let (report, queue) = mpsc::channel(8);
    let hello = NodeHello {
        uid: "u-n1".into(),
        node_id: "n1".into(),
        site: "local".into(),
        epoch: 1,
        grpc_endpoint: "127.0.0.1:9".into(),
        ..NodeHello::default()
    };
    report
        .send(NodeReport {
            item: Some(Report::Hello(hello)),
        })
        .await
        .expect("queued");
    let channel = pki::dial(&address, &ca.node("u-n1"))
        .await
        .expect("dialled");
    let mut orders = NodeControlClient::new(channel)
        .attach(ReceiverStream::new(queue))
        .await
        .expect("attached")
        .into_inner();
    assert_eq!(told(&mut orders).await, ["a:1", "b:1"]);
    // A replica came, another one went.
    replicas.send_replace(all(&["a:1", "c:1"]));
    assert_eq!(told(&mut orders).await, ["a:1", "c:1"]);
    drop((acks, report));
    stop.cancel();
    served.await.expect("no panic").expect("served");
}
