// SPDX-License-Identifier: EUPL-1.2
//! A real Kubernetes for tests, without Docker and without downloads.
//!
//! [`ApiServer`] is what most tests of the operator need, and it is there in seconds: etcd, kube-apiserver with an audit log, and
//! kube-controller-manager, on free ports of loopback. The programs come out of a cache that `.ci/kubernetes` fills (`make kubernetes`).

mod api_server;
mod audit;
mod daemon;
mod folder;
mod pki;
mod programs;

pub use api_server::{ApiServer, Identity};
pub use audit::AuditEntry;
pub use programs::Programs;
