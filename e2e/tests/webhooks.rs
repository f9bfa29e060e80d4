// SPDX-License-Identifier: EUPL-1.2
//! A backend on LiveKit's own Go packages is told what happens in the rooms of its tenant: its verification accepts the signature, its
//! types the bodies, and the events are those that the life of a room consists of.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use e2e::system::{GATEWAY, Setup, System, in_namespace, is_inside};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Where the backend listens in the test's namespace.
const RECEIVER: &str = "127.0.0.1:9443";

#[test]
fn a_foreign_backend_verifies_and_understands_what_it_is_told() -> Result<()> {
    let name = "a_foreign_backend_verifies_and_understands_what_it_is_told";
    let program = backend()?;
    if !is_inside(name) {
        // Outside of the namespaces, where modules can be had.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        let built = Command::new("go")
            .args(["test", "-c", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(folder)
            .status()
            .context("Go builds the backend")?;
        if !built.success() {
            bail!("the backend does not build: {built}");
        }
    }
    in_namespace(name, || {
        let (ca, certificate, key) = identity()?;
        let setup = Setup {
            manifests: vec![("lab.yaml", lab(&ca)?)],
            ..Setup::default()
        };
        let system = System::start_with("webhooks", &setup)?;
        std::fs::write(system.folder().join("tls.crt"), certificate)?;
        std::fs::write(system.folder().join("tls.key"), key)?;
        let status = Command::new(&program)
            .args(["-test.v", "-test.run=^TestWebhooks$", "-test.timeout=150s"])
            .env("PLENUM_URL", format!("ws://{GATEWAY}"))
            .env("PLENUM_WEBHOOK_LISTEN", RECEIVER)
            .env("PLENUM_WEBHOOK_TLS", system.folder())
            .stdin(Stdio::null())
            .status()
            .context("the backend runs")?;
        if !status.success() {
            bail!(
                "the backend found something wrong ({status})\n{}",
                system.logs(60)
            );
        }
        system.stop()
    })
}

fn backend() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a test lies in a folder")?;
    Ok(folder.join("webhooks-backend.test"))
}

/// The quickstart's tenant `lab`, with a receiver.
fn lab(ca: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/quickstart/lab.yaml");
    let lab = std::fs::read_to_string(&file)?;
    let place = "  adHoc:\n";
    if !lab.contains(place) {
        bail!("{} has no adHoc to write webhooks before", file.display());
    }
    let webhooks = format!(
        "  webhooks:\n    - name: backend\n      url: https://{RECEIVER}/events\n      caSecretRef:\n        name: backend-ca\n"
    );
    let lab = lab.replacen(place, &format!("{webhooks}{place}"), 1);
    let ca: String = ca.lines().map(|line| format!("    {line}\n")).collect();
    Ok(format!(
        "{lab}---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: backend-ca\n  namespace: tenant-lab\nstringData:\n  ca.crt: |\n{ca}"
    ))
}

/// A CA, and certificate and key of the backend by it.
fn identity() -> Result<(String, String, String)> {
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = params.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    Ok((ca, certificate.pem(), key.serialize_pem()))
}
