//! The thread that brings the index up to date with the log.

use std::time::Duration;

use tokio::sync::mpsc::WeakSender;

use crate::{
    core::{Core, Stop},
    index::Index,
    request::Request,
};

/// The time without commits after which a small generation goes to the index too.
const IDLE: Duration = Duration::from_millis(250);

/// Applies generations until it is told to stop.
pub(crate) fn run(core: &Core, index: Index) {
    let mut last_seen = 0;
    loop {
        let generation = {
            let guard = core.applying();
            match core.overlay.frozen() {
                Some(generation) => Some(generation),
                None if guard.stop != Stop::Not => {
                    let stop = guard.stop;
                    drop(guard);
                    if stop == Stop::Closed {
                        close(core, index);
                    }
                    return;
                }
                None => {
                    drop(core.wait(guard, IDLE));
                    core.overlay.frozen()
                }
            }
        };
        let Some(generation) = generation else {
            let waiting = core.overlay.waiting();
            if waiting > 0 && waiting == last_seen {
                tell(core, Request::Idle);
            }
            last_seen = waiting;
            continue;
        };
        if !apply(core, &index, &generation) {
            return;
        }
        drop(generation);
        core.notify();
        tell(core, Request::Nudge);
    }
}

/// Tells the writer, if there is one; where its queue is full, it looks for work anyway.
fn tell(core: &Core, request: Request) {
    if let Some(sender) = core.writer.get().and_then(WeakSender::upgrade) {
        drop(sender.try_send(request));
    }
}

/// Has the writer look for work.
pub(crate) fn nudge(writer: &WeakSender<Request>) {
    if let Some(sender) = writer.upgrade() {
        drop(sender.try_send(Request::Nudge));
    }
}

/// Leaves the index small; who still reads it keeps it as it is.
fn close(core: &Core, index: Index) {
    core.overlay.forget_index();
    if let Err(error) = index.compact() {
        tracing::info!(?error, "the index was not compacted");
    }
}

fn apply(core: &Core, index: &Index, generation: &crate::item::Generation) -> bool {
    let mut accounts = core.applying().accounts.clone();
    let segments = core.log.segments();
    let result = index
        .apply(generation, &mut accounts, |segment| {
            segments.contains_key(&segment)
        })
        .and_then(|()| index.snapshot());
    match result {
        Ok(snapshot) => {
            core.overlay.applied(snapshot);
            let mut applying = core.applying();
            applying.applied = generation.end();
            applying.accounts = accounts;
            true
        }
        Err(error) => {
            tracing::error!(?error, path = %index.path().display(), "the index cannot be written");
            core.applying().failed = Some(error);
            core.notify();
            false
        }
    }
}
