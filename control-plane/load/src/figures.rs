// SPDX-License-Identifier: EUPL-1.2
//! What a run found, as text for people and as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::PlanFigures;

/// How times spread, milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// Spread of times.
pub(crate) fn spread(times: &[Duration]) -> Spread {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| -> f64 {
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted
            .get(index)
            .map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    Spread {
        p50_ms: at(0.50),
        p99_ms: at(0.99),
        max_ms: at(1.0),
    }
}

/// The machine, so that figures can be compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) load: String,
}

/// Reports of nodes, with nothing else going on.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ReportFigures {
    /// Nodes attached.
    pub(crate) nodes: usize,
    /// CPU of one replica per second, milliseconds.
    pub(crate) replica_cpu_ms_per_s: f64,
    /// The same per 1,000 nodes.
    pub(crate) replica_cpu_ms_per_s_per_1000: f64,
    /// CPU of Redis per second, milliseconds.
    pub(crate) redis_cpu_ms_per_s: f64,
    /// Memory of one replica.
    pub(crate) replica_pss_bytes: u64,
}

/// Joins by WebSocket.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JoinFigures {
    pub(crate) joins: usize,
    pub(crate) rooms: usize,
    pub(crate) failed: usize,
    /// Took more than one try.
    pub(crate) tried_again: usize,
    pub(crate) at_a_time: usize,
    /// Joins per second of the whole machine, this program included.
    pub(crate) per_second: f64,
    /// CPU of all replicas per join, reports of nodes and restoring of records included.
    pub(crate) replica_cpu_micros: f64,
    /// The same without what the replicas use with nobody joining.
    pub(crate) replica_cpu_micros_above_idle: f64,
    pub(crate) per_cpu_second: f64,
    pub(crate) took: Spread,
    pub(crate) redis_cpu_micros: f64,
    /// Scripts per join, what goes on without joins taken out, as from the figures beside it.
    pub(crate) redis_scripts: f64,
    pub(crate) redis_bytes: f64,
}

/// Joins at half of what the machine takes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HalfLoad {
    pub(crate) per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) failed: usize,
    /// Took more than one try.
    pub(crate) tried_again: usize,
    pub(crate) took: Spread,
}

/// Open sessions.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SessionFigures {
    pub(crate) open: usize,
    pub(crate) failed: usize,
    /// Broken before the end of the run.
    pub(crate) broken: usize,
    /// Over TLS?
    pub(crate) tls: bool,
    /// Memory of all replicas per session.
    pub(crate) bytes: f64,
    /// CPU of all replicas for holding them, microseconds per session and second.
    pub(crate) cpu_micros_per_s: f64,
}

/// The key space.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct KeySpace {
    pub(crate) rooms: usize,
    pub(crate) participants: usize,
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_per_room: f64,
    pub(crate) bytes_per_participant: f64,
}

/// The floor under (b).
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FloorFigures {
    pub(crate) cpu_micros: f64,
    pub(crate) took: Spread,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) machine: Machine,
    pub(crate) store: String,
    pub(crate) replicas: usize,
    pub(crate) nodes: usize,
    pub(crate) reports: Vec<ReportFigures>,
    pub(crate) plan: Option<PlanFigures>,
    pub(crate) floor: FloorFigures,
    pub(crate) sessions: SessionFigures,
    pub(crate) joins: JoinFigures,
    pub(crate) half_load: HalfLoad,
    pub(crate) key_space: Option<KeySpace>,
    /// Memory of one replica at the end: rooms, nodes and sessions.
    pub(crate) replica_pss_bytes: u64,
}

const MB: f64 = 1_000_000.0;
const KB: f64 = 1_000.0;

