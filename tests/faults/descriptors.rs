//! Tests of a process that cannot open any more files: every call reports that, and none mistakes a
//! file that it could not open for missing or damaged.

use std::{fs::File, path::Path};

use futures_util::TryStreamExt;
use larder::{BlobStatus, Hash, Kind, Repair, api::is_out_of_descriptors, engine::Finding};
use tests::{
    child::{self, Child},
    data::{KIB, bytes},
    store::{open, read, scrub, try_open},
};

const BLOBS: u64 = 30;
const LEN: usize = 40 * KIB;

fn is_told(error: &larder::Error) {
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(is_out_of_descriptors(error), "{error:?}");
}

async fn run_out(dir: &Path) {
    let source = dir.join("source");
    std::fs::write(&source, bytes(1000, LEN)).unwrap();
    let hashes: Vec<Hash> = (0..BLOBS)
        .map(|number| Hash::of(bytes(number, LEN)))
        .collect();
    let store = open(&dir.join("store")).await;
    let blobs = store.blobs();
    // One file is open already; the others must not count as missing because of that.
    read(blobs, hashes[0]).await;
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    for hash in &hashes[1..] {
        is_told(&blobs.read_to_bytes(*hash, 0..u64::MAX).await.unwrap_err());
        let status = blobs.status(*hash).await.unwrap();
        assert_eq!(status, Some(BlobStatus::Complete { size: LEN as u64 }));
    }
    is_told(&blobs.add(source.as_path()).await.unwrap_err());
    is_told(&blobs.add(bytes(1001, LEN)).await.unwrap_err());
    for repair in [Repair::No, Repair::Yes] {
        let mut found = blobs.scrub(repair);
        let error = loop {
            match found.try_next().await {
                Ok(Some(scrubbed)) => assert_eq!(scrubbed.finding, Finding::Sound),
                Ok(None) => panic!("nothing but one of them could be read"),
                Err(error) => break error,
            }
        };
        is_told(&error);
    }
    is_told(&try_open(&dir.join("other")).await.unwrap_err());
    // Blobs in the index need no file.
    blobs.add(bytes(1002, KIB)).await.unwrap();

    drop(held);
    for (number, hash) in (0..).zip(&hashes) {
        assert!(read(blobs, *hash).await == bytes(number, LEN));
    }
    blobs.add(source.as_path()).await.unwrap();
    let wrong = scrub(blobs, Repair::Yes).await;
    let wrong: Vec<_> = wrong
        .iter()
        // Leftovers of a failed add are removed here or by the next start.
        .filter(|found| !matches!(found.finding, Finding::Sound | Finding::Orphan { .. }))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    store.close().await.unwrap();
    open(&dir.join("other")).await.close().await.unwrap();
    child::say("done");
}

#[test]
fn what_cannot_be_opened_is_neither_missing_nor_damaged() {
    const TEST: &str = "descriptors::what_cannot_be_opened_is_neither_missing_nor_damaged";
    if child::job().is_some() {
        let dir = child::argument("DIR");
        return child::run(run_out(Path::new(&dir)));
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    child::run(async {
        let store = open(&dir.join("store")).await;
        for number in 0..BLOBS {
            let tag = format!("{number}");
            let options =
                larder::AddOptions::default().tag(larder::TagName::try_from(tag.as_str()).unwrap());
            store
                .blobs()
                .add_with(bytes(number, LEN), options)
                .await
                .unwrap();
        }
        store.close().await.unwrap();
    });
    let limit = "ulimit -n 100";
    let child = Child::start_in_shell(&["sh"], limit, dir, TEST, "run out", &[("DIR", &dir)]);
    assert_eq!(child.finish(), ["done"]);
}
