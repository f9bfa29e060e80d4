// SPDX-License-Identifier: EUPL-1.2
//! Who gets how much of a path: one budget, shared among the subscriptions of a participant.
//!
//! Audio is not here: it is taken off the budget first and never given away. Films are classed by [`Importance`]. Within a class everybody
//! gets the lowest rung before anybody gets a second one. Down goes at once; up goes one rung at a time, with room to spare and not soon
//! after a change, so that a path that wavers does not make pictures jump.

use std::time::Duration;

use super::estimator::Bitrate;
use crate::limits::{RUNGS_MAX, SUBSCRIPTIONS_PER_TRANSPORT_MAX};
use crate::time::Timestamp;

/// A rung is entered when this share of what it costs is free besides.
const HEADROOM: f64 = 0.1;
/// A film goes up this long after its last change, at the earliest.
const REST: Duration = Duration::from_millis(1_500);
/// After it had to go down soon after it went up, it waits twice as long as the last time, at most this.
const REST_MAX: Duration = Duration::from_secs(24);
/// So soon after going up is a mistake.
const MISTAKE: Duration = Duration::from_secs(8);

/// How much a film matters to whom it is shown. The first in this order is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Importance {
    /// Pinned by its viewer (a sign-language interpreter) or a shared screen.
    Pinned,
    /// Of somebody who speaks.
    Speaker,
    /// Anybody else.
    Other,
}

/// One quality of a film and what it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rung {
    /// Encoding index, 0 = lowest.
    pub encoding: u8,
    /// Highest temporal layer.
    pub temporal: u8,
    /// Rate.
    pub rate: Bitrate,
}

/// Qualities of a film from the cheapest to the best: at most [`RUNGS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    rungs: [Rung; RUNGS_MAX],
    len: usize,
}

impl Ladder {
    /// From the rates of each encoding's temporal layers, lowest encoding first; a rate is that of the layer with all below it. Layers
    /// without a rate are not sent. For `Pinned` resolution falls before frame rate, so only whole encodings are rungs of it: sign
    /// language needs 20 frames per second more than it needs pixels.
    #[must_use]
    pub fn of(importance: Importance, encodings: &[&[Bitrate]], wish: (u8, u8)) -> Self {
        let mut ladder = Self::default();
        let (max_encoding, max_temporal) = wish;
        for (encoding, layers) in encodings.iter().enumerate() {
            if encoding > usize::from(max_encoding) && ladder.len > 0 {
                break;
            }
            let alive = layers.iter().rposition(|rate| *rate > Bitrate::ZERO);
            let Some(highest) = alive.map(|highest| highest.min(usize::from(max_temporal))) else {
                continue;
            };
            for (temporal, rate) in layers.iter().enumerate().take(highest + 1) {
                if temporal < highest && importance == Importance::Pinned {
                    continue;
                }
                ladder.push(Rung {
                    encoding: encoding as u8,
                    temporal: if temporal == highest {
                        max_temporal
                    } else {
                        temporal as u8
                    },
                    rate: *rate,
                });
            }
        }
        ladder
    }

    /// Rungs that cost no more than one below them in place of it, others on top.
    fn push(&mut self, rung: Rung) {
        while self.len > 0 && self.rungs[self.len - 1].rate >= rung.rate {
            self.len -= 1;
        }
        if self.len < RUNGS_MAX {
            self.rungs[self.len] = rung;
            self.len += 1;
        }
    }

    /// Cheapest first.
    #[must_use]
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs[..self.len]
    }

    /// Rate of so many rungs; nothing for none.
    fn rate(&self, height: u8) -> Bitrate {
        height
            .checked_sub(1)
            .and_then(|top| self.rungs().get(usize::from(top)))
            .map_or(Bitrate::ZERO, |rung| rung.rate)
    }
}

/// What a film had, remembered between two allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Rungs; 0 = paused.
    height: u8,
    rung: Option<Rung>,
    rose_at: Option<Timestamp>,
    changed_at: Option<Timestamp>,
    rest: Option<Duration>,
}

impl Standing {
    /// What is to be forwarded; `None` = paused because there is no room for it.
    #[must_use]
    pub fn rung(&self) -> Option<Rung> {
        self.rung
    }

    /// What is shown for the first time needs no rest: a black tile is worse than a change.
    fn may_rise(&self, now: Timestamp) -> bool {
        self.changed_at
            .is_none_or(|changed| now.since(changed) >= self.rest.unwrap_or(REST))
    }

