//! `larder serve`: lets others fetch what is stored.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use indicatif::ProgressBar;
use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler, Router},
};
use larder::{
    Blobs, Format, Hash,
    groups::{InviteKind, TAG_PREFIX},
    iroh::{ALPN, Provider, Reach, Shares, ticket},
};
use serde::Serialize;
use tokio::io::AsyncReadExt;

use super::sync::go_on;
use crate::{
    app::App,
    args,
    endpoint::Endpoint,
    find::{Named, find},
    groups::{self, Network},
    item::{Item, as_text},
    output::{Bytes, Output, Rate, Shown, Time},
    problem::{Exit, Problem},
};

/// The time that peers have to hear that serving ends.
const GOOD_BYE: Duration = Duration::from_millis(500);

/// Let others fetch stored files and folders, or be a replica of groups
///
/// Prints a ticket for each name and serves until ctrl-c, to anybody unless told otherwise. Only these
/// items can be fetched, by anyone who has their hash; nobody can write.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Items to serve: names, NAME/path of a file in a folder, or hashes
    #[arg(value_name = "NAME", value_parser = args::name())]
    names: Vec<String>,
    /// Serve everything that has a name
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Keep and serve the groups of this store, without reading them: the names are replica invites to groups to
    /// join first; `-` reads invites from standard input, one per line, which hides them from other programs.
    /// Members find the replica in the local network, unless --public is given
    #[arg(long, conflicts_with = "all")]
    replica: bool,
    #[command(flatten)]
    endpoint: Endpoint,
    /// End when standard input does: for programs that start this one
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

#[derive(Debug, Serialize)]
struct Served {
    name: String,
    #[serde(serialize_with = "as_text")]
    hash: Hash,
    size: u64,
    ticket: String,
}

/// Something that a peer did.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Connected {
        peer: String,
    },
    Left {
        peer: String,
        sent: u64,
        seconds: f64,
    },
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    if args.replica {
        return replicate(app, args).await;
    }
    if args.names.is_empty() && !args.all {
        return Err(Problem::usage(
            "nothing is named that should be served",
            "write the names of items, which `larder ls` shows; --all serves everything that has a name, and --replica \
             keeps and serves groups without reading them",
        )
        .into());
    }
    let store = app.existing_store().await?;
    let blobs = store.blobs();
    let named = if args.all {
        all(blobs).await?
    } else {
        let mut named = Vec::with_capacity(args.names.len());
        for (at, name) in args.names.iter().enumerate() {
            // Each once, however often it is named.
            if !args.names[..at].contains(name) {
                named.push(find(blobs, name).await?);
            }
        }
        named
    };
    let shares = Shares::new(blobs);
    let mut items = Vec::with_capacity(named.len());
    for Named { name, root } in named {
        let item = Item::of(blobs, name, root).await?;
        if !item.complete && item.present == 0 && root.format == Format::Raw {
            return Err(Problem::new(
                format!("nothing of {:?} is here", item.name),
                "`larder ls` shows what is stored",
            )
            .into());
        }
        if !item.complete {
            app.out
                .note(format_args!("{} is not here completely", Shown(&item.name)));
        }
        shares.allow(root)?;
        items.push((item, root));
    }
    // Under the same key and on the same port each time, so that a ticket stays good.
    let options = args.endpoint.options(Reach::Public);
    let bound = args
        .endpoint
        .on_last_port(app, &store, options, async |options| {
            store.endpoint(options).await
        });
    let endpoint = bound.await;
    let endpoint = endpoint.context("cannot serve")?;
    let given = Arc::new(Given::new(app.out));
    let provider = Announced {
        provider: Provider::new(blobs, &shares),
        out: app.out,
        given: Arc::clone(&given),
    };
    let router = Router::builder(endpoint.clone())
        .accept(ALPN, provider)
        .spawn();
    app.ends_itself();
    for (item, root) in items {
        let served = Served {
            ticket: ticket(&endpoint, root).await?.to_string(),
            name: item.name,
            hash: item.hash,
            size: item.size,
        };
        let text = format!("{}  {}", served.ticket, Shown(&served.name));
        app.out.result(&served, text)?;
    }
    app.out
        .note("serving until ctrl-c; others run `larder fetch TICKET`");
    let exit = tokio::select! {
        exit = app.signalled() => exit,
        () = stdin_ends(), if args.until_stdin_ends => Exit::Done,
        () = given.show() => Exit::Done,
    };
    given.line.finish_and_clear();
    // A peer that does not answer within this time has gone.
    if let Ok(stopped) = tokio::time::timeout(GOOD_BYE, router.shutdown()).await {
        stopped.context("cannot stop serving")?;
    }
    // Ctrl-c is how serving ends.
    Ok(match exit {
        Exit::Interrupted => Exit::Done,
        exit => exit,
    })
}

