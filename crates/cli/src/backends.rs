//! The backends that URLs can name in this program.

use std::sync::OnceLock;

use larder::Backends;

static BACKENDS: OnceLock<Backends> = OnceLock::new();

/// Sets the backends, once, before the arguments of the program are read.
pub(crate) fn set(backends: Backends) {
    // A second program in one process keeps those of the first.
    BACKENDS.set(backends).ok();
}

/// Returns the backends that URLs can name.
pub(crate) fn backends() -> &'static Backends {
    BACKENDS.get_or_init(Backends::default)
}
