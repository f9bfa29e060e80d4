// SPDX-License-Identifier: EUPL-1.2
//! The rules a room runs by: presets, overrides of the class, wishes of the conference, within what the tenant allows.

use std::time::Duration;

use plenum_api::{
    ConferenceClass, GoDuration, Tenant,
    conference::{Capacity, ConferenceSpec, Lifecycle, Lobby, Media, MediaProfile},
    conference_class::{OnEntry, Role},
    tenant::{AdHoc, E2ee, Guests, Recording},
};

use crate::{
    digest, limits,
    records::{PermissionRecord, RoomPolicy},
};

/// What stands between the tenant and the class.
struct Wishes<'a> {
    lobby: Option<Lobby>,
    guests: Option<Guests>,
    recording: Recording,
    capacity: Option<&'a Capacity>,
    media: Option<&'a Media>,
    lifecycle: Option<&'a Lifecycle>,
}

/// Policy of a declared conference.
pub(super) fn declared(
    spec: &ConferenceSpec,
    class: &ConferenceClass,
    tenant: &Tenant,
) -> RoomPolicy {
    let wishes = Wishes {
        lobby: spec.lobby,
        guests: spec.guests,
        recording: spec.recording,
        capacity: spec.capacity.as_ref(),
        media: spec.media.as_ref(),
        lifecycle: spec.lifecycle.as_ref(),
    };
    let mut policy = build(&wishes, class, tenant);
    policy.declared = true;
    // Opened stays opened until the room has been empty for its timeout, also when people come and go.
    policy.departure_timeout_ms = policy.empty_timeout_ms;
    policy.revision = digest::revision(&policy);
    policy
}

/// Policy of rooms that are no object.
pub(super) fn ad_hoc(ad_hoc: &AdHoc, class: &ConferenceClass, tenant: &Tenant) -> RoomPolicy {
    let wishes = Wishes {
        lobby: None,
        guests: None,
        recording: class.spec.recording,
        capacity: None,
        media: None,
        lifecycle: None,
    };
    let mut policy = build(&wishes, class, tenant);
    let longest = ad_hoc.max_duration.as_ref().map_or(0, millis);
    policy.max_duration_ms = match (policy.max_duration_ms, longest) {
        (0, other) | (other, 0) => other,
        (one, other) => one.min(other),
    };
    policy.revision = digest::revision(&policy);
    policy
}

fn build(wishes: &Wishes<'_>, class: &ConferenceClass, tenant: &Tenant) -> RoomPolicy {
    let (of_class, of_tenant) = (&class.spec, &tenant.spec.policy);
    let media = |of: fn(&Media) -> Option<u32>| first(wishes.media, of_class.media.as_ref(), of);
    let profile = first(wishes.media, of_class.media.as_ref(), |media| media.profile);
    let video = profile != Some(MediaProfile::AudioOnly);
    let screen_share = video
        && first(wishes.media, of_class.media.as_ref(), |media| {
            media.screen_share
        })
        .unwrap_or(true);
    let e2ee = first(wishes.media, of_class.media.as_ref(), |media| media.e2ee);
    let recorded = [wishes.recording, of_class.recording, of_tenant.recording];
    let record = recorded
        .iter()
        .all(|recording| *recording == Recording::Allowed);
    let guests = wishes.guests.unwrap_or(of_class.guests);
    let lengths = |of: fn(&Lifecycle) -> Option<GoDuration>| {
        first(wishes.lifecycle, of_class.lifecycle.as_ref(), of)
            .as_ref()
            .map(millis)
    };
    let permissions = Role::ALL.iter().map(|role| {
        let cells = of_class.permissions(*role);
        PermissionRecord {
            role: *role,
            microphone: cells.microphone,
            camera: cells.camera && video,
            screen_share: cells.screen_share && screen_share,
            chat: cells.chat,
            moderate: cells.moderate,
            record: cells.record && record,
            enter_muted: cells.on_entry == OnEntry::Muted,
        }
    });
    let (max_participants, max_publishers) = sizes(wishes, class, tenant);
    RoomPolicy {
        declared: false,
        lobby: wishes
            .lobby
            .or(of_class.lobby)
            .unwrap_or_else(|| of_class.preset.lobby()),
        guests_allowed: guests == Guests::Allowed && of_tenant.guests == Guests::Allowed,
        permissions: permissions.collect(),
        max_participants,
        max_publishers,
        empty_timeout_ms: lengths(|lifecycle| lifecycle.empty_timeout.clone())
            .unwrap_or(limits::EMPTY_TIMEOUT_MS),
        departure_timeout_ms: limits::DEPARTURE_TIMEOUT_MS,
        max_duration_ms: lengths(|lifecycle| lifecycle.max_duration.clone()).unwrap_or(0),
        max_bitrate_kbps: media(|media| media.max_bitrate_kbps).unwrap_or(0),
        screen_share,
        e2ee_required: of_tenant.e2ee == E2ee::Required
            || (e2ee == Some(E2ee::Required) && of_tenant.e2ee != E2ee::Disabled),
        codecs: of_tenant
            .codecs
            .iter()
            .map(|codec| codec.as_str().to_ascii_lowercase())
            .collect(),
        revision: String::new(),
    }
}

/// Most participants and publishers: what the conference or else the class says, never above the tenant.
fn sizes(wishes: &Wishes<'_>, class: &ConferenceClass, tenant: &Tenant) -> (u32, u32) {
    let (of_class, most) = (&class.spec, &tenant.spec.limits);
    let wish =
        |of: fn(&Capacity) -> Option<u32>| first(wishes.capacity, of_class.capacity.as_ref(), of);
    let below = |wish: Option<u32>, bounds: &[Option<u32>], ceiling: u32| {
        let bounds = bounds.iter().copied().flatten();
        bounds.fold(wish.unwrap_or(ceiling).min(ceiling), u32::min)
    };
    let participants = below(
        wish(|capacity| capacity.max_participants),
        &[most.participants_per_room, most.participants],
        limits::PARTICIPANTS_PER_ROOM_MAX,
    );
    let publishers = below(
        wish(|capacity| capacity.max_publishers).or_else(|| of_class.preset.max_publishers()),
        &[most.publishers_per_room, most.publishers],
        limits::PUBLISHERS_PER_ROOM_MAX,
    );
    (participants, publishers)
}

/// Participants that capacity is held for; `None` where none is held, or nobody says for how many.
pub(crate) fn reserved(spec: &ConferenceSpec, class: &ConferenceClass) -> Option<u32> {
    let (own, of_class) = (spec.capacity.as_ref(), class.spec.capacity.as_ref());
    first(own, of_class, |capacity| capacity.reserve)
        .unwrap_or(false)
        .then(|| first(own, of_class, |capacity| capacity.expected_participants))?
}

fn first<M, T>(own: Option<&M>, of_class: Option<&M>, of: impl Fn(&M) -> Option<T>) -> Option<T> {
    own.and_then(&of).or_else(|| of_class.and_then(&of))
}

/// A duration in milliseconds; a text that is none has failed the schema already.
#[must_use]
pub fn millis(duration: &GoDuration) -> u64 {
    u64::try_from(duration.to_std().unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
}
