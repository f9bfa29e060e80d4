// SPDX-License-Identifier: EUPL-1.2
//! Published tracks: who may publish what, who gets it, and which quality is wanted of it.

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol as proto;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message as Response;
use media_core::api::Kind;
use media_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Context, Member, Roster};
use crate::counters::Dropped;
use crate::limits::{DYNACAST_DEBOUNCE, LIST_MAX, ON_ENTRY, RETURN, TRACKS_PER_PARTICIPANT_MAX};
use crate::link::{BoundTrack, GrantedTrack, MemberId, ToPeer, Wire};
use crate::random;
use crate::sdp;

/// A track of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Track {
    pub(super) info: Wire<proto::TrackInfo>,
    pub(super) bound: Option<BoundTrack>,
    /// Somebody has it, and the publisher knows.
    told_subscribed: bool,
    /// The best quality each subscriber wants.
    pub(super) wanted: BTreeMap<MemberId, Option<u8>>,
    /// What the publisher was told last.
    told_wanted: Option<Option<u8>>,
    /// When it is told to send less.
    pub(super) wanted_due: Option<Timestamp>,
}

impl Track {
    pub(super) fn kind(&self) -> Kind {
        if self.info.0.r#type == proto::TrackType::Audio as i32 {
            Kind::Audio
        } else {
            Kind::Video
        }
    }

    /// Widths and heights per layer, low to high.
    #[expect(deprecated, reason = "clients before codec layers fill `layers` alone")]
    pub(super) fn layers(&self) -> Vec<(u32, u32)> {
        let mut layers: Vec<_> = self
            .info
            .0
            .layers
            .iter()
            .map(|layer| (layer.quality, (layer.width, layer.height)))
            .collect();
        layers.sort_unstable();
        layers.into_iter().map(|(_, size)| size).collect()
    }

    fn best(&self) -> Option<u8> {
        self.wanted.values().copied().max().flatten()
    }

    /// More is told at once, less after a while.
    pub(super) fn wanted_changed(&mut self, now: Timestamp) {
        let best = self.best();
        self.wanted_due = match self.told_wanted {
            Some(told) if told == best => None,
            Some(told) if best < told => self.wanted_due.or(Some(now + DYNACAST_DEBOUNCE)),
            None if best.is_none() => None,
            _ => Some(now),
        };
    }
}

/// Who may have a member's tracks, prepared for looking up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sharing {
    everybody: bool,
    identities: BTreeMap<String, Allowance>,
    sids: BTreeMap<String, Allowance>,
}

/// Which tracks one receiver may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Allowance {
    all: bool,
    tracks: BTreeSet<String>,
}

impl Sharing {
    fn new(permission: proto::SubscriptionPermission) -> Self {
        let mut sharing = Self {
            everybody: permission.all_participants,
            ..Self::default()
        };
        for one in permission.track_permissions {
            let allowance = if one.participant_identity.is_empty() {
                sharing.sids.entry(one.participant_sid).or_default()
            } else {
                sharing
                    .identities
                    .entry(one.participant_identity)
                    .or_default()
            };
            allowance.all |= one.all_tracks;
            allowance.tracks.extend(one.track_sids);
        }
        sharing
    }

    pub(super) fn allows(&self, receiver: &Member, sid: &str) -> bool {
        let named = [
            self.identities.get(&receiver.identity),
            self.sids.get(&receiver.sid),
        ];
        self.everybody
            || named
                .into_iter()
                .flatten()
                .any(|allowance| allowance.all || allowance.tracks.contains(sid))
    }
}

