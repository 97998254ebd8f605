//! Serving and fetching, over loopback.

use std::fs;

use super::support::{Place, Running, noise, tree};

/// Serves `name` from `place`, and gives the ticket.
fn serve(place: &Place, name: &str) -> (Running, String) {
    let mut serving = Running::start(place.command(&["--json", "serve", "--loopback", name]));
    let served = serving.json();
    assert_eq!(served["name"], name);
    let ticket = served["ticket"].as_str().unwrap().to_owned();
    (serving, ticket)
}

#[test]
fn what_is_served_is_fetched_stored_and_written_out() {
    let (here, there) = (Place::new(), Place::new());
    here.write_folder("folder");
    let added = here.json(&["add", "folder"]);
    let (mut serving, ticket) = serve(&here, "folder");
    let fetched = &there.json(&["fetch", &ticket, "--name", "theirs", "-o", "out"])[0];
    assert_eq!(fetched["hash"], added[0]["hash"]);
    assert!(fetched["bytes_received"].as_u64().unwrap() >= 3_000_000);
    assert_eq!(tree(&there.path("out")), tree(&here.path("folder")));
    let listed = there.json(&["ls"]);
    assert_eq!(
        listed.len(),
        1,
        "no name of the interim is left: {listed:?}"
    );
    assert_eq!(listed[0]["name"], "theirs");
    assert!(there.ok(&["verify"]).ends_with("all sound\n"));
    // The events name the peer that came and left.
    assert_eq!(serving.json()["event"], "connected");
    assert_eq!(serving.json()["event"], "left");

    // Content that is here is not fetched again. A folder has a name of its own.
    let again = &there.json(&["fetch", &ticket])[0];
    assert_eq!(again["bytes_received"], 0);
    assert_eq!(again["name"], "folder");
    assert_eq!(there.ok(&["cat", "folder/a.txt"]), "alpha\n");
    // It takes no name that stands for something else.
    there.write("folder", "mine");
    there.ok(&["rm", "folder"]);
    there.ok(&["add", "folder"]);
    let again = &there.json(&["fetch", &ticket])[0];
    assert_eq!(again["name"], "folder-2");
    assert_eq!(there.ok(&["cat", "folder"]), "mine");
    #[cfg(unix)]
    {
        let (code, _) = serving.signal("-INT");
        assert_eq!(code, Some(0), "ctrl-c is how serving ends");
    }
}

#[test]
fn a_file_is_served_and_nothing_else() {
    let (here, there) = (Place::new(), Place::new());
    here.write("open", noise(50_000));
    here.write("secret", noise(60_000));
    here.ok(&["add", "open", "secret"]);
    let secret = here.json(&["ls", "secret"])[0]["hash"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_serving, ticket) = serve(&here, "open");
    let fetched = &there.json(&["fetch", &ticket])[0];
    let hash = fetched["hash"].as_str().unwrap();
    assert_eq!(fetched["name"], &hash[..10]);

    // A ticket for what is not served, made from one for what is.
    let open: larder::iroh::BlobTicket = ticket.parse().unwrap();
    let secret: larder::Hash = secret.parse().unwrap();
    let root = larder::iroh::to_iroh_root(larder::Root::raw(secret));
    let other = larder::iroh::BlobTicket::new(open.addr().clone(), root.hash, root.format);
    let said = there.fails(1, &["fetch", &other.to_string()]);
    assert!(said.contains("the peer refuses to give this"), "{said}");
    assert!(
        said.ends_with("\n  now: the other side does not serve this: ask for a new ticket\n"),
        "{said}"
    );
}

#[test]
fn a_peer_that_is_gone_is_given_up_in_time() {
    let (here, there) = (Place::new(), Place::new());
    here.write("a", "A");
    here.ok(&["add", "a"]);
    let (mut serving, ticket) = serve(&here, "a");
    serving.child.kill().unwrap();
    serving.child.wait().unwrap();
    let said = there.fails(1, &["fetch", &ticket, "--timeout", "500ms"]);
    assert!(said.starts_with("error: cannot fetch "), "{said}");
    assert!(
        said.ends_with(
            "\n  now: check that the other side still runs `larder serve` and that both are \
             connected, then run it again: it goes on where it stopped\n"
        ),
        "{said}"
    );
    assert!(there.json(&["ls"]).is_empty());
}

#[test]
fn an_interrupted_fetch_goes_on() {
    let (here, there) = (Place::new(), Place::new());
    here.write("big", noise(40_000_000));
    here.ok(&["add", "big"]);
    // Half of it is here already, under the name that an interrupted fetch leaves.
    let hash: larder::Hash = here.json(&["ls"])[0]["hash"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let items = here.with_store(async |store| {
        use futures_util::TryStreamExt;
        let half = larder::ChunkRanges::from(..larder::ChunkNum(20_000));
        let items: Vec<_> = store
            .blobs()
            .export(hash, half)
            .try_collect()
            .await
            .unwrap();
        items
    });
    there.with_store(async |store| {
        let blobs = store.blobs();
        let mut import = blobs
            .import(hash, 40_000_000, larder::Trust::Untrusted)
            .await
            .unwrap();
        for item in items {
            import.push(item).await.unwrap();
        }
        import.finish().await.unwrap();
        let name = "incomplete:big";
        blobs
            .tags()
            .set(name, larder::Root::raw(hash))
            .await
            .unwrap();
    });
    let listed = there.ok(&["ls"]);
    assert!(
        listed.contains("incomplete:big ") && listed.contains("(incomplete: 19.5 MiB here)"),
        "{listed}"
    );
    let verified = there.ok(&["verify"]);
    assert!(
        verified.ends_with("19.5 MiB: all sound; 1 incomplete\n"),
        "{verified}"
    );
    let (_serving, ticket) = serve(&here, "big");
    there.ok(&["gc"]);
    let fetched = &there.json(&["fetch", &ticket, "--name", "big"])[0];
    let received = fetched["bytes_received"].as_u64().unwrap();
    assert!(
        received <= 40_000_000 - 20_000 * 1024 + 64 * 1024,
        "{received}"
    );
    assert_eq!(there.json(&["ls"])[0]["complete"], true);
    there.ok(&["get", "big", "-o", "out"]);
    assert_eq!(fs::read(there.path("out/big")).unwrap(), noise(40_000_000));
}

#[test]
fn everything_with_a_name_is_served_at_once() {
    let place = Place::new();
    place.write("a", "A");
    place.write("b", "B");
    place.ok(&["add", "a", "b"]);
    let mut serving = Running::start(place.command(&["--json", "serve", "--loopback", "--all"]));
    assert_eq!(serving.json()["name"], "a");
    assert_eq!(serving.json()["name"], "b");
}

#[test]
fn a_store_is_the_same_peer_each_time_it_serves() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["add", "a"]);
    let peer = || {
        let (_serving, ticket) = serve(&place, "a");
        let ticket: larder::iroh::BlobTicket = ticket.parse().unwrap();
        ticket.addr().id
    };
    assert_eq!(peer(), peer());
    // Its key does not lie beside what it is, and nobody else's opens it.
    let mut command = place.command(&["serve", "--loopback", "a"]);
    let output = command.env("LARDER_PASSWORD", "a guess").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("it has a key, and no password"), "{said}");
    assert!(said.contains("now: set LARDER_PASSWORD, or"), "{said}");
}
