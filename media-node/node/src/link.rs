// SPDX-License-Identifier: EUPL-1.2
//! The way between room actors and one shard: commands down, events back to the room they concern.
//!
//! A shard's events name transports, publications and subscriptions; their ids carry the room's number. Rooms wait for the link, the
//! link waits for the shard's queue, the shard waits for nobody: no cycle.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use media_core::api::{Channel, Command, Event, TransportFailure};
use media_core::ids::{RoomIndex, TransportId};
use tokio::sync::mpsc;
use tracing::{Instrument, Span};

use crate::worker::ShardPort;

/// Commands of all rooms of a shard that wait for the link.
pub const LINK_QUEUE: usize = 4_096;
/// Pace of tries while the shard's queue is full.
const RETRY: Duration = Duration::from_millis(1);

/// What rooms tell the link.
pub enum ToLink {
    /// A room lives: its events go there.
    Room(RoomIndex, mpsc::Sender<Event>),
    /// A command of a room, and the span of what caused it.
    Command(Command, Span),
    /// The room is gone, also when it panicked: whatever of it is left on the shard is removed.
    Gone(RoomIndex),
}

/// Bits of an object's id below its room's number (see `media_room::api::RoomConfig::index`).
const OBJECT_BITS: u32 = 32;

/// The room of an event: ids of a room's objects carry its number in their upper half.
fn room_of(event: &Event) -> Option<RoomIndex> {
    let id = match event {
        Event::Connected { transport, .. }
        | Event::PathChanged { transport, .. }
        | Event::Failed { transport, .. }
        | Event::ChannelOpen { transport, .. }
        | Event::Data { transport, .. }
        | Event::AwaitsState { transport }
        | Event::Exported { transport, .. }
        | Event::Imported { transport, .. }
        | Event::Stats { transport, .. } => transport.0,
        Event::EncodingBound { publication, .. } => publication.0,
        Event::EncodingForwarded { subscription, .. } => subscription.0,
        Event::Speakers { room, .. } => return Some(*room),
        Event::Refused { transport, .. } => transport.as_ref()?.0,
    };
    u32::try_from(id >> OBJECT_BITS).ok().map(RoomIndex)
}

/// May this event be lost when a room does not keep up?
pub(crate) fn is_lossy(event: &Event) -> bool {
    matches!(
        event,
        Event::Speakers { .. }
            | Event::Stats { .. }
            | Event::EncodingForwarded { .. }
            | Event::Data {
                channel: Channel::Lossy,
                ..
            }
    )
}

/// What became of an event.
enum Offer {
    Taken,
    /// It may be lost.
    Lost,
    /// The room has no place for more data, and this was to be reliable.
    TooMuchData(TransportId),
    /// It must not be lost, and is.
    Missed,
}

/// Puts an event into a room's queue. Data fill at most half of it, so that everything else has a place during any flood.
fn offer(mailbox: &mpsc::Sender<Event>, event: Event) -> Offer {
    if let Event::Data {
        transport, channel, ..
    } = &event
        && mailbox.capacity() * 2 < mailbox.max_capacity()
    {
        return match channel {
            Channel::Lossy => Offer::Lost,
            Channel::Reliable => Offer::TooMuchData(*transport),
        };
    }
    match mailbox.try_send(event) {
        // A room that is gone misses nothing.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Offer::Taken,
        Err(mpsc::error::TrySendError::Full(event)) if is_lossy(&event) => Offer::Lost,
        Err(mpsc::error::TrySendError::Full(_)) => Offer::Missed,
    }
}

/// What a link counts.
#[derive(Debug, Default)]
pub struct Counters {
    lost: AtomicU64,
    flooders: AtomicU64,
}

impl Counters {
    /// Events that may be lost and were.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Transports ended because their room had no place for more reliable data.
    #[must_use]
    pub fn flooders(&self) -> u64 {
        self.flooders.load(Ordering::Relaxed)
    }
}

