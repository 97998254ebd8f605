//! Commands about tags.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt;
use iroh_blobs::api::{
    Tag as IrohTag,
    proto::{
        CreateTagMsg, DeleteTagsMsg, ListTagsMsg, ListTagsRequest, RenameTagMsg, SetTagMsg, TagInfo,
    },
};
use larder_store_api::Result;
use larder_store_engine::{Format, Tag};

use super::Context;
use crate::convert::{to_api_error, to_engine_root, to_iroh_root, to_tag_name};

/// Answers with all tags at once: the protocol has no other way.
pub(super) async fn list(context: Arc<Context>, cmd: ListTagsMsg) {
    let answer = match matching(&context, cmd.inner).await {
        Ok(tags) => tags.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(to_api_error(error))],
    };
    cmd.tx.send(answer).await.ok();
}

async fn matching(context: &Context, request: ListTagsRequest) -> Result<Vec<TagInfo>> {
    let ListTagsRequest {
        hash_seq,
        raw,
        from,
        to,
    } = request;
    let Some(names) = names(from, to) else {
        return Ok(Vec::new());
    };
    let tags = context.blobs.tags().list(names);
    tags.try_filter_map(|Tag { name, root }| async move {
        let wanted = match root.format {
            Format::Raw => raw,
            Format::HashSeq | Format::Tree { .. } => hash_seq,
        };
        Ok(wanted.then(|| TagInfo::new(name.as_bytes(), to_iroh_root(root))))
    })
    .try_collect()
    .await
}

/// The names from `from` to before `to`; `None` if there can be none.
fn names(from: Option<IrohTag>, to: Option<IrohTag>) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
    if let (Some(from), Some(to)) = (&from, &to)
        && from >= to
    {
        return None;
    }
    let from = from.map_or(Bound::Unbounded, |tag| Bound::Included(tag.0));
    let to = to.map_or(Bound::Unbounded, |tag| Bound::Excluded(tag.0));
    Some((from, to))
}

pub(super) async fn set(context: Arc<Context>, cmd: SetTagMsg) {
    let set = async {
        let root = to_engine_root(cmd.inner.value);
        let name = to_tag_name(cmd.inner.name)?;
        context.blobs.tags().set(name, root).await
    };
    let set = set.await.map_err(to_api_error);
    cmd.tx.send(set).await.ok();
}

pub(super) async fn delete(context: Arc<Context>, cmd: DeleteTagsMsg) {
    let deleted = match names(cmd.inner.from, cmd.inner.to) {
        Some(names) => context.blobs.tags().delete(names).await,
        None => Ok(0),
    };
    cmd.tx.send(deleted.map_err(to_api_error)).await.ok();
}

pub(super) async fn rename(context: Arc<Context>, cmd: RenameTagMsg) {
    let renamed = async {
        let from = to_tag_name(cmd.inner.from)?;
        let to = to_tag_name(cmd.inner.to)?;
        context.blobs.tags().rename(&from, to).await
    };
    let renamed = renamed.await.map_err(to_api_error);
    cmd.tx.send(renamed).await.ok();
}

pub(super) async fn create(context: Arc<Context>, cmd: CreateTagMsg) {
    let root = to_engine_root(cmd.inner.value);
    let name = context.blobs.tags().create(root).await;
    let name = name.map(|name| IrohTag(name.as_bytes().clone()));
    cmd.tx.send(name.map_err(to_api_error)).await.ok();
}
