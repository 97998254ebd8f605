//! Tests of an app's calls on a group, other than files, on one device.

mod common;

use std::sync::Arc;

use futures_util::{FutureExt, TryStreamExt};
use larder_store_api::{Kind, Result, SeqExpect};
use larder_store_engine::{Blobs, Source};
use larder_store_testkit::{MemorySecrets, MemoryStore};
use larder_sync::{
    groups::{AppContext, Changes, Group, Groups, Policy, RecordPut, RecordValue, Repo, Stores},
    invite::InviteKind,
    records::{MAX_APP_VALUE_LEN, MAX_LABEL_LEN},
    tree::FileEntry,
};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

async fn stores() -> Result<Stores> {
    let store = Arc::new(MemoryStore::new());
    Ok(Stores {
        blobs: Blobs::open(store.clone(), store.clone()).await?,
        secrets: Arc::new(MemorySecrets::new()),
    })
}

async fn groups() -> Result<Groups> {
    Groups::open(stores().await?).await
}

/// Joins the group on another user's device.
async fn joined(host: &Groups, group: &Group, kind: InviteKind) -> Result<Group> {
    let invite = group.invite(kind, Vec::new()).await?;
    common::join(host, &groups().await?, &invite).await
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.expect_err("it is refused").kind()
}

#[tokio::test]
async fn who_may_read_a_group_opens_what_another_member_sealed() -> Result<()> {
    let groups = groups().await?;
    let group = groups.create_group("family").await?;
    let sealed = group
        .encrypt(b"a message", AppContext::new(b"chat"))
        .await?;
    for allowed in [InviteKind::Write, InviteKind::Read] {
        let member = joined(&groups, &group, allowed).await?;
        assert_eq!(
            member.decrypt(&sealed, AppContext::new(b"chat"))?,
            "a message"
        );
        assert_eq!(
            kind(member.decrypt(&sealed, AppContext::new(b"calls"))),
            Kind::Corrupt
        );
        let answer = member.encrypt(b"an answer", AppContext::new(b"chat"));
        let answer = answer.await?;
        assert_eq!(
            group.decrypt(&answer, AppContext::new(b"chat"))?,
            "an answer"
        );
    }
    let replica = joined(&groups, &group, InviteKind::Replica).await?;
    assert_eq!(
        kind(replica.decrypt(&sealed, AppContext::new(b"chat"))),
        Kind::Denied
    );
    assert_eq!(
        kind(
            replica
                .encrypt(b"a message", AppContext::new(b"chat"))
                .await
        ),
        Kind::Denied
    );
    let other = groups.create_group("friends").await?;
    assert_eq!(
        kind(other.decrypt(&sealed, AppContext::new(b"chat"))),
        Kind::Denied
    );
    assert_eq!(
        kind(other.decrypt(b"a message", AppContext::new(b"chat"))),
        Kind::Invalid
    );
    Ok(())
}

fn put(seq: u64) -> RecordPut {
    RecordPut::Published { seq }
}

fn value(value: &'static str, seq: u64) -> Option<RecordValue> {
    let value = value.into();
    Some(RecordValue { value, seq })
}

#[tokio::test]
async fn a_value_of_the_group_is_written_when_it_is_as_expected() -> Result<()> {
    let groups = groups().await?;
    let group = groups.create_group("family").await?;
    let last = group.record_len() - 1;
    assert_eq!(group.record_len(), 64);
    for slot in [0, last] {
        assert_eq!(group.record_get(slot).await?, None);
        let (absent, at) = (SeqExpect::Absent, SeqExpect::At);
        let superseded = |current| RecordPut::Superseded { current };
        assert_eq!(group.record_put(slot, b"a", at(1)).await?, superseded(None));
        assert_eq!(group.record_put(slot, b"a", absent).await?, put(1));
        assert_eq!(group.record_get(slot).await?, value("a", 1));
        let current = superseded(value("a", 1));
        assert_eq!(group.record_put(slot, b"b", absent).await?, current);
        assert_eq!(group.record_put(slot, b"b", at(2)).await?, current);
        assert_eq!(group.record_put(slot, b"b", at(1)).await?, put(2));
        assert_eq!(group.record_put(slot, b"c", SeqExpect::Any).await?, put(3));
        // An emptied slot is like one that never had a value, except for its number.
        assert_eq!(group.record_put(slot, b"", at(3)).await?, put(4));
        assert_eq!(group.record_get(slot).await?, None);
        assert_eq!(group.record_put(slot, b"d", at(4)).await?, superseded(None));
        assert_eq!(group.record_put(slot, b"d", absent).await?, put(5));
        assert_eq!(group.record_get(slot).await?, value("d", 5));
    }
    assert_eq!(group.record_get(1).await?, None);
    assert_eq!(group.name().await?.as_deref(), Some("family"));
    Ok(())
}

