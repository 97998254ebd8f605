//! Adding many small blobs in one commit.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::try_join_all;
use larder_store_api::{Durability, GROUP_LEN, IntoBytes, Result};

use super::{
    Blobs, Inner,
    add::{count_added, now},
    entry::{BlobEntry, State},
    pins::Pin,
    stage::{Claims, Staged},
};
use crate::{Hash, Root};

/// The most blobs that one commit adds, where the store takes so many.
pub(crate) const MAX_ADD_BATCH: usize = 64;

/// The number of longer blobs that are added at a time.
const IN_FLIGHT: usize = 16;

/// Bytes and their hash, for a caller that needs the hash before they are added: it is taken once.
#[derive(Debug, Clone)]
pub struct Hashed {
    hash: Hash,
    bytes: Bytes,
}

impl Hashed {
    /// Hashes `bytes`.
    pub fn new(bytes: impl IntoBytes) -> Self {
        let bytes = bytes.into_bytes();
        let hash = Hash::of(&bytes);
        Self { hash, bytes }
    }

    /// Returns the hash that the blob will have.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Blobs {
    /// Adds blobs, and returns pins that keep them, one for each that differs. All are durable when
    /// it returns; after an error, some may be there.
    ///
    /// Up to 64 of those that have up to 16 KiB are written in one commit, which costs hardly more
    /// than that of one.
    pub async fn add_all(&self, blobs: Vec<Hashed>) -> Result<Vec<Pin>> {
        let _running = self.0.enter("blobs.add")?;
        let blobs: BTreeMap<_, _> = blobs.into_iter().map(|b| (b.hash, b.bytes)).collect();
        // The empty blob has no entry.
        let (small, others): (Vec<_>, Vec<_>) = blobs
            .into_iter()
            .partition(|(_, bytes)| (1..=GROUP_LEN).contains(&(bytes.len() as u64)));
        let mut pins = Vec::new();
        for blobs in small.chunks(MAX_ADD_BATCH) {
            pins.extend(self.0.add_batch(blobs, Durability::OnWrite).await?);
        }
        for blobs in others.chunks(IN_FLIGHT) {
            let adding = blobs.iter().map(|(_, bytes)| self.add(bytes.clone()));
            pins.extend(try_join_all(adding).await?);
        }
        Ok(pins)
    }

    /// Adds blobs of 1 byte to 16 KiB that were verified, each different, in one commit where the store takes as
    /// much.
    pub(crate) async fn add_verified(
        &self,
        blobs: &[(Hash, Bytes)],
        durability: Durability,
    ) -> Result<Vec<Pin>> {
        let _running = self.0.enter("blobs.add")?;
        self.0.add_batch(blobs, durability).await
    }
}

impl Inner {
    /// Adds blobs of up to 16 KiB, all different.
    async fn add_batch(
        self: &Arc<Self>,
        blobs: &[(Hash, Bytes)],
        durability: Durability,
    ) -> Result<Vec<Pin>> {
        let mut staged = Vec::with_capacity(blobs.len());
        let added = now();
        for (hash, bytes) in blobs {
            let size = bytes.len() as u64;
            let pin = self.pins.pin(Root::raw(*hash), Some(size)).await;
            let state = State::Inline(bytes.clone());
            staged.push(Staged::new(pin, BlobEntry { added, state }, None));
        }
        let pins: Vec<_> = staged.iter().map(|staged| staged.pin.clone()).collect();
        let claims = Claims {
            durability,
            ..Claims::default()
        };
        self.put(&mut staged, &claims).await?;
        count_added(&pins);
        Ok(pins)
    }
}
