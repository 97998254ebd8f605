//! `larder group invite`, `invites` and `recovery`: how somebody gets into a group, and how you get back.

use anyhow::Result;
use larder::{
    Store,
    groups::{InviteOptions, OpenInvite, network::Address},
};
use serde::Serialize;

use super::people::{TOLD, refused, word};
use crate::{
    app::App,
    args,
    groups::{self, As, label, pick, short},
    output::{Count, Shown},
    problem::Problem,
};

/// Print an invite to a group
///
/// An invite is for one person and a week, unless you say otherwise; it is one word of letters and digits, and the
/// group's name is in it. Whoever uses it is let in by any member who is there, also by a replica.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The group; may be left out if there is only one
    group: Option<String>,
    #[command(flatten)]
    kind: As,
    /// Number of devices that may use it
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    uses: u16,
    /// When it ends: a day such as 2027-01-31, which it still has, or a time such as 12h or 30d from now
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    until: Option<args::Moment>,
    /// Let nobody in before you confirm the device, with `larder group allow`; the default for --admin
    #[arg(long, overrides_with = "no_confirm")]
    confirm: bool,
    /// Let whoever uses it in at once
    #[arg(long)]
    no_confirm: bool,
    /// Show it as a QR code too
    #[arg(long)]
    qr: bool,
    /// Address at which this device can be reached, as `larder sync --watch` prints it (iroh:KEY?ip=HOST:PORT); without
    /// it, others look for the device by its key
    #[arg(long, value_name = "ADDRESS")]
    at: Vec<String>,
}

pub(super) async fn run(app: &App, args: Args) -> Result<()> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, args.group.as_deref()).await?;
    let addresses = addresses(&store, args.at).await?;
    let kind = args.kind.kind();
    let mut options = InviteOptions::new(kind.into()).uses(args.uses);
    match args.until {
        Some(args::Moment::At(time)) => options = options.until(time),
        Some(args::Moment::In(time)) => options = options.for_time(time),
        None => {}
    }
    if args.confirm || args.no_confirm {
        options = options.confirm(args.confirm);
    }
    groups::print_invite(app, &group, kind, options, addresses, args.qr).await
}

/// List the invites of a group, or end one
#[derive(Debug, clap::Args)]
pub(super) struct Invites {
    /// The group; may be left out if there is only one
    group: Option<String>,
    /// End the invite whose key begins so; a new key is made that nobody has who knows it
    #[arg(long, value_name = "KEY")]
    revoke: Option<String>,
}

/// An invite, as a line.
#[derive(Debug, Serialize)]
struct Line {
    key: String,
    rights: &'static str,
    open: bool,
    uses: u16,
    used: usize,
    /// The devices that used it and wait to be confirmed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<String>,
    /// In milliseconds since 1970.
    until: Option<i64>,
}

impl Line {
    fn of(invite: &OpenInvite) -> Self {
        Self {
            key: invite.key.to_string(),
            rights: match invite.own {
                true => "device",
                false => word(invite.rights),
            },
            open: invite.is_open,
            uses: invite.uses,
            used: invite.used_by.len(),
            waiting: invite.waiting.iter().map(ToString::to_string).collect(),
            until: invite.until,
        }
    }

    fn text(&self) -> String {
        let state = if self.open { "open" } else { "ended" };
        let mut text = format!(
            "{}  {}  {state}  used {} of {} time(s)",
            short(&self.key),
            self.rights,
            Count(self.used as u64),
            Count(self.uses.into())
        );
        for device in &self.waiting {
            text += &format!("\n  {} waits to be let in", short(device));
        }
        text
    }
}

pub(super) async fn invites(app: &App, args: Invites) -> Result<()> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, args.group.as_deref()).await?;
    let all = group.invites();
    let Some(text) = args.revoke else {
        for invite in &all {
            let line = Line::of(invite);
            app.out.result(&line, line.text())?;
        }
        return Ok(());
    };
    let meant: Vec<_> = all
        .iter()
        .filter(|invite| text.len() >= 4 && invite.key.to_string().starts_with(&text))
        .collect();
    let [invite] = meant[..] else {
        return Err(Problem::usage(
            format!("no single invite is meant by {text:?}"),
            "`larder group invites` shows them",
        )
        .into());
    };
    group.revoke(invite.key).await.map_err(refused)?;
    let line = Line {
        open: false,
        ..Line::of(invite)
    };
    app.out.result(
        &line,
        format_args!("the invite {} has ended", short(&invite.key)),
    )?;
    app.out.note(TOLD);
    Ok(())
}

/// Print the way back into a group for who loses all devices
///
/// Whoever has it has all rights in the group, and nobody can take them. Only the device that made the group has it:
/// keep it on paper, and take it off the device with --forget.
#[derive(Debug, clap::Args)]
pub(super) struct Recovery {
    /// The group; may be left out if there is only one
    group: Option<String>,
    /// Take it off this device, after you have written it down
    #[arg(long)]
    forget: bool,
}

#[derive(Debug, Serialize)]
struct Kept {
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<String>,
}

pub(super) async fn recovery(app: &App, args: Recovery) -> Result<()> {
    let store = app.store_of_groups().await?;
    let group = pick(&store.groups().await?, args.group.as_deref()).await?;
    let addresses = addresses(&store, Vec::new()).await?;
    let found = group.recovery(addresses).await?;
    let Some(found) = found else {
        return Err(Problem::new(
            "the way back into this group is not on this device",
            "only the device that made the group has it, until it is taken off",
        )
        .into());
    };
    let name = label(&group).await?;
    if args.forget {
        group.forget_recovery().await?;
        let done = Kept {
            group: name,
            recovery: None,
        };
        let text = format!(
            "the way back into {} is off this device",
            Shown(&done.group)
        );
        return Ok(app.out.result(&done, text)?);
    }
    let kept = Kept {
        group: name,
        recovery: Some(found.to_string()),
    };
    app.out.result(&kept, found.to_string())?;
    app.out.note(
        "keep it on paper: `larder group join` with it makes a new store yours again; --forget takes it off this device",
    );
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
