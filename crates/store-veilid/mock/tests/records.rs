//! Tests of failures that are injected into Veilid's mock network.

use larder_store_api::{
    Freshness, Kind, PublicKey, Put, PutRecord, RecordDescriptor, RecordId, RecordStore, Result,
    SecretKey, SeqExpect,
};
use larder_store_veilid::VeilidRecords;
use tokio::sync::{Mutex, MutexGuard};

mod node;

use node::records;

/// A fixed key pair, seed and public key; nothing here can generate one.
const OWNER: ([u8; 32], [u8; 32]) = (
    [1; 32],
    [
        0x8a, 0x88, 0xe3, 0xdd, 0x74, 0x09, 0xf1, 0x95, 0xfd, 0x52, 0xdb, 0x2d, 0x3c, 0xba, 0x5d,
        0x72, 0xca, 0x67, 0x09, 0xbf, 0x1d, 0x94, 0x12, 0x1b, 0xf3, 0x74, 0x88, 0x01, 0xb4, 0x0f,
        0x6f, 0x5c,
    ],
);

/// Failures affect all nodes of the process, so only one test may run at a time.
static ARMED: Mutex<()> = Mutex::const_new(());

struct Faulty {
    records: VeilidRecords,
    id: RecordId,
    _dir: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Faulty {
    /// Creates a record with a number of slots that no other test uses, and a value in slot 0.
    async fn new(slots: u16) -> Result<Self> {
        let one = ARMED.lock().await;
        let dir = tempfile::tempdir().expect("a folder");
        let records = records(dir.path()).await?;
        let descriptor = RecordDescriptor {
            owner: PublicKey(OWNER.1),
            owner_slots: slots,
            members: Vec::new(),
        };
        let id = records.create(descriptor).await?;
        assert_eq!(
            records.put(id, 0, write("first", SeqExpect::Any)).await?,
            Put::Published { seq: 1 }
        );
        Ok(Self {
            records,
            id,
            _dir: dir,
            _one: one,
        })
    }

    async fn debug(&self, command: String) -> String {
        let said = self.records.node().api().debug(command).await;
        said.expect("the mock knows the command")
    }

    /// Injects a failure into the calls of our record.
    async fn arm(&self, fault: &str) {
        let said = self.debug(format!("fault arm {fault}")).await;
        assert!(said.starts_with("armed"), "{said}");
    }

    /// Removes the failure, and returns which one it was and how often it happened.
    async fn disarm(&self) -> String {
        let armed = self.debug("fault list".to_owned()).await;
        self.debug("fault clear".to_owned()).await;
        armed
    }

    async fn get(&self, fresh: Freshness) -> Result<Option<Vec<u8>>> {
        let found = self.records.get(self.id, 0, fresh).await?;
        Ok(found.map(|found| found.value.to_vec()))
    }

    async fn end(self) {
        self.disarm().await;
        self.records.node().shutdown().await;
    }
}

fn write(value: &'static str, expect: SeqExpect) -> PutRecord {
    PutRecord::Write {
        value: value.into(),
        writer: SecretKey::from_bytes(OWNER.0),
        expect,
    }
}

#[tokio::test]
async fn what_asks_to_be_tried_again_is() -> Result<()> {
    let faulty = Faulty::new(11).await?;
    for fault in [
        "inspect try_again",
        "get try_again",
        "get timeout",
        "inspect timeout",
    ] {
        faulty.arm(&format!("{fault} --count 2")).await;
        let found = faulty.get(Freshness::Network).await?;
        assert_eq!(found.as_deref(), Some(&b"first"[..]), "{fault}");
        assert_eq!(
            faulty.disarm().await,
            "no faults armed",
            "{fault}: both happened"
        );
    }
    faulty.arm("set try_again --count 2").await;
    let put = faulty
        .records
        .put(faulty.id, 0, write("second", SeqExpect::At(1)));
    assert_eq!(put.await?, Put::Published { seq: 2 });
    assert_eq!(faulty.disarm().await, "no faults armed");
    faulty.end().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_long_is_unavailable_and_never_absent() -> Result<()> {
    let faulty = Faulty::new(12).await?;
    for fault in ["get try_again", "inspect try_again", "inspect timeout"] {
        faulty.arm(fault).await;
        let error = faulty.get(Freshness::Network).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{fault}: {error}");
        faulty.disarm().await;
    }
    faulty.arm("set timeout").await;
    let put = faulty
        .records
        .put(faulty.id, 0, write("second", SeqExpect::Any));
    assert_eq!(put.await.unwrap_err().kind(), Kind::Unavailable);
    faulty.disarm().await;
    assert_eq!(faulty.get(Freshness::Network).await?.unwrap(), b"first");
    faulty.end().await;
    Ok(())
}

#[tokio::test]
async fn a_get_that_produces_nothing_is_not_absence() -> Result<()> {
    let faulty = Faulty::new(13).await?;
    faulty.arm("get silent").await;
    let error = faulty.get(Freshness::Network).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    faulty.disarm().await;
    assert_eq!(faulty.get(Freshness::Network).await?.unwrap(), b"first");
    faulty.end().await;
    Ok(())
}

#[tokio::test]
async fn a_set_that_stores_nothing_is_not_published() -> Result<()> {
    let faulty = Faulty::new(14).await?;
    faulty.arm("set silent").await;
    let put = faulty
        .records
        .put(faulty.id, 1, write("lost", SeqExpect::Any));
    match put.await {
        Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
        Ok(put) => assert!(!matches!(put, Put::Published { .. }), "{put:?}"),
    }
    faulty.disarm().await;
    let put = faulty
        .records
        .put(faulty.id, 1, write("kept", SeqExpect::Any));
    assert!(matches!(put.await?, Put::Published { .. }));
    faulty.end().await;
    Ok(())
}

#[tokio::test]
async fn who_was_not_first_is_told_what_is_there() -> Result<()> {
    let faulty = Faulty::new(15).await?;
    // Somebody else writes before our next read from the network.
    faulty.arm("get rival --count 1 --data theirs").await;
    let found = faulty.get(Freshness::Network).await?;
    assert!(found.is_some());
    let put = faulty
        .records
        .put(faulty.id, 0, write("ours", SeqExpect::At(7)));
    match put.await? {
        Put::Superseded { current } => assert_eq!(current.expect("a value").seq, 1),
        other => panic!("{other:?}"),
    }
    faulty.end().await;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_opened_is_an_error_and_what_is_not_there_is_none() -> Result<()> {
    let faulty = Faulty::new(16).await?;
    faulty.debug("record purge local".to_owned()).await;
    faulty.arm("open generic --count 1").await;
    let unknown = records(tempfile::tempdir().expect("a folder").path()).await?;
    let descriptor = RecordDescriptor {
        owner: PublicKey(OWNER.1),
        owner_slots: 16,
        members: Vec::new(),
    };
    let id = unknown.create(descriptor.clone()).await?;
    assert_eq!(id, faulty.id);
    let failed = unknown.get(id, 0, Freshness::Network).await;
    assert!(failed.is_err(), "{failed:?}");
    faulty.disarm().await;
    let found = unknown.get(id, 0, Freshness::Network).await?;
    assert_eq!(&found.expect("the other node wrote it").value[..], b"first");

    let never = RecordDescriptor {
        owner_slots: 17,
        ..descriptor
    };
    let never = unknown.create(never).await?;
    assert_eq!(unknown.get(never, 0, Freshness::Network).await?, None);
    unknown.node().shutdown().await;
    faulty.end().await;
    Ok(())
}
