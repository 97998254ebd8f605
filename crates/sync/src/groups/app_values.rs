//! Small values that the whole group shares. Each device that may write has a record of its own for them; of what
//! several wrote, the value with the greatest number counts. Who may read the group reads them.

use std::collections::BTreeSet;

use bytes::Bytes;
use larder_store_api::{
    Error, Freshness, Kind, PublicKey, PutRecord, RecordId, RecordStore, Result, SeqExpect, Signed,
    Slot,
};

use super::Group;
use crate::{
    keys::ReadKey,
    membership::Rights,
    records::{
        self, APP_SLOTS, FIRST_APP, GROUP_NAME, MAX_NUMBER, VALUE_SLOTS, open_app_value,
        open_group_name, seal_app_value, seal_group_name,
    },
};

const GET: &str = "sync.group.record_get";
const PUT: &str = "sync.group.record_put";

/// A value as one device wrote it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) device: PublicKey,
    pub(super) number: u64,
    pub(super) signed: Signed,
    content: Bytes,
}

/// A value that a group shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordValue {
    /// The value, never empty.
    pub value: Bytes,
    /// Its number.
    pub seq: u64,
}

/// The outcome of a [`record_put`](Group::record_put).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordPut {
    /// It is durable, and goes to the other members.
    Published {
        /// Its number.
        seq: u64,
    },
    /// Not written: there is something else than was expected.
    Superseded {
        /// The current value; `None` if the slot is empty.
        current: Option<RecordValue>,
    },
}

impl Group {
    /// Returns the number of the app's values in the group; their slots count from 0. Each
    /// has at most [`MAX_APP_VALUE_LEN`](crate::records::MAX_APP_VALUE_LEN) bytes.
    pub fn record_len(&self) -> u16 {
        APP_SLOTS
    }

    /// A value that the group shares, the newest that has come here; `None` if the slot is empty.
    ///
    /// # Errors
    /// [`Kind::Denied`] to a replica; [`Kind::Invalid`] for a slot that there is not.
    pub async fn record_get(&self, slot: u16) -> Result<Option<RecordValue>> {
        self.check_open(GET)?;
        self.check_reads(GET)?;
        let slot = app_slot(GET, slot)?;
        let found = self.newest_value(slot).await?;
        Ok(found.and_then(value_of))
    }

    /// Writes a value that the group shares; an empty one empties the slot. Durable when it returns.
    ///
    /// With [`SeqExpect::At`] it is written only where the value that is there has this number, with
    /// [`SeqExpect::Absent`] only where the slot is empty. That is as far as is known here: of what two
    /// members write before they have met, one stays, the same everywhere, and the other one's
    /// [`Event`](super::Event) says that the value changed.
    ///
    /// # Errors
    /// [`Kind::Denied`] if this device may not write; [`Kind::TooLarge`] for a value
    /// over [`MAX_APP_VALUE_LEN`](crate::records::MAX_APP_VALUE_LEN); [`Kind::Invalid`] for a slot that there
    /// is not.
    pub async fn record_put(
        &self,
        slot: u16,
        value: &[u8],
        expect: SeqExpect,
    ) -> Result<RecordPut> {
        let _open = self.enter(PUT)?;
        self.demand(PUT, Rights::WRITE)?;
        let slot = app_slot(PUT, slot)?;
        let put = self.put_value_if(PUT, slot, Some(expect), |key, id, number| {
            seal_app_value(key, id, slot, number, value)
        });
        put.await
    }

    /// Writes a value of ours with the next number.
    pub(super) async fn put_value(
        &self,
        operation: &'static str,
        slot: Slot,
        seal: impl Fn(&ReadKey, RecordId, u64) -> Result<Bytes>,
    ) -> Result<RecordPut> {
        self.put_value_if(operation, slot, None, seal).await
    }

    async fn put_value_if(
        &self,
        operation: &'static str,
        slot: Slot,
        expect: Option<SeqExpect>,
        seal: impl Fn(&ReadKey, RecordId, u64) -> Result<Bytes>,
    ) -> Result<RecordPut> {
        self.demand(operation, Rights::WRITE)?;
        let keys = self.sealing(operation).await?;
        let _one = self.numbering().await;
        let newest = self.newest_value(slot).await?;
        let last = newest.as_ref().map_or(0, |found| found.number);
        let current = newest.and_then(value_of);
        let is_expected = match (expect, &current) {
            (None | Some(SeqExpect::Any), _) => true,
            (Some(SeqExpect::At(seq)), Some(current)) => current.seq == seq,
            (Some(SeqExpect::At(_)), None) => false,
            (Some(SeqExpect::Absent), current) => current.is_none(),
        };
        if !is_expected {
            return Ok(RecordPut::Superseded { current });
        }
        let number = last + 1;
        if number > MAX_NUMBER {
            let message = "the value was written more often than can be";
            return Err(Error::new(Kind::Full, operation, message).with("group", self.id()));
        }
        self.put_numbered(slot, &keys, number, seal).await?;
        Ok(RecordPut::Published { seq: number })
    }

