//! Tells which files of repos change, by path.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt, TryStreamExt};
use larder_store_api::{Listing, PublicKey, Result};

use super::{Event, Events, Group, Repo, Snapshot};
use crate::{
    records::REPO_ROOT,
    tree::{Difference, is_unreadable},
};

/// The most files that are named of one change of a repo.
pub const MAX_CHANGED_FILES: usize = 1024;

/// A change of the files that reads of a repo see.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FilesChanged {
    /// The repo.
    pub repo: Repo,
    /// Its files before the change.
    pub old: Snapshot,
    /// Its files after the change.
    pub new: Snapshot,
    /// The files that were added, changed or removed, in order of their paths. `None` if they are more than
    /// [`MAX_CHANGED_FILES`], or if what was there before was collected meanwhile: then list the repo, or
    /// the [difference](Snapshot::diff).
    pub files: Option<Vec<Difference>>,
}

/// Changes of files by path, as they become readable here: a stream without an end, from [`Group::file_changes`] and
/// [`Repo::file_changes`].
///
/// A listener that is slow misses nothing: several changes of a repo then come as one.
pub struct FileChanges(Listing<FilesChanged>);

impl FileChanges {
    /// Waits for the next change. After an error it ends: read the files again, and listen again.
    pub async fn next(&mut self) -> Option<Result<FilesChanged>> {
        self.0.next().await
    }
}

impl Stream for FileChanges {
    type Item = Result<FilesChanged>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for FileChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileChanges")
    }
}

impl Group {
    /// Tells which files of the group's repos change from now on: those that we write, and those of others when
    /// their names have come here.
    ///
    /// # Errors
    /// [`Kind::Denied`](larder_store_api::Kind::Denied) to a replica; those of reading the groups' records.
    pub async fn file_changes(&self) -> Result<FileChanges> {
        watch(self, None).await
    }
}

impl Repo {
    /// Tells which files of this repo change from now on, as [`Group::file_changes`] does.
    ///
    /// # Errors
    /// The errors of [`Group::file_changes`].
    pub async fn file_changes(&self) -> Result<FileChanges> {
        watch(self.group(), Some(self.key())).await
    }
}

async fn watch(group: &Group, only: Option<PublicKey>) -> Result<FileChanges> {
    const OPERATION: &str = "sync.files.watch";
    group.check_open(OPERATION)?;
    group.tree(OPERATION)?;
    let mut events = Events::new(group.inner().listen().1);
    let mut watched = Watched {
        group: group.clone(),
        only,
        seen: BTreeMap::new(),
        due: BTreeSet::new(),
    };
    for repo in watched.repos().await? {
        watched.seen.insert(repo.key(), repo.snapshot().await?);
    }
    Ok(FileChanges(Box::pin(async_stream::try_stream! {
        while let Some(event) = events.next().await {
            watched.hear(event).await?;
            while let Some(repo) = watched.due.pop_first() {
                if let Some(changed) = watched.changed(repo).await? {
                    yield changed;
                }
            }
        }
    })))
}

struct Watched {
    group: Group,
    /// The only repo that is listened to, if it is not all of them.
    only: Option<PublicKey>,
    /// The files of each repo that were told.
    seen: BTreeMap<PublicKey, Snapshot>,
    /// The repos that may have changed.
    due: BTreeSet<PublicKey>,
}

impl Watched {
    async fn repos(&self) -> Result<Vec<Repo>> {
        let mut repos = self.group.repos().await?;
        repos.retain(|repo| self.only.is_none_or(|only| only == repo.key()));
        Ok(repos)
    }

    async fn hear(&mut self, event: Event) -> Result<()> {
        let id = self.group.id();
        match event {
            Event::Changed {
                group,
                repo: Some(repo),
                slot: REPO_ROOT,
                ..
            }
            | Event::Held { group, repo }
                if group == id && self.only.is_none_or(|only| only == repo) =>
            {
                self.due.insert(repo);
            }
            // A repo may be new in the group.
            Event::Members { group } if group == id => self.look_at_all().await?,
            Event::Resync => self.look_at_all().await?,
            _ => {}
        }
        Ok(())
    }

    async fn look_at_all(&mut self) -> Result<()> {
        let repos = self.repos().await?;
        self.due.extend(repos.iter().map(Repo::key));
        Ok(())
    }

    async fn changed(&mut self, key: PublicKey) -> Result<Option<FilesChanged>> {
        let Some(repo) = self.group.repo(key).await? else {
            return Ok(None);
        };
        let new = repo.snapshot().await?;
        let old = match self.seen.get(&key) {
            Some(seen) => seen.clone(),
            None => Snapshot::empty(&repo).await,
        };
        if old.hash() == new.hash() {
            return Ok(None);
        }
        let files = match differences(&old, &new).await {
            // A page of what was there before was not kept by anything when it began to be listened.
            Err(error) if is_unreadable(&error) => None,
            files => files?,
        };
        self.seen.insert(key, new.clone());
        Ok(Some(FilesChanged {
            repo,
            old,
            new,
            files,
        }))
    }
}

/// Returns the differences, unless there are too many.
async fn differences(old: &Snapshot, new: &Snapshot) -> Result<Option<Vec<Difference>>> {
    let found = old.diff(new).await?.take(MAX_CHANGED_FILES + 1);
    let found: Vec<_> = found.try_collect().await?;
    Ok((found.len() <= MAX_CHANGED_FILES).then_some(found))
}
