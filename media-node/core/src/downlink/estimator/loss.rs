// SPDX-License-Identifier: EUPL-1.2
//! What loss says of a path (draft-ietf-rmcat-gcc-02 §6), and what it does not: a radio loses packets at any rate, and to send less does
//! not help there.

use std::time::Duration;

use super::Bitrate;
use crate::time::Timestamp;

/// Below this share of loss the bound rises.
const LITTLE: f64 = 0.02;
/// Above this share it falls.
const MUCH: f64 = 0.10;
/// A share is judged after so many packets and so long.
const PACKETS_MIN: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(500);
/// Between two falls, on top of the round trip: the first has to show its effect.
const PAUSE: Duration = Duration::from_millis(300);
/// Rise of the bound in an interval with little loss.
const RISE: f64 = 1.05;
/// After the rate fell to this part, loss that does not fall to [`HELPED`] of itself is the path's own.
const FELL: f64 = 0.75;
const HELPED: f64 = 0.7;
/// The path's own share is forgotten at this pace per interval.
const FORGET: f64 = 0.98;

/// The bound that loss sets.
#[derive(Clone, Debug, Default)]
pub(super) struct LossBound {
    received: u32,
    lost: u32,
    since: Option<Timestamp>,
    fell_at: Option<Timestamp>,
    bound: Option<Bitrate>,
    /// Rate and loss when it began to fall.
    before: Option<(Bitrate, f64)>,
    /// Share of loss that has nothing to do with the rate.
    own: f64,
    share: f64,
}

impl LossBound {
    /// Packets that came and packets that did not, by one feedback message.
    pub(super) fn heard(&mut self, received: u32, lost: u32) {
        self.received += received;
        self.lost += lost;
    }

    /// Packets that were thought lost and came after all.
    pub(super) fn came_late(&mut self, packets: u32) {
        self.lost = self.lost.saturating_sub(packets);
        self.received += packets;
    }

    /// Judges what was heard; `estimate` is what delay says.
    pub(super) fn judge(&mut self, now: Timestamp, estimate: Bitrate, rtt: Duration) {
        let since = *self.since.get_or_insert(now);
        let packets = self.received + self.lost;
        if now.since(since) < INTERVAL || packets < PACKETS_MIN {
            return;
        }
        let share = f64::from(self.lost) / f64::from(packets);
        (self.received, self.lost, self.since) = (0, 0, Some(now));
        self.share = share;
        self.own *= FORGET;
        let target = self.bound.map_or(estimate, |bound| bound.min(estimate));
        if let Some((rate, loss)) = self.before
            && target < rate.scaled(FELL)
        {
            if share > loss * HELPED {
                self.own = share;
                self.bound = None;
            }
            self.before = None;
        }
        let excess = ((share - self.own) / (1.0 - self.own).max(0.01)).max(0.0);
        if excess > MUCH {
            let paused = self
                .fell_at
                .is_none_or(|fell| now.since(fell) >= PAUSE + rtt);
            if paused {
                self.before.get_or_insert((target, share));
                self.fell_at = Some(now);
                self.bound = Some(target.scaled(1.0 - excess / 2.0));
            }
        } else if excess < LITTLE {
            self.before = None;
            // A bound far above what delay allows is none.
            self.bound = self
                .bound
                .map(|bound| bound.scaled(RISE))
                .filter(|bound| *bound < estimate * 2);
        }
    }

    /// The bound, if loss sets one.
    #[must_use]
    pub(super) fn bound(&self) -> Option<Bitrate> {
        self.bound
    }

    /// Share of packets lost in the last interval, 0.0..=1.0.
    #[must_use]
    pub(super) fn share(&self) -> f64 {
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATE: Bitrate = Bitrate::from_kbit(1_000);
    const RTT: Duration = Duration::from_millis(50);

    /// Runs for `seconds`; `loss` gives the share at a rate.
    fn run(bound: &mut LossBound, seconds: u64, loss: impl Fn(Bitrate) -> f64) -> Bitrate {
        let from = bound.since.unwrap_or(Timestamp::ZERO);
        let mut rate = ESTIMATE;
        for step in 1..=seconds * 10 {
            let now = from + Duration::from_millis(step * 100);
            rate = bound.bound().map_or(ESTIMATE, |bound| bound.min(ESTIMATE));
            let lost = (loss(rate) * 100.0).round() as u32;
            bound.heard(100 - lost, lost);
            bound.judge(now, ESTIMATE, RTT);
        }
        rate
    }

    #[test]
    fn a_path_that_drops_what_is_too_much_is_believed() {
        let mut bound = LossBound::default();
        let capacity = 500_000.0;
        let over = |rate: Bitrate| (1.0 - capacity / rate.bits_per_second() as f64).max(0.0);
        let rate = run(&mut bound, 30, over).bits_per_second();
        assert!((400_000..=560_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_radio_that_loses_a_fifth_at_any_rate_starves_nobody() {
        let mut bound = LossBound::default();
        let rate = run(&mut bound, 60, |_| 0.2);
        assert!(rate >= ESTIMATE.scaled(0.6), "{rate:?}");
    }

    #[test]
    fn five_percent_changes_nothing_and_the_bound_goes_when_loss_does() {
        let mut bound = LossBound::default();
        assert_eq!(run(&mut bound, 10, |_| 0.05), ESTIMATE);
        let half = |rate: Bitrate| (1.0 - 500_000.0 / rate.bits_per_second() as f64).max(0.0);
        let rate = run(&mut bound, 10, half);
        assert!(rate < ESTIMATE.scaled(0.7), "{rate}");
        assert_eq!(run(&mut bound, 30, |_| 0.0), ESTIMATE);
    }
}
