// SPDX-License-Identifier: EUPL-1.2
//! Events that wait for their receivers.

use std::collections::{BTreeMap, VecDeque};

use control_core::time::Moment;

use crate::store::{
    EVENT_AGE_MAX, EVENTS_BYTES_MAX, EVENTS_MAX, EventQueue, Pushed, QUEUES_MAX, QueuedEvent,
    StoreError,
};

#[derive(Default)]
pub(super) struct Queues(BTreeMap<EventQueue, Queue>);

#[derive(Default)]
struct Queue {
    events: VecDeque<(Moment, QueuedEvent)>,
    bytes: usize,
}

impl Queue {
    fn expire(&mut self, now: Moment) -> u32 {
        let mut dropped = 0;
        while self
            .events
            .front()
            .is_some_and(|(queued, _)| now.since(*queued) >= EVENT_AGE_MAX)
        {
            dropped += self.drop_first();
        }
        dropped
    }

    fn drop_first(&mut self) -> u32 {
        let gone = self.events.pop_front();
        self.bytes -= gone.as_ref().map_or(0, |(_, event)| event.body.len());
        u32::from(gone.is_some())
    }
}

impl Queues {
    pub(super) fn push(
        &mut self,
        name: EventQueue,
        event: QueuedEvent,
        now: Moment,
    ) -> Result<Pushed, StoreError> {
        name.check(&event)?;
        if self.0.len() >= QUEUES_MAX && !self.0.contains_key(&name) {
            self.0.retain(|_, queue| {
                queue.expire(now);
                !queue.events.is_empty()
            });
            if self.0.len() >= QUEUES_MAX {
                return Err(StoreError::Full { what: "queues" });
            }
        }
        let queue = self.0.entry(name).or_default();
        let mut dropped = queue.expire(now);
        if queue.events.iter().any(|(_, known)| known.id == event.id) {
            return Ok(Pushed { dropped });
        }
        queue.bytes += event.body.len();
        queue.events.push_back((now, event));
        while queue.events.len() > EVENTS_MAX || queue.bytes > EVENTS_BYTES_MAX {
            dropped += queue.drop_first();
        }
        Ok(Pushed { dropped })
    }

    pub(super) fn first(&mut self, name: &EventQueue, max: usize, now: Moment) -> Vec<QueuedEvent> {
        let Some(queue) = self.0.get_mut(name) else {
            return Vec::new();
        };
        queue.expire(now);
        let first = queue.events.iter().take(max);
        first.map(|(_, event)| event.clone()).collect()
    }

    pub(super) fn done(&mut self, name: &EventQueue, id: &str, now: Moment) {
        let Some(queue) = self.0.get_mut(name) else {
            return;
        };
        queue.expire(now);
        if let Some(at) = queue.events.iter().position(|(_, event)| event.id == id)
            && let Some((_, gone)) = queue.events.remove(at)
        {
            queue.bytes -= gone.body.len();
        }
        if queue.events.is_empty() {
            self.0.remove(name);
        }
    }
}
