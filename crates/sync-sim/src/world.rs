//! The state of a simulation: nodes, links, connections, and pending events. Every change goes through
//! [`Shared::with`], which first processes the events that are due.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use larder_store_api::{Error, PublicKey};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Tamper,
    error::lost,
    pipe::{Item, Pipe},
    random::Random,
    search::Search,
    settings::{Flow, IDLE_TIMEOUT, Limits, Link, Traffic},
    trace::{Happening, PipeId, Trace},
};

/// The world behind its lock, and the notification for the task that waits for the next event.
#[derive(Debug)]
pub(super) struct Shared {
    world: Mutex<World>,
    changed: Arc<Notify>,
}

impl Shared {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            world: Mutex::new(World::new(seed)),
            changed: Arc::default(),
        })
    }

    /// Processes the events that are due, then runs `work`. Nothing that `work` drops may call back
    /// into this.
    pub(super) fn with<R>(self: &Arc<Self>, work: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.advance(Instant::now());
        let result = work(&mut world);
        let next = world.events.first_key_value().map(|((time, _), _)| *time);
        match next {
            Some(_) if !world.driven => {
                if let Ok(runtime) = Handle::try_current() {
                    world.driven = true;
                    runtime.spawn(drive(Arc::downgrade(self), self.changed.clone()));
                }
            }
            Some(time) if world.armed.is_none_or(|armed| time < armed) => {
                self.changed.notify_one();
            }
            _ => {}
        }
        result
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// Wakes the world when its next event is due, as long as the world exists.
async fn drive(shared: Weak<Shared>, changed: Arc<Notify>) {
    let sleep = sleep_until(Instant::now());
    tokio::pin!(sleep);
    while let Some(shared) = shared.upgrade() {
        let next = shared.with(|world| {
            world.armed = world.events.first_key_value().map(|((time, _), _)| *time);
            world.armed
        });
        drop(shared);
        match next {
            None => changed.notified().await,
            Some(time) => {
                sleep.as_mut().reset(time);
                tokio::select! {
                    biased;
                    () = changed.notified() => {}
                    () = &mut sleep => {}
                }
            }
        }
    }
}

#[derive(Debug)]
pub(super) enum Event {
    /// The link can take the next chunk.
    Free(usize, usize),
    /// An item has crossed its link; the duration is the time that sending took.
    Arrive(PipeId, Item, Duration),
    /// An item reaches its reader.
    Land(PipeId, Item),
    /// A connection waits to be accepted.
    Incoming(u64),
    /// A writer learns that nobody reads.
    Stop(PipeId),
    /// A side learns that the connection has ended.
    Close(u64, usize, Error),
    /// The connection breaks, unless its doom was chosen again.
    Doom(u64, u64),
    /// The connection ends after being cut for too long, unless the cut is over.
    Idle(u64),
}

pub(super) struct Node {
    pub(super) key: PublicKey,
    pub(super) address: u64,
    /// The number of times that it was started.
    pub(super) life: u64,
    pub(super) up: bool,
    /// Notified when anything changes that somebody may wait for.
    pub(super) changed: Arc<Notify>,
    pub(super) backlog: VecDeque<u64>,
    pub(super) limits: Limits,
    pub(super) up_busy: Instant,
    pub(super) down_busy: Instant,
    pub(super) tamper: Option<Tamper>,
    /// The number of bytes of each stream after which nothing more is sent on it.
    pub(super) stall: Option<u64>,
    pub(super) traffic: Traffic,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.up { "up" } else { "down" };
        write!(f, "Node({}, {state})", self.key)
    }
}

/// The link from one node to another.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) link: Option<Link>,
    /// True while a chunk is leaving; an event marks the end.
    pub(super) busy: bool,
    pub(super) ring: VecDeque<PipeId>,
    /// The events that arrived while nothing was delivered.
    pub(super) parked: Vec<Event>,
}

