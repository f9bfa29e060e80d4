// SPDX-License-Identifier: EUPL-1.2
//! The whole of it on a real cluster: Helm installs the chart, `kubectl apply` declares the example of the documentation, and people
//! outside of the pods' network meet through a port of a node and a media node's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use e2e::chart::{self, Helm};
use e2e::cluster::{Cluster, Programs, in_cluster_namespace};
use e2e::system::is_inside;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use plenum_load::crowd::{Crowd, Shape};
use plenum_load::person::record::{Kind, Millis};
use plenum_load::person::retry::Policy;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const NAME: &str = "an_installed_chart_carries_the_declared_conference";
/// The gateway's port of the nodes.
const NODE_PORT: u16 = 30443;
/// As the chart's own images, which the test has packed.
const IMAGES: [&str; 4] = ["operator", "control-plane", "media-node", "tools"];
/// Key of the example's tenant.
const KEY: (&str, &str) = ("city", "an-example-secret-change-it-before-use");
/// Its conference.
const CONFERENCE: &str = "council";
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn an_installed_chart_carries_the_declared_conference() -> Result<()> {
    if Programs::find(&["kubernetes", "etcd", "coredns", "probe", "helm"])?.is_none() {
        return Ok(());
    }
    let target = target()?;
    if !is_inside(NAME) {
        pack(&target)?;
    }
    in_cluster_namespace(NAME, || {
        tokio::runtime::Runtime::new()?.block_on(async {
            let Some(cluster) = Cluster::start().await? else {
                return Ok(());
            };
            let done = installed(&cluster, &target).await;
            if let Err(error) = done {
                bail!("{error:#}\n{}", story(&cluster).await);
            }
            Ok(())
        })
    })
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

async fn installed(cluster: &Cluster, target: &Path) -> Result<()> {
    for image in IMAGES {
        cluster.import(&target.join(format!("images/plenum-{image}.tar")))?;
    }
    install(cluster)?;
    kubectl(
        cluster,
        "-n plenum-system wait deployment --all --for=condition=Available --timeout=180s",
    )
    .await?;
    println!("the chart is installed and available");

    declare(cluster).await?;
    for (what, namespace) in [
        ("conferenceclass/meeting", None),
        ("tenant/city", None),
        ("mediapool/city", Some("media")),
        ("conference/council", Some("tenant-city")),
    ] {
        let namespace = namespace.map_or_else(String::new, |name| format!("-n {name} "));
        kubectl(
            cluster,
            &format!("{namespace}wait {what} --for=condition=Ready --timeout=180s"),
        )
        .await?;
    }
    kubectl(
        cluster,
        "-n media wait medianodes --all --for=condition=Accepting --timeout=180s",
    )
    .await?;
    println!("{}", kubectl(cluster, "get plenum -A -o wide").await?);
    people_meet(cluster).await
}

fn install(cluster: &Cluster) -> Result<()> {
    let helm = Helm::find()?.context("helm was found a moment ago")?;
    let gateway = format!("https://{}:{NODE_PORT}", cluster.nodes()[0].address());
    let image = json!({ "tag": "dev" });
    let values = json!({
        "images": { "operator": image, "controlPlane": image, "mediaNode": image, "tools": image },
        "operator": { "resources": { "requests": { "cpu": "50m" } } },
        "controlPlane": { "replicas": 1, "resources": { "requests": { "cpu": "50m" } } },
        "store": "Memory",
        "redis": { "demonstration": { "enabled": false } },
        "gateway": {
            "publicUrl": gateway,
            "service": { "type": "NodePort", "nodePort": NODE_PORT, "externalTrafficPolicy": "Cluster" },
        },
    });
    let file = cluster.folder().join("values.json");
    std::fs::write(&file, values.to_string())?;
    let output = helm
        .command(&["install", "plenum"])
        .arg(chart::folder())
        .args(["--namespace", chart::NAMESPACE, "--create-namespace"])
        .arg("--values")
        .arg(&file)
        .arg("--kubeconfig")
        .arg(cluster.api().kubeconfig())
        .output()
        .context("helm starts")?;
    ensure!(
        output.status.success(),
        "helm install: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Declares the example of the documentation, with requests that fit into a test's machine.
async fn declare(cluster: &Cluster) -> Result<()> {
    for file in ["1-platform.yaml", "2-tenant.yaml", "3-maintenance.yaml"] {
        let text = std::fs::read_to_string(repository().join("docs/examples/cluster").join(file))?;
        let own = cluster.folder().join(file);
        std::fs::write(&own, text.replace("cpu: \"2\"", "cpu: 50m"))?;
        if file == "2-tenant.yaml" {
            kubectl(
                cluster,
                "wait tenant/city --for=condition=NamespaceReady --timeout=60s",
            )
            .await?;
        }
        let end = Instant::now() + PATIENCE;
        let apply = format!("apply --server-side -f {}", own.display());
        while let Err(error) = kubectl(cluster, &apply).await {
            // The quota of a namespace that is seconds old has not been counted yet; the API server says to come back.
            let known = format!("{error:#}").contains("status unknown for quota");
            if !known || Instant::now() > end {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

/// Three people join the declared conference from outside of the pods' network and get each other's media.
async fn people_meet(cluster: &Cluster) -> Result<()> {
    let node = cluster.nodes()[0].address();
    let gateway = format!("ws://{}", plain(cluster, node).await?);
    let shape = Shape {
        rooms: 1,
        people: 3,
        cameras: 2,
        microphones: 1,
        picture_bytes: 700,
        policy: Policy::Page,
        // Where the cluster's network and the machine meet.
        address: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
    };
    let mut crowd = Crowd::new();
    let gateways = [gateway];
    // Who opens comes first; until then the door is shut.
    let opener = token("opener")?;
    crowd.enter(CONFERENCE, "opener", opener, Vec::new(), &shape, &gateways);
    let without = crowd.until_flowing(PATIENCE).await;
    ensure!(
        without.is_empty(),
        "{without:?}\n{}",
        crowd.story(Millis(0))
    );
    for (identity, publishes) in [
        ("camera", vec![Kind::Audio, Kind::Video]),
        ("microphone", vec![Kind::Audio]),
    ] {
        let token = token(identity)?;
        crowd.enter(CONFERENCE, identity, token, publishes, &shape, &gateways);
    }
    let without = crowd.until_flowing(PATIENCE).await;
    ensure!(
        without.is_empty(),
        "{without:?}\n{}",
        crowd.story(Millis(0))
    );
    println!("three people get each other's media");
    crowd.leave().await;
    Ok(())
}

/// Everybody moderates: others would enter a meeting muted.
fn token(identity: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({
        "iss": KEY.0, "sub": identity, "name": identity, "nbf": now - 5, "exp": now + 3600,
        "video": { "roomJoin": true, "room": CONFERENCE, "roomAdmin": true },
    });
    let secret = jsonwebtoken::EncodingKey::from_secret(KEY.1.as_bytes());
    let header = jsonwebtoken::Header::default();
    Ok(jsonwebtoken::encode(&header, &claims, &secret)?)
}

/// The load client speaks no TLS: a port of loopback that leads to the gateway, whose certificate is checked against the
/// installation's own authority.
async fn plain(cluster: &Cluster, node: Ipv4Addr) -> Result<SocketAddr> {
    let secrets = Api::<Secret>::namespaced(cluster.client(), chart::NAMESPACE);
    let secret = secrets.get("plenum-gateway-tls").await?;
    let data = secret.data.unwrap_or_default();
    let authority = data
        .get("ca.crt")
        .context("the Secret names its authority")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&authority.0) {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut person, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                let name = ServerName::from(IpAddr::V4(node));
                let Ok(gateway) = TcpStream::connect((node, NODE_PORT)).await else {
                    return;
                };
                match connector.connect(name, gateway).await {
                    Ok(mut gateway) => {
                        let _ = tokio::io::copy_bidirectional(&mut person, &mut gateway).await;
                    }
                    Err(error) => eprintln!("the gateway's certificate: {error}"),
                }
            });
        }
    });
    Ok(address)
}

async fn kubectl(cluster: &Cluster, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    cluster.api().kubectl(&words).await
}

/// What a reader of a failure wants to know.
async fn story(cluster: &Cluster) -> String {
    let mut story = String::new();
    for line in [
        "get pods -A -o wide",
        "get plenum -A -o wide",
        "-n plenum-system logs --tail=25 --prefix -l app.kubernetes.io/part-of=plenum",
        "-n media logs --tail=15 --prefix -l app.kubernetes.io/part-of=plenum",
        "-n media describe pods,medianodes",
        "-n tenant-city describe conferences",
    ] {
        let said = kubectl(cluster, line).await;
        story.push_str(&said.unwrap_or_else(|error| format!("{error:#}")));
        story.push('\n');
    }
    story
}
