//! A node that sends other bytes than it was given.

use bytes::{Bytes, BytesMut};

use super::{Crossing, Tamper, random::Random};

/// Changes a byte here and there, with this chance for each; but not the first `after` of a stream in
/// either direction, so that what comes first, such as proofs, still holds.
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
