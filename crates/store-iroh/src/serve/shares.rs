//! The shares: blobs that strangers may read. There are none until the app opens some.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::StreamExt;
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{BlobStatus, Blobs, Format, Hash, Root, TagName};
use tracing::warn;

use super::request::Asked;

/// The most roots and tags that may be open at once.
pub const MAX_SHARES: usize = 1024;

/// The most children of open hash sequences that can be requested by their own hash: 32 bytes of
/// memory each. Sequences beyond that can only be asked for as a whole, by their root, as
/// iroh-blobs' clients do first.
pub const MAX_OPEN_CHILDREN: usize = 1 << 20;

/// The blobs that strangers may read. A cheap handle; its clones share one list, which begins empty
/// and lives in memory.
///
/// Opening a [hash sequence](Format::HashSeq) opens what it names, through the root or directly;
/// opening a raw root opens that one blob, even where its bytes are hashes.
///
/// Whoever asks for what is not open is refused, in the same way whether it is here or not.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blobs: Blobs,
    open: Mutex<Open>,
    /// Held while it is brought up to date, so that many strangers cost as much as one.
    children: tokio::sync::Mutex<Children>,
}

#[derive(Debug, Default)]
struct Open {
    roots: BTreeSet<Root>,
    tags: BTreeSet<TagName>,
}

/// The children of the hash sequences that are open.
#[derive(Debug, Default)]
struct Children {
    /// The sequences that this was made of.
    of: BTreeSet<Hash>,
    /// The sequences that are not here as a whole yet.
    absent: Vec<Hash>,
    hashes: HashSet<Hash>,
}

/// Something that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// This root.
    Root(Root),
    /// Whatever the tag names at the time.
    Tag(TagName),
}

impl Shares {
    /// A list in which nothing is open.
    pub fn new(blobs: &Blobs) -> Self {
        Self(Arc::new(Inner {
            blobs: blobs.clone(),
            open: Mutex::default(),
            children: tokio::sync::Mutex::default(),
        }))
    }

    /// Opens `root`, which need not be here yet. [`Kind::TooLarge`] beyond [`MAX_SHARES`].
    pub fn allow(&self, root: Root) -> Result<()> {
        let mut open = self.open();
        if !open.roots.contains(&root) {
            open.check_room()?;
            open.roots.insert(root);
        }
        Ok(())
    }

    /// Opens what the tag names, now and as it changes; nothing while there is no such tag.
    /// [`Kind::TooLarge`] beyond [`MAX_SHARES`].
    pub fn allow_tag(&self, name: TagName) -> Result<()> {
        let mut open = self.open();
        if !open.tags.contains(&name) {
            open.check_room()?;
            open.tags.insert(name);
        }
        Ok(())
    }

    /// Closes `root` to requests that come later; those that are being answered go on.
    pub fn revoke(&self, root: Root) {
        self.open().roots.remove(&root);
    }

    /// Closes the tag to requests that come later; those that are being answered go on.
    pub fn revoke_tag(&self, name: &TagName) {
        self.open().tags.remove(name);
    }

    /// Returns everything that is open.
    pub fn list(&self) -> Vec<Share> {
        let open = self.open();
        let roots = open.roots.iter().copied().map(Share::Root);
        let tags = open.tags.iter().cloned().map(Share::Tag);
        roots.chain(tags).collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0
            .open
            .lock()
            .expect("no code panics while it holds the shares")
    }

    /// Returns true if a stranger may have this. A request is refused if the store cannot be read
    /// to decide it.
    pub(super) async fn permit(&self, asked: &Asked) -> bool {
        let permitted = self.decide(asked).await;
        permitted.unwrap_or_else(|error| {
            warn!(%error, "refused a request, for what is open could not be read");
            false
        })
    }

