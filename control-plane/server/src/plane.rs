// SPDX-License-Identifier: EUPL-1.2
//! What the gateway knows and asks of the control plane: the directory, the live rooms, and a place for a room.

use std::net::IpAddr;
use std::sync::Arc;

use control_core::directory::DirectoryView;
use control_core::ids::{Epoch, NodeId, Pool, RoomKey, RoomName, Site, TenantName, Uid};
use control_core::record::{RoomFacts, RoomPolicy};
use control_core::throttle::Throttle;
use tokio::sync::watch;

use crate::hosts::Host;
use crate::metrics::Metrics;

mod error;

pub use error::PlaceError;

/// A room as nodes report it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRoom {
    /// Key.
    pub key: RoomKey,
    /// Site of its node.
    pub site: Site,
    /// Its node; the last one while it is placed anew.
    pub node_id: NodeId,
    /// Lease.
    pub epoch: Epoch,
    /// People in it.
    pub participants: u32,
    /// Who publish.
    pub publishers: u32,
    /// People at its door.
    pub lobby: u32,
    /// Facts.
    pub facts: RoomFacts,
    /// Does it run? Otherwise its node was lost and it is being placed anew, as opened as it was.
    pub running: bool,
}

/// What a room needs.
#[derive(Clone, Debug)]
pub struct PlaceRequest {
    /// Whose.
    pub tenant: TenantName,
    /// Name.
    pub room: RoomName,
    /// Rules, if it begins with this request; a room that runs keeps its own.
    pub policy: RoomPolicy,
    /// Wanted pool; `None` = the tenant's default.
    pub pool: Option<Pool>,
    /// Highest epoch that the caller knows, or 0.
    pub floor: Epoch,
    /// Participants to hold a place for: 1 for a join, 0 to open only.
    pub participants: u32,
}

/// A room that runs, with the way to it.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Key.
    pub key: RoomKey,
    /// Site of its node.
    pub site: Site,
    /// Its node.
    pub node_id: NodeId,
    /// Lease.
    pub epoch: Epoch,
    /// The way to it.
    pub host: Host,
}

/// For whom failures are counted. Both scopes count: [`Plane::count_failure`] once for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThrottleScope {
    /// A conference, whatever the address.
    Conference(Uid),
    /// A conference and an address.
    Address(Uid, IpAddr),
}

/// Handle to the control plane's state; cheap to clone.
#[derive(Clone)]
pub struct Plane(Arc<Inner>);

struct Inner {
    changed: watch::Sender<u64>,
    metrics: Metrics,
}

impl Plane {
    /// The directory: immutable, cheap.
    #[must_use]
    pub fn view(&self) -> Arc<DirectoryView> {
        Arc::default()
    }

    /// Bumps at each change of directory or live view.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Has a whole snapshot arrived?
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        false
    }

    /// A room that runs, or is being placed anew after the loss of its node.
    #[must_use]
    pub fn room(&self, _key: &RoomKey) -> Option<LiveRoom> {
        None
    }

    /// The rooms of a tenant, by name.
    #[must_use]
    pub fn rooms(&self, _tenant: &TenantName) -> Vec<LiveRoom> {
        Vec::new()
    }

    /// Places or finds a room, holds a place in it and opens it on its node. Idempotent.
    ///
    /// # Errors
    /// [`PlaceError`], with status and `Retry-After`.
    pub async fn place(&self, _request: PlaceRequest) -> Result<Placed, PlaceError> {
        Err(PlaceError::NotLoaded)
    }

    /// The way to a room that runs.
    pub async fn host_of(&self, _key: &RoomKey) -> Option<Placed> {
        None
    }

    /// The node that a SID names, if the live view has it.
    #[must_use]
    pub fn host_by_node(&self, _site: &str, _node_id: &str) -> Option<Host> {
        None
    }

    /// Resolves when a node is declared dead, or came back without its rooms; at once when it is unknown.
    pub fn node_lost(&self, _node_id: &str) -> impl Future<Output = ()> + Send + use<> {
        std::future::ready(())
    }

    /// Must somebody who guesses wait?
    pub async fn throttle(&self, _scope: ThrottleScope) -> Throttle {
        Throttle::Free
    }

    /// Counts a wrong password.
    pub async fn count_failure(&self, _scope: ThrottleScope) {}

    /// Wall time, for tokens and schedules.
    #[must_use]
    pub fn now_unix_ms(&self) -> i64 {
        0
    }

    /// Counters, to serve and to add to.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}
