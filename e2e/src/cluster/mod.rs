// SPDX-License-Identifier: EUPL-1.2
//! A real Kubernetes for tests, without Docker and without downloads.
//!
//! [`ApiServer`] is what most tests of the operator need, and it is there in seconds: etcd, kube-apiserver with an audit log, and
//! kube-controller-manager, on free ports of loopback. [`Cluster`] adds a scheduler and two nodes with containers, in namespaces of
//! its own ([`in_cluster_namespace`]). The programs come out of a cache that `.ci/kubernetes` fills (`make kubernetes`).

mod api_server;
mod arguments;
mod audit;
pub(crate) mod daemon;
mod folder;
mod image;
mod inside;
mod node;
mod person;
mod pki;
mod programs;
mod whole;

pub use api_server::{ApiServer, Identity};
pub use audit::AuditEntry;
pub use image::PROBE;
pub use inside::in_cluster_namespace;
pub use node::Node;
pub use person::State;
pub use programs::Programs;
pub use whole::Cluster;
