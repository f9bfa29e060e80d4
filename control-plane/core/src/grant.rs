// SPDX-License-Identifier: EUPL-1.2
//! What a verified person may do in a room: role and LiveKit grants, from the token or the entry by the door and the rules of the room.
//!
//! Rules only narrow what a token says; a role never comes from the page.

use crate::record::{ChatRule, Conference, Opener, Permission, Role, RoomPolicy};

/// Sources that a token may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Camera.
    Camera,
    /// Microphone.
    Microphone,
    /// Screen.
    ScreenShare,
    /// Sound of the screen.
    ScreenShareAudio,
}

impl Source {
    /// As in tokens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Microphone => "microphone",
            Self::ScreenShare => "screen_share",
            Self::ScreenShareAudio => "screen_share_audio",
        }
    }

    /// From a token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Camera,
            Self::Microphone,
            Self::ScreenShare,
            Self::ScreenShareAudio,
        ]
        .into_iter()
        .find(|source| source.as_str() == text)
    }
}

/// Grants for one room, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Enter.
    pub room_join: bool,
    /// Administer this room.
    pub room_admin: bool,
    /// Begin a recording.
    pub room_record: bool,
    /// Publish tracks.
    pub can_publish: bool,
    /// Receive tracks.
    pub can_subscribe: bool,
    /// Send data.
    pub can_publish_data: bool,
    /// Sources that may be published; empty = all, as in tokens. Sorted.
    pub sources: Vec<Source>,
    /// Change own name, metadata, attributes.
    pub can_update_own_metadata: bool,
    /// Not shown to others.
    pub hidden: bool,
    /// A recorder.
    pub recorder: bool,
    /// An agent.
    pub agent: bool,
}

impl Grants {
    /// Of somebody who comes by the door, before the rules of the room narrow it.
    #[must_use]
    pub const fn of_door() -> Self {
        Self {
            room_join: true,
            room_admin: false,
            room_record: false,
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            sources: Vec::new(),
            can_update_own_metadata: true,
            hidden: false,
            recorder: false,
            agent: false,
        }
    }
}

/// How somebody showed who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A token that one of the tenant's own keys signed.
    TenantToken {
        /// Its `sub`.
        subject: String,
        /// It says `roomAdmin` for this room.
        room_admin: bool,
        /// Groups it names.
        groups: Vec<String>,
    },
    /// An opener key, by its hash.
    OpenerKey([u8; 32]),
    /// The password of the link, or a conference without one.
    Link,
}

/// What somebody is in a declared conference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Role.
    pub role: Role,
    /// Has no account with the tenant.
    pub guest: bool,
    /// May open.
    pub opener: bool,
}

/// Why somebody does not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// The key opens nothing here.
    #[error("this key opens nothing here; ask for the current link")]
    WrongOpenerKey,
    /// Guests are forbidden.
    #[error("people without an account of the organisation cannot take part")]
    GuestsForbidden,
}

impl GrantRefusal {
    /// CamelCase reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::WrongOpenerKey => "WrongOpenerKey",
            Self::GuestsForbidden => "GuestsForbidden",
        }
    }
}

/// Role, guest mark and right to open of somebody in a declared conference. The strongest rule wins; openers moderate.
///
/// # Errors
/// [`GrantRefusal`].
pub fn standing(
    conference: &Conference,
    credential: &Credential,
) -> Result<Standing, GrantRefusal> {
    match credential {
        Credential::OpenerKey(hash) => {
            if conference
                .openers
                .iter()
                .any(|opener| matches!(opener, Opener::KeySha256(known) if known == hash))
            {
                Ok(Standing {
                    role: Role::Moderator,
                    guest: false,
                    opener: true,
                })
            } else {
                Err(GrantRefusal::WrongOpenerKey)
            }
        }
        Credential::TenantToken {
            subject,
            room_admin,
            groups,
        } => {
            let named = conference
                .openers
                .iter()
                .any(|opener| matches!(opener, Opener::Subject(known) if known == subject));
            let opener = named || *room_admin;
            let by_rule = conference
                .roles
                .iter()
                .filter(|rule| {
                    rule.subjects.contains(subject)
                        || rule.groups.iter().any(|group| groups.contains(group))
                })
                .map(|rule| rule.role)
                .min();
            // The order of `Role` is that of strength.
            let role = if opener {
                Role::Moderator
            } else {
                by_rule.unwrap_or(Role::Participant)
            };
            Ok(Standing {
                role,
                guest: false,
                opener,
            })
        }
        Credential::Link if conference.policy.guests_allowed => Ok(Standing {
            role: Role::Guest,
            guest: true,
            opener: false,
        }),
        Credential::Link => Err(GrantRefusal::GuestsForbidden),
    }
}

/// Narrows grants to what a role may do under a policy. A role without an entry may only listen.
#[must_use]
pub fn narrow(grants: Grants, policy: &RoomPolicy, role: Role) -> Grants {
    let permission = policy.permissions.get(&role).copied().unwrap_or(LISTENER);
    let mut allowed = Vec::new();
    if permission.camera {
        allowed.push(Source::Camera);
    }
    if permission.microphone {
        allowed.push(Source::Microphone);
    }
    if permission.screen_share && policy.screen_share {
        allowed.extend([Source::ScreenShare, Source::ScreenShareAudio]);
    }
    if !grants.sources.is_empty() {
        allowed.retain(|source| grants.sources.contains(source));
    }
    let can_publish = grants.can_publish && !allowed.is_empty();
    Grants {
        room_admin: permission.moderate,
        room_record: permission.record,
        can_publish,
        can_publish_data: grants.can_publish_data && permission.chat != ChatRule::Off,
        // Empty means all in that protocol: whoever may publish nothing has `can_publish` taken away instead.
        sources: if can_publish { allowed } else { Vec::new() },
        // Hand and reactions are open to every role.
        can_update_own_metadata: true,
        ..grants
    }
}

/// Narrows grants of a token in an ad-hoc room: its tenant's rules bound what may be published at all.
#[must_use]
pub fn narrow_ad_hoc(grants: Grants, policy: &RoomPolicy) -> Grants {
    if policy.screen_share {
        return grants;
    }
    let all = [Source::Camera, Source::Microphone];
    let allowed: Vec<Source> = all
        .into_iter()
        .filter(|source| grants.sources.is_empty() || grants.sources.contains(source))
        .collect();
    let can_publish = grants.can_publish && !allowed.is_empty();
    Grants {
        can_publish,
        sources: if can_publish { allowed } else { Vec::new() },
        ..grants
    }
}

const LISTENER: Permission = Permission {
    microphone: false,
    camera: false,
    screen_share: false,
    chat: ChatRule::Off,
    moderate: false,
    record: false,
    enter_muted: true,
};

#[cfg(test)]
mod tests;
