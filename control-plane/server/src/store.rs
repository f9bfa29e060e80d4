// SPDX-License-Identifier: EUPL-1.2
//! What replicas share: leases of rooms and nodes, facts of rooms, reservations, counters of wrong passwords.
//!
//! Every operation is one atomic step on the keys of one site or tenant, as a Lua script would do it, with a clock of the store's own; there
//! is nothing here that only memory can do. Every collection is bounded.

use std::net::IpAddr;
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, Pool, RoomKey, Site, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::quota::{QuotaRefusal, ReservationId, Usage};
use control_core::record::{Capacity, RoomFacts, RoomPolicy, TenantLimits};
use control_core::throttle::Failures;
use futures::future::BoxFuture;

#[cfg(test)]
pub mod conformance;
pub mod memory;

/// A record outlives its room's last report by this, or by the room's empty timeout if that is longer.
pub const ROOM_RECORD_MIN: Duration = Duration::from_secs(120);
/// The primary replica reports every room again within this time, so that its record does not run out.
pub const REPORT_AGAIN: Duration = Duration::from_secs(30);

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
    /// The room.
    pub key: RoomKey,
    /// Site of the node.
    pub site: Site,
    /// The node.
    pub node: NodeId,
    /// Its ceiling.
    pub capacity: Capacity,
    /// Ceilings of the tenant.
    pub limits: TenantLimits,
    /// What is held on the node and for the tenant.
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
    /// There is no room for it.
    Refused(QuotaRefusal),
    /// The node was marked as not accepting.
    NotAccepting,
    /// There is no higher epoch.
    EpochsExhausted,
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
    /// A higher epoch is known: the reporter must drop the room.
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

/// Result of a call.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The store.
pub trait Store: Send + Sync + 'static {
    /// Gives a room to a node if its lease is the one that is to be replaced, and holds the amount.
    fn place(&self, command: PlaceCommand) -> Answer<'_, PlaceOutcome>;

    /// Takes a placement back that never came to life, if its lease still stands: the former holder has the room again, or nobody.
    fn undo_place(&self, key: RoomKey, epoch: Epoch, former: Option<RoomLease>) -> Answer<'_, ()>;

    /// Holds an amount in a room that runs.
    fn reserve(
        &self,
        key: RoomKey,
        node: NodeId,
        amount: Usage,
        limits: TenantLimits,
        capacity: Capacity,
    ) -> Answer<'_, Result<ReservationId, QuotaRefusal>>;

    /// Gives a reservation back.
    fn release(&self, key: RoomKey, id: ReservationId) -> Answer<'_, ()>;

    /// What is kept of a room.
    fn room(&self, key: RoomKey) -> Answer<'_, Option<RoomRecord>>;

    /// Keeps what a node reports of a room, and its lease if nothing higher is known.
    fn report_room(&self, report: RoomReport) -> Answer<'_, ReportOutcome>;

    /// A room does not run on a node any more. With `keep_facts` the record stays until somebody places the room anew or its time is over.
    fn close_room(&self, key: RoomKey, lease: RoomLease, keep_facts: bool) -> Answer<'_, ()>;

    /// What is in use on nodes, in their order: last reports and reservations.
    fn usage(&self, nodes: Vec<NodeId>) -> Answer<'_, Vec<Usage>>;

    /// Refreshes a node's lease.
    fn refresh_node(&self, lease: NodeLease) -> Answer<'_, ()>;

    /// Marks whether a node takes rooms; the answer is what is read back. Placements from then on obey it.
    fn mark_accepting(&self, node: NodeId, accepting: bool) -> Answer<'_, bool>;

    /// A node's lease, while it is held.
    fn node(&self, node: NodeId) -> Answer<'_, Option<NodeLease>>;

    /// Counts a failure.
    fn count_failure(&self, scope: FailureScope) -> Answer<'_, ()>;

    /// Failures so far.
    fn failures(&self, scope: FailureScope) -> Answer<'_, Failures>;
}
