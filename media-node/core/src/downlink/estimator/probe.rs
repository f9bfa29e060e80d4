// SPDX-License-Identifier: EUPL-1.2
//! Short bursts at a rate above the estimate: what a path can carry is seen only when it is asked to.

use std::num::NonZeroU8;
use std::time::Duration;

use super::{Bitrate, Sent};
use crate::time::Timestamp;

/// How long a burst lasts.
const LENGTH: Duration = Duration::from_millis(15);
/// Packets of a burst at least: fewer tell no rate.
const PACKETS_MIN: u32 = 5;
/// Bytes of a burst at most: 15 ms at 25 Mbit/s.
const BYTES_MAX: u32 = 48_000;
/// Of a burst this much has to arrive, in tenths.
const ARRIVED_TENTHS: u32 = 8;
/// Feedback of a burst comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two bursts in quiet times.
const PAUSE: Duration = Duration::from_secs(5);
/// At the start: multiples of the first estimate.
const FIRST: [u32; 2] = [3, 6];
/// A burst that got so far of what it tried is followed by another at twice its result, in tenths.
const FURTHER_TENTHS: u64 = 7;

/// Names a burst among those of a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId(NonZeroU8);

impl ProbeId {
    pub(super) fn of(number: u8) -> Option<Self> {
        NonZeroU8::new(number).map(Self)
    }

    pub(super) fn number(self) -> u8 {
        self.0.get()
    }

    fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU8::MIN))
    }
}

/// A burst to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its packets carry this.
    pub id: ProbeId,
    /// How fast they leave.
    pub rate: Bitrate,
    /// Bytes, at least.
    pub bytes: u32,
}

/// What arrived of a burst.
#[derive(Clone, Copy, Debug)]
struct Burst {
    probe: Probe,
    begun: Timestamp,
    packets: u32,
    bytes: u32,
    sent: (Timestamp, Timestamp),
    arrived: (i64, i64),
    /// Bytes of the packet that was sent last and of the one that arrived first: they lie outside of the intervals.
    last_bytes: u32,
    first_bytes: u32,
}

/// Decides when to probe and reads what came of it.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    next: ProbeId,
    burst: Option<Burst>,
    /// Rates still to be tried in a row, lowest first.
    row: [Option<Bitrate>; 2],
    quiet_since: Option<Timestamp>,
    started: bool,
}

impl Default for Prober {
    fn default() -> Self {
        Self {
            next: ProbeId(NonZeroU8::MIN),
            burst: None,
            row: [None; 2],
            quiet_since: None,
            started: false,
        }
    }
}

impl Prober {
    /// The next burst to be sent, if one is due: at the start, after a success, and every 5 s while more is `wanted` than estimated.
    pub(super) fn due(
        &mut self,
        now: Timestamp,
        estimate: Bitrate,
        wanted: Bitrate,
    ) -> Option<Probe> {
        if self
            .burst
            .is_some_and(|burst| now.since(burst.begun) < PATIENCE)
        {
            return None;
        }
        self.burst = None;
        if estimate >= wanted {
            return None;
        }
        if !self.started {
            self.started = true;
            self.row = FIRST.map(|times| Some(estimate * times));
        }
        let rate = match self.row {
            [Some(rate), later] => {
                self.row = [later, None];
                rate
            }
            [None, _] => {
                let since = *self.quiet_since.get_or_insert(now);
                if now.since(since) < PAUSE {
                    return None;
                }
                estimate * 2
            }
        };
        self.quiet_since = Some(now);
        // A little more than is wanted, so that a full success covers it.
        let rate = rate.min(wanted + wanted / 4);
        let bytes = rate.bytes_in(LENGTH).min(u64::from(BYTES_MAX)) as u32;
        let probe = Probe {
            id: self.next,
            rate,
            bytes: bytes.max(PACKETS_MIN * 200),
        };
        self.next = self.next.next();
        self.burst = Some(Burst {
            probe,
            begun: now,
            packets: 0,
            bytes: 0,
            sent: (now, now),
            arrived: (0, 0),
            last_bytes: 0,
            first_bytes: 0,
        });
        Some(probe)
    }

    /// The path was overloaded: what was to be tried is not, for a while.
    pub(super) fn overloaded(&mut self, now: Timestamp) {
        self.row = [None; 2];
        self.burst = None;
        self.quiet_since = Some(now);
    }

