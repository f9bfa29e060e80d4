// SPDX-License-Identifier: EUPL-1.2
//! Every store does what the trait says.

#[path = "store/binary.rs"]
mod binary;
#[path = "store/broken.rs"]
mod broken;
#[path = "store/conformance.rs"]
mod conformance;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/keyspace.rs"]
mod keyspace;
#[path = "store/memory.rs"]
mod memory;
#[path = "store/redis.rs"]
mod redis_store;
#[path = "store/same.rs"]
mod same;
#[path = "redis/mod.rs"]
mod servers;
