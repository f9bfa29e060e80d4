// SPDX-License-Identifier: EUPL-1.2
//! Values for tests.

use std::collections::BTreeMap;

use crate::api::{ChatRule, Grants, LobbyRule, Permission, Policy, Role};

pub(crate) fn grants() -> Grants {
    Grants {
        room_join: true,
        room_admin: false,
        can_publish: true,
        can_subscribe: true,
        can_publish_data: true,
        can_publish_sources: Vec::new(),
        can_update_own_metadata: true,
        hidden: false,
        recorder: false,
        agent: false,
    }
}

pub(crate) fn ad_hoc() -> Policy {
    Policy {
        declared: false,
        lobby: LobbyRule::Off,
        guests_allowed: true,
        permissions: BTreeMap::new(),
        max_participants: 0,
        max_publishers: 0,
        empty_timeout_ms: 300_000,
        departure_timeout_ms: 20_000,
        max_duration_ms: 0,
        screen_share: true,
        e2ee_required: false,
        codecs: Vec::new(),
        revision: "1".into(),
    }
}

pub(crate) fn declared() -> Policy {
    let permission = |camera, screen_share, chat, moderate, enter_muted| Permission {
        microphone: true,
        camera,
        screen_share,
        chat,
        moderate,
        record: false,
        enter_muted,
    };
    Policy {
        declared: true,
        permissions: BTreeMap::from([
            (
                Role::Moderator,
                permission(true, true, ChatRule::Everyone, true, false),
            ),
            (
                Role::Presenter,
                permission(true, true, ChatRule::Everyone, false, true),
            ),
            (
                Role::Participant,
                permission(true, false, ChatRule::Everyone, false, true),
            ),
            (
                Role::Guest,
                permission(false, false, ChatRule::Moderators, false, true),
            ),
        ]),
        ..ad_hoc()
    }
}
