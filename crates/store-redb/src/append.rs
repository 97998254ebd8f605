//! Writing at the log's end.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
};

use larder_store_api::{Error, Kind, Result};

use crate::{
    disk,
    frame::{FrameBuilder, Stamp},
    log::{Counters, Log, Position, SEGMENT_HEADER, SEGMENT_LEN, SegmentHeader},
};

/// The distance beyond a frame up to which zeros are written. A sync after writing into bytes that
/// the file already has costs half of one that must also record a new length.
const ZEROS_AHEAD: u64 = 1 << 20;
/// Before frames longer than this the file is made longer without writing: writing twice as much
/// would cost more than it saves.
const ZEROS_MAX_FRAME: u64 = 128 << 10;
/// The distance beyond a frame up to which a hole is made.
const HOLE_AHEAD: u64 = 8 << 20;

/// Appends frames to the last segment. There is one, in the thread that commits.
#[derive(Debug)]
pub(crate) struct Appender {
    log: Arc<Log>,
    file: File,
    path: PathBuf,
    segment: u32,
    salt: u64,
    /// The offset of the next frame.
    end: u64,
    /// The file has bytes up to here; those after `end` are zeros.
    len: u64,
    /// The last frame's number, and the last revision in it.
    last: Counters,
    /// The last frame that is known to be durable.
    synced: u64,
    /// The reason why nothing can be appended any more, once the device failed.
    failed: Option<Error>,
    /// The disk was full: nothing is written ahead.
    is_tight: bool,
}

impl Appender {
    /// Goes on in an existing segment at `end`, after its last whole frame.
    pub(crate) fn resume(
        log: Arc<Log>,
        header: SegmentHeader,
        end: u64,
        last: Counters,
    ) -> Result<Self> {
        let path = log.path(header.number);
        let fail = |error| Error::io("log.open", &path, error);
        let file = disk::open_or_create(&path).map_err(fail)?;
        if file.metadata().map_err(fail)?.len() != end {
            let cut = file.set_len(end).and_then(|()| file.sync_all());
            cut.map_err(fail)?;
        }
        log.set_len(header.number, end);
        Ok(Self::at(log, file, path, header, end, last))
    }

    /// Begins segment `number`.
    pub(crate) fn create(log: Arc<Log>, number: u32, last: Counters) -> Result<Self> {
        let (file, path, header) = create_segment(&log, number, last)?;
        Ok(Self::at(
            log,
            file,
            path,
            header,
            SEGMENT_HEADER as u64,
            last,
        ))
    }

    fn at(
        log: Arc<Log>,
        file: File,
        path: PathBuf,
        header: SegmentHeader,
        end: u64,
        last: Counters,
    ) -> Self {
        Self {
            log,
            file,
            path,
            segment: header.number,
            salt: header.salt,
            end,
            len: end,
            last,
            synced: last.sequence,
            failed: None,
            is_tight: false,
        }
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

    /// Returns true if there are frames that are not known to be durable.
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
        let bytes = frame.finish(Stamp {
            sequence: self.last.sequence + 1,
            synced: self.synced,
            revision,
            salt: self.salt,
        });
        let frame_len = bytes.len() as u64;
        let end = self.end + frame_len;
        if self.is_tight {
            // The space is for what is to be kept.
        } else if end > self.len && frame_len > ZEROS_MAX_FRAME {
            // If the file cannot grow, the write reports why, or is a little slower.
            if self.file.set_len(end + HOLE_AHEAD).is_ok() {
                self.len = end + HOLE_AHEAD;
            }
        } else if end > self.len {
            let padded = bytes.len() + usize::try_from(ZEROS_AHEAD).expect("a small number");
            bytes.resize(padded, 0);
        }
        let mut written = disk::write_all_at(&self.file, bytes, self.end);
        self.is_tight |= written.is_err();
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
        let (file, path, header) = match create_segment(&self.log, number, self.last) {
            Ok(created) => created,
            Err(error) => {
                // If it stays, nothing must be appended to the one before it.
                if let Err(stays) = disk::remove_file("log.append", &self.log.path(number)) {
                    tracing::error!(?stays, "a segment that could not be begun stays");
                    self.failed = Some(error.clone());
                }
                return Err(error);
            }
        };
        self.file = file;
        self.path = path;
        self.segment = number;
        self.salt = header.salt;
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
        self.is_tight = false;
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

fn create_segment(
    log: &Log,
    number: u32,
    before: Counters,
) -> Result<(File, PathBuf, SegmentHeader)> {
    let path = log.path(number);
    let fail = |error| Error::io("log.append", &path, error);
    let header = SegmentHeader {
        number,
        // The standard library has no other source of random numbers.
        salt: RandomState::new().hash_one(number),
        before,
    };
    let file = disk::open_or_create(&path).map_err(fail)?;
    file.set_len(0)
        .and_then(|()| disk::write_all_at(&file, &header.encode(), 0))
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    disk::sync_dir("log.append", log.dir())?;
    log.set_len(number, SEGMENT_HEADER as u64);
    Ok((file, path, header))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use larder_descriptors::Descriptors;

    use super::*;
    use crate::frame::Record;

    fn frame() -> FrameBuilder {
        let mut frame = FrameBuilder::new(Vec::new());
        frame.push(Record {
            revision: 1,
            key: b"key",
            value: Some(b"value"),
        });
        frame
    }

    fn appender(dir: &std::path::Path) -> Appender {
        let log = Arc::new(Log::open(dir, Arc::new(Descriptors::new(64))).expect("an empty log"));
        Appender::create(log, 1, Counters::default()).expect("a segment")
    }

    fn device(path: &str) -> File {
        File::options()
            .write(true)
            .open(path)
            .expect("Linux has it")
    }

    #[test]
    fn a_failed_sync_ends_appending() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut appender = appender(dir.path());
        // A file that takes all writes and cannot be synced.
        appender.file = device("/dev/null");
        appender.append(&mut frame(), 1).expect("it takes it");
        let error = appender.sync().expect_err("it cannot be synced");
        assert_eq!(error.operation(), "log.sync");
        for result in [appender.sync(), appender.append(&mut frame(), 2).map(drop)] {
            let error = result.expect_err("nothing more is appended");
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.message().contains("open the store again"));
        }
    }

    #[test]
    fn a_full_disk_leaves_the_log_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut appender = appender(dir.path());
        appender.append(&mut frame(), 1).expect("there is space");
        let (position, last) = (appender.position(), appender.last());
        // A file that cannot be truncated either, so that the first failure is also the last.
        let file = std::mem::replace(&mut appender.file, device("/dev/full"));
        let error = appender
            .append(&mut frame(), 2)
            .expect_err("there is no space");
        assert_eq!(error.kind(), Kind::Full);
        assert_eq!((appender.position(), appender.last()), (position, last));
        let error = appender
            .append(&mut frame(), 2)
            .expect_err("it could not be undone");
        assert_eq!(error.kind(), Kind::Unavailable);
        // If the write can be undone, the log goes on.
        appender.file = file;
        appender.failed = None;
        appender
            .append(&mut frame(), 2)
            .expect("there is space again");
        assert_eq!(appender.last().sequence, 2);
    }
}
