//! Entry point of the fuzzer. Only in builds with `--cfg fuzzing`; the targets are in `fuzz/` of the
//! repository.

use larder_net_api::Address;

use crate::address::{parse, render};

/// The text of an address: what is understood is rendered to what is understood as the same.
pub fn address(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    // Nobody guesses a key, so that most texts go behind one.
    let key = "66".repeat(31);
    for text in [text.to_owned(), format!("iroh:58{key}?{text}")] {
        if let Ok(parsed) = text.parse::<Address>().and_then(|address| parse(&address)) {
            let again = render(&parsed).expect("it was understood");
            assert_eq!(parse(&again).expect("it was rendered"), parsed);
        }
    }
}
