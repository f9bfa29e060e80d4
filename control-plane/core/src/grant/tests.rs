// SPDX-License-Identifier: EUPL-1.2
use proptest::prelude::*;

use super::*;
use crate::record::RoleRule;
use crate::testing::{conference, policy};

fn everything() -> Permission {
    Permission {
        microphone: true,
        camera: true,
        screen_share: true,
        chat: ChatRule::Everyone,
        moderate: true,
        record: true,
        enter_muted: false,
    }
}

fn token(subject: &str, room_admin: bool, groups: &[&str]) -> Credential {
    Credential::TenantToken {
        subject: subject.into(),
        room_admin,
        groups: groups.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn only_openers_open_and_openers_moderate() {
    let mut conference = conference("t", "c");
    conference.openers = vec![Opener::Subject("alice".into()), Opener::KeySha256([7; 32])];
    let of = |credential: &Credential| standing(&conference, credential);
    let opener = Standing {
        role: Role::Moderator,
        guest: false,
        opener: true,
    };
    assert_eq!(of(&token("alice", false, &[])), Ok(opener));
    assert_eq!(of(&Credential::OpenerKey([7; 32])), Ok(opener));
    assert_eq!(
        of(&token("bob", true, &[])),
        Ok(opener),
        "roomAdmin signed by the tenant's own key"
    );
    assert_eq!(
        of(&token("bob", false, &[])),
        Ok(Standing {
            role: Role::Participant,
            guest: false,
            opener: false
        })
    );
    assert_eq!(
        of(&Credential::OpenerKey([8; 32])),
        Err(GrantRefusal::WrongOpenerKey)
    );
    assert_eq!(
        of(&Credential::Link),
        Ok(Standing {
            role: Role::Guest,
            guest: true,
            opener: false
        })
    );
}

#[test]
fn guests_stay_out_where_they_are_forbidden() {
    let mut conference = conference("t", "c");
    conference.policy.guests_allowed = false;
    assert_eq!(
        standing(&conference, &Credential::Link),
        Err(GrantRefusal::GuestsForbidden)
    );
    assert!(standing(&conference, &token("bob", false, &[])).is_ok());
}

#[test]
fn the_strongest_rule_wins_and_a_moderator_by_rule_does_not_open() {
    let mut conference = conference("t", "c");
    let rule = |role, subjects: &[&str], groups: &[&str]| RoleRule {
        role,
        subjects: subjects.iter().map(ToString::to_string).collect(),
        groups: groups.iter().map(ToString::to_string).collect(),
    };
    conference.roles = vec![
        rule(Role::Presenter, &["bob"], &[]),
        rule(Role::Moderator, &[], &["staff"]),
    ];
    let role = |credential: &Credential| standing(&conference, credential).expect("gets in");
    assert_eq!(role(&token("bob", false, &[])).role, Role::Presenter);
    let staff = role(&token("bob", false, &["staff"]));
    assert_eq!((staff.role, staff.opener), (Role::Moderator, false));
    assert_eq!(
        role(&token("staff", false, &[])).role,
        Role::Participant,
        "a name is not a group"
    );
}

#[test]
fn who_may_publish_nothing_loses_the_right_instead_of_getting_an_empty_list() {
    let mut policy = policy();
    policy.permissions.insert(
        Role::Guest,
        Permission {
            microphone: false,
            camera: false,
            screen_share: true,
            ..everything()
        },
    );
    policy.screen_share = false;
    let grants = narrow(Grants::of_door(), &policy, Role::Guest);
    assert!(!grants.can_publish);
    assert_eq!(grants.sources, []);
    let unlisted = narrow(Grants::of_door(), &policy, Role::Participant);
    assert!(
        !unlisted.can_publish
            && !unlisted.can_publish_data
            && !unlisted.room_admin
            && unlisted.can_subscribe
    );
}

#[test]
fn ad_hoc_rooms_keep_the_token_but_for_a_forbidden_screen() {
    let mut policy = policy();
    let grants = Grants {
        room_admin: true,
        ..Grants::of_door()
    };
    assert_eq!(narrow_ad_hoc(grants.clone(), &policy), grants);
    policy.screen_share = false;
    let narrowed = narrow_ad_hoc(grants.clone(), &policy);
    assert_eq!(narrowed.sources, [Source::Camera, Source::Microphone]);
    let screen_only = Grants {
        sources: vec![Source::ScreenShare],
        ..grants
    };
    assert!(!narrow_ad_hoc(screen_only, &policy).can_publish);
}

fn grants() -> impl Strategy<Value = Grants> {
    let sources = proptest::sample::subsequence(
        vec![
            Source::Camera,
            Source::Microphone,
            Source::ScreenShare,
            Source::ScreenShareAudio,
        ],
        0..=4,
    );
    (any::<[bool; 8]>(), sources).prop_map(|(flags, sources)| Grants {
        room_join: flags[0],
        room_admin: flags[1],
        room_record: flags[2],
        can_publish: flags[3],
        can_subscribe: flags[4],
        can_publish_data: flags[5],
        sources,
        can_update_own_metadata: flags[6],
        hidden: flags[7],
        recorder: false,
        agent: false,
    })
}

proptest! {
    #[test]
    fn rules_only_narrow_what_may_be_published(grants in grants(), flags: [bool; 5], screen: bool) {
        let mut policy = policy();
        policy.screen_share = screen;
        let permission = Permission {
            microphone: flags[0], camera: flags[1], screen_share: flags[2], moderate: flags[3], record: flags[4],
            chat: ChatRule::Everyone, enter_muted: false,
        };
        policy.permissions.insert(Role::Participant, permission);
        let narrowed = narrow(grants.clone(), &policy, Role::Participant);
        let may = |grants: &Grants, source: Source| grants.can_publish && (grants.sources.is_empty() || grants.sources.contains(&source));
        for source in [Source::Camera, Source::Microphone, Source::ScreenShare, Source::ScreenShareAudio] {
            let by_role = match source {
                Source::Camera => permission.camera,
                Source::Microphone => permission.microphone,
                Source::ScreenShare | Source::ScreenShareAudio => permission.screen_share && screen,
            };
            prop_assert_eq!(may(&narrowed, source), may(&grants, source) && by_role, "{:?}", source);
        }
        prop_assert!(!narrowed.can_subscribe || grants.can_subscribe);
        prop_assert!(!narrowed.can_publish_data || grants.can_publish_data);
        prop_assert_eq!(narrowed.room_admin, permission.moderate);
    }
}
