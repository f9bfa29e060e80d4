// SPDX-License-Identifier: EUPL-1.2
//! Every store does what the trait says.

#[path = "store/conformance.rs"]
mod conformance;
#[path = "store/memory.rs"]
mod memory;
#[path = "store/redis.rs"]
mod redis_store;
#[path = "redis/mod.rs"]
mod servers;
