//! The flags that say how a command opens its endpoint.

use larder::{
    Kind, Store,
    iroh::{EndpointOptions, Reach},
};

use crate::app::App;

/// The peers to talk to.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Whom {
    /// Talk to anybody, with the help of iroh's public relays and discovery
    #[arg(long, conflicts_with_all = ["lan_only", "loopback"])]
    public: bool,
    /// Talk to no third party: no public relay, DNS or discovery service. Peers find each other in the
    /// local network, or by their addresses
    #[arg(long, conflicts_with = "loopback")]
    lan_only: bool,
    /// Talk to processes on this machine only
    #[arg(long)]
    loopback: bool,
}

impl Whom {
    /// Returns the reach that the flags ask for, or `unless_said` if there are none.
    pub(crate) fn reach(self, unless_said: Reach) -> Reach {
        match (self.public, self.lan_only, self.loopback) {
            (true, ..) => Reach::Public,
            (_, true, _) => Reach::LanOnly,
            (.., true) => Reach::Loopback,
            _ => unless_said,
        }
    }
}

/// An endpoint that others find again.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Endpoint {
    #[command(flatten)]
    whom: Whom,
    /// The UDP port; without it, the last one, so that tickets and invites stay valid, or one that is
    /// free
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
}

impl Endpoint {
    /// Returns the options that the flags ask for, with the reach `unless_said` if they ask for none. They
    /// have no key: a store gives its own.
    pub(crate) fn options(self, unless_said: Reach) -> EndpointOptions {
        EndpointOptions::new(self.whom.reach(unless_said)).with_port(self.port)
    }

    /// Binds the endpoint of a store on the port of last time, where none is asked for; and says so where that
    /// is in use, so that another one is taken.
    pub(crate) async fn on_last_port<T>(
        self,
        app: &App,
        store: &Store,
        options: EndpointOptions,
        bind: impl AsyncFn(EndpointOptions) -> larder::Result<T>,
    ) -> larder::Result<T> {
        let Some(last) = store.last_port().await?.filter(|_| self.port == 0) else {
            return bind(options).await;
        };
        match bind(options.clone().with_port(last)).await {
            Err(error)
                if error.kind() == Kind::Unavailable && error.operation() == "endpoint.bind" =>
            {
                app.out.note(format_args!(
                    "port {last}, where others look for this device, is in use: another one is taken for now"
                ));
                bind(options).await
            }
            bound => bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[command(flatten)]
        endpoint: Endpoint,
    }

    fn parse(args: &[&str]) -> Result<Endpoint, clap::Error> {
        let args = Args::try_parse_from([&["larder"], args].concat());
        args.map(|args| args.endpoint)
    }

    #[test]
    fn every_flag_reaches_its_option() {
        for (flag, reach) in [
            ("--public", Reach::Public),
            ("--lan-only", Reach::LanOnly),
            ("--loopback", Reach::Loopback),
        ] {
            let options = parse(&[flag, "--port", "77"]).unwrap();
            for unless_said in [Reach::Public, Reach::LanOnly, Reach::Loopback] {
                let options = options.options(unless_said);
                assert_eq!((options.reach, options.port), (reach, 77));
            }
        }
        let options = parse(&[]).unwrap().options(Reach::Public);
        assert_eq!((options.reach, options.port), (Reach::Public, 0));
        for two in [
            ["--public", "--lan-only"],
            ["--public", "--loopback"],
            ["--lan-only", "--loopback"],
        ] {
            parse(&two).unwrap_err();
        }
    }
}
