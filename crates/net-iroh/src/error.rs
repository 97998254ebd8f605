//! The errors of connections that end.

use iroh::endpoint::ConnectionError;
use larder_net_api::cut_reason;
use larder_store_api::{Error, Kind};

/// Returns the error that says why a connection has ended.
pub(crate) fn ended(error: &ConnectionError) -> Error {
    let closed = |why: &'static str| Error::new(Kind::Closed, "network.connection", why);
    match error {
        ConnectionError::LocallyClosed => closed("it was closed here"),
        ConnectionError::ApplicationClosed(close) => {
            closed("the other side closed it").with("reason", reason(&close.reason))
        }
        _ => Error::new(
            Kind::Unavailable,
            "network.connection",
            "the connection to the other side was lost; connect again",
        )
        .because(error.clone()),
    }
}

/// Returns the other side's reason, as text that is safe to show.
fn reason(bytes: &[u8]) -> String {
    let show = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let text: String = String::from_utf8_lossy(bytes).chars().map(show).collect();
    cut_reason(&text).to_owned()
}
