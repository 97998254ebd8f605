//! Bytes and choices that are the same for the same seed.

use std::io::Write;

use bytes::Bytes;
use larder::engine::ByteStream;
use rand::{Rng as _, RngCore, SeedableRng};
pub use rand_chacha::ChaCha8Rng as Rng;

/// 1024.
pub const KIB: usize = 1024;
/// 1024 [`KIB`].
pub const MIB: usize = 1024 * KIB;

/// Lengths around every boundary: empty, chunk, group, many groups.
pub const SIZES: [usize; 16] = [
    0,
    1,
    KIB - 1,
    KIB,
    KIB + 1,
    3 * KIB + 7,
    16 * KIB - 1,
    16 * KIB,
    16 * KIB + 1,
    17 * KIB,
    32 * KIB,
    32 * KIB + 1,
    100 * KIB + 7,
    256 * KIB,
    MIB,
    3 * MIB + 5,
];

/// Names the environment variable that replaces a test's seed.
const SEED: &str = "LARDER_TEST_SEED";

/// The seed of a test. Where the test fails, it says how to run it again with the same one.
#[derive(Debug)]
pub struct Seed(u64);

impl Seed {
    /// The seed from the environment, or else this one.
    ///
    /// # Panics
    /// Where the environment has one that is no number.
    pub fn or(default: u64) -> Self {
        let chosen = std::env::var(SEED).ok();
        let chosen = chosen.map(|seed| seed.parse().expect("a seed is a number"));
        Self(chosen.unwrap_or(default))
    }

    /// The number.
    pub fn number(&self) -> u64 {
        self.0
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = format!("run again with {SEED}={}\n", self.0);
            std::io::stderr().write_all(text.as_bytes()).ok();
        }
    }
}

/// A source of choices.
pub fn rng(seed: u64) -> Rng {
    Rng::seed_from_u64(seed)
}

/// As many bytes.
pub fn bytes(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    rng(seed).fill_bytes(&mut bytes);
    bytes.into()
}

/// Returns the same bytes as a stream.
pub fn stream(seed: u64, len: usize) -> ByteStream {
    let state = (rng(seed), len);
    Box::pin(futures_util::stream::unfold(
        state,
        |(mut rng, left)| async move {
            // A multiple of what the generator makes at once, so that both ways give the same.
            let mut bytes = vec![0; left.min(256 * KIB)];
            if bytes.is_empty() {
                return None;
            }
            rng.fill_bytes(&mut bytes);
            let left = left - bytes.len();
            Some((Ok(Bytes::from(bytes)), (rng, left)))
        },
    ))
}

/// A length from 1 to `most`; as many short ones as long ones.
pub fn some_len(rng: &mut Rng, most: usize) -> usize {
    let most = (most as f64).log2();
    (rng.random_range(0.0..=most)).exp2() as usize
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn a_stream_has_the_same_bytes() {
        for len in [0, 1, 256 * KIB, MIB + 3] {
            let pieces: Vec<Bytes> = stream(7, len).try_collect().await.expect("never fails");
            assert!(pieces.concat() == bytes(7, len));
        }
    }
}
