//! `larder group rotate`, `log` and `leave`.

use std::time::{Duration, Instant};

use anyhow::Result;
use larder::groups::{Group, Replicator, Standing};
use serde::Serialize;

use super::{
    Done,
    people::{TOLD, refused},
};
use crate::{
    app::App,
    args,
    groups::{self, Network, label, pick, short},
    output::Shown,
    problem::Problem,
};

pub(super) async fn rotate(app: &App, group: Option<&str>) -> Result<()> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, group).await?;
    group.rotate().await.map_err(refused)?;
    let done = done(&group).await?;
    let text = format!("{} has a new key from now on", Shown(&done.group));
    app.out.result(&done, text)?;
    app.out.note(TOLD);
    Ok(())
}

async fn done(group: &Group) -> Result<Done> {
    Ok(Done {
        group: label(group).await?,
        id: group.id().to_string(),
        member: None,
    })
}

/// A word of a member.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    /// In milliseconds since 1970, by the author's clock.
    time: i64,
    author: String,
    what: &'static str,
    about: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_aside: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    void_by: Option<String>,
}

pub(super) async fn log(app: &App, group: Option<&str>) -> Result<()> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, group).await?;
    let people = group.people().await?;
    let called = |key: &larder::api::PublicKey| {
        let has = |person: &&larder::groups::Person| {
            person.key == *key || person.devices.iter().any(|device| device.key == *key)
        };
        let name = people
            .iter()
            .find(has)
            .and_then(|person| person.name.clone());
        name.unwrap_or_else(|| short(key))
    };
    for entry in group.log() {
        let line = Line {
            id: entry.id.to_string(),
            time: entry.time,
            author: entry.author.to_string(),
            what: entry.what,
            about: entry.about.iter().map(ToString::to_string).collect(),
            set_aside: entry.set_aside,
            void_by: entry.void_by.map(|by| by.to_string()),
        };
        let about: Vec<_> = entry.about.iter().map(&called).collect();
        let mut text = format!(
            "{}  {}  {}",
            short(&line.id),
            Shown(&called(&entry.author)),
            line.what
        );
        if !about.is_empty() {
            text += &format!(" {}", Shown(&about.join(", ")));
        }
        if let Some(why) = &line.set_aside {
            text += &format!(" (does nothing: {why})");
        }
        if line.void_by.is_some() {
            text += " (void: its author was removed meanwhile)";
        }
        app.out.result(&line, text)?;
    }
    Ok(())
}

/// Leave a group; the next `larder gc` deletes its files here
///
/// Tells other members if one can be met. Your files stay with them.
#[derive(Debug, clap::Args)]
pub(super) struct Leave {
    /// The group
    group: String,
    /// Leave even if your repo has files, which others may not have
    #[arg(long)]
    force: bool,
    /// Time to wait for another member, to tell it
    #[arg(long, default_value = "5s", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,
    #[command(flatten)]
    network: Network,
}

/// A group that was left.
#[derive(Debug, Serialize)]
struct Left {
    #[serde(flatten)]
    done: Done,
    /// True if another member was told.
    told: bool,
}

pub(super) async fn leave(app: &App, args: Leave) -> Result<()> {
    let store = app.store_of_groups().await?;
    let groups = store.groups().await?;
    let group = pick(&groups, Some(&args.group)).await?;
    if !args.force {
        check_left(&group).await?;
    }
    let done = done(&group).await?;
    let others = group.people().await?;
    let others = others.iter().any(|person| !person.is_you && !person.is_out);
    let told = match others && group.standing() == Standing::Member && !args.timeout.is_zero() {
        true => {
            let replicator = groups::start(app, &store, args.network).await?;
            let told = tell(&group, &replicator, args.timeout).await;
            replicator.shutdown().await;
            told?
        }
        false => false,
    };
    groups.leave(group.id()).await?;
    let left = Left { done, told };
    app.out
        .result(&left, format_args!("left {}", Shown(&left.done.group)))?;
    if others && !left.told {
        app.out.note(
            "no other member could be told: for them this store is still in the group, until one removes it",
        );
    }
    app.out.note("`larder gc` frees the space");
    Ok(())
}

/// Says that this store leaves, to a member that is there; `false` if nobody is.
async fn tell(group: &Group, replicator: &Replicator, timeout: Duration) -> Result<bool> {
    let start = Instant::now();
    while replicator.status(group.id()).await?.peers.is_empty() {
        if start.elapsed() > timeout {
            return Ok(false);
        }
        groups::until_next_look().await;
    }
    group.resign().await.map_err(refused)?;
    // A member that has heard it ends the session.
    while !replicator.status(group.id()).await?.peers.is_empty() {
        if start.elapsed() > 2 * timeout {
            return Ok(false);
        }
        groups::until_next_look().await;
    }
    Ok(true)
}

/// Whoever leaves can never write that repo again, and the files may be nowhere else.
async fn check_left(group: &Group) -> Result<()> {
    let mut files = 0;
    for repo in group.repos().await?.iter().filter(|repo| repo.is_ours()) {
        files = u64::saturating_add(files, repo.root().await?.files);
    }
    if files > 0 {
        return Err(Problem::new(
            format!("your repo has {files} file(s), which may be nowhere else"),
            "`larder sync` gives them to others, `larder get` writes them out; then --force",
        )
        .into());
    }
    Ok(())
}
