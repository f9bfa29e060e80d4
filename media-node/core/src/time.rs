// SPDX-License-Identifier: EUPL-1.2
//! Time as an argument: the core never reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on the node's monotonic clock, in nanoseconds since an arbitrary start that all shards of a node share.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The arbitrary start.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds since the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From milliseconds since the start.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the start.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        // In 64 bits: durations here are far below the 584 years that fit, and this runs per packet.
        Self(
            self.0.saturating_add(
                duration
                    .as_secs()
                    .saturating_mul(1_000_000_000)
                    .saturating_add(u64::from(duration.subsec_nanos())),
            ),
        )
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// Ties the monotonic clock to wall time, for the NTP fields of sender reports (RFC 3550 §6.4.1) and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallAnchor {
    /// The monotonic instant.
    pub at: Timestamp,
    /// Nanoseconds since the Unix epoch at that instant.
    pub unix_nanos: u64,
}

impl WallAnchor {
    /// 64-bit NTP timestamp (32.32 fixed point since 1900) of `now`.
    #[must_use]
    pub fn ntp(&self, now: Timestamp) -> u64 {
        const NTP_UNIX_OFFSET_SECONDS: u64 = 2_208_988_800;
        let unix = self
            .unix_nanos
            .saturating_add(now.as_nanos())
            .saturating_sub(self.at.as_nanos());
        let seconds = unix / 1_000_000_000 + NTP_UNIX_OFFSET_SECONDS;
        let fraction = ((unix % 1_000_000_000) << 32) / 1_000_000_000;
        seconds << 32 | fraction
    }
}
