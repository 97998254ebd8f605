//! Tests that the engine survives a loss of power: at every call of one run, and at random in many
//! others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use futures_util::{StreamExt, TryStreamExt};
use larder::{
    AddOptions, BlobStatus, Blobs, ChunkNum, ChunkRanges, Format, Hash, Kind, Result, Root,
    TagName, Trust, api::BlobStore,
};
use larder_store_testkit::{MemoryStore, stores::PowerStore};
use rand::Rng as _;
use tests::{
    data::{KIB, Rng, Seed, bytes, rng},
    store::{claimed_payloads, read, unsound},
};

const SEEDS: u64 = 300;
/// The number of times that the power fails in one run.
const LIVES: u64 = 3;
/// The number of steps of a run between two failures.
const STEPS: usize = 25;
/// Some fit in their entry, some have one outboard block, one has several.
const LENGTHS: [usize; 8] = [
    10,
    5 * KIB,
    16 * KIB,
    17 * KIB,
    40 * KIB,
    100 * KIB,
    300 * KIB,
    8500 * KIB,
];
/// The number of different blobs: small, so that steps affect the same ones.
const BLOBS: u64 = 24;

/// The blobs that a run works with; another node has them.
struct Peer {
    blobs: Blobs,
    all: Vec<(Hash, u64)>,
}

impl Peer {
    async fn new(lengths: &[usize]) -> Self {
        let blobs = engine(&MemoryStore::new()).await;
        let mut all = Vec::new();
        for seed in 0..BLOBS {
            let len = lengths[seed as usize % lengths.len()];
            let pin = blobs.add(bytes(seed, len)).await.unwrap();
            all.push((pin.hash(), len as u64));
        }
        Self { blobs, all }
    }
}

async fn engine(store: &(impl BlobStore + larder::api::CollectionStore + Clone)) -> Blobs {
    let store = Arc::new(store.clone());
    Blobs::open(store.clone(), store).await.unwrap()
}

/// The state that was acknowledged, and therefore must be there.
#[derive(Default)]
struct Known {
    /// Complete blobs whose deletion nobody has requested since.
    blobs: BTreeMap<Hash, u64>,
    /// The acknowledged parts of blobs.
    parts: BTreeMap<Hash, ChunkRanges>,
    tags: BTreeMap<TagName, Root>,
    /// A tag whose change was not acknowledged.
    unsure: Option<TagName>,
}

impl Known {
    /// Keeps only the blobs that a collection may not delete.
    fn keep_tagged(&mut self, children: &BTreeMap<Hash, Vec<Hash>>) {
        let mut live = BTreeSet::new();
        for root in self.tags.values() {
            live.insert(root.hash);
            if root.format == Format::HashSeq {
                live.extend(children.get(&root.hash).into_iter().flatten());
            }
        }
        self.blobs.retain(|hash, _| live.contains(hash));
        self.parts.retain(|hash, _| live.contains(hash));
    }
}

struct Run<'a> {
    peer: &'a Peer,
    rng: Rng,
    known: Known,
    /// The blobs that each hash sequence names.
    children: BTreeMap<Hash, Vec<Hash>>,
}

impl<'a> Run<'a> {
    fn new(peer: &'a Peer, seed: u64) -> Self {
        Self {
            peer,
            rng: rng(seed),
            known: Known::default(),
            children: BTreeMap::new(),
        }
    }

    fn tag(&mut self) -> TagName {
        let name = format!("tag {}", self.rng.random_range(0..6));
        name.as_str().try_into().unwrap()
    }

    fn blob(&mut self) -> (u64, Hash, u64) {
        let seed = self.rng.random_range(0..BLOBS);
        let (hash, len) = self.peer.all[seed as usize];
        (seed, hash, len)
    }

    /// Takes one random step, and notes what was acknowledged.
    async fn step(&mut self, blobs: &Blobs) -> Result<()> {
        self.known.unsure = None;
        match self.rng.random_range(0..12) {
            0..4 => self.add(blobs).await,
            4 => self.add_sequence(blobs).await,
            5..8 => self.import(blobs).await,
            8 => self.untag(blobs).await,
            9 => self.retag(blobs).await,
            10 => {
                self.known.keep_tagged(&self.children);
                blobs.collect(SystemTime::now()).await.map(drop)
            }
            _ => {
                let (_, hash, _) = self.blob();
                self.known.blobs.remove(&hash);
                self.known.parts.remove(&hash);
                blobs.delete(vec![hash]).await
            }
        }
    }

