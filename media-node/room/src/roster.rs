// SPDX-License-Identifier: EUPL-1.2
//! The room itself: who is in, what they may do, which tracks there are, who gets which data, when it ends. It reaches participants
//! only by [`crate::link`].

mod admin;
mod data;
mod events;
mod join;
mod leaving;
mod lobby;
mod notice;
mod signals;
mod tracks;
mod updates;

use std::collections::{BTreeMap, VecDeque};

use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::Command;
use media_core::ids::RoomIndex;
use media_core::time::{Timestamp, WallAnchor};
use serde::{Deserialize, Serialize};

use crate::api::{ChatRule, Entropy, Facts, Grants, Output, Policy, Role, RoomReport, SessionId};
use crate::counters::Counters;
use crate::limits::{ADMITTED_MAX, REVOKED_MAX, ROLE_CHANGES_MAX};
use crate::link::{Client, MemberId, RemoteTrack, ToPeer, Wire};
use crate::permissions::Effective;
use crate::random;
pub(crate) use leaving::Farewell;
use lobby::Waiting;
pub(crate) use tracks::Track;

/// What the roster sends down.
#[derive(Debug)]
pub(crate) enum Down {
    /// To one.
    One(MemberId, ToPeer),
    /// The same to many.
    Many(Vec<MemberId>, ToPeer),
}

/// What the roster may use while it handles something.
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) entropy: &'a mut (dyn Entropy + Send),
    pub(crate) next_member: &'a mut u32,
    pub(crate) out: &'a mut VecDeque<Output>,
    pub(crate) down: &'a mut VecDeque<Down>,
    pub(crate) counters: &'a mut Counters,
}

impl Context<'_> {
    fn send(&mut self, member: MemberId, message: ToPeer) {
        self.down.push_back(Down::One(member, message));
    }

    fn respond(&mut self, member: MemberId, message: Response) {
        self.send(
            member,
            ToPeer::Send(Wire(proto::SignalResponse {
                message: Some(message),
            })),
        );
    }
}

/// A participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) sid: String,
    pub(crate) identity: String,
    pub(crate) name: String,
    metadata: String,
    attributes: BTreeMap<String, String>,
    grants: Grants,
    pub(crate) role: Option<Role>,
    guest: bool,
    opener: bool,
    kind: i32,
    client: Client,
    client_protocol: i32,
    capabilities: Vec<i32>,
    token_issued_unix_s: i64,
    state: i32,
    version: u32,
    joined: Timestamp,
    joined_unix_ms: i64,
    tracks: Vec<Track>,
    pub(crate) session: Option<SessionId>,
    ever_active: bool,
    media_alive: bool,
    /// Gone by itself at this time, and why.
    deadline: Option<(Timestamp, Farewell)>,
    token_due: Timestamp,
    last_sequence: u32,
    /// Streams of data whose kind is remembered: id, and whether they go where their chunks say.
    streams: VecDeque<(String, data::Route)>,
    nonces: VecDeque<Vec<u8>>,
    /// Who may have this participant's tracks; `None` = everybody.
    sharing: Option<tracks::Sharing>,
    quality: Option<(i32, f32)>,
    dirty: bool,
}

/// The room.
pub(crate) struct Roster {
    name: String,
    index: RoomIndex,
    site: String,
    node_id: String,
    policy: Policy,
    pub(crate) facts: Facts,
    wall: WallAnchor,
    sif_trailer: Vec<u8>,
    opened_at: Option<Timestamp>,
    /// The room came from another node, with people on their way back.
    restored_at: Option<Timestamp>,
    pub(crate) members: BTreeMap<MemberId, Member>,
    knocks: Vec<Waiting>,
    /// Nobody is here since.
    empty_since: Option<Timestamp>,
    anybody_ever: bool,
    pub(crate) ended: Option<&'static str>,
    events: u64,
    updates_due: Option<Timestamp>,
    quality_due: Option<Timestamp>,
    reported: Option<RoomReport>,
    counts_told: (u32, u32),
    counts_due: Option<Timestamp>,
    speaking: BTreeMap<MemberId, (f32, bool)>,
    departures: VecDeque<(Timestamp, proto::ParticipantInfo)>,
    /// When everybody was told that the room moves.
    moves_at_unix_ms: Option<u64>,
    /// When everybody was told that maintenance of the node begins.
    maintenance_at_unix_ms: Option<u64>,
}

