// SPDX-License-Identifier: EUPL-1.2
use proptest::prelude::*;
use prost::Message;

use control_core::placement::Strategy;

use super::*;

fn wire_policy() -> wire::RoomPolicy {
    wire::RoomPolicy {
        declared: true,
        lobby: wire::LobbyRule::LobbyGuests.into(),
        guests_allowed: true,
        permissions: vec![wire::Permission {
            role: wire::Role::Guest.into(),
            microphone: true,
            chat: wire::ChatRule::ChatModerators.into(),
            enter_muted: true,
            ..Default::default()
        }],
        max_participants: 10,
        empty_timeout_ms: 300_000,
        codecs: vec!["vp8".into()],
        revision: "r".into(),
        ..Default::default()
    }
}

fn wire_conference() -> wire::ConferenceRecord {
    wire::ConferenceRecord {
        uid: "c".into(),
        tenant: "t".into(),
        room_name: "council".into(),
        room_id: "a".repeat(26),
        openers: vec![wire::Opener {
            who: Some(wire::opener::Who::KeySha256(vec![1; 32])),
        }],
        password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA".into(),
        policy: Some(wire_policy()),
        sites: vec!["kiel".into()],
        topology: wire::conference_record::Topology::Pack.into(),
        reserve_participants: 30,
        ..Default::default()
    }
}

fn wire_tenant() -> wire::TenantRecord {
    wire::TenantRecord {
        uid: "t".into(),
        name: "t".into(),
        api_keys: vec![wire::ApiKey {
            key: "k".into(),
            secret: vec![1; 32],
        }],
        ad_hoc: wire::tenant_record::AdHoc::OnJoin.into(),
        ad_hoc_policy: Some(wire_policy()),
        pools: vec!["media/default".into()],
        sites_allowed: vec!["kiel".into(), "bonn".into()],
        sites_preferred: vec!["bonn".into()],
        jurisdictions: vec!["DE".into()],
        dedicated_nodes: true,
        webhooks: vec![wire::Webhook {
            name: "archive".into(),
            url: "https://archive.example/hook".into(),
            events: vec!["room_started".into()],
            signing_key: "k".into(),
            ca_pem: String::new(),
        }],
        ..Default::default()
    }
}

fn wire_node() -> wire::NodeFacts {
    wire::NodeFacts {
        uid: "u".into(),
        node_id: "n1".into(),
        site: "local".into(),
        pool: "media/default".into(),
        jurisdiction: "DE-SH".into(),
        epoch: 3,
        addresses: vec![wire::Address {
            ip: "::1".into(),
            port: 20_000,
        }],
        capacity: Some(wire::NodeCapacity {
            rooms: 1,
            participants: 2,
            egress_mbps: 3,
        }),
        drain_timeout_ms: 60_000,
        grpc_endpoint: "127.0.0.1:9".into(),
        accepting: true,
        srtp_legacy_allowed: true,
        maintenance_at_unix_ms: 1_800_000_000_000,
        revision: "r".into(),
    }
}

#[test]
fn policies_facts_and_nodes_survive_the_way_in_and_out() {
    assert_eq!(
        policy_out(&policy(wire_policy()).expect("valid")),
        wire_policy()
    );
    assert_eq!(node_out(&node(wire_node()).expect("valid")), wire_node());
    let room = wire::RoomFacts {
        room_sid: "RM_1".into(),
        opened: true,
        locked: true,
        revoked: vec![wire::Revocation {
            identity: "g_1".into(),
            not_before_unix_s: 7,
        }],
        admitted: vec!["g_2".into()],
        role_changes: vec![wire::RoleChange {
            identity: "x".into(),
            role: wire::Role::Presenter.into(),
        }],
        metadata: "{}".into(),
        created_unix_ms: 9,
    };
    assert_eq!(facts_out(&facts(room.clone()).expect("valid")), room);
}

#[test]
fn records_are_taken_as_they_are_meant() {
    let tenant = tenant(wire_tenant()).expect("valid");
    assert_eq!(tenant.secret("k").expect("known").expose(), [1; 32]);
    assert_eq!(tenant.active_from, None);
    assert_eq!(tenant.residency.sites.len(), 2);
    assert!(tenant.dedicated_nodes);
    assert!(tenant.webhooks[0].wants("room_started"));
    assert!(!tenant.webhooks[0].wants("room_finished"));
    let conference = conference(wire_conference()).expect("valid");
    assert_eq!(conference.openers, [Opener::KeySha256([1; 32])]);
    assert!(conference.password_required());
    assert_eq!(conference.pool, None);
    assert_eq!(conference.strategy, Strategy::Pack);
    assert_eq!(conference.reserve_participants, 30);
}

