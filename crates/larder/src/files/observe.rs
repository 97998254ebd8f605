//! The events that tell how far a call is.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{LeftOut, LeftOutItem};

/// Something that happened during a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The files are known that are to be read or written. A later one of these replaces it.
    #[non_exhaustive]
    Planned {
        /// Their number.
        files: u64,
        /// Their bytes; `None` if that is not known before they were read.
        bytes: Option<u64>,
    },
    /// More bytes were read or written.
    #[non_exhaustive]
    Moved {
        /// Their number, since the event before.
        bytes: u64,
    },
    /// A file or folder is left out.
    LeftOut(LeftOutItem),
}

/// The receiver of events. A clone is the same.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Observer {
    /// Calls `hear` for each event, on the thread where it happens: it must not wait for anything.
    pub fn new(hear: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    /// An observer that hears nothing.
    pub fn none() -> Self {
        Self(None)
    }

    pub(super) fn tell(&self, event: Event) {
        if let Some(hear) = &self.0 {
            hear(event);
        }
    }

    pub(super) fn moved(&self, bytes: u64) {
        if bytes > 0 {
            self.tell(Event::Moved { bytes });
        }
    }

    /// Adds an item to those that are left out, and tells of it.
    pub(super) fn leave_out(&self, left_out: &mut LeftOut, item: LeftOutItem) {
        tracing::debug!(path = item.path, reason = %item.reason, error = item.error, "left out");
        self.tell(Event::LeftOut(item.clone()));
        left_out.add(item);
    }

    pub(super) fn planned(&self, files: u64, bytes: Option<u64>) {
        self.tell(Event::Planned { files, bytes });
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hears = self.0.is_some();
        f.debug_struct("Observer").field("hears", &hears).finish()
    }
}
