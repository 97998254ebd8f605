//! Asks a peer what it has of a blob, for one that does not have all.

use bao_tree::{ChunkNum, ChunkRanges};
use iroh::endpoint::Connection;
use iroh_blobs::protocol::{ObserveRequest, Request};
use larder_store_engine::Hash;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::convert::to_iroh_hash;

/// The longest answer that is read.
const MAX_ANSWER_LEN: usize = 64 * 1024;

/// The chunks that the peer says it has; none where it does not say, or not so that it can be read.
pub(super) async fn observe(connection: &Connection, hash: Hash) -> ChunkRanges {
    let said = ask(connection, hash).await;
    said.unwrap_or_else(ChunkRanges::empty)
}

async fn ask(connection: &Connection, hash: Hash) -> Option<ChunkRanges> {
    let request = Request::Observe(ObserveRequest::new(to_iroh_hash(hash)));
    let request = postcard::to_stdvec(&request).ok()?;
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    send.write_all(&request).await.ok()?;
    send.finish().ok()?;
    let answer = first_item(&mut recv).await?;
    // A peer goes on telling until it is told to stop.
    recv.stop(0_u32.into()).ok();
    parse(&answer)
}

/// The first item of the answer: its length as a varint, then so many bytes.
pub(super) async fn first_item(recv: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut len = 0_usize;
    for shift in (0..).step_by(7) {
        let mut byte = [0];
        recv.read_exact(&mut byte).await.ok()?;
        len |= usize::from(byte[0] & 0x7f) << shift;
        if len > MAX_ANSWER_LEN || shift > 21 {
            return None;
        }
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut item = vec![0; len];
    recv.read_exact(&mut item).await.ok()?;
    Some(item)
}

/// A size, which is not needed, and the boundaries of ranges.
pub(super) fn parse(item: &[u8]) -> Option<ChunkRanges> {
    let (_size, boundaries): (u64, Vec<u64>) = postcard::from_bytes(item).ok()?;
    ChunkRanges::new(boundaries.into_iter().map(ChunkNum).collect())
}

#[cfg(test)]
mod tests {
    use iroh_blobs::protocol::ObserveItem;

    use super::*;

    #[test]
    fn reads_what_iroh_blobs_writes() {
        let ranges =
            ChunkRanges::from(ChunkNum(3)..ChunkNum(70)) | ChunkRanges::from(ChunkNum(1000)..);
        let item = ObserveItem {
            size: 77,
            ranges: ranges.clone(),
        };
        let bytes = postcard::to_stdvec(&item).expect("an item has bytes");
        assert_eq!(parse(&bytes), Some(ranges));
    }

    #[test]
    fn refuses_what_is_no_answer() {
        assert_eq!(parse(&[]), None);
        // Boundaries that do not ascend, and more of them than there are bytes.
        let descending = postcard::to_stdvec(&(1_u64, vec![5_u64, 4])).expect("numbers");
        assert_eq!(parse(&descending), None);
        assert_eq!(parse(&[1, 255, 255, 255, 255, 15, 1]), None);
    }
}
