//! Proofs of possession: a peer that can provide a blob shows a random part of it, and keeps the blob
//! for a while ([`leases`](super::leases)).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use larder_store_api::{PublicKey, Result};
use larder_store_engine::{ChunkNum, ChunkRanges, Hash, random};

use super::{
    Shared,
    fault::{Blame, Outcome, lies},
    receive::{Body, MAX_FILE_LEN, Receiver},
    session::Session,
    wire::{GET, Get, SHOW},
};
use crate::groups::Repo;

/// The most blobs that one request asks for.
pub(super) const MAX_ASKED: usize = 64;

/// The time within which a member must show the blobs; blobs shown by then count.
const SHOW_FOR: Duration = Duration::from_secs(120);

/// A blob that a page names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// The place in the page's sequence.
    pub(super) offset: u64,
    pub(super) hash: Hash,
    /// The length of the blob.
    pub(super) len: u64,
}

impl Shared {
    /// Returns the connected members that have these blobs of a page, for each blob: those that show
    /// its end, which proves its length, and another part that nobody can foresee. An honest peer shows
    /// only blobs that it has whole.
    pub(super) async fn holders_of(
        &self,
        repo: &Repo,
        chain: &[Hash],
        asked: &[Asked],
    ) -> Vec<BTreeSet<PublicKey>> {
        let mut holders = vec![BTreeSet::new(); asked.len()];
        let mut sessions = self.sessions.of(repo.group().id());
        sessions.retain(|session| session.link.connection.peer() != self.network.key());
        let shown = sessions.iter().map(|session| async move {
            let mut shown = vec![false; asked.len()];
            let ended = show(session, repo, chain, asked, SHOW, &mut shown);
            let ended = tokio::time::timeout(SHOW_FOR, ended)
                .await
                .unwrap_or(Ok(()));
            (session, shown, ended)
        });
        for (session, shown, ended) in futures_util::future::join_all(shown).await {
            if let Err(fault) = ended {
                self.blame(&session.link, &fault);
            }
            for (holders, shown) in holders.iter_mut().zip(shown) {
                if shown {
                    holders.insert(session.link.connection.peer());
                }
            }
        }
        holders
    }
}

/// Returns the length of a blob, which the peer proves with the blob's end; `None` if the peer lacks
/// the blob.
pub(super) async fn length(
    session: &Session,
    repo: &Repo,
    chain: &[Hash],
    (offset, hash): (u64, Hash),
) -> Outcome<Option<u64>> {
    let ranges = end();
    let get = Get {
        group: repo.group().id(),
        repo: repo.key(),
        chain: chain.to_vec(),
        ranges: vec![(offset, ranges.clone())],
    };
    let mut receiver = Body::ask(&session.link, GET, &get, None).await?.receiver();
    check(&mut receiver, hash, None, &ranges).await
}

/// Asks one peer to [show](SHOW) blobs and keep them for a while, or just to [give](GET) them. Whatever
/// the peer has shown before it failed counts.
pub(super) async fn show(
    session: &Arc<Session>,
    repo: &Repo,
    chain: &[Hash],
    asked: &[Asked],
    what: u8,
    shown: &mut [bool],
) -> Outcome<()> {
    for (asked, shown) in asked.chunks(MAX_ASKED).zip(shown.chunks_mut(MAX_ASKED)) {
        let mut ranges = Vec::with_capacity(asked.len());
        for blob in asked {
            ranges.push((blob.offset, some_part(blob.len).local()?));
        }
        let get = Get {
            group: repo.group().id(),
            repo: repo.key(),
            chain: chain.to_vec(),
            ranges: ranges.clone(),
        };
        let mut receiver = Body::ask(&session.link, what, &get, None).await?.receiver();
        for ((blob, shown), (_, ranges)) in asked.iter().zip(shown).zip(&ranges) {
            let found = check(&mut receiver, blob.hash, Some(blob.len), ranges).await?;
            *shown = found.is_some();
        }
    }
    Ok(())
}

fn end() -> ChunkRanges {
    ChunkRanges::from(ChunkNum(MAX_FILE_LEN / 1024)..)
}

/// Returns the range of a blob's end and one random chunk.
fn some_part(len: u64) -> Result<ChunkRanges> {
    let mut any = [0; 8];
    random("sync.holders", &mut any)?;
    let at = u64::from_be_bytes(any) % len.div_ceil(1024).max(1);
    Ok(end() | ChunkRanges::from(ChunkNum(at)..ChunkNum(at + 1)))
}

/// Checks the next blob of the answer, and returns its length if it is the right one; the data itself
/// is discarded.
async fn check(
    receiver: &mut Receiver,
    hash: Hash,
    len: Option<u64>,
    ranges: &ChunkRanges,
) -> Outcome<Option<u64>> {
    let Some(size) = receiver.size(hash).await? else {
        return Ok(None);
    };
    if len.map_or(size > MAX_FILE_LEN, |len| len != size) {
        let fault = lies("the peer says that the blob has another size");
        return Err(fault.with("hash", hash).with("size", size));
    }
    let mut items = receiver.items(hash, size, ranges);
    while items.next().await?.is_some() {}
    Ok(Some(size))
}
