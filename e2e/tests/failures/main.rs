// SPDX-License-Identifier: EUPL-1.2
//! Parts of the running system are taken away while people talk, and every missing frame is counted.
//!
//! Each case runs whole processes (`plenum up`, replicas of the control plane, media nodes, `redis-server`) in namespaces of its own.
//! They mostly wait, so several run at once. `PLENUM_LONG=1` lets an absence of the store last for ten minutes.

mod clock;
mod lab;
mod nodes;
mod replicas;
mod split;
mod store;

use std::fs::File;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::system::{is_inside, namespaced};
use libtest_mimic::{Arguments, Trial};

/// A case: its name as a claim, what runs inside the namespaces, and how many people are in it.
type Case = (&'static str, fn(&'static str) -> Result<()>, Crowded);

/// How much of a machine a case takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Crowded {
    /// A dozen people: several such cases run at once.
    Few,
    /// Sixty people: one such case at a time.
    Many,
}

use Crowded::{Few, Many};

/// In the order in which they begin: those with many people are spread over the others.
const CASES: &[Case] = &[
    (
        "rooms_of_a_killed_node_come_back_as_they_were",
        nodes::killed,
        Many,
    ),
    ("a_stopped_redis_costs_nothing", store::stopped, Few),
    ("a_paused_redis_costs_nothing", store::paused, Few),
    ("a_flushed_redis_costs_nothing", store::flushed, Few),
    (
        "nothing_taken_away_misses_nothing",
        replicas::undisturbed,
        Few,
    ),
    (
        "rooms_of_a_frozen_node_come_back_and_it_drops_what_it_lost",
        nodes::frozen,
        Many,
    ),
    (
        "a_killed_replica_costs_no_frame_and_everybody_resumes",
        replicas::one_killed,
        Few,
    ),
    (
        "a_replica_that_was_paused_believes_nobody_dead",
        replicas::one_paused,
        Few,
    ),
    (
        "rooms_of_a_node_that_is_cut_off_come_back_as_they_were",
        nodes::cut_off,
        Many,
    ),
    ("a_read_only_redis_costs_nothing", store::read_only, Few),
    ("a_full_redis_costs_nothing", store::full, Few),
    (
        "a_redis_that_fails_over_costs_nothing",
        store::failed_over,
        Few,
    ),
    (
        "rooms_of_a_node_that_starts_again_at_once_come_back_as_they_were",
        nodes::restarted,
        Many,
    ),
    (
        "thirty_seconds_without_replicas_cost_no_frame_and_everybody_resumes",
        replicas::all_away_page,
        Few,
    ),
    (
        "sdk_defaults_bridge_twenty_seconds_without_replicas",
        replicas::all_away_sdk,
        Few,
    ),
    (
        "a_node_that_dies_while_redis_is_away_leaves_no_room_twice",
        nodes::killed_without_store,
        Many,
    ),
    (
        "a_clock_that_jumps_by_an_hour_on_one_replica_changes_nothing",
        clock::jumps,
        Few,
    ),
    (
        "two_rooms_of_one_name_become_one_when_their_sides_hear_each_other",
        split::doubles,
        Few,
    ),
    (
        "five_seconds_without_a_word_between_nodes_and_replicas_move_nothing",
        nodes::glitch,
        Many,
    ),
    (
        "without_half_of_the_nodes_capacity_is_refused_honestly",
        nodes::half,
        Few,
    ),
];

/// Cases at once, unless `--test-threads` says otherwise: most of them mostly wait.
const AT_ONCE: usize = 6;
/// A case that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(300);
/// Held by the one case with many people.
static ROOM_FOR_MANY: Mutex<()> = Mutex::new(());

fn main() -> ExitCode {
    for (name, body, _) in CASES {
        if is_inside(name) {
            return match body(name) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    println!("{error:#}");
                    ExitCode::FAILURE
                }
            };
        }
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(AT_ONCE));
    let trials = CASES
        .iter()
        .map(|(name, _, crowded)| {
            Trial::test(*name, || {
                let _alone = (*crowded == Many)
                    .then(|| ROOM_FOR_MANY.lock().unwrap_or_else(PoisonError::into_inner));
                isolated(name).map_err(|error| format!("{error:#}").into())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs one case in namespaces of its own and shows its figures; everything it said if it fails.
fn isolated(name: &'static str) -> Result<()> {
    let path = std::env::temp_dir().join(format!("plenum-{name}-{}.log", std::process::id()));
    let log = File::create(&path)?;
    let mut child = namespaced(name)?
        .env("PLENUM_E2E_QUIET", "1")
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("unshare (util-linux) starts the test's namespaces")?;
    let end = Instant::now() + PATIENCE + lab::outage();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let said = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    clear(name)?;
    if status.is_some_and(|status| status.success()) {
        let figures: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("figure: "))
            .collect();
        println!("{}", figures.join("\n"));
        return Ok(());
    }
    bail!(
        "{said}\n{name} {} (it needs root, iproute2, nftables and redis-server)",
        if status.is_some() {
            "failed"
        } else {
            "did not end"
        }
    )
}

/// Removes the folders of a case. Its process id in there is not known here, and files that lay under others can be removed only now that
/// the namespaces are gone.
fn clear(name: &str) -> Result<()> {
    let folder = e2e::system::folder(name);
    let own = folder.file_name().and_then(|own| own.to_str());
    let Some((prefix, _)) = own.and_then(|own| own.rsplit_once('-')) else {
        return Ok(());
    };
    for entry in std::fs::read_dir(std::env::temp_dir())?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
