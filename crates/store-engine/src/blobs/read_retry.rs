//! Reading a payload that may be gone, because the blob was replaced or deleted since its entry was read.

use std::ops::Range;

use bytes::Bytes;
use larder_store_api::{Error, Kind, Part, PayloadId, Result};

use super::{Inner, entry::State, error::not_found};
use crate::Hash;

/// The most times that a blob may be replaced while it is read.
const MAX_ATTEMPTS: usize = 8;

impl Inner {
    /// The bytes of `range` of a part of a blob's payload, as they are stored. Where the payload is gone,
    /// the blob's entry is looked at again: whatever names another payload answers in its place, for its
    /// bytes are the same, and a blob that is no longer here is [`Kind::NotFound`]. A payload that is
    /// still claimed and not there is [`Kind::Corrupt`].
    pub(crate) async fn read_part(
        &self,
        hash: Hash,
        payload: PayloadId,
        part: Part,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let mut payload = payload;
        for _ in 0..MAX_ATTEMPTS {
            let read = self.payloads.read(payload, part, range.clone()).await;
            let gone = match read {
                Err(error) if error.kind() == Kind::NotFound => error,
                other => return other,
            };
            let found = self.lookup(hash).await?.map(|found| found.entry.state);
            let now = match found {
                None => return Err(not_here(hash, gone)),
                Some(State::Inline(bytes)) => return inline(hash, bytes, part, &range, gone),
                Some(State::Complete(stored)) => stored.payload,
                Some(State::Partial(partial)) if partial.stored.payload == payload => payload,
                Some(State::Partial(partial)) => {
                    // It may not have come this far.
                    let read = self.payloads.read(partial.stored.payload, part, range);
                    return read.await.map_err(|error| match error.kind() {
                        Kind::NotFound => not_here(hash, error),
                        _ => error,
                    });
                }
            };
            if now == payload {
                let message = "the payload is missing";
                return Err(Error::new(Kind::Corrupt, "blobs.read", message)
                    .with("hash", hash)
                    .because(gone));
            }
            payload = now;
        }
        let message = "the blob was replaced again and again while it was read; read it again";
        Err(Error::new(Kind::Unavailable, "blobs.read", message).with("hash", hash))
    }
}

fn not_here(hash: Hash, gone: Error) -> Error {
    not_found("blobs.read", hash).because(gone)
}

/// The bytes lie within the entry now, which has no tree.
fn inline(hash: Hash, bytes: Bytes, part: Part, range: &Range<u64>, gone: Error) -> Result<Bytes> {
    let within = usize::try_from(range.start)
        .ok()
        .zip(usize::try_from(range.end).ok());
    match within {
        Some((start, end)) if part == Part::Data && start <= end && end <= bytes.len() => {
            Ok(bytes.slice(start..end))
        }
        _ => Err(not_here(hash, gone)),
    }
}
