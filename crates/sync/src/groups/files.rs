//! Files on their way into a group: sealed, stored, and described by an entry of a tree.

use std::{
    io,
    path::Path,
    pin::Pin as StdPin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use larder_descriptors::Descriptors;
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{BlobStatus, Blobs, Hash, Pin, Source, Transaction, blocking};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, ReadBuf};
use tokio_util::io::StreamReader;

use crate::{
    keys::ReadKey,
    seal::file::{FileKey, seal_stream},
    tree::FileEntry,
};

const WRITE: &str = "sync.file.write";
/// The number of bytes of a file that are hashed at a time.
const WINDOW: usize = 1 << 20;
/// The number of times that a file is read which changes meanwhile.
const MAX_READINGS: usize = 3;

/// Returns the source once more, if it can be read twice.
pub(super) fn again(source: &Source) -> Option<Source> {
    match source {
        Source::Bytes(bytes) => Some(Source::Bytes(bytes.clone())),
        Source::Path(path) => Some(Source::Path(path.clone())),
        Source::Stream(_) => None,
    }
}

/// The progress of storing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Written {
    /// So many bytes of a [`Source::Path`] were read for their hash, before any is stored.
    Read(u64),
    /// So many bytes were sealed, and given to the store.
    Stored(u64),
}

type Progress = Arc<dyn Fn(Written) + Send + Sync>;

/// The options for storing a file.
#[derive(Clone, Default)]
pub struct WriteOptions {
    modified: Option<i64>,
    progress: Option<Progress>,
}

impl WriteOptions {
    /// The time is now, and nobody is told about progress.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time at which the file was last changed, in milliseconds since 1970.
    #[must_use]
    pub fn modified(mut self, modified: i64) -> Self {
        self.modified = Some(modified);
        self
    }

    /// Sets a function that is told about progress. It must not block.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(Written) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    fn report(&self, written: Written) {
        if let Some(progress) = &self.progress {
            progress(written);
        }
    }
}

impl std::fmt::Debug for WriteOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteOptions")
            .field("modified", &self.modified)
            .finish_non_exhaustive()
    }
}

/// A file that is stored and in no tree yet. It stays as long as this does.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The file's entry in a tree.
    pub entry: FileEntry,
    pub(crate) pin: Pin,
}

/// The target of sealed files.
#[derive(Debug)]
pub(crate) enum Sink<'a> {
    /// Into the store: they are durable at once.
    Store(&'a Blobs),
    /// Into a transaction: they become durable with all else that it says.
    Transaction(&'a Transaction),
}

impl Sink<'_> {
    async fn add(&self, source: Source) -> Result<Pin> {
        match self {
            Self::Store(store) => store.add(source).await,
            Self::Transaction(transaction) => transaction.add(source).await,
        }
    }
}

/// Seals a file and stores it. Until a tree names it, `Staged` keeps it.
pub(crate) async fn stage(
    sink: &Sink<'_>,
    read: &ReadKey,
    source: Source,
    options: &WriteOptions,
    now: i64,
) -> Result<Staged> {
    let modified = options.modified.unwrap_or(now);
    match source {
        Source::Bytes(bytes) => {
            let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
            let key = FileKey::convergent(read, hash, size);
            let pin = seal(sink, &key, io::Cursor::new(bytes), options).await?;
            Ok(staged(pin, key, hash, size, modified))
        }
        Source::Path(path) => {
            // For all readings.
            let _permit = Descriptors::of_process().file().await;
            for _ in 0..MAX_READINGS {
                if let Some(staged) = stage_path(sink, read, &path, modified, options).await? {
                    return Ok(staged);
                }
            }
            let message = "the file changed each time that it was read; write it again";
            Err(Error::new(Kind::Conflict, WRITE, message).with("path", path.display()))
        }
        Source::Stream(stream) => {
            let key = FileKey::random()?;
            let (reader, seen) = Hashing::new(StreamReader::new(stream));
            let pin = seal(sink, &key, reader, options).await?;
            let (hash, size) = seen.result();
            Ok(staged(pin, key, hash, size, modified))
        }
    }
}

