//! Answers requests of peers. Serves only what is reachable from the root of a repo in a group that the
//! peer has proven on this connection.

use std::{io, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{Error, Kind, Listing, PublicKey, Result};
use larder_store_engine::{
    ChunkRanges, Encoded, Hash,
    metrics::{Counter, Sum},
};
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};

use super::{
    Link, PATIENCE, Shared,
    fault::{Blame, Fault, Outcome, lies, lost},
    fetch::has,
    wire::{ABSENT, Answer, Get, SHOW, read_frame},
};
use crate::{
    groups::{Repo, local_trees::Place},
    network::Stream,
    tree::{
        MALFORMED,
        walk::{Part, children},
    },
};

/// The time to wait for a peer to take the next item of an answer: longer than the peer itself waits,
/// and longer than it may need to make its data durable.
const TAKES: Duration = Duration::from_secs(60);
/// The number of bytes of an answer that are buffered before they are written.
const BUFFER: usize = 128 * 1024;

/// A part of a blob that the peer is allowed to read.
struct Wanted {
    place: Place,
    hash: Hash,
    ranges: ChunkRanges,
}

/// The reason why nothing is sent.
enum Refusal {
    /// The content is missing, or cannot be read here.
    NotHere,
    /// The peer has no right to the content.
    Denied(&'static str),
    /// Our own store failed.
    Local(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::NotFound => Self::NotHere,
            // Its author wrote a malformed tree: no store of ours failed.
            _ if error.operation() == MALFORMED => Self::NotHere,
            _ => Self::Local(error),
        }
    }
}

/// Writes part of an answer. A peer that reads nothing for a long time is not to blame: its own store
/// may be slow.
async fn in_time(writing: impl Future<Output = io::Result<()>>) -> Outcome<()> {
    let written = tokio::time::timeout(TAKES, writing).await;
    written
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(lost)
}

impl Shared {
    /// Sends what is asked for; or shows it, to a peer that then deletes its own copy.
    pub(super) async fn answer_get(
        &self,
        link: &Arc<Link>,
        what: u8,
        mut stream: Stream,
    ) -> Outcome<()> {
        let frame = tokio::time::timeout(PATIENCE, read_frame(&mut stream.recv)).await;
        let frame = frame.map_err(|_| Fault::stalls())??;
        let frame = frame.ok_or_else(|| lies("the peer's request is missing"))?;
        let get = Get::decode(&frame).peer()?;
        let mut send = BufWriter::with_capacity(BUFFER, stream.send);
        let peer = link.connection.peer();
        let (answer, repo, wanted) = match self.find(link, &get).await {
            Ok((repo, wanted)) => (Answer::Here, Some(repo), wanted),
            Err(Refusal::NotHere) => (Answer::NotHere, None, Vec::new()),
            Err(Refusal::Denied(why)) => {
                tracing::debug!(%peer, why, "a request is refused");
                (Answer::Denied, None, Vec::new())
            }
            // This does not end the connection: other requests of the peer can still be answered.
            Err(Refusal::Local(error)) => {
                self.troubles.note(Some(get.group), "serve", &error);
                (Answer::NotHere, None, Vec::new())
            }
        };
        in_time(send.write_all(&[answer.encode()])).await?;
        if let Some(repo) = repo {
            for wanted in wanted {
                self.send_blob(&mut send, &repo, wanted, (what == SHOW).then_some(peer))
                    .await?;
            }
        }
        in_time(send.shutdown()).await
    }

    /// Finds the requested blobs, and refuses a peer that has no right to them.
    async fn find(&self, link: &Link, get: &Get) -> Result<(Repo, Vec<Wanted>), Refusal> {
        let group = self.sessions.proven(link, get.group);
        let group = group.ok_or(Refusal::Denied("the group was not proven"))?;
        let repo = group.repo(get.repo).await?;
        let repo = repo.ok_or(Refusal::Denied("the group has no such repo"))?;
        let top = get.chain[0];
        let mut roots = Vec::new();
        if let Some(other) = repo.other().await? {
            roots.push((other.root.root.hash, other.root.root.level));
        }
        if let Some(known) = repo.readable_root().await? {
            roots.push((known.root.hash, known.root.level));
            roots.extend(known.earlier.iter().map(|root| (root.hash, root.level)));
        }
        let local = self.groups.0.local(repo.id()).await?;
        roots.extend(local.roots().map(|root| (root.hash, root.level)));
        let found = roots.iter().find(|(hash, _)| *hash == top);
        let &(_, mut level) = found.ok_or(Refusal::NotHere)?;
        let blobs = group.blobs();
        for pair in get.chain.windows(2) {
            let named = children(blobs, pair[0], level).await?;
            let below = level.checked_sub(1);
            let below = below.ok_or(Refusal::Denied("files have no pages"))?;
            let is_next = |hash: Hash| hash == pair[1];
            let part = Part::Sequence { level: below };
            if !named.iter().any(|n| n.part == part && is_next(n.hash)) {
                return Err(Refusal::Denied("the page does not name the next"));
            }
            level = below;
        }
        let page = get.chain[get.chain.len() - 1];
        let named = children(blobs, page, level).await?;
        let mut wanted = Vec::with_capacity(get.ranges.len());
        for (offset, ranges) in &get.ranges {
            let hash = match offset.checked_sub(1) {
                None => page,
                Some(child) => {
                    let child = usize::try_from(child).ok().and_then(|n| named.get(n));
                    child
                        .ok_or(Refusal::Denied("the page does not name so many"))?
                        .hash
                }
            };
            let place = Place {
                chain: get.chain.clone(),
                // The page itself consists of two blobs.
                offset: match level {
                    0 if *offset > 1 => (*offset).try_into().expect("a page has few files"),
                    _ => Place::PAGE,
                },
            };
            wanted.push(Wanted {
                place,
                hash,
                ranges: ranges.clone(),
            });
        }
        Ok((repo, wanted))
    }

