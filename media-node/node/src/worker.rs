// SPDX-License-Identifier: EUPL-1.2
//! One thread per shard: wait, receive, tick, send. Nothing here waits for anything but the kernel's readiness and the shard's own
//! deadlines.
//!
//! *Phases of a tick*: 1 commands, 2 hand-overs of sibling shards, 3 receive, 4 timers, 5 send, 6 events and counters.

mod counters;
mod streams;
mod waker;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use media_core::api::{Command, Event};
use media_core::ids::ShardId;
use media_core::io::{Path, Protocol, RecvBatch};
use media_core::shard::Shard;
use media_core::time::Timestamp;
use media_crypto::AwsLc;
use media_net::{Buffers, Sent, UdpSocket};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use tokio::sync::mpsc::error::TrySendError as TrySend;

use crate::clock::Clock;
use crate::link::is_lossy;
use crate::steer::{Steering, is_success_response};
use crate::stream::Connection;
pub use counters::{Published, WorkerCounters};
pub use waker::Waker;

/// Commands on their way to one shard: a full room of 500 joins with a few hundred commands each second.
pub const COMMANDS_MAX: usize = 8_192;
/// Events on their way from one shard.
pub const EVENTS_MAX: usize = 8_192;
/// Blocks of datagrams on their way from one sibling; a block holds up to one receive batch.
const HAND_OVERS_MAX: usize = 64;
/// Of those, blocks of strangers' datagrams: checks from addresses that nobody vouched for.
const STRANGERS_MAX: usize = 16;
/// New ICE-TCP connections on their way.
const STREAMS_QUEUE: usize = 64;
/// ICE-TCP connections of one shard.
const STREAMS_MAX: usize = 2_048;
/// Commands taken per tick, so that a burst of joins does not hold up packets.
const COMMANDS_PER_TICK: usize = 128;
/// Receive batches read per socket and tick.
const READS_PER_TICK: usize = 4;
/// Shortest time between two looks at the sockets while media come. The first datagram after a pause is taken at once; what follows it
/// closely, as the packets of a picture do, is taken together and leaves as one run. More would be felt as latency, less makes short
/// runs (`run_lengths` in the tests prints them).
const TICK: Duration = Duration::from_micros(500);
/// Longest wait without a deadline.
const IDLE: Duration = Duration::from_millis(500);
/// ICE-TCP connections are looked through this often.
const EXPIRY: Duration = Duration::from_secs(1);
/// Counters are copied out this often.
const COUNTERS: Duration = Duration::from_millis(250);

/// Datagrams of another shard's flows, moved as a block.
enum HandOver {
    Datagrams(RecvBatch),
    /// The sibling vouches for an address.
    Learn(SocketAddr),
}

/// What the shell keeps of a running shard.
#[derive(Clone)]
pub struct ShardPort {
    /// Which.
    pub id: ShardId,
    commands: SyncSender<Command>,
    streams: SyncSender<Connection>,
    waker: Waker,
    published: Arc<Mutex<Published>>,
}

impl ShardPort {
    /// Queues a command; gives it back when the queue is full or the shard gone.
    ///
    /// # Errors
    /// The command, with the reason.
    pub fn command(&self, command: Command) -> Result<(), TrySendError<Command>> {
        self.commands.try_send(command)?;
        self.waker.wake();
        Ok(())
    }

    /// Hands over an ICE-TCP connection; false (and the connection ends) when the shard does not keep up.
    #[must_use]
    pub fn stream(&self, connection: Connection) -> bool {
        let taken = self.streams.try_send(connection).is_ok();
        self.waker.wake();
        taken
    }

