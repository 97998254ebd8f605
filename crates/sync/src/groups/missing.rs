//! The wanted files of a repo that are not here.

use std::collections::{BTreeMap, HashSet, btree_map::Entry};

use larder_store_api::{Kind, Result};
use larder_store_engine::{BlobStatus, Blobs, Hash};

use super::{
    Policy, Repo, Wants,
    files::is_file_here,
    local_trees::{Place, Settled},
};
use crate::{
    seal::file::sealed_len,
    tree::{
        MALFORMED, Name, Named, Root, is_unreadable,
        walk::{Part, Walk, children, sequences},
    },
};

/// The most files that are named.
const MAX_NAMED: usize = 64;

/// A file that a page names, and that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct WantedFile {
    /// The place in the page's sequence: 0 is the sequence itself, 1 the page, then files.
    pub(crate) offset: u32,
    pub(crate) blob: Hash,
    /// Its name and length, where the page can be read here.
    pub(crate) named: Option<(Name, u64)>,
}

impl WantedFile {
    /// The length of its blob, where the page can be read here.
    pub(crate) fn sealed_len(&self) -> Option<u64> {
        self.named.as_ref().map(|(_, size)| sealed_len(*size))
    }
}

/// The files of a page of level 0 that are wanted.
pub(crate) async fn wanted_files(
    repo: &Repo,
    page: Hash,
    wants: &Wants,
) -> Result<Vec<WantedFile>> {
    if wants.none() {
        return Ok(Vec::new());
    }
    let group = repo.group();
    let files = match group.tree("sync.wanted") {
        Ok(tree) => match tree.files_of(page).await {
            Ok(files) => files,
            // If everything is wanted, the page need not be valid: an author
            // who writes nonsense must not keep the group from being in sync.
            Err(error) if wants.all() && matches!(error.kind(), Kind::Corrupt | Kind::Denied) => {
                tracing::debug!(repo = %repo.key(), %page, %error, "a page cannot be read");
                return unread_files(group.blobs(), page).await;
            }
            // Nothing in it can be wanted, nor read.
            Err(error) if error.operation() == MALFORMED || error.kind() == Kind::Denied => {
                tracing::debug!(repo = %repo.key(), %page, %error, "a page cannot be read");
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        },
        Err(_replica) if wants.longest_sealed() == 0 => return Ok(Vec::new()),
        Err(_replica) => return unread_files(group.blobs(), page).await,
    };
    // The sealed page is the first.
    let wanted = (2..)
        .zip(files)
        .filter(|(_, named)| wants.wants(&named.name, named.entry.size));
    let wanted = wanted.map(|(offset, Named { name, entry })| WantedFile {
        offset,
        blob: entry.blob,
        named: Some((name, entry.size)),
    });
    Ok(wanted.collect())
}

/// All files of a page, as its sequence names them to those who cannot read it.
async fn unread_files(blobs: &Blobs, page: Hash) -> Result<Vec<WantedFile>> {
    let named = (1..).zip(children(blobs, page, 0).await?);
    let files = named.filter(|(_, child)| child.part == Part::File);
    let files = files.map(|(offset, child)| WantedFile {
        offset,
        blob: child.hash,
        named: None,
    });
    Ok(files.collect())
}

/// The parts of a repo's trees that are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepoState {
    /// The newest root that is known, whoever made it; its tree may not be here.
    pub announced: Root,
    /// The tree that reads see: all its names are here.
    pub local: Root,
    /// The tree that was fetched as far as anybody could give it: all its names are here, and all files
    /// that this device [wants](Policy) but for `missing`.
    pub wanted: Root,
    /// The number of files of `wanted` that are not here.
    pub missing: u64,
    /// The latest tree that is here with all its files, whatever is wanted; empty where there is none.
    pub complete: Root,
}

impl RepoState {
    /// Returns true if the newest tree is here, with every file that this device wants.
    pub fn is_here(&self) -> bool {
        self.announced.hash == self.wanted.hash && self.missing == 0
    }
}

/// A file that is wanted and not here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingFile {
    /// Its path; `None` if the names of the repo cannot be read here, and for a page of names.
    pub path: Option<String>,
    /// The blob that it is sealed in.
    pub blob: Hash,
    /// True if this device should have the file: it was here, and its stored bytes are damaged or
    /// gone.
    pub is_damaged: bool,
}

/// The files that are wanted and that nobody who was asked could give.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Missing {
    /// The number of missing files.
    pub files: u64,
    /// The number of their bytes that are not here, as far as that is known.
    pub bytes: u64,
    /// The first of them.
    pub named: Vec<MissingFile>,
}

impl Missing {
    /// Returns true if nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    pub(crate) fn add(&mut self, size: u64, file: MissingFile) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        if self.named.len() < MAX_NAMED {
            self.named.push(file);
        }
    }
}

