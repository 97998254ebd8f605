//! Frees space: contents of others' files that this device does not want (any more).
//!
//! What is asked first is whether somebody else has them. A file is deleted only
//!
//! * where no repo of ours in the group names its blob, and none of another member whose file it is too
//!   wants it: changes of ours wait meanwhile, so that this is true when it is deleted;
//! * where the policy is still the one that it was looked at with. What is being fetched meanwhile is
//!   looked at once more before it counts as here.

use std::{collections::HashSet, sync::atomic::Ordering};

use futures_util::TryStreamExt;
use store_api::{Error, Kind, RecordId, Result};
use store_engine::{Blobs, Hash, Status};

use super::{
    Replicator, Shared,
    holders::{Asked, MAX_ASKED},
};
use crate::{
    groups::{Group, Repo, Wants},
    tree::{
        Root,
        walk::{Part, children, walk},
    },
};

const FREE: &str = "sync.free";

/// Which copies may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// Those that another member, who is connected, shows that it has too.
    #[default]
    NotTheLast,
    /// All that are not wanted, though nobody else may have them.
    TheLastToo,
}

/// What was freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// The files that went.
    pub files: u64,
    /// The bytes that they had here.
    pub bytes: u64,
    /// The files that are not wanted and stay: nobody has shown that it has them, or they are in use.
    pub stay: u64,
    /// The bytes of those.
    pub stay_bytes: u64,
}

impl Replicator {
    /// Deletes contents of others' files that this device has and does not [want](crate::groups::Policy).
    /// Their names stay, and they can be fetched again from who has them. What was read under
    /// [`Policy::Names`](crate::groups::Policy::Names) is wanted.
    ///
    /// Takes memory for the hashes of all wanted files of the group. Can be dropped at any time.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where the group is not here.
    pub async fn free(&self, group: RecordId, copies: Copies) -> Result<Freed> {
        let shared = &self.0;
        let group = shared.groups.group(group).ok_or_else(|| {
            Error::new(Kind::NotFound, FREE, "there is no such group here").with("group", group)
        })?;
        let mut wanted = Wanted::default();
        let mut others = Vec::new();
        for repo in group.repos().await? {
            if !repo.is_ours() {
                let wants = repo.wants(&shared.options.policy).await?;
                let held = shared.groups.0.held(repo.id()).await?;
                wanted.add_of(&repo, held, &wants).await?;
                others.push((repo, held, wants));
            }
        }
        let mut freed = Freed::default();
        for (repo, held, wants) in others {
            if !wants.all() && !wants.keeps_read() && !held.is_empty() {
                let freeing = Freeing {
                    shared,
                    repo: &repo,
                    wants: &wants,
                    copies,
                };
                freeing.free(held, &mut wanted, &mut freed).await?;
            }
        }
        Ok(freed)
    }
}

impl Shared {
    /// How often something was freed.
    pub(super) fn freed(&self) -> u64 {
        self.freed.load(Ordering::SeqCst)
    }
}

/// The blobs that must stay.
#[derive(Default)]
struct Wanted {
    blobs: HashSet<Hash>,
    /// The trees of ours that were looked at.
    ours: Vec<(RecordId, Root)>,
}

impl Wanted {
    /// Adds what of somebody else's tree is wanted.
    async fn add_of(&mut self, repo: &Repo, held: Root, wants: &Wants) -> Result<()> {
        if wants.none() || held.is_empty() {
            return Ok(());
        }
        let blobs = repo.group().blobs();
        let mut pages = leaves(blobs, held);
        while let Some(chain) = pages.try_next().await? {
            let page = *chain.last().expect("a chain has a page");
            for (file, is_wanted) in files_of(repo, page, wants).await? {
                if is_wanted {
                    self.blobs.insert(file.hash);
                }
            }
        }
        Ok(())
    }

    /// Adds all of our trees that were not looked at yet.
    async fn add_ours(&mut self, group: &Group) -> Result<()> {
        for repo in group.ours().await? {
            let mut roots = vec![repo.wanted_root(&Default::default()).await?];
            if let Some(other) = repo.other().await? {
                roots.push(other.root.root);
            }
            for root in roots {
                if root.is_empty() || self.ours.contains(&(repo.id(), root)) {
                    continue;
                }
                let before = self.ours.iter().rfind(|(id, _)| *id == repo.id());
                let before = before.map(|(_, root)| *root);
                let mut reached = walk(group.blobs(), root, before);
                loop {
                    match reached.try_next().await {
                        Ok(Some(found)) if found.part == Part::File => {
                            self.blobs.insert(found.hash);
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        // The tree of another device that comes just now: it is looked at again before
                        // it counts.
                        Err(error) if error.kind() == Kind::NotFound => break,
                        Err(error) => return Err(error),
                    }
                }
                self.ours.push((repo.id(), root));
            }
        }
        Ok(())
    }
}

struct Freeing<'a> {
    shared: &'a Shared,
    repo: &'a Repo,
    wants: &'a Wants,
    copies: Copies,
}

