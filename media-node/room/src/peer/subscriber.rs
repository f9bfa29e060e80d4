// SPDX-License-Identifier: EUPL-1.2
//! The connection on which the client receives: the peer offers, one offer at a time, and forwarding begins with the answer.
//!
//! A section carries one track for its life. A track that goes is offered as refused (port 0); once the client answered that, the
//! place is taken by another section with a `mid` of its own (RFC 8829 §5.2.2). So the order of m-lines is stable, descriptions do not
//! grow without end, and a browser never shows a new track under the id of an old one.

use std::collections::BTreeSet;

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::{Command, ExtensionMap, Kind, LayerWish, Side, Subscription};
use media_core::ids::{ExtensionId, Ssrc, SubscriptionId};
use media_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Context, Peer, Settings, Transport};
use crate::counters::Dropped;
use crate::limits::{ANSWER, SUBSCRIBER_SECTIONS_MAX};
use crate::link::{MemberId, RemoteTrack, ToRoster};
use crate::random;
use crate::sdp::{self, Description, Local, Section, Sent, SentTrack};

/// One section of the offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    sent: Sent,
    /// Track of the last offer.
    offered: Option<String>,
    /// The client knows that the section is refused.
    free: bool,
    live: Option<SubscriptionId>,
}

impl Line {
    fn track(&self) -> Option<&str> {
        self.sent.track.as_ref().map(|track| track.track.as_str())
    }
}

/// State of the connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subscriber {
    pub(crate) transport: Transport,
    version: u64,
    offer: u32,
    in_flight: bool,
    /// When the offer in flight was sent.
    offered_at: Timestamp,
    dirty: bool,
    restart: bool,
    lines: Vec<Line>,
    mids: u32,
}

impl Subscriber {
    pub(super) fn new(context: &mut Context<'_>, owner: MemberId) -> Self {
        Self {
            transport: Transport::new(context, owner, Side::Subscriber),
            version: 0,
            offer: 0,
            in_flight: false,
            offered_at: context.now,
            dirty: false,
            restart: false,
            lines: Vec::new(),
            mids: 0,
        }
    }

    /// An offer is due as soon as none is in flight.
    pub(super) fn wants_offer(&mut self) {
        self.dirty = true;
    }

    /// When an answer is overdue.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.in_flight.then_some(self.offered_at + ANSWER)
    }

    /// The answer to an offer in flight may have been lost with the WebSocket: offer anew, with fresh ICE credentials.
    pub(super) fn resume(&mut self) {
        self.in_flight = false;
        self.dirty = true;
        self.restart = self.transport.remote.is_some();
    }

    /// The publication behind a section is gone from the shard.
    pub(super) fn forget(&mut self, context: &mut Context<'_>, sid: &str) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.track() == Some(sid)) {
            if let Some(subscription) = line.live.take() {
                context.owners.remove(&subscription.0);
            }
            self.dirty = true;
        }
    }
}

impl Peer {
    fn is_wanted(&self, track: &RemoteTrack) -> bool {
        let wish = self
            .intents
            .get(&track.sid)
            .copied()
            .unwrap_or(self.client.auto_subscribe);
        wish && self.can_subscribe && track.allowed
    }

    /// Gives every wanted track a section and takes it from every other.
    pub(super) fn reconcile(&mut self, context: &mut Context<'_>) {
        let mut gone = Vec::new();
        for index in 0..self.subscriber.lines.len() {
            let Some(sid) = self.subscriber.lines[index].track().map(str::to_owned) else {
                continue;
            };
            if self
                .remotes
                .get(&sid)
                .is_some_and(|remote| self.is_wanted(&remote.track))
            {
                continue;
            }
            let line = &mut self.subscriber.lines[index];
            line.sent.track = None;
            if let Some(subscription) = line.live.take() {
                context.command(Command::Unsubscribe { subscription });
            }
            self.subscriber.dirty = true;
            gone.push(sid);
        }
        for sid in gone {
            if let Some(remote) = self.remotes.get_mut(&sid) {
                remote.announced = false;
            }
            self.tell_wanted(context, &sid);
        }
        let assigned: BTreeSet<&str> = self
            .subscriber
            .lines
            .iter()
            .filter_map(Line::track)
            .collect();
        let missing: Vec<RemoteTrack> = self
            .remotes
            .values()
            .filter(|remote| {
                !assigned.contains(remote.track.sid.as_str()) && self.is_wanted(&remote.track)
            })
            .map(|remote| remote.track.clone())
            .collect();
        for track in missing {
            self.assign(context, &track);
        }
    }

