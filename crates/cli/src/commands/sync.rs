//! `larder sync`: meets the other members.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use larder::{
    groups::{Group, InviteOptions, Replicator},
    iroh::Reach,
};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::put;
use crate::{
    app::App,
    args,
    groups::{self, Kind, Network, PutOptions, Watch, pick},
    output::Shown,
    problem::{Exit, Problem, Report},
};

/// The time to stay after all members have everything.
const LINGER: Duration = Duration::from_millis(1500);

/// Sync with the other members of your groups
///
/// Fetches their files and gives them those that are here, until all members that can be reached have
/// everything. Files that came before an interruption stay.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Groups (default: all groups of this store)
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// Keep syncing until ctrl-c
    #[arg(long)]
    watch: bool,
    /// Give up after this time without any transfer
    #[arg(long, default_value = "30s", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,
    /// Print an invite too, with the addresses at which this device can be reached now
    #[arg(long, value_name = "KIND", requires = "watch")]
    invite: Vec<Kind>,
    /// Put each path that a line of standard input names, and end when it ends
    #[arg(long, requires = "watch")]
    put_lines: bool,
    #[command(flatten)]
    network: Network,
}

/// The addresses at which this device can be reached.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "listening")]
struct Listening {
    addresses: Vec<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.store_of_groups().await?;
    let known = store.groups().await?;
    let mut chosen = Vec::new();
    for text in &args.groups {
        chosen.push(pick(&known, Some(text)).await?);
    }
    if chosen.is_empty() {
        chosen = known.groups();
    }
    if chosen.is_empty() {
        // Says what to do.
        pick(&known, None).await?;
    }
    drop(known);
    let reach = args.network.reach();
    let replicator = groups::start(app, &store, args.network).await?;
    // The replicator's handles of these groups.
    let ids = chosen.iter().map(Group::id);
    let chosen: Vec<_> = ids.filter_map(|id| replicator.groups().group(id)).collect();
    let ended = if args.watch {
        let watched = async {
            app.ends_itself();
            say_where(app, &replicator)?;
            for group in &chosen {
                for kind in &args.invite {
                    let at = replicator.addresses();
                    let options = InviteOptions::new((*kind).into());
                    groups::print_invite(app, group, *kind, options, at, false).await?;
                }
            }
            go_on(app, &replicator, &chosen, args.put_lines).await
        };
        watched.await
    } else {
        until_synced(app, &replicator, &chosen, args.timeout, reach).await
    };
    replicator.shutdown().await;
    ended
}

fn say_where(app: &App, replicator: &Replicator) -> Result<()> {
    let listening = Listening {
        addresses: replicator.addresses(),
    };
    if app.out.json {
        app.out.result(&listening, "")?;
    } else {
        for address in &listening.addresses {
            app.out.note(format_args!("reachable at {address}"));
        }
        app.out.note("syncing until ctrl-c");
    }
    Ok(())
}

