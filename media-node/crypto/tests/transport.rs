// SPDX-License-Identifier: EUPL-1.2
//! ICE-lite, DTLS and data channels together: a client and the node's end over a lossy wire in virtual time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use media_core::api::{Channel, IceCredentials, TransportFailure};
use media_core::crypto::Crypto;
use media_core::ids::TransportId;
use media_core::io::{Path, Protocol};
use media_core::time::Timestamp;
use media_core::transport::client::ClientTransport;
use media_core::transport::{CONSENT, Transport, TransportEvent, TransportOut, stun};
use media_crypto::{AwsLc, Certificate};

fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        ufrag: format!("00{name}"),
        password: format!("{name}-password-of-some-length"),
    }
}

fn path(local: u16, remote: u16) -> Path {
    Path {
        protocol: Protocol::Udp,
        local: SocketAddr::from(([127, 0, 0, 1], local)),
        remote: SocketAddr::from(([127, 0, 0, 1], remote)),
    }
}

fn turned(path: Path) -> Path {
    Path {
        local: path.remote,
        remote: path.local,
        ..path
    }
}

struct Pair {
    now: Timestamp,
    client_crypto: AwsLc,
    server_crypto: AwsLc,
    client: ClientTransport<AwsLc>,
    server: Transport<AwsLc>,
    wire: VecDeque<(Timestamp, bool, Path, Vec<u8>)>,
    client_events: Vec<TransportEvent>,
    server_events: Vec<TransportEvent>,
    datagrams: usize,
    nominates: bool,
}

impl Pair {
    fn new(client_opens: bool) -> Self {
        let a = Arc::new(Certificate::generate().expect("certificate"));
        let b = Arc::new(Certificate::generate().expect("certificate"));
        let client_crypto = AwsLc::new(Arc::clone(&a), false);
        let mut server_crypto = AwsLc::new(Arc::clone(&b), false);
        let now = Timestamp::ZERO;
        let client = ClientTransport::new(
            credentials("client"),
            credentials("server"),
            path(1000, 2000),
            client_crypto.dtls_client(b.fingerprint(), now),
            client_opens,
            now,
        );
        let mut server = Transport::new(TransportId(1), credentials("server"));
        server.set_remote(
            now,
            &mut server_crypto,
            credentials("client"),
            a.fingerprint(),
            &mut TransportOut::default(),
        );
        Self {
            now,
            client_crypto,
            server_crypto,
            client,
            server,
            wire: VecDeque::new(),
            client_events: Vec::new(),
            server_events: Vec::new(),
            datagrams: 0,
            nominates: true,
        }
    }

    fn take(
        &mut self,
        from_client: bool,
        mut out: TransportOut,
        lost: &mut impl FnMut(usize) -> bool,
    ) {
        for (path, datagram) in out.datagrams.drain(..) {
            if !lost(self.datagrams) {
                self.wire.push_back((
                    self.now + Duration::from_millis(10),
                    !from_client,
                    turned(path),
                    datagram,
                ));
            }
            self.datagrams += 1;
        }
        if from_client {
            self.client_events.extend(out.events)
        } else {
            self.server_events.extend(out.events)
        }
    }

    fn run(&mut self, time: Duration, mut lost: impl FnMut(usize) -> bool) {
        let end = self.now + time;
        while self.now < end {
            let mut out = TransportOut::default();
            self.client
                .handle_timeout(self.now, &mut self.client_crypto, &mut out);
            self.take(true, out, &mut lost);
            let mut out = TransportOut::default();
            self.server
                .handle_timeout(self.now, &mut self.server_crypto, &mut out);
            self.take(false, out, &mut lost);
            self.now = self.now + Duration::from_millis(5);
            while self.wire.front().is_some_and(|(at, ..)| *at <= self.now) {
                let (_, to_client, path, datagram) = self.wire.pop_front().expect("front");
                let mut out = TransportOut::default();
                if to_client {
                    self.client.handle_datagram(
                        self.now,
                        &mut self.client_crypto,
                        &datagram,
                        &mut out,
                    );
                } else if stun::is_stun(&datagram) {
                    let datagram = match self.nominates {
                        true => datagram,
                        false => stun::request::<AwsLc>(
                            [3; 12],
                            "00server:00client",
                            &credentials("server").password,
                            false,
                        ),
                    };
                    self.server.handle_stun(
                        self.now,
                        &mut self.server_crypto,
                        path,
                        &datagram,
                        &mut out,
                    );
                } else {
                    self.server.handle_dtls(
                        self.now,
                        &mut self.server_crypto,
                        path,
                        &datagram,
                        &mut out,
                    );
                }
                self.take(to_client, out, &mut lost);
            }
        }
    }

