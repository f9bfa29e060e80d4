// SPDX-License-Identifier: EUPL-1.2
//! The one image that the cluster itself needs: `e2e/kubernetes/probe`, which is the pause container of every pod and the program of
//! the cluster's own tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::inside::run;

/// Its name.
pub const PROBE: &str = "localhost/probe:dev";

/// Packs a program as an archive that `ctr images import` takes.
pub(crate) fn pack(program: &Path, folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("probe-image");
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(program, folder.join("probe"))?;
    let at = folder.to_str().context("the folder's path is UTF-8")?;
    let owned = ["--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"];
    run(
        "tar",
        &[
            &owned[..],
            &["-C", at, "-cf", &format!("{at}/layer.tar"), "probe"],
        ]
        .concat(),
    )?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/probe"], "User": "65532:65532" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&folder.join("layer.tar"))?)] },
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [PROBE], "Layers": ["layer.tar"] }]);
    std::fs::write(folder.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("probe.tar");
    run(
        "tar",
        &[
            "-C",
            at,
            "-cf",
            &format!("{at}/probe.tar"),
            "manifest.json",
            "config.json",
            "layer.tar",
        ],
    )?;
    Ok(archive)
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    ensure!(output.status.success(), "sha256sum {}", file.display());
    let text = String::from_utf8(output.stdout)?;
    let digest = text.split_whitespace().next();
    Ok(digest.context("sha256sum prints a digest")?.to_owned())
}