impl Roster {
    pub(crate) fn new(context: &mut Context<'_>, config: crate::api::RoomConfig) -> Self {
        let mut facts = config.facts;
        let fresh = facts.created_unix_ms == 0;
        if facts.room_sid.is_empty() {
            facts.room_sid = format!("RM_{}", random::name(context.entropy, 14));
        }
        if !config.policy.declared {
            facts.opened = true;
        }
        let mut sif_trailer = vec![0; 16];
        context.entropy.fill(&mut sif_trailer);
        let mut roster = Self {
            name: config.name,
            index: config.index,
            site: config.site,
            node_id: config.node_id,
            policy: config.policy,
            facts,
            wall: config.wall,
            sif_trailer,
            opened_at: None,
            restored_at: (!fresh).then_some(context.now),
            members: BTreeMap::new(),
            knocks: Vec::new(),
            empty_since: Some(context.now),
            anybody_ever: false,
            ended: None,
            events: 0,
            updates_due: None,
            quality_due: None,
            reported: None,
            counts_told: (0, 0),
            counts_due: None,
            speaking: BTreeMap::new(),
            departures: VecDeque::new(),
            moves_at_unix_ms: None,
            maintenance_at_unix_ms: None,
        };
        context
            .out
            .push_back(Output::Media(Command::AddRoom { room: roster.index }));
        if roster.facts.opened {
            roster.opened_at = Some(context.now);
            context.out.push_back(Output::Media(Command::SetGate {
                room: roster.index,
                open: true,
            }));
            if fresh {
                roster.begin(context);
            }
        }
        roster
    }

    /// The first opening: the room begins to exist for others.
    fn begin(&mut self, context: &mut Context<'_>) {
        if self.facts.created_unix_ms == 0 {
            self.facts.created_unix_ms = self.unix_ms(context.now);
            self.event(context, "room_started", None, None);
        }
    }

    fn open(&mut self, context: &mut Context<'_>) {
        if !self.facts.opened {
            self.facts.opened = true;
            self.opened_at = Some(context.now);
            context.out.push_back(Output::Media(Command::SetGate {
                room: self.index,
                open: true,
            }));
            self.begin(context);
            self.reconsider_lobby(context);
        }
    }

    pub(crate) fn unix_ms(&self, now: Timestamp) -> u64 {
        self.wall
            .unix_nanos
            .saturating_add(now.as_nanos())
            .saturating_sub(self.wall.at.as_nanos())
            / 1_000_000
    }

    fn unix_s(&self, now: Timestamp) -> i64 {
        (self.unix_ms(now) / 1000) as i64
    }

    fn effective(&self, member: &Member) -> Effective {
        Effective::new(&member.grants, member.role, member.guest, &self.policy)
    }

    fn by_identity(&self, identity: &str) -> Option<MemberId> {
        self.members
            .values()
            .find(|member| member.identity == identity)
            .map(|member| member.id)
    }

    /// May this member be counted and shown?
    fn counts(member: &Member) -> bool {
        !member.grants.hidden && !member.grants.recorder && !member.grants.agent
    }

    fn participants(&self) -> u32 {
        self.members
            .values()
            .filter(|member| Self::counts(member))
            .count() as u32
    }

    fn publishers(&self) -> u32 {
        self.members
            .values()
            .filter(|member| !member.tracks.is_empty())
            .count() as u32
    }

