// SPDX-License-Identifier: EUPL-1.2
//! Who enters: a first join, a resume, a second connection of the same identity.

use std::collections::{BTreeMap, VecDeque};

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::{Kind as ParticipantKind, State};
use livekit_protocol::signal_response::Message as Response;
use prost::Message as _;

use super::{Context, Farewell, Member, Roster};
use crate::api::{
    ClientParameters, JoinRefusal, LobbyRule, Output, Role, SessionId, SessionStart, TokenFacts,
};
use crate::limits::{
    ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, BECOME_ACTIVE, METADATA_BYTES_MAX, NAME_BYTES_MAX,
    PARTICIPANTS_MAX, TOKEN_REFRESH,
};
use crate::link::{Client, MemberId, Start, ToPeer, Wire};
use crate::random;
use crate::signal;

/// Attribute with the role, written by the server only.
pub(crate) const ROLE: &str = "plenum.role";
/// Attribute of guests, written by the server only.
pub(crate) const GUEST: &str = "plenum.guest";
/// Attribute of a raised hand, written by its owner.
pub(crate) const HAND: &str = "plenum.hand";
/// Attribute of who reads what its owner writes, where not everybody does; written by the server only.
pub(crate) const CHAT: &str = "plenum.chat";
/// Attributes of the server.
pub(crate) const RESERVED: &str = "plenum.";

/// Seconds between a client's pings, and until it gives a silent server up.
const PING: (i32, i32) = (5, 15);
/// LiveKit's version whose behaviour is announced; above 1.13.6 clients would publish simulcast of VP9 and AV1.
pub(crate) const VERSION: &str = "1.13.6";
/// Signalling protocol that is announced.
pub(crate) const PROTOCOL: i32 = 17;

impl Roster {
    /// A WebSocket came. The member it belongs to, unless it was refused.
    pub(crate) fn session_start(
        &mut self,
        context: &mut Context<'_>,
        session: SessionId,
        start: SessionStart,
    ) -> Option<MemberId> {
        if start.reconnect {
            return self.resume(context, session, &start);
        }
        if let Err(refusal) = self.admission(&start) {
            context.out.push_back(Output::Refused { session, refusal });
            return None;
        }
        Some(self.join(context, session, start))
    }

    /// Everything that may keep somebody out. The order is that of certainty: what will not pass comes first.
    fn admission(&self, start: &SessionStart) -> Result<(), JoinRefusal> {
        if self.ended.is_some() {
            return Err(JoinRefusal::Closing);
        }
        if !start.grants.room_join || start.identity.is_empty() {
            return Err(JoinRefusal::NotGranted);
        }
        if self.is_revoked(&start.identity, start.token_issued_unix_s) {
            return Err(JoinRefusal::Revoked);
        }
        if start.guest && !self.policy.guests_allowed {
            return Err(JoinRefusal::GuestsNotAllowed);
        }
        if !self.facts.opened && !start.opener {
            return Err(JoinRefusal::NotOpened);
        }
        let role = self.role_of(&start.identity, start.role);
        let moderates = start.opener || (role == Some(Role::Moderator) && !start.guest);
        let present = self.by_identity(&start.identity).is_some();
        let admitted = present || self.facts.admitted.contains(&start.identity);
        if self.facts.locked && !moderates && !admitted {
            return Err(JoinRefusal::Locked);
        }
        let waits = match self.policy.lobby {
            LobbyRule::Off => false,
            LobbyRule::Guests => start.guest,
            LobbyRule::Everyone => true,
        };
        if self.policy.declared && waits && !moderates && !admitted {
            return Err(JoinRefusal::NotAdmitted);
        }
        let counted = !start.grants.hidden && !start.grants.recorder && !start.grants.agent;
        let limit = match self.policy.max_participants {
            0 => PARTICIPANTS_MAX,
            limit => (limit as usize).min(PARTICIPANTS_MAX),
        };
        if !present
            && (self.members.len() >= PARTICIPANTS_MAX
                || (counted && self.participants() as usize >= limit))
        {
            return Err(JoinRefusal::RoomFull);
        }
        Ok(())
    }

    pub(super) fn is_revoked(&self, identity: &str, issued: i64) -> bool {
        self.facts.revoked.iter().any(|revocation| {
            revocation.identity == identity && issued <= revocation.not_before_unix_s
        })
    }

    /// The role that was given in the room comes before that of the token.
    fn role_of(&self, identity: &str, token: Option<Role>) -> Option<Role> {
        token.map(|token| {
            self.facts
                .role_changes
                .iter()
                .find(|(other, _)| other == identity)
                .map_or(token, |(_, changed)| *changed)
        })
    }

