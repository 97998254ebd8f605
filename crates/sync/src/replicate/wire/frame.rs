//! Length-prefixed messages on a stream.

use bytes::Bytes;
use larder_store_api::{Error, Kind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{MAX_FRAME_LEN, WRITE};
use crate::replicate::{
    fault::{Fault, Outcome, lies, lost},
    limits::PATIENCE,
};

pub(in crate::replicate) async fn write_frame(
    send: &mut (impl AsyncWrite + Unpin),
    body: &[u8],
) -> Outcome<()> {
    let len = u32::try_from(body.len()).ok();
    let len = len
        .filter(|len| *len as usize <= MAX_FRAME_LEN)
        .ok_or_else(|| {
            // Nothing that is stored is that long.
            let error = Error::new(Kind::Internal, WRITE, "a message of ours is too long");
            Fault::Local(error.with("len", body.len()))
        })?;
    let written = async {
        send.write_all(&len.to_be_bytes()).await?;
        send.write_all(body).await?;
        send.flush().await
    };
    written.await.map_err(lost)
}

/// Reads the next frame; `None` at a clean end.
pub(in crate::replicate) async fn read_frame(
    recv: &mut (impl AsyncRead + Unpin),
) -> Outcome<Option<Bytes>> {
    match begin_frame(recv).await? {
        Some(first) => read_rest(recv, first).await.map(Some),
        None => Ok(None),
    }
}

/// Reads a frame from a peer that may be silent between frames, but not within one.
pub(in crate::replicate) async fn next_frame(
    recv: &mut (impl AsyncRead + Unpin),
) -> Outcome<Option<Bytes>> {
    let Some(first) = begin_frame(recv).await? else {
        return Ok(None);
    };
    let rest = tokio::time::timeout(PATIENCE, read_rest(recv, first)).await;
    rest.map_err(|_| Fault::stalls())?.map(Some)
}

async fn begin_frame(recv: &mut (impl AsyncRead + Unpin)) -> Outcome<Option<u8>> {
    let mut first = [0];
    match recv.read(&mut first).await.map_err(lost)? {
        0 => Ok(None),
        _ => Ok(Some(first[0])),
    }
}

async fn read_rest(recv: &mut (impl AsyncRead + Unpin), first: u8) -> Outcome<Bytes> {
    let mut len = [first, 0, 0, 0];
    recv.read_exact(&mut len[1..]).await.map_err(lost)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME_LEN {
        return Err(lies("the peer's message is too long").with("len", len));
    }
    let mut body = vec![0; len];
    recv.read_exact(&mut body).await.map_err(lost)?;
    Ok(body.into())
}
