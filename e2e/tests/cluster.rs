// SPDX-License-Identifier: EUPL-1.2
//! The cluster that tests of the operator run in: two nodes, pods that are reached from outside, names of Services, drains, and a
//! machine that is as it was before, also after a test that died.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::{Cluster, PROBE, in_cluster_namespace};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(120);
/// Port of the nodes that leads to the echo.
const HOST_PORT: u16 = 20005;
const NODE_PORT: u16 = 30005;

/// One cluster at a time: what is left of one must not be taken for another's.
static ALONE: Mutex<()> = Mutex::new(());

fn in_runtime(body: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(body)
}

#[test]
fn two_nodes_carry_pods_that_are_reached_resolved_and_drained() -> Result<()> {
    let name = "two_nodes_carry_pods_that_are_reached_resolved_and_drained";
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    in_cluster_namespace(name, || in_runtime(reached_resolved_and_drained()))
}

async fn reached_resolved_and_drained() -> Result<()> {
    let begin = Instant::now();
    let Some(cluster) = Cluster::start().await? else {
        return Ok(());
    };
    println!("both nodes are ready after {:?}", begin.elapsed());
    if let Err(error) = use_it(&cluster).await {
        let pods = cluster.api().kubectl(&["describe", "pods", "-A"]).await?;
        bail!("{error:#}\n{pods}\n{}", cluster.logs(20));
    }
    let folder = cluster.folder().to_owned();
    drop(cluster);
    nothing_is_left(&folder)
}

async fn use_it(cluster: &Cluster) -> Result<()> {
    apply(cluster, &manifests()).await?;
    let pods = echo_pods(cluster).await?;
    for node in cluster.nodes() {
        let (pod, _) = pods
            .iter()
            .find(|(pod, _)| node_of(pod) == node.name())
            .with_context(|| format!("{} carries an echo", node.name()))?;
        let pod = pod_name(pod);
        answers(&format!("{}:{HOST_PORT}", node.address()), &[pod])?;
    }
    let names: Vec<&str> = pods.iter().map(|(pod, _)| pod_name(pod)).collect();
    let node = &cluster.nodes()[0];
    answers(&format!("{}:{NODE_PORT}", node.address()), &names)?;
    println!("hostPort and NodePort answer");

    let (asking, own_address) = (names[0], &pods[0].1);
    let (other, other_address) = (names[1], &pods[1].1);
    let said = probe(
        cluster,
        asking,
        &["ask", "udp", &format!("{other_address}:7000"), "hello"],
    )
    .await?;
    ensure!(said == format!("{other} hello"), "across nodes: {said}");
    let resolved = probe(cluster, asking, &["resolve", "echo-replicas"]).await?;
    let mut addresses = [own_address.as_str(), other_address.as_str()];
    addresses.sort_unstable();
    ensure!(
        resolved == addresses.join("\n"),
        "a headless Service is {addresses:?}: {resolved}"
    );
    // More often than there are pods, so that one is sent to itself.
    for _ in 0..6 {
        let said = probe(cluster, asking, &["ask", "tcp", "echo:7000", "hello"]).await?;
        ensure!(
            names.iter().any(|name| said == format!("{name} hello")),
            "through the Service: {said}"
        );
    }
    println!("pods reach each other, by address and by name");

    let drained = cluster.nodes()[0].name();
    let said = cluster
        .api()
        .kubectl(&["drain", drained, "--ignore-daemonsets", "--timeout=90s"])
        .await?;
    println!("{said}");
    let client = cluster.client();
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?;
    ensure!(
        pods.iter().all(|pod| node_of(pod) != drained),
        "a drained node carries pods"
    );
    Ok(())
}

#[test]
fn a_cluster_whose_test_dies_leaves_nothing_behind() -> Result<()> {
    let name = "a_cluster_whose_test_dies_leaves_nothing_behind";
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let died = in_cluster_namespace(name, || {
        in_runtime(async {
            let Some(cluster) = Cluster::start().await? else {
                // Nothing to see without a cluster: as good as dead.
                bail!("SKIPPED");
            };
            apply(&cluster, &manifests()).await?;
            echo_pods(&cluster).await?;
            println!("the test dies");
            rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            )?;
            Ok(())
        })
    });
    ensure!(died.is_err(), "a test that dies passes");
    let left = traces()?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// Control groups and folders that are this process's.
fn traces() -> Result<Vec<String>> {
    let own = format!("-{}-", std::process::id());
    let mut found = Vec::new();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        if hierarchy.file_type()?.is_dir() {
            find(&hierarchy.path(), &own, &mut found)?;
        }
    }
    find(&std::env::temp_dir(), &own, &mut found)?;
    Ok(found)
}

