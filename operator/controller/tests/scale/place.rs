// SPDX-License-Identifier: EUPL-1.2
//! An API server with a scheduler and kwok, an operator in release build, and what is declared there.

use std::{
    collections::BTreeMap,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::cluster::{ApiServer, Identity, Programs};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use plenum_api::{Conference, ConferenceClass, MediaPool, Tenant};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::Mutex,
    time::{sleep, timeout},
};

use crate::{
    Scale,
    figures::{Passes, Usage},
    listener::{Counts, Listener},
};

/// A generous bound for what takes seconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// Where the operator is.
const SYSTEM: &str = "plenum-system";
/// Where the pools are.
const MEDIA: &str = "media";
/// Who the operator is.
const OPERATOR: Identity<'static> = Identity {
    user: "system:serviceaccount:plenum-system:plenum-operator",
    groups: &["system:masters"],
};
/// Objects that are made at a time.
const AT_A_TIME: usize = 16;
/// Nothing has happened for so long: it is settled.
const QUIET: Duration = Duration::from_secs(5);

/// All of it.
pub(crate) struct Place {
    scale: Scale,
    server: ApiServer,
    client: Client,
    program: PathBuf,
    listener: Listener,
    /// Where the directory is to listen; nobody listens before there is a certificate.
    directory: SocketAddr,
    reserved: Mutex<Option<TcpListener>>,
    _beside: Vec<Child>,
}

/// A running operator.
pub(crate) struct Operator {
    child: Child,
    metrics: SocketAddr,
}

impl Place {
    /// `None` where a program is missing and the test may be skipped.
    pub(crate) async fn start(scale: Scale) -> Result<Option<Self>> {
        let Some(kwok) = Programs::find(&["kwok"])? else {
            return Ok(None);
        };
        let program = release()?;
        let Some(server) = ApiServer::start_with_crds().await? else {
            return Ok(None);
        };
        let client = server.client();
        let mut scheduler = bound(server.programs().path("kubernetes")?);
        scheduler
            .arg("kube-scheduler")
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .args(["--leader-elect=false", "--secure-port=0"])
            .args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
        let mut kubelets = bound(kwok.path("kwok")?);
        kubelets
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .arg("--config")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scale/stages.yaml"))
            .args(["--manage-all-nodes=true", "--cidr=10.97.0.0/16"])
            .args(["--node-lease-duration-seconds=40", "--server-address="]);
        let beside = vec![
            beside(&server, "scheduler", scheduler)?,
            beside(&server, "kwok", kubelets)?,
        ];
        let reserved = TcpListener::bind("127.0.0.1:0").await?;
        let place = Self {
            scale,
            server,
            client,
            program,
            listener: Listener::default(),
            directory: reserved.local_addr()?,
            reserved: Mutex::new(Some(reserved)),
            _beside: beside,
        };
        place.prepare().await?;
        Ok(Some(place))
    }

