//! The command that writes a blob into a file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::StreamExt;
use iroh_blobs::api::proto::{ExportPathMsg, ExportProgressItem};
use irpc::channel::mpsc::Sender;
use larder_descriptors::Descriptors;
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{BlobStatus, Hash};
use tokio::{fs, io::AsyncWriteExt};

use super::Context;
use crate::convert::{to_api_error, to_engine_hash};

/// Makes names beside a target unique in this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Copies the blob, whatever mode is asked for. The target appears whole or not at all: it replaces
/// a file or a link of its name, and never writes through a link.
pub(super) async fn run(context: Arc<Context>, cmd: ExportPathMsg) {
    let hash = to_engine_hash(cmd.inner.hash);
    let last = match export(&context, hash, &cmd.inner.target, &cmd.tx).await {
        Ok(()) => ExportProgressItem::Done,
        Err(error) => ExportProgressItem::Error(to_api_error(error)),
    };
    cmd.tx.send(last).await.ok();
}

async fn export(
    context: &Context,
    hash: Hash,
    target: &Path,
    tx: &Sender<ExportProgressItem>,
) -> Result<()> {
    let failed = |error| Error::io("blobs.export", target, error);
    let (Some(folder), Some(name), true) =
        (target.parent(), target.file_name(), target.is_absolute())
    else {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "path is not absolute",
        )));
    };
    let size = complete_size(context, hash).await?;
    fs::create_dir_all(folder).await.map_err(failed)?;
    let mut beside = name.to_os_string();
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    beside.push(format!(".{}-{unique}.part", std::process::id()));
    let part = Part(Some(folder.join(beside)));
    let path = part.0.as_deref().expect("not yet renamed");
    let _permit = Descriptors::of_process().file().await;
    let mut file = fs::File::create_new(path).await.map_err(failed)?;
    tx.send(ExportProgressItem::Size(size)).await.ok();
    let mut chunks = context.blobs.read(hash, 0..size);
    let mut written = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        file.write_all(&chunk).await.map_err(failed)?;
        written += chunk.len() as u64;
        tx.try_send(ExportProgressItem::CopyProgress(written))
            .await
            .ok();
    }
    file.flush().await.map_err(failed)?;
    // A file that is replaced must not be lost to a power cut that comes before its successor is on
    // the disk.
    if fs::try_exists(target).await.map_err(failed)? {
        file.sync_data().await.map_err(failed)?;
    }
    drop(file);
    part.rename(target).await.map_err(failed)
}

/// The size of a blob that is there as a whole: a file with holes would pass for one.
async fn complete_size(context: &Context, hash: Hash) -> Result<u64> {
    match context.blobs.status(hash).await? {
        Some(BlobStatus::Complete { size }) => Ok(size),
        Some(BlobStatus::Partial { .. }) => Err(Error::new(
            Kind::NotFound,
            "blobs.export",
            "only a part of the blob is here",
        )
        .with("hash", hash)),
        None => Err(
            Error::new(Kind::NotFound, "blobs.export", "there is no such blob").with("hash", hash),
        ),
    }
}

/// The file beside the target, deleted unless it becomes the target.
struct Part(Option<PathBuf>);

impl Part {
    async fn rename(mut self, target: &Path) -> io::Result<()> {
        let path = self.0.as_ref().expect("renamed only once");
        fs::rename(path, target).await?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Nobody is left to tell, and the name says what it is.
            std::fs::remove_file(path).ok();
        }
    }
}
