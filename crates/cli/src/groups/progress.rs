//! Progress of what is received: a line for each peer that gives something and for each long file, below one
//! for all.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar};
use larder::{
    Hash,
    api::{PublicKey, RecordId},
    groups::Request,
};

use super::shown::short;
use crate::output::{Output, Shown, Unit};

/// The most lines at a time; what has none is in the line for all.
const MAX_LINES: usize = 16;
/// How much of a name is shown, in characters.
const MAX_NAME: usize = 30;
/// How long a line stays after the last request of what it is about: the next one comes at once, mostly.
const STAYS: Duration = Duration::from_secs(2);

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// What a peer gives.
    Peer(PublicKey),
    /// A long file of a repo.
    File(PublicKey, String),
}

/// A request, as far as its progress is concerned.
#[derive(Debug, Clone)]
struct Part {
    /// What tells it from others.
    id: (RecordId, Hash, PublicKey, tokio::time::Instant),
    /// All that it is part of.
    subjects: Vec<Subject>,
    /// What of it came.
    bytes: u64,
}

/// The file that a request is for, where it is a long one, and its length.
fn file(request: &Request) -> Option<(Subject, u64)> {
    let (path, len) = request.file.as_ref()?;
    Some((Subject::File(request.repo, path.clone()), *len))
}

impl From<&Request> for Part {
    fn from(request: &Request) -> Self {
        let peer = Subject::Peer(request.peer);
        let file = file(request).map(|(file, _)| file);
        Self {
            id: (request.group, request.page, request.peer, request.since),
            subjects: [Some(peer), file].into_iter().flatten().collect(),
            bytes: request.bytes,
        }
    }
}

/// How much came of each subject by now. A request counts as far as it was seen; what came in requests that
/// began and ended between two looks is shared out among the peers of those that are seen.
#[derive(Debug, Default)]
struct Tally {
    seen: BTreeMap<(RecordId, Hash, PublicKey, tokio::time::Instant), u64>,
    received: u64,
    bytes: BTreeMap<Subject, u64>,
}

impl Tally {
    /// Takes note of what runs, and of all that was received by now. Gives what is under way.
    fn look(&mut self, parts: &[Part], received: u64) -> Vec<Subject> {
        let mut seen = BTreeMap::new();
        let mut counted = 0;
        for part in parts {
            let before = self.seen.get(&part.id).copied().unwrap_or(0);
            let new = part.bytes.saturating_sub(before);
            counted += new;
            seen.insert(part.id, part.bytes);
            for subject in &part.subjects {
                *self.bytes.entry(subject.clone()).or_default() += new;
            }
        }
        self.seen = seen;
        let more = received.saturating_sub(self.received);
        self.received = received;
        let unseen = more.saturating_sub(counted);
        let share = unseen / (parts.len() as u64).max(1);
        let mut subjects = Vec::new();
        for subject in parts.iter().flat_map(|part| &part.subjects) {
            if let Subject::Peer(_) = subject {
                *self.bytes.entry(subject.clone()).or_default() += share;
            }
            subjects.push(subject.clone());
        }
        subjects.sort();
        subjects.dedup();
        subjects
    }

    /// What came of a subject.
    fn of(&self, subject: &Subject) -> u64 {
        self.bytes.get(subject).copied().unwrap_or(0)
    }

    /// Forgets all others.
    fn keep_only(&mut self, is_kept: impl Fn(&Subject) -> bool) {
        self.bytes.retain(|subject, _| is_kept(subject));
    }
}

#[derive(Debug)]
struct Line {
    bar: ProgressBar,
    /// When it was under way last.
    last: Instant,
}

/// The lines on the terminal. They are removed when it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    out: Output,
    all: MultiProgress,
    total: ProgressBar,
    lines: BTreeMap<Subject, Line>,
    tally: Tally,
}

