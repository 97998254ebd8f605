//! Frees space: deletes contents of others' files that this device does not want (any more).
//!
//! Other members are asked first if they have the files; a member that does keeps them for a while
//! (`leases.rs`). A file is deleted only
//!
//! * if nothing else keeps or wants its blob (`retained.rs`): our own changes wait meanwhile, so that
//!   this still holds at the time of deletion;
//! * if the policy is still the one under which the file was judged unwanted. A file that is being
//!   fetched at the same time is checked once more before it counts as here.
//!   looked at once more before it counts as here.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use larder_store_api::{Error, Kind, PublicKey, Result};
use larder_store_engine::{BlobStatus, Blobs, Hash};

use super::{
    Replicator, Shared,
    leases::Asking,
    possession::{Asked, MAX_ASKED},
    retained::{Stays, files_of, named_by},
};
use crate::{
    groups::{GroupId, Repo, Wants},
    tree::{
        Root,
        walk::{Walk, sequences},
    },
};

const FREE: &str = "sync.free";

/// The copies that may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// Only copies of files that another connected member proves to have too.
    #[default]
    RequireOtherCopy,
    /// All unwanted copies, even if nobody else has them.
    AllowLastCopy,
}

/// The outcome of freeing space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Freed {
    /// The number of files whose contents were deleted.
    pub files: u64,
    /// The bytes that they used on this device.
    pub bytes: u64,
    /// The number of unwanted files that stay: nobody has proven to have them, or they are in use.
    pub stay: u64,
    /// The bytes of those files.
    pub stay_bytes: u64,
}

impl Replicator {
    /// Deletes contents of others' files that this device has but does not
    /// [want](crate::groups::Policy). Their names stay, and the contents can be fetched again from a
    /// device that has them. Files that were read under [`Policy::Names`](crate::groups::Policy::Names)
    /// count as wanted.
    ///
    /// A member that proves to have a file keeps it for ten minutes, so that if several members free
    /// the same files at once, some of them keep theirs. A file that this device has proven to have
    /// stays for as long, even after a restart.
    ///
    /// Uses memory for the hashes of everything that is kept or wanted. Can be dropped at any time.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the group is not here.
    pub async fn free(&self, group: impl Into<GroupId>, copies: Copies) -> Result<Freed> {
        let (shared, GroupId(group)) = (&self.0, group.into());
        let group = shared.groups.group(group).ok_or_else(|| {
            Error::new(Kind::NotFound, FREE, "there is no such group here").with("group", group)
        })?;
        let mut stays = Stays::new(group.blobs());
        stays.look(shared).await?;
        let mut freeing = Freeing {
            shared: Arc::clone(shared),
            copies,
            stays,
            freed: Freed::default(),
        };
        for repo in group.repos().await? {
            let wants = repo.wants(&shared.options.policy).await?;
            if !repo.is_ours() && !wants.all() && !wants.keeps_read() {
                let shown = shared.groups.0.local(repo.id()).await?.shown;
                freeing = freeing.free(&repo, shown, &wants).await?;
            }
        }
        Ok(freeing.freed)
    }
}

impl Shared {
    /// Returns how often something was freed.
    pub(super) fn freed(&self) -> u64 {
        self.freed.load(Ordering::SeqCst)
    }
}

struct Freeing {
    shared: Arc<Shared>,
    copies: Copies,
    stays: Stays,
    freed: Freed,
}

/// A batch of files of one page.
struct Batch {
    repo: Repo,
    wants: Wants,
    files: Vec<Asked>,
    /// The peers that have proven to have each blob; `None` if no other copy is required.
    shown: Option<(Asking, Vec<BTreeSet<PublicKey>>)>,
}

impl Freeing {
    async fn free(mut self, repo: &Repo, shown: Root, wants: &Wants) -> Result<Self> {
        let blobs = repo.group().blobs();
        let mut walk = Walk::down(shown)?;
        while let Some(level) = walk.next_level() {
            for chain in level.pages {
                let page = *chain.last().expect("a chain has a page");
                match named_by(blobs, page, level.number).await? {
                    Some(named) if level.number > 0 => walk.below(&chain, sequences(&named)),
                    Some(_) => self = self.free_of(repo, &chain, wants).await?,
                    None => {}
                }
            }
        }
        Ok(self)
    }

