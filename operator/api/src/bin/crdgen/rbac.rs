// SPDX-License-Identifier: EUPL-1.2
//! `docs/rbac.md`: what each role of the chart may do and which code needs it, read from the chart's templates as they stand.
//!
//! The templates are not rendered: rules have the same form in all of them, one member a line, and a comment above each.

use std::{fmt::Write as _, path::Path};

use crate::{WRITTEN, cell};

/// A role of the chart.
#[derive(Debug, Default, PartialEq)]
struct Role {
    kind: String,
    name: String,
    about: String,
    labels: Vec<String>,
    rules: Vec<Rule>,
}

/// A rule, and which code needs it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rule {
    why: String,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    verbs: Vec<String>,
}

/// The page.
pub(crate) fn page(folder: &Path) -> Result<String, String> {
    let shown = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(shown)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(shown)?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.sort();
    let mut text = format!(
        "{WRITTEN}# Who may do what\n\n\
        From `charts/plenum/templates/rbac`, the last column from the comment above each rule: the code that needs it. Nothing \
        but the operator's ServiceAccount gets a token that may write; control plane and media nodes get none at all.\n"
    );
    let mut found = 0;
    for file in files {
        let template = std::fs::read_to_string(&file).map_err(shown)?;
        for role in roles(&template) {
            found += 1;
            write_role(&mut text, &role);
        }
    }
    if found == 0 {
        return Err(format!("{}: no role found", folder.display()));
    }
    Ok(text)
}

fn write_role(text: &mut String, role: &Role) {
    let _ = write!(text, "\n## {} {}\n\n", role.kind, role.name);
    if !role.about.is_empty() {
        let _ = writeln!(text, "{}\n", role.about);
    }
    if !role.labels.is_empty() {
        let joined: Vec<String> = role.labels.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "Joins Kubernetes' own {}.\n", joined.join(", "));
    }
    text.push_str("| group | resources | verbs | needed by |\n|---|---|---|---|\n");
    for rule in &role.rules {
        let group: Vec<&str> = rule
            .groups
            .iter()
            .map(|group| if group.is_empty() { "core" } else { group })
            .collect();
        let mut resources = rule.resources.join(", ");
        if !rule.names.is_empty() {
            let _ = write!(resources, " (only {})", rule.names.join(", "));
        }
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            group.join(", "),
            cell(&resources),
            rule.verbs.join(", "),
            cell(&rule.why)
        );
    }
}

fn roles(template: &str) -> Vec<Role> {
    let about = about(template);
    template
        .split("\n---\n")
        .enumerate()
        .filter_map(|(at, document)| {
            let mut role = role(document)?;
            if at == 0 {
                role.about.clone_from(&about);
            }
            Some(role)
        })
        .collect()
}

/// The second comment of a template, which says what the file is about; the first is the licence.
fn about(template: &str) -> String {
    let comments = template.split("{{- /*").skip(1);
    let text = comments
        .filter_map(|rest| rest.split("*/").next())
        .map(str::trim)
        .find(|text| !text.starts_with("SPDX"))
        .unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn role(document: &str) -> Option<Role> {
    let mut role = Role::default();
    let (mut why, mut in_rules) = (String::new(), false);
    for line in document.lines() {
        if let Some(kind) = line.strip_prefix("kind: ") {
            kind.trim().clone_into(&mut role.kind);
        } else if let Some(name) = line
            .strip_prefix("  name: ")
            .filter(|_| role.name.is_empty())
        {
            name.trim().clone_into(&mut role.name);
        } else if let Some(label) = line
            .trim()
            .strip_prefix("rbac.authorization.k8s.io/aggregate-to-")
        {
            role.labels
                .push(label.split(':').next().unwrap_or(label).to_owned());
        } else if line == "rules:" {
            in_rules = true;
        } else if in_rules {
            let line = line.trim();
            if let Some(comment) = line.strip_prefix("# ") {
                if !why.is_empty() {
                    why.push(' ');
                }
                why.push_str(comment);
            } else if let Some(groups) = line.strip_prefix("- apiGroups: ") {
                role.rules.push(Rule {
                    why: std::mem::take(&mut why),
                    groups: list(groups),
                    ..Rule::default()
                });
            } else if let Some(rule) = role.rules.last_mut() {
                for (member, place) in [
                    ("resources: ", &mut rule.resources),
                    ("resourceNames: ", &mut rule.names),
                    ("verbs: ", &mut rule.verbs),
                ] {
                    if let Some(values) = line.strip_prefix(member) {
                        *place = list(values);
                    }
                }
            }
        }
    }
    (matches!(role.kind.as_str(), "Role" | "ClusterRole") && !role.rules.is_empty()).then_some(role)
}

/// `[a, b]`; what the chart fills in is shown by the name of the value.
fn list(text: &str) -> Vec<String> {
    text.trim()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .split(',')
        .map(|item| {
            let item = item.trim().trim_matches('"');
            match item.split("include \"plenum.").nth(1) {
                Some(rest) => format!("*{}*", rest.split('"').next().unwrap_or(rest)),
                None => item.to_owned(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_with_the_comment_above_them() {
        let template = "{{- /* SPDX-License-Identifier: EUPL-1.2 */ -}}\n{{- /* What it\n   is about. */ -}}\nkind: Role\nmetadata:\n  name: plenum-operator\n\
            rules:\n  # lease.rs: who of the replicas works\n  - apiGroups: [\"\", apps]\n    resources: [secrets]\n\
            \x20   resourceNames: [plenum-ca, {{ include \"plenum.gatewayTlsSecret\" . }}]\n    verbs: [get, patch]\n---\nkind: RoleBinding\nmetadata:\n  name: x\n";
        let found = roles(template);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].about, "What it is about.");
        assert_eq!(
            found[0].rules,
            [Rule {
                why: "lease.rs: who of the replicas works".to_owned(),
                groups: vec![String::new(), "apps".to_owned()],
                resources: vec!["secrets".to_owned()],
                names: vec!["plenum-ca".to_owned(), "*gatewayTlsSecret*".to_owned()],
                verbs: vec!["get".to_owned(), "patch".to_owned()],
            }]
        );
    }
}
