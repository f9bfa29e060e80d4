// SPDX-License-Identifier: EUPL-1.2
//! What replicas share: leases of rooms and nodes, facts of rooms, reservations and holds, published records, events that wait for their
//! receiver, counters of wrong passwords.
//!
//! Every operation is one atomic step on the keys of one site or tenant, as a Lua script would do it, with a clock of the store's own; there
//! is nothing here that only memory can do. Every collection is bounded.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use control_core::ids::{Epoch, NodeId, Pool, RoomKey, Site, TenantName, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::limits;
use control_core::placement::{CHOICES_MAX, Strategy};
use control_core::quota::{QuotaRefusal, ReservationId, Usage};
use control_core::record::{Capacity, RecordKind, RoomFacts, RoomPolicy, TenantLimits};
use control_core::throttle::Failures;
use futures::future::BoxFuture;

pub mod memory;
pub mod redis;

/// A record outlives its room's last report by this, or by the room's empty timeout if that is longer.
pub const ROOM_RECORD_MIN: Duration = Duration::from_secs(120);
/// The primary replica reports every room again within this time, so that its record does not run out.
pub const REPORT_AGAIN: Duration = Duration::from_secs(30);

/// Rooms kept at most.
pub const ROOMS_MAX: usize = 200_000;
/// Node leases kept at most.
pub const NODES_MAX: usize = 4_096;
/// Nodes, or rooms of nodes, that are told to the store in one step; more take several.
pub const BATCH_MAX: usize = 256;
/// A node's mark of not accepting outlives its last lease by this.
pub const MARK: Duration = Duration::from_secs(3_600);
/// Longest hold without being renewed.
pub const HOLD_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Records kept at most: all that may be published.
pub const RECORDS_MAX: usize = limits::TENANTS_MAX + limits::CONFERENCES_MAX + limits::NODES_MAX;
/// Longest record.
pub const RECORD_BYTES_MAX: usize = 256 * 1_024;
/// Longest revision of a record.
pub const REVISION_BYTES_MAX: usize = 128;
/// All records together.
pub const RECORDS_BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// Roles that are claimed at a time.
pub const CLAIMS_MAX: usize = 4_096;
/// Longest name of a role, a holder or a receiver.
pub const NAME_BYTES_MAX: usize = 256;

/// Queues kept at most.
pub const QUEUES_MAX: usize = 8_192;
/// Events of one queue; beyond, the oldest go.
pub const EVENTS_MAX: usize = 1_000;
/// Bytes of one event.
pub const EVENT_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of one queue; beyond, the oldest go.
pub const EVENTS_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// An event that waited this long goes.
pub const EVENT_AGE_MAX: Duration = Duration::from_secs(6 * 3_600);

/// How long a room's record, and what counts for the room, is kept beyond its last report.
#[must_use]
pub fn room_lifetime(policy: &RoomPolicy) -> Duration {
    // A policy is bounded where it comes in, not here: a store keeps nothing for ever.
    let empty = policy.empty_timeout.min(HOLD_MAX);
    (empty + limits::LEASE).max(ROOM_RECORD_MIN) + REPORT_AGAIN
}

/// What counts for a room without a record is kept beyond its last report by this.
pub const COUNT_LIFETIME: Duration =
    Duration::from_secs(ROOM_RECORD_MIN.as_secs() + REPORT_AGAIN.as_secs());

/// Why the store did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be asked; read-only, full and loading count as away.
    #[error("the store does not answer")]
    Away,
    /// A bound of its own is reached.
    #[error("the store holds as many {what} as it may")]
    Full {
        /// Of what.
        what: &'static str,
    },
    /// What stands under a key is not Plenum's, or of a newer version.
    #[error("the store holds something under a key of {key_family} that cannot be read")]
    Broken {
        /// Family of the key.
        key_family: &'static str,
    },
}