    fn data(events: &[TransportEvent]) -> Vec<(Channel, Vec<u8>)> {
        events
            .iter()
            .filter_map(|event| match event {
                TransportEvent::Data(channel, data) => Some((*channel, data.clone())),
                _ => None,
            })
            .collect()
    }
}

fn has_keys(events: &[TransportEvent]) -> bool {
    events
        .iter()
        .any(|event| matches!(event, TransportEvent::Keys(_)))
}

#[test]
fn data_flows_both_ways_on_channels_the_client_opened() {
    let mut pair = Pair::new(true);
    pair.run(Duration::from_secs(2), |_| false);
    assert!(has_keys(&pair.client_events) && has_keys(&pair.server_events));
    let long = vec![7; 60_000];
    let mut out = TransportOut::default();
    pair.client
        .send_data(
            pair.now,
            &mut pair.client_crypto,
            Channel::Reliable,
            &long,
            &mut out,
        )
        .expect("client's channel");
    pair.take(true, out, &mut |_| false);
    let mut out = TransportOut::default();
    pair.server
        .send_data(
            pair.now,
            &mut pair.server_crypto,
            Channel::Lossy,
            b"down",
            &mut out,
        )
        .expect("open");
    pair.take(false, out, &mut |_| false);
    pair.run(Duration::from_secs(2), |_| false);
    assert_eq!(
        Pair::data(&pair.server_events),
        vec![(Channel::Reliable, long)]
    );
    assert_eq!(
        Pair::data(&pair.client_events),
        vec![(Channel::Lossy, b"down".to_vec())]
    );
}

#[test]
fn reliable_data_comes_whole_and_in_order_through_loss_on_channels_the_server_opened() {
    let mut pair = Pair::new(false);
    let mut out = TransportOut::default();
    pair.server
        .open_channels(pair.now, &mut pair.server_crypto, &mut out);
    pair.take(false, out, &mut |_| false);
    let mut state = 3_u32;
    let mut lossy = move |_: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16 & 15 == 0
    };
    pair.run(Duration::from_secs(15), &mut lossy);
    for index in 0..100_u8 {
        let mut out = TransportOut::default();
        pair.server
            .send_data(
                pair.now,
                &mut pair.server_crypto,
                Channel::Reliable,
                &[index; 900],
                &mut out,
            )
            .expect("open");
        pair.take(false, out, &mut lossy);
    }
    pair.run(Duration::from_secs(30), &mut lossy);
    let received = Pair::data(&pair.client_events);
    assert_eq!(received.len(), 100);
    for (index, (channel, data)) in received.into_iter().enumerate() {
        assert_eq!(
            (channel, data[0] as usize, data.len()),
            (Channel::Reliable, index, 900)
        );
    }
}

#[test]
fn no_single_lost_datagram_of_a_whole_join_hangs_it() {
    let mut clean = Pair::new(true);
    clean.run(Duration::from_secs(1), |_| false);
    for dropped in 0..clean.datagrams {
        let mut pair = Pair::new(true);
        pair.run(Duration::from_secs(10), |index| index == dropped);
        let open = |events: &[TransportEvent]| {
            events
                .iter()
                .filter(|event| matches!(event, TransportEvent::ChannelOpen(_)))
                .count()
                == 2
        };
        assert!(
            open(&pair.server_events),
            "datagram {dropped} of {} lost",
            clean.datagrams
        );
    }
}

#[test]
fn a_check_without_the_password_proves_no_path() {
    let mut pair = Pair::new(true);
    let forged = stun::request::<AwsLc>(
        [1; 12],
        "00server:00client",
        "another password of length",
        true,
    );
    let mut out = TransportOut::default();
    pair.server.handle_stun(
        pair.now,
        &mut pair.server_crypto,
        path(2000, 6666),
        &forged,
        &mut out,
    );
    assert!(out.events.is_empty());
    assert_eq!(pair.server.path(), None);
    assert!(
        out.datagrams
            .iter()
            .all(|(_, answer)| answer.len() <= forged.len()),
        "nobody is amplified"
    );
}

#[test]
fn a_moved_client_goes_on_under_the_same_keys() {
    let mut pair = Pair::new(true);
    pair.run(Duration::from_secs(2), |_| false);
    pair.client.move_to(path(1001, 2000), pair.now);
    pair.run(Duration::from_secs(1), |_| false);
    assert_eq!(pair.server.path(), Some(path(2000, 1001)));
    let mut out = TransportOut::default();
    pair.client
        .send_data(
            pair.now,
            &mut pair.client_crypto,
            Channel::Reliable,
            b"still me",
            &mut out,
        )
        .expect("open");
    pair.take(true, out, &mut |_| false);
    pair.run(Duration::from_secs(1), |_| false);
    assert_eq!(
        Pair::data(&pair.server_events),
        vec![(Channel::Reliable, b"still me".to_vec())]
    );
}

