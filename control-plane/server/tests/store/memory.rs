// SPDX-License-Identifier: EUPL-1.2
//! The store in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use control_core::time::Moment;
use control_plane::store::memory::MemoryStore;

use crate::conformance::{self, Harness};

async fn harness() -> Harness {
    let millis = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&millis);
    let store = MemoryStore::new(Arc::new(move || {
        Moment::from_millis(clock.load(Ordering::Relaxed))
    }));
    Harness {
        store: Arc::new(store),
        advance: Box::new(move |span| {
            millis.fetch_add(
                u64::try_from(span.as_millis()).expect("short"),
                Ordering::Relaxed,
            );
        }),
        _kept: Box::new(()),
    }
}

conformance::suite!(harness);
