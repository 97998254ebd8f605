//! The bytes of records, as they are stored, hashed, signed and sent.
//!
//! A layout never changes: a new one gets another version byte and another context string. All integers
//! are big-endian. Encoding is canonical; decoding accepts untrusted bytes, and refuses those that
//! encoding does not produce.
//!
//! ```text
//! descriptor       version u8 = 1 | owner [32] | owner_slots u16 | members u8
//!                  | for each member: key [32], slots u16
//! record id        BLAKE3 derive_key(ID_CONTEXT, descriptor)
//! signed message   SIGNATURE_CONTEXT | id [32] | slot u16 | seq u64 | value length u32
//!                  | BLAKE3(value) [32]
//! signed value     version u8 = 1 | seq u64 | writer [32] | signature [64] | value
//!
//! larder/records   id                 -> version u8 = 1 | state u8 (0 live, 1 being forgotten)
//!                                        | bytes of all values u32 | descriptor
//! larder/slots     id [32] | slot u16 -> signed value
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{Error, Kind, PublicKey, RecordDescriptor, RecordMember, Result, Signed};

use super::limits::{MAX_VALUE_LEN, check_descriptor};

/// The version of every layout here.
pub const VERSION: u8 = 1;

/// The number of bytes that a signed value adds to its value.
pub const SIGNED_OVERHEAD: usize = 1 + 8 + 32 + SIGNATURE_LEN;

pub(super) const SIGNATURE_LEN: usize = 64;

const ENCODE_SIGNED: &str = "record.encode";
const DECODE_SIGNED: &str = "record.decode";
const DECODE_DESCRIPTOR: &str = "record.describe";

/// Encodes a descriptor canonically.
///
/// A descriptor beyond the limits is [`Kind::TooLarge`]; one without slots, or with a duplicate writer,
/// is [`Kind::Invalid`].
pub fn encode_descriptor(descriptor: &RecordDescriptor) -> Result<Bytes> {
    check_descriptor(descriptor)?;
    let members = u8::try_from(descriptor.members.len()).expect("checked: at most 255 members");
    let mut bytes = BytesMut::with_capacity(36 + 34 * descriptor.members.len());
    bytes.put_u8(VERSION);
    bytes.put_slice(&descriptor.owner.0);
    bytes.put_u16(descriptor.owner_slots);
    bytes.put_u8(members);
    for member in &descriptor.members {
        bytes.put_slice(&member.key.0);
        bytes.put_u16(member.slots);
    }
    Ok(bytes.freeze())
}

/// Decodes a descriptor from all of these bytes, within the limits of [`encode_descriptor`].
///
/// Malformed bytes are [`Kind::Invalid`].
pub fn decode_descriptor(bytes: &[u8]) -> Result<RecordDescriptor> {
    let mut fields = Fields::versioned(DECODE_DESCRIPTOR, bytes)?;
    let owner = PublicKey(fields.take()?);
    let owner_slots = fields.u16()?;
    let [count] = fields.take()?;
    let mut members = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        members.push(RecordMember {
            key: PublicKey(fields.take()?),
            slots: fields.u16()?,
        });
    }
    fields.end()?;
    let descriptor = RecordDescriptor {
        owner,
        owner_slots,
        members,
    };
    check_descriptor(&descriptor)?;
    Ok(descriptor)
}

/// Encodes a signed value canonically. The bytes do not name the record and the slot; the signature
/// covers both.
///
/// A value beyond the limit is [`Kind::TooLarge`]; a sequence number of zero, or a signature whose
/// length is not 64 bytes, is [`Kind::Invalid`].
pub fn encode_signed(signed: &Signed) -> Result<Bytes> {
    check_signed(ENCODE_SIGNED, signed)?;
    let mut bytes = BytesMut::with_capacity(SIGNED_OVERHEAD + signed.value.len());
    bytes.put_u8(VERSION);
    bytes.put_u64(signed.seq);
    bytes.put_slice(&signed.writer.0);
    bytes.put_slice(&signed.signature);
    bytes.put_slice(&signed.value);
    Ok(bytes.freeze())
}

/// Decodes a signed value from all of these bytes. It shares them, and is not verified yet: see
/// [`verify`](super::verify).
///
/// Malformed bytes are [`Kind::Invalid`], a value beyond the limit is [`Kind::TooLarge`].
pub fn decode_signed(bytes: &Bytes) -> Result<Signed> {
    let mut fields = Fields::versioned(DECODE_SIGNED, bytes)?;
    let seq = u64::from_be_bytes(fields.take()?);
    let writer = PublicKey(fields.take()?);
    let signature: [u8; SIGNATURE_LEN] = fields.take()?;
    let signed = Signed {
        value: bytes.slice(SIGNED_OVERHEAD..),
        seq,
        writer,
        signature: Bytes::copy_from_slice(&signature),
    };
    check_signed(DECODE_SIGNED, &signed)?;
    Ok(signed)
}

/// Checks the rules for every signed value.
fn check_signed(operation: &'static str, signed: &Signed) -> Result<()> {
    if signed.value.len() > MAX_VALUE_LEN as usize {
        let message = format!("a slot's value has at most {MAX_VALUE_LEN} bytes");
        return Err(Error::new(Kind::TooLarge, operation, message).with("len", signed.value.len()));
    }
    if signed.seq == 0 {
        let message = "sequence numbers begin at 1";
        return Err(Error::new(Kind::Invalid, operation, message));
    }
    if signed.signature.len() != SIGNATURE_LEN {
        let message = format!("a signature has {SIGNATURE_LEN} bytes");
        let len = signed.signature.len();
        return Err(Error::new(Kind::Invalid, operation, message).with("len", len));
    }
    Ok(())
}

/// Reads fixed-length fields one after the other.
pub(super) struct Fields<'a> {
    operation: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Returns the fields after the version byte, which must be ours.
    pub(super) fn versioned(operation: &'static str, bytes: &'a [u8]) -> Result<Self> {
        let rest = bytes;
        let mut fields = Self { operation, rest };
        match fields.take()? {
            [VERSION] => Ok(fields),
            [version] => Err(Error::new(
                Kind::Invalid,
                operation,
                "the bytes have a version that is not known here",
            )
            .with("version", version)),
        }
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((field, rest)) = self.rest.split_first_chunk() else {
            let message = "the bytes end too early";
            return Err(Error::new(Kind::Invalid, self.operation, message));
        };
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    fn end(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let message = "there are bytes after the end";
        Err(Error::new(Kind::Invalid, self.operation, message).with("len", self.rest.len()))
    }
}
