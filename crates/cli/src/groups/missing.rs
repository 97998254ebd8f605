//! The missing files of a repo, as lines.

use anyhow::Result;
use larder::groups::Missing;
use serde::Serialize;

use crate::{
    app::App,
    output::{Count, Shown},
};

/// The number of files that a sentence names.
const IN_A_SENTENCE: usize = 3;

/// A file that is wanted and not here.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "missing")]
struct Line<'a> {
    group: &'a str,
    member: &'a str,
    /// `null` if the names cannot be read here.
    path: Option<&'a str>,
    /// The blob that it is sealed in.
    blob: String,
    /// True if the file was here before.
    damaged: bool,
}

/// Says which files are missing of a member's repo, and what to do.
pub(crate) fn say_missing(app: &App, group: &str, member: &str, missing: &Missing) -> Result<()> {
    for file in &missing.named {
        let line = Line {
            group,
            member,
            path: file.path.as_deref(),
            blob: file.blob.to_string(),
            damaged: file.is_damaged,
        };
        let what = line.path.unwrap_or(&line.blob);
        let text = match file.is_damaged {
            true => format!("    lost here: {}", Shown(what)),
            false => format!("    not here: {}", Shown(what)),
        };
        app.out.result(&line, text)?;
    }
    let more = missing.files.saturating_sub(missing.named.len() as u64);
    if more > 0 {
        app.out.note(format_args!("and {} more", Count(more)));
    }
    if missing.named.iter().any(|file| file.is_damaged) {
        app.out.note(
            "put what is lost again, or `larder verify --repair` and `larder sync` with somebody who has it",
        );
    } else if !missing.is_empty() {
        app.out
            .note("nobody who was asked has what is not here; `larder sync` asks again");
    }
    Ok(())
}

/// Names some of what is missing, in a sentence.
pub(crate) fn some_of(missing: &Missing) -> String {
    let mut text = format!("{} file(s)", Count(missing.files));
    let named = missing.named.iter().take(IN_A_SENTENCE);
    let names: Vec<String> = named
        .map(|file| match &file.path {
            Some(path) => Shown(path).to_string(),
            None => file.blob.to_string(),
        })
        .collect();
    if !names.is_empty() {
        text += ": ";
        text += &names.join(", ");
        if missing.files > names.len() as u64 {
            text += ", …";
        }
    }
    text
}
