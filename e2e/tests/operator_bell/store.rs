// SPDX-License-Identifier: EUPL-1.2
//! Who holds connections to Redis: the control plane does, the operator never.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::processes::Process;

const REDIS: u16 = 6379;

/// Ports of the other ends of a program's connections, in all pods that run it.
fn connected_to(program: &str) -> Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    let processes = Process::all(program);
    ensure!(!processes.is_empty(), "{program} runs");
    for process in processes {
        for table in ["tcp", "tcp6"] {
            // A pod has a network of its own, and one that has just gone has none.
            let table = format!("/proc/{}/net/{table}", process.pid);
            let table = std::fs::read_to_string(table).unwrap_or_default();
            ports.extend(table.lines().skip(1).filter_map(other_end));
        }
    }
    Ok(ports)
}

/// Of a line of the kernel's table: `sl local remote state …`, addresses in hexadecimal.
fn other_end(line: &str) -> Option<u16> {
    let (_, port) = line.split_whitespace().nth(2)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok().filter(|port| *port != 0)
}

pub(crate) fn only_the_control_plane_knows_it() -> Result<()> {
    let control_plane = connected_to("control-plane")?;
    ensure!(
        control_plane.contains(&REDIS),
        "the control plane has no connection to Redis, so nothing is seen here: {control_plane:?}"
    );
    let operator = connected_to("operator")?;
    ensure!(
        !operator.is_empty() && !operator.contains(&REDIS),
        "the operator is connected to these ports: {operator:?}"
    );
    Ok(())
}