    fn assign(&mut self, context: &mut Context<'_>, track: &RemoteTrack) {
        let reused = self.subscriber.lines.iter().position(|line| {
            line.free && line.sent.track.is_none() && line.sent.kind == track.kind
        });
        if reused.is_none() && self.subscriber.lines.len() >= SUBSCRIBER_SECTIONS_MAX {
            // It stays wanted, and gets the next place that becomes free.
            return context.counters.drop(Dropped::Limit);
        }
        let stream = if self.client.groups_streams() && !track.stream.is_empty() {
            &track.stream
        } else {
            &track.sid
        };
        let ssrc = |context: &mut Context<'_>| {
            Ssrc(random::number(context.entropy) & 0x7fff_fffe | 1 << 16)
        };
        self.subscriber.mids += 1;
        let line = Line {
            sent: Sent {
                kind: track.kind,
                mid: self.subscriber.mids.to_string(),
                track: Some(SentTrack {
                    stream: format!("{}|{stream}", track.publisher_sid),
                    track: track.sid.clone(),
                    ssrc: ssrc(context),
                    rtx_ssrc: (track.kind == Kind::Video).then(|| ssrc(context)),
                }),
                payloads: sdp::sent_payloads(&track.formats),
            },
            offered: None,
            free: false,
            live: None,
        };
        match reused {
            Some(index) => self.subscriber.lines[index] = line,
            None => self.subscriber.lines.push(line),
        }
        self.subscriber.dirty = true;
    }

    /// Sends an offer if one is due and none is in flight. Called once per step, so that one offer carries all of its changes.
    pub(crate) fn negotiate(&mut self, context: &mut Context<'_>) {
        if !self.subscriber.dirty || self.subscriber.in_flight || self.session.is_none() {
            return;
        }
        self.subscriber.dirty = false;
        self.subscriber.in_flight = true;
        self.subscriber.offered_at = context.now;
        if std::mem::take(&mut self.subscriber.restart) {
            self.subscriber.transport.restart(context);
        }
        self.subscriber.offer += 1;
        self.subscriber.version += 1;
        let mut mid_to_track_id = std::collections::HashMap::new();
        for line in &mut self.subscriber.lines {
            line.offered = line.sent.track.as_ref().map(|track| track.track.clone());
            if let Some(track) = &line.offered {
                mid_to_track_id.insert(line.sent.mid.clone(), track.clone());
            }
        }
        let sections: Vec<Sent> = self
            .subscriber
            .lines
            .iter()
            .map(|line| line.sent.clone())
            .collect();
        let local = Local {
            ice: &self.subscriber.transport.local,
            fingerprint: context.host.fingerprint,
            candidates: &context.host.candidates,
            version: self.subscriber.version,
        };
        let sdp = sdp::offer(&local, &sections);
        let (id, first) = (self.subscriber.offer, self.subscriber.offer == 1);
        self.send(
            context,
            Response::Offer(proto::SessionDescription {
                r#type: "offer".into(),
                sdp,
                id,
                mid_to_track_id,
            }),
        );
        if first {
            self.trickle(context, Side::Subscriber);
        }
    }

    /// An answer of the client. Clients that do not count descriptions answer with id 0.
    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        description: &proto::SessionDescription,
    ) {
        if !self.subscriber.in_flight
            || (description.id != 0 && description.id != self.subscriber.offer)
        {
            return;
        }
        let Ok(answer) = Description::parse(&description.sdp) else {
            return context.counters.drop(Dropped::Description);
        };
        self.subscriber.in_flight = false;
        let known = self
            .subscriber
            .transport
            .remote
            .as_ref()
            .map(|(_, fingerprint)| *fingerprint);
        if known.is_some_and(|known| known != answer.fingerprint) {
            // One connection has one certificate.
            context.counters.drop(Dropped::Description);
            self.tell(
                context,
                ToRoster::MediaFailed {
                    closed: false,
                    unsupported: false,
                },
            );
            return;
        }
        self.subscriber
            .transport
            .set_remote(context, &answer.ice, answer.fingerprint);
        for index in 0..self.subscriber.lines.len() {
            let line = &mut self.subscriber.lines[index];
            if line.offered.is_none() {
                line.free = line.sent.track.is_none();
                continue;
            }
            if line.live.is_some() || line.track() != line.offered.as_deref() {
                continue;
            }
            let mid = line.sent.mid.clone();
            if let Some(section) = answer.sections.iter().find(|section| section.mid == mid) {
                self.forward(context, index, section);
            }
        }
        // Places became free.
        self.reconcile(context);
    }

    fn forward(&mut self, context: &mut Context<'_>, index: usize, section: &Section) {
        let id = SubscriptionId(context.id(self.id));
        let line = &mut self.subscriber.lines[index];
        let Some(track) = line.sent.track.clone() else {
            return;
        };
        let Some(remote) = self.remotes.get_mut(&track.track) else {
            return;
        };
        let payloads: Vec<_> = line
            .sent
            .payloads
            .iter()
            .filter_map(|binding| {
                let answered = section
                    .payloads
                    .iter()
                    .find(|other| other.payload_type == binding.payload_type)?;
                let mut binding = *binding;
                binding.rtx = binding.rtx.filter(|_| answered.rtx.is_some());
                Some(binding)
            })
            .collect();
        if section.rejected || !section.direction.receive || payloads.is_empty() {
            context.owners.remove(&id.0);
            let response = proto::SubscriptionResponse {
                track_sid: track.track,
                err: proto::SubscriptionError::SeCodecUnsupported as i32,
            };
            return self.send(context, Response::SubscriptionResponse(response));
        }
        line.live = Some(id);
        let offered = sdp::sent_extensions(line.sent.kind);
        context.command(Command::Subscribe(Box::new(Subscription {
            id,
            publication: media_core::ids::PublicationId(remote.track.publication),
            transport: self.subscriber.transport.id,
            mid: line.sent.mid.clone(),
            ssrc: track.ssrc,
            rtx_ssrc: track
                .rtx_ssrc
                .filter(|_| payloads.iter().any(|binding| binding.rtx.is_some())),
            payloads,
            extensions: both(offered, section.extensions),
        })));
        remote.announced = true;
        remote.paused = false;
        let sid = track.track;
        self.set_layers(context, &sid, true);
        self.tell(context, ToRoster::Subscribed { sid });
    }

    /// Brings the client's settings of a track to the shard.
    pub(super) fn set_layers(&mut self, context: &mut Context<'_>, sid: &str, fresh: bool) {
        let settings = self.settings.get(sid).copied().unwrap_or_default();
        let live = self
            .subscriber
            .lines
            .iter()
            .find(|line| line.track() == Some(sid))
            .and_then(|line| line.live);
        if let (Some(subscription), Some(remote)) = (live, self.remotes.get(sid)) {
            let wish = wish(&settings, &remote.track);
            // The shard begins with everything.
            if !fresh || wish != ALL {
                context.command(Command::SetLayers { subscription, wish });
            }
        }
        self.tell_wanted(context, sid);
    }

    /// Tells the roster which quality of a video this client wants, when that changed.
    fn tell_wanted(&mut self, context: &mut Context<'_>, sid: &str) {
        let settings = self.settings.get(sid).copied().unwrap_or_default();
        let Some(remote) = self.remotes.get_mut(sid) else {
            return;
        };
        if remote.track.kind != Kind::Video {
            return;
        }
        let wish = wish(&settings, &remote.track);
        let quality = (remote.announced && wish.enabled).then_some(wish.max_encoding.min(2));
        if remote.told != Some(quality) && !(remote.told.is_none() && quality.is_none()) {
            remote.told = Some(quality);
            self.tell(
                context,
                ToRoster::Wanted {
                    sid: sid.to_owned(),
                    quality,
                },
            );
        }
    }

    /// The shard forwards another layer, or none: the client hears of the latter.
    pub(super) fn forwarded(
        &mut self,
        context: &mut Context<'_>,
        subscription: SubscriptionId,
        encoding: Option<u8>,
    ) {
        let Some(sid) = self
            .subscriber
            .lines
            .iter()
            .find(|line| line.live == Some(subscription))
            .and_then(|line| line.track())
            .map(str::to_owned)
        else {
            return;
        };
        let disabled = self
            .settings
            .get(&sid)
            .is_some_and(|settings| settings.disabled);
        let Some(remote) = self.remotes.get_mut(&sid) else {
            return;
        };
        // What the client itself or the publisher's mute stopped is no news.
        let paused = encoding.is_none()
            && !disabled
            && !remote.track.muted
            && remote.track.kind == Kind::Video;
        if paused == remote.paused {
            return;
        }
        remote.paused = paused;
        let state = proto::StreamStateInfo {
            participant_sid: remote.track.publisher_sid.clone(),
            track_sid: sid,
            state: if paused {
                proto::StreamState::Paused
            } else {
                proto::StreamState::Active
            } as i32,
        };
        self.send(
            context,
            Response::StreamStateUpdate(proto::StreamStateUpdate {
                stream_states: vec![state],
            }),
        );
    }
}

