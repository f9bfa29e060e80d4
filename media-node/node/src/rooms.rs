// SPDX-License-Identifier: EUPL-1.2
//! Room actors: one tokio task drives one pure `Room` with time and entropy passed in. A room that panics takes only itself along.

mod actor;
mod media;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use media_core::api::Fingerprint;
use media_core::ids::{RoomIndex, ShardId};
use media_room::api::{
    AdminCall, AdminRefusal, Candidate, Facts, Frame, JoinRefusal, Knock, KnockId, KnockUpdate,
    Policy, RoomConfig, SessionId, SessionStart, TokenFacts,
};
use media_room::counters::{DROPPED, Dropped};
use plenum_proto::v1::{NodeFacts, RoomClosed, RoomKey, RoomPolicy};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::Span;

use crate::clock::Clock;
use crate::link::ToLink;
use crate::reports::Reports;
use crate::state::State;
use actor::Actor;
pub use media::Media;

/// Rooms of one node: what all shards together hold.
pub const ROOMS_MAX: usize = 8_000;
/// Messages on their way to one room.
const MAILBOX: usize = 1_024;
/// Shard events on their way to one room.
const EVENTS: usize = 4_096;
/// Frames on their way to one client; who takes none for so long is no longer there.
const FRAMES: usize = 512;

/// People who come from this node to others during a move, on average (`decisions.md` §3.2).
const ARRIVALS_PER_SECOND: u64 = 50;

/// How often a node that leaves looks whether it is empty.
const LOOK: Duration = Duration::from_millis(100);

/// Tenant and name.
pub type Key = (String, String);

/// What goes down to a client's gateway.
#[derive(Debug)]
pub enum Down {
    /// Frame.
    Frame(Frame),
    /// Not taken; nothing follows.
    Refused(JoinRefusal),
    /// End of the WebSocket; nothing follows.
    Close(u16, &'static str),
    /// For a refreshed token.
    TokenFacts(Box<TokenFacts>),
}

/// What a room's task is told.
enum ToRoom {
    Session(
        Box<SessionStart>,
        mpsc::Sender<Down>,
        oneshot::Sender<SessionId>,
        Span,
    ),
    Frame(SessionId, Frame),
    SessionEnd(SessionId, bool),
    Knock(Knock, mpsc::Sender<KnockUpdate>, oneshot::Sender<KnockId>),
    KnockEnd(KnockId),
    Admin(
        Option<String>,
        AdminCall,
        oneshot::Sender<Result<Vec<u8>, AdminRefusal>>,
    ),
    Policy(Box<Policy>),
    Candidates(Vec<Candidate>),
    GiveUp,
    Notice(Option<u64>),
    /// The node's facts say whether maintenance is planned: read when the room comes to it, so that of two the later one counts.
    Maintenance,
}

/// The way to a live room.
#[derive(Clone)]
pub struct RoomHandle {
    key: Key,
    epoch: u64,
    index: RoomIndex,
    shard: ShardId,
    mailbox: mpsc::Sender<ToRoom>,
    shared: Arc<Shared>,
}

/// What others may know of a room without asking it.
struct Shared {
    participants: AtomicU32,
    facts: Mutex<Facts>,
    /// The rules it was opened with, where no conference declares them: they are reported, so that they outlive this node.
    own_rules: Option<RoomPolicy>,
    /// It was fenced: it goes on somewhere already.
    elsewhere: AtomicBool,
}

/// The room ended meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the room has ended")]
pub struct Ended;

impl<T> From<mpsc::error::SendError<T>> for Ended {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self
    }
}

impl From<oneshot::error::RecvError> for Ended {
    fn from(_: oneshot::error::RecvError) -> Self {
        Self
    }
}

