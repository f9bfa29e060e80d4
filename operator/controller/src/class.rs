// SPDX-License-Identifier: EUPL-1.2
//! Classes of conferences: their revision, and who refers to them.

use std::sync::Arc;

use crate::context::Context;

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    drop(context);
    std::future::pending::<()>().await;
}
