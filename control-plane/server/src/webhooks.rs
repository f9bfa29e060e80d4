// SPDX-License-Identifier: EUPL-1.2
//! Webhooks: what happens in a tenant's rooms is told to the hosts that the tenant declares.
//!
//! A node numbers the events of its rooms and keeps them until they are acknowledged. The replica that the node calls primary takes them
//! ([`intake`]), puts them into the store's queue of each receiver that wants them, and acknowledges. One replica at a time, by a claim in
//! the store, delivers a queue ([`deliver`]); when it dies, another takes the claim and finds what was not delivered. So every event is
//! delivered at least once, in the order of its room, for as long as the bounds of queue and age hold; what they cost is counted and named.
//!
//! While the store is away nothing is delivered, for what waits there would be overtaken: new events wait here and, beyond the bounds, in
//! the nodes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_core::directory::DirectoryView;
use control_core::ids::TenantName;
use control_core::record::{Tenant, Webhook};
use control_core::time::Moment;
use control_core::webhook::{Loss, Network};
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::plane::Plane;
use crate::store::{EventQueue, Store};

mod client;
mod deliver;
mod intake;
mod message;
mod metrics;

use intake::Intake;
pub(crate) use intake::Offered;
use metrics::HookMetrics;

/// Pace of looking for queues that nobody delivers.
const LOOK: Duration = Duration::from_secs(2);
/// Queues looked at each time; with the most tenants and receivers a round takes less than a minute.
const LOOK_QUEUES: usize = 400;
/// The replica that looks after forgotten queues has the role this long.
const LOOK_CLAIM: Duration = Duration::from_secs(10);
/// One line in the log per receiver and reason within this time; the others are counted in the next.
const NAME_LOSSES: Duration = Duration::from_secs(10);

/// How this replica delivers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this replica, as others know it.
    pub replica: String,
    /// Networks beyond the public ones in which receivers may live.
    pub allowed: Vec<Network>,
}

/// Losses that no line of the log has named yet.
#[derive(Debug, Default)]
struct Unnamed {
    count: u64,
    last: String,
    logged: Option<Moment>,
}

struct Inner {
    clock: Clock,
    store: Arc<dyn Store>,
    metrics: HookMetrics,
    intake: Intake,
    /// Queues that hold something by what this replica knows.
    wanted: Mutex<BTreeSet<EventQueue>>,
    wanted_changed: Notify,
    /// Events lost that the next one to the receiver tells of.
    untold: Mutex<BTreeMap<EventQueue, u32>>,
    unnamed: Mutex<BTreeMap<(EventQueue, Loss), Unnamed>>,
}

/// The webhooks of one replica; cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete when the lock goes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes a delivery that runs.
#[derive(Debug, Default)]
struct Wake {
    again: AtomicBool,
    notify: Notify,
}

/// A receiver, if its queue is to be delivered; otherwise why it is not.
fn receiver<'a>(
    view: &'a DirectoryView,
    queue: &EventQueue,
) -> Result<(&'a Tenant, &'a Webhook), Loss> {
    let tenant = view.tenant(&queue.tenant).ok_or(Loss::Removed)?;
    let webhook = tenant
        .webhooks
        .iter()
        .find(|webhook| webhook.name == queue.receiver)
        .ok_or(Loss::Removed)?;
    if tenant.suspended {
        return Err(Loss::Suspended);
    }
    Ok((tenant, webhook))
}

fn queue_of(tenant: &TenantName, webhook: &Webhook) -> EventQueue {
    EventQueue {
        tenant: tenant.clone(),
        receiver: webhook.name.clone(),
    }
}

