// SPDX-License-Identifier: EUPL-1.2
//! Rust alone builds: without a built web client an empty folder is embedded, and the server says how to build it.

fn main() -> std::io::Result<()> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .ok_or_else(|| std::io::Error::other("cargo sets CARGO_MANIFEST_DIR"))?;
    let dist = std::path::Path::new(&manifest).join("../web/dist");
    std::fs::create_dir_all(&dist)?;
    println!("cargo::rerun-if-changed=../web/dist");
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
