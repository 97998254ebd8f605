//! Load on a store during collection; it reports any blob that is missing although it must be there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::StreamExt;
use larder::{
    AddOptions, BlobStatus, Blobs, ChunkNum, ChunkRanges, Format, Hash, Pin, Root, TagName, Trust,
};
use rand::Rng as _;
use tests::data::{KIB, Rng, bytes, rng};

/// The number of different blobs: small, so that workers use the same ones.
const BLOBS: u64 = 48;

/// The state that all workers share.
#[derive(Debug, Clone)]
pub struct Load {
    pub blobs: Blobs,
    /// Another node, which has all blobs.
    pub peer: Blobs,
    pub done: Arc<AtomicBool>,
    /// The number of steps so far.
    pub steps: Arc<AtomicU64>,
    /// The number of successful lookups.
    pub checks: Arc<AtomicU64>,
}

/// Returns the blob with this number.
fn data(number: u64) -> bytes::Bytes {
    let lengths = [10, 3 * KIB, 20 * KIB, 100, 70 * KIB, 16 * KIB];
    bytes(number, lengths[number as usize % lengths.len()])
}

/// Puts everything that workers import into a node.
pub async fn fill(peer: &Blobs) {
    for number in 0..BLOBS {
        peer.add(data(number)).await.unwrap();
    }
}

/// A handle that keeps something alive, and the blobs that it keeps.
struct Kept {
    by: By,
    /// All of these must exist, as far as they were complete.
    blobs: Vec<Hash>,
}

enum By {
    Pin { _pin: Pin },
    Tag(TagName),
}

/// One of the concurrent workers.
pub struct Worker {
    load: Load,
    rng: Rng,
    name: u64,
    next_tag: u64,
    kept: BTreeMap<u64, Kept>,
}

/// The most handles that a worker keeps at once.
const MOST_KEPT: usize = 12;

impl Worker {
    pub fn new(load: &Load, name: u64, seed: u64) -> Self {
        Self {
            load: load.clone(),
            rng: rng(seed ^ (name << 40)),
            name,
            next_tag: 0,
            kept: BTreeMap::new(),
        }
    }

    /// Works until told to stop.
    pub async fn run(mut self) {
        while !self.load.done.load(Ordering::Relaxed) {
            self.step().await;
            self.load.steps.fetch_add(1, Ordering::Relaxed);
            if self.kept.len() > MOST_KEPT {
                self.let_go().await;
            }
            self.check().await;
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0..3 => self.add().await,
            3..5 => self.add_with_tag().await,
            5..7 => self.add_sequence().await,
            7..9 => self.import().await,
            _ => self.move_to_tag().await,
        }
    }

    fn number(&mut self) -> u64 {
        self.rng.random_range(0..BLOBS)
    }

    fn tag(&mut self) -> TagName {
        self.next_tag += 1;
        let name = format!("{} {}", self.name, self.next_tag % 40);
        name.as_str().try_into().unwrap()
    }

    fn keep(&mut self, by: By, blobs: Vec<Hash>) {
        // A tag that is set again no longer keeps its previous target.
        if let By::Tag(tag) = &by {
            self.kept
                .retain(|_, kept| !matches!(&kept.by, By::Tag(other) if other == tag));
        }
        let id = self.kept.last_key_value().map_or(0, |(id, _)| id + 1);
        self.kept.insert(id, Kept { by, blobs });
    }

    async fn add(&mut self) {
        let data = data(self.number());
        let pin = self.load.blobs.add(data).await.unwrap();
        let blobs = vec![pin.hash()];
        self.keep(By::Pin { _pin: pin }, blobs);
    }

    async fn add_with_tag(&mut self) {
        let (data, tag) = (data(self.number()), self.tag());
        let options = AddOptions::default().tag(tag.clone());
        let pin = self.load.blobs.add_with(data, options).await.unwrap();
        // The pin is dropped at once: the tag must suffice.
        self.keep(By::Tag(tag), vec![pin.hash()]);
    }

