// SPDX-License-Identifier: EUPL-1.2
//! A person as LiveKit's SDKs behave: joins by `/rtc`, publishes numbered frames, resumes when signalling breaks, joins anew when
//! told to, and keeps its media sockets meanwhile. Everything it sends and gets is on record.

pub mod record;
pub mod retry;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Signal;
use media_core::io::Protocol;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::driver::{DriveError, Driver};
use crate::headless::{Event, Source};
use crate::websocket::{self, ConnectError, Session};
use record::{Happened, Kind, Millis, Record, Stamp};
use retry::Policy;

/// Pace of signalling pings.
const PING: Duration = Duration::from_secs(5);
/// Signalling from which nothing came for so long is given up.
const SIGNAL_SILENCE: Duration = Duration::from_secs(15);
/// A gateway that does not answer a dial, and a room that sends no first message, within this time.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
/// A media connection that is silent for so long has failed: checks are answered each 2.5 s.
const MEDIA_SILENCE: Duration = Duration::from_secs(12);
/// A first join that was refused is tried again after this time: the door's page waits, an SDK's user clicks again.
const JOIN_AGAIN: Duration = Duration::from_millis(1_000);
/// Who gave up comes back by hand.
const BY_HAND: Duration = Duration::from_secs(3);
/// Longest stretch of frames made up for at once after a stall of this process.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Who somebody is and what they do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Gateways (`ws://…`), dialled in turn.
    pub gateways: Vec<String>,
    /// Join token.
    pub token: String,
    /// Its identity.
    pub identity: String,
    /// Number in stamps, unique in a run.
    pub number: u32,
    /// What is published.
    pub publishes: Vec<Kind>,
    /// Bytes of a picture; up to 1,100 fit in one packet.
    pub picture_bytes: usize,
    /// Patience.
    pub policy: Policy,
    /// Own address of the media sockets.
    pub address: IpAddr,
    /// Begin of the run.
    pub origin: Instant,
}

/// A running person. Dropped, it vanishes without a word.
pub struct Person {
    record: Arc<Mutex<Record>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Person {
    /// Begins to join; goes on until it leaves or is dropped.
    #[must_use]
    pub fn enter(plan: Plan) -> Self {
        let began = plan.origin.elapsed().as_millis();
        let record = Arc::new(Mutex::new(Record {
            identity: plan.identity.clone(),
            number: plan.number,
            began: Millis(u32::try_from(began).unwrap_or(u32::MAX)),
            token: plan.token.clone(),
            ..Record::default()
        }));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(Life::new(plan, Arc::clone(&record)).live(stopped));
        Self {
            record,
            stop: Some(stop),
            task,
        }
    }

    /// What it sent and got so far.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves in good order.
    pub async fn leave(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // A task that panicked has left too.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.task.abort();
        }
    }
}

type Dial = Pin<Box<dyn Future<Output = Result<Session, DialError>> + Send>>;

/// Why a dial came to nothing.
enum DialError {
    Late,
    Connect(ConnectError),
}

/// What the next dial is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Into the room, with new media.
    Join,
    /// The same participant, the same media.
    Resume,
}

/// Where signalling stands.
enum Line {
    /// Dials at this time.
    Waits(Instant),
    Dials(Dial),
    /// The first message has to come by then.
    Open(Instant),
    Stands,
    /// For good.
    Over,
}

/// A track of ours.
struct Own {
    kind: Kind,
    cid: Option<String>,
    due: Instant,
}

struct Life {
    plan: Plan,
    record: Arc<Mutex<Record>>,
    driver: Option<Driver>,
    own: Vec<Own>,
    line: Line,
    want: Want,
    /// Since the line broke: attempts and when.
    attempt: u32,
    broke: Instant,
    has_joined: bool,
    by_hand: bool,
    dials: usize,
    ping: Instant,
    heard: Instant,
    /// Media have to be heard of by then.
    media_patience: Instant,
    random: u64,
}

