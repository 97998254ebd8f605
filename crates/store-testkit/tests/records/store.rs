//! A small record store to test the suite with, and the ways to break it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use futures_util::{StreamExt, stream};
use larder_store_api::{
    Error, Freshness, ImportSupport, Kind, Listing, PublicKey, Put, PutRecord, RecordCapabilities,
    RecordDescriptor, RecordEvent, RecordId, RecordStore, Result, Room, SecretKey, SeqExpect,
    Signed, Slot, SlotSeq,
};
use tokio::sync::broadcast;

const FACTS: RecordCapabilities = {
    let mut facts = RecordCapabilities::least();
    facts.max_value_len = 1024;
    facts.max_slots = 16;
    facts.max_record_len = 3000;
    facts.room = Room::Shared;
    facts.import = ImportSupport::Supported;
    facts.max_writers = 4;
    facts
};

/// One way to break a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    IdDependsOnTime,
    CreateForgetsValues,
    CreateTakesAnything,
    UnknownIsNone,
    BadSlotIsNone,
    ExpectationsAreIgnored,
    AnybodyWrites,
    SignaturesAreIgnored,
    SignaturesHoldForEverySlot,
    OlderValuesAreTaken,
    TheFirstOfOneNumberStays,
    TheLastOfOneNumberStays,
    TheSameAgainIsSuperseded,
    LongValuesAreTaken,
    LongRecordsAreTaken,
    InspectGoesDown,
    InspectShowsEmptySlots,
    ForgetKeepsValues,
    ForgetOfUnknownFails,
    WatchIsSilentOnLag,
    WatchTellsOfAllSlots,
    ImportsAreNotTold,
}

impl Defect {
    pub const ALL: [Defect; 22] = [
        Defect::IdDependsOnTime,
        Defect::CreateForgetsValues,
        Defect::CreateTakesAnything,
        Defect::UnknownIsNone,
        Defect::BadSlotIsNone,
        Defect::ExpectationsAreIgnored,
        Defect::AnybodyWrites,
        Defect::SignaturesAreIgnored,
        Defect::SignaturesHoldForEverySlot,
        Defect::OlderValuesAreTaken,
        Defect::TheFirstOfOneNumberStays,
        Defect::TheLastOfOneNumberStays,
        Defect::TheSameAgainIsSuperseded,
        Defect::LongValuesAreTaken,
        Defect::LongRecordsAreTaken,
        Defect::InspectGoesDown,
        Defect::InspectShowsEmptySlots,
        Defect::ForgetKeepsValues,
        Defect::ForgetOfUnknownFails,
        Defect::WatchIsSilentOnLag,
        Defect::WatchTellsOfAllSlots,
        Defect::ImportsAreNotTold,
    ];
}

#[derive(Debug)]
pub struct Records {
    state: Mutex<Option<State>>,
    created: AtomicU64,
    defect: Option<Defect>,
}

#[derive(Debug)]
struct State {
    records: BTreeMap<RecordId, Record>,
    changes: broadcast::Sender<(RecordId, Slot)>,
}

#[derive(Debug, Clone)]
struct Record {
    descriptor: RecordDescriptor,
    values: BTreeMap<Slot, Signed>,
    known: bool,
}

impl Records {
    pub fn new(defect: Option<Defect>) -> Self {
        Self {
            state: Mutex::new(Some(State {
                records: BTreeMap::new(),
                changes: broadcast::Sender::new(256),
            })),
            created: AtomicU64::new(0),
            defect,
        }
    }

    pub fn close(&self) {
        *self.state.lock().expect("nobody panics with it") = None;
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock().expect("nobody panics with it");
        change(state.as_mut().ok_or_else(|| error(Kind::Closed))?)
    }

    fn check(&self, record: &RecordDescriptor) -> Result<()> {
        if record.slots() > FACTS.max_slots.into()
            || record.members.len() >= FACTS.max_writers.into()
        {
            return Err(error(Kind::TooLarge));
        }
        let mut writers: Vec<_> = record.members.iter().map(|member| member.key).collect();
        writers.push(record.owner);
        writers.sort();
        let twice = writers.windows(2).any(|pair| pair[0] == pair[1]);
        let empty = record.slots() == 0 || record.members.iter().any(|member| member.slots == 0);
        match twice || empty {
            true if !self.has(Defect::CreateTakesAnything) => Err(error(Kind::Invalid)),
            _ => Ok(()),
        }
    }

