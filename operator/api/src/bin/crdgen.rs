// SPDX-License-Identifier: EUPL-1.2
//! Writes the resource definitions into `crds/`, one file per kind; `--check` compares instead and names what differs.

use std::{path::PathBuf, process::ExitCode};

use plenum_api::{KINDS, schema::crd_yaml};

fn main() -> ExitCode {
    let mut check = false;
    let mut folder = PathBuf::from("crds");
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            other if !other.starts_with('-') => folder = PathBuf::from(other),
            _ => {
                eprintln!("usage: crdgen [--check] [folder, default crds]");
                return ExitCode::from(2);
            }
        }
    }
    let mut failed = false;
    for kind in KINDS {
        let Some((name, text)) = crd_yaml(kind) else {
            continue;
        };
        let path = folder.join(name);
        if check {
            match std::fs::read_to_string(&path) {
                Ok(found) if found == text => {}
                Ok(_) => {
                    eprintln!("{} differs from the types; run crdgen", path.display());
                    failed = true;
                }
                Err(error) => {
                    eprintln!("{}: {error}", path.display());
                    failed = true;
                }
            }
        } else if let Err(error) =
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text))
        {
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
