//! Repair: damaged segments are written again with all that can still be read, and the index is
//! made again from the log.
//!
//! A record whose checksum does not hold is lost. Where its key can be told, a record that deletes
//! takes its place, so that no older value comes back in its stead.

use std::{
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use larder_descriptors::{Descriptors, SMALLEST_LIMIT};
use larder_store_api::{CollectionId, Error, Result};

use crate::{
    disk,
    folder::Folder,
    frame::{self, BadRecord, FRAME_HEADER, FrameBuilder, FrameHeader, Record, Stamp},
    key,
    log::{Counters, Frame, Frames, Log, SegmentHeader},
    replay::{Tail, tail},
};

/// The most lost keys that a report names.
const NAMED_KEYS: usize = 1000;
const OPERATION: &str = "store.repair";

/// The outcome of a repair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// The damaged segments as they were found, kept beside the new ones. Remove them when they are
    /// of no more use.
    pub kept: Vec<PathBuf>,
    /// The number of entries, or records of deleted entries, that were lost, if that is known.
    pub lost_records: u64,
    /// Collection and key of the first of them. Each may also have had an older value, which is
    /// gone too.
    pub lost_keys: Vec<(CollectionId, Bytes)>,
    /// The number of bytes of the log that could not be identified.
    pub lost_bytes: u64,
}

/// Repairs the log of the store in `dir`, and removes its index.
pub(crate) fn repair(dir: &Path, descriptors: Arc<Descriptors>) -> Result<Repaired> {
    descriptors.check(OPERATION, SMALLEST_LIMIT)?;
    let folder = Folder::open_existing(dir)?;
    let log = Log::open(&folder.log(), descriptors)?;
    let mut repaired = Repaired::default();
    let mut before: Option<(u32, Counters)> = None;
    let segments: Vec<u32> = log.segments().into_keys().collect();
    for (at, segment) in segments.iter().copied().enumerate() {
        let next = match segments.get(at + 1) {
            Some(next) if *next == segment + 1 => log.header(*next)?.map(|header| header.before),
            _ => None,
        };
        let before_this = before
            .filter(|(number, _)| number + 1 == segment)
            .map(|(_, counters)| counters);
        let place = Place {
            segment,
            before: before_this,
            next,
            is_last: at + 1 == segments.len(),
        };
        let counters = match check(&log, place)? {
            Some(counters) => counters,
            None => rewrite(&log, place, &mut repaired)?,
        };
        before = Some((segment, counters));
    }
    for path in [folder.index(), folder.damaged_index()] {
        disk::remove_file(OPERATION, &path)?;
    }
    Ok(repaired)
}

/// A segment among the others.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u32,
    /// The counters of the segment right before it.
    before: Option<Counters>,
    /// The counters of this segment, as the segment right after it has them.
    next: Option<Counters>,
    is_last: bool,
}

/// Returns the counters at the end of a segment, if it is whole.
fn check(log: &Log, place: Place) -> Result<Option<Counters>> {
    let Some(header) = log.header(place.segment)? else {
        return Ok(None);
    };
    let mut frames = log.frames(place.segment, 0)?;
    let mut counters = header.before;
    while let Some(frame) = frames.next()? {
        if frame.header.sequence <= counters.sequence {
            return Ok(None);
        }
        counters = frame.counters();
    }
    let is_whole = tail(&mut frames, counters.sequence, place.is_last)? != Tail::Damaged
        && place.before.is_none_or(|before| before == header.before)
        && place.next.is_none_or(|next| next == counters);
    Ok(is_whole.then_some(counters))
}

/// Writes a segment again, with all that can be read of it.
fn rewrite(log: &Log, place: Place, repaired: &mut Repaired) -> Result<Counters> {
    let segment = place.segment;
    let path = log.path(segment);
    let new = path.with_extension("repair");
    let mut frames = log.frames(segment, 0)?;
    let stated = log.header(segment)?.map(|header| header.before);
    let header = SegmentHeader {
        number: segment,
        salt: frames
            .salt()
            .unwrap_or_else(|| RandomState::new().hash_one(segment)),
        before: place.before.or(stated).unwrap_or_default(),
    };
    let mut copy = Copy {
        file: disk::create(&new).map_err(|error| Error::io(OPERATION, &new, error))?,
        path: &new,
        at: 0,
        salt: header.salt,
        counters: header.before,
    };
    copy.write(&header.encode())?;
    loop {
        if let Some(frame) = frames.next()? {
            copy.whole_frame(&frame, repaired)?;
        } else if frames.has_bytes_left()? {
            salvage(&mut frames, &mut copy, repaired)?;
        } else {
            break;
        }
    }
    if let Some(next) = place.next
        && next.sequence > copy.counters.sequence
    {
        // The next segment tells how far this one went.
        copy.frame(FrameBuilder::new(Vec::new()), next)?;
    }
    let counters = copy.counters;
    copy.file
        .sync_all()
        .map_err(|error| Error::io(OPERATION, &new, error))?;
    let kept = log.damaged_path(segment);
    disk::keep_as(OPERATION, &path, &kept)?;
    fs::rename(&new, &path).map_err(|error| Error::io(OPERATION, &path, error))?;
    disk::sync_dir(OPERATION, log.dir())?;
    repaired.kept.push(kept);
    Ok(counters)
}

