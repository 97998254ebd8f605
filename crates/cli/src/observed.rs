//! Calls into files and folders, as people see them: progress, and the items that were left out.

use std::{fmt::Write, path::Path};

use anyhow::Result;
use indicatif::ProgressBar;
use larder::files::{
    Event, LeftOut, LeftOutItem, Listed, Observer, Reason, default_name, needs_name,
};

use crate::{
    output::{Count, Output, Shown, Unit},
    problem::Problem,
};

/// The number of items that a message names.
const MAX_SHOWN: usize = 10;

/// Shows progress, and with `--verbose` each item that is left out. The bar goes away when it is dropped.
pub(crate) fn observe(out: &Output, what: &'static str) -> (Bar, Observer) {
    let bar = out.progress(Unit::Bytes, Some(0), what);
    let (shown, out) = (bar.clone(), *out);
    let observer = Observer::new(move |event| match event {
        Event::Planned { bytes, .. } => match bytes {
            Some(bytes) => shown.set_length(bytes),
            None => shown.unset_length(),
        },
        Event::Moved { bytes, .. } => shown.inc(bytes),
        Event::LeftOut(item) if out.verbose => {
            shown.suspend(|| out.note(format_args!("left out: {}", words(&item))));
        }
        _ => {}
    });
    (Bar(bar), observer)
}

/// A progress bar that leaves nothing on the screen.
pub(crate) struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn words(item: &LeftOutItem) -> String {
    let mut text = format!("{}: {}", Shown(&item.path), item.reason);
    if !item.error.is_empty() {
        text += &format!(" ({})", Shown(&item.error));
    }
    text
}

/// Returns the name of a path, and where it has none, the advice to give one.
pub(crate) fn name_of(path: &Path) -> Result<String> {
    default_name(path).map_err(|error| match needs_name(&error) {
        true => Problem::usage(error.message(), "give it one with --name").into(),
        false => error.into(),
    })
}

/// Says in words what was left out on purpose, or `None` where nothing was.
pub(crate) fn summary(left_out: &LeftOut) -> Option<String> {
    let parts: Vec<_> = [
        (Reason::Symlink, "symbolic link(s)"),
        (Reason::Special, "special file(s)"),
        (Reason::EmptyFolder, "empty folder(s)"),
        (
            Reason::Cache,
            "cache folder(s) marked by CACHEDIR.TAG (--include-caches takes them)",
        ),
        (Reason::OpenStore, "folder(s) of an open store"),
    ]
    .into_iter()
    .map(|(reason, what)| (left_out.of(reason), what))
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", Count(count)))
    .collect();
    (!parts.is_empty()).then(|| format!("left out: {}", parts.join(", ")))
}

/// Says which items should have been taken and were not, or `None` where there are none.
pub(crate) fn failures(left_out: &LeftOut, what: &str) -> Option<String> {
    let count = left_out.failures();
    if count == 0 {
        return None;
    }
    let mut text = format!("{} file(s) {what}", Count(count));
    for item in left_out.failed_items().take(MAX_SHOWN) {
        write!(text, "\n  {}", words(item)).expect("a text takes text");
    }
    if count > MAX_SHOWN as u64 {
        text += "\n  …";
    }
    Some(text)
}

/// Appends the first of some names, one a line.
pub(crate) fn list(mut text: String, names: &Listed) -> String {
    for name in names.names.iter().take(MAX_SHOWN) {
        write!(text, "\n  {}", Shown(name)).expect("a text takes text");
    }
    if names.count > MAX_SHOWN as u64 {
        text += "\n  …";
    }
    text
}