#[tokio::test]
async fn who_may_not_write_a_group_writes_no_value_of_it() -> Result<()> {
    let groups = groups().await?;
    let group = groups.create_group("family").await?;
    let any = SeqExpect::Any;
    let longest = [7; MAX_APP_VALUE_LEN];
    group.record_put(0, &longest, any).await?;
    let longer = [7; MAX_APP_VALUE_LEN + 1];
    assert_eq!(
        kind(group.record_put(0, &longer, any).await),
        Kind::TooLarge
    );
    assert_eq!(kind(group.record_put(64, b"a", any).await), Kind::Invalid);
    assert_eq!(kind(group.record_get(64).await), Kind::Invalid);
    assert_eq!(group.record_get(0).await?.expect("a value").seq, 1);

    let reader = joined(&groups, &group, InviteKind::Read).await?;
    reader.record_get(0).await?;
    assert_eq!(kind(reader.record_put(0, b"a", any).await), Kind::Denied);
    let replica = joined(&groups, &group, InviteKind::Replica).await?;
    assert_eq!(kind(replica.record_get(0).await), Kind::Denied);
    assert_eq!(kind(replica.record_put(0, b"a", any).await), Kind::Denied);
    Ok(())
}

#[tokio::test]
async fn all_values_fit_beside_the_members() -> Result<()> {
    let group = groups()
        .await?
        .create_group(&"n".repeat(MAX_LABEL_LEN))
        .await?;
    for slot in 0..group.record_len() {
        let value = [u8::try_from(slot).expect("64 slots"); MAX_APP_VALUE_LEN];
        group.record_put(slot, &value, SeqExpect::Absent).await?;
    }
    let repo = group.create_repo("ann").await?;
    assert_eq!(group.repos().await?.len(), 1);
    assert!(group.has_repo(repo.key()).await?);
    for slot in 0..group.record_len() {
        let value = group.record_get(slot).await?.expect("a value").value;
        assert_eq!(
            value,
            [u8::try_from(slot).expect("64 slots"); MAX_APP_VALUE_LEN][..]
        );
    }
    Ok(())
}

#[tokio::test]
async fn of_what_two_wrote_the_greatest_number_counts() -> Result<()> {
    let groups = groups().await?;
    let group = groups.create_group("family").await?;
    group.record_put(3, b"one", SeqExpect::Any).await?;
    group.record_put(3, b"two", SeqExpect::Any).await?;
    let bob = joined(&groups, &group, InviteKind::Write).await?;
    // The value of the other may have come by now: its number tells.
    let before = bob.record_get(3).await?.map_or(0, |value| value.seq);
    assert_eq!(
        bob.record_put(3, b"of bob", SeqExpect::Any).await?,
        put(before + 1)
    );
    Ok(())
}

/// Starts a write that waits for the rest of its file.
async fn half_written(repo: &Repo) -> (DuplexStream, JoinHandle<Result<FileEntry>>) {
    let (rest, file) = tokio::io::duplex(64);
    let repo = repo.clone();
    let content = Source::reader(file);
    let writing = tokio::spawn(async move { repo.write("file", content).await });
    // From now on it is running.
    tokio::task::yield_now().await;
    (rest, writing)
}

async fn finish(mut rest: DuplexStream, writing: JoinHandle<Result<FileEntry>>) -> Result<()> {
    rest.write_all(b"all of it").await.expect("it is read");
    drop(rest);
    writing.await.expect("it does not panic").map(drop)
}

