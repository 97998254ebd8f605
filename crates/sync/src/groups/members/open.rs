//! Opening epochs: by boxes to this device or to its invites, and by the links of others.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use larder_store_api::PublicKey;

use super::secret::{DeviceSecret, HeldEpoch};
use crate::{
    keyring::Keyring,
    membership::{
        Body, BoxSecret, Epoch, Log, OpId, SealedBox, box_at, is_locate_of, open_link,
        open_link_locate,
    },
};

/// The epochs whose links were opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opened {
    /// Those of which all links were looked at, with the keys of who reads or of a replica.
    done: HashSet<(OpId, bool)>,
    /// Those to which a link leads from one that is held.
    linked: HashSet<OpId>,
}

/// Somebody to whom epochs are boxed.
struct Holder {
    key: PublicKey,
    boxes: BoxSecret,
}

impl Opened {
    /// Puts all epochs into the ring that this device can open, and notes which of them to keep in its secret.
    pub(super) fn open(
        &mut self,
        log: &Log,
        keys: &Keyring,
        secret: &mut DeviceSecret,
        lists: &BTreeMap<OpId, Arc<Vec<u8>>>,
    ) {
        for (id, held) in &secret.epochs {
            match held {
                HeldEpoch::Secret(secret) => keys.add(*id, secret.clone()),
                HeldEpoch::Locate(locate) => keys.add_locate(*id, locate.clone()),
            };
        }
        let holders = holders(secret);
        open_boxes(log, keys, &holders, lists);
        while self.follow_links(log, keys) {}
        keys.set_first(log.first_epoch());
        let ops = log.ops().filter(|op| op.body().epoch().is_some());
        let held = ops.filter_map(|op| keys.get(op.id()));
        let last = held.filter(|keys| !self.linked.contains(&keys.id()));
        let last = last.map(|keys| (keys.id(), HeldEpoch::of(&keys)));
        secret.keep_epochs(last.collect());
    }

    /// Opens the links of epochs that are held; returns true if that gave more of them.
    fn follow_links(&mut self, log: &Log, keys: &Keyring) -> bool {
        let mut found = false;
        for op in log.ops() {
            let Some(epoch) = op.body().epoch() else {
                continue;
            };
            let Some(held) = keys.get(op.id()) else {
                continue;
            };
            let reads = held.secret().is_some();
            if !self.done.insert((op.id(), reads)) {
                continue;
            }
            for link in &epoch.links {
                let Some(earlier) = log.epoch(link.epoch) else {
                    continue;
                };
                let is_right = match held.secret() {
                    Some(secret) => match open_link(secret, link) {
                        Ok(secret) if secret.is_of(earlier) => {
                            found |= keys.add(link.epoch, secret);
                            true
                        }
                        _ => false,
                    },
                    None => match open_link_locate(held.locate(), link, link.epoch.label()) {
                        Ok(locate) if is_locate_of(&locate, earlier) => {
                            found |= keys.add_locate(link.epoch, locate);
                            true
                        }
                        _ => false,
                    },
                };
                match is_right {
                    true => drop(self.linked.insert(link.epoch)),
                    false => tracing::debug!(epoch = %op.id(), "a link of an epoch is wrong"),
                }
            }
        }
        found
    }
}

fn holders(secret: &DeviceSecret) -> Vec<Holder> {
    let device = Holder {
        key: secret.key(),
        boxes: secret.boxes(),
    };
    let invites = secret.invites.iter().map(|seed| Holder {
        key: seed.public(),
        boxes: seed.boxes(),
    });
    std::iter::once(device).chain(invites).collect()
}

/// Opens what was boxed to one of these, of epochs that are not in the ring with all that there is.
fn open_boxes(log: &Log, keys: &Keyring, holders: &[Holder], lists: &BTreeMap<OpId, Arc<Vec<u8>>>) {
    let lacks = |id: OpId| keys.get(id).is_none_or(|keys| keys.secret().is_none());
    for op in log.ops() {
        if let Body::Boxes(boxes) = op.body()
            && let Some(holder) = holders.iter().find(|holder| holder.key == boxes.recipient)
        {
            for (id, sealed) in &boxes.boxes {
                if lacks(*id)
                    && let Some(epoch) = log.epoch(*id)
                {
                    open_box(log, keys, holder, *id, epoch, sealed);
                }
            }
        }
    }
    for (id, list) in lists {
        let (true, Some(epoch)) = (lacks(*id), log.epoch(*id)) else {
            continue;
        };
        let Some(recipients) = log.recipients_of(*id) else {
            continue;
        };
        for holder in holders {
            let place = recipients.position(holder.key);
            if let Some(Ok(sealed)) = place.map(|place| box_at(list, place)) {
                open_box(log, keys, holder, *id, epoch, sealed);
            }
        }
    }
}

/// Opens a box with the secret in it, or with the locate key. Anything else says nothing.
fn open_box(
    log: &Log,
    keys: &Keyring,
    holder: &Holder,
    id: OpId,
    epoch: &Epoch,
    sealed: &SealedBox,
) {
    let (boxes, group) = (&holder.boxes, log.group());
    if let Ok(secret) = boxes.open(group, holder.key, epoch, sealed) {
        keys.add(id, secret);
    } else if let Ok(locate) = boxes.open_locate(group, holder.key, epoch, sealed, id.label()) {
        keys.add_locate(id, locate);
    }
}
