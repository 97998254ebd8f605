//! What peers say to each other, as bytes.
//!
//! ```text
//! stream           what u8 (0 hello, 1 get), then frames
//! frame            length u32, at most 64 KiB | body
//! hello            version u8 = 1 | nonce [32] | tag [32]                     (proof.rs)
//! answer           nonce [32] | tag [32]
//! have             1 u8 | record | count u16 | for each: slot u16, seq u64, digest [8]
//! compared         2 u8                         all that I have was said: tell me what is newer
//! slot             3 u8 | record | slot u16 | signed value (record_format)
//! holds            4 u8 | repo's key [32] | hash of a root [32]
//! digest           the beginning of the value's BLAKE3 hash
//! record           0 u8, the group's; or 1 u8 | repo's key [32]
//! get              group id [32] | repo's key [32] | depth u8 | for each page: hash [32]
//!                  | 0 u8 | iroh-blobs' GetRequest, as postcard
//! answer to get    0 u8, and iroh-blobs' answer without frames; or 1 u8, it is not here; or 2 u8, it is
//!                  not for you
//! ```
//!
//! Integers are big-endian, but in what iroh-blobs defines. Frames of a get's answer do not exist: it
//! ends with the stream.

use bao_tree::{ChunkNum, ChunkRanges};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use store_api::{Error, Kind, PublicKey, RecordId, Result, Signed, Slot};
use store_engine::{Hash, record_format};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{PATIENCE, silent};
use crate::{codec::Fields, tree::MAX_LEVEL};

/// The version of the protocol.
pub const VERSION: u8 = 1;
/// The longest frame.
pub const MAX_FRAME_LEN: usize = 64 * 1024;

pub(super) const HELLO: u8 = 0;
pub(super) const GET: u8 = 1;

/// How a get is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Here,
    NotHere,
    Denied,
}

const HAVE: u8 = 1;
const COMPARED: u8 = 2;
const SLOT: u8 = 3;
const HOLDS: u8 = 4;

const READ: &str = "sync.peer.read";
const WRITE: &str = "sync.peer.write";

/// The most slots of a record.
const MAX_SLOTS: u16 = 1024;
/// The most ranges that a get may ask for, over all blobs; a blob of which nothing or all is wanted counts
/// too.
pub(super) const MAX_RANGES: usize = 4096;

/// How much of a value's hash is told: enough for no two values to have the same by chance.
pub const DIGEST_LEN: usize = 8;

/// Which value a slot has. Two who hold the writer's key may have given one number to two values, so
/// the number alone does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The sequence number.
    pub seq: u64,
    /// The beginning of the value's hash.
    pub digest: [u8; DIGEST_LEN],
}

impl Version {
    /// That of this value.
    pub fn of(signed: &Signed) -> Self {
        let hash = blake3::hash(&signed.value);
        let digest = hash.as_bytes().first_chunk();
        Self {
            seq: signed.seq,
            digest: *digest.expect("a hash has 32 bytes"),
        }
    }
}

/// Which record of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// The group's own.
    Group,
    /// That of the repo with this key.
    Repo(PublicKey),
}

/// What is said on the stream of a group, in both directions, after both have proven it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Which values the slots of one record have.
    Have {
        /// The record.
        record: Which,
        /// The slots that have values, ascending.
        slots: Vec<(Slot, Version)>,
    },
    /// Everything was said that there is to compare.
    Compared,
    /// The value of a slot.
    Slot {
        /// The record.
        record: Which,
        /// The slot.
        slot: Slot,
        /// The value; not verified yet.
        signed: Signed,
    },
    /// The sender has a tree whole, as far as it wants it.
    Holds {
        /// The repo.
        repo: PublicKey,
        /// The hash of its root.
        root: Hash,
    },
}

