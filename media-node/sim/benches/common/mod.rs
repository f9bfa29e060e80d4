// SPDX-License-Identifier: EUPL-1.2
//! What the benches share: CPU time of this thread, an allocator that counts, one core, an own network namespace.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

/// Counts allocations and live bytes of the running thread.
struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one only counts"
)]
// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        LIVE.with(|live| live.set(live.get() + layout.size() as i64));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.with(|live| live.set(live.get() - layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread so far.
pub(crate) fn allocations() -> u64 {
    COUNT.with(Cell::get)
}

/// Bytes of this thread that are allocated now.
#[allow(dead_code, reason = "one bench of two uses it")]
pub(crate) fn live_bytes() -> i64 {
    LIVE.with(Cell::get)
}

/// CPU time of this thread.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Binds the thread to the last core.
pub(crate) fn pin() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(cores - 1);
    if let Err(error) = sched_setaffinity(None, &set) {
        println!("not pinned to a core: {error}");
    }
}

/// Median of figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Processor, kernel and number of cores, for the head of a report.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    let build = if cfg!(debug_assertions) {
        "DEBUG BUILD"
    } else {
        "release"
    };
    format!(
        "{model}, {cores} cores, kernel {}, load {}, {build}",
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("?")
    )
}

/// Runs this program again in a network namespace of its own, where that is possible. True in the outer process when it did.
#[allow(dead_code, reason = "one bench of two uses it")]
pub(crate) fn reran_in_namespace() -> bool {
    const INSIDE: &str = "PLENUM_BENCH_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let Ok(own) = std::env::current_exe() else {
        return false;
    };
    for arguments in [&["-n"][..], &["-rn"]] {
        let status = Command::new("unshare")
            .args(arguments)
            .arg(&own)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .status();
        // 1 is what unshare itself says when it may not.
        if status.is_ok_and(|status| status.success()) {
            return true;
        }
    }
    println!(
        "no network namespace can be had (root or user namespaces needed): only loopback is measured"
    );
    false
}

/// `ip` with these words; false when it fails.
#[allow(dead_code, reason = "one bench of two uses it")]
pub(crate) fn ip(words: &str) -> bool {
    Command::new("ip")
        .args(words.split(' '))
        .output()
        .is_ok_and(|output| output.status.success())
}
