//! The ordered trace of a simulation, to find the reason of a failure, and to tell whether two runs
//! were the same.

use std::{
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// The number of latest lines that are kept.
pub const TRACE_LEN: usize = 4096;

/// The number of a node, a connection and a stream, and the direction: 0 is from the side that opened
/// the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PipeId {
    pub(super) connection: u64,
    pub(super) stream: u64,
    pub(super) direction: usize,
}

impl fmt::Display for PipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.direction == 0 { "out" } else { "back" };
        write!(f, "c{} s{} {way}", self.connection, self.stream)
    }
}

#[derive(Debug, Clone, Hash)]
pub(super) enum Happening {
    Started {
        node: usize,
        address: u64,
    },
    Moved {
        node: usize,
        address: u64,
    },
    Down {
        node: usize,
        how: &'static str,
    },
    Dialed {
        from: usize,
        address: u64,
    },
    DialFailed {
        from: usize,
        address: u64,
        why: &'static str,
    },
    Connected {
        connection: u64,
        from: usize,
        to: usize,
    },
    Opened {
        connection: u64,
        stream: u64,
        side: usize,
    },
    Sent {
        pipe: PipeId,
        len: usize,
    },
    Tampered {
        pipe: PipeId,
        len: usize,
    },
    Arrived {
        pipe: PipeId,
        len: usize,
    },
    Ended {
        pipe: PipeId,
        how: &'static str,
    },
    SideEnded {
        connection: u64,
        side: usize,
        why: String,
    },
    Changed {
        what: String,
    },
    Note {
        text: String,
    },
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { node, address } => write!(f, "n{node} starts at sim:{address}"),
            Self::Moved { node, address } => write!(f, "n{node} moves to sim:{address}"),
            Self::Down { node, how } => write!(f, "n{node} {how}"),
            Self::Dialed { from, address } => write!(f, "n{from} calls sim:{address}"),
            Self::DialFailed { from, address, why } => {
                write!(f, "n{from} cannot reach sim:{address}: {why}")
            }
            Self::Connected {
                connection,
                from,
                to,
            } => {
                write!(f, "c{connection}: n{from} is connected to n{to}")
            }
            Self::Opened {
                connection,
                stream,
                side,
            } => {
                write!(f, "c{connection} s{stream}: side {side} opens")
            }
            Self::Sent { pipe, len } => write!(f, "{pipe}: {len} bytes leave"),
            Self::Tampered { pipe, len } => write!(f, "{pipe}: tampered with, now {len} bytes"),
            Self::Arrived { pipe, len } => write!(f, "{pipe}: {len} bytes arrive"),
            Self::Ended { pipe, how } => write!(f, "{pipe}: {how}"),
            Self::SideEnded {
                connection,
                side,
                why,
            } => {
                write!(f, "c{connection}: ended for side {side}: {why}")
            }
            Self::Changed { what } => f.write_str(what),
            Self::Note { text } => write!(f, "-- {text}"),
        }
    }
}

/// The latest lines, and a hash of all of them.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: VecDeque<(Duration, Happening)>,
    hasher: DefaultHasher,
}

impl Trace {
    pub(super) fn add(&mut self, time: Duration, happening: Happening) {
        time.hash(&mut self.hasher);
        happening.hash(&mut self.hasher);
        if self.lines.len() == TRACE_LEN {
            self.lines.pop_front();
        }
        self.lines.push_back((time, happening));
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let line =
            |(time, what): &(Duration, Happening)| format!("{:12.6} {what}", time.as_secs_f64());
        self.lines.iter().map(line).collect()
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.hasher.finish()
    }
}
