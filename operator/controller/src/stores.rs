// SPDX-License-Identifier: EUPL-1.2
//! One watch per kind, shared by everybody who needs it.
//!
//! The unstable part of kube's runtime stays behind this file. Its own shared streams are not used: a subscriber that comes late, as a
//! controller does after the lease was taken, would not see what is there already; one that is not read would block all others; and
//! deletions would not reach anybody. A [`Shared`] gives a late subscriber everything, drops for a slow one what it can look up again, and
//! passes deletions on.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, stream, stream::BoxStream};
use k8s_openapi::{
    api::core::v1::{Namespace, Node, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _,
        reflector::{Lookup, ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use operator_core::{Name, ObjectKey};
use plenum_api::{
    Conference, ConferenceClass, MaintenanceWindow, MediaNode, MediaPool, Tenant, names,
};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

use crate::{media_node::endpoint_in, telemetry::Metrics};

/// Changes that a slow subscriber may be behind before it is given everything again.
const CHANGES: usize = 4096;

/// One watch, read by many.
pub struct Shared<K: Watched> {
    store: Store<K>,
    /// The store's own way to wait wakes only the last of several who wait.
    ready: watch::Sender<bool>,
    changes: broadcast::Sender<Arc<K>>,
}

/// What can be watched here.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Takes out what nobody here reads.
    fn prune(&mut self) {
        self.meta_mut().managed_fields = None;
    }

    /// Whether this object plans as it did before: a status that the operator itself wrote, or a machine that says that it lives, makes
    /// no new plan.
    fn plans_as(&self, before: &Self) -> bool {
        let seen = |meta: &ObjectMeta| {
            (
                meta.uid.clone(),
                meta.generation,
                meta.deletion_timestamp.clone(),
            )
        };
        let (meta, old) = (self.meta(), before.meta());
        seen(meta) == seen(old) && meta.labels == old.labels && meta.annotations == old.annotations
    }
}

impl Watched for Tenant {}
impl Watched for ConferenceClass {}
impl Watched for Conference {}
impl Watched for MediaPool {}
impl Watched for MediaNode {
    fn plans_as(&self, before: &Self) -> bool {
        let seen = |node: &Self| {
            let status = node.status.as_ref();
            (
                node.metadata.uid.clone(),
                node.spec.clone(),
                status.and_then(|status| status.node_name.clone()),
                endpoint_in(node).map(|(_, endpoint)| endpoint),
            )
        };
        seen(self) == seen(before)
    }
}
impl Watched for MaintenanceWindow {}
impl Watched for Namespace {}
impl Watched for Pod {
    /// What a plan knows of pods, controllers write into their nodes' statuses.
    fn plans_as(&self, _: &Self) -> bool {
        true
    }
}
impl Watched for Node {
    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        if let Some(status) = &mut self.status {
            status.images = None;
            status.volumes_attached = None;
            status.volumes_in_use = None;
            status.node_info = None;
        }
    }
}

impl<K: Watched> Shared<K> {
    fn new() -> (Self, Writer<K>) {
        let (store, writer) = kube::runtime::reflector::store();
        let (changes, _) = broadcast::channel(CHANGES);
        let shared = Self {
            store,
            ready: watch::Sender::new(false),
            changes,
        };
        (shared, writer)
    }

    /// What is there.
    #[must_use]
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Everything that is there now, then whatever changes, deleted objects included as they were last. For
    /// `Controller::for_shared_stream`, `owns_shared_stream` and `watches_shared_stream`.
    #[must_use]
    pub fn subscribe(&self) -> BoxStream<'static, Arc<K>> {
        let changes = self.changes.subscribe();
        let queue: VecDeque<Arc<K>> = self.store.state().into();
        let state = (queue, changes, self.store.clone());
        stream::unfold(state, |(mut queue, mut changes, store)| async move {
            loop {
                if let Some(object) = queue.pop_front() {
                    return Some((object, (queue, changes, store)));
                }
                match changes.recv().await {
                    Ok(object) => return Some((object, (queue, changes, store))),
                    Err(broadcast::error::RecvError::Lagged(_)) => queue = store.state().into(),
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }

    /// Waits until everything that is there has been read once.
    pub async fn ready(&self) {
        // An error means that the watch ended, and with it the process.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// The object of a name, in a namespace where the kind has them.
    #[must_use]
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        let mut key = ObjectRef::<K>::new(name);
        key.namespace = namespace.map(str::to_owned);
        self.store.get(&key)
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }
}

/// The kinds that the operator watches.
pub struct Stores {
    /// Tenants.
    pub tenants: Shared<Tenant>,
    /// Classes.
    pub classes: Shared<ConferenceClass>,
    /// Conferences.
    pub conferences: Shared<Conference>,
    /// Pools.
    pub pools: Shared<MediaPool>,
    /// Media nodes.
    pub media_nodes: Shared<MediaNode>,
    /// Maintenance windows.
    pub windows: Shared<MaintenanceWindow>,
    /// Pods of media nodes, by their label.
    pub pods: Shared<Pod>,
    /// Machines.
    pub nodes: Shared<Node>,
    /// Namespaces.
    pub namespaces: Shared<Namespace>,
    common: Common,
}

/// What all watches tell.
#[derive(Clone)]
struct Common {
    changed: watch::Sender<u64>,
    unreadable: Arc<Mutex<BTreeMap<ObjectKey, String>>>,
    metrics: Metrics,
}

impl Stores {
    /// Begins to watch. The watches end with the returned set of tasks.
    #[must_use]
    pub fn start(client: &Client, metrics: &Metrics) -> (Self, tokio::task::JoinSet<()>) {
        let common = Common {
            changed: watch::Sender::new(0),
            unreadable: Arc::default(),
            metrics: metrics.clone(),
        };
        let mut tasks = tokio::task::JoinSet::new();
        let all = watcher::Config::default().any_semantic();
        let media = all.clone().labels(names::LABEL_NODE);
        let (tenants, writer) = Shared::new();
        start(&mut tasks, client, all.clone(), writer, &tenants, &common);
        let (classes, writer) = Shared::new();
        start(&mut tasks, client, all.clone(), writer, &classes, &common);
        let (conferences, writer) = Shared::new();
        start(
            &mut tasks,
            client,
            all.clone(),
            writer,
            &conferences,
            &common,
        );
        let (pools, writer) = Shared::new();
        start(&mut tasks, client, all.clone(), writer, &pools, &common);
        let (media_nodes, writer) = Shared::new();
        start(
            &mut tasks,
            client,
            all.clone(),
            writer,
            &media_nodes,
            &common,
        );
        let (windows, writer) = Shared::new();
        start(&mut tasks, client, all.clone(), writer, &windows, &common);
        let (pods, writer) = Shared::new();
        start(&mut tasks, client, media, writer, &pods, &common);
        let (nodes, writer) = Shared::new();
        start(&mut tasks, client, all.clone(), writer, &nodes, &common);
        let (namespaces, writer) = Shared::new();
        start(&mut tasks, client, all, writer, &namespaces, &common);
        let stores = Self {
            tenants,
            classes,
            conferences,
            pools,
            media_nodes,
            windows,
            pods,
            nodes,
            namespaces,
            common,
        };
        (stores, tasks)
    }

    /// Waits until everything that is there has been read once. Controllers start after it: of several who wait for one store, kube wakes
    /// one.
    pub async fn ready(&self) {
        self.tenants.ready().await;
        self.classes.ready().await;
        self.conferences.ready().await;
        self.pools.ready().await;
        self.media_nodes.ready().await;
        self.windows.ready().await;
        self.pods.ready().await;
        self.nodes.ready().await;
        self.namespaces.ready().await;
    }

    /// Wakes when any object of any kind changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.common.changed.subscribe()
    }

    /// Objects that exist and cannot be read, with the reason: after a downgrade, or with a newer definition than this operator's.
    #[must_use]
    pub fn unreadable(&self) -> BTreeMap<ObjectKey, String> {
        self.common.lock().clone()
    }
}

impl Common {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectKey, String>> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn start<K: Watched>(
    tasks: &mut tokio::task::JoinSet<()>,
    client: &Client,
    config: watcher::Config,
    writer: Writer<K>,
    shared: &Shared<K>,
    common: &Common,
) {
    let follower = Follower {
        writer,
        store: shared.store.clone(),
        ready: shared.ready.clone(),
        changes: shared.changes.clone(),
        common: common.clone(),
        unreadable: Vec::new(),
    };
    tasks.spawn(follower.run(Api::all(client.clone()), config));
}

struct Follower<K: Watched> {
    writer: Writer<K>,
    store: Store<K>,
    ready: watch::Sender<bool>,
    changes: broadcast::Sender<Arc<K>>,
    common: Common,
    /// Of the listing that goes on.
    unreadable: Vec<(ObjectKey, String)>,
}

impl<K: Watched> Follower<K> {
    async fn run(mut self, api: Api<DeserializeGuard<K>>, config: watcher::Config) {
        let kind = K::kind(&()).into_owned();
        let mut events = pin!(watcher(api, config).default_backoff());
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failing = false;
                    self.take(event);
                }
                Err(error) => {
                    self.common.metrics.watch_restarted(&kind);
                    // Once per outage: it goes on by itself.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(event = "WatchFailed", kind, error = %error, "a watch broke and begins anew");
                    }
                }
            }
        }
    }

    fn take(&mut self, event: Event<DeserializeGuard<K>>) {
        match event {
            Event::Init => {
                self.unreadable.clear();
                self.writer.apply_watcher_event(&Event::Init);
            }
            Event::InitApply(guard) => {
                if let Some(object) = self.read(guard) {
                    self.writer.apply_watcher_event(&Event::InitApply(object));
                }
            }
            Event::InitDone => self.listed(),
            Event::Apply(guard) => {
                let was_unreadable = self.common.lock().remove(&key_of(&guard)).is_some();
                let object = self.read(guard);
                self.common.lock().extend(self.unreadable.drain(..));
                let plans_as_before = object.as_ref().is_some_and(|object| {
                    let before = self.store.get(&object.to_object_ref(()));
                    !was_unreadable && before.is_some_and(|before| object.plans_as(&before))
                });
                if let Some(object) = object {
                    self.writer
                        .apply_watcher_event(&Event::Apply(object.clone()));
                    // Nobody needs to listen.
                    let _ = self.changes.send(Arc::new(object));
                }
                if !plans_as_before {
                    self.wake();
                }
            }
            Event::Delete(guard) => {
                self.common.lock().remove(&key_of(&guard));
                let key = reference::<K>(&guard);
                let known = self.store.get(&key);
                let gone = match (guard.0, known) {
                    (Ok(mut object), _) => {
                        object.prune();
                        Arc::new(object)
                    }
                    (Err(_), Some(known)) => known,
                    (Err(_), None) => return self.wake(),
                };
                self.writer
                    .apply_watcher_event(&Event::Delete(K::clone(&gone)));
                self.tell(gone);
            }
        }
    }

    /// A listing is complete: what it leaves out has gone while nobody watched.
    fn listed(&mut self) {
        let before = self.store.state();
        self.writer.apply_watcher_event(&Event::InitDone);
        self.ready.send_replace(true);
        let kind = K::kind(&());
        {
            let mut unreadable = self.common.lock();
            unreadable.retain(|key, _| key.kind != kind);
            unreadable.extend(self.unreadable.drain(..));
        }
        let after: HashMap<ObjectRef<K>, Arc<K>> = self
            .store
            .state()
            .into_iter()
            .map(|object| (object.to_object_ref(()), object))
            .collect();
        for object in before {
            if !after.contains_key(&object.to_object_ref(())) {
                let _ = self.changes.send(object);
            }
        }
        for object in after.into_values() {
            let _ = self.changes.send(object);
        }
        self.wake();
    }

    /// The object, or a note that it cannot be read. The last readable state of it stays.
    fn read(&mut self, guard: DeserializeGuard<K>) -> Option<K> {
        let key = key_of(&guard);
        match guard.0 {
            Ok(mut object) => {
                object.prune();
                Some(object)
            }
            Err(error) => {
                tracing::warn!(event = "ObjectUnreadable", kind = key.kind, namespace = key.name.namespace, name = key.name.name, error = %error, "an object cannot be read");
                self.unreadable.push((key, error.to_string()));
                None
            }
        }
    }

    fn tell(&self, object: Arc<K>) {
        // Nobody needs to listen.
        let _ = self.changes.send(object);
        self.wake();
    }

    fn wake(&self) {
        self.common.changed.send_modify(|count| *count += 1);
    }
}

fn key_of<K: Watched>(guard: &DeserializeGuard<K>) -> ObjectKey {
    ObjectKey {
        kind: K::kind(&()).into_owned(),
        name: Name::new(
            guard.meta().namespace.clone().unwrap_or_default(),
            guard.name_any(),
        ),
    }
}

fn reference<K: Watched>(guard: &DeserializeGuard<K>) -> ObjectRef<K> {
    let mut key = ObjectRef::<K>::new(&guard.name_any());
    key.namespace = guard.meta().namespace.clone();
    key
}

#[cfg(test)]
mod tests;
