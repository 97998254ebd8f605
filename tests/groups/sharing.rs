//! Tests that a file that one member writes reaches all who may have it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use larder::{Kind, api::SeqExpect};
use larder_sync::{
    groups::{AppContext, RecordPut},
    invite::InviteKind::{Read, Replica, Write},
    replicate::{Push, Synced},
};
use tests::{
    data::{MIB, bytes},
    store::files,
};

use crate::{
    device::{Device, agree, until},
    world::{World, options},
};

const CANARY: &str = "a canary in every name and file";

pub async fn everybody_sees_everything_and_a_replica_nothing(world: &World) {
    world.search_for(CANARY);
    let members = world.members(&[Write, Write, Replica]).await;
    let mut expected = BTreeMap::new();
    for (n, member) in members[..3].iter().enumerate() {
        for (i, len) in [0, 1000, 16_385, 300_000, 3_000_000]
            .into_iter()
            .enumerate()
        {
            let path = format!("{CANARY} {i}/file");
            let data = [CANARY.as_bytes(), &bytes(n as u64, len)].concat();
            member.write(&path, data.clone()).await;
            expected.insert((format!("member {n}"), path), data);
        }
    }
    agree(&members).await;
    for member in &members[..3] {
        assert!(member.files().await == expected);
    }

    // Removals and renames are seen as well.
    let repo = members[1].own().await;
    let [gone, old, new] = ["0/file", "3/file", "renamed"].map(|path| format!("{CANARY} {path}"));
    repo.remove(&gone).await.expect("a removal");
    repo.rename(&old, &new).await.expect("a rename");
    let of_the_second = |path: &String| ("member 1".to_owned(), path.clone());
    expected
        .remove(&of_the_second(&gone))
        .expect("it was there");
    let renamed = expected.remove(&of_the_second(&old)).expect("it was there");
    expected.insert(of_the_second(&new), renamed);
    agree(&members).await;
    for member in &members[..3] {
        assert!(member.files().await == expected);
    }

    let replica = &members[3];
    assert_eq!(world.findings(), 0);
    assert!(!replica.has_bytes(CANARY.as_bytes()).await);
    // Existing bytes are found: the search works.
    let sealed = repo.entry(&new).await.expect("an entry").expect("one").blob;
    let sealed = replica.store().blobs().read_to_bytes(sealed, 1000..1064);
    assert!(replica.has_bytes(&sealed.await.expect("it has it")).await);
    assert_eq!(replica.group().repos().await.expect("repos").len(), 3);
}

pub async fn who_joins_later_gets_all_from_a_replica(world: &World) {
    let mut members = world.members(&[Write, Replica]).await;
    // A real folder, and a file that arrives in several pieces.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repo = members[0].own().await;
    for path in files(&here.join("src")) {
        let name = path.strip_prefix(here).expect("it is below");
        let name = name.to_str().expect("text");
        repo.write(name, path.clone()).await.expect("a write");
    }
    members[0].write("large", bytes(1, 20 * MIB)).await;
    members[1].write("hello", "from the second").await;
    agree(&members).await;
    let expected = members[0].files().await;
    assert!(expected.len() > 5);

    let late = world.device(options()).await;
    let writer = members.remove(0);
    late.join(&writer, Write, &members[1..]).await;
    let mut gone = [writer, members.remove(0)];
    for member in &mut gone {
        member.end().await;
    }
    late.synced(Synced::Here).await;
    assert!(late.files().await == expected);
    // The replica keeps what the new member writes.
    let group = late.group();
    group.create_repo("late").await.expect("a repo");
    late.write("new", bytes(2, 100_000)).await;
    members.push(late);
    agree(&members).await;
}

pub async fn without_pushing_it_converges_too(world: &World) {
    let mut options = options();
    options.push = Push::Never;
    options.compare_every = Duration::from_millis(300);
    let members = world.members_with(&[Write, Read, Replica], options).await;
    for n in 0..3 {
        members[0].write("file", bytes(n, 1000)).await;
        members[1].write(&format!("{n}"), bytes(n, 100_000)).await;
        agree(&members).await;
    }
    let files = members[2].files().await;
    assert_eq!(files.len(), 4);
    assert!(members[0].files().await == files && members[1].files().await == files);
}

