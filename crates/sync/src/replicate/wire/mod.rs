//! The messages between peers, as bytes.
//!
//! ```text
//! stream           what u8 (0 hello, 1 get, 2 show), then frames
//! frame            length u32, at most 64 KiB | body
//! hello, answer, who   proof.rs; a who is a frame, of the answerer first
//! have             1 u8 | record | count u16 | for each: slot u16, seq u64, digest [8]
//! compared         2 u8                         all that the sender has was announced: send what is newer
//! slot             3 u8 | record | slot u16 | signed value (record_format)
//! holds            4 u8 | repo's key [32] | hash of a root [32] | files that the sender wants and lacks u64
//!                  | their bytes u64
//! state            5 u8 | u8 (1 if it answers another) | digest [16] of all values that the sender has:
//!                  if yours differs, announce what you have
//! known            6 u8 | count u8 | id [32] each: operations that the sender has, with all before them; send others
//! ops              7 u8 | for each: length u16 | an operation
//! want             8 u8 | epoch [32] | u8 (1 if the sender cannot open it): send its boxes
//! boxes            9 u8 | epoch [32] | number u16 | that part of the list of boxes
//! digest           the beginning of the value's BLAKE3 hash
//! record           0 u8 | device [32], of values; or 1 u8 | repo's key [32]
//! get              group id [32] | repo's key [32] | depth u8 | for each page: hash [32]
//!                  | 0 u8 | iroh-blobs' GetRequest, as postcard
//! answer to get    0 u8, and iroh-blobs' answer without frames, in which a size of 2^64 - 1 means that a
//!                  blob is absent and has no data; or 1 u8: all are absent; or 2 u8: you have no right to them
//! show             as get, of blobs that the asker wants to delete: a blob that is shown is whole, and stays
//!                  for ten minutes; one that is not whole, or may be deleted, is answered as absent
//! ```
//!
//! Integers are big-endian, except in the formats of iroh-blobs. A get's answer has no frames: it ends with
//! the stream.

mod frame;
mod get;

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{Error, Kind, PublicKey, Result, Signed, Slot};
use larder_store_engine::record_format;

pub use self::get::Get;
pub(super) use self::get::MAX_RANGES;
pub(super) use self::{
    frame::{next_frame, read_frame, write_frame},
    get::Answer,
};
pub use crate::groups::Holding;
use crate::{
    codec::Fields,
    membership::{MAX_KNOWN, OpId},
};

/// The version of the protocol.
pub const VERSION: u8 = 2;
/// The longest frame.
pub const MAX_FRAME_LEN: usize = 64 * 1024;

pub(super) const HELLO: u8 = 0;
pub(super) const GET: u8 = 1;
pub(super) const SHOW: u8 = 2;

/// The value of a blob's size field that marks the blob as absent.
pub(super) const ABSENT: u64 = u64::MAX;

const HAVE: u8 = 1;
const COMPARED: u8 = 2;
const SLOT: u8 = 3;
const HOLDS: u8 = 4;
const STATE: u8 = 5;
const KNOWN: u8 = 6;
const OPS: u8 = 7;
const WANT: u8 = 8;
const BOXES: u8 = 9;

/// The most bytes of operations in one message: a few hundred small ones, or three of the longest.
pub const MAX_OPS_LEN: usize = 60 * 1024;

const READ: &str = "sync.peer.read";
const WRITE: &str = "sync.peer.write";

/// The most slots of a record.
const MAX_SLOTS: u16 = 1024;
/// The number of bytes of a value's hash that are announced: enough to make accidental collisions
/// negligible.
pub const DIGEST_LEN: usize = 8;

/// A digest of all values of a group's records.
pub type Digest = [u8; 16];

/// The version of the value in a slot. Two devices that hold the writer's key may have given the same
/// number to two values, so the number alone does not identify a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The sequence number.
    pub seq: u64,
    /// The beginning of the value's hash.
    pub digest: [u8; DIGEST_LEN],
}

