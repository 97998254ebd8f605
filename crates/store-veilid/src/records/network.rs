//! Reads and writes slots, locally and on the network.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use larder_store_api::{
    CollectionStore, Error, Freshness, Kind, PublicKey, Put, RecordDescriptor, RecordId, Result,
    SecretKey, SeqExpect, Signed, Slot, SlotSeq,
};
use larder_veilid_node::{
    Node, api_error,
    veilid_core::{
        AllowOffline, BareSecretKey, CRYPTO_KIND_VLD0, DHTReportScope, KeyPair,
        OpenDHTRecordOptions, RecordKey, RoutingContext, SetDHTValueOptions, ValueData,
        ValueSeqNum, ValueSubkeyRangeSet, VeilidAPIError,
    },
};
use tokio::{runtime::Handle, sync::RwLockReadGuard};

use crate::VeilidSecrets;

use super::{
    journal::{Journal, Noted},
    known::Known,
    limits,
    open::{Record, State, Table},
    retry::retrying,
    watches::Watches,
};

/// The number of times that a write without expectations is repeated on top of a newer value that it found.
const MAX_OVERTAKEN: usize = 4;

/// A node's records.
#[derive(Debug)]
pub(super) struct Network {
    /// Dropped before the node, which makes sure that Veilid's last handle is dropped in a runtime.
    pub(super) context: RoutingContext,
    pub(super) node: Node,
    pub(super) known: Known,
    pub(super) watches: Watches,
    pub(super) runtime: Handle,
    table: Table,
    pub(super) journal: Journal,
}

/// A value to write into a slot.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) slot: Slot,
    pub(super) value: Bytes,
    pub(super) pair: KeyPair,
    pub(super) expect: SeqExpect,
}

/// Tells whether the record existed before the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Before,
    Now,
}

/// The places to look for a record that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Here,
    Network,
}

/// Returns the key that may write the slot; [`Kind::Invalid`] if the record has no such slot.
pub(super) fn writer_of(
    operation: &'static str,
    id: RecordId,
    descriptor: &RecordDescriptor,
    slot: Slot,
) -> Result<PublicKey> {
    descriptor.writer_of(slot).ok_or_else(|| {
        let error = Error::new(Kind::Invalid, operation, "the record has no such slot");
        error.with("record", id).with("slot", slot)
    })
}

/// Converts a sequence number to ours: Veilid begins at 0.
fn seq(number: ValueSeqNum) -> Option<u64> {
    number.to_option().map(|number| u64::from(number) + 1)
}

fn range(slots: &Range<u32>) -> ValueSubkeyRangeSet {
    ValueSubkeyRangeSet::single_range(slots.start, slots.end - 1)
}

impl Network {
    pub(super) fn new(
        node: Node,
        context: RoutingContext,
        runtime: Handle,
        known: Arc<dyn CollectionStore>,
    ) -> Self {
        Self {
            watches: Watches::default(),
            runtime,
            context,
            journal: Journal::new(Arc::clone(&known), VeilidSecrets::new(node.clone())),
            node,
            known: Known::new(known),
            table: Table::default(),
        }
    }

    /// Returns the record, after closing records that were idle for long, and putting again the values
    /// of this one that Veilid has lost.
    pub(super) async fn record(&self, id: RecordId) -> Result<Arc<Record>> {
        let record = self.record_as_it_is(id).await;
        let recover = || self.recover(&record);
        record.recovered.get_or_try_init(recover).await?;
        Ok(record)
    }

    pub(super) async fn record_as_it_is(&self, id: RecordId) -> Arc<Record> {
        let (record, idle) = self.table.get(id);
        for idle in idle {
            // Nobody else has this handle, or will get it. The record may be in use under a new entry
            // by now, which then finds it closed and opens it again.
            let mut state = idle.state.write().await;
            if *state == State::Open {
                let closed = self.context.close_dht_record(limits::record_key(idle.id));
                if let Err(error) = closed.await {
                    tracing::debug!(record = %idle.id, %error, "an idle record did not close");
                }
                *state = State::Closed;
            }
        }
        record
    }