impl Roster {
    /// A client wants to publish.
    pub(super) fn add_track(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        request: &proto::AddTrackRequest,
    ) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let effective = self.effective(member);
        let kind = proto::TrackType::try_from(request.r#type);
        let source = proto::TrackSource::try_from(request.source);
        let encryption = proto::encryption::Type::try_from(request.encryption);
        let reason = match (kind, source, encryption) {
            (Ok(kind), Ok(source), Ok(encryption)) => {
                if !effective.allows(kind, source) {
                    Some((Reason::NotAllowed, "this source may not be published"))
                } else if self.policy.e2ee_required && encryption == proto::encryption::Type::None {
                    Some((
                        Reason::NotAllowed,
                        "tracks of this conference must be end-to-end encrypted",
                    ))
                } else if self.policy.max_publishers > 0
                    && member.tracks.is_empty()
                    && self.publishers() >= self.policy.max_publishers
                {
                    Some((
                        Reason::LimitExceeded,
                        "the conference has as many publishers as it may have",
                    ))
                } else if member.tracks.len() >= TRACKS_PER_PARTICIPANT_MAX {
                    Some((Reason::LimitExceeded, "too many tracks"))
                } else {
                    None
                }
            }
            _ => Some((
                Reason::InvalidRequest,
                "type, source or encryption is unknown",
            )),
        };
        if let Some((reason, message)) = reason {
            context.counters.drop(if reason == Reason::LimitExceeded {
                Dropped::Limit
            } else {
                Dropped::NotAllowed
            });
            let response = proto::RequestResponse {
                reason: reason as i32,
                message: message.to_owned(),
                request: Some(Request::AddTrack(crate::peer::sane_add_track(request))),
                ..Default::default()
            };
            return context.respond(id, Response::RequestResponse(response));
        }
        let grant = self.grant(context, member, request, effective.enter_muted);
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.tracks.push(Track {
            info: grant.info.clone(),
            bound: None,
            told_subscribed: false,
            wanted: BTreeMap::new(),
            told_wanted: None,
            wanted_due: None,
        });
        context.send(id, ToPeer::Granted(Box::new(grant)));
        self.counts_changed(context.now);
    }

    #[expect(deprecated, reason = "older clients read the deprecated fields")]
    fn grant(
        &self,
        context: &mut Context<'_>,
        member: &Member,
        request: &proto::AddTrackRequest,
        enter_muted: bool,
    ) -> GrantedTrack {
        let source = proto::TrackSource::try_from(request.source).unwrap_or_default();
        let audio = request.r#type == proto::TrackType::Audio as i32;
        let letters = match (audio, source) {
            (true, proto::TrackSource::Microphone) => "AM",
            (true, proto::TrackSource::ScreenShareAudio) => "AS",
            (true, _) => "AU",
            (false, proto::TrackSource::Camera) => "VC",
            (false, proto::TrackSource::ScreenShare) => "VS",
            (false, _) => "VU",
        };
        let stream = match source {
            _ if !request.stream.is_empty() => request.stream.replace(['|', ' ', '\r', '\n'], "_"),
            proto::TrackSource::Camera | proto::TrackSource::Microphone => "camera".to_owned(),
            proto::TrackSource::ScreenShare | proto::TrackSource::ScreenShareAudio => {
                "screen".to_owned()
            }
            proto::TrackSource::Unknown => String::new(),
        };
        let first = request.simulcast_codecs.first();
        let codec = first
            .and_then(|codec| sdp::codec_of(&codec.codec))
            .filter(|codec| {
                self.codec_enabled(
                    sdp::mime_type(*codec)
                        .rsplit('/')
                        .next()
                        .unwrap_or_default(),
                )
            });
        let layers = sane_layers(match first {
            Some(codec) if !codec.layers.is_empty() => &codec.layers,
            _ => &request.layers,
        });
        let mime_type = codec
            .map(|codec| sdp::mime_type(codec).to_owned())
            .unwrap_or_default();
        let codecs = request
            .simulcast_codecs
            .iter()
            .map(|one| proto::SimulcastCodecInfo {
                mime_type: sdp::codec_of(&one.codec)
                    .map(|codec| sdp::mime_type(codec).to_owned())
                    .unwrap_or_default(),
                cid: one.cid.clone(),
                layers: sane_layers(if one.layers.is_empty() {
                    &request.layers
                } else {
                    &one.layers
                }),
                video_layer_mode: proto::video_layer::Mode::try_from(one.video_layer_mode)
                    .unwrap_or(proto::video_layer::Mode::Unused)
                    as i32,
                ..Default::default()
            })
            .filter(|one| !one.mime_type.is_empty())
            .collect();
        let features: Vec<i32> = request
            .audio_features
            .iter()
            .copied()
            .filter(|feature| proto::AudioTrackFeature::try_from(*feature).is_ok())
            .collect();
        let has = |feature: proto::AudioTrackFeature| features.contains(&(feature as i32));
        let no_dtx = request.disable_dtx || has(proto::AudioTrackFeature::TfNoDtx);
        let stereo = request.stereo || has(proto::AudioTrackFeature::TfStereo);
        let first_microphone = source == proto::TrackSource::Microphone
            && context.now.since(member.joined) <= ON_ENTRY
            && !member
                .tracks
                .iter()
                .any(|track| track.info.0.source == source as i32);
        // Who comes back after the loss of a node does not enter: what was unmuted stays so.
        let returning = self
            .restored_at
            .is_some_and(|at| context.now.since(at) <= RETURN);
        let on_entry = enter_muted && first_microphone && !request.muted && !returning;
        let info = proto::TrackInfo {
            sid: format!("TR_{letters}{}", random::name(context.entropy, 12)),
            r#type: request.r#type,
            name: request.name.clone(),
            muted: request.muted,
            width: request.width,
            height: request.height,
            simulcast: layers.len() > 1,
            disable_dtx: no_dtx,
            source: request.source,
            layers,
            mime_type,
            codecs,
            stereo,
            disable_red: request.disable_red,
            encryption: request.encryption,
            stream,
            version: Some(self.version(context.now)),
            audio_features: features,
            backup_codec_policy: proto::BackupCodecPolicy::try_from(request.backup_codec_policy)
                .unwrap_or_default() as i32,
            packet_trailer_features: request
                .packet_trailer_features
                .iter()
                .copied()
                .filter(|feature| proto::PacketTrailerFeature::try_from(*feature).is_ok())
                .collect(),
            ..Default::default()
        };
        GrantedTrack {
            info: Wire(info),
            cid: request.cid.clone(),
            codec,
            dtx: audio && !no_dtx,
            stereo: audio && stereo,
            disable_red: request.disable_red,
            on_entry,
        }
    }

