// SPDX-License-Identifier: EUPL-1.2
//! How long somebody who guesses passwords has to wait. Only failures count.

use std::time::Duration;

use crate::limits;

/// Failures of a scope, as the store counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many, since they were last forgotten.
    pub count: u32,
    /// Since the last one.
    pub since_last: Duration,
}

/// Answer to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// It may be tried.
    Free,
    /// Not before this time has passed.
    Wait(Duration),
}

/// By failures from one address.
#[must_use]
pub fn per_address(failures: Failures) -> Throttle {
    throttle(failures, limits::FAILURES_FREE_PER_ADDRESS)
}

/// By failures of one conference, whatever the address.
#[must_use]
pub fn per_conference(failures: Failures) -> Throttle {
    throttle(failures, limits::FAILURES_FREE_PER_CONFERENCE)
}

fn throttle(failures: Failures, free: u32) -> Throttle {
    let Some(beyond) = failures.count.checked_sub(free) else {
        return Throttle::Free;
    };
    let wait = limits::THROTTLE_FIRST
        .saturating_mul(1_u32 << beyond.min(16))
        .min(limits::THROTTLE_MAX);
    match wait.checked_sub(failures.since_last) {
        None | Some(Duration::ZERO) => Throttle::Free,
        Some(rest) => Throttle::Wait(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failures_are_free_and_then_the_wait_doubles_up_to_its_bound() {
        let at = |count| {
            per_address(Failures {
                count,
                since_last: Duration::ZERO,
            })
        };
        assert_eq!(at(limits::FAILURES_FREE_PER_ADDRESS - 1), Throttle::Free);
        assert_eq!(
            at(limits::FAILURES_FREE_PER_ADDRESS),
            Throttle::Wait(limits::THROTTLE_FIRST)
        );
        assert_eq!(
            at(limits::FAILURES_FREE_PER_ADDRESS + 1),
            Throttle::Wait(limits::THROTTLE_FIRST * 2)
        );
        assert_eq!(at(u32::MAX), Throttle::Wait(limits::THROTTLE_MAX));
    }

    #[test]
    fn the_wait_runs_from_the_last_failure() {
        let failures = Failures {
            count: limits::FAILURES_FREE_PER_ADDRESS,
            since_last: limits::THROTTLE_FIRST,
        };
        assert_eq!(per_address(failures), Throttle::Free);
        let failures = Failures {
            since_last: Duration::from_secs(1),
            ..failures
        };
        assert_eq!(
            per_address(failures),
            Throttle::Wait(limits::THROTTLE_FIRST - Duration::from_secs(1))
        );
    }

    #[test]
    fn a_whole_school_may_mistype() {
        assert_eq!(
            per_conference(Failures {
                count: 299,
                since_last: Duration::ZERO
            }),
            Throttle::Free
        );
        assert_ne!(
            per_conference(Failures {
                count: 300,
                since_last: Duration::ZERO
            }),
            Throttle::Free
        );
    }
}