/// Number of a request, drawn at random; asked again with the same one, the store answers the same and holds nothing twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl RequestId {
    /// A new one.
    ///
    /// # Errors
    /// [`StoreError::Away`] where the system has no random numbers: without them nothing may be asked.
    pub fn random() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| StoreError::Away)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// The reservation that it makes.
    #[must_use]
    pub const fn reservation(self) -> ReservationId {
        ReservationId(self.0)
    }
}

/// A node that may get a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its site.
    pub site: Site,
    /// Which.
    pub node: NodeId,
    /// Its ceiling.
    pub capacity: Capacity,
}

/// What is kept of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomRecord {
    /// Who owns it.
    pub lease: RoomLease,
    /// Rules of its opening.
    pub policy: RoomPolicy,
    /// Pool it was placed in by wish; `None` = its tenant's default.
    pub pool: Option<Pool>,
    /// Facts as last reported.
    pub facts: RoomFacts,
    /// Time since the lease was given.
    pub age: Duration,
}

/// Gives a room to a node.
#[derive(Clone, Debug)]
pub struct PlaceCommand {
    /// Asked again with the same number, the room is given once.
    pub request: RequestId,
    /// The room.
    pub key: RoomKey,
    /// Nodes in the order of preference, 1 to [`CHOICES_MAX`].
    pub choices: Vec<Choice>,
    /// `Spread` takes of the first two that have room the less loaded and else the next ones in order, `Pack` the first that has room.
    pub strategy: Strategy,
    /// Ceilings of the tenant.
    pub limits: TenantLimits,
    /// What is held on the node and for the tenant; publishers are checked, but not held.
    pub amount: Usage,
    /// The lease that is replaced; `None` = there must be none.
    pub replaces: Option<Epoch>,
    /// Highest epoch that a live node reports.
    pub reported: Option<Epoch>,
    /// Highest epoch that the caller knows.
    pub floor: Epoch,
    /// Rules.
    pub policy: RoomPolicy,
    /// Wanted pool.
    pub pool: Option<Pool>,
    /// Facts, used when the store has none.
    pub facts: RoomFacts,
}

/// What became of a placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceOutcome {
    /// The node has the lease. Facts are those of the store, if it had any.
    Placed(RoomRecord, ReservationId),
    /// Somebody else holds the room.
    Held(RoomRecord),
    /// There is no room for it: the tenant's, or the last choice's word.
    Refused(QuotaRefusal),
    /// All choices are marked as not accepting.
    NotAccepting,
    /// There is no higher epoch.
    EpochsExhausted,
}

/// Holds capacity for a planned conference.
#[derive(Clone, Debug)]
pub struct HoldCommand {
    /// Its room.
    pub key: RoomKey,
    /// Nodes in the order of preference, 1 to [`CHOICES_MAX`].
    pub choices: Vec<Choice>,
    /// As with a placement.
    pub strategy: Strategy,
    /// What is held; while it lives, its node counts this or what is there, whichever is more.
    pub amount: Usage,
    /// Ceilings of the tenant.
    pub limits: TenantLimits,
    /// Until it runs out unless it is renewed, at most [`HOLD_MAX`].
    pub lifetime: Duration,
}

/// What became of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldOutcome {
    /// On this node: where the room runs or where it was held before, if that is among the choices and has room.
    Held(NodeId),
    /// There is no room for it; an earlier hold stays as it was.
    Refused(QuotaRefusal),
    /// All choices are marked as not accepting.
    NotAccepting,
}

/// What a node reports of a room.
#[derive(Clone, Debug)]
pub struct RoomReport {
    /// The room.
    pub key: RoomKey,
    /// Lease under which it lives.
    pub lease: RoomLease,
    /// People in it.
    pub participants: u32,
    /// Those of them who publish.
    pub publishers: u32,
    /// Facts.
    pub facts: RoomFacts,
    /// Rules by the directory, kept when the store has no record of the room: it was opened while the store was away.
    pub policy: Option<RoomPolicy>,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// Kept.
    Taken,
    /// This epoch is known, higher than the reporter's or held by more people: the reporter must drop the room.
    Fenced(Epoch),
}

