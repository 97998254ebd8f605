//! A node that sends corrupted bytes.

use bytes::{Bytes, BytesMut};

use super::{Crossing, Tamper, random::Random};

/// Corrupts each byte with this probability, but not the first `after` bytes of a stream in either
/// direction, so that the beginning, such as proofs, stays valid.
pub fn garble(seed: u64, after: u64, chance: f64) -> Tamper {
    let mut random = Random::new(seed);
    Box::new(move |crossing: &Crossing, bytes: Bytes| {
        let kept = usize::try_from(after.saturating_sub(crossing.offset)).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::from(bytes);
        let mut at = kept;
        while let Some(skip) = random.skip(chance)
            && let Some(next) = at.checked_add(skip)
            && let Some(byte) = bytes.get_mut(next)
        {
            *byte ^= random.not_zero();
            at = next + 1;
        }
        bytes.freeze()
    })
}