/// Seals a file, up to the length that it has now. Returns `None` if it changed while it was read.
async fn stage_path(
    sink: &Sink<'_>,
    read: &ReadKey,
    path: &Path,
    modified: i64,
    options: &WriteOptions,
) -> Result<Option<Staged>> {
    let fail = |error| Error::io(WRITE, path, error);
    // Of a file that is replaced meanwhile, this stays what it was.
    let mut file = tokio::fs::File::open(path).await.map_err(fail)?;
    let len = match file.metadata().await.map_err(fail)?.len() {
        // Some files of the system do not tell their length.
        0 => u64::MAX,
        len => len,
    };
    let (hash, size) = measure(&mut file, len, options).await.map_err(fail)?;
    file.rewind().await.map_err(fail)?;
    let key = FileKey::convergent(read, hash, size);
    let (reader, seen) = Hashing::new(file.take(size));
    let pin = seal(sink, &key, reader, options).await?;
    let is_same = seen.result() == (hash, size);
    Ok(is_same.then(|| staged(pin, key, hash, size, modified)))
}

fn staged(pin: Pin, key: FileKey, hash: Hash, size: u64, modified: i64) -> Staged {
    let entry = FileEntry {
        size,
        modified,
        hash,
        blob: pin.hash(),
        key,
    };
    Staged { entry, pin }
}

async fn seal(
    sink: &Sink<'_>,
    key: &FileKey,
    reader: impl AsyncRead + Send + Unpin + 'static,
    options: &WriteOptions,
) -> Result<Pin> {
    let reader = Counting {
        reader,
        count: 0,
        options: options.clone(),
    };
    let sealed = Box::pin(seal_stream(key, reader));
    sink.add(Source::Stream(sealed)).await
}

/// Returns the hash and the length of the bytes of a file, of at most `longest` of them.
async fn measure(
    file: &mut tokio::fs::File,
    longest: u64,
    options: &WriteOptions,
) -> io::Result<(Hash, u64)> {
    let (mut hasher, mut len) = (blake3::Hasher::new(), 0);
    let mut buffer = Vec::with_capacity(WINDOW);
    loop {
        buffer.clear();
        let read = (&mut *file)
            .take((WINDOW as u64).min(longest - len))
            .read_to_end(&mut buffer)
            .await?;
        if read == 0 {
            return Ok((hasher.finalize().into(), len));
        }
        len += read as u64;
        options.report(Written::Read(len));
        // A long file must not hold up the other tasks of this thread.
        (hasher, buffer) = blocking("groups.write", move || {
            hasher.update(&buffer);
            (hasher, buffer)
        })
        .await
        .map_err(io::Error::other)?;
    }
}

/// Hashes what is read through it.
struct Hashing<R> {
    reader: R,
    seen: Arc<Mutex<(blake3::Hasher, u64)>>,
}

/// The hash and the length of the bytes read so far.
struct Seen(Arc<Mutex<(blake3::Hasher, u64)>>);

impl Seen {
    fn result(&self) -> (Hash, u64) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.0.finalize().into(), seen.1)
    }
}

impl<R> Hashing<R> {
    fn new(reader: R) -> (Self, Seen) {
        let seen = Arc::new(Mutex::new((blake3::Hasher::new(), 0)));
        let hashing = Self {
            reader,
            seen: Arc::clone(&seen),
        };
        (hashing, Seen(seen))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Hashing<R> {
    fn poll_read(
        mut self: StdPin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = StdPin::new(&mut self.reader).poll_read(context, buffer);
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.update(new);
            seen.1 += new.len() as u64;
        }
        read
    }
}

/// Reports how much was read through it.
struct Counting<R> {
    reader: R,
    count: u64,
    options: WriteOptions,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counting<R> {
    fn poll_read(
        mut self: StdPin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = StdPin::new(&mut self.reader).poll_read(context, buffer);
        let new = buffer.filled().len() - before;
        if new > 0 {
            self.count += new as u64;
            self.options.report(Written::Stored(self.count));
        }
        read
    }
}

/// Returns true if all wanted bytes of a blob are here; blobs longer than `longest` are not wanted.
pub(crate) async fn is_file_here(blobs: &Blobs, blob: Hash, longest: u64) -> Result<bool> {
    if blob == Hash::EMPTY {
        return Ok(true);
    }
    Ok(match blobs.status(blob).await? {
        Some(BlobStatus::Complete { .. }) => true,
        Some(BlobStatus::Partial {
            size, proven: true, ..
        }) => size > longest,
        Some(BlobStatus::Partial { .. }) | None => false,
    })
}