impl Version {
    /// Returns the version of this value.
    pub fn of(signed: &Signed) -> Self {
        let hash = blake3::hash(&signed.value);
        let digest = hash.as_bytes().first_chunk();
        Self {
            seq: signed.seq,
            digest: *digest.expect("a hash has 32 bytes"),
        }
    }
}

/// A record of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// The record in which a device shares values with the group.
    Values(PublicKey),
    /// The record of the repo with this key.
    Repo(PublicKey),
}

/// A message on the stream of a group, in either direction, after both sides have proven the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The versions of the values in the slots of one record.
    Have {
        /// The record.
        record: Which,
        /// The slots that have values, ascending.
        slots: Vec<(Slot, Version)>,
    },
    /// Everything was announced that there is to compare.
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
    /// The sender has a tree, as far as it wants it and could get it.
    Holds {
        /// The repo.
        repo: PublicKey,
        /// The part of it that the sender holds.
        holding: Holding,
    },
    /// Operations that the sender has, with all before them: it lacks the others.
    Known {
        /// Their ids.
        ids: Vec<OpId>,
    },
    /// Operations, each after those before it; not verified yet.
    Ops {
        /// Their bytes.
        ops: Vec<Bytes>,
    },
    /// The sender wants the boxes of an epoch.
    Want {
        /// The epoch.
        epoch: OpId,
        /// It cannot open the epoch, whatever boxes it has.
        is_closed: bool,
    },
    /// A part of the boxes of an epoch.
    Boxes {
        /// The epoch.
        epoch: OpId,
        /// The number of the part.
        part: u16,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A digest of the sender's operations and records: a peer with a different one answers with its own.
    State {
        /// True if the message answers another one, and needs no answer.
        answers: bool,
        /// The digest.
        digest: Digest,
    },
}

impl Message {
    /// Returns true if only what a member says counts.
    pub(super) fn is_of_members(&self) -> bool {
        match self {
            Self::Have { .. }
            | Self::Compared
            | Self::Slot { .. }
            | Self::Holds { .. }
            | Self::State { .. } => true,
            Self::Known { .. } | Self::Ops { .. } | Self::Want { .. } | Self::Boxes { .. } => false,
        }
    }

    /// Returns the encoded message.
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
            Self::Holds { repo, holding } => {
                bytes.put_u8(HOLDS);
                bytes.put_slice(&repo.0);
                holding.put(&mut bytes);
            }
            Self::Known { ids } => {
                bytes.put_u8(KNOWN);
                let count = u8::try_from(ids.len()).ok();
                let count = count.filter(|count| usize::from(*count) <= MAX_KNOWN + 1);
                bytes.put_u8(count.ok_or_else(|| {
                    Error::new(
                        Kind::TooLarge,
                        WRITE,
                        "there are too many operations to name",
                    )
                })?);
                for id in ids {
                    bytes.put_slice(&id.0);
                }
            }
            Self::Ops { ops } => {
                bytes.put_u8(OPS);
                for op in ops {
                    let len = u16::try_from(op.len()).map_err(|error| {
                        Error::new(Kind::TooLarge, WRITE, "an operation is too long").because(error)
                    })?;
                    bytes.put_u16(len);
                    bytes.put_slice(op);
                }
            }
            Self::Want { epoch, is_closed } => {
                bytes.put_u8(WANT);
                bytes.put_slice(&epoch.0);
                bytes.put_u8(u8::from(*is_closed));
            }
            Self::Boxes {
                epoch,
                part,
                bytes: list,
            } => {
                bytes.put_u8(BOXES);
                bytes.put_slice(&epoch.0);
                bytes.put_u16(*part);
                bytes.put_slice(list);
            }
            Self::State { answers, digest } => {
                bytes.put_u8(STATE);
                bytes.put_u8(u8::from(*answers));
                bytes.put_slice(digest);
            }
        }
        Ok(bytes.freeze())
    }

    /// Decodes a message from all of these bytes; [`Kind::Invalid`] if it is malformed.
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
                holding: Holding::take(&mut fields)?,
            },
            KNOWN => {
                let count = usize::from(fields.u8()?);
                if count > MAX_KNOWN + 1 {
                    return Err(fields.invalid("the peer names too many operations"));
                }
                let ids = (0..count).map(|_| fields.take().map(OpId));
                Self::Known {
                    ids: ids.collect::<Result<_>>()?,
                }
            }
            OPS => {
                let mut ops = Vec::new();
                while !fields.is_empty() {
                    let len = fields.u16()?;
                    ops.push(bytes.slice_ref(fields.bytes(len.into())?));
                }
                Self::Ops { ops }
            }
            WANT => Self::Want {
                epoch: OpId(fields.take()?),
                is_closed: take_flag(&mut fields)?,
            },
            BOXES => {
                let (epoch, part) = (OpId(fields.take()?), fields.u16()?);
                let list = bytes.slice_ref(fields.rest());
                return Ok(Self::Boxes {
                    epoch,
                    part,
                    bytes: list,
                });
            }
            STATE => Self::State {
                answers: take_flag(&mut fields)?,
                digest: fields.take()?,
            },
            other => {
                let error = fields.invalid("the type of the peer's message is unknown");
                return Err(error.with("message", other));
            }
        };
        fields.end()?;
        Ok(message)
    }
}