    /// Wakes the thread, to look at a stop flag.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Counters as of at most a quarter of a second ago.
    #[must_use]
    pub fn published(&self) -> Published {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One shard's sockets and queues before its thread runs.
pub struct Worker {
    shard: Shard<AwsLc>,
    id: ShardId,
    clock: Clock,
    sockets: Vec<(SocketAddr, UdpSocket)>,
    steering: Steering,
    commands: Receiver<Command>,
    streams: Receiver<Connection>,
    events: tokio::sync::mpsc::Sender<Event>,
    /// Events that found no place and must not be lost. Bounded by what rooms commanded: data and levels are not among them.
    held: VecDeque<Event>,
    siblings: Vec<Option<Sibling>>,
    incoming: Receiver<(ShardId, HandOver)>,
    strangers: Receiver<(ShardId, RecvBatch)>,
    spare: Receiver<RecvBatch>,
    connections: HashMap<Path, (u64, Connection)>,
    tokens: HashMap<u64, Path>,
    next_token: u64,
    next_expiry: Timestamp,
    epoll: OwnedFd,
    waker: Waker,
    stop: Arc<AtomicBool>,
    published: Arc<Mutex<Published>>,
    counters: WorkerCounters,
    batch: RecvBatch,
    /// By shard: datagrams of those that are known, and of strangers.
    outgoing: Vec<[RecvBatch; 2]>,
    pool: Vec<RecvBatch>,
    next_copy: Timestamp,
    /// Earliest time of the next look at the sockets.
    next_look: Timestamp,
}

/// The way to a sibling shard.
#[derive(Clone)]
struct Sibling {
    queue: SyncSender<(ShardId, HandOver)>,
    introductions: SyncSender<(ShardId, RecvBatch)>,
    /// Gives an emptied block back to where it came from.
    back: SyncSender<RecvBatch>,
    waker: Waker,
}

/// Epoll tokens below this are UDP sockets, the last of them the waker.
const TOKEN_STREAMS: u64 = 1 << 16;
const TOKEN_WAKER: u64 = TOKEN_STREAMS - 1;

/// What a set of workers is made from.
pub struct Plan {
    /// One entry per shard: the addresses to bind.
    pub addresses: Vec<Vec<SocketAddr>>,
    /// Do all shards bind the same addresses?
    pub shared_port: bool,
    /// Receive and send buffer asked for.
    pub buffer_bytes: usize,
    /// The clock.
    pub clock: Clock,
}

/// A media socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken or not ours.
    #[error("cannot bind media address {address}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No descriptor for the loop.
    #[error("cannot make a shard's event loop")]
    Loop(#[from] io::Error),
}

impl From<rustix::io::Errno> for BindError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Loop(error.into())
    }
}

/// A shard's worker, the way to it, and its events.
pub struct Prepared {
    /// To be spawned.
    pub worker: Worker,
    /// The way to it.
    pub port: ShardPort,
    /// What it says.
    pub events: tokio::sync::mpsc::Receiver<Event>,
}