/// Why a room is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    /// No facts yet.
    #[error("the node has no facts yet")]
    NoFacts,
    /// The facts name no address.
    #[error("nobody has said yet at which address clients reach the node")]
    NoAddress,
    /// Drained, stopping, or not wanted.
    #[error("the node takes no new rooms")]
    NotAccepting,
    /// Full.
    #[error("the node has no room for more rooms")]
    Full,
    /// A later lease is known here.
    #[error("the room lives here under epoch {0}")]
    Stale(u64),
    /// Epoch 0 or an empty key.
    #[error("key or epoch is missing")]
    Invalid,
}

/// All rooms of the node.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    map: Mutex<HashMap<Key, RoomHandle>>,
    tasks: Mutex<HashMap<RoomIndex, JoinHandle<()>>>,
    links: Vec<mpsc::Sender<ToLink>>,
    state: Arc<State>,
    reports: Arc<Reports>,
    clock: Clock,
    fingerprint: Fingerprint,
    media: Media,
    next_index: AtomicU32,
    next_session: AtomicU64,
    panics: AtomicU64,
    moving: AtomicBool,
    dropped: [AtomicU64; DROPPED.len()],
}

impl Rooms {
    /// No rooms yet.
    #[must_use]
    pub fn new(
        links: Vec<mpsc::Sender<ToLink>>,
        state: Arc<State>,
        reports: Arc<Reports>,
        clock: Clock,
        fingerprint: Fingerprint,
        media: Media,
    ) -> Self {
        Self(Arc::new(Inner {
            map: Mutex::default(),
            tasks: Mutex::default(),
            links,
            state,
            reports,
            clock,
            fingerprint,
            media,
            next_index: AtomicU32::new(1),
            next_session: AtomicU64::new(1),
            panics: AtomicU64::new(0),
            moving: AtomicBool::new(false),
            dropped: Default::default(),
        }))
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Key, RoomHandle>> {
        // Held for single map operations only; they leave no half state.
        self.0.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<RoomIndex, JoinHandle<()>>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rooms and participants.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        let map = self.map();
        let participants = map
            .values()
            .map(|room| room.shared.participants.load(Ordering::Relaxed))
            .sum();
        (map.len() as u32, participants)
    }

    /// Rooms that ended by a bug.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    /// What rooms dropped since the start, also those that ended.
    #[must_use]
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.0.dropped[why as usize].load(Ordering::Relaxed)
    }

