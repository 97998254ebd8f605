//! Looks for pieces of a folder in the raw files of a store.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use aho_corasick::AhoCorasick;
use anyhow::{Context, Result};

use larder::files::Found;

/// The most files of which pieces are looked for.
const MAX_SAMPLES: usize = 64;
/// The length of a piece, in bytes.
const PIECE: usize = 32;
/// A piece or name that has fewer different bytes may be anywhere by chance.
const MIN_VARIETY: usize = 10;
/// The number of bytes that are searched at once.
const WINDOW: usize = 1 << 20;

/// The result of the search.
#[derive(Debug, Default)]
pub(super) struct Searched {
    /// The number of places of the store that have a piece.
    pub(super) found: usize,
    /// The length of all files of the store.
    pub(super) bytes: u64,
}

/// Names of files, and pieces from within them, evenly from the whole folder. Files that cannot be
/// read any more are left out.
pub(super) fn samples(files: &[Found]) -> Vec<Vec<u8>> {
    let step = files.len().div_ceil(MAX_SAMPLES).max(1);
    let mut all = BTreeSet::new();
    for file in files.iter().step_by(step) {
        all.insert(file.name.clone().into_bytes());
        all.extend(piece(file).ok());
    }
    all.retain(|sample| sample.iter().collect::<BTreeSet<_>>().len() >= MIN_VARIETY);
    all.into_iter().collect()
}

/// Some bytes from the middle of a file.
fn piece(file: &Found) -> io::Result<Vec<u8>> {
    let mut open = fs::File::open(&file.path)?;
    open.seek(SeekFrom::Start(file.size.saturating_sub(PIECE as u64) / 2))?;
    let mut piece = vec![0; PIECE];
    open.read_exact(&mut piece)?;
    Ok(piece)
}

/// Searches all files below `folder`.
pub(super) fn search(folder: &Path, samples: &[Vec<u8>]) -> Result<Searched> {
    let longest = samples.iter().map(Vec::len).max().unwrap_or(0);
    let needles = AhoCorasick::new(samples).context("the samples cannot be searched for")?;
    let mut searched = Searched::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let fail = || format!("cannot read {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(fail)? {
            let path = entry.with_context(fail)?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let one = search_file(&path, &needles, longest);
                let (found, bytes) =
                    one.with_context(|| format!("cannot read {}", path.display()))?;
                searched.found += found;
                searched.bytes += bytes;
            }
        }
    }
    Ok(searched)
}

fn search_file(path: &Path, needles: &AhoCorasick, longest: usize) -> io::Result<(usize, u64)> {
    let mut file = fs::File::open(path)?;
    let (mut found, mut bytes) = (0, 0);
    let mut window = Vec::with_capacity(WINDOW + longest);
    loop {
        let read = (&mut file).take(WINDOW as u64).read_to_end(&mut window)?;
        if read == 0 {
            return Ok((found, bytes));
        }
        bytes += read as u64;
        found += needles.find_iter(&window).count();
        // A sample may lie across two windows.
        let kept = window.len().saturating_sub(longest);
        window.drain(..kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_also_across_windows() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("below/file");
        fs::create_dir(dir.path().join("below")).unwrap();
        let piece = b"0123456789 these are 32 bytes ok".to_vec();
        assert_eq!(piece.len(), PIECE);
        let other = b"something else that is not there".to_vec();
        for at in [0, WINDOW - 7, WINDOW + 5, 2 * WINDOW - 31] {
            let mut bytes = vec![b'x'; 2 * WINDOW + 100];
            bytes[at..at + PIECE].copy_from_slice(&piece);
            fs::write(&file, &bytes).unwrap();
            let searched = search(dir.path(), &[piece.clone(), other.clone()]).unwrap();
            assert!(searched.found >= 1, "at {at}");
            assert_eq!(searched.bytes, bytes.len() as u64);
            assert_eq!(
                search(dir.path(), std::slice::from_ref(&other))
                    .unwrap()
                    .found,
                0
            );
        }
    }

    #[test]
    fn samples_are_no_common_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a rather long name");
        fs::write(&path, [0; 1000]).unwrap();
        let file = Found::look(path, "a rather long name").unwrap();
        assert_eq!(samples(&[file]), [b"a rather long name".to_vec()]);
    }
}
