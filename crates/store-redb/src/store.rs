//! The store that callers hold.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use larder_descriptors::{Descriptors, SMALLEST_LIMIT};
use larder_store_api::{Change, Error, Kind, Result};
use tokio::sync::{OnceCell, Semaphore, broadcast, mpsc, oneshot};

use crate::{
    apply,
    core::{Core, Stop, WATCH_BACKLOG, spawn},
    disk::{self, lock},
    error::closed,
    folder::{Access, Folder},
    index::Index,
    log::Log,
    pages::{Notice, PageState, Pages},
    payload::Payloads,
    read::{self, Job},
    repair::{self, Repaired},
    replay,
    request::{QUEUE_LEN, Reply, Request},
    reserve::Reserve,
    shadow::Shadow,
    writer::Writer,
};

/// The number of blocking calls that run at once, beside the store's own threads.
const BLOCKING_CALLS: usize = 32;

/// A store in a folder: collections in a log that redb indexes, payloads as plain files.
///
/// A clone is another handle to the same store. Implements [`BlobStore`](larder_store_api::BlobStore) and
/// [`CollectionStore`](larder_store_api::CollectionStore); its methods need a tokio runtime.
///
/// Dropping the last handle waits for the commits in flight and stops the store's threads; what was
/// acknowledged is durable. [`close`](Self::close) also brings the index up to date, so that the
/// store opens again at once.
#[derive(Clone)]
pub struct RedbStore {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore")
            .field("dir", &self.inner.dir)
            .finish_non_exhaustive()
    }
}

/// The options for opening a store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The descriptors that the store shares with the rest of the process; by default, those of the
    /// [whole process](Descriptors::of_process).
    pub descriptors: Arc<Descriptors>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            descriptors: Descriptors::of_process(),
        }
    }
}

impl Options {
    /// Returns the same options with another budget of descriptors.
    #[must_use]
    pub fn descriptors(mut self, descriptors: Arc<Descriptors>) -> Self {
        self.descriptors = descriptors;
        self
    }
}

/// The order of the fields matters: the queues end before the threads are waited for.
pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) core: Arc<Core>,
    pub(crate) payloads: Arc<Payloads>,
    /// The thread that commits, or the reason why the store is open for reading alone.
    pub(crate) writer: Result<mpsc::Sender<Request>>,
    pub(crate) readers: mpsc::Sender<Job>,
    pub(crate) blocking: Arc<Semaphore>,
    descriptors: Arc<Descriptors>,
    is_closed: AtomicBool,
    closing: OnceCell<Result<()>>,
    threads: Mutex<Threads>,
}

/// A store that is being opened: all but the thread that commits. The order of the fields matters: the queue
/// ends before the threads are waited for.
struct Parts {
    readers: mpsc::Sender<Job>,
    threads: Threads,
    payloads: Arc<Payloads>,
    descriptors: Arc<Descriptors>,
}

impl Parts {
    /// Starts the threads that apply and read.
    fn start(
        folder: Folder,
        (index, applied): Opened,
        pages: Arc<PageState>,
        options: &Options,
    ) -> Result<Self> {
        let descriptors = &options.descriptors;
        let log = Arc::new(Log::open(&folder.log(), Arc::clone(descriptors))?);
        let payloads = Payloads::new(folder.payload(), Arc::clone(descriptors));
        let payloads = Arc::new(payloads);
        let snapshot = index.snapshot()?;
        let changes = broadcast::Sender::new(WATCH_BACKLOG);
        let core = Core::new(folder, log, snapshot, applied, pages, changes.downgrade());
        let core = Arc::new(core);
        let (readers, jobs) = mpsc::channel(read::QUEUE_LEN);
        let mut threads = Threads {
            core: Arc::clone(&core),
            changes: Some(changes),
            writer: None,
            applier: None,
            readers: Vec::new(),
        };
        let shared = Arc::clone(&core);
        let apply = move || apply::run(&shared, index);
        threads.applier = Some(spawn("larder-index", apply)?);
        threads.readers = read::spawn(&core, &payloads, jobs)?;
        Ok(Self {
            threads,
            payloads,
            readers,
            descriptors: Arc::clone(descriptors),
        })
    }