    /// A live room.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<RoomHandle> {
        self.map().get(key).cloned()
    }

    /// Opens a room under a lease, or confirms it. The room's facts. `rules` is the policy as it came.
    ///
    /// # Errors
    /// [`OpenRefusal`].
    pub async fn open(
        &self,
        key: Key,
        epoch: u64,
        policy: Policy,
        rules: Option<RoomPolicy>,
        facts: Facts,
    ) -> Result<Facts, OpenRefusal> {
        if epoch == 0 || key.0.is_empty() || key.1.is_empty() {
            return Err(OpenRefusal::Invalid);
        }
        let standing = self.0.state.standing();
        let Some(node) = &standing.facts else {
            return Err(OpenRefusal::NoFacts);
        };
        // Where it is bound would be a guess, and a wrong one behind a NAT: nobody would hear anybody.
        if node.addresses.is_empty() {
            return Err(OpenRefusal::NoAddress);
        }
        let (room, former) = {
            let mut map = self.map();
            let former = map.get(&key).cloned();
            match &former {
                Some(room) if room.epoch == epoch && !room.mailbox.is_closed() => {
                    (Err(room.clone()), None)
                }
                Some(room) if room.epoch > epoch => return Err(OpenRefusal::Stale(room.epoch)),
                _ => {
                    if !standing.accepts() {
                        return Err(OpenRefusal::NotAccepting);
                    }
                    if map.len() >= rooms_max(node) {
                        return Err(OpenRefusal::Full);
                    }
                    let index = RoomIndex(self.0.next_index.fetch_add(1, Ordering::Relaxed));
                    let shard = self.lightest_shard(&map);
                    let (mailbox, receiver) = mpsc::channel(MAILBOX);
                    let room = RoomHandle {
                        key: key.clone(),
                        epoch,
                        index,
                        shard,
                        mailbox,
                        shared: Arc::new(Shared {
                            participants: AtomicU32::new(0),
                            facts: Mutex::new(facts.clone()),
                            own_rules: rules.filter(|rules| !rules.declared),
                            elsewhere: AtomicBool::new(false),
                        }),
                    };
                    map.insert(key.clone(), room.clone());
                    (Ok((room, receiver)), former)
                }
            }
        };
        if let Some(former) = former {
            // A later lease of a room that still lives here: its people are told to come again and find the new one.
            let _ = former.mailbox.send(ToRoom::GiveUp).await;
        }
        match room {
            Err(confirmed) => {
                // One that ends at this moment is confirmed all the same: the caller's next call finds it gone and asks again.
                let _ = confirmed
                    .mailbox
                    .send(ToRoom::Policy(Box::new(policy)))
                    .await;
                Ok(confirmed.facts())
            }
            Ok((room, receiver)) => {
                let config = RoomConfig {
                    name: key.1,
                    index: room.index,
                    epoch,
                    policy,
                    facts,
                    site: node.site.clone(),
                    node_id: node.node_id.clone(),
                    shard: room.shard,
                    fingerprint: self.0.fingerprint,
                    candidates: self.0.media.candidates(node, room.shard),
                    wall: self.0.clock.wall(),
                };
                let (ready, is_ready) = oneshot::channel();
                self.spawn(room.clone(), receiver, config, ready);
                // The first report carries the sid.
                let _ = is_ready.await;
                let _ = room.mailbox.send(ToRoom::Maintenance).await;
                Ok(room.facts())
            }
        }
    }

    fn lightest_shard(&self, map: &HashMap<Key, RoomHandle>) -> ShardId {
        let mut load = vec![(0_u64, 0_u32); self.0.links.len()];
        for room in map.values() {
            if let Some((participants, rooms)) = load.get_mut(usize::from(room.shard.0)) {
                *participants += u64::from(room.shared.participants.load(Ordering::Relaxed));
                *rooms += 1;
            }
        }
        let lightest = load
            .iter()
            .enumerate()
            .min_by_key(|(_, load)| **load)
            .map_or(0, |(index, _)| index);
        ShardId(lightest as u8)
    }

    fn spawn(
        &self,
        room: RoomHandle,
        receiver: mpsc::Receiver<ToRoom>,
        config: RoomConfig,
        ready: oneshot::Sender<()>,
    ) {
        let rooms = self.clone();
        let index = room.index;
        let supervisor = tokio::spawn(async move {
            let link = rooms.0.links[usize::from(room.shard.0)].clone();
            let (events, event_queue) = mpsc::channel(EVENTS);
            if link.send(ToLink::Room(room.index, events)).await.is_err() {
                return;
            }
            let actor = Actor::new(&rooms, &room, link.clone(), config);
            let outcome = tokio::spawn(actor.run(receiver, event_queue, ready)).await;
            let reason = match outcome {
                Ok("GivenUp") if room.shared.elsewhere.load(Ordering::Relaxed) => "Elsewhere",
                Ok(reason) => reason,
                Err(error) => {
                    rooms.0.panics.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(event = "RoomPanicked", room = room.index.0, %error, "a room ended by a bug; the others go on");
                    "Panicked"
                }
            };
            {
                let mut map = rooms.map();
                if map
                    .get(&room.key)
                    .is_some_and(|current| current.index == room.index)
                {
                    map.remove(&room.key);
                }
            }
            let _ = link.send(ToLink::Gone(room.index)).await;
            rooms.0.reports.closed(RoomClosed {
                key: Some(proto_key(&room.key)),
                epoch: room.epoch,
                reason: reason.to_owned(),
            });
            rooms.tasks().remove(&room.index);
            tracing::info!(
                event = "RoomEnded",
                room = room.index.0,
                epoch = room.epoch,
                reason,
                "room ended"
            );
        });
        self.tasks().insert(index, supervisor);
    }

    fn handles(&self) -> Vec<RoomHandle> {
        self.map().values().cloned().collect()
    }

    /// Fencing: a higher epoch of the room lives elsewhere.
    pub fn drop_below(&self, key: &Key, epoch_below: u64) {
        if let Some(room) = self.find(key)
            && room.epoch < epoch_below
        {
            room.shared.elsewhere.store(true, Ordering::Relaxed);
            room.give_up();
        }
    }

    /// Gives every room up at once; its people are told to come again.
    pub fn give_up_all(&self) {
        for room in self.handles() {
            room.give_up();
        }
    }

    /// Tells everybody that the rooms move at a time (milliseconds since 1970), or not after all.
    pub fn announce(&self, moves_at_unix_ms: Option<u64>) {
        for room in self.handles() {
            tokio::spawn(async move {
                let _ = room.mailbox.send(ToRoom::Notice(moves_at_unix_ms)).await;
            });
        }
    }

    /// How long giving up every room takes when nobody is in a hurry.
    #[must_use]
    pub fn time_to_move(&self) -> Duration {
        Duration::from_millis(u64::from(self.counts().1) * 1_000 / ARRIVALS_PER_SECOND)
    }

    /// Gives every room up, one after the other: all of a room in one burst, the rooms so far apart that other nodes are not overrun
    /// (`decisions.md` §3.2). Faster when `deadline` would be missed. A second order while this goes on changes nothing.
    pub fn move_all(&self, deadline: Option<Duration>) {
        if self.0.moving.swap(true, Ordering::AcqRel) {
            return;
        }
        let rooms = self.clone();
        tokio::spawn(async move {
            let mut handles = rooms.handles();
            // Small rooms first: most rooms are moved before a large one goes alone.
            handles.sort_by_key(RoomHandle::participants);
            let people: Vec<u32> = handles.iter().map(RoomHandle::participants).collect();
            for (room, pause) in handles.into_iter().zip(pauses(&people, deadline)) {
                room.give_up();
                sleep(pause).await;
            }
            rooms.0.moving.store(false, Ordering::Release);
        });
    }

    /// When maintenance of the node begins, by its facts.
    fn maintenance_at(&self) -> Option<u64> {
        let facts = self.0.state.standing().facts?;
        let at = u64::try_from(facts.maintenance_at_unix_ms).ok();
        at.filter(|at| *at > 0)
    }

    /// Tells every room where its shard is reached now, and whether maintenance is planned.
    pub fn apply_facts(&self, facts: &NodeFacts) {
        for room in self.handles() {
            let candidates = self.0.media.candidates(facts, room.shard);
            tokio::spawn(async move {
                let _ = room.mailbox.send(ToRoom::Candidates(candidates)).await;
                let _ = room.mailbox.send(ToRoom::Maintenance).await;
            });
        }
    }

    /// Waits until no room is left.
    pub async fn emptied(&self) {
        while self.counts().0 > 0 {
            sleep(LOOK).await;
        }
    }

    /// Ends all rooms in good order, within `limit`.
    pub async fn end_all(&self, limit: Duration) {
        self.give_up_all();
        let tasks: Vec<JoinHandle<()>> = self.tasks().drain().map(|(_, task)| task).collect();
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if timeout(limit, all).await.is_err() {
            tracing::warn!(event = "RoomsLate", "not all rooms ended in time");
        }
    }

    /// A number for a session, knock or request.
    fn number(&self) -> u64 {
        self.0.next_session.fetch_add(1, Ordering::Relaxed)
    }
}

