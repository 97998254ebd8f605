//! Tests of damaged table files: every read is correct or an error, missing entries cause an error, and
//! a repair leaves a usable store.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use larder_store_api::{
    Batch, BlobStore, Block, Bytes, CollectionId, CollectionStore, Edit, Kind, Part, PayloadId,
    Result,
};
use larder_store_veilid::VeilidStore;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{name, node};

const C: CollectionId = CollectionId::from_static("c");
const ENTRIES: u32 = 400;
const PAYLOADS: u8 = 4;
const BLOCKS: u64 = 4;
const ROUNDS: u64 = 24;

fn value(n: u32) -> Bytes {
    format!("value {n} ").repeat(1 + n as usize % 20).into()
}

fn block(payload: u8, index: u64, len: u32) -> Bytes {
    vec![payload ^ index as u8; len as usize].into()
}

/// Fills a store, and closes it.
async fn fill(dir: &Path, namespace: &str) -> Result<()> {
    let node = node(dir, namespace).await?;
    let store = VeilidStore::open(node.clone(), "").await?;
    let edits = (0..ENTRIES).map(|n| Edit::Put {
        collection: C,
        key: n.to_be_bytes().to_vec().into(),
        value: value(n),
    });
    store.commit(Batch::of(edits.collect())).await?;
    let len = BlobStore::capabilities(&store).block_len;
    for payload in 0..PAYLOADS {
        let blocks = (0..BLOCKS).map(|index| Block {
            part: Part::Data,
            index,
            bytes: block(payload, index, len),
        });
        let id = PayloadId([payload; 16]);
        store.write(id, blocks.collect()).await?;
        BlobStore::sync(&store, vec![id]).await?;
    }
    store.close().await?;
    node.shutdown().await;
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, &to).expect("a copy")),
        }
    }
}

/// Returns the files of our tables, by size; Veilid's own files are not touched.
fn table_files(dir: &Path) -> Vec<PathBuf> {
    let tables = fs::read_dir(dir.join("table_store")).expect("a folder");
    let tables: Vec<_> = tables.map(|file| file.expect("a file").path()).collect();
    let named = |lock: &PathBuf| {
        let is_lock = lock
            .extension()
            .is_some_and(|extension| extension == "larder");
        is_lock.then(|| lock.with_file_name(fs::read_to_string(lock).expect("a name")))
    };
    let mut files: Vec<_> = tables.iter().filter_map(named).collect();
    assert_eq!(files.len(), 2, "entries and blocks");
    files.sort_by_key(|file| fs::metadata(file).expect("a file").len());
    files
}

/// Counts the results of reading a damaged store.
#[derive(Debug, Default)]
struct Seen(BTreeMap<&'static str, u32>);

impl Seen {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

fn is_honest(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Corrupt | Kind::Denied | Kind::NotFound | Kind::Internal
    )
}

/// Reads everything; each result must be correct or an error.
async fn read_all(store: &VeilidStore, seen: &mut Seen, repaired: bool) {
    for n in 0..ENTRIES {
        match store.get(C, n.to_be_bytes().to_vec().into()).await {
            Ok(Some(entry)) => assert_eq!(entry.value, value(n)),
            Ok(None) => assert!(repaired, "entry {n} is missing without a word"),
            Err(error) => {
                assert!(!repaired, "{error:?} after a repair");
                assert!(is_honest(error.kind()), "{error:?}");
                seen.count("an entry is an error");
            }
        }
    }
    let len = BlobStore::capabilities(store).block_len;
    for payload in 0..PAYLOADS {
        for index in 0..BLOCKS {
            let range = index * u64::from(len)..(index + 1) * u64::from(len);
            let read = store.read(PayloadId([payload; 16]), Part::Data, range);
            match read.await {
                // Veilid encrypts, but does not authenticate: the engine finds flipped bits, because it
                // verifies everything that it reads.
                Ok(bytes) if bytes != block(payload, index, len) => {
                    assert_eq!(bytes.len(), len as usize);
                    seen.count("a block is another");
                }
                Ok(_) => {}
                Err(error) => {
                    assert!(is_honest(error.kind()), "{error:?}");
                    seen.count("a block is an error");
                }
            }
        }
    }
}

async fn damaged(mut damage: impl FnMut(&Path, &mut ChaCha8Rng)) -> Result<Seen> {
    let folder = tempfile::tempdir().expect("a folder");
    let namespace = name();
    let whole = folder.path().join("whole");
    fill(&whole, &namespace).await?;
    let mut seen = Seen::default();
    for round in 0..ROUNDS {
        let mut rng = ChaCha8Rng::seed_from_u64(round);
        let dir = folder.path().join(round.to_string());
        copy(&whole, &dir);
        let files = table_files(&dir);
        damage(&files[round as usize % files.len()], &mut rng);

        let first = node(&dir, &namespace).await?;
        match VeilidStore::open(first.clone(), "").await {
            Ok(store) => {
                read_all(&store, &mut seen, false).await;
                store.close().await?;
            }
            Err(error) => {
                assert!(is_honest(error.kind()), "{round}: {error:?}");
                seen.count("does not open");
            }
        }
        first.shutdown().await;

        // A second attempt gives the same result: no crash, no empty store.
        let again = node(&dir, &namespace).await?;
        match VeilidStore::repair(again.clone(), "").await {
            Ok(_) => match VeilidStore::open(again.clone(), "").await {
                Ok(store) => {
                    read_all(&store, &mut seen, true).await;
                    let edit = Edit::Put {
                        collection: C,
                        key: "new".into(),
                        value: "value".into(),
                    };
                    store.commit(Batch::of(vec![edit])).await?;
                    store.close().await?;
                    seen.count("goes on after a repair");
                }
                Err(error) => {
                    assert!(is_honest(error.kind()), "{round}: {error:?}");
                    seen.count("cannot be repaired");
                }
            },
            Err(error) => {
                assert!(is_honest(error.kind()), "{round}: {error:?}");
                seen.count("cannot be repaired");
            }
        }
        again.shutdown().await;
        fs::remove_dir_all(&dir).expect("a folder to remove");
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits() -> Result<()> {
    let seen = damaged(|file, rng| {
        let mut bytes = fs::read(file).expect("a file");
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        fs::write(file, bytes).expect("a file");
    })
    .await?;
    assert!(seen.0.contains_key("a block is another"), "{seen:?}");
    assert!(seen.0.contains_key("goes on after a repair"), "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_files() -> Result<()> {
    let seen = damaged(|file, rng| {
        let len = fs::metadata(file).expect("a file").len();
        let file = fs::File::options().write(true).open(file).expect("a file");
        file.set_len(rng.random_range(0..len)).expect("it shrinks");
    })
    .await?;
    assert!(seen.0.contains_key("does not open"), "{seen:?}");
    Ok(())
}
