// SPDX-License-Identifier: EUPL-1.2
//! The gateway over real sockets: a whole control plane with its gRPC side, an operator that publishes, and a node that speaks
//! RoomHost by a script.

#[path = "gateway/door.rs"]
mod door;
#[path = "gateway/hostile.rs"]
mod hostile;
#[path = "gateway/http.rs"]
mod http;
#[path = "gateway/node.rs"]
mod node;
#[path = "gateway/orders.rs"]
mod orders;
#[path = "gateway/pages.rs"]
mod pages;
#[path = "gateway/quota.rs"]
mod quota;
#[path = "gateway/rtc.rs"]
mod rtc;
#[path = "gateway/twirp.rs"]
mod twirp;
#[path = "gateway/world.rs"]
mod world;
