// SPDX-License-Identifier: EUPL-1.2
//! Declared conferences: password, publication, status.

use std::sync::Arc;

use crate::context::Context;

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    drop(context);
    std::future::pending::<()>().await;
}
