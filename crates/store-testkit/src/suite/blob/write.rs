//! Cases of writes: replacing blocks, and refusing invalid writes as a whole.

use bytes::Bytes;
use larder_store_api::{BlobStore, Block, Kind, Part};

use super::super::{
    Fixture,
    support::{kind, sample},
};
use super::{block, block_len, expect, id, put};

pub(super) async fn write_replaces_blocks(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    let old = sample(1, 4 * len);
    let new = sample(2, 2 * len);
    put(store, id(1), Part::Data, &old).await;
    let written = store.write(id(1), vec![block(Part::Data, 1, new.clone())]);
    written.await.expect("a write succeeds");
    let whole = [&old[..len], &new, &old[3 * len..]].concat();
    expect(store, id(1), Part::Data, &whole.into()).await;
}

pub(super) async fn write_takes_many_blocks_in_any_order(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    let data = sample(3, 7 * len + 33);
    let outboard = sample(4, len + 64);
    let blocks = vec![
        block(Part::Data, 5, data.slice(5 * len..)),
        block(Part::Outboard, 1, outboard.slice(len..)),
        block(Part::Data, 0, data.slice(..2 * len)),
        block(Part::Outboard, 0, outboard.slice(..len)),
        block(Part::Data, 2, data.slice(2 * len..5 * len)),
    ];
    store.write(id(1), blocks).await.expect("a write succeeds");
    expect(store, id(1), Part::Data, &data).await;
    expect(store, id(1), Part::Outboard, &outboard).await;
}

pub(super) async fn write_of_nothing_changes_nothing(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let bytes = sample(5, 100);
    put(store, id(1), Part::Data, &bytes).await;
    store
        .write(id(1), Vec::new())
        .await
        .expect("an empty list is not an error");
    expect(store, id(1), Part::Data, &bytes).await;
}

pub(super) async fn write_grows_a_partial_last_block(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    let bytes = sample(6, 2 * len + 500);
    for end in [
        1,
        1000,
        len - 1,
        len,
        len + 10,
        len + 11,
        2 * len,
        2 * len + 500,
    ] {
        let index = (end - 1) / len;
        let last = block(Part::Data, index as u64, bytes.slice(index * len..end));
        store
            .write(id(1), vec![last])
            .await
            .expect("a write succeeds");
        expect(store, id(1), Part::Data, &bytes.slice(..end)).await;
        let beyond = store.read(id(1), Part::Data, 0..end as u64 + 1).await;
        assert_eq!(kind(beyond), Kind::NotFound, "after growing to {end}");
    }
}

pub(super) async fn parts_are_independent(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    let data = sample(7, 2 * len);
    put(store, id(1), Part::Data, &data).await;
    let outboard = sample(8, 64);
    put(store, id(1), Part::Outboard, &outboard).await;
    expect(store, id(1), Part::Data, &data).await;
    expect(store, id(1), Part::Outboard, &outboard).await;
    let beyond = store.read(id(1), Part::Outboard, 0..65).await;
    assert_eq!(kind(beyond), Kind::NotFound);
    let replaced = sample(9, 2 * len);
    put(store, id(1), Part::Data, &replaced).await;
    expect(store, id(1), Part::Outboard, &outboard).await;
}

pub(super) async fn payloads_are_independent(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    // These ids differ in one byte, at either end and by sign.
    let mut ids = vec![id(0), id(0x7f), id(0x80), id(0xff)];
    for at in [0, 15] {
        let mut near = id(0);
        near.0[at] = 1;
        ids.push(near);
    }
    for (n, id) in ids.iter().enumerate() {
        put(store, *id, Part::Data, &sample(n as u64, len + n)).await;
    }
    for (n, id) in ids.iter().enumerate() {
        expect(store, *id, Part::Data, &sample(n as u64, len + n)).await;
        let beyond = store.read(*id, Part::Data, 0..(len + n) as u64 + 1).await;
        assert_eq!(kind(beyond), Kind::NotFound);
    }
}

