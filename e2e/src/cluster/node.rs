// SPDX-License-Identifier: EUPL-1.2
//! A node: a network namespace with an address on the cluster's bridge, containerd, a kubelet and kube-proxy.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::api_server::{ApiServer, Identity};
use super::daemon::Daemon;
use super::image::PROBE;
use super::inside::{end_shims, make_cgroup, run, sweep, unmount_below};
use super::pki::Pair;

/// Where names of Services are answered.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Pods get their addresses here, a /24 for each node.
const PODS: &str = "10.97.0.0/16";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node.
pub struct Node {
    // In the order in which they are to end.
    kubelet: Option<Daemon>,
    proxy: Option<Daemon>,
    containerd: Daemon,
    commands: Commands,
    name: String,
    number: u8,
    network: PathBuf,
    folder: PathBuf,
    cgroup: String,
}

struct Commands {
    kubelet: Command,
}

impl Node {
    /// Starts one. `number` is the last part of what is the node's own: its address, its pods' network.
    pub(crate) async fn start(
        number: u8,
        api: &ApiServer,
        folder: &Path,
        cgroup: &str,
    ) -> Result<Self> {
        let name = format!("node-{number}");
        let folder = folder.join(format!("n{number}"));
        for part in ["cni", "log", "kubelet", "plugins"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        let network = connect(&name, number)?;
        let cgroup = format!("{cgroup}{name}");
        make_cgroup(&cgroup)?;

        write_json(&folder.join("cni/10-pods.conflist"), &cni(number, &folder))?;
        std::fs::write(folder.join("containerd.toml"), containerd(&folder))?;
        let mut command = Command::new("containerd");
        command
            .arg("--config")
            .arg(folder.join("containerd.toml"))
            .args(["--log-level", "warn"]);
        let containerd = Daemon::start("containerd", &command, &folder, Some(&network))?;

        let user = format!("system:node:{name}");
        let identity = Identity {
            user: &user,
            groups: &["system:nodes"],
        };
        let kubeconfig = api.kubeconfig_of(&identity)?;
        let serving = api.serving_pair(&name, &[&name, &address(number).to_string()])?;
        let config = kubelet(&folder, &cgroup, number, &serving, &api.authority());
        write_json(&folder.join("kubelet.json"), &config)?;
        let mut command = api.programs().kubernetes("kubelet")?;
        command
            .arg(format!(
                "--config={}",
                folder.join("kubelet.json").display()
            ))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--root-dir={}", folder.join("kubelet").display()))
            .arg(format!("--cert-dir={}", folder.join("pki").display()))
            .arg(format!("--hostname-override={name}"))
            .arg(format!("--node-ip={}", address(number)));
        let mut node = Self {
            kubelet: None,
            proxy: None,
            containerd,
            commands: Commands { kubelet: command },
            name,
            number,
            network,
            folder,
            cgroup,
        };
        node.await_containerd().await?;
        node.run_proxy(api)?;
        Ok(node)
    }

    async fn await_containerd(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.ctr(&["version"]).is_err() {
            self.containerd.check()?;
            ensure!(
                Instant::now() < end,
                "containerd does not answer\n{}",
                self.containerd.tail(20)
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn run_proxy(&mut self, api: &ApiServer) -> Result<()> {
        let identity = Identity {
            user: "system:kube-proxy",
            groups: &[],
        };
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": { "kubeconfig": api.kubeconfig_of(&identity)? },
            "mode": "iptables",
            "clusterCIDR": PODS,
            "hostnameOverride": self.name,
            // Those kernel settings are not a namespace's to set.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
            "iptables": { "localhostNodePorts": false, "minSyncPeriod": "100ms" },
            "oomScoreAdj": 0,
        });
        let file = self.folder.join("kube-proxy.json");
        write_json(&file, &config)?;
        let mut command = api.programs().kubernetes("kube-proxy")?;
        command.arg(format!("--config={}", file.display()));
        self.proxy = Some(Daemon::start(
            "kube-proxy",
            &command,
            &self.folder,
            Some(&self.network),
        )?);
        Ok(())
    }

    /// Starts the kubelet, again after [`Self::kill_kubelet`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn run_kubelet(&mut self) -> Result<()> {
        self.kubelet = Some(Daemon::start(
            "kubelet",
            &self.commands.kubelet,
            &self.folder,
            Some(&self.network),
        )?);
        Ok(())
    }

    /// Kills the kubelet; its containers go on.
    pub fn kill_kubelet(&mut self) {
        self.kubelet = None;
    }

    /// Stops the kubelet in its tracks, or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze_kubelet(&self, frozen: bool) -> Result<()> {
        let kubelet = self.kubelet.as_ref().context("the kubelet runs")?;
        kubelet.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }

