//! The contents of the slots of the records of a group.
//!
//! ```text
//! record of values owner: a device, 65 slots; and one that names the group
//!   0              the group's name: version u8 = 1 | number u64 | text            read key
//!   1..            a value of the app's: version u8 = 1 | number u64 | value       read key
//! repo's record    owner: the repo's key, 64 slots; and one that names the group
//!   0              profile: JSON {"name": text}                                    read key
//!   1              root: version u8 = 1 | hash [32] | level u8 | files u64 | bytes u64
//!                  | time i64 | earlier u8 | for each: hash [32], level u8, time i64
//!                                                                                  locate key
//!   2..            a route: version u8 = 1 | expires i64 | address                 locate key
//! ```
//!
//! Each value is sealed for its slot ([`value`](crate::seal::value)), under the named key. Times are in
//! milliseconds since 1970. Of the values that several devices wrote, the one with the greatest number counts, and of
//! equal numbers that of the greater device.

mod app;
mod limits;
mod root;
mod route;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use larder_store_api::{Error, Kind, RecordId, Result, Slot};
use serde::{Deserialize, Serialize};

#[cfg(fuzzing)]
pub(crate) use self::app::decode_app_value;
pub use self::{
    app::{MAX_APP_VALUE_LEN, open_app_value, seal_app_value},
    limits::{MAX_SEQ, check_device_value, check_repo_value},
    root::{Earlier, RepoRoot},
    route::Route,
};
pub use crate::ids::{
    APP_SLOTS, FIRST_APP, FIRST_ROUTE, GROUP_NAME, REPO_PROFILE, REPO_ROOT, REPO_SLOTS,
    VALUE_SLOTS, repo_id, repo_record, values_id, values_record,
};
use crate::{
    codec::Fields,
    keys::ReadKey,
    seal::value::{open_value, seal_value},
};

/// The version of every layout here.
pub const VERSION: u8 = 1;

/// The longest name of a group or of a member, in bytes.
pub const MAX_LABEL_LEN: usize = 1024;

/// The longest address in a route or an invite, in bytes.
pub const MAX_ADDRESS_LEN: usize = 1024;

/// The greatest number of a value that devices share: nobody who writes can use the numbers up.
pub const MAX_NUMBER: u64 = 1 << 48;

/// The most earlier roots that a repo's record lists.
pub const MAX_EARLIER: usize = 64;

const NAME: &str = "sync.group.name";
const PROFILE: &str = "sync.repo.profile";

fn check_label(operation: &'static str, label: &str) -> Result<()> {
    if label.len() <= MAX_LABEL_LEN {
        return Ok(());
    }
    let message = format!("a name has at most {MAX_LABEL_LEN} bytes");
    Err(Error::new(Kind::TooLarge, operation, message).with("len", label.len()))
}

fn check_slot(operation: &'static str, slot: Slot, first: Slot, slots: u16) -> Result<()> {
    if (first..slots).contains(&slot) {
        return Ok(());
    }
    let message = "the record has something else in this slot";
    Err(Error::new(Kind::Invalid, operation, message).with("slot", slot))
}

/// Seals a group's name for its slot, with its number.
pub fn seal_group_name(key: &ReadKey, record: RecordId, number: u64, name: &str) -> Result<Bytes> {
    check_label(NAME, name)?;
    let plain = [&[VERSION], &number.to_be_bytes()[..], name.as_bytes()].concat();
    seal_value(key, record, GROUP_NAME, &plain)
}

/// Opens a group's name, and its number.
pub fn open_group_name(key: &ReadKey, record: RecordId, sealed: &[u8]) -> Result<(u64, String)> {
    decode_name(&open_value(key, record, GROUP_NAME, sealed)?)
}

pub(crate) fn decode_name(plain: &[u8]) -> Result<(u64, String)> {
    let mut fields = Fields::versioned(NAME, VERSION, plain)?;
    let number = take_number(&mut fields)?;
    let name = text(NAME, fields)?;
    check_label(NAME, &name)?;
    Ok((number, name))
}

fn take_number(fields: &mut Fields<'_>) -> Result<u64> {
    match fields.u64()? {
        number if number <= MAX_NUMBER => Ok(number),
        number => Err(fields
            .invalid("a value has a number beyond all that writers give")
            .with("number", number)),
    }
}

fn text(operation: &'static str, rest: Fields<'_>) -> Result<String> {
    String::from_utf8(rest.rest().to_vec()).map_err(|error| {
        Error::new(Kind::Invalid, operation, "the value is not valid UTF-8").because(error)
    })
}

/// The data that a member publishes about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The member's name. Later versions may add fields.
    pub name: String,
}

impl Profile {
    /// Seals the profile for its slot.
    pub fn seal(&self, key: &ReadKey, repo: RecordId) -> Result<Bytes> {
        check_label(PROFILE, &self.name)?;
        let plain = serde_json::to_vec(self).map_err(|error| {
            Error::new(Kind::Internal, PROFILE, "it cannot be written").because(error)
        })?;
        seal_value(key, repo, REPO_PROFILE, &plain)
    }

    /// Opens a profile.
    pub fn open(key: &ReadKey, repo: RecordId, sealed: &[u8]) -> Result<Self> {
        Self::decode(&open_value(key, repo, REPO_PROFILE, sealed)?)
    }

    pub(crate) fn decode(plain: &[u8]) -> Result<Self> {
        let profile: Self = serde_json::from_slice(plain).map_err(|error| {
            Error::new(Kind::Invalid, PROFILE, "the value is not a valid profile").because(error)
        })?;
        check_label(PROFILE, &profile.name)?;
        Ok(profile)
    }
}
