// SPDX-License-Identifier: EUPL-1.2
//! Reconciles Plenum's objects in a Kubernetes cluster.
