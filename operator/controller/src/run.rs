// SPDX-License-Identifier: EUPL-1.2
//! The process as a whole.

use std::sync::Arc;

use crate::{class, conference, context::Context, maintenance, media_node, media_pool, tenant};

/// Runs the controllers of all kinds. Dropping the future stops them.
pub async fn controllers(context: Arc<Context>) {
    tokio::join!(
        tenant::run(Arc::clone(&context)),
        class::run(Arc::clone(&context)),
        conference::run(Arc::clone(&context)),
        media_pool::run(Arc::clone(&context)),
        media_node::run(Arc::clone(&context)),
        maintenance::run(context),
    );
}
