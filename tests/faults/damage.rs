//! Tests of a disk that decays under a store in a folder: no wrong data is read or served, a scrub
//! finds the damage, and a fetch restores the data that a repair removed.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use futures_util::StreamExt;
use larder::{
    AddOptions, BlobStatus, Blobs, Encoded, Hash, Kind, Repair, Root, Store, TagName,
    engine::Finding, iroh::fetch,
};
use rand::Rng as _;
use tests::{
    data::{KIB, MIB, Seed, bytes, rng},
    node::{connection, get, loopback, our_node},
    store::{files, open, scrub, try_open},
};

pub const LEN: usize = 3 * MIB + 5;
const GROUP: usize = 16 * KIB;
/// The number of blobs that are stored in the index.
const SMALL: u64 = 60;

/// A store in a folder: one large blob with two files, and small ones.
struct Stored {
    folder: tempfile::TempDir,
    large: Hash,
    small: Vec<Hash>,
}

fn small_len(i: u64) -> usize {
    // Some are only in the log, some in the index too.
    [20, 700, 9000][i as usize % 3]
}

async fn stored() -> Stored {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let large = store.blobs().add(bytes(1, LEN)).await.unwrap().hash();
    let mut small = Vec::new();
    for i in 0..SMALL {
        let options = AddOptions::default().tag(TagName::try_from(format!("small {i}")).unwrap());
        let added = store.blobs().add_with(bytes(10 + i, small_len(i)), options);
        small.push(added.await.unwrap().hash());
    }
    let tag = TagName::try_from("large").unwrap();
    store
        .blobs()
        .tags()
        .set(tag, Root::raw(large))
        .await
        .unwrap();
    store.close().await.unwrap();
    Stored {
        folder,
        large,
        small,
    }
}

impl Stored {
    fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the only file with this ending.
    fn file(&self, ending: &str) -> PathBuf {
        let mut files = files(self.dir());
        files.retain(|file| file.to_string_lossy().ends_with(ending));
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }

    fn flip(&self, ending: &str, at: usize) {
        let file = self.file(ending);
        let mut bytes = fs::read(&file).unwrap();
        bytes[at] ^= 4;
        fs::write(file, bytes).unwrap();
    }

    fn truncate(&self, ending: &str, len: u64) {
        let file = fs::File::options().write(true).open(self.file(ending));
        file.unwrap().set_len(len).unwrap();
    }

    fn remove(&self, ending: &str) {
        fs::remove_file(self.file(ending)).unwrap();
    }

    /// Fetches the missing parts of the large blob from another node.
    async fn restore(&self, blobs: &Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let other = open(folder.path()).await;
        let root = other.blobs().add(bytes(1, LEN)).await.unwrap().root();
        let node = our_node(other.blobs(), &[root]).await;
        get(blobs, &node, root).await.unwrap();
        node.shutdown().await.unwrap();
        self.check_sound(blobs).await;
    }

    async fn check_sound(&self, blobs: &Blobs) {
        for found in scrub(blobs, Repair::No).await {
            assert_eq!(found.finding, Finding::Sound, "{:?}", found.hash);
        }
        assert_eq!(groups(blobs, self.large).await, whole());
        self.check_small(blobs).await;
    }

    async fn check_small(&self, blobs: &Blobs) {
        for (i, hash) in (0..).zip(&self.small) {
            let read = blobs.read_to_bytes(*hash, 0..u64::MAX).await.unwrap();
            assert!(read == bytes(10 + i, small_len(i)));
            let tag = format!("small {i}");
            assert_eq!(
                blobs.tags().get(&tag).await.unwrap(),
                Some(Root::raw(*hash))
            );
        }
    }
}

