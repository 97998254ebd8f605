//! The contents of files, sealed in segments, so that any range can be read on its own.
//!
//! ```text
//! sealed file      for each segment: ChaCha20-Poly1305(up to 64 KiB of the file), tag [16]
//! nonce            index of the segment u64 | 0 u8, 0 u8, 0 u8 | last u8 (1 for the last, else 0)
//! convergent key   BLAKE3 keyed_hash(BLAKE3 derive_key("larder 2026 file key v1", read key),
//!                  BLAKE3(file) [32] | length u64)
//! ```
//!
//! Every segment except the last is full; an empty file has one segment, which is empty and the last.
//! Each key seals only one file: it is random, or a function of the very bytes that are sealed. So segments cannot be changed, swapped, removed or added undetected.

use std::{fmt, io, ops::Range};

use bytes::{Bytes, BytesMut};
use chacha20poly1305::ChaCha20Poly1305;
use futures_util::{FutureExt, Stream, TryStreamExt, future::BoxFuture};
use larder_store_api::{Error, Kind, Listing, Result};
use larder_store_engine::{BlobStatus, Blobs, Hash, blocking, random};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::ZeroizeOnDrop;

use super::{TAG_LEN, cipher, open_in_place, seal_in_place};
use crate::keys::{ReadKey, derive, same};

/// The number of bytes of a file in one segment.
pub const SEGMENT_LEN: usize = 64 * 1024;

/// The number of segments that are sealed or opened at a time on a thread for long work.
const BATCH: usize = 16;
const SEALED_LEN: usize = SEGMENT_LEN + TAG_LEN;
const KEY_CONTEXT: &str = "larder 2026 file key v1";
/// The longest file, in bytes: longer than any disk, and far from any overflow.
const MAX_LEN: u64 = 1 << 50;
const SEAL: &str = "sync.file.seal";
const OPEN: &str = "sync.file.open";

/// The key of one file. It can open only that file.
#[derive(Clone, ZeroizeOnDrop)]
pub struct FileKey([u8; 32]);

impl FileKey {
    /// Generates a key from the operating system's randomness; [`Kind::Unavailable`] if that fails.
    pub fn random() -> Result<Self> {
        let mut key = Self([0; 32]);
        random("sync.file.key", &mut key.0)?;
        Ok(key)
    }

    /// Returns the key that every reader of the group derives for the file with this hash and length,
    /// so that the same file is stored once. Nothing else may be sealed under it: nonces count from zero.
    pub fn convergent(read: &ReadKey, hash: Hash, len: u64) -> Self {
        let mut text = [0; 40];
        text[..32].copy_from_slice(hash.as_bytes());
        text[32..].copy_from_slice(&len.to_be_bytes());
        Self(*blake3::keyed_hash(&derive(read, KEY_CONTEXT), &text).as_bytes())
    }

    /// Makes a key from its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes, for storing the key.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(…)")
    }
}

impl PartialEq for FileKey {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for FileKey {}

/// Returns the number of segments of a file of `len` bytes.
fn segments(len: u64) -> u64 {
    len.div_ceil(SEGMENT_LEN as u64).max(1)
}

/// Returns the length of a file after sealing; [`u64::MAX`] if `len` is too large for any file.
pub fn sealed_len(len: u64) -> u64 {
    len.saturating_add(segments(len) * TAG_LEN as u64)
}

fn nonce(index: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

/// Seals everything from `reader`. Uses about 6 MiB of memory, however long the file is.
///
/// Can be dropped at any time. An error of the reader ends it.
pub fn seal_stream(
    key: &FileKey,
    mut reader: impl AsyncRead + Send + Unpin + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let cipher = cipher(&key.0);
    async_stream::try_stream! {
        let mut index = 0;
        let mut sealing = None;
        // Most files need one segment.
        let mut batch = Batch::read(&mut reader, 1).await?;
        loop {
            // Only the next batch shows whether this one is the last.
            let next = match batch.len == BATCH * SEGMENT_LEN {
                true => Some(Batch::read(&mut reader, BATCH).await?).filter(|next| next.len > 0),
                false => None,
            };
            let last = next.is_none();
            if last && index == 0 && batch.len <= SEGMENT_LEN {
                // Sealing it here is faster than handing it to another thread.
                yield batch.seal(&cipher, index, last);
                break;
            }
            let cipher = cipher.clone();
            let job = blocking(SEAL, move || batch.seal(&cipher, index, last));
            if let Some(before) = sealing.replace(job) {
                yield before.await.map_err(io::Error::other)?;
            }
            index += BATCH as u64;
            match next {
                Some(next) => batch = next,
                None => break,
            }
        }
        if let Some(job) = sealing {
            yield job.await.map_err(io::Error::other)?;
        }
    }
}

/// Segments of plain text, each followed by room for its tag.
struct Batch {
    bytes: Vec<u8>,
    len: usize,
}

impl Batch {
    /// Reads a batch, and allocates memory for this many segments at first.
    async fn read(reader: &mut (impl AsyncRead + Unpin), room_for: usize) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(room_for * SEALED_LEN);
        let mut len = 0;
        'read: for segment in 0..BATCH {
            bytes.resize((segment + 1) * SEALED_LEN, 0);
            let mut room = &mut bytes[segment * SEALED_LEN..][..SEGMENT_LEN];
            while !room.is_empty() {
                match reader.read(room).await? {
                    0 => break 'read,
                    n => {
                        len += n;
                        room = &mut room[n..];
                    }
                }
            }
        }
        Ok(Self { bytes, len })
    }

