//! `larder group invite`: lets somebody into a group.

use anyhow::Result;
use larder::{Store, groups::network::Address};

use crate::{
    app::App,
    groups::{self, As, pick},
    problem::Problem,
};

/// Print an invite to a group
///
/// An invite is a key: anyone who has it gets its access, and nobody can be removed again. It is one word of
/// letters and digits, and the group's name is in it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The group; may be left out if there is only one
    group: Option<String>,
    #[command(flatten)]
    kind: As,
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
    groups::print_invite(app, &group, args.kind.kind(), addresses, args.qr).await
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
