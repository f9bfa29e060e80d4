// SPDX-License-Identifier: EUPL-1.2
//! Secrets of tenants: only those that objects name are read, and read again only when their version changed.
//!
//! The metadata of the Secrets in each tenant's namespace is watched, one watch per namespace, because the operator may read Secrets there
//! and nowhere else. Values are in memory only, and no type here prints them.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use operator_core::{Confidential, Name, Objects, SecretData, objects::namespace_of, tenant};
use plenum_api::names;
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// Secrets that are read at a time.
const AT_A_TIME: usize = 16;
/// Longest read.
const READ: Duration = Duration::from_secs(10);
/// Largest Secret that is read; the API server's own bound is a mebibyte.
const BYTES_MAX: usize = 64 * 1024;

/// What is known of the Secrets in tenants' namespaces.
pub struct Secrets {
    client: Client,
    versions: Arc<Mutex<Versions>>,
    changed: watch::Sender<u64>,
    watches: BTreeMap<String, JoinSet<()>>,
    read: BTreeMap<Name, (String, SecretData)>,
}

/// By namespace: whether its listing is complete, and the version of each Secret.
type Versions = BTreeMap<String, (bool, BTreeMap<String, String>)>;

/// What reading brought.
#[derive(Debug, Default)]
pub struct Found {
    /// The Secrets that are there.
    pub secrets: BTreeMap<Name, SecretData>,
    /// Those of which nobody knows whether they are there.
    pub unknown: BTreeSet<Name>,
}

impl Secrets {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            versions: Arc::default(),
            changed: watch::Sender::new(0),
            watches: BTreeMap::new(),
            read: BTreeMap::new(),
        }
    }

    /// Wakes when a Secret in a watched namespace changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Watches these namespaces, and no others.
    pub fn follow(&mut self, namespaces: &BTreeSet<String>) {
        self.watches.retain(|name, _| namespaces.contains(name));
        self.read
            .retain(|name, _| namespaces.contains(&name.namespace));
        lock(&self.versions).retain(|name, _| namespaces.contains(name));
        for name in namespaces {
            if self.watches.contains_key(name) {
                continue;
            }
            let mut task = JoinSet::new();
            task.spawn(follow(
                self.client.clone(),
                name.clone(),
                Arc::clone(&self.versions),
                self.changed.clone(),
            ));
            self.watches.insert(name.clone(), task);
        }
    }

    /// The values of these Secrets, as far as they can be had.
    pub async fn fetch(&mut self, wanted: &BTreeSet<Name>) -> Found {
        let mut found = Found::default();
        let mut to_read = Vec::new();
        {
            let versions = lock(&self.versions);
            for name in wanted {
                let namespace = versions.get(&name.namespace);
                let version = namespace.and_then(|(_, versions)| versions.get(&name.name));
                match (version, self.read.get(name)) {
                    (Some(version), Some((known, data))) if version == known => {
                        found.secrets.insert(name.clone(), data.clone());
                    }
                    (Some(_), _) => to_read.push(name.clone()),
                    (None, _) if namespace.is_some_and(|(complete, _)| *complete) => {}
                    (None, Some((_, data))) => {
                        found.secrets.insert(name.clone(), data.clone());
                    }
                    (None, None) => drop(found.unknown.insert(name.clone())),
                }
            }
        }
        self.read.retain(|name, _| wanted.contains(name));
        let client = self.client.clone();
        let mut reads = pin!(
            stream::iter(to_read)
                .map(|name| {
                    let api: Api<Secret> = Api::namespaced(client.clone(), &name.namespace);
                    async move {
                        let outcome = timeout(READ, api.get_opt(&name.name)).await;
                        (name, outcome)
                    }
                })
                .buffer_unordered(AT_A_TIME)
        );
        while let Some((name, outcome)) = reads.next().await {
            match outcome {
                Ok(Ok(Some(secret))) => {
                    let version = secret.resource_version().unwrap_or_default();
                    let data = data_of(secret);
                    self.read.insert(name.clone(), (version, data.clone()));
                    found.secrets.insert(name, data);
                }
                Ok(Ok(None)) => drop(self.read.remove(&name)),
                Ok(Err(_)) | Err(_) => {
                    tracing::debug!(
                        namespace = name.namespace,
                        name = name.name,
                        "a Secret could not be read"
                    );
                    // What was known of it holds until more is known.
                    match self.read.get(&name) {
                        Some((_, data)) => drop(found.secrets.insert(name, data.clone())),
                        None => drop(found.unknown.insert(name)),
                    }
                }
            }
        }
        found
    }
}

