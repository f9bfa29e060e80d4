// SPDX-License-Identifier: EUPL-1.2
//! The way of events from nodes into the store's queues: what waits here is bounded, and acknowledged only once the store has it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control_core::ids::Uid;
use control_core::webhook::Loss;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::{EventAck, RoomEvent, RoomKey as WireKey};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::message::{Number, compose};
use super::{Webhooks, locked, pause, queue_of, receiver};
use crate::convert::{self, ConvertError};
use crate::plane::Plane;
use crate::store::{EVENT_BYTES_MAX, EventQueue, QueuedEvent, StoreError};

/// Events that wait for the store; beyond, they stay with their nodes.
const WAITING_MAX: usize = 20_000;
/// Bytes of them.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Ids that are remembered as queued: a node that did not hear the acknowledgement says them again.
const RECENT_MAX: usize = 16_384;
/// Events put into the store at once, and acknowledged together: so many may be told twice when the replica dies in between.
const BATCH: usize = 32;
/// The store is asked again after this while it is away.
const AWAY: Duration = Duration::from_millis(500);
/// Acknowledgements that found no place are repeated at this pace.
const TICK: Duration = Duration::from_secs(1);
/// Acknowledgements that are kept to be repeated; what is forgotten costs an event that is said again.
const ACKS_MAX: usize = 10_000;

/// An event of a node on its way to the store.
struct Taken {
    node: Uid,
    number: Number,
    id: String,
    name: String,
    body: Vec<u8>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Arc<Taken>>,
    ids: HashSet<String>,
    bytes: usize,
    /// Nodes whose events stay with them since there was no place for one, for later ones would overtake it; whether they were told to say
    /// them again.
    refused: HashMap<Uid, bool>,
    recent: VecDeque<String>,
    recent_ids: HashSet<String>,
    /// Acknowledgements that found no place.
    acks: BTreeMap<(Uid, String, u64), EventAck>,
}

impl Waiting {
    fn is_full(&self, bytes: usize) -> bool {
        self.events.len() >= WAITING_MAX || self.bytes + bytes > WAITING_BYTES_MAX
    }

    fn remember(&mut self, id: String) {
        if self.recent.len() >= RECENT_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_ids.remove(&oldest);
        }
        if self.recent_ids.insert(id.clone()) {
            self.recent.push_back(id);
        }
    }
}

/// Events that wait for the store.
#[derive(Default)]
pub(super) struct Intake {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

/// What became of an event that a node told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Offered {
    /// It is acknowledged later.
    Kept,
    /// Nothing is left to be done with it.
    Acknowledge(EventAck),
    /// It stays with the node, and so do all that follow until the node says them again.
    Left,
}

fn wire_key(number: &Number) -> WireKey {
    WireKey {
        tenant: number.key.tenant.to_string(),
        name: number.key.name.to_string(),
    }
}

fn ack_of(number: &Number) -> EventAck {
    EventAck {
        key: Some(wire_key(number)),
        epoch: number.epoch,
        seq: number.seq,
        room_sid: number.sid.clone(),
    }
}

impl Webhooks {
    /// A node tells an event. Does not wait: a slow store is no matter of the node's reports.
    ///
    /// # Errors
    /// What is wrong with it; it may be acknowledged all the same, for it gets no better.
    pub(crate) fn offer(&self, node: &Uid, event: RoomEvent) -> Result<Offered, ConvertError> {
        let key = convert::room_key(event.key)?;
        if event.body.len() > EVENT_BYTES_MAX || event.room_sid.len() > 64 || event.name.len() > 64
        {
            return Err(ConvertError::Value {
                field: "event",
                rule: "an event has at most 64 KiB, its name and room at most 64 bytes",
            });
        }
        let number = Number {
            key,
            sid: event.room_sid,
            epoch: event.epoch,
            seq: event.seq,
        };
        let id = number.id();
        let mut waiting = locked(&self.0.intake.waiting);
        // Nothing that the node has kept comes before this one.
        if event.again {
            waiting.refused.remove(node);
        }
        if waiting.recent_ids.contains(&id) {
            return Ok(Offered::Acknowledge(ack_of(&number)));
        }
        if waiting.ids.contains(&id) {
            return Ok(Offered::Kept);
        }
        if waiting.refused.contains_key(node) {
            return Ok(Offered::Left);
        }
        if waiting.is_full(event.body.len()) {
            waiting.refused.insert(node.clone(), false);
            self.0.metrics.refused.inc();
            tracing::warn!(

                event = "WebhookIntakeFull",

                %node,
                "more events wait for the store than this replica keeps; they stay with the node"
            );
            return Ok(Offered::Left);
        }
        waiting.bytes += event.body.len();
        waiting.ids.insert(id.clone());
        waiting.events.push_back(Arc::new(Taken {
            node: node.clone(),
            number,
            id,
            name: event.name,
            body: event.body,
        }));
        let length = i64::try_from(waiting.events.len()).unwrap_or(i64::MAX);
        self.0.metrics.waiting.set(length);
        drop(waiting);
        self.0.intake.filled.notify_one();
        Ok(Offered::Kept)
    }