const ALL: LayerWish = LayerWish {
    enabled: true,
    max_encoding: u8::MAX,
    max_temporal: u8::MAX,
};

/// The shard's form of what the client asked for.
fn wish(settings: &Settings, track: &RemoteTrack) -> LayerWish {
    let highest = track.encodings.saturating_sub(1);
    let wanted = if settings.width > 0 && settings.height > 0 {
        // The smallest layer that covers the picture on the screen; sides may be swapped.
        let (long, short) = (
            settings.width.max(settings.height),
            settings.width.min(settings.height),
        );
        let covers = |(width, height): &(u32, u32)| {
            *width.max(height) >= long && *width.min(height) >= short
        };
        track
            .layers
            .iter()
            .position(covers)
            .map_or(u8::MAX, |layer| layer as u8)
    } else {
        settings.quality.unwrap_or(u8::MAX)
    };
    let max_temporal = match settings.fps {
        0 => u8::MAX,
        fps if fps <= 8 => 0,
        fps if fps <= 16 => 1,
        _ => u8::MAX,
    };
    let max_encoding = if track.encodings > 1 && wanted < highest {
        wanted
    } else {
        u8::MAX
    };
    LayerWish {
        enabled: !settings.disabled,
        max_encoding,
        max_temporal,
    }
}