impl Repo {
    /// Returns which parts of the repo are here. `default` is what is wanted where [nothing was
    /// said](super::Group::policy).
    ///
    /// # Errors
    /// The errors of [`root`](Self::root).
    pub async fn state(&self, default: &Policy) -> Result<RepoState> {
        self.check_open("sync.repo.state")?;
        let wants = self.wants(default).await?;
        let announced = match self.other().await? {
            Some(other) => Some(other.root.root),
            None => self.readable_root().await?.map(|known| known.root),
        };
        if self.is_ours() {
            let known = self.readable_root().await?;
            let root = known.map_or(Root::EMPTY, |known| known.root);
            let settled = self.settled(&wants).await?;
            let missing = self.count_missing(&settled);
            return Ok(RepoState {
                announced: announced.unwrap_or(root),
                local: root,
                wanted: root,
                missing,
                complete: if missing == 0 { root } else { Root::EMPTY },
            });
        }
        let local = self.group().inner().local(self.id()).await?;
        let settled = local.settled_for(wants.digest()?);
        Ok(RepoState {
            announced: announced.unwrap_or(local.shown),
            local: local.shown,
            wanted: settled.root,
            missing: self.count_missing(&settled),
            complete: local.complete_for(Wants::EVERYTHING.digest()?),
        })
    }

    /// Returns the places of a tree that could not be read, and are not known to be missing.
    fn damaged_of(&self, settled: &Settled) -> Vec<Place> {
        let damaged = &self.group().inner().damaged;
        let places = damaged.of((self.group().id(), self.key()), settled.root.hash);
        let places = places.into_iter().map(|(place, _)| place);
        places
            .filter(|place| !settled.missing.contains(place))
            .collect()
    }

    fn count_missing(&self, settled: &Settled) -> u64 {
        (settled.missing.len() + self.damaged_of(settled).len()) as u64
    }

    /// Returns the files that are wanted and not here, of the tree that is here as far as anybody
    /// could give it; and those that are damaged, as far as that is known. Files that are still to
    /// be requested are not among them.
    ///
    /// # Errors
    /// The errors of [`root`](Self::root).
    pub async fn missing(&self, default: &Policy) -> Result<Missing> {
        self.check_open("sync.repo.missing")?;
        let wants = self.wants(default).await?;
        let settled = self.settled(&wants).await?;
        self.missing_of(&settled, &wants).await
    }

    /// Names what is missing or damaged of a tree.
    pub(crate) async fn missing_of(&self, settled: &Settled, wants: &Wants) -> Result<Missing> {
        let mut missing = self.name_missing(&settled.missing, wants).await?;
        let damaged = self.name_missing(&self.damaged_of(settled), wants).await?;
        missing.files += damaged.files;
        missing.bytes = missing.bytes.saturating_add(damaged.bytes);
        let damaged = damaged.named.into_iter().map(|file| MissingFile {
            is_damaged: true,
            ..file
        });
        let room = MAX_NAMED.saturating_sub(missing.named.len());
        missing.named.extend(damaged.take(room));
        Ok(missing)
    }

