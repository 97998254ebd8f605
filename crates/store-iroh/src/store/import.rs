//! Commands that bring bytes in.

use std::{io, sync::Arc};

use bao_tree::io::BaoContentItem;
use bytes::Bytes;
use futures_util::{Stream, stream};
use iroh_blobs::{
    BlobFormat,
    api::proto::{
        AddProgressItem, ImportBaoMsg, ImportByteStreamMsg, ImportByteStreamUpdate, ImportBytesMsg,
        ImportPathMsg, Scope,
    },
};
use irpc::channel::mpsc::{Receiver, Sender};
use larder_store_api::{Error, Result};
use larder_store_engine::{AddOptions, Encoded, Pin, Source, Trust};
use tokio::sync::watch;

use super::{Context, temp_tag};
use crate::convert::{to_api_error, to_engine_format, to_engine_hash, to_io_error, to_iroh_hash};

pub(super) async fn bytes(context: Arc<Context>, cmd: ImportBytesMsg) {
    let ImportBytesMsg { inner, tx, .. } = cmd;
    let size = inner.data.len() as u64;
    let source = Source::from(inner.data);
    add(&context, source, Some(size), inner.format, inner.scope, tx).await;
}

/// Copies the file, whatever mode is asked for.
pub(super) async fn path(context: Arc<Context>, cmd: ImportPathMsg) {
    let ImportPathMsg { inner, tx, .. } = cmd;
    let refused = if inner.path.is_absolute() {
        None
    } else {
        Some(io::Error::new(
            io::ErrorKind::InvalidInput,
            "path must be absolute",
        ))
    };
    if let Some(error) = refused {
        tx.send(error.into()).await.ok();
        return;
    }
    let source = Source::from(inner.path);
    add(&context, source, None, inner.format, inner.scope, tx).await;
}

pub(super) async fn byte_stream(context: Arc<Context>, cmd: ImportByteStreamMsg) {
    let ImportByteStreamMsg { inner, tx, rx, .. } = cmd;
    let source = Source::Stream(Box::pin(updates(rx)));
    add(&context, source, None, inner.format, inner.scope, tx).await;
}

/// Returns the bytes that a caller sends. A caller that goes away before it says that it is done is an error:
/// half a blob must not be imported.
fn updates(rx: Receiver<ImportByteStreamUpdate>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(rx, |mut rx| async move {
        match rx.recv().await {
            Ok(Some(ImportByteStreamUpdate::Bytes(bytes))) => Ok(Some((bytes, rx))),
            Ok(Some(ImportByteStreamUpdate::Done)) => Ok(None),
            Ok(None) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "byte stream ended unexpectedly",
            )),
            Err(error) => Err(error.into()),
        }
    })
}

/// Adds a source and answers with a temp tag, in the order of events that iroh-blobs promises.
async fn add(
    context: &Context,
    source: Source,
    size: Option<u64>,
    format: BlobFormat,
    scope: Scope,
    tx: Sender<AddProgressItem>,
) {
    let last = match add_and_tell(context, source, size, format, &tx).await {
        Ok(pin) => {
            let value = iroh_blobs::HashAndFormat {
                hash: to_iroh_hash(pin.hash()),
                format,
            };
            // The engine's pin lasts until the temp tag protects.
            let tag = temp_tag(context, scope, value, tx.is_rpc()).await;
            drop(pin);
            tag.map(AddProgressItem::Done)
        }
        Err(error) => Err(error),
    };
    let last = last.unwrap_or_else(|error| AddProgressItem::Error(to_io_error(error)));
    tx.send(last).await.ok();
}

async fn add_and_tell(
    context: &Context,
    source: Source,
    size: Option<u64>,
    format: BlobFormat,
    tx: &Sender<AddProgressItem>,
) -> Result<Pin> {
    if let Some(size) = size {
        tell(tx, AddProgressItem::Size(size)).await;
    }
    let (taken, mut progress) = watch::channel(0);
    let options = AddOptions::default()
        .format(to_engine_format(format))
        .progress(move |bytes| {
            taken.send_replace(bytes);
        });
    let adding = context.blobs.add_with(source, options);
    tokio::pin!(adding);
    let pin = loop {
        tokio::select! {
            biased;
            pin = &mut adding => break pin?,
            Ok(()) = progress.changed() => {
                let bytes = *progress.borrow_and_update();
                tx.try_send(AddProgressItem::CopyProgress(bytes)).await.ok();
            }
        }
    };
    if size.is_none() {
        tell(tx, AddProgressItem::Size(pin.size().unwrap_or(0))).await;
    }
    tell(tx, AddProgressItem::CopyDone).await;
    Ok(pin)
}

/// Sends an event. A caller that went away does not stop the import: nobody told it to.
async fn tell(tx: &Sender<AddProgressItem>, item: AddProgressItem) {
    tx.send(item).await.ok();
}

/// Takes in verified items; answers when they are durable. Items that arrived before a caller went away are
/// kept.
pub(super) async fn bao(context: Arc<Context>, cmd: ImportBaoMsg) {
    let ImportBaoMsg {
        inner, mut rx, tx, ..
    } = cmd;
    let imported = async {
        let hash = to_engine_hash(inner.hash);
        let mut import = context
            .blobs
            .import(hash, inner.size.get(), Trust::Verified)
            .await?;
        let broken = loop {
            match rx.recv().await {
                Ok(Some(item)) => import.push(encoded(item)).await?,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        import.finish().await?;
        match broken {
            None => Ok(()),
            Some(error) => Err(Error::io(
                "blobs.import",
                std::path::Path::new("(a caller's stream)"),
                error.into(),
            )),
        }
    };
    let imported: Result<()> = imported.await;
    tx.send(imported.map_err(to_api_error)).await.ok();
}

fn encoded(item: BaoContentItem) -> Encoded {
    match item {
        BaoContentItem::Parent(parent) => Encoded::Parent(parent),
        BaoContentItem::Leaf(leaf) => Encoded::Leaf(leaf),
    }
}