pub async fn what_was_acknowledged_survives_a_crash(world: &World) {
    let mut members = world.members(&[Write, Write]).await;
    agree(&members).await;
    // All crash while the first one writes and announces, and the others fetch.
    members[0].write("large", bytes(1, 20 * MIB)).await;
    for n in 0..30 {
        members[0].write(&format!("{n}"), bytes(n, 10_000)).await;
    }
    members[1].write("theirs", "of the second").await;
    let before = members[0].own().await.root().await.expect("a root");
    for member in &mut members {
        member.crash(world).await;
    }
    // It starts alone, so that nobody can have returned the data to it.
    members[0].start(world).await;
    assert_eq!(members[0].own().await.root().await.expect("a root"), before);
    let mut files = members[0].files().await;
    for n in 0..30 {
        let file = files.remove(&("member 0".to_owned(), format!("{n}")));
        assert!(file.expect("it was acknowledged") == bytes(n, 10_000));
    }
    let large = files.remove(&("member 0".to_owned(), "large".to_owned()));
    assert!(large.expect("it was acknowledged") == bytes(1, 20 * MIB));
    for member in &mut members[1..] {
        member.start(world).await;
    }
    members[0].meet(&members[1]).await;
    members[1].meet(&members[2]).await;
    members[2].write("after", "of the third").await;
    agree(&members).await;
    let files = members[0].files().await;
    assert_eq!(files.len(), 33);
    for member in &members[1..] {
        assert!(member.files().await == files);
    }
}

async fn get(device: &Device, slot: u16) -> Option<Vec<u8>> {
    let found = device.group().record_get(slot).await.expect("a value");
    found.map(|found| found.value.to_vec())
}

pub async fn values_of_the_app_come_to_all_who_may_read(world: &World) {
    let members = world.members(&[Write, Read, Replica]).await;
    let [first, second, reader] = [0, 1, 2].map(|n| members[n].group());
    let put = first.record_put(0, b"a value", SeqExpect::Absent).await;
    assert!(matches!(put, Ok(RecordPut::Published { .. })), "{put:?}");
    let last = first.record_len() - 1;
    let put = second.record_put(last, b"another", SeqExpect::Any).await;
    put.expect("a put");
    let all_have = async |slot: u16, value: Option<&[u8]>| {
        until("everybody has the value", async || {
            let mut same = true;
            for member in &members[..3] {
                same &= get(member, slot).await.as_deref() == value;
            }
            same
        })
        .await;
    };
    all_have(0, Some(b"a value")).await;
    all_have(last, Some(b"another")).await;
    // Each continues from what the other wrote.
    let seq = second
        .record_get(0)
        .await
        .expect("a value")
        .expect("one")
        .seq;
    let put = second.record_put(0, b"the next", SeqExpect::At(seq)).await;
    assert_eq!(put.expect("a put"), RecordPut::Published { seq: seq + 1 });
    all_have(0, Some(b"the next")).await;
    let put = first.record_put(0, b"too late", SeqExpect::At(seq)).await;
    assert!(matches!(put, Ok(RecordPut::Superseded { .. })), "{put:?}");
    first
        .record_put(0, b"", SeqExpect::Any)
        .await
        .expect("a put");
    all_have(0, None).await;
    agree(&members).await;
    assert!(!members[3].has_bytes(b"another").await);

    // Data that the app transports itself.
    let sealed = reader
        .encrypt(b"plain", AppContext::new(b"for a chat"))
        .await
        .expect("sealed");
    for group in [&first, &second, &reader] {
        assert_eq!(
            group
                .decrypt(&sealed, AppContext::new(b"for a chat"))
                .expect("it opens"),
            "plain"
        );
        let other = group
            .decrypt(&sealed, AppContext::new(b"for something else"))
            .unwrap_err();
        assert_eq!(other.kind(), Kind::Corrupt);
    }
    assert_eq!(
        members[3]
            .group()
            .decrypt(&sealed, AppContext::new(b"for a chat"))
            .unwrap_err()
            .kind(),
        Kind::Denied
    );
}
