//! Invites, printed.

use anyhow::Result;
use clap::ValueEnum;
use larder::groups::{Group, InviteKind};
use qrcode::{EcLevel, QrCode, render::unicode};
use serde::Serialize;

use super::shown::label;
use crate::{app::App, output::Shown, problem::Problem};

/// What who joins may do.
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