/// Extensions that both sides named, under the offered ids.
fn both(offered: ExtensionMap, answered: ExtensionMap) -> ExtensionMap {
    let keep =
        |one: ExtensionId, other: ExtensionId| if one == other { one } else { ExtensionId(0) };
    ExtensionMap {
        mid: keep(offered.mid, answered.mid),
        rid: keep(offered.rid, answered.rid),
        repaired_rid: keep(offered.repaired_rid, answered.repaired_rid),
        audio_level: keep(offered.audio_level, answered.audio_level),
        transport_cc: keep(offered.transport_cc, answered.transport_cc),
        abs_send_time: keep(offered.abs_send_time, answered.abs_send_time),
        video_orientation: keep(offered.video_orientation, answered.video_orientation),
        playout_delay: keep(offered.playout_delay, answered.playout_delay),
        dependency_descriptor: keep(
            offered.dependency_descriptor,
            answered.dependency_descriptor,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(layers: &[(u32, u32)]) -> RemoteTrack {
        RemoteTrack {
            sid: "TR_1".into(),
            publisher: MemberId(1),
            publisher_sid: "PA_1".into(),
            publication: 1,
            kind: Kind::Video,
            formats: Vec::new(),
            stream: String::new(),
            muted: false,
            layers: layers.to_vec(),
            encodings: layers.len() as u8,
            allowed: true,
        }
    }

    #[test]
    fn the_smallest_layer_that_covers_the_picture_is_wanted() {
        let track = track(&[(320, 180), (640, 360), (1280, 720)]);
        let at = |width, height| {
            wish(
                &Settings {
                    width,
                    height,
                    ..Settings::default()
                },
                &track,
            )
            .max_encoding
        };
        assert_eq!(at(160, 90), 0);
        assert_eq!(at(320, 180), 0);
        assert_eq!(at(180, 320), 0, "portrait");
        assert_eq!(at(321, 180), 1);
        assert_eq!(at(1280, 720), u8::MAX);
        assert_eq!(at(4000, 3000), u8::MAX);
    }

    #[test]
    fn a_low_quality_is_the_lowest_layer_and_one_layer_is_always_had() {
        let low = Settings {
            quality: Some(0),
            ..Settings::default()
        };
        assert_eq!(
            wish(&low, &track(&[(320, 180), (640, 360)])).max_encoding,
            0
        );
        assert_eq!(wish(&low, &track(&[(1280, 720)])).max_encoding, u8::MAX);
    }
}
