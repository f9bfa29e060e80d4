// SPDX-License-Identifier: EUPL-1.2
//! SRTP and SRTCP against another implementation, both ways, for every profile.

use media_core::crypto::{MasterKey, SrtpKeys, SrtpProfile};
use media_core::ids::{ExtSeq, Ssrc};
use media_core::rtp::header::Header;
use media_core::srtp::{self, Direction};
use media_crypto::AwsLc;
use proptest::prelude::*;
use rtc_dtls::crypto_provider::RTCCryptoProvider;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

fn foreign(profile: SrtpProfile, master: &MasterKey) -> Context {
    let profile = match profile {
        SrtpProfile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpProfile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let provider = AwsLcRsProvider::new();
    Context::new(
        &master.key,
        &master.salt,
        profile,
        None,
        None,
        provider.crypto(),
    )
    .expect("context")
}

fn ours(profile: SrtpProfile, master: &MasterKey) -> Direction<AwsLc> {
    let keys = SrtpKeys {
        profile,
        local: master.clone(),
        remote: master.clone(),
    };
    srtp::keys::<AwsLc>(&keys).expect("the material fits").0
}

fn profiles() -> impl Strategy<Value = SrtpProfile> {
    prop_oneof![
        Just(SrtpProfile::AeadAes256Gcm),
        Just(SrtpProfile::AeadAes128Gcm),
        Just(SrtpProfile::Aes128CmSha1_80),
    ]
}

fn master(profile: SrtpProfile, seed: u8) -> MasterKey {
    let bytes = |count: usize, add: u8| {
        (0..count)
            .map(|at| (at as u8).wrapping_mul(37) ^ seed.wrapping_add(add))
            .collect()
    };
    MasterKey {
        key: bytes(profile.key_bytes(), 1),
        salt: bytes(profile.salt_bytes(), 99),
    }
}

/// A packet with one extension, so that the authenticated part has a length of its own.
fn rtp(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x90, 96];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&7_u32.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0xaa, 0, 0]);
    packet.extend_from_slice(payload);
    packet
}

proptest! {
    #[test]
    fn rtp_is_read_by_another_implementation_and_the_other_way_round(
        profile in profiles(), seed in any::<u8>(), ssrc in any::<u32>(), first in 65_000_u16..,
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1200), 1..8),
    ) {
        let master = master(profile, seed);
        let (direction, mut sender, mut receiver) = (ours(profile, &master), foreign(profile, &master), foreign(profile, &master));
        for (step, payload) in payloads.iter().enumerate() {
            // Steps of 200 pass the rollover of the sequence number.
            let index = ExtSeq(u64::from(first) + 200 * step as u64);
            let plain = rtp(index.0 as u16, ssrc, payload);
            let header = Header::parse(&plain).expect("RTP");

            let mut sealed = plain.clone();
            sealed.resize(plain.len() + direction.tag_bytes(), 0);
            direction.seal_rtp(Ssrc(ssrc), index, &mut sealed, header.payload_at);
            prop_assert_eq!(&receiver.decrypt_rtp(&sealed).expect("authentic")[..], &plain[..]);

            let mut theirs = sender.encrypt_rtp(&plain).expect("sealed").to_vec();
            prop_assert_eq!(&theirs, &sealed);
            let mut changed = theirs.clone();
            let length = direction.open_rtp(Ssrc(ssrc), index, &mut theirs, header.payload_at);
            prop_assert_eq!(length, Some(plain.len()));
            prop_assert_eq!(&theirs[..plain.len()], &plain[..]);
            let at = usize::from(seed) % changed.len();
            changed[at] ^= 1;
            prop_assert_eq!(direction.open_rtp(Ssrc(ssrc), index, &mut changed, header.payload_at), None);
        }
    }

    #[test]
    fn rtcp_is_read_by_another_implementation_and_the_other_way_round(
        profile in profiles(), seed in any::<u8>(), ssrc in any::<u32>(),
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 1..5),
    ) {
        let master = master(profile, seed);
        let (direction, mut sender, mut receiver) = (ours(profile, &master), foreign(profile, &master), foreign(profile, &master));
        for (step, body) in bodies.iter().enumerate() {
            let words = body.len() / 4;
            let mut plain = vec![0x80, 201, 0, (1 + words) as u8];
            plain.extend_from_slice(&ssrc.to_be_bytes());
            plain.extend_from_slice(&body[..4 * words]);
            let mut sealed = plain.clone();
            direction.seal_rtcp(step as u32, &mut sealed);
            prop_assert_eq!(&receiver.decrypt_rtcp(&sealed).expect("authentic")[..], &plain[..]);
            let mut theirs = sender.encrypt_rtcp(&plain).expect("sealed").to_vec();
            let mut changed = theirs.clone();
            let (_, length) = direction.open_rtcp(&mut theirs).expect("authentic");
            prop_assert_eq!(&theirs[..length], &plain[..]);
            let at = usize::from(seed) % changed.len();
            changed[at] ^= 1;
            prop_assert_eq!(direction.open_rtcp(&mut changed), None);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_panic(profile in profiles(), packet in proptest::collection::vec(any::<u8>(), 0..80)) {
        let direction = ours(profile, &master(profile, 3));
        let mut packet = packet;
        prop_assert_eq!(direction.open_rtcp(&mut packet.clone()), None);
        if let Some(header) = Header::parse(&packet) {
            prop_assert_eq!(direction.open_rtp(header.ssrc, ExtSeq(1), &mut packet, header.payload_at), None);
        }
    }
}
