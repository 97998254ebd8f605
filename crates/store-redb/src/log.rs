//! The log: numbered segment files of frames. It is the truth; all else can be made from it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use larder_descriptors::Descriptors;
use larder_store_api::{Error, Kind, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    disk::{self, Handles, lock},
    frame::{FRAME_HEADER, FRAME_MAGIC, FrameHeader},
};

/// A segment that is at least this long gets no more frames.
pub(crate) const SEGMENT_LEN: u64 = 64 << 20;
/// The most segments that are kept open for reading; fewer where the process may have few.
const OPEN_SEGMENTS: usize = 128;
/// The length of a segment's header: magic `LS01`, number (4 bytes), salt (8), the sequence number
/// of the last frame before it (8), the last revision before it (8), XXH3 of these 32 bytes (8).
pub(crate) const SEGMENT_HEADER: usize = 40;
const SEGMENT_MAGIC: [u8; 4] = *b"LS01";

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

/// The place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// The values of the store's counters at some place of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// The last frame's number.
    pub(crate) sequence: u64,
    /// The last commit's revision.
    pub(crate) revision: u64,
}

/// The header with which a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The segment's number.
    pub(crate) number: u32,
    /// The salt that all its frames have.
    pub(crate) salt: u64,
    /// The values of the counters before the segment.
    pub(crate) before: Counters,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..4].copy_from_slice(&SEGMENT_MAGIC);
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.before.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.before.revision.to_le_bytes());
        let checksum = xxh3_64(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header of segment `number`, where `bytes` are one.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER], number: u32) -> Option<Self> {
        let u64_at =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let header = Self {
            number,
            salt: u64_at(8),
            before: Counters {
                sequence: u64_at(16),
                revision: u64_at(24),
            },
        };
        (header.encode() == *bytes).then_some(header)
    }
}

/// All segments.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    /// The length of each; of the one that is written to, the end of its last frame.
    segments: Mutex<BTreeMap<u32, u64>>,
    handles: Handles<u32>,
}

impl Log {
    /// The segments that are in `dir`.
    pub(crate) fn open(dir: &Path, descriptors: Arc<Descriptors>) -> Result<Self> {
        let segments = segments_in(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            segments: Mutex::new(segments),
            handles: Handles::new(OPEN_SEGMENTS, descriptors),
        })
    }

    /// Returns true if `dir` has a segment that begins as one does.
    pub(crate) fn is_one(dir: &Path) -> Result<bool> {
        for segment in segments_in(dir)?.into_keys() {
            let path = segment_path(dir, segment);
            let mut magic = [0; SEGMENT_MAGIC.len()];
            let file = File::open(&path).map_err(|error| Error::io("log.open", &path, error))?;
            if disk::read_exact_at(&file, &mut magic, 0).is_ok() && magic == SEGMENT_MAGIC {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn path(&self, segment: u32) -> PathBuf {
        segment_path(&self.dir, segment)
    }

    /// Returns the path at which a repair keeps the segment as it was found.
    pub(crate) fn damaged_path(&self, segment: u32) -> PathBuf {
        self.dir.join(format!("{segment:08}.damaged"))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The segments and their lengths, oldest first.
    pub(crate) fn segments(&self) -> BTreeMap<u32, u64> {
        lock(&self.segments).clone()
    }

    pub(crate) fn set_len(&self, segment: u32, len: u64) {
        lock(&self.segments).insert(segment, len);
    }

    /// An open segment, or `None` if it was removed.
    pub(crate) fn file(&self, segment: u32) -> Result<Option<Arc<File>>> {
        if let Some(file) = self.handles.get(segment) {
            return Ok(Some(file));
        }
        match File::open(self.path(segment)) {
            Ok(file) => {
                let file = Arc::new(file);
                self.handles.insert(segment, Arc::clone(&file));
                Ok(Some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if lock(&self.segments).contains_key(&segment) {
                    return Err(self.missing(segment));
                }
                Ok(None)
            }
            Err(error) => Err(Error::io("log.read", &self.path(segment), error)),
        }
    }

    fn missing(&self, segment: u32) -> Error {
        Error::new(
            Kind::Corrupt,
            "log.read",
            "a segment of the log is missing; run a repair",
        )
        .with("path", self.path(segment).display())
    }

    /// A record's bytes, unchecked, or `None` if its segment was removed.
    pub(crate) fn read(&self, at: Pointer) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(at.segment)? else {
            return Ok(None);
        };
        let mut bytes = vec![0; at.len as usize];
        disk::read_exact_at(&file, &mut bytes, u64::from(at.offset))
            .map_err(|error| Error::io("log.read", &self.path(at.segment), error))?;
        Ok(Some(bytes))
    }

    /// Removes a segment that nothing points to any more.
    pub(crate) fn remove(&self, segment: u32) -> Result<()> {
        disk::remove_file("log.compact", &self.path(segment))?;
        lock(&self.segments).remove(&segment);
        self.handles.remove(segment);
        // Segments must not come back in another order than they went.
        disk::sync_dir("log.compact", &self.dir)
    }

    /// Takes a segment for one that is not there, without removing it.
    pub(crate) fn pass_over(&self, segment: u32) {
        lock(&self.segments).remove(&segment);
    }

    /// A segment's header, or `None` if it is not whole.
    pub(crate) fn header(&self, segment: u32) -> Result<Option<SegmentHeader>> {
        let file = self.file(segment)?.ok_or_else(|| self.missing(segment))?;
        let mut bytes = [0; SEGMENT_HEADER];
        match disk::read_exact_at(&file, &mut bytes, 0) {
            Ok(()) => Ok(SegmentHeader::decode(&bytes, segment)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(Error::io("log.read", &self.path(segment), error)),
        }
    }

    /// Reads the frames of one segment from `offset` on.
    pub(crate) fn frames(&self, segment: u32, offset: u64) -> Result<Frames> {
        let file = self.file(segment)?.ok_or_else(|| self.missing(segment))?;
        let path = self.path(segment);
        let data = file.metadata();
        let len = data
            .map_err(|error| Error::io("log.read", &path, error))?
            .len();
        Ok(Frames {
            file,
            path,
            at: offset.max(SEGMENT_HEADER as u64),
            len,
            salt: self.header(segment)?.map(|header| header.salt),
        })
    }
}

fn segment_path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.log"))
}

/// The segments in a folder, and their lengths.
fn segments_in(dir: &Path) -> Result<BTreeMap<u32, u64>> {
    let fail = |error| Error::io("log.open", dir, error);
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            segments.insert(number, entry.metadata().map_err(fail)?.len());
        }
    }
    Ok(segments)
}

/// One frame as it was read.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    /// The offset of the frame.
    pub(crate) offset: u64,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    /// Returns the values of the counters after this frame.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            sequence: self.header.sequence,
            revision: self.header.revision,
        }
    }

    /// Returns the place of the record at `offset` within the body.
    pub(crate) fn record_at(&self, segment: u32, offset: usize, len: usize) -> Pointer {
        let start = self.offset + (FRAME_HEADER + offset) as u64;
        Pointer {
            segment,
            offset: u32::try_from(start).expect("segments are shorter than 4 GiB"),
            len: u32::try_from(len).expect("records are shorter than their segment"),
        }
    }
}

