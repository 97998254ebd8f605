//! The loads.

use std::{
    future::Future,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Data,
    target::{Target, TargetStore},
};

/// The number of concurrent calls.
const IN_FLIGHT: usize = 32;
const SMALL: usize = 1024;
const MEDIUM: usize = 16 * 1024;

/// The measure of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Calls a second.
    PerSecond,
    /// Bytes a second.
    BytesPerSecond,
    /// Seconds; less is better.
    Seconds,
    /// Bytes on disk for each small blob; less is better.
    BytesEach,
}

/// One load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Its short name.
    pub id: &'static str,
    /// The description of the load.
    pub title: &'static str,
    /// The measure of the load.
    pub measure: Measure,
}

/// Every load, in the order in which they run.
pub const LOADS: [Load; 9] = [
    Load {
        id: "add-1k",
        title: "add 1 KiB blobs, tagged, 32 in flight",
        measure: Measure::PerSecond,
    },
    Load {
        id: "disk-1k",
        title: "disk per 1 KiB blob",
        measure: Measure::BytesEach,
    },
    Load {
        id: "add-16k",
        title: "add 16 KiB blobs, tagged, 32 in flight",
        measure: Measure::PerSecond,
    },
    Load {
        id: "add-stream",
        title: "add a large blob from a stream",
        measure: Measure::BytesPerSecond,
    },
    Load {
        id: "get-1k",
        title: "get random 1 KiB blobs, 32 in flight",
        measure: Measure::PerSecond,
    },
    Load {
        id: "read",
        title: "read a large blob through AsyncRead",
        measure: Measure::BytesPerSecond,
    },
    Load {
        id: "read-16k",
        title: "read random 16 KiB of it, verified, 32 in flight",
        measure: Measure::PerSecond,
    },
    Load {
        id: "export",
        title: "export a large blob, verified",
        measure: Measure::BytesPerSecond,
    },
    Load {
        id: "open",
        title: "open the store again",
        measure: Measure::Seconds,
    },
];

/// Runs every load once over a new store in `dir`, and says what was measured.
pub(super) async fn run_all(
    target: &dyn Target,
    dir: &Path,
    data: &Data,
    told: impl Fn(&'static str),
) -> Result<Vec<(&'static str, f64)>> {
    let mut measured = Vec::with_capacity(LOADS.len());
    let store = target.open(dir).await?;

    told("add-1k");
    let (small, time) = add_many(&store, data, data.small, SMALL).await?;
    measured.push(("add-1k", rate(data.small, time)));
    let mut store = store;
    if target.persists() {
        told("disk-1k");
        // Closed, so that nothing is still to be written.
        store.close().await?;
        drop(store);
        measured.push(("disk-1k", used(dir)? as f64 / data.small as f64));
        store = target.open(dir).await?;
    }
    told("add-16k");
    let (_, time) = add_many(&store, data, data.medium, MEDIUM).await?;
    measured.push(("add-16k", rate(data.medium, time)));

    told("add-stream");
    let started = Instant::now();
    let large = store.add_stream(data, "large").await?;
    measured.push(("add-stream", rate(data.large, started.elapsed())));

    told("get-1k");
    let mut random = StdRng::seed_from_u64(2);
    let wanted: Vec<_> = (0..data.reads)
        .map(|_| small[random.random_range(0..small.len())])
        .collect();
    let time = together(wanted, |hash| {
        let store = store.clone();
        async move { expect(store.get(hash).await?, SMALL as u64) }
    })
    .await?;
    measured.push(("get-1k", rate(data.reads, time)));

    told("read");
    let started = Instant::now();
    expect(store.read_all(large).await?, data.large)?;
    measured.push(("read", rate(data.large, started.elapsed())));

    told("read-16k");
    let groups = data.large / MEDIUM as u64;
    let wanted: Vec<_> = (0..data.reads)
        .map(|_| random.random_range(0..groups) * MEDIUM as u64)
        .collect();
    let time = together(wanted, |start| {
        let store = store.clone();
        async move {
            let range = start..start + MEDIUM as u64;
            expect(store.read_range(large, range).await?, MEDIUM as u64)
        }
    })
    .await?;
    measured.push(("read-16k", rate(data.reads, time)));

    told("export");
    let started = Instant::now();
    expect(store.export(large).await?, data.large)?;
    measured.push(("export", rate(data.large, started.elapsed())));

    store.close().await?;
    drop(store);
    if target.persists() {
        told("open");
        let started = Instant::now();
        let store = target.open(dir).await?;
        expect(store.get(small[0]).await?, SMALL as u64)?;
        measured.push(("open", started.elapsed().as_secs_f64()));
        store.close().await?;
    }
    Ok(measured)
}

async fn add_many(
    store: &Arc<dyn TargetStore>,
    data: &Data,
    count: u64,
    len: usize,
) -> Result<(Vec<[u8; 32]>, Duration)> {
    let blobs: Vec<_> = (0..count).map(|index| data.blob(index, len)).collect();
    let started = Instant::now();
    let hashes = stream::iter(blobs.into_iter().enumerate())
        .map(|(index, bytes)| {
            let store = store.clone();
            spawned(async move { store.add(bytes, &format!("{len}/{index}")).await })
        })
        .buffered(IN_FLIGHT)
        .try_collect()
        .await?;
    Ok((hashes, started.elapsed()))
}

/// Makes a call for each of `items`, so many at once.
async fn together<T, F>(items: Vec<T>, call: impl Fn(T) -> F) -> Result<Duration>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let started = Instant::now();
    stream::iter(items)
        .map(|item| spawned(call(item)))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(started.elapsed())
}

/// Runs a call as a task, as a server would, so that calls use all cores.
async fn spawned<T: Send + 'static>(
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(call).await?
}

fn expect(found: u64, wanted: u64) -> Result<()> {
    ensure!(found == wanted, "{found} bytes came instead of {wanted}");
    Ok(())
}

fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

/// The space that a folder takes, in bytes.
fn used(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        total += if found.is_dir() {
            used(&entry.path())?
        } else {
            allocated(&found)
        };
    }
    Ok(total)
}

#[cfg(unix)]
fn allocated(file: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(file) * 512
}

#[cfg(not(unix))]
fn allocated(file: &std::fs::Metadata) -> u64 {
    file.len()
}
