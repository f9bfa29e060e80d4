// SPDX-License-Identifier: EUPL-1.2
//! RTP and RTCP as bytes: views, builders, payload descriptors.

pub mod header;
pub mod payload;
pub mod rtcp;
pub mod twcc;
