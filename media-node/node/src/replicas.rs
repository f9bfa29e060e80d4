// SPDX-License-Identifier: EUPL-1.2
//! Where the replicas of the control plane are: names that are looked up again and again, and what replicas tell of each other. The
//! node keeps one stream to each *address*; one replica that has several addresses is recognised by the name it gives itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Replicas attached to at most: a list longer than this is a mistake of the sender.
pub const REPLICAS_MAX: usize = 16;
/// What a replica told of others holds for so long after its own stream ended, if another one is attached meanwhile.
const WORD_HOLDS: Duration = Duration::from_secs(60);

/// What one replica told.
#[derive(Debug, Default)]
struct Told {
    list: Vec<String>,
    replica: String,
    /// Since when its stream is gone; `None` while it stands.
    gone: Option<Instant>,
}

#[derive(Debug, Default)]
struct Inner {
    told: BTreeMap<SocketAddr, Told>,
    resolved: BTreeMap<String, Vec<SocketAddr>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Replicas(Mutex<Inner>);

impl Replicas {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete when the lock goes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream stands.
    pub fn attached(&self, at: SocketAddr) {
        self.lock().told.entry(at).or_default().gone = None;
    }

    /// It ended.
    pub fn detached(&self, at: SocketAddr, now: Instant) {
        if let Some(told) = self.lock().told.get_mut(&at) {
            told.gone.get_or_insert(now);
        }
    }

    /// A replica tells its name and where the others are. Whether that is news.
    pub fn tell(&self, at: SocketAddr, replica: String, list: Vec<String>) -> bool {
        let mut inner = self.lock();
        let told = inner.told.entry(at).or_default();
        let news = told.list != list || told.replica != replica;
        told.list = list;
        told.replica = replica;
        news
    }

    /// Is the replica at this address attached under another one? A second stream would push the first one out.
    #[must_use]
    pub fn is_attached_elsewhere(&self, at: SocketAddr) -> bool {
        let inner = self.lock();
        let Some(own) = inner
            .told
            .get(&at)
            .map(|told| told.replica.as_str())
            .filter(|replica| !replica.is_empty())
        else {
            return false;
        };
        inner
            .told
            .iter()
            .any(|(other, told)| *other != at && told.gone.is_none() && told.replica == own)
    }

    /// All names that are to be looked up: those of the configuration, and what replicas tell.
    #[must_use]
    pub fn names(&self, named: &[String], now: Instant) -> Vec<String> {
        let mut inner = self.lock();
        // While nobody is attached, everything that was told may help.
        let attached = inner.told.values().any(|told| told.gone.is_none());
        let holds = |told: &Told| {
            told.gone
                .is_none_or(|gone| now.saturating_duration_since(gone) < WORD_HOLDS)
        };
        inner.told.retain(|_, told| !attached || holds(told));
        let mut names = named.to_vec();
        for told in inner.told.values() {
            for name in &told.list {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        names
    }

    /// A name was looked up. One that cannot be at the moment keeps its addresses.
    pub fn resolved(&self, name: &str, addresses: Option<Vec<SocketAddr>>) {
        let mut inner = self.lock();
        match addresses.filter(|addresses| !addresses.is_empty()) {
            Some(addresses) => {
                inner.resolved.insert(name.to_owned(), addresses);
            }
            None => {
                inner.resolved.entry(name.to_owned()).or_default();
            }
        }
    }

    /// Addresses to keep a stream to: those of the names, and those whose stream stands.
    #[must_use]
    pub fn wanted(&self, names: &[String]) -> BTreeSet<SocketAddr> {
        let mut inner = self.lock();
        inner.resolved.retain(|name, _| names.contains(name));
        let mut wanted: BTreeSet<SocketAddr> = inner
            .told
            .iter()
            .filter(|(_, told)| told.gone.is_none())
            .map(|(at, _)| *at)
            .collect();
        for name in names {
            for at in inner.resolved.get(name).into_iter().flatten() {
                if wanted.len() < REPLICAS_MAX {
                    wanted.insert(*at);
                }
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 7_881))
    }

    fn look_up(replicas: &Replicas, named: &[String], now: Instant) -> Vec<SocketAddr> {
        let names = replicas.names(named, now);
        for name in &names {
            if let Ok(address) = name.parse() {
                replicas.resolved(name, Some(vec![address]));
            }
        }
        replicas.wanted(&names).into_iter().collect()
    }

    #[test]
    fn every_address_of_a_name_gets_a_stream_and_none_gets_two() {
        let replicas = Replicas::default();
        let named = ["control-plane:7881".to_owned()];
        replicas.resolved(&named[0], Some(vec![at(1), at(2)]));
        replicas.attached(at(1));
        replicas.tell(
            at(1),
            "a".into(),
            vec![at(1).to_string(), at(3).to_string()],
        );
        assert_eq!(
            look_up(&replicas, &named, Instant::now()),
            [at(1), at(2), at(3)]
        );
        // The name cannot be looked up for a while: nothing is forgotten.
        replicas.resolved(&named[0], None);
        assert_eq!(look_up(&replicas, &named, Instant::now()).len(), 3);
    }

    #[test]
    fn replicas_that_are_gone_for_good_make_room_for_others() {
        let replicas = Replicas::default();
        let named = [at(1).to_string()];
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        for number in [1, 2] {
            replicas.attached(at(number));
            replicas.tell(
                at(number),
                number.to_string(),
                vec![at(1).to_string(), at(2).to_string()],
            );
        }
        // The second one is replaced by a third one; the first one knows.
        replicas.detached(at(2), start);
        replicas.tell(
            at(1),
            "1".into(),
            vec![at(1).to_string(), at(3).to_string()],
        );
        assert_eq!(
            look_up(&replicas, &named, later(1)),
            [at(1), at(2), at(3)],
            "it may come back"
        );
        assert_eq!(look_up(&replicas, &named, later(61)), [at(1), at(3)]);
        // All are gone: whatever was told is tried, for as long as it takes.
        replicas.detached(at(1), later(61));
        assert_eq!(look_up(&replicas, &named, later(3_600)), [at(1), at(3)]);
    }

    #[test]
    fn one_replica_with_two_addresses_is_attached_once() {
        let replicas = Replicas::default();
        for number in [1, 2] {
            replicas.attached(at(number));
            replicas.tell(at(number), "same".into(), Vec::new());
        }
        assert!(replicas.is_attached_elsewhere(at(1)));
        replicas.detached(at(1), Instant::now());
        assert!(replicas.is_attached_elsewhere(at(1)));
        assert!(!replicas.is_attached_elsewhere(at(2)));
        replicas.detached(at(2), Instant::now());
        assert!(!replicas.is_attached_elsewhere(at(1)));
        assert!(!replicas.is_attached_elsewhere(at(9)), "nothing is known");
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let replicas = Replicas::default();
        replicas.attached(at(1));
        let list = (2..200).map(|number| at(number).to_string()).collect();
        replicas.tell(at(1), "a".into(), list);
        assert_eq!(look_up(&replicas, &[], Instant::now()).len(), REPLICAS_MAX);
    }
}
