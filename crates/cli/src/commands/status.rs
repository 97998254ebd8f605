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

/// Show how far this store is with its groups
///
/// Shows what this store knows of and has, without asking anybody; `larder sync` asks. With -v, it lists
/// the addresses too at which members are looked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A group; without it, all of this store
    group: Option<String>,
}

/// An address at which a member is looked for.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "address")]
struct Known {
    group: String,
    /// The member who tells it; `null` for one of an invite.
    member: Option<String>,
    address: String,
    /// Milliseconds since 1970, when it is no longer valid; `null` for one of an invite.
    expires: Option<i64>,
}

impl Known {
    fn text(&self) -> String {
        let whose = match &self.member {
            Some(member) => Shown(member).to_string(),
            None => "by an invite".to_owned(),
        };
        let places = groups::places(&self.address).join(", ");
        let places = match places.is_empty() {
            true => "looked for by key alone".to_owned(),
            false => format!("looked for at {}", Shown(&places)),
        };
        let over = self.expires.is_some_and(|expires| expires <= now());
        format!(
            "  {whose:<20} {places}{}",
            if over { " (out of date)" } else { "" }
        )
    }
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
        format!("  {whose:<20} {}", self.state())
    }

    fn state(&self) -> String {
        // What it has is not known, and what it lacks may be everything.
        let Some(last) = self.last_contact else {
            return "never met".to_owned();
        };
        match self.in_sync_since {
            // It is in sync with what was said last, whenever it was that the two were compared.
            Some(since) if last.saturating_sub(since) < A_MOMENT => {
                format!("in sync when last here, {}", ago(last))
            }
            Some(since) => format!("in sync since {}; last here {}", ago(since), ago(last)),
            None => {
                let mut parts = vec![format!("last here {}", ago(last))];
                // It may have more by now, and lack less.
                parts.extend(self.they_have.text("had ", " more than is here"));
                parts.extend(self.we_have.text("lacked ", " then"));
                parts.join("; ")
            }
        }
    }
}

/// A difference between two times that is none to people, in milliseconds.
const A_MOMENT: i64 = 60_000;

/// Returns the time now, in milliseconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// Returns the time that has passed since a time in milliseconds since 1970.
fn ago(time: i64) -> String {
    match u64::try_from(now().saturating_sub(time)) {
        Ok(passed) if passed >= 1000 => {
            format!("{} ago", HumanDuration(Duration::from_millis(passed)))
        }
        // Another clock may be ahead.
        _ => "just now".to_owned(),
    }
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.store_of_groups().await?;
    let groups = store.groups().await?;
    let chosen = match &args.group {
        None if !groups.groups().is_empty() => groups.groups(),
        text => vec![pick(&groups, text.as_deref()).await?],
    };
    for group in chosen {
        show(app, &group).await?;
        if app.out.verbose {
            show_addresses(app, &group).await?;
        }
    }
    Ok(Exit::Done)
}

async fn show_addresses(app: &App, group: &Group) -> Result<()> {
    let name = label(group).await?;
    let mut known = Vec::new();
    for address in group.addresses() {
        known.push(Known {
            group: name.clone(),
            member: None,
            address,
            expires: None,
        });
    }
    for (repo, route) in group.routes().await? {
        known.push(Known {
            group: name.clone(),
            member: Some(member_name(group, repo).await?),
            address: route.address,
            expires: Some(route.expires),
        });
    }
    for known in known {
        app.out.result(&known, known.text())?;
    }
    Ok(())
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
            // What is all here is here whatever was chosen meanwhile.
            here: state.is_here() || item.complete,
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
            (_, false, _) if state.local.hash == state.announced.hash => {
                "its names are here: `larder sync` fetches what is wanted of it".to_owned()
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn device(last: i64, since: Option<i64>) -> Device {
        let lacking = |files| Lacking {
            files,
            bytes: 161,
            exact: true,
        };
        Device {
            group: "g".to_owned(),
            member: Some("cleo".to_owned()),
            device: None,
            last_contact: Some(last),
            in_sync_since: since,
            they_have: lacking(0),
            we_have: lacking(3),
        }
    }

    #[test]
    fn two_times_that_are_nearly_one_are_said_as_one() {
        let now = now();
        let said = device(now - 10_000, Some(now - 5_000)).state();
        assert_eq!(said, "in sync when last here, 10 seconds ago");
        let said = device(now - 7_200_000, Some(now - 3 * 86_400_000)).state();
        assert_eq!(said, "in sync since 3 days ago; last here 2 hours ago");
        // What it lacks now nobody knows.
        let said = device(now - 10_000, None).state();
        assert_eq!(
            said,
            "last here 10 seconds ago; lacked 3 file(s), 161 B then"
        );
    }
}
