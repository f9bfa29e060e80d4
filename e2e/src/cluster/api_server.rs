// SPDX-License-Identifier: EUPL-1.2
//! etcd, kube-apiserver and kube-controller-manager of one test.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

use super::arguments::{api_command, controllers_command};
use super::audit::{self, AuditEntry};
use super::daemon::Daemon;
use super::folder::Folder;
use super::pki::{Pair, Pki};
use super::programs::Programs;

/// Longest wait for the API server, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);
/// A port that was free may be taken by the time a program listens on it.
const ATTEMPTS: u32 = 3;

/// Somebody to be at the API server: a user or a ServiceAccount (`system:serviceaccount:NAMESPACE:NAME`) and its groups.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Name.
    pub user: &'a str,
    /// Groups; a ServiceAccount's are `system:serviceaccounts` and `system:serviceaccounts:NAMESPACE`.
    pub groups: &'a [&'a str],
}

impl Identity<'static> {
    /// May do everything.
    pub const ADMIN: Self = Self {
        user: "admin",
        groups: &["system:masters"],
    };
}

/// A running API server; everything of it is gone when dropped, and with the process that started it.
pub struct ApiServer {
    // In the order in which they are to end.
    controllers: Option<Daemon>,
    api: Option<Daemon>,
    etcd: Daemon,
    folder: Folder,
    programs: Programs,
    pki: Pki,
    address: SocketAddrV4,
    commands: Commands,
    kubeconfig: PathBuf,
    client: Client,
}

/// What is started, kept so that it can be started again.
struct Commands {
    api: Command,
    controllers: Command,
}

impl ApiServer {
    /// Starts one on free ports of loopback and waits until it takes objects; `None` when the programs are missing and the test may
    /// be skipped (see [`Programs::find`]).
    ///
    /// # Errors
    /// When a part does not start or does not answer.
    pub async fn start() -> Result<Option<Self>> {
        let Some(programs) = Programs::find(&["kubernetes", "etcd"])? else {
            return Ok(None);
        };
        Self::start_at(&programs, None).await.map(Some)
    }

    /// As [`Self::start`], with the kinds of Plenum installed.
    ///
    /// # Errors
    /// As [`Self::start`], or when a definition is refused.
    pub async fn start_with_crds() -> Result<Option<Self>> {
        let Some(server) = Self::start().await? else {
            return Ok(None);
        };
        server.install_crds().await?;
        Ok(Some(server))
    }