impl Message {
    /// Its bytes.
    pub fn encode(&self) -> Result<Bytes> {
        let mut bytes = BytesMut::new();
        match self {
            Self::Have { record, slots } => {
                bytes.put_u8(HAVE);
                put_record(&mut bytes, *record);
                let count = u16::try_from(slots.len()).ok().filter(|n| *n <= MAX_SLOTS);
                bytes.put_u16(count.ok_or_else(|| {
                    Error::new(
                        Kind::TooLarge,
                        WRITE,
                        "a record has no more than 1024 slots",
                    )
                })?);
                for (slot, version) in slots {
                    bytes.put_u16(*slot);
                    bytes.put_u64(version.seq);
                    bytes.put_slice(&version.digest);
                }
            }
            Self::Compared => bytes.put_u8(COMPARED),
            Self::Slot {
                record,
                slot,
                signed,
            } => {
                bytes.put_u8(SLOT);
                put_record(&mut bytes, *record);
                bytes.put_u16(*slot);
                bytes.put_slice(&record_format::encode_signed(signed)?);
            }
            Self::Holds { repo, root } => {
                bytes.put_u8(HOLDS);
                bytes.put_slice(&repo.0);
                bytes.put_slice(root.as_bytes());
            }
        }
        Ok(bytes.freeze())
    }

    /// The message in these bytes, all of them; [`Kind::Invalid`] where there is none.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut fields = Fields::new(READ, bytes);
        let message = match fields.u8()? {
            HAVE => {
                let record = take_record(&mut fields)?;
                let count = fields.u16()?;
                if count > MAX_SLOTS {
                    return Err(fields.invalid("a record has no more than 1024 slots"));
                }
                let mut slots: Vec<(Slot, Version)> = Vec::with_capacity(count.into());
                for _ in 0..count {
                    let slot = fields.u16()?;
                    if slots.last().is_some_and(|(last, _)| *last >= slot) {
                        return Err(fields.invalid("the slots do not ascend"));
                    }
                    let version = Version {
                        seq: fields.u64()?,
                        digest: fields.take()?,
                    };
                    slots.push((slot, version));
                }
                Self::Have { record, slots }
            }
            COMPARED => Self::Compared,
            SLOT => {
                let record = take_record(&mut fields)?;
                let slot = fields.u16()?;
                let signed = bytes.slice_ref(fields.rest());
                return Ok(Self::Slot {
                    record,
                    slot,
                    signed: record_format::decode_signed(&signed)?,
                });
            }
            HOLDS => Self::Holds {
                repo: PublicKey(fields.take()?),
                root: Hash::from(fields.take::<32>()?),
            },
            other => {
                let error = fields.invalid("the peer says what is not known here");
                return Err(error.with("message", other));
            }
        };
        fields.end()?;
        Ok(message)
    }
}

fn put_record(bytes: &mut BytesMut, record: Which) {
    match record {
        Which::Group => bytes.put_u8(0),
        Which::Repo(key) => {
            bytes.put_u8(1);
            bytes.put_slice(&key.0);
        }
    }
}

fn take_record(fields: &mut Fields<'_>) -> Result<Which> {
    match fields.u8()? {
        0 => Ok(Which::Group),
        1 => Ok(Which::Repo(PublicKey(fields.take()?))),
        other => Err(fields.invalid("this is no record").with("record", other)),
    }
}

/// What a peer asks for: a page of a tree, or blobs that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    /// The group.
    pub group: RecordId,
    /// Whose tree.
    pub repo: PublicKey,
    /// The sequences of pages from the root down; the last is what is asked of. Each names the next,
    /// which is what gives the asker a right to it.
    pub chain: Vec<Hash>,
    /// The chunks of the last sequence (0) and of what it names (from 1), ascending.
    pub ranges: Vec<(u64, ChunkRanges)>,
}

/// iroh-blobs' request, of version 0.104.
#[derive(Serialize, Deserialize)]
struct GetRequest {
    hash: [u8; 32],
    /// Offsets, each after the one before; and the widths of what is left out and taken, in turn.
    ranges: Vec<(u64, Vec<u64>)>,
}

