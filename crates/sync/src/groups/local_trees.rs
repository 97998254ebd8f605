//! The parts of a repo's trees that this device has, as they are remembered.
//!
//! ```text
//! sync/local       repo id [32] -> version u8 = 1 | what reads see: root
//!                    | digest of what was wanted [8] | the tree that was fetched with it: root, places
//!                    | digest of what was wanted [8] | the latest tree that was whole with it: root
//! sync/damaged     repo id [32] -> version u8 = 1 | root | places
//!                    of a repo of ours of which something is not here
//! places           count u16 | for each: depth u8 | for each page from the root down: hash [32]
//!                    | offset u32
//! ```
//!
//! If something is missing, `places` lists it. No places and an empty root say that it has to be looked
//! for: nothing is known.

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{CollectionId, Edit, Error, Kind, RecordId, Result};
use larder_store_engine::{Collections, Hash};

use super::{Inner, WantsDigest};
use crate::{
    codec::Fields,
    tree::{MAX_LEVEL, Root},
};

const LOCAL: CollectionId = CollectionId::from_static("sync/local");
const DAMAGED: CollectionId = CollectionId::from_static("sync/damaged");
const VERSION: u8 = 1;
const READ: &str = "sync.local.read";

/// The most bytes of places in one value: some hundred places.
const MAX_PLACES_LEN: usize = 24 * 1024;

/// A file in a tree, or a page.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The pages from the root down to the one that names it.
    pub(crate) chain: Vec<Hash>,
    /// Its place in the sequence of that page.
    pub(crate) offset: u32,
}

impl Place {
    /// The offset that says that the page itself is meant.
    pub(crate) const PAGE: u32 = 0;

    /// A page, at the end of this chain.
    pub(crate) fn of_page(chain: Vec<Hash>) -> Self {
        Self {
            chain,
            offset: Self::PAGE,
        }
    }

    fn encoded_len(&self) -> usize {
        1 + 32 * self.chain.len() + 4
    }

    /// The page that names it.
    pub(crate) fn page(&self) -> Hash {
        *self.chain.last().expect("a chain has a page")
    }
}

/// A tree whose pages are here, with all files that were wanted but for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) root: Root,
    /// The wanted files that are not here.
    pub(crate) missing: Vec<Place>,
}

impl Settled {
    /// Nothing is known to be here.
    pub(crate) const NOTHING: Self = Self {
        root: Root::EMPTY,
        missing: Vec::new(),
    };

    /// Returns true if so many places can be remembered.
    pub(crate) fn fits(missing: &[Place]) -> bool {
        let lens = missing.iter().map(Place::encoded_len);
        lens.fold(0, usize::saturating_add) <= MAX_PLACES_LEN
    }
}

/// The local state of another member's repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    /// The tree that reads see: all its pages are here.
    pub(crate) shown: Root,
    /// The wants for which `settled` was fetched.
    pub(crate) settled_for: WantsDigest,
    /// The tree that was fetched last, as far as anybody could give it.
    pub(crate) settled: Settled,
    /// The wants for which `complete` was fetched.
    pub(crate) complete_for: WantsDigest,
    /// The latest tree of which nothing that was wanted was missing. It is kept until a later one is.
    pub(crate) complete: Root,
}

/// The digest of no wants: what was fetched says nothing any more.
pub(crate) const UNKNOWN: WantsDigest = [0; 8];

impl Local {
    pub(crate) const NOTHING: Self = Self {
        shown: Root::EMPTY,
        settled_for: UNKNOWN,
        settled: Settled::NOTHING,
        complete_for: UNKNOWN,
        complete: Root::EMPTY,
    };

    /// The tree that was fetched last with these wants.
    pub(crate) fn settled_for(&self, wanted: WantsDigest) -> Settled {
        match self.settled_for == wanted {
            true => self.settled.clone(),
            false => Settled::NOTHING,
        }
    }

    /// The latest tree of which all is here that these wants want.
    pub(crate) fn complete_for(&self, wanted: WantsDigest) -> Root {
        match self.complete_for == wanted {
            true => self.complete,
            false => Root::EMPTY,
        }
    }