/// For whom wrong passwords are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureScope {
    /// A conference, whatever the address.
    Conference(Uid),
    /// A conference and an address.
    Address(Uid, IpAddr),
}

/// A published record, sealed by the caller where it is secret.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Kind.
    pub kind: RecordKind,
    /// Uid of the object.
    pub uid: Uid,
    /// Hash of its inputs, at most [`REVISION_BYTES_MAX`].
    pub revision: String,
    /// Of the publication that wrote it.
    pub epoch: u64,
    /// At most [`RECORD_BYTES_MAX`].
    pub value: Vec<u8>,
}

impl std::fmt::Debug for StoredRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredRecord")
            .field("kind", &self.kind)
            .field("uid", &self.uid)
            .field("revision", &self.revision)
            .field("epoch", &self.epoch)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

impl StoredRecord {
    /// Is it within its bounds?
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn check(&self) -> Result<(), StoreError> {
        if self.value.len() > RECORD_BYTES_MAX {
            return Err(StoreError::Full {
                what: "bytes of a record",
            });
        }
        if self.revision.len() > REVISION_BYTES_MAX {
            return Err(StoreError::Full {
                what: "bytes of a revision",
            });
        }
        Ok(())
    }
}

/// What became of a publication's word on a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It holds.
    Taken,
    /// A publication of this higher epoch wrote within the last [`limits::PUBLICATION_FENCE`].
    Fenced(u64),
}

/// Events of one tenant for one receiver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventQueue {
    /// Whose.
    pub tenant: TenantName,
    /// Name of the receiver, at most [`NAME_BYTES_MAX`].
    pub receiver: String,
}

/// An event that waits for its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedEvent {
    /// Unique in its queue.
    pub id: String,
    /// What happened, as receivers know it.
    pub name: String,
    /// When, by the clock of who queued it.
    pub queued_unix_ms: i64,
    /// At most [`EVENT_BYTES_MAX`].
    pub body: Vec<u8>,
}

impl EventQueue {
    /// Are queue and event within their bounds?
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn check(&self, event: &QueuedEvent) -> Result<(), StoreError> {
        if event.body.len() > EVENT_BYTES_MAX {
            return Err(StoreError::Full {
                what: "bytes of an event",
            });
        }
        [&event.id, &event.name, &self.receiver]
            .into_iter()
            .try_for_each(|name| check_name(name))
    }
}

/// What a queued event pushed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Older events that nobody will get: too many, too large together or too old.
    pub dropped: u32,
}

/// Is a name of a role, a holder, a receiver or an event within its bound?
///
/// # Errors
/// [`StoreError::Full`].
pub fn check_name(name: &str) -> Result<(), StoreError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(StoreError::Full {
            what: "bytes of a name",
        });
    }
    Ok(())
}

/// Are there as many choices as there may be?
///
/// # Errors
/// [`StoreError::Full`].
pub fn check_choices(choices: &[Choice]) -> Result<(), StoreError> {
    if choices.len() > CHOICES_MAX {
        return Err(StoreError::Full { what: "choices" });
    }
    Ok(())
}