    fn version(&self, now: Timestamp) -> proto::TimedVersion {
        proto::TimedVersion {
            unix_micro: (self.unix_ms(now) * 1000) as i64,
            ticks: 0,
        }
    }

    fn track_mut(&mut self, id: MemberId, sid: &str) -> Option<&mut Track> {
        self.members
            .get_mut(&id)?
            .tracks
            .iter_mut()
            .find(|track| track.info.0.sid == sid)
    }

    /// The description declares the track: now others may have it.
    pub(super) fn bound(&mut self, context: &mut Context<'_>, id: MemberId, bound: BoundTrack) {
        let version = self.version(context.now);
        let Some(track) = self.track_mut(id, &bound.sid) else {
            return;
        };
        let first = track.bound.is_none();
        track.info.0.mid.clone_from(&bound.mid);
        if let Some(format) = bound.formats.first()
            && track.info.0.mime_type.is_empty()
        {
            track.info.0.mime_type = sdp::mime_type(format.codec).to_owned();
        }
        if let Some(codec) = track.info.0.codecs.first_mut() {
            codec.mid.clone_from(&bound.mid);
        }
        track.info.0.version = Some(version);
        let sid = bound.sid.clone();
        track.bound = Some(bound);
        self.touch(context, id);
        // Browsers' SDKs must know participant and track before the offer brings its media.
        self.flush(context);
        self.announce(context, id, &sid);
        if first {
            self.published(context, id, &sid);
        }
    }

    /// Tells of a track, once its participant was told of.
    pub(super) fn published(&mut self, context: &mut Context<'_>, id: MemberId, sid: &str) {
        let Some(member) = self.members.get(&id).filter(|member| member.ever_active) else {
            return;
        };
        let info = self.info(member);
        let track = info.tracks.iter().find(|track| track.sid == sid).cloned();
        self.event(context, "track_published", Some(&info), track.as_ref());
    }

