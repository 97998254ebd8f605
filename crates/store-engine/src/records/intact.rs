//! Reading what of a record is whole where something is damaged.

use std::ops::Range;

use larder_store_api::{Error, RecordId, Result, Signed, Slot};

use super::Records;

/// The stored values of a record, damaged or not.
#[derive(Debug, Default)]
pub struct Intact {
    /// The values that are whole, ascending.
    pub values: Vec<(Slot, Signed)>,
    /// The slots whose stored value does not decode or verify, ascending, with what is wrong.
    pub damaged: Vec<(Slot, Error)>,
}

impl Records {
    /// Returns the values as [`values`](Self::values) does, but a damaged value does not hide the
    /// others: it can be healed by importing it again, and must not be taken for absent. Any other
    /// error is one.
    pub async fn intact(&self, id: RecordId, slots: Range<Slot>) -> Result<Intact> {
        let mut found = Intact::default();
        self.each("records.intact", id, slots, |slot, signed| {
            match signed {
                Ok(signed) => found.values.push((slot, signed)),
                Err(error) => found.damaged.push((slot, error)),
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }
}
