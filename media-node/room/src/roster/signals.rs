// SPDX-License-Identifier: EUPL-1.2
//! What peers tell the roster.

use std::collections::HashMap;

use livekit_protocol as proto;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::simulate_scenario::Scenario;

use super::join::{HAND, RESERVED};
use super::{Context, Farewell, Roster};
use crate::counters::Dropped;
use crate::limits::{ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX};
use crate::link::{MemberId, ToPeer, ToRoster, Wire};

impl Roster {
    /// One message of a peer.
    pub(crate) fn handle(&mut self, context: &mut Context<'_>, id: MemberId, message: ToRoster) {
        if !self.members.contains_key(&id) {
            return;
        }
        match message {
            ToRoster::Active => self.became_active(context, id),
            ToRoster::MediaAlive(alive) => self.media_alive(context, id, alive),
            ToRoster::MediaFailed {
                closed,
                unsupported,
            } => self.media_failed(context, id, closed, unsupported),
            ToRoster::SignalLost => self.signal_lost(context, id),
            ToRoster::AddTrack(Wire(request)) => self.add_track(context, id, &request),
            ToRoster::Bound(bound) => self.bound(context, id, bound),
            ToRoster::Ended { sid } => self.end_track(context, id, &sid, None),
            ToRoster::Mute { sid, muted } => self.muted(context, id, &sid, muted),
            ToRoster::Codec { sid, format } => self.codec_seen(context, id, &sid, format),
            ToRoster::AudioFeatures(Wire(request)) => self.audio_features(context, id, &request),
            ToRoster::Dimensions(Wire(request)) => self.dimensions(context, id, &request),
            ToRoster::Metadata(Wire(request)) => self.own_metadata(context, id, request),
            ToRoster::SubscriptionPermission(Wire(request)) => self.sharing(context, id, request),
            ToRoster::Data { channel, payload } => self.data(context, id, channel, &payload),
            ToRoster::Subscribed { sid } => self.subscribed(context, &sid),
            ToRoster::Wanted { sid, quality } => self.wanted(context, id, &sid, quality),
            ToRoster::Quality { quality, score } => self.quality(context, id, quality, score),
            // Only a new beginning helps.
            ToRoster::Mismatch => self.remove(context, id, Farewell::Mismatch),
            ToRoster::Simulate(Wire(scenario)) => self.simulate(context, id, &scenario),
            ToRoster::Leave => self.remove(context, id, Farewell::Left),
        }
    }

    /// The client changes its own name, metadata, attributes.
    fn own_metadata(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        request: proto::UpdateParticipantMetadata,
    ) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let may = self.effective(member).can_update_metadata;
        // A hand is everybody's own; the server's attributes are nobody's.
        let hand_only = request.metadata.is_empty()
            && request.name.is_empty()
            && request.attributes.keys().all(|key| key == HAND);
        let reserved = request
            .attributes
            .keys()
            .any(|key| key.starts_with(RESERVED) && key != HAND);
        let (reason, message) = if reserved || !(may || hand_only && !request.attributes.is_empty())
        {
            (Reason::NotAllowed, "may not change this")
        } else if self.fits(id, &request.name, &request.metadata, &request.attributes) {
            (Reason::Ok, "")
        } else {
            (
                Reason::LimitExceeded,
                "name, metadata or attributes are too long",
            )
        };
        if reason == Reason::Ok {
            self.set_metadata(
                context,
                id,
                &request.name,
                &request.metadata,
                request.attributes.clone(),
            );
        } else {
            context.counters.drop(Dropped::NotAllowed);
        }
        let Some(member) = self.members.get(&id) else {
            return;
        };
        // OK is told to those who know it.
        if reason != Reason::Ok || member.client.protocol >= 15 {
            let response = proto::RequestResponse {
                request_id: request.request_id,
                reason: reason as i32,
                message: message.to_owned(),
                request: (reason != Reason::Ok).then(|| {
                    Request::UpdateMetadata(proto::UpdateParticipantMetadata {
                        request_id: request.request_id,
                        ..Default::default()
                    })
                }),
            };
            context.respond(id, Response::RequestResponse(response));
        }
    }

    pub(super) fn fits(
        &self,
        id: MemberId,
        name: &str,
        metadata: &str,
        attributes: &HashMap<String, String>,
    ) -> bool {
        let Some(member) = self.members.get(&id) else {
            return false;
        };
        let kept = member
            .attributes
            .iter()
            .filter(|(key, _)| !attributes.contains_key(*key));
        let all = kept.map(|(key, value)| (key.len(), value.len()));
        let fresh = attributes
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.len(), value.len()));
        let (count, bytes) = all
            .chain(fresh)
            .fold((0, 0), |(count, bytes), (key, value)| {
                (count + 1, bytes + key + value)
            });
        name.len() <= NAME_BYTES_MAX
            && metadata.len() <= METADATA_BYTES_MAX
            && count <= ATTRIBUTES_MAX
            && bytes <= ATTRIBUTES_BYTES_MAX
    }

    /// Empty texts change nothing; an attribute with an empty value goes.
    pub(super) fn set_metadata(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        name: &str,
        metadata: &str,
        attributes: HashMap<String, String>,
    ) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if name.is_empty() && metadata.is_empty() && attributes.is_empty() {
            return;
        }
        if !name.is_empty() {
            name.clone_into(&mut member.name);
        }
        if !metadata.is_empty() {
            metadata.clone_into(&mut member.metadata);
        }
        for (key, value) in attributes {
            if value.is_empty() {
                member.attributes.remove(&key);
            } else {
                member.attributes.insert(key, value);
            }
        }
        self.touch(context, id);
        self.token_facts(context, id);
    }

    /// Rights changed: everybody sees it, tracks that are not allowed any more end, the next token says so.
    pub(super) fn permissions_changed(&mut self, context: &mut Context<'_>, id: MemberId) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let can_subscribe = self.effective(member).can_subscribe;
        self.enforce_sources(context, id);
        context.send(id, ToPeer::CanSubscribe(can_subscribe));
        self.touch(context, id);
        self.token_facts(context, id);
    }

    /// Scenarios of test clients. They end nothing but the caller's own connection.
    fn simulate(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        scenario: &proto::SimulateScenario,
    ) {
        match scenario.scenario {
            Some(Scenario::SpeakerUpdate(seconds)) if seconds > 0 => {
                let Some(member) = self.members.get(&id) else {
                    return;
                };
                let speaker = proto::SpeakerInfo {
                    sid: member.sid.clone(),
                    level: 0.9,
                    active: true,
                };
                let all = self.members.keys().copied().collect();
                context.down.push_back(super::Down::Many(
                    all,
                    ToPeer::Speakers(vec![Wire(speaker)]),
                ));
            }
            Some(Scenario::ServerLeave(true)) => self.remove(context, id, Farewell::Removed),
            Some(
                Scenario::NodeFailure(true)
                | Scenario::LeaveRequestFullReconnect(true)
                | Scenario::Migration(true),
            ) => {
                self.remove(context, id, Farewell::Mismatch);
            }
            _ => {}
        }
    }
}
