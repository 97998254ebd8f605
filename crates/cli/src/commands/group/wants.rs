//! `larder group policy`, `pin` and `unpin`: what of others is kept here.

use anyhow::Result;
use futures_util::TryStreamExt;
use larder::groups::{Group, Groups, Member, Policy};
use serde::Serialize;

use crate::{
    app::App,
    args,
    groups::{Place, label, pick, place, short},
    output::{Bytes, Shown},
    problem::Problem,
};

/// The hint that is shown if only names are wanted.
pub(super) const STAYS: &str = "what is here stays where only names are wanted; with `larder group policy --pinned` \
     `larder group free` lets go of it";

/// The flags for what to want of others.
#[derive(Debug, clap::Args)]
pub(super) struct What {
    /// Keep all files
    #[arg(long, group = "what")]
    everything: bool,
    /// Keep only the names of files; their content comes when it is read, and stays
    #[arg(long, group = "what")]
    names: bool,
    /// Keep the names of files, and the content of pinned ones
    #[arg(long, group = "what")]
    pinned: bool,
    /// Keep files whose paths begin with this; may be given several times
    #[arg(long, value_name = "PATH", conflicts_with = "what")]
    prefix: Vec<String>,
    /// Keep files of at most this size in bytes, or with K, M, G or T, each 1,024 of the one before
    #[arg(long, value_name = "SIZE", conflicts_with = "what", value_parser = args::size)]
    up_to: Option<u64>,
}

impl What {
    /// Returns the policy that the flags ask for; `None` if there are none.
    pub(super) fn policy(&self) -> Option<Policy> {
        Some(match self {
            Self {
                everything: true, ..
            } => Policy::Everything,
            Self { names: true, .. } => Policy::Names,
            Self { pinned: true, .. } => Policy::Pinned,
            Self { prefix, up_to, .. } if !prefix.is_empty() || up_to.is_some() => {
                Policy::Selected {
                    prefixes: prefix.clone(),
                    up_to: up_to.unwrap_or(u64::MAX),
                }
            }
            _ => return None,
        })
    }
}

/// Show or choose which files of other members are kept here
///
/// Choosing less deletes nothing: `larder group free` does. Your own files always stay.
#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// GROUP, or GROUP/MEMBER for the files of one; may be left out if there is only one group
    place: Option<String>,
    #[command(flatten)]
    what: What,
    /// Go back to the default: everything of a group, and of a member what the group's policy says
    #[arg(long, group = "what", conflicts_with_all = ["prefix", "up_to"])]
    default: bool,
}

impl Set {
    /// Returns the choice that the flags make: `None` to only show the policy, `Some(None)` to go back to the default.
    fn policy(&self) -> Option<Option<Policy>> {
        match self.default {
            true => Some(None),
            false => self.what.policy().map(Some),
        }
    }
}

/// The policy, as a line.
#[derive(Debug, Serialize)]
struct Line {
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    /// The name of the policy; `null` if none was chosen.
    policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pinned: Vec<String>,
}

impl Line {
    async fn of(group: &Group, member: Option<&Member>, policy: Option<Policy>) -> Result<Self> {
        let mut line = Self {
            group: label(group).await?,
            member: member.map(called),
            policy: policy.as_ref().map(|policy| match policy {
                Policy::Everything => "everything",
                Policy::Selected { .. } => "selected",
                Policy::Names => "names",
                Policy::Pinned => "pinned",
                _ => "another",
            }),
            prefixes: Vec::new(),
            up_to: None,
            pinned: Vec::new(),
        };
        if let Some(Policy::Selected { prefixes, up_to }) = policy {
            line.prefixes = prefixes;
            line.up_to = (up_to < u64::MAX).then_some(up_to);
        }
        if let Some(member) = member {
            line.pinned = member.repo.pinned().await?.into_iter().collect();
        }
        Ok(line)
    }

    fn text(&self) -> String {
        let whose = match &self.member {
            Some(member) => format!("{}/{}", Shown(&self.group), Shown(member)),
            None => Shown(&self.group).to_string(),
        };
        let what = match self.policy {
            None if self.member.is_some() => "as of the group".to_owned(),
            None => "everything, as nothing was said".to_owned(),
            Some("names") => "names; contents when they are read, and then they stay".to_owned(),
            Some("pinned") => "names, and what is pinned".to_owned(),
            Some("selected") => {
                let prefixes: Vec<_> = self.prefixes.iter().map(|p| Shown(p).to_string()).collect();
                let paths = match prefixes.is_empty() {
                    true => "any path".to_owned(),
                    false => format!("paths that begin with {}", prefixes.join(" or ")),
                };
                match self.up_to {
                    Some(up_to) => format!("{paths}, up to {}", Bytes(up_to)),
                    None => paths,
                }
            }
            Some(other) => other.to_owned(),
        };
        let mut text = format!("{whose}: {what}");
        for path in &self.pinned {
            text.push_str(&format!("\n  pinned: {}", Shown(path)));
        }
        text
    }
}

