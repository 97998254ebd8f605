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

/// Returns the name of a path, or if it has none, an error that advises to give one.
pub(crate) fn name_of(path: &Path) -> Result<String> {
    default_name(path).map_err(|error| match needs_name(&error) {
        true => Problem::usage(error.message(), "give it one with --name").into(),
        false => error.into(),
    })
}

/// Says in words what was left out on purpose, or `None` if nothing was.
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
        (
            Reason::Temporary,
            "file(s) that an interrupted `larder get` began",
        ),
    ]
    .into_iter()
    .map(|(reason, what)| (left_out.of(reason), what))
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", Count(count)))
    .collect();
    (!parts.is_empty()).then(|| format!("left out: {}", parts.join(", ")))
}

/// Says which items should have been taken and were not, or `None` if there are none. With `--verbose` each was said
/// [when it was left out](observe), and is not said again.
pub(crate) fn failures(out: &Output, left_out: &LeftOut, what: &str) -> Option<String> {
    let count = left_out.failures();
    if count == 0 {
        return None;
    }
    let text = format!("{} file(s) {what}", Count(count));
    if out.verbose {
        return Some(text);
    }
    let items = left_out.failed_items().take(MAX_SHOWN).map(words);
    Some(lines(text, items, count))
}

/// Appends some names, one a line; without `--verbose` the first.
pub(crate) fn list(out: &Output, text: String, names: &Listed) -> String {
    let most = if out.verbose { usize::MAX } else { MAX_SHOWN };
    let shown = names.names.iter().take(most);
    lines(text, shown.map(|name| Shown(name).to_string()), names.count)
}

/// Appends lines to a text, and how many more there are of `count`.
fn lines(mut text: String, lines: impl Iterator<Item = String>, count: u64) -> String {
    let mut more = count;
    for line in lines {
        write!(text, "\n  {line}").expect("a text takes text");
        more = more.saturating_sub(1);
    }
    if more > 0 {
        write!(text, "\n  and {} more: -v lists them", Count(more)).expect("a text takes text");
    }
    text
}

/// Returns what to do about files of this machine that should have been taken and were not; `again` is the verb for
/// taking them.
pub(crate) fn advice(left_out: &LeftOut, again: &str) -> String {
    let (them, their_names) = match left_out.failures() {
        1 => ("it", "its name"),
        _ => ("them", "their names"),
    };
    let known = [
        (Reason::Unreadable, format!("make {them} readable")),
        (
            Reason::Changing,
            format!("wait until nobody changes {them}"),
        ),
        (Reason::TooLong, format!("shorten {their_names}")),
    ];
    let of_known = known.iter().map(|(reason, _)| left_out.of(*reason));
    let others = left_out.failures() - of_known.sum::<u64>();
    let mut steps: Vec<_> = known
        .into_iter()
        .filter(|(reason, _)| left_out.of(*reason) > 0)
        .map(|(_, step)| step)
        .collect();
    if others > 0 {
        // Their names cannot be stored.
        steps.push(format!("rename {them}"));
    }
    format!("{}, and {again} it again", steps.join(" or "))
}
