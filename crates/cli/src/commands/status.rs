//! `larder status`: the sync state of this store's groups. It asks no peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use indicatif::HumanDuration;
use larder::{
    Store,
    api::PublicKey,
    groups::{Group, Lack, MemberStatus, Policy, Repo, Rights, Standing},
};
use serde::Serialize;

use crate::{
    app::App,
    groups::{self, of_repo, pick, short},
    output::{Bytes, Count, Shown},
    problem::Exit,
};

/// Show the sync state of this store's groups
///
/// Shows the files that this store knows of and has, without asking any peer; `larder sync` asks. With -v, it lists
/// also the addresses at which it looks for members.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A group (default: all groups of this store)
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

/// A group, over what is known of it.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "group")]
struct Head {
    group: String,
    id: String,
    members: usize,
    /// The access of this store: `write`, `read` or `replica`.
    access: &'static str,
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
    /// Its key; `null` if no device of the member is known.
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
    fn of(group: &str, names: &Names, status: MemberStatus) -> Self {
        Self {
            group: group.to_owned(),
            member: status.repo.map(|repo| name_of(names, repo)),
            device: status.device.map(|device| device.to_string()),
            last_contact: status.last_contact,
            in_sync_since: status.in_sync_since,
            they_have: status.they_have.into(),
            we_have: status.we_have.into(),
        }
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
        // Its files are not known, and it may lack everything.
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

/// Times that differ by less than this count as equal in the output, in milliseconds.
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
    let labels = groups::labels(&groups.groups()).await?;
    for group in chosen {
        let name = &labels[&group.id()];
        let names = groups::member_names(&group).await?;
        show(app, &store, &group, name, &names).await?;
        if app.out.verbose {
            show_addresses(app, &store, &group, name, &names).await?;
        }
    }
    Ok(Exit::Done)
}

/// The names of a group's members.
type Names = BTreeMap<PublicKey, String>;

fn name_of(names: &Names, repo: PublicKey) -> String {
    names.get(&repo).cloned().unwrap_or_else(|| short(&repo))
}

/// Returns the device that an address leads to.
fn device(address: &str) -> &str {
    address.split('?').next().unwrap_or(address)
}

async fn show_addresses(
    app: &App,
    store: &Store,
    group: &Group,
    name: &str,
    names: &Names,
) -> Result<()> {
    let routes = group.routes().await?;
    let repos = group.repos().await?.into_iter();
    let ours: BTreeSet<_> = repos.filter(Repo::is_ours).map(|repo| repo.key()).collect();
    // Nobody looks for this device here. It has told an address if it has met others.
    let own = match routes.iter().any(|(repo, _)| ours.contains(repo)) {
        true => Some(store.address().await?.to_string()),
        false => None,
    };
    let is_other = |address: &str| own.as_deref().map(device) != Some(device(address));
    let mut known = Vec::new();
    let addresses = group.addresses().into_iter();
    for address in addresses.filter(|address| is_other(address)) {
        known.push(Known {
            group: name.to_owned(),
            member: None,
            address,
            expires: None,
        });
    }
    let others = routes.into_iter();
    for (repo, route) in others.filter(|(_, route)| is_other(&route.address)) {
        known.push(Known {
            group: name.to_owned(),
            member: Some(name_of(names, repo)),
            address: route.address,
            expires: Some(route.expires),
        });
    }
    for known in known {
        app.out.result(&known, known.text())?;
    }
    Ok(())
}

async fn show(app: &App, store: &Store, group: &Group, name: &str, names: &Names) -> Result<()> {
    let (access, may) = match group.standing() {
        Standing::Waiting => ("waiting", "this store waits for a member to let it in"),
        Standing::Out => (
            "out",
            "this store is not in the group any more; what it has stays",
        ),
        _ if group.rights().covers(Rights::REMOVE) => ("admin", "you may write, invite and remove"),
        _ if group.can_write() => ("write", "you may write"),
        _ if group.can_read() => ("read", "you may read"),
        _ => ("replica", "a replica: nothing of it can be read here"),
    };
    let members = group.members().await?;
    let head = Head {
        group: name.to_owned(),
        id: group.id().to_string(),
        members: members.len(),
        access,
    };
    let text = format!("{}: {} member(s); {may}", Shown(name), head.members);
    app.out.result(&head, text)?;
    for member in members {
        let item = of_repo(store.blobs(), &member).await?;
        let state = member.repo.state(&Policy::Everything).await?;
        let missing = member.repo.missing(&Policy::Everything).await?;
        let is_newest = state.wanted.hash == state.announced.hash;
        let line = Line {
            group: name.to_owned(),
            member: name_of(names, member.repo.key()),
            is_ours: member.repo.is_ours(),
            files: item.files.unwrap_or(0),
            bytes: item.size,
            // A complete repo is here whatever policy was chosen meanwhile.
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
        groups::say_missing(app, name, &line.member, &missing)?;
    }
    for status in group.members_status(&Policy::Everything).await? {
        let short = status.device.map(|device| short(&device));
        let device = Device::of(name, names, status);
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
        // Its current state is not known.
        let said = device(now - 10_000, None).state();
        assert_eq!(
            said,
            "last here 10 seconds ago; lacked 3 file(s), 161 B then"
        );
    }
}
