//! Tests of groups and repos on one device, without a network.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::SystemTime,
};

use common::join;
use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{CollectionStore, Kind, Result};
use larder_store_engine::{BlobStatus, Blobs, Source};
use larder_store_testkit::{MemorySecrets, MemoryStore, stores::StrictStore};
use larder_sync::{
    groups::{Changes, Groups, Stores},
    invite::{Invite, InviteKind},
    tree::Name,
};

/// A device whose data survives opening its groups again.
struct Device {
    stores: Stores,
    clock: Arc<AtomicI64>,
}

impl Device {
    async fn over(
        store: impl larder_store_api::BlobStore + CollectionStore + Clone,
    ) -> Result<Self> {
        let shared = Arc::new(store);
        let stores = Stores {
            blobs: Blobs::open(shared.clone(), shared.clone()).await?,
            secrets: Arc::new(MemorySecrets::new()),
        };
        let clock = Arc::new(AtomicI64::new(1000));
        Ok(Self { stores, clock })
    }

    async fn new() -> Result<Self> {
        Self::over(MemoryStore::new()).await
    }

    async fn open(&self) -> Result<Groups> {
        let clock = Arc::clone(&self.clock);
        let clock = Arc::new(move || clock.fetch_add(1, Ordering::SeqCst));
        Groups::open_with(self.stores.clone(), clock).await
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.expect_err("it is refused").kind()
}

async fn names(repo: &larder_sync::groups::Repo) -> Result<Vec<String>> {
    let files = repo.list("").await?;
    files
        .map_ok(|named| named.name.as_str().to_owned())
        .try_collect()
        .await
}

#[tokio::test]
async fn a_group_is_there_again() -> Result<()> {
    let device = Device::new().await?;
    let groups = device.open().await?;
    let group = groups.create_group("family").await?;
    let repo = group.create_repo("ann").await?;
    repo.write("photos/1.jpg", "first").await?;
    repo.write("photos/2.jpg", Source::reader(&b"second"[..]))
        .await?;
    drop((groups, group, repo));

    let groups = device.open().await?;
    let [group] = &groups.groups()[..] else {
        panic!("one group");
    };
    assert_eq!(group.name().await?.as_deref(), Some("family"));
    let members = group.members().await?;
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].name.as_deref(), Some("ann"));
    let repo = &members[0].repo;
    assert!(repo.is_ours() && group.has_repo(repo.key()).await?);
    assert_eq!(names(repo).await?, ["photos/1.jpg", "photos/2.jpg"]);
    assert_eq!(repo.read_to_bytes("photos/1.jpg").await?, "first");
    let range: Vec<_> = repo.read("photos/2.jpg", 1..4).await?.try_collect().await?;
    assert_eq!(range.concat(), b"eco");
    assert_eq!(
        kind(repo.read_to_bytes("photos/3.jpg").await),
        Kind::NotFound
    );
    Ok(())
}

#[tokio::test]
async fn the_store_is_let_go_with_the_last_handle() -> Result<()> {
    let device = Device::new().await?;
    let groups = device.open().await?;
    let group = groups.create_group("g").await?;
    let repo = group.create_repo("r").await?;
    repo.write("a", "1").await?;
    assert_eq!(group.members().await?.len(), 1);
    let kept = Arc::downgrade(&device.stores.secrets);
    drop((device, groups, group));
    // Any handle is enough to continue.
    repo.write("b", "2").await?;
    assert_eq!(repo.group().repos().await?.len(), 1);
    assert!(kept.upgrade().is_some());
    drop(repo);
    assert!(kept.upgrade().is_none());
    Ok(())
}

