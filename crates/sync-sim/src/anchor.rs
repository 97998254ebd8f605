//! The anchor that keeps one side of a connection open.

use std::sync::Arc;

use larder_net_api::cut_reason;

use super::{
    error::closed,
    search::Tail,
    world::{Shared, SideState},
};

/// One side of a connection, shared by the connection and its streams: dropping the last handle closes
/// the connection.
pub(super) struct Anchor {
    pub(super) sim: Arc<Shared>,
    pub(super) id: u64,
    pub(super) side: usize,
    pub(super) state: Arc<SideState>,
}

impl Anchor {
    pub(super) fn close(&self, reason: &str) {
        let reason = cut_reason(reason);
        self.sim.with(|world| {
            let Some(conn) = world.connections.get(&self.id) else {
                return;
            };
            if conn.sides[self.side].ended.get().is_some() {
                return;
            }
            let nodes = [conn.nodes[self.side], conn.nodes[1 - self.side]];
            let mut tail = Tail::default();
            world.look(nodes, self.id, None, 0, &mut tail, reason.as_bytes());
            let here = closed("the connection was closed on this side").with("reason", reason);
            let there =
                closed("the connection was closed by the other side").with("reason", reason);
            world.close(self.id, self.side, here, there);
        });
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.close("dropped");
    }
}
