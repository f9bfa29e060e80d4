// SPDX-License-Identifier: EUPL-1.2
//! The node's one clock: everything below the shell gets time as an argument, and this is where it comes from.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media_core::time::{Timestamp, WallAnchor};

/// Monotonic time that all shards and rooms of a node share.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
    unix_nanos: u64,
}

impl Clock {
    /// Starts now. The first reading is one second, so that `now - 1 s` never meets the lower end.
    #[must_use]
    pub fn start() -> Self {
        let lead = Duration::from_secs(1);
        let instant = Instant::now();
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let base = instant.checked_sub(lead).unwrap_or(instant);
        let unix = unix.saturating_sub(instant - base);
        Self {
            base,
            unix_nanos: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// What the machine's clock shows at this moment, wherever it jumped since the start; for those who ask several machines.
    #[must_use]
    pub fn machine_unix_ms() -> i64 {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(unix.as_millis()).unwrap_or(i64::MAX)
    }

    /// Which machine this is, as its kernel names its boot; empty where it does not say.
    #[must_use]
    pub fn machine() -> String {
        let name = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        name.trim().to_owned()
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.base.elapsed()
    }

    /// The `Instant` of a timestamp, for timers.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.base + at.since(Timestamp::ZERO)
    }

    /// Ties the clock to wall time, read once at start.
    #[must_use]
    pub fn wall(&self) -> WallAnchor {
        WallAnchor {
            at: Timestamp::ZERO,
            unix_nanos: self.unix_nanos,
        }
    }

    /// Wall time of `now`, milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(&self, now: Timestamp) -> u64 {
        (self.unix_nanos.saturating_add(now.as_nanos())) / 1_000_000
    }
}
