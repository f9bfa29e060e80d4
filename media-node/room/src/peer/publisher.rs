// SPDX-License-Identifier: EUPL-1.2
//! The connection on which the client publishes: it offers, the peer answers and declares to the shard what was granted.

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::{Codec, Command, Format, Kind, PayloadBinding, Publication, Side};
use media_core::ids::PublicationId;
use serde::{Deserialize, Serialize};

use super::{Context, Peer, Transport};
use crate::counters::Dropped;
use crate::limits::{OFFER_BYTES_MAX, OFFER_SECTIONS_MAX};
use crate::link::{BoundTrack, GrantedTrack, ToRoster, Wire};
use crate::sdp::{self, Description, Local, Section, Taken, is_received};

/// Bytes of a `mid` that the shard takes.
const MID_BYTES_MAX: usize = 16;

/// A granted track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Published {
    grant: GrantedTrack,
    muted: bool,
    /// Muted on entry. The client is told with its first packet: browsers' SDKs ignore a mute of a track whose publication is not
    /// complete, and answer an update that says so with an unmute.
    untold: bool,
    bound: Option<(PublicationId, Section)>,
    codec: Option<Format>,
}

/// State of the connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Publisher {
    pub(super) transport: Option<Transport>,
    version: u64,
    offer: Option<Description>,
    /// What was answered per section of `offer`.
    answered: Vec<Vec<PayloadBinding>>,
    tracks: Vec<Published>,
}

impl Publisher {
    pub(super) fn first_mid(&self) -> String {
        self.offer
            .as_ref()
            .and_then(|offer| offer.sections.first())
            .map(|section| section.mid.clone())
            .unwrap_or_default()
    }
}

impl Peer {
    /// The room granted a track: the client is told at once, its description may be there already.
    pub(super) fn granted(&mut self, context: &mut Context<'_>, grant: GrantedTrack) {
        let track = grant.info.0.clone();
        let (muted, untold) = (track.muted || grant.on_entry, grant.on_entry);
        self.send(
            context,
            Response::TrackPublished(proto::TrackPublishedResponse {
                cid: grant.cid.clone(),
                track: Some(track),
            }),
        );
        self.publisher.tracks.push(Published {
            grant,
            muted,
            untold,
            bound: None,
            codec: None,
        });
        self.bind(context);
    }

    pub(super) fn unpublish(&mut self, context: &mut Context<'_>, sid: &str, tell: bool) {
        let Some(at) = self
            .publisher
            .tracks
            .iter()
            .position(|track| track.grant.info.0.sid == sid)
        else {
            return;
        };
        let track = self.publisher.tracks.remove(at);
        if let Some((publication, _)) = track.bound {
            context.command(Command::Unpublish { publication });
        }
        if tell {
            self.send(
                context,
                Response::TrackUnpublished(proto::TrackUnpublishedResponse {
                    track_sid: sid.to_owned(),
                }),
            );
        }
    }

    pub(super) fn set_muted(
        &mut self,
        context: &mut Context<'_>,
        sid: &str,
        muted: bool,
        tell: bool,
    ) {
        let Some(track) = self
            .publisher
            .tracks
            .iter_mut()
            .find(|track| track.grant.info.0.sid == sid)
        else {
            return;
        };
        track.muted = muted;
        track.untold = false;
        if let Some((publication, _)) = &track.bound {
            context.command(Command::SetMuted {
                publication: *publication,
                muted,
            });
        }
        if tell {
            self.send(
                context,
                Response::Mute(proto::MuteTrackRequest {
                    sid: sid.to_owned(),
                    muted,
                }),
            );
        }
    }

    pub(super) fn codec_seen(
        &mut self,
        context: &mut Context<'_>,
        publication: PublicationId,
        format: Format,
    ) {
        let Some(track) = self.publisher.tracks.iter_mut().find(|track| {
            track
                .bound
                .as_ref()
                .is_some_and(|(id, _)| *id == publication)
        }) else {
            return;
        };
        let sid = track.grant.info.0.sid.clone();
        let (changed, untold) = (
            track.codec != Some(format),
            std::mem::take(&mut track.untold),
        );
        track.codec = Some(format);
        if untold {
            self.send(
                context,
                Response::Mute(proto::MuteTrackRequest {
                    sid: sid.clone(),
                    muted: true,
                }),
            );
            self.tell(
                context,
                ToRoster::Mute {
                    sid: sid.clone(),
                    muted: true,
                },
            );
        }
        if changed {
            self.tell(context, ToRoster::Codec { sid, format });
        }
    }

