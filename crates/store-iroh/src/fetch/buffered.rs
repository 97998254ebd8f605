//! Reads a stream in as large pieces as have come: each read of a QUIC stream takes the connection's
//! lock, and an answer is made of many small items.

use std::{collections::VecDeque, io};

use bytes::{Buf, Bytes};
use iroh::endpoint::{ReadError, RecvStream, VarInt};

/// How many pieces are taken at once: each is what one packet brought, or what was put together
/// while others were missing.
const PIECES: usize = 32;

/// A stream and what was read of it ahead.
#[derive(Debug)]
pub(super) struct Buffered {
    inner: RecvStream,
    ahead: VecDeque<Bytes>,
}

impl Buffered {
    pub(super) fn new(inner: RecvStream) -> Self {
        Self {
            inner,
            ahead: VecDeque::with_capacity(PIECES),
        }
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        let mut pieces = [const { Bytes::new() }; PIECES];
        let Some(count) = self.inner.read_many_chunks(&mut pieces).await? else {
            return Ok(false);
        };
        self.ahead.extend(pieces.into_iter().take(count));
        Ok(true)
    }

    /// Up to `len` bytes: fewer only at the end. A copy, so that few bytes do not keep the packets
    /// alive that brought them.
    async fn take(&mut self, len: usize) -> Result<Bytes, ReadError> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let Some(piece) = self.ahead.front_mut() else {
                if self.fill().await? {
                    continue;
                }
                break;
            };
            let part = piece.len().min(len - bytes.len());
            bytes.extend_from_slice(&piece[..part]);
            piece.advance(part);
            if piece.is_empty() {
                self.ahead.pop_front();
            }
        }
        Ok(bytes.into())
    }

    /// As iroh-blobs tells an end before any byte from one in the middle.
    async fn take_exact(&mut self, len: usize) -> io::Result<Bytes> {
        let bytes = self.take(len).await?;
        match bytes.len() {
            found if found == len => Ok(bytes),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl iroh_blobs::util::RecvStream for Buffered {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        Ok(self.take(len).await?)
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        self.take_exact(len).await
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        target.copy_from_slice(&self.take_exact(target.len()).await?);
        Ok(())
    }

    fn stop(&mut self, code: VarInt) -> io::Result<()> {
        Ok(self.inner.stop(code)?)
    }

    fn id(&self) -> u64 {
        self.inner.id().index()
    }
}
