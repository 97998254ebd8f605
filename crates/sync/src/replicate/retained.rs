//! The blobs that must not be freed, even if a peer's tree lists them as unwanted files: a hostile tree
//! can list any hash. Blobs with a pin of their own are not included, because deleting them fails
//! anyway.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::TryStreamExt;
use larder_store_api::{RecordId, Result};
use larder_store_engine::{BlobStatus, Blobs, Format, Hash, Reachable, TagName};

use super::{Shared, possession::Asked};
use crate::{
    groups::{Repo, Wants, WantsDigest, missing::wanted_files},
    tree::{
        Root, is_unreadable,
        walk::{Part, Reached, Walk, children, sequences},
    },
};

/// The blobs that must stay: everything that a tag or a pin of a sequence keeps. Of trees of other
/// members' repos, in any group, that is only the pages and the wanted files.
pub(super) struct Stays {
    marks: Reachable,
    /// The roots of others' repos that were examined, with what was wanted.
    looked_at: BTreeSet<(RecordId, Hash, u8, WantsDigest)>,
    of_others: HashSet<Hash>,
}

impl Stays {
    pub(super) fn new(blobs: &Blobs) -> Self {
        Self {
            marks: blobs.reachable(),
            looked_at: BTreeSet::new(),
            of_others: HashSet::new(),
        }
    }

    pub(super) fn contains(&self, hash: &Hash) -> bool {
        self.of_others.contains(hash) || self.marks.contains(hash)
    }

    /// Adds what must stay by now. Only roots that were not examined yet cost anything.
    pub(super) async fn look(&mut self, shared: &Shared) -> Result<()> {
        let inner = &shared.groups.0;
        let blobs = &inner.blobs;
        let mut of_others: BTreeMap<TagName, (Repo, Wants)> = BTreeMap::new();
        for group in shared.groups.groups() {
            for repo in group.repos().await? {
                if repo.is_ours() || group.is_ours(repo.id()) {
                    continue;
                }
                let wants = repo.wants(&shared.options.policy).await?;
                // The turn makes sure that nobody continues with a state from before the policy
                // changed.
                let turn = repo.turn().await;
                let mut local = inner.local(repo.id()).await?;
                if local.forget_files_but(wants.digest()?) {
                    inner.keep_local(repo.id(), &local).await?;
                }
                drop(turn);
                for tag in repo.kept().await? {
                    of_others.insert(tag.name, (repo.clone(), wants.clone()));
                }
            }
        }
        self.marks.look_again().await?;
        for pinned in blobs.pins() {
            if pinned.format != Format::Raw {
                self.marks.add(pinned).await?;
            }
        }
        let mut tags = blobs.tags().list(..);
        while let Some(tag) = tags.try_next().await? {
            match (of_others.get(&tag.name), tag.root.format) {
                (Some((repo, wants)), Format::Tree { depth }) => {
                    let level = depth.saturating_sub(1);
                    self.add_of(repo, tag.root.hash, level, wants).await?;
                }
                _ => self.marks.add(tag.root).await?,
            }
        }
        Ok(())
    }

    /// Adds what must stay of the tree of another member's repo.
    async fn add_of(&mut self, repo: &Repo, root: Hash, level: u8, wants: &Wants) -> Result<()> {
        let looked_at = (repo.id(), root, level, wants.digest()?);
        if self.looked_at.contains(&looked_at) {
            return Ok(());
        }
        self.of_others.insert(root);
        let root = Root {
            hash: root,
            level,
            ..Root::EMPTY
        };
        let mut is_all_here = true;
        let mut walk = Walk::down(root)?;
        while let Some(level) = walk.next_level() {
            for chain in level.pages {
                let page = *chain.last().expect("a chain has a page");
                let Some(named) = named_by(repo.group().blobs(), page, level.number).await? else {
                    is_all_here = false;
                    continue;
                };
                walk.below(&chain, sequences(&named));
                let of_pages = named.iter().filter(|child| child.part != Part::File);
                self.of_others.extend(of_pages.map(|child| child.hash));
                if level.number == 0 {
                    let files = files_of(repo, page, wants).await?;
                    let stay = files.iter().filter(|(_, goes)| !goes);
                    self.of_others.extend(stay.map(|(file, _)| file.hash));
                }
            }
        }
        if is_all_here {
            self.looked_at.insert(looked_at);
        }
        Ok(())
    }
}

/// Returns the hashes that a page's sequence names; `None` if the sequence is missing or invalid.
pub(super) async fn named_by(blobs: &Blobs, page: Hash, level: u8) -> Result<Option<Vec<Reached>>> {
    match children(blobs, page, level).await {
        Ok(named) => Ok(Some(named)),
        Err(error) if is_unreadable(&error) => {
            tracing::debug!(%page, %error, "a page is left alone");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns the files of a page, and for each whether it may be deleted: not if it is wanted, or if the
/// page cannot be read here although others can read it.
pub(super) async fn files_of(repo: &Repo, page: Hash, wants: &Wants) -> Result<Vec<(Asked, bool)>> {
    let blobs = repo.group().blobs();
    let can_read = repo.group().can_read();
    let (wanted, all_stay): (HashSet<u64>, bool) = match wanted_files(repo, page, wants).await {
        Ok(wanted) => (
            wanted.iter().map(|file| file.offset.into()).collect(),
            wants.keeps_read(),
        ),
        Err(error) if is_unreadable(&error) => {
            tracing::debug!(%page, %error, "a page is left alone");
            (HashSet::new(), true)
        }
        Err(error) => return Err(error),
    };
    let longest = wants.longest_sealed();
    let mut files = Vec::new();
    for (offset, child) in (1..).zip(children(blobs, page, 0).await?) {
        if child.part != Part::File {
            continue;
        }
        let mut is_wanted = wanted.contains(&offset);
        if is_wanted && !can_read {
            is_wanted = match blobs.status(child.hash).await? {
                Some(BlobStatus::Complete { size } | BlobStatus::Partial { size, .. }) => {
                    size <= longest
                }
                None => true,
            };
        }
        let file = Asked {
            offset,
            hash: child.hash,
            len: 0,
        };
        files.push((file, !is_wanted && !all_stay));
    }
    Ok(files)
}