    fn id(&self, record: &RecordDescriptor) -> RecordId {
        let mut id = [0; 32];
        let time = self.created.fetch_add(1, Ordering::Relaxed);
        for (n, bytes) in id.chunks_mut(8).enumerate() {
            let mut hasher = DefaultHasher::new();
            (n, record).hash(&mut hasher);
            if self.has(Defect::IdDependsOnTime) {
                time.hash(&mut hasher);
            }
            bytes.copy_from_slice(&hasher.finish().to_be_bytes());
        }
        RecordId(id)
    }

    fn message(&self, id: RecordId, slot: Slot, seq: u64, value: &[u8]) -> Vec<u8> {
        let slot = match self.has(Defect::SignaturesHoldForEverySlot) {
            true => 0,
            false => slot,
        };
        [&id.0[..], &slot.to_be_bytes(), &seq.to_be_bytes(), value].concat()
    }

    fn sign(
        &self,
        id: RecordId,
        slot: Slot,
        seq: u64,
        value: bytes::Bytes,
        key: &SecretKey,
    ) -> Signed {
        let key = SigningKey::from_bytes(key.expose());
        let signature = key.sign(&self.message(id, slot, seq, &value));
        Signed {
            value,
            seq,
            writer: PublicKey(key.verifying_key().to_bytes()),
            signature: signature.to_bytes().to_vec().into(),
        }
    }

    fn holds(&self, id: RecordId, slot: Slot, signed: &Signed) -> bool {
        let message = self.message(id, slot, signed.seq, &signed.value);
        let key = VerifyingKey::from_bytes(&signed.writer.0);
        let signature = Signature::from_slice(&signed.signature);
        self.has(Defect::SignaturesAreIgnored)
            || matches!((key, signature), (Ok(key), Ok(s)) if key.verify_strict(&message, &s).is_ok())
    }
}

impl State {
    fn record(&mut self, id: RecordId) -> Result<&mut Record> {
        let record = self.records.get_mut(&id).filter(|record| record.known);
        record.ok_or_else(|| error(Kind::NotFound))
    }
}

fn error(kind: Kind) -> Error {
    Error::new(kind, "records.test", "")
}

#[async_trait]
impl RecordStore for Records {
    fn name(&self) -> &str {
        "records"
    }

    fn capabilities(&self) -> RecordCapabilities {
        FACTS
    }

    async fn create(&self, descriptor: RecordDescriptor) -> Result<RecordId> {
        let id = self.id(&descriptor);
        self.with(|state| {
            self.check(&descriptor)?;
            let record = state.records.entry(id).or_insert_with(|| Record {
                descriptor,
                values: BTreeMap::new(),
                known: true,
            });
            record.known = true;
            if self.has(Defect::CreateForgetsValues) {
                record.values.clear();
            }
            Ok(id)
        })
    }

    async fn get(&self, id: RecordId, slot: Slot, _: Freshness) -> Result<Option<Signed>> {
        self.with(|state| {
            let record = match state.record(id) {
                Err(_) if self.has(Defect::UnknownIsNone) => return Ok(None),
                record => record?,
            };
            match record.descriptor.writer_of(slot) {
                None if !self.has(Defect::BadSlotIsNone) => Err(error(Kind::Invalid)),
                _ => Ok(record.values.get(&slot).cloned()),
            }
        })
    }

