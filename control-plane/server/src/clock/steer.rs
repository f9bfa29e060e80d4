// SPDX-License-Identifier: EUPL-1.2
//! Whom to believe about the time of day: pure, with the readings as arguments.
//!
//! Three can be right: the time this replica has counted on since its start, the clock of its machine, and the clocks of other machines, as
//! the nodes on them say. Everything is compared as a *base*: the wall time at which this replica's counter stood at zero. Bases of clocks
//! that run evenly do not change; a jump moves one of them.
//!
//! * The machine's clock is near: it is followed, by a hundredth of the time at most. That is the daily work of a time service.
//! * It is far, and more nodes agree with what was counted than with it: it jumped. Nothing happens.
//! * It is far, and most nodes agree with it: what was counted is wrong. The machine was suspended in a way that its counter did not see, or
//!   its clock was wrong when this replica started and was set right since. The time is taken over at once: what is refused meanwhile,
//!   clients take as final.
//! * It is far, and there is nobody to ask: a jump may be somebody's mistake, which is mended within minutes. If it stays the same for
//!   ten minutes it is what this machine is to go by, and is taken over. Nothing is skipped by that: whether a conference may be open is
//!   looked at, not waited for.
//! * The machine and the counted time agree, and most nodes say otherwise: the clock was wrong at the start and still is. That is said aloud
//!   and shown as a metric; this replica alone cannot know whether its machine or theirs is to be set.

/// Clocks nearer than this agree.
pub const NEAR_MS: i64 = 2_000;
/// A clock that stays far for this long, with nobody to ask, is taken over.
pub const HELD_MS: i64 = 600_000;
/// A near clock is followed by this part of the time that passes.
const FOLLOW_NEAR: i64 = 100;

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Milliseconds counted since the start.
    pub counted: i64,
    /// Base by the machine's clock.
    pub system: i64,
    /// Bases by the clocks of nodes that were heard lately.
    pub witnesses: &'a [i64],
}

/// What became of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All agree, as far as they are heard.
    Agreed,
    /// The machine's clock is far off by these milliseconds, and is not followed.
    Held(i64),
    /// The machine's clock was taken over; the time changed by these milliseconds.
    Taken(i64),
    /// Most nodes are off by these milliseconds, and the machine agrees with this replica.
    Doubted(i64),
}

impl Verdict {
    /// How far others are from this replica's time, in milliseconds.
    #[must_use]
    pub const fn offset_ms(self) -> i64 {
        match self {
            Self::Agreed => 0,
            Self::Held(by) | Self::Taken(by) | Self::Doubted(by) => by,
        }
    }
}

/// The base in force, and how long the machine's has been far from it.
#[derive(Clone, Copy, Debug)]
pub struct Steering {
    base: i64,
    counted: i64,
    /// Base of the machine's clock when it went away, and when that was.
    away: Option<(i64, i64)>,
}

impl Steering {
    /// Begins with a base.
    #[must_use]
    pub const fn begin(base: i64, counted: i64) -> Self {
        Self {
            base,
            counted,
            away: None,
        }
    }

    /// The base in force.
    #[must_use]
    pub const fn base(&self) -> i64 {
        self.base
    }

    /// Takes a reading.
    pub fn steer(&mut self, reading: &Reading<'_>) -> Verdict {
        let passed = reading.counted.saturating_sub(self.counted).max(0);
        self.counted = reading.counted;
        let off = reading.system.saturating_sub(self.base);
        let agree = |with: i64| {
            let near = |base: &&i64| base.saturating_sub(with).saturating_abs() <= NEAR_MS;
            reading.witnesses.iter().filter(near).count()
        };
        if off.saturating_abs() <= NEAR_MS {
            self.away = None;
            self.follow(off, passed / FOLLOW_NEAR);
            return match median(reading.witnesses) {
                Some(theirs) if 2 * agree(theirs) > reading.witnesses.len() => {
                    let off = theirs.saturating_sub(self.base);
                    // A little more than near: the report was on its way.
                    if off.saturating_abs() > 2 * NEAR_MS {
                        Verdict::Doubted(off)
                    } else {
                        Verdict::Agreed
                    }
                }
                _ => Verdict::Agreed,
            };
        }
        let (for_machine, for_own) = (agree(reading.system), agree(self.base));
        if for_machine > for_own && 2 * for_machine > reading.witnesses.len() {
            return self.take(reading.system);
        }
        let since = match self.away {
            Some((base, since))
                if base.saturating_sub(reading.system).saturating_abs() <= NEAR_MS =>
            {
                since
            }
            _ => {
                self.away = Some((reading.system, reading.counted));
                reading.counted
            }
        };
        if reading.witnesses.is_empty() && reading.counted.saturating_sub(since) >= HELD_MS {
            return self.take(reading.system);
        }
        Verdict::Held(off)
    }

    fn take(&mut self, system: i64) -> Verdict {
        let off = system.saturating_sub(self.base);
        self.base = system;
        self.away = None;
        Verdict::Taken(off)
    }

    fn follow(&mut self, off: i64, most: i64) {
        self.base = self.base.saturating_add(off.clamp(-most, most));
    }
}