    /// Namespaces and machines.
    async fn prepare(&self) -> Result<()> {
        for name in [SYSTEM, MEDIA] {
            let namespace =
                json!({ "metadata": { "name": name, "labels": { "plenum.dev/media": "true" } } });
            let namespace = serde_json::from_value(namespace)?;
            Api::<Namespace>::all(self.client.clone())
                .create(&PostParams::default(), &namespace)
                .await?;
        }
        let machines = Api::<Node>::all(self.client.clone());
        for number in 0..Scale::MACHINES {
            let name = format!("machine-{number}");
            let machine = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } } });
            machines
                .create(&PostParams::default(), &serde_json::from_value(machine)?)
                .await?;
            let size = json!({ "cpu": "1000", "memory": "4Ti", "pods": "1000", "ephemeral-storage": "4Ti" });
            let status = json!({ "status": {
                "allocatable": size, "capacity": size,
                "addresses": [{ "type": "InternalIP", "address": format!("192.0.2.{number}") }],
                "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "it runs",
                    "lastHeartbeatTime": jiff::Timestamp::now().to_string(), "lastTransitionTime": jiff::Timestamp::now().to_string() }],
            } });
            machines
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
                .await?;
        }
        Ok(())
    }

    /// Starts the operator and waits until it leads.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        let log = self.server.folder().join("operator.log");
        let kubeconfig = self.server.kubeconfig_of(&OPERATOR)?;
        let mut child = bound(&self.program)
            .args(["--namespace", SYSTEM, "--pod-name", "operator-0"])
            .args(["--control-plane", &self.directory.to_string()])
            .args(["--probe-listen", "127.0.0.1:0"])
            .args(["--metrics-listen", "127.0.0.1:0"])
            .args(["--log-format", "json"])
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .context("the operator starts")?;
        let end = Instant::now() + PATIENCE;
        let metrics = loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let listening = lines
                .filter(|line| line["event"] == "Listening")
                .find_map(|line| line["metrics"].as_str()?.parse().ok());
            if let Some(metrics) = listening {
                break metrics;
            }
            ensure!(
                child.try_wait()?.is_none() && Instant::now() < end,
                "the operator does not listen\n{text}"
            );
            sleep(Duration::from_millis(20)).await;
        };
        Ok(Operator { child, metrics })
    }

    /// Lets the directory listen, with the certificate that the operator has made.
    pub(crate) async fn listen(&self) -> Result<()> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), SYSTEM);
        let end = Instant::now() + PATIENCE;
        let data = loop {
            let made = secrets.get_opt("plenum-control-plane-tls").await?;
            if let Some(data) = made.and_then(|secret| secret.data) {
                break data;
            }
            ensure!(Instant::now() < end, "no certificate for the control plane");
            sleep(Duration::from_millis(100)).await;
        };
        let file = |key: &str| -> Result<String> {
            let value = data.get(key).with_context(|| format!("{key} in it"))?;
            Ok(String::from_utf8(value.0.clone())?)
        };
        let files = [file("ca.crt")?, file("tls.crt")?, file("tls.key")?];
        let reserved = self.reserved.lock().await.take().context("a port")?;
        self.listener.serve(reserved, files).await.map(drop)
    }

    /// A class, the pools, the tenants with their openers' key; waits until namespaces count their quota.
    pub(crate) async fn declare_pools_and_tenants(&self) -> Result<()> {
        let class = json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": "ConferenceClass",
            "metadata": { "name": "meeting", "annotations": { "plenum.dev/is-default-class": "true" } },
            "spec": { "preset": "Meeting" },
        });
        apply::<ConferenceClass>(&Api::all(self.client.clone()), class).await?;
        let pools = Api::<MediaPool>::namespaced(self.client.clone(), MEDIA);
        for number in 0..Scale::POOLS {
            let ports = 20_000 + 2_500 * number;
            let pool = json!({
                "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaPool",
                "metadata": { "name": format!("pool-{number}"), "namespace": MEDIA },
                "spec": {
                    "replicas": self.scale.nodes / Scale::POOLS,
                    "network": {
                        "type": "HostPort", "hostPort": { "range": { "min": ports, "max": ports + 2_499 } },
                        "addressSources": [{ "type": "NodeInternalIP" }], "ipFamilies": ["IPv4"],
                    },
                },
            });
            apply(&pools, pool).await?;
        }
        let tenants = Api::<Tenant>::all(self.client.clone());
        for number in 0..Scale::TENANTS {
            let tenant = json!({
                "apiVersion": "plenum.dev/v1alpha1", "kind": "Tenant",
                "metadata": { "name": format!("town-{number}") },
                "spec": {
                    "displayName": format!("Town {number}"),
                    "contacts": [
                        { "type": "Technical", "mailbox": "it@town.example" },
                        { "type": "Functional", "mailbox": "office@town.example" },
                    ],
                    "pools": [{ "namespace": MEDIA, "name": format!("pool-{}", number % Scale::POOLS) }],
                    "limits": { "conferences": 1500 },
                },
            });
            apply(&tenants, tenant).await?;
        }
        for number in 0..Scale::TENANTS {
            let namespace = format!("tenant-town-{number}");
            let key = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "plenum.dev/opener-key",
                "metadata": { "name": "opener", "namespace": namespace },
                "stringData": { "key": "an-example-opener-key-0123" },
            });
            let secrets = Api::<Secret>::namespaced(self.client.clone(), &namespace);
            patiently("the tenant's namespace takes a Secret", || {
                apply(&secrets, key.clone())
            })
            .await?;
        }
        Ok(())
    }

    /// Conferences, as fast as the API server takes them.
    pub(crate) async fn declare_conferences(&self) -> Result<()> {
        let each = self.scale.conferences / Scale::TENANTS;
        let all =
            (0..Scale::TENANTS).flat_map(|tenant| (0..each).map(move |number| (tenant, number)));
        stream::iter(all)
            .map(|(tenant, number)| async move {
                let namespace = format!("tenant-town-{tenant}");
                let conference = json!({
                    "apiVersion": "plenum.dev/v1alpha1", "kind": "Conference",
                    "metadata": { "name": format!("council-{number}"), "namespace": namespace },
                    "spec": {
                        "displayName": format!("Council {number}"),
                        "openers": [{ "type": "Key", "key": { "name": "opener" } }],
                        "lobby": "Guests",
                    },
                });
                let conferences = Api::<Conference>::namespaced(self.client.clone(), &namespace);
                patiently("the quota takes a conference", || {
                    apply(&conferences, conference.clone())
                })
                .await
            })
            .buffer_unordered(AT_A_TIME)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    fn complete(&self) -> Counts {
        Counts {
            snapshot: true,
            tenants: Scale::TENANTS,
            conferences: self.scale.conferences,
            nodes: self.scale.nodes,
        }
    }

    /// Waits until everything is published.
    pub(crate) async fn published(&self) -> Result<()> {
        self.published_within(PATIENCE).await
    }

    async fn published_within(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let mut told = Instant::now();
        while self.listener.counts() != self.complete() {
            ensure!(
                Instant::now() < end,
                "published: {:?}, not {:?}",
                self.listener.counts(),
                self.complete()
            );
            if told.elapsed() > Duration::from_secs(30) {
                println!("  published so far: {:?}", self.listener.counts());
                told = Instant::now();
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until everything is published and nothing is written or looked at any more.
    pub(crate) async fn settled(&self, operator: &Operator, patience: Duration) -> Result<()> {
        self.published_within(patience).await?;
        let end = Instant::now() + patience;
        let mut last = (self.writes()?, 0.0);
        let mut since = Instant::now();
        while since.elapsed() < QUIET {
            ensure!(Instant::now() < end, "it does not settle: {last:?}");
            sleep(Duration::from_millis(500)).await;
            let now = (self.writes()?, operator.passes().await?.count());
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits until every object has been looked at once.
    pub(crate) async fn passed(&self, operator: &Operator) -> Result<()> {
        let all = self.scale.nodes + self.scale.conferences + Scale::POOLS + Scale::TENANTS + 1;
        let end = Instant::now() + PATIENCE;
        loop {
            let count = operator.passes().await?.count();
            // Numbers of objects are small.
            if count >= all as f64 {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{count} of {all} passes");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// How often the operator has written so far, without leases.
    pub(crate) fn writes(&self) -> Result<usize> {
        Ok(self.written_since(0)?.values().sum())
    }

    /// What it has written since there were so many writes, by verb and kind.
    pub(crate) fn written_since(&self, skip: usize) -> Result<BTreeMap<String, usize>> {
        let all = self.server.audit()?;
        let own = all.iter().filter(|entry| {
            entry.user.username == OPERATOR.user && entry.is_write() && entry.resource() != "leases"
        });
        let mut counts = BTreeMap::new();
        for entry in own.skip(skip) {
            let object = entry.object_ref.as_ref();
            let part = object.map_or("", |object| &object.subresource);
            let what = format!("{} {}/{part}", entry.verb, entry.resource());
            *counts.entry(what).or_default() += 1;
        }
        Ok(counts)
    }

    /// Lets what was published be forgotten, before another operator begins.
    pub(crate) fn forget(&self) {
        self.listener.forget();
    }
}

impl Operator {
    /// What Prometheus would read.
    pub(crate) async fn metrics(&self) -> Result<String> {
        Ok(e2e::http::get(self.metrics, "/metrics").await?.body)
    }

    async fn passes(&self) -> Result<Passes> {
        Ok(Passes::of(&self.metrics().await?))
    }

    /// What the kernel says of it.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id().context("it runs")?)
    }

    /// Tells it to stop and waits for it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id().context("it runs")?)?;
        let pid = Pid::from_raw(pid).context("a process")?;
        kill_process(pid, Signal::TERM)?;
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .context("it does not end")??;
        ensure!(status.success(), "it ends with {status}");
        Ok(())
    }
}

/// The operator's program in release build.
fn release() -> Result<PathBuf> {
    let debug = Path::new(env!("CARGO_BIN_EXE_operator"));
    let target = debug
        .parent()
        .and_then(Path::parent)
        .context("a target directory")?;
    let program = target.join("release/operator");
    if !program.is_file() {
        bail!("the operator is not built: cargo build --release --locked -p operator --bins");
    }
    Ok(program)
}

/// A program that the kernel ends with the test, however that ends.
fn bound(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a program beside the API server.
fn beside(server: &ApiServer, name: &str, mut command: Command) -> Result<Child> {
    let log = File::create(server.folder().join(format!("{name}.log")))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{name} starts"))
}

async fn apply<K>(api: &Api<K>, manifest: Value) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let name = manifest["metadata"]["name"].as_str().context("a name")?;
    api.patch(
        name,
        &PatchParams::apply("gitops").force(),
        &Patch::Apply(&manifest),
    )
    .await?;
    Ok(())
}

/// Again until it succeeds: namespaces and quotas are made by others.
async fn patiently<F: Future<Output = Result<()>>>(what: &str, run: impl Fn() -> F) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match run().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => return Err(error.context(what.to_owned())),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
