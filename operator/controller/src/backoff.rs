// SPDX-License-Identifier: EUPL-1.2
//! How long an object that failed is left alone: longer with every failure, from one second to five minutes, and never the same for two.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// First wait.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// Keys that are remembered; beyond it the oldest knowledge is worth nothing anyway.
const KEYS_MAX: usize = 20_000;

/// Failures in a row, by key.
#[derive(Default)]
pub struct Backoff(Mutex<HashMap<(String, String), u32>>);

impl Backoff {
    /// Counts a failure and says how long to wait. `dice` is any random number.
    pub fn failed(&self, namespace: &str, name: &str, dice: u32) -> Duration {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= KEYS_MAX {
            counts.clear();
        }
        let count = counts
            .entry((namespace.to_owned(), name.to_owned()))
            .or_default();
        *count = count.saturating_add(1);
        wait(*count, dice)
    }

    /// Forgets the failures of a key.
    pub fn succeeded(&self, namespace: &str, name: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.is_empty() {
            counts.remove(&(namespace.to_owned(), name.to_owned()));
        }
    }
}

/// Wait after so many failures in a row: doubled each time, minus up to a quarter.
#[must_use]
pub fn wait(failures: u32, dice: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    less(doubled.min(LONGEST), dice, 4)
}

/// A duration plus or minus a tenth, so that many objects do not wake at once.
#[must_use]
pub fn spread(duration: Duration, dice: u32) -> Duration {
    less(duration + duration / 10, dice, 5)
}

/// Less by up to one part of so many.
fn less(duration: Duration, dice: u32, parts: u32) -> Duration {
    let most = duration.as_nanos() / u128::from(parts);
    let off = most * u128::from(dice) / u128::from(u32::MAX);
    duration.saturating_sub(Duration::from_nanos(u64::try_from(off).unwrap_or(u64::MAX)))
}

/// A random number for jitter; without randomness none is needed either.
#[must_use]
pub fn dice() -> u32 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_up_to_five_minutes_and_success_forgets() {
        let backoff = Backoff::default();
        let mut last = Duration::ZERO;
        for _ in 0..9 {
            let next = backoff.failed("a", "b", 0);
            assert!(next > last, "{next:?} after {last:?}");
            last = next;
        }
        for _ in 0..100 {
            last = backoff.failed("a", "b", 0);
        }
        assert_eq!(last, LONGEST);
        assert_eq!(backoff.failed("a", "other", 0), FIRST);
        backoff.succeeded("a", "b");
        assert_eq!(backoff.failed("a", "b", 0), FIRST);
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        for dice in [0, 1, u32::MAX / 2, u32::MAX] {
            for failures in [1, 2, 5, 40, u32::MAX] {
                let wait = wait(failures, dice);
                assert!(wait >= FIRST * 3 / 4 && wait <= LONGEST, "{wait:?}");
            }
            let around = spread(Duration::from_secs(100), dice);
            assert!(
                around >= Duration::from_secs(88) && around <= Duration::from_secs(110),
                "{around:?}"
            );
        }
    }
}
