// SPDX-License-Identifier: EUPL-1.2
//! The chart in a real cluster, with the example of the documentation applied: where tests of the whole begin.

mod people;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::chart::{self, Helm};
use crate::cluster::{Cluster, Programs, in_cluster_namespace};
use crate::system::is_inside;

pub use people::{CONFERENCE, MACHINE, plain, token, token_to};

/// The gateway's port of the nodes.
pub const NODE_PORT: u16 = 30443;
/// As the chart's own images, which the tests have packed.
const IMAGES: [&str; 4] = ["operator", "control-plane", "media-node", "tools"];
/// The example's files, in the order in which they are applied.
const EXAMPLE: [&str; 3] = ["1-platform.yaml", "2-tenant.yaml", "3-maintenance.yaml"];

/// Runs a test named `name` in a cluster of its own in which the chart is installed. `values` are merged over the least that a test's
/// machine carries: one replica of the control plane, its store in memory. Debian's Redis is there as `plenum-redis:dev` where the
/// demonstration is enabled. Skipped when the programs are missing and the test may be
/// (see [`Programs::find`]); a failure comes with the cluster's own account of it.
///
/// # Errors
/// When the cluster does not start, the chart does not get available, or the body fails.
pub fn run<Body>(name: &str, values: &Value, body: impl FnOnce(Installed) -> Body) -> Result<()>
where
    Body: Future<Output = (Installed, Result<()>)>,
{
    if Programs::find(&["kubernetes", "etcd", "coredns", "probe", "helm"])?.is_none() {
        return Ok(());
    }
    let target = target()?;
    if !is_inside(name) {
        pack(&target)?;
    }
    in_cluster_namespace(name, || {
        tokio::runtime::Runtime::new()?.block_on(async {
            let Some(cluster) = Cluster::start().await? else {
                return Ok(());
            };
            let installed = Installed { cluster, target };
            if let Err(error) = installed.begin(values).await {
                bail!("{error:#}\n{}", installed.story().await);
            }
            let (installed, done) = body(installed).await;
            if let Err(error) = done {
                bail!("{error:#}\n{}", installed.story().await);
            }
            Ok(())
        })
    })
}

/// A cluster in which the chart is installed as release `plenum`.
pub struct Installed {
    /// The cluster.
    pub cluster: Cluster,
    target: PathBuf,
}

impl Installed {
    async fn begin(&self, values: &Value) -> Result<()> {
        for image in IMAGES {
            self.cluster
                .import(&self.target.join(format!("images/plenum-{image}.tar")))?;
        }
        let values = self.values(values);
        if values["redis"]["demonstration"]["enabled"] == true {
            self.cluster
                .import(&self.target.join("images/plenum-redis.tar"))?;
        }
        self.helm(&["install", "plenum"], &["--create-namespace"], &values)?;
        self.kubectl(
            "-n plenum-system wait deployment --all --for=condition=Available --timeout=180s",
        )
        .await?;
        println!("the chart is installed and available");
        Ok(())
    }

    /// The values of a test: `own` over what every test's installation has.
    #[must_use]
    pub fn values(&self, own: &Value) -> Value {
        let image = json!({ "tag": "dev" });
        let mut values = json!({
            "images": { "operator": image, "controlPlane": image, "mediaNode": image, "tools": image },
            "operator": { "resources": { "requests": { "cpu": "50m" } } },
            "controlPlane": { "replicas": 1, "resources": { "requests": { "cpu": "50m" } } },
            "store": "Memory",
            "redis": { "demonstration": { "enabled": false } },
            "gateway": {
                "publicUrl": format!("https://{}:{NODE_PORT}", self.cluster.nodes()[0].address()),
                "service": { "type": "NodePort", "nodePort": NODE_PORT, "externalTrafficPolicy": "Cluster" },
            },
        });
        merge(&mut values, own);
        values
    }

