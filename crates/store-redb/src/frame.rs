//! The log's bytes: frames of records. Reading is total: any bytes give an answer, never a panic.
//!
//! All integers are little endian.
//!
//! A **frame** is one group of commits:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `L F 0 1` |
//! | 4 | length of the body |
//! | 8 | sequence number of the frame: one more than that of the frame before it |
//! | 8 | the last sequence number that was known to be durable when the frame was written |
//! | 8 | the last revision that was given when the frame was written |
//! | 8 | the salt of the segment: a random number, by which a frame is told from bytes in a value |
//! | 8 | XXH3 of the body |
//! | 8 | XXH3 of the 48 bytes before |
//! | … | the body: records, one after the other |
//!
//! A **record** is one edit:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | XXH3 of the rest of the record |
//! | 8 | revision |
//! | 2 | length of the key |
//! | 1 | kind: 1 put, 2 delete |
//! | 1 | zero |
//! | 4 | length of the value; zero for a delete |
//! | … | the composite key |
//! | … | the value |

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// The length of a frame's header.
pub(crate) const FRAME_HEADER: usize = 56;
/// The length of a record's header.
pub(crate) const RECORD_HEADER: usize = 24;
/// The magic bytes with which a frame begins.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"LF01";

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// The little-endian integers of a header; the callers have checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// The length of the body in bytes.
    pub(crate) len: u32,
    /// Counts frames.
    pub(crate) sequence: u64,
    /// The last frame that was known to be durable when this one was written.
    pub(crate) synced: u64,
    /// The last revision that was given by then.
    pub(crate) revision: u64,
    /// The salt of the segment.
    pub(crate) salt: u64,
    checksum: u64,
}

impl FrameHeader {
    /// The header at the start of `bytes`, or `None` if there is no valid one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER)?;
        if bytes[..4] != FRAME_MAGIC || xxh3_64(&bytes[..48]) != u64_at(bytes, 48) {
            return None;
        }
        Some(Self {
            len: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            synced: u64_at(bytes, 16),
            revision: u64_at(bytes, 24),
            salt: u64_at(bytes, 32),
            checksum: u64_at(bytes, 40),
        })
    }

    /// Returns true if `body` was written after this header.
    pub(crate) fn covers(&self, body: &[u8]) -> bool {
        body.len() as u64 == u64::from(self.len) && xxh3_64(body) == self.checksum
    }
}

/// One edit, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The commit.
    pub(crate) revision: u64,
    /// The composite key.
    pub(crate) key: &'a [u8],
    /// The value, or `None` if the key is deleted.
    pub(crate) value: Option<&'a [u8]>,
}

/// The reason why a record is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadRecord {
    /// Its lengths lead beyond the bytes that are there: what follows cannot be found either.
    Length,
    /// Its checksum does not hold. It would end there.
    Checksum {
        /// The length that it claims.
        len: usize,
    },
}

impl<'a> Record<'a> {
    /// The length of the record's bytes.
    pub(crate) fn len(&self) -> usize {
        RECORD_HEADER + self.key.len() + self.value.map_or(0, <[u8]>::len)
    }

    /// The record at the start of `bytes` and its length.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<(Self, usize), BadRecord> {
        let (key, value, len) = Self::lengths(bytes).ok_or(BadRecord::Length)?;
        if xxh3_64(&bytes[8..len]) != u64_at(bytes, 0) {
            return Err(BadRecord::Checksum { len });
        }
        let value_bytes = &bytes[RECORD_HEADER + key..len];
        let value_bytes = match bytes[18] {
            PUT => Some(value_bytes),
            DELETE if value == 0 => None,
            _ => return Err(BadRecord::Checksum { len }),
        };
        let record = Self {
            revision: u64_at(bytes, 8),
            key: &bytes[RECORD_HEADER..RECORD_HEADER + key],
            value: value_bytes,
        };
        Ok((record, len))
    }

    /// The revision and the key that the record at the start of `bytes` claims, whether or not its
    /// checksum holds.
    pub(crate) fn claims(bytes: &'a [u8]) -> Option<(u64, &'a [u8])> {
        let (key, _, _) = Self::lengths(bytes)?;
        let key = bytes.get(RECORD_HEADER..RECORD_HEADER + key)?;
        Some((u64_at(bytes, 8), key))
    }

    /// The lengths of key, value and record, where the record ends within `bytes`.
    fn lengths(bytes: &[u8]) -> Option<(usize, usize, usize)> {
        if bytes.len() < RECORD_HEADER {
            return None;
        }
        let key = usize::from(u16::from_le_bytes([bytes[16], bytes[17]]));
        let value = usize::try_from(u32_at(bytes, 20)).ok()?;
        let len = RECORD_HEADER.checked_add(key)?.checked_add(value)?;
        (len <= bytes.len()).then_some((key, value, len))
    }
}

