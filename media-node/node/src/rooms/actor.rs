// SPDX-License-Identifier: EUPL-1.2
//! The task of one room: time, randomness and messages into the pure `Room`, its outputs to shard, gateways and reports.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use media_core::api::Event;
use media_room::api::{
    AdminRefusal, Entropy, Input, KnockId, KnockUpdate, Output, RequestId, RoomConfig, RoomReport,
    SessionId,
};
use media_room::counters::{Counters, DROPPED};
use media_room::room::Room;
use plenum_proto::v1::{RoomEvent, RoomState};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::Span;

use super::{Down, Key, RoomHandle, Rooms, Shared, ToRoom, proto_key};
use crate::convert;
use crate::link::ToLink;

/// The system's randomness.
struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0
            .fill(bytes)
            .expect("invariant: the system's random generator works");
    }
}

/// One room's task.
pub(super) struct Actor {
    room: Room,
    key: Key,
    epoch: u64,
    rooms: Rooms,
    shared: Arc<Shared>,
    link: mpsc::Sender<ToLink>,
    sessions: HashMap<SessionId, mpsc::Sender<Down>>,
    knocks: HashMap<KnockId, mpsc::Sender<KnockUpdate>>,
    requests: HashMap<RequestId, oneshot::Sender<Result<Vec<u8>, AdminRefusal>>>,
    ended: Option<&'static str>,
    counted: Counters,
    /// Of the session that is beginning: what the room orders meanwhile belongs to its trace.
    beginning: Span,
}

impl Actor {
    pub(super) fn new(
        rooms: &Rooms,
        handle: &RoomHandle,
        link: mpsc::Sender<ToLink>,
        config: RoomConfig,
    ) -> Self {
        let clock = rooms.0.clock;
        let now = clock.now();
        Self {
            room: Room::new(config, Box::new(SystemEntropy(SystemRandom::new())), now),
            key: handle.key.clone(),
            epoch: handle.epoch,
            rooms: rooms.clone(),
            shared: Arc::clone(&handle.shared),
            link,
            sessions: HashMap::new(),
            knocks: HashMap::new(),
            requests: HashMap::new(),
            ended: None,
            counted: Counters::default(),
            beginning: Span::none(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<ToRoom>,
        mut events: mpsc::Receiver<Event>,
        ready: oneshot::Sender<()>,
    ) -> &'static str {
        let clock = self.rooms.0.clock;
        self.drain().await;
        let _ = ready.send(());
        let mut missed = false;
        while self.ended.is_none() {
            let deadline = self
                .room
                .poll_deadline()
                .map(|at| Instant::from_std(clock.instant(at)));
            let timer = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.recv(), if !missed => match event {
                    Some(event) => self.room.handle(clock.now(), Input::Media(event)),
                    None => {
                        // The link dropped us: events were missed.
                        missed = true;
                        self.room.handle(clock.now(), Input::GiveUp);
                    }
                },
                Some(message) = mailbox.recv() => self.take(message),
                () = timer => self.room.handle_timeout(clock.now()),
            }
            self.drain().await;
            self.beginning = Span::none();
        }
        self.ended.unwrap_or("Ended")
    }

    fn take(&mut self, message: ToRoom) {
        let now = self.rooms.0.clock.now();
        let input = match message {
            ToRoom::Session(start, down, reply, span) => {
                self.beginning = span;
                let session = SessionId(self.rooms.number());
                self.sessions.insert(session, down);
                let _ = reply.send(session);
                Input::SessionStart { session, start }
            }
            ToRoom::Frame(session, frame) => Input::Frame { session, frame },
            ToRoom::SessionEnd(session, clean) => {
                self.sessions.remove(&session);
                Input::SessionEnd { session, clean }
            }
            ToRoom::Knock(entry, updates, reply) => {
                let knock = KnockId(self.rooms.number());
                self.knocks.insert(knock, updates);
                let _ = reply.send(knock);
                Input::Knock { knock, entry }
            }
            ToRoom::KnockEnd(knock) => {
                self.knocks.remove(&knock);
                Input::KnockEnd { knock }
            }
            ToRoom::Admin(actor, call, reply) => {
                let request = RequestId(self.rooms.number());
                self.requests.insert(request, reply);
                Input::Admin {
                    request,
                    actor,
                    call,
                }
            }
            ToRoom::Policy(policy) => Input::Policy(policy),
            ToRoom::Candidates(candidates) => Input::Candidates(candidates),
            ToRoom::GiveUp => Input::GiveUp,
            ToRoom::Notice(moves_at) => Input::Notice(moves_at),
            ToRoom::Maintenance => Input::Maintenance(self.rooms.maintenance_at()),
        };
        self.room.handle(now, input);
    }

