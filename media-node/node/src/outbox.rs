// SPDX-License-Identifier: EUPL-1.2
//! Events of rooms that no replica has acknowledged yet, in the order in which they happened.

use std::collections::VecDeque;

use plenum_proto::v1::{EventAck, RoomEvent};

/// Events that wait at most; the oldest goes first.
const EVENTS_MAX: usize = 10_000;
/// Bytes of them.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// The outbox of one node.
#[derive(Default)]
pub(crate) struct Outbox {
    /// With the version of the reports at which they came.
    events: VecDeque<(u64, RoomEvent)>,
    bytes: usize,
    lost: u64,
}

impl Outbox {
    /// An event; older ones that find no place any more are lost, counted and named.
    pub(crate) fn push(&mut self, version: u64, event: RoomEvent) {
        self.bytes += event.body.len();
        self.events.push_back((version, event));
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some((_, lost)) = self.events.pop_front() else {
                return;
            };
            self.bytes -= lost.body.len();
            self.lost += 1;
            // One line for each power of two: the log of a node that nobody listens to stays short.
            if self.lost.is_power_of_two() {
                tracing::warn!(

                    event = "RoomEventsLost",

                    tenant = lost.key.as_ref().map(|key| key.tenant.as_str()),
                    room = %lost.room_sid,
                    epoch = lost.epoch,
                    seq = lost.seq,
                    event = %lost.name,
                    lost = self.lost,
                    "events of rooms are lost: no replica takes them"
                );
            }
        }
    }

    /// The events of a room up to the acknowledged one are kept elsewhere.
    pub(crate) fn acknowledge(&mut self, ack: &EventAck) {
        let Self { events, bytes, .. } = self;
        events.retain(|(_, event)| {
            let done = event.epoch == ack.epoch
                && event.seq <= ack.seq
                && event.room_sid == ack.room_sid
                && event.key == ack.key;
            if done {
                *bytes -= event.body.len();
            }
            !done
        });
    }

    /// The first `max` events that came after a version.
    pub(crate) fn after(
        &self,
        version: u64,
        max: usize,
    ) -> impl Iterator<Item = (u64, RoomEvent)> + '_ {
        let from = self.events.partition_point(|(at, _)| *at <= version);
        self.events.range(from..).take(max).cloned()
    }

    /// Events that found no place.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use plenum_proto::v1::RoomKey;

    use super::*;

    fn event(sid: &str, seq: u64, bytes: usize) -> RoomEvent {
        RoomEvent {
            key: Some(RoomKey {
                tenant: "t".into(),
                name: "a".into(),
            }),
            epoch: 1,
            seq,
            body: vec![b'x'; bytes],
            room_sid: sid.into(),
            ..RoomEvent::default()
        }
    }

    fn seqs(outbox: &Outbox) -> Vec<u64> {
        outbox
            .after(0, usize::MAX)
            .map(|(_, event)| event.seq)
            .collect()
    }

    #[test]
    fn an_acknowledgement_of_a_room_that_ended_leaves_its_successor_alone() {
        let mut outbox = Outbox::default();
        outbox.push(1, event("RM_old", 1, 10));
        outbox.push(2, event("RM_old", 2, 10));
        outbox.push(3, event("RM_new", 1, 10));
        let ack = EventAck {
            key: event("", 0, 0).key,
            epoch: 1,
            seq: 2,
            room_sid: "RM_old".into(),
        };
        outbox.acknowledge(&ack);
        let left: Vec<_> = outbox.after(0, 10).collect();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].0, left[0].1.room_sid.as_str()), (3, "RM_new"));
        assert_eq!(outbox.bytes, 10);
    }

    #[test]
    fn number_and_bytes_are_bounded_and_the_oldest_goes() {
        let mut outbox = Outbox::default();
        for seq in 1..=EVENTS_MAX as u64 + 2 {
            outbox.push(seq, event("RM_x", seq, 1));
        }
        assert_eq!((outbox.lost(), seqs(&outbox)[0]), (2, 3));
        outbox.push(u64::MAX, event("RM_x", 0, BYTES_MAX));
        assert_eq!(seqs(&outbox), [0]);
        assert_eq!(outbox.bytes, BYTES_MAX);
    }

    #[test]
    fn portions_go_on_where_the_last_one_ended() {
        let mut outbox = Outbox::default();
        for seq in 1..=5 {
            outbox.push(seq * 10, event("RM_x", seq, 1));
        }
        let part: Vec<u64> = outbox.after(10, 2).map(|(at, _)| at).collect();
        assert_eq!(part, [20, 30]);
        assert_eq!(outbox.after(50, 2).count(), 0);
    }
}
