//! Runs that can be run again, for tests: on a thread that simulates, keys and nonces follow from a seed
//! and nothing is left to other threads. **Such keys are no secrets.**
//!
//! ```
//! let key = |seed| {
//!     let _simulating = larder_store_engine::simulation::begin(seed);
//!     larder_store_engine::public_key(&larder_store_engine::generate_key().expect("a key"))
//! };
//! assert_eq!(key(7), key(7));
//! assert_ne!(key(7), key(8));
//! ```

use std::{cell::RefCell, marker::PhantomData};

const CONTEXT: &str = "larder 2026 simulated randomness v1";

thread_local! {
    static CHANCE: RefCell<Option<blake3::OutputReader>> = const { RefCell::new(None) };
}

/// This thread simulates until it is dropped.
#[derive(Debug)]
#[must_use = "the simulation ends when this is dropped"]
pub struct Simulating(PhantomData<*const ()>);

/// Begins to simulate on this thread; one that does already begins again.
pub fn begin(seed: u64) -> Simulating {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&seed.to_be_bytes());
    CHANCE.set(Some(hasher.finalize_xof()));
    Simulating(PhantomData)
}

impl Drop for Simulating {
    fn drop(&mut self) {
        CHANCE.set(None);
    }
}

/// Returns true if this thread simulates.
pub(crate) fn is_on() -> bool {
    CHANCE.with_borrow(Option::is_some)
}

/// Fills `bytes` where this thread simulates; `false` if it does not.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    CHANCE.with_borrow_mut(|chance| match chance {
        Some(chance) => {
            chance.fill(bytes);
            true
        }
        None => false,
    })
}
