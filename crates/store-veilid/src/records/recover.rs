//! Puts values again that were put here and that Veilid has lost.

use larder_store_api::{Result, SeqExpect};
use larder_veilid_node::veilid_core::DHTReportScope;

use super::{
    network::{Network, Reach, Write},
    open::Record,
};

impl Network {
    /// Puts the values again that were put here and are no longer in the node.
    pub(super) async fn recover(&self, record: &Record) -> Result<()> {
        const OPERATION: &str = "record.recover";
        let noted = self.journal.of(record.id).await?;
        if noted.is_empty() {
            return Ok(());
        }
        let descriptor = self.known.get(OPERATION, record.id).await?;
        for noted in noted {
            let slots = u32::from(noted.slot)..u32::from(noted.slot) + 1;
            let here = match self.open(OPERATION, record, Reach::Here).await? {
                Some(_open) => {
                    let report = self.report(OPERATION, record.id, &slots, DHTReportScope::Local);
                    report.await?.first().and_then(|seqs| seqs.here)
                }
                None => None,
            };
            if here >= Some(noted.seq) {
                continue;
            }
            tracing::info!(record = %record.id, slot = noted.slot, "a value is put again");
            let secret = self.journal.writer(noted.writer).await?;
            let pair = self.key_pair(OPERATION, noted.writer, &secret).await?;
            let write = Write {
                slot: noted.slot,
                value: noted.value,
                pair,
                expect: SeqExpect::Any,
            };
            let pair = &write.pair;
            let opened = self.open_to_write(OPERATION, record, &descriptor, pair);
            let (_open, _) = opened.await?;
            // If the network has a newer value by now, that one stays.
            drop(self.set(OPERATION, record.id, &write, noted.seq).await?);
        }
        Ok(())
    }

    /// Puts the missing values of all records again.
    pub(super) async fn recover_all(&self) -> Result<()> {
        for id in self.journal.records().await? {
            self.record(id).await?;
        }
        Ok(())
    }
}