#[tokio::test]
async fn files_are_written_removed_and_renamed() -> Result<()> {
    let device = Device::over(StrictStore::new()).await;
    let device = device?;
    let group = device.open().await?.create_group("g").await?;
    let repo = group.create_repo("r").await?;
    assert!(names(&repo).await?.is_empty());
    repo.remove("nothing").await?;
    repo.write("a", "1").await?;
    repo.write("a", "2").await?;
    assert_eq!(repo.read_to_bytes("a").await?, "2");
    repo.rename("a", "b/c").await?;
    assert_eq!(names(&repo).await?, ["b/c"]);
    assert_eq!(kind(repo.rename("a", "d").await), Kind::NotFound);
    repo.rename("b/c", "b/c").await?;
    assert_eq!(repo.read_to_bytes("b/c").await?, "2");
    for bad in ["", "/a", "a/", "a//b", "../a", "a\0"] {
        assert_eq!(kind(repo.write(bad, "x").await), Kind::Invalid, "{bad:?}");
    }
    let mut changes = Changes::new();
    for n in 0..200 {
        let staged = repo.stage(format!("file {n}").into_bytes(), n).await?;
        changes.put(Name::new(format!("many/{n:03}"))?, staged);
    }
    changes.remove(Name::new("b/c")?);
    let root = repo.change(changes).await?;
    assert_eq!(root.files, 200);
    assert_eq!(repo.read_to_bytes("many/177").await?, "file 177");
    // The first root, then one for each change that had an effect.
    let history = repo.history().await?;
    assert_eq!(history.len(), 3);
    assert!(history.iter().all(|earlier| earlier.hash() != root.hash));
    repo.remove("nothing").await?;
    assert_eq!(repo.history().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn no_path_is_a_file_and_a_folder() -> Result<()> {
    let device = Device::new().await?;
    let groups = device.open().await?;
    let group = groups.create_group("family").await?;
    let repo = group.create_repo("ann").await?;
    repo.write("a", "file").await?;
    repo.write("a/b/c", "deep").await?;
    assert_eq!(names(&repo).await?, ["a/b/c"]);
    assert_eq!(kind(repo.write("a", "file").await), Kind::Invalid);
    assert_eq!(kind(repo.write("a/b", "file").await), Kind::Invalid);
    repo.write("d", "file").await?;
    assert_eq!(kind(repo.rename("d", "a/b").await), Kind::Invalid);
    // A folder of one file becomes that file.
    repo.rename("a/b/c", "a").await?;
    repo.rename("d", "a/d").await?;
    assert_eq!(names(&repo).await?, ["a/d"]);
    let mut changes = Changes::new();
    changes.put(Name::new("x")?, repo.stage("1", 0).await?);
    changes.put(Name::new("x/y")?, repo.stage("2", 0).await?);
    assert_eq!(kind(repo.change(changes).await), Kind::Invalid);
    Ok(())
}

/// A log that grows while it is read is taken as it was; a file whose bytes keep changing is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_is_taken_as_it_was() -> Result<()> {
    let device = Device::new().await?;
    let groups = device.open().await?;
    let group = groups.create_group("family").await?;
    let repo = group.create_repo("ann").await?;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("app.log");
    std::fs::write(&path, vec![b'x'; 3_000_000]).expect("a file");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (growing, stopped) = (path.clone(), stop.clone());
    let writer = std::thread::spawn(move || {
        let mut log = std::fs::OpenOptions::new()
            .append(true)
            .open(growing)
            .expect("it opens");
        while !stopped.load(Ordering::Relaxed) {
            std::io::Write::write_all(&mut log, b"a line\n").expect("it grows");
        }
    });
    for n in 0..5 {
        let name = format!("log{n}");
        let entry = repo.write(&name, Source::Path(path.clone())).await?;
        assert!(entry.size >= 3_000_000);
        let bytes = repo.read_to_bytes(&name).await?;
        assert_eq!(bytes.len() as u64, entry.size);
        assert_eq!(
            bytes[..],
            std::fs::read(&path).expect("it is read")[..bytes.len()]
        );
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("it ends");
    Ok(())
}

#[tokio::test]
async fn concurrent_writes_lose_none() -> Result<()> {
    let device = Device::new().await?;
    let group = device.open().await?.create_group("g").await?;
    let repo = group.create_repo("r").await?;
    let writes = (0..24).map(|n| {
        let repo = repo.clone();
        async move {
            repo.write(&format!("{n:02}"), format!("{n}").into_bytes())
                .await
        }
    });
    for written in futures_util::future::join_all(writes).await {
        written?;
    }
    assert_eq!(names(&repo).await?.len(), 24);
    Ok(())
}

#[tokio::test]
async fn the_same_file_is_stored_once_and_read_by_its_readers_only() -> Result<()> {
    let device = Device::new().await?;
    let groups = device.open().await?;
    let group = groups.create_group("g").await?;
    let repo = group.create_repo("r").await?;
    let canary = "a canary that nobody else may read".repeat(1000);
    let one = repo.write("one", canary.clone().into_bytes()).await?;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("file");
    std::fs::write(&path, &canary).expect("a file");
    let two = repo.write("two", path).await?;
    assert_eq!(one.blob, two.blob);
    let streamed = Source::reader(std::io::Cursor::new(canary.clone()));
    let three = repo.write("three", streamed).await?;
    assert_ne!(one.blob, three.blob);
    assert_eq!(repo.read_to_bytes("three").await?, canary.as_bytes());
    let other = groups.create_group("other").await?.create_repo("r").await?;
    let four = other.write("one", canary.clone().into_bytes()).await?;
    assert_ne!(one.blob, four.blob);
    let mut blobs = device.stores.blobs.list();
    while let Some((hash, _)) = blobs.try_next().await? {
        let bytes = device.stores.blobs.read_to_bytes(hash, 0..u64::MAX).await?;
        assert!(
            !bytes
                .windows(12)
                .any(|part| part == &canary.as_bytes()[..12])
        );
    }
    Ok(())
}

#[tokio::test]
async fn removing_gives_the_space_back_and_keeps_what_others_name() -> Result<()> {
    let device = Device::new().await?;
    let group = device.open().await?.create_group("g").await?;
    let repo = group.create_repo("r").await?;
    let second = group.create_repo("s").await?;
    let shared = repo.write("shared", vec![1; 100_000]).await?;
    second.write("mine too", vec![1; 100_000]).await?;
    let large = repo.write("large", vec![2; 3_000_000]).await?;
    repo.remove("large").await?;
    repo.remove("shared").await?;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    device.stores.blobs.collect(SystemTime::now()).await?;
    let status = device.stores.blobs.status(large.blob).await?;
    assert_eq!(status, None);
    let status = device.stores.blobs.status(shared.blob).await?;
    assert!(matches!(status, Some(BlobStatus::Complete { .. })));
    assert_eq!(second.read_to_bytes("mine too").await?.len(), 100_000);
    // Leaving releases everything.
    let groups = device.open().await?;
    groups.leave(group.id()).await?;
    groups.leave(group.id()).await?;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    device.stores.blobs.collect(SystemTime::now()).await?;
    assert_eq!(device.stores.blobs.list().count().await, 0);
    assert!(device.stores.secrets.list().await?.is_empty());
    assert!(device.open().await?.groups().is_empty());
    Ok(())
}

#[tokio::test]
async fn an_invite_allows_what_it_says() -> Result<()> {
    let device = Device::new().await?;
    let groups = device.open().await?;
    let group = groups.create_group("g").await?;
    let repo = group.create_repo("ann").await?;
    let at = vec!["sim:1".to_owned()];
    let mut invites = Vec::new();
    for kind in [
        InviteKind::Write,
        InviteKind::Read,
        InviteKind::Replica,
        InviteKind::Device,
    ] {
        let text = group.invite(kind, at.clone()).await?.to_string();
        invites.push(text.parse::<Invite>()?);
    }
    let [write, read, replica, own] = &invites[..] else {
        panic!("four invites");
    };

    let open = async || Device::new().await?.open().await;
    let writer = join(&groups, &open().await?, write).await?;
    assert_eq!(writer.addresses(), at);
    assert_eq!(
        writer.name().await?.as_deref(),
        Some("g"),
        "the invite has it"
    );
    assert!(writer.create_repo("bob").await?.is_ours());
    assert_eq!(
        kind(writer.invite(InviteKind::Read, vec![]).await),
        Kind::Denied
    );
    writer.invite(InviteKind::Device, vec![]).await?;

    let reader = join(&groups, &open().await?, read).await?;
    assert_eq!(kind(reader.create_repo("eve").await), Kind::Denied);
    assert_eq!(
        kind(reader.invite(InviteKind::Write, vec![]).await),
        Kind::Denied
    );

    let keeper = join(&groups, &open().await?, replica).await?;
    assert_eq!(kind(keeper.name().await), Kind::Denied);
    assert_eq!(kind(keeper.create_repo("eve").await), Kind::Denied);
    assert_eq!(
        kind(keeper.invite(InviteKind::Replica, vec![]).await),
        Kind::Denied
    );

    let phone = Device::new().await?;
    let phones = phone.open().await?;
    let other = group.invite(InviteKind::Replica, at.clone()).await?;
    let first = join(&groups, &phones, &other).await?;
    assert!(!first.can_read());
    // A better invite to the same group adds its rights.
    let joined = join(&groups, &phones, own).await?;
    assert!(joined.can_read() && first.can_write());
    let again = phone.open().await?;
    assert_eq!(again.groups().len(), 1);
    assert!(again.groups()[0].can_write());
    drop(repo);
    Ok(())
}

#[tokio::test]
async fn keys_that_are_gone_are_missed() -> Result<()> {
    let device = Device::new().await?;
    let group = device.open().await?.create_group("g").await?;
    let secrets = &device.stores.secrets;
    for name in secrets.list().await? {
        secrets.delete(name).await?;
    }
    let error = device.open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.to_string(),
        format!(
            "sync.open: not found: a key of a group is not among the secrets; bring them back \
             (group={})",
            group.id()
        )
    );
    Ok(())
}
