//! Reads a blob through `AsyncRead` and `AsyncSeek`.

use std::{
    io::{self, SeekFrom},
    pin::Pin as StdPin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use larder_store_api::{Error, Kind, Listing, Result};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use super::{Blobs, entry::BlobEntry, error::not_found, pins::Pin};
use crate::{Hash, Root};

/// Reads a blob, verified, from any position. Keeps the blob pinned.
///
/// Errors are [`io::Error`]s that carry the store's [`Error`].
pub struct Reader {
    blobs: Blobs,
    hash: Hash,
    entry: BlobEntry,
    _pin: Pin,
    position: u64,
    /// The bytes at the position that were already read.
    piece: Bytes,
    /// The pieces after it.
    pieces: Option<Listing<Bytes>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("hash", &self.hash)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Blobs {
    /// Returns a reader at the start of a blob. [`Kind::NotFound`] if nothing of it is here; the
    /// existing parts of a partial blob can be read.
    pub async fn reader(&self, hash: Hash) -> Result<Reader> {
        self.0.check_open("blobs.reader")?;
        let pin = self.0.pins.pin(Root::raw(hash), None).await;
        let found = self.0.lookup(hash).await?;
        let entry = found.ok_or_else(|| not_found("blobs.reader", hash))?.entry;
        Ok(Reader {
            blobs: self.clone(),
            hash,
            entry,
            _pin: pin,
            position: 0,
            piece: Bytes::new(),
            pieces: None,
        })
    }
}

impl Reader {
    /// Returns the blob's size in bytes, as far as it is known.
    pub fn size(&self) -> u64 {
        self.entry.size()
    }

    fn seek_to(&mut self, position: u64) {
        let ahead = position.checked_sub(self.position);
        match ahead.and_then(|ahead| usize::try_from(ahead).ok()) {
            Some(ahead) if ahead <= self.piece.len() => {
                self.piece = self.piece.split_off(ahead);
            }
            _ => {
                self.piece = Bytes::new();
                self.pieces = None;
            }
        }
        self.position = position;
    }
}

/// Converts the store's error to the closest I/O error.
fn to_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        Kind::NotFound => io::ErrorKind::NotFound,
        Kind::Corrupt => io::ErrorKind::InvalidData,
        Kind::Denied => io::ErrorKind::PermissionDenied,
        Kind::Full => io::ErrorKind::StorageFull,
        Kind::Invalid | Kind::TooLarge => io::ErrorKind::InvalidInput,
        Kind::Unsupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: StdPin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.piece.is_empty() {
            if this.position >= this.entry.size() {
                return Poll::Ready(Ok(()));
            }
            let pieces = this.pieces.get_or_insert_with(|| {
                let range = this.position..this.entry.size();
                let inner = this.blobs.0.clone();
                inner.read_entry(this.hash, this.entry.clone(), range)
            });
            match ready!(pieces.as_mut().poll_next(cx)) {
                Some(Ok(piece)) => this.piece = piece,
                Some(Err(error)) => {
                    this.pieces = None;
                    return Poll::Ready(Err(to_io(error)));
                }
                None => this.pieces = None,
            }
        }
        let len = this.piece.len().min(buf.remaining());
        buf.put_slice(&this.piece.split_to(len));
        this.position += len as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Reader {
    fn start_seek(mut self: StdPin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.entry.size().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let position = position.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a position is not before the start",
            )
        })?;
        self.seek_to(position);
        Ok(())
    }

    fn poll_complete(self: StdPin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}
