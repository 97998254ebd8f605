//! Whose repos are whose, which of them go on from others, and which are frozen.

use std::collections::{BTreeMap, BTreeSet};

use larder_store_api::PublicKey;

use super::{body::Body, id::OpId, judge::Judge, log::Log, rights::Rights, state::State};

/// Repos by owner, in the order in which the operations that name them are named.
type Named = BTreeMap<PublicKey, BTreeMap<OpId, PublicKey>>;

impl Log {
    /// Adds to `state` what it says of repos.
    pub(super) fn add_repos(&self, state: &mut State, judge: &Judge<'_>) {
        let members = state
            .members
            .iter()
            .map(|(key, member)| (*key, member.owner));
        let gone = state.gone.iter().map(|(key, gone)| (*key, gone.owner));
        let owners: BTreeMap<PublicKey, PublicKey> = members.chain(gone).collect();
        let named = self.named(&owners);
        // Of two who name one, the operation with the lesser name says whose it is.
        let mut repos: BTreeMap<PublicKey, (OpId, PublicKey)> = BTreeMap::new();
        for (owner, all) in &named {
            for (id, repo) in all {
                let next = (*id, *owner);
                let first = repos.entry(*repo).or_insert(next);
                *first = next.min(*first);
            }
        }
        let repos = repos.into_iter().map(|(repo, (_, owner))| (repo, owner));
        state.repos = repos.collect();
        let succeeded = self.successions(judge, &owners, &named);
        for (key, member) in &mut state.members {
            let own = self
                .keys_of(judge, *key)
                .and_then(|keys| keys.repo.as_ref());
            let first = || named.get(&member.owner)?.values().next().copied();
            member.repo = own.map(|repo| repo.key).or_else(first);
            let mut seen = BTreeSet::new();
            while let Some(repo) = member.repo
                && seen.insert(repo)
                && let Some(next) = succeeded.get(&repo)
            {
                member.repo = Some(*next);
            }
        }
        state.succeeded = succeeded;
        self.freeze(state, judge, &owners, &named);
    }

    /// The repos that the devices of each owner have named as theirs. Succeeding names one too.
    fn named(&self, owners: &BTreeMap<PublicKey, PublicKey>) -> Named {
        let mut named = Named::new();
        for node in self.repos.iter().map(|at| &self.nodes[*at]) {
            let owner = owners.get(&node.op.content().author);
            if let (Some(repo), Some(owner)) = (node.op.body().repo(), owner) {
                let repos = named.entry(*owner).or_default();
                repos.insert(node.op.id(), repo.key);
            }
        }
        named
    }

    /// The repos that go on from others. Of two that go on from one, the operation with the greater name counts.
    fn successions(
        &self,
        judge: &Judge<'_>,
        owners: &BTreeMap<PublicKey, PublicKey>,
        named: &Named,
    ) -> BTreeMap<PublicKey, PublicKey> {
        let mut found: BTreeMap<PublicKey, (OpId, PublicKey)> = BTreeMap::new();
        for at in self.repos.iter().copied() {
            let node = &self.nodes[at];
            let Body::Succeed(succeed) = node.op.body() else {
                continue;
            };
            let repos = owners.get(&node.op.content().author);
            let repos = repos.and_then(|owner| named.get(owner));
            let is_theirs = repos.is_some_and(|all| all.values().any(|repo| *repo == succeed.old));
            if is_theirs && judge.is_good(at) {
                let next = (node.op.id(), succeed.new.key);
                let last = found.entry(succeed.old).or_insert(next);
                *last = next.max(*last);
            }
        }
        found
            .into_iter()
            .map(|(old, (_, new))| (old, new))
            .collect()
    }

    /// Freezes the repos of those who were removed: what a removal says counts for the owners of its targets, and
    /// an owner of whom no device may write any more has no repo that is not frozen.
    fn freeze(
        &self,
        state: &mut State,
        judge: &Judge<'_>,
        owners: &BTreeMap<PublicKey, PublicKey>,
        named: &Named,
    ) {
        for at in self.removals.iter().filter(|at| judge.counts(**at)) {
            let (Some(remove), Ok(acts)) = (self.remove(*at), &self.nodes[*at].verdict) else {
                continue;
            };
            let targets = acts.targets.iter().map(|target| self.subjects[*target].key);
            let targets: BTreeSet<_> = targets.filter_map(|key| owners.get(&key)).collect();
            let repos = targets.iter().filter_map(|owner| named.get(owner));
            let repos: BTreeSet<_> = repos.flat_map(|repos| repos.values()).collect();
            let known = remove
                .frozen
                .iter()
                .filter(|root| repos.contains(&root.repo));
            for root in known {
                let roots = state.frozen.entry(root.repo).or_default();
                roots.insert(root.clone());
            }
        }
        let mut writers = BTreeSet::new();
        for member in state.members.values() {
            if member
                .held
                .values()
                .any(|held| held.rights.covers(Rights::WRITE))
            {
                writers.insert(member.owner);
            }
        }
        let ended = named.iter().filter(|(owner, _)| !writers.contains(owner));
        for repo in ended.flat_map(|(_, repos)| repos.values()) {
            state.frozen.entry(*repo).or_default();
        }
    }
}
