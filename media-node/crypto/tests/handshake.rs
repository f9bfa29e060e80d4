// SPDX-License-Identifier: EUPL-1.2
//! No single lost datagram, nor heavy loss for three seconds, hangs a handshake. Virtual time, no sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use media_core::api::Fingerprint;
use media_core::crypto::{Crypto, DtlsFailure, DtlsOutput, DtlsServer, SrtpKeys, SrtpProfile};
use media_core::time::Timestamp;
use media_crypto::{AEAD_PROFILES, AwsLc, Certificate, Dtls, LEGACY_PROFILES, Role};

/// Which end an event happened at.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Client,
    Server,
}

struct Outcome {
    client: Option<SrtpKeys>,
    server: Option<SrtpKeys>,
    failure: Option<(End, DtlsFailure)>,
    datagrams: usize,
    data: Vec<(End, Vec<u8>)>,
}

/// Runs both ends for `limit` of virtual time with 10 ms per way; `lost(index, now)` decides over each datagram in the order sent.
fn run(
    client: &mut Dtls,
    server: &mut Dtls,
    limit: Duration,
    mut lost: impl FnMut(usize, Timestamp) -> bool,
) -> Outcome {
    let mut now = Timestamp::ZERO;
    let end = now + limit;
    let mut wire: VecDeque<(Timestamp, End, Vec<u8>)> = VecDeque::new();
    let mut outcome = Outcome {
        client: None,
        server: None,
        failure: None,
        datagrams: 0,
        data: Vec::new(),
    };
    while now < end {
        for from in [End::Client, End::Server] {
            let dtls = if from == End::Client {
                &mut *client
            } else {
                &mut *server
            };
            while let Some(output) = dtls.poll_output() {
                match output {
                    DtlsOutput::Datagram(datagram) => {
                        let to = if from == End::Client {
                            End::Server
                        } else {
                            End::Client
                        };
                        if !lost(outcome.datagrams, now) {
                            wire.push_back((now + Duration::from_millis(10), to, datagram));
                        }
                        outcome.datagrams += 1;
                    }
                    DtlsOutput::Connected(keys) if from == End::Client => {
                        outcome.client = Some(keys)
                    }
                    DtlsOutput::Connected(keys) => outcome.server = Some(keys),
                    DtlsOutput::Data(data) => outcome.data.push((from, data)),
                    DtlsOutput::Failed(failure) => {
                        outcome.failure = outcome.failure.or(Some((from, failure)))
                    }
                    DtlsOutput::Closed => {}
                }
            }
        }
        now = now + Duration::from_millis(5);
        client.handle_timeout(now);
        server.handle_timeout(now);
        while wire.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, to, datagram) = wire.pop_front().expect("front");
            if to == End::Client {
                client.handle_datagram(now, &datagram)
            } else {
                server.handle_datagram(now, &datagram)
            }
        }
    }
    outcome
}

/// A client that offers `offered` in this order, and a server of a pool that does or does not allow the SHA1 profile.
fn pair_of(offered: &'static [SrtpProfile], legacy: bool) -> (Dtls, Dtls) {
    let a = Arc::new(Certificate::generate().expect("certificate"));
    let b = Arc::new(Certificate::generate().expect("certificate"));
    let client = Dtls::new(
        Role::Client,
        Arc::clone(&a),
        b.fingerprint(),
        offered,
        Timestamp::ZERO,
    );
    let server = AwsLc::new(b, legacy).dtls_server(a.fingerprint(), Timestamp::ZERO);
    (client, server)
}

fn pair() -> (Dtls, Dtls) {
    let a = Arc::new(Certificate::generate().expect("certificate"));
    let b = Arc::new(Certificate::generate().expect("certificate"));
    let client = AwsLc::new(Arc::clone(&a), false).dtls_client(b.fingerprint(), Timestamp::ZERO);
    let server = AwsLc::new(b, false).dtls_server(a.fingerprint(), Timestamp::ZERO);
    (client, server)
}

fn assert_keyed(outcome: &Outcome, what: &str) {
    let (Some(client), Some(server)) = (&outcome.client, &outcome.server) else {
        panic!(
            "{what}: not connected after {} datagrams, {:?}",
            outcome.datagrams, outcome.failure
        );
    };
    assert_eq!(client.local, server.remote, "{what}");
    assert_eq!(client.remote, server.local, "{what}");
    assert_eq!(server.profile, SrtpProfile::AeadAes256Gcm, "{what}");
}

