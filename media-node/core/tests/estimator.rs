// SPDX-License-Identifier: EUPL-1.2
//! The estimator on paths of every kind, in virtual time: a bottleneck with a queue, a delay, loss and jitter, and a sender that uses all
//! it may. Seeds are printed; a run depends on nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use media_core::downlink::estimator::{BandwidthEstimator, Bitrate, Bounds, Probe};
use media_core::ids::Ssrc;
use media_core::rtp::twcc;
use media_core::time::Timestamp;

const STEP: Duration = Duration::from_millis(5);
const PACKET: u64 = 1_200;

/// A path. Everything that is sent goes through one queue.
#[derive(Clone, Copy)]
struct Path {
    capacity: Bitrate,
    /// Longest time in the queue; what would wait longer is dropped.
    queue: Duration,
    /// One way.
    delay: Duration,
    /// Share lost whatever is sent.
    loss: f64,
    /// Largest delay added to a packet by itself; order is kept.
    jitter: Duration,
    /// Rate that others put into the same queue.
    others: Bitrate,
}

impl Path {
    const fn of(kbit: u64) -> Self {
        Self {
            capacity: Bitrate::from_kbit(kbit),
            queue: Duration::from_millis(300),
            delay: Duration::from_millis(25),
            loss: 0.0,
            jitter: Duration::ZERO,
            others: Bitrate::ZERO,
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What was seen in a stretch of time.
#[derive(Default)]
struct Seen {
    estimates: Vec<u64>,
    queueing: Vec<Duration>,
    sent: u64,
    dropped: u64,
}

impl Seen {
    fn median(&self) -> Bitrate {
        let mut sorted = self.estimates.clone();
        sorted.sort_unstable();
        Bitrate::from_kbit(sorted[sorted.len() / 2] / 1_000)
    }

    fn lowest(&self) -> Bitrate {
        Bitrate::from_kbit(self.estimates.iter().min().expect("seen") / 1_000)
    }

    fn p95_queueing(&self) -> Duration {
        let mut sorted = self.queueing.clone();
        sorted.sort_unstable();
        sorted[sorted.len() * 95 / 100]
    }
}

struct Run {
    estimator: BandwidthEstimator,
    receiver: twcc::Feedback,
    random: Random,
    now: Timestamp,
    sequence: u16,
    /// When the queue will be empty.
    busy_until: Timestamp,
    others_owed: f64,
    last_arrival: Timestamp,
    on_path: VecDeque<(Timestamp, u16)>,
    feedback: VecDeque<(Timestamp, Vec<u8>)>,
    next_feedback: Timestamp,
    owed: f64,
    probe: Option<(Probe, i64, Timestamp)>,
    /// What the sender has to send, at most.
    wanted: Bitrate,
}

impl Run {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self {
            estimator: BandwidthEstimator::new(Bounds::default()),
            receiver: twcc::Feedback::default(),
            random: Random(seed),
            now: Timestamp::from_millis(1_000),
            sequence: 0,
            busy_until: Timestamp::ZERO,
            others_owed: 0.0,
            last_arrival: Timestamp::ZERO,
            on_path: VecDeque::new(),
            feedback: VecDeque::new(),
            next_feedback: Timestamp::ZERO,
            owed: 0.0,
            probe: None,
            wanted: Bitrate::from_kbit(50_000),
        }
    }

    /// Puts bytes into the queue; when they leave it and how long they wait, if there is room.
    fn enqueue(&mut self, path: &Path, at: Timestamp, bytes: u64) -> Option<(Timestamp, Duration)> {
        let begins = self.busy_until.max(at);
        let waits = begins.since(at);
        if waits > path.queue {
            return None;
        }
        self.busy_until = begins + path.capacity.time_of(bytes);
        Some((self.busy_until, waits))
    }

    fn send(&mut self, path: &Path, at: Timestamp, probe: Option<&Probe>, seen: &mut Seen) {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let id = probe.map(|probe| probe.id);
        self.estimator.sent(at, sequence, PACKET as u16, id);
        seen.sent += 1;
        let Some((left, waits)) = self.enqueue(path, at, PACKET) else {
            seen.dropped += 1;
            return;
        };
        seen.queueing.push(waits);
        if self.random.next() < path.loss {
            seen.dropped += 1;
            return;
        }
        let jitter = path.jitter.mul_f64(self.random.next());
        // A path keeps the order.
        self.last_arrival = self.last_arrival.max(left + path.delay + jitter);
        self.on_path.push_back((self.last_arrival, sequence));
    }

    /// Goes on for `seconds` on a path.
    fn on(&mut self, path: &Path, seconds: u64) -> Seen {
        let end = self.now + Duration::from_secs(seconds);
        let mut seen = Seen::default();
        while self.now < end {
            self.now = self.now + STEP;
            let now = self.now;
            self.others_owed += path.others.bytes_in(STEP) as f64;
            while self.others_owed >= PACKET as f64 {
                self.others_owed -= PACKET as f64;
                self.enqueue(path, now, PACKET);
            }
            let rate = self.estimator.estimate().min(self.wanted);
            self.owed += rate.bytes_in(STEP) as f64;
            while self.owed >= PACKET as f64 {
                self.owed -= PACKET as f64;
                self.send(path, now, None, &mut seen);
            }
            self.send_probe(path, now, &mut seen);
            self.hear(path, now);
            seen.estimates
                .push(self.estimator.estimate().bits_per_second());
        }
        seen
    }

    fn send_probe(&mut self, path: &Path, now: Timestamp, seen: &mut Seen) {
        if self.probe.is_none()
            && let Some(probe) = self.estimator.probe(now, self.wanted)
        {
            self.probe = Some((probe, i64::from(probe.bytes), now));
        }
        while let Some((probe, left, at)) = self.probe.take() {
            if left <= 0 {
                return;
            }
            if at > now {
                self.probe = Some((probe, left, at));
                return;
            }
            self.send(path, at, Some(&probe), seen);
            let next = at + probe.rate.time_of(PACKET);
            self.probe = Some((probe, left - PACKET as i64, next));
        }
    }

    fn hear(&mut self, path: &Path, now: Timestamp) {
        while self.on_path.front().is_some_and(|(at, _)| *at <= now) {
            let (at, sequence) = self.on_path.pop_front().expect("there");
            self.receiver.arrived(sequence, at);
        }
        if now >= self.next_feedback {
            self.next_feedback = now + Duration::from_millis(50);
            let mut message = Vec::new();
            self.receiver.write(&mut message, Ssrc(1), Ssrc(2));
            if !message.is_empty() && self.random.next() >= path.loss {
                self.feedback.push_back((now + path.delay, message));
            }
        }
        while self.feedback.front().is_some_and(|(at, _)| *at <= now) {
            let (_, message) = self.feedback.pop_front().expect("there");
            self.estimator
                .feedback(now, &message)
                .expect("the own receiver writes what is valid");
        }
    }
}

/// Settled within ten seconds: between 80 and 100 % of what the path carries, and 95 % of packets wait for 100 ms at most.
fn settles(path: &Path, seed: u64) {
    let mut run = Run::new(seed);
    run.on(path, 10);
    let seen = run.on(path, 30);
    let (share, waits) = (
        seen.median().bits_per_second() as f64
            / (path.capacity - path.others).bits_per_second() as f64,
        seen.p95_queueing(),
    );
    println!(
        "{}: median {share:.2} of it, lowest {}, p95 in the queue {waits:?}, dropped {} of {}",
        path.capacity,
        seen.lowest(),
        seen.dropped,
        seen.sent
    );
    assert!((0.8..=1.0).contains(&share), "median {share:.2}");
    assert!(waits <= Duration::from_millis(100), "{waits:?}");
}

#[test]
fn a_path_of_any_width_is_filled_within_ten_seconds_and_its_queue_stays_short() {
    for kbit in [300, 1_000, 2_500, 5_000, 10_000] {
        settles(&Path::of(kbit), kbit);
    }
}

#[test]
fn a_long_path_is_filled_as_well() {
    let path = Path {
        delay: Duration::from_millis(150),
        ..Path::of(2_000)
    };
    settles(&path, 1);
}

#[test]
fn jitter_of_a_radio_does_not_look_like_a_queue() {
    let path = Path {
        jitter: Duration::from_millis(30),
        ..Path::of(3_000)
    };
    let mut run = Run::new(2);
    run.on(&path, 10);
    let seen = run.on(&path, 30);
    println!("median {}", seen.median());
    assert!(
        seen.median() >= path.capacity.scaled(0.6),
        "{}",
        seen.median()
    );
}

#[test]
fn loss_at_random_does_not_take_the_rate_away() {
    for (loss, least) in [(0.02, 0.75), (0.05, 0.75), (0.2, 0.5)] {
        let path = Path {
            loss,
            ..Path::of(2_000)
        };
        let mut run = Run::new(3);
        run.on(&path, 15);
        let seen = run.on(&path, 30);
        println!("{loss}: median {}", seen.median());
        assert!(
            seen.median() >= path.capacity.scaled(least),
            "{loss}: {}",
            seen.median()
        );
    }
}

#[test]
fn a_queue_too_short_to_be_seen_is_found_by_loss() {
    let path = Path {
        queue: Duration::from_millis(8),
        ..Path::of(1_000)
    };
    let mut run = Run::new(4);
    run.on(&path, 15);
    let seen = run.on(&path, 30);
    let loss = seen.dropped as f64 / seen.sent as f64;
    println!("median {}, dropped {loss:.3}", seen.median());
    assert!(seen.median() >= path.capacity.scaled(0.6));
    assert!(loss <= 0.12, "{loss}");
}

#[test]
fn a_path_that_narrows_is_followed_at_once_and_one_that_widens_is_found_again() {
    let (wide, narrow) = (Path::of(3_000), Path::of(600));
    let mut run = Run::new(5);
    run.on(&wide, 15);
    // The queue is full for a moment; then it drains.
    run.on(&narrow, 4);
    let seen = run.on(&narrow, 20);
    println!("narrow: {} p95 {:?}", seen.median(), seen.p95_queueing());
    assert!(seen.median() <= narrow.capacity);
    assert!(seen.median() >= narrow.capacity.scaled(0.7));
    assert!(seen.p95_queueing() <= Duration::from_millis(120));
    run.on(&wide, 15);
    let seen = run.on(&wide, 20);
    println!("wide again: {}", seen.median());
    assert!(
        seen.median() >= wide.capacity.scaled(0.75),
        "{}",
        seen.median()
    );
}

#[test]
fn others_on_the_path_are_left_their_share() {
    let path = Path {
        others: Bitrate::from_kbit(1_000),
        ..Path::of(3_000)
    };
    settles(&path, 6);
}

#[test]
fn who_sends_little_is_not_promised_much_but_a_probe_finds_it() {
    let path = Path::of(5_000);
    let mut run = Run::new(7);
    run.wanted = Bitrate::from_kbit(100);
    let seen = run.on(&path, 20);
    println!("idle: {}", seen.median());
    assert!(seen.sent * PACKET * 8 / 20 <= 130_000, "no probe was sent");
    run.wanted = Bitrate::from_kbit(3_000);
    run.on(&path, 6);
    let seen = run.on(&path, 5);
    println!("wanted: {}", seen.median());
    assert!(
        seen.median() >= Bitrate::from_kbit(2_700),
        "{}",
        seen.median()
    );
}

#[test]
fn a_receiver_that_offers_only_its_own_estimate_is_obeyed() {
    let mut estimator = BandwidthEstimator::new(Bounds::default());
    estimator.remb(Bitrate::from_kbit(250));
    assert_eq!(estimator.estimate(), Bitrate::from_kbit(250));
    estimator.remb(Bitrate::ZERO);
    assert_eq!(estimator.estimate(), Bounds::default().min);
}

#[test]
fn feedback_that_is_broken_changes_nothing() {
    let mut estimator = BandwidthEstimator::new(Bounds::default());
    let before = estimator.estimate();
    assert!(
        estimator
            .feedback(Timestamp::ZERO, &[0x8f, 205, 0, 1])
            .is_err()
    );
    assert_eq!(estimator.estimate(), before);
}