fn lock(versions: &Mutex<Versions>) -> std::sync::MutexGuard<'_, Versions> {
    versions.lock().unwrap_or_else(PoisonError::into_inner)
}

fn data_of(secret: Secret) -> SecretData {
    let mut size = 0;
    let entries = secret.data.unwrap_or_default().into_iter();
    let data: BTreeMap<String, Confidential<Vec<u8>>> = entries
        .take_while(|(_, value)| {
            size += value.0.len();
            size <= BYTES_MAX
        })
        .map(|(key, value)| (key, Confidential(value.0)))
        .collect();
    SecretData {
        type_: secret.type_.unwrap_or_else(|| "Opaque".to_owned()),
        encoded: data.keys().cloned().collect(),
        data,
    }
}

async fn follow(
    client: Client,
    namespace: String,
    versions: Arc<Mutex<Versions>>,
    changed: watch::Sender<u64>,
) {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().any_semantic();
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listing = BTreeMap::new();
    while let Some(event) = events.next().await {
        let version = |secret: &PartialObjectMeta<Secret>| {
            (
                secret.name_any(),
                secret.resource_version().unwrap_or_default(),
            )
        };
        let mut versions = lock(&versions);
        let known = versions.entry(namespace.clone()).or_default();
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(secret)) => {
                listing.extend([version(&secret)]);
                continue;
            }
            Ok(Event::InitDone) => *known = (true, std::mem::take(&mut listing)),
            Ok(Event::Apply(secret)) => known.1.extend([version(&secret)]),
            Ok(Event::Delete(secret)) => drop(known.1.remove(&secret.name_any())),
            // Until the operator's rights in a new namespace are there, or while the API server is away.
            Err(error) => {
                tracing::debug!(namespace, error = %error, "the watch of a namespace's Secrets broke and begins anew");
                continue;
            }
        }
        drop(versions);
        changed.send_modify(|count| *count += 1);
    }
}

/// The Secrets that objects name, and those that the operator makes for them.
#[must_use]
pub fn named_by(objects: &Objects) -> BTreeSet<Name> {
    let mut all = BTreeSet::new();
    for (name, tenant) in &objects.tenants {
        let namespace = namespace_of(name, tenant);
        let spec = &tenant.spec;
        let keys = spec.auth.api_key_secret_refs.iter().map(|key| &key.name);
        let signing = spec
            .webhooks
            .iter()
            .filter_map(|hook| hook.signing_key_ref.as_ref());
        let cas = spec
            .webhooks
            .iter()
            .filter_map(|hook| hook.ca_secret_ref.as_ref());
        let named = keys
            .chain(signing.map(|key| &key.name))
            .chain(cas.map(|ca| &ca.name));
        all.extend(named.map(|secret| Name::new(&*namespace, &**secret)));
        all.insert(Name::new(&*namespace, tenant::LINK_KEY_SECRET));
    }
    for (name, conference) in &objects.conferences {
        let spec = &conference.spec;
        let password = spec.password_secret_ref.as_ref().map_or_else(
            || names::password_secret(&name.name),
            |given| given.name.clone(),
        );
        all.insert(Name::new(&*name.namespace, password));
        let keys = spec.openers.iter().filter_map(|opener| opener.key.as_ref());
        all.extend(keys.map(|key| Name::new(&*name.namespace, &*key.name)));
    }
    all
}
