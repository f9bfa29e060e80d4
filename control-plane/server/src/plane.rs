// SPDX-License-Identifier: EUPL-1.2
//! What the gateway knows and asks of the control plane: the directory, the live rooms, and a place for a room.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use control_core::directory::{Directory, DirectoryView, Origin};
use control_core::ids::{Epoch, NodeId, Pool, RoomKey, RoomName, Site, TenantName, Uid};
use control_core::lease::{Grace, Standing};
use control_core::record::{RoomFacts, RoomPolicy};
use control_core::throttle::{self, Throttle};
use plenum_proto::v1::NodeOrder;
use plenum_proto::v1::node_order::Item as Order;
use tokio::sync::{Notify, mpsc, watch};

use crate::clock::Clock;
use crate::hosts::{Host, Hosts};
use crate::live::{Attachment, LiveView};
use crate::metrics::{Metrics, Reason};
use crate::store::{Store, StoreError};
use crate::webhooks::Webhooks;

mod clocks;
mod directory;
mod drain;
mod enforce;
mod error;
mod locks;
mod news;
mod observe;
mod place;
mod records;
mod recovery;
mod reports;
mod writes;

pub use crate::store::FailureScope as ThrottleScope;
pub(crate) use directory::Change;
pub(crate) use drain::DrainPlan;
pub use error::PlaceError;
pub use news::RoomNews;

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
    /// Those of them who may publish.
    pub publishers: u32,
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

/// Handle to the control plane's state; cheap to clone.
#[derive(Clone)]
pub struct Plane(Arc<Inner>);

/// Where orders for a node go.
struct OrderQueue {
    attachment: Attachment,
    orders: mpsc::Sender<NodeOrder>,
}

/// Tells this process from every other replica, and from itself before a restart.
#[derive(Clone, Copy, Debug)]
struct ReplicaNumber(u128);

impl ReplicaNumber {
    fn random() -> Self {
        let mut bytes = [0; 16];
        // Where the system's generator fails, nothing else works either; replicas that share number 0 only work less well together.
        let _ =
            aws_lc_rs::rand::SecureRandom::fill(&aws_lc_rs::rand::SystemRandom::new(), &mut bytes);
        Self(u128::from_be_bytes(bytes))
    }

    /// Where this replica begins in a list that others go through as well.
    fn first_of(self, len: usize) -> usize {
        usize::try_from(self.0 % (len.max(1) as u128)).unwrap_or_default()
    }
}

struct Inner {
    clock: Clock,
    store: Arc<dyn Store>,
    hosts: Hosts,
    metrics: Metrics,
    webhooks: Webhooks,
    directory: Mutex<Directory>,
    view: RwLock<Arc<DirectoryView>>,
    loaded: AtomicBool,
    live: Mutex<LiveView>,
    grace: Mutex<Grace>,
    store_away: AtomicBool,
    /// The store came back, and the watch has not yet seen to it.
    store_returned: AtomicBool,
    kept: Mutex<Option<recovery::Kept>>,
    replica: ReplicaNumber,
    orders: Mutex<HashMap<Uid, OrderQueue>>,
    losses: Mutex<HashMap<NodeId, watch::Sender<u64>>>,
    locks: locks::RoomLocks,
    drains: drain::Drains,
    placing: place::Placing,
    changed: watch::Sender<u64>,
    news: news::News,
    writes: writes::Writes,
    directory_changed: Notify,
    rooms_lost: Notify,
}

