//! Computes a record's id, and the message that a slot's signature covers.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use larder_store_api::{
    Error, Kind, PublicKey, RecordDescriptor, RecordId, Result, SecretKey, Signed, Slot,
};

use super::{format, key, limits};

/// The context of BLAKE3's key derivation that makes a record's id from its descriptor's bytes.
pub const ID_CONTEXT: &str = "larder 2025-11-21 record id v1";

/// The prefix of every signed message, so that no signature made for another purpose is valid here.
pub const SIGNATURE_CONTEXT: &[u8; 30] = b"larder 2025-11-21 slot v1 sign";

const MESSAGE_LEN: usize = SIGNATURE_CONTEXT.len() + 32 + 2 + 8 + 4 + 32;

/// Returns the id of the record with this descriptor; the same in every store.
///
/// A descriptor beyond the limits is [`Kind::TooLarge`]; one without slots, or with a duplicate writer,
/// is [`Kind::Invalid`].
pub fn record_id(descriptor: &RecordDescriptor) -> Result<RecordId> {
    let bytes = format::encode_descriptor(descriptor)?;
    Ok(RecordId(blake3::derive_key(ID_CONTEXT, &bytes)))
}

/// Signs a slot's value. It does not check that the writer may write the slot.
///
/// A value beyond the limit is [`Kind::TooLarge`], a sequence number of zero is [`Kind::Invalid`].
pub fn sign(
    id: RecordId,
    slot: Slot,
    seq: u64,
    value: Bytes,
    writer: &SecretKey,
) -> Result<Signed> {
    sign_with(id, slot, seq, value, &key::signing_key(writer))
}

pub(super) fn sign_with(
    id: RecordId,
    slot: Slot,
    seq: u64,
    value: Bytes,
    writer: &SigningKey,
) -> Result<Signed> {
    let message = message("record.sign", id, slot, seq, &value)?;
    Ok(Signed {
        value,
        seq,
        writer: PublicKey(writer.verifying_key().to_bytes()),
        signature: Bytes::copy_from_slice(&writer.sign(&message).to_bytes()),
    })
}

/// Checks that `signed.writer` signed this value, with this sequence number, for this slot of this
/// record. It does not check that the writer may write the slot.
///
/// An invalid signature is [`Kind::Denied`], a value beyond the limit is [`Kind::TooLarge`], a sequence
/// number of zero is [`Kind::Invalid`]. Verification is strict: weak keys and malleable signatures are
/// refused.
pub fn verify(id: RecordId, slot: Slot, signed: &Signed) -> Result<()> {
    const OPERATION: &str = "record.verify";
    let message = message(OPERATION, id, slot, signed.seq, &signed.value)?;
    let denied = |message| {
        Error::new(Kind::Denied, OPERATION, message)
            .with("record", id)
            .with("slot", slot)
    };
    let key = VerifyingKey::from_bytes(&signed.writer.0)
        .map_err(|error| denied("the writer is not a valid ed25519 key").because(error))?;
    let signature = Signature::from_slice(&signed.signature)
        .map_err(|error| denied("the signature is not a valid ed25519 signature").because(error))?;
    key.verify_strict(&message, &signature)
        .map_err(|error| denied("the signature does not hold").because(error))
}

/// Returns a hash of everything that [`verify`] checks.
pub(super) fn hash(id: RecordId, slot: Slot, signed: &Signed) -> Result<[u8; 32]> {
    let message = message("record.verify", id, slot, signed.seq, &signed.value)?;
    let mut hasher = blake3::Hasher::new();
    // All parts have fixed lengths, so no two different inputs are hashed alike.
    hasher.update(&message).update(&signed.writer.0);
    hasher.update(&signed.signature);
    Ok(*hasher.finalize().as_bytes())
}

/// Returns the message to sign. All parts except the context have a fixed length, so no two different
/// inputs give the same message.
fn message(
    operation: &'static str,
    id: RecordId,
    slot: Slot,
    seq: u64,
    value: &[u8],
) -> Result<[u8; MESSAGE_LEN]> {
    let len = limits::check_value(operation, slot, value)?;
    if seq == 0 {
        let message = "sequence numbers begin at 1";
        return Err(Error::new(Kind::Invalid, operation, message).with("slot", slot));
    }
    let hash = blake3::hash(value);
    let mut message = [0; MESSAGE_LEN];
    let mut rest = &mut message[..];
    let fields: [&[u8]; 6] = [
        SIGNATURE_CONTEXT,
        &id.0,
        &slot.to_be_bytes(),
        &seq.to_be_bytes(),
        &len.to_be_bytes(),
        hash.as_bytes(),
    ];
    for field in fields {
        let (place, after) = rest.split_at_mut(field.len());
        place.copy_from_slice(field);
        rest = after;
    }
    Ok(message)
}
