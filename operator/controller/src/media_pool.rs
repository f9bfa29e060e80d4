// SPDX-License-Identifier: EUPL-1.2
//! Pools: how many media nodes there are, and of which revision.

use std::sync::Arc;

use crate::context::Context;

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    drop(context);
    std::future::pending::<()>().await;
}