    fn room_info(&self) -> proto::Room {
        proto::Room {
            sid: self.facts.room_sid.clone(),
            name: self.name.clone(),
            empty_timeout: (self.policy.empty_timeout_ms / 1000) as u32,
            departure_timeout: (self.policy.departure_timeout_ms / 1000) as u32,
            max_participants: self.policy.max_participants,
            creation_time: (self.facts.created_unix_ms / 1000) as i64,
            creation_time_ms: self.facts.created_unix_ms as i64,
            enabled_codecs: self.enabled_codecs(),
            metadata: self.facts.metadata.clone(),
            num_participants: self.participants(),
            num_publishers: self.publishers(),
            ..Default::default()
        }
    }

    /// Video first, VP8 and H.264 in front of it.
    fn enabled_codecs(&self) -> Vec<proto::Codec> {
        [
            "video/VP8",
            "video/H264",
            "video/VP9",
            "video/AV1",
            "audio/opus",
            "audio/red",
            "video/rtx",
        ]
        .into_iter()
        .filter(|mime| {
            let name = mime.rsplit('/').next().unwrap_or_default();
            name == "rtx" || self.codec_enabled(name)
        })
        .map(|mime| proto::Codec {
            mime: mime.to_owned(),
            fmtp_line: String::new(),
        })
        .collect()
    }

    fn codec_enabled(&self, name: &str) -> bool {
        crate::sdp::codec_of(name)
            .is_some_and(|codec| crate::sdp::is_enabled(&self.policy.codecs, codec))
    }

