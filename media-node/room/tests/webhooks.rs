// SPDX-License-Identifier: EUPL-1.2
//! What a tenant's hosts are told of a room: which events, in which order, with what in them.

mod script;

use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use media_core::api::Side;
use media_room::api::{Facts, Input, Output};
use script::{
    Script, ad_hoc, audio_section, camera, chromium_offer, microphone, offer_message, start,
    video_section,
};

/// The events so far, each read back as a backend reads it.
fn told(script: &Script) -> Vec<proto::WebhookEvent> {
    script
        .events
        .iter()
        .enumerate()
        .map(|(index, (seq, sid, name, body))| {
            assert_eq!(*seq, index as u64 + 1, "without a gap");
            let event: proto::WebhookEvent = serde_json::from_slice(body).expect("protojson");
            assert_eq!(event.event, *name);
            let room = event.room.as_ref().expect("every event names its room");
            assert_eq!((room.name.as_str(), &room.sid), ("council", sid));
            assert!(sid.starts_with("RM_"), "{sid}");
            assert!(event.created_at >= 1_800_000_000);
            event
        })
        .collect()
}

fn names(script: &Script) -> Vec<&'static str> {
    script.events.iter().map(|(_, _, name, _)| *name).collect()
}

fn publish(script: &mut Script, session: u64) {
    script.request(session, microphone("mic"));
    script.request(session, camera("cam", "vp8"));
    let sections = [audio_section("1", "mic"), video_section("2", "cam")];
    script.request(
        session,
        offer_message(chromium_offer(session, 1, &sections), 1),
    );
}

fn connect(script: &mut Script, side: Side) {
    for transport in script.transports(side) {
        script.connected(transport);
    }
}

fn leave(script: &mut Script, session: u64) {
    script.request(session, Request::Leave(proto::LeaveRequest::default()));
}

#[test]
fn the_life_of_a_room_is_told_whole_and_in_order() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    connect(&mut script, Side::Subscriber);
    publish(&mut script, 1);
    leave(&mut script, 1);
    script.pass(Duration::from_secs(600));
    assert_eq!(
        names(&script),
        [
            "room_started",
            "participant_joined",
            "track_published",
            "track_published",
            "track_unpublished",
            "track_unpublished",
            "participant_left",
            "room_finished",
        ]
    );
    let told = told(&script);
    let joined = told[1].participant.as_ref().expect("who joined");
    assert_eq!(joined.identity, "anna");
    assert!(joined.sid.starts_with("PA_"));
    assert_eq!(joined.state, proto::participant_info::State::Active as i32);
    assert_eq!(
        told[1].room.as_ref().map(|room| room.num_participants),
        Some(1)
    );
    for event in &told[2..6] {
        let (track, who) = (event.track.as_ref(), event.participant.as_ref());
        assert!(track.is_some_and(|track| track.sid.starts_with("TR_")));
        assert_eq!(who.map(|who| &who.sid), Some(&joined.sid));
    }
    let published = told[2].track.as_ref().expect("a track");
    assert_eq!(published.source, proto::TrackSource::Microphone as i32);
    assert!(!published.mime_type.is_empty());
    let left = told[6].participant.as_ref().expect("who left");
    assert_eq!(left.sid, joined.sid);
    assert_eq!(
        left.disconnect_reason,
        proto::DisconnectReason::ClientInitiated as i32
    );
    // Why a room ended is said by its end alone.
    for event in &told[..7] {
        assert_eq!(event.room_end_reason, 0, "{}", event.event);
    }
    assert_eq!(
        told[7].room_end_reason,
        proto::RoomEndReason::RoomEndIdleTimeout as i32
    );
    assert_eq!(
        told[7].room.as_ref().map(|room| room.num_participants),
        Some(0)
    );
}

#[test]
fn a_track_is_not_told_of_before_its_participant() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    publish(&mut script, 1);
    assert_eq!(names(&script), ["room_started"]);
    script.answer(1);
    connect(&mut script, Side::Subscriber);
    assert_eq!(
        names(&script)[1..],
        ["participant_joined", "track_published", "track_published"]
    );
    assert!(told(&script)[2..].iter().all(|event| event.track.is_some()));
}

#[test]
fn nothing_is_told_of_the_tracks_of_somebody_who_never_came() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    publish(&mut script, 1);
    leave(&mut script, 1);
    assert_eq!(
        names(&script),
        ["room_started", "participant_connection_aborted"]
    );
    let aborted = &told(&script)[1];
    assert!(aborted.participant.is_some());
}

#[test]
fn whoever_writes_much_about_themselves_is_told_of_without_it() {
    let mut script = Script::new(ad_hoc());
    let mut long = start("anna", None);
    // Each of these takes six bytes in JSON.
    long.metadata = "\u{1}".repeat(60_000);
    script.start(1, long);
    script.answer(1);
    connect(&mut script, Side::Subscriber);
    leave(&mut script, 1);
    assert_eq!(
        names(&script),
        ["room_started", "participant_joined", "participant_left"]
    );
    for event in &told(&script)[1..] {
        let who = event.participant.as_ref().expect("who");
        assert_eq!((who.identity.as_str(), who.metadata.as_str()), ("anna", ""));
    }
    assert!(script.events.iter().all(|event| event.3.len() < 4_096));
}

#[test]
fn a_room_that_moves_keeps_its_sid_and_neither_finishes_nor_starts() {
    let mut first = Script::new(ad_hoc());
    first.start(1, start("anna", None));
    first.answer(1);
    connect(&mut first, Side::Subscriber);
    let reported = |script: &Script| -> Option<Facts> {
        script.last.iter().rev().find_map(|output| match output {
            Output::Report(report) => Some(report.facts.clone()),
            _ => None,
        })
    };
    first.pass(Duration::from_secs(1));
    let mut facts = reported(&first);
    first.start(2, start("ben", None));
    facts = reported(&first).or(facts);
    first.input("the lease is gone", Input::GiveUp);
    assert_eq!(names(&first), ["room_started", "participant_joined"]);

    let facts = facts.unwrap_or_else(|| Facts {
        room_sid: first.events[0].1.clone(),
        opened: true,
        created_unix_ms: 1_800_000_000_000,
        ..Facts::default()
    });
    let mut second = Script::with_facts(ad_hoc(), facts);
    second.start(1, start("anna", None));
    second.answer(1);
    connect(&mut second, Side::Subscriber);
    assert_eq!(
        names(&second),
        ["participant_joined"],
        "numbered anew under the new epoch"
    );
    assert_eq!(second.events[0].1, first.events[0].1, "the same room");
    leave(&mut second, 1);
    second.pass(Duration::from_secs(600));
    assert_eq!(
        names(&second),
        ["participant_joined", "participant_left", "room_finished"]
    );
}