    /// Puts what nodes tell into the store's queues.
    pub(super) async fn take_in(&self, plane: &Plane, stop: &CancellationToken) {
        loop {
            let batch: Vec<Arc<Taken>> = {
                let waiting = locked(&self.0.intake.waiting);
                waiting.events.iter().take(BATCH).cloned().collect()
            };
            if stop.is_cancelled() {
                return;
            }
            if batch.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.0.intake.filled.notified() => {}
                    () = tokio::time::sleep(TICK) => {}
                }
                self.settle(plane);
                continue;
            }
            // Whom events are for is not known before.
            if !plane.is_loaded() {
                pause(AWAY, stop).await;
                continue;
            }
            let queued = self.queue(plane, &batch).await;
            let all = queued.iter().all(|queued| *queued);
            self.finish(plane, &batch, &queued);
            self.settle(plane);
            if !all {
                pause(AWAY, stop).await;
            }
        }
    }

    /// Queues a batch for every receiver that wants it; tells of each event whether it is everywhere.
    async fn queue(&self, plane: &Plane, batch: &[Arc<Taken>]) -> Vec<bool> {
        let view = plane.view();
        let mut by_queue: BTreeMap<EventQueue, Vec<usize>> = BTreeMap::new();
        for (index, event) in batch.iter().enumerate() {
            let tenant = view.tenant(&event.number.key.tenant);
            let mut wanted = tenant
                .iter()
                .flat_map(|tenant| &tenant.webhooks)
                .filter(|one| one.wants(&event.name))
                .peekable();
            if wanted.peek().is_none() {
                plane.metrics().events_unclaimed.inc();
            }
            for webhook in wanted {
                let queue = queue_of(&event.number.key.tenant, webhook);
                match receiver(&view, &queue) {
                    Ok(_) => by_queue.entry(queue).or_default().push(index),
                    Err(loss) => self.lose(&queue, loss, 1, &event.id),
                }
            }
        }
        let now = self.0.clock.unix().0;
        // Queues side by side, each in order.
        let pushes = by_queue.into_iter().map(async |(queue, indices)| {
            for (position, index) in indices.iter().enumerate() {
                if let Err(StoreError::Away) = self.push(&queue, &batch[*index], now).await {
                    return indices[position..].to_vec();
                }
            }
            Vec::new()
        });
        let mut queued = vec![true; batch.len()];
        for left in futures::future::join_all(pushes).await {
            for index in left {
                queued[index] = false;
            }
        }
        queued
    }

    /// Queues an event for one receiver.
    async fn push(&self, queue: &EventQueue, event: &Taken, now: i64) -> Result<(), StoreError> {
        let untold = self.untold(queue);
        let body = match compose(&event.body, &event.name, &event.id, untold) {
            Ok(body) if body.len() <= EVENT_BYTES_MAX => body,
            Ok(_) | Err(_) => {
                self.lose(queue, Loss::Malformed, 1, &event.id);
                return Ok(());
            }
        };
        let queued = QueuedEvent {
            id: event.id.clone(),
            name: event.name.clone(),
            queued_unix_ms: now,
            body,
        };
        match self.0.store.push_event(queue.clone(), queued).await {
            Ok(pushed) => {
                self.told(queue, untold);
                self.lose(queue, Loss::QueueFull, pushed.dropped, &event.id);
                self.want(queue);
                Ok(())
            }
            Err(StoreError::Away) => Err(StoreError::Away),
            Err(error) => {
                tracing::warn!(event = "WebhookEventUnqueued", %error, receiver = %queue.receiver, tenant = %queue.tenant, "an event cannot be queued");
                self.lose(queue, Loss::QueueFull, 1, &event.id);
                Ok(())
            }
        }
    }

    /// Takes out what is queued and acknowledges it. An acknowledgement covers what a room told before, so an event that is queued waits for
    /// an earlier one of its room that is not.
    fn finish(&self, plane: &Plane, batch: &[Arc<Taken>], queued: &[bool]) {
        let room = |event: &Taken| {
            (
                event.node.clone(),
                event.number.sid.clone(),
                event.number.epoch,
            )
        };
        let mut blocked = HashSet::new();
        let mut done: HashSet<&str> = HashSet::new();
        let mut acks = BTreeMap::new();
        for (event, queued) in batch.iter().zip(queued) {
            let room = room(event);
            if !queued {
                blocked.insert(room);
            } else if !blocked.contains(&room) {
                done.insert(&event.id);
                acks.insert(room, ack_of(&event.number));
            }
        }
        if done.is_empty() {
            return;
        }
        let mut waiting = locked(&self.0.intake.waiting);
        // Only the head of the queue was worked on.
        let worked_on = batch.len().min(waiting.events.len());
        let rest = waiting.events.split_off(worked_on);
        let head = std::mem::replace(&mut waiting.events, rest);
        for event in head.into_iter().rev() {
            if done.contains(event.id.as_str()) {
                waiting.bytes -= event.body.len();
                waiting.ids.remove(&event.id);
                waiting.remember(event.id.clone());
            } else {
                waiting.events.push_front(event);
            }
        }
        let length = i64::try_from(waiting.events.len()).unwrap_or(i64::MAX);
        self.0.metrics.waiting.set(length);
        for (room, ack) in acks {
            if waiting.acks.len() < ACKS_MAX || waiting.acks.contains_key(&room) {
                waiting.acks.insert(room, ack);
            }
        }
        drop(waiting);
        self.acknowledge(plane);
    }

    /// Sends acknowledgements; what a node cannot be told now is tried again as long as it is attached here.
    fn acknowledge(&self, plane: &Plane) {
        let mut waiting = locked(&self.0.intake.waiting);
        waiting.acks.retain(|(node, ..), ack| {
            plane.is_attached(node) && !plane.order(node, Order::EventAck(ack.clone()))
        });
    }

    /// What could not be said before: acknowledgements, and that there is place again.
    fn settle(&self, plane: &Plane) {
        self.acknowledge(plane);
        let mut waiting = locked(&self.0.intake.waiting);
        if waiting.events.len() < WAITING_MAX / 2 && waiting.bytes < WAITING_BYTES_MAX / 2 {
            // One that is not attached says everything when it comes.
            for (node, told) in &mut waiting.refused {
                *told = *told || plane.order(node, Order::EventsAgain(true));
            }
            waiting.refused.retain(|node, _| plane.is_attached(node));
        }
    }
}
