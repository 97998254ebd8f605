//! Tests of fetching from peers.

use std::sync::Arc;

use larder_store_api::{Error, Kind};
use larder_store_engine::{
    Hash, Pin,
    fetch::{Blob, Fault, Fetch, Options, Settled},
};

use crate::{
    ALL, at_every_await,
    common::{bytes, engine},
    peers::Peer,
};

const SIZES: [usize; 4] = [100, 20_000, 100_000, 1 << 20];

/// A fetch from two peers is dropped: recorded data stays, and the next fetch continues from it.
#[tokio::test]
async fn from_two_peers() {
    at_every_await(
        &ALL,
        async |_| {
            let (theirs, _) = engine().await;
            let mut pins: Vec<Pin> = Vec::new();
            for (seed, len) in (1..).zip(SIZES) {
                pins.push(theirs.add(bytes(seed, len)).await.unwrap());
            }
            (theirs, pins)
        },
        async |world, (theirs, pins)| {
            let fetch = Fetch::new(&world.blobs, Options::default(), Arc::new(()));
            let blobs = (1..).zip(pins).map(|(at, pin)| Blob::new(at, pin.hash()));
            fetch.want("root", blobs).await?;
            for _ in 0..10 {
                let peers = [Peer::good(theirs), Peer::good(theirs)];
                let provided = peers.map(|peer| fetch.provide(peer.id, peer));
                let provided = futures_util::future::try_join_all(provided);
                provided.await.map_err(Fault::into_error)?;
                if fetch.settle().await? == Settled::Done {
                    return Ok(());
                }
            }
            Err(Error::new(Kind::Internal, "test.fetch", "it does not end"))
        },
        async |world, _| {
            for (seed, len) in (1..).zip(SIZES) {
                let data = bytes(seed, len);
                world.assert_has(Hash::of(&data), &data).await;
            }
        },
    )
    .await;
}
