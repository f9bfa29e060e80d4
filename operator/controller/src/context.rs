// SPDX-License-Identifier: EUPL-1.2
//! What every controller is given.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    authority::Authority, endpoints::Endpoints, events::Events, live::Live, orders::Orders,
    planner::Planned, stores::Stores, telemetry::Metrics,
};

/// What the process was told about its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of the operator itself.
    pub namespace: String,
    /// Name of the own pod; the identity in the lease.
    pub pod_name: String,
    /// Site that this cluster's nodes stand in.
    pub site: String,
    /// Jurisdiction of the site, ISO 3166; empty where none is declared.
    pub jurisdiction: String,
    /// Trust domain of the SPIFFE ids in certificates.
    pub trust_domain: String,
    /// Headless Service of the control plane's replicas, `host:port`.
    pub control_plane: String,
    /// Image of media pods.
    pub media_image: String,
    /// Where people reach the gateway, without a slash at the end; empty where it is not known.
    pub gateway_url: String,
    /// DNS names of the gateway's certificate.
    pub gateway_dns: Vec<String>,
    /// Whether the operator issues the gateway's certificate.
    pub issue_gateway_certificate: bool,
    /// Whether the operator issues the control plane's certificate.
    pub issue_control_plane_certificate: bool,
    /// How long an authority is trusted everywhere before it signs, and after it has signed last.
    pub authority_spread: Duration,
    /// Domain of the cluster's Services.
    pub cluster_domain: String,
}

/// What every controller is given.
pub struct Context {
    /// Client of the API server.
    pub client: kube::Client,
    /// Surroundings.
    pub settings: Settings,
    /// Objects as the watches show them.
    pub stores: Arc<Stores>,
    /// What is declared, as one plan, and what is wrong with it.
    pub planned: watch::Receiver<Arc<Planned>>,
    /// What the control plane reports.
    pub live: watch::Receiver<Arc<Live>>,
    /// Where media nodes are reached; the node controller writes it, the planner reads it.
    pub endpoints: Endpoints,
    /// Orders to the control plane.
    pub orders: Orders,
    /// The own issuer of certificates.
    pub authority: Authority,
    /// Events on objects.
    pub events: Events,
    /// Counters.
    pub metrics: Metrics,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Context {
    /// The moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// The moment as the API server writes it: whole seconds.
    #[must_use]
    pub fn time(&self) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
        let second = Timestamp::from_second(self.now().as_second());
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            second.unwrap_or(Timestamp::UNIX_EPOCH),
        )
    }
}
