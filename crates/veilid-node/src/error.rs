//! Converts Veilid's errors.

use larder_store_api::{Error, Kind};
use veilid_core::VeilidAPIError;

/// Texts of errors that Veilid passes on from lower layers, and their kinds.
const TEXTS: [(&str, Kind); 10] = [
    ("database or disk is full", Kind::Full),
    ("No space left on device", Kind::Full),
    ("another veilid instance is using", Kind::Unavailable),
    ("database is locked", Kind::Unavailable),
    ("Too many open files", Kind::Unavailable),
    ("unable to open database file", Kind::Unavailable),
    ("readonly database", Kind::Denied),
    ("Permission denied", Kind::Denied),
    ("malformed", Kind::Corrupt),
    ("not a database", Kind::Corrupt),
];

/// Converts an error of Veilid's; its kind tells what the caller should do about it.
pub fn api_error(operation: &'static str, error: VeilidAPIError) -> Error {
    let kind = match &error {
        VeilidAPIError::NotInitialized | VeilidAPIError::Shutdown => Kind::Closed,
        VeilidAPIError::AlreadyInitialized
        | VeilidAPIError::Timeout
        | VeilidAPIError::TryAgain { .. }
        | VeilidAPIError::InvalidTarget { .. }
        | VeilidAPIError::NoConnection { .. } => Kind::Unavailable,
        VeilidAPIError::KeyNotFound { .. } | VeilidAPIError::TransactionNotFound { .. } => {
            Kind::NotFound
        }
        VeilidAPIError::ParseError { .. }
        | VeilidAPIError::InvalidArgument { .. }
        | VeilidAPIError::MissingArgument { .. } => Kind::Invalid,
        VeilidAPIError::Unimplemented { .. } => Kind::Unsupported,
        VeilidAPIError::Internal { message } | VeilidAPIError::Generic { message } => TEXTS
            .iter()
            .find(|(text, _)| message.contains(text))
            .map_or(Kind::Internal, |(_, kind)| *kind),
    };
    let message = match kind {
        Kind::Closed => "the Veilid node was shut down",
        Kind::Unavailable if matches!(error, VeilidAPIError::AlreadyInitialized) => {
            "this process already runs a node of this name"
        }
        _ => "",
    };
    Error::new(kind, operation, message).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_is_told_apart() {
        let kind = |text: &str| api_error("table.commit", VeilidAPIError::generic(text)).kind();
        assert_eq!(kind("commit failed: database or disk is full"), Kind::Full);
        assert_eq!(kind("database disk image is malformed"), Kind::Corrupt);
        let text = "open failed: unable to open database file: /d/table_store/x";
        assert_eq!(kind(text), Kind::Unavailable);
        assert_eq!(kind("whatever"), Kind::Internal);
        let error = api_error("record.get", VeilidAPIError::try_again("offline"));
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(
            format!("{error:?}"),
            "record.get: unavailable: TryAgain: offline"
        );
    }
}