    /// Runs Helm: the verb and the release, then the chart, then further arguments.
    ///
    /// # Errors
    /// With what Helm says, when it fails.
    pub fn helm(&self, verb: &[&str], arguments: &[&str], values: &Value) -> Result<String> {
        let helm = Helm::find()?.context("helm was found a moment ago")?;
        let file = self.cluster.folder().join("values.json");
        std::fs::write(&file, values.to_string())?;
        let output = helm
            .command(verb)
            .arg(chart::folder())
            .args(["--namespace", chart::NAMESPACE])
            .args(arguments)
            .arg("--values")
            .arg(&file)
            .arg("--kubeconfig")
            .arg(self.cluster.api().kubeconfig())
            .output()
            .context("helm starts")?;
        ensure!(
            output.status.success(),
            "helm {}: {}",
            verb.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Declares the example of the documentation, with requests that fit into a test's machine, and waits until all of it is Ready and
    /// the media nodes take rooms. `change` sees each manifest's text before it is applied.
    ///
    /// # Errors
    /// When an object is refused or does not get Ready.
    pub async fn declare(&self, change: impl Fn(String) -> String) -> Result<()> {
        for file in EXAMPLE {
            let text =
                std::fs::read_to_string(repository().join("docs/examples/cluster").join(file))?;
            if file == "2-tenant.yaml" {
                self.kubectl("wait tenant/city --for=condition=NamespaceReady --timeout=330s")
                    .await?;
            }
            self.apply(file, &change(text.replace("cpu: \"2\"", "cpu: 50m")))
                .await?;
        }
        for (what, namespace) in [
            ("conferenceclass/meeting", None),
            ("tenant/city", None),
            ("mediapool/city", Some("media")),
            ("conference/council", Some("tenant-city")),
        ] {
            let namespace = namespace.map_or_else(String::new, |name| format!("-n {name} "));
            self.kubectl(&format!(
                "{namespace}wait {what} --for=condition=Ready --timeout=180s"
            ))
            .await?;
        }
        self.kubectl("-n media wait medianodes --all --for=condition=Accepting --timeout=180s")
            .await?;
        Ok(())
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// With what the API server says, when it refuses.
    pub async fn apply(&self, name: &str, text: &str) -> Result<()> {
        let file = self.cluster.folder().join(name);
        std::fs::write(&file, text)?;
        let apply = format!("apply --server-side -f {}", file.display());
        self.kubectl(&apply).await?;
        Ok(())
    }

    /// Runs kubectl as somebody who may do everything; words are told apart by spaces.
    ///
    /// # Errors
    /// With what it says, when it fails.
    pub async fn kubectl(&self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        self.cluster.api().kubectl(&words).await
    }

    /// What a reader of a failure wants to know.
    pub async fn story(&self) -> String {
        let mut story = String::new();
        for line in [
            "get pods -A -o wide",
            "get plenum -A -o wide",
            "-n plenum-system logs --tail=25 --prefix -l app.kubernetes.io/part-of=plenum",
            "-n media logs --tail=15 --prefix -l app.kubernetes.io/part-of=plenum",
            "-n media describe pods,medianodes",
            "-n tenant-city describe conferences",
        ] {
            let said = self.kubectl(line).await;
            story.push_str(&said.unwrap_or_else(|error| format!("{error:#}")));
            story.push('\n');
        }
        story
    }
}

/// Where the binaries of this test run are: `target/PROFILE/deps` holds the test.
fn target() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(3);
    Ok(target
        .context("a test lies in target/PROFILE/deps")?
        .to_owned())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Packs the binaries of this run as images.
fn pack(target: &Path) -> Result<()> {
    let output = Command::new(repository().join(".ci/images"))
        .arg("dev")
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .output()
        .context(".ci/images starts")?;
    ensure!(
        output.status.success(),
        "images are packed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Objects are merged, everything else is replaced.
fn merge(into: &mut Value, own: &Value) {
    match (into, own) {
        (Value::Object(into), Value::Object(own)) => {
            for (key, value) in own {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, own) => *into = own.clone(),
    }
}