    fn finish(self, writer: Result<mpsc::Sender<Request>>) -> RedbStore {
        let core = Arc::clone(&self.threads.core);
        let dir = lock(&core.folder)
            .as_ref()
            .map(|folder| folder.path().to_owned());
        let inner = Inner {
            dir: dir.expect("only closing gives the folder up"),
            core,
            payloads: self.payloads,
            writer,
            readers: self.readers,
            blocking: Arc::new(Semaphore::new(BLOCKING_CALLS)),
            descriptors: self.descriptors,
            is_closed: AtomicBool::new(false),
            closing: OnceCell::new(),
            threads: Mutex::new(self.threads),
        };
        RedbStore {
            inner: Arc::new(inner),
        }
    }
}

/// The store's threads. Dropping this waits for them.
struct Threads {
    core: Arc<Core>,
    /// Of a store without a thread that commits: its watchers end with it.
    changes: Option<broadcast::Sender<Change>>,
    writer: Option<JoinHandle<()>>,
    applier: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens the store in `dir`, and creates it where the folder is absent or empty.
    ///
    /// Work that a crash left unfinished is completed or cut off; an index that is missing or
    /// damaged is made again from the log. A folder that holds something else is [`Kind::Invalid`],
    /// one of a newer format [`Kind::Unsupported`], one that is open elsewhere
    /// [`Kind::Unavailable`], and a log or a FORMAT file that is damaged [`Kind::Corrupt`].
    ///
    /// A store whose folder this process may not write, or whose disk is full even without the reserve, is
    /// opened for reading: then nothing in the folder is changed, what a crash left unfinished is completed in
    /// memory (with as much memory as the index takes on the disk, where that has to be made again), and
    /// calls that write answer [`Kind::Denied`] or [`Kind::Full`]. Whoever may write the folder cannot open
    /// it meanwhile, unless the folder has no file `lock`, which every store makes.
    pub async fn open(dir: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let dir = dir.into();
        run_blocking("store.open", move || Self::open_blocking(&dir, &options)).await
    }

