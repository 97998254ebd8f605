//! Records: small signed mutable maps of numbered slots, found by key.

use std::{fmt, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;
use zeroize::ZeroizeOnDrop;

use crate::{Listing, Result};

/// An ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// An ed25519 secret key (the seed). It is wiped when dropped and does not print itself.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Makes a key from its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes, for code that signs or stores the key.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// The name of a record: a hash of its [`RecordDescriptor`], as its store computes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub [u8; 32]);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The number of a slot, from 0.
pub type Slot = u16;

/// The facts that identify a record: the writer of each slot. They never change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordDescriptor {
    /// Writes the first `owner_slots` slots.
    pub owner: PublicKey,
    /// The number of slots of the owner; may be zero if there are members.
    pub owner_slots: u16,
    /// Further writers; their slots follow the owner's in this order.
    pub members: Vec<RecordMember>,
}

/// A further writer of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordMember {
    /// Its key.
    pub key: PublicKey,
    /// The number of slots of the member; at least one.
    pub slots: u16,
}

impl RecordDescriptor {
    /// Returns the number of slots of the record.
    pub fn slots(&self) -> u32 {
        let members: u32 = self.members.iter().map(|m| u32::from(m.slots)).sum();
        u32::from(self.owner_slots) + members
    }

    /// Returns the key that may write `slot`, or `None` if the record has no such slot.
    pub fn writer_of(&self, slot: Slot) -> Option<PublicKey> {
        let mut end = u32::from(self.owner_slots);
        if u32::from(slot) < end {
            return Some(self.owner);
        }
        for member in &self.members {
            end += u32::from(member.slots);
            if u32::from(slot) < end {
                return Some(member.key);
            }
        }
        None
    }
}

/// A slot's value with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The bytes.
    pub value: Bytes,
    /// The number of the slot's value, from 1; the greater one stays.
    pub seq: u64,
    /// The key that signed the value.
    pub writer: PublicKey,
    /// The signature over the record, the slot, the sequence number and the value, as the store defines. Empty
    /// if the store has verified it and does not hand it out: such values cannot be imported.
    pub signature: Bytes,
}

/// The freshness that a read needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Reads local data only, and asks nobody.
    Local,
    /// Reads local data, and asks the network if there is none.
    LocalThenNetwork,
    /// Reads from the network; an error if it cannot be reached. Stores without a network answer as
    /// [`Local`](Freshness::Local).
    Network,
}

/// The caller's assumption about the slot that it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeqExpect {
    /// Nothing: write after whatever is there.
    Any,
    /// The slot has no value yet.
    Absent,
    /// The slot's value has this sequence number. An import may have put another value with the same
    /// number in the place of the one that the caller knows.
    At(u64),
}

/// The value to put into a slot.
#[derive(Debug, Clone)]
pub enum PutRecord {
    /// A new value, signed here, with the next sequence number.
    Write {
        /// The bytes.
        value: Bytes,
        /// Signs it; must be the slot's writer.
        writer: SecretKey,
        /// Checked in one step with the write.
        expect: SeqExpect,
    },
    /// A value that was signed elsewhere. It is refused unless its signature, writer and limits are valid.
    ///
    /// The greater sequence number stays. Of two values with one number, which two who hold the
    /// writer's key may have written without knowing of each other, the one whose bytes are greater
    /// stays: every store that sees both ends with the same one.
    Import(Signed),
}

/// The outcome of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The value is in the slot, for every peer that this store reaches.
    Published {
        /// Its sequence number.
        seq: u64,
    },
    /// It is durable here and goes out later.
    Queued {
        /// Its sequence number.
        seq: u64,
    },
    /// Not written: the slot's value differs from the expected one, or is newer than the imported one.
    Superseded {
        /// The slot's value; `None` if it has none.
        current: Option<Signed>,
    },
}

/// A slot's sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotSeq {
    /// The slot.
    pub slot: Slot,
    /// Its value's sequence number.
    pub seq: u64,
}

/// An event that a watcher of a record is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordEvent {
    /// These slots have new values.
    Changed {
        /// The slots.
        slots: Vec<Slot>,
        /// The value, if one slot changed and the store has it at hand.
        value: Option<Signed>,
    },
    /// The watcher may have missed changes: inspect, and read the slots that differ.
    Resync,
}

/// The way in which a record's slots share its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Each takes what it needs, while all together fit.
    Shared,
    /// Each has an equal part of [`max_record_len`](RecordCapabilities::max_record_len), if that
    /// is less than [`max_value_len`](RecordCapabilities::max_value_len).
    Divided,
}

/// Says if a store accepts values that were signed elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportSupport {
    /// It does, and hands out the signatures of its own.
    Supported,
    /// It does not.
    Unsupported,
}