    fn join(
        &mut self,
        context: &mut Context<'_>,
        session: SessionId,
        mut start: SessionStart,
    ) -> MemberId {
        if !start.client.publish_only_suffix.is_empty() {
            // An extra connection that publishes and receives nothing.
            start.identity = format!(
                "{}#{}",
                start.identity,
                bounded(start.client.publish_only_suffix.clone(), 64)
            );
            start.grants.can_subscribe = false;
        }
        if let Some(old) = self.by_identity(&start.identity) {
            self.remove(context, old, Farewell::DuplicateIdentity);
        }
        if start.opener {
            self.open(context);
        }
        *context.next_member = context.next_member.wrapping_add(1);
        let id = MemberId(u64::from(self.index.0) << 32 | u64::from(*context.next_member));
        let role = self.role_of(&start.identity, start.role);
        let client_info =
            proto::ClientInfo::decode(start.client.client_info.as_slice()).unwrap_or_default();
        let mut attributes = self.own_attributes(start.attributes);
        if let Some(role) = role {
            attributes.insert(ROLE.to_owned(), role.as_str().to_owned());
        }
        if start.guest {
            attributes.insert(GUEST.to_owned(), "true".to_owned());
        }
        let joined_unix_ms = self.unix_ms(context.now) as i64;
        let sid = format!(
            "PA_{}_{}_{}",
            self.site,
            self.node_id,
            random::name(context.entropy, 12)
        );
        let member = Member {
            id,
            sid: sid.clone(),
            identity: start.identity,
            name: bounded(start.name, NAME_BYTES_MAX),
            metadata: bounded(start.metadata, METADATA_BYTES_MAX),
            attributes,
            grants: start.grants,
            role,
            guest: start.guest,
            opener: start.opener,
            kind: kind_number(&start.kind),
            client: client(&start.client, &client_info),
            client_protocol: client_info.client_protocol,
            capabilities: sane_capabilities(&client_info.capabilities),
            token_issued_unix_s: start.token_issued_unix_s,
            state: State::Joining as i32,
            version: 1,
            joined: context.now,
            joined_unix_ms,
            tracks: Vec::new(),
            session: Some(session),
            ever_active: false,
            media_alive: false,
            deadline: Some((context.now + BECOME_ACTIVE, Farewell::NeverConnected)),
            token_due: context.now + TOKEN_REFRESH,
            last_sequence: 0,
            streams: VecDeque::new(),
            nonces: VecDeque::new(),
            sharing: None,
            quality: None,
            dirty: false,
        };
        if Self::counts(&member) {
            self.empty_since = None;
            self.anybody_ever = true;
        }
        self.members.insert(id, member);
        self.send_start(context, id, session, start.text_frames);
        self.token_facts(context, id);
        self.touch(context, id);
        self.lobby_to(context, &[id]);
        self.notice_to(context, id);
        id
    }

    fn send_start(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        session: SessionId,
        text: bool,
    ) {
        // The join response still says JOINING, as clients know it.
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let effective = self.effective(member);
        let others: Vec<_> = self
            .members
            .values()
            .filter(|other| other.id != id && !other.grants.hidden)
            .map(|other| self.info(other))
            .collect();
        let tracks = self
            .members
            .values()
            .filter(|other| other.id != id)
            .flat_map(|other| {
                other
                    .tracks
                    .iter()
                    .filter_map(|track| self.remote_track(other, track, member))
            })
            .collect();
        let join = proto::JoinResponse {
            room: Some(self.room_info()),
            participant: Some(self.info(member)),
            other_participants: others,
            server_version: VERSION.to_owned(),
            subscriber_primary: member.client.protocol >= 3 && effective.can_subscribe,
            client_configuration: Some(client_configuration()),
            server_region: self.site.clone(),
            ping_interval: PING.0,
            ping_timeout: PING.1,
            server_info: Some(self.server_info()),
            sif_trailer: self.sif_trailer.clone(),
            enabled_publish_codecs: self.enabled_codecs(),
            fast_publish: effective.can_publish,
            ..Default::default()
        };
        let start = Start {
            session,
            text,
            sid: member.sid.clone(),
            client: member.client.clone(),
            can_subscribe: effective.can_subscribe,
            codecs: self
                .policy
                .codecs
                .iter()
                .map(|codec| codec.to_ascii_lowercase())
                .collect(),
            join: Wire(join),
            tracks,
        };
        context.send(id, ToPeer::Start(Box::new(start)));
        if let Some(member) = self.members.get_mut(&id) {
            member.state = State::Joined as i32;
        }
    }

    fn server_info(&self) -> proto::ServerInfo {
        proto::ServerInfo {
            edition: proto::server_info::Edition::Standard as i32,
            version: VERSION.to_owned(),
            protocol: PROTOCOL,
            region: self.site.clone(),
            node_id: format!("ND_{}", self.node_id),
            ..Default::default()
        }
    }

