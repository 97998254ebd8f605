//! Frees the space of records that nothing needs any more.
#[derive(Debug)]
pub(crate) struct Compaction {}
