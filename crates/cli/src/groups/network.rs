//! The network that groups replicate over.

use std::time::Duration;

use anyhow::{Context, Result};
use larder::{
    Store,
    groups::{Policy, Push, ReplicateOptions, Replicator},
    iroh::Reach,
};

use crate::{app::App, args, endpoint::Endpoint};

/// The interval at which to compare with members, and to look for those that are not connected.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// The most often that this may be.
const LEAST_COMPARE_EVERY: Duration = Duration::from_secs(1);

/// The peers that are looked for without a flag.
const REACH: Reach = Reach::LanOnly;

/// ReplicateOptions for meeting other members. Without a flag, no third party is asked or told of anything.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Network {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Fetch only the names of files, and not their content
    #[arg(long)]
    names_only: bool,
    /// Tell others of changes only when comparing with them, and not at once
    #[arg(long)]
    no_push: bool,
    /// Interval at which to compare with members, and to look for those that are not connected
    /// (default: 10s)
    #[arg(long, value_name = "TIME", value_parser = compare_every)]
    compare_every: Option<Duration>,
}

impl Network {
    /// Makes the flags of `larder serve`, which has those of an endpoint alone.
    pub(crate) fn of(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            names_only: false,
            no_push: false,
            compare_every: None,
        }
    }

    /// Returns the peers that are looked for.
    pub(crate) fn reach(&self) -> Reach {
        self.endpoint.options(REACH).reach
    }

    /// Fetches which files there are, and of them only those that are asked for.
    pub(crate) fn with_names_only(self) -> Self {
        Self {
            names_only: true,
            ..self
        }
    }

    fn options(&self) -> ReplicateOptions {
        ReplicateOptions::default()
            .policy(match self.names_only {
                true => Policy::Names,
                false => Policy::Everything,
            })
            .push(match self.no_push {
                true => Push::Never,
                false => Push::AtOnce,
            })
            .compare_every(self.compare_every.unwrap_or(COMPARE_EVERY))
    }
}

/// A time that leaves the others in peace.
fn compare_every(text: &str) -> Result<Duration, String> {
    match args::duration(text)? {
        time if time < LEAST_COMPARE_EVERY => Err("that is too often: write 1s or more".to_owned()),
        time => Ok(time),
    }
}

/// Connects the store's groups.
pub(crate) async fn start(app: &App, store: &Store, network: Network) -> Result<Replicator> {
    let options = network.options();
    let endpoint = network.endpoint.options(REACH);
    let started = network
        .endpoint
        .on_last_port(app, store, endpoint, async |endpoint| {
            store.replicate(endpoint, options.clone()).await
        });
    let started = started.await;
    started.context("cannot connect the groups of this store")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[command(flatten)]
        network: Network,
    }

    fn parse(args: &[&str]) -> Result<Network, String> {
        let args = Args::try_parse_from([&["larder"], args].concat());
        args.map(|args| args.network)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_flag_reaches_its_option() {
        let plain = parse(&[]).unwrap();
        let options = plain.options();
        assert_eq!(options.policy, Policy::Everything);
        assert_eq!(options.push, Push::AtOnce);
        assert_eq!(options.compare_every, COMPARE_EVERY);
        let quiet = parse(&["--no-push", "--names-only", "--compare-every", "1h"]);
        let quiet = quiet.unwrap();
        let options = quiet.options();
        assert_eq!(options.policy, Policy::Names);
        assert_eq!(options.push, Push::Never);
        assert_eq!(options.compare_every, Duration::from_secs(3600));
        let said = parse(&["--compare-every", "10ms"]).unwrap_err();
        assert!(
            said.contains("that is too often: write 1s or more"),
            "{said}"
        );
    }
}
