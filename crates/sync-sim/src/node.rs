//! A node of a simulated network while it is up.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::stream;
use larder_store_api::{Error, Kind, PublicKey, Result};
use tokio::{sync::Notify, time::sleep};

use super::{
    connection::SimConnection,
    error::closed,
    settings::CONNECT_TIMEOUT,
    trace::Happening,
    world::{Shared, World},
};
use larder_net_api::{Address, AddressWatch, Connection, Network};

const CONNECT: &str = "network.connect";

const SCHEMES: [&str; 1] = ["sim"];

#[derive(Clone)]
pub(super) struct SimNode {
    sim: Arc<Shared>,
    node: usize,
    life: u64,
    key: PublicKey,
    changed: Arc<Notify>,
}

impl SimNode {
    /// Starts the node with this key, or finds it if it is up.
    pub(super) fn start(sim: &Arc<Shared>, key: PublicKey) -> Self {
        let (node, life, changed) = sim.with(|world| {
            let node = world.node(key);
            (node, world.start(node), world.nodes[node].changed.clone())
        });
        Self {
            sim: sim.clone(),
            node,
            life,
            key,
            changed,
        }
    }

    /// Waits until `look` returns a value; returns `None` once the node is down.
    async fn wait<R>(&self, look: impl Fn(&mut World) -> Option<R>) -> Option<R> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let alive = |world: &mut World| match world.is_alive(self.node, self.life) {
                false => Some(None),
                true => look(world).map(Some),
            };
            if let Some(found) = self.sim.with(alive) {
                return found;
            }
            changed.await;
        }
    }

    /// Returns the time that a call takes, and the reason why it fails if that is known before.
    fn call(&self, world: &mut World, address: u64) -> Result<(Duration, Option<&'static str>)> {
        let from = self.node;
        self.check(world)?;
        world.say(Happening::Dialed { from, address });
        let to = match world.addresses.get(&address) {
            Some(to) if *to == from => {
                let message = "this is the node's own address";
                return Err(Error::new(Kind::Invalid, CONNECT, message));
            }
            Some(to) if world.nodes[*to].up => *to,
            _ => return Ok((CONNECT_TIMEOUT, Some("nobody answers at this address"))),
        };
        if !world.is_open(from, to) || !world.is_open(to, from) {
            return Ok((CONNECT_TIMEOUT, Some("nobody answers at this address")));
        }
        let time = world.delay(from, to) + world.delay(to, from);
        let chance = world.link(from, to).connect_failure;
        let fails = world.random.chance(chance);
        Ok((time, fails.then_some("the connection could not be made")))
    }

    /// Makes the connection at the other end of a call.
    fn join(
        &self,
        world: &mut World,
        address: u64,
        expect: Option<PublicKey>,
        failure: Option<&'static str>,
    ) -> Result<Connection> {
        let from = self.node;
        self.check(world)?;
        let to = world.addresses.get(&address).copied();
        let reached = to.filter(|to| {
            world.nodes[*to].up && world.is_open(from, *to) && world.is_open(*to, from)
        });
        let fail = |world: &mut World, kind, why| {
            world.say(Happening::DialFailed { from, address, why });
            Err(Error::new(kind, CONNECT, why).with("address", format!("sim:{address}")))
        };
        let to = match (failure, reached) {
            (Some(why), _) => return fail(world, Kind::Unavailable, why),
            (None, None) => {
                return fail(world, Kind::Unavailable, "nobody answers at this address");
            }
            (None, Some(to)) => to,
        };
        if expect.is_some_and(|key| key != world.nodes[to].key) {
            return fail(world, Kind::Denied, "another key answers at this address");
        }
        let id = world.join(from, to);
        let gone = || Error::new(Kind::Internal, CONNECT, "the new connection is gone");
        SimConnection::of_side(&self.sim, world, id, 0).ok_or_else(gone)
    }

    fn check(&self, world: &World) -> Result<()> {
        match world.is_alive(self.node, self.life) {
            true => Ok(()),
            false => Err(down()),
        }
    }
}

fn down() -> Error {
    Error::new(Kind::Closed, "network.node", "this node is down")
}

fn address(number: u64) -> Result<Address> {
    Address::new(SCHEMES[0], number)
}

fn number(address: &Address) -> Result<u64> {
    let rest = address.rest_of(&SCHEMES)?;
    rest.parse().map_err(|error| {
        let message = "an address of a simulated network is a number";
        Error::new(Kind::Invalid, CONNECT, message)
            .with("address", address)
            .because(error)
    })
}

impl fmt::Debug for SimNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SimNode({}, life {}, {})",
            self.node, self.life, self.key
        )
    }
}

#[async_trait]
impl Network for SimNode {
    fn schemes(&self) -> &[&str] {
        &SCHEMES
    }

    fn key(&self) -> PublicKey {
        self.key
    }

    fn addresses(&self) -> Vec<Address> {
        let number = self.sim.with(|world| {
            let alive = world.is_alive(self.node, self.life);
            alive.then(|| world.nodes[self.node].address)
        });
        number.into_iter().filter_map(|n| address(n).ok()).collect()
    }

    fn peer_of(&self, address: &Address) -> Option<PublicKey> {
        let number = number(address).ok()?;
        self.sim.with(|world| {
            let node = world.addresses.get(&number)?;
            Some(world.nodes[*node].key)
        })
    }

    fn watch_addresses(&self) -> AddressWatch {
        let node = self.clone();
        Box::pin(stream::unfold(None, move |known| {
            let node = node.clone();
            async move {
                let look = |world: &mut World| {
                    let now = world.nodes[node.node].address;
                    (known != Some(now)).then_some(now)
                };
                let now = node.wait(look).await?;
                Some((address(now).into_iter().collect(), Some(now)))
            }
        }))
    }

    async fn connect(&self, to: &Address, expect: Option<PublicKey>) -> Result<Connection> {
        let number = number(to)?;
        let (time, failure) = self.sim.with(|world| self.call(world, number))?;
        tokio::select! {
            biased;
            _ = self.wait(|_| None::<()>) => return Err(down()),
            () = sleep(time), if !time.is_zero() => {}
            () = std::future::ready(()), if time.is_zero() => {}
        }
        self.sim
            .with(|world| self.join(world, number, expect, failure))
    }

    async fn accept(&self) -> Result<Connection> {
        let next = self.wait(|world| {
            while let Some(id) = world.nodes[self.node].backlog.pop_front() {
                let conn = world.connections.get(&id);
                if conn.is_some_and(|conn| conn.sides[1].ended.get().is_none()) {
                    return SimConnection::of_side(&self.sim, world, id, 1);
                }
            }
            None
        });
        next.await.ok_or_else(down)
    }

    async fn close(&self) {
        self.sim.with(|world| {
            if world.is_alive(self.node, self.life) {
                let why = closed("the other side's network was closed");
                world.take_down(self.node, "closes", Some(&why));
            }
        });
    }
}