impl RoomHandle {
    /// Lease epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// People, as of the last report.
    #[must_use]
    pub fn participants(&self) -> u32 {
        self.shared.participants.load(Ordering::Relaxed)
    }

    /// Facts as of the last report.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.shared
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for the end of the room's task.
    pub async fn ended(&self) {
        self.mailbox.closed().await;
    }

    fn give_up(&self) {
        let mailbox = self.mailbox.clone();
        tokio::spawn(async move {
            let _ = mailbox.send(ToRoom::GiveUp).await;
        });
    }

    /// A client's session: its number and what goes down to it.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn session(
        &self,
        start: SessionStart,
    ) -> Result<(SessionId, mpsc::Receiver<Down>), Ended> {
        let (down, queue) = mpsc::channel(FRAMES);
        let (reply, number) = oneshot::channel();
        self.mailbox
            .send(ToRoom::Session(
                Box::new(start),
                down,
                reply,
                Span::current(),
            ))
            .await?;
        Ok((number.await?, queue))
    }

    /// A frame of a client.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn frame(&self, session: SessionId, frame: Frame) -> Result<(), Ended> {
        Ok(self.mailbox.send(ToRoom::Frame(session, frame)).await?)
    }

    /// The WebSocket ended.
    pub async fn session_end(&self, session: SessionId, clean: bool) {
        let _ = self.mailbox.send(ToRoom::SessionEnd(session, clean)).await;
    }

    /// Somebody at the door: their number and news.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn knock(
        &self,
        entry: Knock,
    ) -> Result<(KnockId, mpsc::Receiver<KnockUpdate>), Ended> {
        let (updates, queue) = mpsc::channel(64);
        let (reply, number) = oneshot::channel();
        self.mailbox
            .send(ToRoom::Knock(entry, updates, reply))
            .await?;
        Ok((number.await?, queue))
    }

    /// They left.
    pub async fn knock_end(&self, knock: KnockId) {
        let _ = self.mailbox.send(ToRoom::KnockEnd(knock)).await;
    }

    /// Administration.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn admin(
        &self,
        actor: Option<String>,
        call: AdminCall,
    ) -> Result<Result<Vec<u8>, AdminRefusal>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(ToRoom::Admin(actor, call, reply)).await?;
        Ok(answer.await?)
    }

    /// The declared policy changed.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn policy(&self, policy: Policy) -> Result<(), Ended> {
        Ok(self.mailbox.send(ToRoom::Policy(Box::new(policy))).await?)
    }
}

