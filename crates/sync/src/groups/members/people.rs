//! The members of a group as people see them.

use std::collections::BTreeMap;

use larder_store_api::{PublicKey, Result};

use super::Group;
use crate::membership::{Body, Member, OpId, Rights};

/// A person in a group, or one who left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Person {
    /// The key by which the group's operations name the person: that of the first device, or the group's root.
    pub key: PublicKey,
    /// The name that the person gave itself; `None` without a repo, if it has not come yet, and to a replica.
    pub name: Option<String>,
    /// All rights of the devices together; none of who is out.
    pub rights: Rights,
    /// The time at which the last of them ends.
    pub until: Option<i64>,
    /// The device that invited the person; `None` for who is out.
    pub invited_by: Option<PublicKey>,
    /// The devices.
    pub devices: Vec<PersonDevice>,
    /// The repos.
    pub repos: Vec<PublicKey>,
    /// It is the person whose device this is.
    pub is_you: bool,
    /// The person was removed, or has left.
    pub is_out: bool,
}

/// A device of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PersonDevice {
    /// Its key in the group.
    pub key: PublicKey,
    /// It was removed, or has left.
    pub is_out: bool,
}

/// An operation of a group, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntry {
    /// Its name.
    pub id: OpId,
    /// The device that said it.
    pub author: PublicKey,
    /// The time that the author's clock showed, in milliseconds since 1970.
    pub time: i64,
    /// A word for what it does: `genesis`, `cap`, `invite`, `claim`, `remove`, `leave`, `epoch`, `admit`, `boxes`,
    /// `keys` or `succeed`.
    pub what: &'static str,
    /// The devices and invites that it is about.
    pub about: Vec<PublicKey>,
    /// The reason why it does nothing.
    pub set_aside: Option<String>,
    /// The removal that made it void.
    pub void_by: Option<OpId>,
}

impl Group {
    /// Returns all members that are known here, replicas too, and those that were removed or have left.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn people(&self) -> Result<Vec<Person>> {
        let (state, now) = (self.state(), self.inner().now());
        let own = state.members.get(&self.device());
        let own = own.map(|own| own.owner);
        let mut people: BTreeMap<PublicKey, Person> = BTreeMap::new();
        let person = |key: PublicKey| Person {
            key,
            name: None,
            rights: Rights::NONE,
            until: None,
            invited_by: None,
            devices: Vec::new(),
            repos: Vec::new(),
            is_you: own == Some(key),
            is_out: true,
        };
        for (device, member) in &state.members {
            let found = people
                .entry(member.owner)
                .or_insert_with(|| person(member.owner));
            found.rights = found.rights | member.rights(now);
            found.until = last_moment(member).max(found.until);
            found.is_out = false;
            // Several devices have one inviter, that of the first.
            if member.invited_by != *device {
                found.invited_by.get_or_insert(member.invited_by);
            }
            found.devices.push(PersonDevice {
                key: *device,
                is_out: false,
            });
        }
        for (device, gone) in &state.gone {
            let found = people
                .entry(gone.owner)
                .or_insert_with(|| person(gone.owner));
            found.devices.push(PersonDevice {
                key: *device,
                is_out: true,
            });
        }
        for (repo, owner) in &state.repos {
            if let Some(found) = people.get_mut(owner) {
                found.repos.push(*repo);
            }
        }
        if self.can_read() {
            for found in people.values_mut() {
                for repo in &found.repos {
                    if let (None, Some(repo)) = (&found.name, self.repo(*repo).await?) {
                        found.name = repo.name().await?;
                    }
                }
            }
        }
        Ok(people.into_values().collect())
    }

    /// Returns what was said in the group, each after what came before it.
    pub fn log(&self) -> Vec<LogEntry> {
        let state = self.state();
        let entries = self.with_log(|log| {
            let entries = log.ops().map(|op| {
                let (what, about) = described(op.body());
                LogEntry {
                    id: op.id(),
                    author: op.content().author,
                    time: op.content().time,
                    what,
                    about,
                    set_aside: log.set_aside(op.id()).map(|why| format!("{why:?}")),
                    void_by: state.void.get(&op.id()).copied(),
                }
            });
            entries.collect()
        });
        entries.unwrap_or_default()
    }
}

fn last_moment(member: &Member) -> Option<i64> {
    let ends = member.held.values().map(|held| held.until);
    ends.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
        .flatten()
}

fn described(body: &Body) -> (&'static str, Vec<PublicKey>) {
    match body {
        Body::Genesis { .. } => ("genesis", Vec::new()),
        Body::Cap(cap) if cap.invite.is_some() => ("invite", vec![cap.key]),
        Body::Cap(cap) => ("cap", vec![cap.key]),
        Body::Claim(claim) => ("claim", vec![claim.invite]),
        Body::Remove(remove) if remove.leave => ("leave", remove.targets.clone()),
        Body::Remove(remove) => ("remove", remove.targets.clone()),
        Body::Epoch(_) => ("epoch", Vec::new()),
        Body::Boxes(boxes) if boxes.claim != OpId::NONE => ("admit", vec![boxes.recipient]),
        Body::Boxes(boxes) => ("boxes", vec![boxes.recipient]),
        Body::Keys(_) => ("keys", Vec::new()),
        Body::Succeed(succeed) => ("succeed", vec![succeed.old, succeed.new.key]),
        _ => ("unknown", Vec::new()),
    }
}
