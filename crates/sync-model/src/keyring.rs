//! The keys of all epochs of a group that a device holds.
//!
//! Whatever is sealed names the label of its epoch; it is opened with each key that has this label. What is
//! sealed from now on is sealed under one epoch, which its holder chose.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use larder_store_api::{Error, Kind, Result};

use crate::{
    keys::{LocateKey, ReadKey, derive},
    membership::{EpochSecret, OpId},
    seal::{
        app,
        page::{self, PageKeys},
        value,
    },
};

/// The version of all layouts of sealed data, which their label follows.
const VERSION: u8 = 1;

const _: () =
    assert!(VERSION == page::VERSION && VERSION == value::VERSION && VERSION == app::VERSION);

const OPEN: &str = "sync.keyring.open";
const SEAL: &str = "sync.keyring.seal";
const ALONE: &str = "larder 2026 locate key beside a lone read key v1";

/// The keys of one epoch, as far as a device holds them.
#[derive(Debug)]
pub struct EpochKeys {
    id: OpId,
    locate: LocateKey,
    reads: Option<Reads>,
}

#[derive(Debug)]
struct Reads {
    /// `None` only in a ring that was made of a read key alone.
    secret: Option<EpochSecret>,
    read: ReadKey,
    pages: PageKeys,
}

impl EpochKeys {
    fn new(id: OpId, secret: EpochSecret) -> Self {
        let read = secret.read(id.label());
        Self {
            id,
            locate: secret.locate(id.label()),
            reads: Some(Reads {
                pages: PageKeys::new(&read),
                secret: Some(secret),
                read,
            }),
        }
    }

    /// The epoch.
    pub fn id(&self) -> OpId {
        self.id
    }

    /// The key that every member holds.
    pub fn locate(&self) -> &LocateKey {
        &self.locate
    }

    /// The key of who may read; [`Kind::Denied`] to a replica.
    pub fn read(&self) -> Result<&ReadKey> {
        self.reads().map(|reads| &reads.read)
    }

    /// The keys that seal and open pages; [`Kind::Denied`] to a replica.
    pub fn pages(&self) -> Result<&PageKeys> {
        self.reads().map(|reads| &reads.pages)
    }

    /// The secret from which the others follow; `None` to a replica.
    pub fn secret(&self) -> Option<&EpochSecret> {
        self.reads.as_ref()?.secret.as_ref()
    }

    fn reads(&self) -> Result<&Reads> {
        self.reads.as_ref().ok_or_else(|| {
            let message = "a replica keeps what it cannot read";
            Error::new(Kind::Denied, OPEN, message)
        })
    }
}

#[derive(Default)]
struct Ring {
    epochs: BTreeMap<OpId, Arc<EpochKeys>>,
    first: Option<OpId>,
    sealing: Option<OpId>,
}

/// The keys of a group that a device holds. A cheap handle; clones are the same ring, so that all of them open what
/// is sealed in an epoch that becomes known later.
#[derive(Clone, Default)]
pub struct Keyring(Arc<RwLock<Ring>>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.ring().epochs.keys().map(OpId::label))
            .finish()
    }
}

impl Keyring {
    /// An empty ring.
    pub fn new() -> Self {
        Self::default()
    }

    /// A ring of one read key, which belongs to no group.
    pub fn of_read(read: ReadKey) -> Self {
        let locate = LocateKey::from_bytes(*derive(&read, ALONE), read.epoch());
        let mut id = [0; 32];
        id[..4].copy_from_slice(&read.epoch().to_be_bytes());
        let keys = EpochKeys {
            id: OpId(id),
            locate,
            reads: Some(Reads {
                secret: None,
                pages: PageKeys::new(&read),
                read,
            }),
        };
        let ring = Ring {
            first: Some(keys.id),
            sealing: Some(keys.id),
            epochs: BTreeMap::from([(keys.id, Arc::new(keys))]),
        };
        Self(Arc::new(RwLock::new(ring)))
    }

    fn ring(&self) -> RwLockReadGuard<'_, Ring> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Ring> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the secret of an epoch, in place of a locate key. Returns true if that is news.
    pub fn add(&self, id: OpId, secret: EpochSecret) -> bool {
        let mut ring = self.change();
        let known = ring.epochs.get(&id);
        let is_news = known.is_none_or(|keys| keys.reads.is_none());
        if is_news {
            let keys = Arc::new(EpochKeys::new(id, secret));
            ring.epochs.insert(id, keys);
        }
        is_news
    }

    /// Adds the locate key of an epoch, unless more of it is held. Returns true if that is news.
    pub fn add_locate(&self, id: OpId, locate: LocateKey) -> bool {
        let mut ring = self.change();
        let is_news = !ring.epochs.contains_key(&id);
        if is_news {
            let keys = EpochKeys {
                id,
                locate,
                reads: None,
            };
            ring.epochs.insert(id, Arc::new(keys));
        }
        is_news
    }

    /// Says which epoch was the first of the group: from its key the pages of trees follow for ever.
    pub fn set_first(&self, first: Option<OpId>) {
        self.change().first = first;
    }

    /// Chooses the epoch to seal under; none, if there is none under which may be sealed.
    pub fn seal_under(&self, epoch: Option<OpId>) {
        self.change().sealing = epoch;
    }

    /// Returns the keys of the first epoch, if they are here.
    pub fn first(&self) -> Option<Arc<EpochKeys>> {
        let ring = self.ring();
        ring.epochs.get(&ring.first?).cloned()
    }

