//! Arrows between crates point one way, as ARCHITECTURE.md draws them.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// What each crate may depend on of ours.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("store-api", &[]),
    ("descriptors", &["store-api"]),
    ("store-engine", &["store-api", "descriptors"]),
    ("store-testkit", &["store-api"]),
    ("store-redb", &["store-api", "descriptors"]),
    ("veilid-node", &["store-api"]),
    ("store-veilid", &["store-api", "veilid-node"]),
    ("store-iroh", &["store-api", "descriptors", "store-engine"]),
    ("sync", &["store-api", "descriptors", "store-engine"]),
    ("net-iroh", &["store-api", "sync"]),
    (
        "larder",
        &[
            "store-api",
            "descriptors",
            "store-engine",
            "store-testkit",
            "store-redb",
            "store-iroh",
            "store-veilid",
            "veilid-node",
            "sync",
            "net-iroh",
        ],
    ),
    ("cli", &["larder"]),
];

/// What the traits may need: no runtime, no storage library.
const STORE_API: [&str; 4] = ["async-trait", "bytes", "futures-core", "zeroize"];

/// The normal dependencies of each package of the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let list = |value: &Value| value.as_array().cloned().expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let normal = list(&package["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| text(&dependency["name"]))
                .collect();
            (text(&package["name"]), normal)
        })
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    let found = dependencies();
    for (name, allowed) in ALLOWED {
        let ours = found[name].iter().filter(|dep| found.contains_key(*dep));
        for dependency in ours {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
    // Every crate has its place in the picture.
    for name in found.keys() {
        let placed = ALLOWED.iter().any(|(known, _)| known == name);
        assert!(
            placed || ["tests", "benches"].contains(&name.as_str()),
            "{name}"
        );
    }
}

#[test]
fn the_traits_need_no_runtime_and_no_library() {
    let found = &dependencies()["store-api"];
    for dependency in found {
        assert!(STORE_API.contains(&dependency.as_str()), "{dependency}");
    }
}