    fn open_blocking(dir: &Path, options: &Options) -> Result<Self> {
        options.descriptors.check("store.open", SMALLEST_LIMIT)?;
        let mut opened = Self::open_to_write(dir, options);
        if matches!(&opened, Err(error) if error.kind() == Kind::Full) && Reserve::of(dir).release()
        {
            opened = Self::open_to_write(dir, options);
        }
        match opened {
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Full) => {
                match Self::open_to_read(dir, options, error.clone()) {
                    Err(second) if matches!(second.kind(), Kind::Denied | Kind::NotFound) => {
                        Err(error)
                    }
                    other => other,
                }
            }
            other => other,
        }
    }

    fn open_to_write(dir: &Path, options: &Options) -> Result<Self> {
        let folder = Folder::open(dir)?;
        let pages = Arc::new(PageState::default());
        let index = open_index(&folder, &pages)?;
        pages.patient.store(true, Ordering::Release);
        let mut parts = Parts::start(folder, index, pages, options)?;
        let core = Arc::clone(&parts.threads.core);
        let end = replay::replay(&core, Access::Write)?;
        let appender = replay::append_at(Arc::clone(&core.log), end)?;
        core.reserve.take();
        let (writer, requests) = mpsc::channel(QUEUE_LEN);
        let (nudged, nudge) = (writer.downgrade(), writer.downgrade());
        let notice = Notice(Box::new(move || apply::nudge(&nudge)));
        drop(core.pages.on_full.set(notice));
        drop(core.writer.set(nudged));
        let changes = parts.threads.changes.take();
        let changes = changes.expect("it is taken here alone");
        let state = Writer::new(Arc::clone(&core), appender, requests, changes);
        parts.threads.writer = Some(spawn("larder-write", move || state.run())?);
        Ok(parts.finish(Ok(writer)))
    }

    /// Opens the store without changing anything; `cause` is why it cannot be written.
    fn open_to_read(dir: &Path, options: &Options, cause: Error) -> Result<Self> {
        let folder = Folder::open_to_read(dir)?;
        let pages = Arc::new(PageState::default());
        let index = open_shadow(&folder, &pages)?;
        let parts = Parts::start(folder, index, pages, options)?;
        replay::replay(&parts.threads.core, Access::Read)?;
        tracing::info!(dir = %dir.display(), %cause, "the store is open for reading alone");
        Ok(parts.finish(Err(cause)))
    }

    /// Returns true if the store is open for reading alone, as [`open`](Self::open) says.
    pub fn is_read_only(&self) -> bool {
        self.inner.writer.is_err()
    }

    /// Refuses to write what is open for reading alone.
    pub(crate) fn check_writable(&self, operation: &'static str) -> Result<()> {
        self.check_open(operation)?;
        self.writer(operation).map(drop)
    }

    fn writer(&self, operation: &'static str) -> Result<&mpsc::Sender<Request>> {
        self.inner.writer.as_ref().map_err(|cause| {
            let message = match cause.kind() {
                Kind::Full => {
                    "the disk is full, so this store is open for reading alone; free some space"
                }
                _ => "this store can only be read, because its folder cannot be written",
            };
            Error::new(cause.kind(), operation, message)
                .with("path", self.inner.dir.display())
                .because(cause.clone())
        })
    }

    /// Makes everything durable, brings the index up to date, and releases the folder. Calls on any
    /// handle answer [`Kind::Closed`] from then on; those in flight are answered first. Closing
    /// again is not an error.
    pub async fn close(&self) -> Result<()> {
        self.inner.is_closed.store(true, Ordering::Release);
        let closing = self.inner.closing.get_or_init(|| async {
            let closed = match self.is_read_only() {
                true => Ok(()),
                false => self.ask_closing(Request::Close).await,
            };
            let inner = Arc::clone(&self.inner);
            let stopped = run_blocking("store.close", move || {
                lock(&inner.threads).stop(Stop::Closed);
                inner.payloads.close();
                Ok(())
            });
            stopped.await?;
            closed
        });
        closing.await.clone()
    }

    /// Brings the index up to date and frees all space that can be freed, as the store otherwise
    /// does by itself, little by little.
    pub async fn settle(&self) -> Result<()> {
        self.check_open("store.settle")?;
        self.ask("store.settle", Request::Settle).await
    }

    /// Repairs the store in `dir`, which nobody may have open: writes damaged parts of the log again
    /// with all that can still be read, and makes the index again. Payloads are not looked at.
    ///
    /// A folder without a store is [`Kind::Invalid`].
    pub async fn repair(dir: impl Into<PathBuf>, options: Options) -> Result<Repaired> {
        let dir = dir.into();
        let folder = dir.clone();
        let descriptors = Arc::clone(&options.descriptors);
        let repair = move || repair::repair(&folder, descriptors);
        let repaired = run_blocking("store.repair", repair).await?;
        Self::open(dir, options).await?.close().await?;
        Ok(repaired)
    }

    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.inner.is_closed.load(Ordering::Acquire) {
            return Err(closed(operation));
        }
        Ok(())
    }

    /// Asks the thread that commits.
    pub(crate) async fn ask<T>(
        &self,
        operation: &'static str,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let sent = self.writer(operation)?.send(request(reply)).await;
        sent.map_err(|_| self.gone(operation))?;
        answer.await.map_err(|_| self.gone(operation))?
    }

    async fn ask_closing(&self, request: impl FnOnce(Reply<()>) -> Request) -> Result<()> {
        match self.ask("store.close", request).await {
            // An earlier call, which was cancelled, got that far.
            Err(error) if error.kind() == Kind::Closed => Ok(()),
            other => other,
        }
    }

    /// Asks the threads that read.
    pub(crate) async fn ask_reader<T>(
        &self,
        operation: &'static str,
        job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let sent = self.inner.readers.send(job(reply)).await;
        sent.map_err(|_| self.gone(operation))?;
        answer.await.map_err(|_| self.gone(operation))?
    }

    /// Returns the error that means that one of the store's threads is gone.
    fn gone(&self, operation: &'static str) -> Error {
        if self.inner.is_closed.load(Ordering::Acquire) {
            return closed(operation);
        }
        let message = "a thread of the store ended; open the store again";
        Error::new(Kind::Internal, operation, message)
    }

    /// Runs a call that blocks, off the runtime's workers.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Payloads) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open(operation)?;
        let permit = Arc::clone(&self.inner.blocking).acquire_owned().await;
        let permit = permit.map_err(|_| closed(operation))?;
        let descriptors = self.inner.descriptors.call().await;
        let payloads = Arc::clone(&self.inner.payloads);
        let call = move || {
            let result = call(&payloads);
            drop((permit, descriptors));
            result
        };
        run_blocking(operation, call).await
    }
}

