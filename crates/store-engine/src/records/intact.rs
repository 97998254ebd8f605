//! Reads the intact values of a record that is partly damaged.

use std::ops::Range;

use larder_store_api::{Error, RecordId, Result, Signed, Slot};

use super::Records;

/// The stored values of a record, damaged or not.
#[derive(Debug, Default)]
pub struct Intact {
    /// The intact values, in ascending order of slots.
    pub values: Vec<(Slot, Signed)>,
    /// The slots whose stored value does not decode or verify, ascending, each with the error.
    pub damaged: Vec<(Slot, Error)>,
}

impl Records {
    /// Returns the values as [`values`](Self::values) does, but a damaged value does not hide the
    /// others. A damaged value can be repaired by importing it again, and must not be treated as
    /// absent. Any other problem is an error.
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
