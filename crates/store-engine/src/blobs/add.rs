//! Adding blobs whose hash is not known before.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    pin::Pin as StdPin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, future};
use larder_descriptors::{Descriptors, Permit};
use larder_store_api::{Block, Error, GROUP_LEN, IntoBytes, Kind, Part, Result};
use tokio::{io::AsyncRead, task::JoinHandle};
use tokio_util::io::ReaderStream;

use super::{
    Blobs, Inner,
    entry::{BlobEntry, State, Stored, is_outboard_inline},
    payload::Draft,
    pins::Pin,
    stage::{Claims, Staged},
    tags::{TagName, put_tag},
    tree::TreeBuilder,
};
use crate::{
    Format, Hash, Root,
    blocking::{INLINE_HASH_LEN, blocking},
    metrics::Counter,
};

/// The number of bytes that are read, hashed and written at a time.
const WINDOW_LEN: u64 = 2 * 1024 * 1024;
/// The number of bytes that are written before the store is asked to begin making them durable, so
/// that the disk works while the rest is read and hashed.
const SYNC_EVERY: u64 = 32 * 1024 * 1024;

/// The number of bytes that are asked of a reader at a time.
const READER_LEN: usize = 256 * 1024;

/// A stream of bytes to add.
pub type ByteStream = StdPin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Told how many bytes were taken in so far. It must not block.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// The source of the bytes of a blob, or of a file.
pub enum Source {
    /// Memory.
    Bytes(Bytes),
    /// A file, read from start to end.
    Path(PathBuf),
    /// A stream, read to its end; an error of it ends the add.
    Stream(ByteStream),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Source::Path(path) => write!(f, "Path({})", path.display()),
            Source::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Source {
    /// A reader, read to its end.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Source::Stream(Box::pin(ReaderStream::with_capacity(reader, READER_LEN)))
    }
}

macro_rules! from_bytes {
    ($($bytes:ty),*) => {$(
        impl From<$bytes> for Source {
            fn from(bytes: $bytes) -> Self {
                Source::Bytes(IntoBytes::into_bytes(bytes))
            }
        }
    )*};
}

from_bytes!(
    Bytes,
    &Bytes,
    Vec<u8>,
    &Vec<u8>,
    &[u8],
    String,
    &String,
    &str
);