fn called(member: &Member) -> String {
    let key = || short(&member.repo.key());
    member.name.clone().unwrap_or_else(key)
}

pub(super) async fn policy(app: &App, args: Set) -> Result<()> {
    let store = app.store_of_groups().await?;
    let groups = store.groups().await?;
    let (group, member) = match &args.place {
        None => (pick(&groups, None).await?, None),
        Some(text) => match found(&groups, text).await? {
            Place {
                path: Some(path), ..
            } => {
                return Err(Problem::usage(
                    format!("a policy is for a group or a member, and not for {path:?}"),
                    "use --prefix, or `larder group pin`",
                )
                .into());
            }
            Place { group, member, .. } => (group, member),
        },
    };
    let asked = args.policy();
    if let Some(policy) = &asked {
        match &member {
            Some(member) => member.repo.set_policy(policy.clone()).await?,
            None => group.set_policy(policy.clone()).await?,
        }
    }
    let policy = match &member {
        Some(member) => member.repo.policy().await?,
        None => group.policy().await?,
    };
    let line = Line::of(&group, member.as_ref(), policy.clone()).await?;
    app.out.result(&line, line.text())?;
    if asked.is_some() {
        app.out.note(match policy {
            Some(Policy::Names) => STAYS,
            _ => "`larder sync` fetches what is wanted; `larder group free` lets go of what is not",
        });
    }
    if member.is_none() && asked.is_none() {
        for member in group.members().await? {
            let (policy, pinned) = (member.repo.policy().await?, member.repo.pinned().await?);
            if policy.is_some() || !pinned.is_empty() {
                let line = Line::of(&group, Some(&member), policy).await?;
                app.out.result(&line, line.text())?;
            }
        }
    }
    Ok(())
}

/// Paths to pin, or not to pin any more.
#[derive(Debug, clap::Args)]
pub(super) struct Paths {
    /// GROUP/MEMBER/PATH: a file, or everything below a folder
    #[arg(required = true, value_name = "GROUP/MEMBER/PATH")]
    places: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Pinned {
    group: String,
    member: String,
    path: String,
    pinned: bool,
    /// True if it was pinned before.
    was_pinned: bool,
}

pub(super) async fn pin(app: &App, paths: Paths, is_pinned: bool) -> Result<()> {
    let store = app.store_of_groups().await?;
    let groups = store.groups().await?;
    let mut all = Vec::new();
    for text in &paths.places {
        let place = found(&groups, text).await?;
        let (Some(member), Some(path)) = (place.member, place.path) else {
            return Err(Problem::usage(
                format!("{text:?} names no path of a member"),
                "write GROUP/MEMBER/PATH; `larder ls GROUP/MEMBER` shows the paths",
            )
            .into());
        };
        all.push((place.group, member, path));
    }
    for (group, member, path) in all {
        let was_pinned = member.repo.pinned().await?.contains(&path);
        match is_pinned {
            true => member.repo.pin(&path).await?,
            false => member.repo.unpin(&path).await?,
        }
        if is_pinned && !has_path(&member, &path).await? {
            app.out.note(format_args!(
                "{} of {} has no {} now: whatever comes under that path is kept",
                Shown(&called(&member)),
                Shown(&label(&group).await?),
                Shown(&path)
            ));
        }
        let line = Pinned {
            group: label(&group).await?,
            member: called(&member),
            path,
            pinned: is_pinned,
            was_pinned,
        };
        let (path, member) = (Shown(&line.path), Shown(&line.member));
        let text = match (is_pinned, was_pinned) {
            (true, _) => format!("pinned {path} of {member}"),
            (false, true) => format!("unpinned {path} of {member}"),
            (false, false) => format!("{path} of {member} was not pinned"),
        };
        app.out.result(&line, text)?;
    }
    Ok(())
}

/// Returns true if a member has a file of this path, or any below it, as far as is known here.
async fn has_path(member: &Member, path: &str) -> Result<bool> {
    let folder = path.trim_end_matches('/');
    let mut files = member.repo.list(folder).await?;
    while let Some(file) = files.try_next().await? {
        let rest = file.name.as_str().strip_prefix(folder);
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn found(groups: &Groups, text: &str) -> Result<Place> {
    let found = place(groups, text).await?;
    Ok(found.ok_or_else(|| {
        Problem::new(
            format!("this store is in no group that {text:?} begins with"),
            "`larder group ls` shows its groups",
        )
    })?)
}
