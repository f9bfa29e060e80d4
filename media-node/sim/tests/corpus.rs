// SPDX-License-Identifier: EUPL-1.2
//! What fuzzing found is replayed, and mutations of it are tried, on stable Rust. A failure names target, seed and round;
//! `PLENUM_FUZZ_SEED=…` repeats it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use media_sim::fuzz::{TARGETS, Target};
use media_sim::random::Random;

/// Kept inputs of a target, with its seeds.
fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let kept = files
        .into_iter()
        .map(|file| std::fs::read(&file).expect("a readable corpus file"));
    (target.seeds)().into_iter().chain(kept).collect()
}

fn mutated(random: &mut Random, inputs: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| inputs[random.below(inputs.len() as u64) as usize].clone();
    let mut input = pick(random);
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() as u64 + 1) as usize;
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next() as u8,
            2 => input.truncate(at),
            3 => input.insert(at, [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize]),
            4 => {
                let other = pick(random);
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() as u64 + 1) as usize..]);
            }
            _ => {
                let end = (at + random.below(32) as usize).min(input.len());
                let copy = input[at..end].to_vec();
                input.extend_from_slice(&copy);
            }
        }
        input.truncate(4096);
    }
    input
}

#[test]
fn the_corpus_and_mutations_of_it_break_no_parser() {
    let seed = std::env::var("PLENUM_FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    println!("seed {seed}");
    for target in &TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty());
        let mut random = Random::new(seed);
        // A whole shard takes milliseconds, a parser microseconds.
        let rounds = match target.name {
            "shard" => 60,
            "sctp" | "stun" => 400,
            _ => 20_000,
        };
        let tried = inputs
            .clone()
            .into_iter()
            .chain((0..rounds).map(|_| mutated(&mut random, &inputs)));
        for (round, input) in tried.enumerate() {
            let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
            assert!(
                outcome.is_ok(),
                "target {}, seed {seed}, round {round}: {input:02x?}",
                target.name
            );
        }
    }
}
