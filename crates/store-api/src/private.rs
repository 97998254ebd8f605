//! Folders and files that only their owner can read, for backends that keep files.
//!
//! On systems other than Unix, they have the rights that the system gives them.

use std::fs::{DirBuilder, OpenOptions};

/// Returns a builder that creates folders for their owner alone. Folders that exist keep their rights.
pub fn dir_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Returns options that create a file for its owner alone. A file that exists keeps its rights.
pub fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
