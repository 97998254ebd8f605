//! `larder group create`, `join` and `rename`: your groups, and your name in them.

use std::time::Duration;

use anyhow::Result;
use larder::{
    Store,
    groups::{Group, Groups, Invite, InviteKind, Repo, Standing},
};
use serde::Serialize;

use super::{Done, wants};
use crate::{
    app::{App, SecretsKey, secrets_key},
    args,
    groups::{self, MemberName, Network, free_name, label, pick, place, short},
    output::Shown,
    problem::Problem,
};

/// Make a group, with a repo of yours in it
///
/// Only members see its name. `larder group invite` lets others in.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Name of the group; only its members see it
    #[arg(value_parser = args::label)]
    name: String,
    #[command(flatten)]
    member: MemberName,
}

/// Join a group by an invite
///
/// Joining again adds any further access that the invite gives. It changes your name and what is kept here only if
/// you ask for that.
#[derive(Debug, clap::Args)]
pub(super) struct Join {
    /// The invite; `-` reads it from standard input, which hides it from other programs
    invite: String,
    #[command(flatten)]
    member: MemberName,
    #[command(flatten)]
    what: wants::What,
    /// Time to wait for a member who lets this store in; `larder sync` waits for that too
    #[arg(long, default_value = "5s", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,
    #[command(flatten)]
    network: Network,
}

/// Rename a group, or yourself in a group, for all members
///
/// Any member that may write to the group may rename it; only you can rename yourself.
#[derive(Debug, clap::Args)]
pub(super) struct Rename {
    /// GROUP, or GROUP/MEMBER for your own name in it
    place: String,
    /// The new name
    #[arg(value_parser = args::label)]
    name: String,
}

pub(super) async fn create(app: &App, args: Create) -> Result<()> {
    let store = app.store().await?;
    let groups = store.groups().await?;
    let taken = names(&groups).await?;
    if taken.contains(&args.name) {
        let other = free_name(&args.name, &taken);
        return Err(Problem::new(
            format!("this store is in a group {:?} already", args.name),
            format!("choose another name, for example {other:?}"),
        )
        .into());
    }
    let member = args.member.get();
    let (group, _) = made(&groups, &args.name, &member).await?;
    let done = Done {
        group: args.name,
        id: group.id().to_string(),
        member: Some(member),
    };
    app.out.result(
        &done,
        format_args!(
            "made the group {} ({}); you are {} in it",
            Shown(&done.group),
            short(&group.id()),
            Shown(done.member.as_deref().unwrap_or_default())
        ),
    )?;
    app.out.note(
        "`larder put PATH` adds files, `larder group invite` lets others in, `larder sync` meets them",
    );
    say_backup(app)
}

/// Makes a group with a repo of ours, or nothing.
pub(crate) async fn made(groups: &Groups, name: &str, member: &str) -> Result<(Group, Repo)> {
    let group = groups.create_group(name).await?;
    match group.create_repo(member).await {
        Ok(repo) => Ok((group, repo)),
        Err(error) => {
            // Nobody knows of it yet.
            if let Err(error) = groups.leave(group.id()).await {
                tracing::warn!(%error, "a group without a repo stays");
            }
            Err(error.into())
        }
    }
}

/// Returns the names of the groups of this store that can be read.
pub(crate) async fn names(groups: &Groups) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for group in groups.groups() {
        names.extend(groups::name_of_group(&group).await?);
    }
    Ok(names)
}

/// A group that was joined, perhaps again.
#[derive(Debug, Serialize)]
struct Joined {
    #[serde(flatten)]
    done: Done,
    /// True if this store was in the group before.
    again: bool,
    /// True until a member has let this store in.
    waiting: bool,
}

/// Returns true if a member has let this store in by the invite.
fn is_let_in(group: &Group, invite: &Invite) -> bool {
    let key = invite.seed().public();
    let invites = group.invites();
    let found = invites.iter().find(|known| known.key == key);
    let is_used = found.is_some_and(|known| known.used_by.contains(&group.device()));
    group.standing() == Standing::Member && (is_used || invite.kind() == InviteKind::Recovery)
}

/// Waits for a member who lets this store in.
async fn let_in(
    app: &App,
    store: &Store,
    group: &Group,
    args: &Join,
    invite: &Invite,
) -> Result<()> {
    if is_let_in(group, invite) || args.timeout.is_zero() {
        return Ok(());
    }
    // Files come with `larder sync`.
    let network = args.network.with_names_only();
    let replicator = groups::start(app, store, network).await?;
    let waiting = async {
        while !is_let_in(group, invite) {
            groups::until_next_look().await;
        }
    };
    // Whoever is not met in time is met later.
    drop(tokio::time::timeout(args.timeout, waiting).await);
    replicator.shutdown().await;
    Ok(())
}

