//! The operations of a group in a session: they go before all else, and who is not a member hears nothing else.

use std::collections::HashSet;

use larder_store_api::Result;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Session, ToSay, Trust};
use crate::{
    groups::members::PART_LEN,
    membership::{MAX_LIST_LEN, Op, OpId},
    replicate::{
        PATIENCE, Shared,
        fault::{Blame, Outcome, lost, refuses},
        lock,
        wire::{MAX_OPS_LEN, Message, write_frame},
    },
};

/// The most lists of boxes that come at a time.
const MAX_COMING: usize = 8;

/// The most operations that are remembered as those of a peer; others are told to it again.
const MAX_FROM_PEER: usize = 4096;

impl Shared {
    /// Sends the operations that the peer lacks, the boxes that it wants, and asks for those that are missing here.
    pub(super) async fn say_operations(
        &self,
        session: &Session,
        to_say: &mut ToSay,
        send: &mut (impl AsyncWrite + Unpin),
    ) -> Outcome<()> {
        let group = &session.group;
        match session.trust() {
            Trust::Member | Trust::Related | Trust::Guest => {}
            Trust::Stranger => return Err(refuses("the peer is not a member of the group")),
            Trust::Gone => {
                let by = group.removed_by(session.device());
                let (since, place) = (to_say.since.take(), lock(&session.told).ops);
                if since.is_none() && place.is_none() {
                    // It says first what it has.
                    return Ok(());
                }
                let ops = group.with_log(|log| {
                    let lacks: HashSet<OpId> = match (since, place) {
                        (Some(since), _) => log.since(&since).iter().map(|op| op.id()).collect(),
                        (None, place) => {
                            let later = log.from_place(place.unwrap_or_default());
                            later.map(|op| op.id()).collect()
                        }
                    };
                    let told = log.up_to(by).into_iter();
                    encoded(told.filter(|op| lacks.contains(&op.id())))
                });
                send_ops(ops.unwrap_or_default(), send).await?;
                send.shutdown().await.map_err(lost)?;
                // It ends the session once it has heard that.
                tokio::time::sleep(PATIENCE).await;
                return Err(refuses("the peer was removed from the group"));
            }
        }
        if std::mem::take(&mut to_say.known) {
            let ids = group.with_log(|log| log.known()).unwrap_or_default();
            write_frame(send, &Message::Known { ids }.encode().local()?).await?;
        }
        let ops = group.with_log(|log| {
            let mut told = lock(&session.told);
            let ops = match (to_say.since.take(), told.ops) {
                (Some(since), _) => encoded(log.since(&since)),
                (None, Some(place)) => {
                    let later = log.from_place(place);
                    encoded(later.filter(|op| !told.from_peer.contains(&op.id())))
                }
                (None, None) => return Vec::new(),
            };
            told.ops = Some(log.len());
            told.from_peer.clear();
            ops
        });
        if ops.is_none() && to_say.since.is_some() {
            // Nothing is here yet that it could lack.
            lock(&session.to_say).since = to_say.since.take();
        }
        send_ops(ops.unwrap_or_default(), send).await?;
        for epoch in std::mem::take(&mut to_say.boxes) {
            let Some(list) = group.boxes(epoch) else {
                continue;
            };
            for (part, bytes) in (0..).zip(list.chunks(PART_LEN)) {
                let bytes = bytes::Bytes::copy_from_slice(bytes);
                let boxes = Message::Boxes { epoch, part, bytes };
                write_frame(send, &boxes.encode().local()?).await?;
            }
        }
        for (epoch, is_closed) in group.lacks_boxes() {
            if lock(&session.told).asked.insert((epoch, is_closed)) {
                let want = Message::Want { epoch, is_closed };
                write_frame(send, &want.encode().local()?).await?;
            }
        }
        Ok(())
    }

    /// Takes in operations of a peer, as far as it may say any.
    pub(super) async fn hear_operations(
        &self,
        session: &Session,
        ops: &[bytes::Bytes],
    ) -> Outcome<()> {
        let group = &session.group;
        let mut read = Vec::with_capacity(ops.len().min(1024));
        for bytes in ops {
            let op = Op::decode_trusted(bytes).peer()?;
            let is_known = group.with_log(|log| log.get(op.id()).is_some());
            let mut told = lock(&session.told);
            if told.from_peer.len() < MAX_FROM_PEER {
                told.from_peer.insert(op.id());
            }
            drop(told);
            if is_known != Some(true) && session.may_say() {
                op.verify().peer()?;
                read.push(op);
            }
        }
        if !read.is_empty() {
            group.take_ops(read).await.local()?;
        }
        session.let_in().await.local()
    }

    /// Takes in a part of the boxes of an epoch.
    pub(super) async fn hear_boxes(
        &self,
        session: &Session,
        epoch: OpId,
        part: u16,
        bytes: &[u8],
    ) -> Outcome<()> {
        let Some(len) = session.group.boxes_len(epoch) else {
            return Ok(());
        };
        let list = {
            let mut told = lock(&session.told);
            if !told.coming.contains_key(&epoch) && told.coming.len() >= MAX_COMING {
                told.coming.clear();
            }
            let list = told.coming.entry(epoch).or_default();
            if part == 0 {
                list.clear();
            }
            if list.len() != usize::from(part) * PART_LEN
                || list.len() + bytes.len() > len.min(MAX_LIST_LEN)
            {
                return Ok(());
            }
            list.extend_from_slice(bytes);
            if list.len() < len {
                return Ok(());
            }
            told.coming.remove(&epoch).unwrap_or_default()
        };
        session.group.take_boxes(epoch, list).await.local()
    }
}

impl Session {
    /// Lets the peer in, if it used an invite and waits.
    async fn let_in(&self) -> Result<()> {
        self.group.admit(self.device()).await
    }

    /// Notes which operations the peer has.
    pub(super) fn peer_knows(&self, ids: Vec<OpId>) {
        lock(&self.to_say).since = Some(ids);
        self.wake.notify_one();
    }

    /// Gives the peer the boxes that it wants of an epoch.
    pub(super) async fn wants_boxes(&self, epoch: OpId, is_closed: bool) -> Result<()> {
        lock(&self.to_say).boxes.insert(epoch);
        self.wake.notify_one();
        match is_closed && self.trust() == Trust::Member {
            true => self.group.give_epochs(self.device(), epoch).await,
            false => Ok(()),
        }
    }

    /// Returns true if the peer may say operations. Whoever has an invite that is open is about to be a member.
    fn may_say(&self) -> bool {
        !matches!(self.trust(), Trust::Gone | Trust::Stranger)
    }
}

fn encoded<'a>(ops: impl IntoIterator<Item = &'a Op>) -> Vec<bytes::Bytes> {
    let ops = ops.into_iter();
    ops.map(|op| bytes::Bytes::from(op.encode())).collect()
}

/// Sends operations, many in a message.
async fn send_ops(ops: Vec<bytes::Bytes>, send: &mut (impl AsyncWrite + Unpin)) -> Outcome<()> {
    let (mut batch, mut len) = (Vec::new(), 0);
    for op in ops {
        if len + op.len() + 2 > MAX_OPS_LEN {
            let ops = Message::Ops {
                ops: std::mem::take(&mut batch),
            };
            write_frame(send, &ops.encode().local()?).await?;
            len = 0;
        }
        len += op.len() + 2;
        batch.push(op);
    }
    if !batch.is_empty() {
        let ops = Message::Ops { ops: batch };
        write_frame(send, &ops.encode().local()?).await?;
    }
    Ok(())
}
