//! An app hears which files changed, here and at others, and reads what was there before.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use larder_store_api::{Kind, PublicKey};
use larder_sync::{
    groups::{
        Changes, FileChanges, FilesChanged, MAX_CHANGED_FILES, Policy, WriteOptions, Written,
    },
    invite::InviteKind::{Read, Replica},
    replicate::Synced,
    tree::{Difference, Name},
};
use larder_sync_sim::SimNetwork;

use crate::{
    link,
    world::{PATIENCE, options, own, world},
};

/// The paths of differences, with + for a new file, - for one that went and * for one that changed.
fn paths(files: &[Difference]) -> Vec<String> {
    let path = |file: &Difference| {
        let sign = match (&file.old, &file.new) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '*',
        };
        format!("{sign}{}", file.name)
    };
    files.iter().map(path).collect()
}

/// Listens until these changes have come, of this repo.
async fn hear(changes: &mut FileChanges, repo: PublicKey, expected: &[&str]) -> FilesChanged {
    let mut heard = Vec::new();
    let hearing = async {
        loop {
            let changed = changes.next().await.expect("a change").expect("it is read");
            assert_eq!(changed.repo.key(), repo);
            heard.extend(paths(changed.files.as_deref().expect("few files")));
            if heard.len() >= expected.len() {
                return changed;
            }
        }
    };
    let last = tokio::time::timeout(PATIENCE, hearing).await;
    assert_eq!(heard, expected);
    last.expect("all came")
}

