//! Tests of records in a real node that is not attached: which calls work offline, and which return an
//! error.

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use larder_store_api::{
    Freshness, Kind, PublicKey, Put, PutRecord, RecordDescriptor, RecordId, RecordMember,
    RecordStore, Result, SecretKey, Secrets, SeqExpect, SlotSeq,
};
use larder_store_testkit::{record_store_suite, suite::Subject};
use larder_store_veilid::{VeilidRecords, VeilidSecrets, VeilidStore};
use support::{name, node};

/// The suite, on one node that never meets another.
mod suite {
    use super::*;

    async fn subject() -> Result<Subject<VeilidRecords>> {
        let dir = Arc::new(tempfile::tempdir().expect("a folder"));
        let namespace = name();
        let records = open(dir.path(), &namespace).await?;
        let again = Arc::clone(&dir);
        Ok(Subject::new(records)
            .opening(move || {
                let (dir, namespace) = (Arc::clone(&again), namespace.clone());
                async move { open(dir.path(), &namespace).await }
            })
            .closing(|records| async move {
                records.node().shutdown().await;
                Result::<()>::Ok(())
            })
            .keeping(dir))
    }

    record_store_suite!(subject, lacks: [
        Import = "Veilid's interface takes no values that were signed elsewhere",
        SharedRoom = "Veilid divides a record's room among its slots",
    ]);
}

async fn open(dir: &Path, namespace: &str) -> Result<VeilidRecords> {
    let node = node(dir, namespace).await?;
    let known = VeilidStore::open(node.clone(), "").await?;
    VeilidRecords::new(node, Arc::new(known))
}

/// Fixed key pairs, seed and public key; nothing here can generate them.
const OWNER: ([u8; 32], [u8; 32]) = (
    [1; 32],
    [
        0x8a, 0x88, 0xe3, 0xdd, 0x74, 0x09, 0xf1, 0x95, 0xfd, 0x52, 0xdb, 0x2d, 0x3c, 0xba, 0x5d,
        0x72, 0xca, 0x67, 0x09, 0xbf, 0x1d, 0x94, 0x12, 0x1b, 0xf3, 0x74, 0x88, 0x01, 0xb4, 0x0f,
        0x6f, 0x5c,
    ],
);
const MEMBER: ([u8; 32], [u8; 32]) = (
    [2; 32],
    [
        0x81, 0x39, 0x77, 0x0e, 0xa8, 0x7d, 0x17, 0x5f, 0x56, 0xa3, 0x54, 0x66, 0xc3, 0x4c, 0x7e,
        0xcc, 0xcb, 0x8d, 0x8a, 0x91, 0xb4, 0xee, 0x37, 0xa2, 0x5d, 0xf6, 0x0f, 0x5b, 0x8f, 0xc9,
        0xb3, 0x94,
    ],
);

fn owned(slots: u16) -> RecordDescriptor {
    RecordDescriptor {
        owner: PublicKey(OWNER.1),
        owner_slots: slots,
        members: Vec::new(),
    }
}

fn shared() -> RecordDescriptor {
    RecordDescriptor {
        members: vec![RecordMember {
            key: PublicKey(MEMBER.1),
            slots: 1,
        }],
        ..owned(1)
    }
}

fn write(value: impl Into<Vec<u8>>, (seed, _): ([u8; 32], [u8; 32])) -> PutRecord {
    PutRecord::Write {
        value: value.into().into(),
        writer: SecretKey::from_bytes(seed),
        expect: SeqExpect::Any,
    }
}

async fn kind<T: std::fmt::Debug>(call: impl Future<Output = Result<T>>) -> Kind {
    call.await.expect_err("it is refused").kind()
}

#[tokio::test]
async fn offline_writes_are_queued_and_readable() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let namespace = name();
    let records = open(dir.path(), &namespace).await?;
    let id = records.create(owned(2)).await?;
    for seq in 1..=3 {
        let put = records.put(id, 0, write("v", OWNER)).await?;
        assert_eq!(put, Put::Queued { seq });
    }
    let found = records.get(id, 0, Freshness::LocalThenNetwork).await?;
    let found = found.expect("it is here");
    assert_eq!((&found.value[..], found.seq), (&b"v"[..], 3));
    records.node().shutdown().await;
    drop(records);

    // The value still waits after a restart.
    let records = open(dir.path(), &namespace).await?;
    let found = records.inspect(id, 0..2, Freshness::Local).await?;
    assert_eq!(found, [SlotSeq { slot: 0, seq: 3 }]);
    let put = records.put(id, 0, write("v", OWNER)).await?;
    assert_eq!(put, Put::Queued { seq: 4 });
    records.node().shutdown().await;
    Ok(())
}

