// SPDX-License-Identifier: EUPL-1.2
//! Compiles the .proto files with protox, so that no protoc is needed on the build machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["common", "directory", "node", "room"].map(|name| format!("plenum/v1/{name}.proto"));
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