    /// The trees that must be kept.
    pub(crate) fn roots(&self) -> [Root; 3] {
        [self.shown, self.settled.root, self.complete]
    }

    /// Forgets which files are here, unless it was looked for them with these wants. Says whether
    /// anything is forgotten.
    pub(crate) fn forget_files_but(&mut self, wanted: WantsDigest) -> bool {
        let before = (self.settled_for, self.complete_for);
        for known in [&mut self.settled_for, &mut self.complete_for] {
            if *known != wanted {
                *known = UNKNOWN;
            }
        }
        before != (self.settled_for, self.complete_for)
    }

    /// Says that nobody knows any more which files are here.
    pub(crate) fn forget_files(&mut self) {
        (self.settled_for, self.complete_for) = (UNKNOWN, UNKNOWN);
    }
}

fn damaged(error: Error) -> Error {
    let message = "the state of a repo on this device is damaged";
    Error::new(Kind::Corrupt, READ, message).because(error)
}

pub(super) fn put_root(bytes: &mut BytesMut, root: Root) {
    bytes.put_slice(root.hash.as_bytes());
    bytes.put_u8(root.level);
    bytes.put_u64(root.files);
    bytes.put_u64(root.bytes);
}

pub(super) fn take_root(fields: &mut Fields<'_>) -> Result<Root> {
    Ok(Root {
        hash: Hash::from(fields.take::<32>()?),
        level: fields.u8()?,
        files: fields.u64()?,
        bytes: fields.u64()?,
    })
}

fn put_settled(bytes: &mut BytesMut, settled: &Settled) {
    put_root(bytes, settled.root);
    let fits = "some hundred places fit into their bytes";
    bytes.put_u16(settled.missing.len().try_into().expect(fits));
    for place in &settled.missing {
        bytes.put_u8(
            place
                .chain
                .len()
                .try_into()
                .expect("a tree is not that deep"),
        );
        for page in &place.chain {
            bytes.put_slice(page.as_bytes());
        }
        bytes.put_u32(place.offset);
    }
}

fn take_settled(fields: &mut Fields<'_>) -> Result<Settled> {
    let root = take_root(fields)?;
    let count = fields.u16()?;
    let mut missing = Vec::new();
    for _ in 0..count {
        let depth = fields.u8()?;
        if depth == 0 || depth > MAX_LEVEL + 1 {
            return Err(fields.invalid("a tree is not that deep"));
        }
        let mut chain = Vec::with_capacity(depth.into());
        for _ in 0..depth {
            chain.push(Hash::from(fields.take::<32>()?));
        }
        let offset = fields.u32()?;
        missing.push(Place { chain, offset });
    }
    Ok(Settled { root, missing })
}

pub(super) fn encode_local(local: &Local) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    put_root(&mut bytes, local.shown);
    bytes.put_slice(&local.settled_for);
    put_settled(&mut bytes, &local.settled);
    bytes.put_slice(&local.complete_for);
    put_root(&mut bytes, local.complete);
    bytes.freeze()
}

pub(super) fn decode_local(value: &[u8]) -> Result<Local> {
    let mut fields = Fields::versioned(READ, VERSION, value)?;
    let local = Local {
        shown: take_root(&mut fields)?,
        settled_for: fields.take()?,
        settled: take_settled(&mut fields)?,
        complete_for: fields.take()?,
        complete: take_root(&mut fields)?,
    };
    fields.end()?;
    Ok(local)
}

pub(super) fn encode_settled(settled: &Settled) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    put_settled(&mut bytes, settled);
    bytes.freeze()
}

pub(super) fn decode_settled(value: &[u8]) -> Result<Settled> {
    let mut fields = Fields::versioned(READ, VERSION, value)?;
    let settled = take_settled(&mut fields)?;
    fields.end()?;
    Ok(settled)
}

/// Says of every repo in a store that its files have to be looked for again: some may not be here any
/// more. `ours` are the repos that this device writes.
pub(super) async fn forget_files(collections: &Collections, ours: &[RecordId]) -> Result<()> {
    use futures_util::TryStreamExt;
    for repo in ours {
        let nothing = encode_settled(&Settled::NOTHING);
        collections.put(DAMAGED, repo.0.to_vec(), nothing).await?;
    }
    let mut entries = collections.scan_range(LOCAL, ..);
    let mut all = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let mut local = decode_local(&entry.value).map_err(damaged)?;
        local.forget_files();
        all.push((entry.key, local));
    }
    drop(entries);
    for (key, local) in all {
        collections.put(LOCAL, key, encode_local(&local)).await?;
    }
    Ok(())
}

