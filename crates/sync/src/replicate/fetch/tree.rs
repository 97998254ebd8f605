//! Fetches the missing parts of a tree: its pages level by level, then its files.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
};

use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{Hash, fetch::Wanted};

use super::{
    Chain, Shared, last,
    member::{Asked, Kept, fetch_of},
    missing::{Files, Named, is_page_here},
    progress::{Incoming, Transferred},
};
use crate::{
    groups::{
        Repo, Wants,
        local_trees::{Place, Settled},
        missing::wanted_files,
    },
    seal::{self, file::sealed_len},
    tree::{
        FileEntry, Name, Root, is_unreadable,
        page::{MAX_ITEMS, MAX_PAGE_LEN},
        walk::{Part, Walk, children, sequences},
    },
};

/// The longest sequence of a page: its own hash, and one for each item.
const MAX_SEQUENCE_LEN: u64 = 32 * (1 + MAX_ITEMS as u64);
/// The longest sealed page.
const MAX_SEALED_LEN: u64 = (MAX_PAGE_LEN + seal::page::OVERHEAD) as u64;
/// The number of simultaneous requests for files to one member.
const FILE_STREAMS: NonZeroUsize = NonZeroUsize::new(4).expect("it is not zero");
/// The number of simultaneous requests for pages to one member: each is short, and waits for a round
/// trip.
const PAGE_STREAMS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not zero");

/// The pages of a tree, as far as members could provide them.
pub(super) struct Pages {
    /// The pages of level 0 that are here and were not in the previous tree.
    leaves: Vec<Chain>,
    /// The missing files of pages that the previous tree has too.
    carried: Vec<Place>,
    /// The files of the previous tree that were here.
    old_files: HashSet<Hash>,
    /// The pages that nobody could provide.
    pub(super) missing: Vec<Place>,
    /// Keeps the blobs that have arrived.
    kept: Arc<Kept>,
}

impl Shared {
    /// Fetches the topmost page of a tree, and keeps it for as long as the result lives; `None` if nobody could
    /// provide it.
    ///
    /// # Errors
    /// That of a [malformed](crate::tree::MALFORMED) tree if it is not a page.
    pub(super) async fn fetch_top(
        &self,
        repo: &Repo,
        root: Root,
        progress: &Arc<Transferred>,
    ) -> Result<Option<Arc<Kept>>> {
        let kept = Arc::<Kept>::default();
        if root.is_empty() {
            return Ok(Some(kept));
        }
        let top = vec![vec![root.hash]];
        let left = self
            .fetch_level(repo, root, (root.level, &top), &kept, progress)
            .await?;
        Ok(left.is_empty().then_some(kept))
    }

    /// Fetches pages of one level of a tree; returns those that nobody could provide.
    async fn fetch_level(
        &self,
        repo: &Repo,
        root: Root,
        (level, pages): (u8, &[Chain]),
        kept: &Arc<Kept>,
        progress: &Arc<Transferred>,
    ) -> Result<HashSet<Hash>> {
        let blobs = repo.group().blobs();
        let mut absent = HashSet::new();
        let fetch = fetch_of(repo, PAGE_STREAMS, kept.clone());
        for chain in pages {
            if !is_page_here(blobs, last(chain), level).await? {
                absent.insert(last(chain));
                // The sealed page is the first blob that its sequence names.
                let sequence = Wanted::whole(0, Some(last(chain)), MAX_SEQUENCE_LEN);
                let sealed = Wanted::whole(1, None, MAX_SEALED_LEN);
                fetch.want_request(chain.clone(), vec![sequence, sealed]);
            }
        }
        if absent.is_empty() {
            return Ok(absent);
        }
        let asked = Asked {
            repo: repo.clone(),
            top: root.hash,
            moved: Arc::clone(progress),
            coming: Arc::default(),
        };
        self.fetch_from_all(&fetch, &asked).await?;
        let mut left = HashSet::new();
        for page in absent {
            if !is_page_here(blobs, page, level).await? {
                left.insert(page);
            }
        }
        Ok(left)
    }