    /// At an address that nodes and pods reach, or on loopback.
    pub(crate) async fn start_at(programs: &Programs, at: Option<Ipv4Addr>) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::attempt(programs, at).await {
                Ok(server) => return Ok(server),
                Err(error)
                    if attempt < ATTEMPTS
                        && format!("{error:#}").contains("address already in use") =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(programs: &Programs, at: Option<Ipv4Addr>) -> Result<Self> {
        let folder = Folder::new("a")?;
        let path = folder.path();
        let pki = Pki::new(&path.join("pki"))?;
        let [client_port, peer_port, api_port] = free_ports()?;
        let address = SocketAddrV4::new(at.unwrap_or(Ipv4Addr::LOCALHOST), api_port);

        let store = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let mut etcd = Command::new(programs.path("etcd")?);
        etcd.arg("--data-dir").arg(path.join("etcd")).args([
            // A test's data need not outlive the machine.
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--listen-client-urls",
            &store,
            "--advertise-client-urls",
            &store,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
        ]);
        let etcd = Daemon::start("etcd", &etcd, path, None)?;

        let commands = Commands {
            api: api_command(programs, &pki, path, &store, address)?,
            controllers: controllers_command(programs, &pki, path, address)?,
        };
        let kubeconfig = write_kubeconfig(&pki, path, "admin", &Identity::ADMIN, address)?;
        let client = client_of(&kubeconfig).await?;
        let mut server = Self {
            controllers: None,
            api: None,
            etcd,
            folder,
            programs: programs.clone(),
            pki,
            address,
            commands,
            kubeconfig,
            client,
        };
        server.run().await?;
        server.run_controllers().await?;
        Ok(server)
    }

    /// Starts the API server, again after [`Self::kill`], and waits until it answers.
    ///
    /// # Errors
    /// When it does not start or does not answer.
    pub async fn run(&mut self) -> Result<()> {
        self.api = Some(Daemon::start(
            "kube-apiserver",
            &self.commands.api,
            self.folder.path(),
            None,
        )?);
        let end = Instant::now() + PATIENCE;
        // The version is answered before the first objects are: a namespace shows that the store is there too.
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), "default");
        while let Err(error) = accounts.list(&Default::default()).await {
            self.check()?;
            ensure!(
                Instant::now() < end,
                "kube-apiserver does not answer: {error}\n{}",
                self.logs(20)
            );
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Starts the controllers, again after [`Self::kill_controllers`], and waits until they have made the ServiceAccount without
    /// which no pod can be.
    ///
    /// # Errors
    /// When they do not start or do nothing.
    pub async fn run_controllers(&mut self) -> Result<()> {
        self.controllers = Some(Daemon::start(
            "kube-controller-manager",
            &self.commands.controllers,
            self.folder.path(),
            None,
        )?);
        let end = Instant::now() + PATIENCE;
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), "default");
        while accounts.get_opt("default").await?.is_none() {
            self.check()?;
            ensure!(
                Instant::now() < end,
                "kube-controller-manager made no ServiceAccount\n{}",
                self.logs(20)
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Kills the API server: nothing answers at its address until [`Self::run`].
    pub fn kill(&mut self) {
        self.api = None;
    }

    /// Kills the controllers until [`Self::run_controllers`].
    pub fn kill_controllers(&mut self) {
        self.controllers = None;
    }

    /// Stops the API server in its tracks: connections stay, nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.api
            .as_ref()
            .context("kube-apiserver runs")?
            .signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.api
            .as_ref()
            .context("kube-apiserver runs")?
            .signal(Signal::CONT)
    }

    /// Fails when a part has ended that should run.
    fn check(&mut self) -> Result<()> {
        self.etcd.check()?;
        for daemon in [&mut self.api, &mut self.controllers].into_iter().flatten() {
            daemon.check()?;
        }
        Ok(())
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The file with which programs may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Folder of this server; it goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The programs it is made of.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The file with which a program is somebody.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_of(&self, identity: &Identity<'_>) -> Result<PathBuf> {
        let file = identity.user.replace([':', '/'], "-");
        write_kubeconfig(&self.pki, self.folder.path(), &file, identity, self.address)
    }

    /// A certificate for a server under some names.
    pub(crate) fn serving_pair(&self, file: &str, names: &[&str]) -> Result<Pair> {
        self.pki.issue(&format!("{file}-serving"), file, &[], names)
    }

    /// The cluster's authority.
    pub(crate) fn authority(&self) -> Pair {
        self.pki.authority()
    }

    /// A client that is somebody.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub async fn client_of(&self, identity: &Identity<'_>) -> Result<Client> {
        client_of(&self.kubeconfig_of(identity)?).await
    }

    /// Everything it was asked so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit(&self) -> Result<Vec<AuditEntry>> {
        audit::read(&self.folder.path().join("audit.log"))
    }

    /// Runs kubectl and gives what it printed, whether it failed or not.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn try_kubectl(&self, args: &[&str]) -> Result<Output> {
        let mut command = tokio::process::Command::from(self.programs.kubernetes("kubectl")?);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.folder.path().join("kubectl"))
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("kubectl starts")
    }

    /// Runs kubectl and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.try_kubectl(args).await?;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}\n{}{}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Installs the kinds of Plenum (`crds/`) and waits until they are served.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn install_crds(&self) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
        let folder = folder.to_str().context("the repository's path is UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", folder])
            .await?;
        let crds = Api::<CustomResourceDefinition>::all(self.client());
        let end = Instant::now() + PATIENCE;
        loop {
            let list = crds.list(&Default::default()).await?;
            let waiting: Vec<&str> = list
                .iter()
                .filter(|crd| !is_established(crd))
                .filter_map(|crd| crd.metadata.name.as_deref())
                .collect();
            if waiting.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "not established: {}",
                waiting.join(", ")
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The last lines of every part's log.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let parts = [
            Some(&self.etcd),
            self.api.as_ref(),
            self.controllers.as_ref(),
        ];
        parts
            .into_iter()
            .flatten()
            .map(|daemon| daemon.tail(lines))
            .collect()
    }
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    crd.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// Writes a kubeconfig (JSON is YAML) that holds all it needs.
pub(crate) fn write_kubeconfig(
    pki: &Pki,
    folder: &Path,
    file: &str,
    identity: &Identity<'_>,
    address: SocketAddrV4,
) -> Result<PathBuf> {
    let pair = pki.issue(file, identity.user, identity.groups, &[])?;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority": pki.authority().cert,
        }}],
        "users": [{ "name": identity.user, "user": {
            "client-certificate": pair.cert,
            "client-key": pair.key,
        }}],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": identity.user }}],
        "current-context": "test",
    });
    let path = folder.join(format!("{file}.kubeconfig"));
    std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    Ok(path)
}

async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Ports of loopback that are free now.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