fn wire_schedule() -> wire::Schedule {
    wire::Schedule {
        start: "2026-09-01T08:00:00".into(),
        time_zone: "Europe/Berlin".into(),
        duration_ms: 5_400_000,
        recurrence: "FREQ=WEEKLY;BYDAY=TU".into(),
        except: vec!["2026-12-22".into()],
        open_before_ms: 900_000,
        close_after_ms: 60_000,
        ..Default::default()
    }
}

#[test]
fn tenants_and_conferences_survive_the_way_in_and_out() {
    let mut record = wire_tenant();
    record.limits = Some(wire::Limits {
        concurrent_rooms: Some(1),
        participants: Some(0),
        participants_per_room: None,
        publishers_per_room: Some(4),
        egress_mbps: Some(5),
        publishers: Some(6),
    });
    record.branding_texts = vec![wire::BrandingText {
        key: "Welcome".into(),
        lang: "de".into(),
        text: "Moin".into(),
    }];
    record.active_from_unix_ms = 1;
    record.link_key = vec![2; 32];
    assert_eq!(tenant_out(&tenant(record.clone()).expect("valid")), record);
    for until in [false, true] {
        let mut record = wire_conference();
        record.openers.push(wire::Opener {
            who: Some(wire::opener::Who::Subject("s".into())),
        });
        record.roles = vec![wire::RoleRule {
            role: wire::Role::Presenter.into(),
            subjects: vec!["a".into()],
            groups: vec!["b".into()],
        }];
        record.notices = vec![wire::Notice {
            id: "n".into(),
            texts: vec![wire::LocalText {
                lang: "en".into(),
                text: "Hello".into(),
            }],
            acknowledge: true,
        }];
        record.pool = "media/default".into();
        record.schedule = Some(wire_schedule());
        if until {
            record.schedule = Some(wire::Schedule {
                duration_ms: 0,
                until: "09:30".into(),
                ..wire_schedule()
            });
        }
        assert_eq!(
            conference_out(&conference(record.clone()).expect("valid")),
            record
        );
    }
}

#[test]
fn errors_name_the_field() {
    fn refuse<T: std::fmt::Debug>(result: Result<T>, field: &str) {
        let error = result.expect_err("refused").to_string();
        assert!(error.starts_with(field), "{error}");
    }
    let change = |change: &dyn Fn(&mut wire::ConferenceRecord)| {
        let mut record = wire_conference();
        change(&mut record);
        conference(record)
    };
    refuse(change(&|record| record.room_id = "A".repeat(26)), "room_id");
    refuse(change(&|record| record.room_name.clear()), "room_name");
    refuse(change(&|record| record.policy = None), "policy: is missing");
    refuse(
        change(&|record| {
            record.policy = Some(wire::RoomPolicy {
                declared: false,
                ..wire_policy()
            })
        }),
        "policy.declared",
    );
    refuse(
        change(&|record| {
            record.policy = Some(wire::RoomPolicy {
                lobby: 9,
                ..wire_policy()
            })
        }),
        "policy.lobby",
    );
    refuse(change(&|record| record.topology = 9), "topology");
    refuse(change(&|record| record.sites = vec!["a b".into()]), "sites");
    refuse(
        change(&|record| record.password_hash = "plain".into()),
        "password_hash",
    );
    refuse(
        change(&|record| {
            record.openers = vec![wire::Opener {
                who: Some(wire::opener::Who::KeySha256(vec![1])),
            }]
        }),
        "openers",
    );
    refuse(
        change(&|record| record.openers = vec![wire::Opener::default(); limits::OPENERS_MAX + 1]),
        "openers",
    );
    let scheduled = |text: &str, millis, until: &str| wire::Schedule {
        start: text.into(),
        time_zone: "Europe/Berlin".into(),
        duration_ms: millis,
        until: until.into(),
        ..Default::default()
    };
    refuse(
        change(&|record| record.schedule = Some(scheduled("tomorrow", 1, ""))),
        "schedule",
    );
    refuse(
        change(&|record| record.schedule = Some(scheduled("2026-09-01T08:00", 0, ""))),
        "schedule",
    );
    refuse(
        change(&|record| record.schedule = Some(scheduled("2026-09-01T08:00", 1, "09:00"))),
        "schedule",
    );
    assert!(
        change(&|record| record.schedule = Some(scheduled("2026-09-01T08:00", 0, "09:00"))).is_ok()
    );
    let change = |change: &dyn Fn(&mut wire::TenantRecord)| {
        let mut record = wire_tenant();
        change(&mut record);
        tenant(record)
    };
    refuse(change(&|record| record.name = "T".into()), "name");
    refuse(
        change(&|record| record.ad_hoc_policy = None),
        "ad_hoc_policy",
    );
    refuse(
        change(&|record| record.api_keys[0].secret = vec![1; 3]),
        "api_keys.secret",
    );
    refuse(
        change(&|record| record.api_keys[0].key = "plenum:t".into()),
        "api_keys.key",
    );
    refuse(
        change(&|record| record.pools = vec!["default".into()]),
        "pools",
    );
    refuse(
        change(&|record| record.sites_preferred = vec!["hof".into()]),
        "sites_preferred",
    );
    refuse(
        change(&|record| record.jurisdictions = vec!["Kiel".into()]),
        "jurisdictions",
    );
    refuse(
        change(&|record| record.webhooks[0].url = "http://archive.example".into()),
        "webhooks.url",
    );
    refuse(
        change(&|record| record.webhooks[0].name = "a:b".into()),
        "webhooks.name",
    );
    let change = |change: &dyn Fn(&mut wire::NodeFacts)| {
        let mut record = wire_node();
        change(&mut record);
        node(record)
    };
    refuse(change(&|record| record.node_id = "n-1".into()), "node_id");
    refuse(
        change(&|record| record.addresses[0].ip = "host".into()),
        "addresses",
    );
    refuse(
        change(&|record| record.addresses[0].port = 70_000),
        "addresses",
    );
    refuse(change(&|record| record.capacity = None), "capacity");
    refuse(
        change(&|record| record.grpc_endpoint = "http://x/".into()),
        "grpc_endpoint",
    );
    refuse(room_key(None), "key: is missing");
}

