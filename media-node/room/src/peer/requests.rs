// SPDX-License-Identifier: EUPL-1.2
//! Requests of the client: what the peer does itself and what it asks the roster for.

use livekit_protocol as proto;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;

use super::{Context, Peer, Settings};
use crate::api::Frame;
use crate::counters::Dropped;
use crate::limits::{LIST_MAX, TRACK_TEXT_BYTES_MAX, TRACKS_PER_PARTICIPANT_MAX};
use crate::link::{ToRoster, Wire};
use crate::signal;

impl Peer {
    /// One frame of the client.
    pub(crate) fn frame(&mut self, context: &mut Context<'_>, frame: &Frame, unix_ms: u64) {
        let message = match signal::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(participant = self.id.0, %error, "frame dropped");
                return context.counters.drop(Dropped::Frame);
            }
        };
        self.text = matches!(frame, Frame::Text(_));
        // Kinds that are not known here are ignored.
        let Some(message) = message else { return };
        match message {
            Request::Offer(description) => self.offer(context, &description),
            Request::Answer(description) => self.answered(context, &description),
            // The node is ICE-lite: it learns addresses from checks.
            Request::Trickle(_) => {}
            Request::AddTrack(request) => self.add_track(context, request),
            Request::Mute(request) => self.client_mute(context, request),
            Request::Subscription(request) => self.subscription(context, request),
            Request::TrackSetting(request) => self.track_setting(context, request),
            Request::Leave(_) => self.tell(context, ToRoster::Leave),
            Request::SubscriptionPermission(request) => {
                let entries: usize = request
                    .track_permissions
                    .iter()
                    .map(|permission| 1 + permission.track_sids.len())
                    .sum();
                if entries > 4 * LIST_MAX {
                    return context.counters.drop(Dropped::Limit);
                }
                self.tell(context, ToRoster::SubscriptionPermission(Wire(request)));
            }
            Request::SyncState(state) => self.sync_state(context, state),
            Request::Simulate(scenario) => self.tell(context, ToRoster::Simulate(Wire(scenario))),
            Request::Ping(_) => self.send(context, Response::Pong(unix_ms as i64)),
            Request::PingReq(ping) => {
                let pong = proto::Pong {
                    last_ping_timestamp: ping.timestamp,
                    timestamp: unix_ms as i64,
                };
                self.send(context, Response::PongResp(pong));
            }
            Request::UpdateMetadata(request) => {
                self.tell(context, ToRoster::Metadata(Wire(request)))
            }
            Request::UpdateAudioTrack(request) if request.features.len() <= 32 => {
                self.tell(context, ToRoster::AudioFeatures(Wire(request)));
            }
            Request::UpdateVideoTrack(request) => {
                self.tell(context, ToRoster::Dimensions(Wire(request)))
            }
            // Not served: data tracks and blobs time out in the client, media is unaffected.
            _ => {}
        }
    }

    fn add_track(&mut self, context: &mut Context<'_>, request: proto::AddTrackRequest) {
        let too_long = [&request.cid, &request.name, &request.stream, &request.sid]
            .iter()
            .any(|text| text.len() > TRACK_TEXT_BYTES_MAX)
            || request.simulcast_codecs.len() > 4
            || request.simulcast_codecs.iter().any(|codec| {
                codec.layers.len() > 3
                    || codec.codec.len() > TRACK_TEXT_BYTES_MAX
                    || codec.cid.len() > TRACK_TEXT_BYTES_MAX
            })
            || request.layers.len() > 3
            || request.audio_features.len() > 32
            || request.packet_trailer_features.len() > 32;
        let reason = if request.cid.is_empty() || too_long {
            Some(Reason::InvalidRequest)
        } else if !request.sid.is_empty() {
            // Another codec of a track: never asked for, as only one codec per track is enabled.
            Some(Reason::NotFound)
        } else if self.has_cid(&request.cid) {
            Some(Reason::Queued)
        } else if self.pending_tracks() >= TRACKS_PER_PARTICIPANT_MAX {
            Some(Reason::LimitExceeded)
        } else {
            None
        };
        match reason {
            None => self.tell(context, ToRoster::AddTrack(Wire(request))),
            Some(reason) => {
                context.counters.drop(Dropped::Limit);
                self.refuse(
                    context,
                    reason,
                    proto::request_response::Request::AddTrack(sane_add_track(&request)),
                );
            }
        }
    }

    fn refuse(
        &mut self,
        context: &mut Context<'_>,
        reason: Reason,
        request: proto::request_response::Request,
    ) {
        if self.client.takes_unknown() {
            let response = proto::RequestResponse {
                reason: reason as i32,
                request: Some(request),
                ..Default::default()
            };
            self.send(context, Response::RequestResponse(response));
        }
    }

    fn subscription(&mut self, context: &mut Context<'_>, request: proto::UpdateSubscription) {
        let sids = flatten(request.track_sids, request.participant_tracks);
        self.subscribe(context, sids, request.subscribe);
    }

    fn track_setting(&mut self, context: &mut Context<'_>, request: proto::UpdateTrackSettings) {
        let settings = Settings {
            disabled: request.disabled,
            quality: Some(u8::try_from(request.quality).unwrap_or(2).min(2)),
            width: request.width,
            height: request.height,
            fps: request.fps,
        };
        for sid in request.track_sids.into_iter().take(LIST_MAX) {
            if self.settings.len() >= LIST_MAX && !self.settings.contains_key(&sid) {
                context.counters.drop(Dropped::Limit);
                continue;
            }
            self.settings.insert(sid.clone(), settings);
            self.set_layers(context, &sid, false);
        }
    }

    /// After a resume: what the client believes.
    fn sync_state(&mut self, context: &mut Context<'_>, state: proto::SyncState) {
        if let Some(subscription) = state.subscription {
            let sids = flatten(subscription.track_sids, subscription.participant_tracks);
            self.subscribe(context, sids, subscription.subscribe);
        }
        for sid in state.track_sids_disabled.into_iter().take(LIST_MAX) {
            let settings = Settings {
                disabled: true,
                ..self.settings.get(&sid).copied().unwrap_or_default()
            };
            if self.settings.len() < LIST_MAX || self.settings.contains_key(&sid) {
                self.settings.insert(sid.clone(), settings);
                self.set_layers(context, &sid, false);
            }
        }
        let tracks: Vec<String> = state
            .publish_tracks
            .into_iter()
            .filter_map(|published| published.track.map(|track| track.sid))
            .take(LIST_MAX)
            .collect();
        let known = self.granted_sids();
        if tracks.iter().any(|sid| !known.contains(sid)) {
            self.tell(context, ToRoster::Mismatch);
        }
    }
}

fn flatten(
    track_sids: Vec<String>,
    participant_tracks: Vec<proto::ParticipantTracks>,
) -> Vec<String> {
    track_sids
        .into_iter()
        .chain(
            participant_tracks
                .into_iter()
                .flat_map(|tracks| tracks.track_sids),
        )
        .filter(|sid| sid.len() <= TRACK_TEXT_BYTES_MAX)
        .take(LIST_MAX)
        .collect()
}

/// A copy that can be sent back: bounded, and with numbers that protojson knows.
pub(crate) fn sane_add_track(request: &proto::AddTrackRequest) -> proto::AddTrackRequest {
    let text = |text: &String| {
        if text.len() <= TRACK_TEXT_BYTES_MAX {
            text.clone()
        } else {
            String::new()
        }
    };
    proto::AddTrackRequest {
        cid: text(&request.cid),
        name: text(&request.name),
        r#type: proto::TrackType::try_from(request.r#type).unwrap_or_default() as i32,
        source: proto::TrackSource::try_from(request.source).unwrap_or_default() as i32,
        ..Default::default()
    }
}