    fn seal(mut self, cipher: &ChaCha20Poly1305, first: u64, last: bool) -> Bytes {
        let count = self.len.div_ceil(SEGMENT_LEN).max(1);
        self.bytes.truncate(self.len + count * TAG_LEN);
        for (i, segment) in self.bytes.chunks_mut(SEALED_LEN).enumerate() {
            let (text, tag) = segment.split_at_mut(segment.len() - TAG_LEN);
            let nonce = nonce(first + i as u64, last && i + 1 == count);
            tag.copy_from_slice(&seal_in_place(cipher, nonce, &[], text));
        }
        self.bytes.into()
    }
}

/// Reads `range` of the file of `size` bytes that is sealed in `blob`: its bytes in order, in pieces of
/// up to 64 KiB. Reads only the segments that the range touches. The range is clipped to the size.
///
/// All returned bytes are verified. A file that is longer or shorter than `size`, or that was sealed
/// with another key, is [`Kind::Corrupt`]; missing bytes are [`Kind::NotFound`], after all bytes that
/// come before them.
pub fn open_range(
    blobs: &Blobs,
    blob: Hash,
    size: u64,
    key: &FileKey,
    range: Range<u64>,
) -> Listing<Bytes> {
    let blobs = blobs.clone();
    let cipher = cipher(&key.0);
    let end = range.end.min(size);
    let range = range.start.min(end)..end;
    Box::pin(async_stream::try_stream! {
        check_len(&blobs, blob, size).await?;
        if range.is_empty() && size > 0 {
            return;
        }
        // An empty file is opened too: its one segment must be valid.
        let first = range.start / SEGMENT_LEN as u64;
        let count = segments(size);
        let end = range.end.div_ceil(SEGMENT_LEN as u64).max(first + 1);
        let at = |segment: u64| segment.saturating_mul(SEALED_LEN as u64).min(sealed_len(size));
        let mut pieces = blobs.read(blob, at(first)..at(end));
        let mut rest = Bytes::new();
        let mut next = first;
        let mut opening: Option<BoxFuture<'static, Result<Result<Opened>>>> = None;
        while next < end {
            let batch = end.min(next + BATCH as u64);
            let wanted = usize::try_from(at(batch) - at(next)).unwrap_or(usize::MAX);
            let text = gather(&mut pieces, &mut rest, wanted, blob).await;
            // The bytes before an error are returned first.
            if text.is_err() && let Some(before) = opening.take() {
                for piece in before.await??.clip(&range) {
                    yield piece;
                }
            }
            let (text, cipher, start) = (text?, cipher.clone(), next);
            let job = move || Opened::open(&cipher, blob, start, count, text);
            if let Some(before) = opening.replace(blocking(OPEN, job).boxed()) {
                for piece in before.await??.clip(&range) {
                    yield piece;
                }
            }
            next = batch;
        }
        if let Some(job) = opening {
            for piece in job.await??.clip(&range) {
                yield piece;
            }
        }
    })
}

