//! Fetches single files of groups whose bytes are not here.

use std::time::{Duration, Instant};

use anyhow::Result;
use larder::{Kind, Store, groups::Repo};

use super::network::{Network, start};
use crate::{
    app::App,
    endpoint::Endpoint,
    output::{Count, Unit},
};

/// The interval at which members are asked again.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The advice about files that nobody was asked for.
pub(crate) const ONLINE: &str =
    "without --offline the other members are asked for what is not here";

/// A file whose bytes are not here.
#[derive(Debug)]
pub(crate) struct Absent {
    repo: Repo,
    path: String,
}

impl Absent {
    pub(crate) fn new(repo: &Repo, path: &str) -> Self {
        Self {
            repo: repo.clone(),
            path: path.to_owned(),
        }
    }
}

/// Fetches files from members that can be reached, until all are here or nothing has come for `timeout`. Files that
/// do not come are not an error here: reading them fails.
pub(crate) async fn fetch(
    app: &App,
    store: &Store,
    absent: &[Absent],
    endpoint: Endpoint,
    timeout: Duration,
) -> Result<()> {
    app.out.note(format_args!(
        "{} file(s) are not here: asking the other members, for up to {timeout:?}",
        Count(absent.len() as u64)
    ));
    let replicator = start(app, store, Network::of(endpoint).with_names_only()).await?;
    let bar = app
        .out
        .progress(Unit::Items, Some(absent.len() as u64), "fetching");
    let fetched = async {
        let mut left: Vec<_> = absent.iter().collect();
        let (mut moved, mut received) = (Instant::now(), 0);
        while !left.is_empty() && moved.elapsed() < timeout {
            let mut still = Vec::new();
            for file in left {
                match replicator.read(&file.repo, &file.path, 0..0).await {
                    Ok(_) => {
                        bar.inc(1);
                        moved = Instant::now();
                    }
                    Err(error) if error.kind() == Kind::Unavailable => still.push(file),
                    // It was removed or replaced meanwhile.
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            left = still;
            if replicator.received() != received {
                received = replicator.received();
                moved = Instant::now();
            }
            if !left.is_empty() {
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
        Ok(())
    }
    .await;
    bar.finish_and_clear();
    replicator.shutdown().await;
    Ok(fetched?)
}