/// A store that has groups and reads nothing of them.
async fn replicate(app: &App, args: Args) -> Result<Exit> {
    if args.until_stdin_ends && args.names.iter().any(|name| name == groups::INPUT) {
        return Err(Problem::usage(
            "standard input has ended once the invites are read from it",
            "write the invites as arguments",
        )
        .into());
    }
    // All of them, before any is joined.
    let invites = groups::read_invites(&args.names, |invite| match invite.kind() {
        InviteKind::Replica => Ok(()),
        _ => Err(Problem::usage(
            "this invite lets its holder read, which a replica must not",
            "ask for one of `larder group invite --replica`, or `larder group join` the group",
        )
        .into()),
    });
    let invites = invites.await?;
    let store = app.store().await?;
    let groups = store.groups().await?;
    for invite in &invites {
        groups.join(invite).await?;
    }
    drop(groups);
    let network = Network::of(args.endpoint);
    let replicator = groups::start(app, &store, network).await?;
    let chosen = replicator.groups().groups();
    let ended = if chosen.is_empty() {
        Err(Problem::usage(
            "this store is in no group",
            "write an invite: --replica INVITE",
        )
        .into())
    } else {
        app.out.note(format_args!(
            "keeping {} group(s) until ctrl-c, and reading none",
            chosen.len()
        ));
        let until = async {
            match args.until_stdin_ends {
                true => stdin_ends().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = go_on(app, &replicator, &chosen, false) => ended,
            () = until => Ok(Exit::Done),
        }
    };
    replicator.shutdown().await;
    ended
}

async fn all(blobs: &Blobs) -> Result<Vec<Named>> {
    let mut named = Vec::new();
    let mut tags = blobs.tags().list(..);
    while let Some(tag) = tags.try_next().await? {
        if tag.name.as_bytes().starts_with(TAG_PREFIX.as_bytes()) {
            continue;
        }
        named.push(Named {
            name: tag.name.to_string(),
            root: tag.root,
        });
    }
    if named.is_empty() {
        return Err(Problem::new(
            "this store is empty",
            "store something first: `larder add PATH`",
        )
        .into());
    }
    Ok(named)
}

async fn stdin_ends() {
    let mut piece = [0; 64];
    let mut stdin = tokio::io::stdin();
    // An input that fails has ended too.
    while matches!(stdin.read(&mut piece).await, Ok(1..)) {}
}

/// The interval at which the line is drawn that says what was sent.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// The count of what is given to peers, as a line on the terminal.
#[derive(Debug)]
struct Given {
    line: ProgressBar,
    /// The connections that there are, and the bytes that were sent over those that there were.
    connections: Mutex<(Vec<Connection>, u64)>,
}

impl Given {
    fn new(out: Output) -> Self {
        Self {
            line: out.line_of(&out.bars()),
            connections: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<Connection>, u64)> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the line, for ever.
    async fn show(&self) {
        let mut before = 0;
        loop {
            let (peers, sent) = {
                let all = self.lock();
                let now = all.0.iter().map(|one| one.stats().udp_tx.bytes);
                (all.0.len(), all.1.saturating_add(now.sum()))
            };
            let rate = Rate(sent.saturating_sub(before), SHOW_EVERY);
            let text = format!("{peers} peer(s); sent {}, {rate}", Bytes(sent));
            self.line.set_message(text);
            before = sent;
            tokio::time::sleep(SHOW_EVERY).await;
        }
    }

    /// Counts a connection until it ends.
    fn begins(&self, connection: &Connection) {
        self.lock().0.push(connection.clone());
    }

    fn ends(&self, connection: &Connection) {
        let mut all = self.lock();
        all.0
            .retain(|one| one.stable_id() != connection.stable_id());
        all.1 = all.1.saturating_add(connection.stats().udp_tx.bytes);
    }
}

/// Says who comes and goes, around what answers them.
#[derive(Debug)]
struct Announced {
    provider: Provider,
    out: Output,
    given: Arc<Given>,
}

impl Announced {
    fn say(&self, event: &Event, text: String) {
        if self.out.json {
            // The events follow the tickets, for programs that read those.
            if let Err(error) = self.out.result(event, "") {
                tracing::warn!(%error, "an event could not be printed");
            }
        } else {
            self.given.line.suspend(|| self.out.note(text));
        }
    }
}

impl ProtocolHandler for Announced {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let peer = connection.remote_id().to_string();
        let short: String = peer.chars().take(10).collect();
        let started = Instant::now();
        let event = Event::Connected { peer: peer.clone() };
        self.say(&event, format!("{short} connected"));
        let watched = connection.clone();
        self.given.begins(&watched);
        let result = self.provider.accept(connection).await;
        self.given.ends(&watched);
        let sent = watched.stats().udp_tx.bytes;
        let time = started.elapsed();
        let event = Event::Left {
            peer,
            sent,
            seconds: time.as_secs_f64(),
        };
        self.say(
            &event,
            format!("{short} left: {} in {}", Bytes(sent), Time(time)),
        );
        result
    }

    async fn shutdown(&self) {
        self.provider.shutdown().await;
    }
}
