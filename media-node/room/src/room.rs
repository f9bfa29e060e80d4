// SPDX-License-Identifier: EUPL-1.2
//! The room actor: roster and peers in one process, and the queues between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use media_core::api::{Command, Event};
use media_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{Entropy, Input, Output, RoomConfig, SessionId};
use crate::counters::{Counters, Dropped};
use crate::link::{MemberId, ToPeer, ToRoster};
use crate::peer::{self, Host, Peer};
use crate::roster::{self, Down, Roster};

/// A room. Hand in inputs and time, then drain [`Room::poll_output`].
pub struct Room {
    roster: Roster,
    peers: BTreeMap<MemberId, Peer>,
    sessions: BTreeMap<SessionId, MemberId>,
    host: Host,
    entropy: Box<dyn Entropy + Send>,
    next_id: u32,
    next_member: u32,
    owners: BTreeMap<u64, MemberId>,
    up: VecDeque<(MemberId, ToRoster)>,
    down: VecDeque<Down>,
    out: VecDeque<Output>,
    counters: Counters,
    /// Peers that did something in this step.
    touched: BTreeSet<MemberId>,
    deadline: Option<Timestamp>,
    ended: bool,
    by_wire: bool,
}

impl Room {
    /// A room that nobody is in yet. Its first outputs make it on the shard and report its facts.
    #[must_use]
    pub fn new(config: RoomConfig, mut entropy: Box<dyn Entropy + Send>, now: Timestamp) -> Self {
        let host = Host {
            room: config.index,
            shard: config.shard,
            fingerprint: config.fingerprint,
            candidates: config.candidates.clone(),
        };
        let (mut out, mut down, mut counters, mut next_member) =
            (VecDeque::new(), VecDeque::new(), Counters::default(), 0);
        let mut context = roster::Context {
            now,
            entropy: entropy.as_mut(),
            next_member: &mut next_member,
            out: &mut out,
            down: &mut down,
            counters: &mut counters,
        };
        let mut roster = Roster::new(&mut context, config);
        roster.report(&mut context);
        let deadline = roster.deadline();
        Self {
            roster,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            host,
            entropy,
            next_id: 0,
            next_member,
            owners: BTreeMap::new(),
            up: VecDeque::new(),
            down,
            out,
            counters,
            touched: BTreeSet::new(),
            deadline,
            ended: false,
            by_wire: false,
        }
    }

    /// From now on everything that roster and peers say to each other, and the peers' own state after every step, takes the way
    /// through its serialised form. For tests: what is lost on that way is a bug.
    pub fn by_wire(&mut self) {
        self.by_wire = true;
    }

