// SPDX-License-Identifier: EUPL-1.2
//! Is a queue growing on the path? Delay of groups of packets, its slope, and a threshold that follows it.
//!
//! draft-ietf-rmcat-gcc-02 §5.2–5.4 with the straight line through the accumulated delay in the place of its Kalman filter (Carlucci et
//! al., "Analysis and Design of the Google Congestion Control for Web Real-time Communication", MMSys 2016, give the threshold).

use std::time::Duration;

use crate::time::Timestamp;

/// Packets sent within this belong to one group: a pacer or a frame sends them as one.
const GROUP: Duration = Duration::from_millis(5);
/// Groups that the line is laid through.
const WINDOW: usize = 20;
/// Weight of the past in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// Groups after which the slope counts in full.
const FULL: u32 = 60;
/// Scale of the slope against the threshold.
const GAIN: f64 = 4.0;
/// Threshold at the start and its bounds, milliseconds.
const THRESHOLD: (f64, f64, f64) = (12.5, 6.0, 600.0);
/// How fast the threshold follows, per millisecond, up and down.
const FOLLOW: (f64, f64) = (0.0087, 0.039);
/// A slope so far above the threshold is a jump of the path and not to be followed.
const JUMP: f64 = 15.0;
/// The slope has to lie above the threshold for this long, milliseconds.
const OVERUSE_MS: f64 = 10.0;
/// A pause in arrivals after which everything begins anew.
const PAUSE_NANOS: i64 = 3_000_000_000;

/// What the queue does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// Neither grows nor shrinks.
    #[default]
    Normal,
    /// It grows: more is sent than the path carries.
    Over,
    /// It shrinks.
    Under,
}

/// A group of packets that left together.
#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: Timestamp,
    last_sent: Timestamp,
    first_arrived: i64,
    last_arrived: i64,
}

/// Watches the delay.
#[derive(Clone, Debug, Default)]
pub(super) struct Trend {
    current: Option<Group>,
    before: Option<Group>,
    points: [(f64, f64); WINDOW],
    count: u32,
    origin: i64,
    accumulated: f64,
    smoothed: f64,
    threshold: Option<f64>,
    threshold_at: i64,
    over_ms: f64,
    over_groups: u32,
    last_slope: f64,
    usage: Usage,
}

impl Trend {
    /// One packet: when it was sent, and when it arrived in nanoseconds of the other side's clock. In the order of sending.
    pub(super) fn packet(&mut self, sent: Timestamp, arrived: i64) {
        let Some(current) = &mut self.current else {
            self.current = Some(Group {
                first_sent: sent,
                last_sent: sent,
                first_arrived: arrived,
                last_arrived: arrived,
            });
            return;
        };
        if sent < current.first_sent {
            // Of a group that is closed already.
            return;
        }
        if current.takes(sent, arrived) {
            current.last_sent = current.last_sent.max(sent);
            current.last_arrived = current.last_arrived.max(arrived);
            return;
        }
        let closed = *current;
        self.current = Some(Group {
            first_sent: sent,
            last_sent: sent,
            first_arrived: arrived,
            last_arrived: arrived,
        });
        if let Some(before) = self.before.replace(closed) {
            self.groups(&before, &closed);
        }
    }

    /// What the queue does by all packets so far.
    #[must_use]
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    fn groups(&mut self, before: &Group, group: &Group) {
        let sent_ms = group.last_sent.since(before.last_sent).as_secs_f64() * 1e3;
        let arrived_nanos = group.last_arrived - before.last_arrived;
        if !(0..=PAUSE_NANOS).contains(&arrived_nanos) {
            *self = Self {
                current: self.current,
                threshold: self.threshold,
                ..Self::default()
            };
            return;
        }
        let arrived_ms = arrived_nanos as f64 / 1e6;
        if self.count == 0 {
            self.origin = group.last_arrived;
        }
        self.accumulated += arrived_ms - sent_ms;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        let at_ms = (group.last_arrived - self.origin) as f64 / 1e6;
        self.points[self.count as usize % WINDOW] = (at_ms, self.smoothed);
        self.count = self.count.saturating_add(1);
        let slope = if self.count as usize >= WINDOW {
            line(&self.points).unwrap_or(self.last_slope)
        } else {
            self.last_slope
        };
        self.judge(slope, sent_ms, group.last_arrived);
    }

