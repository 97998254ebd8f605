//! Small values that the whole group shares, in its own record: who may write the group writes them,
//! who may read it reads them, and they come to everybody as its members do.

use bytes::Bytes;
use larder_store_api::{
    Error, Freshness, Kind, PublicKey, Put, PutRecord, RecordStore, Result, SeqExpect, Signed, Slot,
};

use super::Group;
use crate::{
    keys::ReadKey,
    records::{APP_SLOTS, FIRST_APP, FIRST_MEMBER, open_app_value, open_member, seal_app_value},
};

/// The number of times that a write without expectation is tried again after another write came
/// first.
const MAX_ATTEMPTS: usize = 64;

const GET: &str = "sync.group.record_get";
const PUT: &str = "sync.group.record_put";

/// A value of a group's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordValue {
    /// The value, never empty.
    pub value: Bytes,
    /// Its sequence number.
    pub seq: u64,
}

/// The outcome of a [`record_put`](Group::record_put).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordPut {
    /// It is durable, and goes to the other members.
    Published {
        /// Its sequence number.
        seq: u64,
    },
    /// Not written: there is something else than was expected.
    Superseded {
        /// The current value; `None` if the slot is empty.
        current: Option<RecordValue>,
    },
}

impl Group {
    /// Returns the number of the app's values in the group's record; their slots count from 0. Each
    /// has at most [`MAX_APP_VALUE_LEN`](crate::records::MAX_APP_VALUE_LEN) bytes.
    pub fn record_len(&self) -> u16 {
        APP_SLOTS
    }

    /// A value of the group's record, the newest that has come here; `None` if the slot is empty.
    ///
    /// # Errors
    /// [`Kind::Denied`] to a replica, and for a value of an epoch whose key is not held;
    /// [`Kind::Invalid`] for a slot that there is not; [`Kind::Corrupt`] if the slot's content is
    /// not a valid value, or is damaged.
    pub async fn record_get(&self, slot: u16) -> Result<Option<RecordValue>> {
        self.check_open(GET)?;
        let read = self.read_key(GET)?;
        let slot = app_slot(GET, slot)?;
        let found = self.records().get(self.id(), slot, Freshness::Local);
        match found.await? {
            Some(signed) => self.open_value(read, slot, &signed),
            None => Ok(None),
        }
    }

    /// Writes a value of the group's record; an empty one empties the slot. Durable when it returns.
    ///
    /// With [`SeqExpect::At`] it is written only where the value that is there has this number, with
    /// [`SeqExpect::Absent`] only where the slot is empty. That is as far as is known here: of what two
    /// members write before they have met, one stays, the same everywhere, and the other one's
    /// [`Event`](super::Event) says that the record changed.
    ///
    /// # Errors
    /// [`Kind::Denied`] without write access to the group's record; [`Kind::TooLarge`] for a value
    /// over [`MAX_APP_VALUE_LEN`](crate::records::MAX_APP_VALUE_LEN); [`Kind::Invalid`] for a slot that there
    /// is not; [`Kind::Corrupt`] if something is expected and the slot's content is not a valid value, and if it is
    /// damaged, until a member heals it; [`Kind::Unavailable`] if others kept coming first.
    pub async fn record_put(
        &self,
        slot: u16,
        value: &[u8],
        expect: SeqExpect,
    ) -> Result<RecordPut> {
        let _open = self.enter(PUT)?;
        let (writer, read) = (self.writer(PUT)?, self.read_key(PUT)?);
        let slot = app_slot(PUT, slot)?;
        for _ in 0..MAX_ATTEMPTS {
            let found = self.records().get(self.id(), slot, Freshness::Local);
            let found = found.await?;
            if expect != SeqExpect::Any {
                let current = match &found {
                    Some(signed) => self.open_value(read, slot, signed)?,
                    None => None,
                };
                let is_expected = match (expect, &current) {
                    (SeqExpect::At(seq), Some(current)) => current.seq == seq,
                    (SeqExpect::At(_), None) => false,
                    (_, current) => current.is_none(),
                };
                if !is_expected {
                    return Ok(RecordPut::Superseded { current });
                }
            }
            if let Some(signed) = &found
                && let Some(repo) = self.member_in(slot, signed)
            {
                self.name_elsewhere(repo).await?;
            }
            let write = PutRecord::Write {
                value: seal_app_value(read, self.id(), slot, value)?,
                writer: writer.clone(),
                // Replaces the value that was looked at, and no later one.
                expect: found.map_or(SeqExpect::Absent, |signed| SeqExpect::At(signed.seq)),
            };
            match self.records().put(self.id(), slot, write).await? {
                Put::Published { seq } | Put::Queued { seq } => {
                    self.record_changed(None, slot);
                    return Ok(RecordPut::Published { seq });
                }
                Put::Superseded { .. } => {}
            }
        }
        let message = "others wrote the value first, again and again";
        Err(Error::new(Kind::Unavailable, PUT, message)
            .with("group", self.id())
            .with("slot", slot))
    }

    fn open_value(
        &self,
        read: &ReadKey,
        slot: Slot,
        signed: &Signed,
    ) -> Result<Option<RecordValue>> {
        match open_app_value(read, self.id(), slot, &signed.value) {
            Ok(value) if value.is_empty() => Ok(None),
            Ok(value) => Ok(Some(RecordValue {
                value,
                seq: signed.seq,
            })),
            // To the app that is an empty slot: writing there moves the member.
            Err(_) if self.member_in(slot, signed).is_some() => Ok(None),
            Err(error) if error.kind() == Kind::Denied => Err(error),
            Err(error) => {
                let message = "the value in the record is not a valid sealed value";
                Err(Error::new(Kind::Corrupt, GET, message)
                    .with("group", self.id())
                    .with("slot", slot)
                    .because(error))
            }
        }
    }

    /// The repo of a member who took one of the app's slots before they were the app's.
    fn member_in(&self, slot: Slot, signed: &Signed) -> Option<PublicKey> {
        open_member(self.keys().locate(), self.id(), slot, &signed.value).ok()
    }

    /// Names a repo in a slot that is a member's, unless it is there already.
    async fn name_elsewhere(&self, repo: PublicKey) -> Result<()> {
        let _one = self.naming().await;
        let members = self.read_members(FIRST_MEMBER..FIRST_APP).await?;
        match members.iter().any(|(_, key)| *key == repo) {
            true => Ok(()),
            false => self.name_repo(repo).await,
        }
    }
}

/// The slot of the group's record that is the app's slot with this number.
fn app_slot(operation: &'static str, slot: u16) -> Result<Slot> {
    if slot < APP_SLOTS {
        return Ok(FIRST_APP + slot);
    }
    let message = format!("an app has {APP_SLOTS} slots in a group's record");
    Err(Error::new(Kind::Invalid, operation, message).with("slot", slot))
}