    /// Returns the known facts about the files at these places.
    pub(crate) async fn name_missing(&self, places: &[Place], wants: &Wants) -> Result<Missing> {
        let mut of_pages: BTreeMap<Hash, HashSet<u32>> = BTreeMap::new();
        for place in places {
            let offsets = of_pages.entry(place.page()).or_default();
            offsets.insert(place.offset);
        }
        let mut missing = Missing::default();
        for (page, offsets) in of_pages {
            if offsets.contains(&Place::PAGE) {
                let file = MissingFile {
                    path: None,
                    blob: page,
                    is_damaged: self.is_ours(),
                };
                missing.add(0, file);
                continue;
            }
            let files = match wanted_files(self, page, wants).await {
                Ok(files) => files,
                // It is damaged too.
                Err(error) if is_unreadable(&error) => {
                    missing.files += offsets.len() as u64;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for file in files {
                if offsets.contains(&file.offset) {
                    let (path, size) = match file.named {
                        Some((name, size)) => (Some(name.as_str().to_owned()), size),
                        None => (None, 0),
                    };
                    let here = match self.group().blobs().status(file.blob).await? {
                        Some(BlobStatus::Partial { present, .. }) => present,
                        Some(BlobStatus::Complete { .. }) | None => 0,
                    };
                    let size = size.saturating_sub(here);
                    let file = MissingFile {
                        path,
                        blob: file.blob,
                        is_damaged: self.is_ours(),
                    };
                    missing.add(size, file);
                }
            }
        }
        missing.named.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(missing)
    }

    /// The tree that is here as far as anybody could give it, and what of it is not. Of a repo of ours
    /// that is its newest one.
    pub(crate) async fn settled(&self, wants: &Wants) -> Result<Settled> {
        let (inner, blobs) = (self.group().inner(), self.group().blobs());
        if !self.is_ours() {
            let local = inner.local(self.id()).await?;
            let mut settled = local.settled_for(wants.digest()?);
            let before = settled.missing.len();
            settled.missing = self.still_missing(settled.missing, wants).await?;
            if settled.missing.len() < before {
                // Others are told that it is here.
                blobs.make_durable().await?;
            }
            return Ok(settled);
        }
        let known = self.readable_root().await?;
        let root = known.map_or(Root::EMPTY, |known| known.root);
        let missing = match inner.damage(self.id()).await? {
            None => Vec::new(),
            Some(damage) if damage.root.hash == root.hash => {
                self.still_missing(damage.missing, wants).await?
            }
            Some(_) => self.look_for_missing(root, wants).await?,
        };
        // Blobs that came since are reported too, so they must be durable.
        blobs.make_durable().await?;
        Ok(Settled { root, missing })
    }

    /// Returns those of these files that have not been stored since.
    async fn still_missing(&self, places: Vec<Place>, wants: &Wants) -> Result<Vec<Place>> {
        let blobs = self.group().blobs();
        let mut found = BTreeMap::new();
        let mut missing = Vec::with_capacity(places.len());
        for place in places {
            let page = place.page();
            if let Entry::Vacant(entry) = found.entry(page) {
                let files = match wanted_files(self, page, wants).await {
                    Ok(files) => files,
                    Err(error) if is_unreadable(&error) => Vec::new(),
                    Err(error) => return Err(error),
                };
                let files = files.into_iter().map(|file| (file.offset, file.blob));
                entry.insert(files.collect::<BTreeMap<_, _>>());
            }
            let is_here = match found[&page].get(&place.offset) {
                Some(blob) => is_file_here(blobs, *blob, u64::MAX).await?,
                None => false,
            };
            if !is_here {
                missing.push(place);
            }
        }
        Ok(missing)
    }

    /// Looks through a whole tree for files that are wanted and not here.
    async fn look_for_missing(&self, root: Root, wants: &Wants) -> Result<Vec<Place>> {
        let blobs = self.group().blobs();
        let mut missing = Vec::new();
        let mut walk = Walk::down(root)?;
        while let Some(level) = walk.next_level() {
            for chain in level.pages {
                let page = *chain.last().expect("a chain has a page");
                let named = match level.number {
                    0 => wanted_files(self, page, wants).await,
                    number => children(blobs, page, number).await.map(|named| {
                        walk.below(&chain, sequences(&named));
                        Vec::new()
                    }),
                };
                let files = match named {
                    Ok(files) => files,
                    Err(error) if is_unreadable(&error) => {
                        tracing::debug!(repo = %self.key(), %page, %error, "a page is not here");
                        missing.push(Place::of_page(chain));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                for file in files {
                    if !is_file_here(blobs, file.blob, u64::MAX).await? {
                        missing.push(Place {
                            chain: chain.clone(),
                            offset: file.offset,
                        });
                    }
                }
            }
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use larder_store_api::{Batch, CollectionId, Durability, Edit};
    use larder_store_testkit::{
        MemorySecrets,
        stores::{Fault, Faults, FaultyStore, Operation, PowerStore, When},
    };

    use super::*;
    use crate::groups::{Groups, Stores};

    /// Others are told what is here, and count on it.
    #[tokio::test]
    async fn what_cannot_be_made_durable_is_not_said_to_be_here() {
        let faults = Faults::seeded(1);
        let store = Arc::new(FaultyStore::new(PowerStore::new(), faults.clone()));
        let stores = Stores {
            blobs: Blobs::open(store.clone(), store).await.unwrap(),
            secrets: Arc::new(MemorySecrets::new()),
        };
        let groups = Groups::open(stores.clone()).await.unwrap();
        let group = groups.create_group("g").await.unwrap();
        let repo = group.create_repo("me").await.unwrap();
        repo.write("file", vec![7; 40_000]).await.unwrap();
        let wants = repo.wants(&Policy::Everything).await.unwrap();
        let mut batch = Batch::of(vec![Edit::Put {
            collection: CollectionId::from_static("test"),
            key: "key".into(),
            value: "value".into(),
        }]);
        batch.durability = Durability::OnSync;
        stores.collections().commit(batch).await.unwrap();
        let fault = Fault::Error(Kind::Unavailable);
        faults.inject(Operation::SyncCollections, When::Always, fault);
        let error = repo.settled(&wants).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        faults.clear();
        let settled = repo.settled(&wants).await.unwrap();
        assert!(settled.missing.is_empty());
    }
}
