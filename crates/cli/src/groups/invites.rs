//! Invites, printed and read.

use anyhow::{Context, Result};
use clap::ValueEnum;
use larder::groups::{Group, Invite, InviteKind};
use qrcode::{EcLevel, QrCode, render::unicode};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::shown::label;
use crate::{app::App, output::Shown, problem::Problem};

/// The argument that means standard input.
pub(crate) const INPUT: &str = "-";
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
}

impl From<Kind> for InviteKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Write => Self::Write,
            Kind::Read => Self::Read,
            Kind::Replica => Self::Replica,
            Kind::Device => Self::Device,
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
    addresses: Vec<String>,
    qr: bool,
) -> Result<()> {
    let invite = group.invite(kind.into(), addresses).await?.to_string();
    let printed = Printed {
        group: label(group).await?,
        kind,
        invite,
    };
    app.out.result(&printed, &printed.invite)?;
    if qr {
        app.out.heading(qr_code(&printed.invite)?)?;
    }
    let may = match kind {
        Kind::Write => "join, read everything and add files",
        Kind::Read => "join and read everything",
        Kind::Replica => "keep a copy of everything, which it cannot read",
        Kind::Device => "write as you do: it is for another device of yours",
    };
    app.out.note(format_args!(
        "whoever has this invite to {} can {may}: `larder group join INVITE`",
        Shown(&printed.group)
    ));
    Ok(())
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

/// Invites, as they were typed; `-` stands for all that standard input has, one a line.
pub(crate) async fn read_all(texts: &[String]) -> Result<Vec<Invite>> {
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
        let lines = lines.lines().filter(|line| !line.trim().is_empty());
        for line in lines {
            invites.push(parse(line)?);
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
    text.trim().parse().map_err(|error: larder::Error| {
        Problem::usage(
            format!("this is no invite: {}", error.message()),
            "copy the whole line that `larder group invite` printed, from `larder:` on",
        )
        .into()
    })
}

/// The text as a picture of half blocks.
fn qr_code(text: &str) -> Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(|error| {
        Problem::new(
            format!("the invite does not fit into a QR code: {error}"),
            "copy the line instead",
        )
    })?;
    Ok(code
        .render::<unicode::Dense1x2>()
        // Terminals are dark.
        .dark_color(unicode::Dense1x2::Light)
        .light_color(unicode::Dense1x2::Dark)
        .build())
}