/// Copies what can be read of a frame that is not whole, and goes on at the next one that is.
fn salvage(frames: &mut Frames, copy: &mut Copy<'_>, repaired: &mut Repaired) -> Result<()> {
    let start = frames.offset();
    let bytes = frames.bytes_to(u64::MAX)?;
    let header = FrameHeader::decode(&bytes).filter(|header| header.salt == copy.salt);
    let end = header.map_or(bytes.len(), |header| {
        bytes.len().min(FRAME_HEADER + header.len as usize)
    });
    let mut builder = FrameBuilder::new(Vec::new());
    let mut revision = copy.counters.revision;
    let mut at = FRAME_HEADER.min(end);
    while at < end {
        let rest = &bytes[at..end];
        let is_frame = |at: usize| {
            bytes
                .get(at..)
                .and_then(FrameHeader::decode)
                .is_some_and(|next| next.salt == copy.salt)
        };
        if is_frame(at) {
            break;
        }
        at += match Record::decode(rest) {
            Ok((record, len)) => {
                revision = revision.max(record.revision);
                builder.push(record);
                len
            }
            // The length is believed where something whole follows.
            Err(BadRecord::Checksum { len })
                if at + len == end
                    || is_frame(at + len)
                    || Record::decode(&rest[len..]).is_ok() =>
            {
                lose(rest, &mut builder, repaired);
                len
            }
            Err(_) => break,
        };
    }
    frames.seek(start + at as u64);
    let next = frames.seek_next()?;
    let next_offset = next
        .as_ref()
        .map_or(start + bytes.len() as u64, |frame| frame.offset);
    repaired.lost_bytes += next_offset - (start + at as u64);
    frames.seek(next_offset);
    let sequence = copy.counters.sequence + 1;
    let counters = Counters { sequence, revision };
    match next {
        // There is no number for another frame in between.
        Some(next) if next.header.sequence <= sequence => {
            repaired.lost_bytes += at as u64;
            Ok(())
        }
        _ => copy.frame(builder, counters),
    }
}

/// Notes that the record at the start of `bytes` is lost.
fn lose(bytes: &[u8], builder: &mut FrameBuilder, repaired: &mut Repaired) {
    repaired.lost_records += 1;
    let Some((revision, composite)) = Record::claims(bytes) else {
        return;
    };
    let composite = Bytes::copy_from_slice(composite);
    let Some((collection, key)) = key::decode(&composite) else {
        return;
    };
    builder.push(Record {
        revision,
        key: &composite,
        value: None,
    });
    if repaired.lost_keys.len() < NAMED_KEYS {
        repaired.lost_keys.push((collection, key));
    }
}

/// The segment being written.
struct Copy<'a> {
    file: File,
    path: &'a Path,
    at: u64,
    salt: u64,
    counters: Counters,
}

impl Copy<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        disk::write_all_at(&self.file, bytes, self.at)
            .map_err(|error| Error::io(OPERATION, self.path, error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Copies a frame; its records are checked once more.
    fn whole_frame(&mut self, frame: &Frame, repaired: &mut Repaired) -> Result<()> {
        if frame.header.sequence <= self.counters.sequence {
            repaired.lost_bytes += (FRAME_HEADER + frame.body.len()) as u64;
            return Ok(());
        }
        let mut builder = FrameBuilder::new(Vec::new());
        for (at, record) in frame::records(&frame.body) {
            match record {
                Ok(record) => drop(builder.push(record)),
                Err(_) => lose(&frame.body[at..], &mut builder, repaired),
            }
        }
        self.frame(builder, frame.counters())
    }

    fn frame(&mut self, mut builder: FrameBuilder, counters: Counters) -> Result<()> {
        let stamp = Stamp {
            sequence: counters.sequence,
            // Everything before it is synced with it, before the segment takes its place.
            synced: self.counters.sequence,
            revision: counters.revision,
            salt: self.salt,
        };
        self.write(builder.finish(stamp))?;
        self.counters = counters;
        Ok(())
    }
}
