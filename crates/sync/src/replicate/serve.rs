//! Answers what a peer asks for. Nothing is served that is not reached from the root of a repo in a
//! group that the peer has proven on this connection.

use std::sync::Arc;

use futures_util::TryStreamExt;
use store_api::{Error, Kind, Result};
use store_engine::{ChunkRanges, Encoded, Hash};
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};

use super::{
    Link, PATIENCE, Shared,
    fetch::has,
    lock, silent,
    wire::{ABSENT, Answer, Get, SHOW, lost, read_frame},
};
use crate::{
    groups::Group,
    network::Stream,
    tree::walk::{Part, children},
};

/// How much of an answer is gathered before it is written.
const BUFFER: usize = 128 * 1024;

/// Blobs that a peer may have, with what it wants of each.
type Wanted = Vec<(Hash, ChunkRanges)>;

impl Shared {
    /// Gives what is asked for; or shows it, to somebody who then lets its own copy go.
    pub(super) async fn answer_get(
        &self,
        link: &Arc<Link>,
        what: u8,
        mut stream: Stream,
    ) -> Result<()> {
        let frame = tokio::time::timeout(PATIENCE, read_frame(&mut stream.recv)).await;
        let frame = frame.map_err(|_| silent())??;
        let get = Get::decode(&frame.ok_or_else(silent)?)?;
        let mut send = BufWriter::with_capacity(BUFFER, stream.send);
        let (answer, wanted) = match self.find(link, &get).await {
            Ok(wanted) => (Answer::Here, wanted),
            Err(error) if error.kind() == Kind::NotFound => (Answer::NotHere, Wanted::new()),
            Err(error) if error.kind() == Kind::Denied => (Answer::Denied, Wanted::new()),
            Err(error) => return Err(error),
        };
        send.write_all(&[answer.encode()]).await.map_err(lost)?;
        let peer = link.connection.peer();
        for (hash, ranges) in wanted {
            if what == SHOW && !self.promise(hash, peer).await? {
                send.write_all(&ABSENT.to_le_bytes()).await.map_err(lost)?;
                continue;
            }
            self.send_blob(&mut send, hash, ranges).await?;
        }
        send.shutdown().await.map_err(lost)
    }

    /// What is asked for, once it is clear that the peer may have it.
    async fn find(&self, link: &Link, get: &Get) -> Result<Wanted> {
        let refuse = |kind, message: &'static str| Error::new(kind, "sync.peer.get", message);
        let group = {
            let sessions = lock(&self.sessions);
            let is_proven = |group: &&Group| group.id() == get.group;
            let groups = sessions
                .values()
                .filter(|session| session.link.id == link.id);
            groups
                .map(|session| &session.group)
                .find(is_proven)
                .cloned()
        };
        let group = group.ok_or_else(|| refuse(Kind::Denied, "the group was not proven"))?;
        let repo = group.repo(get.repo).await?;
        let repo = repo.ok_or_else(|| refuse(Kind::Denied, "the group has no such repo"))?;
        let top = get.chain[0];
        let mut roots = Vec::new();
        if let Some(other) = repo.other().await? {
            roots.push((other.root.root.hash, other.root.root.level));
        }
        if let Some(known) = repo.readable_root().await? {
            roots.push((known.root.hash, known.root.level));
            roots.extend(known.earlier.iter().map(|root| (root.hash, root.level)));
        }
        let held = self.groups.0.held(repo.id()).await?;
        roots.push((held.hash, held.level));
        let found = roots.iter().find(|(hash, _)| *hash == top);
        let &(_, mut level) =
            found.ok_or_else(|| refuse(Kind::NotFound, "the root is not known here"))?;
        let blobs = group.blobs();
        for pair in get.chain.windows(2) {
            let named = children(blobs, pair[0], level).await?;
            let below = level.checked_sub(1);
            let below = below.ok_or_else(|| refuse(Kind::Denied, "files have no pages"))?;
            let is_next = |hash: Hash| hash == pair[1];
            let part = Part::Sequence { level: below };
            if !named.iter().any(|n| n.part == part && is_next(n.hash)) {
                return Err(refuse(Kind::Denied, "the page does not name the next"));
            }
            level = below;
        }
        let page = get.chain[get.chain.len() - 1];
        let named = children(blobs, page, level).await?;
        let mut wanted = Wanted::with_capacity(get.ranges.len());
        for (offset, ranges) in &get.ranges {
            let hash = match offset.checked_sub(1) {
                None => page,
                Some(child) => {
                    let child = usize::try_from(child).ok().and_then(|n| named.get(n));
                    let named = child
                        .ok_or_else(|| refuse(Kind::Denied, "the page does not name so many"))?;
                    named.hash
                }
            };
            wanted.push((hash, ranges.clone()));
        }
        Ok(wanted)
    }

    /// As iroh-blobs does: the size, and then what proves each group, and the group.
    async fn send_blob(
        &self,
        send: &mut (impl AsyncWrite + Unpin),
        hash: Hash,
        ranges: ChunkRanges,
    ) -> Result<()> {
        let blobs = &self.groups.0.blobs;
        if hash == Hash::EMPTY {
            return send.write_all(&0_u64.to_le_bytes()).await.map_err(lost);
        }
        if !has(blobs, hash, &ranges).await? {
            return send.write_all(&ABSENT.to_le_bytes()).await.map_err(lost);
        }
        let mut items = blobs.export(hash, ranges);
        while let Some(item) = items.try_next().await? {
            let written = match item {
                Encoded::Size(size) => send.write_all(&size.to_le_bytes()).await,
                Encoded::Parent(parent) => {
                    let (left, right) = &parent.pair;
                    let pair = [&left.as_bytes()[..], &right.as_bytes()[..]].concat();
                    send.write_all(&pair).await
                }
                Encoded::Leaf(leaf) => {
                    self.requests.count_sent(leaf.data.len() as u64);
                    send.write_all(&leaf.data).await
                }
            };
            written.map_err(lost)?;
        }
        Ok(())
    }
}
