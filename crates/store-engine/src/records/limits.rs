//! The limits of a record for every store: those of Veilid's DHT.

use std::collections::HashSet;

use larder_store_api::{Error, Kind, RecordDescriptor, Result, Slot};

/// The longest value of a slot, in bytes.
pub const MAX_VALUE_LEN: u32 = 32 * 1024;

/// The greatest sum of a record's values, in bytes.
pub const MAX_RECORD_LEN: u32 = 1024 * 1024;

/// The most slots of a record.
pub const MAX_SLOTS: u16 = 1024;

/// The most writers of a record, its owner among them.
pub const MAX_WRITERS: u16 = 256;

/// Refuses a descriptor that is invalid or beyond a limit.
pub(super) fn check_descriptor(descriptor: &RecordDescriptor) -> Result<()> {
    // The writers are checked first: with at most that many, the sum of the slots cannot overflow.
    let writers = descriptor.members.len() + 1;
    if writers > usize::from(MAX_WRITERS) {
        let message = format!("a record has at most {MAX_WRITERS} writers, its owner among them");
        return Err(refused(Kind::TooLarge, message).with("writers", writers));
    }
    let slots = descriptor.slots();
    if slots > u32::from(MAX_SLOTS) {
        let message = format!("a record has at most {MAX_SLOTS} slots");
        return Err(refused(Kind::TooLarge, message).with("slots", slots));
    }
    if slots == 0 {
        return Err(refused(Kind::Invalid, "a record has at least one slot"));
    }
    let mut seen = HashSet::from([descriptor.owner]);
    for member in &descriptor.members {
        if member.slots == 0 {
            let message = "a member has at least one slot";
            return Err(refused(Kind::Invalid, message).with("writer", member.key));
        }
        if !seen.insert(member.key) {
            let message = "a writer appears twice";
            return Err(refused(Kind::Invalid, message).with("writer", member.key));
        }
    }
    Ok(())
}

fn refused(kind: Kind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(kind, "record.describe", message)
}

/// Refuses a value that no slot can have, and returns its length.
pub(super) fn check_value(operation: &'static str, slot: Slot, value: &[u8]) -> Result<u32> {
    match u32::try_from(value.len()) {
        Ok(len) if len <= MAX_VALUE_LEN => Ok(len),
        _ => Err(Error::new(
            Kind::TooLarge,
            operation,
            format!("a slot's value has at most {MAX_VALUE_LEN} bytes"),
        )
        .with("slot", slot)
        .with("len", value.len())),
    }
}