    async fn add(&mut self, blobs: &Blobs) -> Result<()> {
        // Several adds at once.
        let mut adds = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let (seed, _, len) = self.blob();
            adds.push(blobs.add(bytes(seed, len as usize)));
        }
        let mut failed = None;
        for added in futures_util::future::join_all(adds).await {
            match added {
                Ok(pin) => drop(self.known.blobs.insert(pin.hash(), pin.size().unwrap())),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn add_sequence(&mut self, blobs: &Blobs) -> Result<()> {
        let count = self.rng.random_range(1..1200);
        let children: Vec<Hash> = (0..count).map(|_| self.blob().1).collect();
        let bytes: Vec<u8> = children.iter().flat_map(|hash| *hash.as_bytes()).collect();
        self.children.insert(Hash::of(&bytes), children);
        let tag = self.tag();
        self.known.unsure = Some(tag.clone());
        let options = AddOptions::default()
            .format(Format::HashSeq)
            .tag(tag.clone());
        let pin = blobs.add_with(bytes, options).await?;
        self.known.blobs.insert(pin.hash(), pin.size().unwrap());
        self.known.tags.insert(tag, pin.root());
        Ok(())
    }

    async fn import(&mut self, blobs: &Blobs) -> Result<()> {
        let (_, hash, len) = self.blob();
        let chunks = len.div_ceil(1024);
        let from = self.rng.random_range(0..chunks);
        let ranges = match self.rng.random_range(0..3) {
            0 => ChunkRanges::all(),
            1 => ChunkRanges::from(ChunkNum(from)..),
            _ => {
                let to = self.rng.random_range(from..chunks) + 1;
                ChunkRanges::from(ChunkNum(from)..ChunkNum(to))
            }
        };
        let mut import = blobs.import(hash, len, Trust::Untrusted).await?;
        let mut items = self.peer.blobs.export(hash, ranges);
        while let Some(item) = items.next().await {
            import.push(item?).await?;
        }
        let here = import.finish().await?;
        if here.is_complete() {
            self.known.parts.remove(&hash);
            self.known.blobs.insert(hash, len);
        } else {
            self.known.parts.insert(hash, here.ranges);
        }
        Ok(())
    }

    async fn untag(&mut self, blobs: &Blobs) -> Result<()> {
        let tag = self.tag();
        self.known.unsure = Some(tag.clone());
        blobs.tags().delete_one(&tag).await?;
        self.known.tags.remove(&tag);
        Ok(())
    }

    async fn retag(&mut self, blobs: &Blobs) -> Result<()> {
        let (tag, (_, hash, _)) = (self.tag(), self.blob());
        self.known.unsure = Some(tag.clone());
        blobs.tags().set(tag.clone(), Root::raw(hash)).await?;
        self.known.tags.insert(tag, Root::raw(hash));
        Ok(())
    }

    /// Works until the power fails, or for this many steps.
    async fn live(&mut self, store: &PowerStore, steps: usize) {
        let blobs = match open(store).await {
            Ok(blobs) => blobs,
            Err(error) => return assert_eq!(error.kind(), Kind::Closed, "{error:?}"),
        };
        for _ in 0..steps {
            if let Err(error) = self.step(&blobs).await {
                // Either the failed call noticed the loss of power, or the engine's own work did.
                return assert_eq!(error.kind(), Kind::Closed, "{error:?}");
            }
        }
        self.known.unsure = None;
    }

    /// Checks that acknowledged data is there, that every claim is true, and that nothing else is left.
    async fn check(&mut self, store: &PowerStore, context: &str) {
        let blobs = open(store).await.unwrap();
        for (hash, len) in &self.known.blobs {
            let status = blobs.status(*hash).await.unwrap();
            let complete = BlobStatus::Complete { size: *len };
            assert_eq!(status, Some(complete), "{context}: {hash} is lost");
            assert!(Hash::of(read(&blobs, *hash).await) == *hash, "{context}");
        }
        for (hash, part) in &self.known.parts {
            let here = blobs.bitfield(*hash).await.unwrap();
            assert!(
                part.is_subset(&here.ranges),
                "{context}: a part of {hash} is lost"
            );
        }
        let tags: Vec<_> = blobs.tags().list(..).try_collect().await.unwrap();
        let mut tags: BTreeMap<_, _> = tags.into_iter().map(|tag| (tag.name, tag.root)).collect();
        if let Some(unsure) = self.known.unsure.take() {
            match tags.get(&unsure) {
                Some(root) => drop(self.known.tags.insert(unsure, *root)),
                None => drop(self.known.tags.remove(&unsure)),
            }
        }
        tags.retain(|_, root| *root != Root::raw(Hash::EMPTY));
        assert_eq!(tags, self.known.tags, "{context}");
        assert_eq!(unsound(&blobs).await, [], "{context}");
        let payloads = BlobStore::list(store, None).count().await;
        let claimed = claimed_payloads(&blobs).await;
        assert_eq!(payloads, claimed, "{context}: payloads that nothing claims");
    }
}

async fn open(store: &PowerStore) -> Result<Blobs> {
    let store = Arc::new(store.clone());
    Blobs::open(store.clone(), store).await
}

#[tokio::test]
async fn at_any_moment_of_many_runs() {
    let first = Seed::or(31);
    let peer = Peer::new(&LENGTHS).await;
    for seed in first.number()..first.number() + SEEDS {
        let mut run = Run::new(&peer, seed);
        // Blocks of one group, and of four.
        let block_len = if seed % 2 == 0 { 16 } else { 64 } * KIB as u32;
        let mut store = PowerStore::with_block_len(block_len);
        for life in 0..LIVES {
            store.cut_during(store.calls() + run.rng.random_range(1..60));
            run.live(&store, STEPS).await;
            store = store.lose_power(seed ^ (life << 32));
            run.check(&store, &format!("seed {seed}, life {life}"))
                .await;
        }
    }
}

#[tokio::test]
async fn at_every_moment_of_one_run() {
    let seed = Seed::or(32).number();
    let peer = Peer::new(&LENGTHS[..7]).await;
    let mut cut = 1;
    loop {
        let store = PowerStore::new();
        store.cut_during(cut);
        let mut run = Run::new(&peer, seed);
        run.live(&store, 2 * STEPS).await;
        let reached = store.calls() >= cut;
        store.cut();
        for chance in 0..3 {
            let restored = store.restore(chance);
            let unsure = run.known.unsure.clone();
            let tags = run.known.tags.clone();
            run.check(
                &restored,
                &format!("seed {seed}, call {cut}, chance {chance}"),
            )
            .await;
            (run.known.unsure, run.known.tags) = (unsure, tags);
        }
        if !reached {
            break;
        }
        cut += 1;
    }
    assert!(cut > 50, "only {cut} calls: too few to show anything");
}
