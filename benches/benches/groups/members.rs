//! Two members of a group, on redb and iroh.

use std::{
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    Store, StoreBuilder, StoreUrl, Unlock,
    groups::{
        Changes, EndpointOptions, InviteKind, Name, Policy, Reach, ReplicateOptions, Replicator,
        Repo, Synced,
    },
};

use crate::{Load, peak_memory};

const IN_FLIGHT: usize = 32;
/// The number of files per change when many are put.
const TOGETHER: usize = 50_000;
const PATIENCE: Duration = Duration::from_secs(600);

async fn member(dir: &Path, policy: Policy) -> (Store, Replicator) {
    std::fs::create_dir(dir).unwrap();
    let options = ReplicateOptions::default().policy(policy);
    let builder = StoreBuilder::from_url(StoreUrl::redb(dir.join("store")));
    let key = dir.join("key");
    let builder = builder.unlock_with(move || Unlock::key_file(&key));
    let store = builder.open().await.unwrap();
    let network = EndpointOptions::new(Reach::Loopback);
    let replicator = store.replicate(network, options).await.unwrap();
    (store, replicator)
}

/// Puts files in one change.
async fn put(repo: &Repo, files: impl Iterator<Item = (String, Bytes)>) {
    let mut staged = stream::iter(files)
        .map(|(name, data)| {
            let repo = repo.clone();
            async move { (name, repo.stage(data, 0).await.unwrap()) }
        })
        .buffer_unordered(IN_FLIGHT);
    let mut changes = Changes::new();
    while let Some((name, file)) = staged.next().await {
        changes.put(Name::new(name).unwrap(), file);
    }
    repo.change(changes).await.unwrap();
}

/// Measures the time until a new member has `count` names of files, and from then until it sees that
/// ten of them changed; and the peak memory, in MiB, of the member that put them.
pub async fn names(count: usize, dir: &Path) -> ([Duration; 2], f64) {
    let files = |numbers: Range<usize>, step: usize, what: &'static str| {
        numbers.step_by(step).map(move |n| {
            let name = format!("photos/{:04}/IMG_{n:07}.jpeg", n / 500);
            (name, Bytes::from(format!("{what} {n}")))
        })
    };
    let (from_store, from) = member(&dir.join("from"), Policy::Everything).await;
    let group = from.groups().create_group("the group").await.unwrap();
    let repo = group.create_repo("a member").await.unwrap();
    for at in (0..count).step_by(TOGETHER) {
        put(&repo, files(at..count.min(at + TOGETHER), 1, "file")).await;
    }
    let memory = peak_memory();
    let invite = group.invite(InviteKind::Read, from.addresses());
    let invite = invite.await.unwrap();

    let (to_store, to) = member(&dir.join("to"), Policy::Names).await;
    let start = Instant::now();
    let joined = to.groups().join(&invite).await.unwrap();
    let synced = to.wait_synced(joined.id(), Synced::Here, PATIENCE).await;
    synced.unwrap();
    let first = start.elapsed();

    let theirs = joined.repos().await.unwrap().remove(0);
    put(&repo, files(0..count, count / 10, "changed")).await;
    let (newest, start) = (repo.root().await.unwrap(), Instant::now());
    while theirs.root().await.unwrap().hash != newest.hash {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = start.elapsed();
    to.shutdown().await;
    from.shutdown().await;
    to_store.close().await.unwrap();
    from_store.close().await.unwrap();
    ([first, seen], memory)
}

/// Measures the time from joining until everything is here.
pub async fn catch_up(load: &Load, dir: &Path) -> Duration {
    let (from_store, from) = member(&dir.join("from"), Policy::Everything).await;
    let group = from.groups().create_group("the group").await.unwrap();
    let repo = group.create_repo("a member").await.unwrap();
    if load.is_long() {
        let path = dir.join("long");
        load.write_long(&path);
        repo.write("long", path).await.unwrap();
    } else {
        let names = (0..).map(|n| format!("folder/file {n}"));
        put(&repo, names.zip(load.files())).await;
    }
    let invite = group
        .invite(InviteKind::Read, from.addresses())
        .await
        .unwrap();

    let (to_store, to) = member(&dir.join("to"), Policy::Everything).await;
    let start = Instant::now();
    let joined = to.groups().join(&invite).await.unwrap();
    to.wait_synced(joined.id(), Synced::Here, PATIENCE)
        .await
        .unwrap();
    let took = start.elapsed();

    let repos = joined.repos().await.unwrap();
    let listed: Vec<_> = repos[0]
        .list("")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(listed.len(), load.files);
    to.shutdown().await;
    from.shutdown().await;
    to_store.close().await.unwrap();
    from_store.close().await.unwrap();
    took
}