pub(super) async fn large_payloads_come_back_whole(fixture: Fixture<dyn BlobStore>) {
    const LEN: usize = 8 * 1024 * 1024 + 4321;
    let store = fixture.store();
    let len = block_len(store);
    let bytes = sample(10, LEN);
    let step = (1024 * 1024 / len).max(1);
    for (n, chunk) in bytes.chunks(step * len).enumerate() {
        let piece = block(Part::Data, (n * step) as u64, bytes.slice_ref(chunk));
        store
            .write(id(1), vec![piece])
            .await
            .expect("a write succeeds");
    }
    expect(store, id(1), Part::Data, &bytes).await;
    for start in (0..LEN - 1024).step_by(777_777) {
        let read = store
            .read(id(1), Part::Data, start as u64..start as u64 + 1024)
            .await;
        assert!(read.expect("a read succeeds") == bytes[start..start + 1024]);
    }
}

pub(super) async fn an_empty_block_is_refused_whole(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let bad = block(Part::Data, 1, Bytes::new());
    is_refused_whole(store, bad, &[Kind::Invalid]).await;
}

pub(super) async fn a_partial_block_before_the_end_is_refused_whole(
    fixture: Fixture<dyn BlobStore>,
) {
    let store = fixture.store();
    let len = block_len(store);
    let bytes = sample(11, 2 * len);
    for partial in [1, len - 1, len + 1] {
        let blocks = [
            block(Part::Data, 0, bytes.slice(..partial)),
            block(Part::Data, 2, bytes.slice(..len)),
        ];
        for blocks in [blocks.to_vec(), blocks.iter().cloned().rev().collect()] {
            assert_eq!(kind(store.write(id(1), blocks).await), Kind::Invalid);
            let read = store.read(id(1), Part::Data, 0..1).await;
            assert_eq!(kind(read), Kind::NotFound, "a part of it was written");
        }
    }
    // The block is the last one of another part.
    let blocks = vec![
        block(Part::Data, 0, bytes.slice(..1)),
        block(Part::Outboard, 1, bytes.slice(..len)),
    ];
    store.write(id(2), blocks).await.expect("parts end apart");
}

pub(super) async fn a_block_beyond_the_longest_part_is_refused_whole(
    fixture: Fixture<dyn BlobStore>,
) {
    let store = fixture.store();
    let facts = store.capabilities();
    let beyond = facts.max_part_len / u64::from(facts.block_len) + 1;
    for index in [
        beyond,
        u64::MAX / u64::from(facts.block_len),
        u64::MAX - 1,
        u64::MAX,
    ] {
        let bad = block(Part::Data, index, sample(12, facts.block_len as usize));
        is_refused_whole(store, bad, &[Kind::TooLarge, Kind::Invalid]).await;
    }
}

/// Panics unless a write of `bad` together with valid blocks is refused, and nothing of it is written.
async fn is_refused_whole(store: &dyn BlobStore, bad: Block, kinds: &[Kind]) {
    let len = block_len(store);
    let old = sample(20, len);
    put(store, id(1), Part::Data, &old).await;
    let good = block(Part::Data, 0, sample(21, len));
    let other = block(Part::Outboard, 0, sample(22, len));
    for id in [id(1), id(2)] {
        for blocks in [
            vec![bad.clone()],
            vec![good.clone(), bad.clone()],
            vec![bad.clone(), good.clone()],
            vec![other.clone(), good.clone(), bad.clone()],
        ] {
            let refused = kind(store.write(id, blocks).await);
            assert!(kinds.contains(&refused), "refused as {refused:?}");
        }
    }
    expect(store, id(1), Part::Data, &old).await;
    for (id, part) in [
        (id(1), Part::Outboard),
        (id(2), Part::Data),
        (id(2), Part::Outboard),
    ] {
        let read = store.read(id, part, 0..1).await;
        assert_eq!(kind(read), Kind::NotFound, "a part of it was written");
    }
}
