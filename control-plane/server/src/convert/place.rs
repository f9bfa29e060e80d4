// SPDX-License-Identifier: EUPL-1.2
//! Where rooms may run and how they are laid out, from the wire.

use control_core::ids::{Jurisdiction, Site};
use control_core::limits;
use control_core::placement::Strategy;
use control_core::record::Residency;
use plenum_proto::v1::conference_record::Topology;

use super::{ConvertError, Result, bounded, id};

pub(super) fn sites(field: &'static str, names: &[String]) -> Result<Vec<Site>> {
    bounded(field, names.len(), limits::SITES_MAX)?;
    names
        .iter()
        .map(|name| id(field, Site::parse(name)))
        .collect()
}

pub(super) fn residency(
    allowed: &[String],
    preferred: &[String],
    codes: &[String],
) -> Result<Residency> {
    bounded("jurisdictions", codes.len(), limits::JURISDICTIONS_MAX)?;
    let jurisdictions: Result<Vec<Jurisdiction>> = codes
        .iter()
        .map(|code| id("jurisdictions", Jurisdiction::parse(code)))
        .collect();
    let residency = Residency {
        sites: sites("sites_allowed", allowed)?,
        preferred: sites("sites_preferred", preferred)?,
        jurisdictions: jurisdictions?,
    };
    let stray = |site: &Site| !residency.sites.contains(site);
    if !residency.sites.is_empty() && residency.preferred.iter().any(stray) {
        return Err(ConvertError::Value {
            field: "sites_preferred",
            rule: "a preferred site is an allowed one",
        });
    }
    Ok(residency)
}

pub(super) fn strategy(topology: i32) -> Result<Strategy> {
    match Topology::try_from(topology) {
        Ok(Topology::Unspecified) => Ok(Strategy::default()),
        Ok(Topology::Spread) => Ok(Strategy::Spread),
        Ok(Topology::Pack) => Ok(Strategy::Pack),
        Err(_) => Err(ConvertError::Value {
            field: "topology",
            rule: "a room is laid out SPREAD or PACK",
        }),
    }
}
