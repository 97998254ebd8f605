//! `larder group members`, `remove` and `allow`: who is in a group, and with which rights.

use anyhow::Result;
use larder::{
    api::PublicKey,
    groups::{Group, Person, Removal, Rights},
};
use serde::Serialize;

use crate::{
    app::App,
    groups::{label, pick, short},
    output::{Count, Shown},
    problem::Problem,
};

/// The fewest characters of a key that stand for it.
const MIN_KEY: usize = 4;

/// A member, as a line.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// The name, or the beginning of the key where none is known.
    name: String,
    key: String,
    /// `admin`, `write`, `read`, `replica`, or `out`.
    rights: &'static str,
    you: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    invited_by: Option<String>,
    /// The time at which the rights end, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    devices: Vec<Device>,
    repos: Vec<String>,
    files: u64,
}

#[derive(Debug, Serialize)]
struct Device {
    key: String,
    out: bool,
}

/// The rights in a word.
pub(super) fn word(rights: Rights) -> &'static str {
    match rights {
        rights if rights.covers(Rights::REMOVE | Rights::INVITE) => "admin",
        rights if rights.covers(Rights::REMOVE) => "remove",
        rights if rights.covers(Rights::INVITE) => "invite",
        rights if rights.covers(Rights::WRITE) => "write",
        rights if rights.covers(Rights::READ) => "read",
        rights if rights.covers(Rights::REPLICA) => "replica",
        _ => "none",
    }
}

/// Returns what a person is called: by the name, or else by the key.
fn called(person: &Person) -> String {
    let name = person.name.as_deref().filter(|name| !name.is_empty());
    name.map_or_else(|| short(&person.key), str::to_owned)
}

async fn line_of(group: &Group, people: &[Person], person: &Person) -> Result<Line> {
    let mut files = 0_u64;
    for repo in &person.repos {
        if let Some(repo) = group.repo(*repo).await? {
            files = files.saturating_add(repo.root().await?.files);
        }
    }
    let inviter = person.invited_by.and_then(|by| {
        let has = |person: &&Person| person.devices.iter().any(|device| device.key == by);
        people.iter().find(has)
    });
    Ok(Line {
        name: called(person),
        key: person.key.to_string(),
        rights: match person.is_out {
            true => "out",
            false => word(person.rights),
        },
        you: person.is_you,
        invited_by: inviter.map(called),
        until: person.until,
        devices: person
            .devices
            .iter()
            .map(|device| Device {
                key: device.key.to_string(),
                out: device.is_out,
            })
            .collect(),
        repos: person.repos.iter().map(ToString::to_string).collect(),
        files,
    })
}

impl Line {
    fn text(&self) -> String {
        let you = if self.you { " (you)" } else { "" };
        let mut text = format!("{}{you}: ", Shown(&self.name));
        text += match self.rights {
            "out" => "was removed, or has left",
            rights => rights,
        };
        text += &format!(", {} device(s)", Count(self.devices.len() as u64));
        if !self.repos.is_empty() {
            text += &format!(", {} file(s)", Count(self.files));
        }
        if let Some(by) = &self.invited_by {
            text += &format!(", invited by {}", Shown(by));
        }
        text
    }
}

pub(super) async fn members(app: &App, group: Option<&str>) -> Result<()> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, group).await?;
    let people = group.people().await?;
    for person in &people {
        let line = line_of(&group, &people, person).await?;
        app.out.result(&line, line.text())?;
    }
    if people.is_empty() {
        app.out
            .note("nobody was met yet: `larder sync` meets those who can be reached");
    }
    Ok(())
}

/// Take somebody out of a group
///
/// Whatever is added from now on is sealed with a key that they do not have, and their files stay as they are known
/// here. What they have, they keep.
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The group
    group: String,
    /// The member: a name, or the beginning of a key that `larder group members` shows
    member: String,
    /// Remove only this device of the member: the beginning of its key
    #[arg(long, value_name = "KEY")]
    device: Option<String>,
    /// Remove those too who came by the member
    #[arg(long)]
    with_invited: bool,
}

/// Give somebody other rights, or confirm a device that used an invite
#[derive(Debug, clap::Args)]
pub(super) struct Allow {
    /// The group
    group: String,
    /// The member: a name, or the beginning of a key that `larder group members` or `larder group invites` shows
    member: String,
    #[command(flatten)]
    rights: To,
}

/// The rights to give.
#[derive(Debug, Clone, Copy, clap::Args)]
#[group(required = true, multiple = false)]
struct To {
    /// Read and add files
    #[arg(long)]
    write: bool,
    /// Read only
    #[arg(long)]
    read: bool,
    /// Keep a copy of everything, and read none of it
    #[arg(long)]
    replica: bool,
    /// Invite and remove others too
    #[arg(long)]
    admin: bool,
}

impl To {
    fn rights(self) -> Rights {
        match self {
            Self { admin: true, .. } => Rights::ADMIN,
            Self { read: true, .. } => Rights::READ,
            Self { replica: true, .. } => Rights::REPLICA,
            _ => Rights::WRITE,
        }
    }
}

/// The outcome for a member.
#[derive(Debug, Serialize)]
struct Done {
    group: String,
    member: String,
    devices: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rights: Option<&'static str>,
    files: u64,
}

