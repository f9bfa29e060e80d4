// SPDX-License-Identifier: EUPL-1.2
//! Redis is slow, gone, empty, full, read-only: a call fails in time and names the store as away, and answers again by itself.

use std::time::Duration;

use control_core::ids::NodeId;
use control_plane::store::redis::{RedisStore, link};
use control_plane::store::{Store, StoreError};

use crate::redis_store::{answers, options, ready};
use crate::servers::{Server, Setup, free_port, until};

async fn claims(store: &RedisStore) -> Result<bool, StoreError> {
    store
        .claim("a".into(), "b".into(), Duration::from_secs(600))
        .await
}

/// A server that refuses to write makes every call fail, those that only read too: what they read may be old.
async fn refused_and_back(server: &Server, spoil: &[&[&str]], mend: &[&[&str]]) {
    let store = ready(options(&server.url(), "local")).await;
    assert_eq!(claims(&store).await, Ok(true));
    for words in spoil {
        server.run(words);
    }
    let node = NodeId::parse("n1").expect("node id");
    for _ in 0..5 {
        assert_eq!(claims(&store).await, Err(StoreError::Away));
        assert_eq!(store.node(node.clone()).await, Err(StoreError::Away));
        assert_eq!(store.ping().await, Err(StoreError::Away));
    }
    for words in mend {
        server.run(words);
    }
    answers(&store).await;
    assert_eq!(claims(&store).await, Ok(true));
}

#[tokio::test]
async fn a_replica_starts_without_redis_and_finds_it_later() {
    let mut server = Server::start();
    server.kill();
    let store = RedisStore::start(options(&server.url(), "local")).expect("a client");
    assert_eq!(claims(&store).await, Err(StoreError::Away));
    server.restart();
    answers(&store).await;
    assert_eq!(claims(&store).await, Ok(true));
}

#[tokio::test]
async fn a_server_that_restarts_empty_is_served_again() {
    let mut server = Server::start();
    let store = ready(options(&server.url(), "local")).await;
    assert_eq!(claims(&store).await, Ok(true));
    server.restart();
    answers(&store).await;
    assert_eq!(claims(&store).await, Ok(true), "its scripts were gone too");
    server.flush();
    assert_eq!(claims(&store).await, Ok(true), "without a failure between");
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_a_deadline_and_then_nothing() {
    let server = Server::start();
    let mut options = options(&server.url(), "local");
    options.deadline = link::DEADLINE;
    let store = ready(options).await;
    server.pause();
    // The breaker opens: from then on nobody waits. Any number of calls ends, though none is answered.
    for _ in 0..10_000 {
        assert_eq!(claims(&store).await, Err(StoreError::Away));
    }
    server.resume();
    answers(&store).await;
}

#[tokio::test]
async fn a_full_server_counts_as_away() {
    let server = Server::start();
    let spoil = [&["CONFIG", "SET", "maxmemory", "1"][..]];
    let mend = [&["CONFIG", "SET", "maxmemory", "0"][..]];
    refused_and_back(&server, &spoil, &mend).await;
}

#[tokio::test]
async fn a_read_only_server_counts_as_away() {
    let server = Server::start();
    // What it follows is not there: it stays a replica, and serves nothing or what it has.
    let nobody = free_port().to_string();
    for stale in ["yes", "no"] {
        let spoil = [
            &["CONFIG", "SET", "replica-serve-stale-data", stale][..],
            &["REPLICAOF", "127.0.0.1", &nobody],
        ];
        refused_and_back(&server, &spoil, &[&["REPLICAOF", "NO", "ONE"]]).await;
    }
}

#[tokio::test]
async fn a_server_that_loads_counts_as_away_until_it_has_loaded() {
    let slowly = [
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let mut server = Server::with(Setup {
        options: slowly.map(str::to_owned).to_vec(),
        ..Setup::default()
    });
    let store = ready(options(&server.url(), "local")).await;
    assert_eq!(claims(&store).await, Ok(true));
    let many =
        "for number = 1, 4000 do redis.call('SET', 'key' .. number, string.rep('x', 64)) end";
    server.run(&["EVAL", many, "0"]);
    server.run(&["SAVE"]);
    server.spawn();
    until("the server loads", || {
        let said = server.try_run(&["PING"]);
        said.is_err_and(|error| error.to_string().contains("loading"))
    });
    assert_eq!(claims(&store).await, Err(StoreError::Away));
    answers(&store).await;
    let other = store.claim("a".into(), "c".into(), Duration::from_secs(1));
    assert_eq!(other.await, Ok(false), "what was saved is known again");
}

#[tokio::test]
async fn a_primary_without_enough_replicas_counts_as_away() {
    let server = Server::start();
    let spoil = [&["CONFIG", "SET", "min-replicas-to-write", "1"][..]];
    let mend = [&["CONFIG", "SET", "min-replicas-to-write", "0"][..]];
    refused_and_back(&server, &spoil, &mend).await;
}

#[tokio::test]
async fn a_wrong_password_keeps_the_store_away_and_starts_all_the_same() {
    let server = Server::with(Setup {
        acl: Some("user plenum on >right ~* +@all".into()),
        ..Setup::default()
    });
    let wrong = RedisStore::start(options(&server.url_of("plenum", "wrong"), "local"));
    let wrong = wrong.expect("a client");
    let right = ready(options(&server.url_of("plenum", "right"), "local")).await;
    assert_eq!(claims(&right).await, Ok(true));
    assert_eq!(claims(&wrong).await, Err(StoreError::Away));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_accepted() {
    let (own, other) = (crate::servers::Dir::new(), crate::servers::Dir::new());
    crate::servers::certificates(own.path());
    crate::servers::certificates(other.path());
    let server = Server::with(Setup {
        tls: Some(own.path().to_owned()),
        ..Setup::default()
    });
    let ca = |dir: &crate::servers::Dir| std::fs::read(dir.path().join("ca.crt")).expect("read");
    let mut trusting = options(&server.url(), "local");
    trusting.ca = Some(ca(&other));
    let fooled = RedisStore::start(trusting.clone()).expect("a client");
    trusting.ca = Some(ca(&own));
    let store = ready(trusting).await;
    assert_eq!(claims(&store).await, Ok(true));
    assert_eq!(claims(&fooled).await, Err(StoreError::Away));
}
