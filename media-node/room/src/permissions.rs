// SPDX-License-Identifier: EUPL-1.2
//! What a participant may do: the grants of the token, narrowed by the role's preset and the conference's policy.

use livekit_protocol as proto;

use crate::api::{ChatRule, Grants, Policy, Role};

/// A set of track sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources(u8);

const ALL: [(proto::TrackSource, &str); 4] = [
    (proto::TrackSource::Camera, "camera"),
    (proto::TrackSource::Microphone, "microphone"),
    (proto::TrackSource::ScreenShare, "screen_share"),
    (proto::TrackSource::ScreenShareAudio, "screen_share_audio"),
];

impl Sources {
    /// Every source, also one that is not named.
    pub const ANY: Self = Self(0b1_1111);
    /// None.
    pub const NONE: Self = Self(0);

    const fn bit(source: proto::TrackSource) -> u8 {
        match source {
            proto::TrackSource::Camera => 1,
            proto::TrackSource::Microphone => 2,
            proto::TrackSource::ScreenShare => 4,
            proto::TrackSource::ScreenShareAudio => 8,
            proto::TrackSource::Unknown => 16,
        }
    }

    /// Is it in?
    #[must_use]
    pub const fn has(self, source: proto::TrackSource) -> bool {
        self.0 & Self::bit(source) != 0
    }

    fn add(&mut self, source: proto::TrackSource) {
        self.0 |= Self::bit(source);
    }

    fn remove(&mut self, source: proto::TrackSource) {
        self.0 &= !Self::bit(source);
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// As in a token: empty = all.
    #[must_use]
    pub fn parse(names: &[String]) -> Self {
        if names.is_empty() {
            return Self::ANY;
        }
        let mut sources = Self::NONE;
        for name in names {
            if let Some((source, _)) = ALL
                .iter()
                .find(|(_, known)| known.eq_ignore_ascii_case(name))
            {
                sources.add(*source);
            }
        }
        sources
    }

    /// As in a token. Never empty unless it holds all: whoever may publish nothing has `can_publish: false`.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        if self == Self::ANY {
            return Vec::new();
        }
        ALL.iter()
            .filter(|(source, _)| self.has(*source))
            .map(|(_, name)| (*name).to_owned())
            .collect()
    }

    fn numbers(self) -> Vec<i32> {
        if self == Self::ANY {
            return Vec::new();
        }
        ALL.iter()
            .filter(|(source, _)| self.has(*source))
            .map(|(source, _)| *source as i32)
            .collect()
    }
}

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Publish at all.
    pub can_publish: bool,
    /// Which sources.
    pub sources: Sources,
    /// Receive tracks.
    pub can_subscribe: bool,
    /// Send data.
    pub can_publish_data: bool,
    /// Change own name, metadata, attributes.
    pub can_update_metadata: bool,
    /// Chat.
    pub chat: ChatRule,
    /// Admit, mute, remove, lock.
    pub moderate: bool,
    /// Microphones begin muted.
    pub enter_muted: bool,
}

impl Effective {
    /// Derives it.
    #[must_use]
    pub fn new(grants: &Grants, role: Option<Role>, guest: bool, policy: &Policy) -> Self {
        let mut sources = if grants.can_publish {
            Sources::parse(&grants.can_publish_sources)
        } else {
            Sources::NONE
        };
        let mut chat = ChatRule::Everyone;
        let mut moderate = grants.room_admin;
        let mut enter_muted = false;
        if let Some(role) = role {
            let preset = policy.permissions.get(&role);
            let mut allowed = Sources::NONE;
            if let Some(preset) = preset {
                if preset.microphone {
                    allowed.add(proto::TrackSource::Microphone);
                }
                if preset.camera {
                    allowed.add(proto::TrackSource::Camera);
                }
                if preset.screen_share {
                    allowed.add(proto::TrackSource::ScreenShare);
                    allowed.add(proto::TrackSource::ScreenShareAudio);
                }
                chat = preset.chat;
                enter_muted = preset.enter_muted;
            } else {
                chat = ChatRule::Off;
            }
            sources = sources.and(allowed);
            // A preset decides over moderation, and a guest never moderates.
            moderate = preset.is_some_and(|preset| preset.moderate) && !guest;
        }
        if !policy.screen_share {
            sources.remove(proto::TrackSource::ScreenShare);
            sources.remove(proto::TrackSource::ScreenShareAudio);
            if sources != Sources::NONE {
                // Without a name nobody could tell a screen from a camera.
                sources.remove(proto::TrackSource::Unknown);
            }
        }
        Self {
            can_publish: sources != Sources::NONE,
            sources,
            can_subscribe: grants.can_subscribe,
            can_publish_data: grants.can_publish_data,
            can_update_metadata: grants.can_update_own_metadata,
            chat,
            moderate,
            enter_muted,
        }
    }