impl Plane {
    /// Empty: the directory and the nodes come by the services.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, hosts: Hosts, clock: Clock) -> Self {
        let metrics = Metrics::default();
        let webhooks = Webhooks::new(Arc::clone(&store), clock, &metrics);
        Self(Arc::new(Inner {
            clock,
            store,
            hosts,
            placing: place::Placing::new(&metrics),
            metrics,
            webhooks,
            directory: Mutex::default(),
            view: RwLock::default(),
            loaded: AtomicBool::new(false),
            live: Mutex::default(),
            grace: Mutex::new(Grace::begin(clock.now())),
            store_away: AtomicBool::new(false),
            store_returned: AtomicBool::new(false),
            kept: Mutex::default(),
            replica: ReplicaNumber::random(),
            orders: Mutex::default(),
            losses: Mutex::default(),
            locks: locks::RoomLocks::default(),
            drains: drain::Drains::default(),
            changed: watch::Sender::new(0),
            news: news::News::default(),
            writes: writes::Writes::default(),
            directory_changed: Notify::new(),
            rooms_lost: Notify::new(),
        }))
    }

    /// The directory: immutable, cheap.
    #[must_use]
    pub fn view(&self) -> Arc<DirectoryView> {
        Arc::clone(&self.0.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bumps at each change of directory or live view: for the few who look at everything. Who waits for one room waits for
    /// [`Self::room_news`].
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Tells this process from every other replica.
    #[must_use]
    pub fn replica(&self) -> String {
        format!("{:032x}", self.0.replica.0)
    }

    /// Changes of one room, and of the directory.
    #[must_use]
    pub fn room_news(&self, key: &RoomKey) -> RoomNews {
        self.0.news.of_room(key)
    }

    /// Changes of the directory.
    #[must_use]
    pub fn directory_news(&self) -> watch::Receiver<u64> {
        self.0.news.of_directory()
    }

    /// Is there a directory to go by, from a publisher or from the store?
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.0.loaded.load(Ordering::Acquire)
    }

    /// Does this replica know what is declared and which rooms run, as far as the nodes that are there can tell?
    #[must_use]
    pub fn is_informed(&self) -> bool {
        self.is_loaded() && !self.settling()
    }

    /// Is what is known the publisher's word? Otherwise it is what the store kept, which may lack something: nobody is refused for good on it.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.published().1 == Origin::Publication
    }

    /// A room that runs, or is being placed anew after the loss of its node.
    #[must_use]
    pub fn room(&self, key: &RoomKey) -> Option<LiveRoom> {
        live_room(&self.live(), key)
    }

    /// The rooms of a tenant, by name.
    #[must_use]
    pub fn rooms(&self, tenant: &TenantName) -> Vec<LiveRoom> {
        // No name is shorter and none sorts before one byte of the lowest value that is no control character.
        let Ok(first) = RoomName::parse(" ") else {
            return Vec::new();
        };
        let live = self.live();
        live.rooms_from(&RoomKey::new(tenant.clone(), first))
            .take_while(|(key, ..)| key.tenant == *tenant)
            .filter_map(|(key, ..)| live_room(&live, key))
            .collect()
    }

    /// The way to a room that runs.
    pub async fn host_of(&self, key: &RoomKey) -> Option<Placed> {
        let live = self.live();
        let (uid, node, entry) = live.room(key)?;
        self.placed(key, uid, node, entry.epoch)
    }

    /// The node that a SID names, if the live view has it.
    #[must_use]
    pub fn host_by_node(&self, site: &str, node_id: &str) -> Option<Host> {
        let id = NodeId::parse(node_id).ok()?;
        let live = self.live();
        // A dead one stays in the view until it comes back; what it held is elsewhere.
        let (uid, node) = live
            .node_by_id(&id)
            .filter(|(_, node)| node.standing != Standing::Dead)?;
        let known = node
            .hello
            .site
            .as_ref()
            .filter(|known| known.as_str() == site)?;
        self.0.hosts.host(uid, known, &id, &node.hello.endpoint)
    }

    /// Resolves when a node is declared dead, or came back without its rooms; at once when it is unknown.
    pub fn node_lost(&self, node_id: &str) -> impl Future<Output = ()> + Send + use<> {
        let receiver = NodeId::parse(node_id).ok().and_then(|id| {
            let known = self
                .live()
                .node_by_id(&id)
                .is_some_and(|(_, node)| node.standing != Standing::Dead);
            known.then(|| {
                self.losses()
                    .entry(id)
                    .or_insert_with(|| watch::Sender::new(0))
                    .subscribe()
            })
        });
        async move {
            if let Some(mut receiver) = receiver {
                // The sender lives as long as the plane; its end is a loss as well.
                let _ = receiver.changed().await;
            }
        }
    }

    /// Must somebody who guesses wait? Without the store nobody does: the hash alone slows them down.
    pub async fn throttle(&self, scope: ThrottleScope) -> Throttle {
        let by_conference = matches!(scope, ThrottleScope::Conference(_));
        match self.0.store.failures(scope).await {
            Ok(failures) if by_conference => throttle::per_conference(failures),
            Ok(failures) => throttle::per_address(failures),
            Err(error) => {
                self.store_failed(error);
                Throttle::Free
            }
        }
    }

    /// Counts a wrong password; call it once for each scope.
    pub async fn count_failure(&self, scope: ThrottleScope) {
        if let Err(error) = self.0.store.count_failure(scope).await {
            self.store_failed(error);
        }
    }

    /// Wall time, for tokens and schedules.
    #[must_use]
    pub fn now_unix_ms(&self) -> i64 {
        self.0.clock.unix().0
    }

    /// Counters, to serve and to add to.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What is told to hosts that tenants declare.
    #[must_use]
    pub fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    fn live(&self) -> MutexGuard<'_, LiveView> {
        // Methods of the view leave it whole; a panic elsewhere takes nothing from it.
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grace(&self) -> Grace {
        *self.0.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn losses(&self) -> MutexGuard<'_, HashMap<NodeId, watch::Sender<u64>>> {
        self.0.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A room changed.
    fn bump_room(&self, key: &RoomKey) {
        self.0.news.room_changed(key);
        self.bump();
    }

    /// The directory changed.
    fn bump_directory(&self) {
        self.0.news.directory_changed();
        self.bump();
    }

    fn bump(&self) {
        self.0
            .changed
            .send_modify(|version| *version = version.wrapping_add(1));
    }

    fn store_failed(&self, error: StoreError) {
        self.0.metrics.store_failures.inc();
        tracing::debug!(%error, "a call to the store failed");
        if error == StoreError::Away && !self.0.store_away.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                event = "StoreAway",
                "the store is away; running rooms go on, new ones are placed without it"
            );
        }
    }

    fn placed(
        &self,
        key: &RoomKey,
        uid: &Uid,
        node: &crate::live::LiveNode,
        epoch: Epoch,
    ) -> Option<Placed> {
        let site = node.hello.site.clone()?;
        let node_id = node.hello.node_id.clone()?;
        let host = self
            .0
            .hosts
            .host(uid, &site, &node_id, &node.hello.endpoint)?;
        Some(Placed {
            key: key.clone(),
            site,
            node_id,
            epoch,
            host,
        })
    }

    /// Does a node's stream end here?
    pub(crate) fn is_attached(&self, uid: &Uid) -> bool {
        let orders = self.0.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.contains_key(uid)
    }

    /// Hands an order to a node. Whether its stream took it.
    pub(crate) fn order(&self, uid: &Uid, order: Order) -> bool {
        let orders = self.0.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = orders.get(uid) else {
            return false;
        };
        let taken = queue
            .orders
            .try_send(NodeOrder { item: Some(order) })
            .is_ok();
        if !taken {
            // A node that takes no orders is dialled anew by its own stall timer; the order is repeated by what caused it.
            self.0
                .metrics
                .reports_dropped
                .get_or_create(&Reason {
                    reason: "OrderQueueFull",
                })
                .inc();
        }
        taken
    }
}

fn live_room(live: &LiveView, key: &RoomKey) -> Option<LiveRoom> {
    if let Some((_, node, entry)) = live.room(key) {
        return Some(LiveRoom {
            key: key.clone(),
            site: node.hello.site.clone()?,
            node_id: node.hello.node_id.clone()?,
            epoch: entry.epoch,
            participants: entry.participants,
            publishers: entry.publishers,
            lobby: entry.lobby,
            facts: entry.facts.clone(),
            running: true,
        });
    }
    let lost = live.lost_room(key)?;
    Some(LiveRoom {
        key: key.clone(),
        site: lost.site.clone(),
        node_id: lost.node.clone(),
        epoch: lost.entry.epoch,
        participants: 0,
        publishers: 0,
        lobby: 0,
        facts: lost.entry.facts.clone(),
        running: false,
    })
}
