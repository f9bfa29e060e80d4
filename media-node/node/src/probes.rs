// SPDX-License-Identifier: EUPL-1.2
//! What the node says of itself to whoever runs it. Neither its drain nor the control plane counts: a node that is taken out of its
//! Service by a readiness that flips loses the UDP flows of its calls.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use plenum_shell::probe::Source;
use prometheus_client::registry::Registry;

use crate::metrics::{self, Sources};
use crate::worker::ShardPort;

/// A shard wakes twice a second at least; one that has not for so long hangs.
const HANGS: Duration = Duration::from_secs(30);

/// Tells threads that go on from such that hang, by how often each one woke.
#[derive(Debug)]
struct Progress(Mutex<Vec<(u64, Instant)>>);

impl Progress {
    fn new(shards: usize, now: Instant) -> Self {
        Self(Mutex::new(vec![(0, now); shards]))
    }

    /// The first shard that hangs.
    fn hanging(&self, wakeups: impl Iterator<Item = u64>, now: Instant) -> Option<usize> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hangs = None;
        for (shard, (count, last)) in wakeups.zip(seen.iter_mut()).enumerate() {
            if last.0 != count {
                *last = (count, now);
            } else if now.saturating_duration_since(last.1) >= HANGS {
                hangs = hangs.or(Some(shard));
            }
        }
        hangs
    }
}

/// See the module.
pub struct Probes {
    shards: Vec<ShardPort>,
    progress: Progress,
    registry: Registry,
}

impl Probes {
    /// Of a node whose sockets are bound.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let shards = sources.shards.clone();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self {
            progress: Progress::new(shards.len(), Instant::now()),
            shards,
            registry,
        }
    }
}

impl Source for Probes {
    fn alive(&self) -> Result<(), String> {
        let wakeups = self
            .shards
            .iter()
            .map(|shard| shard.published().worker.wakeups);
        match self.progress.hanging(wakeups, Instant::now()) {
            None => Ok(()),
            Some(shard) => Err(format!("shard {shard} hangs")),
        }
    }

    /// Its sockets are bound, or there would be nobody to ask.
    fn ready(&self) -> Result<(), String> {
        self.alive()
    }

    fn metrics(&self) -> Option<String> {
        metrics::render(&self.registry).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_stands_still_is_named_once_it_has_for_long_and_forgiven_when_it_goes_on() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let progress = Progress::new(2, start);
        assert_eq!(progress.hanging([5, 5].into_iter(), at(0)), None);
        assert_eq!(progress.hanging([6, 5].into_iter(), at(29)), None);
        assert_eq!(progress.hanging([7, 5].into_iter(), at(30)), Some(1));
        assert_eq!(progress.hanging([7, 5].into_iter(), at(70)), Some(0));
        assert_eq!(progress.hanging([8, 6].into_iter(), at(71)), None);
    }
}
