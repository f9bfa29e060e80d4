// SPDX-License-Identifier: EUPL-1.2
//! Seeded randomness.

/// A splitmix generator: small, good enough for weather.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Next 64 bits.
    #[expect(
        clippy::should_implement_trait,
        reason = "an endless source of numbers, not a sequence"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// True in `part` of all cases.
    pub fn chance(&mut self, part: f64) -> bool {
        ((self.next() >> 11) as f64) / ((1_u64 << 53) as f64) < part
    }

    /// Evenly from 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
