//! Helpers that cases share: bytes to store, listings to the end, errors by kind.

use std::fmt;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{Kind, Listing, Result};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// More items than any case stores: a longer listing repeats itself.
const MAX_ITEMS: usize = 100_000;

/// Returns `len` random-looking bytes that depend on `seed` alone.
pub(crate) fn sample(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

/// Returns all items of `listing`, or its error; after that the listing must have ended.
pub(crate) async fn all<T>(mut listing: Listing<T>) -> Result<Vec<T>> {
    let mut items = Vec::new();
    while let Some(item) = listing.next().await {
        match item {
            Ok(item) => items.push(item),
            Err(error) => {
                let more = listing.try_next().await;
                assert!(
                    matches!(more, Ok(None)),
                    "a listing ends at its first error, this one went on after: {error}"
                );
                return Err(error);
            }
        }
        assert!(items.len() <= MAX_ITEMS, "the listing does not end");
    }
    Ok(items)
}

/// Returns the kind of error that `result` must be.
#[track_caller]
pub(crate) fn kind<T: fmt::Debug>(result: Result<T>) -> Kind {
    match result {
        Err(error) => error.kind(),
        Ok(value) => panic!("an error was due, and the answer is {value:?}"),
    }
}
