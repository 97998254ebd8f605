//! Progress of what is received and sent: a line for each peer that gives something and for each long file,
//! below one for all.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar};
use larder::{api::PublicKey, groups::Replicator};

use super::shown::short;
use crate::output::{Bytes, Output, Rate, Shown, Unit};

/// The most lines at a time; what has none is in the line for all.
const MAX_LINES: usize = 16;
/// The time for which a line stays after the last request that it is about: the next one comes at
/// once, mostly.
const STAYS: Duration = Duration::from_secs(2);
/// The number of characters of a name or a path that are shown.
const MAX_NAME: usize = 30;
/// The time over which a speed is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// The subject of a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// The blobs that a peer sends.
    Peer(PublicKey),
    /// A long file of a repo.
    File(PublicKey, String),
}

/// The amount that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Came {
    bytes: u64,
    /// The total, if it is known.
    of: Option<u64>,
}

#[derive(Debug)]
struct Line {
    bar: ProgressBar,
    /// The time at which it was under way last.
    last: Instant,
}

/// The lines on the terminal. They are removed when it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    out: Output,
    all: MultiProgress,
    total: ProgressBar,
    speed: Speed,
    lines: BTreeMap<Subject, Line>,
}

/// The numbers of bytes that were received and sent, and the speeds.
#[derive(Debug)]
struct Speed {
    at: Instant,
    /// The bytes received and sent by then.
    moved: [u64; 2],
    /// The bytes of the time before, and that time.
    last: ([u64; 2], Duration),
}

impl Speed {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            moved: [0; 2],
            last: ([0; 2], MEASURED),
        }
    }

    /// Takes the numbers of now, and returns a text.
    fn text(&mut self, moved: [u64; 2], peers: usize) -> String {
        let passed = self.at.elapsed();
        if passed >= MEASURED {
            let more = [0, 1].map(|n| moved[n].saturating_sub(self.moved[n]));
            self.last = (more, passed);
            (self.at, self.moved) = (Instant::now(), moved);
        }
        let (more, time) = self.last;
        let part = |n: usize| format!("{}, {}", Bytes(moved[n]), Rate(more[n], time));
        format!("received {}; sent {}; {peers} peer(s)", part(0), part(1))
    }
}

impl Progress {
    pub(super) fn new(out: Output) -> Self {
        let all = out.bars();
        let total = out.line_of(&all);
        Self {
            out,
            all,
            total,
            speed: Speed::new(),
            lines: BTreeMap::new(),
        }
    }

    /// Shows what runs, and what was received by now. `names` says what peers are called.
    pub(super) fn show(&mut self, replicator: &Replicator, names: &BTreeMap<PublicKey, String>) {
        let now = Instant::now();
        for (subject, came) in under_way(replicator) {
            if !self.lines.contains_key(&subject) {
                if self.lines.len() >= MAX_LINES {
                    continue;
                }
                let bar = self.out.bar_of(&self.all, Unit::Bytes, came.of);
                bar.set_message(label(&subject, names));
                // The bytes so far came earlier, so they must not count for the speed.
                bar.set_position(came.bytes);
                bar.reset_eta();
                self.lines.insert(subject.clone(), Line { bar, last: now });
            }
            if let Some(line) = self.lines.get_mut(&subject) {
                line.bar.set_position(came.bytes);
                line.last = now;
            }
        }
        self.lines.retain(|_, line| {
            let stays = now.duration_since(line.last) < STAYS;
            if !stays {
                line.bar.finish_and_clear();
                self.all.remove(&line.bar);
            }
            stays
        });
        let moved = [replicator.received(), replicator.sent()];
        self.total.set_message(self.speed.text(moved, names.len()));
    }

    /// Prints something while no line is in the way.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.all.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        for line in self.lines.values() {
            line.bar.finish_and_clear();
        }
        self.total.finish_and_clear();
    }
}

/// Returns the subjects of the running requests.
fn under_way(replicator: &Replicator) -> BTreeMap<Subject, Came> {
    let from = replicator.received_from();
    let mut all = BTreeMap::new();
    for request in replicator.requests() {
        let bytes = from.get(&request.peer).copied().unwrap_or(0);
        all.insert(Subject::Peer(request.peer), Came { bytes, of: None });
        if let Some(file) = request.file {
            let came = Came {
                bytes: file.here,
                of: Some(file.len),
            };
            all.insert(Subject::File(request.repo, file.path), came);
        }
    }
    all
}

/// Returns the text of a line before its numbers.
fn label(subject: &Subject, names: &BTreeMap<PublicKey, String>) -> String {
    match subject {
        Subject::Peer(peer) => {
            let name = names.get(peer).cloned().unwrap_or_else(|| short(peer));
            let name: String = name.chars().take(MAX_NAME).collect();
            format!("  from {}", Shown(&name))
        }
        // Its end tells a path from others.
        Subject::File(_, path) => {
            let skipped = path.chars().count().saturating_sub(MAX_NAME);
            let end: String = path.chars().skip(skipped).collect();
            format!("  {}", Shown(&end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_sees_what_is_sent_within_80_columns() {
        let mut speed = Speed::new();
        speed.at -= MEASURED;
        let text = speed.text([999 << 20, 999 << 30], 20);
        assert!(
            text.starts_with("received 999.0 MiB, ") && text.contains("; sent 999.0 GiB, "),
            "{text}"
        );
        assert!(text.len() <= 80, "{text}");
    }

    #[test]
    fn lines_say_what_they_are_about() {
        let peer = PublicKey([9; 32]);
        let names = BTreeMap::from([(peer, "ann\u{1b}[2J".to_owned())]);
        let said = label(&Subject::Peer(peer), &names);
        assert!(
            said.starts_with("  from ") && said.contains("ann"),
            "{said}"
        );
        assert!(!said.contains('\u{1b}'), "{said}");
        let unknown = label(&Subject::Peer(PublicKey([1; 32])), &names);
        assert_eq!(unknown, "  from 0101010101");
        let path = format!("{}/end", "ü".repeat(100));
        let said = label(&Subject::File(peer, path), &names);
        assert!(
            said.ends_with("ü/end") && said.chars().count() == 2 + 30,
            "{said}"
        );
    }
}
