// SPDX-License-Identifier: EUPL-1.2
//! A whole cluster: the API server, a scheduler, names of Services, and two nodes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1;
use kube::{Api, Client};
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::api_server::{ApiServer, Identity};
use super::daemon::Daemon;
use super::folder::Folder;
use super::image::pack;
use super::inside::{furnish, unmount_below};
use super::node::{DNS, Node, route, socket};
use super::programs::Programs;

/// How many nodes a cluster has.
const NODES: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(120);
/// Where every kubelet of a machine has its registry of devices; its own folder does not change that.
const DEVICES: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";

/// A running cluster in this process's namespaces (see [`super::in_cluster_namespace`]), on the bridge `machine`: nodes at
/// 10.99.0.11 and 10.99.0.12, everybody else at 10.99.0.1, outside of the pods' network. Everything of it is gone when dropped.
pub struct Cluster {
    // In the order in which they are to end.
    nodes: Vec<Node>,
    _networks: Networks,
    scheduler: Daemon,
    dns: Daemon,
    api: ApiServer,
    folder: Folder,
}

impl Cluster {
    /// Starts one and waits until both nodes are ready; `None` when the programs are missing and the test may be skipped (see
    /// [`Programs::find`]).
    ///
    /// # Errors
    /// When a part does not start or a node does not get ready.
    pub async fn start() -> Result<Option<Self>> {
        Self::start_with(|_| {}).await
    }

    /// As [`Self::start`]; `progress` hears what is being waited for.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(progress: impl Fn(&str)) -> Result<Option<Self>> {
        let needed = ["kubernetes", "etcd", "coredns", "probe"];
        let Some(programs) = Programs::find(&needed)? else {
            return Ok(None);
        };
        let cgroup = furnish()?;
        let folder = Folder::new("c")?;
        let path = folder.path();
        progress("the API server");
        let api = ApiServer::start_at(&programs, Some(DNS)).await?;
        let scheduler = start_scheduler(&api, path)?;
        let dns = start_dns(&api, path)?;
        let mut cluster = Self {
            nodes: Vec::new(),
            _networks: Networks,
            scheduler,
            dns,
            api,
            folder,
        };
        progress("containers on both nodes");
        let pause = pack(programs.path("probe")?, cluster.folder.path())?;
        for number in 1..=NODES {
            let node = Node::start(number, &cluster.api, cluster.folder.path(), &cgroup).await?;
            cluster.nodes.push(node);
        }
        for from in &cluster.nodes {
            for to in &cluster.nodes {
                if from.name() != to.name() {
                    route(from, to)?;
                }
            }
        }
        cluster.import(&pause)?;
        progress("both nodes to be Ready");
        for index in 0..cluster.nodes.len() {
            cluster.nodes[index].run_kubelet()?;
            cluster.await_devices().await?;
        }
        cluster.await_nodes().await?;
        Ok(Some(cluster))
    }

    /// Waits until a kubelet listens at the registry of devices. Kubelets take its path from whoever had it before, and of two that do so
    /// at the same moment one finds it taken and ends; so they start one after the other.
    async fn await_devices(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(DEVICES).await.is_err() {
            self.check()?;
            ensure!(
                Instant::now() < end,
                "no kubelet listens at {DEVICES}\n{}",
                self.logs(30)
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn await_nodes(&mut self) -> Result<()> {
        let nodes = Api::<v1::Node>::all(self.client());
        let end = Instant::now() + PATIENCE;
        loop {
            let list = nodes.list(&Default::default()).await?;
            if list.items.iter().filter(|node| is_ready(node)).count() == usize::from(NODES) {
                return Ok(());
            }
            self.check()?;
            ensure!(
                Instant::now() < end,
                "the nodes do not get ready\n{}",
                self.logs(30)
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Fails when a part has ended that should run.
    ///
    /// # Errors
    /// Then.
    pub fn check(&mut self) -> Result<()> {
        self.scheduler.check()?;
        self.dns.check()?;
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    /// The API server, for clients, kubectl and its audit log.
    #[must_use]
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// The API server, to be taken away and brought back.
    pub fn api_mut(&mut self) -> &mut ApiServer {
        &mut self.api
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.api.client()
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes, to have parts of them taken away and brought back.
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The node of a name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|node| node.name() == name)
            .with_context(|| format!("there is no node {name}"))
    }

    /// Brings the images of an archive (OCI or Docker) onto both nodes; pods use them with `imagePullPolicy: IfNotPresent`.
    ///
    /// # Errors
    /// When a node refuses it.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.import(archive))
    }

    /// Where the nodes' containerds listen.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        self.nodes
            .iter()
            .map(|node| socket(node.folder()))
            .collect()
    }

    /// Folder of the cluster; it goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The last lines of every part's log.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let mut all = self.api.logs(lines);
        all.push_str(&self.scheduler.tail(lines));
        all.push_str(&self.dns.tail(lines));
        all.extend(self.nodes.iter().map(|node| node.logs(lines)));
        all
    }
}

/// Network namespaces of pods, which stay when their containers are killed.
struct Networks;

impl Drop for Networks {
    fn drop(&mut self) {
        unmount_below(Path::new("/run/netns"));
    }
}

fn is_ready(node: &v1::Node) -> bool {
    let tainted = node
        .spec
        .as_ref()
        .is_some_and(|spec| spec.taints.iter().flatten().next().is_some());
    let ready = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && !tainted
}

fn start_scheduler(api: &ApiServer, folder: &Path) -> Result<Daemon> {
    let identity = Identity {
        user: "system:kube-scheduler",
        groups: &[],
    };
    let kubeconfig = api.kubeconfig_of(&identity)?;
    let mut command = api.programs().kubernetes("kube-scheduler")?;
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg("--secure-port=0")
        .arg("--leader-elect=false");
    Daemon::start("kube-scheduler", &command, folder, None)
}

/// Names of Services, answered from outside of the pods' network so that it takes no pod.
fn start_dns(api: &ApiServer, folder: &Path) -> Result<Daemon> {
    let file = folder.join("Corefile");
    let kubeconfig = api.kubeconfig().display();
    std::fs::write(
        &file,
        format!(
            ".:53 {{\n  errors\n  kubernetes cluster.local {{\n    kubeconfig {kubeconfig}\n    ttl 1\n  }}\n}}\n"
        ),
    )?;
    let mut command = Command::new(api.programs().path("coredns")?);
    command.arg("-conf").arg(&file);
    Daemon::start("coredns", &command, folder, None)
}
