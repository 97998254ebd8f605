//! Trees that a repo has now or had before, and the differences between two of them.

use std::ops::RangeBounds;

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{Error, Kind, Listing, Result};
use larder_store_engine::{Hash, Pin};

use super::Repo;
use crate::{
    records::RepoRoot,
    tree::{Difference, FileEntry, Name, Named, Root, Tree},
};

const READ: &str = "sync.snapshot.read";

/// The files that a repo had at some time. A cheap handle.
///
/// While it lives, nothing of it that is here is collected. An earlier one that was collected before, or never came
/// here, answers [`Kind::NotFound`].
#[derive(Debug, Clone)]
pub struct Snapshot {
    repo: Repo,
    hash: Hash,
    level: u8,
    time: Option<i64>,
    /// Keeps it; `None` if there is no file.
    _pin: Option<Pin>,
}

impl Snapshot {
    async fn new(repo: &Repo, hash: Hash, level: u8, time: Option<i64>) -> Self {
        let root = Root {
            hash,
            level,
            ..Root::EMPTY
        };
        let pin = match hash == Hash::EMPTY {
            true => None,
            false => Some(repo.group().blobs().pin(root.keep()).await),
        };
        Self {
            repo: repo.clone(),
            hash,
            level,
            time,
            _pin: pin,
        }
    }

    /// The state before there was any file.
    pub(super) async fn empty(repo: &Repo) -> Self {
        Self::new(repo, Hash::EMPTY, 0, None).await
    }

    /// Returns the repo that it is of.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// Returns the hash of its tree: two snapshots with one hash have the same files.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Returns the time at which its owner made it, in milliseconds since 1970; `None` if the owner no longer tells.
    pub fn time(&self) -> Option<i64> {
        self.time
    }

    /// Returns its root, with the number of its files and their length.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it is not here, or not any more; [`Kind::Denied`] to a replica.
    pub async fn root(&self) -> Result<Root> {
        self.find_root().await.map(|(_, root)| root)
    }

    async fn find_root(&self) -> Result<(Tree, Root)> {
        self.repo.check_open(READ)?;
        let tree = self.repo.group().tree(READ)?;
        let root = tree.find_root(self.hash, self.level).await?;
        Ok((tree, root))
    }

    /// Lists the files whose paths begin with `prefix`, in order.
    ///
    /// # Errors
    /// The errors of [`root`](Self::root), also in the stream.
    pub async fn list(&self, prefix: &str) -> Result<Listing<Named>> {
        let (tree, root) = self.find_root().await?;
        Ok(tree.list(root, prefix, None))
    }

    /// Returns the entry of a file, or `None` if it had no such file.
    ///
    /// # Errors
    /// The errors of [`root`](Self::root).
    pub async fn entry(&self, path: &str) -> Result<Option<FileEntry>> {
        let (tree, root) = self.find_root().await?;
        tree.get(root, &Name::new(path)?).await
    }

    /// Reads the bytes of a file within `range`, verified and opened.
    ///
    /// # Errors
    /// The errors of [`root`](Self::root); [`Kind::NotFound`] if it had no such file, and in the stream if the
    /// file's bytes are not here.
    pub async fn read(&self, path: &str, range: impl RangeBounds<u64>) -> Result<Listing<Bytes>> {
        let entry = self.entry(path).await?.ok_or_else(|| {
            Error::new(Kind::NotFound, READ, "there was no such file")
                .with("path", path.escape_debug())
        })?;
        Ok(self.repo.read_entry(&entry, range))
    }

    /// Reads all of a small file: [`read`](Self::read), gathered.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub async fn read_to_bytes(&self, path: &str) -> Result<Bytes> {
        let pieces: Vec<Bytes> = self.read(path, ..).await?.try_collect().await?;
        Ok(pieces.concat().into())
    }

    /// Lists the files that are others in `newer` than in this one, in order of their paths. Its cost follows the
    /// difference: what both have is not read.
    ///
    /// # Errors
    /// The errors of [`root`](Self::root), also in the stream.
    pub async fn diff(&self, newer: &Snapshot) -> Result<Listing<Difference>> {
        let (tree, old) = self.find_root().await?;
        let (_, new) = newer.find_root().await?;
        Ok(tree.diff(old, new))
    }
}

impl Repo {
    /// Returns the files that reads see now; what is written afterwards does not change it.
    ///
    /// # Errors
    /// [`Kind::Closed`] if the repo was closed.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let root = self.root().await?;
        let known = self.readable_root().await?;
        let known = known.as_ref().map_or(Vec::new(), RepoRoot::history);
        let told = known.iter().find(|known| known.hash == root.hash);
        let time = told.map(|told| told.time);
        Ok(Snapshot::new(self, root.hash, root.level, time).await)
    }

    /// Lists the states that the owner says the repo had before the newest, the latest first; not all of those that
    /// are long ago. The files that only an earlier one has are here until they are collected.
    ///
    /// # Errors
    /// [`Kind::Closed`] if the repo was closed.
    pub async fn history(&self) -> Result<Vec<Snapshot>> {
        self.check_open("sync.repo.history")?;
        let known = self.readable_root().await?;
        let earlier = known.map_or(Vec::new(), |known| known.earlier);
        let mut history = Vec::with_capacity(earlier.len());
        for state in earlier {
            history.push(Snapshot::new(self, state.hash, state.level, Some(state.time)).await);
        }
        Ok(history)
    }
}
