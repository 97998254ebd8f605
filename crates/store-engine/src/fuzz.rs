//! Entry points of the fuzzer: each takes any bytes to parsers of what the engine stores, and checks what
//! comes out. Only in builds with `--cfg fuzzing`; the targets are in `fuzz/` of the repository.

/// Decodes stored blobs, records and secrets. The first byte chooses which.
pub fn stored(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 6 {
        0 => crate::blobs::fuzz::entry(bytes),
        1 => crate::blobs::fuzz::tag(bytes),
        2 => crate::records::fuzz::descriptor(bytes),
        3 => crate::records::fuzz::signed(bytes),
        4 => crate::records::fuzz::record(bytes),
        _ => crate::secrets::fuzz::secrets(bytes),
    }
}