/// Facts about a [`RecordStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordCapabilities {
    /// The longest value of a slot, in bytes.
    pub max_value_len: u32,
    /// The most slots of a record.
    pub max_slots: u16,
    /// The greatest sum of a record's values, in bytes.
    pub max_record_len: u32,
    /// The way in which a record's slots share that sum.
    pub room: Room,
    /// Says if [`PutRecord::Import`] is supported; if not, it fails with
    /// [`Kind::Unsupported`](crate::Kind::Unsupported).
    pub import: ImportSupport,
    /// The most writers of a record, its owner among them.
    pub max_writers: u16,
}

impl RecordCapabilities {
    /// Returns the minimum that every store promises: one slot of 1 KiB for one writer, without import. A backend
    /// changes the fields in which it differs.
    pub const fn least() -> Self {
        Self {
            max_value_len: 1024,
            max_slots: 1,
            max_record_len: 1024,
            room: Room::Shared,
            import: ImportSupport::Unsupported,
            max_writers: 1,
        }
    }
}

/// Keeps signed slots that others can find by key.
#[async_trait]
pub trait RecordStore: fmt::Debug + Send + Sync + 'static {
    /// Returns a short name for people, as in an error or a table.
    fn name(&self) -> &str;

    /// Returns facts about this store; they are constant while it is open.
    fn capabilities(&self) -> RecordCapabilities;

    /// Makes the record known to this store, and returns its id, which depends on nothing but the
    /// descriptor. Creating it again is not an error and changes nothing. Durable when it returns.
    ///
    /// A descriptor over the limits is [`Kind::TooLarge`](crate::Kind::TooLarge); one without
    /// slots, or with a writer twice, [`Kind::Invalid`](crate::Kind::Invalid).
    async fn create(&self, record: RecordDescriptor) -> Result<RecordId>;

    /// Returns the slot's value, or `None` if it has none.
    ///
    /// A record that this store does not know is [`Kind::NotFound`](crate::Kind::NotFound), a slot
    /// that it does not have [`Kind::Invalid`](crate::Kind::Invalid). A network that cannot be
    /// reached is [`Kind::Unavailable`](crate::Kind::Unavailable), never `None`.
    async fn get(&self, id: RecordId, slot: Slot, fresh: Freshness) -> Result<Option<Signed>>;

    /// Writes the slot if the expectation holds, in one atomic step, durable when it returns.
    ///
    /// A writer that may not write the slot, or a signature that does not hold, is
    /// [`Kind::Denied`](crate::Kind::Denied), a value over the limits
    /// [`Kind::TooLarge`](crate::Kind::TooLarge); nothing changes then. An imported value is
    /// [`Put::Superseded`] if its sequence number is less than that of the slot's value, or is the
    /// same and its bytes are less; importing the very value again is [`Put::Published`]. Sequence
    /// numbers begin at 1: importing one of 0 is [`Kind::Invalid`](crate::Kind::Invalid).
    async fn put(&self, id: RecordId, slot: Slot, put: PutRecord) -> Result<Put>;

    /// Returns the sequence numbers of those of `slots` that have a value, ascending. Slots beyond the
    /// record's are left out; a record that this store does not know is
    /// [`Kind::NotFound`](crate::Kind::NotFound).
    async fn inspect(
        &self,
        id: RecordId,
        slots: Range<Slot>,
        fresh: Freshness,
    ) -> Result<Vec<SlotSeq>>;

    /// Watches changes of these slots from now on; `None` if the store cannot. A watcher that lags
    /// or may have missed one gets [`RecordEvent::Resync`], never silence.
    fn watch(&self, id: RecordId, slots: Range<Slot>) -> Option<Listing<RecordEvent>>;

    /// Removes the record and its values from this store; others may still have it. Forgetting an
    /// unknown record is not an error. Durable when it returns.
    async fn forget(&self, id: RecordId) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let text = format!("{:?}", SecretKey::from_bytes([0xab; 32]));
        assert_eq!(text, "SecretKey(…)");
    }

    #[test]
    fn slots_follow_their_writers() {
        let key = |n| PublicKey([n; 32]);
        let record = RecordDescriptor {
            owner: key(0),
            owner_slots: 2,
            members: vec![
                RecordMember {
                    key: key(1),
                    slots: 1,
                },
                RecordMember {
                    key: key(2),
                    slots: 2,
                },
            ],
        };
        assert_eq!(record.slots(), 5);
        let writers: Vec<_> = (0..6).map(|slot| record.writer_of(slot)).collect();
        let expected = [0, 0, 1, 2, 2].map(|n| Some(key(n)));
        assert_eq!(writers[..5], expected);
        assert_eq!(writers[5], None);
    }
}