    /// May a track of this kind and source be published?
    #[must_use]
    pub fn allows(&self, kind: proto::TrackType, source: proto::TrackSource) -> bool {
        use proto::{TrackSource as Source, TrackType as Type};
        let fits = matches!(
            (kind, source),
            (
                Type::Audio,
                Source::Microphone | Source::ScreenShareAudio | Source::Unknown
            ) | (
                Type::Video,
                Source::Camera | Source::ScreenShare | Source::Unknown
            )
        );
        self.can_publish && fits && self.sources.has(source)
    }

    /// As clients see it.
    #[must_use]
    pub fn to_proto(self, grants: &Grants) -> proto::ParticipantPermission {
        #[expect(deprecated, reason = "older clients read `recorder` and `agent`")]
        proto::ParticipantPermission {
            can_subscribe: self.can_subscribe,
            can_publish: self.can_publish,
            can_publish_data: self.can_publish_data,
            can_publish_sources: self.sources.numbers(),
            hidden: grants.hidden,
            recorder: grants.recorder,
            can_update_metadata: self.can_update_metadata,
            agent: grants.agent,
            ..Default::default()
        }
    }

    /// As a refreshed token grants it: the original grants, which the room narrows anew at each join, and the moderation of the
    /// present role, which the control plane asks for.
    #[must_use]
    pub fn to_grants(self, grants: &Grants) -> Grants {
        Grants {
            room_admin: self.moderate,
            ..grants.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_preset_narrows_the_token_and_never_widens_it() {
        let policy = testing::declared();
        let mut grants = testing::grants();
        let guest = Effective::new(&grants, Some(Role::Guest), true, &policy);
        assert!(guest.allows(proto::TrackType::Audio, proto::TrackSource::Microphone));
        assert!(!guest.allows(proto::TrackType::Video, proto::TrackSource::ScreenShare));
        assert!(!guest.allows(proto::TrackType::Video, proto::TrackSource::Unknown));
        grants.can_publish_sources = vec!["camera".into()];
        let narrowed = Effective::new(&grants, Some(Role::Moderator), false, &policy);
        assert!(!narrowed.allows(proto::TrackType::Audio, proto::TrackSource::Microphone));
        assert!(narrowed.allows(proto::TrackType::Video, proto::TrackSource::Camera));
        grants.can_publish = false;
        assert!(!Effective::new(&grants, Some(Role::Moderator), false, &policy).can_publish);
    }

    #[test]
    fn a_source_of_the_wrong_kind_is_refused() {
        let any = Effective::new(&testing::grants(), None, false, &testing::ad_hoc());
        assert!(!any.allows(proto::TrackType::Video, proto::TrackSource::Microphone));
        assert!(!any.allows(proto::TrackType::Audio, proto::TrackSource::ScreenShare));
        assert!(any.allows(proto::TrackType::Video, proto::TrackSource::Unknown));
    }

    #[test]
    fn a_guest_never_moderates() {
        let policy = testing::declared();
        assert!(Effective::new(&testing::grants(), Some(Role::Moderator), false, &policy).moderate);
        assert!(!Effective::new(&testing::grants(), Some(Role::Moderator), true, &policy).moderate);
    }
}
