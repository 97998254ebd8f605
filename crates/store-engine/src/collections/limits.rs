//! Refuses what a store cannot take, before anything happens, and names the limit.

use larder_store_api::{
    Batch, CollectionCapabilities, CollectionId, Edit, Error, Expect, Kind, Result,
};

const COMMIT: &str = "collections.commit";

pub(super) fn check_batch(limits: &CollectionCapabilities, batch: &Batch) -> Result<()> {
    let len = batch.expect.len() + batch.edits.len();
    if is_over(len, limits.max_batch_len) {
        let max = limits.max_batch_len;
        return Err(Error::new(
            Kind::TooLarge,
            COMMIT,
            format!("a batch has at most {max} expectations and edits"),
        )
        .with("len", len));
    }
    for expect in &batch.expect {
        let (Expect::Absent { collection, key }
        | Expect::At {
            collection, key, ..
        }) = expect;
        check_key(limits, COMMIT, collection, key)?;
    }
    for edit in &batch.edits {
        match edit {
            Edit::Put {
                collection,
                key,
                value,
            } => {
                check_key(limits, COMMIT, collection, key)?;
                check_value(limits, collection, value)?;
            }
            Edit::Delete { collection, key } => check_key(limits, COMMIT, collection, key)?,
        }
    }
    Ok(())
}

pub(super) fn check_key(
    limits: &CollectionCapabilities,
    operation: &'static str,
    collection: &CollectionId,
    key: &[u8],
) -> Result<()> {
    if !is_over(key.len(), limits.max_key_len) {
        return Ok(());
    }
    let max = limits.max_key_len;
    Err(Error::new(
        Kind::TooLarge,
        operation,
        format!("a key has at most {max} bytes"),
    )
    .with("collection", collection)
    .with("len", key.len()))
}

fn check_value(
    limits: &CollectionCapabilities,
    collection: &CollectionId,
    value: &[u8],
) -> Result<()> {
    if !is_over(value.len(), limits.max_value_len) {
        return Ok(());
    }
    let max = limits.max_value_len;
    Err(Error::new(
        Kind::TooLarge,
        COMMIT,
        format!("a value has at most {max} bytes"),
    )
    .with("collection", collection)
    .with("len", value.len()))
}

fn is_over(len: usize, max: u32) -> bool {
    u32::try_from(len).map_or(true, |len| len > max)
}
