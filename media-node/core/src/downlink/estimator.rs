// SPDX-License-Identifier: EUPL-1.2
//! What a path carries, from the other side's feedback on what was sent (draft-ietf-rmcat-gcc-02).
//!
//! Delay leads: a queue that grows lowers the estimate below what arrived, before anything is lost. Loss bounds it where queues are too
//! short to be seen. Short probes find out what nobody sends. One estimator per receiving peer; nothing of it allocates per packet.
//!
//! | part | file | after |
//! |---|---|---|
//! | feedback messages | `feedback.rs` | draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1 |
//! | what was sent | `history.rs` | |
//! | rate of arrival | `meter.rs` | gcc-02 §5.5, R_hat |
//! | growth of the queue | `trend.rs` | gcc-02 §5.2–5.4 |
//! | rate control | `rate.rs` | gcc-02 §5.5 |
//! | loss | `loss.rs` | gcc-02 §6 |
//! | probes | `probe.rs` | |

mod feedback;
mod history;
mod loss;
mod meter;
mod probe;
mod rate;
mod trend;

use std::fmt;
use std::ops::{Add, Div, Mul, Sub};
use std::time::Duration;

use crate::time::Timestamp;
pub use feedback::FeedbackError;
use feedback::{Feedback, References, TICK_NANOS};
use history::{History, Sent};
use loss::LossBound;
use meter::Meter;
use probe::Prober;
pub use probe::{Probe, ProbeId};
use rate::RateControl;
use trend::Trend;
pub use trend::Usage;

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bitrate(u64);

impl Bitrate {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From thousands of bits per second.
    #[must_use]
    pub const fn from_kbit(kbit: u64) -> Self {
        Self(kbit * 1_000)
    }

    /// Of so many bytes in a time.
    #[must_use]
    pub fn of(bytes: u64, time: Duration) -> Self {
        let nanos = time.as_nanos().max(1);
        Self(u64::try_from(u128::from(bytes) * 8_000_000_000 / nanos).unwrap_or(u64::MAX))
    }

    /// Bits per second.
    #[must_use]
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Bytes that it moves in a time.
    #[must_use]
    pub const fn bytes_in(self, time: Duration) -> u64 {
        (self.0 as u128 * time.as_nanos() / 8_000_000_000) as u64
    }

    /// Time that it takes for so many bytes; an hour at most.
    #[must_use]
    pub fn time_of(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.0.max(1));
        Duration::from_nanos(nanos.min(3_600_000_000_000) as u64)
    }

    /// Times a factor that is not negative.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor.max(0.0)) as u64)
    }
}

impl Add for Bitrate {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Bitrate {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Mul<u32> for Bitrate {
    type Output = Self;
    fn mul(self, times: u32) -> Self {
        Self(self.0.saturating_mul(u64::from(times)))
    }
}

impl Div<u32> for Bitrate {
    type Output = Self;
    fn div(self, by: u32) -> Self {
        Self(self.0 / u64::from(by.max(1)))
    }
}

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s", self.0 / 1_000)
    }
}

/// Between what an estimate may lie, and where it begins.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Least: a microphone.
    pub min: Bitrate,
    /// At the start, before anything is known.
    pub start: Bitrate,
    /// Most.
    pub max: Bitrate,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            min: Bitrate::from_kbit(40),
            start: Bitrate::from_kbit(600),
            max: Bitrate::from_kbit(50_000),
        }
    }
}

/// Estimates one path. See the module's documentation.
pub struct BandwidthEstimator {
    bounds: Bounds,
    history: History,
    references: References,
    meter: Meter,
    trend: Trend,
    rate: RateControl,
    loss: LossBound,
    prober: Prober,
    rtt: Option<Duration>,
    /// Sequence number after the last one that was spoken of.
    unheard: Option<u16>,
    /// What a receiver that offers nothing else allows.
    remb: Option<Bitrate>,
}

