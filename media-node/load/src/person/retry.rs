// SPDX-License-Identifier: EUPL-1.2
//! When a client whose signalling broke tries again: pure.

use std::time::Duration;

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The default of LiveKit's JavaScript SDK: ten attempts.
    Sdk,
    /// The own page: three minutes.
    Page,
}

const SDK_MS: [u64; 10] = [
    0, 300, 1_200, 2_700, 4_800, 7_000, 7_000, 7_000, 7_000, 7_000,
];
/// As in the page's `retry.ts`.
const PAGE_FIRST_MS: u64 = 300;
const PAGE_MOST_MS: u64 = 5_000;
const PAGE_PATIENCE: Duration = Duration::from_secs(180);

impl Policy {
    /// Wait before attempt number `attempt` (from 0), `elapsed` after the break; `None` gives up. `random` is in 0..1.
    #[must_use]
    pub fn delay(self, attempt: u32, elapsed: Duration, random: f64) -> Option<Duration> {
        let spread = |base: u64| Duration::from_millis(base).mul_f64(0.5 + random);
        match self {
            Self::Sdk => match *SDK_MS.get(attempt as usize)? {
                0 => Some(Duration::from_millis(500).mul_f64(random)),
                base => Some(spread(base)),
            },
            Self::Page if elapsed >= PAGE_PATIENCE => None,
            Self::Page => Some(spread(
                PAGE_MOST_MS.min(PAGE_FIRST_MS << u64::from(attempt.min(16))),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sdk_bridges_twenty_seconds_and_gives_up_within_a_minute() {
        for random in [0.0, 0.5, 0.999] {
            let delays: Vec<Duration> = (0..20)
                .map_while(|attempt| Policy::Sdk.delay(attempt, Duration::ZERO, random))
                .collect();
            assert_eq!(delays.len(), 10);
            let total: Duration = delays.iter().sum();
            assert!(
                total >= Duration::from_secs(20) && total < Duration::from_secs(70),
                "{total:?}"
            );
        }
    }

    #[test]
    fn the_page_waits_for_longer_than_a_room_keeps_a_person() {
        assert!(
            Policy::Page
                .delay(40, Duration::from_secs(130), 0.9)
                .is_some()
        );
        assert_eq!(Policy::Page.delay(0, Duration::from_secs(180), 0.5), None);
        assert!(
            Policy::Page.delay(4_000, Duration::ZERO, 0.999) <= Some(Duration::from_millis(7_500))
        );
    }
}
