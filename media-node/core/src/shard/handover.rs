// SPDX-License-Identifier: EUPL-1.2
//! Export and import of a transport ([`crate::handover`]).

use std::time::Duration;

use super::state::{EncodingState, PeerKeys, SenderReport, Stream};
use super::{Feedback, Shard};
use crate::api::{CommandRefusal, Event};
use crate::crypto::Crypto;
use crate::handover::{
    LayerState, PublicationState, Secret, StreamState, SubscriptionState, TransportState, VERSION,
};
use crate::ids::TransportId;
use crate::srtp;
use crate::time::Timestamp;

/// The instant that lies `age` back.
fn before(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp::from_nanos(
        now.as_nanos()
            .saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
    )
}

impl LayerState {
    fn of(state: &EncodingState, now: Timestamp) -> Self {
        Self {
            ssrc: state.ssrc,
            clock_rate: state.clock_rate,
            base: state.base,
            highest: state.highest,
            received: state.received,
            expected_before: state.expected_before,
            received_before: state.received_before,
            jitter: state.jitter,
            parameters_seen: state.parameters_seen,
            report: state
                .report
                .map(|report| (report.ntp, report.rtp, now.since(report.at))),
        }
    }

    fn state(&self, now: Timestamp) -> EncodingState {
        EncodingState {
            ssrc: self.ssrc,
            clock_rate: self.clock_rate,
            base: self.base,
            highest: self.highest,
            received: self.received,
            expected_before: self.expected_before,
            received_before: self.received_before,
            jitter: self.jitter,
            parameters_seen: self.parameters_seen,
            report: self.report.map(|(ntp, rtp, age)| SenderReport {
                ntp,
                rtp,
                at: before(now, age),
            }),
            bound_at: self.ssrc.map(|_| now),
            last_packet: now,
            ..EncodingState::new()
        }
    }
}

impl<C: Crypto> Shard<C> {
    pub(super) fn export(
        &mut self,
        now: Timestamp,
        transport: TransportId,
    ) -> Result<(), CommandRefusal> {
        let index = self.peers.index(transport).ok_or(CommandRefusal::Unknown)?;
        // What was heard so far is said before the keys leave.
        self.send_feedback(index);
        let peer = self.peers.get_mut(index).ok_or(CommandRefusal::Unknown)?;
        let keys = peer.keys.as_ref().ok_or(CommandRefusal::Unmovable)?;
        let (rtcp_index, rtcp_replay) = (keys.rtcp_index, keys.rtcp_replay);
        let moved = peer.ice.export().ok_or(CommandRefusal::Unmovable)?;
        let peer = self.peers.get(index).ok_or(CommandRefusal::Unknown)?;
        let publications = peer
            .publications
            .iter()
            .filter_map(|index| self.publications.get(*index))
            .map(|published| PublicationState {
                declared: published.declared.clone(),
                muted: published.muted,
                encodings: published
                    .encodings
                    .iter()
                    .map(|state| LayerState::of(state, now))
                    .collect(),
            })
            .collect();
        let subscriptions = peer
            .subscriptions
            .iter()
            .filter_map(|index| self.subscriptions.get(*index))
            .map(|subscribed| SubscriptionState {
                declared: subscribed.declared.clone(),
                wish: subscribed.wish,
                current: subscribed.current,
                temporal: subscribed.temporal,
                rewriter: subscribed.rewriter.clone(),
                rtx_next: subscribed.rtx_next,
                last: now.since(subscribed.last_at),
                packets: subscribed.packets,
                bytes: subscribed.bytes,
            })
            .collect();
        let streams = peer
            .streams
            .iter()
            .filter_map(|stream| {
                Some(StreamState {
                    ssrc: stream.ssrc,
                    replay: stream.replay,
                    publication: self.publications.get(stream.publication)?.declared.id,
                    encoding: stream.encoding,
                    retransmission: stream.retransmission,
                })
            })
            .collect();
        let state = TransportState {
            version: VERSION,
            participant: peer.participant,
            side: peer.side,
            remote: moved.remote,
            dtls: Secret(moved.dtls),
            channels_open: moved.channels_open,
            rtcp_index,
            rtcp_replay,
            reporter: peer.reporter,
            next_transport_sequence: peer.next_transport_sequence,
            feedback: peer.feedback.export(now),
            stats: peer.stats,
            streams,
            publications,
            subscriptions,
        };
        // Whoever is subscribed may move next and takes the numbers along.
        for publication in &state.publications {
            for subscription in self.take_publication(publication.declared.id) {
                if let Some(subscribed) = self.subscriptions.get_mut(subscription) {
                    subscribed.publication = super::DETACHED;
                    self.detached.push(subscription);
                }
            }
        }
        self.remove_peer(transport);
        self.events.push_back(Event::Exported {
            transport,
            state: Box::new(state),
        });
        Ok(())
    }

