// SPDX-License-Identifier: EUPL-1.2
//! What tests of the operator's controllers share: an API server, who the operator is there, and what it is told.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::cluster::{ApiServer, Identity};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use operator::context::Settings;
use tokio::time::sleep;

/// As whom the controllers speak.
pub(crate) const OPERATOR: Identity<'static> = Identity {
    user: "system:serviceaccount:plenum-system:plenum-operator",
    groups: &["system:masters"],
};

/// An API server and the test's own client, without retries of its own: an eviction that is refused is to be seen as refused. `None`
/// where the programs are missing and the test may be skipped.
pub(crate) async fn server() -> Result<Option<(ApiServer, Client)>> {
    let Some(server) = ApiServer::start_with_crds().await? else {
        return Ok(None);
    };
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig())?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    let client = Client::try_from(config)?;
    Ok(Some((server, client)))
}

/// What the operator is told at its start.
pub(crate) fn settings() -> Settings {
    Settings {
        namespace: "plenum-system".to_owned(),
        pod_name: "operator-0".to_owned(),
        site: "local".to_owned(),
        jurisdiction: String::new(),
        trust_domain: "plenum.test".to_owned(),
        control_plane: "plenum-control-plane-replicas.plenum-system.svc:7882".to_owned(),
        media_image: "registry.test/media-node:1".to_owned(),
        gateway_url: String::new(),
        gateway_dns: Vec::new(),
        issue_gateway_certificate: false,
        issue_control_plane_certificate: true,
        authority_spread: operator_core::rotation::SPREAD,
        cluster_domain: "cluster.local".to_owned(),
    }
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = Result<bool>>>(
    what: &str,
    holds: impl Fn() -> F,
) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(90);
    while !holds().await? {
        ensure!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
