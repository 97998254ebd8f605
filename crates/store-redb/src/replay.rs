//! Opening: what the log has and the index lacks goes back into the overlay; a torn end is cut off;
//! damage is told from it and reported.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use larder_store_api::{Error, Kind, Result};

use crate::{
    append::Appender,
    core::Core,
    disk,
    folder::Access,
    frame,
    item::{Applied, Item, item_value},
    log::{Counters, Frame, Frames, Log, Position, SEGMENT_HEADER, SegmentHeader},
    overlay::Freeze,
};

/// The time to wait for the index before looking again.
const INDEX_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn damaged(core: &Core, at: Position) -> Error {
    let message = "the log is damaged; run a repair, which keeps all that can still be read";
    Error::new(Kind::Corrupt, "log.open", message)
        .with("path", core.log.path(at.segment).display())
        .with("offset", at.offset)
}

/// The end of the log: the last segment's header, the place where its last frame ends, and the counters there.
/// `None` if the log has no segment.
pub(crate) type End = Option<(SegmentHeader, u64, Counters)>;

/// Returns what appends to a log that ends there.
pub(crate) fn append_at(log: Arc<Log>, end: End) -> Result<Appender> {
    match end {
        Some((header, end, counters)) => Appender::resume(log, header, end, counters),
        None => Appender::create(log, 1, Counters::default()),
    }
}

/// Replays the log into the overlay, and returns where it ends.
pub(crate) fn replay(core: &Arc<Core>, access: Access) -> Result<End> {
    drop_unfinished_segment(core, access)?;
    let applied = core.applying().applied;
    let segments = core.log.segments();
    let end = segments.last_key_value().map(|(segment, offset)| Position {
        segment: *segment,
        offset: *offset,
    });
    if access == Access::Write && applied.map(|applied| applied.position) != end {
        sync_last(core)?;
    }
    let (first, last) = match (
        applied,
        segments.first_key_value(),
        segments.last_key_value(),
    ) {
        (Some(applied), ..) if !segments.contains_key(&applied.position.segment) => {
            return Err(damaged(core, applied.position));
        }
        (Some(applied), _, Some((last, _))) => (applied.position.segment, *last),
        (None, Some((first, _)), Some((last, _))) => (*first, *last),
        _ => return Ok(None),
    };
    // The segment before: its header, where it ended, and how far it had counted.
    let mut before: Option<(SegmentHeader, Position, Counters)> = None;
    for segment in segments.into_keys().filter(|segment| *segment >= first) {
        let start = Position {
            segment,
            offset: SEGMENT_HEADER as u64,
        };
        let header = core
            .log
            .header(segment)?
            .ok_or_else(|| damaged(core, start))?;
        let (start, counters) = match (before, applied) {
            (None, Some(applied)) => (applied.position, applied.counters()),
            (None, None) => (start, header.before),
            (Some((_, end, counters)), _) => {
                // Only segments that compaction removed, whose numbers are missing, leave a gap.
                let is_next = segment == end.segment + 1;
                if counters.sequence > header.before.sequence
                    || is_next && counters != header.before
                {
                    return Err(damaged(core, end));
                }
                (start, header.before)
            }
        };
        let (end, counters) = replay_segment(core, start, counters, segment == last)?;
        before = Some((header, end, counters));
    }
    Ok(before.map(|(header, end, counters)| (header, end.offset, counters)))
}

/// Removes the last segment where a crash came before its header was durable: no frame was written.
fn drop_unfinished_segment(core: &Core, access: Access) -> Result<()> {
    if let Some((segment, len)) = core.log.segments().pop_last()
        && len <= SEGMENT_HEADER as u64
        && core.log.header(segment)?.is_none()
    {
        match access {
            Access::Write => core.log.remove(segment)?,
            Access::Read => core.log.pass_over(segment),
        }
    }
    Ok(())
}

/// Replays one segment from `at` on, and returns where its last frame ends.
fn replay_segment(
    core: &Core,
    at: Position,
    mut counters: Counters,
    is_last: bool,
) -> Result<(Position, Counters)> {
    let mut frames = core.log.frames(at.segment, at.offset)?;
    if frames.is_beyond_end() {
        return Err(damaged(core, at));
    }
    loop {
        let here = Position {
            segment: at.segment,
            offset: frames.offset(),
        };
        let Some(frame) = frames.next()? else {
            let cut = tail(&mut frames, counters.sequence, is_last)?;
            if cut == Tail::Damaged {
                return Err(damaged(core, here));
            }
            if cut == Tail::Torn {
                let path = core.log.path(here.segment).display().to_string();
                tracing::info!(
                    path,
                    offset = here.offset,
                    "the log's unfinished end is cut off"
                );
            }
            return Ok((here, counters));
        };
        if frame.header.sequence <= counters.sequence {
            return Err(damaged(core, here));
        }
        counters = frame.counters();
        publish(core, at.segment, &frame, frames.offset())?;
    }
}

/// The bytes after the last whole frame of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or zeros.
    Clean,
    /// The remains, after a crash, of frames that were never acknowledged as durable.
    Torn,
    /// The remains of frames that were durable and are not whole any more.
    Damaged,
}

/// Tells what follows after frame `sequence`.
pub(crate) fn tail(frames: &mut Frames, sequence: u64, is_last: bool) -> Result<Tail> {
    if !frames.has_bytes_left()? {
        return Ok(Tail::Clean);
    }
    // A segment is durable before the next one is begun.
    let mut tail = if is_last { Tail::Torn } else { Tail::Damaged };
    while tail == Tail::Torn
        && let Some(later) = frames.seek_next()?
    {
        // If so, the frame that is not whole was durable when this one was written, and is damaged.
        if later.header.synced > sequence {
            tail = Tail::Damaged;
        }
    }
    Ok(tail)
}

/// Makes a frame's records visible, and lets the index catch up where they become many.
fn publish(core: &Core, segment: u32, frame: &Frame, end: u64) -> Result<()> {
    let mut items = Vec::new();
    for (offset, record) in frame::records(&frame.body) {
        let at = Position {
            segment,
            offset: frame.offset,
        };
        let record = record.map_err(|_| damaged(core, at))?;
        let item = Item {
            revision: record.revision,
            at: frame.record_at(segment, offset, record.len()),
            value: item_value(record.value),
        };
        items.push((Bytes::copy_from_slice(record.key), item));
    }
    let end = Applied {
        position: Position {
            segment,
            offset: end,
        },
        sequence: frame.header.sequence,
        revision: frame.header.revision,
    };
    core.overlay.publish(items, end);
    while core.overlay.is_full() {
        match core.overlay.freeze() {
            Freeze::Frozen => core.notify(),
            Freeze::Empty => break,
            Freeze::Busy => {
                let applying = core.applying();
                if let Some(error) = &applying.failed {
                    return Err(error.clone());
                }
                // As much as was in memory when the disk was full goes there again.
                if core.pages.full.load(Ordering::Acquire) {
                    break;
                }
                drop(core.wait(applying, INDEX_PAUSE));
            }
        }
    }
    Ok(())
}

/// Makes the log, as it was found, durable: the index must not know what the log can still lose.
fn sync_last(core: &Core) -> Result<()> {
    if let Some((segment, _)) = core.log.segments().pop_last()
        && let Some(file) = core.log.file(segment)?
    {
        file.sync_data()
            .map_err(|error| Error::io("log.open", &core.log.path(segment), error))?;
    }
    disk::sync_dir("log.open", core.log.dir())
}
