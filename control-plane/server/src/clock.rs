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
/// Longest name of a machine.
const MACHINE_BYTES_MAX: usize = 64;
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
    /// Which machine this is; empty where the kernel does not say.
    machine: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    steering: Option<Steering>,
    /// By machine: one has one clock, however many nodes it runs.
    witnesses: BTreeMap<String, Witness>,
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

/// Which machine this is, as its kernel names its boot.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    name.trim().to_owned()
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
            machine: machine(),
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

    /// What a node says its machine's clock shows. One on this replica's own machine knows no more than the replica does.
    pub fn hear(&self, node: &Uid, machine: &str, unix_ms: i64) {
        if !machine.is_empty() && machine == self.wall.machine {
            return;
        }
        let machine = if machine.is_empty() || machine.len() > MACHINE_BYTES_MAX {
            node.to_string()
        } else {
            machine.to_owned()
        };
        let heard = self.wall.counted();
        let mut state = self.wall.state();
        if state.witnesses.len() >= WITNESSES_MAX && !state.witnesses.contains_key(&machine) {
            return;
        }
        state.witnesses.insert(
            machine,
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
        clock.hear(&uid, "elsewhere", system());
        let aged = |clock: &Clock| {
            let mut state = clock.wall.state();
            state.witnesses.get_mut("elsewhere").expect("heard").heard -= 60_000;
        };
        aged(&clock);
        let _ = clock.compare_with(system());
        assert!(clock.wall.state().witnesses.is_empty());
    }

    #[test]
    fn a_machine_is_one_witness_and_this_one_is_none() {
        let clock = Clock::start();
        let node = |name: &str| Uid::parse(name).expect("uid");
        for name in ["n1", "n2"] {
            clock.hear(&node(name), "elsewhere", system());
            clock.hear(&node(name), "", system());
            clock.hear(&node(name), &machine(), system() + 3_600_000);
        }
        let state = clock.wall.state();
        let names: Vec<&str> = state.witnesses.keys().map(String::as_str).collect();
        assert_eq!(names, ["elsewhere", "n1", "n2"]);
    }
}