    pub(super) fn import(
        &mut self,
        now: Timestamp,
        transport: TransportId,
        state: TransportState,
    ) -> Result<(), CommandRefusal> {
        if state.version != VERSION {
            return Err(CommandRefusal::Invalid);
        }
        let index = self.peers.index(transport).ok_or(CommandRefusal::Unknown)?;
        let peer = self.peers.get_mut(index).ok_or(CommandRefusal::Unknown)?;
        if peer.side != state.side {
            return Err(CommandRefusal::Invalid);
        }
        let material = peer
            .ice
            .import(
                now,
                &mut self.crypto,
                state.remote,
                &state.dtls.0,
                &mut self.out,
            )
            .ok_or(CommandRefusal::Unmovable)?;
        let (local, remote) = srtp::keys::<C>(&material).ok_or(CommandRefusal::Invalid)?;
        peer.keys = Some(PeerKeys {
            local,
            remote,
            rtcp_index: state.rtcp_index,
            rtcp_replay: state.rtcp_replay,
        });
        peer.reporter = state.reporter;
        peer.next_transport_sequence = state.next_transport_sequence;
        peer.feedback = Feedback::import(&state.feedback, now);
        peer.stats = state.stats;
        for published in state.publications {
            let mut declared = published.declared;
            declared.transport = transport;
            let (id, layers) = (declared.id, published.encodings);
            if layers.len() != declared.encodings.len() {
                return Err(CommandRefusal::Invalid);
            }
            self.publish(declared)?;
            if let Some(to) = self
                .publications
                .index(id)
                .and_then(|at| self.publications.get_mut(at))
            {
                to.muted = published.muted;
                to.encodings = layers.iter().map(|layer| layer.state(now)).collect();
            }
        }
        for stream in state.streams {
            let Some(publication) = self.publications.index(stream.publication) else {
                continue;
            };
            let fits = self
                .publications
                .get(publication)
                .is_some_and(|to| usize::from(stream.encoding) < to.encodings.len());
            if let Some(peer) = self.peers.get_mut(index)
                && fits
                && peer.streams.len() < super::receive::STREAMS_MAX
            {
                peer.streams.push(Stream {
                    ssrc: stream.ssrc,
                    replay: stream.replay,
                    publication,
                    encoding: stream.encoding,
                    retransmission: stream.retransmission,
                });
            }
        }
        let mut left_out = Vec::new();
        for subscription in state.subscriptions {
            let mut declared = subscription.declared;
            declared.transport = transport;
            let id = declared.id;
            if self.subscribe_early(declared).is_err() {
                left_out.push(id);
                continue;
            }
            if let Some(to) = self
                .subscriptions
                .index(id)
                .and_then(|at| self.subscriptions.get_mut(at))
            {
                to.wish = subscription.wish;
                to.current = subscription.current;
                to.announced = Some(subscription.current);
                to.temporal = subscription.temporal;
                to.rewriter = subscription.rewriter;
                to.rtx_next = subscription.rtx_next;
                to.last_at = before(now, subscription.last);
                to.packets = subscription.packets;
                to.bytes = subscription.bytes;
            }
        }
        self.counters.connected_transports += 1;
        self.events.push_back(Event::Imported {
            transport,
            left_out,
            channels_lost: state.channels_open,
        });
        self.settle(now, index);
        self.arm_reports(now, index);
        Ok(())
    }
}
