// SPDX-License-Identifier: EUPL-1.2
//! Pairs of str0m connections in memory: a client and its end at the server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// One end.
pub struct Peer {
    /// The connection.
    pub rtc: Rtc,
    /// Events since they were taken.
    pub events: Vec<Event>,
    /// Datagrams it sent since they were taken.
    pub sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// When it wants to be called.
    pub next: Instant,
}

impl Peer {
    /// A client that offers VP8 by session descriptions, with one address.
    pub fn described(now: Instant, address: SocketAddr) -> Self {
        let rtc = Rtc::builder()
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_vp8(true)
            .build(now);
        let mut peer = Self {
            rtc,
            events: Vec::new(),
            sent: Vec::new(),
            next: now,
        };
        let candidate = Candidate::host(address, "udp").expect("a candidate");
        peer.rtc.add_local_candidate(candidate);
        peer
    }

    fn new(now: Instant, lite: bool) -> Self {
        let rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_ice_lite(lite)
            .build(now);
        Self {
            rtc,
            events: Vec::new(),
            sent: Vec::new(),
            next: now,
        }
    }

    /// Drains everything it has to say.
    pub fn poll(&mut self) {
        loop {
            match self.rtc.poll_output().expect("a living connection") {
                Output::Timeout(at) => {
                    self.next = at;
                    return;
                }
                Output::Transmit(transmit) => self.sent.push((
                    transmit.source,
                    transmit.destination,
                    transmit.contents.to_vec(),
                )),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant) {
        self.rtc
            .handle_input(Input::Timeout(now))
            .expect("a living connection");
        self.poll();
    }

    /// One datagram.
    pub fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        datagram: &[u8],
    ) {
        let receive = Receive {
            proto: Protocol::Udp,
            source,
            destination,
            contents: datagram.try_into().expect("a datagram of WebRTC"),
        };
        self.rtc
            .handle_input(Input::Receive(now, receive))
            .expect("a living connection");
        self.poll();
    }
}

/// Delivers what each of the two sent to the other.
pub fn exchange(a: &mut Peer, b: &mut Peer, now: Instant) {
    loop {
        let (to_b, to_a) = (std::mem::take(&mut a.sent), std::mem::take(&mut b.sent));
        if to_a.is_empty() && to_b.is_empty() {
            return;
        }
        for (source, destination, datagram) in to_b {
            b.receive(now, source, destination, &datagram);
        }
        for (source, destination, datagram) in to_a {
            a.receive(now, source, destination, &datagram);
        }
    }
}

/// A connected client and server end; the client controls, the server is lite.
pub fn connected(number: u16, now: &mut Instant) -> (Peer, Peer) {
    let (mut client, mut server) = (Peer::new(*now, false), Peer::new(*now, true));
    let host = |last: u8| {
        Candidate::host(SocketAddr::from(([10, 0, 0, last], 10_000 + number)), "udp")
            .expect("a candidate")
    };
    client.rtc.add_local_candidate(host(1));
    client.rtc.add_remote_candidate(host(2));
    server.rtc.add_local_candidate(host(2));
    server.rtc.add_remote_candidate(host(1));
    let prints = [&mut client, &mut server]
        .map(|peer| peer.rtc.direct_api().local_dtls_fingerprint().clone());
    let credentials =
        [&mut client, &mut server].map(|peer| peer.rtc.direct_api().local_ice_credentials());
    let [client_print, server_print] = prints;
    let [client_credentials, server_credentials] = credentials;
    let halves = [
        (&mut client, server_print, server_credentials, true),
        (&mut server, client_print, client_credentials, false),
    ];
    for (peer, print, credentials, active) in halves {
        let mut direct = peer.rtc.direct_api();
        direct.set_remote_fingerprint(print);
        direct.set_remote_ice_credentials(credentials);
        direct.set_ice_controlling(active);
        direct.start_dtls(active).expect("DTLS begins");
    }
    for _ in 0..2000 {
        if client.rtc.is_connected() && server.rtc.is_connected() {
            return (client, server);
        }
        *now += Duration::from_millis(5);
        client.tick(*now);
        server.tick(*now);
        exchange(&mut client, &mut server, *now);
    }
    panic!("not connected after ten seconds");
}
