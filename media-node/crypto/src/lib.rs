// SPDX-License-Identifier: EUPL-1.2
//! Crypto backends of `media-core`, shared by the node, the load client and the simulation.
