//! `larder fetch`: gets the file or folder of a ticket from the peer that serves it.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use indicatif::ProgressBar;
use larder::{
    Blobs, Format, Kind, Root, TagName,
    files::{self, Got, Named},
    iroh::{
        BlobTicket, EndpointOptions, FetchOptions, Reach, bind, connect, fetch, folder_name,
        to_engine_root,
    },
};
use serde::Serialize;

use super::get::{Origin, not_written, text};
use crate::{
    app::App,
    args,
    endpoint::Whom,
    item::{Columns, Item},
    observed::observe,
    output::{Bytes, Count, Rate, Shown, Time, Unit},
    problem::{Exit, Problem},
};

/// The prefix of the name that a blob has until it is complete, so that `gc` keeps it.
pub(crate) const INCOMPLETE: &str = "incomplete:";

/// The advice where only this machine is asked.
const ON_THIS_MACHINE: &str = "with --loopback only this machine is asked: check that `larder serve` still runs here, or \
     leave --loopback out; then run it again: it goes on where it stopped";

/// Fetch the file or folder of a ticket; run it again to continue
///
/// Blobs that are here are not fetched again: after an interruption, the same command continues.
/// Every byte is verified before it is stored.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The ticket that `larder serve`, or another iroh program, printed
    ticket: String,
    /// The name to store it under (default: the served folder's name, or the start of the hash)
    #[arg(long, value_parser = args::name())]
    name: Option<String>,
    /// Write it into this folder too, as `larder get` does
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    how: args::OutputHow,
    /// Time to wait for the other side to answer, and for each part that it sends
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
    pub(crate) written: Option<Got>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let text = args.ticket.trim();
    let ticket: BlobTicket = text.parse().map_err(|_| {
        // The error of the parser speaks of bytes and tags.
        let whole = "copy the whole word that `larder serve` printed, from `blob` on";
        match text {
            _ if text.starts_with("larder") => Problem::usage(
                "this is not a ticket, but an invite to a group",
                "an invite to a group is joined with `larder group join INVITE`",
            ),
            _ if text.starts_with("blob") => {
                Problem::usage("the ticket is cut or mistyped", format!("{whole}, again"))
            }
            _ => Problem::usage("this is not a ticket", whole),
        }
    })?;
    if let Some(dir) = &args.output {
        args::check_folder(dir)?;
    }
    let store = app.store().await?;
    let blobs = store.blobs();
    // Addresses alone need no third party's help.
    let unless_said = match ticket.addr().relay_urls().next() {
        Some(_) => Reach::Public,
        None => Reach::LanOnly,
    };
    let reach = args.whom.reach(unless_said);
    let root = to_engine_root(ticket.hash_and_format());
    let name = args.name.as_deref();
    let mut report = fetch_ticket(app, blobs, &ticket, name, reach, args.timeout).await?;
    if let Some(dir) = &args.output {
        let named = Named::new(report.item.name.clone(), root);
        let files = files::files_of(blobs, &named).await?;
        let (bar, observer) = observe(&app.out, "writing");
        let got = files::write_out(blobs, files, &args.how.request(dir), &observer).await?;
        drop(bar);
        report.written = Some(got);
    }
    app.out.heading(Columns::new(true).heading())?;
    app.out.result(&report, &report)?;
    match report
        .written
        .and_then(|got| not_written(&app.out, &got.left_out, Origin::Store))
    {
        None => Ok(Exit::Done),
        Some(problem) => Err(problem.into()),
    }
}

/// Returns the name for what was fetched: a folder has one, which gets a number if it stands for
/// something else here.
async fn own_name(blobs: &Blobs, root: Root) -> Result<Option<TagName>> {
    if root.format != Format::HashSeq {
        return Ok(None);
    }
    let name = match folder_name(blobs, root.hash).await {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => None,
        other => other?,
    };
    let is_plain = |name: &String| !name.starts_with([':', '.']) && !name.contains(':');
    let Some(name) = name.filter(is_plain) else {
        return Ok(None);
    };
    let free = free_name(blobs, &name, root).await?;
    Ok(files::tag_of(&free).ok())
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
    name: Option<&str>,
    reach: Reach,
    timeout: Duration,
) -> Result<Report> {
    let root = to_engine_root(ticket.hash_and_format());
    let by_hash = root.hash.fmt_short();
    let told = name.unwrap_or(&by_hash);
    let mut tag = files::tag_of(told)?;
    let incomplete = TagName::try_from(format!("{INCOMPLETE}{told}").as_str())?;
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
    let fetched = fetched.map_err(|error| {
        let what = format!("cannot fetch {}", root.hash.fmt_short());
        let is_alone = error.kind() == Kind::Unavailable && reach == Reach::Loopback;
        let error = anyhow::Error::from(error);
        match is_alone {
            true => error.context(Problem::new(what, ON_THIS_MACHINE)),
            false => error.context(what),
        }
    })?;
    if name.is_none()
        && let Some(own) = own_name(blobs, root).await?
    {
        tag = own;
    }
    let name = tag.to_string();
    let before = blobs.tags().get(&tag).await?;
    if let Some(before) = before.filter(|before| *before != root) {
        app.out.note(format_args!(
            "{}: was {} before; `larder gc` frees what only that needed",
            Shown(&name),
            before.hash
        ));
    }
    // Once it is complete it takes its name in one step.
    blobs.tags().rename(&incomplete, tag).await?;
    let item = Item::of(blobs, name, root).await?;
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
        writeln!(f, "{}", Columns::new(true).line(&self.item))?;
        f.write_str(&self.speed())?;
        if self.blobs_fetched < self.blobs {
            let there = self.blobs - self.blobs_fetched;
            let (there, all) = (Count(there), Count(self.blobs));
            write!(f, "; {there} of {all} blob(s) were here")?;
        }
        if let Some(written) = &self.written {
            write!(f, "\n{}", text(written))?;
        }
        Ok(())
    }
}