async fn has_more(changes: &mut FileChanges) -> bool {
    let next = tokio::time::timeout(Duration::from_secs(5), changes.next());
    next.await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn the_paths_of_what_changed_are_told_here_and_there() {
    let net = SimNetwork::new(71);
    net.set_default_link(link());
    let devices = world(&net, &[Read], &options()).await;
    let repo = own(&devices[0]).await;
    repo.write("lake.txt", "cold").await.expect("a file");
    devices[0].synced(Synced::Everywhere).await;
    devices[1].synced(Synced::Everywhere).await;

    let mut here = devices[0].group().file_changes().await.expect("changes");
    let mut there = devices[1].group().file_changes().await.expect("changes");
    // This changes nothing.
    repo.remove("nothing").await.expect("nothing goes");
    repo.write("a/new.txt", "new").await.expect("a file");
    let changed = hear(&mut here, repo.key(), &["+a/new.txt"]).await;
    let files = changed.files.expect("few files");
    assert_eq!(files[0].new.as_ref().expect("a new file").size, 3);
    hear(&mut there, repo.key(), &["+a/new.txt"]).await;

    // Several while nobody listens come as one.
    repo.write("lake.txt", "warm").await.expect("a file");
    repo.rename("a/new.txt", "b/new.txt")
        .await
        .expect("a rename");
    devices[1].synced(Synced::Everywhere).await;
    let expected = ["-a/new.txt", "+b/new.txt", "*lake.txt"];
    let changed = hear(&mut there, repo.key(), &expected).await;
    let (old, new) = (changed.old, changed.new);
    assert_eq!(
        old.read_to_bytes("lake.txt").await.expect("it is kept"),
        "cold"
    );
    assert_eq!(
        new.read_to_bytes("lake.txt").await.expect("it is here"),
        "warm"
    );
    assert!(!has_more(&mut there).await);

    // A new repo begins without files, and only those who listen to all hear of it.
    let mut of_one = repo.file_changes().await.expect("changes");
    let other = devices[0]
        .group()
        .create_repo("other")
        .await
        .expect("a repo");
    other.write("first", "x").await.expect("a file");
    hear(&mut there, other.key(), &["+first"]).await;
    repo.remove("lake.txt").await.expect("it goes");
    hear(&mut of_one, repo.key(), &["-lake.txt"]).await;
    assert!(!has_more(&mut of_one).await);
}

#[tokio::test(start_paused = true)]
async fn names_alone_are_told_too_and_a_replica_hears_nothing() {
    let net = SimNetwork::new(72);
    net.set_default_link(link());
    let devices = world(&net, &[Read, Replica], &options()).await;
    devices[1]
        .group()
        .set_policy(Policy::Names)
        .await
        .expect("a policy");
    let mut there = devices[1].group().file_changes().await.expect("changes");
    let repo = own(&devices[0]).await;
    repo.write("a", vec![1; 100_000]).await.expect("a file");
    hear(&mut there, repo.key(), &["+a"]).await;
    let replica = devices[2].group().file_changes().await;
    assert_eq!(replica.expect_err("it is refused").kind(), Kind::Denied);
}

#[tokio::test(start_paused = true)]
async fn too_many_files_are_not_named() {
    let net = SimNetwork::new(73);
    let devices = world(&net, &[Read], &options()).await;
    let repo = own(&devices[0]).await;
    let mut changes = repo.file_changes().await.expect("changes");
    let staged = repo.stage("the same", 0).await.expect("a file");
    for files in [MAX_CHANGED_FILES, MAX_CHANGED_FILES + 1] {
        let mut edits = Changes::new();
        for n in 0..files {
            let name = Name::new(format!("{files}/{n}")).expect("a name");
            edits.put(name, staged.clone());
        }
        repo.change(edits).await.expect("a change");
        let changed = changes.next().await.expect("a change").expect("it is read");
        let named = changed.files.map(|named| named.len());
        assert_eq!(named, (files <= MAX_CHANGED_FILES).then_some(files));
        let all = changed.old.diff(&changed.new).await.expect("a difference");
        let all: Vec<_> = all.try_collect().await.expect("files");
        assert_eq!(all.len(), files);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_is_read_until_it_is_collected() {
    let net = SimNetwork::new(74);
    let devices = world(&net, &[Read], &options()).await;
    let (device, repo) = (&devices[0], own(&devices[0]).await);
    let empty = repo.snapshot().await.expect("a snapshot");
    assert_eq!(empty.root().await.expect("a root").files, 0);
    for n in 1..4 {
        let text = format!("version {n}").repeat(4000);
        repo.write("a", text).await.expect("a file");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    repo.write("b", "b").await.expect("a file");
    let collect = async || {
        let far = SystemTime::now() + Duration::from_secs(3600);
        device.stores.blobs.collect(far).await.expect("it collects");
    };
    let history = repo.history().await.expect("a history");
    assert_eq!(history.len(), 3);
    let times: Vec<_> = history
        .iter()
        .map(|before| before.time().expect("a time"))
        .collect();
    assert!(times.is_sorted_by(|a, b| a > b), "{times:?}");
    // They are kept as long as somebody has them.
    collect().await;
    for (before, n) in history.iter().zip([3, 2, 1]) {
        let text = before.read_to_bytes("a").await.expect("it is kept");
        assert_eq!(text, format!("version {n}").repeat(4000));
        assert_eq!(
            before.root().await.expect("a root").bytes,
            text.len() as u64
        );
        assert_eq!(before.entry("b").await.expect("an entry"), None);
        let part: Vec<_> = before
            .read("a", ..9)
            .await
            .expect("a file")
            .try_collect()
            .await
            .unwrap();
        assert_eq!(part.concat(), text[..9]);
        let listed: Vec<_> = before
            .list("")
            .await
            .expect("a list")
            .try_collect()
            .await
            .unwrap();
        assert_eq!(listed.len(), 1);
    }
    let now = repo.snapshot().await.expect("a snapshot");
    let since = history[2].diff(&now).await.expect("a difference");
    let since: Vec<_> = since.try_collect().await.expect("files");
    assert_eq!(paths(&since), ["*a", "+b"]);
    let absent = empty.read_to_bytes("a").await;
    assert_eq!(absent.expect_err("there was none").kind(), Kind::NotFound);

    drop((history, now));
    collect().await;
    let history = repo.history().await.expect("a history");
    assert_eq!(history.len(), 3, "that they were there is still told");
    let gone = history[1].root().await;
    assert_eq!(gone.expect_err("it was collected").kind(), Kind::NotFound);
    let now = repo.snapshot().await.expect("a snapshot");
    assert!(now.time() > history[0].time());
    assert_eq!(now.read_to_bytes("b").await.expect("it is here"), "b");
}

#[tokio::test(start_paused = true)]
async fn storing_a_file_says_how_far_it_is() {
    const LEN: u64 = 3_000_000;
    let net = SimNetwork::new(75);
    let devices = world(&net, &[Read], &options()).await;
    let repo = own(&devices[0]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("film");
    std::fs::write(&path, vec![7; LEN as usize]).expect("a file");

    let told = Arc::new(Mutex::new(Vec::new()));
    let options = || {
        let told = Arc::clone(&told);
        WriteOptions::new().progress(move |written| told.lock().unwrap().push(written))
    };
    let written = repo.write_with("film", &path, options().modified(5)).await;
    assert_eq!(written.expect("a file").modified, 5);
    let seen = std::mem::take(&mut *told.lock().unwrap());
    let is_read = |written: &Written| matches!(written, Written::Read(_));
    let (read, stored): (Vec<_>, Vec<_>) = seen.iter().copied().partition(is_read);
    assert_eq!(read.last(), Some(&Written::Read(LEN)));
    assert_eq!(stored.last(), Some(&Written::Stored(LEN)));
    assert!(read.len() > 1 && stored.len() > 1, "{seen:?}");
    assert!(
        seen.is_sorted_by_key(|written| !is_read(written)),
        "{seen:?}"
    );

    let staged = repo.stage_with(vec![8; LEN as usize], options()).await;
    assert_eq!(staged.expect("a file").entry.size, LEN);
    let seen = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(seen.last(), Some(&Written::Stored(LEN)));
    assert!(!seen.iter().any(is_read));
}
