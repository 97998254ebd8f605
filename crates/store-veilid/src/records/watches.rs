//! The watched records and their listeners.

use std::{collections::HashMap, sync::Mutex};

use larder_store_api::{RecordEvent, RecordId, Slot};
use tokio::sync::broadcast;

/// The records that are watched.
#[derive(Debug, Default)]
pub(super) struct Watches(pub(super) Mutex<HashMap<RecordId, broadcast::Sender<RecordEvent>>>);

impl Watches {
    /// Tells the listeners of the record that this store has written to it.
    pub(super) fn changed(&self, id: RecordId, slot: Slot) {
        let watches = self
            .0
            .lock()
            .expect("nothing panics while it holds the lock");
        if let Some(sender) = watches.get(&id) {
            tell(sender, vec![slot]);
        }
    }

    /// Ends a record's watch, unless there are listeners again; returns true if it ended.
    pub(super) fn leave(
        &self,
        id: RecordId,
        sender: &broadcast::Sender<RecordEvent>,
        leave: Leave,
    ) -> bool {
        let mut watches = self
            .0
            .lock()
            .expect("nothing panics while it holds the lock");
        let ends = leave == Leave::Now || sender.receiver_count() == 0;
        if ends && watches.get(&id).is_some_and(|own| own.same_channel(sender)) {
            watches.remove(&id);
        }
        ends
    }
}

/// The condition under which a watch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Now,
    IfUnheard,
}

pub(super) fn tell(sender: &broadcast::Sender<RecordEvent>, slots: Vec<Slot>) {
    // Without listeners there is nobody to miss it.
    drop(sender.send(RecordEvent::Changed { slots, value: None }));
}