/// Returns the groups of the large blob that can be read. No group may be read wrong, and none may be
/// unreadable for another reason than damage.
pub async fn groups(blobs: &Blobs, hash: Hash) -> Vec<Range<usize>> {
    let data = bytes(1, LEN);
    let mut good: Vec<Range<usize>> = Vec::new();
    for start in (0..LEN).step_by(GROUP) {
        let range = start..(start + GROUP).min(LEN);
        match blobs
            .read_to_bytes(hash, range.start as u64..range.end as u64)
            .await
        {
            Ok(read) => {
                assert!(read == data[range.clone()], "wrong bytes at {start}");
                match good.last_mut() {
                    Some(last) if last.end == start => last.end = range.end,
                    _ => good.push(range),
                }
            }
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, Kind::Corrupt | Kind::NotFound), "{error:?}");
            }
        }
    }
    // Checks the same with the calls that return many groups.
    let good_at = |at: usize| good.iter().any(|range| range.contains(&at));
    let mut read = 0;
    let mut pieces = blobs.read(hash, 0..u64::MAX);
    while let Some(Ok(piece)) = pieces.next().await {
        assert!(piece == data[read..read + piece.len()] && good_at(read));
        read += piece.len();
    }
    assert!(good != whole() || read == LEN);
    let mut items = blobs.export(hash, larder::ChunkRanges::all());
    while let Some(Ok(item)) = items.next().await {
        if let Encoded::Leaf(leaf) = item {
            let at = leaf.offset as usize;
            assert!(leaf.data == data[at..at + leaf.data.len()]);
        }
    }
    good
}

#[expect(
    clippy::single_range_in_vec_init,
    reason = "one range of several that there might be"
)]
pub fn whole() -> Vec<Range<usize>> {
    vec![0..LEN]
}

/// A node that fetches from a damaged store learns that the store does not have everything, and gets no
/// wrong byte.
pub async fn check_serving(damaged: &Blobs, hash: Hash) {
    let folder = tempfile::tempdir().unwrap();
    let other = open(folder.path()).await;
    let node = our_node(damaged, &[Root::raw(hash)]).await;
    let error = get(other.blobs(), &node, Root::raw(hash))
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), Kind::NotFound | Kind::Unavailable),
        "damage was sent: {error:?}"
    );
    groups(other.blobs(), hash).await;
    node.shutdown().await.unwrap();
}

async fn finding(blobs: &Blobs, hash: Hash, repair: Repair) -> Finding {
    let found = scrub(blobs, repair).await;
    let of_blob = found.into_iter().find(|found| found.hash == Some(hash));
    of_blob.expect("every blob is listed").finding
}

/// Opens the damaged store, checks it in every way, repairs it and fetches the lost data.
async fn found_and_restored(
    stored: &Stored,
    expect: impl Fn(&Finding) -> bool,
) -> Vec<Range<usize>> {
    let store = open(stored.dir()).await;
    let blobs = store.blobs();
    let good = groups(blobs, stored.large).await;
    stored.check_small(blobs).await;
    if good != whole() {
        check_serving(blobs, stored.large).await;
    }
    for repair in [Repair::No, Repair::Yes] {
        let found = finding(blobs, stored.large, repair).await;
        assert!(expect(&found), "{found:?}");
    }
    match blobs.status(stored.large).await.unwrap() {
        // Its tree was rebuilt.
        Some(BlobStatus::Complete { .. }) => {}
        Some(BlobStatus::Partial { present, .. }) => assert!(present < LEN as u64),
        None => assert!(good.is_empty()),
    }
    stored.restore(blobs).await;
    store.close().await.unwrap();
    let store = open(stored.dir()).await;
    stored.check_sound(store.blobs()).await;
    good
}

#[tokio::test]
async fn a_flipped_bit_of_a_payload() {
    let mut rng = rng(Seed::or(71).number());
    for at in [0, LEN - 1, rng.random_range(0..LEN)] {
        let stored = stored().await;
        stored.flip(".data", at);
        let good =
            found_and_restored(&stored, |found| matches!(found, Finding::Damaged { .. })).await;
        let group = at / GROUP * GROUP;
        let mut expected = vec![0..group, (group + GROUP).min(LEN)..LEN];
        expected.retain(|range| !range.is_empty());
        assert_eq!(good, expected);
    }
}

