// SPDX-License-Identifier: EUPL-1.2
//! How many pods of each part there were while something changed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::chart;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Namespace of the media nodes.
pub(crate) const MEDIA: &str = "media";
const COMPONENT: &str = "app.kubernetes.io/component";
const LOOK: Duration = Duration::from_millis(150);

/// What is looked at of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Its part of the system.
    pub(crate) part: String,
    /// Its uid.
    pub(crate) uid: String,
    /// Image of its only container.
    pub(crate) image: String,
    /// Whether it serves.
    pub(crate) ready: bool,
    /// Whether it was told to end.
    pub(crate) ending: bool,
}

/// The pods of a namespace.
pub(crate) type Pods = Vec<Seen>;

/// The pods of a namespace that belong to a part of the system.
pub(crate) async fn pods(client: &Client, namespace: &str) -> Result<Pods> {
    let list = Api::<Pod>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await?;
    Ok(list.items.into_iter().filter_map(look).collect())
}

fn look(pod: Pod) -> Option<Seen> {
    let part = pod.labels().get(COMPONENT)?.clone();
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    Some(Seen {
        part,
        uid: pod.uid().unwrap_or_default(),
        image: containers
            .filter_map(|container| container.image.clone())
            .collect(),
        ready,
        ending: pod.metadata.deletion_timestamp.is_some(),
    })
}

/// Fewest and most pods of a part that were not told to end, and the fewest that served.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    fewest: usize,
    most: usize,
    serving: usize,
}

/// What was seen, by part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounded {
    looks: u64,
    parts: BTreeMap<String, Bounds>,
}

/// Looks all the time.
pub(crate) struct Rolling {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Bounded>>,
}

impl Rolling {
    /// Begins to look.
    pub(crate) fn watch(client: Client) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut seen = Bounded::default();
            loop {
                for namespace in [chart::NAMESPACE, MEDIA] {
                    seen.take(&pods(&client, namespace).await?);
                }
                seen.looks += 1;
                tokio::select! {
                    _ = &mut stopped => return Ok(seen),
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        });
        Self { stop, task }
    }

    /// What was seen until now.
    pub(crate) async fn end(self) -> Result<Bounded> {
        // Who has failed is not there to be told.
        let _ = self.stop.send(());
        let seen = self.task.await.context("looks at pods")??;
        println!(
            "figure: pods at a time, in {} looks: {:?}",
            seen.looks, seen.parts
        );
        Ok(seen)
    }
}

impl Bounded {
    fn take(&mut self, pods: &[Seen]) {
        let mut parts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.ending) {
            let (there, serving) = parts.entry(&pod.part).or_default();
            *there += 1;
            *serving += usize::from(pod.ready);
        }
        for (part, (there, serving)) in parts {
            let bounds = self.parts.entry(part.to_owned()).or_insert(Bounds {
                fewest: there,
                most: there,
                serving,
            });
            bounds.fewest = bounds.fewest.min(there);
            bounds.most = bounds.most.max(there);
            bounds.serving = bounds.serving.min(serving);
        }
    }

    /// Of operator and control plane, one new pod at a time came before an old one went, and somebody served all the while.
    pub(crate) fn one_at_a_time(&self) -> Result<()> {
        ["operator", "control-plane"]
            .iter()
            .try_for_each(|part| self.replaced(part))
    }

    /// Media pods were replaced as their pool says: one more at a time, never fewer.
    pub(crate) fn surges(&self) -> Result<()> {
        self.replaced("media-node")
    }

    fn replaced(&self, part: &str) -> Result<()> {
        let bounds = self.parts.get(part);
        let bounds = bounds.with_context(|| format!("no pod of {part} was seen"))?;
        ensure!(
            bounds.fewest == 2 && bounds.most == 3 && bounds.serving > 0,
            "{part} was not replaced one by one: {bounds:?}"
        );
        Ok(())
    }
}
