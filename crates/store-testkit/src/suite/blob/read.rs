//! Cases of reads: exactly the requested range, or an error that gives the reason.

use bytes::Bytes;
use larder_store_api::{BlobStore, GROUP_LEN, Kind, Part};

use super::super::{
    Fixture,
    support::{kind, sample},
};
use super::{block, block_len, expect, id, put};

pub(super) async fn capabilities_make_sense(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let facts = store.capabilities();
    assert!(!store.name().is_empty(), "a store has a name");
    assert!(facts.block_len > 0);
    assert_eq!(u64::from(facts.block_len) % GROUP_LEN, 0);
    assert!(facts.max_part_len >= u64::from(facts.block_len));
    assert!(facts.concurrency > 0);
    put(store, id(1), Part::Data, &sample(1, 10)).await;
    assert_eq!(store.capabilities(), facts, "capabilities are constant");
}

pub(super) async fn read_gives_exactly_the_range(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    let bytes = sample(2, 3 * len + 100);
    put(store, id(1), Part::Data, &bytes).await;
    let edges = [
        0,
        1,
        1024,
        len - 1,
        len,
        len + 1,
        2 * len - 1,
        2 * len,
        3 * len - 1,
        3 * len,
        3 * len + 1,
        3 * len + 99,
        3 * len + 100,
    ];
    for (i, &start) in edges.iter().enumerate() {
        for &end in &edges[i..] {
            let read = store
                .read(id(1), Part::Data, start as u64..end as u64)
                .await;
            let read = read.expect("a range of written bytes can be read");
            assert_eq!(read.len(), end - start, "the length of {start}..{end}");
            assert!(read == bytes[start..end], "other bytes at {start}..{end}");
        }
    }
}

pub(super) async fn read_sees_every_write_that_returned(fixture: Fixture<dyn BlobStore>) {
    let len = block_len(fixture.store());
    for round in 0..50 {
        let bytes = sample(round, len);
        put(fixture.store(), id(1), Part::Data, &bytes).await;
        let store = fixture.shared();
        let read = tokio::spawn(async move { store.read(id(1), Part::Data, 0..len as u64).await });
        let read = read.await.expect("the task ends").expect("a read succeeds");
        assert!(
            read == bytes,
            "a read in round {round} missed the last write"
        );
    }
}

pub(super) async fn read_of_an_empty_range_is_empty(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    put(store, id(1), Part::Data, &sample(3, 10)).await;
    for (id, at) in [
        (id(1), 0),
        (id(1), 5),
        (id(1), 10),
        (id(1), 1 << 40),
        (id(9), 0),
    ] {
        let read = store.read(id, Part::Data, at..at).await;
        assert_eq!(read.expect("an empty range can be read"), Bytes::new());
    }
}

pub(super) async fn read_of_an_inverted_range_is_invalid(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    put(store, id(1), Part::Data, &sample(4, 10)).await;
    for (id, start, end) in [
        (id(1), 5, 4),
        (id(1), 10, 0),
        (id(1), u64::MAX, 0),
        (id(9), 2, 1),
    ] {
        let read = store.read(id, Part::Data, start..end).await;
        assert_eq!(kind(read), Kind::Invalid, "{start}..{end} of {id}");
    }
}

pub(super) async fn read_beyond_the_end_is_not_found(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store) as u64;
    let short = 2 * len + 7;
    put(store, id(1), Part::Data, &sample(5, short as usize)).await;
    put(store, id(2), Part::Data, &sample(6, len as usize)).await;
    for (id, end) in [(id(1), short), (id(2), len)] {
        for range in [
            end - 1..end + 1,
            0..end + 1,
            end..end + 1,
            end + 1..end + 2,
            end - 1..end + len,
            0..end + 10 * len,
            10 * len..10 * len + 1,
            0..u64::MAX,
            u64::MAX - 1..u64::MAX,
        ] {
            let read = store.read(id, Part::Data, range.clone()).await;
            assert_eq!(kind(read), Kind::NotFound, "{range:?} of {end} bytes");
        }
    }
}

pub(super) async fn read_of_what_was_never_written_is_not_found(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    put(store, id(1), Part::Data, &sample(7, 100)).await;
    for (id, part) in [
        (id(2), Part::Data),
        (id(2), Part::Outboard),
        (id(1), Part::Outboard),
    ] {
        let read = store.read(id, part, 0..1).await;
        assert_eq!(kind(read), Kind::NotFound, "{part:?} of {id}");
    }
}

pub(super) async fn read_of_a_hole_is_not_found_or_zeros(fixture: Fixture<dyn BlobStore>) {
    let store = fixture.store();
    let len = block_len(store);
    let (first, last) = (sample(8, len), sample(9, len));
    let blocks = vec![
        block(Part::Data, 0, first.clone()),
        block(Part::Data, 3, last.clone()),
    ];
    store.write(id(1), blocks).await.expect("a write succeeds");

    let whole = [&first[..], &vec![0; 2 * len], &last].concat();
    for (start, end) in [
        (len, 2 * len),
        (len, 3 * len),
        (len - 5, len + 5),
        (0, 4 * len),
    ] {
        match store
            .read(id(1), Part::Data, start as u64..end as u64)
            .await
        {
            Ok(read) => assert!(read == whole[start..end], "neither an error nor zeros"),
            Err(error) => assert_eq!(error.kind(), Kind::NotFound, "{error}"),
        }
    }
    expect(store, id(1), Part::Data, &first).await;
    let read = store
        .read(id(1), Part::Data, 3 * len as u64..4 * len as u64)
        .await;
    assert!(read.expect("the block after the hole can be read") == last);
}
