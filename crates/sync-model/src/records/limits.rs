//! Bounds of the values that others sign: what is beyond them is not stored, and not passed on.
//!
//! The sum of the longest values of a record fits into it. So nothing that one writer has signed keeps another value
//! out, whatever came first, and any two devices can always store what the other one has.

use larder_store_api::{Error, Kind, Result, Signed, Slot};
use larder_store_engine::MAX_RECORD_LEN;

use super::{
    APP_SLOTS, FIRST_ROUTE, GROUP_NAME, MAX_ADDRESS_LEN, MAX_APP_VALUE_LEN, MAX_EARLIER,
    MAX_LABEL_LEN, REPO_PROFILE, REPO_ROOT, REPO_SLOTS,
};
use crate::seal::value::OVERHEAD;

/// The greatest sequence number that is taken from others: nobody writes that often, and whoever replaces a value
/// finds a greater number.
pub const MAX_SEQ: u64 = 1 << 48;

const LIMIT: &str = "sync.value.limit";

/// A character of a name has at most six in JSON.
const PROFILE_LEN: usize = r#"{"name":""}"#.len() + 6 * MAX_LABEL_LEN + OVERHEAD;
const ROOT_LEN: usize = 59 + 41 * MAX_EARLIER + OVERHEAD;
const ROUTE_LEN: usize = 1 + 8 + MAX_ADDRESS_LEN + OVERHEAD;
const NAME_LEN: usize = 1 + 8 + MAX_LABEL_LEN + OVERHEAD;
const APP_LEN: usize = 1 + 8 + MAX_APP_VALUE_LEN + OVERHEAD;

const _: () = {
    let routes = (REPO_SLOTS - FIRST_ROUTE) as usize * ROUTE_LEN;
    assert!(PROFILE_LEN + ROOT_LEN + routes <= MAX_RECORD_LEN as usize);
    let app = APP_SLOTS as usize * APP_LEN;
    assert!(NAME_LEN + app <= MAX_RECORD_LEN as usize);
};

/// Refuses a value of a repo's record that no device writes; [`Kind::TooLarge`] if it is too long or its number too
/// great. Its writer signed it, so whoever passes it on is not at fault.
pub fn check_repo_value(slot: Slot, signed: &Signed) -> Result<()> {
    let longest = match slot {
        REPO_PROFILE => PROFILE_LEN,
        REPO_ROOT => ROOT_LEN,
        _ => ROUTE_LEN,
    };
    check(slot, longest, signed)
}

/// Refuses a value of a device's record of values that no device writes, as [`check_repo_value`] does.
pub fn check_device_value(slot: Slot, signed: &Signed) -> Result<()> {
    let longest = match slot {
        GROUP_NAME => NAME_LEN,
        _ => APP_LEN,
    };
    check(slot, longest, signed)
}

fn check(slot: Slot, longest: usize, signed: &Signed) -> Result<()> {
    if signed.value.len() <= longest && signed.seq <= MAX_SEQ {
        return Ok(());
    }
    let message = "the value is longer, or its number greater, than any that a device writes";
    let error = Error::new(Kind::TooLarge, LIMIT, message).with("slot", slot);
    Err(error
        .with("len", signed.value.len())
        .with("seq", signed.seq))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use larder_store_api::PublicKey;

    use super::*;
    use crate::records::FIRST_APP;

    fn signed(seq: u64, len: usize) -> Signed {
        Signed {
            seq,
            value: Bytes::from(vec![0; len]),
            writer: PublicKey([1; 32]),
            signature: Bytes::new(),
        }
    }

    #[test]
    fn each_slot_takes_what_fits_it_and_no_more() {
        for (slot, len) in [
            (REPO_PROFILE, PROFILE_LEN),
            (REPO_ROOT, ROOT_LEN),
            (FIRST_ROUTE, ROUTE_LEN),
            (REPO_SLOTS - 1, ROUTE_LEN),
        ] {
            check_repo_value(slot, &signed(MAX_SEQ, len)).unwrap();
            for wrong in [signed(1, len + 1), signed(MAX_SEQ + 1, len)] {
                let error = check_repo_value(slot, &wrong).unwrap_err();
                assert_eq!(error.kind(), Kind::TooLarge);
            }
        }
        for (slot, len) in [(GROUP_NAME, NAME_LEN), (FIRST_APP, APP_LEN)] {
            check_device_value(slot, &signed(1, len)).unwrap();
            assert!(check_device_value(slot, &signed(1, len + 1)).is_err());
        }
    }
}
