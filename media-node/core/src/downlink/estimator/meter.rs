// SPDX-License-Identifier: EUPL-1.2
//! Rate of what arrives, over a sliding window.

use std::time::Duration;

use super::Bitrate;

/// Nanoseconds of one bucket.
const BUCKET_NANOS: i64 = 25_000_000;
/// Buckets of the window: half a second.
const BUCKETS: usize = 20;
/// Less than this tells no rate.
const LEAST: Duration = Duration::from_millis(150);

/// Bytes in the last half second. Times may come a little out of order.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    bytes: [u32; BUCKETS],
    /// Bucket of the newest arrival.
    newest: Option<i64>,
    first: i64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            bytes: [0; BUCKETS],
            newest: None,
            first: 0,
        }
    }
}

impl Meter {
    /// Notes bytes at a time in nanoseconds of any clock.
    pub(super) fn add(&mut self, at_nanos: i64, bytes: u32) {
        let bucket = at_nanos.div_euclid(BUCKET_NANOS);
        match self.newest {
            None => {
                self.newest = Some(bucket);
                self.first = bucket;
            }
            Some(newest) if bucket > newest => {
                let gap = bucket - newest;
                if gap >= BUCKETS as i64 {
                    // After a silence it begins anew.
                    self.bytes = [0; BUCKETS];
                    self.first = bucket;
                } else {
                    for passed in newest + 1..=bucket {
                        self.bytes[passed.rem_euclid(BUCKETS as i64) as usize] = 0;
                    }
                }
                self.newest = Some(bucket);
            }
            Some(newest) if newest - bucket >= BUCKETS as i64 => return,
            Some(_) => {}
        }
        let place = &mut self.bytes[bucket.rem_euclid(BUCKETS as i64) as usize];
        *place = place.saturating_add(bytes);
    }

    /// Rate over the window, or over what there is of it; `None` before 150 ms.
    #[must_use]
    pub(super) fn rate(&self) -> Option<Bitrate> {
        let newest = self.newest?;
        // The newest bucket is filled half on average.
        let buckets = (newest - self.first).min(BUCKETS as i64 - 1);
        let nanos = (buckets * BUCKET_NANOS + BUCKET_NANOS / 2) as u64;
        if nanos < LEAST.as_nanos() as u64 {
            return None;
        }
        let bytes: u64 = self.bytes.iter().map(|bytes| u64::from(*bytes)).sum();
        Some(Bitrate::of(bytes, Duration::from_nanos(nanos)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_has_its_rate_and_a_silence_begins_anew() {
        let mut meter = Meter::default();
        for step in 0..100 {
            assert!(meter.rate().is_none() || step > 14);
            meter.add(step * 10_000_000, 1_250);
        }
        let rate = meter.rate().expect("a second has passed").bits_per_second();
        assert!((950_000..=1_050_000).contains(&rate), "{rate}");
        meter.add(10_000_000_000, 1_250);
        assert_eq!(meter.rate(), None);
    }
}