    pub(crate) fn info(&self, member: &Member) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: member.sid.clone(),
            identity: member.identity.clone(),
            state: member.state,
            tracks: member
                .tracks
                .iter()
                .map(|track| track.info.0.clone())
                .collect(),
            metadata: member.metadata.clone(),
            joined_at: member.joined_unix_ms / 1000,
            joined_at_ms: member.joined_unix_ms,
            name: member.name.clone(),
            version: member.version,
            permission: Some(self.effective(member).to_proto(&member.grants)),
            region: self.site.clone(),
            is_publisher: !member.tracks.is_empty(),
            kind: member.kind,
            attributes: self.told_attributes(member).into_iter().collect(),
            client_protocol: member.client_protocol,
            capabilities: member.capabilities.clone(),
            ..Default::default()
        }
    }

    /// Own attributes, and who reads what the member writes where not everybody does: a page that kept silent about it would mislead.
    fn told_attributes(&self, member: &Member) -> BTreeMap<String, String> {
        let mut attributes = member.attributes.clone();
        let rule = match self.effective(member).chat {
            ChatRule::Everyone => return attributes,
            ChatRule::Moderators => "Moderators",
            ChatRule::Off => "Off",
        };
        attributes.insert(join::CHAT.to_owned(), rule.to_owned());
        attributes
    }

    fn remote_track(
        &self,
        publisher: &Member,
        track: &Track,
        receiver: &Member,
    ) -> Option<RemoteTrack> {
        // Nobody could say whose track that is.
        let bound = track.bound.as_ref().filter(|_| !publisher.grants.hidden)?;
        Some(RemoteTrack {
            sid: track.info.0.sid.clone(),
            publisher: publisher.id,
            publisher_sid: publisher.sid.clone(),
            publication: bound.publication,
            kind: track.kind(),
            formats: bound.formats.clone(),
            stream: track.info.0.stream.clone(),
            muted: track.info.0.muted,
            layers: track.layers(),
            encodings: bound.encodings,
            allowed: publisher
                .sharing
                .as_ref()
                .is_none_or(|sharing| sharing.allows(receiver, &track.info.0.sid))
                || receiver.grants.recorder,
        })
    }

    /// Reports facts and counts when they changed.
    pub(crate) fn report(&mut self, context: &mut Context<'_>) {
        for (list, max) in [
            (self.facts.revoked.len(), REVOKED_MAX),
            (self.facts.admitted.len(), ADMITTED_MAX),
        ] {
            debug_assert!(list <= max, "invariant: facts are bounded where they grow");
        }
        let (participants, publishers) = (self.participants(), self.publishers());
        let lobby = self.knocks.len() as u32;
        // Facts may be long: they are copied only when something changed.
        let unchanged = self.reported.as_ref().is_some_and(|before| {
            (before.participants, before.publishers, before.lobby)
                == (participants, publishers, lobby)
                && before.policy_revision == self.policy.revision
                && before.facts == self.facts
        });
        if unchanged {
            return;
        }
        let report = RoomReport {
            participants,
            publishers,
            lobby,
            facts: self.facts.clone(),
            policy_revision: self.policy.revision.clone(),
        };
        self.reported = Some(report.clone());
        context.out.push_back(Output::Report(Box::new(report)));
    }

    fn remember_role(&mut self, identity: &str, role: Role) {
        self.facts
            .role_changes
            .retain(|(other, _)| other != identity);
        if self.facts.role_changes.len() >= ROLE_CHANGES_MAX {
            self.facts.role_changes.remove(0);
        }
        self.facts.role_changes.push((identity.to_owned(), role));
    }

    fn admit(&mut self, identity: &str) {
        if self.facts.admitted.iter().any(|other| other == identity) {
            return;
        }
        if self.facts.admitted.len() >= ADMITTED_MAX {
            self.facts.admitted.remove(0);
        }
        self.facts.admitted.push(identity.to_owned());
    }

    /// The declared policy changed: live fields take effect.
    pub(crate) fn policy(&mut self, context: &mut Context<'_>, policy: Policy) {
        let declared = self.policy.declared;
        self.policy = policy;
        // A room does not change its sort while it lives.
        self.policy.declared = declared;
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.permissions_changed(context, id);
        }
        self.reconsider_lobby(context);
    }

    pub(crate) fn timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let is_due = |at: Timestamp| at <= now;
        let due: Vec<_> = self
            .members
            .values()
            .filter_map(|member| {
                member
                    .deadline
                    .filter(|(at, _)| is_due(*at))
                    .map(|(_, farewell)| (member.id, farewell))
            })
            .collect();
        for (id, farewell) in due {
            self.remove(context, id, farewell);
        }
        let tokens: Vec<_> = self
            .members
            .values()
            .filter(|member| is_due(member.token_due))
            .map(|member| member.id)
            .collect();
        for id in tokens {
            self.token_facts(context, id);
        }
        self.updates_timeout(context);
        self.wanted_timeout(context);
        if let Some(at) = self.end_deadline()
            && is_due(at)
        {
            let limit = self.duration_deadline().is_some_and(is_due);
            self.finish(
                context,
                if limit { "MaxDuration" } else { "Empty" },
                proto::DisconnectReason::RoomClosed,
            );
        }
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let members = self.members.values().flat_map(|member| {
            let wanted = member.tracks.iter().filter_map(|track| track.wanted_due);
            member
                .deadline
                .map(|(at, _)| at)
                .into_iter()
                .chain([member.token_due])
                .chain(wanted)
        });
        members
            .chain(self.updates_due)
            .chain(self.quality_due)
            .chain(self.counts_due)
            .chain(self.end_deadline())
            .min()
    }

    fn duration_deadline(&self) -> Option<Timestamp> {
        let opened = self.opened_at.filter(|_| self.policy.max_duration_ms > 0)?;
        // Over a fail-over the time since the beginning goes on.
        let created = self.facts.created_unix_ms;
        let already = self.unix_ms(opened).saturating_sub(if created == 0 {
            self.unix_ms(opened)
        } else {
            created
        });
        Some(
            opened
                + std::time::Duration::from_millis(
                    self.policy.max_duration_ms.saturating_sub(already),
                ),
        )
    }

    fn end_deadline(&self) -> Option<Timestamp> {
        let empty = self
            .empty_since
            .filter(|_| self.knocks.is_empty())
            .map(|since| {
                let limit = if self.anybody_ever {
                    self.policy.departure_timeout_ms
                } else {
                    self.policy.empty_timeout_ms
                };
                since + std::time::Duration::from_millis(limit)
            });
        empty.into_iter().chain(self.duration_deadline()).min()
    }
}

const ACTIVE: i32 = State::Active as i32;
const JOINED: i32 = State::Joined as i32;
const DISCONNECTED: i32 = State::Disconnected as i32;
