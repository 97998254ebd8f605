//! The flow of bytes across the simulated network. Streams take turns on their link, one chunk each; a
//! chunk passes the sender's limit, the link and the receiver's limit before it reaches its reader.

use std::time::Duration;

use super::{
    Crossing,
    error::lost,
    pipe::{End, Item},
    search::{Finding, MAX_FINDINGS, Tail},
    settings::{MAX_BACKLOG, chunk_len, duration_of},
    trace::{Happening, PipeId},
    world::{Event, World},
};

impl World {
    /// Queues a stream that has something to send.
    pub(super) fn enqueue(&mut self, id: PipeId, from: usize, to: usize) {
        if let Some(pipe) = self.pipe(id)
            && pipe.has_queued()
            && !pipe.ready
        {
            pipe.ready = true;
            self.route(from, to).ring.push_back(id);
        }
        self.pump(from, to);
    }

    /// Sends everything that can leave now.
    pub(super) fn pump(&mut self, from: usize, to: usize) {
        loop {
            if !self.is_open(from, to) {
                return;
            }
            let link = self.link(from, to);
            let (up, down) = (self.nodes[from].limits.up, self.nodes[to].limits.down);
            let slowest = [link.bandwidth, up, down].into_iter().flatten().min();
            let route = self.route(from, to);
            if route.busy {
                return;
            }
            let Some(id) = route.ring.pop_front() else {
                return;
            };
            let Some(pipe) = self.pipe(id) else {
                continue;
            };
            let item = pipe.take(chunk_len(slowest));
            pipe.ready = pipe.has_queued();
            if pipe.ready {
                self.route(from, to).ring.push_back(id);
            }
            let Some(item) = item else {
                continue;
            };
            if self.send(id, from, to, item) {
                return;
            }
        }
    }

    /// Sends an item. Returns true if the link is busy with it.
    fn send(&mut self, id: PipeId, from: usize, to: usize, item: Item) -> bool {
        let Some(item) = self.cross(id, from, to, item) else {
            return false;
        };
        let now = self.now;
        let link = self.link(from, to);
        let len = item.len();
        let (mut left, mut took) = (now, Duration::ZERO);
        let down = self.nodes[to].limits.down;
        if len > 0 {
            let sender = &mut self.nodes[from];
            let start = now.max(sender.up_busy);
            sender.up_busy = start + duration_of(len, sender.limits.up);
            // Nobody sends faster than the receiver can receive, so that senders share its limit
            // fairly.
            let pace = [link.bandwidth, down].into_iter().flatten().min();
            took = duration_of(len, pace);
            left = (start + took).max(sender.up_busy);
            took = left - start;
        }
        let arrival = left + self.delay(from, to);
        let Some(pipe) = self.pipe(id) else {
            return false;
        };
        let alone = pipe.flying == 0;
        pipe.flying += 1;
        pipe.in_flight += len;
        let arrival = arrival.max(pipe.last_arrival);
        pipe.last_arrival = arrival;
        if alone && arrival <= now {
            self.arrive(id, item, took);
        } else {
            self.push(arrival, Event::Arrive(id, item, took));
        }
        if left > now {
            self.route(from, to).busy = true;
            self.push(left, Event::Free(from, to));
        }
        left > now
    }

    /// Returns the part of an item that a stalled node still sends. The peer does not learn of the end
    /// of the stream either.
    fn stall(&mut self, id: PipeId, from: usize, item: Item) -> Option<Item> {
        let Some(most) = self.nodes[from].stall else {
            return Some(item);
        };
        let room = most.saturating_sub(self.pipe(id)?.sent);
        match item {
            _ if room == 0 => None,
            Item::Data(mut bytes) => {
                bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
                Some(Item::Data(bytes))
            }
            end => Some(end),
        }
    }