fn put_record(bytes: &mut BytesMut, record: Which) {
    match record {
        Which::Values(device) => {
            bytes.put_u8(0);
            bytes.put_slice(&device.0);
        }
        Which::Repo(key) => {
            bytes.put_u8(1);
            bytes.put_slice(&key.0);
        }
    }
}

fn take_flag(fields: &mut Fields<'_>) -> Result<bool> {
    match fields.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(fields.invalid("a flag is 0 or 1").with("flag", other)),
    }
}

fn take_record(fields: &mut Fields<'_>) -> Result<Which> {
    match fields.u8()? {
        0 => Ok(Which::Values(PublicKey(fields.take()?))),
        1 => Ok(Which::Repo(PublicKey(fields.take()?))),
        other => Err(fields
            .invalid("the kind of record is unknown")
            .with("record", other)),
    }
}

#[cfg(test)]
mod tests {
    use larder_store_engine::Hash;
    use proptest::prelude::*;

    use super::*;

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

    fn messages() -> [Message; 11] {
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
                record: Which::Values(PublicKey([4; 32])),
                slots: vec![(0, Version::of(&signed())), (7, last)],
            },
            Message::Have {
                record: Which::Repo(PublicKey([5; 32])),
                slots: vec![],
            },
            Message::Slot {
                record: Which::Values(PublicKey([4; 32])),
                slot: 64,
                signed: signed(),
            },
            Message::Slot {
                record: Which::Repo(PublicKey([5; 32])),
                slot: 3,
                signed: signed(),
            },
            Message::Holds {
                repo: PublicKey([6; 32]),
                holding: Holding {
                    root: Hash::of("root"),
                    lacks_files: 3,
                    lacks_bytes: 4,
                },
            },
            Message::State {
                answers: true,
                digest: [8; 16],
            },
            Message::Known {
                ids: vec![OpId([1; 32]), OpId([2; 32])],
            },
            Message::Ops {
                ops: vec![Bytes::from_static(b"one"), Bytes::from_static(b"op")],
            },
            Message::Want {
                epoch: OpId([3; 32]),
                is_closed: true,
            },
            Message::Boxes {
                epoch: OpId([3; 32]),
                part: 7,
                bytes: Bytes::from_static(b"boxes"),
            },
        ]
    }

    #[test]
    fn the_layout_is_pinned() {
        let encoded = messages().map(|message| message.encode().unwrap());
        crate::golden::check_hex("messages.hex", &encoded.each_ref().map(|m| &m[..]));
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
            // A value has no length field: if it was cut, its signature is invalid.
            let cut = match &message {
                Message::Slot { signed, .. } => bytes.len() - signed.value.len(),
                Message::Boxes { bytes: list, .. } => bytes.len() - list.len(),
                // Fewer of them are a message too.
                Message::Ops { .. } => 1,
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
    }
}
