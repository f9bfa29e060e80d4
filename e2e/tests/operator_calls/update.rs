// SPDX-License-Identifier: EUPL-1.2
//! A pool gets another image while people talk and somebody tries to evict its pods.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::installed::Installed;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use plenum_api::names::{LABEL_PROTECTED, LABEL_REVISION};

use crate::people::People;
use crate::seen::{MEDIA, Node, nodes, settled};

const IMAGE: &str = "localhost/plenum-media-node";
/// Both nodes have their time to end, and two pods theirs to begin.
const PATIENCE: Duration = Duration::from_secs(240);

/// The same image under another name is another revision: a new node comes first, rooms move, and no
/// eviction gets a pod that may have calls.
pub(crate) async fn image(installed: &Installed, people: &mut People) -> Result<()> {
    for node in installed.cluster.nodes() {
        node.tag(&format!("{IMAGE}:dev"), &format!("{IMAGE}:dev2"))?;
    }
    let before = settled(installed).await?;
    let old = before[0].revision.clone();
    ensure!(before.iter().all(|node| node.revision == old), "{before:?}");
    let load: BTreeMap<String, usize> = before
        .iter()
        .map(|node| (node.name.clone(), people.rooms_on(&node.id).len()))
        .collect();

    let from = people.now();
    let patch = format!(
        "-n {MEDIA} patch mediapool city --type=merge -p {{\"spec\":{{\"template\":{{\"image\":\"{IMAGE}:dev2\"}}}}}}"
    );
    installed.kubectl(&patch).await?;
    let evictor = evictor(installed).await?;
    let mut refused = 0;
    let mut asked: Vec<String> = Vec::new();
    let mut most = 0;
    let end = Instant::now() + PATIENCE;
    loop {
        refused += evict_all(&evictor).await?;
        let now = nodes(installed).await?;
        most = most.max(now.iter().filter(|node| !node.drained).count());
        for node in now.iter().filter(|node| node.leaving) {
            if asked.contains(&node.name) {
                continue;
            }
            ensure!(
                now.iter()
                    .any(|node| node.revision != old && node.accepting)
                    || !asked.is_empty(),
                "a node is to go before a new one takes rooms: {now:?}"
            );
            asked.push(node.name.clone());
        }
        if is_updated(&now, &old) {
            break;
        }
        ensure!(Instant::now() < end, "the update does not end: {now:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let took = people.now().since(from);
    println!(
        "figure: the update of two nodes took {:.1} s; {refused} evictions were refused; at most {most} nodes",
        took.as_secs_f64()
    );
    ensure!(refused > 0, "no eviction was tried");
    ensure!(
        most == 3,
        "one node at a time comes before another goes: {most}"
    );
    // Rooms that people have just left still count for the operator, so the order is told here and proven where nobody comes and goes.
    println!("figure: {asked:?} went in this order, with {load:?} rooms of people");
    people.moved("image update", from).await?;
    installed
        .kubectl(&format!(
            "-n {MEDIA} wait mediapool/city --for=condition=Ready --timeout=60s"
        ))
        .await?;
    let pods = Api::<Pod>::namespaced(installed.cluster.client(), MEDIA);
    for pod in pods.list(&ListParams::default()).await? {
        let images = pod.spec.iter().flat_map(|spec| &spec.containers);
        let new = images
            .clone()
            .all(|one| one.image.as_deref() == Some(&*format!("{IMAGE}:dev2")));
        ensure!(
            new && pod
                .labels()
                .get(LABEL_REVISION)
                .is_some_and(|own| *own != old),
            "{} is old",
            pod.name_any()
        );
    }
    Ok(())
}

fn is_updated(nodes: &[Node], old: &str) -> bool {
    nodes.len() == 2
        && nodes
            .iter()
            .all(|node| node.revision != old && node.accepting)
}

/// Without a client's own retries: an eviction that is refused is to be seen as refused.
async fn evictor(installed: &Installed) -> Result<Api<Pod>> {
    let kubeconfig = Kubeconfig::read_from(installed.cluster.api().kubeconfig())?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Api::namespaced(Client::try_from(config)?, MEDIA))
}

/// Tries to evict every pod that is protected; how many were refused.
async fn evict_all(pods: &Api<Pod>) -> Result<u32> {
    let protected = ListParams::default().labels(LABEL_PROTECTED);
    let mut refused = 0;
    for pod in pods.list(&protected).await? {
        let name = pod.name_any();
        let phase = pod.status.and_then(|status| status.phase);
        if phase.as_deref() != Some("Running") {
            // Kubernetes asks no budget about a pod that has never run, and nobody is on it.
            continue;
        }
        match pods.evict(&name, &EvictParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 429 => refused += 1,
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).context("an eviction is refused with 429"),
            Ok(_) => {
                // Only what was let go in the moment between may go.
                let now = pods.get_opt(&name).await?;
                let protected = now.is_some_and(|pod| pod.labels().contains_key(LABEL_PROTECTED));
                if protected {
                    bail!("{name} was evicted while it was protected");
                }
            }
        }
    }
    Ok(refused)
}