/// Refuses a blob whose length is not that of a sealed file of `size` bytes.
async fn check_len(blobs: &Blobs, blob: Hash, size: u64) -> Result<()> {
    if size > MAX_LEN {
        let error = Error::new(
            Kind::Corrupt,
            OPEN,
            "no file is as long as it is said to be",
        );
        return Err(error.with("blob", blob).with("size", size));
    }
    let found = match blobs.status(blob).await? {
        Some(BlobStatus::Complete { size }) => size,
        // Until its end is here, the length of a blob is only said; segments are verified anyway.
        Some(BlobStatus::Partial {
            size, proven: true, ..
        }) => size,
        Some(BlobStatus::Partial { .. }) => return Ok(()),
        None => {
            let error = Error::new(Kind::NotFound, OPEN, "the file's blob is not here");
            return Err(error.with("blob", blob));
        }
    };
    if found == sealed_len(size) {
        return Ok(());
    }
    let message = "the sealed file does not have the expected length";
    Err(Error::new(Kind::Corrupt, OPEN, message)
        .with("blob", blob)
        .with("len", found)
        .with("wanted", sealed_len(size)))
}

/// Returns the next `wanted` bytes of `pieces`.
async fn gather(
    pieces: &mut Listing<Bytes>,
    rest: &mut Bytes,
    wanted: usize,
    blob: Hash,
) -> Result<BytesMut> {
    let mut text = BytesMut::with_capacity(wanted);
    while text.len() < wanted {
        if rest.is_empty() {
            *rest = pieces.try_next().await?.ok_or_else(|| {
                Error::new(Kind::Corrupt, OPEN, "the sealed file ends too early").with("blob", blob)
            })?;
        }
        let take = rest.len().min(wanted - text.len());
        text.extend_from_slice(&rest.split_to(take));
    }
    Ok(text)
}

/// Seals a short file at once.
#[cfg(fuzzing)]
pub(crate) fn seal_all(key: &FileKey, plain: &[u8]) -> Bytes {
    let mut bytes = Vec::new();
    for segment in plain.chunks(SEGMENT_LEN) {
        bytes.extend_from_slice(segment);
        bytes.extend_from_slice(&[0; TAG_LEN]);
    }
    bytes.resize(bytes.len().max(TAG_LEN), 0);
    let len = plain.len();
    Batch { bytes, len }.seal(&cipher(&key.0), 0, true)
}

/// Opens a short file at once.
#[cfg(fuzzing)]
pub(crate) fn open_all(key: &FileKey, sealed: &[u8]) -> Result<Bytes> {
    if sealed.is_empty() {
        return Err(Error::new(
            Kind::Corrupt,
            OPEN,
            "the sealed file has no segment",
        ));
    }
    let count = sealed.len().div_ceil(SEALED_LEN) as u64;
    let opened = Opened::open(&cipher(&key.0), Hash::EMPTY, 0, count, sealed.into())?;
    let pieces: Vec<Bytes> = opened.clip(&(0..u64::MAX)).collect();
    Ok(pieces.concat().into())
}

/// Opened segments, still separated by their tags.
struct Opened {
    first: u64,
    bytes: Bytes,
}

impl Opened {
    fn open(
        cipher: &ChaCha20Poly1305,
        blob: Hash,
        first: u64,
        count: u64,
        mut bytes: BytesMut,
    ) -> Result<Self> {
        for (i, segment) in bytes.chunks_mut(SEALED_LEN).enumerate() {
            let index = first + i as u64;
            let opened = segment.split_last_chunk_mut().and_then(|(text, tag)| {
                open_in_place(cipher, nonce(index, index + 1 == count), &[], text, *tag)
            });
            opened.ok_or_else(|| {
                Error::new(
                    Kind::Corrupt,
                    OPEN,
                    "a segment was not sealed with this key",
                )
                .with("blob", blob)
                .with("segment", index)
            })?;
        }
        let bytes = bytes.freeze();
        Ok(Self { first, bytes })
    }

    /// Returns the pieces within `range` of the file.
    fn clip(self, range: &Range<u64>) -> impl Iterator<Item = Bytes> {
        let range = range.clone();
        let count = self.bytes.len().div_ceil(SEALED_LEN);
        (0..count).filter_map(move |i| {
            let from = i * SEALED_LEN;
            let to = (from + SEALED_LEN).min(self.bytes.len()) - TAG_LEN;
            let offset = (self.first + i as u64) * SEGMENT_LEN as u64;
            let clip = |at: u64| (at.max(offset) - offset).min((to - from) as u64);
            let cast = |at| from + usize::try_from(at).expect("clipped to a segment");
            let (from, to) = (cast(clip(range.start)), cast(clip(range.end)));
            (from < to).then(|| self.bytes.slice(from..to))
        })
    }
}
