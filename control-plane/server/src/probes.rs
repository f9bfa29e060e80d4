// SPDX-License-Identifier: EUPL-1.2
//! What a replica says of itself to whoever runs it, from before its gateway listens until the process ends.

use std::sync::OnceLock;

use plenum_shell::probe::Source;

use crate::gateway::Gateway;
use crate::plane::Plane;

/// See the module.
pub struct Probes {
    plane: Plane,
    gateway: OnceLock<Gateway>,
}

impl Probes {
    /// Of a replica whose gateway does not listen yet.
    #[must_use]
    pub fn new(plane: Plane) -> Self {
        Self {
            plane,
            gateway: OnceLock::new(),
        }
    }

    /// It listens now.
    pub fn listens(&self, gateway: Gateway) {
        // There is one gateway; a second one would be the same.
        let _ = self.gateway.set(gateway);
    }
}

impl Source for Probes {
    /// That somebody answers shows that the runtime goes on; a task that ends unasked ends the process.
    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        match self.gateway.get() {
            Some(gateway) => gateway.ready().map_err(str::to_owned),
            None => Err("the gateway does not listen yet".to_owned()),
        }
    }

    fn metrics(&self) -> Option<String> {
        Some(self.plane.metrics().encode())
    }
}