fn find(folder: &Path, own: &str, found: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("plenum-") && name.contains(own) {
            found.push(folder.join(name).display().to_string());
        }
    }
    Ok(())
}

/// No process, mount, namespace, link or file of a cluster that lay in `folder`. The kernel takes namespaces and what is in them apart
/// after their last process has ended, in its own time.
fn nothing_is_left(folder: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match look_for_leftovers(folder) {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            looked => return looked,
        }
    }
}

fn look_for_leftovers(folder: &Path) -> Result<()> {
    ensure!(!folder.exists(), "{} is left", folder.display());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    for part in [&*folder.to_string_lossy(), "/run/netns/"] {
        ensure!(!mounts.contains(part), "mounts are left: {mounts}");
    }
    let links = output("ip", &["-brief", "link"])?;
    ensure!(!links.contains("v-node"), "links are left: {links}");
    let processes = output("ps", &["-eo", "args"])?;
    let programs = ["containerd", "kube", "/probe", "etcd", "coredns"];
    let left: Vec<&str> = processes
        .lines()
        // What has ended and is not yet reaped by the first process is in brackets.
        .filter(|line| !line.starts_with('['))
        .filter(|line| programs.iter().any(|program| line.contains(program)))
        .collect();
    ensure!(left.is_empty(), "processes are left: {left:?}");
    Ok(())
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An echo on each node, with two Services.
fn manifests() -> Value {
    let ports = json!([
        { "name": "udp", "port": 7000, "protocol": "UDP", "nodePort": NODE_PORT },
        { "name": "tcp", "port": 7000, "protocol": "TCP" },
    ]);
    let selector = json!({ "app": "echo" });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": "echo" },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": selector },
                "template": { "metadata": { "labels": selector }, "spec": {
                    "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                        { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": selector } },
                    ]}},
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{
                        "name": "echo",
                        "image": PROBE,
                        "imagePullPolicy": "Never",
                        "args": ["echo", "7000"],
                        "ports": [{ "containerPort": 7000, "hostPort": HOST_PORT, "protocol": "UDP" }],
                        "readinessProbe": { "tcpSocket": { "port": 7000 }, "periodSeconds": 1 },
                        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                        "securityContext": { "runAsNonRoot": true, "readOnlyRootFilesystem": true },
                    }],
                }},
            },
        },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "echo" }, "spec": { "type": "NodePort", "selector": selector, "ports": ports } },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "echo-replicas" },
            "spec": { "clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector, "ports": [{ "port": 7000 }] },
        },
    ]})
}

async fn apply(cluster: &Cluster, manifests: &Value) -> Result<()> {
    let file = cluster.folder().join("manifests.json");
    std::fs::write(&file, manifests.to_string())?;
    let file = file.to_str().context("the folder's path is UTF-8")?;
    cluster
        .api()
        .kubectl(&["apply", "--server-side", "-f", file])
        .await?;
    Ok(())
}

/// The two echoes and their addresses, once they are ready.
async fn echo_pods(cluster: &Cluster) -> Result<Vec<(Pod, String)>> {
    let pods = Api::<Pod>::default_namespaced(cluster.client());
    let end = Instant::now() + PATIENCE;
    loop {
        let found: Vec<(Pod, String)> = pods
            .list(&ListParams::default().labels("app=echo"))
            .await?
            .into_iter()
            .filter(is_ready)
            .filter_map(|pod| {
                let address = pod.status.as_ref()?.pod_ip.clone()?;
                Some((pod, address))
            })
            .collect();
        if found.len() == 2 {
            return Ok(found);
        }
        ensure!(
            Instant::now() < end,
            "{} of 2 echoes are ready",
            found.len()
        );
        sleep(Duration::from_millis(200)).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn node_of(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

/// Runs the program of the pod's image in it once more.
async fn probe(cluster: &Cluster, pod: &str, words: &[&str]) -> Result<String> {
    let said = cluster
        .api()
        .kubectl(&[&["exec", pod, "--", "/probe"], words].concat())
        .await?;
    Ok(said.trim().to_owned())
}

/// One of `pods` answers a datagram from outside of the pods' network.
fn answers(address: &str, pods: &[&str]) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 1500];
    loop {
        socket.send_to(b"hello", address)?;
        if let Ok((count, _)) = socket.recv_from(&mut buffer) {
            let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
            ensure!(
                pods.iter().any(|pod| said == format!("{pod} hello")),
                "{address} says {said}, not one of {pods:?}"
            );
            return Ok(());
        }
        ensure!(Instant::now() < end, "{address} does not answer");
    }
}
