// SPDX-License-Identifier: EUPL-1.2
//! `MaintenanceWindow`: a schedule that takes place, and pools that are there.

use plenum_api::{MaintenanceWindow, Reason, maintenance_window::MaintenanceWindowSpec};

use super::{Found, check_schedule, one_of};
use crate::objects::{Name, Objects};

pub(super) fn validate(
    objects: &Objects,
    name: &str,
    window: &MaintenanceWindow,
    found: &mut Found,
) {
    let MaintenanceWindowSpec {
        schedule,
        action: _,
        reason: _,
        selector,
        announce_before: _,
        override_: _,
        max_concurrent_nodes: _,
        suspended: _,
    } = &window.spec;
    let name = Name::new("", name);
    check_schedule(
        schedule,
        "/spec/schedule",
        &mut found.errors_of("MaintenanceWindow", &name),
    );
    // A window may be declared before its pool is, and outlive it.
    let mut warnings = found.warnings_of("MaintenanceWindow", &name);
    for (index, pool) in selector.pools.iter().enumerate() {
        let wanted = Name::new(&*pool.namespace, &*pool.name);
        if objects.pools.contains_key(&wanted)
            || objects.is_unreadable("MediaPool", &pool.namespace, &pool.name)
        {
            continue;
        }
        let known: Vec<String> = objects.pools.keys().map(Name::to_string).collect();
        warnings.add(
            format!("/spec/selector/pools/{index}"),
            Reason::PoolNotFound,
            format!("there is no MediaPool `{wanted}`"),
            one_of(
                known.iter().map(String::as_str),
                "declare a MediaPool of this name",
            ),
        );
    }
}