    /// Name of its Node object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        address(self.number)
    }

    /// Its network namespace, by path.
    #[must_use]
    pub fn network(&self) -> &Path {
        &self.network
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the images of an archive (OCI or Docker).
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("the archive's path is UTF-8")?;
        self.ctr(&["images", "import", archive])
    }

    /// Gives an image that is there another name.
    ///
    /// # Errors
    /// When it is not there.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.ctr(&["images", "tag", image, name])
    }

    fn ctr(&self, args: &[&str]) -> Result<()> {
        ctr(&socket(&self.folder), args)
    }

    /// Fails when a part of it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.containerd.check()?;
        for daemon in [&mut self.kubelet, &mut self.proxy].into_iter().flatten() {
            daemon.check()?;
        }
        Ok(())
    }

    /// The last lines of every part's log.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let parts = [
            self.kubelet.as_ref(),
            self.proxy.as_ref(),
            Some(&self.containerd),
        ];
        let logs = parts.into_iter().flatten().map(|part| part.tail(lines));
        format!("=== {}\n{}", self.name, logs.collect::<String>())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kubelet = None;
        self.proxy = None;
        self.containerd.stop(Duration::from_secs(5));
        end_shims(&socket(&self.folder));
        if let Err(error) = sweep(&self.cgroup) {
            eprintln!("{}: {error:#}", self.name);
        }
        unmount_below(&self.folder);
        let _ = run("ip", &["netns", "delete", &self.name]);
    }
}

/// Asks a containerd, of the images and containers of Kubernetes.
pub(crate) fn ctr(socket: &Path, args: &[&str]) -> Result<()> {
    let socket = socket.to_str().context("the socket's path is UTF-8")?;
    run(
        "ctr",
        &[&["--address", socket, "--namespace", "k8s.io"], args].concat(),
    )
}

/// Where a node's containerd listens.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("containerd.sock")
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 10 + number)
}

/// Network of a node's pods.
pub(crate) fn pods(number: u8) -> String {
    format!("10.97.{number}.0/24")
}

/// Makes the node's network namespace, with an address on the bridge of the machine.
fn connect(name: &str, number: u8) -> Result<PathBuf> {
    let ip = |line: &str| run("ip", &line.split(' ').collect::<Vec<_>>());
    let outer = format!("v-{name}");
    ip(&format!("netns add {name}"))?;
    ip(&format!(
        "link add {outer} type veth peer name eth0 netns {name}"
    ))?;
    ip(&format!("link set {outer} master machine up"))?;
    ip(&format!("-n {name} link set lo up"))?;
    ip(&format!(
        "-n {name} address add {}/24 dev eth0",
        address(number)
    ))?;
    ip(&format!("-n {name} link set eth0 up"))?;
    ip(&format!("-n {name} route add default via {DNS}"))?;
    let network = PathBuf::from(format!("/run/netns/{name}"));
    let enter = format!("--net={}", network.display());
    run(
        "nsenter",
        &[&enter, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
    )?;
    // Pods know each other by their own addresses, everybody else knows them by their node's.
    run(
        "nsenter",
        &[
            &enter,
            "iptables",
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-s",
            PODS,
            "!",
            "-d",
            PODS,
            "-o",
            "eth0",
            "-j",
            "MASQUERADE",
        ],
    )?;
    Ok(network)
}

/// Tells a node the way to another's pods.
pub(crate) fn route(from: &Node, to: &Node) -> Result<()> {
    run(
        "ip",
        &[
            "-n",
            &from.name,
            "route",
            "add",
            &pods(to.number),
            "via",
            &to.address().to_string(),
        ],
    )
}

/// The network plugins: a link of its own for each pod, so that an answer between two pods of one node passes the node's translation
/// of Service addresses too, which on a bridge takes a kernel setting.
fn cni(number: u8, folder: &Path) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            { "type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": pods(number) }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
                "dataDir": folder.join("addresses"),
            }},
            { "type": "portmap", "snat": true, "capabilities": { "portMappings": true } },
        ],
    })
}

fn containerd(folder: &Path) -> String {
    let at = folder.display();
    format!(
        r#"version = 2
root = "{at}/containerd"
state = "{at}/state"
# Raising the kernel's favour takes a capability that containers of tests lack.
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "{at}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{at}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PROBE}"
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{at}/cni"
"#
    )
}

fn kubelet(folder: &Path, cgroup: &str, number: u8, serving: &Pair, authority: &Pair) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", socket(folder).display()),
        "address": address(number),
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": authority.cert },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": serving.cert,
        "tlsPrivateKeyFile": serving.key,
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "failSwapOn": false,
        "evictionHard": { "memory.available": "10Mi" },
        "imageGCHighThresholdPercent": 100,
        "oomScoreAdj": 0,
        "podLogsDir": folder.join("log"),
        "volumePluginDir": folder.join("plugins"),
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    })
}

fn write_json(file: &Path, value: &Value) -> Result<()> {
    std::fs::write(file, serde_json::to_vec_pretty(value)?)
        .with_context(|| format!("{} is written", file.display()))
}