    /// Fetches the pages of a tree. All wanted parts of `before` must be here, except those it lists as
    /// missing.
    pub(super) async fn fetch_pages(
        &self,
        repo: &Repo,
        root: Root,
        before: &Settled,
        progress: &Arc<Transferred>,
    ) -> Result<Pages> {
        let blobs = repo.group().blobs();
        let mut pages = Pages {
            leaves: Vec::new(),
            carried: Vec::new(),
            old_files: HashSet::new(),
            missing: Vec::new(),
            kept: Arc::default(),
        };
        let mut walk = Walk::between(before.root, root)?;
        while let Some(level) = walk.next_level() {
            for chain in &level.shared {
                pages.carried.extend(carried(before, level.number, chain));
            }

            let level_of = (level.number, &level.pages[..]);
            let left = self
                .fetch_level(repo, root, level_of, &pages.kept, progress)
                .await?;
            let mut here = Vec::with_capacity(level.pages.len());
            for chain in level.pages {
                match left.contains(&last(&chain)) {
                    false => here.push(chain),
                    true => pages.missing.push(Place::of_page(chain)),
                }
            }

            for page in level.old {
                let known = match children(blobs, page, level.number).await {
                    Ok(known) => known,
                    // A damaged page was removed: its children are looked up one by one.
                    Err(error) if is_unreadable(&error) => {
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                walk.old_below(sequences(&known));
                let is_missing = |offset| {
                    let mut missing = before.missing.iter();
                    missing.any(|place| place.offset == offset && place.page() == page)
                };
                let files = (1..)
                    .zip(known)
                    .filter(|(_, child)| child.part == Part::File);
                let here = files.filter(|(offset, _)| !is_missing(*offset));
                pages.old_files.extend(here.map(|(_, child)| child.hash));
            }
            if level.number == 0 {
                pages.leaves = here;
                break;
            }
            for chain in here {
                let named = children(blobs, last(&chain), level.number).await?;
                walk.below(&chain, sequences(&named));
            }
        }
        Ok(pages)
    }

    /// Fetches all files of these pages; returns those that nobody could provide.
    pub(super) async fn fetch_files_of(
        &self,
        repo: &Repo,
        mut pages: Pages,
        progress: &Arc<Transferred>,
    ) -> Result<Vec<Place>> {
        let wants = Wants::EVERYTHING;
        let files = self
            .missing_files(repo, &mut pages, &wants, progress)
            .await?;
        self.fetch_missing(repo, pages, files, progress).await
    }

    /// Returns the wanted files of these pages that are not here.
    pub(super) async fn missing_files(
        &self,
        repo: &Repo,
        pages: &mut Pages,
        wants: &Wants,
        progress: &Arc<Transferred>,
    ) -> Result<Vec<Files>> {
        let mut files = Vec::new();
        for chain in std::mem::take(&mut pages.leaves) {
            let mut wanted = wanted_files(repo, last(&chain), wants).await?;
            if wants.all() {
                wanted.retain(|file| !pages.old_files.contains(&file.blob));
            }
            let wanted = wanted.into_iter().map(Named::from);
            files.extend(
                self.missing_of(repo, chain, wanted, wants, progress)
                    .await?,
            );
        }
        let mut carried: BTreeMap<Chain, HashSet<u32>> = BTreeMap::new();
        for place in std::mem::take(&mut pages.carried) {
            let offsets = carried.entry(place.chain).or_default();
            offsets.insert(place.offset);
        }
        for (chain, offsets) in carried {
            let mut wanted = wanted_files(repo, last(&chain), wants).await?;
            wanted.retain(|file| offsets.contains(&file.offset));
            let wanted = wanted.into_iter().map(Named::from);
            files.extend(
                self.missing_of(repo, chain, wanted, wants, progress)
                    .await?,
            );
        }
        if !files.is_empty() {
            self.show_progress(repo, progress);
        }
        Ok(files)
    }

    /// Fetches these files of pages; returns those that nobody could provide.
    pub(super) async fn fetch_missing(
        &self,
        repo: &Repo,
        pages: Pages,
        files: Vec<Files>,
        progress: &Arc<Transferred>,
    ) -> Result<Vec<Place>> {
        let left = self.fetch_files(repo, files, progress).await?;
        drop(pages.kept);
        Ok(left.iter().flat_map(Files::places).collect())
    }

    async fn missing_of(
        &self,
        repo: &Repo,
        chain: Chain,
        wanted: impl IntoIterator<Item = Named>,
        wants: &Wants,
        progress: &Arc<Transferred>,
    ) -> Result<Option<Files>> {
        let longest = wants_at_most(repo, wants);
        let files = Files::missing(repo.group().blobs(), chain, wanted, longest).await?;
        if let Some(files) = &files {
            let (count, bytes) = files.sum();
            progress.expect(count, bytes);
        }
        Ok(files)
    }

    /// Fetches the missing parts of these files; returns what nobody could provide.
    async fn fetch_files(
        &self,
        repo: &Repo,
        files: Vec<Files>,
        progress: &Arc<Transferred>,
    ) -> Result<Vec<Files>> {
        let Some(top) = files.first().map(|files| files.chain[0]) else {
            return Ok(files);
        };
        let fetch = fetch_of(repo, FILE_STREAMS, progress.clone());
        for files in &files {
            fetch.want(files.chain.clone(), files.blobs()).await?;
        }
        let asked = Asked {
            repo: repo.clone(),
            top,
            moved: Arc::clone(progress),
            coming: Arc::new(files.iter().flat_map(Files::coming).collect()),
        };
        self.fetch_from_all(&fetch, &asked).await?;
        let mut left = Vec::new();
        for files in files {
            left.extend(files.still_missing(repo.group().blobs()).await?);
        }
        Ok(left)
    }

    /// Fetches one file of the tree that readers see, and reports the result.
    pub(in crate::replicate) async fn fetch_file(
        &self,
        repo: &Repo,
        path: &str,
    ) -> Result<FileEntry> {
        const OPERATION: &str = "sync.read";
        let group = repo.group();
        let (tree, root) = (group.tree(OPERATION)?, repo.root().await?);
        // The tree may be replaced meanwhile.
        let _tree = group.blobs().pin(root.keep()).await;
        let located = tree.locate(root, &Name::new(path)?).await?;
        let (chain, offset, entry) = located.ok_or_else(|| {
            Error::new(Kind::NotFound, OPERATION, "there is no such file")
                .with("path", path.escape_debug())
        })?;
        let file = Named {
            offset,
            hash: entry.blob,
            len: Some(sealed_len(entry.size)),
            coming: Some(Incoming::new(Name::new(path)?, sealed_len(entry.size))),
        };
        let missing = Files::missing(group.blobs(), chain, [file], u64::MAX).await?;
        // From now on the tree keeps it.
        let files = missing.into_iter().collect();
        let left = self.fetch_files(repo, files, &Arc::default()).await?;
        group.blobs().make_durable().await?;
        match left.is_empty() {
            true => Ok(entry),
            false => Err(nobody_has(OPERATION).with("path", path.escape_debug())),
        }
    }
}

/// Returns the error for content that no connected member can provide.
pub(super) fn nobody_has(operation: &'static str) -> Error {
    let message = "no connected peer can provide the missing data";
    Error::new(Kind::Unavailable, operation, message)
}

/// Returns the files that `before` lacks below the last page of this chain, at their current places.
/// Both trees have that page on this level.
fn carried(before: &Settled, level: u8, chain: &Chain) -> Vec<Place> {
    let Some(depth) = before.root.level.checked_sub(level).map(usize::from) else {
        return Vec::new();
    };
    let page = last(chain);
    let below = before.missing.iter();
    let below = below.filter(|place| place.chain.get(depth) == Some(&page));
    below
        .map(|place| Place {
            chain: [&chain[..], &place.chain[depth + 1..]].concat(),
            offset: place.offset,
        })
        .collect()
}

/// Returns the length of the longest wanted file, for files whose page does not show their length.
fn wants_at_most(repo: &Repo, wants: &Wants) -> u64 {
    match repo.group().can_read() {
        true => u64::MAX,
        false => wants.longest_sealed(),
    }
}
