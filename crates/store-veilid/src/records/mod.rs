//! Records on Veilid's DHT.
//!
//! It differs from other record stores: values cannot be signed without the node, so none can be
//! imported and [`Signed::signature`] is empty; the room of a record is divided among its slots; and a
//! record becomes visible to others when its owner first writes to it.

mod journal;
mod known;
mod limits;
mod network;
mod open;
mod recover;
mod retry;
mod watch;
mod watches;

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use larder_store_api::{
    CollectionStore, Error, Freshness, Kind, Listing, Put, PutRecord, RecordCapabilities,
    RecordDescriptor, RecordEvent, RecordId, RecordStore, Result, Signed, Slot, SlotSeq,
};
use larder_veilid_node::{Node, api_error};
use tokio::runtime::Handle;

use network::Network;

/// Records on Veilid's DHT, with the node's copies of them.
///
/// A write is durable here when it returns, and survives a loss of power: it is noted in the collection
/// `larder/veilid-values` of `known`, with its writer's secret among the node's, and put again if
/// Veilid has lost it. A write made offline is sent when the node is attached again.
///
/// Use one instance per node: two would not see each other's writes in time.
pub struct VeilidRecords(Arc<Network>);

impl fmt::Debug for VeilidRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VeilidRecords").finish_non_exhaustive()
    }
}

impl VeilidRecords {
    /// Makes the records of `node`. It remembers them in the collection `larder/veilid-records` of
    /// `known`.
    ///
    /// # Errors
    /// [`Kind::Closed`] if the node was shut down; [`Kind::Invalid`] outside a tokio runtime, which
    /// watches need.
    pub fn new(node: Node, known: Arc<dyn CollectionStore>) -> Result<Self> {
        const OPERATION: &str = "record.open";
        let context = node.api().routing_context();
        let context = context.map_err(|error| api_error(OPERATION, error))?;
        let runtime = Handle::try_current().map_err(|error| {
            let message = "Veilid's records need a tokio runtime";
            Error::new(Kind::Invalid, OPERATION, message).because(error)
        })?;
        let network = Arc::new(Network::new(node, context, runtime, known));
        network.runtime.spawn({
            let network = Arc::clone(&network);
            async move {
                let recovering = network.node.call(OPERATION, network.recover_all());
                if let Err(error) = recovering.await {
                    // Whoever uses the record tries again, and gets the error.
                    tracing::warn!(%error, "not all values could be put again");
                }
            }
        });
        Ok(Self(network))
    }

    /// Returns the node.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Runs work that must not be cancelled half-way: it continues without its caller, and ends only at
    /// a shutdown.
    async fn finish<T, F>(
        &self,
        operation: &'static str,
        call: impl FnOnce(Arc<Network>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let network = Arc::clone(&self.0);
        let call = call(Arc::clone(&network));
        let finishing = async move { network.node.call(operation, call).await };
        self.0.node.finish(operation, finishing).await
    }
}

#[async_trait]
impl RecordStore for VeilidRecords {
    fn name(&self) -> &str {
        "veilid"
    }

    fn capabilities(&self) -> RecordCapabilities {
        limits::FACTS
    }

    async fn create(&self, record: RecordDescriptor) -> Result<RecordId> {
        const OPERATION: &str = "record.create";
        limits::check(&record)?;
        self.finish(OPERATION, |network| async move {
            let api = network.node.api();
            let schema = limits::schema(OPERATION, api, &record)?;
            let owner = limits::veilid_key(record.owner);
            let key = api.get_dht_record_key(schema, owner, None).await;
            let key = key.map_err(|error| api_error(OPERATION, error))?;
            let id = limits::record_id(&key).ok_or_else(|| {
                let message = "Veilid made a record key of another length";
                Error::new(Kind::Internal, OPERATION, message)
            })?;
            network.known.put(id, &record).await?;
            Ok(id)
        })
        .await
    }

    async fn get(&self, id: RecordId, slot: Slot, fresh: Freshness) -> Result<Option<Signed>> {
        const OPERATION: &str = "record.get";
        let get = async {
            let descriptor = self.0.known.get(OPERATION, id).await?;
            network::writer_of(OPERATION, id, &descriptor, slot)?;
            let record = self.0.record(id).await?;
            self.0.read(OPERATION, &record, slot, fresh).await
        };
        self.0.node.call(OPERATION, get).await
    }

    async fn put(&self, id: RecordId, slot: Slot, put: PutRecord) -> Result<Put> {
        const OPERATION: &str = "record.put";
        self.finish(OPERATION, move |network| async move {
            let descriptor = network.known.get(OPERATION, id).await?;
            let public = network::writer_of(OPERATION, id, &descriptor, slot)?;
            let PutRecord::Write {
                value,
                writer,
                expect,
            } = put
            else {
                let message = "Veilid takes no values that were signed elsewhere";
                return Err(Error::new(Kind::Unsupported, OPERATION, message));
            };
            let most = limits::max_value_len(&descriptor);
            if value.len() > most as usize {
                let message = "a value of this record is too long";
                return Err(Error::new(Kind::TooLarge, OPERATION, message)
                    .with("len", value.len())
                    .with("most", most));
            }
            let pair = network.key_pair(OPERATION, public, &writer).await?;
            let write = network::Write {
                slot,
                value,
                pair,
                expect,
            };
            let put = network
                .write(OPERATION, id, &descriptor, write, writer)
                .await?;
            if let Put::Published { .. } | Put::Queued { .. } = put {
                network.watches.changed(id, slot);
            }
            Ok(put)
        })
        .await
    }

    async fn inspect(
        &self,
        id: RecordId,
        slots: Range<Slot>,
        fresh: Freshness,
    ) -> Result<Vec<SlotSeq>> {
        const OPERATION: &str = "record.inspect";
        let inspect = async {
            let descriptor = self.0.known.get(OPERATION, id).await?;
            let end = u32::from(slots.end).min(descriptor.slots());
            let start = u32::from(slots.start);
            if start >= end {
                return Ok(Vec::new());
            }
            let record = self.0.record(id).await?;
            self.0.inspect(OPERATION, &record, start..end, fresh).await
        };
        self.0.node.call(OPERATION, inspect).await
    }

    fn watch(&self, id: RecordId, slots: Range<Slot>) -> Option<Listing<RecordEvent>> {
        Some(watch::watch(&self.0, id, slots))
    }

    async fn forget(&self, id: RecordId) -> Result<()> {
        const OPERATION: &str = "record.forget";
        self.finish(OPERATION, move |network| async move {
            network.delete(OPERATION, id).await?;
            // Last, so that a record whose deletion failed half-way is still known and can be forgotten
            // again.
            network.known.delete(id).await
        })
        .await
    }
}
