// SPDX-License-Identifier: EUPL-1.2
//! What browsers can't do, done to the running system by a client on the `webrtc` crate: loss, odd orders, malformed input,
//! and the breaking of every grant. Each test has a system and namespaces of its own.

mod client;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use e2e::system::{GATEWAY, MACHINE, System, in_namespace};
use livekit_protocol as proto;
use livekit_protocol::signal_request as request;
use proto::TrackSource;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use client::{Announce, Client, flows, media_ports, received};

const LAB: (&str, &str) = ("devkey", "secretsecretsecretsecretsecretsecret");
const MUSTERSTADT: (&str, &str) = ("musterstadt", "an-example-secret-change-it-before-use");

fn token(key: (&str, &str), identity: &str, room: &str, grants: Value) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut video = json!({ "roomJoin": true, "room": room });
    if let (Some(video), Some(grants)) = (video.as_object_mut(), grants.as_object()) {
        video.extend(grants.clone());
    }
    let claims = json!({ "iss": key.0, "sub": identity, "name": identity, "nbf": now - 5, "iat": now, "exp": now + 3600, "video": video });
    let secret = jsonwebtoken::EncodingKey::from_secret(key.1.as_bytes());
    Ok(jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &claims,
        &secret,
    )?)
}

fn in_system(name: &'static str, body: impl AsyncFnOnce(&System) -> Result<()>) -> Result<()> {
    in_namespace(name, || {
        let system = System::start(name)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let done = runtime.block_on(body(&system));
        runtime.shutdown_timeout(Duration::from_secs(1));
        match done {
            Ok(()) => system.stop(),
            Err(error) => bail!("{error:?}\n{}", system.log()),
        }
    })
}

async fn join(token: &str) -> Result<Client> {
    match Client::join(token).await? {
        Ok(client) => Ok(client),
        Err(refused) => bail!("refused with {}: {}", refused.status, refused.text),
    }
}

async fn refused(token: &str) -> Result<u16> {
    match Client::join(token).await? {
        Ok(_) => bail!("the token was let in"),
        Err(refused) => Ok(refused.status),
    }
}