/// A side's knowledge about the end of its connection.
#[derive(Debug, Default)]
pub(super) struct SideState {
    pub(super) ended: OnceLock<Error>,
    pub(super) changed: Notify,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) nodes: [usize; 2],
    pub(super) sides: [Arc<SideState>; 2],
    pub(super) streams: BTreeMap<u64, Streams>,
    /// The streams that wait to be accepted by each side.
    pub(super) incoming: [VecDeque<u64>; 2],
    /// The number of open streams that each side has opened.
    pub(super) opened: [usize; 2],
    pub(super) next_stream: u64,
    /// True if one side lost its power: it sends nothing more, and its peer is not told.
    pub(super) lost: bool,
    pub(super) idle: Option<u64>,
    pub(super) doom: u64,
}

/// Both directions of a stream; the first is from the side that opened it.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) opener: usize,
    pub(super) pipes: [Pipe; 2],
    pub(super) announced: bool,
    /// The number of halves, out of four, that were not dropped.
    pub(super) halves: u8,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    start: Instant,
    pub(super) now: Instant,
    pub(super) random: Random,
    pub(super) nodes: Vec<Node>,
    keys: BTreeMap<PublicKey, usize>,
    pub(super) addresses: BTreeMap<u64, usize>,
    next_address: u64,
    pub(super) default_link: Link,
    pub(super) routes: BTreeMap<(usize, usize), Route>,
    /// Sets of nodes that are cut from all others.
    pub(super) islands: Vec<BTreeSet<usize>>,
    pub(super) connections: BTreeMap<u64, Conn>,
    pub(super) next_connection: u64,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    armed: Option<Instant>,
    driven: bool,
    pub(super) trace: Trace,
    pub(super) search: Option<Search>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            seed,
            start: now,
            now,
            random: Random::new(seed),
            nodes: Vec::new(),
            keys: BTreeMap::new(),
            addresses: BTreeMap::new(),
            next_address: 0,
            default_link: Link::default(),
            routes: BTreeMap::new(),
            islands: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            events: BTreeMap::new(),
            next_event: 0,
            armed: None,
            driven: false,
            trace: Trace::default(),
            search: None,
        }
    }

    pub(super) fn say(&mut self, happening: Happening) {
        let time = self.now.saturating_duration_since(self.start);
        self.trace.add(time, happening);
    }

    pub(super) fn push(&mut self, time: Instant, event: Event) -> u64 {
        let number = self.next_event;
        self.next_event += 1;
        self.events.insert((time, number), event);
        number
    }

    /// Processes the events that are due until `until`, each at its own time.
    fn advance(&mut self, until: Instant) {
        while let Some(next) = self.events.first_entry() {
            if next.key().0 > until {
                break;
            }
            let ((time, number), event) = next.remove_entry();
            self.now = self.now.max(time);
            self.happen(number, event);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, number: u64, event: Event) {
        match event {
            Event::Free(from, to) => {
                self.route(from, to).busy = false;
                self.pump(from, to);
            }
            Event::Arrive(pipe, item, took) => self.arrive(pipe, item, took),
            Event::Land(pipe, item) => {
                if let Some(pipe) = self.pipe(pipe) {
                    pipe.landing -= 1;
                }
                self.land(pipe, item);
            }
            Event::Incoming(id) => self.incoming(id),
            Event::Stop(pipe) => self.stopped(pipe),
            Event::Close(id, side, why) => {
                let from = self.connections.get(&id).map(|conn| (conn.nodes, side));
                match from {
                    Some((nodes, side)) if !self.is_open(nodes[1 - side], nodes[side]) => {
                        let event = Event::Close(id, side, why);
                        self.route(nodes[1 - side], nodes[side]).parked.push(event);
                    }
                    _ => self.end_side(id, side, why),
                }
            }
            Event::Doom(id, doom) => {
                if self
                    .connections
                    .get(&id)
                    .is_some_and(|conn| conn.doom == doom)
                {
                    self.break_connection(id);
                }
            }
            Event::Idle(id) => {
                let conn = self.connections.get(&id);
                if conn.is_some_and(|conn| conn.idle == Some(number)) {
                    for side in 0..2 {
                        self.end_side(id, side, lost("nothing was heard for too long"));
                    }
                }
            }
        }
    }

    /// Returns the number of the node with this key; the node is down until it is started.
    pub(super) fn node(&mut self, key: PublicKey) -> usize {
        if let Some(node) = self.keys.get(&key) {
            return *node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            key,
            address: self.next_address,
            life: 0,
            up: false,
            changed: Arc::default(),
            backlog: VecDeque::new(),
            limits: Limits::default(),
            up_busy: self.now,
            down_busy: self.now,
            tamper: None,
            stall: None,
            traffic: Traffic::default(),
        });
        self.keys.insert(key, node);
        self.addresses.insert(self.next_address, node);
        self.next_address += 1;
        node
    }

    /// Starts a node, unless it is up. Returns how often it was started.
    pub(super) fn start(&mut self, node: usize) -> u64 {
        let it = &mut self.nodes[node];
        if !it.up {
            it.up = true;
            it.life += 1;
            let address = it.address;
            self.say(Happening::Started { node, address });
        }
        self.nodes[node].life
    }

    /// Gives a node another address; the previous one is no longer reachable.
    pub(super) fn readdress(&mut self, node: usize) {
        let address = self.next_address;
        self.next_address += 1;
        self.addresses.remove(&self.nodes[node].address);
        self.addresses.insert(address, node);
        self.nodes[node].address = address;
        self.nodes[node].changed.notify_waiters();
        self.say(Happening::Moved { node, address });
    }

    pub(super) fn is_alive(&self, node: usize, life: u64) -> bool {
        self.nodes[node].up && self.nodes[node].life == life
    }

    pub(super) fn route(&mut self, from: usize, to: usize) -> &mut Route {
        self.routes.entry((from, to)).or_default()
    }

    pub(super) fn link(&self, from: usize, to: usize) -> Link {
        let own = self.routes.get(&(from, to)).and_then(|route| route.link);
        own.unwrap_or(self.default_link)
    }

    /// Returns the state of the link now, including partitions.
    pub(super) fn flow(&self, from: usize, to: usize) -> Flow {
        let apart = |island: &BTreeSet<usize>| island.contains(&from) != island.contains(&to);
        match self.islands.iter().any(apart) {
            true => Flow::Cut,
            false => self.link(from, to).flow,
        }
    }

    pub(super) fn is_open(&self, from: usize, to: usize) -> bool {
        self.flow(from, to) == Flow::Open
    }

    /// Returns the time that an item without length takes now, including jitter.
    pub(super) fn delay(&mut self, from: usize, to: usize) -> Duration {
        let link = self.link(from, to);
        link.latency + self.random.up_to(link.jitter)
    }

    pub(super) fn pipe(&mut self, id: PipeId) -> Option<&mut Pipe> {
        let conn = self.connections.get_mut(&id.connection)?;
        let stream = conn.streams.get_mut(&id.stream)?;
        Some(&mut stream.pipes[id.direction])
    }

    /// Returns the sender and the receiver in a direction of a stream.
    pub(super) fn ways(&self, id: PipeId) -> Option<(usize, usize)> {
        let conn = self.connections.get(&id.connection)?;
        let sender = conn.streams.get(&id.stream)?.opener ^ id.direction;
        Some((conn.nodes[sender], conn.nodes[1 - sender]))
    }

    /// Applies changed links: connections that are cut start their timeout, and waiting items continue.
    pub(super) fn relink(&mut self) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(conn) = self.connections.get(&id) else {
                continue;
            };
            let ([a, b], idle) = (conn.nodes, conn.idle);
            let cut = self.flow(a, b) == Flow::Cut || self.flow(b, a) == Flow::Cut;
            let idle = match (cut || conn.lost, idle) {
                (true, None) => Some(self.push(self.now + IDLE_TIMEOUT, Event::Idle(id))),
                (true, Some(idle)) => Some(idle),
                (false, _) => None,
            };
            if let Some(conn) = self.connections.get_mut(&id) {
                conn.idle = idle;
            }
            self.doom(id);
        }
        let routes: Vec<_> = self.routes.keys().copied().collect();
        for (from, to) in routes {
            if self.is_open(from, to) {
                for event in std::mem::take(&mut self.route(from, to).parked) {
                    self.happen(0, event);
                }
                self.pump(from, to);
            }
        }
    }
}
