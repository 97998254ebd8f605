//! Observing which chunks of a blob are here.

use async_stream::try_stream;
use larder_store_api::{Listing, Result};
use tokio::sync::broadcast::error::RecvError;

use super::{Blobs, bitfield::Bitfield};
use crate::Hash;

impl Blobs {
    /// Returns the chunks of a blob that are verified and durable here: none, and a size of zero,
    /// if there is nothing.
    pub async fn bitfield(&self, hash: Hash) -> Result<Bitfield> {
        self.0.check_open("blobs.bitfield")?;
        let found = self.0.lookup(hash).await?;
        Ok(found.map_or_else(Bitfield::empty, |found| found.entry.bitfield()))
    }

    /// The bitfield of a blob now, and again whenever it has changed; states in between may be
    /// left out. It ends only with an error.
    pub fn observe(&self, hash: Hash) -> Listing<Bitfield> {
        let blobs = self.clone();
        Box::pin(try_stream! {
            let mut changes = blobs.0.changes.subscribe();
            let mut last = None;
            loop {
                let now = blobs.bitfield(hash).await?;
                if last.as_ref() != Some(&now) {
                    yield now.clone();
                    last = Some(now);
                }
                loop {
                    match changes.recv().await {
                        Ok(changed) if changed != hash => continue,
                        // Missed changes may have been of this blob.
                        Ok(_) | Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return,
                    }
                }
            }
        })
    }
}