    fn settle(&mut self, now: Timestamp, ladder: &Ladder, height: u8) {
        let before = self.height;
        self.height = height;
        self.rung = height
            .checked_sub(1)
            .and_then(|top| ladder.rungs().get(usize::from(top)))
            .copied();
        if height > before {
            self.rose_at = Some(now);
            self.changed_at = Some(now);
        } else if height < before {
            let mistake = self.rose_at.is_some_and(|rose| now.since(rose) < MISTAKE);
            let rest = self.rest.unwrap_or(REST);
            self.rest = Some(if mistake {
                (rest * 2).min(REST_MAX)
            } else {
                REST
            });
            self.changed_at = Some(now);
        }
    }
}

/// One film that somebody wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// How much it matters.
    pub importance: Importance,
    /// What it can be had in.
    pub ladder: Ladder,
    /// What it had, and then what it has.
    pub standing: Standing,
}

/// What came of an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rate of everything that was given.
    pub given: Bitrate,
    /// Rate of everything that is wanted: to be looked for by probes.
    pub wanted: Bitrate,
    /// Films that are paused for want of room.
    pub paused: usize,
    /// Some film may go up when it has rested: look again then.
    pub again: Option<Timestamp>,
}

/// Shares `budget` among claims, in place. O(claims × rungs), no allocation. Claims beyond [`SUBSCRIPTIONS_PER_TRANSPORT_MAX`] are paused.
pub fn allocate(now: Timestamp, budget: Bitrate, claims: &mut [Claim]) -> Outcome {
    let mut heights = [0_u8; SUBSCRIPTIONS_PER_TRANSPORT_MAX];
    let mut outcome = Outcome::default();
    let mut left = budget;
    for importance in [Importance::Pinned, Importance::Speaker, Importance::Other] {
        share(now, importance, &mut left, claims, &mut heights);
    }
    for (index, claim) in claims.iter_mut().enumerate() {
        let height = heights.get(index).copied().unwrap_or(0);
        let top = claim.ladder.len as u8;
        claim.standing.settle(now, &claim.ladder, height);
        outcome.given = outcome.given + claim.ladder.rate(height);
        outcome.wanted = outcome.wanted + claim.ladder.rate(top);
        outcome.paused += usize::from(height == 0 && top > 0);
        if height < top
            && let Some(changed) = claim.standing.changed_at
        {
            let at = changed + claim.standing.rest.unwrap_or(REST);
            if at > now {
                outcome.again = Some(outcome.again.map_or(at, |again| again.min(at)));
            }
        }
    }
    outcome
}

