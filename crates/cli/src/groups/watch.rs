//! Follows the replication of groups, and says what happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Result;
use larder::{
    Hash,
    api::{PublicKey, RecordId},
    groups::{Group, Replicator, Standing},
};
use serde::Serialize;

use super::{
    looking::{self, NOBODY_JOINED, Sought, device_name, is_alone, sought},
    progress::Progress,
    shown::{labels, short, told_apart},
};
use crate::{
    app::App,
    output::{self, Count, Shown},
};

/// The interval at which to look.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The time after which it is said whom is looked for.
const LOOKS_FOR: Duration = Duration::from_secs(1);

/// The time for which files must have been missing before it is said: another member may give them.
const STAYS_MISSING: Duration = Duration::from_secs(2);

/// Something that happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    /// Nobody was met yet, and these are looked for.
    Looking {
        group: String,
        members: Vec<Sought>,
        /// True if no other member is known.
        is_alone: bool,
    },
    /// A member's device is there.
    Connected { group: String, peer: String },
    /// This device is no longer a member.
    Out { group: String },
    /// It went.
    Left { group: String, peer: String },
    /// The newest of a repo is here, as far as it is wanted.
    Updated {
        group: String,
        member: String,
        files: u64,
        bytes: u64,
        /// True if the contents of the files are here too, and not only their names.
        complete: bool,
        /// The number of wanted files that no connected member has.
        missing: u64,
    },
    /// Every connected member has everything that it wants.
    Synced {
        group: String,
        peers: usize,
        repos: usize,
        files: u64,
        bytes: u64,
        /// The bytes that this run has received and sent, for all groups.
        received: u64,
        sent: u64,
    },
    /// A store of this device fails; what it was needed for is tried again.
    Failing {
        /// The group that it was needed for; `null` if it was for all.
        group: Option<String>,
        work: &'static str,
        error: String,
    },
    /// It works again.
    Recovered {
        group: Option<String>,
        work: &'static str,
    },
}

impl Event {
    fn say(&self, app: &App) -> Result<()> {
        let text = match self {
            Self::Looking {
                group,
                is_alone: true,
                ..
            } => format!("{}: {NOBODY_JOINED}", Shown(group)),
            Self::Looking { group, members, .. } => format!(
                "{}: looking for {}",
                Shown(group),
                looking::text(members, "; ")
            ),
            Self::Connected { group, peer } => {
                format!("{}: {} is connected", Shown(group), Shown(peer))
            }
            Self::Out { group } => format!(
                "{}: this device is no longer a member: what it has stays, and nothing new comes",
                Shown(group)
            ),
            Self::Left { group, peer } => format!("{}: {} left", Shown(group), Shown(peer)),
            Self::Updated {
                group,
                member,
                files,
                bytes,
                complete,
                missing,
            } => format!(
                "{}: {} has {} file(s), {}, {}",
                Shown(group),
                Shown(member),
                Count(*files),
                output::Bytes(*bytes),
                match (complete, missing) {
                    (true, _) => "all here".to_owned(),
                    (false, 0) => "of which the names are here".to_owned(),
                    (false, n) => format!("but nobody who is connected has {} of them", Count(*n)),
                }
            ),
            Self::Synced {
                group,
                peers,
                repos,
                files,
                bytes,
                received,
                sent,
            } => format!(
                "{}: in sync with {peers} device(s): {repos} repo(s), {} file(s), {}; received {}, sent {}",
                Shown(group),
                Count(*files),
                output::Bytes(*bytes),
                output::Bytes(*received),
                output::Bytes(*sent)
            ),
            Self::Failing { group, work, error } => format!(
                "{}the store of this device fails ({work}): {}. It is tried again.",
                prefix(group.as_deref()),
                Shown(error)
            ),
            Self::Recovered { group, work } => format!(
                "{}the store of this device no longer fails ({work})",
                prefix(group.as_deref())
            ),
        };
        Ok(app.out.result(self, text)?)
    }
}

/// Returns the start of a line about a group, or about all.
fn prefix(group: Option<&str>) -> String {
    group.map_or(String::new(), |group| format!("{}: ", Shown(group)))
}

