//! Messages on a stream, each behind its length.

use bytes::Bytes;
use store_api::{Error, Kind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{MAX_FRAME_LEN, READ, WRITE};
use crate::replicate::limits::PATIENCE;

const STALLED: &str = "the peer says nothing";

/// Returns the error for a peer that did not go on in time.
pub(in crate::replicate) fn silent() -> Error {
    Error::new(Kind::Unavailable, READ, STALLED)
}

/// Whether a peer did not go on in time.
pub(in crate::replicate) fn is_stall(error: &Error) -> bool {
    error.kind() == Kind::Unavailable && error.message() == STALLED
}

const LOST: &str = "the peer is gone";

pub(in crate::replicate) fn lost(error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, READ, LOST).because(error)
}

/// Whether a stream ended early.
pub(in crate::replicate) fn is_lost(error: &Error) -> bool {
    error.kind() == Kind::Unavailable && error.message() == LOST
}

pub(in crate::replicate) async fn write_frame(
    send: &mut (impl AsyncWrite + Unpin),
    body: &[u8],
) -> Result<()> {
    let len = u32::try_from(body.len()).ok();
    let len = len
        .filter(|len| *len as usize <= MAX_FRAME_LEN)
        .ok_or_else(|| {
            Error::new(Kind::TooLarge, WRITE, "a message is too long").with("len", body.len())
        })?;
    let written = async {
        send.write_all(&len.to_be_bytes()).await?;
        send.write_all(body).await?;
        send.flush().await
    };
    written.await.map_err(lost)
}

/// The next frame; `None` at a clean end.
pub(in crate::replicate) async fn read_frame(
    recv: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Bytes>> {
    match begin_frame(recv).await? {
        Some(first) => read_rest(recv, first).await.map(Some),
        None => Ok(None),
    }
}

/// The same, from a peer that may be silent between frames, and not within one.
pub(in crate::replicate) async fn next_frame(
    recv: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Bytes>> {
    let Some(first) = begin_frame(recv).await? else {
        return Ok(None);
    };
    let rest = tokio::time::timeout(PATIENCE, read_rest(recv, first)).await;
    rest.map_err(|_| silent())?.map(Some)
}

async fn begin_frame(recv: &mut (impl AsyncRead + Unpin)) -> Result<Option<u8>> {
    let mut first = [0];
    match recv.read(&mut first).await.map_err(lost)? {
        0 => Ok(None),
        _ => Ok(Some(first[0])),
    }
}

async fn read_rest(recv: &mut (impl AsyncRead + Unpin), first: u8) -> Result<Bytes> {
    let mut len = [first, 0, 0, 0];
    recv.read_exact(&mut len[1..]).await.map_err(lost)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME_LEN {
        let message = "the peer's message is too long";
        return Err(Error::new(Kind::Invalid, READ, message).with("len", len));
    }
    let mut body = vec![0; len];
    recv.read_exact(&mut body).await.map_err(lost)?;
    Ok(body.into())
}
