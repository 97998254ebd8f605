//! Writing a slot: read, decide, and commit what was decided if nothing changed meanwhile.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::TryStreamExt;
use store_api::{
    Batch, Edit, Entry, Error, Kind, PublicKey, Put, PutRecord, RecordId, Result, SeqExpect,
    Signed, Slot,
};

use super::{
    MAX_ATTEMPTS, Records, format, key,
    limits::{self, MAX_RECORD_LEN, MAX_SLOTS},
    proof,
    stored::{self, RECORDS, Record, SLOTS, State},
    too_busy,
    verified::Verified,
};
use crate::collections::expect;

const PUT: &str = "records.put";

/// What somebody wants to put.
enum Wanted {
    Write {
        value: Bytes,
        key: SigningKey,
        expect: SeqExpect,
    },
    Import(Signed),
}

/// What follows from the slot as it is.
enum Decision {
    Store(Signed),
    Done(Put),
}

/// A slot as it is stored.
enum Current {
    Absent,
    Is(Signed),
    /// It does not decode or verify: only somebody who has the value can replace it.
    Damaged(Error),
}

impl Records {
    pub(super) async fn put_in_turn(
        &self,
        id: RecordId,
        slot: Slot,
        put: PutRecord,
    ) -> Result<Put> {
        let wanted = Wanted::from(put);
        limits::check_value(PUT, slot, wanted.value())?;
        let _turn = self.turn(id).await;
        for _ in 0..MAX_ATTEMPTS {
            let record = self.live(PUT, id).await?;
            let writer = record.writer_of(PUT, id, slot)?;
            wanted.check(id, slot, writer, &self.verified)?;
            let entry = self
                .collections
                .get(SLOTS, stored::slot_key(id, slot))
                .await?;
            let current = Current::of(id, slot, writer, entry.as_ref(), &self.verified);
            let signed = match wanted.decide(id, slot, &current)? {
                Decision::Store(signed) => signed,
                Decision::Done(put) => return Ok(put),
            };
            let len = self.len_after(id, slot, &record, &current, &signed).await?;
            let batch = batch(id, slot, &record, entry.as_ref(), len, &signed)?;
            match self.collections.commit_reserved(batch).await {
                Ok(_) => return Ok(Put::Published { seq: signed.seq }),
                // Somebody changed this slot, or the record's sum by another one: look again.
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(too_busy(PUT, id))
    }

    /// The sum of the record's values once `signed` is the slot's, within the limit.
    async fn len_after(
        &self,
        id: RecordId,
        slot: Slot,
        record: &Record,
        current: &Current,
        signed: &Signed,
    ) -> Result<u32> {
        let others = match current {
            Current::Absent => u64::from(record.len),
            Current::Is(old) => u64::from(record.len).saturating_sub(old.value.len() as u64),
            // How long the damaged value was is not known any more.
            Current::Damaged(_) => self.len_of_others(id, slot).await?,
        };
        let len = others + signed.value.len() as u64;
        match u32::try_from(len) {
            Ok(len) if len <= MAX_RECORD_LEN => Ok(len),
            _ => Err(Error::new(
                Kind::TooLarge,
                PUT,
                format!("a record's values have at most {MAX_RECORD_LEN} bytes together"),
            )
            .with("record", id)
            .with("slot", slot)
            .with("len", len)),
        }
    }

    /// The sum of the values of all slots but this one, counted.
    async fn len_of_others(&self, id: RecordId, slot: Slot) -> Result<u64> {
        let mut len = 0;
        let mut entries = self.collections.scan(stored::scan_slots(id, 0..MAX_SLOTS));
        while let Some(entry) = entries.try_next().await? {
            if stored::decode_slot_key(PUT, id, &entry.key)? != slot {
                len += entry.value.len().saturating_sub(format::SIGNED_OVERHEAD) as u64;
            }
        }
        Ok(len)
    }
}

/// Stores `signed` if the record and the slot are still what was read.
fn batch(
    id: RecordId,
    slot: Slot,
    record: &Record,
    entry: Option<&Entry>,
    len: u32,
    signed: &Signed,
) -> Result<Batch> {
    let slot_key = stored::slot_key(id, slot);
    let record_key = stored::record_key(id);
    let slot_expect = expect(&SLOTS, &slot_key, entry.map(|entry| entry.revision));
    let record_expect = expect(&RECORDS, &record_key, Some(record.revision));
    let mut edits = vec![Edit::Put {
        collection: SLOTS,
        key: slot_key,
        value: format::encode_signed(signed)?,
    }];
    // Left alone where it would say the same, so that such puts do not hinder each other.
    if entry.is_none() || len != record.len {
        edits.push(Edit::Put {
            collection: RECORDS,
            key: record_key,
            value: stored::encode_record(State::Live, len, &record.descriptor)?,
        });
    }
    Ok(Batch::of(edits)
        .expecting(slot_expect)
        .expecting(record_expect))
}

impl Current {
    fn of(
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
    fn value(&self) -> &Bytes {
        match self {
            Self::Write { value, .. } => value,
            Self::Import(signed) => &signed.value,
        }
    }

    /// Refuses what `writer`, to whom the slot belongs, did not or cannot sign.
    fn check(
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

    fn decide(&self, id: RecordId, slot: Slot, current: &Current) -> Result<Decision> {
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

/// The greater one stays: where two writers gave one number to two values, that whose bytes are
/// greater, so that everybody who sees both ends with the same.
fn rank(signed: &Signed) -> (u64, &[u8]) {
    (signed.seq, &signed.value)
}

fn superseded(current: Option<&Signed>) -> Decision {
    Decision::Done(Put::Superseded {
        current: current.cloned(),
    })
}
