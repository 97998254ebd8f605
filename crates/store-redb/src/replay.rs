//! Opening: what the log has and the index lacks goes back into the overlay; a torn end is cut off;
//! damage is told from it and reported.

use std::sync::Arc;

use bytes::Bytes;
use store_api::{Error, Kind, Result};

use crate::{
    append::Appender,
    core::Core,
    disk, frame,
    log::{Counters, Frame, Frames, Position, SEGMENT_HEADER},
    overlay::{Applied, Freeze, Item},
    write::item_value,
};

/// How long to wait for the index before looking again.
const INDEX_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn damaged(core: &Core, at: Position) -> Error {
    let message = "the log is damaged; run a repair, which keeps all that can still be read";
    Error::new(Kind::Corrupt, "log.open", message)
        .with("path", core.log.path(at.segment).display())
        .with("offset", at.offset)
}

/// Replays the log into the overlay, and returns what appends to it.
pub(crate) fn replay(core: &Arc<Core>) -> Result<Appender> {
    drop_unfinished_segment(core)?;
    let applied = core.applying().applied;
    let segments: Vec<u32> = core.log.segments().into_keys().collect();
    let (Some(&first), Some(&last)) = (segments.first(), segments.last()) else {
        return match applied {
            None => Appender::create(
                Arc::clone(&core.log),
                1,
                Counters {
                    sequence: 0,
                    revision: 0,
                },
            ),
            Some(applied) => Err(damaged(core, applied.position)),
        };
    };
    let start = match applied {
        Some(applied) => applied.position,
        None => Position {
            segment: first,
            offset: SEGMENT_HEADER as u64,
        },
    };
    if !segments.contains(&start.segment) {
        return Err(damaged(core, start));
    }
    let mut counters = applied.map(|applied| Counters {
        sequence: applied.sequence,
        revision: applied.revision,
    });
    sync_last(core)?;
    let mut end = start;
    for segment in segments
        .into_iter()
        .filter(|segment| *segment >= start.segment)
    {
        let at = Position {
            segment,
            offset: if segment == start.segment {
                start.offset
            } else {
                SEGMENT_HEADER as u64
            },
        };
        let header = core.log.header(segment)?.ok_or_else(|| damaged(core, at))?;
        let mut known = match counters {
            None => header,
            Some(known) if segment == start.segment => known,
            Some(known) => {
                // Only segments that compaction removed, whose numbers are missing, leave a gap.
                let gap = segment != end.segment + 1;
                if known.sequence > header.sequence || !gap && known != header {
                    return Err(damaged(core, at));
                }
                header
            }
        };
        end = replay_segment(core, at, &mut known, segment == last)?;
        counters = Some(known);
    }
    let counters = counters.ok_or_else(|| damaged(core, end))?;
    Appender::resume(Arc::clone(&core.log), end, counters)
}

/// Removes the last segment where a crash came before its header was durable: no frame was written.
fn drop_unfinished_segment(core: &Core) -> Result<()> {
    let Some((segment, _)) = core.log.segments().pop_last() else {
        return Ok(());
    };
    if core.log.header(segment)?.is_none() {
        let mut frames = core.log.frames(segment, 0)?;
        if frames.seek_next()?.is_some() {
            return Err(damaged(core, Position { segment, offset: 0 }));
        }
        core.log.remove(segment)?;
    }
    Ok(())
}

/// Replays one segment from `at` on, and returns where its last frame ends.
fn replay_segment(
    core: &Core,
    at: Position,
    counters: &mut Counters,
    is_last: bool,
) -> Result<Position> {
    let mut frames = core.log.frames(at.segment, at.offset)?;
    if frames.is_beyond_end() {
        return Err(damaged(core, at));
    }
    loop {
        let here = Position {
            segment: at.segment,
            offset: frames.offset(),
        };
        match frames.next()? {
            Some(frame) if frame.header.sequence == counters.sequence + 1 => {
                *counters = Counters {
                    sequence: frame.header.sequence,
                    revision: frame.header.revision,
                };
                publish(core, at.segment, &frame, frames.offset())?;
            }
            Some(_) => return Err(damaged(core, here)),
            None => {
                check_tail(core, &mut frames, here, counters.sequence, is_last)?;
                return Ok(here);
            }
        }
    }
}

/// Whether what follows the last whole frame can be what a crash left: then it was never
/// acknowledged as durable, and may go.
fn check_tail(
    core: &Core,
    frames: &mut Frames,
    here: Position,
    sequence: u64,
    is_last: bool,
) -> Result<()> {
    if !frames.has_bytes_left()? {
        return Ok(());
    }
    if !is_last {
        // A segment is durable before the next one is begun.
        return Err(damaged(core, here));
    }
    frames.skip_torn()?;
    while let Some(later) = frames.seek_next()? {
        if later.header.synced > sequence && later.header.sequence > sequence {
            // The frame that cannot be read was durable when this one was written.
            return Err(damaged(core, here));
        }
    }
    tracing::info!(
        path = %core.log.path(here.segment).display(),
        offset = here.offset,
        "the log's unfinished end is cut off"
    );
    Ok(())
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
