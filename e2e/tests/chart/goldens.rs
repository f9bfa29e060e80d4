// SPDX-License-Identifier: EUPL-1.2
//! Every profile renders as its golden says.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use e2e::chart::{self, Document, Helm, PROFILES};

/// What changes with each render, taken out: keys that are made, and dashboards, which are files of the chart anyway.
pub(crate) fn stable(document: &Document) -> String {
    let made = document.kind() == "Secret";
    let mut in_data = false;
    let mut lines = Vec::new();
    for line in document.text.lines() {
        in_data = (in_data && line.starts_with(' ')) || line == "data:";
        match line.split_once(": ") {
            Some((key, _)) if made && in_data && !key.trim_start().starts_with('#') => {
                lines.push(format!("{key}: <made>"));
            }
            _ => lines.push(line.trim_end().to_owned()),
        }
        if line.ends_with(".json: |-") {
            lines.push("    <file>".to_owned());
            break;
        }
    }
    let text = lines.join("\n");
    text.trim_matches('\n').to_owned()
}

#[test]
fn every_profile_renders_as_its_golden() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let mut default = BTreeMap::new();
    for profile in ["default"].into_iter().chain(PROFILES) {
        let rendered = chart::documents(&helm.profile(profile)?)?;
        let mut golden = format!(
            "# SPDX-License-Identifier: EUPL-1.2\n# Profile {profile}, as rendered; written by the test.\n"
        );
        for document in &rendered {
            let (id, text) = (document.id(), stable(document));
            if default.get(&id) == Some(&text) {
                golden.push_str(&format!("---\n# as in default: {id}\n"));
                continue;
            }
            golden.push_str(&format!("---\n{text}\n"));
            if profile == "default" {
                ensure!(
                    default.insert(id.clone(), text).is_none(),
                    "{id} is rendered twice"
                );
            }
        }
        chart::same_as_file(&format!("tests/golden/{profile}.yaml"), &golden)?;
    }
    Ok(())
}

#[test]
fn keys_are_raw_random_bytes_and_new_ones_each_time() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let key = || -> Result<String> {
        let all = chart::documents(&helm.profile("default")?)?;
        let secrets = chart::of_kind(&all, "Secret");
        let key = secrets["plenum-seal-key"].text_at("/data/key");
        Ok(key.unwrap_or_default().to_owned())
    };
    let (first, second) = (key()?, key()?);
    // 32 bytes are 44 characters of base64, of which one is padding.
    ensure!(first.len() == 44 && first.ends_with('='), "{first}");
    ensure!(first != second);
    Ok(())
}

#[test]
fn kinds_are_templates_that_stay_unless_told_otherwise() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let written = std::fs::read_dir(chart::folder().join("../../crds"))?.count();
    let keep = "/metadata/annotations/helm.sh~1resource-policy";
    for (args, kept) in [(&[][..], true), (&["--set", "crds.keep=false"][..], false)] {
        let all = chart::documents(&helm.render(args)?)?;
        let kinds = chart::of_kind(&all, "CustomResourceDefinition");
        ensure!(kinds.len() == written, "{:?}", kinds.keys());
        for (name, kind) in kinds {
            ensure!((kind.text_at(keep) == Some("keep")) == kept, "{name}");
        }
    }
    let all = chart::documents(&helm.profile("default")?)?;
    ensure!(chart::of_kind(&all, "CustomResourceDefinition").is_empty());
    Ok(())
}

#[test]
fn images_come_from_one_registry_and_by_digest_where_one_is_set() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let digest = format!("sha256:{}", "a".repeat(64));
    let set = format!("images.operator.digest={digest}");
    let rendered = helm.render(&[
        "--set",
        "global.imageRegistry=registry.example/x/",
        "--set",
        &set,
    ])?;
    let mut seen = 0;
    for line in rendered.lines().map(str::trim_start) {
        let Some(image) = line.strip_prefix("image: ") else {
            continue;
        };
        ensure!(image.starts_with("registry.example/x/"), "{image}");
        if image.contains("plenum-operator") {
            ensure!(
                image == format!("registry.example/x/plenum-operator@{digest}"),
                "{image}"
            );
        }
        seen += 1;
    }
    ensure!(
        seen == 4,
        "operator, control plane, Redis and the test: {seen}"
    );
    ensure!(rendered.contains("--media-image=registry.example/x/plenum-media-node:"));
    Ok(())
}
