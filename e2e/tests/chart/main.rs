// SPDX-License-Identifier: EUPL-1.2
//! What the chart renders: compared with goldens, judged by the rules it must keep, and tried on a real API server.

mod cases;
mod conform;
mod goldens;
mod monitoring;
mod network;
mod policies;
mod rbac;
mod rights;
mod server;
mod texts;
mod values;