    /// Tells every other peer of a track as it is now.
    pub(super) fn announce(&mut self, context: &mut Context<'_>, id: MemberId, sid: &str) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let Some(track) = member.tracks.iter().find(|track| track.info.0.sid == sid) else {
            return;
        };
        for other in self.members.values().filter(|other| other.id != id) {
            if let Some(remote) = self.remote_track(member, track, other) {
                context.send(other.id, ToPeer::Track(Box::new(remote)));
            }
        }
    }

    pub(super) fn announce_gone(&mut self, context: &mut Context<'_>, id: MemberId, sid: &str) {
        let others = self
            .members
            .keys()
            .copied()
            .filter(|other| *other != id)
            .collect();
        context.down.push_back(super::Down::Many(
            others,
            ToPeer::TrackGone {
                sid: sid.to_owned(),
            },
        ));
    }

    /// A track is over; `tell` = its client does not know yet.
    pub(super) fn end_track(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        sid: &str,
        tell: Option<bool>,
    ) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let Some(at) = member
            .tracks
            .iter()
            .position(|track| track.info.0.sid == sid)
        else {
            return;
        };
        let track = member.tracks.remove(at);
        if let Some(tell) = tell {
            context.send(
                id,
                ToPeer::Unpublish {
                    sid: sid.to_owned(),
                    tell,
                },
            );
        }
        self.announce_gone(context, id, sid);
        self.touch(context, id);
        self.counts_changed(context.now);
        if track.bound.is_some()
            && let Some(member) = self.members.get(&id).filter(|member| member.ever_active)
        {
            let info = self.info(member);
            self.event(
                context,
                "track_unpublished",
                Some(&info),
                Some(&track.info.0),
            );
        }
    }

    /// Mute by the client itself.
    pub(super) fn muted(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        sid: &str,
        muted: bool,
    ) {
        let version = self.version(context.now);
        let Some(track) = self.track_mut(id, sid) else {
            return;
        };
        if track.info.0.muted == muted {
            return;
        }
        track.info.0.muted = muted;
        track.info.0.version = Some(version);
        self.touch(context, id);
        self.announce(context, id, sid);
    }

    pub(super) fn codec_seen(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        sid: &str,
        format: media_core::api::Format,
    ) {
        let Some(track) = self.track_mut(id, sid) else {
            return;
        };
        let mime_type = sdp::mime_type(format.codec);
        // RED is how Opus travels; the track stays what it was announced as.
        if track.info.0.mime_type == mime_type || format.codec == media_core::api::Codec::Red {
            return;
        }
        track.info.0.mime_type = mime_type.to_owned();
        self.touch(context, id);
    }

    pub(super) fn audio_features(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        request: &proto::UpdateLocalAudioTrack,
    ) {
        let Some(track) = self.track_mut(id, &request.track_sid) else {
            return;
        };
        track.info.0.audio_features = request
            .features
            .iter()
            .copied()
            .filter(|feature| proto::AudioTrackFeature::try_from(*feature).is_ok())
            .collect();
        self.touch(context, id);
    }

    pub(super) fn dimensions(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        request: &proto::UpdateLocalVideoTrack,
    ) {
        let Some(track) = self.track_mut(id, &request.track_sid) else {
            return;
        };
        (track.info.0.width, track.info.0.height) = (request.width, request.height);
        self.touch(context, id);
    }

    /// Who may have the member's tracks changed.
    pub(super) fn sharing(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        permissions: proto::SubscriptionPermission,
    ) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let before = member.sharing.replace(Sharing::new(permissions));
        let Some(member) = self.members.get(&id) else {
            return;
        };
        for other in self.members.values().filter(|other| other.id != id) {
            for track in &member.tracks {
                let sid = &track.info.0.sid;
                let allowed = |sharing: &Option<Sharing>| {
                    sharing
                        .as_ref()
                        .is_none_or(|sharing| sharing.allows(other, sid))
                };
                let (was, is) = (allowed(&before), allowed(&member.sharing));
                if was != is && !other.grants.recorder {
                    if let Some(remote) = self.remote_track(member, track, other) {
                        context.send(other.id, ToPeer::Track(Box::new(remote)));
                    }
                    let update = proto::SubscriptionPermissionUpdate {
                        participant_sid: member.sid.clone(),
                        track_sid: sid.clone(),
                        allowed: is,
                    };
                    context.respond(other.id, Response::SubscriptionPermissionUpdate(update));
                }
            }
        }
    }

    fn publisher_of(&self, sid: &str) -> Option<MemberId> {
        self.members
            .values()
            .find(|member| member.tracks.iter().any(|track| track.info.0.sid == sid))
            .map(|member| member.id)
    }

    /// Somebody has a track: its publisher hears of the first.
    pub(super) fn subscribed(&mut self, context: &mut Context<'_>, sid: &str) {
        let Some(publisher) = self.publisher_of(sid) else {
            return;
        };
        let Some(track) = self.track_mut(publisher, sid) else {
            return;
        };
        if !std::mem::replace(&mut track.told_subscribed, true) {
            context.respond(
                publisher,
                Response::TrackSubscribed(proto::TrackSubscribed {
                    track_sid: sid.to_owned(),
                }),
            );
        }
    }

    /// A subscriber wants another quality.
    pub(super) fn wanted(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        sid: &str,
        quality: Option<u8>,
    ) {
        let Some(publisher) = self.publisher_of(sid) else {
            return;
        };
        let now = context.now;
        let Some(track) = self.track_mut(publisher, sid) else {
            return;
        };
        match quality {
            Some(_) => track.wanted.insert(id, quality),
            None => track.wanted.remove(&id),
        };
        track.wanted_changed(now);
        self.wanted_timeout(context);
    }

    /// Tells publishers which qualities are wanted, where that is due.
    pub(super) fn wanted_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        for member in self.members.values_mut() {
            for track in &mut member.tracks {
                if track.wanted_due.is_none_or(|at| at > now) {
                    continue;
                }
                track.wanted_due = None;
                let best = track.best();
                if track.told_wanted == Some(best) {
                    continue;
                }
                track.told_wanted = Some(best);
                let qualities: Vec<_> = [
                    proto::VideoQuality::Low,
                    proto::VideoQuality::Medium,
                    proto::VideoQuality::High,
                ]
                .into_iter()
                .enumerate()
                .map(|(index, quality)| proto::SubscribedQuality {
                    quality: quality as i32,
                    enabled: best.is_some_and(|best| index <= usize::from(best)),
                })
                .collect();
                let codec = track
                    .info
                    .0
                    .mime_type
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                #[expect(deprecated, reason = "older clients read `subscribed_qualities`")]
                let update = proto::SubscribedQualityUpdate {
                    track_sid: track.info.0.sid.clone(),
                    subscribed_qualities: qualities.clone(),
                    subscribed_codecs: vec![proto::SubscribedCodec { codec, qualities }],
                };
                context.respond(member.id, Response::SubscribedQualityUpdate(update));
            }
        }
    }

    /// Rights changed: what is not allowed any more ends.
    pub(super) fn enforce_sources(&mut self, context: &mut Context<'_>, id: MemberId) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let effective = self.effective(member);
        let gone: Vec<String> = member
            .tracks
            .iter()
            .filter(|track| {
                let kind = proto::TrackType::try_from(track.info.0.r#type).unwrap_or_default();
                let source = proto::TrackSource::try_from(track.info.0.source).unwrap_or_default();
                !effective.allows(kind, source)
            })
            .map(|track| track.info.0.sid.clone())
            .take(LIST_MAX)
            .collect();
        for sid in gone {
            self.end_track(context, id, &sid, Some(true));
        }
    }
}

/// At most three layers, with numbers that protojson knows.
fn sane_layers(layers: &[proto::VideoLayer]) -> Vec<proto::VideoLayer> {
    layers
        .iter()
        .take(3)
        .filter(|layer| proto::VideoQuality::try_from(layer.quality).is_ok())
        .map(|layer| proto::VideoLayer {
            rid: super::join::bounded(layer.rid.clone(), 16),
            ..layer.clone()
        })
        .collect()
}
