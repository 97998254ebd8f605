//! Writes a slot: reads it, decides, and commits the decision if nothing changed meanwhile.

use larder_store_api::{Batch, Kind, Put, PutRecord, RecordId, Result, Slot};

use super::{
    MAX_ATTEMPTS, Records,
    decide::{PUT, Wanted},
    limits,
    stage::Staging,
    too_busy,
};

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
            let state = self.read_slot(id, slot, writer).await?;
            let mut staging = Staging::default();
            let put = self.stage(&mut staging, record, &state, &wanted).await?;
            if staging.is_empty() {
                // The current value may come from a commit that is not durable yet.
                self.collections.make_durable().await?;
                return Ok(put);
            }
            let (expect, edits) = staging.batch()?;
            let mut batch = Batch::of(edits);
            batch.expect = expect;
            match self.collections.commit_reserved(batch).await {
                Ok(_) => return Ok(put),
                // Somebody changed this slot, or the record's sum through another slot: read again.
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(too_busy(PUT, id))
    }
}