fn median(bases: &[i64]) -> Option<i64> {
    let mut sorted = bases.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;
    const START: i64 = 1_800_000_000_000;

    /// Steers for some seconds, with the machine's clock off by `system` and these nodes.
    fn run(steering: &mut Steering, seconds: i64, system: i64, nodes: &[i64]) -> Verdict {
        let nodes: Vec<i64> = nodes.iter().map(|off| START + off).collect();
        let mut verdict = Verdict::Agreed;
        for _ in 0..seconds {
            verdict = steering.steer(&Reading {
                counted: steering.counted + 1_000,
                system: START + system,
                witnesses: &nodes,
            });
        }
        verdict
    }

    fn begun() -> Steering {
        Steering::begin(START, 0)
    }

    #[test]
    fn a_jump_of_one_machine_changes_nothing_while_the_nodes_know_better() {
        for jump in [HOUR, -HOUR] {
            let mut steering = begun();
            let verdict = run(&mut steering, 24 * 3_600, jump, &[3, -4, 5]);
            assert_eq!(verdict, Verdict::Held(jump));
            assert_eq!(steering.base(), START);
            assert_eq!(run(&mut steering, 1, 0, &[3, -4, 5]), Verdict::Agreed);
        }
    }

    #[test]
    fn a_jump_that_is_mended_within_ten_minutes_changes_nothing_with_nobody_to_ask() {
        for jump in [HOUR, -HOUR] {
            let mut steering = begun();
            for _ in 0..5 {
                assert_eq!(run(&mut steering, 599, jump, &[]), Verdict::Held(jump));
                assert_eq!(run(&mut steering, 1, 0, &[]), Verdict::Agreed);
            }
            assert_eq!(steering.base(), START);
        }
    }

    #[test]
    fn a_clock_that_stays_is_taken_over_with_nobody_to_ask() {
        for jump in [HOUR, -HOUR] {
            let mut steering = begun();
            assert_eq!(run(&mut steering, 600, jump, &[]), Verdict::Held(jump));
            assert_eq!(run(&mut steering, 1, jump, &[]), Verdict::Taken(jump));
            assert_eq!(run(&mut steering, 1, jump, &[]), Verdict::Agreed);
            assert_eq!(steering.base(), START + jump);
        }
        // A clock that wanders is not one that stays.
        let mut steering = begun();
        for minute in 0..60 {
            run(&mut steering, 60, HOUR + minute * 60_000, &[]);
        }
        assert_eq!(steering.base(), START);
    }

    #[test]
    fn after_a_pause_that_no_counter_saw_the_nodes_say_that_the_machine_is_right() {
        let mut steering = begun();
        assert_eq!(
            run(&mut steering, 1, HOUR, &[HOUR, HOUR + 100, 0]),
            Verdict::Taken(HOUR)
        );
        assert_eq!(steering.base(), START + HOUR);
        assert_eq!(
            run(&mut steering, 1, HOUR, &[HOUR, HOUR + 100]),
            Verdict::Agreed
        );
    }

    #[test]
    fn a_clock_that_was_wrong_at_the_start_is_named_and_taken_over_when_it_is_set_right() {
        let mut steering = begun();
        assert_eq!(
            run(&mut steering, 5, 0, &[HOUR, HOUR, HOUR - 50]),
            Verdict::Doubted(HOUR)
        );
        assert_eq!(steering.base(), START);
        assert_eq!(
            run(&mut steering, 1, HOUR, &[HOUR, HOUR, HOUR - 50]),
            Verdict::Taken(HOUR)
        );
    }

    #[test]
    fn nodes_that_disagree_with_each_other_decide_nothing() {
        let mut steering = begun();
        let apart = [HOUR, 2 * HOUR, 3 * HOUR, -HOUR];
        assert_eq!(run(&mut steering, 60, HOUR, &apart), Verdict::Held(HOUR));
        assert_eq!(run(&mut steering, 60, 0, &apart), Verdict::Agreed);
        assert_eq!(steering.base(), START);
    }

    #[test]
    fn the_daily_work_of_a_time_service_is_followed() {
        let mut steering = begun();
        run(&mut steering, 200, 1_500, &[1_500]);
        assert_eq!(steering.base(), START + 1_500);
    }

    proptest! {
        /// Whatever the clocks show: time goes on evenly but where most other machines, or ten minutes, speak for another one.
        #[test]
        fn time_goes_on_evenly_unless_others_speak_for_another_one(
            readings in proptest::collection::vec((1_i64..5_000, any::<i64>(), proptest::collection::vec(any::<i64>(), 0..4)), 0..200),
        ) {
            let mut steering = begun();
            for (passed, system, witnesses) in readings {
                let before = steering.base();
                let verdict = steering.steer(&Reading { counted: steering.counted + passed, system, witnesses: &witnesses });
                let moved = steering.base().saturating_sub(before);
                match verdict {
                    Verdict::Taken(by) => {
                        let near = |base: &&i64| base.saturating_sub(system).saturating_abs() <= NEAR_MS;
                        let agree = witnesses.iter().filter(near).count();
                        prop_assert!(2 * agree > witnesses.len() || (witnesses.is_empty() && steering.counted >= HELD_MS));
                        prop_assert_eq!(moved, by);
                    }
                    _ => prop_assert!(moved.abs() <= passed / 100),
                }
            }
        }
    }
}
