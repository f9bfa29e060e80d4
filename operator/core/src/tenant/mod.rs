// SPDX-License-Identifier: EUPL-1.2
//! A tenant in a cluster: its namespace and what stands in it, the Secrets made for it, its status, and how it leaves.

pub mod children;
pub mod leaving;
pub mod secrets;
pub mod status;

use std::collections::BTreeMap;

use plenum_api::names;

/// Name of the Secret with a tenant's link key, in its namespace.
pub const LINK_KEY_SECRET: &str = "plenum-link-key";
/// Key inside it.
pub const LINK_KEY: &str = "key";
/// ClusterRole of a tenant's administrators: Conferences in full, Secrets by name, nothing on pods. The chart brings it.
pub const CLUSTER_ROLE_ADMIN: &str = "plenum-tenant-admin";
/// ClusterRole of the operator in a tenant's namespace: its Secrets. The chart brings it, and lets the operator bind it.
pub const CLUSTER_ROLE_SECRETS: &str = "plenum-tenant-secrets";

/// Where the operator runs and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its own namespace.
    pub namespace: String,
    /// Its ServiceAccount.
    pub service_account: String,
}

/// Labels on everything made for a tenant.
#[must_use]
pub fn labels(tenant: &str) -> BTreeMap<String, String> {
    crate::labels::recommended("tenant", [(names::LABEL_TENANT, tenant)])
}
