//! Keeps the text of panics that are caught, and become errors, off the terminal.

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    /// True while this thread runs a call whose panics are caught.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// Says that calls under [`catch`] may panic from now on, as a damaged page was found: what they panic with is
/// not printed. Other panics, and those of other threads, are reported as before.
pub(crate) fn expect_panics() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A thread that ends has no such value any more, and catches nothing.
            if !CATCHING.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
}

/// Runs a call, and returns what it panicked with.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let before = CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    CATCHING.set(before);
    result
}