impl Inner {
    /// Returns the local state of another member's repo; `None` if there never was one.
    pub(crate) async fn ever_local(&self, repo: RecordId) -> Result<Option<Local>> {
        let entry = self.collections.get(LOCAL, repo.0.to_vec()).await?;
        entry
            .map(|entry| decode_local(&entry.value).map_err(damaged))
            .transpose()
    }

    /// Returns the local state of another member's repo; [`Local::NOTHING`] if there never was one.
    pub(crate) async fn local(&self, repo: RecordId) -> Result<Local> {
        Ok(self.ever_local(repo).await?.unwrap_or(Local::NOTHING))
    }

    pub(crate) async fn keep_local(&self, repo: RecordId, local: &Local) -> Result<()> {
        let value = encode_local(local);
        self.collections.put(LOCAL, repo.0.to_vec(), value).await?;
        Ok(())
    }

    /// The edit that [`keep_local`](Self::keep_local) makes, for a transaction.
    pub(crate) fn local_edit(&self, repo: RecordId, local: &Local) -> Edit {
        Edit::Put {
            collection: LOCAL,
            key: Bytes::copy_from_slice(&repo.0),
            value: encode_local(local),
        }
    }

    pub(crate) async fn forget_local(&self, repo: RecordId) -> Result<()> {
        self.collections.delete(LOCAL, repo.0.to_vec()).await?;
        Ok(())
    }

    /// Returns the missing parts of a repo of ours; `None` if it is whole.
    pub(crate) async fn damage(&self, repo: RecordId) -> Result<Option<Settled>> {
        let entry = self.collections.get(DAMAGED, repo.0.to_vec()).await?;
        entry
            .map(|entry| decode_settled(&entry.value).map_err(damaged))
            .transpose()
    }

    pub(crate) async fn keep_damage(&self, repo: RecordId, damage: &Settled) -> Result<()> {
        let value = encode_settled(damage);
        self.collections
            .put(DAMAGED, repo.0.to_vec(), value)
            .await?;
        Ok(())
    }

    pub(crate) async fn forget_damage(&self, repo: RecordId) -> Result<()> {
        self.collections.delete(DAMAGED, repo.0.to_vec()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        let root = |name: &str, level| Root {
            hash: Hash::of(name),
            level,
            files: 3,
            bytes: 4,
        };
        let place = |names: &[&str], offset| Place {
            chain: names.iter().map(Hash::of).collect(),
            offset,
        };
        Local {
            shown: root("newest", 1),
            settled_for: [8; 8],
            settled: Settled {
                root: root("before", 1),
                missing: vec![
                    place(&["before", "leaf"], 2),
                    place(&["before", "other"], 700),
                ],
            },
            complete_for: [9; 8],
            complete: root("old", 0),
        }
    }

    #[test]
    fn the_layout_stays() {
        let bytes = encode_local(&local());
        let damage = encode_settled(&local().settled);
        crate::golden::check_hex("local.hex", &[&bytes, &damage]);
        assert_eq!(decode_local(&bytes).unwrap(), local());
        assert_eq!(decode_settled(&damage).unwrap(), local().settled);
        for len in 0..bytes.len() {
            assert!(decode_local(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(decode_local(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn as_many_places_as_fit_are_read_again() {
        let place = Place {
            chain: vec![Hash::EMPTY],
            offset: u32::MAX,
        };
        let mut settled = Settled::NOTHING;
        while Settled::fits(&settled.missing) {
            settled.missing.push(place.clone());
        }
        assert!(settled.missing.len() > 500, "{}", settled.missing.len());
        settled.missing.pop();
        let bytes = encode_settled(&settled);
        assert!(bytes.len() < 32 * 1024);
        assert_eq!(decode_settled(&bytes).unwrap(), settled);
    }
}