    /// An offer of the client.
    pub(super) fn offer(
        &mut self,
        context: &mut Context<'_>,
        description: &proto::SessionDescription,
    ) {
        if description.sdp.len() > OFFER_BYTES_MAX {
            return context.counters.drop(Dropped::Description);
        }
        let offer = match Description::parse(&description.sdp) {
            Ok(offer)
                if description.r#type == "offer" && offer.sections.len() <= OFFER_SECTIONS_MAX =>
            {
                offer
            }
            _ => return context.counters.drop(Dropped::Description),
        };
        let replaced = self.publisher.transport.as_ref().is_some_and(|transport| {
            transport
                .remote
                .as_ref()
                .is_some_and(|(_, fingerprint)| *fingerprint != offer.fingerprint)
        });
        if replaced {
            self.drop_connection(context);
        }
        match &mut self.publisher.transport {
            Some(transport) => {
                if transport
                    .remote
                    .as_ref()
                    .is_some_and(|(ice, _)| *ice != offer.ice)
                {
                    transport.restart(context);
                }
                transport.set_remote(context, &offer.ice, offer.fingerprint);
            }
            None => {
                let mut transport = Transport::new(context, self.id, Side::Publisher);
                transport.set_remote(context, &offer.ice, offer.fingerprint);
                self.publisher.transport = Some(transport);
            }
        }
        self.publisher.answered.clear();
        self.publisher.offer = Some(offer);
        self.bind(context);
        self.answer(context, description.id);
    }

    /// Another certificate is another connection: nothing of the old one is left.
    fn drop_connection(&mut self, context: &mut Context<'_>) {
        if let Some(transport) = self.publisher.transport.take() {
            for track in &mut self.publisher.tracks {
                if let Some((publication, _)) = track.bound.take() {
                    context.command(Command::Unpublish { publication });
                }
            }
            context.command(Command::RemoveTransport {
                transport: transport.id,
            });
        }
        self.told_alive(context);
    }

    /// Matches granted tracks with the sections of the last offer.
    fn bind(&mut self, context: &mut Context<'_>) {
        let (Some(offer), Some(transport)) = (
            self.publisher.offer.take(),
            self.publisher.transport.as_ref().map(|own| own.id),
        ) else {
            return;
        };
        let sends = |section: &&Section| {
            is_received(section) && !section.mid.is_empty() && section.mid.len() <= MID_BYTES_MAX
        };
        let mut ended = Vec::new();
        let mut publish = Vec::new();
        // What is bound stays bound to its mid as long as the client sends there.
        for track in &mut self.publisher.tracks {
            let Some((_, before)) = &track.bound else {
                continue;
            };
            let kind = kind_of(&track.grant);
            match offer
                .sections
                .iter()
                .filter(sends)
                .find(|section| section.mid == before.mid && section.kind == Some(kind))
            {
                Some(section) if section == before => {}
                Some(section) => publish.push((track.grant.info.0.sid.clone(), section.clone())),
                None => ended.push(track.grant.info.0.sid.clone()),
            }
        }
        let mut taken: Vec<String> = self
            .publisher
            .tracks
            .iter()
            .filter(|track| !ended.contains(&track.grant.info.0.sid))
            .filter_map(|track| track.bound.as_ref().map(|(_, section)| section.mid.clone()))
            .collect();
        // The msid names the client's id; where it does not (some browsers make their own), the newest section of the kind is meant.
        for by_name in [true, false] {
            for track in self
                .publisher
                .tracks
                .iter()
                .filter(|track| track.bound.is_none())
            {
                let sid = &track.grant.info.0.sid;
                if publish.iter().any(|(other, _)| other == sid) {
                    continue;
                }
                let kind = kind_of(&track.grant);
                let found = offer.sections.iter().rev().filter(sends).find(|section| {
                    section.kind == Some(kind)
                        && !taken.contains(&section.mid)
                        && (!by_name
                            || section
                                .msid
                                .as_ref()
                                .is_some_and(|(_, cid)| *cid == track.grant.cid))
                });
                if let Some(section) = found {
                    taken.push(section.mid.clone());
                    publish.push((sid.clone(), section.clone()));
                }
            }
        }
        for sid in ended {
            self.unpublish(context, &sid, false);
            self.tell(context, ToRoster::Ended { sid });
        }
        for (sid, section) in publish {
            let answered = offer
                .sections
                .iter()
                .position(|other| *other == section)
                .and_then(|at| self.publisher.answered.get(at));
            let Some(track) = self
                .publisher
                .tracks
                .iter()
                .find(|track| track.grant.info.0.sid == sid)
            else {
                continue;
            };
            let payloads = answered
                .cloned()
                .unwrap_or_else(|| payloads(&section, Some(&track.grant), &self.codecs));
            self.publish(context, transport, &sid, section, payloads);
        }
        self.publisher.offer = Some(offer);
    }

