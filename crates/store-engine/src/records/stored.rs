//! The format of records in collections, and the checks of stored data.

use std::ops::{Bound, Range};

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{
    CollectionId, Entry, Error, Kind, Order, PublicKey, RecordDescriptor, RecordId, Result,
    Revision, Scan, Signed, Slot,
};

use super::{
    format::{self, Fields, VERSION},
    limits::MAX_RECORD_LEN,
    proof,
    verified::Verified,
};

/// A record's descriptor and the sum of its values, by id.
pub(super) const RECORDS: CollectionId = CollectionId::from_static("larder/records");

/// Signed values, by id and slot.
pub(super) const SLOTS: CollectionId = CollectionId::from_static("larder/slots");

/// Tells if a record exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Live,
    /// The record is gone for everybody; values may be left to delete.
    Forgetting,
}

/// A record's entry.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: State,
    /// The sum of its values, in bytes.
    pub(super) len: u32,
    pub(super) descriptor: RecordDescriptor,
    pub(super) revision: Revision,
}

impl Record {
    pub(super) fn decode(operation: &'static str, id: RecordId, entry: &Entry) -> Result<Self> {
        let damaged = |message| Error::new(Kind::Corrupt, operation, message).with("record", id);
        let decode = || {
            let mut fields = Fields::versioned(operation, &entry.value)?;
            let [state] = fields.take()?;
            let len = u32::from_be_bytes(fields.take()?);
            let descriptor = format::decode_descriptor(fields.rest())?;
            Ok((state, len, descriptor))
        };
        let (state, len, descriptor) = decode().map_err(|error: Error| {
            damaged("the record's stored entry does not decode").because(error)
        })?;
        let state = match state {
            0 => State::Live,
            1 => State::Forgetting,
            _ => return Err(damaged("the record's stored state is unknown")),
        };
        if len > MAX_RECORD_LEN {
            return Err(damaged("the record's stored length is over the limit"));
        }
        if proof::record_id(&descriptor)? != id {
            return Err(damaged("the record's stored descriptor is another's"));
        }
        Ok(Self {
            state,
            len,
            descriptor,
            revision: entry.revision,
        })
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Returns the key that may write `slot`, which comes from a caller.
    pub(super) fn writer_of(
        &self,
        operation: &'static str,
        id: RecordId,
        slot: Slot,
    ) -> Result<PublicKey> {
        self.descriptor.writer_of(slot).ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                operation,
                format!("the record has {} slots", self.descriptor.slots()),
            )
            .with("record", id)
            .with("slot", slot)
        })
    }

    /// Returns the key that may write `slot`, which comes from the store.
    pub(super) fn stored_writer_of(
        &self,
        operation: &'static str,
        id: RecordId,
        slot: Slot,
    ) -> Result<PublicKey> {
        self.writer_of(operation, id, slot).map_err(|error| {
            Error::new(
                Kind::Corrupt,
                operation,
                "a value is stored for a slot that the record does not have",
            )
            .because(error)
        })
    }
}

pub(super) fn encode_record(
    state: State,
    len: u32,
    descriptor: &RecordDescriptor,
) -> Result<Bytes> {
    let descriptor = format::encode_descriptor(descriptor)?;
    let mut bytes = BytesMut::with_capacity(6 + descriptor.len());
    bytes.put_u8(VERSION);
    bytes.put_u8(match state {
        State::Live => 0,
        State::Forgetting => 1,
    });
    bytes.put_u32(len);
    bytes.put_slice(&descriptor);
    Ok(bytes.freeze())
}

pub(super) fn record_key(id: RecordId) -> Bytes {
    Bytes::copy_from_slice(&id.0)
}

pub(super) fn slot_key(id: RecordId, slot: Slot) -> Bytes {
    let mut key = BytesMut::with_capacity(34);
    key.put_slice(&id.0);
    key.put_u16(slot);
    key.freeze()
}

/// Returns the slot that `key` names, if it is one of this record.
pub(super) fn slot_of_key(id: RecordId, key: &[u8]) -> Option<Slot> {
    let slot = key.strip_prefix(&id.0)?;
    slot.try_into().ok().map(u16::from_be_bytes)
}

/// Returns the slot that a key found by [`scan_slots`] names.
pub(super) fn decode_slot_key(operation: &'static str, id: RecordId, key: &[u8]) -> Result<Slot> {
    slot_of_key(id, key).ok_or_else(|| {
        Error::new(Kind::Corrupt, operation, "a stored key names no slot").with("record", id)
    })
}

/// Returns a scan of the entries of these slots, in ascending order.
pub(super) fn scan_slots(id: RecordId, slots: Range<Slot>) -> Scan {
    Scan {
        collection: SLOTS,
        keys: (
            Bound::Included(slot_key(id, slots.start)),
            Bound::Excluded(slot_key(id, slots.end)),
        ),
        order: Order::Ascending,
    }
}

/// Decodes and verifies a slot's stored value.
pub(super) fn decode_slot(
    operation: &'static str,
    id: RecordId,
    slot: Slot,
    writer: PublicKey,
    bytes: &Bytes,
    verified: &Verified,
) -> Result<Signed> {
    let damaged = |message| {
        Error::new(Kind::Corrupt, operation, message)
            .with("record", id)
            .with("slot", slot)
    };
    let signed = format::decode_signed(bytes)
        .map_err(|error| damaged("the slot's stored value does not decode").because(error))?;
    if signed.writer != writer {
        return Err(damaged("the slot's stored value is by another writer"));
    }
    verified
        .verify(id, slot, &signed)
        .map_err(|error| damaged("the slot's stored value does not verify").because(error))?;
    Ok(signed)
}
