// SPDX-License-Identifier: EUPL-1.2
//! Additive or multiplicative increase, multiplicative decrease (draft-ietf-rmcat-gcc-02 §5.5).

use std::time::Duration;

use super::{Bitrate, Bounds, Usage};
use crate::time::Timestamp;

/// Of what arrived, this is sent after overuse: the queue drains.
const DECREASE: f64 = 0.85;
/// Growth in a second far from the path's limit.
const INCREASE: f64 = 1.08;
/// Bits of a packet for the growth near it: one more in each response time.
const PACKET_BITS: f64 = 9_600.0;
/// Growth near it in a second at least: a packet is nothing to a wide path.
const NEAR: f64 = 0.03;
/// The estimate is this much above what arrives, at most: nobody knows of more.
const ABOVE_ARRIVED: f64 = 1.5;
const ABOVE_ARRIVED_BITS: Bitrate = Bitrate::from_kbit(10);
/// Weight of the newest limit.
const LIMIT_WEIGHT: f64 = 0.05;

/// Where the path's limit was met before: mean and relative variance of what arrived then.
#[derive(Clone, Copy, Debug)]
struct Limit {
    kbit: f64,
    variance: f64,
}

impl Limit {
    fn spread(&self) -> f64 {
        3.0 * (self.variance * self.kbit).sqrt()
    }
}

/// The rate that delay allows.
#[derive(Clone, Debug)]
pub(super) struct RateControl {
    target: Bitrate,
    bounds: Bounds,
    limit: Option<Limit>,
    grown_at: Option<Timestamp>,
    fell_at: Option<Timestamp>,
}

impl RateControl {
    /// At the start of the bounds.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            target: bounds.start,
            bounds,
            limit: None,
            grown_at: None,
            fell_at: None,
        }
    }

    /// What delay allows.
    pub(super) fn target(&self) -> Bitrate {
        self.target
    }

    /// One step after feedback: what the queue does, what arrives, what a probe found.
    pub(super) fn update(
        &mut self,
        now: Timestamp,
        usage: Usage,
        arrived: Option<Bitrate>,
        probed: Option<Bitrate>,
        rtt: Duration,
    ) {
        match usage {
            Usage::Over => self.fall(now, arrived, rtt),
            // It drains: what is sent now is less than the path carries, and the queue has to be gone first.
            Usage::Under => self.grown_at = Some(now),
            Usage::Normal => {
                if let Some(probed) = probed
                    && probed > self.target
                {
                    self.target = probed;
                    self.limit = None;
                } else {
                    self.grow(now, arrived, rtt);
                }
            }
        }
        self.target = self.target.max(self.bounds.min).min(self.bounds.max);
    }

    fn fall(&mut self, now: Timestamp, arrived: Option<Bitrate>, rtt: Duration) {
        self.grown_at = Some(now);
        let pause = rtt.clamp(Duration::from_millis(10), Duration::from_millis(200));
        let arrived = arrived.unwrap_or(self.target / 2);
        let soon = self.fell_at.is_some_and(|fell| now.since(fell) < pause);
        if soon && arrived * 2 > self.target {
            return;
        }
        self.fell_at = Some(now);
        self.note_limit(arrived);
        let mut next = arrived.scaled(DECREASE);
        if next > self.target
            && let Some(limit) = self.limit
        {
            next = Bitrate::from_kbit(limit.kbit as u64).scaled(DECREASE);
        }
        self.target = self.target.min(next);
    }

    fn note_limit(&mut self, arrived: Bitrate) {
        let kbit = arrived.bits_per_second() as f64 / 1e3;
        let Some(limit) = &mut self.limit else {
            self.limit = Some(Limit {
                kbit,
                variance: 0.4,
            });
            return;
        };
        if (kbit - limit.kbit).abs() > limit.spread() {
            // Another path, or another guest on it.
            *limit = Limit {
                kbit,
                variance: 0.4,
            };
            return;
        }
        limit.kbit += LIMIT_WEIGHT * (kbit - limit.kbit);
        let off = kbit - limit.kbit;
        limit.variance = ((1.0 - LIMIT_WEIGHT) * limit.variance
            + LIMIT_WEIGHT * off * off / limit.kbit.max(1.0))
        .clamp(0.4, 2.5);
    }

    fn grow(&mut self, now: Timestamp, arrived: Option<Bitrate>, rtt: Duration) {
        let passed = self
            .grown_at
            .replace(now)
            .map_or(0.0, |grown| now.since(grown).as_secs_f64().min(1.0));
        let Some(arrived) = arrived else { return };
        let ceiling = arrived.scaled(ABOVE_ARRIVED) + ABOVE_ARRIVED_BITS;
        if self.target >= ceiling {
            return;
        }
        let kbit = arrived.bits_per_second() as f64 / 1e3;
        if self
            .limit
            .is_some_and(|limit| kbit > limit.kbit + limit.spread())
        {
            self.limit = None;
        }
        let next = if self.limit.is_some() {
            let response = rtt.as_secs_f64() + 0.1;
            let least = self.target.bits_per_second() as f64 * NEAR;
            let step = (PACKET_BITS / response).max(least) * passed;
            Bitrate(self.target.bits_per_second() + step as u64)
        } else {
            let grown = self.target.scaled(INCREASE.powf(passed));
            grown.max(Bitrate(
                self.target.bits_per_second() + (1_000.0 * passed) as u64,
            ))
        };
        self.target = next.min(ceiling);
    }
}