    /// Adds children first, each with a pin, then the sequence with a tag; or the tag before all of it.
    async fn add_sequence(&mut self) {
        let mut list = Vec::new();
        let mut pins = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let data = data(self.number());
            let pin = self.load.blobs.add(data).await.unwrap();
            list.push(pin.hash());
            pins.push(pin);
        }
        // Some sequences are too long for the index.
        if self.rng.random_bool(0.2) {
            let some = list.clone();
            list = some.into_iter().cycle().take(700).collect();
        }
        let bytes: Vec<u8> = list.iter().flat_map(|hash| *hash.as_bytes()).collect();
        let root = Root::hash_seq(Hash::of(&bytes));
        let tag = self.tag();
        let first = self.rng.random();
        if first {
            self.load.blobs.tags().set(tag.clone(), root).await.unwrap();
        }
        let options = AddOptions::default()
            .format(Format::HashSeq)
            .tag((!first).then(|| tag.clone()));
        let pin = self.load.blobs.add_with(bytes, options).await.unwrap();
        drop(pins);
        list.push(pin.hash());
        list.sort_unstable();
        list.dedup();
        self.keep(By::Tag(tag), list);
    }

    /// Fetches a blob from the other node, in two parts, under a pin or a tag.
    async fn import(&mut self) {
        let data = data(self.number());
        let (hash, size) = (Hash::of(&data), data.len() as u64);
        let by = if self.rng.random() {
            let _pin = self.load.blobs.pin(Root::raw(hash)).await;
            By::Pin { _pin }
        } else {
            let tag = self.tag();
            let tags = self.load.blobs.tags();
            tags.set(tag.clone(), Root::raw(hash)).await.unwrap();
            By::Tag(tag)
        };
        // The previous target of this tag may be deleted.
        self.keep(by, Vec::new());
        let middle = ChunkNum(self.rng.random_range(0..=size.div_ceil(1024)));
        for ranges in [ChunkRanges::from(..middle), ChunkRanges::from(middle..)] {
            let import = self.load.blobs.import(hash, size, Trust::Untrusted).await;
            let mut import = import.unwrap();
            let mut items = self.load.peer.export(hash, ranges);
            while let Some(item) = items.next().await {
                import.push(item.unwrap()).await.unwrap();
            }
            import.finish().await.unwrap();
        }
        let (_, kept) = self.kept.last_key_value().unwrap();
        assert!(kept.blobs.is_empty());
        self.kept.last_entry().unwrap().get_mut().blobs.push(hash);
    }

    /// Moves a blob from a pin to a tag, without a gap.
    async fn move_to_tag(&mut self) {
        let pinned = self
            .kept
            .iter()
            .find(|(_, kept)| matches!(kept.by, By::Pin { .. }));
        let Some((id, _)) = pinned else { return };
        let id = *id;
        let tag = self.tag();
        let hash = self.kept[&id].blobs[0];
        let tags = self.load.blobs.tags();
        tags.set(tag.clone(), Root::raw(hash)).await.unwrap();
        self.kept.remove(&id);
        self.keep(By::Tag(tag), vec![hash]);
    }

    async fn let_go(&mut self) {
        if let Some((
            _,
            Kept {
                by: By::Tag(tag), ..
            },
        )) = self.kept.pop_first()
        {
            self.load.blobs.tags().delete_one(&tag).await.unwrap();
        }
    }

    /// Checks that all kept blobs exist, and reads one of them.
    async fn check(&mut self) {
        let all: Vec<Hash> = self
            .kept
            .values()
            .flat_map(|kept| kept.blobs.clone())
            .collect();
        for hash in &all {
            let status = self.load.blobs.status(*hash).await.unwrap();
            let complete = matches!(status, Some(BlobStatus::Complete { .. }));
            assert!(
                complete,
                "worker {}: {hash} was deleted: {status:?}",
                self.name
            );
        }
        if !all.is_empty() {
            let hash = all[self.rng.random_range(0..all.len())];
            let read = self.load.blobs.read_to_bytes(hash, 0..u64::MAX).await;
            assert!(Hash::of(read.unwrap()) == hash);
        }
        self.load
            .checks
            .fetch_add(all.len() as u64, Ordering::Relaxed);
    }
}
