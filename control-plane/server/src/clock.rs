// SPDX-License-Identifier: EUPL-1.2
//! The two clocks of the shell: a monotonic one for leases, the wall clock for tokens and schedules.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use control_core::time::{Moment, UnixMillis};

/// Clocks of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Begins to count.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::from_millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Wall time.
    #[must_use]
    pub fn unix(&self) -> UnixMillis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