/// One class: rung by rung, everybody's first before anybody's second.
fn share(
    now: Timestamp,
    importance: Importance,
    left: &mut Bitrate,
    claims: &[Claim],
    heights: &mut [u8; SUBSCRIPTIONS_PER_TRANSPORT_MAX],
) {
    for height in 1..=RUNGS_MAX as u8 {
        for (claim, reached) in claims.iter().zip(heights.iter_mut()) {
            if claim.importance != importance
                || *reached + 1 != height
                || usize::from(height) > claim.ladder.len
            {
                continue;
            }
            let step = claim.ladder.rate(height) - claim.ladder.rate(height - 1);
            let rises = height > claim.standing.height;
            if rises {
                let one_at_a_time = height == claim.standing.height + 1;
                let headroom = claim.ladder.rate(height).scaled(HEADROOM);
                let rested = claim.standing.may_rise(now);
                if !one_at_a_time || !rested || step + headroom > *left {
                    continue;
                }
            } else if step > *left {
                continue;
            }
            *left = *left - step;
            *reached = height;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kbit(kbit: u64) -> Bitrate {
        Bitrate::from_kbit(kbit)
    }

    /// A camera of three encodings with three temporal layers each.
    fn camera(importance: Importance) -> Claim {
        let low = [kbit(60), kbit(90), kbit(150)];
        let middle = [kbit(200), kbit(300), kbit(500)];
        let high = [kbit(700), kbit(1_100), kbit(1_700)];
        Claim {
            importance,
            ladder: Ladder::of(importance, &[&low, &middle, &high], (2, u8::MAX)),
            standing: Standing::default(),
        }
    }

    /// Lets time pass until nothing changes.
    fn settle(now: &mut Timestamp, budget: Bitrate, claims: &mut [Claim]) -> Outcome {
        let mut outcome = Outcome::default();
        for _ in 0..40 {
            outcome = allocate(*now, budget, claims);
            *now = *now + Duration::from_secs(2);
        }
        outcome
    }

    fn heights(claims: &[Claim]) -> Vec<u8> {
        claims.iter().map(|claim| claim.standing.height).collect()
    }

    #[test]
    fn everybody_is_seen_before_anybody_is_seen_better() {
        let mut claims = [camera(Importance::Other); 4];
        let mut now = Timestamp::ZERO;
        settle(&mut now, kbit(270), &mut claims);
        assert_eq!(heights(&claims), [1, 1, 1, 1]);
        let outcome = settle(&mut now, kbit(140), &mut claims);
        assert_eq!(heights(&claims), [1, 1, 0, 0]);
        assert_eq!(outcome.paused, 2);
    }

    #[test]
    fn who_is_pinned_keeps_the_best_while_others_are_paused() {
        let mut claims = [
            camera(Importance::Other),
            camera(Importance::Speaker),
            camera(Importance::Pinned),
        ];
        let mut now = Timestamp::ZERO;
        settle(&mut now, kbit(2_200), &mut claims);
        let rung = claims[2].standing.rung().expect("shown");
        assert_eq!(rung.encoding, 2);
        settle(&mut now, kbit(700), &mut claims);
        let rung = claims[2].standing.rung().expect("shown");
        assert_eq!(
            (rung.encoding, rung.temporal),
            (1, u8::MAX),
            "all frames, fewer pixels"
        );
        assert!(claims[1].standing.height >= claims[0].standing.height);
    }

    #[test]
    fn up_goes_one_rung_at_a_time_and_down_at_once() {
        let mut claims = [camera(Importance::Other)];
        let mut now = Timestamp::ZERO;
        let mut seen = Vec::new();
        for _ in 0..4 {
            allocate(now, kbit(5_000), &mut claims);
            seen.push(claims[0].standing.height);
            now = now + Duration::from_millis(500);
        }
        assert_eq!(seen, [1, 1, 1, 2]);
        settle(&mut now, kbit(5_000), &mut claims);
        let top = claims[0].ladder.len as u8;
        assert_eq!(heights(&claims), [top]);
        allocate(now, kbit(100), &mut claims);
        assert_eq!(heights(&claims), [2]);
    }

    #[test]
    fn a_budget_that_wavers_around_a_rung_does_not_make_the_picture_jump() {
        let mut claims = [camera(Importance::Other)];
        let mut now = Timestamp::ZERO;
        settle(&mut now, kbit(520), &mut claims);
        let mut changes = 0;
        let mut before = claims[0].standing.height;
        for step in 0..600 {
            let budget = if step % 20 < 10 { kbit(480) } else { kbit(780) };
            allocate(now, budget, &mut claims);
            now = now + Duration::from_millis(200);
            changes += u32::from(claims[0].standing.height != before);
            before = claims[0].standing.height;
        }
        assert!(changes <= 24, "{changes} changes in two minutes");
    }

    #[test]
    fn what_nobody_wants_is_no_rung_and_what_is_not_sent_neither() {
        let low = [kbit(150)];
        let none = [Bitrate::ZERO];
        let high = [kbit(1_700)];
        let ladder = Ladder::of(Importance::Other, &[&low, &none, &high], (1, u8::MAX));
        assert_eq!(ladder.rungs().len(), 1);
        let ladder = Ladder::of(Importance::Other, &[&none, &none, &high], (0, u8::MAX));
        assert_eq!(
            ladder.rungs()[0].encoding,
            2,
            "better one too good than none"
        );
        assert_eq!(Ladder::of(Importance::Other, &[], (2, 2)).rungs().len(), 0);
    }

    proptest! {
        /// Never more than the budget; never a class at the cost of a more important one; and what is wanted is known.
        #[test]
        fn a_budget_holds_and_importance_comes_first(
            budgets in proptest::collection::vec(0_u64..6_000, 1..40),
            importances in proptest::collection::vec(0_u8..3, 1..12),
        ) {
            let classes = [Importance::Pinned, Importance::Speaker, Importance::Other];
            let mut claims: Vec<Claim> = importances
                .iter()
                .map(|class| camera(classes[usize::from(*class)]))
                .collect();
            let mut now = Timestamp::ZERO;
            for budget in budgets {
                let outcome = allocate(now, kbit(budget), &mut claims);
                prop_assert!(outcome.given <= kbit(budget));
                let first = claims.iter().map(|claim| claim.importance).min();
                for claim in &claims {
                    // Whoever is shown although somebody more important is not: there was no room for that one's first rung.
                    if claim.standing.height > 0 && Some(claim.importance) != first {
                        let unseen = claims.iter().find(|other| {
                            other.importance < claim.importance && other.standing.height == 0
                        });
                        if let Some(unseen) = unseen {
                            let cost = unseen.ladder.rate(1).scaled(1.1);
                            let rests = !unseen.standing.may_rise(now);
                            prop_assert!(rests || cost > kbit(budget) - outcome.given);
                        }
                    }
                }
                now = now + Duration::from_millis(700);
            }
        }
    }
}