#[test]
fn both_ends_agree_on_keys_and_carry_data() {
    let (mut client, mut server) = pair();
    let outcome = run(&mut client, &mut server, Duration::from_secs(1), |_, _| {
        false
    });
    assert_keyed(&outcome, "no loss");
    client.send(Timestamp::from_millis(1000), b"up");
    server.send(Timestamp::from_millis(1000), b"down");
    let outcome = run(
        &mut client,
        &mut server,
        Duration::from_millis(100),
        |_, _| false,
    );
    assert_eq!(outcome.data.len(), 2);
    assert!(outcome.data.contains(&(End::Server, b"up".to_vec())));
    assert!(outcome.data.contains(&(End::Client, b"down".to_vec())));
}

#[test]
fn no_single_lost_datagram_hangs_the_handshake() {
    let (mut client, mut server) = pair();
    let clean = run(&mut client, &mut server, Duration::from_secs(1), |_, _| {
        false
    })
    .datagrams;
    assert!(clean >= 6, "{clean} datagrams make a handshake");
    for dropped in 0..clean {
        let (mut client, mut server) = pair();
        let outcome = run(
            &mut client,
            &mut server,
            Duration::from_secs(10),
            |index, _| index == dropped,
        );
        assert_keyed(&outcome, &format!("datagram {dropped} of {clean} lost"));
    }
}

#[test]
fn no_two_lost_datagrams_hang_the_handshake() {
    for first in 0..9 {
        for second in first + 1..12 {
            let (mut client, mut server) = pair();
            let outcome = run(
                &mut client,
                &mut server,
                Duration::from_secs(15),
                |index, _| index == first || index == second,
            );
            assert_keyed(&outcome, &format!("datagrams {first} and {second} lost"));
        }
    }
}

#[test]
fn the_server_takes_aes_gcm_whatever_the_order_of_the_client() {
    const SHA1_FIRST: &[SrtpProfile] = &[
        SrtpProfile::Aes128CmSha1_80,
        SrtpProfile::AeadAes256Gcm,
        SrtpProfile::AeadAes128Gcm,
    ];
    const SHA1_BEFORE_128: &[SrtpProfile] =
        &[SrtpProfile::Aes128CmSha1_80, SrtpProfile::AeadAes128Gcm];
    for legacy in [false, true] {
        for (offered, expected) in [
            (SHA1_FIRST, SrtpProfile::AeadAes256Gcm),
            (SHA1_BEFORE_128, SrtpProfile::AeadAes128Gcm),
            (LEGACY_PROFILES, SrtpProfile::AeadAes256Gcm),
            (AEAD_PROFILES, SrtpProfile::AeadAes256Gcm),
        ] {
            let (mut client, mut server) = pair_of(offered, legacy);
            let outcome = run(&mut client, &mut server, Duration::from_secs(1), |_, _| {
                false
            });
            let keys = outcome.server.expect("connected");
            assert_eq!(
                (keys.profile, keys.profile),
                (expected, outcome.client.expect("connected").profile),
                "offered {offered:?}, legacy allowed: {legacy}"
            );
        }
    }
}

#[test]
fn the_sha1_profile_is_taken_only_where_it_is_allowed_and_only_without_an_alternative() {
    const SHA1_ONLY: &[SrtpProfile] = &[SrtpProfile::Aes128CmSha1_80];
    let (mut client, mut server) = pair_of(SHA1_ONLY, false);
    let refused = run(&mut client, &mut server, Duration::from_secs(1), |_, _| {
        false
    });
    assert!(refused.server.is_none() && refused.client.is_none());
    assert_eq!(refused.failure, Some((End::Server, DtlsFailure::Profile)));

    let (mut client, mut server) = pair_of(SHA1_ONLY, true);
    let clean = run(&mut client, &mut server, Duration::from_secs(1), |_, _| {
        false
    });
    assert_eq!(
        clean.server.expect("connected").profile,
        SrtpProfile::Aes128CmSha1_80
    );
    for dropped in 0..clean.datagrams {
        let (mut client, mut server) = pair_of(SHA1_ONLY, true);
        let outcome = run(
            &mut client,
            &mut server,
            Duration::from_secs(10),
            |index, _| index == dropped,
        );
        let (client, server) = (
            outcome.client.expect("connected"),
            outcome.server.expect("connected"),
        );
        assert_eq!(
            (client.local, client.remote),
            (server.remote, server.local),
            "datagram {dropped} lost"
        );
    }
}