/// The last seen state of a group.
#[derive(Debug, Default)]
struct Seen {
    peers: BTreeMap<PublicKey, String>,
    /// The root of each repo that is here, and how many files of it are not.
    here: BTreeMap<PublicKey, (Hash, u64)>,
    /// Such states with missing files, and since when they are so, until they are said.
    lacking: BTreeMap<PublicKey, ((Hash, u64), Instant)>,
    /// The attempts to reach members that were said last.
    looking: Option<Vec<looking::State>>,
    /// The numbers that were said to be in sync; `None` while the group is not.
    synced: Option<(usize, u64, u64)>,
    /// True if the group was in sync at any time.
    was_synced: bool,
    /// True if anybody was there at any time.
    was_met: bool,
    /// True once it was said that this device is no longer a member.
    is_out: bool,
}

/// Follows groups; each look says what is new.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    app: &'a App,
    replicator: &'a Replicator,
    seen: BTreeMap<RecordId, Seen>,
    /// The failures of our own store that were said, by group and work.
    failing: BTreeMap<(Option<RecordId>, &'static str), String>,
    /// The numbers of bytes received and sent so far.
    moved_bytes: (u64, u64),
    progress: Progress,
    /// The time at which something moved last.
    moved: Instant,
    started: Instant,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(app: &'a App, replicator: &'a Replicator) -> Self {
        Self {
            app,
            replicator,
            seen: BTreeMap::new(),
            failing: BTreeMap::new(),
            moved_bytes: (0, 0),
            progress: Progress::new(app.out),
            moved: Instant::now(),
            started: Instant::now(),
        }
    }

    /// Returns the time for which nothing has moved.
    pub(crate) fn quiet_for(&self) -> Duration {
        self.moved.elapsed()
    }

    /// Looks at these groups, and says what is new. True where each of them is in sync or was: who was
    /// in sync may have left since.
    pub(crate) async fn look(&mut self, groups: &[Group]) -> Result<bool> {
        let names = labels(groups).await?;
        self.look_at_troubles(&names).await?;
        let mut all_synced = true;
        for group in groups {
            let name = &names[&group.id()];
            all_synced &= self.look_at(group, name).await? || self.seen[&group.id()].was_synced;
        }
        self.show_progress();
        Ok(all_synced)
    }

    /// Says which stores of this device fail now, and which work again.
    async fn look_at_troubles(&mut self, names: &BTreeMap<RecordId, String>) -> Result<()> {
        let troubles = self.replicator.troubles().into_iter();
        let now: BTreeMap<_, _> = troubles
            .map(|trouble| ((trouble.group, trouble.work), trouble.error.to_string()))
            .collect();
        let before = std::mem::replace(&mut self.failing, now);
        let mut events = Vec::new();
        for (&(id, work), error) in &self.failing {
            if before.get(&(id, work)) != Some(error) {
                let group = id.map(|id| name_of(names, id));
                let error = error.clone();
                events.push(Event::Failing { group, work, error });
            }
        }
        for &(id, work) in before.keys() {
            if !self.failing.contains_key(&(id, work)) {
                let group = id.map(|id| name_of(names, id));
                events.push(Event::Recovered { group, work });
            }
        }
        for event in events {
            self.progress.suspend(|| event.say(self.app))?;
        }
        Ok(())
    }

    /// Returns true if anybody of the group was there at any time.
    pub(crate) fn was_met(&self, group: &Group) -> bool {
        self.seen.get(&group.id()).is_some_and(|seen| seen.was_met)
    }

    async fn look_at(&mut self, group: &Group, name: &str) -> Result<bool> {
        let status = self.replicator.status(group.id()).await?;
        let seen = self.seen.entry(group.id()).or_default();
        let mut events = Vec::new();
        let was_out = std::mem::replace(&mut seen.is_out, group.standing() == Standing::Out);
        if seen.is_out && !was_out {
            events.push(Event::Out {
                group: name.to_owned(),
            });
        }

        let peers: BTreeSet<_> = status.peers.iter().copied().collect();
        for peer in &peers {
            if !seen.peers.contains_key(peer) {
                let peer_name = match device_name(self.replicator, group, *peer).await? {
                    Some(name) => name,
                    None if status.compared => short(peer),
                    // Whose it is may be what it says next.
                    None => continue,
                };
                seen.peers.insert(*peer, peer_name.clone());
                events.push(Event::Connected {
                    group: name.to_owned(),
                    peer: peer_name,
                });
            }
        }
        seen.peers.retain(|peer, peer_name| {
            let stays = peers.contains(peer);
            if !stays {
                events.push(Event::Left {
                    group: name.to_owned(),
                    peer: peer_name.clone(),
                });
            }
            stays
        });

        let (mut files, mut bytes) = (0, 0);
        for repo in &status.repos {
            let state = repo.state;
            files = u64::saturating_add(files, state.announced.files);
            bytes = u64::saturating_add(bytes, state.announced.bytes);
            let here = (state.wanted.hash, repo.missing.files);
            if repo.missing.files > 0 && seen.here.get(&repo.repo) != Some(&here) {
                let (state, since) = *seen
                    .lacking
                    .entry(repo.repo)
                    .and_modify(|(state, since)| {
                        if *state != here {
                            (*state, *since) = (here, Instant::now());
                        }
                    })
                    .or_insert((here, Instant::now()));
                if state == here && since.elapsed() < STAYS_MISSING {
                    continue;
                }
            }
            seen.lacking.remove(&repo.repo);
            let before = seen.here.insert(repo.repo, here);
            let is_news = before.unwrap_or((Hash::EMPTY, 0)) != here;
            if is_news && !repo.is_ours && repo.is_settled() {
                events.push(Event::Updated {
                    group: name.to_owned(),
                    member: told_apart(group, repo.repo).await?,
                    files: state.wanted.files,
                    bytes: state.wanted.bytes,
                    complete: state.complete.hash == state.wanted.hash,
                    missing: repo.missing.files,
                });
            }
        }

        let synced = !peers.is_empty() && status.compared && status.has_all() && status.all_have();
        let state = synced.then_some((peers.len(), files, bytes));
        if synced && (seen.synced != state || !events.is_empty()) {
            events.push(Event::Synced {
                group: name.to_owned(),
                peers: peers.len(),
                repos: status.repos.len(),
                files,
                bytes,
                received: self.replicator.received(),
                sent: self.replicator.sent(),
            });
        }
        if state != seen.synced || !events.is_empty() {
            self.moved = Instant::now();
        }
        seen.synced = state;
        seen.was_synced |= synced;
        seen.was_met |= !peers.is_empty();
        for event in events {
            self.progress.suspend(|| event.say(self.app))?;
        }
        self.look_for(group, name).await?;
        Ok(synced)
    }

    /// Says whom is looked for while nobody of the group was met, and how that goes.
    async fn look_for(&mut self, group: &Group, name: &str) -> Result<()> {
        let seen = self.seen.entry(group.id()).or_default();
        if seen.was_met {
            return Ok(());
        }
        let attempts = self.replicator.attempts(group.id());
        let now = looking::states(&attempts);
        if self.started.elapsed() < LOOKS_FOR || seen.looking.as_ref() == Some(&now) {
            return Ok(());
        }
        seen.looking = Some(now);
        let members = sought(self.replicator, group).await?;
        let event = Event::Looking {
            group: name.to_owned(),
            is_alone: is_alone(self.replicator, group, &members).await?,
            members,
        };
        self.progress.suspend(|| event.say(self.app))
    }

    fn show_progress(&mut self) {
        let received = self.replicator.received();
        let moved = (received, self.replicator.sent());
        if moved != self.moved_bytes {
            self.moved_bytes = moved;
            self.moved = Instant::now();
        }
        let names = self.seen.values().flat_map(|seen| seen.peers.clone());
        self.progress.show(self.replicator, &names.collect());
    }
}

/// Returns the name of a group: one of these, or its id.
fn name_of(names: &BTreeMap<RecordId, String>, id: RecordId) -> String {
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

/// Waits until it is time to look again.
pub(crate) async fn until_next_look() {
    tokio::time::sleep(LOOK_EVERY).await;
}