    /// Lets an item leave: it may be tampered with, searched, or break the connection.
    fn cross(&mut self, id: PipeId, from: usize, to: usize, item: Item) -> Option<Item> {
        let item = self.stall(id, from, item)?;
        let mut bytes = match item {
            Item::Data(bytes) => bytes,
            Item::End(end) => {
                let how = match end {
                    End::Clean => "shut down",
                    End::Reset => "reset",
                };
                self.say(Happening::Ended { pipe: id, how });
                return Some(Item::End(end));
            }
        };
        let offset = self.pipe(id)?.sent;
        let keys = [from, to].map(|node| self.nodes[node].key);
        if let Some(tamper) = &mut self.nodes[from].tamper {
            let crossing = Crossing {
                from: keys[0],
                to: keys[1],
                connection: id.connection,
                stream: id.stream,
                direction: id.direction,
                offset,
            };
            let before = bytes.clone();
            bytes = tamper(&crossing, bytes);
            if bytes != before {
                let len = bytes.len();
                self.say(Happening::Tampered { pipe: id, len });
            }
            if bytes.is_empty() {
                return None;
            }
        }
        let len = bytes.len();
        if self.search.is_some() {
            let mut tail = std::mem::take(&mut self.pipe(id)?.tail_sent);
            self.look(
                [from, to],
                id.connection,
                Some(id.stream),
                offset,
                &mut tail,
                &bytes,
            );
            self.pipe(id)?.tail_sent = tail;
        }
        self.pipe(id)?.sent += len as u64;
        self.nodes[from].traffic.sent += len as u64;
        self.say(Happening::Sent { pipe: id, len });
        let rate = self.link(from, to).breaks_per_byte;
        if rate > 0.0 && self.random.chance(1.0 - (-rate * len as f64).exp()) {
            self.break_connection(id.connection);
            return None;
        }
        Some(Item::Data(bytes))
    }

    /// Searches the bytes that one node sends to another.
    pub(super) fn look(
        &mut self,
        nodes: [usize; 2],
        connection: u64,
        stream: Option<u64>,
        offset: u64,
        tail: &mut Tail,
        bytes: &[u8],
    ) {
        let [from, to] = nodes.map(|node| self.nodes[node].key);
        let Some(mut search) = self.search.take() else {
            return;
        };
        let mut found = Vec::new();
        search.next(tail, bytes, |pattern, start| {
            if found.len() < MAX_FINDINGS {
                let offset = offset.saturating_add_signed(start);
                found.push(Finding {
                    pattern,
                    from,
                    to,
                    connection,
                    stream,
                    offset,
                });
            }
        });
        let room = MAX_FINDINGS - search.findings.len();
        search.findings.extend(found.into_iter().take(room));
        self.search = Some(search);
    }

    /// Handles an item that has crossed its link in the time `took`; it waits for the receiver's limit.
    pub(super) fn arrive(&mut self, id: PipeId, item: Item, took: Duration) {
        let Some((from, to)) = self.ways(id) else {
            return;
        };
        if !self.is_open(from, to) {
            let event = Event::Arrive(id, item, took);
            return self.route(from, to).parked.push(event);
        }
        let now = self.now;
        let receiver = &mut self.nodes[to];
        let mut landing = now;
        if let (Some(_), true) = (receiver.limits.down, item.len() > 0) {
            // Its first byte arrived before its last.
            let first = now.checked_sub(took).unwrap_or(now);
            let done =
                first.max(receiver.down_busy) + duration_of(item.len(), receiver.limits.down);
            receiver.down_busy = done;
            landing = done.max(now);
        }
        let Some(pipe) = self.pipe(id) else {
            return;
        };
        landing = landing.max(pipe.last_landing);
        pipe.last_landing = landing;
        if landing <= now && pipe.landing == 0 {
            self.land(id, item);
        } else {
            pipe.landing += 1;
            self.push(landing, Event::Land(id, item));
        }
    }

    /// Delivers an item to its reader.
    pub(super) fn land(&mut self, id: PipeId, item: Item) {
        let Some((_, to)) = self.ways(id) else {
            return;
        };
        let Some(conn) = self.connections.get_mut(&id.connection) else {
            return;
        };
        let Some(stream) = conn.streams.get_mut(&id.stream) else {
            return;
        };
        let reads = 1 - (stream.opener ^ id.direction);
        let over = conn.sides[reads].ended.get().is_some();
        let pipe = &mut stream.pipes[id.direction];
        if over {
            pipe.reader_gone = true;
        }
        let len = item.len();
        let got = pipe.arrive(item);
        if got && id.direction == 0 && !stream.announced {
            stream.announced = true;
            conn.incoming[reads].push_back(id.stream);
            conn.sides[reads].changed.notify_waiters();
        }
        if got && len > 0 {
            self.nodes[to].traffic.received += len as u64;
            self.say(Happening::Arrived { pipe: id, len });
        }
    }

    /// Delivers a connection to be accepted.
    pub(super) fn incoming(&mut self, id: u64) {
        let Some(conn) = self.connections.get(&id) else {
            return;
        };
        let [from, to] = conn.nodes;
        if conn.sides[1].ended.get().is_some() {
            return;
        }
        if !self.is_open(from, to) {
            return self.route(from, to).parked.push(Event::Incoming(id));
        }
        let node = &mut self.nodes[to];
        if node.backlog.len() < MAX_BACKLOG {
            node.backlog.push_back(id);
            node.changed.notify_waiters();
        } else {
            let why = lost("too many connections wait to be accepted");
            self.close(id, 1, why.clone(), why);
        }
    }
}
