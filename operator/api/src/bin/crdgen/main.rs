// SPDX-License-Identifier: EUPL-1.2
//! Writes what follows from the types: the resource definitions in `crds/`, one file per kind, and the reference tables in
//! `docs/`. `--check` compares instead and names what differs.

mod conditions;
mod rbac;
mod reference;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use plenum_api::{KINDS, schema::crd_yaml};

/// Head of every page that is written here.
const WRITTEN: &str = "<!-- Written by crdgen (`make crds`); do not edit. -->\n";

fn main() -> ExitCode {
    let (mut check, mut definitions, mut docs) = (false, true, true);
    let mut root = PathBuf::from(".");
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            "--docs" => definitions = false,
            "--crds" => docs = false,
            other if !other.starts_with('-') => root = PathBuf::from(other),
            _ => {
                eprintln!(
                    "usage: crdgen [--check] [--docs | --crds] [root of the repository, default .]"
                );
                return ExitCode::from(2);
            }
        }
    }
    let mut files = Vec::new();
    if definitions {
        let found = KINDS.iter().filter_map(|kind| crd_yaml(kind));
        files.extend(found.map(|(name, text)| (root.join("crds").join(name), text)));
    }
    if docs {
        files.push((root.join("docs/api-reference.md"), reference::page()));
        files.push((root.join("docs/conditions.md"), conditions::page()));
        match rbac::page(&root.join("charts/plenum/templates/rbac")) {
            Ok(text) => files.push((root.join("docs/rbac.md"), text)),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let mut failed = false;
    for (path, text) in &files {
        if let Err(error) = keep(path, text, check) {
            eprintln!("{}: {error}", path.display());
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn keep(path: &Path, text: &str, check: bool) -> Result<(), String> {
    let found = std::fs::read_to_string(path);
    match found {
        Ok(found) if found == text => Ok(()),
        Ok(_) if check => Err("differs from the types and the chart; run `make crds`".to_owned()),
        Err(error) if check => Err(error.to_string()),
        _ => path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(path, text))
            .map_err(|error| error.to_string()),
    }
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
