// SPDX-License-Identifier: EUPL-1.2
//! CPU time and allocations of this thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// CPU time and allocations spent in the measured parts.
#[derive(Default)]
pub struct Meter {
    time: Duration,
    allocations: u64,
}

impl Meter {
    /// Does `work` and counts what it costs.
    pub fn spend<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (begin, before) = (cpu_time(), COUNT.with(Cell::get));
        let result = work();
        self.time += cpu_time() - begin;
        self.allocations += COUNT.with(Cell::get) - before;
        result
    }

    /// Nanoseconds and allocations per packet; begins anew.
    pub fn per(&mut self, packets: usize) -> (f64, f64) {
        let figures = (
            self.time.as_nanos() as f64 / packets as f64,
            self.allocations as f64 / packets as f64,
        );
        *self = Self::default();
        figures
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Binds the thread to the last core.
pub fn pin() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(cores - 1);
    let _ = sched_setaffinity(None, &set);
}

/// Median of figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
