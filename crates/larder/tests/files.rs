//! Files and folders through the library alone.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use larder::{
    Kind, Result, Store,
    files::{self, AddRequest, Event, GetRequest, Observer, PutRequest, Reason, Stored},
    groups::Repo,
};

async fn with_repo() -> Result<(Store, Repo)> {
    let store = Store::open("mem:").await?;
    let key = store.groups().await?.create_group("g").await?;
    let repo = key.create_repo("me").await?;
    Ok((store, repo))
}

async fn names(repo: &Repo) -> Result<Vec<String>> {
    let files = files::files_in(repo, None).await?;
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

fn write(dir: &Path, name: &str, content: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
    fs::write(path, content).expect("it is written");
}

/// An observer that deletes a file as soon as the files are known, and one event after another.
fn deletes(path: &Path) -> (Observer, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let (path, told) = (path.to_owned(), events.clone());
    let observer = Observer::new(move |event| {
        if let Event::Planned { .. } = event {
            fs::remove_file(&path).ok();
        }
        told.lock().expect("it is not poisoned").push(event);
    });
    (observer, events)
}

#[tokio::test]
async fn a_file_that_disappears_holds_up_no_other() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("d");
    let (store, repo) = with_repo().await?;
    write(&folder, "a", "aaaa");
    write(&folder, "gone/b", "bb");
    write(&folder, "c", "c");
    files::put(&store, &repo, &PutRequest::new(&folder), &Observer::none()).await?;

    let gone = folder.join("gone/b");
    let (observer, events) = deletes(&gone);
    let mut request = AddRequest::new(&folder);
    let added = files::add(&store, &request, &observer).await?;
    assert_eq!((added.files, added.size), (Some(2), 5));
    assert_eq!(added.left_out.of(Reason::Unreadable), 1);
    let item = &added.left_out.items[0];
    assert_eq!(item.path, gone.to_string_lossy());
    let events = std::mem::take(&mut *events.lock().expect("it is not poisoned"));
    assert!(events.contains(&Event::LeftOut(item.clone())));
    let moved = events.iter().map(|event| match event {
        Event::Moved { bytes, .. } => *bytes,
        _ => 0,
    });
    assert_eq!(moved.sum::<u64>(), 5);
    // Unless that was asked for, and then the name stays what it was.
    write(&folder, "gone/b", "bb");
    write(&folder, "a", "other");
    request.fail_fast = true;
    let error = files::add(&store, &request, &deletes(&gone).0)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let root = store.blobs().tags().get("d").await?.expect("it is there");
    assert_eq!(root.hash, added.hash);

    // A mirror keeps what could not be read, and removes what is not there.
    write(&folder, "gone/b", "other");
    fs::remove_file(folder.join("c")).expect("it is removed");
    let mut request = PutRequest::new(&folder);
    request.mirror = true;
    let done = files::put(&store, &repo, &request, &deletes(&gone).0).await?;
    assert_eq!(done.left_out.of(Reason::Unreadable), 1, "{done:?}");
    assert_eq!(done.removed.names, ["d/c"]);
    assert_eq!(names(&repo).await?, ["d/a", "d/gone/b"]);
    let done = files::put(&store, &repo, &request, &Observer::none()).await?;
    assert_eq!(done.removed.names, ["d/gone/b"]);
    // A folder of which nothing can be read takes no name.
    let single = dir.path().join("single");
    write(&single, "only", "x");
    let request = AddRequest::new(&single);
    let error = files::add(&store, &request, &deletes(&single.join("only")).0).await;
    assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
    store.close().await
}

/// Requests, results and events are data.
#[tokio::test]
async fn all_that_crosses_the_border_can_be_serialized() -> Result<()> {
    fn same<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
        value: &T,
    ) {
        let text = serde_json::to_string(value).expect("it is JSON");
        assert_eq!(&serde_json::from_str::<T>(&text).expect(&text), value);
    }
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("d");
    let (store, repo) = with_repo().await?;
    write(&folder, "a", "a");
    fs::create_dir(folder.join("empty")).expect("it is made");
    let (add, put) = (AddRequest::new(&folder), PutRequest::new(&folder));
    let get = GetRequest::new(dir.path().join("out"));
    same(&add);
    same(&put);
    same(&get);
    let (observer, events) = deletes(Path::new("nothing"));
    let added = files::add(&store, &add, &observer).await?;
    same(&added);
    same(&files::put(&store, &repo, &put, &observer).await?);
    let stored = files::files_in(&repo, Some("d")).await?;
    same(&files::write_out(store.blobs(), stored, &get, &observer).await?);
    let events = std::mem::take(&mut *events.lock().expect("it is not poisoned"));
    assert!(events.len() > 4, "{events:?}");
    events.iter().for_each(same);
    store.close().await
}

/// Dropped at any await point, a call leaves whole files only, and what was there before.
#[tokio::test]
async fn a_call_that_is_dropped_leaves_things_whole() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("d");
    for n in 0..5 {
        write(&folder, &format!("sub/{n}"), &"x".repeat(100_000 + n));
    }
    let (store, repo) = with_repo().await?;
    let none = Observer::none();
    let (add, put) = (AddRequest::new(&folder), PutRequest::new(&folder));
    let out = dir.path().join("out");
    let get = GetRequest::new(&out);
    let mut polls = 0;
    loop {
        polls += 1;
        let whole = async {
            files::add(&store, &add, &none).await?;
            files::put(&store, &repo, &put, &none).await?;
            let stored = files::files_in(&repo, None).await?;
            files::write_out(store.blobs(), stored, &get, &none).await
        };
        let done = some_polls(whole, polls).await;
        let written = || fs::read_dir(out.join("d/sub")).into_iter().flatten();
        // A call of the system that had begun may still end, and then cleans up.
        let is_temporary = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".tmp");
        while written().any(|entry| is_temporary(entry.expect("it is read").file_name())) {
            std::thread::yield_now();
        }
        for entry in written().map(|entry| entry.expect("it is read")) {
            let len = entry.metadata().expect("it is there").len();
            assert!(len >= 100_000, "{entry:?} has {len} bytes");
        }
        match done {
            Some(got) => break assert_eq!(got?.left_out.count(), 0),
            None => assert!(polls < 100_000, "it ends"),
        }
    }
    assert_eq!(
        fs::read_dir(out.join("d/sub"))
            .expect("it is there")
            .count(),
        5
    );
    assert_eq!(names(&repo).await?.len(), 5);
    store.close().await
}

/// Polls a future so many times and drops it, unless it ends before.
async fn some_polls<T>(future: impl Future<Output = T>, mut polls: usize) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |context| {
        let polled = future.as_mut().poll(context);
        polls -= 1;
        match polled {
            std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
            std::task::Poll::Pending if polls == 0 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn names_in_a_hostile_tree_do_not_hold_up_others() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open("mem:").await?;
    let hash = store.blobs().add("x").await?;
    let stored = |name: &str| (name.to_owned(), Stored::from(hash.hash()));
    let files = ["a", "a/b", "../up", "ok", "sub/ok"].map(stored);
    let request = GetRequest::new(dir.path().join("out"));
    let got = files::write_out(store.blobs(), files.into(), &request, &Observer::none()).await?;
    assert_eq!((got.files, got.left_out.failures()), (3, 2));
    assert!(!dir.path().join("up").exists());
    store.close().await
}
