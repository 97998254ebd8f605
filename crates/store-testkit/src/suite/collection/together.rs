//! Cases of many callers at once, and of cancelled calls.

use std::collections::BTreeSet;

use futures_util::{FutureExt, future::join_all};
use larder_store_api::{Batch, CollectionStore, Kind};

use super::super::{Fixture, support::kind};
use crate::cancel::Cut;

use super::{A, B, absent, at, commit, get, put, value};

const TASKS: usize = 16;

/// Increments the counter at `k` by compare-and-swap. Every conflict is an increment by another caller,
/// so there are fewer than `most`.
async fn increment(store: &dyn CollectionStore, most: usize) {
    for _ in 0..most {
        let entry = get(store, &A, "k").await;
        let (count, expect) = match &entry {
            Some(entry) => {
                let count = entry.value[..].try_into().expect("four bytes were put");
                (u32::from_be_bytes(count), at(&A, "k", entry.revision))
            }
            None => (0, absent(&A, "k")),
        };
        let edit = put(&A, "k", (count + 1).to_be_bytes());
        match store.commit(Batch::of(vec![edit]).expecting(expect)).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
        }
        tokio::task::yield_now().await;
    }
    panic!("{most} conflicts, which is more than there are increments");
}

pub(super) async fn concurrent_increments_lose_none(fixture: Fixture<dyn CollectionStore>) {
    const EACH: usize = 25;
    let tasks = (0..TASKS).map(|_| {
        let store = fixture.shared();
        tokio::spawn(async move {
            for _ in 0..EACH {
                increment(&*store, TASKS * EACH).await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("the task ends");
    }
    let count = value(fixture.store(), &A, "k").await.expect("it was put");
    assert_eq!(count[..], ((TASKS * EACH) as u32).to_be_bytes());
}

pub(super) async fn concurrent_commits_have_revisions_of_their_own(
    fixture: Fixture<dyn CollectionStore>,
) {
    const EACH: usize = 30;
    let tasks = (0..TASKS).map(|task| {
        let store = fixture.shared();
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..EACH {
                let key = [task as u8, n as u8];
                let revision = commit(&*store, vec![put(&A, key, key)]).await;
                let entry = get(&*store, &A, key).await.expect("it was put");
                assert_eq!((&entry.value[..], entry.revision), (&key[..], revision));
                revisions.push(revision);
            }
            assert!(revisions.is_sorted_by(|a, b| a < b), "they increase");
            revisions
        })
    });
    let mut revisions = BTreeSet::new();
    for task in join_all(tasks).await {
        revisions.extend(task.expect("the task ends"));
    }
    assert_eq!(revisions.len(), TASKS * EACH, "each commit has its own");
}

pub(super) async fn of_concurrent_claims_one_wins(fixture: Fixture<dyn CollectionStore>) {
    for round in 0..20_u8 {
        let tasks = (0..TASKS).map(|task| {
            let store = fixture.shared();
            let claim = Batch::of(vec![put(&A, [round], [task as u8]), put(&B, [round], "")]);
            let claim = claim.expecting(absent(&A, [round]));
            tokio::spawn(async move {
                let outcome = store.commit(claim).await;
                let seen = value(&*store, &A, [round]).await;
                assert!(seen.is_some(), "the loser does not see the winner's commit");
                outcome
            })
        });
        let outcomes = join_all(tasks).await;
        let mut winners = Vec::new();
        for (task, outcome) in outcomes.into_iter().enumerate() {
            match outcome.expect("the task ends") {
                Ok(_) => winners.push(task as u8),
                Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "winners of round {round}");
        let winner = value(fixture.store(), &A, [round]).await;
        assert_eq!(winner.as_deref(), Some(&winners[..]));
    }
}

pub(super) async fn a_commit_shows_whole(fixture: Fixture<dyn CollectionStore>) {
    const ROUNDS: u32 = 300;
    let writer = {
        let store = fixture.shared();
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let round = round.to_be_bytes();
                commit(
                    &*store,
                    vec![put(&A, "first", round), put(&B, "second", round)],
                )
                .await;
            }
        })
    };
    let store = fixture.store();
    loop {
        let last = writer.is_finished();
        let first = value(store, &A, "first").await;
        let second = value(store, &B, "second").await;
        // Rounds are ordered like their bytes, and a missing value is less than any.
        assert!(second >= first, "the first edit showed before the second");
        let second = value(store, &B, "second").await;
        let first = value(store, &A, "first").await;
        assert!(first >= second, "the second edit showed before the first");
        if last {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.expect("the writer ends");
}

pub(super) async fn a_cancelled_commit_is_whole_or_nothing(fixture: Fixture<dyn CollectionStore>) {
    const EDITS: u8 = 20;
    let store = fixture.store();
    for round in 0..60_u8 {
        let keys: Vec<_> = (0..EDITS).map(|n| [round, n]).collect();
        // Without its guard, it can no longer be applied.
        let guard = commit(store, vec![put(&B, [round], "")]).await;
        let edits = keys.iter().map(|key| put(&A, key, "v")).collect();
        let mut doomed = store.commit(Batch::of(edits).expecting(at(&B, [round], guard)));
        for _ in 0..round % 6 {
            if (&mut doomed).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(doomed);

        let mut settle = Batch::of(vec![super::delete(&B, [round])]);
        settle.expect = keys.iter().map(|key| absent(&A, key)).collect();
        let applied = match store.commit(settle).await {
            Ok(_) => 0,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Conflict, "{error}");
                keys.len()
            }
        };
        let mut found = 0;
        for key in &keys {
            found += usize::from(get(store, &A, key).await.is_some());
        }
        assert_eq!(
            found, applied,
            "edits of the cancelled commit in round {round}"
        );
    }
    commit(store, vec![put(&A, "after", "v")]).await;
    let claim = Batch::of(Vec::new()).expecting(absent(&A, "after"));
    assert_eq!(kind(store.commit(claim).await), Kind::Conflict);
}

pub(super) async fn a_cancelled_commit_comes_before_later_ones(
    fixture: Fixture<dyn CollectionStore>,
) {
    let store = fixture.store();
    for round in 0..40_u8 {
        let earlier = store.commit(Batch::of(vec![put(&A, "k", [round, 0])]));
        Cut::after(usize::from(round % 8)).call(earlier).await;
        commit(store, vec![put(&A, "k", [round, 1])]).await;
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        // Every operation that was running is applied before this commit.
        commit(store, vec![put(&A, "other", "")]).await;
        let found = value(store, &A, "k").await.expect("it was put");
        assert_eq!(found[..], [round, 1]);
    }
}