impl BandwidthEstimator {
    /// Nothing is known yet. 17 KB.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            history: History::new(),
            references: References::default(),
            meter: Meter::default(),
            trend: Trend::default(),
            rate: RateControl::new(bounds),
            loss: LossBound::default(),
            prober: Prober::default(),
            rtt: None,
            unheard: None,
            remb: None,
        }
    }

    /// Notes a packet that leaves under a transport-wide sequence number. O(1).
    pub fn sent(&mut self, now: Timestamp, sequence: u16, bytes: u16, probe: Option<ProbeId>) {
        self.history.push(
            sequence,
            Sent {
                at: now,
                bytes,
                probe,
                missed: false,
            },
        );
    }

    /// Reads a transport-wide feedback message, RTCP header included. O(packets it speaks of).
    ///
    /// # Errors
    /// [`FeedbackError`]; the estimate stays as it is.
    pub fn feedback(&mut self, now: Timestamp, message: &[u8]) -> Result<(), FeedbackError> {
        let feedback = Feedback::parse(message)?;
        let reference = self.references.ticks(feedback.reference);
        let skipped = self.skip(now, &feedback);
        let (mut received, mut lost, mut late) = (0_u32, 0_u32, 0_u32);
        let mut newest = None;
        let (mut first, mut probed) = (None, None);
        let Self {
            history,
            meter,
            trend,
            prober,
            ..
        } = self;
        feedback.packets(|sequence, arrived| {
            let Some(ticks) = arrived else {
                lost += u32::from(history.miss(sequence));
                return;
            };
            let Some(sent) = history.take(sequence, now) else {
                return;
            };
            let arrived = (reference + ticks) * TICK_NANOS;
            if sent.missed {
                late += 1;
            } else {
                received += 1;
            }
            first.get_or_insert(arrived);
            meter.add(arrived, u32::from(sent.bytes));
            trend.packet(sent.at, arrived);
            probed = prober.arrived(&sent, arrived).or(probed);
            newest = Some(sent.at);
        });
        if let Some(first) = first {
            self.meter.add(first, skipped);
        }
        self.loss.heard(received, lost);
        self.loss.came_late(late);
        if let Some(sent) = newest {
            let sample = now.since(sent);
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        }
        if received + late > 0 {
            self.update(now, probed);
        }
        Ok(())
    }

    /// Feedback itself gets lost. Of the packets that it spoke of nothing will be heard any more; as many bytes of them are taken for
    /// arrived as of the others, or a lossy path would look narrow.
    fn skip(&mut self, now: Timestamp, feedback: &Feedback<'_>) -> u32 {
        let next = feedback.base.wrapping_add(feedback.count);
        let Some(mut sequence) = self.unheard else {
            self.unheard = Some(next);
            return 0;
        };
        let mut bytes = 0_u32;
        // Half of all numbers lie behind: such a message speaks of late packets.
        if feedback.base.wrapping_sub(sequence) < 0x8000 {
            while sequence != feedback.base {
                let sent = self.history.take(sequence, now);
                bytes += sent.map_or(0, |sent| u32::from(sent.bytes));
                sequence = sequence.wrapping_add(1);
            }
        }
        if next.wrapping_sub(sequence) < 0x8000 {
            self.unheard = Some(next);
        }
        (f64::from(bytes) * (1.0 - self.loss.share())) as u32
    }

    fn update(&mut self, now: Timestamp, probed: Option<Bitrate>) {
        let usage = self.trend.usage();
        let rtt = self.rtt.unwrap_or(Duration::from_millis(200));
        let before = self.rate.target();
        self.rate.update(now, usage, self.meter.rate(), probed, rtt);
        if self.rate.target() < before {
            self.prober.overloaded(now);
        }
        self.loss.judge(now, self.rate.target(), rtt);
    }

    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03), where the other side offers nothing else.
    pub fn remb(&mut self, bitrate: Bitrate) {
        self.remb = Some(bitrate);
    }

    /// What may be sent. Between the bounds.
    #[must_use]
    pub fn estimate(&self) -> Bitrate {
        let mut estimate = self.rate.target();
        for bound in [self.loss.bound(), self.remb].into_iter().flatten() {
            estimate = estimate.min(bound);
        }
        estimate.max(self.bounds.min).min(self.bounds.max)
    }

    /// The next burst to be sent, if one is due, when `wanted` could be used.
    pub fn probe(&mut self, now: Timestamp, wanted: Bitrate) -> Option<Probe> {
        let estimate = self.estimate();
        self.prober.due(now, estimate, wanted.min(self.bounds.max))
    }

    /// Smoothed round trip from a packet to the feedback on it.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Share of packets lost in the last half second, 0.0..=1.0.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss.share()
    }

    /// Bytes on their way, as far as is known.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.history.in_flight()
    }
}