impl<const N: usize> From<[u8; N]> for Source {
    fn from(bytes: [u8; N]) -> Self {
        Source::Bytes(IntoBytes::into_bytes(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Source {
    fn from(bytes: &[u8; N]) -> Self {
        Source::Bytes(IntoBytes::into_bytes(bytes))
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Source::Path(path)
    }
}

impl From<&PathBuf> for Source {
    fn from(path: &PathBuf) -> Self {
        Source::Path(path.clone())
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Source::Path(path.into())
    }
}

/// An open file, read from where it is to its end.
impl From<tokio::fs::File> for Source {
    fn from(file: tokio::fs::File) -> Self {
        Source::reader(file)
    }
}

/// An open file, read from where it is to its end.
impl From<File> for Source {
    fn from(file: File) -> Self {
        tokio::fs::File::from_std(file).into()
    }
}

/// The options for adding a blob.
///
/// ```
/// # use larder_store_engine::{AddOptions, Format, TagName};
/// let options = AddOptions::default().tag(TagName::try_from("film")?).progress(|bytes| tracing::info!(bytes));
/// # drop(options);
/// # larder_store_api::Result::<()>::Ok(())
/// ```
#[derive(Default)]
#[non_exhaustive]
pub struct AddOptions {
    /// The format for which the pin, and the tag, keep: the blob alone, or all that it names.
    pub format: Option<Format>,
    /// A tag to set in the same commit: either both are there or neither.
    pub tag: Option<TagName>,
    /// Told about progress.
    pub progress: Option<Progress>,
}

impl fmt::Debug for AddOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddOptions")
            .field("format", &self.format)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl AddOptions {
    /// Sets the format for which the pin, and the tag, keep.
    #[must_use]
    pub fn format(mut self, format: impl Into<Option<Format>>) -> Self {
        self.format = format.into();
        self
    }

    /// Sets a tag in the same commit.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Option<TagName>>) -> Self {
        self.tag = tag.into();
        self
    }

    /// Sets a function that is told how many bytes were taken in so far. It must not block.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    fn root(&self, hash: Hash) -> Root {
        let format = self.format.unwrap_or(Format::Raw);
        Root { hash, format }
    }

    pub(super) fn report(&self, bytes: u64) {
        if let Some(progress) = &self.progress {
            progress(bytes);
        }
    }

    fn claims(&self, pin: &Pin) -> Result<Claims> {
        let edits = self.tag.iter().map(|tag| put_tag(tag, pin.root()));
        Ok(Claims {
            edits: edits.collect::<Result<_>>()?,
            ..Claims::default()
        })
    }
}

/// Counts blobs that were added.
pub(super) fn count_added<'a>(pins: impl IntoIterator<Item = &'a Pin>) {
    let (mut blobs, mut bytes) = (0, 0);
    for pin in pins {
        blobs += 1;
        bytes += pin.size().unwrap_or(0);
    }
    Counter::BlobsAdded.add(blobs);
    Counter::BytesAdded.add(bytes);
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

impl Blobs {
    /// Adds a blob, and returns a pin that keeps it. Durable when it returns.
    ///
    /// Its bytes are written once, while they are hashed. Adding what is there already changes
    /// nothing. Cancelled, or after an error, nothing is left but what the next start sweeps.
    pub async fn add(&self, source: impl Into<Source>) -> Result<Pin> {
        self.add_with(source, AddOptions::default()).await
    }

    /// Adds a blob, as [`add`](Self::add) does, with a format, a tag or progress.
    pub async fn add_with(&self, source: impl Into<Source>, options: AddOptions) -> Result<Pin> {
        let _running = self.0.enter("blobs.add")?;
        let mut windows = Windows::of(source.into()).await?;
        let first = windows.next().await?;
        let pin = if first.len() as u64 <= GROUP_LEN {
            self.0.add_inline(Hash::of(&first), first, options).await?
        } else {
            self.0.add_payload(first, windows, options).await?
        };
        count_added([&pin]);
        Ok(pin)
    }
}

impl Inner {
    /// Adds a blob of up to 16 KiB.
    pub(super) async fn add_inline(
        self: &Arc<Self>,
        hash: Hash,
        bytes: Bytes,
        options: AddOptions,
    ) -> Result<Pin> {
        let size = bytes.len() as u64;
        let pin = self.pins.pin(options.root(hash), Some(size)).await;
        options.report(size);
        let entry = BlobEntry {
            added: now(),
            state: State::Inline(bytes),
        };
        let mut staged = Vec::new();
        // The empty blob has no entry.
        if hash != Hash::EMPTY {
            staged.push(Staged::new(pin.clone(), entry, None));
        }
        let claims = options.claims(&pin)?;
        self.put_together(&mut staged, &claims).await?;
        Ok(pin)
    }

    async fn add_payload(
        self: &Arc<Self>,
        first: Bytes,
        windows: Windows,
        options: AddOptions,
    ) -> Result<Pin> {
        let staged = self.write_draft(first, windows, &options).await?;
        let pin = staged.pin.clone();
        let claims = options.claims(&pin)?;
        self.put_together(&mut vec![staged], &claims).await?;
        Ok(pin)
    }

    /// Writes a payload that nothing claims yet; durable when it returns.
    pub(super) async fn write_draft(
        self: &Arc<Self>,
        first: Bytes,
        windows: Windows,
        options: &AddOptions,
    ) -> Result<Staged> {
        let draft = self.draft().await?;
        match self.write_payload(&draft, first, windows, options).await {
            Ok((hash, stored)) => {
                let pin = self.pins.pin(options.root(hash), Some(stored.size)).await;
                let entry = BlobEntry {
                    added: now(),
                    state: State::Complete(stored),
                };
                Ok(Staged::new(pin, entry, Some(draft)))
            }
            Err(error) => {
                draft.discard().await;
                Err(error)
            }
        }
    }

    /// Writes a payload while it is hashed; durable when it returns.
    async fn write_payload(
        &self,
        draft: &Draft,
        first: Bytes,
        mut windows: Windows,
        options: &AddOptions,
    ) -> Result<(Hash, Stored)> {
        let limit = self.payloads.capabilities().max_part_len;
        let mut builder = TreeBuilder::default();
        let mut outboard = Outboard::new(self.block_len);
        let mut window = first;
        let mut written = 0;
        let mut synced = 0;
        let mut syncing: Option<JoinHandle<Result<()>>> = None;
        while !window.is_empty() {
            let end = written + window.len() as u64;
            if end > limit {
                return Err(Error::new(
                    Kind::TooLarge,
                    "blobs.add",
                    "the store keeps no such blob",
                )
                .with("store", self.payloads.name())
                .with("limit", limit));
            }
            let mut blocks = outboard.take_whole(&mut builder);
            blocks.push(Block {
                part: Part::Data,
                index: written / self.block_len,
                bytes: window.clone(),
            });
            let write = draft.write(blocks);
            let hash = hash_window(builder, window);
            let ((), hashed, next) = future::try_join3(write, hash, windows.next()).await?;
            (builder, window) = (hashed, next);
            written = end;
            options.report(written);
            if written - synced >= SYNC_EVERY && syncing.as_ref().is_none_or(|s| s.is_finished()) {
                ended(syncing.take()).await?;
                synced = written;
                let (payloads, id) = (self.payloads.clone(), draft.id);
                syncing = Some(tokio::spawn(async move { payloads.sync(vec![id]).await }));
            }
        }
        ended(syncing.take()).await?;
        let blocks = outboard.take_whole(&mut builder);
        let (hash, size, rest) = builder.finish();
        let outboard = if is_outboard_inline(size) {
            // It is shorter than a block, so that nothing of it was written.
            Some(rest.into())
        } else {
            draft.write(blocks).await?;
            draft.write(outboard.take_rest(rest)).await?;
            None
        };
        self.payloads.sync(vec![draft.id]).await?;
        let stored = Stored {
            size,
            payload: draft.id,
            outboard,
        };
        Ok((Hash::from(hash), stored))
    }
}

/// Waits for a sync under way.
async fn ended(syncing: Option<JoinHandle<Result<()>>>) -> Result<()> {
    match syncing {
        Some(syncing) => syncing.await.map_err(|e| {
            Error::new(Kind::Internal, "blobs.add", "the task that syncs failed").because(e)
        })?,
        None => Ok(()),
    }
}

async fn hash_window(mut builder: TreeBuilder, window: Bytes) -> Result<TreeBuilder> {
    if window.len() <= INLINE_HASH_LEN {
        builder.update(&window);
        return Ok(builder);
    }
    blocking("blobs.add", move || {
        builder.update(&window);
        builder
    })
    .await
}

/// Cuts a growing outboard into blocks.
struct Outboard {
    block_len: u64,
    written: u64,
}

impl Outboard {
    fn new(block_len: u64) -> Self {
        Self {
            block_len,
            written: 0,
        }
    }

    fn take_whole(&mut self, builder: &mut TreeBuilder) -> Vec<Block> {
        let block_len = usize::try_from(self.block_len).unwrap_or(usize::MAX);
        self.blocks(builder.take_outboard(block_len))
    }

    fn take_rest(&mut self, rest: Vec<u8>) -> Vec<Block> {
        self.blocks(rest)
    }

    fn blocks(&mut self, bytes: Vec<u8>) -> Vec<Block> {
        if bytes.is_empty() {
            return Vec::new();
        }
        let index = self.written / self.block_len;
        self.written += bytes.len() as u64;
        vec![Block {
            part: Part::Outboard,
            index,
            bytes: bytes.into(),
        }]
    }
}

/// A source, cut into windows.
pub(super) enum Windows {
    Bytes(Bytes),
    File {
        path: PathBuf,
        file: Option<(File, Permit)>,
    },
    Stream {
        stream: ByteStream,
        rest: Bytes,
        done: bool,
    },
}

impl Windows {
    pub(super) async fn of(source: Source) -> Result<Self> {
        Ok(match source {
            Source::Bytes(bytes) => Self::Bytes(bytes),
            Source::Path(path) => Self::open(path).await?,
            Source::Stream(stream) => Self::Stream {
                stream,
                rest: Bytes::new(),
                done: false,
            },
        })
    }

    async fn open(path: PathBuf) -> Result<Self> {
        // Held until the file is read, while only calls into the store are waited for.
        let permit = Descriptors::of_process().file().await;
        blocking("blobs.add", move || {
            let file = File::open(&path).map_err(|e| Error::io("blobs.add", &path, e))?;
            let is_dir = file
                .metadata()
                .map_err(|e| Error::io("blobs.add", &path, e))?
                .is_dir();
            if is_dir {
                return Err(Error::new(
                    Kind::Invalid,
                    "blobs.add",
                    "a folder is not a blob; add its files, or a collection of them",
                )
                .with("path", path.display()));
            }
            let file = Some((file, permit));
            Ok(Self::File { path, file })
        })
        .await?
    }

    /// The next [`WINDOW_LEN`] bytes; fewer at the end, and then none.
    pub(super) async fn next(&mut self) -> Result<Bytes> {
        match self {
            Windows::Bytes(bytes) => {
                let len = bytes.len().min(WINDOW_LEN as usize);
                Ok(bytes.split_to(len))
            }
            Windows::File { path, file } => {
                let Some((mut open, permit)) = file.take() else {
                    return Ok(Bytes::new());
                };
                let name = path.clone();
                let (open, bytes) = blocking("blobs.add", move || {
                    let mut bytes = Vec::with_capacity(WINDOW_LEN as usize);
                    let read = (&mut open).take(WINDOW_LEN).read_to_end(&mut bytes);
                    read.map_err(|e| Error::io("blobs.add", &name, e))?;
                    Ok::<_, Error>((open, bytes))
                })
                .await??;
                // A file that grows faster than it is read would never end otherwise.
                *file = (bytes.len() as u64 == WINDOW_LEN).then_some((open, permit));
                Ok(bytes.into())
            }
            Windows::Stream { stream, rest, done } => next_of(stream, rest, done).await,
        }
    }
}

async fn next_of(stream: &mut ByteStream, rest: &mut Bytes, done: &mut bool) -> Result<Bytes> {
    let len = WINDOW_LEN as usize;
    if rest.len() >= len {
        return Ok(rest.split_to(len));
    }
    let mut window = BytesMut::new();
    while !*done && window.len() + rest.len() < len {
        if !rest.is_empty() {
            if window.capacity() == 0 {
                window.reserve(len);
            }
            window.extend_from_slice(&std::mem::take(rest));
        }
        match stream.next().await {
            Some(Ok(bytes)) => *rest = bytes,
            Some(Err(error)) => {
                return Err(Error::new(
                    Kind::Unavailable,
                    "blobs.add",
                    "the source of the bytes failed",
                )
                .because(error));
            }
            None => *done = true,
        }
    }
    if window.is_empty() {
        return Ok(rest.split_to(rest.len().min(len)));
    }
    let take = rest.len().min(len - window.len());
    window.extend_from_slice(&rest.split_to(take));
    Ok(window.freeze())
}
