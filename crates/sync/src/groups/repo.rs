//! A repo: one member's files, of which the owner changes the tree and everybody else follows it.

use std::{collections::BTreeMap, ops::RangeBounds, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{
    Error, Freshness, GROUP_LEN, Kind, Listing, PublicKey, Put, PutRecord, RecordId, RecordStore,
    Result, SecretKey, SeqExpect, Signed, positions,
};
use larder_store_engine::{BlobStatus, Blobs, Hash, Repair, SlotState, Source, Transaction};

use super::{
    Event, Group,
    close_guard::Gate,
    files::{Sink, Staged, WriteOptions, again, is_file_here, stage},
};
use crate::{
    keyring::EpochKeys,
    membership::Rights,
    records::{Profile, REPO_PROFILE, REPO_ROOT, RepoRoot},
    seal::file::{open_range, sealed_len},
    tree::{FileEntry, Name, Named, Root, Tree},
};

/// The number of times that a change is tried again after another device of the same owner came
/// first. Each time means that the other one succeeded.
const MAX_ATTEMPTS: usize = 64;

const WRITE: &str = "sync.repo.write";

/// A member's files. A cheap handle; clones are the same, and are [closed](Self::close) together.
#[derive(Debug, Clone)]
pub struct Repo(pub(super) Arc<RepoInner>, pub(super) Arc<Gate>);

#[derive(Debug)]
pub(super) struct RepoInner {
    pub(super) group: Group,
    pub(super) key: PublicKey,
    pub(super) id: RecordId,
    /// The secret key; `None` if the repo is not ours.
    pub(super) secret: Option<SecretKey>,
    /// One change at a time, so that callers here do not make each other try again. The record's
    /// sequence number makes it correct.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// One fetches its tree at a time.
    pub(super) fetching: Arc<tokio::sync::Mutex<()>>,
}

/// A change of a tree's names.
#[derive(Debug, Default)]
pub struct Changes(BTreeMap<Name, Option<Staged>>);

impl Changes {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file under `name`, in place of another.
    pub fn put(&mut self, name: Name, file: Staged) {
        self.0.insert(name, Some(file));
    }

    /// Removes a name; no error where it is absent.
    pub fn remove(&mut self, name: Name) {
        self.0.insert(name, None);
    }

    /// Returns the number of names that change.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns true if the index has a blob whose first or last bytes cannot be read. One that lies in
/// the index itself is verified with it.
async fn is_damaged(blobs: &Blobs, blob: Hash) -> Result<bool> {
    let size = match blobs.status(blob).await? {
        Some(BlobStatus::Complete { size }) if size > GROUP_LEN => size,
        _ => return Ok(false),
    };
    for at in [0, size - 1] {
        match blobs.read_to_bytes(blob, at..at + 1).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

impl Repo {
    /// The repo's public key, its name everywhere.
    pub fn key(&self) -> PublicKey {
        self.0.key
    }

    /// The id of its record.
    pub fn id(&self) -> RecordId {
        self.0.id
    }

    /// Its group.
    pub fn group(&self) -> &Group {
        &self.0.group
    }

    /// Returns true if this device may change the repo.
    pub fn is_ours(&self) -> bool {
        self.0.secret.is_some()
    }

    /// Returns the owner's name for the repo; `None` if it has not arrived yet, or is invalid.
    ///
    /// # Errors
    /// [`Kind::Denied`] to a replica.
    pub async fn name(&self) -> Result<Option<String>> {
        const OPERATION: &str = "sync.repo.name";
        self.check_open(OPERATION)?;
        let group = &self.0.group;
        group.check_reads(OPERATION)?;
        let found = group
            .records()
            .get(self.0.id, REPO_PROFILE, Freshness::Local);
        let Some(found) = found.await? else {
            return Ok(None);
        };
        let profile = group.keyring().open_read(&found.value, |key| {
            Profile::open(key, self.0.id, &found.value)
        });
        let profile = profile
            .inspect_err(|error| tracing::debug!(repo = %self.0.key, %error, "it has no name"));
        Ok(profile.ok().map(|profile| profile.name))
    }

    /// Gives the repo another owner's name, for everybody. Durable when it returns.
    ///
    /// # Errors
    /// [`Kind::Denied`] if the repo is not ours, [`Kind::TooLarge`] for a name over
    /// [`MAX_LABEL_LEN`](crate::records::MAX_LABEL_LEN).
    pub async fn set_name(&self, name: &str) -> Result<()> {
        const OPERATION: &str = "sync.repo.set_name";
        let _open = self.enter(OPERATION)?;
        let secret = self.owner(OPERATION)?;
        let profile = Profile {
            name: name.to_owned(),
        };
        let group = &self.0.group;
        group.demand(OPERATION, Rights::WRITE)?;
        let keys = group.sealing(OPERATION).await?;
        let profile = profile.seal(keys.read()?, self.0.id)?;
        group.put_profile(self.0.id, profile, secret).await?;
        group.record_changed(self.0.key, REPO_PROFILE);
        Ok(())
    }

    /// The newest root that is known here, with its sequence number; it may not have come here yet. `None` if there is
    /// none, or if another member wrote something that is not a root.
    pub async fn known_root(&self) -> Result<Option<(u64, RepoRoot)>> {
        self.check_open("sync.repo.root")?;
        self.load_root().await
    }

    async fn load_root(&self) -> Result<Option<(u64, RepoRoot)>> {
        let found = self.signed_root().await?;
        self.open_known(found.as_ref())
    }

    /// The newest root as its owner signed it: of who was removed the last one that counts.
    pub(crate) async fn signed_root(&self) -> Result<Option<Signed>> {
        if !self.is_ours()
            && let Some(frozen) = self.0.group.frozen_root(self.0.key)
        {
            return Ok(frozen);
        }
        let records = self.0.group.records();
        records.get(self.0.id, REPO_ROOT, Freshness::Local).await
    }

    fn open_known(&self, found: Option<&Signed>) -> Result<Option<(u64, RepoRoot)>> {
        let Some(found) = found else { return Ok(None) };
        match self.open_value(&found.value) {
            Ok(root) => Ok(Some((found.seq, root))),
            Err(error) if self.is_ours() => Err(error),
            Err(error) => {
                tracing::debug!(repo = %self.0.key, %error, "a repo has no root");
                Ok(None)
            }
        }
    }

    pub(super) fn open_value(&self, value: &[u8]) -> Result<RepoRoot> {
        let keys = self.0.group.keyring();
        keys.open_locate(value, |key| RepoRoot::open(key, self.0.id, value))
    }

    /// Returns the known root, but `None` too if the owner wrote an invalid root, or if that of
    /// another member is damaged here: that must not stop others.
    pub(crate) async fn readable_root(&self) -> Result<Option<RepoRoot>> {
        let mut found = self.signed_root().await;
        if !self.is_ours() {
            found = self.0.group.unless_damaged(self.0.id, REPO_ROOT, found);
        }
        let Some(found) = found? else { return Ok(None) };
        match self.open_value(&found.value) {
            Ok(root) => Ok(Some(root)),
            Err(error) => {
                tracing::debug!(repo = %self.0.key, %error, "a repo has no root");
                Ok(None)
            }
        }
    }

    /// The tree that reads see: our own newest one; of another member the newest whose names are all here.
    /// Some of its files may not be: [`state`](Self::state).
    pub async fn root(&self) -> Result<Root> {
        self.check_open("sync.repo.root")?;
        self.seen_root().await
    }

    /// Returns the root that reads see, also for a change that began before the repo was closed.
    pub(super) async fn seen_root(&self) -> Result<Root> {
        match self.is_ours() {
            true => Ok(self.load_root().await?.map_or(Root::EMPTY, |(_, r)| r.root)),
            false => Ok(self.0.group.inner().local(self.0.id).await?.shown),
        }
    }

    /// Stores a file under a path, in place of another. Durable when it returns: file, tree and root become
    /// so in one commit, unless the file is long.
    ///
    /// A [`Source::Path`] is read twice: once for its hash, which its key is made of, and once to seal it. Bytes that are
    /// appended meanwhile are not read; one whose bytes change in between is read again a few times, and is then
    /// [`Kind::Conflict`]. A [`Source::Stream`] is read once, and its bytes are stored again, under another key, each
    /// time that they come.
    ///
    /// No path is a file and a folder at once: a file that has the name of one of the path's folders is removed.
    ///
    /// # Errors
    /// [`Kind::Denied`] if the repo is not ours; [`Kind::Invalid`] for a path that is invalid, or that is
    /// a folder with files in it.
    pub async fn write(&self, path: &str, content: impl Into<Source>) -> Result<FileEntry> {
        self.write_with(path, content, WriteOptions::new()).await
    }

    /// Stores a file under a path, as [`write`](Self::write) does, with a time of its own or progress.
    ///
    /// ```
    /// # use larder_sync::groups::{Repo, WriteOptions, Written};
    /// # async fn example(repo: &Repo, film: &std::path::Path) -> larder_store_api::Result<()> {
    /// let options = WriteOptions::new().progress(|written| match written {
    ///     Written::Read(bytes) => tracing::info!(bytes, "read once, for its hash"),
    ///     Written::Stored(bytes) => tracing::info!(bytes, "sealed and stored"),
    ///     _ => {}
    /// });
    /// repo.write_with("film.mkv", film, options).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`write`](Self::write).
    pub async fn write_with(
        &self,
        path: &str,
        content: impl Into<Source>,
        options: WriteOptions,
    ) -> Result<FileEntry> {
        let _open = self.enter(WRITE)?;
        let name = Name::new(path)?;
        let transaction = self.0.group.blobs().transaction()?;
        let sink = Sink::Transaction(&transaction);
        let staged = self.stage_into(&sink, content.into(), &options).await?;
        let entry = staged.entry.clone();
        let mut changes = Changes::new();
        changes.put(name, staged);
        self.change_inside(changes, transaction).await?;
        Ok(entry)
    }

    /// Stores a file that is in no tree yet, for a [`change`](Self::change) of many. `modified` is the time at which
    /// it was last changed, in milliseconds since 1970.
    ///
    /// # Errors
    /// The errors of [`write`](Self::write).
    pub async fn stage(&self, content: impl Into<Source>, modified: i64) -> Result<Staged> {
        let options = WriteOptions::new().modified(modified);
        self.stage_with(content, options).await
    }

    /// Stores a file that is in no tree yet, as [`stage`](Self::stage) does, with progress.
    ///
    /// # Errors
    /// The errors of [`write`](Self::write).
    pub async fn stage_with(
        &self,
        content: impl Into<Source>,
        options: WriteOptions,
    ) -> Result<Staged> {
        let _open = self.enter(WRITE)?;
        let sink = Sink::Store(self.0.group.blobs());
        self.stage_into(&sink, content.into(), &options).await
    }

    async fn stage_into(
        &self,
        sink: &Sink<'_>,
        content: Source,
        options: &WriteOptions,
    ) -> Result<Staged> {
        self.owner(WRITE)?;
        let now = self.0.group.inner().now();
        let group = &self.0.group;
        group.demand(WRITE, Rights::WRITE)?;
        let (blobs, keys) = (group.blobs(), group.sealing(WRITE).await?);
        let read = keys.read()?;
        let again = again(&content);
        let staged = stage(sink, read, content, options, now).await?;
        let blob = staged.entry.blob;
        if sealed_len(staged.entry.size) <= GROUP_LEN || !is_damaged(blobs, blob).await? {
            return Ok(staged);
        }
        // The stored blob with this hash is damaged, so the new content was not stored in its place.
        let Some(content) = again else {
            return Ok(staged);
        };
        tracing::warn!(%blob, "a damaged blob is stored again");
        blobs.scrub_one(blob, Repair::Yes).await?;
        let staged = stage(sink, read, content, options, now).await?;
        self.restored(blob);
        Ok(staged)
    }

    /// A blob that was damaged or gone is here again.
    fn restored(&self, blob: Hash) {
        let (group, inner) = (&self.0.group, self.0.group.inner());
        inner.damaged.forget(blob);
        inner.tell(Event::Held {
            group: group.id(),
            repo: self.0.key,
        });
    }

    /// Returns true if all bytes of a file are here, as far as that shows without reading all of
    /// them: the index has them, and the first and the last can be read.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read), except those about missing or damaged bytes.
    pub async fn has(&self, entry: &FileEntry) -> Result<bool> {
        self.check_open("sync.repo.has")?;
        let (blobs, blob) = (self.0.group.blobs(), entry.blob);
        let is_here = is_file_here(blobs, blob, u64::MAX).await?;
        Ok(is_here && !is_damaged(blobs, blob).await?)
    }

    /// Removes a path. Removing what is absent is not an error and changes nothing.
    ///
    /// # Errors
    /// [`Kind::Denied`] if the repo is not ours.
    pub async fn remove(&self, path: &str) -> Result<()> {
        let mut changes = Changes::new();
        changes.remove(Name::new(path)?);
        self.change(changes).await.map(drop)
    }

    /// Gives a file another path, in one step. A file that was there is replaced.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such file, [`Kind::Denied`] if the repo is not ours,
    /// [`Kind::Invalid`] if the new path is a folder with other files in it.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        const OPERATION: &str = "sync.repo.rename";
        let _open = self.enter(OPERATION)?;
        let (from, to) = (Name::new(from)?, Name::new(to)?);
        let edit = |tree: Tree, root: Root| {
            let (from, to) = (from.clone(), to.clone());
            async move {
                let entry = tree.get(root, &from).await?.ok_or_else(|| {
                    Error::new(Kind::NotFound, OPERATION, "there is no such file")
                        .with("path", &from)
                })?;
                // If both paths are equal, the second entry wins: nothing changes.
                Ok(BTreeMap::from_iter([(from, None), (to, Some(entry))]))
            }
        };
        let transaction = self.0.group.blobs().transaction()?;
        self.edit(OPERATION, transaction, edit).await.map(drop)
    }

    /// Makes several changes in one step, all or none. Durable when it returns; the root that it gives
    /// is the repo's from then on. Files that have the names of folders of new ones are removed.
    ///
    /// # Errors
    /// [`Kind::Denied`] if the repo is not ours; [`Kind::Invalid`] if a new file has the name of a folder whose
    /// files the changes do not remove, or in which they put another; [`Kind::Unavailable`] if other
    /// devices of the same owner kept coming first.
    pub async fn change(&self, changes: Changes) -> Result<Root> {
        let _open = self.enter(WRITE)?;
        let transaction = self.0.group.blobs().transaction()?;
        self.change_inside(changes, transaction).await
    }

    async fn change_inside(&self, changes: Changes, transaction: Transaction) -> Result<Root> {
        // Until the tree keeps them.
        let _pins: Vec<_> = changes
            .0
            .values()
            .flatten()
            .map(|s| s.pin.clone())
            .collect();
        let entry = |staged: &Option<Staged>| staged.as_ref().map(|staged| staged.entry.clone());
        let edits: BTreeMap<_, _> = changes
            .0
            .iter()
            .map(|(name, staged)| (name.clone(), entry(staged)))
            .collect();
        self.edit(WRITE, transaction, |_, _| {
            std::future::ready(Ok(edits.clone()))
        })
        .await
    }

    /// Makes the edits that follow from the tree as it is, in one commit with all else that the transaction
    /// says.
    async fn edit<F>(
        &self,
        operation: &'static str,
        transaction: Transaction,
        edits: impl Fn(Tree, Root) -> F,
    ) -> Result<Root>
    where
        F: Future<Output = Result<BTreeMap<Name, Option<FileEntry>>>>,
    {
        self.owner(operation)?;
        let group = &self.0.group;
        group.demand(operation, Rights::WRITE)?;
        if group.state().frozen.contains_key(&self.0.key) {
            let message = "this repo ended when its owner was removed: make another";
            return Err(Error::new(Kind::Denied, operation, message).with("repo", self.0.key));
        }
        let _turn = self.turn().await;
        for _ in 0..MAX_ATTEMPTS {
            let keys = group.sealing(operation).await?;
            let tree = group.tree(operation)?.sealing(Arc::clone(&keys));
            let slot = group.records().slot(self.0.id, REPO_ROOT).await?;
            let known = self.open_known(slot.value()?)?;
            let old = known.as_ref().map_or(Root::EMPTY, |(_, root)| root.root);
            let mut edits = edits(tree.clone(), old).await?;
            tree.make_room(operation, old, &mut edits).await?;
            let edited = tree.edit_in(&transaction, old, edits).await?;
            if edited.root != old {
                self.set_root(operation, &transaction, &slot, known, edited.root, &keys)
                    .await?;
            }
            // Somebody may have been removed meanwhile, who must not read this.
            if !group.is_usable(&keys) {
                transaction.begin_again()?;
                continue;
            }
            match transaction.commit().await {
                Ok(_) => {
                    if edited.root != old {
                        group.record_changed(self.0.key, REPO_ROOT);
                    }
                    return Ok(edited.root);
                }
                Err(error) if error.kind() == Kind::Conflict => transaction.begin_again()?,
                Err(error) => return Err(error),
            }
        }
        let message = "other devices of the same owner changed the repo first, again and again";
        Err(Error::new(Kind::Unavailable, operation, message).with("repo", self.0.key))
    }

    /// Has a transaction make `root` the repo's, with its tag in place of the tags of the roots before.
    async fn set_root(
        &self,
        operation: &'static str,
        transaction: &Transaction,
        slot: &SlotState,
        known: Option<(u64, RepoRoot)>,
        root: Root,
        keys: &EpochKeys,
    ) -> Result<()> {
        let secret = self.owner(operation)?;
        let group = &self.0.group;
        let now = group.inner().now();
        let (expect, next) = match known {
            Some((seq, old)) => (SeqExpect::At(seq), old.next(root, now)),
            None => (
                SeqExpect::Absent,
                RepoRoot {
                    root,
                    time: now,
                    earlier: Vec::new(),
                },
            ),
        };
        let write = PutRecord::Write {
            value: next.seal(keys.locate(), self.0.id)?,
            writer: secret.clone(),
            expect,
        };
        match transaction.put_slot(group.records(), slot, write).await? {
            Put::Published { .. } | Put::Queued { .. } => {}
            Put::Superseded { .. } => {
                let message = "the root was expected to be another than was just read";
                return Err(Error::new(Kind::Internal, operation, message));
            }
        }
        let mut keep = vec![root];
        // That of another device that comes.
        keep.extend(self.other().await?.map(|other| other.root.root));
        self.keep_only_in(transaction, &keep).await
    }

    /// Returns the entry of a file, or `None` if there is no such file.
    ///
    /// # Errors
    /// [`Kind::Denied`] to a replica.
    pub async fn entry(&self, path: &str) -> Result<Option<FileEntry>> {
        let tree = self.0.group.tree("sync.repo.read")?;
        tree.get(self.root().await?, &Name::new(path)?).await
    }

    /// The bytes of a file within `range`, verified and opened.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such file, or its bytes have not come here;
    /// [`Kind::Denied`] to a replica.
    pub async fn read(&self, path: &str, range: impl RangeBounds<u64>) -> Result<Listing<Bytes>> {
        let entry = self.entry(path).await?.ok_or_else(|| {
            Error::new(Kind::NotFound, "sync.repo.read", "there is no such file")
                .with("path", path.escape_debug())
        })?;
        Ok(self.read_entry(&entry, range))
    }

    /// Reads a file that was listed before, whatever its path names by now.
    ///
    /// # Errors
    /// In the stream, [`Kind::NotFound`] if its bytes have not come here.
    pub fn read_entry(&self, entry: &FileEntry, range: impl RangeBounds<u64>) -> Listing<Bytes> {
        if let Err(error) = self.check_open("sync.repo.read") {
            return Box::pin(futures_util::stream::once(std::future::ready(Err(error))));
        }
        let blobs = self.0.group.blobs();
        open_range(blobs, entry.blob, entry.size, &entry.key, positions(range))
    }

    /// All of a small file: [`read`](Self::read), gathered.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read).
    pub async fn read_to_bytes(&self, path: &str) -> Result<Bytes> {
        let pieces: Vec<Bytes> = self.read(path, ..).await?.try_collect().await?;
        Ok(pieces.concat().into())
    }

    /// The files whose paths begin with `prefix`, in order.
    pub async fn list(&self, prefix: &str) -> Result<Listing<Named>> {
        let tree = self.0.group.tree("sync.repo.list")?;
        Ok(tree.list(self.root().await?, prefix, None))
    }

    /// The key that writes it.
    pub(crate) fn owner(&self, operation: &'static str) -> Result<&SecretKey> {
        self.0.secret.as_ref().ok_or_else(|| {
            Error::new(Kind::Denied, operation, "only its owner can change a repo")
                .with("repo", self.0.key)
        })
    }
}