#[test]
fn metadata_beyond_its_bound_is_refused() {
    let room = wire::RoomFacts {
        metadata: "x".repeat(limits::METADATA_BYTES_MAX + 1),
        ..Default::default()
    };
    assert_eq!(
        facts(room),
        Err(ConvertError::TooLong {
            field: "facts.metadata",
            max: limits::METADATA_BYTES_MAX
        })
    );
}

/// Something that decodes as a record with this or that field spoilt, cut or doubled.
fn spoilt(message: &impl Message, at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    if !bytes.is_empty() {
        let at = at % bytes.len();
        bytes[at] = byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_was_taken_once_is_taken_again_and_means_the_same(at in any::<usize>(), byte in any::<u8>()) {
        if let Ok(record) = wire::TenantRecord::decode(spoilt(&wire_tenant(), at, byte).as_slice())
            && let Ok(taken) = tenant(record)
        {
            prop_assert_eq!(tenant(tenant_out(&taken)), Ok(taken));
        }
        let planned = wire::ConferenceRecord { schedule: Some(wire_schedule()), ..wire_conference() };
        if let Ok(record) = wire::ConferenceRecord::decode(spoilt(&planned, at, byte).as_slice())
            && let Ok(taken) = conference(record)
        {
            let out = conference_out(&taken);
            let again = conference(out.clone());
            prop_assert!(again.is_ok(), "{:?}", again);
            prop_assert_eq!(conference_out(&again.expect("taken")), out);
        }
        if let Ok(record) = wire::NodeFacts::decode(spoilt(&wire_node(), at, byte).as_slice())
            && let Ok(taken) = node(record)
        {
            prop_assert_eq!(node(node_out(&taken)), Ok(taken));
        }
    }

    #[test]
    fn no_bytes_from_the_network_make_a_conversion_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(record) = wire::TenantRecord::decode(bytes.as_slice()) {
            let _ = tenant(record);
        }
        if let Ok(record) = wire::ConferenceRecord::decode(bytes.as_slice()) {
            let _ = conference(record);
        }
        if let Ok(record) = wire::NodeFacts::decode(bytes.as_slice()) {
            let _ = node(record);
        }
        if let Ok(room) = wire::RoomFacts::decode(bytes.as_slice()) {
            let _ = facts(room);
        }
    }

    #[test]
    fn a_record_with_one_field_spoilt_is_taken_or_refused(which in 0_usize..6, text in "\\PC{0,40}") {
        let mut record = wire_conference();
        let field = match which {
            0 => &mut record.uid,
            1 => &mut record.tenant,
            2 => &mut record.room_name,
            3 => &mut record.room_id,
            4 => &mut record.password_hash,
            _ => &mut record.pool,
        };
        field.clone_from(&text);
        if let Ok(conference) = conference(record) {
            prop_assert!(conference.room_name.as_str().len() <= 256);
            prop_assert!(conference.password_hash.is_empty() || conference.password_hash.starts_with("$argon2id$"));
        }
    }
}