    fn publish(
        &mut self,
        context: &mut Context<'_>,
        transport: media_core::ids::TransportId,
        sid: &str,
        section: Section,
        payloads: Vec<PayloadBinding>,
    ) {
        let owner = self.id;
        let Some(track) = self
            .publisher
            .tracks
            .iter_mut()
            .find(|track| track.grant.info.0.sid == sid)
        else {
            return;
        };
        if payloads.is_empty() {
            return;
        }
        // A declaration may be replaced as long as the layers stay as many.
        let kept = match track.bound.take() {
            Some((publication, before)) if before.encodings.len() == section.encodings.len() => {
                Some(publication)
            }
            Some((publication, _)) => {
                context.command(Command::Unpublish { publication });
                None
            }
            None => None,
        };
        let publication = kept.unwrap_or_else(|| PublicationId(context.id(owner)));
        context.command(Command::Publish(Box::new(Publication {
            id: publication,
            transport,
            kind: kind_of(&track.grant),
            mid: section.mid.clone(),
            encodings: section.encodings.clone(),
            payloads: payloads.clone(),
            extensions: section.extensions,
        })));
        if kept.is_none() && track.muted {
            context.command(Command::SetMuted {
                publication,
                muted: true,
            });
        }
        let bound = BoundTrack {
            sid: sid.to_owned(),
            publication: publication.0,
            mid: section.mid.clone(),
            formats: payloads.iter().map(|binding| binding.format).collect(),
            encodings: section.encodings.len() as u8,
        };
        track.bound = Some((publication, section));
        self.tell(context, ToRoster::Bound(bound));
    }

    fn answer(&mut self, context: &mut Context<'_>, id: u32) {
        let (Some(offer), Some(transport)) = (&self.publisher.offer, &self.publisher.transport)
        else {
            return;
        };
        let taken: Vec<Taken> = offer
            .sections
            .iter()
            .map(|section| {
                let track = self.publisher.tracks.iter().find(|track| {
                    track
                        .bound
                        .as_ref()
                        .is_some_and(|(_, bound)| bound.mid == section.mid)
                        && section.kind.is_some()
                });
                let opus = match track {
                    Some(track) if track.grant.stereo && track.grant.dtx => {
                        "usedtx=1;stereo=1;maxaveragebitrate=510000"
                    }
                    Some(track) if track.grant.stereo => "stereo=1;maxaveragebitrate=510000",
                    Some(track) if track.grant.dtx => "usedtx=1",
                    _ => "",
                };
                Taken {
                    payloads: payloads(section, track.map(|track| &track.grant), &self.codecs),
                    opus,
                }
            })
            .collect();
        self.publisher.version += 1;
        let local = Local {
            ice: &transport.local,
            fingerprint: context.host.fingerprint,
            candidates: &context.host.candidates,
            version: self.publisher.version,
        };
        let sdp = sdp::answer(offer, &local, &taken);
        let first = self.publisher.version == 1;
        self.publisher.answered = taken.into_iter().map(|taken| taken.payloads).collect();
        self.send(
            context,
            Response::Answer(proto::SessionDescription {
                r#type: "answer".into(),
                sdp,
                id,
                ..Default::default()
            }),
        );
        if first {
            self.trickle(context, Side::Publisher);
        }
    }

    /// SIDs of the tracks that were granted.
    pub(super) fn granted_sids(&self) -> Vec<String> {
        self.publisher
            .tracks
            .iter()
            .map(|track| track.grant.info.0.sid.clone())
            .collect()
    }

    /// Is this id of the client in use?
    pub(super) fn has_cid(&self, cid: &str) -> bool {
        self.publisher
            .tracks
            .iter()
            .any(|track| track.grant.cid == cid)
    }

    /// How many granted tracks wait for a description?
    pub(super) fn pending_tracks(&self) -> usize {
        self.publisher
            .tracks
            .iter()
            .filter(|track| track.bound.is_none())
            .count()
    }

    /// The client's own mute: nothing is forwarded from now on, then the room hears of it.
    pub(super) fn client_mute(
        &mut self,
        context: &mut Context<'_>,
        request: proto::MuteTrackRequest,
    ) {
        if self
            .publisher
            .tracks
            .iter()
            .any(|track| track.grant.info.0.sid == request.sid)
        {
            self.set_muted(context, &request.sid, request.muted, false);
            self.tell(
                context,
                ToRoster::Mute {
                    sid: request.sid,
                    muted: request.muted,
                },
            );
        } else {
            context.counters.drop(Dropped::NotAllowed);
        }
    }
}

fn kind_of(grant: &GrantedTrack) -> Kind {
    let Wire(info) = &grant.info;
    if info.r#type == proto::TrackType::Audio as i32 {
        Kind::Audio
    } else {
        Kind::Video
    }
}

/// Payload types that are taken of a section, in order of preference.
fn payloads(
    section: &Section,
    grant: Option<&GrantedTrack>,
    enabled: &[String],
) -> Vec<PayloadBinding> {
    let mut payloads: Vec<PayloadBinding> = section
        .payloads
        .iter()
        .filter(|binding| sdp::is_enabled(enabled, binding.format.codec))
        .copied()
        .collect();
    let Some(grant) = grant else { return payloads };
    match section.kind {
        Some(Kind::Audio) if grant.disable_red => {
            payloads.retain(|binding| binding.format.codec != Codec::Red)
        }
        // RED first; where a browser does not know it, it is not in the section.
        Some(Kind::Audio) => payloads.sort_by_key(|binding| binding.format.codec != Codec::Red),
        _ => {
            if let Some(codec) = grant.codec
                && payloads.iter().any(|binding| binding.format.codec == codec)
            {
                payloads.retain(|binding| binding.format.codec == codec);
            }
        }
    }
    payloads
}