pub(super) async fn join(app: &App, args: Join) -> Result<()> {
    let invite = groups::read_invite(&args.invite).await?;
    if invite.kind() == InviteKind::Replica {
        return Err(Problem::usage(
            "this invite is for a replica, which keeps a copy of everything and reads none of it",
            "`larder serve --replica INVITE` keeps and serves that copy; to read, ask for an invite of another kind",
        )
        .into());
    }
    let store = app.store().await?;
    let groups = store.groups().await?;
    let before = groups.group(invite.group());
    let before_may_write = before.as_ref().map(Group::can_write);
    let group = groups.join(&invite).await?;
    if let Some(policy) = args.what.policy() {
        group.set_policy(policy).await?;
    }
    // Before it is let in, so that the others hear of both at once.
    let asked = own_name(&group, &invite, &args.member).await?;
    let_in(app, &store, &group, &args, &invite).await?;
    let member = match group.standing() {
        Standing::Member if group.can_read() => own_name(&group, &invite, &args.member).await?,
        _ => asked,
    };
    let waiting = group.standing() == Standing::Waiting;
    let verb = match before_may_write {
        _ if waiting => "waiting to be let in to",
        None => "joined",
        Some(false) if group.can_write() => "may now write in",
        Some(_) => "already in",
    };
    let joined = Joined {
        done: Done {
            group: label(&group).await?,
            id: group.id().to_string(),
            member,
        },
        again: before.is_some(),
        waiting,
    };
    let mut text = format!(
        "{verb} the group {} ({})",
        Shown(&joined.done.group),
        short(&group.id())
    );
    if let Some(member) = &joined.done.member {
        text += &format!("; you are {} in it", Shown(member));
    }
    app.out.result(&joined, text)?;
    let alike = names(&groups).await?;
    if alike
        .iter()
        .filter(|name| **name == joined.done.group)
        .count()
        > 1
    {
        app.out.note(format_args!(
            "another group here is called {} too: write {} for this one, or give one another name with \
             `larder group rename`",
            Shown(&joined.done.group),
            short(&group.id())
        ));
    }
    if waiting {
        app.out
            .note("no member was met who lets this store in: `larder sync` looks for one");
    }
    app.out
        .note("`larder sync` fetches what the others have, `larder ls` shows it");
    match joined.again {
        true => Ok(()),
        false => say_backup(app),
    }
}

/// Returns our name in a group that was joined: that of a new repo if there was none and the keys allow one;
/// the new one if a change was asked for. `None` without a repo.
async fn own_name(group: &Group, invite: &Invite, asked: &MemberName) -> Result<Option<String>> {
    let Some(own) = group.own_repo().await? else {
        // The repo of another device of ours comes with the group's record.
        let writes = matches!(invite.kind(), InviteKind::Write | InviteKind::Admin);
        if !writes && !group.can_write() {
            return Ok(None);
        }
        let name = asked.get();
        group.create_repo(&name).await?;
        return Ok(Some(name));
    };
    let name = match group.can_read() {
        true => own.name().await?,
        false => None,
    };
    match asked.asked() {
        Some(asked) if name.as_deref() != Some(asked) => {
            own.set_name(asked).await?;
            Ok(Some(asked.to_owned()))
        }
        _ => Ok(name),
    }
}

pub(super) async fn rename(app: &App, args: Rename) -> Result<()> {
    let store = app.store_of_groups().await?;
    let groups = store.groups().await?;
    let found = place(&groups, &args.place).await?;
    let (group, member) = match found {
        Some(found) if found.path.is_none() => (found.group, found.member),
        Some(_) => {
            return Err(Problem::usage(
                format!("{:?} is neither a group nor a member", args.place),
                "write GROUP or GROUP/MEMBER",
            )
            .into());
        }
        // Says what there is.
        None => (pick(&groups, Some(&args.place)).await?, None),
    };
    match &member {
        Some(member) if member.repo.is_ours() => member.repo.set_name(&args.name).await?,
        Some(_) => {
            return Err(Problem::new(
                "only a member can give itself another name",
                "`larder group members` shows which one you are",
            )
            .into());
        }
        None if !group.can_write() => {
            return Err(Problem::new(
                "you may not write in this group, and not rename it",
                "ask a member who may write",
            )
            .into());
        }
        None if names(&groups).await?.contains(&args.name) => {
            return Err(Problem::new(
                format!("this store is in a group {:?} already", args.name),
                "choose another name",
            )
            .into());
        }
        None => group.set_name(&args.name).await?,
    }
    let done = Done {
        group: label(&group).await?,
        id: group.id().to_string(),
        member: member.map(|_| args.name.clone()),
    };
    let text = match &done.member {
        Some(member) => format!("you are {} in {} now", Shown(member), Shown(&done.group)),
        None => format!("the group is called {} now", Shown(&done.group)),
    };
    app.out.result(&done, text)?;
    app.out
        .note("others see it when they meet this store: `larder sync`");
    Ok(())
}

/// Says which file must not be lost.
pub(crate) fn say_backup(app: &App) -> Result<()> {
    if app.url()?.scheme() == "redb"
        && let SecretsKey::File(path) = secrets_key()?
    {
        app.out.note(format_args!(
            "back up {}: without it the groups of this store cannot be opened again",
            Shown(&path.display().to_string())
        ));
    }
    Ok(())
}
