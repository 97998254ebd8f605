//! Routes: addresses at which devices can be reached.

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{Error, Kind, RecordId, Result, Slot};

use super::{FIRST_ROUTE, MAX_ADDRESS_LEN, REPO_SLOTS, VERSION, check_slot, text};
use crate::{
    codec::Fields,
    keys::LocateKey,
    seal::value::{open_value, seal_value},
};

const ROUTE: &str = "sync.repo.route";

/// A route to a repo's device, valid for a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// An address in the form that its network understands.
    pub address: String,
    /// The time at which the route expires.
    pub expires: i64,
}

impl Route {
    /// Seals the route for a slot of the repo's record.
    pub fn seal(&self, key: &LocateKey, repo: RecordId, slot: Slot) -> Result<Bytes> {
        check_slot(ROUTE, slot, FIRST_ROUTE, REPO_SLOTS)?;
        seal_value(key, repo, slot, &self.encode()?)
    }

    /// Opens a route.
    pub fn open(key: &LocateKey, repo: RecordId, slot: Slot, sealed: &[u8]) -> Result<Self> {
        check_slot(ROUTE, slot, FIRST_ROUTE, REPO_SLOTS)?;
        Self::decode(&open_value(key, repo, slot, sealed)?)
    }

    pub(crate) fn encode(&self) -> Result<Bytes> {
        self.check()?;
        let mut bytes = BytesMut::with_capacity(9 + self.address.len());
        bytes.put_u8(VERSION);
        bytes.put_i64(self.expires);
        bytes.put_slice(self.address.as_bytes());
        Ok(bytes.freeze())
    }

    pub(crate) fn decode(plain: &[u8]) -> Result<Self> {
        let mut fields = Fields::versioned(ROUTE, VERSION, plain)?;
        let expires = fields.i64()?;
        let address = text(ROUTE, fields)?;
        let route = Self { address, expires };
        route.check()?;
        Ok(route)
    }

    fn check(&self) -> Result<()> {
        if (1..=MAX_ADDRESS_LEN).contains(&self.address.len()) {
            return Ok(());
        }
        let message = format!("an address has 1 to {MAX_ADDRESS_LEN} bytes");
        Err(Error::new(Kind::Invalid, ROUTE, message).with("len", self.address.len()))
    }
}