/// The one way in which this crate leaves the runtime's workers for a call that blocks.
async fn run_blocking<T: Send + 'static>(
    operation: &'static str,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(call).await;
    done.map_err(|error| {
        Error::new(
            Kind::Internal,
            operation,
            "a blocking task of the store failed",
        )
        .because(error)
    })?
}

type Opened = (Index, Option<(crate::item::Applied, crate::item::Accounts)>);

/// Opens the index; one that is missing or damaged is begun again, and the log fills it.
fn open_index(folder: &Folder, pages: &Arc<PageState>) -> Result<Opened> {
    let path = folder.index();
    let fail = |error| Error::io("index.open", &path, error);
    let try_open = || {
        let file = Pages::open(&path, Arc::clone(pages)).map_err(fail)?;
        prepare(Index::open(&path, file)?, pages)
    };
    let marker = folder.damaged_index();
    if !marker.exists()
        && let Some(opened) = unless_damaged(try_open())?
    {
        return Ok(opened);
    }
    disk::remove_file("index.open", &path)?;
    disk::remove_file("index.open", &marker)?;
    pages.damaged.store(false, Ordering::Release);
    try_open()
}

/// Opens the index as [`open_index`] does, without changing anything on the disk.
fn open_shadow(folder: &Folder, pages: &Arc<PageState>) -> Result<Opened> {
    let path = folder.index();
    let open = |file| prepare(Index::open(&path, file)?.in_memory(), pages);
    if !folder.damaged_index().exists() {
        let file = Shadow::open(&path, Arc::clone(pages));
        let file = file.map_err(|error| Error::io("index.open", &path, error))?;
        if let Some(opened) = unless_damaged(open(file))? {
            return Ok(opened);
        }
    }
    pages.damaged.store(false, Ordering::Release);
    open(Shadow::empty())
}

/// Reads how far an index is, and makes the tables of a new one.
fn prepare(index: Index, pages: &PageState) -> Result<Opened> {
    let applied = index.applied()?;
    if applied.is_none() {
        index.create_tables()?;
    }
    if pages.damaged.load(Ordering::Acquire) {
        return Err(Error::new(Kind::Corrupt, "index.open", "a page is damaged"));
    }
    Ok((index, applied))
}

/// Returns `None` for an index that is damaged.
fn unless_damaged(opened: Result<Opened>) -> Result<Option<Opened>> {
    match opened {
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Internal) => {
            tracing::warn!(?error, "the index is made again from the log");
            Ok(None)
        }
        other => other.map(Some),
    }
}

impl Threads {
    /// Waits for the threads that write, and gives the folder free. The queue must have ended.
    fn stop(&mut self, stop: Stop) {
        let is_written = self.writer.is_some();
        self.writer.take().into_iter().for_each(join);
        self.core.applying().stop = stop;
        self.core.pages.patient.store(false, Ordering::Release);
        self.core.notify();
        self.applier.take().into_iter().for_each(join);
        drop(self.changes.take());
        if let Some(folder) = lock(&self.core.folder).take() {
            if stop == Stop::Closed && is_written {
                self.core.reserve.take();
            }
            drop(folder);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop(Stop::Dropped);
        self.readers.drain(..).for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the store panicked");
    }
}
