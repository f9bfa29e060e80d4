// SPDX-License-Identifier: EUPL-1.2
//! The other replicas: names that are resolved again and again, and the list that each node gets.
//!
//! Nodes keep a stream to every replica, and learn of those that they were not started with from the list in each answer to `Attach`. A
//! name whose resolving fails keeps its last addresses: a name server that is away takes no replica from anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Names are resolved this often.
const RESOLVE: Duration = Duration::from_secs(5);
/// A name server has this long.
const ANSWER: Duration = Duration::from_secs(3);
/// Names at most.
pub const PEERS_MAX: usize = 16;
/// Replicas in a list at most, this one among them; as many as a node dials.
pub const REPLICAS_MAX: usize = 16;

/// How nodes reach the replicas, this one first; changes are seen by whoever holds it.
#[derive(Clone, Debug)]
pub struct Replicas(watch::Receiver<Arc<[String]>>);

impl Replicas {
    /// The list.
    #[must_use]
    pub fn list(&self) -> Arc<[String]> {
        Arc::clone(&self.0.borrow())
    }

    /// The list, after which [`Self::changed`] waits for another one.
    pub fn seen(&mut self) -> Arc<[String]> {
        Arc::clone(&self.0.borrow_and_update())
    }

    /// Resolves when the list is another one; never, when nobody changes it any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl From<watch::Receiver<Arc<[String]>>> for Replicas {
    fn from(list: watch::Receiver<Arc<[String]>>) -> Self {
        Self(list)
    }
}

impl From<Vec<String>> for Replicas {
    /// A list that does not change.
    fn from(list: Vec<String>) -> Self {
        Self(watch::Sender::new(Arc::from(list)).subscribe())
    }
}

/// Resolves the names of the other replicas until the token falls.
#[derive(Debug)]
pub struct Peers {
    own: String,
    names: Vec<String>,
    found: watch::Sender<Arc<[String]>>,
}

impl Peers {
    /// This replica and the names of the others.
    #[must_use]
    pub fn new(own: String, names: Vec<String>) -> Self {
        let found = watch::Sender::new(Arc::from(vec![own.clone()]));
        Self { own, names, found }
    }

    /// The list, as it is now and changes later.
    #[must_use]
    pub fn replicas(&self) -> Replicas {
        Replicas(self.found.subscribe())
    }

    /// Resolves until the token falls.
    pub async fn resolve(self, stop: CancellationToken) {
        let mut known = BTreeMap::<String, BTreeSet<SocketAddr>>::new();
        let mut failing = BTreeSet::<String>::new();
        let mut ticks = interval(RESOLVE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for name in self.names.iter().chain([&self.own]) {
                let answer = timeout(ANSWER, lookup_host(name)).await;
                match answer {
                    Ok(Ok(addresses)) => {
                        failing.remove(name);
                        known.insert(name.clone(), addresses.take(REPLICAS_MAX).collect());
                    }
                    // Once per failure, not every five seconds.
                    Ok(Err(error)) => {
                        if failing.insert(name.clone()) {
                            tracing::warn!(event = "PeerNameUnresolved", name, %error, "the name of a replica does not resolve; its last addresses stay");
                        }
                    }
                    Err(_) => {
                        if failing.insert(name.clone()) {
                            tracing::warn!(
                                event = "NameServerSilent",
                                name,
                                "no name server answers for a replica; its last addresses stay"
                            );
                        }
                    }
                }
            }
            let next = list(&self.own, &self.names, &known);
            let changed = self.found.send_if_modified(|shown| {
                let changed = **shown != *next;
                if changed {
                    *shown = Arc::from(next);
                }
                changed
            });
            if changed {
                tracing::info!(
                    event = "PeersFound",
                    replicas = self.found.borrow().len(),
                    "other replicas are found"
                );
            }
        }
    }
}

/// This replica by its own name, then the addresses of the others in order. A Service without an address of its own names this replica too:
/// it does not come twice.
fn list(
    own: &str,
    names: &[String],
    known: &BTreeMap<String, BTreeSet<SocketAddr>>,
) -> Vec<String> {
    let none = BTreeSet::new();
    let own_addresses = known.get(own).unwrap_or(&none);
    let others: BTreeSet<SocketAddr> = names
        .iter()
        .filter_map(|name| known.get(name))
        .flatten()
        .filter(|address| !own_addresses.contains(address))
        .copied()
        .collect();
    let mut list = vec![own.to_owned()];
    list.extend(others.iter().map(ToString::to_string));
    list.truncate(REPLICAS_MAX);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> BTreeSet<SocketAddr> {
        texts
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect()
    }

    #[test]
    fn a_service_that_names_this_replica_too_does_not_make_two_of_it() {
        let names = vec!["all.plenum:9443".to_owned(), "10.0.0.3:9443".to_owned()];
        let known = BTreeMap::from([
            ("me:9443".to_owned(), addresses(&["10.0.0.1:9443"])),
            (
                "all.plenum:9443".to_owned(),
                addresses(&["10.0.0.3:9443", "10.0.0.1:9443", "10.0.0.2:9443"]),
            ),
            ("10.0.0.3:9443".to_owned(), addresses(&["10.0.0.3:9443"])),
        ]);
        assert_eq!(
            list("me:9443", &names, &known),
            ["me:9443", "10.0.0.2:9443", "10.0.0.3:9443"]
        );
    }

    #[test]
    fn a_list_has_a_bound_and_this_replica_is_always_in_it() {
        let many: BTreeSet<SocketAddr> = (1..=200)
            .map(|host| SocketAddr::from(([10, 0, 0, host], 1)))
            .collect();
        let known = BTreeMap::from([("all:1".to_owned(), many)]);
        let list = list("me:1", &["all:1".to_owned()], &known);
        assert_eq!((list.len(), list[0].as_str()), (REPLICAS_MAX, "me:1"));
    }

    #[tokio::test]
    async fn peers_are_resolved_and_a_change_is_seen() {
        let names = vec![
            "127.0.0.1:2".to_owned(),
            "no.such.name.invalid:3".to_owned(),
        ];
        let peers = Peers::new("127.0.0.1:1".to_owned(), names);
        let mut replicas = peers.replicas();
        assert_eq!(*replicas.seen(), ["127.0.0.1:1".to_owned()]);
        let stop = CancellationToken::new();
        let task = tokio::spawn(peers.resolve(stop.clone()));
        tokio::time::timeout(Duration::from_secs(40), replicas.changed())
            .await
            .expect("resolved");
        assert_eq!(
            *replicas.seen(),
            ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()]
        );
        stop.cancel();
        task.await.expect("stopped");
        // The list of a replica that stops stays what it was.
        assert_eq!(replicas.list().len(), 2);
    }
}