/// Result of a call.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The store.
pub trait Store: Send + Sync + 'static {
    /// Gives a room to one of some nodes if its lease is the one that is to be replaced, and holds the amount: one step.
    fn place(&self, command: PlaceCommand) -> Answer<'_, PlaceOutcome>;

    /// Takes a placement back that never came to life, if its lease still stands: the former holder has the room again, or nobody.
    fn undo_place(&self, key: RoomKey, epoch: Epoch, former: Option<RoomLease>) -> Answer<'_, ()>;

    /// Holds an amount in a room that runs.
    fn reserve(
        &self,
        request: RequestId,
        key: RoomKey,
        node: NodeId,
        amount: Usage,
        limits: TenantLimits,
        capacity: Capacity,
    ) -> Answer<'_, Result<ReservationId, QuotaRefusal>>;

    /// Gives a reservation back.
    fn release(&self, key: RoomKey, id: ReservationId) -> Answer<'_, ()>;

    /// Holds capacity for a planned conference; again, it renews what is held.
    fn hold(&self, command: HoldCommand) -> Answer<'_, HoldOutcome>;

    /// Gives a hold up.
    fn drop_hold(&self, key: RoomKey) -> Answer<'_, ()>;

    /// What is kept of a room.
    fn room(&self, key: RoomKey) -> Answer<'_, Option<RoomRecord>>;

    /// Keeps what nodes report of rooms, and their leases if nothing higher is known. Answers stand in the order of the reports; each is a
    /// step of its own.
    fn report_rooms(
        &self,
        reports: Vec<RoomReport>,
    ) -> Answer<'_, Vec<Result<ReportOutcome, StoreError>>>;

    /// Keeps what a node reports of one room.
    fn report_room(&self, report: RoomReport) -> Answer<'_, ReportOutcome> {
        Box::pin(async move {
            let outcomes = self.report_rooms(vec![report]).await?;
            outcomes.into_iter().next().unwrap_or(Err(StoreError::Away))
        })
    }

    /// A room does not run on a node any more. With `keep_facts` the record stays until somebody places the room anew or its time is over.
    fn close_room(&self, key: RoomKey, lease: RoomLease, keep_facts: bool) -> Answer<'_, ()>;

    /// What is in use on nodes, in their order: last reports, reservations, holds.
    fn usage(&self, nodes: Vec<NodeId>) -> Answer<'_, Vec<Usage>>;

    /// What a tenant uses on all nodes.
    fn tenant_usage(&self, tenant: TenantName) -> Answer<'_, Usage>;

    /// Refreshes the leases of nodes.
    fn refresh_nodes(&self, leases: Vec<NodeLease>) -> Answer<'_, ()>;

    /// Refreshes a node's lease.
    fn refresh_node(&self, lease: NodeLease) -> Answer<'_, ()> {
        self.refresh_nodes(vec![lease])
    }

    /// Marks whether a node takes rooms; the answer is what is read back. Placements from then on obey it. The mark lives [`MARK`] beyond
    /// the last refreshing of the node's lease.
    fn mark_accepting(&self, node: NodeId, accepting: bool) -> Answer<'_, bool>;

    /// A node's lease, while it is held.
    fn node(&self, node: NodeId) -> Answer<'_, Option<NodeLease>>;

    /// Counts a failure.
    fn count_failure(&self, scope: FailureScope) -> Answer<'_, ()>;

    /// Failures so far.
    fn failures(&self, scope: FailureScope) -> Answer<'_, Failures>;

    /// Keeps a published record.
    fn put_record(&self, record: StoredRecord) -> Answer<'_, RecordOutcome>;

    /// Forgets a record that is not published any more.
    fn drop_record(&self, kind: RecordKind, uid: Uid, epoch: u64) -> Answer<'_, RecordOutcome>;

    /// One record.
    fn record(&self, kind: RecordKind, uid: Uid) -> Answer<'_, Option<StoredRecord>>;

    /// All records, by kind and uid.
    fn records(&self) -> Answer<'_, Vec<StoredRecord>>;

    /// Does `holder` have the role? Whoever asks first has it for `lifetime`, and as long as it asks again in time; a lifetime of zero gives
    /// it up.
    fn claim(&self, role: String, holder: String, lifetime: Duration) -> Answer<'_, bool>;

    /// Queues an event, once per id.
    fn push_event(&self, queue: EventQueue, event: QueuedEvent) -> Answer<'_, Pushed>;

    /// The first `max` events of a queue.
    fn events(&self, queue: EventQueue, max: usize) -> Answer<'_, Vec<QueuedEvent>>;

    /// An event was delivered, or given up.
    fn event_done(&self, queue: EventQueue, id: String) -> Answer<'_, ()>;

    /// Does the store answer, and would it write?
    fn ping(&self) -> Answer<'_, ()>;
}