/// The records of a frame's body, each with its offset within the body. Ends after the first bad
/// length; a bad checksum is given and passed.
pub(crate) fn records(body: &[u8]) -> impl Iterator<Item = (usize, Result<Record<'_>, BadRecord>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = body.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at;
        let item = match Record::decode(rest) {
            Ok((record, len)) => {
                at += len;
                Ok(record)
            }
            Err(bad) => {
                at = match bad {
                    BadRecord::Checksum { len } => at + len,
                    BadRecord::Length => body.len(),
                };
                Err(bad)
            }
        };
        Some((start, item))
    })
}

/// The value within a stored record's bytes, if the record is whole and of this key and revision.
pub(crate) fn value_of(record: Vec<u8>, key: &[u8], revision: u64) -> Option<Bytes> {
    let (found, len) = Record::decode(&record).ok()?;
    if len != record.len() || found.key != key || found.revision != revision {
        return None;
    }
    let start = len - found.value?.len();
    Some(Bytes::from(record).slice(start..))
}

/// The fields of a frame's header that do not follow from its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) sequence: u64,
    pub(crate) synced: u64,
    pub(crate) revision: u64,
    pub(crate) salt: u64,
}

/// A frame being written.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    /// An empty frame, in a buffer that is used again.
    pub(crate) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(FRAME_HEADER, 0);
        Self { bytes: buffer }
    }

    /// Appends a record; returns its offset within the frame and its length.
    ///
    /// # Panics
    /// If the key or the value is longer than its length field can say; limits are far below.
    pub(crate) fn push(&mut self, record: Record<'_>) -> (usize, usize) {
        let start = self.bytes.len();
        let key_len = u16::try_from(record.key.len()).expect("keys are limited");
        let value = record.value.unwrap_or_default();
        let value_len = u32::try_from(value.len()).expect("values are limited");
        let kind = if record.value.is_some() { PUT } else { DELETE };
        self.bytes.reserve(record.len());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&record.revision.to_le_bytes());
        self.bytes.extend_from_slice(&key_len.to_le_bytes());
        self.bytes.extend_from_slice(&[kind, 0]);
        self.bytes.extend_from_slice(&value_len.to_le_bytes());
        self.bytes.extend_from_slice(record.key);
        self.bytes.extend_from_slice(value);
        let checksum = xxh3_64(&self.bytes[start + 8..]);
        self.bytes[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
        (start, self.bytes.len() - start)
    }

    /// The length of the whole frame so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The frame's bytes, where its header is to say `stamp`.
    pub(crate) fn finish(&mut self, stamp: Stamp) -> &mut Vec<u8> {
        let body = &self.bytes[FRAME_HEADER..];
        let len = u32::try_from(body.len()).expect("batches are limited");
        let checksum = xxh3_64(body);
        let header = &mut self.bytes[..FRAME_HEADER];
        header[..4].copy_from_slice(&FRAME_MAGIC);
        header[4..8].copy_from_slice(&len.to_le_bytes());
        header[8..16].copy_from_slice(&stamp.sequence.to_le_bytes());
        header[16..24].copy_from_slice(&stamp.synced.to_le_bytes());
        header[24..32].copy_from_slice(&stamp.revision.to_le_bytes());
        header[32..40].copy_from_slice(&stamp.salt.to_le_bytes());
        header[40..48].copy_from_slice(&checksum.to_le_bytes());
        let checksum = xxh3_64(&header[..48]);
        header[48..].copy_from_slice(&checksum.to_le_bytes());
        &mut self.bytes
    }

    /// The buffer, to be used again.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = Stamp {
        sequence: 3,
        synced: 2,
        revision: 9,
        salt: 0x0123_4567_89ab_cdef,
    };

    fn frame(records: &[Record<'_>]) -> Vec<u8> {
        let mut builder = FrameBuilder::new(Vec::new());
        for record in records {
            builder.push(*record);
        }
        builder.finish(STAMP).clone()
    }

    /// Everything that the reader says about `bytes`; must not panic.
    fn read(bytes: &[u8]) {
        if let Some(header) = FrameHeader::decode(bytes) {
            assert!(!header.covers(bytes) || header.len as usize == bytes.len());
        }
        for (at, record) in records(bytes) {
            if let Ok(record) = record {
                assert!(at + record.len() <= bytes.len());
            }
        }
        if let Some((_, key)) = Record::claims(bytes) {
            assert!(key.len() <= bytes.len());
        }
        assert!(value_of(bytes.to_vec(), b"key", 1).is_none_or(|value| value.len() < bytes.len()));
    }

    #[test]
    fn the_format_is_pinned() {
        let put = Record {
            revision: 8,
            key: b"key",
            value: Some(b"value"),
        };
        let delete = Record {
            revision: 9,
            key: b"other",
            value: None,
        };
        let hex: String = frame(&[put, delete])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let expected = [
            // The frame: magic, length, sequence, synced, revision, salt, checksums.
            "4c463031",
            "3d000000",
            "0300000000000000",
            "0200000000000000",
            "0900000000000000",
            "efcdab8967452301",
            "3255136115ca565b",
            "ebc158b61bff1928",
            // A put: checksum, revision, lengths and kind, key, value.
            "ef35c52f02a911bf",
            "0800000000000000",
            "0300",
            "01",
            "00",
            "05000000",
            "6b6579",
            "76616c7565",
            // A delete.
            "051b797cbac33e29",
            "0900000000000000",
            "0500",
            "02",
            "00",
            "00000000",
            "6f74686572",
        ];
        assert_eq!(hex, expected.concat());
    }

    #[test]
    fn what_was_written_is_read() {
        let put = Record {
            revision: 8,
            key: b"key",
            value: Some(b"value"),
        };
        let delete = Record {
            revision: 9,
            key: b"",
            value: None,
        };
        let bytes = frame(&[put, delete]);
        let header = FrameHeader::decode(&bytes).expect("a header");
        let body = &bytes[FRAME_HEADER..];
        assert!(header.covers(body));
        let found: Vec<_> = records(body).collect();
        assert_eq!(found, [(0, Ok(put)), (put.len(), Ok(delete))]);
        let record = body[..put.len()].to_vec();
        assert_eq!(
            value_of(record.clone(), b"key", 8).expect("it is whole"),
            "value"
        );
        assert_eq!(value_of(record.clone(), b"kex", 8), None);
        assert_eq!(value_of(record.clone(), b"key", 7), None);
        assert_eq!(value_of(body[put.len()..].to_vec(), b"", 9), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let put = Record {
            revision: 8,
            key: b"key",
            value: Some(b"value"),
        };
        let good = frame(&[put]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let whole =
                FrameHeader::decode(&bad).is_some_and(|header| header.covers(&bad[FRAME_HEADER..]));
            assert!(!whole, "bit {bit}");
            let record = bad[FRAME_HEADER..].to_vec();
            let untouched = bit / 8 < FRAME_HEADER;
            assert_eq!(
                value_of(record, b"key", 8).is_some(),
                untouched,
                "bit {bit}"
            );
        }
        for len in 0..good.len() {
            let cut = &good[..len];
            let whole = FrameHeader::decode(cut)
                .is_some_and(|header| header.covers(cut.get(FRAME_HEADER..).unwrap_or_default()));
            assert!(!whole, "cut to {len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes);
        }

        #[test]
        fn bytes_that_look_like_records_can_be_read(
            key in any::<u16>(), value in any::<u32>(), kind in 0..4_u8, rest in 0..100_usize,
        ) {
            let mut bytes = vec![0; RECORD_HEADER + rest];
            bytes[16..18].copy_from_slice(&key.to_le_bytes());
            bytes[18] = kind;
            bytes[20..24].copy_from_slice(&value.to_le_bytes());
            let checksum = xxh3_64(&bytes[8..]);
            bytes[..8].copy_from_slice(&checksum.to_le_bytes());
            read(&bytes);
        }
    }
}