/// iroh-blobs' tag for a get among its requests.
const IROH_GET: u8 = 0;

impl Get {
    /// Its bytes.
    pub fn encode(&self) -> Result<Bytes> {
        let Some(hash) = self.chain.last() else {
            return Err(Error::new(Kind::Invalid, WRITE, "a request names a page"));
        };
        let mut bytes = BytesMut::new();
        bytes.put_slice(&self.group.0);
        bytes.put_slice(&self.repo.0);
        let depth = u8::try_from(self.chain.len()).ok();
        bytes.put_u8(
            depth
                .filter(|depth| *depth <= MAX_LEVEL + 1)
                .ok_or_else(|| Error::new(Kind::Invalid, WRITE, "a tree is not that deep"))?,
        );
        for page in &self.chain {
            bytes.put_slice(page.as_bytes());
        }
        bytes.put_u8(IROH_GET);
        let request = GetRequest {
            hash: *hash.as_bytes(),
            ranges: to_wire(&self.ranges),
        };
        let request = postcard::to_stdvec(&request).map_err(|error| {
            Error::new(Kind::Internal, WRITE, "a request cannot be written").because(error)
        })?;
        bytes.put_slice(&request);
        Ok(bytes.freeze())
    }

    /// The request in these bytes, all of them; [`Kind::Invalid`] where there is none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(READ, bytes);
        let group = RecordId(fields.take()?);
        let repo = PublicKey(fields.take()?);
        let depth = fields.u8()?;
        if depth == 0 || depth > MAX_LEVEL + 1 {
            return Err(fields.invalid("a tree is not that deep"));
        }
        let mut chain = Vec::with_capacity(depth.into());
        for _ in 0..depth {
            chain.push(Hash::from(fields.take::<32>()?));
        }
        if fields.u8()? != IROH_GET {
            return Err(fields.invalid("only gets are answered"));
        }
        let wrong = fields.invalid("the request cannot be read");
        let (request, rest) = postcard::take_from_bytes::<GetRequest>(fields.rest())
            .map_err(|error| wrong.clone().because(error))?;
        let hash = Hash::from(request.hash);
        if !rest.is_empty() || chain.last() != Some(&hash) {
            return Err(wrong);
        }
        let ranges = from_wire(request.ranges).ok_or(wrong)?;
        Ok(Self {
            group,
            repo,
            chain,
            ranges,
        })
    }
}

fn to_wire(ranges: &[(u64, ChunkRanges)]) -> Vec<(u64, Vec<u64>)> {
    // iroh repeats the last ranges for all that follow, so that what is not wanted must be said.
    let mut all: Vec<(u64, Vec<u64>)> = Vec::new();
    let mut next = 0;
    let mut last: Vec<u64> = Vec::new();
    let mut push = |at: u64, widths: Vec<u64>, last: &mut Vec<u64>| {
        if widths != *last {
            all.push((at, widths.clone()));
            *last = widths;
        }
    };
    for (at, ranges) in ranges {
        if *at > next {
            push(next, Vec::new(), &mut last);
        }
        let mut before = 0;
        let widths = ranges.boundaries().iter().map(|bound| {
            let width = bound.0 - before;
            before = bound.0;
            width
        });
        push(*at, widths.collect(), &mut last);
        next = at + 1;
    }
    push(next, Vec::new(), &mut last);
    let mut before = 0;
    for (at, _) in &mut all {
        (*at, before) = (*at - before, *at);
    }
    all
}

/// The most blobs that a request may name, one after the other, by one range.
const MAX_REPEATED: u64 = 1024;

