//! Takes what a peer answers, and keeps what is verified.

use std::{collections::BTreeMap, sync::Mutex};

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges,
    iter::{BaoChunk, ResponseIterRef},
};
use bytes::Bytes;
use store_api::{GROUP_LEN, Kind, Result};
use store_engine::{Blobs, Encoded, Hash, Import, Leaf, Parent, Pin, Source, Trust};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{
    Link, PATIENCE,
    fault::{Blame, Fault, Misconduct, Outcome, lost},
    lock,
    status::Running,
    wire::{ABSENT, Answer, Get, write_frame},
};
use crate::network::Stream;

/// What an import says.
trait Verified<T> {
    /// An import verifies what it takes before it stores it, and calls just that [`Kind::Invalid`] which does
    /// not verify, or contradicts what is proven: the peer's fault. All else is our store's.
    fn verified(self) -> Outcome<T>;
}

impl<T> Verified<T> for Result<T> {
    fn verified(self) -> Outcome<T> {
        match self {
            Err(error) if error.kind() == Kind::Invalid => {
                Err(Fault::Peer(Misconduct::Lies, error))
            }
            taken => taken.local(),
        }
    }
}

/// How much is read ahead.
const BUFFER: usize = 128 * 1024;
/// 16 KiB, in chunks of 1 KiB.
pub(super) const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
/// The longest file that is believed to exist: far beyond any disk, and far from any overflow.
pub(super) const MAX_FILE_LEN: u64 = 1 << 50;

/// Imports of long files that stay open between their pieces: so what was verified is recorded now
/// and then, and not at the end of each piece, which would wait for the disk.
#[derive(Default)]
pub(super) struct Opened(Mutex<BTreeMap<(Hash, u64), Import>>);

impl Opened {
    /// Of two for the same file, which may be known to have a length that it has not, one is enough.
    fn keep(&self, size: u64, import: Import) {
        lock(&self.0).entry((import.hash(), size)).or_insert(import);
    }

    fn take(&self, hash: Hash, size: u64) {
        drop(lock(&self.0).remove(&(hash, size)));
    }

    /// Makes durable what came of those files that did not come whole.
    pub(super) async fn finish(&self) -> Result<()> {
        let opened = std::mem::take(&mut *lock(&self.0));
        for import in opened.into_values() {
            import.finish().await?;
        }
        Ok(())
    }
}

/// The answer to one request, blob after blob.
pub(super) struct Receiver {
    recv: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
}

/// What came of a blob.
pub(super) enum Received {
    /// All of it. It must be added; the bytes are right.
    Small(Bytes),
    /// It is in the store, as far as it was asked for. This is how long it is.
    Stored { size: u64, _pin: Option<Pin> },
    /// The peer has not got it; what comes next may still be there.
    Absent,
}

impl Receiver {
    /// Asks, to get something or to be shown it.
    pub(super) async fn ask(link: &Link, what: u8, get: &Get) -> Outcome<Self> {
        let Stream { mut send, recv } = link.connection.open().await.link()?;
        send.write_all(&[what]).await.map_err(lost)?;
        write_frame(&mut send, &get.encode().local()?).await?;
        send.shutdown().await.map_err(lost)?;
        let mut recv = BufReader::with_capacity(BUFFER, recv);
        let answer = tokio::time::timeout(PATIENCE, recv.read_u8()).await;
        let answer = answer.map_err(|_| Fault::stalls())?.map_err(lost)?;
        match Answer::decode(answer).peer()? {
            Answer::Here => Ok(Self { recv }),
            Answer::NotHere => Err(Fault::lacks()),
            Answer::Denied => Err(Fault::refuses("the peer refuses to give it")),
        }
    }

    /// How long the next blob is, as the peer says; `None` where the peer has not got it.
    pub(super) async fn size(&mut self) -> Outcome<Option<u64>> {
        let size = self.read(8).await?;
        let size = u64::from_le_bytes(size[..].try_into().expect("eight bytes were read"));
        Ok((size != ABSENT).then_some(size))
    }

