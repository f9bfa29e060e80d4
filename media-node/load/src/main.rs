// SPDX-License-Identifier: EUPL-1.2
//! `plenum-load`: people without browsers. They join a room of a running system, some publish, all receive; what is printed is
//! the time from dialling to the first media, and what came of the media.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use livekit_protocol as proto;
use media_core::io::Protocol;
use plenum_load::driver::Driver;
use plenum_load::headless::{Event, Source};
use plenum_load::websocket;
use serde::Serialize;

/// Frames of video.
const VIDEO: Duration = Duration::from_millis(33);
/// Packets of audio.
const AUDIO: Duration = Duration::from_millis(20);
/// The gateway closes a session that is silent for longer than its ping timeout.
const PING: Duration = Duration::from_secs(5);
/// How long a gateway that answers 503 is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// Joins a room with headless clients and measures what they get.
#[derive(Parser, Clone, Debug)]
#[command(version, about)]
struct Arguments {
    /// The gateway.
    #[arg(long, default_value = "ws://127.0.0.1:7880")]
    url: String,
    /// API key of a tenant.
    #[arg(long, env = "LIVEKIT_API_KEY", default_value = "devkey")]
    api_key: String,
    /// Its secret.
    #[arg(
        long,
        env = "LIVEKIT_API_SECRET",
        default_value = "secretsecretsecretsecretsecretsecret",
        hide_env_values = true
    )]
    api_secret: String,
    /// Room to join.
    #[arg(long, default_value = "plenum-load")]
    room: String,
    /// Clients that publish a camera and a microphone and receive everybody else.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Clients that receive only.
    #[arg(long, default_value_t = 5)]
    subscribers: usize,
    /// Milliseconds between two joins.
    #[arg(long, default_value_t = 100)]
    apart: u64,
    /// Seconds from the last join to the end.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of a camera frame; 30 of them per second.
    #[arg(long, default_value_t = 4_000)]
    frame_bytes: usize,
    /// Own address of the media sockets.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Media over ICE/TCP.
    #[arg(long)]
    tcp: bool,
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What came of one client.
#[derive(Clone, Debug, Default, Serialize)]
struct Client {
    publishes: bool,
    /// From dialling to the answer to the join, milliseconds.
    joined_ms: Option<f64>,
    /// From dialling to the first packet of somebody's media.
    first_media_ms: Option<f64>,
    /// Tracks it received something of.
    tracks: usize,
    packets: u64,
    bytes: u64,
    lost: u64,
    profile: Option<&'static str>,
}

#[derive(Serialize)]
struct Report {
    clients: Vec<Client>,
    join_ms: Spread,
    first_media_ms: Spread,
    packets: u64,
    lost: u64,
}

/// Median, nine tenths, worst.
#[derive(Serialize)]
struct Spread {
    median: f64,
    p90: f64,
    worst: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |part: usize| {
            figures
                .get((figures.len().saturating_sub(1)) * part / 10)
                .copied()
                .unwrap_or(f64::NAN)
        };
        Self {
            median: at(5),
            p90: at(9),
            worst: at(10),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let total = arguments.publishers + arguments.subscribers;
    if total == 0 {
        bail!("nobody joins: give --publishers or --subscribers");
    }
    let apart = Duration::from_millis(arguments.apart);
    let end = Instant::now() + apart * total as u32 + Duration::from_secs(arguments.seconds);
    let mut running = Vec::new();
    for index in 0..total {
        let publishes = index < arguments.publishers;
        running.push(tokio::spawn(client(
            arguments.clone(),
            index,
            publishes,
            end,
        )));
        tokio::time::sleep(apart).await;
    }
    let mut clients = Vec::new();
    for client in running {
        clients.push(client.await.context("a client's task ended")??);
    }
    // A single publisher has nobody to receive from.
    let figures =
        |of: fn(&Client) -> Option<f64>| clients.iter().filter_map(of).collect::<Vec<_>>();
    let report = Report {
        join_ms: Spread::of(figures(|client| client.joined_ms)),
        first_media_ms: Spread::of(figures(|client| client.first_media_ms)),
        packets: clients.iter().map(|client| client.packets).sum(),
        lost: clients.iter().map(|client| client.lost).sum(),
        clients,
    };
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => {
            let spread = |name: &str, spread: &Spread| {
                println!(
                    "{name}: median {:.1} ms, 90 % {:.1} ms, worst {:.1} ms",
                    spread.median, spread.p90, spread.worst
                );
            };
            spread("dialling to joined", &report.join_ms);
            spread("dialling to first media", &report.first_media_ms);
            println!(
                "{} clients received {} packets and lost {}",
                report.clients.len(),
                report.packets,
                report.lost
            );
        }
    }
    let waiting = report
        .clients
        .iter()
        .filter(|client| {
            client.first_media_ms.is_none() && !(client.publishes && arguments.publishers == 1)
        })
        .count();
    if arguments.publishers > 0 && waiting > 0 {
        bail!("{waiting} clients received no media");
    }
    Ok(())
}

