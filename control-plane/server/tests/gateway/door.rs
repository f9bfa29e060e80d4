// SPDX-License-Identifier: EUPL-1.2
//! The door, from the form to the token.

use plenum_proto::v1::admin_request::Call;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{
    AdminResponse, LobbyRule, Notice, RecordKind, Retraction, Role, knock_update,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::http::{LIVE, Request};
use crate::rtc::connect;
use crate::world::{
    CLOSED, COUNCIL, LATER, LOBBY, OPENER_KEY, PASSWORD, STAFF, TOWN_SECRET, UNKNOWN, World,
    conference, eventually, token, town_join,
};

fn guest(name: &str) -> Value {
    json!({"name": name, "password": PASSWORD, "acknowledged": []})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_link_sees_whose_conference_it_is() {
    let world = World::start().await;
    let answer = Request::new(world.http, "GET", &format!("/api/v1/c/{COUNCIL}"))
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let door = answer.json();
    assert_eq!(
        door["conference"],
        json!({"displayName": "Conference council", "roomId": COUNCIL})
    );
    assert_eq!(door["tenant"]["name"], "Musterstadt");
    assert_eq!(door["tenant"]["colour"], "#1f4e79");
    assert_eq!(
        door["tenant"]["texts"][0],
        json!({"key": "Welcome", "lang": "de", "text": "Willkommen"})
    );
    assert_eq!(
        door["notices"][0],
        json!({"id": "privacy", "acknowledge": false, "texts": [{"lang": "de", "text": "Hinweis"}]})
    );
    assert_eq!(
        (
            &door["state"],
            &door["passwordRequired"],
            &door["lobby"],
            &door["guests"]
        ),
        (&json!("waiting"), &json!(true), &json!("Off"), &json!(true))
    );
    let later = Request::new(world.http, "GET", &format!("/api/v1/c/{LATER}"))
        .send()
        .await
        .json();
    assert_eq!(
        (&later["state"], &later["opensAt"]),
        (&json!("scheduled"), &json!("2099-01-01T08:45:00Z"))
    );
    let closed = Request::new(world.http, "GET", &format!("/api/v1/c/{CLOSED}"))
        .send()
        .await
        .json();
    assert_eq!(closed["state"], "closed");
    for unknown in [UNKNOWN, "short", "AAAAAAAAAAAAAAAAAAAAAAAAAA", "%2e%2e"] {
        let answer = Request::new(world.http, "GET", &format!("/api/v1/c/{unknown}"))
            .send()
            .await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["reason"]),
            (404, &json!("UnknownConference")),
            "{unknown}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_before_the_opener_waits_until_the_opener_has_joined() {
    let world = World::start().await;
    let mut waiting = world.enter(COUNCIL, &guest("Gast")).await;
    assert_eq!(
        waiting.expect("waiting").await,
        json!({"reason": "NotOpened"})
    );
    let (_, _opener) = world.opened(COUNCIL).await;
    let start = world.node().last_start();
    assert_eq!(
        (start.role(), start.opener, start.guest, start.name.as_str()),
        (Role::Moderator, true, false, "Vorsitz")
    );
    assert!(start.identity.starts_with("o_"));
    let admitted = waiting.expect("admitted").await;
    assert!(waiting.event().await.is_none(), "nothing follows");
    assert_eq!(admitted["role"], "Guest");
    assert_eq!(admitted["entersMuted"], true);
    assert_eq!(admitted["url"], format!("http://{}", world.http));
    let identity = admitted["identity"].as_str().expect("identity");
    assert!(
        identity.starts_with("g_") && identity.len() == 34,
        "{identity}"
    );
    let token = admitted["token"].as_str().expect("token");
    let mut client = connect(world.http, &format!("access_token={token}"))
        .await
        .expect("joined");
    client.next().await;
    let start = world.node().last_start();
    assert_eq!(
        (
            start.identity.as_str(),
            start.name.as_str(),
            start.role(),
            start.guest,
            start.opener
        ),
        (identity, "Gast", Role::Guest, true, false)
    );
    let door = Request::new(world.http, "GET", &format!("/api/v1/c/{COUNCIL}"))
        .send()
        .await
        .json();
    assert_eq!(door["state"], "open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opener_waits_for_a_node_and_enters_when_one_comes() {
    let mut world = World::published().await;
    let mut opener = world
        .enter(
            COUNCIL,
            &json!({"name": "Vorsitz", "openerKey": OPENER_KEY}),
        )
        .await;
    assert_eq!(
        opener.expect("waiting").await,
        json!({"reason": "NoCapacity"})
    );
    world.attach().await;
    opener.expect("admitted").await;
    let opened = world.node().opens.lock().expect("lock").len();
    assert_eq!(opened, 1, "the room has its place before the opener joins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_token_is_good_for_its_room_alone() {
    let world = World::start().await;
    let (token, _opener) = world.opened(COUNCIL).await;
    for path in ["end", "lock", "lobby"] {
        let answer = Request::new(world.http, "POST", &format!("/api/v1/c/{LOBBY}/{path}"))
            .bearer(&token)
            .json(&json!({"locked": true}))
            .send()
            .await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["reason"]),
            (403, &json!("OtherRoom")),
            "{path}"
        );
    }
    let mut stream = world
        .enter(LOBBY, &json!({"name": "x", "token": token}))
        .await;
    assert_eq!(stream.expect("refused").await["reason"], "OtherRoom");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_are_throttled_by_address_and_others_still_enter() {
    let world = World::start().await;
    let (_, _opener) = world.opened(COUNCIL).await;
    let wrong = json!({"name": "Gast", "password": "gelbe-birnen-fallen-nah"});
    let mut throttled = None;
    for attempt in 1..=10 {
        let mut stream = world.enter_from(2, COUNCIL, &wrong).await;
        match stream.status {
            200 => assert_eq!(
                stream.expect("refused").await,
                json!({"reason": "WrongPassword"}),
                "attempt {attempt}"
            ),
            503 => {
                throttled = Some(stream);
                break;
            }
            other => panic!("status {other}"),
        }
    }
    let stream = throttled.expect("ten wrong passwords are too many");
    let retry = stream
        .headers
        .iter()
        .find(|(name, _)| name == "retry-after")
        .map(|(_, value)| value.parse::<u64>().expect("seconds"));
    assert!(retry.is_some_and(|seconds| seconds >= 1), "{retry:?}");
    // The right one from there has to wait too, or guessing would go on.
    let right = Request::new(world.http, "POST", &format!("/api/v1/c/{COUNCIL}/entry"))
        .from(2)
        .json(&guest("Gast"))
        .send()
        .await;
    assert_eq!(
        (right.status, &right.json()["error"]["reason"]),
        (503, &json!("Throttled"))
    );
    // From elsewhere nobody notices, nor at another conference's door.
    world
        .enter_from(3, COUNCIL, &guest("Gast"))
        .await
        .expect("admitted")
        .await;
    world
        .enter_from(2, LOBBY, &guest("Gast"))
        .await
        .expect("waiting")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opener_keys_are_throttled_like_passwords() {
    let world = World::start().await;
    let wrong = json!({"name": "x", "openerKey": "00000000000000000000000000000000"});
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let mut stream = world.enter_from(4, COUNCIL, &wrong).await;
        statuses.push(stream.status);
        if stream.status == 200 {
            assert_eq!(stream.expect("refused").await["reason"], "WrongOpenerKey");
        }
    }
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    // The empty key and the hash itself are no keys.
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, OPENER_KEY.as_bytes());
    let hash = data_encoding::HEXLOWER.encode(hash.as_ref());
    assert_eq!(
        world
            .enter(COUNCIL, &json!({"name": "x", "openerKey": hash}))
            .await
            .expect("refused")
            .await["reason"],
        "WrongOpenerKey"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_conference_is_unknown_and_throttled_too() {
    let world = World::start().await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let answer = Request::new(world.http, "POST", &format!("/api/v1/c/{UNKNOWN}/entry"))
            .from(5)
            .json(&guest("Gast"))
            .send()
            .await;
        statuses.push((
            answer.status,
            answer.json()["error"]["reason"]
                .as_str()
                .expect("reason")
                .to_owned(),
        ));
    }
    assert_eq!(
        statuses.first(),
        Some(&(404, "UnknownConference".to_owned()))
    );
    assert_eq!(statuses.last(), Some(&(503, "Throttled".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_that_lack_something_say_what() {
    let world = World::start().await;
    let mut strict = conference(
        "strict",
        "ffffffffffffffffffffffffff",
        LobbyRule::LobbyOff,
        true,
    );
    strict.notices = vec![Notice {
        id: "recording".into(),
        texts: Vec::new(),
        acknowledge: true,
    }];
    let strict_id = strict.room_id.clone();
    world.publish(Item::Conference(strict)).await;
    let address = world.http;
    let path = format!("/api/v1/c/{strict_id}");
    eventually("the conference is there", async || {
        Request::new(address, "GET", &path).send().await.status == 200
    })
    .await;
    let cases = [
        (COUNCIL, json!({"name": "Gast"}), "PasswordRequired"),
        (
            COUNCIL,
            json!({"name": " \u{202e}", "password": PASSWORD}),
            "InvalidName",
        ),
        (COUNCIL, json!({"password": PASSWORD}), "InvalidName"),
        (
            COUNCIL,
            json!({"name": "Gast", "password": "x".repeat(300)}),
            "WrongPassword",
        ),
        (STAFF, guest("Gast"), "GuestsForbidden"),
        (
            CLOSED,
            json!({"name": "Vorsitz", "openerKey": OPENER_KEY}),
            "Suspended",
        ),
        (&strict_id, guest("Gast"), "AcknowledgementRequired"),
    ];
    for (room, body, reason) in cases {
        let mut stream = world.enter(room, &body).await;
        assert_eq!(stream.status, 200, "{body}");
        assert_eq!(stream.expect("refused").await["reason"], reason, "{body}");
        assert!(stream.event().await.is_none());
    }
    let mut agreed = guest("Gast");
    agreed["acknowledged"] = json!(["recording"]);
    world
        .enter(&strict_id, &agreed)
        .await
        .expect("waiting")
        .await;
    for (body, status) in [
        ("not json", 400),
        ("[]", 400),
        ("{\"name\": 5}", 400),
        ("", 400),
    ] {
        let answer = Request::new(world.http, "POST", &format!("/api/v1/c/{COUNCIL}/entry"))
            .body("application/json", body.into())
            .send()
            .await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["reason"]),
            (status, &json!("BadRequest")),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_enters_before_the_time_not_even_openers() {
    let world = World::start().await;
    for body in [
        json!({"name": "Vorsitz", "openerKey": OPENER_KEY}),
        guest("Gast"),
    ] {
        let mut stream = world.enter(LATER, &body).await;
        assert_eq!(
            stream.expect("waiting").await,
            json!({"reason": "NotYetTime", "opensAt": "2099-01-01T08:45:00Z"})
        );
    }
    // A changed schedule is heard by those who wait.
    let mut waiting = world
        .enter(LATER, &json!({"name": "Vorsitz", "openerKey": OPENER_KEY}))
        .await;
    waiting.expect("waiting").await;
    let mut changed = conference("later", LATER, LobbyRule::LobbyOff, true);
    changed.revision = "2".into();
    world.publish(Item::Conference(changed)).await;
    waiting.expect("admitted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comment_keeps_a_waiting_stream_alive() {
    let world = World::start().await;
    let mut waiting = world.enter(COUNCIL, &guest("Gast")).await;
    waiting.expect("waiting").await;
    let kept = timeout(LIVE, waiting.chunk())
        .await
        .expect("something comes")
        .expect("the stream lasts");
    assert!(kept.starts_with(b":"), "{}", String::from_utf8_lossy(&kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_sent_home_when_the_conference_goes() {
    let world = World::start().await;
    let mut waiting = world.enter(COUNCIL, &guest("Gast")).await;
    waiting.expect("waiting").await;
    world
        .publish(Item::Retract(Retraction {
            kind: RecordKind::Conference.into(),
            uid: "conference-council".into(),
        }))
        .await;
    assert_eq!(
        waiting.expect("refused").await["reason"],
        "UnknownConference"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lobby_lasts_until_a_moderator_decides() {
    let world = World::start().await;
    let (token, _opener) = world.opened(LOBBY).await;
    let mut guests = Vec::new();
    for name in ["Gast 1", "Gast 2"] {
        let mut stream = world.enter(LOBBY, &guest(name)).await;
        assert_eq!(stream.expect("lobby").await, json!({}));
        assert_eq!(stream.expect("lobby").await, json!({"position": 1}));
        guests.push(stream);
    }
    let knock = world.node().knocks.borrow()[0].clone();
    assert_eq!(
        (knock.name.as_str(), knock.guest, knock.role()),
        ("Gast 1", true, Role::Guest)
    );
    let admit = json!({"admit": [knock.entry_id]});
    let answer = Request::new(world.http, "POST", &format!("/api/v1/c/{LOBBY}/lobby"))
        .bearer(&token)
        .json(&admit)
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let request = world
        .node()
        .admin
        .lock()
        .expect("lock")
        .last()
        .cloned()
        .expect("asked");
    assert!(
        request.actor_identity.starts_with("o_"),
        "the room is told who decides"
    );
    assert!(
        matches!(request.call, Some(Call::Lobby(decision)) if decision.admit == [knock.entry_id.clone()])
    );
    world.node().decide(knock_update::Item::Admitted(true));
    let admitted = guests[0].expect("admitted").await;
    assert_eq!(
        admitted["identity"],
        knock.entry_id.as_str(),
        "who knocked is who enters"
    );
    // An opener never waits, and a member of staff is no guest.
    world
        .enter(
            LOBBY,
            &json!({"name": "Vorsitz 2", "openerKey": OPENER_KEY}),
        )
        .await
        .expect("admitted")
        .await;
    world
        .enter(
            LOBBY,
            &json!({"token": town_join("lobby", "anna"), "name": "Anna"}),
        )
        .await
        .expect("admitted")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lobby_refuses_in_its_own_words_and_forgets_who_hangs_up() {
    let world = World::start().await;
    let (_, _opener) = world.opened(LOBBY).await;
    world
        .node()
        .decide(knock_update::Item::Refused("Denied".into()));
    let mut stream = world.enter(LOBBY, &guest("Gast")).await;
    stream.expect("lobby").await;
    stream.expect("lobby").await;
    assert_eq!(stream.expect("refused").await["reason"], "Denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_room_is_entered_by_leave_alone() {
    let world = World::start().await;
    let (_, _opener) = world.opened(COUNCIL).await;
    world
        .node()
        .change("musterstadt", "council", |facts| facts.locked = true)
        .await;
    let mut knocks = world.node().knocks.subscribe();
    let address = world.http;
    let mut stream = loop {
        // Until the change has arrived, the door is open.
        let mut stream = Request::new(address, "POST", &format!("/api/v1/c/{COUNCIL}/entry"))
            .json(&guest("Gast"))
            .open()
            .await;
        if stream
            .event()
            .await
            .is_some_and(|(name, _)| name == "lobby")
        {
            break stream;
        }
    };
    timeout(LIVE, knocks.wait_for(|knocks| !knocks.is_empty()))
        .await
        .expect("knocked")
        .expect("alive");
    world.node().decide(knock_update::Item::Admitted(true));
    stream.expect("lobby").await;
    stream.expect("admitted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reloaded_page_is_the_same_person_and_two_pages_are_two() {
    let world = World::start().await;
    let (_, _opener) = world.opened(COUNCIL).await;
    let mut identities = Vec::new();
    for client in [
        Some("4f5c0b0e-1d2c-4bd0"),
        Some("4f5c0b0e-1d2c-4bd0"),
        Some("another-page-0001"),
        None,
        None,
        Some("short"),
    ] {
        let mut body = guest("Gast");
        if let Some(client) = client {
            body["clientId"] = json!(client);
        }
        identities.push(
            world.enter(COUNCIL, &body).await.expect("admitted").await["identity"]
                .as_str()
                .expect("identity")
                .to_owned(),
        );
    }
    assert_eq!(identities[0], identities[1]);
    let mut different = identities[1..].to_vec();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 5, "{identities:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_and_locking_are_the_rooms_to_allow() {
    let world = World::start().await;
    let (token, _opener) = world.opened(COUNCIL).await;
    let call = async |path: &str, bearer: Option<&str>, body: Value| {
        let target = format!("/api/v1/c/{COUNCIL}/{path}");
        let mut request = Request::new(world.http, "POST", &target).json(&body);
        if let Some(token) = bearer {
            request = request.bearer(token);
        }
        request.send().await
    };
    assert_eq!(call("end", None, json!({})).await.status, 401);
    assert_eq!(
        call("end", Some(&town_join("council", "anna")), json!({}))
            .await
            .status,
        403,
        "a backend's join token is no moderator"
    );
    assert_eq!(
        call("lock", Some(&token), json!({"locked": true}))
            .await
            .status,
        200
    );
    assert_eq!(call("lock", Some(&token), json!({})).await.status, 400);
    assert_eq!(call("end", Some(&token), json!({})).await.status, 200);
    let calls: Vec<_> = world
        .node()
        .admin
        .lock()
        .expect("lock")
        .iter()
        .map(|request| request.call.clone().expect("call"))
        .collect();
    assert_eq!(calls, [Call::Lock(true), Call::End(true)]);
    world.node().answer_admin(AdminResponse {
        refused: "PermissionDenied".into(),
        message: "the caller may not do this".into(),
        ..AdminResponse::default()
    });
    let denied = call("end", Some(&token), json!({})).await;
    assert_eq!(
        (denied.status, &denied.json()["error"]["reason"]),
        (403, &json!("PermissionDenied"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_the_backend_need_no_password() {
    let world = World::start().await;
    let mut waiting = world
        .enter(
            STAFF,
            &json!({"token": town_join("staff", "anna"), "name": "Anna"}),
        )
        .await;
    assert_eq!(
        waiting.expect("waiting").await["reason"],
        "NotOpened",
        "but they do not open"
    );
    let mut opener = world
        .enter(
            STAFF,
            &json!({"token": town_join("staff", "mayor"), "name": "Rathaus"}),
        )
        .await;
    let admitted = opener.expect("admitted").await;
    assert_eq!(
        (&admitted["identity"], &admitted["role"]),
        (&json!("mayor"), &json!("Moderator"))
    );
    let client = connect(
        world.http,
        &format!(
            "access_token={}",
            admitted["token"].as_str().expect("token")
        ),
    )
    .await
    .expect("joined");
    assert_eq!(waiting.expect("admitted").await["identity"], "anna");
    drop(client);
    let stranger = token(
        "town-key",
        TOWN_SECRET,
        json!({"sub": "anna", "video": {"room": "staff"}}),
    );
    let mut stream = world
        .enter(STAFF, &json!({"token": stranger, "name": "x"}))
        .await;
    assert_eq!(stream.expect("refused").await["reason"], "NotGranted");
}