fn from_wire(wire: Vec<(u64, Vec<u64>)>) -> Option<Vec<(u64, ChunkRanges)>> {
    let mut all = Vec::new();
    let mut at = 0_u64;
    let mut wire = wire.into_iter().enumerate().peekable();
    let mut count = 0;
    while let Some((i, (delta, widths))) = wire.next() {
        if i > 0 && delta == 0 {
            return None;
        }
        at = at.checked_add(delta)?;
        count += widths.len() + 1;
        if count > MAX_RANGES {
            return None;
        }
        let mut ranges = ChunkRanges::empty();
        let mut bound = 0_u64;
        let mut start = None;
        for (i, width) in widths.iter().enumerate() {
            if i > 0 && *width == 0 {
                return None;
            }
            bound = bound.checked_add(*width)?;
            start = match start {
                None => Some(bound),
                Some(start) => {
                    ranges |= ChunkRanges::from(ChunkNum(start)..ChunkNum(bound));
                    None
                }
            };
        }
        if let Some(start) = start {
            ranges |= ChunkRanges::from(ChunkNum(start)..);
        }
        if ranges.is_empty() {
            continue;
        }
        // What repeats without end cannot be asked of a page.
        let (_, (next, _)) = wire.peek()?;
        if *next > MAX_REPEATED {
            return None;
        }
        // What is said once counts as often as it is asked for.
        count += (widths.len() + 1) * usize::try_from(next.saturating_sub(1)).ok()?;
        if count > MAX_RANGES {
            return None;
        }
        for offset in 0..*next {
            all.push((at.checked_add(offset)?, ranges.clone()));
        }
    }
    Some(all)
}

pub(super) fn lost(error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, READ, "the peer is gone").because(error)
}

