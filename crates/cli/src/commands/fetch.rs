//! `larder fetch`: gets what a ticket names from whoever serves it.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use larder::{
    Blobs, Format, Kind, Root, TagName,
    iroh::{
        BlobTicket, EndpointOptions, FetchOptions, Reach, bind, connect, fetch, load_collection,
        to_engine_root,
    },
};
use serde::Serialize;

use crate::{
    app::App,
    args,
    commands::get::files_of,
    endpoint::Whom,
    export::{Written, write_out},
    find::Named,
    item::Item,
    output::{Bytes, Rate, Shown, Time, Unit},
    problem::{Exit, Problem},
};

/// The prefix of the name that a blob has until it is complete, so that `gc` keeps it.
const INCOMPLETE: &str = "incomplete:";

/// Fetch what a ticket names; run it again to go on
///
/// Blobs that are here are not fetched again: after an interruption, the same command goes on.
/// Every byte is verified before it is stored.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The ticket that `larder serve`, or another iroh program, printed
    ticket: String,
    /// The name to store it under; without it, that of the folder as it was served, or the start of its hash
    #[arg(long, value_parser = args::name())]
    name: Option<String>,
    /// Write it into this folder too, as `larder get` does
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    how: args::OutputHow,
    /// Time to wait for the other side to answer, and for each part of what it sends
    #[arg(long, default_value = "30s", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,
    #[command(flatten)]
    whom: Whom,
}

/// The result of a fetch.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) item: Item,
    pub(crate) bytes_received: u64,
    pub(crate) blobs_fetched: u64,
    pub(crate) blobs: u64,
    pub(crate) seconds: f64,
    pub(crate) written: Option<Written>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let text = args.ticket.trim();
    let ticket: BlobTicket = text.parse().map_err(|error| {
        Problem::usage(
            format!("this is not a ticket, or one of its characters is wrong: {error}"),
            match text.starts_with("larder") {
                true => "an invite to a group is joined with `larder group join INVITE`",
                false => "copy the whole word that `larder serve` printed, from `blob` on",
            },
        )
    })?;
    let store = app.store().await?;
    let blobs = store.blobs();
    // Addresses alone need no third party's help.
    let unless_said = match ticket.addr().relay_urls().next() {
        Some(_) => Reach::Public,
        None => Reach::LanOnly,
    };
    let reach = args.whom.reach(unless_said);
    let root = to_engine_root(ticket.hash_and_format());
    let short = root.hash.fmt_short();
    let mut name = args.name.clone().unwrap_or_else(|| short.clone());
    let mut report = fetch_ticket(app, blobs, &ticket, &name, reach, args.timeout).await?;
    if args.name.is_none()
        && let Some(served) = served_name(blobs, root).await?
    {
        name = free_name(blobs, &served, root).await?;
        blobs
            .tags()
            .rename(&TagName::try_from(&*short)?, TagName::try_from(&*name)?)
            .await?;
        report.item.name.clone_from(&name);
    }
    if let Some(dir) = &args.output {
        let named = Named { name, root };
        let files = files_of(blobs, named).await?;
        report.written = Some(write_out(app, blobs, files, dir, args.how).await?);
    }
    app.out.heading(Item::HEADING)?;
    app.out.result(&report, &report)?;
    Ok(Exit::Done)
}