/// Pause after each room of a move: its people arrive elsewhere at [`ARRIVALS_PER_SECOND`] on average, or faster when the whole would
/// take longer than `deadline`.
fn pauses(people: &[u32], deadline: Option<Duration>) -> Vec<Duration> {
    let all: u64 = people.iter().copied().map(u64::from).sum();
    let whole = Duration::from_millis(all * 1_000 / ARRIVALS_PER_SECOND);
    let whole = deadline.map_or(whole, |deadline| whole.min(deadline));
    people
        .iter()
        .map(|people| {
            whole
                .checked_div(u32::try_from(all).unwrap_or(u32::MAX))
                .map_or(Duration::ZERO, |each| each * *people)
        })
        .collect()
}

/// Rooms the node may hold: by its facts, never more than the shards can.
fn rooms_max(facts: &NodeFacts) -> usize {
    match facts.capacity.as_ref().map_or(0, |capacity| capacity.rooms) {
        0 => ROOMS_MAX,
        rooms => ROOMS_MAX.min(rooms as usize),
    }
}

/// Wire form of a key.
fn proto_key(key: &Key) -> RoomKey {
    RoomKey {
        tenant: key.0.clone(),
        name: key.1.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_move_lets_fifty_people_per_second_arrive() {
        let second = Duration::from_secs(1);
        assert_eq!(pauses(&[50, 100], None), [second, second * 2]);
        assert_eq!(pauses(&[0, 0], None), [Duration::ZERO; 2]);
        assert_eq!(pauses(&[50, 50], Some(second)), [second / 2; 2]);
    }

    proptest! {
        #[test]
        fn a_move_ends_by_its_deadline(people in prop::collection::vec(0..1_000_u32, 0..100), seconds in 0..100_u64) {
            let deadline = Duration::from_secs(seconds);
            prop_assert!(pauses(&people, Some(deadline)).into_iter().sum::<Duration>() <= deadline);
        }
    }
}