#[test]
fn without_checks_consent_ends_the_transport() {
    let mut pair = Pair::new(true);
    pair.run(Duration::from_secs(2), |_| false);
    pair.run(CONSENT + Duration::from_secs(1), |_| true);
    assert!(
        pair.server_events
            .iter()
            .any(|event| matches!(event, TransportEvent::Failed(TransportFailure::ConsentLost)))
    );
}

#[test]
fn an_ice_restart_keeps_the_old_path_until_the_first_nominated_check() {
    let mut pair = Pair::new(true);
    pair.run(Duration::from_secs(2), |_| false);
    let before = pair.server.path();
    pair.server.restart_ice(credentials("fresh"));
    pair.run(Duration::from_secs(1), |_| false);
    assert_eq!(pair.server.path(), before);
    let check = stun::request::<AwsLc>(
        [2; 12],
        "00fresh:00client",
        &credentials("fresh").password,
        true,
    );
    let mut out = TransportOut::default();
    pair.server.handle_stun(
        pair.now,
        &mut pair.server_crypto,
        path(2000, 1005),
        &check,
        &mut out,
    );
    assert_eq!(pair.server.path(), Some(path(2000, 1005)));
    assert_eq!(pair.server.local_ufrags().collect::<Vec<_>>(), ["00fresh"]);
}

#[test]
fn when_the_nominated_path_falls_silent_one_that_lives_takes_its_place() {
    // Firefox nominates several pairs after an ICE restart, keeps one of them, and its later checks nominate nothing.
    let mut pair = Pair::new(true);
    pair.run(Duration::from_secs(2), |_| false);
    let kept = path(2000, 1000);
    let check = |pair: &mut Pair, from: u16, nominates: bool| {
        let check = stun::request::<AwsLc>(
            [3; 12],
            "00server:00client",
            &credentials("server").password,
            nominates,
        );
        let mut out = TransportOut::default();
        pair.server.handle_stun(
            pair.now,
            &mut pair.server_crypto,
            path(2000, from),
            &check,
            &mut out,
        );
        pair.server_events.extend(out.events);
    };
    check(&mut pair, 1005, true);
    assert_eq!(pair.server.path(), Some(path(2000, 1005)));
    pair.server_events.clear();
    for _ in 0..10 {
        check(&mut pair, 1000, false);
        // The client itself is silent here: what it sends is lost.
        pair.run(Duration::from_secs(2), |_| true);
    }
    assert_eq!(pair.server.path(), Some(kept));
    assert!(
        pair.server_events
            .iter()
            .any(|event| matches!(event, TransportEvent::PathNominated(path) if *path == kept)),
        "who asks for the path is told: {:?}",
        pair.server_events
    );
}

#[test]
fn a_handshake_before_the_nomination_knows_where_it_took_place() {
    let mut pair = Pair::new(true);
    pair.nominates = false;
    pair.run(Duration::from_secs(2), |_| false);
    assert!(has_keys(&pair.server_events));
    assert_eq!(pair.server.path(), None);
    assert_eq!(pair.server.dtls_target(), Some(path(2000, 1000)));
    pair.nominates = true;
    pair.run(Duration::from_secs(4), |_| false);
    assert_eq!(pair.server.path(), Some(path(2000, 1000)));
}

#[test]
fn malformed_checks_are_dropped() {
    let mut pair = Pair::new(true);
    let check = stun::request::<AwsLc>(
        [1; 12],
        "00server:00client",
        &credentials("server").password,
        true,
    );
    for length in 0..check.len() {
        let mut out = TransportOut::default();
        pair.server.handle_stun(
            pair.now,
            &mut pair.server_crypto,
            path(2000, 1),
            &check[..length],
            &mut out,
        );
        for bit in 0..8 {
            let mut changed = check.clone();
            changed[length] ^= 1 << bit;
            pair.server.handle_stun(
                pair.now,
                &mut pair.server_crypto,
                path(2000, 1),
                &changed,
                &mut out,
            );
        }
    }
}

#[test]
fn a_seeded_backend_repeats_itself() {
    let certificate = Arc::new(Certificate::generate().expect("certificate"));
    let mut bytes = [[0; 8]; 2];
    for bytes in &mut bytes {
        AwsLc::seeded(Arc::clone(&certificate), 1).random(bytes);
    }
    assert_eq!(bytes[0], bytes[1]);
}
