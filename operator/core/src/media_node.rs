// SPDX-License-Identifier: EUPL-1.2
//! `MediaNode`: its pod, the addresses that are offered, and how it is emptied. Pure: what the API server and the control
//! plane show comes in with the moment, steps come out.

pub mod addresses;
pub mod drain;
pub mod pod;
pub mod status;
