// SPDX-License-Identifier: EUPL-1.2
//! The least that Plenum's user needs in Redis.

use super::keys::Namespace;
use super::scripts;

/// Commands beside those of the scripts: running them, and finding one's way in a cluster.
const OWN: [&str; 5] = ["evalsha", "eval", "ping", "select", "cluster|slots"];

/// The rule, as `ACL SETUSER plenum …` and a line `user plenum …` of an ACL file take it; the password is to be added.
#[must_use]
pub fn rule(namespace: &Namespace) -> String {
    let mut parts = vec![
        "on".to_owned(),
        "resetchannels".to_owned(),
        "-@all".to_owned(),
    ];
    parts.extend(OWN.into_iter().map(|command| format!("+{command}")));
    parts.extend(
        scripts::commands()
            .into_iter()
            .map(|command| format!("+{command}")),
    );
    parts.extend(
        namespace
            .patterns()
            .into_iter()
            .map(|pattern| format!("~{pattern}")),
    );
    parts.join(" ")
}
