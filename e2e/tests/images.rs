// SPDX-License-Identifier: EUPL-1.2
//! The images of the Containerfile, as `.ci/images dev` packs them for the test cluster: what is in them, who runs it, and that a
//! program finds its way by name from inside one.

use std::fs::{File, Permissions};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::system::{folder, is_inside, namespaced, program};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

/// Images of the product, with their programs.
const PRODUCT: [(&str, &str); 4] = [
    ("operator", "operator"),
    ("control-plane", "control-plane"),
    ("media-node", "media-node"),
    ("tools", "plenum"),
];
/// As the charts and the pods of media nodes have it.
const USER: &str = "65532:65532";
const LIVENESS: Duration = Duration::from_secs(60);
/// A name as charts write it, and what the cluster's name server knows it by.
const SERVICE: &str = "plenum-control-plane-replicas";
const ZONE: &str = "plenum-system.svc.cluster.local";

/// Nobody else packs meanwhile.
static PACKING: Mutex<()> = Mutex::new(());

/// Packs what this build made, and says where the archives lie.
fn pack() -> Result<PathBuf> {
    let profile = program("operator")?;
    let target = profile
        .parent()
        .and_then(Path::parent)
        .context("programs lie in target/debug")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/images");
    let status = Command::new(script)
        .arg("dev")
        .env("CARGO_TARGET_DIR", target)
        .status()?;
    ensure!(status.success(), ".ci/images dev: {status}");
    Ok(target.join("images"))
}

/// An archive, unpacked.
struct Image {
    folder: PathBuf,
    config: Value,
    layers: usize,
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Image {
    fn open(archive: &Path, name: &str) -> Result<Self> {
        let folder = folder(name);
        let layout = folder.join("layout");
        std::fs::create_dir_all(&layout)?;
        untar(archive, &layout)?;
        let blob = |digest: &Value| -> Result<PathBuf> {
            let digest = digest.as_str().context("a digest")?;
            Ok(layout.join("blobs").join(digest.replace(':', "/")))
        };
        let json =
            |path: PathBuf| -> Result<Value> { Ok(serde_json::from_reader(File::open(path)?)?) };
        let index = json(layout.join("index.json"))?;
        let manifest = json(blob(&index["manifests"][0]["digest"])?)?;
        let config = json(blob(&manifest["config"]["digest"])?)?;
        let layers = manifest["layers"].as_array().context("layers")?;
        let root = folder.join("root");
        std::fs::create_dir(&root)?;
        for layer in layers {
            untar(&blob(&layer["digest"])?, &root)?;
        }
        Ok(Self {
            folder,
            config,
            layers: layers.len(),
        })
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn label(&self, name: &str) -> &str {
        self.config["config"]["Labels"][name]
            .as_str()
            .unwrap_or_default()
    }

    /// The program as its user, with the image as its whole file system.
    fn run(&self) -> Result<Command> {
        let entry = self.config["config"]["Entrypoint"][0]
            .as_str()
            .context("an entry point")?;
        let mut command = Command::new("chroot");
        command
            .arg(format!("--userspec={USER}"))
            .arg(self.root())
            .arg(entry)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        Ok(command)
    }
}

fn untar(archive: &Path, into: &Path) -> Result<()> {
    let status = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(into)
        .args(["--same-owner", "--same-permissions"])
        .status()?;
    ensure!(status.success(), "tar -xf {}", archive.display());
    Ok(())
}

/// Files and folders below, each with its path from there.
fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(below)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            walk(root, &path, found)?;
        }
        found.push(path.strip_prefix(root)?.to_owned());
    }
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8(output.stdout)?;
    let digest = text.split_whitespace().next().context("a digest")?;
    Ok(format!("sha256:{digest}"))
}

#[test]
fn an_image_holds_one_program_a_user_without_rights_and_the_list_of_what_is_inside() -> Result<()> {
    let _alone = PACKING.lock();
    let archives = pack()?;
    for (image, name) in PRODUCT {
        let archive = archives.join(format!("plenum-{image}.tar"));
        let opened = Image::open(&archive, &format!("image-{image}"))?;
        let config = &opened.config["config"];
        assert_eq!(config["User"], USER, "{image}");
        assert_eq!(config["Entrypoint"][0], format!("/{name}"), "{image}");
        assert_eq!(opened.layers, 1, "{image}: nothing below it");
        assert_eq!(
            opened.label("org.opencontainers.image.title"),
            format!("plenum-{image}")
        );

        let sbom = opened.root().join("sbom.json");
        assert_eq!(
            opened.label("dev.plenum.sbom.digest"),
            sha256(&sbom)?,
            "{image}"
        );
        let list: Value = serde_json::from_reader(File::open(&sbom)?)?;
        assert_eq!(list["bomFormat"], "CycloneDX", "{image}");
        let components = list["components"].as_array().context("components")?;
        let has = |wanted: &str| components.iter().any(|one| one["name"] == wanted);
        assert!(has("tokio") && !has("proptest"), "{image}: what is linked");
        assert_eq!(has("livekit-client"), image == "control-plane", "the page");

        let mut files = Vec::new();
        walk(&opened.root(), &opened.root(), &mut files)?;
        for file in &files {
            let meta = std::fs::symlink_metadata(opened.root().join(file))?;
            let what = format!("{image}: {}", file.display());
            assert_eq!((meta.uid(), meta.gid()), (0, 0), "{what} is root's");
            assert!(
                meta.is_symlink() || meta.mode() & 0o7022 == 0,
                "{what} can be written by others, or lends rights: {:o}",
                meta.mode()
            );
            let program = meta.is_file() && meta.mode() & 0o111 != 0;
            let library = file.starts_with("lib") || file.starts_with("lib64");
            assert!(
                !program || library || file == Path::new(name),
                "{what} is a second program"
            );
        }
        let helped = opened.run()?.arg("--help").output()?;
        let said = String::from_utf8_lossy(&helped.stdout);
        assert!(
            helped.status.success() && said.contains("Usage:"),
            "{image}: {said}{}",
            String::from_utf8_lossy(&helped.stderr)
        );
    }
    Ok(())
}

