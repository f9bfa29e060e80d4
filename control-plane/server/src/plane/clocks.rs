// SPDX-License-Identifier: EUPL-1.2
//! The time of day against those of the machine and of the nodes: said aloud once, shown all the time.

use control_core::ids::Uid;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Plane;
use crate::clock::COMPARE;
use crate::clock::steer::Verdict;

impl Plane {
    /// What a node's machine shows.
    pub(crate) fn hear_clock(&self, node: &Uid, machine: &str, unix_ms: i64) {
        self.0.clock.hear(node, machine, unix_ms);
    }

    /// Compares clocks until the token falls.
    pub async fn compare_clocks(self, stop: CancellationToken) {
        let mut ticks = interval(COMPARE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = Verdict::Agreed;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let verdict = self.0.clock.compare();
            #[expect(clippy::cast_precision_loss, reason = "a metric in seconds")]
            self.0
                .metrics
                .clock_offset
                .set(verdict.offset_ms() as f64 / 1_000.0);
            if std::mem::discriminant(&verdict) != std::mem::discriminant(&said) {
                say(verdict);
            }
            said = verdict;
        }
    }
}

fn say(verdict: Verdict) {
    match verdict {
        Verdict::Agreed => tracing::info!(event = "ClockAgrees", "the clocks agree again"),
        Verdict::Held(ms) => {
            tracing::warn!(
                event = "ClockJumped",
                offset_ms = ms,
                "the machine's clock has jumped and is not followed"
            );
        }
        Verdict::Taken(ms) => {
            tracing::warn!(
                event = "ClockTakenOver",
                offset_ms = ms,
                "the machine's clock is taken over, most nodes agree with it"
            );
        }
        Verdict::Doubted(ms) => {
            tracing::warn!(
                event = "ClockDiffers",
                offset_ms = ms,
                "most nodes have another time than this machine; set its clock or theirs"
            );
        }
    }
}