    /// A packet of a burst arrived, in nanoseconds of the other side's clock; the rate that the path carried, once enough came.
    pub(super) fn arrived(&mut self, packet: &Sent, arrived: i64) -> Option<Bitrate> {
        let burst = self.burst.as_mut()?;
        if packet.probe != Some(burst.probe.id) {
            return None;
        }
        let bytes = u32::from(packet.bytes);
        if burst.packets == 0 {
            burst.sent = (packet.at, packet.at);
            burst.arrived = (arrived, arrived);
            (burst.first_bytes, burst.last_bytes) = (bytes, bytes);
        }
        if packet.at >= burst.sent.1 {
            burst.sent.1 = packet.at;
            burst.last_bytes = bytes;
        }
        if arrived < burst.arrived.0 {
            burst.arrived.0 = arrived;
            burst.first_bytes = bytes;
        }
        burst.arrived.1 = burst.arrived.1.max(arrived);
        burst.packets += 1;
        burst.bytes += bytes;
        if burst.packets < PACKETS_MIN || burst.bytes * 10 < burst.probe.bytes * ARRIVED_TENTHS {
            return None;
        }
        let result = burst.result();
        let tried = burst.probe.rate;
        if let Some(result) = result
            && result.bits_per_second() * 10 >= tried.bits_per_second() * FURTHER_TENTHS
            && self.row == [None; 2]
        {
            self.row = [Some(result * 2), None];
        }
        self.burst = None;
        result
    }
}

impl Burst {
    fn result(&self) -> Option<Bitrate> {
        let sent = self.sent.1.since(self.sent.0);
        let arrived = Duration::from_nanos(u64::try_from(self.arrived.1 - self.arrived.0).ok()?);
        // Feedback counts in quarters of a millisecond; a shorter interval is noise.
        if arrived < Duration::from_millis(1) || arrived > PATIENCE {
            return None;
        }
        let out = if sent < Duration::from_millis(1) {
            self.probe.rate
        } else {
            Bitrate::of(u64::from(self.bytes - self.last_bytes), sent)
        };
        let come = Bitrate::of(u64::from(self.bytes - self.first_bytes), arrived);
        // Slower than it was sent: that is what the path carries, and a little below it lets the queue drain.
        Some(if come * 10 < out * 9 {
            come - come / 20
        } else {
            come.min(out)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Bitrate = Bitrate::from_kbit(300);
    const WANTED: Bitrate = Bitrate::from_kbit(5_000);

    /// Sends a probe through a path of `capacity` and returns what it says.
    fn through(prober: &mut Prober, probe: Probe, now: Timestamp, capacity: Bitrate) -> Bitrate {
        let mut arrived = 0_i64;
        let mut left = i64::from(probe.bytes);
        let mut at = now;
        loop {
            let bytes = 1_000_u16;
            arrived = arrived.max(at.as_nanos() as i64) + capacity.time_of(1_000).as_nanos() as i64;
            let sent = Sent {
                at,
                bytes,
                probe: Some(probe.id),
                missed: false,
            };
            if let Some(result) = prober.arrived(&sent, arrived) {
                return result;
            }
            at = at + probe.rate.time_of(1_000);
            left -= 1_000;
            assert!(left > -5_000, "enough has arrived");
        }
    }

    #[test]
    fn it_goes_up_in_steps_while_the_path_carries_them_and_stops_where_it_does_not() {
        let mut prober = Prober::default();
        let capacity = Bitrate::from_kbit(2_000);
        let (mut estimate, mut now) = (START, Timestamp::ZERO);
        let mut tried = Vec::new();
        while let Some(probe) = prober.due(now, estimate, WANTED) {
            tried.push(probe.rate.bits_per_second() / 1000);
            estimate = estimate.max(through(&mut prober, probe, now, capacity));
            now = now + Duration::from_millis(100);
        }
        assert_eq!(tried[..2], [900, 1_800]);
        assert!(tried.len() <= 4, "{tried:?}");
        let found = estimate.bits_per_second();
        assert!((1_700_000..=2_000_000).contains(&found), "{found}");
        assert!(
            prober
                .due(now + Duration::from_secs(4), estimate, WANTED)
                .is_none()
        );
        assert!(
            prober
                .due(now + Duration::from_secs(6), estimate, WANTED)
                .is_some()
        );
    }

    #[test]
    fn nothing_is_tried_that_nobody_wants() {
        let mut prober = Prober::default();
        assert_eq!(prober.due(Timestamp::ZERO, START, START), None);
        let little = Bitrate::from_kbit(400);
        let probe = prober.due(Timestamp::ZERO, START, little).expect("due");
        assert_eq!(probe.rate, Bitrate::from_kbit(500));
    }

    #[test]
    fn a_lost_burst_says_nothing_and_the_next_one_comes() {
        let mut prober = Prober::default();
        let first = prober.due(Timestamp::ZERO, START, WANTED).expect("due");
        let soon = Timestamp::from_millis(500);
        assert_eq!(prober.due(soon, START, WANTED), None);
        let later = Timestamp::from_millis(1_100);
        let second = prober.due(later, START, WANTED).expect("due");
        assert_ne!(first.id, second.id);
        let stale = Sent {
            at: Timestamp::ZERO,
            bytes: 1_000,
            probe: Some(first.id),
            missed: false,
        };
        assert_eq!(prober.arrived(&stale, 0), None);
    }
}
