// SPDX-License-Identifier: EUPL-1.2
//! What is measured of the operator: from its own metrics, and from what the kernel says of its process.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};

/// How long passes took, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passes(BTreeMap<String, Vec<(f64, f64)>>);

impl Passes {
    /// From the text that Prometheus would read.
    pub(crate) fn of(text: &str) -> Self {
        let mut all = BTreeMap::<String, Vec<(f64, f64)>>::new();
        for line in text.lines() {
            let name = "plenum_operator_reconcile_duration_seconds_bucket{";
            let Some(rest) = line.strip_prefix(name) else {
                continue;
            };
            let label = |name: &str| {
                let (_, after) = rest.split_once(&format!("{name}=\""))?;
                Some(after.split_once('"')?.0)
            };
            let (Some(kind), Some(bound)) = (label("kind"), label("le")) else {
                continue;
            };
            let Some(count) = line.rsplit(' ').next().and_then(|count| count.parse().ok()) else {
                continue;
            };
            let bound = bound.parse().unwrap_or(f64::INFINITY);
            all.entry(kind.to_owned()).or_default().push((bound, count));
        }
        Self(all)
    }

    /// Those since an earlier moment.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut all = self.0.clone();
        for (kind, buckets) in &mut all {
            let earlier = before.0.get(kind).map_or(&[][..], Vec::as_slice);
            for ((_, count), (_, was)) in buckets.iter_mut().zip(earlier) {
                *count -= was;
            }
        }
        Self(all)
    }

    /// How many there were.
    pub(crate) fn count(&self) -> f64 {
        let last = self.0.values().filter_map(|buckets| buckets.last());
        last.map(|(_, count)| count).sum()
    }

    /// The bound of the bucket in which a share of all passes of every kind lies.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut joined = BTreeMap::<u64, f64>::new();
        for (bound, count) in self.0.values().flatten() {
            *joined.entry(bound.to_bits()).or_default() += count;
        }
        let wanted = self.count() * share;
        joined
            .iter()
            .find(|(_, count)| **count >= wanted)
            .map_or(f64::INFINITY, |(bound, _)| f64::from_bits(*bound))
    }

    /// One line per kind.
    pub(crate) fn table(&self) -> String {
        let line = |(kind, buckets): (&String, &Vec<(f64, f64)>)| {
            let all = buckets.last().map_or(0.0, |(_, count)| *count);
            let cells: Vec<String> = buckets
                .iter()
                .map(|(bound, count)| format!("≤{bound}s {:.2} %", 100.0 * count / all.max(1.0)))
                .collect();
            format!("  {kind}: {all} passes, {}\n", cells.join(", "))
        };
        self.0.iter().map(line).collect()
    }
}

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident now, MiB.
    pub(crate) resident: f64,
    /// Most that was ever resident, MiB.
    pub(crate) most: f64,
    /// Time on a processor, seconds.
    pub(crate) cpu: f64,
}

impl Usage {
    /// Of a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
            Some(kib / 1024.0)
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("a state")?;
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum();
        Ok(Self {
            resident: mib("VmRSS:").context("a size")?,
            most: mib("VmHWM:").context("a size")?,
            // A hundred ticks a second on every Linux.
            cpu: ticks / 100.0,
        })
    }
}

#[test]
fn a_quantile_is_the_bound_of_its_bucket() {
    let text = "plenum_operator_reconcile_duration_seconds_bucket{le=\"0.1\",kind=\"A\"} 98\n\
        plenum_operator_reconcile_duration_seconds_bucket{le=\"0.5\",kind=\"A\"} 100\n\
        plenum_operator_reconcile_duration_seconds_bucket{le=\"+Inf\",kind=\"A\"} 100\n\
        plenum_operator_reconcile_duration_seconds_bucket{le=\"0.1\",kind=\"B\"} 100\n\
        plenum_operator_reconcile_duration_seconds_bucket{le=\"0.5\",kind=\"B\"} 100\n\
        plenum_operator_reconcile_duration_seconds_bucket{le=\"+Inf\",kind=\"B\"} 100\n";
    let passes = Passes::of(text);
    assert!((passes.count() - 200.0).abs() < 0.1);
    assert!((passes.quantile(0.99) - 0.1).abs() < 1e-9);
    assert!((passes.quantile(0.995) - 0.5).abs() < 1e-9);
    assert!(passes.since(&passes).count().abs() < 0.1);
}