#[test]
fn the_same_input_packs_to_the_same_bytes() -> Result<()> {
    let _alone = PACKING.lock();
    let archives = pack()?;
    let archive = archives.join("plenum-pause.tar");
    let before = sha256(&archive)?;
    std::fs::remove_file(&archive)?;
    pack()?;
    assert_eq!(sha256(&archive)?, before);
    Ok(())
}

#[test]
fn the_name_of_a_service_resolves_inside_an_image() -> Result<()> {
    let name = "the_name_of_a_service_resolves_inside_an_image";
    if !is_inside(name) {
        let _alone = PACKING.lock();
        pack()?;
        // A name server listens on port 53 there.
        let status = namespaced(name)?.status()?;
        ensure!(status.success(), "{status}");
        return Ok(());
    }
    let archives = program("operator")?
        .parent()
        .and_then(Path::parent)
        .context("programs lie in target/debug")?
        .join("images");
    let image = Image::open(&archives.join("plenum-media-node.tar"), "image-names")?;
    let etc = image.root().join("etc");
    // As the kubelet writes it.
    let resolver = format!(
        "search {ZONE} svc.cluster.local cluster.local\nnameserver 127.0.0.1\noptions ndots:5\n"
    );
    std::fs::write(etc.join("resolv.conf"), resolver)?;
    std::fs::write(etc.join("hosts"), "127.0.0.1 localhost\n")?;
    certificates(&image.root().join("tls"))?;
    let asked = serve_names(UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?);
    let replica = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = replica.local_addr()?.port();
    let node = Node(
        image
            .run()?
            .args(["--grpc-listen=127.0.0.1:0", "--tls-dir=/tls"])
            .args(["--node-uid=u-1", "--media-address=127.0.0.1"])
            .args(["--media-port=20000", "--log-format=json"])
            .arg(format!("--control-plane={SERVICE}:{port}"))
            .spawn()?,
    );
    let (connected, attached) = channel();
    std::thread::spawn(move || {
        let _ = connected.send(replica.accept().is_ok());
    });
    let attached = attached.recv_timeout(LIVENESS);
    let names: Vec<String> = asked.try_iter().collect();
    assert_eq!(
        attached,
        Ok(true),
        "the node dials the replica by its Service; asked were {names:?}"
    );
    assert!(
        names.contains(&format!("{SERVICE}.{ZONE}")),
        "through the search list: {names:?}"
    );
    drop(node);
    Ok(())
}

/// Gone with the test.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Any that are well-formed: nobody gets as far as showing them.
fn certificates(folder: &Path) -> Result<()> {
    std::fs::create_dir(folder)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["node".to_owned()])?.self_signed(&key)?;
    for (name, text) in [
        ("ca.crt", certificate.pem()),
        ("tls.crt", certificate.pem()),
        ("tls.key", key.serialize_pem()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o444))?;
    }
    Ok(())
}

/// Knows one name, and says of all others that there are none (RFC 1035 §4.1). Tells which names it was asked for.
fn serve_names(socket: UdpSocket) -> Receiver<String> {
    let (tell, asked) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let query = &bytes[..length];
            let Some((name, end)) = question(query) else {
                continue;
            };
            let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
            let known = name == format!("{SERVICE}.{ZONE}");
            let addressed = known && kind == 1;
            let _ = tell.send(name);
            // Answer, recursion available; 3: no such name. One question, at most one answer.
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, if known { 0x80 } else { 0x83 }]);
            answer.extend([0, 1, 0, u8::from(addressed), 0, 0, 0, 0]);
            answer.extend(&query[12..end]);
            if addressed {
                // The name of the question; A, IN, 5 s, four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    asked
}

/// The name asked for, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            let end = at + 4;
            return (end <= query.len()).then(|| (labels.join("."), end));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
}