#[test]
fn an_exported_association_goes_on_elsewhere_and_nowhere_else() {
    let (mut client, mut server) = pair();
    let outcome = run(&mut client, &mut server, Duration::from_secs(1), |_, _| {
        false
    });
    let now = Timestamp::from_millis(1000);
    server.send(now, b"first");
    let first: Vec<_> = std::iter::from_fn(|| server.poll_output()).collect();
    let exported = server.export().expect("connected");
    // The old end is silent from here on: no record, no alert.
    server.send(now, b"never");
    server.close(now);
    assert!(
        server.poll_output().is_none(),
        "nothing is sealed after the move"
    );
    assert!(server.export().is_none(), "a move happens once");

    let elsewhere = Arc::new(Certificate::generate().expect("certificate"));
    let stranger = Fingerprint([9; 32]);
    let mut crypto = AwsLc::new(elsewhere, false);
    assert!(crypto.dtls_import(stranger, &exported, now).is_none());
    for cut in 0..exported.len() {
        assert!(
            crypto
                .dtls_import(stranger, &exported[..cut], now)
                .is_none()
        );
    }
    let expected = client.local_fingerprint();
    let (mut moved, keys) = crypto
        .dtls_import(expected, &exported, now)
        .expect("its own client");
    assert_eq!(Some(keys), outcome.server);
    moved.send(now, b"second");
    client.send(now, b"up");
    let mut data = Vec::new();
    for output in first
        .into_iter()
        .chain(std::iter::from_fn(|| moved.poll_output()))
    {
        if let DtlsOutput::Datagram(datagram) = output {
            client.handle_datagram(now, &datagram);
        }
    }
    while let Some(output) = client.poll_output() {
        match output {
            DtlsOutput::Datagram(datagram) => moved.handle_datagram(now, &datagram),
            DtlsOutput::Data(bytes) => data.push(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(data, [b"first".to_vec(), b"second".to_vec()]);
    assert!(matches!(moved.poll_output(), Some(DtlsOutput::Data(bytes)) if bytes == b"up"));
}

#[test]
fn a_fifth_of_all_datagrams_lost_for_three_seconds_hangs_no_handshake() {
    for seed in 0..20_u64 {
        let (mut client, mut server) = pair();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let outcome = run(
            &mut client,
            &mut server,
            Duration::from_secs(20),
            |_, now| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                now < Timestamp::from_millis(3000) && state % 5 == 0
            },
        );
        assert_keyed(&outcome, &format!("seed {seed}"));
    }
}

#[test]
fn another_certificate_than_the_described_one_fails() {
    let a = Arc::new(Certificate::generate().expect("certificate"));
    let b = Arc::new(Certificate::generate().expect("certificate"));
    let mut client = AwsLc::new(a, false).dtls_client(b.fingerprint(), Timestamp::ZERO);
    let mut server = AwsLc::new(b, false).dtls_server(Fingerprint([9; 32]), Timestamp::ZERO);
    let outcome = run(&mut client, &mut server, Duration::from_secs(1), |_, _| {
        false
    });
    assert_eq!(
        outcome.failure,
        Some((End::Server, DtlsFailure::Fingerprint))
    );
    assert!(outcome.server.is_none());
}

#[test]
fn garbage_neither_panics_nor_ends_a_handshake() {
    let (mut client, mut server) = pair();
    for length in 0..64 {
        server.handle_datagram(Timestamp::ZERO, &vec![22; length]);
        server.handle_datagram(Timestamp::ZERO, &vec![0xfe; length]);
    }
    let outcome = run(&mut client, &mut server, Duration::from_secs(10), |_, _| {
        false
    });
    assert_keyed(&outcome, "after garbage");
}

#[test]
fn seeded_randomness_repeats() {
    let certificate = Arc::new(Certificate::generate().expect("certificate"));
    let mut one = [0; 48];
    let mut two = [0; 48];
    AwsLc::seeded(Arc::clone(&certificate), 5).random(&mut one);
    AwsLc::seeded(certificate, 5).random(&mut two);
    assert_eq!(one, two);
}
