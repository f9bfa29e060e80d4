// SPDX-License-Identifier: EUPL-1.2
//! Reconciles Plenum's objects in a Kubernetes cluster.
//!
//! [`run`] is the process: it watches ([`stores`]), plans ([`planner`]), takes the lease ([`lease`]) and, while it holds it, publishes to
//! the control plane ([`publish`]) and runs one controller per kind. What a controller needs is in the [`context`]; [`driver`] runs it.
//! Decisions are in `operator-core`, which does no I/O.

pub mod args;
pub mod authority;
pub mod backoff;
pub mod class;
pub mod client;
pub mod conference;
pub mod context;
pub mod driver;
pub mod endpoints;
pub mod events;
pub mod lease;
pub mod live;
pub mod maintenance;
pub mod media_node;
pub mod media_pool;
pub mod orders;
pub mod planner;
pub mod probes;
pub mod publish;
pub mod run;
pub mod secrets;
pub mod ssa;
pub mod stores;
pub mod telemetry;
pub mod tenant;