impl Figures {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{} cores, load {}; store {}, {} replicas, {} nodes",
            self.machine.cores, self.machine.load, self.store, self.replicas, self.nodes
        )?;
        let mut row = |what: &str, figure: String, wanted: &str| {
            writeln!(out, "{what:<62} {figure:>26}  {wanted}")
        };
        for reports in &self.reports {
            row(
                &format!(
                    "reports of {} nodes, CPU of a replica per second",
                    reports.nodes
                ),
                format!("{:.1} ms", reports.replica_cpu_ms_per_s),
                "linear in nodes",
            )?;
            row(
                "  per 1,000 nodes; CPU of Redis per second",
                format!(
                    "{:.1} ms; {:.1} ms",
                    reports.replica_cpu_ms_per_s_per_1000, reports.redis_cpu_ms_per_s
                ),
                "",
            )?;
            row(
                "  memory of a replica",
                format!("{:.1} MB", reports.replica_pss_bytes as f64 / MB),
                "",
            )?;
        }
        if let Some(plan) = &self.plan {
            row(
                "(a) plan and store, joins per CPU-second",
                format!("{:.0}", plan.per_cpu_second),
                "at least 2,000",
            )?;
            row(
                "  CPU of a join; opens a room; finds one; token alone",
                format!(
                    "{:.0}; {:.0}; {:.0}; {:.0} us",
                    plan.cpu_micros,
                    plan.new_room_cpu_micros,
                    plan.running_room_cpu_micros,
                    plan.token_cpu_micros
                ),
                "",
            )?;
            row(
                "  alone, p50 and p99: opens a room; finds one",
                format!(
                    "{:.2}/{:.2}; {:.2}/{:.2} ms",
                    plan.new_room_alone.p50_ms,
                    plan.new_room_alone.p99_ms,
                    plan.running_room_alone.p50_ms,
                    plan.running_room_alone.p99_ms
                ),
                "",
            )?;
            if let (Some(cpu), Some(alone)) = (plan.bare_script_cpu_micros, &plan.bare_script_alone)
            {
                row(
                    "  floor: the smallest script, CPU; alone p50",
                    format!("{cpu:.0} us; {:.2} ms", alone.p50_ms),
                    "",
                )?;
                row(
                    "  Redis round trips: opens a room; finds one",
                    format!(
                        "{:.2}; {:.2}",
                        plan.new_room_round_trips, plan.running_room_round_trips
                    ),
                    "at most 4; at most 1",
                )?;
                row(
                    "  bytes to and from Redis: opens a room; finds one",
                    format!("{:.0}; {:.0}", plan.new_room_bytes, plan.running_room_bytes),
                    "",
                )?;
            }
        }
        row(
            &format!(
                "(b) upgrade to first frame, {} joins, {} rooms, CPU-second",
                self.joins.joins, self.joins.rooms
            ),
            format!("{:.0} per CPU-second", self.joins.per_cpu_second),
            "",
        )?;
        row(
            "  CPU of replicas per join; above idle; floor",
            format!(
                "{:.0}; {:.0}; {:.0} us",
                self.joins.replica_cpu_micros,
                self.joins.replica_cpu_micros_above_idle,
                self.floor.cpu_micros
            ),
            "",
        )?;
        row(
            "  joins per second of the machine; failed; tried again",
            format!(
                "{:.0}; {}; {}",
                self.joins.per_second, self.joins.failed, self.joins.tried_again
            ),
            "",
        )?;
        row(
            &format!(
                "  p50/p99/max, {} at a time; floor p50/p99",
                self.joins.at_a_time
            ),
            format!(
                "{:.1}/{:.1}/{:.1}; {:.1}/{:.1} ms",
                self.joins.took.p50_ms,
                self.joins.took.p99_ms,
                self.joins.took.max_ms,
                self.floor.took.p50_ms,
                self.floor.took.p99_ms
            ),
            "",
        )?;
        row(
            "  Redis per join above idle: scripts; bytes; CPU",
            format!(
                "{:.2}; {:.0}; {:.0} us",
                self.joins.redis_scripts, self.joins.redis_bytes, self.joins.redis_cpu_micros
            ),
            "at most 4",
        )?;
        row(
            &format!(
                "half load: {:.0} joins per second for {:.0} s, p50/p99/max",
                self.half_load.per_second, self.half_load.seconds
            ),
            format!(
                "{:.1}/{:.1}/{:.1} ms",
                self.half_load.took.p50_ms, self.half_load.took.p99_ms, self.half_load.took.max_ms
            ),
            "p99 at most 20 ms",
        )?;
        row(
            &format!(
                "{} open sessions{}, memory of replicas per session",
                self.sessions.open,
                if self.sessions.tls { " over TLS" } else { "" }
            ),
            format!("{:.1} kB", self.sessions.bytes / KB),
            "at most 32 kB",
        )?;
        row(
            "  CPU per 1,000 sessions and second; failed; broken later",
            format!(
                "{:.1} ms; {}; {}",
                self.sessions.cpu_micros_per_s, self.sessions.failed, self.sessions.broken
            ),
            "",
        )?;
        if let Some(keys) = &self.key_space {
            row(
                &format!(
                    "key space: {} rooms, {} participants",
                    keys.rooms, keys.participants
                ),
                format!("{} keys, {:.1} MB", keys.keys, keys.bytes as f64 / MB),
                "",
            )?;
            row(
                "  bytes per room; per participant",
                format!(
                    "{:.0}; {:.0}",
                    keys.bytes_per_room, keys.bytes_per_participant
                ),
                "",
            )?;
        }
        row(
            "memory of a replica at the end",
            format!("{:.1} MB", self.replica_pss_bytes as f64 / MB),
            "",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_a_hundred_times_is_read_by_rank() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let spread = spread(&times);
        assert_eq!(
            (spread.p50_ms, spread.p99_ms, spread.max_ms),
            (51.0, 100.0, 100.0)
        );
        assert_eq!(super::spread(&[]).max_ms, 0.0);
    }
}
