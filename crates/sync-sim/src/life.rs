//! The beginning and the end of simulated connections and streams.

use std::collections::BTreeMap;

use larder_store_api::Error;

use super::{
    error::{closed, lost},
    pipe::{End, wake},
    trace::{Happening, PipeId},
    world::{Conn, Event, World},
};

impl World {
    /// Makes a connection; the side that requested it is 0.
    pub(super) fn join(&mut self, from: usize, to: usize) -> u64 {
        let id = self.next_connection;
        self.next_connection += 1;
        let conn = Conn {
            nodes: [from, to],
            sides: Default::default(),
            streams: BTreeMap::new(),
            incoming: Default::default(),
            opened: [0; 2],
            next_stream: 0,
            lost: false,
            idle: None,
            doom: 0,
        };
        self.connections.insert(id, conn);
        self.nodes[from].traffic.connections += 1;
        self.say(Happening::Connected {
            connection: id,
            from,
            to,
        });
        self.doom(id);
        let time = self.now + self.delay(from, to);
        self.push(time, Event::Incoming(id));
        id
    }

    /// Chooses again when a connection breaks by itself.
    pub(super) fn doom(&mut self, id: u64) {
        let Some(conn) = self.connections.get(&id) else {
            return;
        };
        let [a, b] = conn.nodes;
        let rate = self.link(a, b).breaks_per_second + self.link(b, a).breaks_per_second;
        let wait = self.random.wait(rate);
        let Some(conn) = self.connections.get_mut(&id) else {
            return;
        };
        conn.doom += 1;
        let event = Event::Doom(id, conn.doom);
        if let Some(wait) = wait {
            self.push(self.now + wait, event);
        }
    }

    /// Ends a connection for one of its sides: unread bytes will not be read, and queued bytes will not
    /// leave.
    pub(super) fn end_side(&mut self, id: u64, side: usize, why: Error) {
        let Some(conn) = self.connections.get_mut(&id) else {
            return;
        };
        let text = why.to_string();
        if conn.sides[side].ended.set(why).is_err() {
            return;
        }
        for stream in conn.streams.values_mut() {
            let out = side ^ stream.opener;
            let [sends, receives] = [out, 1 - out];
            stream.pipes[sends].abandon();
            wake(&mut stream.pipes[sends].writer);
            stream.pipes[receives].drop_unread();
            wake(&mut stream.pipes[receives].reader);
        }
        conn.incoming[side].clear();
        conn.sides[side].changed.notify_waiters();
        if conn.sides.iter().all(|side| side.ended.get().is_some()) {
            self.connections.remove(&id);
        }
        self.say(Happening::SideEnded {
            connection: id,
            side,
            why: text,
        });
    }

    /// Ends a connection for one side now, and for the other side when the news arrives.
    pub(super) fn close(&mut self, id: u64, side: usize, here: Error, there: Error) {
        let Some(conn) = self.connections.get(&id) else {
            return;
        };
        if conn.sides[side].ended.get().is_some() {
            return;
        }
        let (from, to) = (conn.nodes[side], conn.nodes[1 - side]);
        self.end_side(id, side, here);
        if self.connections.contains_key(&id) {
            let time = self.now + self.delay(from, to);
            self.push(time, Event::Close(id, 1 - side, there));
        }
    }

    /// Ends a connection for both sides at once.
    pub(super) fn break_connection(&mut self, id: u64) {
        for side in 0..2 {
            self.end_side(id, side, lost("the connection was lost"));
        }
    }

    /// Frees a half of a stream, and forgets the stream when nobody holds any half.
    pub(super) fn drop_half(&mut self, id: PipeId, is_writer: bool) {
        let Some((from, to)) = self.ways(id) else {
            return;
        };
        let delay = self.link(to, from).latency;
        let time = self.now + delay;
        let Some(pipe) = self.pipe(id) else {
            return;
        };
        if is_writer {
            if pipe.ended().is_none() {
                let silent = id.direction == 0 && !pipe.is_touched();
                pipe.finish(End::Reset);
                if !silent {
                    self.enqueue(id, from, to);
                }
            }
        } else if !pipe.reader_gone {
            pipe.reader_gone = true;
            let unfinished = pipe.arrived_end.is_none();
            pipe.drop_unread();
            if unfinished {
                self.push(time, Event::Stop(id));
            }
        }
        let Some(conn) = self.connections.get_mut(&id.connection) else {
            return;
        };
        let Some(stream) = conn.streams.get_mut(&id.stream) else {
            return;
        };
        stream.halves -= 1;
        // The other side never learns of a stream that was not used.
        let unheard = stream.halves == 2 && !stream.announced && stream.pipes[0].sent == 0;
        let unheard = unheard && stream.pipes[0].ended() == Some(End::Reset);
        if stream.halves == 0 || unheard {
            let opener = stream.opener;
            conn.streams.remove(&id.stream);
            conn.opened[opener] -= 1;
            conn.sides[opener].changed.notify_waiters();
        }
    }

    pub(super) fn stopped(&mut self, id: PipeId) {
        let Some((from, to)) = self.ways(id) else {
            return;
        };
        if !self.is_open(to, from) {
            self.route(to, from).parked.push(Event::Stop(id));
        } else if let Some(pipe) = self.pipe(id) {
            pipe.stopped = true;
            pipe.abandon();
            wake(&mut pipe.writer);
        }
    }

    /// Ends all connections of a node. `tell` is the error for the other side of each; without it, the
    /// other sides find out by timeout.
    pub(super) fn take_down(&mut self, node: usize, how: &'static str, tell: Option<&Error>) {
        if !self.nodes[node].up {
            return;
        }
        self.say(Happening::Down { node, how });
        self.nodes[node].up = false;
        self.nodes[node].backlog.clear();
        self.nodes[node].changed.notify_waiters();
        let ours = |(id, conn): (&u64, &Conn)| {
            let side = conn.nodes.iter().position(|n| *n == node)?;
            Some((*id, side))
        };
        let ours: Vec<_> = self.connections.iter().filter_map(ours).collect();
        for (id, side) in ours {
            let here = closed("this node is down");
            match tell {
                Some(why) => self.close(id, side, here, why.clone()),
                None => {
                    self.end_side(id, side, here);
                    if let Some(conn) = self.connections.get_mut(&id) {
                        conn.lost = true;
                    }
                }
            }
        }
        self.relink();
    }
}
