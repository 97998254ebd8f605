//! Finds patterns in everything that crosses the network, without storing it.

use larder_store_api::{Error, Kind, PublicKey, Result};

/// The shortest pattern that can be searched for, in bytes.
pub const MIN_PATTERN_LEN: usize = 4;

/// The longest pattern, in bytes.
pub const MAX_PATTERN_LEN: usize = 1024;

/// The most patterns.
pub const MAX_PATTERNS: usize = 4096;

/// The most findings that are kept, starting with the first.
pub const MAX_FINDINGS: usize = 256;

/// The position at which a pattern crossed the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The index of the pattern, counted from 0.
    pub pattern: usize,
    /// The key of the sender.
    pub from: PublicKey,
    /// The key of the receiver.
    pub to: PublicKey,
    /// The number of the connection.
    pub connection: u64,
    /// The number of the stream within the connection; `None` for the reason of a close.
    pub stream: Option<u64>,
    /// The offset of the pattern in the bytes that were sent.
    pub offset: u64,
}

/// Patterns, prepared for skipping: the last two bytes of a window as long as the shortest pattern tell
/// how far ahead the next possible match is.
#[derive(Debug)]
pub(super) struct Search {
    /// Each pattern with its number and the two bytes that end its first window, sorted.
    patterns: Vec<(u16, usize, Vec<u8>)>,
    shift: Vec<u16>,
    shortest: usize,
    longest: usize,
    pub(super) findings: Vec<Finding>,
}

/// The end of the bytes sent in one direction of a stream, where a pattern may begin.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

fn pair(a: u8, b: u8) -> u16 {
    u16::from_be_bytes([a, b])
}

impl Search {
    pub(super) fn new(patterns: &[impl AsRef<[u8]>]) -> Result<Self> {
        let lens = patterns.iter().map(|p| p.as_ref().len());
        let shortest = lens.clone().min().unwrap_or(0);
        let longest = lens.max().unwrap_or(0);
        let wrong = |message: String| Err(Error::new(Kind::Invalid, "network.search", message));
        if patterns.is_empty() || patterns.len() > MAX_PATTERNS {
            return wrong(format!("there are 1 to {MAX_PATTERNS} patterns"));
        }
        if shortest < MIN_PATTERN_LEN || longest > MAX_PATTERN_LEN {
            let limits = format!("{MIN_PATTERN_LEN} to {MAX_PATTERN_LEN}");
            return wrong(format!("a pattern has {limits} bytes"));
        }
        let small = |n: usize| u16::try_from(n).expect("a pattern is short");
        let mut shift = vec![small(shortest - 1); 1 << 16];
        let mut sorted = Vec::with_capacity(patterns.len());
        for (number, pattern) in patterns.iter().enumerate() {
            let pattern = pattern.as_ref();
            for end in 1..shortest {
                let shift = &mut shift[usize::from(pair(pattern[end - 1], pattern[end]))];
                *shift = (*shift).min(small(shortest - 1 - end));
            }
            let last = pair(pattern[shortest - 2], pattern[shortest - 1]);
            sorted.push((last, number, pattern.to_vec()));
        }
        sorted.sort();
        Ok(Self {
            patterns: sorted,
            shift,
            shortest,
            longest,
            findings: Vec::new(),
        })
    }

    /// Searches the next bytes of a stream. `found` gets the number of a pattern, and its start
    /// relative to the first of `bytes`, which may be negative.
    pub(super) fn next(&self, tail: &mut Tail, bytes: &[u8], mut found: impl FnMut(usize, i64)) {
        let (keep, known) = (self.longest - 1, tail.0.len());
        tail.0.extend_from_slice(&bytes[..bytes.len().min(keep)]);
        self.scan(&tail.0, |number, start, end| {
            if start < known && end > known {
                found(number, start as i64 - known as i64);
            }
        });
        self.scan(bytes, |number, start, _| found(number, start as i64));
        if bytes.len() > keep {
            tail.0.clear();
            tail.0.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            tail.0.drain(..tail.0.len().saturating_sub(keep));
        }
    }

    fn scan(&self, bytes: &[u8], mut found: impl FnMut(usize, usize, usize)) {
        let mut end = self.shortest;
        while end <= bytes.len() {
            let last = pair(bytes[end - 2], bytes[end - 1]);
            let shift = self.shift[usize::from(last)];
            if shift > 0 {
                end += usize::from(shift);
                continue;
            }
            let start = end - self.shortest;
            let first = self.patterns.partition_point(|(other, ..)| *other < last);
            let same = self.patterns[first..].iter();
            for (_, number, pattern) in same.take_while(|(other, ..)| *other == last) {
                if bytes[start..].starts_with(pattern) {
                    found(*number, start, start + pattern.len());
                }
            }
            end += 1;
        }
    }
}
