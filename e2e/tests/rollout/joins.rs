// SPDX-License-Identifier: EUPL-1.2
//! Somebody who joins every tenth of a second, and tries again only where an SDK does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::system::GATEWAY;
use futures::{SinkExt as _, StreamExt as _};
use livekit_protocol::{self as proto, SignalRequest, SignalResponse};
use plenum_load::crowd::Spread;
use prost::Message as _;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::lab::{LAB, Lab, token};

/// Between two joins.
const PERIOD: Duration = Duration::from_millis(100);
/// A client waits that long for its first frame.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rooms of their own that joiners take turns in.
const ROOMS: u32 = 10;

#[derive(Debug, Default)]
struct Seen {
    joined: Vec<Duration>,
    again: u32,
    failed: Vec<String>,
}

/// People who join and leave without pause.
pub(crate) struct Joiners {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// Why a try failed.
enum Failed {
    /// Nobody answered: an SDK tries once more.
    Unreachable(String),
    /// Somebody said no: an SDK does not try again.
    Refused(String),
}

impl Joiners {
    /// Begins; every other one joins a room of the crowd.
    pub(crate) fn begin(rooms: u32) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let told = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            let mut joins = JoinSet::new();
            for number in 0_u32.. {
                ticks.tick().await;
                let room = if number % 2 == 0 {
                    format!("room-{}", (number / 2) % rooms)
                } else {
                    format!("visit-{}", (number / 2) % ROOMS)
                };
                let told = Arc::clone(&told);
                joins.spawn(async move { join(number, &room, &told).await });
                while joins.try_join_next().is_some() {}
            }
        });
        Self { seen, task }
    }

    /// Ends; everybody who tried was let in.
    pub(crate) async fn end(self, lab: &Lab) -> Result<()> {
        // Those who are about to join have their time.
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.task.abort();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        lab.figure("joins", seen.joined.len(), "times");
        lab.figure("joins_tried_again", seen.again, "times");
        lab.spread("join", &Spread::of(seen.joined.clone()));
        lab.figure("joins_failed", seen.failed.len(), "times");
        ensure!(!seen.joined.is_empty(), "nobody tried to join");
        let failed = &seen.failed;
        ensure!(
            failed.is_empty(),
            "{} of {} were turned away: {:#?}",
            failed.len(),
            failed.len() + seen.joined.len(),
            &failed[..failed.len().min(10)]
        );
        Ok(())
    }
}

async fn join(number: u32, room: &str, seen: &Mutex<Seen>) {
    let began = Instant::now();
    let mut again = 0;
    let outcome = loop {
        match try_once(number, room).await {
            Err(Failed::Unreachable(_)) if again == 0 => again = 1,
            outcome => break outcome,
        }
    };
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.again += again;
    match outcome {
        Ok(()) => seen.joined.push(began.elapsed()),
        Err(Failed::Unreachable(why) | Failed::Refused(why)) => {
            seen.failed
                .push(format!("visitor {number} of {room}: {why}"));
        }
    }
}

async fn try_once(number: u32, room: &str) -> Result<(), Failed> {
    let token = token(LAB, &format!("visitor-{number}"), room, &json!({}));
    let url = format!(
        "ws://{GATEWAY}/rtc?access_token={token}&auto_subscribe=0&sdk=js&protocol=16&version=2.15.0"
    );
    match tokio::time::timeout(PATIENCE, visit(&url)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failed::Unreachable("no first frame in time".to_owned())),
    }
}

async fn visit(url: &str) -> Result<(), Failed> {
    let (mut socket, _) = match tokio_tungstenite::connect_async(url).await {
        Ok(connected) => connected,
        Err(tungstenite::Error::Http(answer)) => {
            let status = answer.status();
            let body = answer.into_body().unwrap_or_default();
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(Failed::Refused(format!("{status} {text}")));
        }
        Err(error) => return Err(Failed::Unreachable(error.to_string())),
    };
    let first = async {
        loop {
            match socket.next().await.context("the WebSocket ended")?? {
                Message::Binary(frame) => break Ok(SignalResponse::decode(frame)?),
                Message::Close(close) => bail!("closed: {close:?}"),
                _ => {}
            }
        }
    };
    let first: SignalResponse = first
        .await
        .map_err(|error: anyhow::Error| Failed::Unreachable(format!("{error:#}")))?;
    match first.message {
        Some(proto::signal_response::Message::Join(_)) => {}
        other => return Err(Failed::Refused(format!("first frame: {other:?}"))),
    }
    let leave = SignalRequest {
        message: Some(proto::signal_request::Message::Leave(
            proto::LeaveRequest::default(),
        )),
    };
    // They are in; what comes of the good-bye is nobody's concern.
    let _ = socket
        .send(Message::Binary(leave.encode_to_vec().into()))
        .await;
    let _ = socket.close(None).await;
    Ok(())
}
