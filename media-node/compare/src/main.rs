// SPDX-License-Identifier: EUPL-1.2
//! The work of `cargo bench -p media-sim --bench forward` through libraries, without the sending system call: run here with
//! `cargo run --release`, from this folder. Compare with the lines of the sink `none`.

mod meter;
mod peers;
mod through_sfu;
mod through_str0m;

fn main() {
    meter::pin();
    println!(
        "forwarding a datagram of about 1200 bytes through libraries, one core, CPU time of the server's part, no sending"
    );
    through_str0m::run();
    through_sfu::run();
}
