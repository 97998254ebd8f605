//! Space that the store keeps for a full disk, so that it can be opened and emptied there.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::disk;

/// The length of the reserve: enough for the log and the index to note that some ten thousand small entries are
/// gone.
const LEN: u64 = 2 << 20;
const STEP: usize = 64 << 10;

/// A file that takes space on the disk and says nothing. It is given up when a store on a full disk is opened,
/// or something is removed from it, and taken again once there is room.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Returns the reserve of the store in `dir`, which need not be there.
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            path: dir.join("reserve"),
        }
    }

    /// Gives the space free, and says if there was any.
    pub(crate) fn release(&self) -> bool {
        let len = fs::metadata(&self.path).map_or(0, |data| data.len());
        match fs::remove_file(&self.path) {
            Ok(()) if len > 0 => {
                tracing::warn!(path = %self.path.display(), "the disk is full; the reserve is given up");
                true
            }
            Ok(()) => false,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %self.path.display(), %error, "the reserve cannot be given up");
                }
                false
            }
        }
    }

    /// Takes the space again, as much of it as there is. A missing part is not an error: the store works
    /// without.
    pub(crate) fn take(&self) {
        if let Err(error) = self.try_take() {
            tracing::debug!(path = %self.path.display(), %error, "the reserve is not whole");
        }
    }

    fn try_take(&self) -> io::Result<()> {
        let mut len = match fs::metadata(&self.path) {
            Ok(data) => data.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if len >= LEN {
            return Ok(());
        }
        let file: File = disk::open_or_create(&self.path)?;
        while len < LEN {
            // Data that a file system could compress would reserve less.
            let noise = noise(len, usize::try_from(LEN - len).unwrap_or(STEP).min(STEP));
            disk::write_all_at(&file, &noise, len)?;
            len += noise.len() as u64;
        }
        Ok(())
    }
}

/// Bytes that cannot be compressed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_whole_and_given_up_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let reserve = Reserve::of(dir.path());
        assert!(!reserve.release(), "there is none");
        reserve.take();
        let len = || fs::metadata(&reserve.path).map(|data| data.len()).ok();
        assert_eq!(len(), Some(LEN));
        // Only the missing part of it is taken.
        File::options()
            .write(true)
            .open(&reserve.path)
            .and_then(|file| file.set_len(LEN / 2 + 1))
            .expect("it is cut");
        reserve.take();
        assert_eq!(len(), Some(LEN));
        assert!(reserve.release());
        assert_eq!(len(), None);
    }
}