    /// Sends a blob as iroh-blobs does: the size, then for each chunk group its proof and its bytes. A
    /// group that cannot be read here is sent as if it were absent.
    async fn send_blob(
        &self,
        send: &mut (impl AsyncWrite + Unpin),
        repo: &Repo,
        wanted: Wanted,
        show_to: Option<PublicKey>,
    ) -> Outcome<()> {
        let hash = wanted.hash;
        let mut sent = Sum::new(Counter::BytesSent);
        match self.begin_blob(&wanted, show_to).await {
            Ok(Some((first, rest))) => {
                for item in first {
                    self.send_item(send, item, &mut sent).await?;
                }
                let mut rest = rest;
                while let Some(item) = rest.next().await {
                    // The peer sees that the answer ends within this blob.
                    let item = item.inspect_err(|error| self.cannot_read(repo, &wanted, error));
                    let item = item.local()?;
                    self.send_item(send, item, &mut sent).await?;
                }
                self.troubles.clear(Some(repo.group().id()), "serve");
                if self.groups.0.damaged.forget(hash) {
                    self.tell_held(repo);
                }
                return Ok(());
            }
            Ok(None) => {}
            Err(error) => self.cannot_read(repo, &wanted, &error),
        }
        in_time(send.write_all(&ABSENT.to_le_bytes())).await
    }

    /// Returns the beginning of what is to be sent of a blob, and the rest; `None` if the blob is
    /// missing.
    async fn begin_blob(
        &self,
        wanted: &Wanted,
        show_to: Option<PublicKey>,
    ) -> Result<Option<(Vec<Encoded>, Listing<Encoded>)>> {
        let blobs = &self.groups.0.blobs;
        if let Some(peer) = show_to
            && !self.leases.promise(wanted.hash, peer).await?
        {
            return Ok(None);
        }
        if wanted.hash == Hash::EMPTY {
            let rest = Box::pin(futures_util::stream::empty());
            return Ok(Some((vec![Encoded::Size(0)], rest)));
        }
        if !has(blobs, wanted.hash, &wanted.ranges).await? {
            return Ok(None);
        }
        let mut items = blobs.export(wanted.hash, wanted.ranges.clone());
        let mut first = Vec::with_capacity(2);
        // The size alone does not show that any of it can be read.
        while first.len() < 2
            && let Some(item) = items.try_next().await?
        {
            first.push(item);
        }
        Ok(Some((first, items)))
    }

    async fn send_item(
        &self,
        send: &mut (impl AsyncWrite + Unpin),
        item: Encoded,
        sent: &mut Sum,
    ) -> Outcome<()> {
        let written = async {
            match item {
                Encoded::Size(size) => send.write_all(&size.to_le_bytes()).await,
                Encoded::Parent(parent) => {
                    let (left, right) = &parent.pair;
                    let pair = [&left.as_bytes()[..], &right.as_bytes()[..]].concat();
                    send.write_all(&pair).await
                }
                Encoded::Leaf(leaf) => {
                    sent.add(leaf.data.len() as u64);
                    self.requests.count_sent(leaf.data.len() as u64);
                    send.write_all(&leaf.data).await
                }
            }
        };
        in_time(written).await
    }

    /// Records that content which is here cannot be read.
    fn cannot_read(&self, repo: &Repo, wanted: &Wanted, error: &Error) {
        let hash = wanted.hash;
        if error.kind() != Kind::Corrupt {
            self.troubles.note(Some(repo.group().id()), "serve", error);
            return;
        }
        let damaged = &self.groups.0.damaged;
        if damaged.note((repo.group().id(), repo.key()), wanted.place.clone(), hash) {
            tracing::warn!(repo = %repo.key(), %hash, %error, "a blob is damaged");
            self.tell_held(repo);
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_store_engine::Blobs;
    use larder_store_testkit::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn what_somebody_else_wrote_wrongly_is_no_failure_of_our_store() {
        let store = Arc::new(MemoryStore::new());
        let blobs = Blobs::open(store.clone(), store).await.expect("blobs");
        let garbage = blobs.add("this is no sequence").await.expect("a blob");
        let error = children(&blobs, garbage.hash(), 0)
            .await
            .expect_err("no page");
        assert!(matches!(Refusal::from(error), Refusal::NotHere));
        let broken = Error::new(Kind::Corrupt, "blobs.read", "the disk is broken");
        assert!(matches!(Refusal::from(broken), Refusal::Local(_)));
    }
}