/// Binds all sockets and makes the workers; nothing runs yet.
///
/// # Errors
/// [`BindError`].
pub fn prepare(
    plan: &Plan,
    mut shard: impl FnMut(ShardId, Timestamp) -> Shard<AwsLc>,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<Prepared>, BindError> {
    let shards = u8::try_from(plan.addresses.len()).unwrap_or(u8::MAX);
    let now = plan.clock.now();
    let mut ends = Vec::new();
    let mut ways = Vec::new();
    for _ in 0..shards {
        let (queue, incoming) = sync_channel(HAND_OVERS_MAX);
        let (introductions, strangers) = sync_channel(STRANGERS_MAX);
        let (back, spare) = sync_channel(HAND_OVERS_MAX);
        ends.push((incoming, strangers, spare));
        ways.push(Sibling {
            queue,
            introductions,
            back,
            waker: Waker::new()?,
        });
    }
    let mut workers = Vec::new();
    for (index, (incoming, strangers, spare)) in ends.into_iter().enumerate() {
        let id = ShardId(index as u8);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut sockets = Vec::new();
        for (number, address) in plan.addresses[index].iter().enumerate() {
            let socket = UdpSocket::bind(*address, plan.shared_port, plan.buffer_bytes).map_err(
                |source| BindError::Address {
                    address: *address,
                    source,
                },
            )?;
            let local = socket.local_addr();
            epoll::add(
                &epoll,
                socket.as_fd(),
                epoll::EventData::new_u64(number as u64),
                epoll::EventFlags::IN,
            )?;
            sockets.push((local, socket));
        }
        let waker = ways[index].waker.clone();
        epoll::add(
            &epoll,
            &waker,
            epoll::EventData::new_u64(TOKEN_WAKER),
            epoll::EventFlags::IN,
        )?;
        let (commands, command_end) = sync_channel(COMMANDS_MAX);
        let (streams, stream_end) = sync_channel(STREAMS_QUEUE);
        let (events, event_end) = tokio::sync::mpsc::channel(EVENTS_MAX);
        let published = Arc::new(Mutex::new(Published {
            buffers: least(&sockets),
            ..Published::default()
        }));
        let siblings = ways
            .iter()
            .enumerate()
            .map(|(other, way)| (other != index).then(|| way.clone()))
            .collect();
        let worker = Worker {
            shard: shard(id, now),
            id,
            clock: plan.clock,
            sockets,
            steering: Steering::new(id, if plan.shared_port { shards } else { 1 }, now),
            commands: command_end,
            streams: stream_end,
            events,
            held: VecDeque::new(),
            siblings,
            incoming,
            strangers,
            spare,
            connections: HashMap::new(),
            tokens: HashMap::new(),
            next_token: TOKEN_STREAMS,
            next_expiry: now,
            epoll,
            waker: waker.clone(),
            stop: Arc::clone(stop),
            published: Arc::clone(&published),
            counters: WorkerCounters::default(),
            batch: RecvBatch::default(),
            outgoing: (0..shards).map(|_| Default::default()).collect(),
            pool: Vec::new(),
            next_copy: now,
            next_look: now,
        };
        let port = ShardPort {
            id,
            commands,
            streams,
            waker,
            published,
        };
        workers.push(Prepared {
            worker,
            port,
            events: event_end,
        });
    }
    Ok(workers)
}

/// Buffers of the socket that got least.
fn least(sockets: &[(SocketAddr, UdpSocket)]) -> Option<Buffers> {
    sockets
        .iter()
        .map(|(_, socket)| socket.buffers())
        .min_by_key(|buffers| buffers.receive.min(buffers.send))
}

impl Worker {
    /// Addresses its sockets really have.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, _)| *address).collect()
    }

    /// Socket buffers as granted, those of the socket that got least.
    #[must_use]
    pub fn buffers(&self) -> Option<Buffers> {
        least(&self.sockets)
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn spawn(self) -> io::Result<JoinHandle<()>> {
        Builder::new()
            .name(format!("shard-{}", self.id))
            .spawn(move || self.run())
    }

    fn run(mut self) {
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(64);
        while !self.stop.load(Ordering::Acquire) {
            self.wait(&mut ready);
            self.counters.wakeups += 1;
            let now = self.clock.now();
            self.take_commands(now);
            self.take_hand_overs(now);
            self.take_streams(now);
            self.receive(now, &ready);
            let now = self.clock.now();
            if self
                .shard
                .poll_deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                self.shard.handle_timeout(now);
                self.send(now);
            }
            self.report(now);
        }
        let now = self.clock.now();
        self.take_commands(now);
        self.send(now);
        self.publish();
    }

    fn wait(&mut self, ready: &mut Vec<epoll::Event>) {
        ready.clear();
        let mut now = self.clock.now();
        if now < self.next_look {
            std::thread::sleep(self.next_look.since(now));
            now = self.clock.now();
        }
        let wait = if !self.held.is_empty() {
            Duration::from_millis(1)
        } else {
            self.shard
                .poll_deadline()
                .map_or(IDLE, |deadline| deadline.since(now).min(IDLE))
        };
        let wait = Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        // Interrupted by a signal: an empty tick.
        let _ = epoll::wait(&self.epoll, spare_capacity(ready), Some(&wait));
    }

    fn take_commands(&mut self, now: Timestamp) {
        self.waker.clear();
        for taken in 0.. {
            if taken == COMMANDS_PER_TICK {
                self.waker.wake();
                break;
            }
            match self.commands.try_recv() {
                Ok(command) => self.shard.handle_command(now, command),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        self.send(now);
    }

    fn take_hand_overs(&mut self, now: Timestamp) {
        for _ in 0..HAND_OVERS_MAX {
            match self.incoming.try_recv() {
                Ok((from, HandOver::Datagrams(batch))) => self.take_block(now, from, batch),
                Ok((from, HandOver::Learn(remote))) => self.steering.learn(remote, from, now),
                Err(_) => break,
            }
        }
        for _ in 0..STRANGERS_MAX {
            let Ok((from, block)) = self.strangers.try_recv() else {
                break;
            };
            self.take_block(now, from, block);
        }
    }

    fn take_block(&mut self, now: Timestamp, from: ShardId, mut block: RecvBatch) {
        self.shard.handle_datagrams(now, &mut block);
        self.send(now);
        block.clear();
        if let Some(Some(sibling)) = self.siblings.get(usize::from(from.0)) {
            let _ = sibling.back.try_send(block);
        }
    }

    fn receive(&mut self, now: Timestamp, ready: &[epoll::Event]) {
        let (mut looked, mut backlog) = (false, false);
        for event in ready {
            let token = event.data.u64();
            if token == TOKEN_WAKER {
                continue;
            }
            if token >= TOKEN_STREAMS {
                let Some(path) = self.tokens.get(&token).copied() else {
                    continue;
                };
                if let Some((_, connection)) = self.connections.get_mut(&path)
                    && !connection.flush()
                {
                    self.end_stream(path);
                    continue;
                }
                self.read_stream(now, path);
                continue;
            }
            looked = true;
            for read in 1..=READS_PER_TICK {
                let Some((_, socket)) = self.sockets.get_mut(token as usize) else {
                    break;
                };
                self.batch.clear();
                // An error is that of an earlier send (ICMP); the next read goes on.
                let Ok(more) = socket.recv(&mut self.batch) else {
                    continue;
                };
                self.deliver(now);
                if !more {
                    break;
                }
                backlog |= read == READS_PER_TICK;
            }
        }
        if looked && !backlog {
            self.next_look = now + TICK;
        }
        self.expire_streams(now);
    }

    /// Gives the batch to this shard and its siblings, by whose they are.
    fn deliver(&mut self, now: Timestamp) {
        for meta in &self.batch.metas {
            self.counters.received_bytes += meta.len as u64;
            self.counters.received_datagrams += meta.len.div_ceil(meta.segment.max(1)) as u64;
        }
        if self.steering.is_shared() {
            self.split();
        }
        if !self.batch.metas.is_empty() {
            self.shard.handle_datagrams(now, &mut self.batch);
        }
        self.send(now);
    }

    fn split(&mut self) {
        let (own, steering, outgoing) = (self.id, &self.steering, &mut self.outgoing);
        let buffer = &self.batch.buffer;
        let mut handed = false;
        self.batch.metas.retain(|meta| {
            if meta.path.protocol == Protocol::Tcp {
                return true;
            }
            let bytes = &buffer[meta.offset..meta.offset + meta.len];
            let first = &bytes[..meta.segment.min(bytes.len())];
            let (shard, known) = steering.shard_of(meta.path.remote, first);
            if shard == own {
                return true;
            }
            if let Some(blocks) = outgoing.get_mut(usize::from(shard.0)) {
                let block = &mut blocks[usize::from(!known)];
                for datagram in bytes.chunks(meta.segment.max(1)) {
                    block.push(meta.path, datagram);
                }
                handed = true;
            }
            false
        });
        if !handed {
            return;
        }
        while let Ok(batch) = self.spare.try_recv() {
            if self.pool.len() < HAND_OVERS_MAX {
                self.pool.push(batch);
            }
        }
        for (index, slots) in self.outgoing.iter_mut().enumerate() {
            let Some(Some(sibling)) = self.siblings.get(index) else {
                continue;
            };
            for (slot, known) in slots.iter_mut().zip([true, false]) {
                if slot.metas.is_empty() {
                    continue;
                }
                let block = std::mem::replace(slot, self.pool.pop().unwrap_or_default());
                let count = block.metas.len() as u64;
                let back = if known {
                    match sibling.queue.try_send((own, HandOver::Datagrams(block))) {
                        Err(TrySendError::Full((_, HandOver::Datagrams(block)))) => Some(block),
                        _ => None,
                    }
                } else {
                    match sibling.introductions.try_send((own, block)) {
                        Err(TrySendError::Full((_, block))) => Some(block),
                        _ => None,
                    }
                };
                match back {
                    None => {
                        self.counters.handed_over += count;
                        sibling.waker.wake();
                    }
                    Some(mut block) => {
                        self.counters.hand_over_dropped += count;
                        block.clear();
                        self.pool.push(block);
                    }
                }
            }
        }
    }

    /// Sends everything the shard has.
    fn send(&mut self, now: Timestamp) {
        while let Some(transmit) = self.shard.poll_transmit() {
            let segment = transmit.segment.max(1);
            let count = transmit.bytes.len().div_ceil(segment) as u64;
            let vouches = is_success_response(transmit.bytes);
            let sent = match transmit.path.protocol {
                Protocol::Udp => {
                    if vouches && self.steering.is_shared() {
                        // Before the answer leaves: what it provokes may arrive at a sibling.
                        self.steering.learn(transmit.path.remote, self.id, now);
                        for sibling in self.siblings.iter().flatten() {
                            // A lost lesson is repeated with the next check.
                            if sibling
                                .queue
                                .try_send((self.id, HandOver::Learn(transmit.path.remote)))
                                .is_ok()
                            {
                                sibling.waker.wake();
                            }
                        }
                    }
                    match self
                        .sockets
                        .iter_mut()
                        .find(|(local, _)| *local == transmit.path.local)
                    {
                        Some((_, socket)) => socket.send(&transmit),
                        None => Sent::default(),
                    }
                }
                Protocol::Tcp => match self.connections.get_mut(&transmit.path) {
                    Some((_, connection)) => {
                        connection.proved |= vouches;
                        if connection.send(
                            transmit.bytes,
                            segment,
                            &mut self.counters.stream_dropped,
                        ) {
                            Sent {
                                datagrams: count,
                                sends: count,
                                segmented: false,
                            }
                        } else {
                            Sent::default()
                        }
                    }
                    None => Sent::default(),
                },
            };
            self.counters.sends += sent.sends;
            self.counters.sent_datagrams += sent.datagrams;
            self.counters.segmented_sends += u64::from(sent.segmented);
            if sent.datagrams == count {
                self.counters.sent_bytes += transmit.bytes.len() as u64;
            } else {
                self.counters.sent_bytes += sent.datagrams * segment as u64;
                self.counters.send_failed += count - sent.datagrams;
            }
        }
    }

    fn report(&mut self, now: Timestamp) {
        while let Some(event) = self.held.pop_front() {
            if let Err(TrySend::Full(event)) = self.events.try_send(event) {
                self.held.push_front(event);
                break;
            }
        }
        while let Some(event) = self.shard.poll_event() {
            let kept = match self.held.is_empty() {
                true => match self.events.try_send(event) {
                    Err(TrySend::Full(event)) => event,
                    Ok(()) | Err(TrySend::Closed(_)) => continue,
                },
                false => event,
            };
            if is_lossy(&kept) || matches!(kept, Event::Data { .. }) {
                self.counters.events_lost += 1;
            } else {
                self.held.push_back(kept);
            }
        }
        if now >= self.next_copy {
            self.next_copy = now + COUNTERS;
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.counters.streams = self.connections.len() as u64;
        self.counters.overflowed = self
            .sockets
            .iter()
            .map(|(_, socket)| socket.overflowed())
            .sum();
        self.counters.oversized = self
            .sockets
            .iter()
            .map(|(_, socket)| socket.unusable())
            .sum();
        // The reader holds the lock for one copy; when it does so right now, the next tick publishes.
        if let Ok(mut published) = self.published.try_lock() {
            published.shard.clone_from(self.shard.counters());
            published.worker = self.counters;
        }
    }
}
