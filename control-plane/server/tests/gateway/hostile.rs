// SPDX-License-Identifier: EUPL-1.2
//! Input that nobody sends in good faith: answered or dropped, and the server goes on.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::{LIVE, Request};
use crate::world::{COUNCIL, World};

/// Sends raw bytes and reads until the server closes or answers.
async fn raw(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.http).await.expect("connect");
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    timeout(LIVE, stream.read_to_end(&mut answer))
        .await
        .expect("closed")
        .unwrap_or_default();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_its_bounds_is_refused() {
    let world = World::bare().await;
    let long = format!(
        "GET /rtc?access_token={} HTTP/1.1\r\nHost: x\r\n\r\n",
        "a".repeat(128 * 1024)
    );
    let answer = raw(&world, long.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "X-Header: y\r\n".repeat(200)
    );
    let answer = raw(&world, many.as_bytes()).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(
        Request::new(world.http, "GET", "/livez")
            .send()
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_never_finishes_is_dropped() {
    let world = World::bare().await;
    let heads: [&[u8]; 3] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut streams = Vec::new();
    for head in heads {
        let mut stream = TcpStream::connect(world.http).await.expect("connect");
        stream.write_all(head).await.expect("write");
        streams.push((head, stream));
    }
    for (head, mut stream) in streams {
        let mut rest = Vec::new();
        timeout(LIVE, stream.read_to_end(&mut rest))
            .await
            .unwrap_or_else(|_| panic!("{head:?} is still open"))
            .unwrap_or_default();
    }
    // A body that never comes whole.
    let head = format!(
        "POST /api/v1/c/{COUNCIL}/entry HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"
    );
    let mut stream = TcpStream::connect(world.http).await.expect("connect");
    stream.write_all(head.as_bytes()).await.expect("write");
    let mut answer = vec![0; 12];
    timeout(LIVE, stream.read_exact(&mut answer))
        .await
        .expect("answered")
        .expect("a status");
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_beyond_its_bounds_is_refused() {
    let world = World::start().await;
    let body = format!("{{\"name\":\"{}\"}}", "x".repeat(100 * 1024));
    let answer = Request::new(world.http, "POST", &format!("/api/v1/c/{COUNCIL}/entry"))
        .body("application/json", body.into_bytes())
        .send()
        .await;
    assert_eq!(
        (answer.status, answer.json()["error"]["reason"].as_str()),
        (413, Some("BodyTooLong"))
    );
}

fn rand() -> [u8; 32] {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).expect("randomness");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arbitrary_requests_do_not_stop_the_server() {
    let world = World::start().await;
    let path = prop_oneof![
        Just("/rtc".to_owned()),
        Just("/rtc/validate".to_owned()),
        Just(format!("/api/v1/c/{COUNCIL}/entry")),
        Just("/twirp/livekit.RoomService/ListRooms".to_owned()),
        "/[!-~]{0,40}",
    ];
    let request = (
        prop_oneof![
            Just("GET"),
            Just("POST"),
            Just("HEAD"),
            Just("OPTIONS"),
            Just("BREW")
        ],
        path,
        "[!-~]{0,60}",
        proptest::collection::vec(("[A-Za-z-]{1,20}", "[ -~]{0,60}"), 0..6),
        proptest::collection::vec(any::<u8>(), 0..200),
    );
    let seed: [u8; 32] = rand();
    println!("seed {}", data_encoding::HEXLOWER.encode(&seed));
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    for _ in 0..300 {
        let (method, path, query, headers, body) =
            request.new_tree(&mut runner).expect("tree").current();
        let mut bytes =
            format!("{method} {path}?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
                .into_bytes();
        for (name, value) in &headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
        bytes.extend(&body);
        let answer = raw(&world, &bytes).await;
        assert!(
            !answer.starts_with(b"HTTP/1.1 500"),
            "{method} {path}?{query} {headers:?} {body:?}"
        );
    }
    assert_eq!(
        Request::new(world.http, "GET", "/livez")
            .send()
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_two_mebibytes_ends_its_connection_only() {
    let world = World::start().await;
    let token = crate::world::lab_join("room", "anna");
    let mut stream = TcpStream::connect(world.http).await.expect("connect");
    let head = format!(
        "GET /rtc?access_token={token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("head");
    let mut answer = [0_u8; 12];
    stream.read_exact(&mut answer).await.expect("answer");
    assert_eq!(&answer, b"HTTP/1.1 101");
    // A frame that says it is 3 MiB long.
    let mut frame = vec![0x82, 0xff];
    frame.extend((3_u64 << 20).to_be_bytes());
    frame.extend([0; 4]);
    stream.write_all(&frame).await.expect("frame");
    let mut rest = Vec::new();
    timeout(LIVE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection ends")
        .unwrap_or_default();
    crate::rtc::connect(world.http, &format!("access_token={token}"))
        .await
        .expect("others go on");
}