async fn until_synced(
    app: &App,
    replicator: &Replicator,
    chosen: &[Group],
    timeout: Duration,
    reach: Reach,
) -> Result<Exit> {
    let mut watch = Watch::new(app, replicator);
    let waiting = async {
        while !watch.look(chosen).await? {
            if watch.quiet_for() > timeout {
                let problem = not_synced(&watch, replicator, chosen, timeout, reach).await?;
                return Err(problem.into());
            }
            groups::until_next_look().await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        biased;
        done = waiting => done?,
        exit = app.signalled() => return Ok(exit),
    }
    // The others must be able to see it too. Whoever interrupts this interrupts nothing.
    tokio::select! {
        () = tokio::time::sleep(LINGER) => {}
        _ = app.signalled() => {}
    }
    watch.look(chosen).await?;
    Ok(Exit::Done)
}

/// Returns the problem that says what is missing.
async fn not_synced(
    watch: &Watch<'_>,
    replicator: &Replicator,
    chosen: &[Group],
    timeout: Duration,
    reach: Reach,
) -> Result<Problem> {
    let names = groups::labels(chosen).await?;
    let mut alone = Vec::new();
    let mut behind = Vec::new();
    let mut looked_for = String::new();
    for group in chosen {
        let status = replicator.status(group.id()).await?;
        let name = Shown(&names[&group.id()]).to_string();
        match !watch.was_met(group) {
            true => {
                let sought = groups::sought(replicator, group).await?;
                if groups::is_alone(replicator, group, &sought).await? {
                    looked_for += &format!("\n  {name}: {}", groups::NOBODY_JOINED);
                } else {
                    for line in groups::sought_text(&sought, "\n").lines() {
                        looked_for += &format!("\n  {name}: looked for {line}");
                    }
                }
                alone.push(name);
            }
            false if status.peers.is_empty() => {
                behind.push(format!("{name} (the others have left)"))
            }
            false if status.has_all() => behind.push(format!("{name} (others lack something)")),
            false if status.missing_files() > 0 => {
                for repo in status.repos.iter().filter(|repo| !repo.missing.is_empty()) {
                    let member = groups::told_apart(group, repo.repo).await?;
                    behind.push(format!(
                        "{name} (nobody who is connected has {} of {})",
                        groups::some_of(&repo.missing),
                        Shown(&member)
                    ));
                }
            }
            false => behind.push(format!("{name} (something has not come)")),
        }
    }
    let mut what = match behind.is_empty() {
        true => format!(
            "no member of {} could be reached in {timeout:?}",
            alone.join(", ")
        ),
        false => format!(
            "not in sync: {}; nothing has moved for {timeout:?}",
            behind.join(", ")
        ),
    };
    what += &looked_for;
    let advice = match reach {
        Reach::Loopback => {
            "with --loopback only members on this machine are met: check that one runs `larder share` or `larder sync --watch`, or leave \
             --loopback out; run it again to go on"
        }
        Reach::Public => {
            "check that another member runs `larder sync --watch --public`; run it again to go on"
        }
        _ => {
            "check that another member runs `larder sync --watch` in the same network, or use --public on both sides; \
             run it again to go on"
        }
    };
    Ok(Problem::new(what, advice))
}

/// Continues until ctrl-c, or until standard input ends if it names paths to put.
pub(crate) async fn go_on(
    app: &App,
    replicator: &Replicator,
    chosen: &[Group],
    put_lines: bool,
) -> Result<Exit> {
    let watching = async {
        let mut watch = Watch::new(app, replicator);
        loop {
            // Also those that were joined since.
            watch.look(chosen).await?;
            groups::until_next_look().await;
        }
    };
    let putting = async {
        match put_lines {
            true => put_each_line(app, chosen).await,
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = watching => ended,
        ended = putting => ended,
        // Ctrl-c is how it ends.
        exit = app.signalled() => Ok(match exit {
            Exit::Interrupted => Exit::Done,
            exit => exit,
        }),
    }
}

async fn put_each_line(app: &App, chosen: &[Group]) -> Result<Exit> {
    let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
    let how = PutOptions::default();
    while let Some(line) = lines.next_segment().await? {
        let path = match path_of(line) {
            Ok(path) if path.as_os_str().is_empty() => continue,
            Ok(path) => path,
            Err(error) => {
                Report::of(&error).say(app.out);
                continue;
            }
        };
        for group in chosen {
            let repo = put::own_repo(group).await?;
            match groups::put(app, &repo, &how.request(&path)).await {
                Ok(done) => drop(put::say(app, group, &path, done, false).await?),
                // The next line may be a better one.
                Err(error) => Report::of(&error).say(app.out),
            }
        }
    }
    Ok(Exit::Done)
}

/// Returns the path that a line names. On Unix it need not be text.
fn path_of(mut line: Vec<u8>) -> Result<PathBuf> {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    #[cfg(unix)]
    let path: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(line);
    #[cfg(not(unix))]
    let path = String::from_utf8(line).map_err(|_| {
        Problem::new(
            "a line is not Unicode, and names no file here",
            "write paths in UTF-8, one a line",
        )
    })?;
    Ok(PathBuf::from(path))
}