#[tokio::test]
async fn the_network_is_unavailable_and_nothing_is_taken_for_absent() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let records = open(dir.path(), &name()).await?;
    let id = records.create(shared()).await?;
    for fresh in [Freshness::LocalThenNetwork, Freshness::Network] {
        assert_eq!(kind(records.get(id, 0, fresh)).await, Kind::Unavailable);
        assert_eq!(
            kind(records.inspect(id, 0..2, fresh)).await,
            Kind::Unavailable
        );
    }
    // Only its owner can create a record, and nobody can tell whether it did.
    let put = records.put(id, 1, write("v", MEMBER));
    assert_eq!(kind(put).await, Kind::Unavailable);
    assert!(records.put(id, 0, write("v", OWNER)).await.is_ok());
    let put = records.put(id, 1, write("v", MEMBER)).await?;
    assert_eq!(put, Put::Queued { seq: 1 });
    records.node().shutdown().await;
    Ok(())
}

#[tokio::test]
async fn the_room_is_divided_among_the_slots() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let records = open(dir.path(), &name()).await?;
    for (slots, most) in [(1, 32_768), (32, 32_768), (33, 31_775), (1024, 1024)] {
        let id = records.create(owned(slots)).await?;
        let over = records.put(id, 0, write(vec![0; most + 1], OWNER));
        let error = over.await.expect_err("it is too long");
        assert_eq!(
            error.to_string(),
            format!(
                "record.put: too large: a value of this record is too long (len={}, most={most})",
                most + 1
            )
        );
        let put = records.put(id, slots - 1, write(vec![0; most], OWNER));
        assert_eq!(put.await?, Put::Queued { seq: 1 });
    }
    records.node().shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_shutdown_ends_calls_in_flight() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let records = Arc::new(open(dir.path(), &name()).await?);
    let id = records.create(owned(4)).await?;
    let calls: Vec<_> = (0..16)
        .map(|n| {
            let records = Arc::clone(&records);
            tokio::spawn(async move {
                loop {
                    let done = match n % 3 {
                        0 => records.get(id, 0, Freshness::Local).await.map(drop),
                        1 => records.put(id, n % 4, write("v", OWNER)).await.map(drop),
                        _ => records.inspect(id, 0..4, Freshness::Local).await.map(drop),
                    };
                    if let Err(error) = done {
                        return error.kind();
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    records.node().shutdown().await;
    for call in calls {
        assert_eq!(call.await.expect("it does not panic"), Kind::Closed);
    }
    let unknown = records.get(RecordId([0; 32]), 0, Freshness::Local);
    assert_eq!(kind(unknown).await, Kind::Closed);
    Ok(())
}

/// Returns the files of Veilid's own tables, without ours.
fn veilids_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(dir.join("table_store")).expect("a folder");
    let files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    let locks = files.iter().filter(|file| {
        file.extension()
            .is_some_and(|extension| extension == "larder")
    });
    let ours: Vec<String> = locks
        .map(|lock| std::fs::read_to_string(lock).expect("a name"))
        .collect();
    let is_ours = |file: &std::path::PathBuf| {
        let name = file.file_name().expect("a name").to_string_lossy();
        name.ends_with(".larder") || ours.iter().any(|ours| name.starts_with(ours.as_str()))
    };
    files.into_iter().filter(|file| !is_ours(file)).collect()
}

#[tokio::test]
async fn what_veilid_has_lost_is_put_again() -> Result<()> {
    let (dir, before) = (tempfile::tempdir(), tempfile::tempdir());
    let (dir, before) = (dir.expect("a folder"), before.expect("a folder"));
    let namespace = name();
    let records = open(dir.path(), &namespace).await?;
    let id = records.create(owned(2)).await?;
    records.put(id, 0, write("old", OWNER)).await?;
    records.node().shutdown().await;
    drop(records);
    for file in veilids_files(dir.path()) {
        let to = before.path().join(file.file_name().expect("a name"));
        std::fs::copy(file, to).expect("a copy");
    }

    let records = open(dir.path(), &namespace).await?;
    records.put(id, 0, write("newer", OWNER)).await?;
    records.put(id, 0, write("newest", OWNER)).await?;
    records.put(id, 1, write("another", OWNER)).await?;
    records.node().shutdown().await;
    drop(records);

    // Simulates a loss of power: Veilid did not sync what it wrote.
    for file in veilids_files(dir.path()) {
        std::fs::remove_file(file).expect("it is removed");
    }
    for file in std::fs::read_dir(before.path()).expect("a folder") {
        let file = file.expect("a file").path();
        let to = dir.path().join("table_store");
        let to = to.join(file.file_name().expect("a name"));
        std::fs::copy(file, to).expect("a copy");
    }
    let records = open(dir.path(), &namespace).await?;
    let found = records.inspect(id, 0..2, Freshness::Local).await?;
    let [first, second] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(first.seq >= 3 && second.seq >= 1, "{found:?}");
    for (slot, value) in [(0, &b"newest"[..]), (1, b"another")] {
        let found = records.get(id, slot, Freshness::Local).await?;
        assert_eq!(&found.expect("it was put again").value[..], value);
    }
    // Forgetting the record removes that too, and the key for putting again.
    let secrets = VeilidSecrets::new(records.node().clone());
    assert_eq!(secrets.list().await?.len(), 1);
    records.forget(id).await?;
    assert!(secrets.list().await?.is_empty());
    records.node().shutdown().await;
    Ok(())
}