impl Freeing<'_> {
    async fn free(&self, held: Root, wanted: &mut Wanted, freed: &mut Freed) -> Result<()> {
        let blobs = self.repo.group().blobs();
        let mut pages = leaves(blobs, held);
        while let Some(chain) = pages.try_next().await? {
            let page = *chain.last().expect("a chain has a page");
            let mut files = Vec::new();
            for (file, is_wanted) in files_of(self.repo, page, self.wants).await? {
                if is_wanted || wanted.blobs.contains(&file.hash) {
                    continue;
                }
                let len = match blobs.status(file.hash).await? {
                    Some(Status::Complete { size }) => size,
                    // Whoever has the rest may lack just this.
                    Some(Status::Partial {
                        size, proven: true, ..
                    }) => size,
                    Some(Status::Partial { present, .. }) => {
                        freed.stay += 1;
                        freed.stay_bytes += present;
                        continue;
                    }
                    None => continue,
                };
                files.push(Asked { len, ..file });
            }
            for files in files.chunks(MAX_ASKED) {
                self.free_some(&chain, files, wanted, freed).await?;
            }
        }
        Ok(())
    }

    async fn free_some(
        &self,
        chain: &[Hash],
        files: &[Asked],
        wanted: &mut Wanted,
        freed: &mut Freed,
    ) -> Result<()> {
        let (shared, group) = (self.shared, self.repo.group());
        let holders = match self.copies {
            Copies::NotTheLast => Some(shared.holders_of(self.repo, chain, files).await),
            Copies::TheLastToo => None,
        };
        let _one = shared.freeing.lock().await;
        // From here on our own trees stay as they are.
        let ours = group.ours().await?;
        let mut turns = Vec::with_capacity(ours.len());
        for repo in &ours {
            turns.push(repo.turn().await);
        }
        wanted.add_ours(group).await?;
        let is_changed = self.repo.wants(&shared.options.policy).await? != *self.wants
            || self.repo.is_ours()
            || group.is_ours(self.repo.id());
        shared.freed.fetch_add(1, Ordering::SeqCst);
        // Nobody may go on from a time when more was wanted.
        let (inner, digest) = (&shared.groups.0, self.wants.digest()?);
        let whole = inner.whole(self.repo.id()).await?;
        if whole.is_some_and(|whole| whole.wanted != digest) {
            inner.forget_whole(self.repo.id()).await?;
        }
        for (n, file) in files.iter().enumerate() {
            if wanted.blobs.contains(&file.hash) {
                continue;
            }
            let others = holders.as_ref().map(|holders| &holders[n]);
            let goes = !is_changed && others.is_none_or(|others| !others.is_empty());
            let present = present(group.blobs(), file.hash).await?;
            let deleted = match goes {
                true => group.blobs().delete(vec![file.hash]).await,
                false => Err(Error::new(Kind::Conflict, FREE, "it stays")),
            };
            match deleted {
                Ok(()) => {
                    freed.files += 1;
                    freed.bytes += present;
                }
                // Somebody uses it.
                Err(error) if error.kind() == Kind::Conflict => {
                    freed.stay += 1;
                    freed.stay_bytes += present;
                }
                Err(error) => return Err(error),
            }
        }
        drop(turns);
        Ok(())
    }
}

/// How many bytes of a blob are here.
async fn present(blobs: &Blobs, hash: Hash) -> Result<u64> {
    Ok(match blobs.status(hash).await? {
        Some(Status::Complete { size }) => size,
        Some(Status::Partial { present, .. }) => present,
        None => 0,
    })
}

/// The pages of files of a tree, each with the pages above it.
fn leaves(blobs: &Blobs, root: Root) -> store_api::Listing<Vec<Hash>> {
    let blobs = blobs.clone();
    Box::pin(async_stream::try_stream! {
        let mut left = vec![(vec![root.hash], root.level)];
        while let Some((chain, level)) = left.pop() {
            if level == 0 {
                yield chain;
                continue;
            }
            let page = *chain.last().expect("a chain has a page");
            let below = children(&blobs, page, level).await?;
            for child in below.into_iter().rev() {
                if let Part::Sequence { level } = child.part {
                    let mut chain = chain.clone();
                    chain.push(child.hash);
                    left.push((chain, level));
                }
            }
        }
    })
}

/// The files of a page, and whether each is wanted.
async fn files_of(repo: &Repo, page: Hash, wants: &Wants) -> Result<Vec<(Asked, bool)>> {
    let wanted = super::fetch::wanted_of(repo, page, wants).await?;
    let wanted: HashSet<u64> = wanted.iter().map(|file| file.offset).collect();
    let named = children(repo.group().blobs(), page, 0).await?;
    let longest = wants.longest_sealed();
    let can_read = repo.group().keys().read().is_some();
    let mut files = Vec::with_capacity(named.len());
    for (offset, child) in (1..).zip(named) {
        if child.part != Part::File {
            continue;
        }
        let mut is_wanted = wanted.contains(&offset);
        if is_wanted && !can_read {
            is_wanted = match repo.group().blobs().status(child.hash).await? {
                Some(Status::Complete { size } | Status::Partial { size, .. }) => size <= longest,
                None => true,
            };
        }
        let file = Asked {
            offset,
            hash: child.hash,
            len: 0,
        };
        files.push((file, is_wanted));
    }
    Ok(files)
}
