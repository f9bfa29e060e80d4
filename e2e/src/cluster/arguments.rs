// SPDX-License-Identifier: EUPL-1.2
//! What the API server and its controllers are told.

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::api_server::{Identity, write_kubeconfig};
use super::audit;
use super::pki::Pki;
use super::programs::Programs;

/// Services get their addresses here.
const SERVICES: &str = "10.96.0.0/16";
/// The first of them: the API server itself, as pods see it.
const SERVICES_FIRST: &str = "10.96.0.1";

pub(crate) fn api_command(
    programs: &Programs,
    pki: &Pki,
    folder: &Path,
    store: &str,
    address: SocketAddrV4,
) -> Result<Command> {
    let ip = address.ip().to_string();
    let serving = pki.issue(
        "kube-apiserver",
        "kube-apiserver",
        &[],
        &[
            "127.0.0.1",
            &ip,
            SERVICES_FIRST,
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ],
    )?;
    let kubelets = pki.issue("kubelet-client", "kubelet-client", &["system:masters"], &[])?;
    let accounts = pki.keys("service-accounts")?;
    let policy = folder.join("audit-policy.json");
    std::fs::write(&policy, audit::POLICY)?;
    let log = folder.join("audit.log");
    let authority = pki.authority();

    let mut command = programs.kubernetes("kube-apiserver")?;
    let everywhere = !address.ip().is_loopback();
    command
        .arg(format!("--etcd-servers={store}"))
        .arg(format!("--secure-port={}", address.port()))
        .arg(format!(
            "--bind-address={}",
            if everywhere { "0.0.0.0" } else { "127.0.0.1" }
        ))
        .arg(format!("--advertise-address={ip}"))
        // The Endpoints of `kubernetes` may not be on loopback; without pods nobody misses them.
        .arg(format!(
            "--endpoint-reconciler-type={}",
            if everywhere { "lease" } else { "none" }
        ))
        .arg(format!("--service-cluster-ip-range={SERVICES}"))
        .arg(format!("--tls-cert-file={}", serving.cert.display()))
        .arg(format!("--tls-private-key-file={}", serving.key.display()))
        .arg(format!("--client-ca-file={}", authority.cert.display()))
        .arg(format!(
            "--kubelet-certificate-authority={}",
            authority.cert.display()
        ))
        .arg(format!(
            "--kubelet-client-certificate={}",
            kubelets.cert.display()
        ))
        .arg(format!("--kubelet-client-key={}", kubelets.key.display()))
        // Else `logs` and `exec` try to resolve a node's name.
        .arg("--kubelet-preferred-address-types=InternalIP")
        .arg(format!(
            "--service-account-key-file={}",
            accounts.cert.display()
        ))
        .arg(format!(
            "--service-account-signing-key-file={}",
            accounts.key.display()
        ))
        .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
        .arg("--authorization-mode=Node,RBAC")
        .arg("--enable-admission-plugins=NodeRestriction")
        .arg("--allow-privileged=true")
        .arg(format!("--audit-policy-file={}", policy.display()))
        .arg(format!("--audit-log-path={}", log.display()));
    Ok(command)
}

pub(crate) fn controllers_command(
    programs: &Programs,
    pki: &Pki,
    folder: &Path,
    address: SocketAddrV4,
) -> Result<Command> {
    let identity = Identity {
        user: "system:kube-controller-manager",
        groups: &[],
    };
    let kubeconfig = write_kubeconfig(pki, folder, "kube-controller-manager", &identity, address)?;
    let authority = pki.authority();
    let mut command = programs.kubernetes("kube-controller-manager")?;
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg("--secure-port=0")
        .arg("--leader-elect=false")
        .arg("--use-service-account-credentials=true")
        // A quota that counts objects of a kind that is half a minute old is otherwise looked at again after five minutes, and until
        // then no such object is taken.
        .arg("--resource-quota-sync-period=5s")
        .arg(format!(
            "--service-account-private-key-file={}",
            folder.join("pki/service-accounts.key").display()
        ))
        .arg(format!("--root-ca-file={}", authority.cert.display()))
        .arg(format!(
            "--cluster-signing-cert-file={}",
            authority.cert.display()
        ))
        .arg(format!(
            "--cluster-signing-key-file={}",
            authority.key.display()
        ))
        .arg(format!("--service-cluster-ip-range={SERVICES}"));
    Ok(command)
}
