//! Decides the outcome of a put, given the slot's current value.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use larder_store_api::{
    Entry, Error, Kind, PublicKey, Put, PutRecord, RecordId, Result, SeqExpect, Signed, Slot,
};

use super::{key, proof, stored, verified::Verified};

pub(super) const PUT: &str = "records.put";

/// A value that a caller wants to put.
pub(super) enum Wanted {
    Write {
        value: Bytes,
        key: SigningKey,
        expect: SeqExpect,
    },
    Import(Signed),
}

/// The decision for the slot's current value.
pub(super) enum Decision {
    Store(Signed),
    Done(Put),
}

/// The stored value of a slot.
#[derive(Debug, Clone)]
pub(super) enum Current {
    Absent,
    Is(Signed),
    /// It does not decode or verify: only importing a value can replace it.
    Damaged(Error),
}

impl Current {
    pub(super) fn of(
        id: RecordId,
        slot: Slot,
        writer: PublicKey,
        entry: Option<&Entry>,
        verified: &Verified,
    ) -> Self {
        let Some(entry) = entry else {
            return Self::Absent;
        };
        match stored::decode_slot(PUT, id, slot, writer, &entry.value, verified) {
            Ok(signed) => Self::Is(signed),
            Err(error) => Self::Damaged(error),
        }
    }
}

impl From<PutRecord> for Wanted {
    fn from(put: PutRecord) -> Self {
        match put {
            PutRecord::Write {
                value,
                writer,
                expect,
            } => Self::Write {
                value,
                key: key::signing_key(&writer),
                expect,
            },
            PutRecord::Import(signed) => Self::Import(signed),
        }
    }
}

impl Wanted {
    pub(super) fn value(&self) -> &Bytes {
        match self {
            Self::Write { value, .. } => value,
            Self::Import(signed) => &signed.value,
        }
    }

    /// Refuses a value that `writer`, the owner of the slot, did not or cannot sign.
    pub(super) fn check(
        &self,
        id: RecordId,
        slot: Slot,
        writer: PublicKey,
        verified: &Verified,
    ) -> Result<()> {
        let by = match self {
            Self::Write { key, .. } => PublicKey(key.verifying_key().to_bytes()),
            Self::Import(signed) => signed.writer,
        };
        if by != writer {
            return Err(
                Error::new(Kind::Denied, PUT, "the slot belongs to another writer")
                    .with("record", id)
                    .with("slot", slot)
                    .with("writer", by),
            );
        }
        match self {
            Self::Write { .. } => Ok(()),
            Self::Import(signed) => verified.verify(id, slot, signed),
        }
    }

    pub(super) fn decide(&self, id: RecordId, slot: Slot, current: &Current) -> Result<Decision> {
        match self {
            Self::Write { value, key, expect } => {
                let current = match current {
                    Current::Absent => None,
                    Current::Is(signed) => Some(signed),
                    Current::Damaged(error) => return Err(error.clone()),
                };
                let seq = current.map_or(0, |signed| signed.seq);
                let holds = match expect {
                    SeqExpect::Any => true,
                    SeqExpect::Absent => current.is_none(),
                    SeqExpect::At(expected) => current.is_some() && seq == *expected,
                };
                if !holds {
                    return Ok(superseded(current));
                }
                let seq = seq.checked_add(1).ok_or_else(|| {
                    Error::new(
                        Kind::TooLarge,
                        PUT,
                        format!("the slot has the greatest sequence number, {}", u64::MAX),
                    )
                    .with("record", id)
                    .with("slot", slot)
                })?;
                proof::sign_with(id, slot, seq, value.clone(), key).map(Decision::Store)
            }
            Self::Import(signed) => match current {
                Current::Is(current) if is_same(current, signed) => {
                    Ok(Decision::Done(Put::Published { seq: signed.seq }))
                }
                Current::Is(current) if rank(current) > rank(signed) => {
                    Ok(superseded(Some(current)))
                }
                Current::Is(_) | Current::Absent => Ok(Decision::Store(signed.clone())),
                Current::Damaged(error) => {
                    tracing::warn!(%error, "a damaged slot is replaced by an imported value");
                    Ok(Decision::Store(signed.clone()))
                }
            },
        }
    }
}

fn is_same(one: &Signed, other: &Signed) -> bool {
    rank(one) == rank(other)
}

/// Orders values: the greater one stays. If two writers gave the same number to two values, the one
/// with the greater bytes wins, so that everybody who sees both gets the same result.
fn rank(signed: &Signed) -> (u64, &[u8]) {
    (signed.seq, &signed.value)
}

fn superseded(current: Option<&Signed>) -> Decision {
    Decision::Done(Put::Superseded {
        current: current.cloned(),
    })
}
