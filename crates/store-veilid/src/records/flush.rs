//! Makes what a node holds of records durable: Veilid itself writes it within a second.
//!
//! Closing a record writes the changes of all records, so an empty one of its own, which nobody
//! publishes, is opened and closed. Records in use stay open and watched that way.

use store_api::Result;
use tokio::sync::Mutex;
use veilid_node::{
    api_error,
    veilid_core::{
        BarePublicKey, BareSecretKey, CRYPTO_KIND_VLD0, DHTSchema, KeyPair, OpenDHTRecordOptions,
        PublicKey, RecordKey, RoutingContext, VeilidAPI, VeilidAPIError,
    },
};

/// The owner of the record that is closed. Not a secret: nothing is ever written to it.
const OWNER: [u8; 32] = [
    0x96, 0xac, 0x4f, 0xfc, 0x62, 0xea, 0x69, 0xa5, 0xd3, 0x4b, 0x77, 0x73, 0xf9, 0x62, 0xe6, 0xe6,
    0xeb, 0xb8, 0x05, 0xe1, 0x84, 0x90, 0xfb, 0x71, 0xfc, 0xe1, 0x34, 0xb7, 0x2f, 0xaf, 0x6a, 0xff,
];
const OWNER_SEED: [u8; 32] = [
    0x02, 0xdf, 0xdf, 0xbc, 0x69, 0xe5, 0x0e, 0x6a, 0x55, 0x5a, 0xab, 0xb6, 0x5f, 0xde, 0x34, 0x63,
    0xe7, 0x7f, 0xa6, 0x66, 0xe3, 0x3f, 0x2e, 0x31, 0x2f, 0x3b, 0x60, 0xfb, 0x15, 0x8c, 0xe9, 0xb8,
];

/// The key of that record, once it exists.
#[derive(Debug, Default)]
pub(super) struct Flusher(Mutex<Option<RecordKey>>);

impl Flusher {
    /// Writes what the node holds of all records.
    pub(super) async fn flush(
        &self,
        operation: &'static str,
        api: &VeilidAPI,
        context: &RoutingContext,
    ) -> Result<()> {
        let mut key = self.0.lock().await;
        let flush = async {
            let key = match &mut *key {
                Some(key) => key,
                key => key.insert(make(api, context).await?),
            };
            let options = OpenDHTRecordOptions {
                rehydrate: Some(false),
            };
            let open = context.open_dht_record(key.clone(), None, Some(options));
            drop(open.await?);
            context.close_dht_record(key.clone()).await
        };
        flush.await.map_err(|error| api_error(operation, error))
    }
}

async fn make(api: &VeilidAPI, context: &RoutingContext) -> Result<RecordKey, VeilidAPIError> {
    let owner = PublicKey::new(CRYPTO_KIND_VLD0, BarePublicKey::new(&OWNER));
    let schema = DHTSchema::dflt(1)?;
    let key = api.get_dht_record_key(schema.clone(), owner.clone(), None);
    let key = key.await?;
    // What is held is closed without an error; making it again would be one.
    if context.close_dht_record(key.clone()).await.is_err() {
        let owner = KeyPair::new_from_parts(owner, BareSecretKey::new(&OWNER_SEED));
        let made = context.create_dht_record(CRYPTO_KIND_VLD0, schema, Some(owner));
        drop(made.await?);
    }
    Ok(key)
}