/// Dials as a client does that is told to come again: 503 says that it may pass.
async fn dial(url: &str, token: &str, since: Instant) -> Result<websocket::Session> {
    loop {
        match websocket::connect(url, token).await {
            Err(websocket::ConnectError::Refused { status: 503, text })
                if since.elapsed() < PATIENCE =>
            {
                eprintln!("the gateway is not ready for this room yet: {text}");
                tokio::time::sleep(AGAIN).await;
            }
            dialled => return Ok(dialled?),
        }
    }
}

async fn client(
    arguments: Arguments,
    index: usize,
    publishes: bool,
    end: Instant,
) -> Result<Client> {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("a clock after 1970")?;
    let identity = format!("load-{}-{index}", std::process::id());
    let token = websocket::token(
        &arguments.api_key,
        &arguments.api_secret,
        &arguments.room,
        &identity,
        unix.as_secs(),
    );
    let dialled = Instant::now();
    let (requests, responses) = dial(&arguments.url, &token, dialled).await?;
    let protocol = if arguments.tcp {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let mut driver = Driver::new(arguments.address, protocol, requests, responses).await?;
    let mut report = Client {
        publishes,
        ..Client::default()
    };
    let millis = |instant: Instant| instant.elapsed().as_secs_f64() * 1e3;
    let tracks = if publishes {
        let client = driver.client();
        vec![
            (client.publish(Source::Camera), true),
            (client.publish(Source::Microphone), false),
        ]
    } else {
        Vec::new()
    };
    let payload = vec![0x5a; arguments.frame_bytes.max(1)];
    let mut next = [tokio::time::Instant::now(); 2];
    let mut ping = tokio::time::Instant::now() + PING;
    let (mut video_stamp, mut audio_stamp) = (0_u32, 0_u32);
    let end = tokio::time::Instant::from_std(end);
    loop {
        let due = if publishes {
            next[0].min(next[1]).min(ping).min(end)
        } else {
            ping.min(end)
        };
        tokio::select! {
            stepped = driver.step() => stepped?,
            () = tokio::time::sleep_until(due) => {}
        }
        let now = tokio::time::Instant::now();
        if now >= end || driver.signalling_ended() {
            break;
        }
        if now >= ping {
            ping = now + PING;
            let timestamp = i64::try_from(driver.now().as_millis()).unwrap_or(i64::MAX);
            driver
                .client()
                .request(proto::signal_request::Message::PingReq(proto::Ping {
                    timestamp,
                    rtt: 0,
                }));
        }
        for (cid, video) in &tracks {
            let (slot, interval) = if *video { (0, VIDEO) } else { (1, AUDIO) };
            if now < next[slot] {
                continue;
            }
            next[slot] = (next[slot] + interval).max(now);
            let client = driver.client();
            if *video {
                video_stamp = video_stamp.wrapping_add(90 * VIDEO.as_millis() as u32);
                client.send_frame(cid, 0, video_stamp, &payload);
            } else {
                audio_stamp = audio_stamp.wrapping_add(960);
                client.send_frame(cid, 0, audio_stamp, &payload[..payload.len().min(80)]);
            }
        }
        while let Some(event) = driver.client().poll_event() {
            match event {
                Event::Joined(_) => report.joined_ms = Some(millis(dialled)),
                Event::Connected(_, profile) => report.profile = Some(profile.label()),
                Event::Left(leave) => bail!(
                    "the node ended the session of {identity}: {:?}",
                    leave.reason()
                ),
                Event::Failed(side, failure) => {
                    bail!("the connection {side:?} of {identity} failed: {failure:?}")
                }
                _ => {}
            }
        }
        if report.first_media_ms.is_none() && !driver.client().received().is_empty() {
            report.first_media_ms = Some(millis(dialled));
        }
        driver.flush().await?;
    }
    let now = driver.now();
    let client = driver.client();
    report.tracks = client.received().len();
    report.packets = client.received().values().map(|track| track.packets).sum();
    report.bytes = client.received().values().map(|track| track.bytes).sum();
    report.lost = client.subscriber().map_or(0, |leg| leg.counters().lost);
    client.leave(now);
    driver.flush().await?;
    Ok(report)
}