    fn judge(&mut self, slope: f64, sent_ms: f64, arrived: i64) {
        let scaled = f64::from(self.count.min(FULL)) * slope * GAIN;
        let threshold = self.threshold.unwrap_or(THRESHOLD.0);
        if self.count < 2 {
            return;
        }
        if scaled > threshold {
            self.over_ms += if self.over_groups == 0 {
                sent_ms / 2.0
            } else {
                sent_ms
            };
            self.over_groups += 1;
            if self.over_ms > OVERUSE_MS && self.over_groups > 1 && slope >= self.last_slope {
                self.over_ms = 0.0;
                self.over_groups = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_ms = 0.0;
            self.over_groups = 0;
            self.usage = if scaled < -threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.last_slope = slope;
        self.follow(scaled, threshold, arrived);
    }

    fn follow(&mut self, scaled: f64, threshold: f64, arrived: i64) {
        let passed = if self.threshold.is_none() {
            0.0
        } else {
            ((arrived - self.threshold_at) as f64 / 1e6).clamp(0.0, 100.0)
        };
        self.threshold_at = arrived;
        self.threshold = Some(threshold);
        if scaled.abs() > threshold + JUMP {
            return;
        }
        let rate = if scaled.abs() < threshold {
            FOLLOW.1
        } else {
            FOLLOW.0
        };
        let next = threshold + rate * (scaled.abs() - threshold) * passed;
        self.threshold = Some(next.clamp(THRESHOLD.1, THRESHOLD.2));
    }
}

impl Group {
    /// Does a packet belong to this group? Sent within its 5 ms, or come in one burst with it: what waited for a radio slot together
    /// tells nothing of the queue.
    fn takes(&self, sent: Timestamp, arrived: i64) -> bool {
        if sent.since(self.first_sent) <= GROUP {
            return true;
        }
        let sent_apart = sent.since(self.last_sent).as_nanos() as i64;
        let arrived_apart = arrived - self.last_arrived;
        arrived_apart - sent_apart < 0
            && arrived_apart <= GROUP.as_nanos() as i64
            && arrived - self.first_arrived < 100_000_000
    }
}

/// Slope of the straight line with the least squares.
fn line(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let (x_sum, y_sum) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x_mean, y_mean) = (x_sum / count, y_sum / count);
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in points {
        above += (x - x_mean) * (y - y_mean);
        below += (x - x_mean) * (x - x_mean);
    }
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1 ms every 10 ms whose delay grows by `growth` ms per packet.
    fn after(growth: f64, packets: u32) -> Usage {
        let mut trend = Trend::default();
        for number in 0..packets {
            let sent = Timestamp::from_millis(u64::from(number) * 10);
            let arrived = f64::from(number) * (10.0 + growth) + 40.0;
            trend.packet(sent, (arrived * 1e6) as i64);
        }
        trend.usage()
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_steady_one_is_not() {
        assert_eq!(after(0.0, 300), Usage::Normal);
        assert_eq!(after(1.0, 60), Usage::Over);
        assert_eq!(after(0.4, 100), Usage::Over);
        assert_eq!(after(-0.5, 40), Usage::Under);
    }

    #[test]
    fn a_path_that_gets_longer_once_is_not_overuse_for_long() {
        let mut trend = Trend::default();
        for number in 0..400_u32 {
            let sent = Timestamp::from_millis(u64::from(number) * 10);
            let longer = if number > 100 { 60 } else { 0 };
            trend.packet(sent, (i64::from(number) * 10 + 40 + longer) * 1_000_000);
        }
        assert_eq!(trend.usage(), Usage::Normal);
    }

    #[test]
    fn what_comes_in_one_burst_is_one_group() {
        let mut trend = Trend::default();
        // Every 40 ms everything at once, as a radio that sleeps.
        for number in 0..600_u32 {
            let sent = Timestamp::from_millis(u64::from(number) * 10);
            let slot = (i64::from(number) * 10 / 40 + 1) * 40;
            trend.packet(sent, slot * 1_000_000);
        }
        assert_eq!(trend.usage(), Usage::Normal);
    }
}