    /// So many bytes.
    pub(super) async fn read(&mut self, len: usize) -> Outcome<Bytes> {
        let mut bytes = vec![0; len];
        let read = tokio::time::timeout(PATIENCE, self.recv.read_exact(&mut bytes)).await;
        read.map_err(|_| Fault::stalls())?.map_err(lost)?;
        Ok(bytes.into())
    }

    /// Takes the next blob, of which these chunks were asked for. One that is longer than it may be is
    /// refused before anything of it is taken: the tree may be wrong, and not the peer.
    pub(super) async fn next(
        &mut self,
        blobs: &Blobs,
        hash: Hash,
        ranges: &ChunkRanges,
        longest: u64,
        running: &Running,
        opened: Option<&Opened>,
    ) -> Outcome<Received> {
        let Some(size) = self.size().await? else {
            return Ok(Received::Absent);
        };
        let wrong = |message| {
            let fault = Fault::lies(message);
            fault.with("hash", hash).with("size", size)
        };
        if size > longest {
            return Err(Fault::refuses("the blob is longer than it may be")
                .with("hash", hash)
                .with("size", size)
                .with("most", longest));
        }
        if (size == 0) != (hash == Hash::EMPTY) {
            return Err(wrong("the peer says that the blob has another size"));
        }
        if size == 0 {
            return Ok(Received::Stored { size, _pin: None });
        }
        if size <= GROUP_LEN {
            let len = usize::try_from(size).expect("at most 16 KiB");
            let bytes = self.read(len).await?;
            if Hash::of(&bytes) != hash {
                return Err(wrong("the peer's bytes are not those of the hash"));
            }
            running.count(size);
            return Ok(Received::Small(bytes));
        }
        let pin = blobs.pin(store_engine::Root::raw(hash)).await;
        // Whether the size fits what is proven here is about the peer; the rest is about our disk.
        let most = blobs.payload_store().capabilities().max_part_len;
        if size > most {
            return Err(
                Fault::refuses("the blob is longer than this store takes").with("size", size)
            );
        }
        let mut import = blobs
            .import(hash, size, Trust::Untrusted)
            .await
            .verified()?;
        let tree = BaoTree::new(size, BLOCK);
        let ranges = clip(ranges, size);
        let plan: Vec<_> = ResponseIterRef::new(tree, &ranges).collect();
        let taken = async {
            for chunk in plan {
                match chunk {
                    BaoChunk::Parent { node, .. } => {
                        let pair = self.read(64).await?;
                        let (left, right) = pair.split_at(32);
                        let hash = |half: &[u8]| {
                            let half: [u8; 32] = half.try_into().expect("half of 64 bytes");
                            bao_tree::blake3::Hash::from_bytes(half)
                        };
                        let pair = (hash(left), hash(right));
                        let parent = Parent { node, pair };
                        import.push(Encoded::Parent(parent)).await.verified()?;
                    }
                    BaoChunk::Leaf {
                        start_chunk, size, ..
                    } => {
                        let data = self.read(size).await?;
                        let offset = start_chunk.to_bytes();
                        let len = data.len() as u64;
                        import
                            .push(Encoded::Leaf(Leaf { offset, data }))
                            .await
                            .verified()?;
                        running.count(len);
                    }
                }
            }
            Outcome::Ok(())
        };
        let taken = taken.await;
        match opened {
            Some(opened) if taken.is_ok() && !import.is_verified().await => {
                opened.keep(size, import)
            }
            opened => {
                // What was verified stays, however it ended.
                import.finish().await.local()?;
                if let Some(opened) = opened {
                    opened.take(hash, size);
                }
            }
        }
        taken?;
        Ok(Received::Stored {
            size,
            _pin: Some(pin),
        })
    }
}

/// The ranges as the sender sees them: those beyond the end ask for the last chunk, and those that have
/// the last chunk have no end, so that the last group comes in one piece.
pub(super) fn clip(ranges: &ChunkRanges, size: u64) -> ChunkRanges {
    let tail = ChunkRanges::from(ChunkNum(size.div_ceil(1024) - 1)..);
    match (ranges & &tail).is_empty() {
        true => ranges.clone(),
        false => ranges | &tail,
    }
}

/// Adds a small blob that came whole.
pub(super) async fn add(blobs: &Blobs, bytes: Bytes) -> Result<Pin> {
    blobs.add(Source::Bytes(bytes)).await
}