    /// Carries out everything the room wants.
    async fn drain(&mut self) {
        let mut stuck: Vec<SessionId> = Vec::new();
        loop {
            while let Some(output) = self.room.poll_output() {
                self.carry_out(output, &mut stuck).await;
            }
            self.count();
            // Whoever takes no frames is gone; the room hears of it after its present outputs.
            let Some(session) = stuck.pop() else { return };
            if self.sessions.remove(&session).is_some() {
                self.room.handle(
                    self.rooms.0.clock.now(),
                    Input::SessionEnd {
                        session,
                        clean: false,
                    },
                );
            }
        }
    }

    /// Adds what the room dropped since the last time to the node's counters.
    fn count(&mut self) {
        let counters = self.room.counters();
        if *counters == self.counted {
            return;
        }
        for why in DROPPED {
            let more = counters.dropped(why) - self.counted.dropped(why);
            self.rooms.0.dropped[why as usize].fetch_add(more, Ordering::Relaxed);
        }
        self.counted.clone_from(counters);
    }

    async fn carry_out(&mut self, output: Output, stuck: &mut Vec<SessionId>) {
        match output {
            Output::Frame { session, frame } => self.down(session, Down::Frame(frame), stuck),
            Output::Refused { session, refusal } => {
                self.down(session, Down::Refused(refusal), stuck);
                self.sessions.remove(&session);
            }
            Output::Close {
                session,
                code,
                reason,
            } => {
                self.down(session, Down::Close(code, reason), stuck);
                self.sessions.remove(&session);
            }
            Output::TokenFacts { session, facts } => {
                self.down(session, Down::TokenFacts(facts), stuck)
            }
            Output::Media(command) => {
                let _ = self
                    .link
                    .send(ToLink::Command(command, self.beginning.clone()))
                    .await;
            }
            Output::Knock { knock, update } => {
                let last = !matches!(update, KnockUpdate::Position(_));
                if let Some(updates) = self.knocks.get(&knock) {
                    // A page that does not read misses positions, never the decision: that one waits in the room's facts.
                    let _ = updates.try_send(update);
                }
                if last {
                    self.knocks.remove(&knock);
                }
            }
            Output::Admin { request, result } => {
                if let Some(reply) = self.requests.remove(&request) {
                    let _ = reply.send(result);
                }
            }
            Output::Report(report) => self.report(*report),
            Output::Event {
                seq,
                room_sid,
                name,
                body,
            } => self.rooms.0.reports.event(RoomEvent {
                key: Some(proto_key(&self.key)),
                epoch: self.epoch,
                seq,
                name: name.to_owned(),
                body,
                room_sid,
                again: false,
            }),
            Output::Ended { reason } => self.ended = Some(reason),
        }
    }

    fn down(&mut self, session: SessionId, down: Down, stuck: &mut Vec<SessionId>) {
        if let Some(queue) = self.sessions.get(&session)
            && queue.try_send(down).is_err()
        {
            stuck.push(session);
        }
    }

    fn report(&self, report: RoomReport) {
        self.shared
            .participants
            .store(report.participants, Ordering::Relaxed);
        *self
            .shared
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = report.facts.clone();
        self.rooms.0.reports.room(RoomState {
            key: Some(proto_key(&self.key)),
            epoch: self.epoch,
            participants: report.participants,
            publishers: report.publishers,
            facts: Some(convert::facts_out(report.facts)),
            policy_revision: report.policy_revision,
            lobby: report.lobby,
            policy: self.shared.own_rules.clone(),
        });
    }
}
