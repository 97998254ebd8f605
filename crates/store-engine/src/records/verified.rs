//! A cache of verified signatures, so that reading the same value again costs only a hash.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use larder_store_api::{RecordId, Result, Signed, Slot};
use lru::LruCache;

use super::proof;

/// The number of signatures that are remembered; each takes about 100 bytes.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(8192).expect("8192 is not zero");

/// The hashes of all that a signature covers, with the signature. Equal hashes mean equal input, so the
/// signature is valid again; a difference of a single bit gives another hash.
pub(super) struct Verified(Mutex<LruCache<[u8; 32], ()>>);

impl Verified {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// Verifies a value, as [`verify`](proof::verify) does.
    pub(super) fn verify(&self, id: RecordId, slot: Slot, signed: &Signed) -> Result<()> {
        let hash = proof::hash(id, slot, signed)?;
        if self.lock().get(&hash).is_some() {
            return Ok(());
        }
        proof::verify(id, slot, signed)?;
        self.lock().put(hash, ());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<[u8; 32], ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verified").field(&self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use larder_store_api::SecretKey;

    use super::*;

    #[test]
    fn only_the_same_holds_again() {
        let (id, writer) = (RecordId([1; 32]), SecretKey::from_bytes([2; 32]));
        let good = proof::sign(id, 3, 4, Bytes::from_static(b"value"), &writer).unwrap();
        let verified = Verified::new();
        for _ in 0..2 {
            verified.verify(id, 3, &good).unwrap();
        }
        assert_eq!(verified.lock().len(), 1);
        let mut others = vec![good.clone(); 4];
        others[0].value = Bytes::from_static(b"other");
        others[1].seq = 5;
        others[2].writer.0[0] ^= 1;
        let mut signature = good.signature.to_vec();
        signature[63] ^= 1;
        others[3].signature = signature.into();
        for other in &others {
            verified.verify(id, 3, other).unwrap_err();
        }
        verified.verify(id, 2, &good).unwrap_err();
        verified.verify(RecordId([2; 32]), 3, &good).unwrap_err();
        assert_eq!(verified.lock().len(), 1);
    }
}