    async fn decide(&self, asked: &Asked) -> Result<bool> {
        let roots = self.roots().await?;
        match asked {
            Asked::HashSeq(hash) => Ok(roots.get(hash).is_some_and(|formats| formats.hash_seq)),
            Asked::Blob(hash) => {
                Ok(roots.contains_key(hash) || self.are_children(&roots, &[*hash]).await?)
            }
            Asked::Blobs(hashes) => {
                let mut others = hashes.clone();
                others.retain(|hash| !roots.contains_key(hash));
                self.are_children(&roots, &others).await
            }
        }
    }

    /// Returns the roots that are open now, with those that the tags name.
    async fn roots(&self) -> Result<BTreeMap<Hash, Formats>> {
        let (mut roots, tags) = {
            let open = self.open();
            let roots: Vec<Root> = open.roots.iter().copied().collect();
            (roots, open.tags.clone())
        };
        for name in &tags {
            roots.extend(self.0.blobs.tags().get(name).await?);
        }
        let mut open = BTreeMap::<Hash, Formats>::new();
        for root in roots {
            let formats = open.entry(root.hash).or_default();
            formats.hash_seq |= root.format != Format::Raw;
        }
        Ok(open)
    }

    /// Returns true if all of `hashes` are children of open hash sequences.
    async fn are_children(&self, roots: &BTreeMap<Hash, Formats>, hashes: &[Hash]) -> Result<bool> {
        if hashes.is_empty() {
            return Ok(true);
        }
        let sequences = roots.iter().filter(|(_, formats)| formats.hash_seq);
        let sequences: BTreeSet<Hash> = sequences.map(|(hash, _)| *hash).collect();
        let mut children = self.0.children.lock().await;
        children.refresh(&self.0.blobs, sequences).await?;
        Ok(hashes.iter().all(|hash| children.hashes.contains(hash)))
    }
}

impl Open {
    fn check_room(&self) -> Result<()> {
        if self.roots.len() + self.tags.len() < MAX_SHARES {
            return Ok(());
        }
        Err(Error::new(
            Kind::TooLarge,
            "shares.allow",
            format!("at most {MAX_SHARES} roots and tags can be open"),
        ))
    }
}

/// As what a root is open.
#[derive(Debug, Default, Clone, Copy)]
struct Formats {
    hash_seq: bool,
}

impl Children {
    /// Makes this the children of `sequences`. Reads only where they changed, or one came in.
    async fn refresh(&mut self, blobs: &Blobs, sequences: BTreeSet<Hash>) -> Result<()> {
        let mut changed = self.of != sequences;
        for hash in &self.absent {
            changed |= complete_size(blobs, *hash).await?.is_some();
        }
        if !changed {
            return Ok(());
        }
        let mut fresh = Self::default();
        for hash in &sequences {
            match complete_size(blobs, *hash).await? {
                None => fresh.absent.push(*hash),
                Some(size) => fresh.add(blobs, *hash, size).await?,
            }
        }
        fresh.of = sequences;
        *self = fresh;
        Ok(())
    }

    async fn add(&mut self, blobs: &Blobs, sequence: Hash, size: u64) -> Result<()> {
        const LEN: usize = size_of::<Hash>();
        let room = (MAX_OPEN_CHILDREN - self.hashes.len()) * LEN;
        if size > room as u64 {
            warn!(
                root = %sequence.fmt_short(),
                "its children can be asked for only through it, for there are too many"
            );
            return Ok(());
        }
        let mut chunks = blobs.read(sequence, 0..size);
        let mut rest = Vec::new();
        while let Some(chunk) = chunks.next().await {
            rest.extend_from_slice(&chunk?);
            let (hashes, tail) = rest.as_chunks::<LEN>();
            self.hashes
                .extend(hashes.iter().map(|hash| Hash::from(*hash)));
            rest = tail.to_vec();
        }
        Ok(())
    }
}

async fn complete_size(blobs: &Blobs, hash: Hash) -> Result<Option<u64>> {
    Ok(match blobs.status(hash).await? {
        Some(BlobStatus::Complete { size }) => Some(size),
        _ => None,
    })
}