#[tokio::test]
async fn a_flipped_bit_of_an_outboard() {
    let mut rng = rng(Seed::or(72).number());
    let len = (LEN.div_ceil(GROUP) - 1) * 64;
    for at in [0, len - 1, rng.random_range(0..len)] {
        let stored = stored().await;
        stored.flip(".outboard", at);
        found_and_restored(&stored, |found| *found == Finding::Outboard).await;
    }
}

#[tokio::test]
async fn a_truncated_payload() {
    for len in [MIB, 1] {
        let stored = stored().await;
        stored.truncate(".data", len as u64);
        let good = found_and_restored(&stored, |found| {
            matches!(found, Finding::Damaged { .. } | Finding::Lost)
        });
        let mut expected = vec![0..len / GROUP * GROUP, LEN..LEN];
        expected.retain(|range| !range.is_empty());
        assert_eq!(good.await, expected);
    }
}

#[tokio::test]
async fn a_truncated_outboard() {
    for len in [0, 64 * 100] {
        let stored = stored().await;
        stored.truncate(".outboard", len);
        found_and_restored(&stored, |found| *found == Finding::Outboard).await;
    }
}

#[tokio::test]
async fn a_missing_payload() {
    let stored = stored().await;
    stored.remove(".data");
    let good = found_and_restored(&stored, |found| *found == Finding::Lost).await;
    assert!(good.is_empty(), "{good:?}");
}

#[tokio::test]
async fn a_missing_outboard() {
    let stored = stored().await;
    stored.remove(".outboard");
    found_and_restored(&stored, |found| *found == Finding::Outboard).await;
}

/// Checks a store whose index or log was damaged: opening it fails, or each read is correct or fails.
/// No data is ever wrong, or reported as absent.
async fn look(stored: &Stored, context: &str) -> Look {
    let store = match try_open(stored.dir()).await {
        Ok(store) => store,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Corrupt, "{context}: {error:?}");
            return Look::Refused(error);
        }
    };
    let mut damaged = 0;
    let all = (10..).zip(stored.small.iter().copied());
    let mut all: Vec<_> = all
        .map(|(seed, hash)| (hash, bytes(seed, small_len(seed - 10))))
        .collect();
    all.push((stored.large, bytes(1, LEN)));
    for (hash, data) in all {
        match store.blobs().read_to_bytes(hash, 0..u64::MAX).await {
            Ok(read) => assert!(read == data, "{context}: wrong bytes"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Corrupt, "{context}: {error:?}");
                damaged += 1;
            }
        }
        if let Ok(status) = store.blobs().status(hash).await {
            let size = data.len() as u64;
            assert_eq!(status, Some(BlobStatus::Complete { size }), "{context}");
        }
    }
    close(store).await;
    match damaged {
        0 => Look::Whole,
        count => Look::Damaged(count),
    }
}

#[derive(Debug)]
enum Look {
    Refused(#[expect(dead_code, reason = "it is printed")] larder::Error),
    Damaged(#[expect(dead_code, reason = "it is printed")] usize),
    Whole,
}

/// Closes a store; a damaged one may return an error.
async fn close(store: Store) {
    if let Err(error) = store.close().await {
        assert!(
            matches!(error.kind(), Kind::Corrupt | Kind::Unavailable),
            "{error:?}"
        );
    }
}

/// Silences redb's panics on damaged pages, which the store catches.
fn quiet_redb() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let in_redb = panic
            .location()
            .is_some_and(|at| at.file().contains("/redb-"));
        if !in_redb {
            before(panic);
        }
    }));
}

