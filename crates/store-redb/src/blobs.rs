//! The store as a [`BlobStore`].

use std::{collections::VecDeque, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use larder_store_api::{
    BlobCapabilities, BlobStore, Block, Durability, Error, Kind, Listing, Part, PayloadId, Result,
};

use crate::{payload, read::Job, store::RedbStore};

/// The number of payloads that are synced at once.
const PARALLEL_SYNCS: usize = 8;
/// A read of up to this length goes to the readers, which take many at once.
const SHORT_READ: u64 = 64 * 1024;
/// The number of concurrent calls that gives the best throughput.
const CONCURRENCY: u16 = 32;

#[async_trait]
impl BlobStore for RedbStore {
    fn name(&self) -> &str {
        "redb"
    }

    fn capabilities(&self) -> BlobCapabilities {
        {
            let mut facts = BlobCapabilities::least();
            facts.block_len = payload::BLOCK_LEN;
            facts.max_part_len = payload::MAX_PART_LEN;
            facts.durability = Durability::OnSync;
            facts.concurrency = CONCURRENCY;
            facts
        }
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        const OPERATION: &str = "blobs.read";
        if range.start > range.end {
            let message = "the range's start is beyond its end";
            return Err(Error::new(Kind::Invalid, OPERATION, message)
                .with("range", format!("{}..{}", range.start, range.end)));
        }
        self.check_open(OPERATION)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if range.end - range.start <= SHORT_READ {
            let job = |reply| Job::Payload {
                id,
                part,
                range,
                reply,
            };
            return self.ask_reader(OPERATION, job).await;
        }
        self.blocking(OPERATION, move |payloads| payloads.read(id, part, range))
            .await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        const OPERATION: &str = "blobs.write";
        self.check_writable(OPERATION)?;
        BlobStore::capabilities(self).check(&blocks)?;
        self.blocking(OPERATION, move |payloads| payloads.write(id, &blocks))
            .await
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        const OPERATION: &str = "blobs.delete";
        self.check_writable(OPERATION)?;
        self.blocking(OPERATION, move |payloads| {
            ids.into_iter().try_for_each(|id| payloads.delete(id))
        })
        .await
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        let walk = Walk {
            store: self.clone(),
            after,
            folders: None,
            ids: VecDeque::new(),
        };
        Box::pin(stream::try_unfold(walk, |mut walk| async move {
            let next = walk.next().await?;
            Ok(next.map(|id| (id, walk)))
        }))
    }

    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
        const OPERATION: &str = "blobs.sync";
        self.check_open(OPERATION)?;
        let share = ids.len().div_ceil(PARALLEL_SYNCS).max(1);
        let shares = ids.chunks(share).map(|share| {
            let share = share.to_vec();
            self.blocking(OPERATION, move |payloads| {
                share.into_iter().try_for_each(|id| payloads.sync(id))
            })
        });
        futures_util::future::try_join_all(shares).await?;
        // After the files: their sync often makes the names durable too, and this one cheap.
        self.blocking(OPERATION, move |payloads| payloads.sync_names(&ids))
            .await
    }
}

/// A listing under way: the folders that are left, and the ids of the current one.
struct Walk {
    store: RedbStore,
    after: Option<PayloadId>,
    folders: Option<VecDeque<[u8; 15]>>,
    ids: VecDeque<PayloadId>,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<PayloadId>> {
        const OPERATION: &str = "blobs.list";
        let after = self.after;
        loop {
            if let Some(id) = self.ids.pop_front() {
                return Ok(Some(id));
            }
            let Some(folders) = &mut self.folders else {
                let folders = self
                    .store
                    .blocking(OPERATION, move |payloads| payloads.folders(after))
                    .await?;
                self.folders = Some(folders.into());
                continue;
            };
            let Some(folder) = folders.pop_front() else {
                return Ok(None);
            };
            let ids = self
                .store
                .blocking(OPERATION, move |payloads| payloads.ids(folder, after))
                .await?;
            self.ids = ids.into();
        }
    }
}
