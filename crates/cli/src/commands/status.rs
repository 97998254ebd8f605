//! `larder status`: how far this store is with its groups. Asks nobody.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use indicatif::HumanDuration;
use larder::groups::{Group, Lack, MemberStatus, Policy};
use serde::Serialize;

use crate::{
    app::App,
    groups::{self, label, member_name, of_repo, pick, short},
    output::{Bytes, Count, Shown},
    problem::Exit,
};

/// Shows what this store knows of and has, without asking anybody; `larder sync` asks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A group; without it, all of this store
    group: Option<String>,
}

/// The progress of a repo.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "repo")]
struct Line {
    group: String,
    member: String,
    is_ours: bool,
    files: u64,
    bytes: u64,
    /// True if the newest known tree is here, as far as it is wanted.
    here: bool,
    /// True if all of the tree is here.
    complete: bool,
    /// The number of files that are wanted and that nobody could give.
    missing: u64,
    /// Earlier states that are still named.
    earlier: usize,
}

/// The last known progress of a member's device.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "device")]
struct Device {
    group: String,
    /// The name of the device's member; `null` if no member tells that it is theirs.
    member: Option<String>,
    /// Its key; `null` where none of the member's is known.
    device: Option<String>,
    /// Milliseconds since 1970; `null` for never.
    last_contact: Option<i64>,
    /// Milliseconds since 1970; `null` while the device is not in sync.
    in_sync_since: Option<i64>,
    /// The files that the device has, and that are wanted and not here.
    they_have: Lacking,
    /// The files that are here and that the device lacks.
    we_have: Lacking,
}

#[derive(Debug, Serialize)]
struct Lacking {
    files: u64,
    bytes: u64,
    /// True if the numbers were counted.
    exact: bool,
}

impl From<Lack> for Lacking {
    fn from(lack: Lack) -> Self {
        Self {
            files: lack.files,
            bytes: lack.bytes,
            exact: lack.exact,
        }
    }
}

impl Lacking {
    /// Nothing, or what to say of it.
    fn text(&self, before: &str, after: &str) -> Option<String> {
        (self.files > 0 || !self.exact).then(|| {
            format!(
                "{before}{}{} file(s), {}{after}",
                if self.exact { "" } else { "about " },
                Count(self.files),
                Bytes(self.bytes)
            )
        })
    }
}

impl Device {
    async fn of(group: &Group, name: &str, status: MemberStatus) -> Result<Self> {
        Ok(Self {
            group: name.to_owned(),
            member: match status.repo {
                Some(repo) => Some(member_name(group, repo).await?),
                None => None,
            },
            device: status.device.map(|device| device.to_string()),
            last_contact: status.last_contact,
            in_sync_since: status.in_sync_since,
            they_have: status.they_have.into(),
            we_have: status.we_have.into(),
        })
    }

    fn text(&self, device: Option<String>) -> String {
        let whose = match (&self.member, device) {
            (Some(member), Some(device)) => format!("{} ({device})", Shown(member)),
            (Some(member), None) => Shown(member).to_string(),
            (None, device) => device.unwrap_or_default(),
        };
        let mut parts = vec![match self.last_contact {
            Some(last) => format!("last here {}", ago(last)),
            None => "never met".to_owned(),
        }];
        if self.last_contact.is_none() {
            // What it has is not known, and what it lacks may be everything.
        } else if let Some(since) = self.in_sync_since {
            parts.push(format!("in sync since {}", ago(since)));
        } else {
            parts.extend(self.they_have.text("has ", " more than is here"));
            parts.extend(self.we_have.text("lacks ", ""));
        }
        format!("  {whose:<20} {}", parts.join("; "))
    }
}

/// Returns the time that has passed since a time in milliseconds since 1970.
fn ago(time: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    match u64::try_from(now.saturating_sub(time)) {
        Ok(passed) if passed >= 1000 => {
            format!("{} ago", HumanDuration(Duration::from_millis(passed)))
        }
        // Another clock may be ahead.
        _ => "just now".to_owned(),
    }
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let groups = store.groups().await?;
    let chosen = match &args.group {
        None if !groups.groups().is_empty() => groups.groups(),
        text => vec![pick(&groups, text.as_deref()).await?],
    };
    for group in chosen {
        show(app, &group).await?;
    }
    Ok(Exit::Done)
}

async fn show(app: &App, group: &Group) -> Result<()> {
    let name = label(group).await?;
    let may = match (
        group.keys().secret().is_some(),
        group.keys().read().is_some(),
    ) {
        (true, _) => "you may write",
        (_, true) => "you may read",
        _ => "a replica: nothing of it can be read here",
    };
    let members = group.members().await?;
    app.out.heading(format_args!(
        "{}: {} member(s); {may}",
        Shown(&name),
        members.len()
    ))?;
    for member in members {
        let item = of_repo(&member).await?;
        let state = member.repo.state(&Policy::Everything).await?;
        let missing = member.repo.missing(&Policy::Everything).await?;
        let is_newest = state.wanted.hash == state.announced.hash;
        let line = Line {
            group: name.clone(),
            member: item.name.clone(),
            is_ours: member.repo.is_ours(),
            files: item.files.unwrap_or(0),
            bytes: item.size,
            here: state.is_here(),
            complete: item.complete,
            missing: missing.files,
            earlier: member.repo.history().await?.len(),
        };
        let state = match (line.is_ours, line.here, line.complete) {
            (true, true, _) => "yours".to_owned(),
            (true, false, _) if is_newest => {
                format!("yours, but for {} file(s)", Count(line.missing))
            }
            (_, true, true) => "here".to_owned(),
            (_, true, false) => "here as far as it is wanted".to_owned(),
            (_, false, _) if is_newest => format!("here but for {} file(s)", Count(line.missing)),
            (_, false, _) => "a newer state is known and not here yet: `larder sync`".to_owned(),
        };
        let text = format!(
            "  {:<20} {:>9} file(s) {:>10}  {state}",
            Shown(&line.member).to_string(),
            Count(line.files),
            Bytes(line.bytes)
        );
        app.out.result(&line, text)?;
        groups::say_missing(app, &name, &line.member, &missing)?;
    }
    for status in group.members_status(&Policy::Everything).await? {
        let short = status.device.map(|device| short(&device));
        let device = Device::of(group, &name, status).await?;
        app.out.result(&device, device.text(short))?;
    }
    Ok(())
}