/// The index is derived from the log: whatever happens to it, the next start has all of it.
#[tokio::test]
async fn a_damaged_index() {
    const FILE: &str = "index.redb";
    quiet_redb();
    let seed = Seed::or(73);
    let mut rng = rng(seed.number());
    let stored = stored().await;
    let whole = fs::read(stored.file(FILE)).unwrap();
    for round in 0..60 {
        let len = whole.len();
        let damage = match round % 4 {
            0..2 => {
                let at = rng.random_range(0..len);
                stored.flip(FILE, at);
                format!("bit of byte {at}")
            }
            2 => {
                let len = rng.random_range(0..len as u64);
                stored.truncate(FILE, len);
                format!("cut to {len}")
            }
            _ => {
                // A page that was never written, or one of long ago.
                let page = rng.random_range(0..len / 4096) * 4096;
                let mut bytes = whole.clone();
                bytes[page..page + 4096].fill(0);
                fs::write(stored.file(FILE), bytes).unwrap();
                format!("zeroed page at {page}")
            }
        };
        let context = format!("seed {}, {damage} of {len}", seed.number());
        // This may report that the store must be opened again.
        let first = look(&stored, &context).await;
        let second = look(&stored, &context).await;
        assert!(
            matches!(second, Look::Whole),
            "{context}: {second:?} after {first:?}"
        );
        fs::write(stored.file(FILE), &whole).unwrap();
    }
    stored.remove(FILE);
    let last = look(&stored, "no index").await;
    assert!(matches!(last, Look::Whole), "{last:?}");
}

/// The log is authoritative: its damaged parts are lost, and reported as such.
#[tokio::test]
async fn a_damaged_log() {
    const FILE: &str = ".log";
    let seed = Seed::or(74);
    let mut rng = rng(seed.number());
    let stored = stored().await;
    let whole = fs::read(stored.file(FILE)).unwrap();
    let index = fs::read(stored.file("index.redb")).unwrap();
    let mut looks = Vec::new();
    for round in 0..60 {
        let len = whole.len();
        let damage = match round % 3 {
            // As it was when it was closed.
            0 => {
                let at = rng.random_range(0..len);
                stored.flip(FILE, at);
                format!("bit of byte {at}")
            }
            1 => {
                let len = rng.random_range(0..len as u64);
                stored.truncate(FILE, len);
                format!("cut to {len}")
            }
            // At these places all of it is read. Without an index, damage at its very end looks like
            // the effect of a crash.
            _ => {
                let at = rng.random_range(0..len / 2);
                stored.flip(FILE, at);
                stored.remove("index.redb");
                format!("no index, bit of byte {at}")
            }
        };
        let context = format!("seed {}, {damage} of {len}", seed.number());
        looks.push(look(&stored, &context).await);
        fs::write(stored.file(FILE), &whole).unwrap();
        fs::write(stored.dir().join("index.redb"), &index).unwrap();
    }
    assert!(looks.iter().any(|look| matches!(look, Look::Refused(_))));
    assert!(looks.iter().any(|look| matches!(look, Look::Damaged(_))));
    stored.remove(FILE);
    let last = look(&stored, "no log").await;
    assert!(matches!(last, Look::Refused(_)), "{last:?}");
}

/// Damage of one blob does not prevent fetching others over the same connection.
#[tokio::test]
async fn damage_of_one_is_not_damage_of_all() {
    let stored = stored().await;
    stored.flip(".data", MIB);
    let store = open(stored.dir()).await;
    let blobs = store.blobs();
    let sound = blobs.add(bytes(500, MIB)).await.unwrap();
    let node = our_node(blobs, &[Root::raw(stored.large), sound.root()]).await;
    let folder = tempfile::tempdir().unwrap();
    let other = open(folder.path()).await;
    let endpoint = loopback().await;
    let connection = connection(&endpoint, node.endpoint()).await;
    for (root, expected) in [(Root::raw(stored.large), false), (sound.root(), true)] {
        let fetched = fetch(other.blobs(), &connection, root, Default::default()).await;
        assert_eq!(fetched.is_ok(), expected, "{fetched:?}");
    }
    let here = other.blobs().bitfield(stored.large).await.unwrap();
    // The peer's abort overtakes the data that it sent before.
    assert!(here.present_bytes() <= MIB as u64);
    endpoint.close().await;
    node.shutdown().await.unwrap();
}
