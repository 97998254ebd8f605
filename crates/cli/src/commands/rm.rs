//! `larder rm`: removes names.

use anyhow::Result;
use larder::TagName;
use serde::Serialize;

use crate::{
    app::App,
    args,
    item::as_text,
    output::Shown,
    problem::{Exit, Problem},
};

/// What a name stood for stays until `gc`, as another name may reach it too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names, as `larder ls` shows them
    #[arg(required = true, value_name = "NAME", value_parser = args::name())]
    names: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Removed {
    removed: String,
    #[serde(serialize_with = "as_text")]
    hash: larder::Hash,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let store = app.existing_store().await?;
    let tags = store.blobs().tags();
    // All are looked up first, so that a typing error removes nothing.
    let mut found = Vec::with_capacity(args.names.len());
    for name in args.names {
        let tag = TagName::try_from(name.as_str())?;
        match tags.get(&tag).await? {
            Some(root) => found.push((name, tag, root)),
            None => return Err(Problem::no_such_name(&name).into()),
        }
    }
    for (name, tag, root) in found {
        tags.delete_one(&tag).await?;
        let removed = Removed {
            removed: name,
            hash: root.hash,
        };
        let text = format!("removed {}", Shown(&removed.removed));
        app.out.result(&removed, text)?;
    }
    app.out.note("`larder gc` frees the space");
    Ok(Exit::Done)
}
