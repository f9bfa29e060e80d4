// SPDX-License-Identifier: EUPL-1.2
//! The store in Redis: one server whose clock the tests hold, TLS with the least rights, Sentinels, a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use control_plane::store::redis::address::Address;
use control_plane::store::redis::keys::Namespace;
use control_plane::store::redis::{Options, RedisStore, acl};
use control_plane::store::{Store, StoreError};

use crate::conformance::{self, Harness};
use crate::servers::cluster::Cluster;
use crate::servers::sentinel::Watched;
use crate::servers::{Dir, PATIENCE, Server, Setup, certificates};

/// A machine that compiles beside the tests is slow; only what is said of the deadline itself is asked with the real one.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn options(url: &str, namespace: &str) -> Options {
    Options {
        address: Address::parse(url).expect("a URL"),
        ca: None,
        namespace: Namespace::parse(namespace).expect("a name"),
        deadline: DEADLINE,
    }
}

/// A store that has found its server.
pub(crate) async fn ready(options: Options) -> RedisStore {
    let store = RedisStore::start(options).expect("a client");
    answers(&store).await;
    store
}

/// Waits until the store answers.
pub(crate) async fn answers(store: &RedisStore) {
    let begin = Instant::now();
    while store.ping().await.is_err() {
        assert!(begin.elapsed() < PATIENCE, "the store never answers");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn harness_on(server: Server, options: Options) -> Harness {
    let store = ready(options).await;
    let server = Arc::new(server);
    let timed = Arc::clone(&server);
    Harness {
        store: Arc::new(store),
        advance: Box::new(move |span| timed.clock.as_ref().expect("a clock").advance(span)),
        _kept: Box::new(server),
    }
}

/// One server.
mod single {
    use super::*;

    async fn harness() -> Harness {
        let server = Server::with(Setup {
            clock: true,
            ..Setup::default()
        });
        let options = options(&server.url(), "local");
        harness_on(server, options).await
    }

    conformance::suite!(harness);
}

/// One server with TLS, and a user that may do what the rule says and nothing else.
mod restricted {
    use super::*;

    async fn harness() -> Harness {
        let tls = Dir::new();
        certificates(tls.path());
        let namespace = Namespace::parse("berlin-1").expect("a name");
        let server = Server::with(Setup {
            clock: true,
            tls: Some(tls.path().to_owned()),
            acl: Some(format!("user plenum {} >hunter2", acl::rule(&namespace))),
            options: Vec::new(),
        });
        let mut options = options(&server.url_of("plenum", "hunter2"), "berlin-1");
        options.ca = Some(std::fs::read(tls.path().join("ca.crt")).expect("a certificate"));
        harness_on(server, options).await
    }

    conformance::suite!(harness);

    #[test]
    fn the_rule_allows_nothing_else() {
        let namespace = Namespace::parse("one").expect("a name");
        let server = Server::with(Setup {
            acl: Some(format!("user plenum {} >hunter2", acl::rule(&namespace))),
            ..Setup::default()
        });
        let url = server.url_of("plenum", "hunter2");
        let run = |words: &[&str]| crate::servers::run(&url, None, words);
        run(&["SET", "plenum:{one}:room:t/r", "x"]).expect("its own key");
        run(&["DEL", "plenum:{one:t}:events:x"]).expect("its own key");
        for words in [
            &["FLUSHALL"][..],
            &["KEYS", "*"],
            &["CONFIG", "GET", "*"],
            &["ACL", "LIST"],
            &["SCRIPT", "FLUSH"],
            &["CLUSTER", "RESET"],
            &["CLIENT", "LIST"],
            &["GET", "plenum:{two}:room:t/r"],
            &["GET", "plenum:{onemore}:room:t/r"],
            &["SET", "other", "x"],
            &["EVAL", "return redis.call('GET', 'other')", "0"],
            &["EVAL", "return redis.call('SWAPDB', 0, 1)", "0"],
            &["PUBLISH", "x", "y"],
        ] {
            let error = run(words).expect_err("refused");
            let said = error.to_string();
            assert!(
                said.contains("NOPERM") || said.contains("ermission") || said.contains("can't"),
                "{words:?}: {said}"
            );
        }
    }
}

/// Namespaces of one fixture, so that each claim begins with nothing.
fn next_namespace() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("n{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

async fn without_time(url: &str) -> Harness {
    Harness {
        store: Arc::new(ready(options(url, &next_namespace())).await),
        advance: Box::new(|_| panic!("no time passes here")),
        _kept: Box::new(()),
    }
}

#[tokio::test]
async fn the_store_is_the_same_behind_sentinels() {
    let watched = Watched::start();
    let url = watched.url();
    conformance::everything_at_once(|| without_time(&url)).await;
}

#[tokio::test]
async fn the_store_is_the_same_in_a_cluster() {
    let cluster = Cluster::start();
    let url = cluster.url();
    conformance::everything_at_once(|| without_time(&url)).await;
}

#[tokio::test]
async fn a_cluster_that_lost_a_node_is_away_until_it_is_back() {
    let mut cluster = Cluster::start();
    let store = ready(options(&cluster.url(), "local")).await;
    let role = || store.claim("a".into(), "b".into(), Duration::from_secs(600));
    assert_eq!(role().await, Ok(true));
    let key = "plenum:{local}:claim:a";
    let holder = cluster
        .nodes
        .iter()
        .position(|node| node.keys() == [key])
        .expect("one of them has it");
    cluster.nodes[holder].kill();
    assert_eq!(role().await, Err(StoreError::Away));
    cluster.nodes[holder].restart();
    answers(&store).await;
    assert_eq!(role().await, Ok(true));
    assert_eq!(cluster.nodes[holder].keys(), [key]);
}

#[tokio::test]
async fn after_a_failover_the_new_primary_is_asked() {
    let mut watched = Watched::start();
    let store = ready(options(&watched.url(), "local")).await;
    let role = || store.claim("a".into(), "b".into(), Duration::from_secs(600));
    assert_eq!(role().await, Ok(true));
    watched.primary.kill();
    assert!(role().await.is_err());
    answers(&store).await;
    assert_eq!(role().await, Ok(true));
    let keys = watched.replica.keys();
    assert_eq!(keys, ["plenum:{local}:claim:a"]);
}
