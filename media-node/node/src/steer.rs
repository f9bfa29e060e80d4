// SPDX-License-Identifier: EUPL-1.2
//! Which shard a datagram belongs to when all shards share one port (`decisions.md` §3.6).
//!
//! A STUN check names its shard by the first two digits of the local user fragment. Everything else goes by the remote address, which
//! is learnt only when the owning shard *answered* a check from there with success: so nobody can divert another's flow by sending
//! checks from a forged address.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_core::ids::ShardId;
use media_core::time::Timestamp;
use media_core::transport::stun;

/// Addresses remembered per generation: four paths for each of 4,096 transports on 4 shards.
const FLOWS_MAX: usize = 65_536;
/// Age of a generation. A living path is proved anew at least every 15 s, so that two generations outlive it.
const GENERATION: Duration = Duration::from_secs(30);

/// Multiply-and-rotate over the words of an address: attackers gain nothing by collisions, since only proved addresses enter.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}

/// An address as two words.
#[derive(PartialEq, Eq)]
struct Flow(u128, u16);

impl std::hash::Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0 as u64 ^ (self.0 >> 64) as u64);
        state.write_u64(u64::from(self.1));
    }
}

impl From<SocketAddr> for Flow {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        Self(ip, address.port())
    }
}

type Flows = HashMap<Flow, ShardId, BuildHasherDefault<AddressHasher>>;

/// The steering table of one shard's thread.
pub struct Steering {
    own: ShardId,
    shards: u8,
    young: Flows,
    old: Flows,
    turned: Timestamp,
}

impl Steering {
    /// For one of `shards`.
    #[must_use]
    pub fn new(own: ShardId, shards: u8, now: Timestamp) -> Self {
        Self {
            own,
            shards,
            young: Flows::default(),
            old: Flows::default(),
            turned: now,
        }
    }

    /// Do several shards share the port at all?
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shards > 1
    }

    /// Whose datagram this is, and whether a shard vouched for where it comes from. Strangers' datagrams have no part in the queue of
    /// those that are known: a flood of checks from forged addresses must not push out calls.
    #[must_use]
    pub fn shard_of(&self, remote: SocketAddr, datagram: &[u8]) -> (ShardId, bool) {
        if self.shards == 1 {
            return (self.own, true);
        }
        let flow = Flow::from(remote);
        let known = self
            .young
            .get(&flow)
            .or_else(|| self.old.get(&flow))
            .copied();
        if stun::is_stun(datagram) {
            let named =
                stun::username(datagram).and_then(|(local, _)| shard_of_ufrag(local, self.shards));
            return (named.unwrap_or(self.own), named.is_some() && named == known);
        }
        (known.unwrap_or(self.own), known.is_some())
    }

    /// `shard` answered a check from `remote` with success.
    pub fn learn(&mut self, remote: SocketAddr, shard: ShardId, now: Timestamp) {
        if now.since(self.turned) >= GENERATION || self.young.len() >= FLOWS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
        self.young.insert(Flow::from(remote), shard);
    }
}

/// Shard named by the first two hexadecimal digits of a user fragment.
#[must_use]
pub fn shard_of_ufrag(ufrag: &str, shards: u8) -> Option<ShardId> {
    let digits = ufrag.get(..2)?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16)
        .ok()
        .filter(|shard| *shard < shards)
        .map(ShardId)
}

/// Is `datagram` a Binding success response (RFC 8489 §5), by which the shard vouches for an address?
#[must_use]
pub fn is_success_response(datagram: &[u8]) -> bool {
    datagram.starts_with(&[0x01, 0x01]) && stun::is_stun(datagram)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_user_fragment_names_its_shard() {
        assert_eq!(shard_of_ufrag("02abcd", 4), Some(ShardId(2)));
        assert_eq!(shard_of_ufrag("0Aabcd", 16), Some(ShardId(10)));
        for bad in ["04abcd", "+1ab", "x", "é2", ""] {
            assert_eq!(shard_of_ufrag(bad, 4), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_datagram_belongs_to_some_shard(mut datagram in prop::collection::vec(any::<u8>(), 0..200), check in any::<bool>(), shards in 1..=64_u8) {
            if check && datagram.len() >= 8 {
                // The cookie of STUN, so that the attributes behind it are read.
                datagram[0] &= 3;
                datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            }
            let steering = Steering::new(ShardId(0), shards, Timestamp::ZERO);
            let remote: SocketAddr = "192.0.2.1:4000".parse().expect("address");
            prop_assert!(steering.shard_of(remote, &datagram).0.0 < shards);
        }
    }

    #[test]
    fn a_flow_is_followed_while_it_is_proved() {
        let remote: SocketAddr = "192.0.2.1:4000".parse().expect("address");
        let mut now = Timestamp::from_millis(1000);
        let mut steering = Steering::new(ShardId(0), 4, now);
        let media = [0x80; 20];
        assert_eq!(steering.shard_of(remote, &media), (ShardId(0), false));
        for _ in 0..10 {
            steering.learn(remote, ShardId(3), now);
            assert_eq!(steering.shard_of(remote, &media), (ShardId(3), true));
            now = now + Duration::from_secs(15);
        }
        for _ in 0..10 {
            now = now + Duration::from_secs(15);
            steering.learn("192.0.2.2:1".parse().expect("address"), ShardId(1), now);
        }
        assert_eq!(
            steering.shard_of(remote, &media),
            (ShardId(0), false),
            "a flow that died is forgotten"
        );
    }
}
