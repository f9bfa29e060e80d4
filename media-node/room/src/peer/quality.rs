// SPDX-License-Identifier: EUPL-1.2
//! Connection quality from the shard's counters, every five seconds.

use livekit_protocol::ConnectionQuality;
use media_core::api::{Command, TransportStats};
use media_core::ids::TransportId;
use media_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Context, Peer};
use crate::limits::QUALITY_INTERVAL;
use crate::link::ToRoster;

/// Loss that nobody hears or sees, as retransmission repairs it.
const LOSS_EXCELLENT: f32 = 0.02;
/// Loss that is noticed.
const LOSS_GOOD: f32 = 0.08;
/// Round trip that disturbs talking, milliseconds.
const ROUND_TRIP_GOOD: u32 = 400;

/// State of the estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Quality {
    pub(super) next: Timestamp,
    received: u64,
    lost: u64,
    uplink_loss: f32,
    told: i32,
}

impl Quality {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            next: now + QUALITY_INTERVAL,
            received: 0,
            lost: 0,
            uplink_loss: 0.0,
            told: -1,
        }
    }
}

impl Peer {
    /// When [`Self::timeout`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let answer = self
            .subscriber
            .deadline()
            .filter(|_| self.session.is_some());
        self.alive
            .then_some(self.quality.next)
            .into_iter()
            .chain(answer)
            .min()
    }

    /// Timers.
    pub(crate) fn timeout(&mut self, context: &mut Context<'_>) {
        if self.session.is_some()
            && self
                .subscriber
                .deadline()
                .is_some_and(|at| at <= context.now)
        {
            return self.tell(context, ToRoster::Mismatch);
        }
        if !self.alive || context.now < self.quality.next {
            return;
        }
        self.quality.next = context.now + QUALITY_INTERVAL;
        // The subscriber's answer comes last and closes the round.
        let transports = self
            .publisher
            .transport
            .iter()
            .chain([&self.subscriber.transport]);
        for transport in transports
            .filter(|own| own.connected)
            .map(|own| own.id)
            .collect::<Vec<_>>()
        {
            context.command(Command::ReadStats { transport });
        }
    }

    pub(super) fn stats(
        &mut self,
        context: &mut Context<'_>,
        transport: TransportId,
        stats: &TransportStats,
    ) {
        let mut loss = stats.remote_fraction_lost;
        if transport != self.subscriber.transport.id {
            let received = stats.received_packets.saturating_sub(self.quality.received);
            let lost = stats.lost_packets.saturating_sub(self.quality.lost);
            (self.quality.received, self.quality.lost) =
                (stats.received_packets, stats.lost_packets);
            self.quality.uplink_loss = if received + lost == 0 {
                0.0
            } else {
                lost as f32 / (received + lost) as f32
            };
            if self.subscriber.transport.connected {
                return;
            }
            loss = 0.0;
        }
        let loss = loss.max(self.quality.uplink_loss);
        // LOST is never sent: browsers' SDKs do a full reconnect on it, and a lost path ends its transport anyway.
        let (quality, score) = match loss {
            loss if loss <= LOSS_EXCELLENT && stats.rtt_ms <= ROUND_TRIP_GOOD => {
                (ConnectionQuality::Excellent, 4.5)
            }
            loss if loss <= LOSS_GOOD => (ConnectionQuality::Good, 3.5),
            _ => (ConnectionQuality::Poor, 2.0),
        };
        if self.quality.told != quality as i32 {
            self.quality.told = quality as i32;
            self.tell(
                context,
                ToRoster::Quality {
                    quality: quality as i32,
                    score,
                },
            );
        }
    }
}
