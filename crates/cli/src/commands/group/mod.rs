//! `larder group`: private groups, and who is in them.

mod free;
mod wants;

use anyhow::Result;
use clap::{Subcommand, builder::NonEmptyStringValueParser};
use larder::{
    Store,
    groups::{Group, network::Address},
};
use serde::Serialize;

use crate::{
    app::App,
    groups::{self, Kind, known, label, of_group, of_repo, pick, short},
    item::Item,
    output::Shown,
    problem::{Exit, Problem},
};

/// A group's members see all that any of them puts into it, and nobody else sees anything. Each
/// member writes a repo of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a group, with a repo of yours in it
    Create {
        /// Name of the group; only its members see it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        member: MemberName,
    },
    /// Print an invite to a group, for one person
    Invite {
        /// The group; may be left out where there is one
        group: Option<String>,
        /// To read, and not to add anything
        #[arg(long, group = "kind")]
        read: bool,
        /// To keep a copy that cannot be read, as a backup
        #[arg(long, group = "kind")]
        replica: bool,
        /// For another device of yours, which writes your repo too
        #[arg(long, group = "kind")]
        device: bool,
        /// Show it as a QR code too
        #[arg(long)]
        qr: bool,
        /// Address at which this device can be reached, as `larder sync --watch` says it; without
        /// it, it is looked for by its key
        #[arg(long, value_name = "ADDRESS")]
        at: Vec<String>,
    },
    /// Join a group by an invite
    Join {
        /// The invite; `-` reads it from standard input, which other programs do not see
        invite: String,
        #[command(flatten)]
        member: MemberName,
    },
    /// List the groups of this store
    Ls,
    /// List the members of a group, with what they have put into it
    Members {
        /// The group; may be left out where there is one
        group: Option<String>,
    },
    /// Show or choose what of others' files is kept here
    Policy(wants::Set),
    /// Keep files of others here whatever the policy is
    Pin(wants::Paths),
    /// Take a pin back
    Unpin(wants::Paths),
    /// Delete files of others that the policy does not want, but no last copy
    Free(free::Args),
    /// Leave a group: what this store has of it goes with the next `larder gc`
    Leave {
        /// The group
        group: String,
        /// Also where your repo has files, which others may not have
        #[arg(long)]
        force: bool,
    },
}

/// The option for your own name.
#[derive(Debug, clap::Args)]
struct MemberName {
    /// Your name in the group; without it, your name on this machine
    #[arg(id = "member", long = "as", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
}

impl MemberName {
    fn get(self) -> String {
        let variables = ["USER", "USERNAME", "LOGNAME"];
        let known = || variables.iter().find_map(|name| std::env::var(name).ok());
        let name = self.name.or_else(known).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| "me".to_owned())
    }
}

/// A group that was made, joined or left.
#[derive(Debug, Serialize)]
struct Done {
    group: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    match args.command {
        Command::Create { name, member } => create(app, &name, member.get()).await?,
        Command::Invite {
            group,
            read,
            replica,
            device,
            qr,
            at,
        } => {
            let kind = match (read, replica, device) {
                (true, ..) => Kind::Read,
                (_, true, _) => Kind::Replica,
                (.., true) => Kind::Device,
                _ => Kind::Write,
            };
            let store = app.existing_store().await?;
            let group = pick(&store.groups().await?, group.as_deref()).await?;
            let addresses = addresses(&store, at).await?;
            groups::print_invite(app, &group, kind, addresses, qr).await?;
        }
        Command::Join { invite, member } => join(app, &invite, member.get()).await?,
        Command::Ls => {
            let store = app.existing_store().await?;
            app.out.heading(Item::HEADING)?;
            if let Some(groups) = known(&store).await? {
                for group in groups.groups() {
                    let item = of_group(&group).await?;
                    app.out.result(&item, &item)?;
                }
            }
        }
        Command::Members { group } => {
            let store = app.existing_store().await?;
            let group = pick(&store.groups().await?, group.as_deref()).await?;
            app.out.heading(Item::HEADING)?;
            for member in group.members().await? {
                let item = of_repo(&member).await?;
                app.out.result(&item, &item)?;
            }
        }
        Command::Policy(args) => wants::policy(app, args).await?,
        Command::Pin(paths) => wants::pin(app, paths, true).await?,
        Command::Unpin(paths) => wants::pin(app, paths, false).await?,
        Command::Free(args) => return free::run(app, args).await,
        Command::Leave { group, force } => {
            let store = app.existing_store().await?;
            let groups = store.groups().await?;
            let group = pick(&groups, Some(&group)).await?;
            if !force {
                check_left(&group).await?;
            }
            let done = Done {
                group: label(&group).await?,
                id: group.id().to_string(),
                member: None,
            };
            groups.leave(group.id()).await?;
            app.out
                .result(&done, format_args!("left {}", Shown(&done.group)))?;
            app.out.note("`larder gc` frees the space");
        }
    }
    Ok(Exit::Done)
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

async fn create(app: &App, name: &str, member: String) -> Result<()> {
    let store = app.store().await?;
    let group = store.groups().await?.create_group(name).await?;
    group.create_repo(&member).await?;
    let done = Done {
        group: name.to_owned(),
        id: group.id().to_string(),
        member: Some(member.clone()),
    };
    app.out.result(
        &done,
        format_args!(
            "made the group {} ({}); you are {} in it",
            Shown(name),
            short(&group.id()),
            Shown(&member)
        ),
    )?;
    app.out.note(
        "`larder put PATH` adds files, `larder group invite` lets others in, `larder sync` meets them",
    );
    Ok(())
}

async fn join(app: &App, invite: &str, member: String) -> Result<()> {
    let invite = groups::read_invite(invite).await?;
    let store = app.store().await?;
    let group = store.groups().await?.join(&invite).await?;
    let may_write = group.keys().secret().is_some();
    let mut ours = None;
    for repo in group.repos().await? {
        if repo.is_ours() {
            ours = Some(repo);
        }
    }
    let is_new = may_write && ours.is_none() && invite.repo().is_none();
    if is_new {
        group.create_repo(&member).await?;
    }
    let done = Done {
        group: label(&group).await?,
        id: group.id().to_string(),
        member: is_new.then_some(member),
    };
    let text = match &done.member {
        Some(member) => format!(
            "joined the group {}; you are {} in it",
            short(&group.id()),
            Shown(member)
        ),
        None => format!("joined the group {}", short(&group.id())),
    };
    app.out.result(&done, text)?;
    app.out
        .note("`larder sync` fetches what the others have, `larder ls` shows it");
    Ok(())
}

/// Returns the addresses at which this device is looked for; by default its key.
async fn addresses(store: &Store, told: Vec<String>) -> Result<Vec<String>> {
    for address in &told {
        address.parse::<Address>().map_err(|error| {
            Problem::usage(
                format!("{address:?} is no address of a device: {}", error.message()),
                "copy one that `larder sync --watch` prints, whole",
            )
        })?;
    }
    if !told.is_empty() {
        return Ok(told);
    }
    Ok(vec![store.address().await?.to_string()])
}