    /// A client comes back to its participant with `reconnect=1`.
    fn resume(
        &mut self,
        context: &mut Context<'_>,
        session: SessionId,
        start: &SessionStart,
    ) -> Option<MemberId> {
        if self.is_revoked(&start.identity, start.token_issued_unix_s) {
            context.out.push_back(Output::Refused {
                session,
                refusal: JoinRefusal::Revoked,
            });
            return None;
        }
        let found = self.members.values().find(|member| {
            member.sid == start.participant_sid && member.identity == start.identity
        });
        // Without living media there is no connection that an ICE restart could save, unless it was never made.
        let Some(member) = found.filter(|member| member.media_alive || !member.ever_active) else {
            if let Some(id) = found.map(|member| member.id) {
                self.remove(context, id, Farewell::Replaced);
            }
            let leave = signal::leave(DisconnectReason::StateMismatch, Action::Reconnect);
            context.out.push_back(Output::Frame {
                session,
                frame: signal::encode(start.text_frames, leave),
            });
            context.out.push_back(Output::Close {
                session,
                code: 1000,
                reason: "state mismatch",
            });
            return None;
        };
        let (id, last_message_seq) = (member.id, member.last_sequence);
        let departures = self.recent_departures(context.now);
        let infos = self
            .members
            .values()
            .filter(|other| other.id == id || !other.grants.hidden)
            .map(|other| self.info(other))
            .chain(departures)
            .collect();
        let reconnect = proto::ReconnectResponse {
            ice_servers: Vec::new(),
            client_configuration: Some(client_configuration()),
            server_info: Some(self.server_info()),
            last_message_seq,
        };
        let room = self.room_info();
        if let Some(member) = self.members.get_mut(&id) {
            member.session = Some(session);
            member.token_issued_unix_s = member.token_issued_unix_s.max(start.token_issued_unix_s);
            member.deadline = (!member.ever_active)
                .then(|| (context.now + BECOME_ACTIVE, Farewell::NeverConnected));
        }
        context.send(
            id,
            ToPeer::Attach {
                session,
                text: start.text_frames,
            },
        );
        context.respond(id, Response::Reconnect(reconnect));
        context.respond(
            id,
            Response::Update(proto::ParticipantUpdate {
                participants: infos,
            }),
        );
        context.respond(
            id,
            Response::RoomUpdate(proto::RoomUpdate { room: Some(room) }),
        );
        context.send(id, ToPeer::Resumed);
        self.token_facts(context, id);
        self.lobby_to(context, &[id]);
        self.notice_to(context, id);
        Some(id)
    }

    /// What the gateway signs into the client's next token.
    pub(super) fn token_facts(&mut self, context: &mut Context<'_>, id: MemberId) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let facts = TokenFacts {
            identity: member.identity.clone(),
            name: member.name.clone(),
            metadata: member.metadata.clone(),
            attributes: member
                .attributes
                .iter()
                .filter(|(key, _)| !key.starts_with(RESERVED) || *key == HAND)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            grants: self.effective(member).to_grants(&member.grants),
            role: member.role,
            guest: member.guest,
            opener: member.opener,
        };
        if let Some(member) = self.members.get_mut(&id) {
            member.token_due = context.now + TOKEN_REFRESH;
        }
        context.send(id, ToPeer::TokenFacts(Box::new(facts)));
    }

    /// Attributes without those of the server, bounded.
    fn own_attributes(&self, attributes: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut bytes = 0;
        attributes
            .into_iter()
            .filter(|(key, value)| (!key.starts_with(RESERVED) || key == HAND) && !value.is_empty())
            .take(ATTRIBUTES_MAX)
            .take_while(|(key, value)| {
                bytes += key.len() + value.len();
                bytes <= ATTRIBUTES_BYTES_MAX
            })
            .collect()
    }
}

fn client_configuration() -> proto::ClientConfiguration {
    proto::ClientConfiguration {
        resume_connection: proto::ClientConfigSetting::Enabled as i32,
        ..Default::default()
    }
}

fn client(parameters: &ClientParameters, info: &proto::ClientInfo) -> Client {
    let protocol = match parameters.protocol {
        0 => u32::try_from(info.protocol).unwrap_or(0),
        protocol => protocol,
    };
    Client {
        protocol,
        sdk: info.sdk,
        firefox: info.browser.to_ascii_lowercase().contains("firefox"),
        auto_subscribe: parameters.auto_subscribe,
    }
}

fn sane_capabilities(capabilities: &[i32]) -> Vec<i32> {
    capabilities
        .iter()
        .copied()
        .filter(|number| proto::client_info::Capability::try_from(*number).is_ok())
        .take(16)
        .collect()
}

fn kind_number(kind: &str) -> i32 {
    let kind = match kind {
        "ingress" => ParticipantKind::Ingress,
        "egress" => ParticipantKind::Egress,
        "sip" => ParticipantKind::Sip,
        "agent" => ParticipantKind::Agent,
        "connector" => ParticipantKind::Connector,
        "bridge" => ParticipantKind::Bridge,
        _ => ParticipantKind::Standard,
    };
    kind as i32
}

/// At most `max` bytes, cut at a character.
pub(super) fn bounded(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}