    /// Frees the files of a page.
    async fn free_of(mut self, repo: &Repo, chain: &[Hash], wants: &Wants) -> Result<Self> {
        let blobs = repo.group().blobs();
        let page = *chain.last().expect("a chain has a page");
        let mut files = Vec::new();
        for (file, goes) in files_of(repo, page, wants).await? {
            if !goes || self.stays.contains(&file.hash) || file.hash == Hash::EMPTY {
                continue;
            }
            let len = match blobs.status(file.hash).await? {
                Some(BlobStatus::Complete { size }) => size,
                // Whoever has the rest may lack just this.
                Some(BlobStatus::Partial {
                    size, proven: true, ..
                }) => size,
                Some(BlobStatus::Partial { present, .. }) => {
                    self.freed.stay += 1;
                    self.freed.stay_bytes += present;
                    continue;
                }
                None => continue,
            };
            files.push(Asked { len, ..file });
        }
        for files in files.chunks(MAX_ASKED) {
            let shown = self.ask(repo, chain, files).await?;
            let some = Batch {
                repo: repo.clone(),
                wants: wants.clone(),
                files: files.to_vec(),
                shown,
            };
            // This runs to the end even if nobody waits for it any more: a store may carry out a
            // deletion later, and nothing may happen in between.
            let ended = tokio::spawn(self.free_some(some)).await;
            self = ended.map_err(|error| {
                Error::new(Kind::Internal, FREE, "the task that frees space failed").because(error)
            })??;
        }
        Ok(self)
    }

    async fn ask(
        &self,
        repo: &Repo,
        chain: &[Hash],
        files: &[Asked],
    ) -> Result<Option<(Asking, Vec<BTreeSet<PublicKey>>)>> {
        if self.copies == Copies::AllowLastCopy {
            return Ok(None);
        }
        let hashes = files.iter().map(|file| file.hash);
        let asking = self.shared.leases.ask_for(hashes).await?;
        let asks_for = |file: &&Asked| asking.asks_for(&file.hash);
        let asked: Vec<Asked> = files.iter().filter(asks_for).copied().collect();
        let mut found = self
            .shared
            .holders_of(repo, chain, &asked)
            .await
            .into_iter();
        let holders = files.iter().map(|file| match asking.asks_for(&file.hash) {
            true => found.next().unwrap_or_default(),
            false => BTreeSet::new(),
        });
        let holders = holders.collect();
        Ok(Some((asking, holders)))
    }

    async fn free_some(mut self, some: Batch) -> Result<Self> {
        let shared = Arc::clone(&self.shared);
        let _one = shared.freeing.lock().await;
        let _freed = Count::new(&shared.freed);
        // From here on our own trees do not change.
        let mut ours = Vec::new();
        for group in shared.groups.groups() {
            ours.extend(group.ours().await?);
        }
        let mut turns = Vec::with_capacity(ours.len());
        for repo in &ours {
            turns.push(repo.turn().await);
        }
        self.stays.look(&shared).await?;
        let (repo, group) = (&some.repo, some.repo.group());
        let is_changed = repo.wants(&shared.options.policy).await? != some.wants
            || repo.is_ours()
            || group.is_ours(repo.id());
        for (n, file) in some.files.iter().enumerate() {
            if self.stays.contains(&file.hash) {
                continue;
            }
            let has_other = some.shown.as_ref().is_none_or(|(asking, holders)| {
                !holders[n].is_empty() && asking.may_go(&file.hash)
            });
            let before = present(group.blobs(), file.hash).await?;
            if !is_changed && has_other {
                match group.blobs().delete(vec![file.hash]).await {
                    Ok(()) => {}
                    // It is in use.
                    Err(error) if error.kind() == Kind::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
            match group.blobs().status(file.hash).await? {
                None => {
                    self.freed.files += 1;
                    self.freed.bytes += before;
                }
                Some(_) => {
                    self.freed.stay += 1;
                    self.freed.stay_bytes += before;
                }
            }
        }
        drop(turns);
        Ok(self)
    }
}

/// Increments the counter before and after something is freed, so that whoever reads the state in
/// between reads it again.
struct Count<'a>(&'a AtomicU64);

impl<'a> Count<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Returns the number of bytes of a blob that are here.
async fn present(blobs: &Blobs, hash: Hash) -> Result<u64> {
    Ok(match blobs.status(hash).await? {
        Some(BlobStatus::Complete { size }) => size,
        Some(BlobStatus::Partial { present, .. }) => present,
        None => 0,
    })
}