pub(super) async fn write_frame(send: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<()> {
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
pub(super) async fn read_frame(recv: &mut (impl AsyncRead + Unpin)) -> Result<Option<Bytes>> {
    match begin_frame(recv).await? {
        Some(first) => read_rest(recv, first).await.map(Some),
        None => Ok(None),
    }
}

/// The same, from a peer that may be silent between frames, and not within one.
pub(super) async fn next_frame(recv: &mut (impl AsyncRead + Unpin)) -> Result<Option<Bytes>> {
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

impl Answer {
    pub(super) fn encode(self) -> u8 {
        match self {
            Self::Here => 0,
            Self::NotHere => 1,
            Self::Denied => 2,
        }
    }

    pub(super) fn decode(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::Here),
            1 => Ok(Self::NotHere),
            2 => Ok(Self::Denied),
            other => {
                let message = "the peer's answer is not known here";
                Err(Error::new(Kind::Invalid, READ, message).with("answer", other))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(bounds: &[u64]) -> ChunkRanges {
        let mut ranges = ChunkRanges::empty();
        for pair in bounds.chunks(2) {
            ranges |= match pair {
                [start, end] => ChunkRanges::from(ChunkNum(*start)..ChunkNum(*end)),
                [start] => ChunkRanges::from(ChunkNum(*start)..),
                _ => unreachable!("chunks of two"),
            };
        }
        ranges
    }

    fn get() -> Get {
        Get {
            group: RecordId([1; 32]),
            repo: PublicKey([2; 32]),
            chain: vec![Hash::of("a"), Hash::of("b")],
            ranges: vec![
                (0, ChunkRanges::all()),
                (1, ChunkRanges::all()),
                (5, ranges(&[0, 8192])),
                (6, ranges(&[16, 32, 64])),
                (9, ranges(&[0, 8192])),
            ],
        }
    }

    #[test]
    fn gets_are_read_as_they_were_written() {
        let get = get();
        assert_eq!(Get::decode(&get.encode().unwrap()).unwrap(), get);
    }

    #[test]
    fn values_with_one_number_are_told_apart() {
        let version = |value: &'static [u8]| {
            Version::of(&Signed {
                value: Bytes::from_static(value),
                seq: 7,
                writer: PublicKey([3; 32]),
                signature: Bytes::new(),
            })
        };
        assert_eq!(version(b"one"), version(b"one"));
        assert_ne!(version(b"one"), version(b"two"));
        let most = Message::Have {
            record: Which::Repo(PublicKey([1; 32])),
            slots: (0..MAX_SLOTS).map(|slot| (slot, version(b""))).collect(),
        };
        assert!(most.encode().unwrap().len() < MAX_FRAME_LEN);
    }

    #[test]
    fn what_is_asked_of_without_end_is_refused() {
        for wire in [
            vec![(0, vec![0])],
            vec![(0, vec![0]), (MAX_REPEATED + 1, vec![])],
            vec![(0, vec![0]), (0, vec![])],
            vec![(u64::MAX, vec![0]), (1, vec![])],
            vec![(0, vec![1, 0]), (1, vec![])],
            vec![(0, vec![1, u64::MAX]), (1, vec![])],
            // Little is said, and much asked for: often, and in many parts.
            (0..10)
                .map(|n| (MAX_REPEATED, vec![n % 2]))
                .chain([(1, vec![])])
                .collect(),
            vec![(0, vec![1; 2000]), (MAX_REPEATED, vec![])],
        ] {
            assert!(from_wire(wire.clone()).is_none(), "{wire:?}");
        }
    }

    fn messages() -> [Message; 6] {
        let signed = || Signed {
            value: Bytes::from_static(b"value"),
            seq: 7,
            writer: PublicKey([3; 32]),
            signature: Bytes::from_static(&[4; 64]),
        };
        let last = Version {
            seq: u64::MAX,
            digest: [0xff; DIGEST_LEN],
        };
        [
            Message::Compared,
            Message::Have {
                record: Which::Group,
                slots: vec![(0, Version::of(&signed())), (7, last)],
            },
            Message::Have {
                record: Which::Repo(PublicKey([5; 32])),
                slots: vec![],
            },
            Message::Slot {
                record: Which::Group,
                slot: 1023,
                signed: signed(),
            },
            Message::Slot {
                record: Which::Repo(PublicKey([5; 32])),
                slot: 3,
                signed: signed(),
            },
            Message::Holds {
                repo: PublicKey([6; 32]),
                root: Hash::of("root"),
            },
        ]
    }

    #[test]
    fn the_layout_is_pinned() {
        let encoded = messages().map(|message| message.encode().unwrap());
        crate::golden::check_hex("messages.hex", &encoded.each_ref().map(|m| &m[..]));
        let page = Get {
            ranges: vec![(0, ChunkRanges::all()), (1, ChunkRanges::all())],
            ..get()
        };
        let gets = [get(), page].map(|get| get.encode().unwrap());
        crate::golden::check_hex("gets.hex", &gets.each_ref().map(|get| &get[..]));
        let mut frames = Vec::new();
        for body in &encoded[..2] {
            let written = write_frame(&mut frames, body);
            futures_util::FutureExt::now_or_never(written)
                .unwrap()
                .unwrap();
        }
        let answers = [Answer::Here, Answer::NotHere, Answer::Denied].map(Answer::encode);
        crate::golden::check_hex("frames.hex", &[&frames, &answers]);
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        for message in messages() {
            let bytes = message.encode().unwrap();
            assert_eq!(Message::decode(&bytes).unwrap(), message);
            // A value has no length of its own: where it was cut, its signature does not hold.
            let cut = match &message {
                Message::Slot { signed, .. } => bytes.len() - signed.value.len(),
                _ => bytes.len(),
            };
            for len in 0..cut {
                assert!(Message::decode(&bytes.slice(..len)).is_err(), "{len}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode().unwrap(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_a_get_or_refused(tail: Vec<u8>, flip in 0..200_usize) {
            let mut bytes = get().encode().unwrap().to_vec();
            let at = flip % bytes.len();
            bytes.truncate(at);
            bytes.extend(tail);
            // It must not panic, nor take memory for what is only said.
            drop(Get::decode(&bytes));
        }
    }
}
