//! Invites, printed and read.

use anyhow::{Context, Result};
use clap::ValueEnum;
use larder::groups::{Group, Invite, InviteKind, InviteOptions, Standing};
use qrcode::{EcLevel, QrCode, render::unicode, types::QrError};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::shown::label;
use crate::{
    app::App,
    output::{Count, Shown},
    problem::Problem,
};

/// The argument that means standard input.
pub(crate) const INPUT: &str = "-";
/// The command for who is invited as a member.
const JOIN: &str = "`larder group join INVITE`";
/// The most bytes of standard input that are read: thousands of invites.
const MAX_INPUT: u64 = 1 << 20;
const CANNOT_READ: &str = "cannot read standard input";

/// The access that an invite gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Read everything, and have a repo
    Write,
    /// Read everything
    Read,
    /// Keep a copy of everything, and read none of it
    Replica,
    /// Be another device of yours, with your repo
    Device,
    /// Read and write everything, and invite and remove others
    Admin,
}

/// The flags for the access of who is invited.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct As {
    /// Invite to read and to add files; this is the default
    #[arg(long, group = "kind")]
    write: bool,
    /// Invite to read only
    #[arg(long, group = "kind")]
    read: bool,
    /// Invite to keep a backup copy that it cannot read
    #[arg(long, group = "kind")]
    replica: bool,
    /// Invite another device of yours, which writes your repo too
    #[arg(long, group = "kind")]
    device: bool,
    /// Invite to read and write, and to invite and remove others
    #[arg(long, group = "kind")]
    admin: bool,
}

impl As {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self { read: true, .. } => Kind::Read,
            Self { replica: true, .. } => Kind::Replica,
            Self { device: true, .. } => Kind::Device,
            Self { admin: true, .. } => Kind::Admin,
            _ => Kind::Write,
        }
    }
}

impl From<Kind> for InviteKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Write => Self::Write,
            Kind::Read => Self::Read,
            Kind::Replica => Self::Replica,
            Kind::Device => Self::Device,
            Kind::Admin => Self::Admin,
        }
    }
}

#[derive(Debug, Serialize)]
struct Printed {
    group: String,
    kind: Kind,
    invite: String,
}

/// Prints an invite, on a line of its own, and what it is good for.
pub(crate) async fn print(
    app: &App,
    group: &Group,
    kind: Kind,
    options: InviteOptions,
    addresses: Vec<String>,
    qr: bool,
) -> Result<()> {
    let (uses, confirm) = (options.uses, options.confirm);
    let invite = group.invite_with(options, addresses).await;
    let invite = invite.map_err(|error| refused(group, error))?.to_string();
    let printed = Printed {
        group: label(group).await?,
        kind,
        invite,
    };
    app.out.result(&printed, &printed.invite)?;
    if qr {
        match qr_code(&printed.invite) {
            Ok(code) => app.out.heading(code)?,
            Err(error) => app.out.note(format_args!(
                "the invite does not fit into a QR code ({error}): copy the line instead"
            )),
        }
    }
    let (may, command) = match kind {
        Kind::Write => ("read everything and add files", JOIN),
        Kind::Read => ("read everything", JOIN),
        Kind::Replica => (
            "keep a copy of everything, which it cannot read",
            "`larder serve --replica INVITE`",
        ),
        Kind::Device => ("write as you do: it is for another device of yours", JOIN),
        Kind::Admin => ("read and write, and invite and remove others", JOIN),
    };
    app.out.note(format_args!(
        "whoever has this invite to {} can {may}: {command}",
        Shown(&printed.group)
    ));
    app.out.note(format_args!(
        "it is for {} device(s); `larder group invites --revoke KEY` ends it",
        Count(uses.into())
    ));
    if confirm {
        app.out
            .note("a device that uses it waits until `larder group allow` confirms it");
    }
    Ok(())
}

/// Says why an invite is refused, and which ones are not.
fn refused(group: &Group, error: larder::Error) -> anyhow::Error {
    let (what, advice) = match (error.kind(), group.standing()) {
        (larder::Kind::Unavailable, Standing::Waiting) => (
            "this store waits itself for a member of the group to let it in",
            "`larder sync` meets the others",
        ),
        (larder::Kind::Denied, Standing::Out) => (
            "this store is not in the group any more",
            "ask a member for an invite",
        ),
        (larder::Kind::Denied, _) => (
            "you may not invite to this group, or not to more than you may do yourself",
            "`larder group members` shows who may; `larder group invite --device` invites another device of yours",
        ),
        _ => return error.into(),
    };
    Problem::new(what, advice).into()
}

/// An invite, as it was typed; `-` stands for the first line of standard input.
pub(crate) async fn read(text: &str) -> Result<Invite> {
    if text != INPUT {
        return parse(text);
    }
    let mut line = String::new();
    let mut input = BufReader::new(tokio::io::stdin().take(MAX_INPUT));
    input.read_line(&mut line).await.context(CANNOT_READ)?;
    parse(&line)
}

/// Returns invites, as they were typed, each of which passes `check`; `-` stands for all that standard input has, one a
/// line. An error of such a line tells its number.
pub(crate) async fn read_all(
    texts: &[String],
    check: impl Fn(&Invite) -> Result<()>,
) -> Result<Vec<Invite>> {
    let parse = |text: &str| {
        let invite = parse(text)?;
        check(&invite).map(|()| invite)
    };
    let mut invites = Vec::new();
    for text in texts {
        if text != INPUT {
            invites.push(parse(text)?);
            continue;
        }
        let mut lines = String::new();
        let mut input = tokio::io::stdin().take(MAX_INPUT);
        let read = input.read_to_string(&mut lines).await;
        read.context(CANNOT_READ)?;
        let lines = lines.lines().zip(1..);
        for (line, number) in lines.filter(|(line, _)| !line.trim().is_empty()) {
            let invite = parse(line);
            invites.push(invite.with_context(|| format!("line {number} of standard input"))?);
        }
    }
    if invites.is_empty() && !texts.is_empty() {
        return Err(Problem::usage(
            "standard input has no invite",
            "write the lines that `larder group invite` printed, one a line",
        )
        .into());
    }
    Ok(invites)
}

fn parse(text: &str) -> Result<Invite> {
    let text = text.trim();
    text.parse().map_err(|error: larder::Error| {
        let advice = match text.get(..4) {
            Some(start) if start.eq_ignore_ascii_case("blob") => {
                "a ticket is fetched with `larder fetch TICKET`"
            }
            _ if error.kind() == larder::Kind::Unsupported => {
                "use the version of larder with which it was made, or a newer one"
            }
            _ => "copy the whole word that `larder group invite` printed, from `larder` on",
        };
        Problem::usage(format!("this is no invite: {}", error.message()), advice).into()
    })
}

/// The text as a picture of half blocks. In capital letters, of which a QR code holds more.
fn qr_code(text: &str) -> Result<String, QrError> {
    let text = text.to_ascii_uppercase();
    let code = QrCode::with_error_correction_level(text, EcLevel::L)?;
    Ok(code
        .render::<unicode::Dense1x2>()
        // Terminals are dark.
        .dark_color(unicode::Dense1x2::Light)
        .light_color(unicode::Dense1x2::Dark)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_fits_into_a_qr_code_of_a_terminal() {
        let text = format!("larder{}", "a".repeat(330));
        let code = qr_code(&text).unwrap();
        let width = code.lines().map(|line| line.chars().count()).max();
        assert!(width.is_some_and(|width| width <= 70), "{width:?}");
    }
}
