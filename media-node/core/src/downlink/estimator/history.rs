// SPDX-License-Identifier: EUPL-1.2
//! Packets that were sent and of which nothing has been heard yet.

use super::probe::ProbeId;
use crate::time::Timestamp;

/// Packets that are remembered: 300 ms of round trip and feedback at 60 Mbit/s. 8 bytes each.
const SLOTS: usize = 2048;
/// Unit of sending times: 16.4 µs. They wrap after 19 hours, and no packet is remembered that long.
const UNIT_SHIFT: u32 = 14;

/// One packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// When.
    pub(super) at: Timestamp,
    /// Bytes on the path, headers of IP and UDP not counted.
    pub(super) bytes: u16,
    /// The probe that it belongs to.
    pub(super) probe: Option<ProbeId>,
    /// It was reported missing before.
    pub(super) missed: bool,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    at: u32,
    bytes: u16,
    probe: u8,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// Nothing was heard of it.
    Open,
    /// Reported missing; it may still come.
    Missed,
}

/// Ring of sent packets by transport-wide sequence number.
pub(super) struct History {
    slots: Box<[Slot]>,
    /// Number of the next packet, extended.
    next: u64,
    /// Bytes sent and neither reported nor given up.
    in_flight: u64,
}

impl History {
    /// Nothing sent; 16 KB.
    #[must_use]
    pub(super) fn new() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS].into_boxed_slice(),
            next: 0,
            in_flight: 0,
        }
    }

    /// Notes a packet. Numbers follow each other; a jump forgets what lies between.
    pub(super) fn push(&mut self, sequence: u16, sent: Sent) {
        let step = u64::from(sequence.wrapping_sub(self.next as u16));
        for number in self.next..self.next + step.min(SLOTS as u64) {
            self.close(number);
        }
        let number = self.next + step;
        self.close(number);
        self.slots[number as usize % SLOTS] = Slot {
            at: (sent.at.as_nanos() >> UNIT_SHIFT) as u32,
            bytes: sent.bytes,
            probe: sent.probe.map_or(0, ProbeId::number),
            state: State::Open,
        };
        self.next = number + 1;
        self.in_flight += u64::from(sent.bytes);
    }

    fn close(&mut self, number: u64) -> Option<Slot> {
        let slot = &mut self.slots[number as usize % SLOTS];
        let before = *slot;
        slot.state = State::Closed;
        if before.state == State::Open {
            self.in_flight = self.in_flight.saturating_sub(u64::from(slot.bytes));
        }
        (before.state != State::Closed).then_some(before)
    }

    /// Number of a packet that is remembered.
    fn number(&self, sequence: u16) -> Option<u64> {
        let back = u64::from((self.next as u16).wrapping_sub(sequence));
        if back == 0 || back > SLOTS as u64 {
            return None;
        }
        self.next.checked_sub(back)
    }

    /// Notes that a packet was reported missing. True when nothing had been heard of it before.
    pub(super) fn miss(&mut self, sequence: u16) -> bool {
        let Some(number) = self.number(sequence) else {
            return false;
        };
        let slot = &mut self.slots[number as usize % SLOTS];
        if slot.state != State::Open {
            return false;
        }
        slot.state = State::Missed;
        self.in_flight = self.in_flight.saturating_sub(u64::from(slot.bytes));
        true
    }

    /// Takes the packet of a number as reported; `None` when it was never sent, is too old, or was reported already.
    pub(super) fn take(&mut self, sequence: u16, now: Timestamp) -> Option<Sent> {
        let number = self.number(sequence)?;
        let slot = self.close(number)?;
        let age = ((now.as_nanos() >> UNIT_SHIFT) as u32).wrapping_sub(slot.at);
        let at = (now.as_nanos() >> UNIT_SHIFT).saturating_sub(u64::from(age)) << UNIT_SHIFT;
        Some(Sent {
            at: Timestamp::from_nanos(at),
            bytes: slot.bytes,
            probe: ProbeId::of(slot.probe),
            missed: slot.state == State::Missed,
        })
    }

    /// Bytes that are on their way as far as is known.
    #[must_use]
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(millis: u64, bytes: u16) -> Sent {
        Sent {
            at: Timestamp::from_millis(millis),
            bytes,
            probe: None,
            missed: false,
        }
    }

    #[test]
    fn a_packet_is_taken_once_and_weighs_until_then() {
        let mut history = History::new();
        history.push(65_535, sent(5, 100));
        history.push(0, sent(6, 200));
        assert_eq!(history.in_flight(), 300);
        let now = Timestamp::from_millis(50);
        let taken = history.take(65_535, now).expect("sent");
        assert_eq!(taken.bytes, 100);
        assert!(taken.at.since(Timestamp::from_millis(4)).as_micros() <= 1_000);
        assert_eq!(history.take(65_535, now), None);
        assert_eq!(history.take(1, now), None, "not sent yet");
        assert_eq!(history.in_flight(), 200);
    }

    #[test]
    fn a_packet_that_was_missed_may_still_come() {
        let mut history = History::new();
        history.push(0, sent(1, 100));
        assert!(history.miss(0));
        assert!(!history.miss(0));
        assert_eq!(history.in_flight(), 0);
        let taken = history.take(0, Timestamp::from_millis(9)).expect("late");
        assert!(taken.missed);
    }

    #[test]
    fn what_is_never_heard_of_falls_out_of_the_ring_with_its_weight() {
        let mut history = History::new();
        for number in 0..10_000_u32 {
            history.push(number as u16, sent(u64::from(number), 10));
        }
        assert_eq!(history.in_flight(), SLOTS as u64 * 10);
        assert_eq!(history.take(0, Timestamp::from_millis(10_000)), None);
        history.push(60_000, sent(10_001, 7));
        assert_eq!(history.in_flight(), 7);
    }
}
