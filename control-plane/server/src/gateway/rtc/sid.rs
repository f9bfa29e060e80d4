// SPDX-License-Identifier: EUPL-1.2
//! Participant SIDs: `PA_<site>_<node>_<random>`. The node in it is looked up, never dialled as an address.

/// Where a SID says its participant lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home<'a> {
    /// Data centre.
    pub(crate) site: &'a str,
    /// Short id of the node.
    pub(crate) node_id: &'a str,
}

/// Site and node of a participant SID.
pub(crate) fn parse(sid: &str) -> Option<Home<'_>> {
    let mut parts = sid.strip_prefix("PA_")?.split('_');
    let (site, node_id, random) = (parts.next()?, parts.next()?, parts.next()?);
    let complete =
        parts.next().is_none() && !site.is_empty() && !node_id.is_empty() && !random.is_empty();
    complete.then_some(Home { site, node_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sids_name_a_home() {
        assert_eq!(
            parse("PA_site-1_local2abc_x9"),
            Some(Home {
                site: "site-1",
                node_id: "local2abc"
            })
        );
        for wrong in [
            "",
            "PA_",
            "PA_a_b",
            "PA_a_b_",
            "PA__b_c",
            "PA_a__c",
            "PA_a_b_c_d",
            "RM_a_b_c",
            "PA_abc",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
