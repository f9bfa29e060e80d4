// SPDX-License-Identifier: EUPL-1.2
//! A real Redis that is killed, stopped, emptied, full, read-only or failed over under two replicas: running rooms are joined, new ones
//! open, replicas agree, nobody dies; afterwards there is one consistent state.

use std::future::Future;

use control_core::ids::Epoch;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::place;
use crate::redis::sentinel::Watched;
use crate::redis::{Server, Setup};
use crate::world::key;

const ROOMS: [&str; 4] = ["council", "class", "board", "late"];

/// The council runs and is opened; `class` and `board` begin without the store, `late` once it is back.
async fn survives<Away: Future, Back: Future>(
    url: &str,
    away: impl FnOnce() -> Away,
    back: impl FnOnce() -> Back,
) {
    let mut cluster = Cluster::start_on_redis(url, 2, &["n1", "n2"], &ROOMS).await;
    let council = place(&cluster.replicas[0].plane, "council").await;
    let home = cluster.index(council.node_id.as_str());
    cluster
        .change(home, "council", |room| room.facts.opened = true)
        .await;
    cluster
        .kept("council", |record| {
            record.is_some_and(|record| record.facts.opened)
        })
        .await;

    away().await;
    for replica in &cluster.replicas {
        let found = place(&replica.plane, "council").await;
        assert_eq!(
            (&found.node_id, found.epoch),
            (&council.node_id, council.epoch)
        );
    }
    for room in ["class", "board"] {
        let (a, b) = tokio::join!(
            place(&cluster.replicas[0].plane, room),
            place(&cluster.replicas[1].plane, room)
        );
        assert_eq!((&a.node_id, a.epoch), (&b.node_id, b.epoch), "{room}");
        assert_eq!(cluster.owners(room).len(), 1, "{room}");
    }
    cluster
        .change(home, "council", |room| {
            room.facts.metadata = "changed".into()
        })
        .await;
    // A replica that starts meanwhile finds what runs.
    cluster.add_replica(false).await;
    for room in ["council", "class"] {
        let found = place(&cluster.replicas[2].plane, room).await;
        assert_eq!(found.node_id.as_str(), cluster.owners(room)[0].0);
    }

    back().await;
    for room in ["council", "class", "board"] {
        let owners = cluster.owners(room);
        let record = cluster
            .kept(room, |record| {
                record.is_some_and(|record| {
                    owners == [(record.lease.node.as_str().to_owned(), record.lease.epoch.0)]
                        && (room != "council" || record.facts.metadata == "changed")
                })
            })
            .await
            .expect("kept");
        assert_eq!(record.facts.opened, room == "council");
    }
    let late = place(&cluster.replicas[2].plane, "late").await;
    assert_eq!(late.epoch, Epoch(1));
    assert_eq!(cluster.deaths(), 0);
    assert_eq!(cluster.opens(), 4, "nothing moved and nothing was doubled");
    cluster.stop().await;
}

#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back_empty_is_written_anew() {
    let server = std::cell::RefCell::new(Server::start());
    let url = server.borrow().url();
    survives(
        &url,
        async || server.borrow_mut().kill(),
        async || server.borrow_mut().restart(),
    )
    .await;
}

#[tokio::test]
async fn a_redis_that_stands_still_costs_a_deadline_and_then_nothing() {
    let server = Server::start();
    survives(
        &server.url(),
        async || server.pause(),
        async || server.resume(),
    )
    .await;
}

#[tokio::test]
async fn a_redis_that_is_emptied_kills_nobody() {
    let server = Server::start();
    survives(&server.url(), async || server.flush(), async || ()).await;
}

#[tokio::test]
async fn a_redis_that_is_full_counts_as_away() {
    let server = Server::with(Setup {
        options: ["--maxmemory-policy", "noeviction"]
            .map(str::to_owned)
            .to_vec(),
        ..Setup::default()
    });
    let limit = async |bytes: &str| {
        server.run(&["CONFIG", "SET", "maxmemory", bytes]);
    };
    survives(
        &server.url(),
        async || limit("1").await,
        async || {
            limit("0").await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_redis_that_is_read_only_counts_as_away() {
    let server = Server::start();
    let follow = async |words: [&str; 3]| {
        server.run(&words);
    };
    survives(
        &server.url(),
        // Of a primary that is not there: what it has, it keeps.
        async || follow(["REPLICAOF", "127.0.0.1", "1"]).await,
        async || follow(["REPLICAOF", "NO", "ONE"]).await,
    )
    .await;
}

#[tokio::test]
async fn a_redis_that_fails_over_is_found_again() {
    let watched = std::cell::RefCell::new(Watched::start());
    let url = watched.borrow().url();
    survives(
        &url,
        async || watched.borrow_mut().primary.kill(),
        // The Sentinels do it by themselves.
        async || (),
    )
    .await;
}

#[tokio::test]
async fn two_replicas_that_place_a_room_at_once_give_it_one_owner() {
    let server = Server::start();
    let rooms: Vec<String> = (0..18).map(|number| format!("room{number}")).collect();
    let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
    let cluster = Cluster::start_on_redis(&server.url(), 2, &["n1", "n2"], &names).await;
    for room in &names {
        let mut places = JoinSet::new();
        for number in 0..4 {
            let (plane, room) = (
                cluster.replicas[number % 2].plane.clone(),
                (*room).to_owned(),
            );
            places.spawn(async move { place(&plane, &room).await });
        }
        let mut found = Vec::new();
        while let Some(placed) = places.join_next().await {
            let placed = placed.expect("no panic");
            found.push((placed.node_id.to_string(), placed.epoch.0));
        }
        found.dedup();
        assert_eq!(found, cluster.owners(room), "{room}");
        let record = cluster.store.room(key(room)).await.expect("answers");
        assert_eq!(record.expect("kept").lease.epoch.0, found[0].1);
        // There is no space for all of them at once.
        let node = cluster.index(&found[0].0);
        cluster.nodes[node].close(room, "Ended").await;
        cluster.kept(room, |record| record.is_none()).await;
    }
    assert_eq!(cluster.deaths(), 0);
    cluster.stop().await;
}
