//! Seeded bytes and choices.

use std::io::Write;

use bytes::Bytes;
use larder::engine::ByteStream;
use rand::{Rng as _, RngCore, SeedableRng};
pub use rand_chacha::ChaCha8Rng as Rng;

/// The number of bytes in a KiB.
pub const KIB: usize = 1024;
/// The number of bytes in a MiB.
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

/// The environment variable that replaces a test's seed.
const SEED: &str = "LARDER_TEST_SEED";

/// The seed of a test. If the test fails, it prints how to repeat it with this seed.
#[derive(Debug)]
pub struct Seed(u64);

impl Seed {
    /// Returns the seed from the environment, or else this one.
    ///
    /// # Panics
    /// If the one in the environment is not a number.
    pub fn or(default: u64) -> Self {
        let chosen = std::env::var(SEED).ok();
        let chosen = chosen.map(|seed| seed.parse().expect("a seed is a number"));
        Self(chosen.unwrap_or(default))
    }

    /// Returns the number.
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

/// Returns a source of random choices.
pub fn rng(seed: u64) -> Rng {
    Rng::seed_from_u64(seed)
}

/// Returns `len` bytes that depend on the seed.
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
            // A multiple of the generator's output at a time, so that both ways give the same bytes.
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

/// Returns a length from 1 to `most`; short ones are as frequent as long ones.
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