    /// Returns the keys to seal with; [`Kind::Unavailable`] if there are none.
    pub fn sealing(&self) -> Result<Arc<EpochKeys>> {
        let ring = self.ring();
        let keys = ring.sealing.and_then(|id| ring.epochs.get(&id));
        keys.cloned().ok_or_else(|| {
            let message = "there is no key here under which may be sealed";
            Error::new(Kind::Unavailable, SEAL, message)
        })
    }

    /// Returns the keys of an epoch.
    pub fn get(&self, id: OpId) -> Option<Arc<EpochKeys>> {
        self.ring().epochs.get(&id).cloned()
    }

    /// Returns true if some of the keys open names, pages and files.
    pub fn reads(&self) -> bool {
        let ring = self.ring();
        ring.epochs.values().any(|keys| keys.reads.is_some())
    }

    /// Returns the number of keys: one of each epoch that can be found, and another if it can be read.
    pub fn count(&self) -> usize {
        let ring = self.ring();
        let keys = ring.epochs.values();
        keys.map(|keys| 1 + usize::from(keys.reads.is_some())).sum()
    }

    /// Opens what was sealed under a key of this ring, by trying all that have its label. What was sealed in an epoch
    /// whose keys are not here is [`Kind::Denied`]; bytes that no sealed ones begin with are [`Kind::Invalid`].
    pub fn open<T>(&self, sealed: &[u8], open: impl Fn(&EpochKeys) -> Result<T>) -> Result<T> {
        let label = sealed.get(1..).and_then(<[u8]>::first_chunk);
        let Some(label) = label.copied().map(u32::from_be_bytes) else {
            let message = "the bytes end too early";
            return Err(Error::new(Kind::Invalid, OPEN, message));
        };
        if sealed[0] != VERSION {
            let message = "the bytes have a version that is not known here";
            return Err(Error::new(Kind::Invalid, OPEN, message).with("version", sealed[0]));
        }
        let mut first = [0; 32];
        first[..4].copy_from_slice(&label.to_be_bytes());
        let labelled: Vec<_> = {
            let ring = self.ring();
            let from = ring.epochs.range(OpId(first)..);
            let same = from.take_while(|(id, _)| id.label() == label);
            same.map(|(_, keys)| Arc::clone(keys)).collect()
        };
        let message = "the data was sealed in an epoch whose key is not held";
        let mut failed = Error::new(Kind::Denied, OPEN, message).with("epoch", label);
        for keys in labelled {
            match open(&keys) {
                Ok(opened) => return Ok(opened),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Opens what was sealed under a read key; see [`open`](Self::open).
    pub fn open_read<T>(&self, sealed: &[u8], open: impl Fn(&ReadKey) -> Result<T>) -> Result<T> {
        self.open(sealed, |keys| open(keys.read()?))
    }

    /// Opens what was sealed under a locate key; see [`open`](Self::open).
    pub fn open_locate<T>(
        &self,
        sealed: &[u8],
        open: impl Fn(&LocateKey) -> Result<T>,
    ) -> Result<T> {
        self.open(sealed, |keys| open(keys.locate()))
    }

    /// Opens a page; see [`open`](Self::open).
    pub fn open_page(&self, sealed: &[u8]) -> Result<Bytes> {
        self.open(sealed, |keys| keys.pages()?.open(sealed))
    }
}

#[cfg(test)]
mod tests {
    use larder_store_api::RecordId;

    use super::*;
    use crate::seal::value::{open_value, seal_value};

    const RECORD: RecordId = RecordId([9; 32]);

    fn id(label: u8, n: u8) -> OpId {
        let mut id = [n; 32];
        id[..4].copy_from_slice(&[label; 4]);
        OpId(id)
    }

    fn secret(n: u8) -> EpochSecret {
        EpochSecret::from_bytes([n; 32])
    }

    #[test]
    fn of_two_epochs_with_one_label_both_open() {
        let ring = Keyring::new();
        assert_eq!(ring.sealing().unwrap_err().kind(), Kind::Unavailable);
        for (n, epoch) in (1..).zip([id(1, 1), id(1, 2), id(2, 1)]) {
            assert!(ring.clone().add(epoch, secret(n)));
            assert!(!ring.add(epoch, secret(n)));
            ring.seal_under(Some(epoch));
            let keys = ring.sealing().unwrap();
            let sealed = seal_value(keys.read().unwrap(), RECORD, 1, b"text").unwrap();
            let open =
                |ring: &Keyring| ring.open_read(&sealed, |key| open_value(key, RECORD, 1, &sealed));
            assert_eq!(open(&ring).unwrap(), "text");
            let lesser = Keyring::new();
            assert_eq!(open(&lesser).unwrap_err().kind(), Kind::Denied);
            assert!(lesser.add_locate(epoch, keys.locate().clone()));
            assert_eq!(open(&lesser).unwrap_err().kind(), Kind::Denied);
            assert!(!lesser.reads() && ring.reads());
            // The secret replaces the locate key, and not the other way.
            assert!(lesser.add(epoch, secret(n)));
            assert!(!lesser.add_locate(epoch, keys.locate().clone()));
            assert_eq!(open(&lesser).unwrap(), "text");
        }
        assert_eq!(ring.open_page(b"abc").unwrap_err().kind(), Kind::Invalid);
    }
}