/// Reads frames one after the other; ends before the first one that is not whole.
#[derive(Debug)]
pub(crate) struct Frames {
    file: Arc<File>,
    path: PathBuf,
    at: u64,
    len: u64,
    /// Of the segment; where its header is damaged, of the first frame that is found.
    salt: Option<u64>,
}

impl Frames {
    /// The segment's salt, where it is known.
    pub(crate) fn salt(&self) -> Option<u64> {
        self.salt
    }

    /// Returns the offset of the next frame.
    pub(crate) fn offset(&self) -> u64 {
        self.at
    }

    /// Returns true if no bytes are left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.len
    }

    /// Returns true if the file ends before this place.
    pub(crate) fn is_beyond_end(&self) -> bool {
        self.at > self.len
    }

    /// The next frame, or `None` if there is no whole one at this place.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>> {
        let frame = self.frame_at(self.at)?;
        if let Some(frame) = &frame {
            self.pass(frame);
        }
        Ok(frame)
    }

    /// Goes on after `frame`.
    fn pass(&mut self, frame: &Frame) {
        self.at = frame.offset + (FRAME_HEADER + frame.body.len()) as u64;
        self.salt = Some(frame.header.salt);
    }

    /// Goes on at `offset`.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.at = offset;
    }

    /// The bytes from here up to `end`, or to the end of the file.
    pub(crate) fn bytes_to(&self, end: u64) -> Result<Vec<u8>> {
        let len = end.min(self.len).saturating_sub(self.at);
        self.bytes(
            self.at,
            usize::try_from(len).expect("segments fit into memory"),
        )
    }

    /// Returns the next whole frame anywhere after this place, and passes over any other bytes.
    pub(crate) fn seek_next(&mut self) -> Result<Option<Frame>> {
        const WINDOW: usize = 1 << 20;
        let mut at = self.at;
        while at < self.len {
            let count = usize::try_from(self.len - at).unwrap_or(WINDOW).min(WINDOW);
            let window = self.bytes(at, count)?;
            let magics = window
                .windows(4)
                .enumerate()
                .filter(|(_, four)| **four == FRAME_MAGIC);
            for (start, _) in magics {
                if let Some(frame) = self.frame_at(at + start as u64)? {
                    self.pass(&frame);
                    return Ok(Some(frame));
                }
            }
            // The next window begins with the bytes that can be the start of a magic.
            at += if count < 4 { count } else { count - 3 } as u64;
            if count < WINDOW {
                break;
            }
        }
        self.at = self.len;
        Ok(None)
    }

    /// Returns true if any byte from here to the end of the file is not zero.
    pub(crate) fn has_bytes_left(&self) -> Result<bool> {
        let mut at = self.at;
        while at < self.len {
            let count = usize::try_from(self.len - at)
                .unwrap_or(1 << 20)
                .min(1 << 20);
            if self.bytes(at, count)?.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at += count as u64;
        }
        Ok(false)
    }

    fn frame_at(&self, at: u64) -> Result<Option<Frame>> {
        if self.len.saturating_sub(at) < FRAME_HEADER as u64 {
            return Ok(None);
        }
        let Some(header) = FrameHeader::decode(&self.bytes(at, FRAME_HEADER)?) else {
            return Ok(None);
        };
        let start = at + FRAME_HEADER as u64;
        let is_ours = self.salt.is_none_or(|salt| salt == header.salt);
        if !is_ours || self.len - start < u64::from(header.len) {
            return Ok(None);
        }
        let body = self.bytes(start, header.len as usize)?;
        let frame = Frame {
            header,
            offset: at,
            body,
        };
        Ok(header.covers(&frame.body).then_some(frame))
    }

    fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        disk::read_exact_at(&self.file, &mut bytes, at)
            .map_err(|error| Error::io("log.read", &self.path, error))?;
        Ok(bytes)
    }
}
