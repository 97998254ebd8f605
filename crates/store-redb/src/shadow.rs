//! The index's file where it cannot be written: what is written stays in memory, over the pages of the file.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use redb::StorageBackend;

use crate::pages::{PAGE_LEN, PageState, Pages};

const PAGE: usize = PAGE_LEN as usize;

/// A file of which nothing is changed on the disk.
#[derive(Debug)]
pub(crate) struct Shadow {
    /// `None` if the file is missing, or nothing of it can be used.
    base: Option<Pages>,
    written: RwLock<Written>,
}

#[derive(Debug)]
struct Written {
    /// The pages that were written, whole.
    pages: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    /// The file has no more than this, since it was once made shorter.
    base_len: u64,
}

impl Shadow {
    /// Opens the file for reading; begins with an empty one where it is missing.
    pub(crate) fn open(path: &Path, state: Arc<PageState>) -> io::Result<Self> {
        let base = match Pages::open_to_read(path, state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other?),
        };
        let len = base.as_ref().map_or(Ok(0), StorageBackend::len)?;
        Ok(Self::over(base, len))
    }

    /// An empty file.
    pub(crate) fn empty() -> Self {
        Self::over(None, 0)
    }

    fn over(base: Option<Pages>, len: u64) -> Self {
        let written = Written {
            pages: BTreeMap::new(),
            len,
            base_len: len,
        };
        Self {
            base,
            written: RwLock::new(written),
        }
    }

    /// Reads a part of one page.
    fn read_page(
        &self,
        written: &Written,
        page: u64,
        within: Range<usize>,
        out: &mut [u8],
    ) -> io::Result<()> {
        if let Some(bytes) = written.pages.get(&page) {
            out.copy_from_slice(&bytes[within]);
            return Ok(());
        }
        match &self.base {
            Some(base) if page * PAGE_LEN < written.base_len => {
                // redb reads a part of the first page alone.
                let offset = page * PAGE_LEN + within.start as u64;
                base.read(offset, out)
            }
            _ => {
                out.fill(0);
                Ok(())
            }
        }
    }
}

/// The parts of pages that lie in a range: page, place in it, and place in the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE_LEN).expect("less than a page");
        let count = (PAGE - start).min(len - done);
        if count == 0 {
            return None;
        }
        let range = done..done + count;
        done += count;
        Some((at / PAGE_LEN, start..start + count, range))
    })
}

impl StorageBackend for Shadow {
    fn len(&self) -> io::Result<u64> {
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        Ok(written.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        if offset + out.len() as u64 > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, range) in parts(offset, out.len()) {
            self.read_page(&written, page, within, &mut out[range])?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        written.len = len;
        written.base_len = written.base_len.min(len);
        drop(written.pages.split_off(&len.div_ceil(PAGE_LEN)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        for (page, within, range) in parts(offset, data.len()) {
            if !written.pages.contains_key(&page) {
                let mut bytes = vec![0; PAGE];
                if within != (0..PAGE) {
                    self.read_page(&written, page, 0..PAGE, &mut bytes)?;
                }
                written.pages.insert(page, bytes.into());
            }
            let bytes = written.pages.get_mut(&page).expect("it was put there");
            bytes[within].copy_from_slice(&data[range]);
        }
        Ok(())
    }
}
