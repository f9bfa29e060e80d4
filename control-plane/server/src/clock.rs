// SPDX-License-Identifier: EUPL-1.2
//! The two clocks of the shell: a monotonic one for leases, the wall clock for tokens and schedules.
//!
//! Wall time is read from the machine once, at the start, and counted on from there: a clock that jumps by an hour opens no conference
//! early and refuses nobody's token. How it is brought back to the machine's clock, and when not, is decided in [`steer`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control_core::ids::Uid;
use control_core::time::{Moment, UnixMillis};
use rustix::time::{ClockId, clock_gettime};

pub mod steer;

use steer::{Reading, Steering, Verdict};

/// What a witness said counts for this long.
const WITNESS: Duration = Duration::from_secs(10);
/// Witnesses heard at a time; more nodes add nothing.
const WITNESSES_MAX: usize = 64;
/// The clocks are compared this often.
pub const COMPARE: Duration = Duration::from_secs(1);

/// Clocks of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// Shared by all copies; there is one per process, and it is needed to its end.
    wall: &'static Wall,
}

#[derive(Debug)]
struct Wall {
    /// Milliseconds of the Unix epoch at which the counting began.
    base: AtomicI64,
    /// Where the counter stood then.
    counted_from: i64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    steering: Option<Steering>,
    witnesses: BTreeMap<Uid, Witness>,
}

#[derive(Clone, Copy, Debug)]
struct Witness {
    /// The base that this replica would have by the witness's clock.
    base: i64,
    heard: i64,
}

impl Wall {
    /// Milliseconds counted since the start, those of a suspended machine among them.
    fn counted(&self) -> i64 {
        counter().saturating_sub(self.counted_from)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // It is changed by whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel's counter that no setting of the clock moves and that goes on while the machine is suspended.
fn counter() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec
        .saturating_mul(1_000)
        .saturating_add(time.tv_nsec / 1_000_000)
}

/// The machine's clock.
fn system() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Clock {
    /// Begins to count.
    #[must_use]
    pub fn start() -> Self {
        let wall = Box::leak(Box::new(Wall {
            base: AtomicI64::new(system()),
            counted_from: counter(),
            state: Mutex::default(),
        }));
        Self {
            origin: Instant::now(),
            wall,
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
        let base = self.wall.base.load(Ordering::Acquire);
        UnixMillis(base.saturating_add(self.wall.counted()))
    }

    /// What a node says its machine's clock shows.
    pub fn hear(&self, witness: &Uid, unix_ms: i64) {
        let heard = self.wall.counted();
        let mut state = self.wall.state();
        if state.witnesses.len() >= WITNESSES_MAX && !state.witnesses.contains_key(witness) {
            return;
        }
        state.witnesses.insert(
            witness.clone(),
            Witness {
                base: unix_ms.saturating_sub(heard),
                heard,
            },
        );
    }

    /// Compares the clocks, and corrects this one where there is reason to.
    pub fn compare(&self) -> Verdict {
        self.compare_with(system())
    }

    fn compare_with(&self, system: i64) -> Verdict {
        let counted = self.wall.counted();
        let mut state = self.wall.state();
        let oldest = counted.saturating_sub(i64::try_from(WITNESS.as_millis()).unwrap_or(i64::MAX));
        state.witnesses.retain(|_, witness| witness.heard >= oldest);
        let witnesses: Vec<i64> = state
            .witnesses
            .values()
            .map(|witness| witness.base)
            .collect();
        let base = self.wall.base.load(Ordering::Acquire);
        let steering = state
            .steering
            .get_or_insert_with(|| Steering::begin(base, 0));
        let verdict = steering.steer(&Reading {
            counted,
            system: system.saturating_sub(counted),
            witnesses: &witnesses,
        });
        self.wall.base.store(steering.base(), Ordering::Release);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_the_machines_at_the_start_and_goes_on_by_itself() {
        let clock = Clock::start();
        let (before, wall, after) = (system(), clock.unix().0, system());
        assert!((before - 1_000..=after + 1_000).contains(&wall));
        let hour = 3_600_000;
        for jump in [hour, -hour] {
            clock.compare_with(system() + jump);
            let apart = clock.unix().0 - system();
            assert!(apart.abs() < 60_000, "{apart}");
        }
    }

    #[test]
    fn a_witness_that_is_not_heard_any_more_does_not_count() {
        let clock = Clock::start();
        let uid = Uid::parse("n1").expect("uid");
        clock.hear(&uid, system());
        clock
            .wall
            .state()
            .witnesses
            .get_mut(&uid)
            .expect("heard")
            .heard -= 60_000;
        let _ = clock.compare_with(system());
        assert!(clock.wall.state().witnesses.is_empty());
    }
}