/// Returns the name that a folder was served under, as iroh's programs tell it: the first part of the names of all
/// its files.
async fn served_name(blobs: &Blobs, root: Root) -> Result<Option<String>> {
    if root.format == Format::Raw {
        return Ok(None);
    }
    let entries = match load_collection(blobs, root.hash).await {
        Ok(entries) => entries,
        // A sequence without names.
        Err(error) if error.kind() == Kind::Invalid => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(first_part(entries.iter().map(|(name, _)| &**name)).map(str::to_owned))
}

/// Returns the first part that all these paths have in common.
fn first_part<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (first, _) = names.next()?.split_once('/')?;
    let has_it = |name: &str| {
        name.strip_prefix(first)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let is_name = !first.is_empty() && ![".", ".."].contains(&first);
    (is_name && names.all(has_it)).then_some(first)
}

/// Returns `name`, or the first of `name-2`, `name-3`, … that nothing else is stored under.
async fn free_name(blobs: &Blobs, name: &str, root: Root) -> Result<String> {
    let mut free = name.to_owned();
    let mut number = 1;
    while let Some(other) = blobs.tags().get(&TagName::try_from(&*free)?).await? {
        if other == root {
            break;
        }
        number += 1;
        free = format!("{name}-{number}");
    }
    Ok(free)
}

/// Fetches what `ticket` names and stores it under `name`.
pub(crate) async fn fetch_ticket(
    app: &App,
    blobs: &Blobs,
    ticket: &BlobTicket,
    name: &str,
    reach: Reach,
    timeout: Duration,
) -> Result<Report> {
    let root = to_engine_root(ticket.hash_and_format());
    let tag = TagName::try_from(name)?;
    let incomplete = TagName::try_from(format!("{INCOMPLETE}{name}").as_str())?;
    // Under a fresh key: who serves need not learn that it is the device that they know from elsewhere.
    let endpoint = bind(EndpointOptions::new(reach)).await?;
    let started = Instant::now();
    let fetched: larder::Result<_> = async {
        let connection = connect(&endpoint, ticket.addr().clone(), timeout).await?;
        blobs.tags().set(incomplete.clone(), root).await?;
        let bar = app.out.progress(Unit::Bytes, None, "fetching");
        let options = FetchOptions {
            progress: Some(progress_of(&bar)),
            idle_timeout: timeout,
            ..FetchOptions::default()
        };
        let fetched = fetch(blobs, &connection, root, options).await?;
        connection.close(0_u32.into(), b"done");
        bar.finish_and_clear();
        Ok(fetched)
    }
    .await;
    endpoint.close().await;
    let fetched = fetched.with_context(|| format!("cannot fetch {}", root.hash.fmt_short()))?;
    let before = blobs.tags().get(&tag).await?;
    if let Some(before) = before.filter(|before| *before != root) {
        app.out.note(format_args!(
            "{}: was {} before; `larder gc` frees what only that needed",
            Shown(name),
            before.hash
        ));
    }
    // Once it is complete it takes its name in one step.
    blobs.tags().rename(&incomplete, tag).await?;
    let item = Item::of(blobs, name.to_owned(), root).await?;
    Ok(Report {
        item,
        bytes_received: fetched.bytes_received,
        blobs_fetched: fetched.blobs_fetched,
        blobs: fetched.blobs,
        seconds: started.elapsed().as_secs_f64(),
        written: None,
    })
}

fn progress_of(bar: &ProgressBar) -> larder::iroh::FetchProgressFn {
    let bar = bar.clone();
    Arc::new(move |progress| {
        if let Some(total) = progress.bytes_total {
            bar.set_length(total);
        }
        bar.set_position(progress.bytes_received);
    })
}

impl Report {
    /// Returns the amount that was received, and the speed.
    pub(crate) fn speed(&self) -> String {
        let time = Duration::from_secs_f64(self.seconds);
        format!(
            "received {} in {} ({})",
            Bytes(self.bytes_received),
            Time(time),
            Rate(self.bytes_received, time)
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.item)?;
        f.write_str(&self.speed())?;
        if self.blobs_fetched < self.blobs {
            let there = self.blobs - self.blobs_fetched;
            write!(f, "; {there} of {} blob(s) were here", self.blobs)?;
        }
        if let Some(written) = &self.written {
            write!(f, "\n{written}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::first_part;

    #[test]
    fn a_folder_is_called_what_all_its_names_begin_with() {
        let part = |names: &[&'static str]| first_part(names.iter().copied());
        assert_eq!(part(&["photos/a", "photos/b/c"]), Some("photos"));
        assert_eq!(part(&["photos/a", "photosb/c"]), None);
        assert_eq!(part(&["photos"]), None);
        assert_eq!(part(&["../a", "../b"]), None);
        assert_eq!(part(&["/a"]), None);
        assert_eq!(part(&[]), None);
    }
}
