//! The simulation's randomness: a small generator whose numbers depend on its seed alone.

use std::time::Duration;

/// The SplitMix64 generator.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to less than 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns true with this probability, from 0 to 1. Probabilities of 0 and 1 use no number.
    pub(super) fn chance(&mut self, chance: f64) -> bool {
        chance >= 1.0 || (chance > 0.0 && self.unit() < chance)
    }

    /// Returns the number of events in a row that do not happen before one with this probability does;
    /// `None` if none does, or not soon.
    pub(super) fn skip(&mut self, chance: f64) -> Option<usize> {
        if chance <= 0.0 {
            return None;
        }
        let skip = (1.0 - self.unit()).ln() / (1.0 - chance.min(0.999_999)).ln();
        (skip < 1e12).then_some(skip as usize)
    }

    /// Returns any byte except zero.
    pub(super) fn not_zero(&mut self) -> u8 {
        (self.next() % 255) as u8 + 1
    }

    /// Returns a time from zero to `most`. If `most` is zero, uses no number.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        match most.is_zero() {
            true => most,
            false => most.mul_f64(self.unit()),
        }
    }

    /// Returns the time until the next event, for events that happen `rate` times a second on average;
    /// `None` if that is never, or beyond a year.
    pub(super) fn wait(&mut self, rate: f64) -> Option<Duration> {
        const YEAR: f64 = 365.0 * 24.0 * 3600.0;
        if rate <= 0.0 {
            return None;
        }
        let seconds = -(1.0 - self.unit()).ln() / rate;
        (seconds < YEAR).then(|| Duration::from_secs_f64(seconds))
    }
}