    /// Returns true if the node has a connection that looks usable.
    pub(super) fn is_attached(&self) -> bool {
        let attachment = self.node.updates().attachment();
        let attachment = attachment.borrow();
        attachment.public_internet_ready || attachment.local_network_ready
    }

    fn offline(operation: &'static str, id: RecordId) -> Error {
        let message = "the node is not attached to the network";
        Error::new(Kind::Unavailable, operation, message).with("record", id)
    }

    /// Opens the record; `None` if there is none. It stays open while the guard lives.
    pub(super) async fn open<'a>(
        &self,
        operation: &'static str,
        record: &'a Record,
        reach: Reach,
    ) -> Result<Option<RwLockReadGuard<'a, State>>> {
        let state = record.state.read().await;
        if *state == State::Open {
            return Ok(Some(state));
        }
        drop(state);
        // Somebody else may open it in between.
        let mut state = record.state.write().await;
        if *state == State::Closed && !self.open_closed(operation, record.id, reach).await? {
            return Ok(None);
        }
        *state = State::Open;
        Ok(Some(state.downgrade()))
    }

    async fn open_closed(
        &self,
        operation: &'static str,
        id: RecordId,
        reach: Reach,
    ) -> Result<bool> {
        let key = limits::record_key(id);
        if reach == Reach::Here && !self.is_held(operation, &key).await? {
            return Ok(false);
        }
        // Only an inspection of the network lets the node see whether others still have the record.
        let options = OpenDHTRecordOptions {
            rehydrate: Some(reach == Reach::Network),
        };
        let opened = retrying(operation, async || {
            let opened = self
                .context
                .open_dht_record(key.clone(), None, Some(options.clone()));
            match opened.await {
                Ok(_) => Ok(true),
                Err(VeilidAPIError::KeyNotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        });
        opened.await.map_err(|error| error.with("record", id))
    }

    /// Returns true if the node itself holds the record. Closing a record that is held but not open
    /// does nothing; closing one that is not held is an error. Neither asks the network.
    async fn is_held(&self, operation: &'static str, key: &RecordKey) -> Result<bool> {
        match self.context.close_dht_record(key.clone()).await {
            Ok(()) => Ok(true),
            // Only the mock reports that it is not open; opening it tells the rest.
            Err(VeilidAPIError::InvalidArgument { .. }) => Ok(true),
            Err(VeilidAPIError::KeyNotFound { .. }) => Ok(false),
            Err(error) => Err(api_error(operation, error)),
        }
    }

    fn signed(operation: &'static str, id: RecordId, value: &ValueData) -> Result<Signed> {
        let writer = value.ref_writer().ref_value();
        let (Some(seq), Ok(writer)) = (seq(value.seq()), <[u8; 32]>::try_from(&writer[..])) else {
            let message = "Veilid gave a value without number or writer";
            return Err(Error::new(Kind::Internal, operation, message).with("record", id));
        };
        Ok(Signed {
            value: value.data_bytes(),
            seq,
            writer: PublicKey(writer),
            signature: Bytes::new(),
        })
    }

    pub(super) async fn read(
        &self,
        operation: &'static str,
        record: &Record,
        slot: Slot,
        fresh: Freshness,
    ) -> Result<Option<Signed>> {
        if fresh != Freshness::Network {
            let found = self.read_here(operation, record, slot).await?;
            if found.is_some() || fresh == Freshness::Local {
                return Ok(found);
            }
        }
        self.read_network(operation, record, slot).await
    }

    async fn read_here(
        &self,
        operation: &'static str,
        record: &Record,
        slot: Slot,
    ) -> Result<Option<Signed>> {
        let Some(_open) = self.open(operation, record, Reach::Here).await? else {
            return Ok(None);
        };
        // Getting a value that is not here would ask the network.
        let slots = u32::from(slot)..u32::from(slot) + 1;
        let report = self.report(operation, record.id, &slots, DHTReportScope::Local);
        match report.await?.iter().any(|found| found.here.is_some()) {
            true => self.value(operation, record.id, slot, false).await,
            false => Ok(None),
        }
    }

    /// A get alone may return an old value, or none, if the network is gone; only an inspection fails
    /// then.
    async fn read_network(
        &self,
        operation: &'static str,
        record: &Record,
        slot: Slot,
    ) -> Result<Option<Signed>> {
        if !self.is_attached() {
            return Err(Self::offline(operation, record.id));
        }
        let Some(_open) = self.open(operation, record, Reach::Network).await? else {
            return Ok(None);
        };
        let slots = u32::from(slot)..u32::from(slot) + 1;
        let report = self.report(operation, record.id, &slots, DHTReportScope::SyncGet);
        let report = report.await?;
        let Some(newest) = report.first().and_then(Seqs::newest) else {
            return Ok(None);
        };
        let there = report.first().and_then(|seqs| seqs.there).is_some();
        let found = self.value(operation, record.id, slot, there).await?;
        if found.as_ref().is_none_or(|found| found.seq < newest) {
            let message = "the network has a newer value and did not give it";
            return Err(Error::new(Kind::Unavailable, operation, message)
                .with("record", record.id)
                .with("slot", slot));
        }
        Ok(found)
    }

    async fn value(
        &self,
        operation: &'static str,
        id: RecordId,
        slot: Slot,
        refresh: bool,
    ) -> Result<Option<Signed>> {
        let key = limits::record_key(id);
        let value = retrying(operation, async || {
            let value = self
                .context
                .get_dht_value(key.clone(), slot.into(), refresh);
            value.await
        });
        let value = value.await.map_err(|error| error.with("record", id))?;
        value
            .map(|value| Self::signed(operation, id, &value))
            .transpose()
    }

    /// Returns the local and remote sequence numbers of each of the slots, of which there must be at
    /// least one.
    pub(super) async fn report(
        &self,
        operation: &'static str,
        id: RecordId,
        slots: &Range<u32>,
        scope: DHTReportScope,
    ) -> Result<Vec<Seqs>> {
        let key = limits::record_key(id);
        let report = retrying(operation, async || {
            let slots = Some(range(slots));
            let report = self.context.inspect_dht_record(key.clone(), slots, scope);
            report.await
        });
        let report = report.await.map_err(|error| error.with("record", id))?;
        let seqs = report.local_seqs().iter().zip(report.network_seqs());
        let seqs = report.subkeys().iter().zip(seqs);
        let seqs = seqs.map(|(slot, (here, there))| Seqs {
            slot: slot as Slot,
            here: seq(*here),
            there: seq(*there),
            queued: report.offline_subkeys().idx_of_subkey(slot).is_some(),
        });
        Ok(seqs.collect())
    }

    pub(super) async fn inspect(
        &self,
        operation: &'static str,
        record: &Record,
        slots: Range<u32>,
        fresh: Freshness,
    ) -> Result<Vec<SlotSeq>> {
        let found = async |reach, scope| -> Result<Vec<SlotSeq>> {
            let Some(_open) = self.open(operation, record, reach).await? else {
                return Ok(Vec::new());
            };
            let report = self.report(operation, record.id, &slots, scope).await?;
            let found = report.iter().filter_map(|seqs| {
                let slot = seqs.slot;
                seqs.newest().map(|seq| SlotSeq { slot, seq })
            });
            Ok(found.collect())
        };
        if fresh != Freshness::Network {
            let found = found(Reach::Here, DHTReportScope::Local).await?;
            if !found.is_empty() || fresh == Freshness::Local {
                return Ok(found);
            }
        }
        if !self.is_attached() {
            return Err(Self::offline(operation, record.id));
        }
        found(Reach::Network, DHTReportScope::SyncGet).await
    }

    /// Returns the writer's key pair; [`Kind::Denied`] if the secret does not belong to the slot's
    /// writer.
    pub(super) async fn key_pair(
        &self,
        operation: &'static str,
        public: PublicKey,
        secret: &SecretKey,
    ) -> Result<KeyPair> {
        let public = limits::veilid_key(public);
        let pair = KeyPair::new_from_parts(public.clone(), BareSecretKey::new(secret.expose()));
        let crypto = self.node.api().crypto();
        let crypto = crypto.map_err(|error| api_error(operation, error))?;
        let crypto = crypto.get_async(CRYPTO_KIND_VLD0).ok_or_else(|| {
            let message = "the node has no cryptography of kind VLD0";
            Error::new(Kind::Unsupported, operation, message)
        })?;
        let matches = crypto.validate_keypair(&public, &pair.secret()).await;
        match matches.map_err(|error| api_error(operation, error))? {
            true => Ok(pair),
            false => {
                let message = "only the slot's writer may write it";
                Err(Error::new(Kind::Denied, operation, message))
            }
        }
    }

    pub(super) async fn write(
        &self,
        operation: &'static str,
        id: RecordId,
        descriptor: &RecordDescriptor,
        write: Write,
        secret: SecretKey,
    ) -> Result<Put> {
        // This comes first: if the record was lost, its noted values can be put again with the writer's
        // key.
        let writer = descriptor.writer_of(write.slot);
        if let Some(writer) = writer {
            self.journal.keep_writer(writer, &secret).await?;
        }
        let record = self.record(id).await?;
        let _one = record.putting.lock().await;
        let (_open, made) = self
            .open_to_write(operation, &record, descriptor, &write.pair)
            .await?;
        if write.expect != SeqExpect::Any {
            // If nobody had the record a moment ago, a second look, which takes seconds, is
            // unnecessary.
            let fresh = match self.is_attached() && made == Made::Before {
                true => Freshness::Network,
                false => Freshness::Local,
            };
            let current = self.read(operation, &record, write.slot, fresh).await?;
            let holds = match (write.expect, &current) {
                (SeqExpect::At(expected), Some(current)) => current.seq == expected,
                (SeqExpect::At(_), None) => false,
                (SeqExpect::Absent | SeqExpect::Any, current) => current.is_none(),
            };
            if !holds {
                return Ok(Put::Superseded { current });
            }
        }
        let mut put = self.set(operation, id, &write, 0).await?;
        for _ in 1..MAX_OVERTAKEN {
            if write.expect != SeqExpect::Any || !matches!(put, Put::Superseded { .. }) {
                break;
            }
            // The node has stored the newer value by now, and continues after it.
            put = self.set(operation, id, &write, 0).await?;
        }
        if let (Put::Published { seq } | Put::Queued { seq }, Some(writer)) = (&put, writer) {
            let noted = Noted {
                slot: write.slot,
                seq: *seq,
                writer,
                value: write.value,
            };
            self.journal.note(id, &noted).await?;
        }
        Ok(put)
    }

    /// Writes a value with a sequence number of at least `least`.
    pub(super) async fn set(
        &self,
        operation: &'static str,
        id: RecordId,
        write: &Write,
        least: u64,
    ) -> Result<Put> {
        let key = limits::record_key(id);
        let slots = u32::from(write.slot)..u32::from(write.slot) + 1;
        let before = self.report(operation, id, &slots, DHTReportScope::Local);
        let before = before.await?.first().and_then(|seqs| seqs.here);
        // Veilid does not change an equal value, unless a greater number is requested. Our numbers are
        // one ahead of its own.
        let next = before.max(least.checked_sub(1));
        let next = next.and_then(|seq| u32::try_from(seq).ok());
        let found = retrying(operation, async || {
            let options = SetDHTValueOptions {
                writer: Some(write.pair.clone()),
                allow_offline: Some(AllowOffline(true)),
                min_seqnum: next.map(ValueSeqNum::from),
            };
            let value = write.value.to_vec();
            let set =
                self.context
                    .set_dht_value(key.clone(), write.slot.into(), value, Some(options));
            set.await
        });
        let found = found.await.map_err(|error| error.with("record", id))?;
        // If nodes differ, it returns what most of them hold, which may be this very value.
        if let Some(found) = found
            && (found.data() != write.value || found.writer() != write.pair.key())
        {
            let current = Some(Self::signed(operation, id, &found)?);
            return Ok(Put::Superseded { current });
        }
        let report = self.report(operation, id, &slots, DHTReportScope::Local);
        match report.await?.first() {
            Some(&Seqs {
                here: Some(seq),
                queued,
                ..
            }) => Ok(match queued {
                true => Put::Queued { seq },
                false => Put::Published { seq },
            }),
            _ => {
                let message = "Veilid answered that it wrote, and has no value";
                Err(Error::new(Kind::Unavailable, operation, message)
                    .with("record", id)
                    .with("slot", write.slot))
            }
        }
    }

    /// Opens the record, or makes it if its owner writes to it for the first time.
    pub(super) async fn open_to_write<'a>(
        &self,
        operation: &'static str,
        record: &'a Record,
        descriptor: &RecordDescriptor,
        writer: &KeyPair,
    ) -> Result<(RwLockReadGuard<'a, State>, Made)> {
        if let Some(open) = self.open(operation, record, Reach::Here).await? {
            return Ok((open, Made::Before));
        }
        let is_owner = writer.key() == limits::veilid_key(descriptor.owner);
        // The owner may have made it elsewhere. Offline it cannot know, and must be able to write.
        if self.is_attached() {
            if let Some(open) = self.open(operation, record, Reach::Network).await? {
                return Ok((open, Made::Before));
            }
        } else if !is_owner {
            return Err(Self::offline(operation, record.id));
        }
        if !is_owner {
            let message = "the record's owner has not published it yet";
            return Err(Error::new(Kind::Unavailable, operation, message).with("record", record.id));
        }
        let mut state = record.state.write().await;
        if *state == State::Closed {
            let schema = limits::schema(operation, self.node.api(), descriptor)?;
            let made =
                self.context
                    .create_dht_record(CRYPTO_KIND_VLD0, schema, Some(writer.clone()));
            drop(made.await.map_err(|error| api_error(operation, error))?);
            // Making it chose a key that encrypts its values; opened by its id it has none.
            let key = limits::record_key(record.id);
            let opened = self.context.open_dht_record(key, None, None).await;
            drop(opened.map_err(|error| api_error(operation, error))?);
            *state = State::Open;
        }
        Ok((state.downgrade(), Made::Now))
    }

    /// Removes the node's copy of the record.
    pub(super) async fn delete(&self, operation: &'static str, id: RecordId) -> Result<()> {
        // Values of it that Veilid has lost need not come back.
        let record = self.record_as_it_is(id).await;
        let mut state = record.state.write().await;
        *state = State::Closed;
        let deleted = self.context.delete_dht_record(limits::record_key(id)).await;
        match deleted {
            Ok(()) | Err(VeilidAPIError::KeyNotFound { .. }) => self.journal.forget(id).await,
            Err(error) => Err(api_error(operation, error)),
        }
    }
}

/// The sequence numbers of a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seqs {
    pub(super) slot: Slot,
    /// The sequence number that the node has.
    pub(super) here: Option<u64>,
    /// The sequence number that others have, if they were asked.
    pub(super) there: Option<u64>,
    /// True if the node's value waits to be sent.
    pub(super) queued: bool,
}

impl Seqs {
    pub(super) fn newest(&self) -> Option<u64> {
        self.here.max(self.there)
    }
}