impl Life {
    fn new(plan: Plan, record: Arc<Mutex<Record>>) -> Self {
        let now = Instant::now();
        let own = plan
            .publishes
            .iter()
            .map(|kind| Own {
                kind: *kind,
                cid: None,
                due: now,
            })
            .collect();
        Self {
            random: (u64::from(plan.number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            dials: plan.number as usize,
            plan,
            record,
            driver: None,
            own,
            line: Line::Waits(now),
            want: Want::Join,
            attempt: 0,
            broke: now,
            has_joined: false,
            by_hand: false,
            ping: now,
            heard: now,
            media_patience: now,
        }
    }

    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, at: Instant) -> Millis {
        let since = at.saturating_duration_since(self.plan.origin);
        Millis(u32::try_from(since.as_millis()).unwrap_or(u32::MAX))
    }

    fn note(&self, happened: Happened) {
        let at = self.millis(Instant::now());
        self.record().happened.push((at, happened));
    }

    async fn live(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let due = self.due();
            let driver = self.driver.as_mut();
            tokio::select! {
                _ = &mut stopped => break,
                // A socket that fails is a media connection that fails.
                stepped = step(driver) => if stepped.is_err() {
                    self.media_lost();
                },
                dialled = dial(&mut self.line) => self.dialled(dialled).await,
                () = sleep_until(due) => {}
            }
            self.turn().await;
        }
        if let Some(driver) = &mut self.driver {
            let now = driver.now();
            driver.client().leave(now);
            let _ = driver.flush().await;
            // The task of the WebSocket has to read it before the channel's end is dropped.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// When there is something to do besides what arrives.
    fn due(&self) -> Instant {
        let mut due = Instant::now() + Duration::from_millis(500);
        for own in &self.own {
            due = due.min(own.due);
        }
        match &self.line {
            Line::Waits(at) | Line::Open(at) => due.min(*at),
            Line::Stands => due.min(self.ping),
            Line::Dials(_) | Line::Over => due,
        }
    }

    /// What is due now.
    async fn turn(&mut self) {
        let now = Instant::now();
        self.make_frames(now);
        self.take_events(now);
        self.signal(now);
        if let Some(driver) = &mut self.driver
            && driver.flush().await.is_err()
        {
            self.media_lost();
        }
    }

    fn make_frames(&mut self, now: Instant) {
        let origin = self.plan.origin;
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        for own in &mut self.own {
            own.due = own.due.max(now - CATCH_UP);
            while own.due <= now {
                let produced = record.produced.entry(own.kind).or_default();
                let stamp = Stamp {
                    publisher: self.plan.number,
                    kind: own.kind,
                    number: u32::try_from(produced.len()).unwrap_or(u32::MAX),
                };
                let at = own.due.saturating_duration_since(origin).as_millis();
                produced.push(Millis(u32::try_from(at).unwrap_or(u32::MAX)));
                own.due += own.kind.interval();
                if let (Some(driver), Some(cid)) = (&mut self.driver, &own.cid) {
                    let rtp = stamp.number.wrapping_mul(own.kind.ticks());
                    let payload = payload(stamp, self.plan.picture_bytes);
                    driver.client().send_frame(cid, 0, rtp, &payload);
                }
            }
        }
    }

    fn take_events(&mut self, now: Instant) {
        let at = self.millis(now);
        loop {
            let Some(event) = self
                .driver
                .as_mut()
                .and_then(|own| own.client().poll_event())
            else {
                return;
            };
            match event {
                Event::Media { packet, .. } => {
                    if let Some(stamp) = Stamp::find(&packet.payload) {
                        let mut record = self.record();
                        let arrived = record
                            .arrived
                            .entry((stamp.publisher, stamp.kind))
                            .or_default();
                        arrived.push((stamp.number, at));
                    }
                }
                Event::Joined(join) => {
                    self.stands(now, Happened::Joined);
                    self.has_joined = true;
                    self.record().sid = join.participant.map(|own| own.sid);
                }
                Event::Reconnected(_) => {
                    self.stands(now, Happened::Resumed);
                    if let Some(driver) = &mut self.driver {
                        driver.client().resume();
                    }
                }
                Event::Failed(..) => self.media_lost(),
                Event::Left(leave) => self.told_to_leave(now, &leave),
                Event::Signal(signal) => {
                    self.heard = now;
                    if let Signal::RefreshToken(token) = *signal {
                        self.record().token = token;
                    }
                }
                Event::Published { .. } => self.heard = now,
                Event::Connected(..)
                | Event::ChannelOpen(..)
                | Event::Data(..)
                | Event::KeyFrameWanted(_) => {}
            }
        }
    }

    fn stands(&mut self, now: Instant, how: Happened) {
        self.note(how);
        self.line = Line::Stands;
        (self.attempt, self.by_hand) = (0, false);
        (self.heard, self.ping) = (now, now + PING);
        self.media_patience = now + MEDIA_SILENCE;
        self.record().connected = true;
    }

    fn told_to_leave(&mut self, now: Instant, leave: &proto::LeaveRequest) {
        match leave.action() {
            Action::Reconnect => {
                self.note(Happened::SentAway);
                self.driver = None;
                self.breaks(now, Want::Join);
            }
            Action::Resume => self.breaks(now, Want::Resume),
            Action::Disconnect => {
                self.over(format!("{:?}", leave.reason()));
            }
        }
    }

    fn over(&mut self, why: String) {
        self.note(Happened::Ended(why));
        self.driver = None;
        self.line = Line::Over;
        self.record().connected = false;
    }

    /// A connection failed or fell silent. Whoever took it away may say so in a moment by signalling: that is listened to until the
    /// resume is dialled.
    fn media_lost(&mut self) {
        if !matches!(self.line, Line::Stands) {
            // A resume is under way already, and its answer says whether the media can be saved.
            return;
        }
        let now = Instant::now();
        self.note(Happened::MediaLost);
        // A resume whose media did not come back ends in a join, as in the SDKs.
        let want = if self.want == Want::Resume {
            self.driver = None;
            Want::Join
        } else {
            Want::Resume
        };
        self.breaks(now, want);
    }

    /// The line is gone: when is it tried again?
    fn breaks(&mut self, now: Instant, want: Want) {
        if matches!(self.line, Line::Stands) {
            (self.attempt, self.broke) = (0, now);
        }
        self.record().connected = false;
        self.want = if self.driver.is_some() {
            want
        } else {
            Want::Join
        };
        let wait = if !self.has_joined || self.by_hand {
            Some(JOIN_AGAIN.mul_f64(0.5 + self.random()))
        } else {
            let random = self.random();
            let elapsed = now.saturating_duration_since(self.broke);
            self.plan.policy.delay(self.attempt, elapsed, random)
        };
        self.attempt += 1;
        self.line = Line::Waits(match wait {
            Some(wait) => now + wait,
            None => {
                self.note(Happened::GaveUp);
                self.by_hand = true;
                self.driver = None;
                self.want = Want::Join;
                now + BY_HAND
            }
        });
    }

    /// Dials, pings and notices what has fallen silent.
    fn signal(&mut self, now: Instant) {
        match &self.line {
            Line::Waits(at) if *at <= now => self.dial(),
            Line::Open(by) if *by <= now || self.has_ended() => {
                self.note(Happened::Unreachable);
                self.breaks(now, self.want);
            }
            Line::Stands if self.has_ended() || now - self.heard > SIGNAL_SILENCE => {
                self.note(Happened::SignallingLost);
                self.breaks(now, Want::Resume);
            }
            Line::Stands => {
                if self.ping <= now {
                    self.ping = now + PING;
                    if let Some(driver) = &mut self.driver {
                        let timestamp = i64::try_from(driver.now().as_millis()).unwrap_or(i64::MAX);
                        let ping = proto::Ping { timestamp, rtt: 0 };
                        driver
                            .client()
                            .request(proto::signal_request::Message::PingReq(ping));
                    }
                }
                if self.media_is_silent(now) {
                    self.media_lost();
                } else if self.want == Want::Resume && now > self.media_patience {
                    // The media of the resume hold.
                    self.want = Want::Join;
                }
            }
            Line::Waits(_) | Line::Dials(_) | Line::Open(_) | Line::Over => {}
        }
    }

    fn has_ended(&self) -> bool {
        self.driver.as_ref().is_none_or(Driver::signalling_ended)
    }

    fn media_is_silent(&mut self, now: Instant) -> bool {
        if now < self.media_patience {
            return false;
        }
        let Some(driver) = &mut self.driver else {
            return false;
        };
        let at = driver.now();
        let client = driver.client();
        let silent = |heard: media_core::time::Timestamp| at.since(heard) > MEDIA_SILENCE;
        client.publisher().is_some_and(|leg| silent(leg.heard()))
            || client.subscriber().is_some_and(|leg| silent(leg.heard()))
    }

    fn dial(&mut self) {
        self.dials += 1;
        let gateways = &self.plan.gateways;
        let Some(url) = gateways.get(self.dials % gateways.len().max(1)).cloned() else {
            return self.over("no gateway was named".to_owned());
        };
        let (token, sid) = {
            let record = self.record();
            (record.token.clone(), record.sid.clone())
        };
        let resumed = sid.filter(|_| self.want == Want::Resume);
        self.line = Line::Dials(Box::pin(async move {
            let session = async {
                match resumed {
                    Some(sid) => websocket::resume(&url, &token, &sid).await,
                    None => websocket::connect(&url, &token).await,
                }
            };
            match timeout(FIRST_MESSAGE, session).await {
                Ok(session) => session.map_err(DialError::Connect),
                Err(_) => Err(DialError::Late),
            }
        }));
    }

    async fn dialled(&mut self, dialled: Result<Session, DialError>) {
        let now = Instant::now();
        match dialled {
            Ok((requests, responses)) => {
                self.line = Line::Open(now + FIRST_MESSAGE);
                if self.want == Want::Resume
                    && let Some(driver) = &mut self.driver
                {
                    driver.attach(requests, responses);
                    return;
                }
                let (ip, protocol) = (self.plan.address, Protocol::Udp);
                match Driver::with_payloads(ip, protocol, requests, responses).await {
                    Ok(mut driver) => {
                        for own in &mut self.own {
                            let source = match own.kind {
                                Kind::Audio => Source::Microphone,
                                Kind::Video => Source::Camera,
                            };
                            own.cid = Some(driver.client().publish(source));
                        }
                        self.driver = Some(driver);
                    }
                    Err(error) => self.over(error.to_string()),
                }
            }
            Err(DialError::Connect(ConnectError::Refused { status, text })) => {
                let final_word = matches!(status, 401 | 403 | 404);
                let words = text.trim().to_owned();
                self.note(Happened::Refused {
                    status,
                    text: words.clone(),
                });
                if final_word {
                    self.over(words);
                } else {
                    self.breaks(now, self.want);
                }
            }
            Err(DialError::Late | DialError::Connect(ConnectError::Socket(_))) => {
                self.note(Happened::Unreachable);
                self.breaks(now, self.want);
            }
        }
    }
}

async fn step(driver: Option<&mut Driver>) -> Result<(), DriveError> {
    match driver {
        Some(driver) => driver.step().await,
        None => std::future::pending().await,
    }
}

async fn dial(line: &mut Line) -> Result<Session, DialError> {
    match line {
        Line::Dials(dial) => dial.await,
        _ => std::future::pending().await,
    }
}

fn payload(stamp: Stamp, picture_bytes: usize) -> Vec<u8> {
    match stamp.kind {
        Kind::Audio => {
            let mut payload = vec![0x78];
            payload.extend_from_slice(&stamp.to_bytes());
            payload.resize(80, 0);
            payload
        }
        Kind::Video => {
            let mut payload = stamp.to_bytes().to_vec();
            payload.resize(picture_bytes.max(record::STAMP_BYTES), 0);
            payload
        }
    }
}