impl Webhooks {
    /// Nothing is delivered before [`Self::run`].
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            clock,
            store,
            metrics: HookMetrics::register(metrics),
            intake: Intake::default(),
            wanted: Mutex::default(),
            wanted_changed: Notify::new(),
            untold: Mutex::default(),
            unnamed: Mutex::default(),
        }))
    }

    /// Takes events in, delivers, and looks after queues that others left behind, until `stop`.
    pub async fn run(self, plane: Plane, options: Options, stop: CancellationToken) {
        let options = Arc::new(options);
        tokio::join!(
            self.take_in(&plane, &stop),
            self.deliver_all(&plane, &options, &stop)
        );
    }

    /// A queue holds something, or is to be emptied.
    fn want(&self, queue: &EventQueue) {
        locked(&self.0.wanted).insert(queue.clone());
        self.0.wanted_changed.notify_one();
    }

    /// One delivery per queue that holds something.
    async fn deliver_all(&self, plane: &Plane, options: &Arc<Options>, stop: &CancellationToken) {
        let mut running: HashMap<EventQueue, (Id, Arc<Wake>)> = HashMap::new();
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut rounds = Rounds::default();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for queue in std::mem::take(&mut *locked(&self.0.wanted)) {
                if let Some((_, wake)) = running.get(&queue) {
                    wake.again.store(true, Ordering::Release);
                    wake.notify.notify_one();
                    continue;
                }
                let wake = Arc::new(Wake::default());
                let delivery = deliver::Deliverer::new(
                    self.clone(),
                    plane.clone(),
                    Arc::clone(options),
                    queue.clone(),
                    Arc::clone(&wake),
                );
                let handle = tasks.spawn(delivery.run(stop.clone()));
                running.insert(queue, (handle.id(), wake));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.0.wanted_changed.notified() => {}
                Some(ended) = tasks.join_next_with_id() => {
                    let id = match &ended {
                        Ok((id, ())) => *id,
                        Err(error) => error.id(),
                    };
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(event = "WebhookDeliveryFailed", %error, "a delivery of webhooks ended by a bug");
                    }
                    // What was queued while it ended is delivered by the next.
                    let ended: Vec<EventQueue> = running.extract_if(|_, (other, _)| *other == id)
                        .filter(|(_, (_, wake))| wake.again.load(Ordering::Acquire))
                        .map(|(queue, _)| queue)
                        .collect();
                    for queue in ended {
                        self.want(&queue);
                    }
                }
                _ = look.tick() => {
                    self.name_losses();
                    self.look(plane, options, &mut rounds).await;
                    let running = i64::try_from(running.len()).unwrap_or(i64::MAX);
                    self.0.metrics.deliveries.set(running);
                }
            }
        }
        // They end by themselves, with what is under way.
        while tasks.join_next().await.is_some() {}
    }

    /// Finds queues of receivers that went, and queues that nobody delivers because their replica died.
    async fn look(&self, plane: &Plane, options: &Options, rounds: &mut Rounds) {
        if !plane.is_loaded() {
            return;
        }
        let view = plane.view();
        if rounds
            .view
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &view))
        {
            let declared: BTreeSet<EventQueue> = view
                .tenants()
                .filter(|tenant| !tenant.suspended)
                .flat_map(|tenant| {
                    tenant
                        .webhooks
                        .iter()
                        .map(|webhook| queue_of(&tenant.name, webhook))
                })
                .collect();
            for gone in rounds.declared.difference(&declared) {
                self.want(gone);
            }
            rounds.declared = declared;
            rounds.view = Some(view);
        }
        if rounds.declared.is_empty() {
            return;
        }
        let store = &self.0.store;
        let role = store.claim("webhooks".into(), options.replica.clone(), LOOK_CLAIM);
        if !matches!(role.await, Ok(true)) {
            return;
        }
        for queue in rounds.next() {
            match store.events(queue.clone(), 1).await {
                Ok(events) if events.is_empty() => {}
                Ok(_) => self.want(&queue),
                Err(_) => return,
            }
        }
    }

    /// Events are lost: counted, named, and told to the receiver with the next one.
    fn lose(&self, queue: &EventQueue, loss: Loss, count: u32, example: &str) {
        if count == 0 {
            return;
        }
        self.0.metrics.dropped(queue, loss, u64::from(count));
        if !matches!(loss, Loss::Removed | Loss::Suspended) {
            let mut untold = locked(&self.0.untold);
            let entry = untold.entry(queue.clone()).or_default();
            *entry = entry.saturating_add(count);
        }
        {
            let mut unnamed = locked(&self.0.unnamed);
            let entry = unnamed.entry((queue.clone(), loss)).or_default();
            entry.count += u64::from(count);
            example.clone_into(&mut entry.last);
        }
        self.name_losses();
    }

    /// Writes what was lost into the log, each receiver and reason once in a while.
    fn name_losses(&self) {
        let now = self.0.clock.now();
        locked(&self.0.unnamed).retain(|(queue, loss), entry| {
            let due = entry.logged.is_none_or(|at| now.since(at) >= NAME_LOSSES);
            if due && entry.count > 0 {
                tracing::warn!(

                    event = "WebhookEventsLost",

                    tenant = %queue.tenant,
                    receiver = %queue.receiver,
                    reason = loss.reason(),
                    events = entry.count,
                    last = %entry.last,
                    "events of a webhook are lost"
                );
                entry.count = 0;
                entry.logged = Some(now);
                return true;
            }
            !due || entry.count > 0
        });
    }

    /// Losses that the next event to a receiver tells of.
    fn untold(&self, queue: &EventQueue) -> u32 {
        locked(&self.0.untold).get(queue).copied().unwrap_or(0)
    }

    /// The receiver, or the queue, has heard of so many.
    fn told(&self, queue: &EventQueue, count: u32) {
        if count == 0 {
            return;
        }
        let mut untold = locked(&self.0.untold);
        if let Some(left) = untold.get_mut(queue) {
            *left = left.saturating_sub(count);
            if *left == 0 {
                untold.remove(queue);
            }
        }
    }
}

/// Where the looking stands.
#[derive(Default)]
struct Rounds {
    view: Option<Arc<DirectoryView>>,
    declared: BTreeSet<EventQueue>,
    last: Option<EventQueue>,
}

impl Rounds {
    /// The next queues to look at; after the last one it begins anew.
    fn next(&mut self) -> Vec<EventQueue> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.last.clone().map_or(Unbounded, Excluded);
        let queues: Vec<EventQueue> = self
            .declared
            .range((from, Unbounded))
            .take(LOOK_QUEUES)
            .cloned()
            .collect();
        self.last = (queues.len() == LOOK_QUEUES)
            .then(|| queues.last().cloned())
            .flatten();
        queues
    }
}

/// Waits, but not beyond `stop`.
async fn pause(span: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = sleep(span) => {}
        () = stop.cancelled() => {}
    }
}