    async fn put_numbered(
        &self,
        slot: Slot,
        keys: &crate::keyring::EpochKeys,
        number: u64,
        seal: impl Fn(&ReadKey, RecordId, u64) -> Result<Bytes>,
    ) -> Result<()> {
        let record = records::values_record(self.id(), self.device());
        let id = self.records().create(record).await?;
        let write = PutRecord::Write {
            value: seal(keys.read()?, id, number)?,
            writer: self.device_secret(),
            expect: SeqExpect::Any,
        };
        self.records().put(id, slot, write).await?;
        self.value_changed(self.device(), slot);
        Ok(())
    }

    /// The devices that may share values with the group now.
    pub(crate) fn value_devices(&self) -> BTreeSet<PublicKey> {
        let (state, now) = (self.state(), self.inner().now());
        let members = state.members.iter();
        let writers = members.filter(|(_, member)| member.rights(now).covers(Rights::WRITE));
        writers.map(|(device, _)| *device).collect()
    }

    /// The value with the greatest number that a device wrote who may write; what cannot be opened counts as none.
    pub(super) async fn newest_value(&self, slot: Slot) -> Result<Option<Found>> {
        let mut newest: Option<Found> = None;
        for device in self.value_devices() {
            let Some(found) = self.value_by(device, slot).await? else {
                continue;
            };
            let order = |found: &Found| (found.number, found.device);
            if newest
                .as_ref()
                .is_none_or(|newest| order(&found) > order(newest))
            {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    async fn value_by(&self, device: PublicKey, slot: Slot) -> Result<Option<Found>> {
        let id = records::values_id(self.id(), device);
        let found = self.records().get(id, slot, Freshness::Local).await;
        let found = match found {
            // Nothing of it has come yet.
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            found => self.unless_damaged(id, slot, found)?,
        };
        let Some(signed) = found else {
            return Ok(None);
        };
        let opened = self.keyring().open_read(&signed.value, |key| match slot {
            GROUP_NAME => {
                let (number, name) = open_group_name(key, id, &signed.value)?;
                Ok((number, Bytes::from(name)))
            }
            _ => open_app_value(key, id, slot, &signed.value),
        });
        match opened {
            Ok((number, content)) => Ok(Some(Found {
                device,
                number,
                signed,
                content,
            })),
            Err(error) => {
                tracing::debug!(group = %self.id(), slot, %error, "a device shares what is no value");
                Ok(None)
            }
        }
    }

    /// The values that count and that one of these devices wrote.
    pub(super) async fn values_of(&self, devices: &BTreeSet<PublicKey>) -> Result<Vec<Taken>> {
        let mut taken = Vec::new();
        if !self.can_read() {
            return Ok(taken);
        }
        for slot in 0..VALUE_SLOTS {
            if let Some(found) = self.newest_value(slot).await?
                && devices.contains(&found.device)
            {
                taken.push(Taken(slot, found));
            }
        }
        Ok(taken)
    }

    /// Writes values of others as ours, with their numbers: those who wrote them are out.
    pub(super) async fn take_over(&self, values: Vec<Taken>) -> Result<()> {
        if values.is_empty() || !self.can_write() {
            return Ok(());
        }
        let keys = self.sealing(PUT).await?;
        let _one = self.numbering().await;
        for Taken(slot, found) in values {
            let seal = |key: &ReadKey, id, number| match slot {
                GROUP_NAME => {
                    let name = str::from_utf8(&found.content).unwrap_or_default();
                    seal_group_name(key, id, number, name)
                }
                _ => seal_app_value(key, id, slot, number, &found.content),
            };
            self.put_numbered(slot, &keys, found.number, seal).await?;
        }
        Ok(())
    }
}

/// A value to take over, with its slot.
pub(super) struct Taken(Slot, Found);

/// An emptied slot is like one that never had a value, except for its number.
fn value_of(found: Found) -> Option<RecordValue> {
    let value = found.content;
    (!value.is_empty()).then_some(RecordValue {
        value,
        seq: found.number,
    })
}

/// The slot of a record of values that is the app's slot with this number.
fn app_slot(operation: &'static str, slot: u16) -> Result<Slot> {
    if slot < APP_SLOTS {
        return Ok(FIRST_APP + slot);
    }
    let message = format!("an app has {APP_SLOTS} values in a group");
    Err(Error::new(Kind::Invalid, operation, message).with("slot", slot))
}