#[tokio::test]
async fn closing_a_repo_waits_for_changes_and_refuses_more() -> Result<()> {
    let group = groups().await?.create_group("family").await?;
    let repo = group.create_repo("ann").await?;
    repo.write("before", "1").await?;
    let entry = repo.entry("before").await?.expect("an entry");
    let clone = repo.clone();
    let other = group.repo(repo.key()).await?.expect("a repo");
    let (rest, writing) = half_written(&repo).await;
    let closing = tokio::spawn(async move { clone.close().await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!closing.is_finished());

    assert_eq!(kind(repo.write("after", "2").await), Kind::Closed);
    assert_eq!(kind(repo.stage("after", 0).await), Kind::Closed);
    assert_eq!(kind(repo.change(Changes::new()).await), Kind::Closed);
    assert_eq!(kind(repo.remove("before").await), Kind::Closed);
    assert_eq!(kind(repo.rename("before", "after").await), Kind::Closed);
    assert_eq!(kind(repo.name().await), Kind::Closed);
    assert_eq!(kind(repo.root().await), Kind::Closed);
    assert_eq!(kind(repo.known_root().await), Kind::Closed);
    assert_eq!(kind(repo.state(&Policy::Everything).await), Kind::Closed);
    assert_eq!(kind(repo.missing(&Policy::Everything).await), Kind::Closed);
    assert_eq!(kind(repo.has(&entry).await), Kind::Closed);
    assert_eq!(kind(repo.history().await), Kind::Closed);
    assert_eq!(kind(repo.entry("before").await), Kind::Closed);
    assert_eq!(kind(repo.read_to_bytes("before").await), Kind::Closed);
    assert_eq!(kind(repo.list("").await.map(drop)), Kind::Closed);
    let mut bytes = repo.read_entry(&entry, 0..1);
    assert_eq!(kind(bytes.try_next().await), Kind::Closed);

    finish(rest, writing).await?;
    closing.await.expect("it does not panic");
    repo.close().await;

    // The group is open, and so are other handles: one from before, and a new one.
    let again = group.repo(repo.key()).await?.expect("a repo");
    for repo in [&other, &again] {
        assert_eq!(repo.read_to_bytes("file").await?, "all of it");
        repo.write("after", "2").await?;
    }
    assert_eq!(kind(repo.entry("after").await), Kind::Closed);
    Ok(())
}

#[tokio::test]
async fn closing_all_groups_closes_all_that_belongs_to_them() -> Result<()> {
    let stores = stores().await?;
    let groups = Groups::open(stores.clone()).await?;
    let group = groups.create_group("family").await?;
    let invite = group.invite(InviteKind::Read, Vec::new()).await?;
    let repo = group.create_repo("ann").await?;
    let (rest, writing) = half_written(&repo).await;
    let closing = tokio::spawn({
        let groups = groups.clone();
        async move { groups.close().await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!closing.is_finished());

    assert_eq!(kind(groups.create_group("friends").await), Kind::Closed);
    assert_eq!(kind(groups.join(&invite).await), Kind::Closed);
    assert_eq!(kind(groups.leave(group.id()).await), Kind::Closed);
    assert_eq!(kind(group.name().await), Kind::Closed);
    assert_eq!(kind(group.create_repo("bob").await), Kind::Closed);
    assert_eq!(kind(group.repos().await), Kind::Closed);
    assert_eq!(kind(group.members().await), Kind::Closed);
    assert_eq!(kind(group.repo(repo.key()).await), Kind::Closed);
    assert_eq!(kind(group.record_get(0).await), Kind::Closed);
    let refused = group.record_put(0, b"a", SeqExpect::Any).await;
    assert_eq!(kind(refused), Kind::Closed);
    assert_eq!(kind(repo.write("after", "2").await), Kind::Closed);
    assert_eq!(kind(repo.list("").await.map(drop)), Kind::Closed);

    finish(rest, writing).await?;
    closing.await.expect("it does not panic");
    groups.close().await;

    let group = Groups::open(stores).await?.groups().remove(0);
    let repo = group.repo(repo.key()).await?.expect("a repo");
    assert_eq!(repo.read_to_bytes("file").await?, "all of it");
    Ok(())
}

#[tokio::test]
async fn closing_that_is_given_up_has_closed() -> Result<()> {
    let group = groups().await?.create_group("family").await?;
    let repo = group.create_repo("ann").await?;
    let (rest, writing) = half_written(&repo).await;
    assert!(repo.close().now_or_never().is_none());
    assert_eq!(kind(repo.root().await), Kind::Closed);
    finish(rest, writing).await?;
    repo.close().await;
    Ok(())
}

#[tokio::test]
async fn a_group_has_its_name_when_it_is_joined_and_takes_another() -> Result<()> {
    let here = groups().await?;
    let group = here.create_group("the hikers").await?;
    let repo = group.create_repo("ann").await?;
    for allowed in [InviteKind::Write, InviteKind::Read, InviteKind::Device] {
        let invite = group.invite(allowed, Vec::new()).await?;
        assert_eq!(invite.name(), Some("the hikers"));
        // It is still there after a restart, while nobody was met; and is forgotten with the group.
        let stores = stores().await?;
        let joined = Groups::open(stores.clone()).await?.join(&invite).await?;
        assert_eq!(joined.name().await?.as_deref(), Some("the hikers"));
        drop(joined);
        let groups = Groups::open(stores.clone()).await?;
        let again = groups.group(group.id()).expect("it was joined");
        assert_eq!(again.name().await?.as_deref(), Some("the hikers"));
        groups.leave(group.id()).await?;
        let replica = group.invite(InviteKind::Replica, Vec::new()).await?;
        let joined = groups.join(&replica).await?;
        assert_eq!(kind(joined.name().await), Kind::Unavailable);
    }
    let replica = group.invite(InviteKind::Replica, Vec::new()).await?;
    assert_eq!(replica.name(), None);

    group.set_name("the climbers").await?;
    repo.set_name("anna").await?;
    assert_eq!(group.name().await?.as_deref(), Some("the climbers"));
    assert_eq!(repo.name().await?.as_deref(), Some("anna"));
    let reader = joined(&here, &group, InviteKind::Read).await?;
    assert_eq!(kind(reader.set_name("ours").await), Kind::Denied);
    let long = "x".repeat(MAX_LABEL_LEN + 1);
    assert_eq!(kind(group.set_name(&long).await), Kind::TooLarge);
    assert_eq!(kind(repo.set_name(&long).await), Kind::TooLarge);
    // A repo that could not be named was not made.
    assert_eq!(kind(group.create_repo(&long).await), Kind::TooLarge);
    assert_eq!(group.repos().await?.len(), 1);
    Ok(())
}