    async fn put(&self, id: RecordId, slot: Slot, put: PutRecord) -> Result<Put> {
        self.with(|state| {
            let record = state.record(id)?;
            let writer = record.descriptor.writer_of(slot);
            let writer = writer.ok_or_else(|| error(Kind::Invalid))?;
            let current = record.values.get(&slot).cloned();
            let seq = current.as_ref().map_or(0, |current| current.seq);
            let imported = matches!(put, PutRecord::Import(_));
            let (signed, fits) = match put {
                PutRecord::Write {
                    value,
                    writer,
                    expect,
                } => {
                    let fits = match expect {
                        SeqExpect::Any => true,
                        SeqExpect::Absent => current.is_none(),
                        SeqExpect::At(at) => current.is_some() && at == seq,
                    };
                    let fits = fits || self.has(Defect::ExpectationsAreIgnored);
                    (self.sign(id, slot, seq + 1, value, &writer), fits)
                }
                PutRecord::Import(signed) => {
                    if current.as_ref() == Some(&signed)
                        && !self.has(Defect::TheSameAgainIsSuperseded)
                    {
                        return Ok(Put::Published { seq });
                    }
                    let is_greater = current.as_ref().is_none_or(|current| {
                        if self.has(Defect::TheFirstOfOneNumberStays) {
                            return false;
                        }
                        signed.value > current.value || self.has(Defect::TheLastOfOneNumberStays)
                    });
                    let fits = signed.seq > seq
                        || (signed.seq == seq && is_greater)
                        || self.has(Defect::OlderValuesAreTaken);
                    (signed, fits)
                }
            };
            let allowed = signed.writer == writer || self.has(Defect::AnybodyWrites);
            if !allowed || !self.holds(id, slot, &signed) {
                return Err(error(Kind::Denied));
            }
            let others = record.values.iter().filter(|(other, _)| **other != slot);
            let others: usize = others.map(|(_, signed)| signed.value.len()).sum();
            let len = signed.value.len();
            let long = len > FACTS.max_value_len as usize && !self.has(Defect::LongValuesAreTaken);
            let full = others + len > FACTS.max_record_len as usize
                && !self.has(Defect::LongRecordsAreTaken);
            if long || full {
                return Err(error(Kind::TooLarge));
            }
            if !fits {
                return Ok(Put::Superseded { current });
            }
            let seq = signed.seq;
            record.values.insert(slot, signed);
            if !(imported && self.has(Defect::ImportsAreNotTold)) {
                state.changes.send((id, slot)).ok();
            }
            Ok(Put::Published { seq })
        })
    }

    async fn inspect(
        &self,
        id: RecordId,
        slots: Range<Slot>,
        _: Freshness,
    ) -> Result<Vec<SlotSeq>> {
        self.with(|state| {
            let record = state.record(id)?;
            let count = record.descriptor.slots() as Slot;
            let seq = |slot| record.values.get(&slot).map_or(0, |signed| signed.seq);
            let found = slots.filter(|slot| *slot < count).map(|slot| SlotSeq {
                slot,
                seq: seq(slot),
            });
            let all = self.has(Defect::InspectShowsEmptySlots);
            let mut found: Vec<_> = found.filter(|found| all || found.seq > 0).collect();
            if self.has(Defect::InspectGoesDown) {
                found.reverse();
            }
            Ok(found)
        })
    }

    fn watch(&self, id: RecordId, slots: Range<Slot>) -> Option<Listing<RecordEvent>> {
        let changes = self.with(|state| Ok(state.changes.subscribe()));
        let all = self.has(Defect::WatchTellsOfAllSlots);
        let silent = self.has(Defect::WatchIsSilentOnLag);
        let events = stream::try_unfold(changes, |changes| async move {
            let mut changes = changes?;
            let event = match changes.recv().await {
                Ok(change) => Some(change),
                Err(broadcast::error::RecvError::Lagged(_)) => None,
                Err(broadcast::error::RecvError::Closed) => return Err(error(Kind::Closed)),
            };
            Ok(Some((event, Ok(changes))))
        });
        let events = events.filter_map(move |event| {
            let event = match event {
                Ok(None) => (!silent).then_some(Ok(RecordEvent::Resync)),
                Ok(Some((changed, slot))) => {
                    let told = changed == id && (all || slots.contains(&slot));
                    told.then(|| {
                        Ok(RecordEvent::Changed {
                            slots: vec![slot],
                            value: None,
                        })
                    })
                }
                Err(error) => Some(Err(error)),
            };
            std::future::ready(event)
        });
        Some(Box::pin(events))
    }

    async fn forget(&self, id: RecordId) -> Result<()> {
        self.with(|state| match state.record(id) {
            Ok(record) if self.has(Defect::ForgetKeepsValues) => {
                record.known = false;
                Ok(())
            }
            Err(error) if self.has(Defect::ForgetOfUnknownFails) => Err(error),
            _ => {
                state.records.remove(&id);
                Ok(())
            }
        })
    }
}