/// Runs the link of one shard until all rooms' ends and the shard are gone.
pub async fn run(
    shard: ShardPort,
    mut queue: mpsc::Receiver<ToLink>,
    mut events: mpsc::Receiver<Event>,
    counters: Arc<Counters>,
) {
    // With the transports that were ended for their floods: what is still on its way from them is of no interest.
    let mut rooms: HashMap<RoomIndex, (mpsc::Sender<Event>, HashSet<TransportId>)> = HashMap::new();
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                let Some(room) = room_of(&event) else { continue };
                let Some((mailbox, flooders)) = rooms.get_mut(&room) else { continue };
                if let Event::Data { transport, .. } = &event && flooders.contains(transport) {
                    continue;
                }
                match offer(mailbox, event) {
                    Offer::Taken => {}
                    Offer::Lost => {
                        counters.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    Offer::TooMuchData(transport) => {
                        // Whoever fills the room's share of data ends, not the room: most likely it is the flooder's message that
                        // finds no place, and anybody else comes again.
                        counters.flooders.fetch_add(1, Ordering::Relaxed);
                        flooders.insert(transport);
                        let failed = Event::Failed { transport, failure: TransportFailure::Limit };
                        if mailbox.try_send(failed).is_err() {
                            rooms.remove(&room);
                        }
                        if !pass(&shard, Command::RemoveTransport { transport }).await {
                            return;
                        }
                    }
                    Offer::Missed => {
                        // A room that missed what must not be missed has no true picture any more: it ends, everybody rejoins.
                        tracing::error!(event = "RoomOverwhelmed", room = room.0, shard = shard.id.0, "a room does not take its events, it is ended");
                        rooms.remove(&room);
                    }
                }
            }
            item = queue.recv() => {
                let Some(item) = item else { return };
                let (command, span) = match item {
                    ToLink::Room(room, mailbox) => {
                        rooms.insert(room, (mailbox, HashSet::new()));
                        continue;
                    }
                    ToLink::Command(command, span) if span.is_disabled() => (command, span),
                    ToLink::Command(command, span) => {
                        // It ends when the shard has taken the command; carrying it out belongs to no task.
                        let span = tracing::debug_span!(parent: &span, "shard.command", shard = shard.id.0);
                        (command, span)
                    }
                    ToLink::Gone(room) => {
                        rooms.remove(&room);
                        (Command::RemoveRoom { room }, Span::none())
                    }
                };
                if !pass(&shard, command).instrument(span).await {
                    return;
                }
            }
        }
    }
}

async fn pass(shard: &ShardPort, mut command: Command) -> bool {
    loop {
        match shard.command(command) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) => {
                command = back;
                shard.wake();
                tokio::time::sleep(RETRY).await;
            }
            Err(TrySendError::Disconnected(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_finds_its_room_by_the_upper_half_of_the_id() {
        let opened = |transport| Event::ChannelOpen {
            transport: TransportId(transport),
            channel: Channel::Lossy,
        };
        assert_eq!(room_of(&opened(0x0000_0007_0000_0001)), Some(RoomIndex(7)));
        assert_eq!(room_of(&opened(u64::MAX)), Some(RoomIndex(u32::MAX)));
        let refused = Event::Refused {
            transport: None,
            reason: media_core::api::CommandRefusal::Unknown,
        };
        assert_eq!(room_of(&refused), None);
    }

    #[test]
    fn a_flood_of_data_leaves_room_for_everything_else() {
        let (mailbox, _queue) = mpsc::channel(8);
        let transport = TransportId(1);
        let data = |channel| Event::Data {
            transport,
            channel,
            payload: [1].into(),
        };
        for _ in 0..5 {
            assert!(matches!(
                offer(&mailbox, data(Channel::Reliable)),
                Offer::Taken
            ));
        }
        assert!(matches!(
            offer(&mailbox, data(Channel::Reliable)),
            Offer::TooMuchData(TransportId(1))
        ));
        assert!(matches!(offer(&mailbox, data(Channel::Lossy)), Offer::Lost));
        let failed = || Event::Failed {
            transport,
            failure: TransportFailure::Closed,
        };
        for _ in 0..3 {
            assert!(matches!(offer(&mailbox, failed()), Offer::Taken));
        }
        assert!(matches!(offer(&mailbox, failed()), Offer::Missed));
    }
}
