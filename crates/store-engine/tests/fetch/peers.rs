//! Peers within this process: other engines, honest or not.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::TryStreamExt;
use larder_store_engine::{
    Blobs, ChunkRanges, Encoded, Hash,
    fetch::{Answer, Fault, Provider, Wanted},
};
use tokio::io::{AsyncRead, ReadBuf};

/// The size that marks a blob as absent.
pub const ABSENT: u64 = u64::MAX;

/// The defect of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// No defect.
    No,
    /// It flips a bit of this byte of each answer.
    Flips(usize),
    /// It sends this many bytes of each answer, and then nothing more.
    Stalls(usize),
    /// Its connection is lost after this many bytes of each answer.
    Breaks(usize),
    /// It ends each answer at the first missing data without naming it, as iroh-blobs does.
    Ends,
    /// It refuses every request.
    Refuses,
    /// It claims that each blob has this length.
    Claims(u64),
}

/// A peer with the blobs of an engine.
#[derive(Debug)]
pub struct Peer {
    /// Different for each peer.
    pub id: u64,
    pub blobs: Blobs,
    pub wrong: Wrong,
    /// The number of requests that were received.
    pub asked: AtomicU64,
    /// The blobs of each request.
    pub requests: Mutex<Vec<Vec<Wanted>>>,
    /// The number of verified bytes that came from the peer.
    pub verified: Arc<AtomicU64>,
}

impl Peer {
    pub fn new(blobs: &Blobs, wrong: Wrong) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(100);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            blobs: blobs.clone(),
            wrong,
            asked: AtomicU64::new(0),
            requests: Mutex::default(),
            verified: Arc::default(),
        })
    }

    pub fn good(blobs: &Blobs) -> Arc<Self> {
        Self::new(blobs, Wrong::No)
    }

    pub fn verified(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    /// Returns the hash of a requested blob; in a sequence, the one that the sequence names.
    async fn hash(&self, wanted: &[Wanted], at: usize) -> Hash {
        match wanted[at].hash {
            Some(hash) => hash,
            None => {
                let sequence = wanted[0].hash.expect("the first is the sequence");
                let start = (wanted[at].offset - 1) * 32;
                let read = self.blobs.read_to_bytes(sequence, start..start + 32);
                let bytes = <[u8; 32]>::try_from(&read.await.unwrap()[..]);
                bytes.map_or(Hash::of("nothing is named there"), Hash::from)
            }
        }
    }
}

/// Appends the bytes of one blob; returns `None` if some of the requested data is missing.
pub async fn encode(
    blobs: &Blobs,
    hash: Hash,
    ranges: ChunkRanges,
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut items = blobs.export(hash, ranges);
    while let Some(item) = items.try_next().await.ok()? {
        match item {
            Encoded::Size(size) => out.extend(size.to_le_bytes()),
            Encoded::Parent(parent) => {
                out.extend(parent.pair.0.as_bytes());
                out.extend(parent.pair.1.as_bytes());
            }
            Encoded::Leaf(leaf) => out.extend(leaf.data),
        }
    }
    Some(())
}

impl Provider for Peer {
    type Of = &'static str;
    type Answer = Body;

    async fn ask(&self, of: &&'static str, wanted: &[Wanted]) -> Result<Body, Fault> {
        assert_eq!(*of, "root");
        assert!(wanted.is_sorted_by(|a, b| a.offset < b.offset));
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.requests.lock().unwrap().push(wanted.to_vec());
        if self.wrong == Wrong::Refuses {
            return Err(Fault::refuses());
        }
        let mut bytes = Vec::new();
        let mut end = End::Ends;
        for (i, one) in wanted.iter().enumerate() {
            let hash = self.hash(wanted, i).await;
            let start = bytes.len();
            let whole = encode(&self.blobs, hash, one.ranges.clone(), &mut bytes).await;
            if let Wrong::Claims(size) = self.wrong {
                bytes[start..start + 8].copy_from_slice(&size.to_le_bytes());
            }
            if whole.is_none() {
                if self.wrong == Wrong::Ends {
                    break;
                }
                bytes.truncate(start);
                bytes.extend(ABSENT.to_le_bytes());
            }
        }
        match self.wrong {
            Wrong::Flips(at) if at < bytes.len() => bytes[at] ^= 4,
            Wrong::Stalls(at) if at < bytes.len() => {
                bytes.truncate(at);
                end = End::Hangs;
            }
            Wrong::Breaks(at) if at < bytes.len() => {
                bytes.truncate(at);
                end = End::Breaks;
            }
            _ => {}
        }
        Ok(Body {
            bytes: io::Cursor::new(bytes),
            end,
            verified: self.verified.clone(),
        })
    }

    async fn has(&self, _of: &&'static str, wanted: &[Wanted]) -> Result<Vec<Wanted>, Fault> {
        let mut has = Vec::new();
        for one in wanted {
            let here = self.blobs.bitfield(one.hash.unwrap()).await.unwrap();
            let ranges = &here.ranges & &one.ranges;
            if !ranges.is_empty() {
                has.push(one.with_ranges(ranges));
            }
        }
        Ok(has)
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    Ends,
    Hangs,
    Breaks,
}

/// An answer, with one of several endings.
pub struct Body {
    bytes: io::Cursor<Vec<u8>>,
    end: End,
    verified: Arc<AtomicU64>,
}

impl Body {
    pub fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes: io::Cursor::new(bytes),
            end: End::Ends,
            verified: Arc::default(),
        }
    }
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.position() == self.bytes.get_ref().len() as u64 {
            match self.end {
                End::Ends => {}
                End::Hangs => return Poll::Pending,
                End::Breaks => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        Pin::new(&mut self.bytes).poll_read(cx, buf)
    }
}

impl Answer for Body {
    fn is_absent(size: u64) -> bool {
        size == ABSENT
    }

    fn fault(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::lacks(),
            _ => Fault::lost().because(error),
        }
    }

    fn verified(&mut self, bytes: u64) {
        self.verified.fetch_add(bytes, Ordering::Relaxed);
    }
}
