//! Entry points of the fuzzer for the log. Only in builds with `--cfg fuzzing`; the targets are in `fuzz/`
//! of the repository.

use crate::{
    frame::{FRAME_HEADER, FrameBuilder, FrameHeader, Record, Stamp, records, value_of},
    log::{SEGMENT_HEADER, SegmentHeader},
};

/// Bytes of a segment, as a crash or a bad disk leaves them; then the same bytes as the records of a whole
/// frame, which are read as they were written.
pub fn log(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk::<SEGMENT_HEADER>()
        && let Some(found) = SegmentHeader::decode(header, 1)
    {
        assert_eq!(found.encode()[..], header[..]);
    }
    if let Some(header) = FrameHeader::decode(bytes) {
        let body = &bytes[FRAME_HEADER..];
        assert!(!header.covers(body) || body.len() == header.len as usize);
    }
    for (at, record) in records(bytes) {
        if let Ok(record) = record {
            assert!(at + record.len() <= bytes.len());
        }
    }
    assert!(Record::claims(bytes).is_none_or(|(_, key)| key.len() < bytes.len()));
    drop(value_of(bytes.to_vec(), b"key", 1));

    let mut rest = bytes;
    let mut written = Vec::new();
    while let Some((&[key, value, kind], after)) = rest.split_first_chunk() {
        let key = usize::from(key).min(after.len());
        let (key, after) = after.split_at(key);
        let value = usize::from(value).min(after.len());
        let (value, after) = after.split_at(value);
        written.push(Record {
            revision: u64::from(kind),
            key,
            value: (kind % 2 == 0).then_some(value),
        });
        rest = after;
    }
    let mut builder = FrameBuilder::new(Vec::new());
    for record in &written {
        builder.push(*record);
    }
    let stamp = Stamp {
        sequence: 3,
        synced: 2,
        revision: 9,
        salt: 7,
    };
    let frame = builder.finish(stamp);
    let header = FrameHeader::decode(frame).expect("it was written");
    assert!(header.covers(&frame[FRAME_HEADER..]));
    let read: Vec<_> = records(&frame[FRAME_HEADER..])
        .map(|(_, record)| record.expect("it was written"))
        .collect();
    assert_eq!(read, written);
}
