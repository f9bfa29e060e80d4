// SPDX-License-Identifier: EUPL-1.2
//! The command line.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use operator_core::rotation;
use plenum_shell::telemetry;

use crate::context::Settings;

/// Runs Plenum's objects in a Kubernetes cluster.
///
/// The API server is found by the ServiceAccount of the pod, or by KUBECONFIG.
#[derive(Clone, Debug, Parser)]
#[command(name = "operator", version)]
pub struct Args {
    /// Namespace of the operator; its lease and the CA are there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "plenum-system")]
    pub namespace: String,
    /// Name of the own pod.
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pub pod_name: String,
    /// Name of the site that this cluster is.
    #[arg(long, default_value = "default")]
    pub site: String,
    /// Jurisdiction of the site, an ISO 3166 code such as DE or DE-BY; empty where none is declared.
    #[arg(long, default_value = "")]
    pub jurisdiction: String,
    /// Trust domain of the SPIFFE ids in certificates.
    #[arg(long, default_value = "plenum.internal")]
    pub trust_domain: String,
    /// Headless Service of the control plane's replicas; it is resolved again and again.
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "plenum-control-plane-replicas:7882",
        value_parser = host_port
    )]
    pub control_plane: String,
    /// Image of media pods.
    #[arg(long, value_name = "IMAGE", default_value = "plenum-media-node")]
    pub media_image: String,
    /// Where people reach the gateway; links begin with it.
    #[arg(long, value_name = "URL", default_value = "")]
    pub gateway_url: String,
    /// Name or address in the gateway's certificate; may be given several times.
    #[arg(long = "gateway-dns", value_name = "NAME")]
    pub gateway_dns: Vec<String>,
    /// Issue the gateway's certificate and renew it.
    #[arg(long)]
    pub issue_gateway_certificate: bool,
    /// Leave the control plane's certificate for gRPC to others.
    #[arg(long)]
    pub foreign_control_plane_certificate: bool,
    /// How long a new certificate authority is only trusted before it signs, and the former one after that: longer than every part takes to
    /// read a Secret.
    #[arg(long, value_name = "SECONDS", default_value_t = rotation::SPREAD.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub authority_spread: u64,
    /// Domain of the cluster's Services.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where the kubelet asks for /livez and /readyz.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8081")]
    pub probe_listen: SocketAddr,
    /// Where Prometheus asks for /metrics.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:9090")]
    pub metrics_listen: SocketAddr,
    /// Log and traces.
    #[command(flatten)]
    pub telemetry: telemetry::Options,
}

impl Args {
    /// What controllers have to know of it.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            namespace: self.namespace.clone(),
            pod_name: self.pod_name.clone(),
            site: self.site.clone(),
            jurisdiction: self.jurisdiction.clone(),
            trust_domain: self.trust_domain.clone(),
            control_plane: self.control_plane.clone(),
            media_image: self.media_image.clone(),
            gateway_url: self.gateway_url.trim_end_matches('/').to_owned(),
            gateway_dns: self.gateway_dns.clone(),
            issue_gateway_certificate: self.issue_gateway_certificate,
            issue_control_plane_certificate: !self.foreign_control_plane_certificate,
            authority_spread: Duration::from_secs(self.authority_spread),
            cluster_domain: self.cluster_domain.clone(),
        }
    }
}

fn host_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("write HOST:PORT, such as plenum-control-plane-replicas:7882".to_owned()),
    }
}
