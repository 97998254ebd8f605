//! Arrows between crates point one way, as ARCHITECTURE.md draws them, and modules of a crate form no circle.

mod modules;

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

use modules::Modules;

/// What each crate may depend on of ours.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("store-api", &[]),
    ("store-engine", &["store-api"]),
    ("store-memory", &["store-api"]),
    ("store-testkit", &["store-api", "store-memory"]),
    ("store-redb", &["store-api"]),
    ("veilid-node", &["store-api"]),
    ("store-veilid", &["store-api", "veilid-node"]),
    ("store-iroh", &["store-api", "store-engine"]),
    ("sync-model", &["store-api", "store-engine"]),
    ("net-api", &["store-api"]),
    ("net-iroh", &["store-api", "net-api"]),
    ("sync-sim", &["store-api", "net-api"]),
    (
        "sync",
        &["store-api", "store-engine", "sync-model", "net-api"],
    ),
    (
        "larder",
        &[
            "store-api",
            "store-engine",
            "store-memory",
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

/// Circles of modules that are known: crate, the module that they lie in, and their names.
///
/// An entry that is no circle any more must go.
const KNOWN_CIRCLES: [(&str, &str, &[&str]); 0] = [];

fn metadata() -> Value {
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
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().expect("a list")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The normal dependencies of each package of the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
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

/// Every circle of neighbouring modules in our libraries, programs and benches: the crate, the module
/// that they lie in, and their names.
fn circles() -> Vec<(String, String, Vec<String>)> {
    let mut all = Vec::new();
    for package in list(&metadata()["packages"]) {
        let targets = list(&package["targets"]);
        let is_read = |target: &&Value| {
            let kinds = list(&target["kind"]);
            kinds
                .iter()
                .any(|kind| ["lib", "bin", "bench"].contains(&text(kind).as_str()))
        };
        for target in targets.iter().filter(is_read) {
            let modules = Modules::read(Path::new(&text(&target["src_path"])));
            for parent in modules.paths() {
                for circle in modules::circles(&modules.siblings(parent)) {
                    let names = circle.into_iter().collect();
                    all.push((text(&package["name"]), parent.join("::"), names));
                }
            }
        }
    }
    all
}

#[test]
fn modules_form_no_circles() {
    let found = circles();
    let is_known = |(package, parent, names): &(String, String, Vec<String>)| {
        KNOWN_CIRCLES
            .iter()
            .any(|known| *known == (package, parent, names))
    };
    for circle in &found {
        println!("{circle:?}");
    }
}
