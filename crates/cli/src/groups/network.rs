//! The network that groups replicate over.

use std::time::Duration;

use anyhow::{Context, Result};
use larder::{
    Store,
    groups::{IrohOptions, Options, Policy, Push, Reach, Replicator},
};

use crate::{app::unlock, args};

/// How often to compare with members, and to look for those who are not connected.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// The most often that this may be.
const LEAST_COMPARE_EVERY: Duration = Duration::from_secs(1);

/// Whom to talk to.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Network {
    /// Find members anywhere, with the help of iroh's public relays and discovery. Without it, no
    /// third party is asked or told of anything: members are found in the local network, or by
    /// addresses that they told
    #[arg(long)]
    public: bool,
    /// Talk to processes on this machine only
    #[arg(long, conflicts_with = "public")]
    loopback: bool,
    /// The UDP port; without it, any that is free
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Fetch which files there are, and not what is in them
    #[arg(long)]
    names_only: bool,
    /// Tell others of what has changed only when comparing with them, and not at once
    #[arg(long)]
    no_push: bool,
    /// How often to compare with members, and to look for those who are not connected; without it,
    /// every 10 s
    #[arg(long, value_name = "TIME", value_parser = compare_every)]
    compare_every: Option<Duration>,
}

impl Network {
    /// What `larder serve` takes.
    pub(crate) fn of(public: bool, loopback: bool, port: u16) -> Self {
        Self {
            public,
            loopback,
            port,
            names_only: false,
            no_push: false,
            compare_every: None,
        }
    }

    fn reach(&self) -> Reach {
        match (self.loopback, self.public) {
            (true, _) => Reach::Loopback,
            (_, true) => Reach::Public,
            _ => Reach::LanOnly,
        }
    }

    fn options(&self) -> Options {
        Options {
            policy: match self.names_only {
                true => Policy::Names,
                false => Policy::Everything,
            },
            push: match self.no_push {
                true => Push::Never,
                false => Push::AtOnce,
            },
            compare_every: self.compare_every.unwrap_or(COMPARE_EVERY),
            ..Options::default()
        }
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
pub(crate) async fn start(store: &Store, network: Network) -> Result<Replicator> {
    let options = network.options();
    let network = IrohOptions {
        reach: network.reach(),
        port: network.port,
        secret_key: None,
    };
    let started = store.replicate(unlock, network, options).await;
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
        assert_eq!(plain.reach(), Reach::LanOnly);
        let options = plain.options();
        assert_eq!(options.policy, Policy::Everything);
        assert_eq!(options.push, Push::AtOnce);
        assert_eq!(options.compare_every, COMPARE_EVERY);
        assert_eq!(parse(&["--public"]).unwrap().reach(), Reach::Public);
        let quiet = parse(&[
            "--loopback",
            "--no-push",
            "--names-only",
            "--compare-every",
            "1h",
        ]);
        let quiet = quiet.unwrap();
        assert_eq!(quiet.reach(), Reach::Loopback);
        let options = quiet.options();
        assert_eq!(options.policy, Policy::Names);
        assert_eq!(options.push, Push::Never);
        assert_eq!(options.compare_every, Duration::from_secs(3600));
        let said = parse(&["--compare-every", "10ms"]).unwrap_err();
        assert!(
            said.contains("that is too often: write 1s or more"),
            "{said}"
        );
        parse(&["--public", "--loopback"]).unwrap_err();
    }
}