async fn twirp(method: &str, token: &str, body: &Value) -> Result<u16> {
    let body = body.to_string();
    let mut stream = tokio::net::TcpStream::connect(GATEWAY).await?;
    let request = format!(
        "POST /twirp/livekit.RoomService/{method} HTTP/1.1\r\nhost: {GATEWAY}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split_whitespace().nth(1).context("a status line")?;
    Ok(status.parse()?)
}

fn nft(rules: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("nft (nftables) starts")?;
    child
        .stdin
        .take()
        .context("stdin is piped")?
        .write_all(rules.as_bytes())?;
    ensure!(child.wait()?.success(), "nft refused {rules}");
    Ok(())
}

/// How many of the numbers in `wanted` are missing.
fn missing(got: &BTreeMap<u32, u32>, wanted: std::ops::Range<u32>) -> usize {
    wanted.filter(|number| !got.contains_key(number)).count()
}

#[test]
fn every_packet_arrives_once_and_under_loss_those_that_count_are_sent_again() -> Result<()> {
    in_system(
        "every_packet_arrives_once_and_under_loss_those_that_count_are_sent_again",
        async |_| {
            let mut sender = join(&token(LAB, "sender", "loss", json!({}))?).await?;
            let mut receiver = join(&token(LAB, "receiver", "loss", json!({}))?).await?;
            let mut audio = sender
                .publish(TrackSource::Microphone, 1, Announce::Properly)
                .await?;
            let mut video = sender
                .publish(TrackSource::Camera, 2, Announce::Properly)
                .await?;
            sender.confirmed(&audio).await?;
            sender.confirmed(&video).await?;
            let first_audio = flows(&mut audio, &mut sender, &mut receiver).await?;
            let first_video = flows(&mut video, &mut sender, &mut receiver).await?;
            let (sent_audio, sent_video) = tokio::join!(audio.send(300), video.send(300));
            sent_audio?;
            sent_video?;
            for (who, first, last) in [
                (1, first_audio, audio.sent()),
                (2, first_video, video.sent()),
            ] {
                receiver
                    .until("the packets", |seen| {
                        let got = seen
                            .media
                            .iter()
                            .filter(|((_, from), _)| *from == who)
                            .flat_map(|(_, numbers)| numbers.keys());
                        got.filter(|number| **number >= first).count() >= (last - first) as usize
                    })
                    .await?;
                let got = received(&receiver, who);
                ensure!(
                    missing(&got, first..last) == 0,
                    "{who} misses packets without loss"
                );
                ensure!(
                    got.range(first..).all(|(_, times)| *times == 1),
                    "{who} got packets twice"
                );
            }
            // 5 % of all datagrams in both directions.
            nft("table inet loss {
  chain o {
    type filter hook output priority 10; policy accept;
    udp sport 20000-20255 numgen random mod 100 < 5 drop
    udp dport 20000-20255 numgen random mod 100 < 5 drop
  }
}")?;
            let first = video.sent();
            video.send(500).await?;
            nft("delete table inet loss")?;
            // What follows tells the receiver what it still lacks.
            video.send(50).await?;
            receiver.linger(Duration::from_secs(3)).await?;
            let got = received(&receiver, 2);
            let lost = missing(&got, first..first + 500);
            println!(
                "5 % loss on both legs: {lost} of 500 video packets are missing after retransmission"
            );
            // Wanted: 5. Without repair of one leg it would be 25, of both 49; three times the wanted figure tells these apart.
            ensure!(
                lost <= 15,
                "{lost} of 500 packets are missing although they could be sent again"
            );
            sender.leave().await?;
            receiver.leave().await
        },
    )
}

#[test]
fn odd_orders_end_in_the_same_room() -> Result<()> {
    in_system("odd_orders_end_in_the_same_room", async |_| {
        let mut receiver = join(&token(LAB, "receiver", "odd", json!({}))?).await?;
        let mut sender = join(&token(LAB, "sender", "odd", json!({}))?).await?;
        // Things that belong to nothing the server knows.
        let nothing = || "TR_nothing".to_owned();
        sender
            .say(request::Message::Answer(proto::SessionDescription {
                r#type: "answer".into(),
                sdp: "v=0\r\n".into(),
                id: 99,
                ..Default::default()
            }))
            .await?;
        sender
            .say(request::Message::Subscription(proto::UpdateSubscription {
                track_sids: vec![nothing()],
                subscribe: true,
                ..Default::default()
            }))
            .await?;
        sender
            .say(request::Message::TrackSetting(proto::UpdateTrackSettings {
                track_sids: vec![nothing()],
                width: u32::MAX,
                ..Default::default()
            }))
            .await?;
        sender
            .say(request::Message::Mute(proto::MuteTrackRequest {
                sid: nothing(),
                muted: true,
            }))
            .await?;
        sender
            .say(request::Message::Trickle(proto::TrickleRequest {
                candidate_init: "{\"candidate\":\"\"}".into(),
                target: 7,
                r#final: true,
            }))
            .await?;
        // The offer comes before its track is announced.
        let mut audio = sender
            .publish(TrackSource::Microphone, 1, Announce::Late)
            .await?;
        sender.confirmed(&audio).await?;
        flows(&mut audio, &mut sender, &mut receiver).await?;
        // The same identity comes again: the first one goes, the second one is served.
        let mut second = join(&token(LAB, "sender", "odd", json!({}))?).await?;
        sender
            .until("the first one is told to go", |seen| {
                seen.left.is_some() || seen.socket_closed
            })
            .await?;
        let mut again = second
            .publish(TrackSource::Microphone, 2, Announce::Properly)
            .await?;
        flows(&mut again, &mut second, &mut receiver).await?;
        // A whole meeting's worth of coming and going leaves nobody behind.
        for round in 0..5 {
            let mut guest = join(&token(LAB, "guest", "odd", json!({}))?).await?;
            if round % 2 == 0 {
                guest.negotiate().await?;
                guest.leave().await?;
            } else {
                guest
                    .say(request::Message::Leave(proto::LeaveRequest::default()))
                    .await?;
                guest.vanish().await;
            }
        }
        receiver
            .until("the guest has gone", |seen| {
                seen.participants.get("guest").is_some_and(|guest| {
                    guest.state == proto::participant_info::State::Disconnected as i32
                })
            })
            .await
    })
}

#[test]
fn nothing_gets_through_that_a_grant_forbids() -> Result<()> {
    in_system("nothing_gets_through_that_a_grant_forbids", async |_| {
        let room = "grants";
        let mut receiver =
            join(&token(LAB, "receiver", room, json!({ "roomAdmin": true }))?).await?;
        let mut honest = join(&token(LAB, "honest", room, json!({}))?).await?;
        let mut audio = honest
            .publish(TrackSource::Microphone, 1, Announce::Properly)
            .await?;
        flows(&mut audio, &mut honest, &mut receiver).await?;

        let attempt =
            async |identity: &str, grants: Value, source, who, announce| -> Result<Client> {
                let mut cheat = join(&token(LAB, identity, room, grants)?).await?;
                // An offer may be answered or not; what matters is that nothing arrives.
                if let Ok(Ok(mut track)) = tokio::time::timeout(
                    Duration::from_secs(4),
                    cheat.publish(source, who, announce),
                )
                .await
                {
                    let _ = cheat.linger(Duration::from_secs(1)).await;
                    let _ = track.send(100).await;
                    let _ = cheat.linger(Duration::from_millis(500)).await;
                }
                Ok(cheat)
            };
        let mut cheats = Vec::new();
        let only_microphone = json!({ "canPublishSources": ["microphone"] });
        let cases = [
            (
                "undeclared",
                json!({}),
                TrackSource::Microphone,
                11,
                Announce::NotAtAll,
            ),
            (
                "other-ssrc",
                json!({}),
                TrackSource::Microphone,
                12,
                Announce::WithAnotherSsrc,
            ),
            (
                "camera",
                only_microphone.clone(),
                TrackSource::Camera,
                13,
                Announce::Properly,
            ),
            (
                "screen",
                only_microphone,
                TrackSource::ScreenShare,
                14,
                Announce::Properly,
            ),
            (
                "listener",
                json!({ "canPublish": false }),
                TrackSource::Microphone,
                15,
                Announce::Properly,
            ),
            (
                "silent-listener",
                json!({ "canPublish": false }),
                TrackSource::Microphone,
                16,
                Announce::NotAtAll,
            ),
        ];
        for (identity, grants, source, who, announce) in cases {
            cheats.push(attempt(identity, grants, source, who, announce).await?);
            receiver.linger(Duration::from_millis(300)).await?;
            // Whoever leaves an offer unanswered for 20 s is asked to begin anew.
            honest.linger(Duration::from_millis(100)).await?;
            ensure!(
                received(&receiver, who).is_empty(),
                "{identity}: packets got through"
            );
            let known = receiver
                .seen()
                .participants
                .get(identity)
                .cloned()
                .context(identity)?;
            let shown: Vec<_> = known.tracks.iter().map(|track| track.source()).collect();
            ensure!(
                announce == Announce::WithAnotherSsrc || shown.is_empty(),
                "{identity}: the room shows {shown:?}"
            );
        }
        // Data without the right to, and on a topic that is the server's own.
        let mut mute = join(&token(
            LAB,
            "mute",
            room,
            json!({ "canPublish": false, "canPublishData": false }),
        )?)
        .await?;
        let _ = tokio::time::timeout(
            Duration::from_secs(4),
            mute.send_data(true, "chat", b"forbidden"),
        )
        .await;
        honest
            .send_data(
                true,
                "plenum.lobby",
                b"{\"entries\":[{\"id\":\"x\",\"name\":\"x\"}]}",
            )
            .await?;
        honest.send_data(true, "allowed", b"allowed").await?;
        let payloads = |seen: &client::Seen| -> Vec<Vec<u8>> {
            seen.data
                .iter()
                .filter_map(|packet| match &packet.value {
                    Some(proto::data_packet::Value::User(user)) => Some(user.payload.clone()),
                    _ => None,
                })
                .collect()
        };
        receiver
            .until("the allowed message", |seen| {
                payloads(seen).contains(&b"allowed".to_vec())
            })
            .await?;
        receiver.linger(Duration::from_millis(500)).await?;
        let got = payloads(&receiver.seen());
        ensure!(got == [b"allowed".to_vec()], "data got through: {got:?}");
        // The honest one is still heard.
        let before = received(&receiver, 1).len();
        audio.send(20).await?;
        receiver.linger(Duration::from_millis(300)).await?;
        ensure!(
            received(&receiver, 1).len() >= before + 19,
            "the honest one suffers"
        );
        for cheat in cheats {
            cheat.vanish().await;
        }
        Ok(())
    })
}

#[test]
fn the_token_of_who_was_removed_is_worth_nothing() -> Result<()> {
    in_system(
        "the_token_of_who_was_removed_is_worth_nothing",
        async |_| {
            let room = "removed";
            let admin = token(LAB, "admin", room, json!({ "roomAdmin": true }))?;
            let _watcher = join(&token(LAB, "watcher", room, json!({}))?).await?;
            let join_token = token(LAB, "mallory", room, json!({}))?;
            let mut mallory = join(&join_token).await?;
            mallory
                .until("a refreshed token", |seen| !seen.refresh_tokens.is_empty())
                .await?;
            let refreshed = mallory.seen().refresh_tokens.clone();
            let status = twirp(
                "RemoveParticipant",
                &admin,
                &json!({ "room": room, "identity": "mallory" }),
            )
            .await?;
            ensure!(status == 200, "RemoveParticipant answered {status}");
            mallory
                .until("she is told", |seen| seen.left.is_some())
                .await?;
            let sid = mallory.sid();
            for old in refreshed.iter().chain([&join_token]) {
                let status = refused(old).await?;
                ensure!(status == 401 || status == 403, "an old token got {status}");
                match Client::join_with(old, &format!("&reconnect=1&sid={sid}")).await? {
                    Ok(_) => bail!("she resumed"),
                    Err(refused) => ensure!(
                        refused.status == 401 || refused.status == 403,
                        "the resume got {}",
                        refused.status
                    ),
                }
            }
            // Somebody else's session is not to be had with one's own token.
            let mut victim = join(&token(LAB, "victim", room, json!({}))?).await?;
            let sid = victim.sid();
            let thief = token(LAB, "thief", room, json!({}))?;
            if let Ok(thief) = Client::join_with(&thief, &format!("&reconnect=1&sid={sid}")).await?
            {
                ensure!(thief.sid() != sid, "the thief has the victim's session");
            }
            victim.linger(Duration::from_millis(500)).await?;
            ensure!(
                victim.seen().left.is_none() && !victim.seen().socket_closed,
                "the victim was thrown out"
            );
            Ok(())
        },
    )
}

#[test]
fn a_declared_conference_is_shut_until_an_opener_comes() -> Result<()> {
    in_system(
        "a_declared_conference_is_shut_until_an_opener_comes",
        async |_| {
            let citizen = token(MUSTERSTADT, "citizen", "council", json!({}))?;
            ensure!(
                refused(&citizen).await? == 503,
                "before opening a token waits"
            );
            // Another tenant's key opens nothing here: its room of that name is another room.
            let foreign = join(&token(
                LAB,
                "foreign",
                "council",
                json!({ "roomAdmin": true }),
            )?)
            .await?;
            ensure!(
                refused(&citizen).await? == 503,
                "a foreign tenant's room of that name opened it"
            );
            foreign.vanish().await;
            ensure!(
                refused(&token(MUSTERSTADT, "citizen", "not-declared", json!({}))?).await? != 101
            );
            let mut opener = join(&token(
                MUSTERSTADT,
                "mayor",
                "council",
                json!({ "roomAdmin": true }),
            )?)
            .await?;
            let mut guest = join(&citizen).await?;
            let mut audio = guest
                .publish(TrackSource::Microphone, 1, Announce::Properly)
                .await?;
            let info = guest.confirmed(&audio).await?;
            // A role may enter muted, which the client is told with its first packet.
            audio.send(5).await?;
            guest.linger(Duration::from_millis(500)).await?;
            let unmute = proto::MuteTrackRequest {
                sid: info.sid,
                muted: false,
            };
            guest.say(request::Message::Mute(unmute)).await?;
            flows(&mut audio, &mut guest, &mut opener).await?;
            Ok(())
        },
    )
}

/// A small generator of our own, so that a failure is repeated by its seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.next() as usize % most;
        (0..length).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn malformed_input_harms_nobody_else() -> Result<()> {
    in_system("malformed_input_harms_nobody_else", async |_| {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64 | 1;
        println!("seed {seed}");
        let mut noise = Noise(seed);
        let room = "noise";
        let mut receiver = join(&token(LAB, "receiver", room, json!({}))?).await?;
        let mut sender = join(&token(LAB, "sender", room, json!({}))?).await?;
        let mut audio = sender
            .publish(TrackSource::Microphone, 1, Announce::Properly)
            .await?;
        flows(&mut audio, &mut sender, &mut receiver).await?;
        let ports = media_ports(&receiver);
        ensure!(
            !ports.is_empty(),
            "the server named its ports: {:?}",
            receiver.seen().candidates
        );

        // Datagrams of every kind that a media port tells apart, from an address that nobody knows.
        let socket = tokio::net::UdpSocket::bind((MACHINE, 0)).await?;
        for round in 0..20_000u32 {
            let mut bytes = noise.bytes(if round % 100 == 0 { 9000 } else { 1400 });
            if let Some(first) = bytes.first_mut() {
                *first = match round % 5 {
                    0 => 0,
                    1 => 20 + (noise.next() % 5) as u8,
                    2 => 128,
                    3 => 144,
                    _ => *first,
                };
            }
            if round % 5 == 0 && bytes.len() >= 20 {
                // A STUN header with its cookie and a length that is sometimes right.
                let length = if round % 10 == 0 {
                    (bytes.len() - 20) as u16
                } else {
                    noise.next() as u16
                };
                bytes[..2].copy_from_slice(&[0, 1]);
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[4..8].copy_from_slice(&0x2112_a442u32.to_be_bytes());
            }
            socket
                .send_to(&bytes, (MACHINE, ports[round as usize % ports.len()]))
                .await?;
            if round % 200 == 0 {
                audio.send(1).await?;
            }
        }
        // Frames that are no messages, and messages with absurd content, from somebody with a good token.
        for round in 0..40 {
            let mut cheat = join(&token(
                LAB,
                &format!("cheat-{}", round % 4),
                room,
                json!({}),
            )?)
            .await?;
            let _ = match round % 5 {
                0 => cheat.frame(noise.bytes(4000)).await,
                1 => {
                    let sdp = String::from_utf8_lossy(&noise.bytes(3000)).into_owned();
                    cheat
                        .say(request::Message::Offer(proto::SessionDescription {
                            r#type: "offer".into(),
                            sdp,
                            id: 1,
                            ..Default::default()
                        }))
                        .await
                }
                2 => cheat.frame(vec![0x0a; 3 << 20]).await,
                3 => {
                    let add = |number: u32| {
                        request::Message::AddTrack(proto::AddTrackRequest {
                            cid: "c".repeat(10_000),
                            name: format!("{number}"),
                            r#type: number as i32,
                            source: -3,
                            ..Default::default()
                        })
                    };
                    let mut last = Ok(());
                    for number in 0..300 {
                        last = cheat.say(add(number)).await;
                    }
                    last
                }
                _ => cheat.send_raw_data(true, &noise.bytes(2000)).await,
            };
            let _ = cheat.linger(Duration::from_millis(50)).await;
            cheat.vanish().await;
            sender.turn().await?;
            receiver.turn().await?;
        }
        let first = audio.sent();
        audio.send(100).await?;
        receiver.linger(Duration::from_millis(500)).await?;
        let lost = missing(&received(&receiver, 1), first..first + 100);
        ensure!(
            lost == 0,
            "{lost} of 100 packets of an honest sender are missing afterwards (seed {seed})"
        );
        ensure!(
            receiver.seen().left.is_none() && sender.seen().left.is_none(),
            "the honest ones were thrown out"
        );
        // And the room still takes somebody new.
        let mut late = join(&token(LAB, "late", room, json!({}))?).await?;
        flows(&mut audio, &mut sender, &mut late).await?;
        Ok(())
    })
}
