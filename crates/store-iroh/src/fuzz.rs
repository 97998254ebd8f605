//! Entry point of the fuzzer. Only in builds with `--cfg fuzzing`; the targets are in `fuzz/` of the
//! repository.

use iroh_blobs::format::collection::CollectionMeta;

use crate::collection::read_names;

/// Decodes peers' requests and answers, and the bytes of a collection. The first byte chooses
/// which.
pub fn peer(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 3 {
        0 => crate::serve::fuzz::request(bytes),
        1 => crate::fetch::fuzz::answer(bytes),
        _ => names(bytes),
    }
}

/// The names of a collection. The first byte says how many there are to be.
fn names(bytes: &[u8]) {
    let Some((&count, bytes)) = bytes.split_first() else {
        return;
    };
    if let Ok(names) = read_names(bytes, count.into()) {
        assert_eq!(names.len(), usize::from(count));
        let mut meta: CollectionMeta = postcard::from_bytes(bytes).expect("it was read");
        assert!(meta.check_header() && *meta.names() == names);
        *meta.names_mut() = names;
        let again = postcard::to_stdvec(&meta).expect("names have bytes");
        let again = read_names(&again, count.into());
        assert_eq!(again.expect("it was written"), *meta.names());
    }
}