impl Progress {
    pub(super) fn new(out: Output) -> Self {
        let all = out.bars();
        let total = out.bar_of(&all, Unit::Bytes, None);
        total.set_message("received");
        Self {
            out,
            all,
            total,
            lines: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// Shows what runs, and what was received by now. `names` says what peers are called.
    pub(super) fn show(
        &mut self,
        requests: &[Request],
        received: u64,
        names: &BTreeMap<PublicKey, String>,
    ) {
        let parts: Vec<Part> = requests.iter().map(Part::from).collect();
        let lengths: BTreeMap<_, _> = requests.iter().filter_map(file).collect();
        let now = Instant::now();
        for subject in self.tally.look(&parts, received) {
            if !self.lines.contains_key(&subject) && self.lines.len() < MAX_LINES {
                let length = lengths.get(&subject).copied();
                let bar = self.out.bar_of(&self.all, Unit::Bytes, length);
                bar.set_message(label(&subject, names));
                // What came by now came before, and not in no time.
                bar.set_position(self.tally.of(&subject));
                bar.reset_eta();
                self.lines.insert(subject.clone(), Line { bar, last: now });
            }
            if let Some(line) = self.lines.get_mut(&subject) {
                line.last = now;
            }
        }
        self.lines.retain(|subject, line| {
            let stays = now.duration_since(line.last) < STAYS;
            if stays {
                line.bar.set_position(self.tally.of(subject));
            } else {
                line.bar.finish_and_clear();
                self.all.remove(&line.bar);
            }
            stays
        });
        let lines = &self.lines;
        self.tally.keep_only(|subject| lines.contains_key(subject));
        self.total.set_position(received);
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

/// What a line says before its numbers.
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

    fn part(peer: u8, page: u8, since: tokio::time::Instant, bytes: u64) -> Part {
        let peer = PublicKey([peer; 32]);
        Part {
            id: (RecordId([0; 32]), Hash::from([page; 32]), peer, since),
            subjects: vec![Subject::Peer(peer)],
            bytes,
        }
    }

    fn bytes(tally: &Tally, peer: u8) -> u64 {
        tally.of(&Subject::Peer(PublicKey([peer; 32])))
    }

    #[test]
    fn what_a_peer_gave_stays_counted_when_its_request_ends() {
        let (mut tally, now) = (Tally::default(), tokio::time::Instant::now());
        let under_way = tally.look(&[part(1, 1, now, 100), part(2, 1, now, 10)], 110);
        assert_eq!(under_way.len(), 2);
        assert_eq!((bytes(&tally, 1), bytes(&tally, 2)), (100, 10));
        // One goes on, the other one's ended and a new one began; nothing is counted twice.
        let later = now + Duration::from_secs(1);
        tally.look(&[part(1, 1, now, 150), part(2, 1, later, 5)], 165);
        assert_eq!((bytes(&tally, 1), bytes(&tally, 2)), (150, 15));
        assert!(tally.look(&[], 165).is_empty());
        assert_eq!((bytes(&tally, 1), bytes(&tally, 2)), (150, 15));
    }

    #[test]
    fn a_file_counts_what_all_peers_give_of_it_and_nothing_else() {
        let (mut tally, now) = (Tally::default(), tokio::time::Instant::now());
        let file = Subject::File(PublicKey([9; 32]), "a long one".to_owned());
        let mut parts = [
            part(1, 1, now, 10),
            part(2, 1, now, 20),
            part(2, 2, now, 40),
        ];
        parts[0].subjects.push(file.clone());
        parts[1].subjects.push(file.clone());
        let under_way = tally.look(&parts, 370);
        assert_eq!(under_way.len(), 3);
        assert_eq!(tally.of(&file), 30);
        assert_eq!((bytes(&tally, 1), bytes(&tally, 2)), (110, 260));
    }

    #[test]
    fn what_came_unseen_is_shared_out() {
        let (mut tally, now) = (Tally::default(), tokio::time::Instant::now());
        let parts = [part(1, 1, now, 0), part(1, 2, now, 0), part(2, 1, now, 30)];
        tally.look(&parts, 3_030);
        assert_eq!((bytes(&tally, 1), bytes(&tally, 2)), (2_000, 1_030));
        // A number that goes back, as of another replicator, breaks nothing.
        tally.look(&parts, 0);
        assert_eq!((bytes(&tally, 1), bytes(&tally, 2)), (2_000, 1_030));
        tally.keep_only(|subject| *subject == Subject::Peer(PublicKey([2; 32])));
        assert_eq!((bytes(&tally, 1), bytes(&tally, 2)), (0, 1_030));
    }
}
