//! Writing at the log's end.

use std::{fs::File, path::PathBuf, sync::Arc};

use store_api::{Error, Kind, Result};

use crate::{
    disk,
    frame::FrameBuilder,
    log::{Counters, Log, Position, SEGMENT_HEADER, SEGMENT_LEN, segment_header},
};

/// How far beyond a frame zeros are written. A sync after writing into bytes that the file already
/// has costs half of one that must also record a new length.
const ZEROS_AHEAD: u64 = 1 << 20;
/// Frames longer than this get no zeros after them: writing twice as much would cost more.
const ZEROS_MAX_FRAME: u64 = 128 << 10;

/// Appends frames to the last segment. There is one, in the thread that commits.
#[derive(Debug)]
pub(crate) struct Appender {
    log: Arc<Log>,
    file: File,
    path: PathBuf,
    segment: u32,
    /// Where the next frame goes.
    end: u64,
    /// The file has bytes up to here; those after `end` are zeros.
    len: u64,
    /// The last frame's number, and the last revision in it.
    last: Counters,
    /// The last frame that is known to be durable.
    synced: u64,
    /// Why nothing can be appended any more, once the device failed.
    failed: Option<Error>,
}

impl Appender {
    /// Goes on in an existing segment, after its last whole frame.
    pub(crate) fn resume(log: Arc<Log>, at: Position, last: Counters) -> Result<Self> {
        let path = log.path(at.segment);
        let fail = |error| Error::io("log.open", &path, error);
        let file = disk::open_or_create(&path).map_err(fail)?;
        file.set_len(at.offset)
            .and_then(|()| file.sync_all())
            .map_err(fail)?;
        log.set_len(at.segment, at.offset);
        Ok(Self {
            log,
            file,
            path,
            segment: at.segment,
            end: at.offset,
            len: at.offset,
            last,
            synced: last.sequence,
            failed: None,
        })
    }

    /// Begins segment `number`.
    pub(crate) fn create(log: Arc<Log>, number: u32, last: Counters) -> Result<Self> {
        let (file, path) = create_segment(&log, number, last)?;
        Ok(Self {
            log,
            file,
            path,
            segment: number,
            end: SEGMENT_HEADER as u64,
            len: SEGMENT_HEADER as u64,
            last,
            synced: last.sequence,
            failed: None,
        })
    }

    /// The log's end.
    pub(crate) fn position(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.end,
        }
    }

    /// The last frame's number and revision.
    pub(crate) fn last(&self) -> Counters {
        self.last
    }

    /// Whether there are frames that are not known to be durable.
    pub(crate) fn is_dirty(&self) -> bool {
        self.synced < self.last.sequence
    }

    /// Appends a frame of commits up to `revision`, and returns where it begins. After an error the
    /// log is as before.
    pub(crate) fn append(&mut self, frame: &mut FrameBuilder, revision: u64) -> Result<Position> {
        self.check()?;
        if self.end >= SEGMENT_LEN {
            self.roll()?;
        }
        let bytes = frame.finish(self.last.sequence + 1, self.synced, revision);
        let frame_len = bytes.len() as u64;
        let end = self.end + frame_len;
        if end > self.len && frame_len <= ZEROS_MAX_FRAME {
            let padded = bytes.len() + usize::try_from(ZEROS_AHEAD).expect("a small number");
            bytes.resize(padded, 0);
        }
        let mut written = disk::write_all_at(&self.file, bytes, self.end);
        if written.is_err() && bytes.len() as u64 > frame_len {
            // There may be room for the frame alone.
            bytes.truncate(usize::try_from(frame_len).expect("it was a length"));
            written = disk::write_all_at(&self.file, bytes, self.end);
        }
        if let Err(error) = written {
            let error = Error::io("log.append", &self.path, error);
            return Err(self.undo(error));
        }
        let start = self.position();
        self.len = self.len.max(self.end + bytes.len() as u64);
        self.end = end;
        self.last.sequence += 1;
        self.last.revision = revision;
        self.log.set_len(self.segment, end);
        Ok(start)
    }

    /// Cuts off what a failed append may have left.
    fn undo(&mut self, error: Error) -> Error {
        match self.file.set_len(self.end) {
            Ok(()) => self.len = self.end,
            Err(undo) => {
                tracing::error!(path = %self.path.display(), %undo, "a failed append cannot be undone");
                self.failed = Some(error.clone());
            }
        }
        error
    }

    /// Makes every frame survive the loss of power. After an error it is unknown which do, and
    /// nothing more is appended.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.check()?;
        if self.is_dirty() {
            if let Err(error) = self.file.sync_data() {
                let error = Error::io("log.sync", &self.path, error);
                self.failed = Some(error.clone());
                return Err(error);
            }
            self.synced = self.last.sequence;
        }
        Ok(())
    }

    /// Begins the next segment; this one is then durable, and ends with its last frame.
    pub(crate) fn roll(&mut self) -> Result<()> {
        self.trim()?;
        let number = self.segment + 1;
        let (file, path) = create_segment(&self.log, number, self.last)?;
        self.file = file;
        self.path = path;
        self.segment = number;
        self.end = SEGMENT_HEADER as u64;
        self.len = self.end;
        Ok(())
    }

    /// Cuts off the zeros after the last frame, and makes every frame durable.
    pub(crate) fn trim(&mut self) -> Result<()> {
        self.sync()?;
        if self.len > self.end {
            self.file
                .set_len(self.end)
                .and_then(|()| self.file.sync_all())
                .map_err(|error| Error::io("log.trim", &self.path, error))?;
            self.len = self.end;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let Some(cause) = &self.failed else {
            return Ok(());
        };
        let message =
            "the disk failed earlier, and it is unknown what it kept; open the store again";
        Err(Error::new(Kind::Unavailable, "log.append", message).because(cause.clone()))
    }
}

fn create_segment(log: &Log, number: u32, last: Counters) -> Result<(File, PathBuf)> {
    let path = log.path(number);
    let fail = |error| Error::io("log.append", &path, error);
    let file = disk::open_or_create(&path).map_err(fail)?;
    let header = segment_header(number, last);
    let made = file
        .set_len(0)
        .and_then(|()| disk::write_all_at(&file, &header, 0))
        .and_then(|()| file.sync_all());
    if let Err(error) = made {
        // Nothing was acknowledged in it; if it stays, opening passes over it.
        if let Err(remove) = disk::remove_file("log.append", &path) {
            tracing::warn!(%remove, "an unused segment stays");
        }
        return Err(fail(error));
    }
    disk::sync_dir("log.append", path.parent().unwrap_or(&path))?;
    log.set_len(number, SEGMENT_HEADER as u64);
    Ok((file, path))
}