    /// What was dropped.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Next output. To be drained after every `handle*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Room::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Timestamp> {
        if self.ended {
            return None;
        }
        self.deadline
    }

    fn earliest(&self) -> Option<Timestamp> {
        self.roster
            .deadline()
            .into_iter()
            .chain(self.peers.values().filter_map(Peer::deadline))
            .min()
    }

    /// Timers.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.ended {
            return;
        }
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.with_peer(now, id, |peer, context| peer.timeout(context));
        }
        self.with_roster(now, |roster, context| roster.timeout(context));
        self.settle(now, false);
    }

    /// One input.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        if self.ended {
            return self.late(input);
        }
        let frequent = matches!(
            &input,
            Input::Media(
                Event::Data { .. } | Event::Speakers { .. } | Event::EncodingForwarded { .. }
            )
        );
        match input {
            Input::SessionStart { session, start } => {
                let member = self.with_roster(now, |roster, context| {
                    roster.session_start(context, session, *start)
                });
                if let Some(member) = member {
                    self.sessions.insert(session, member);
                }
            }
            Input::Frame { session, frame } => {
                let unix_ms = self.roster.unix_ms(now);
                match self.sessions.get(&session).copied() {
                    Some(id) => {
                        self.with_peer(now, id, |peer, context| {
                            // What an older WebSocket of the same participant still said does not count.
                            if peer.session == Some(session) {
                                peer.frame(context, &frame, unix_ms);
                            }
                        });
                    }
                    None => self.counters.drop(Dropped::UnknownSession),
                }
            }
            Input::SessionEnd { session, clean: _ } => {
                if let Some(id) = self.sessions.remove(&session) {
                    self.with_peer(now, id, |peer, context| peer.signal_lost(context, session));
                }
            }
            Input::Media(event) => self.event(now, event),
            Input::Knock { knock, entry } => {
                self.with_roster(now, |roster, context| roster.knock(context, knock, entry))
            }
            Input::KnockEnd { knock } => {
                self.with_roster(now, |roster, context| roster.knock_end(context, knock))
            }
            Input::Admin {
                request,
                actor,
                call,
            } => {
                self.with_roster(now, |roster, context| {
                    roster.admin(context, request, actor.as_deref(), call)
                });
            }
            Input::Policy(policy) => {
                self.with_roster(now, |roster, context| roster.policy(context, *policy))
            }
            Input::Candidates(candidates) => {
                self.host.candidates = candidates;
                for id in self.peers.keys().copied().collect::<Vec<_>>() {
                    self.with_peer(now, id, |peer, context| peer.addresses(context));
                }
            }
            Input::GiveUp => self.with_roster(now, |roster, context| roster.give_up(context)),
            Input::Notice(moves_at) => {
                self.with_roster(now, |roster, context| roster.notice(context, moves_at));
            }
            Input::Maintenance(begins_at) => {
                self.with_roster(now, |roster, context| {
                    roster.maintenance(context, begins_at)
                });
            }
        }
        self.settle(now, frequent);
    }

    /// Whoever comes after the end is told so.
    fn late(&mut self, input: Input) {
        use crate::api::{AdminRefusal, JoinRefusal, KnockRefusal, KnockUpdate};
        let answer = match input {
            Input::SessionStart { session, .. } => Output::Refused {
                session,
                refusal: JoinRefusal::Closing,
            },
            Input::Knock { knock, .. } => Output::Knock {
                knock,
                update: KnockUpdate::Refused(KnockRefusal::Closing),
            },
            Input::Admin { request, .. } => Output::Admin {
                request,
                result: Err(AdminRefusal::NotFound("room")),
            },
            _ => return,
        };
        self.out.push_back(answer);
    }

    fn event(&mut self, now: Timestamp, event: Event) {
        let object = match &event {
            Event::Speakers { levels, .. } => {
                return self.with_roster(now, |roster, context| roster.speakers(context, levels));
            }
            Event::Connected { transport, .. }
            | Event::PathChanged { transport, .. }
            | Event::Failed { transport, .. }
            | Event::ChannelOpen { transport, .. }
            | Event::Data { transport, .. }
            | Event::Stats { transport, .. } => transport.0,
            Event::EncodingBound { publication, .. } => publication.0,
            Event::EncodingForwarded { subscription, .. } => subscription.0,
            Event::Refused {
                transport: Some(transport),
                ..
            } => transport.0,
            Event::Refused {
                transport: None, ..
            } => return self.counters.drop(Dropped::CommandRefused),
            // Of a hand-over, which is not asked for yet.
            _ => return,
        };
        // An event of something that was removed meanwhile is late, not wrong.
        if let Some(id) = self.owners.get(&object).copied() {
            self.with_peer(now, id, |peer, context| peer.event(context, event));
        }
    }

    fn with_roster<T>(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut Roster, &mut roster::Context<'_>) -> T,
    ) -> T {
        let mut context = roster::Context {
            now,
            entropy: self.entropy.as_mut(),
            next_member: &mut self.next_member,
            out: &mut self.out,
            down: &mut self.down,
            counters: &mut self.counters,
        };
        work(&mut self.roster, &mut context)
    }

    fn with_peer<T>(
        &mut self,
        now: Timestamp,
        id: MemberId,
        work: impl FnOnce(&mut Peer, &mut peer::Context<'_>) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(&id)?;
        let mut context = peer::Context {
            now,
            host: &self.host,
            entropy: self.entropy.as_mut(),
            next_id: &mut self.next_id,
            owners: &mut self.owners,
            out: &mut self.out,
            up: &mut self.up,
            counters: &mut self.counters,
        };
        let result = work(peer, &mut context);
        self.touched.insert(id);
        if self.by_wire {
            *peer = through_wire(peer);
        }
        Some(result)
    }

    /// Lets roster and peers talk until they have nothing more to say.
    ///
    /// After what comes often, and changes neither facts nor counts nor timers, those are not gone through.
    fn settle(&mut self, now: Timestamp, frequent: bool) {
        loop {
            if let Some((id, message)) = self.up.pop_front() {
                let message = if self.by_wire {
                    through_wire(&message)
                } else {
                    message
                };
                self.with_roster(now, |roster, context| roster.handle(context, id, message));
            } else if let Some(down) = self.down.pop_front() {
                self.deliver(now, down);
            } else {
                self.with_roster(now, |roster, context| roster.flush(context));
                if self.up.is_empty() && self.down.is_empty() {
                    for id in std::mem::take(&mut self.touched) {
                        self.with_peer(now, id, Peer::negotiate);
                    }
                    self.touched.clear();
                    break;
                }
            }
        }
        match self.roster.ended {
            None if frequent => {}
            None => {
                self.with_roster(now, |roster, context| roster.report(context));
                self.deadline = self.earliest();
            }
            Some(reason) => {
                self.ended = true;
                self.out.push_back(Output::Media(Command::RemoveRoom {
                    room: self.roster.index(),
                }));
                self.out.push_back(Output::Ended { reason });
            }
        }
    }

    fn deliver(&mut self, now: Timestamp, down: Down) {
        match down {
            Down::One(id, message) => self.deliver_one(now, id, message),
            Down::Many(ids, ToPeer::Data { channel, payload }) => {
                let transports: Vec<_> = ids
                    .iter()
                    .filter_map(|id| self.peers.get_mut(id)?.data_transport(channel, &payload))
                    .collect();
                if !transports.is_empty() {
                    self.out.push_back(Output::Media(Command::SendData {
                        transports,
                        channel,
                        payload: payload.into(),
                    }));
                }
            }
            Down::Many(ids, message) => {
                for id in ids {
                    self.deliver_one(now, id, message.clone());
                }
            }
        }
    }

    fn deliver_one(&mut self, now: Timestamp, id: MemberId, message: ToPeer) {
        let message = if self.by_wire {
            through_wire(&message)
        } else {
            message
        };
        if let ToPeer::Start(start) = message {
            let mut context = peer::Context {
                now,
                host: &self.host,
                entropy: self.entropy.as_mut(),
                next_id: &mut self.next_id,
                owners: &mut self.owners,
                out: &mut self.out,
                up: &mut self.up,
                counters: &mut self.counters,
            };
            let peer = Peer::new(&mut context, id, *start);
            self.peers.insert(id, peer);
            return;
        }
        if let ToPeer::Attach { session, .. } = &message {
            let session = *session;
            self.sessions
                .retain(|other, member| *member != id || *other == session);
        }
        let goes_on = self.with_peer(now, id, |peer, context| peer.handle(context, message));
        if goes_on == Some(false) {
            self.peers.remove(&id);
            self.sessions.retain(|_, member| *member != id);
            self.owners.retain(|_, member| *member != id);
        }
    }
}

/// There and back again.
fn through_wire<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let bytes = serde_json::to_vec(value)
        .expect("invariant: what is said between roster and peers can be serialised");
    serde_json::from_slice(&bytes).expect("invariant: what was serialised can be read")
}