/// The keys that are meant by the beginning of one.
fn meant(keys: impl Iterator<Item = PublicKey>, text: &str) -> Vec<PublicKey> {
    let is_meant = |key: &PublicKey| text.len() >= MIN_KEY && key.to_string().starts_with(text);
    keys.filter(is_meant).collect()
}

/// Finds a person by name or key.
async fn find(group: &Group, text: &str) -> Result<Person> {
    let people = group.people().await?;
    let mut found: Vec<_> = people
        .iter()
        .filter(|person| person.name.as_deref() == Some(text) && !person.is_out)
        .collect();
    if found.is_empty() {
        found = people
            .iter()
            .filter(|person| {
                let devices = person.devices.iter().map(|device| device.key);
                let keys = devices.chain(person.repos.iter().copied());
                !meant(keys.chain([person.key]), text).is_empty()
            })
            .collect();
    }
    match found[..] {
        [person] => Ok(person.clone()),
        [] => Err(Problem::new(
            format!("{} has no member {text:?}", Shown(&label(group).await?)),
            "`larder group members` shows them",
        )
        .into()),
        _ => {
            let mut what = format!("{} members may be meant by {text:?}", found.len());
            for person in found {
                what += &format!("\n  {}  {}", short(&person.key), Shown(&called(person)));
            }
            let advice = "write the beginning of a key instead of the name";
            Err(Problem::usage(what, advice).into())
        }
    }
}

pub(super) async fn remove(app: &App, args: Remove) -> Result<()> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, Some(&args.group)).await?;
    let person = find(&group, &args.member).await?;
    if person.is_you && args.device.is_none() {
        return Err(Problem::usage(
            "that is you",
            "`larder group leave` leaves the group; --device removes another device of yours",
        )
        .into());
    }
    let who = match &args.device {
        None => person.key,
        Some(text) => {
            let devices = person.devices.iter().filter(|device| !device.is_out);
            match meant(devices.map(|device| device.key), text)[..] {
                [device] => device,
                _ => {
                    return Err(Problem::usage(
                        format!(
                            "no single device of {} is meant by {text:?}",
                            called(&person)
                        ),
                        "`larder --json group members` shows their keys",
                    )
                    .into());
                }
            }
        }
    };
    let mut how = Removal::new();
    how.with_invited = args.with_invited;
    let removed = group.remove(who, how).await.map_err(refused)?;
    let files = removed.frozen.iter().map(|(_, root)| root.files);
    let done = Done {
        group: label(&group).await?,
        member: called(&person),
        devices: removed.devices.iter().map(ToString::to_string).collect(),
        rights: None,
        files: files.fold(0, u64::saturating_add),
    };
    let mut text = format!(
        "{} ({} device(s)) is out of {}",
        Shown(&done.member),
        Count(done.devices.len() as u64),
        Shown(&done.group)
    );
    if done.files > 0 {
        text += &format!(
            "; {} file(s) stay as they are known here",
            Count(done.files)
        );
    }
    app.out.result(&done, text)?;
    app.out.note(TOLD);
    Ok(())
}

/// Whatever was said is known here, and nowhere else yet.
pub(super) const TOLD: &str =
    "no other device knows yet: `larder sync` tells those that it meets, and they tell others";

pub(super) async fn allow(app: &App, args: Allow) -> Result<()> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, Some(&args.group)).await?;
    let invites = group.invites();
    let waiting = invites
        .iter()
        .flat_map(|invite| invite.waiting.iter().copied());
    let (member, devices) = match &meant(waiting, &args.member)[..] {
        [device] => (short(device), vec![*device]),
        _ => {
            let person = find(&group, &args.member).await?;
            let devices = person.devices.iter();
            let devices = devices.filter(|device| person.is_out || !device.is_out);
            let devices = devices.map(|device| device.key).collect();
            (called(&person), devices)
        }
    };
    let rights = args.rights.rights();
    for device in &devices {
        group.allow(*device, rights).await.map_err(refused)?;
    }
    let done = Done {
        group: label(&group).await?,
        member,
        devices: devices.iter().map(ToString::to_string).collect(),
        rights: Some(word(rights)),
        files: 0,
    };
    let text = format!(
        "{} has the rights of {} in {} now",
        Shown(&done.member),
        word(rights),
        Shown(&done.group)
    );
    app.out.result(&done, text)?;
    app.out.note(TOLD);
    Ok(())
}

/// Says why something may not be done.
pub(super) fn refused(error: larder::Error) -> anyhow::Error {
    match error.kind() {
        larder::Kind::Denied => Problem::new(
            format!("you may not do this: {}", error.message()),
            "`larder group members` shows who may",
        )
        .into(),
        larder::Kind::Unavailable => {
            Problem::new(error.message().to_owned(), "`larder sync` meets the others").into()
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_have_a_word() {
        let words = [Rights::REPLICA, Rights::READ, Rights::WRITE, Rights::ADMIN].map(word);
        assert_eq!(words, ["replica", "read", "write", "admin"]);
        assert_eq!(word(Rights::INVITE), "invite");
        assert_eq!(word(Rights::NONE), "none");
    }

    #[test]
    fn too_few_characters_mean_nobody() {
        let keys = [PublicKey([0xaa; 32]), PublicKey([0xab; 32])];
        assert!(meant(keys.into_iter(), "aaa").is_empty());
        assert_eq!(meant(keys.into_iter(), "aaaa"), [keys[0]]);
    }
}
