//! Checks that dependencies between crates point the way that ARCHITECTURE.md draws, and that modules
//! of a crate form no cycle.

mod modules;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

use modules::Modules;

/// The crates of ours on which each crate may depend.
const ALLOWED: [(&str, &[&str]); 16] = [
    ("store-api", &[]),
    ("descriptors", &["store-api"]),
    ("store-engine", &["store-api", "descriptors"]),
    ("store-memory", &["store-api"]),
    ("store-testkit", &["store-api", "store-memory"]),
    ("store-redb", &["store-api", "descriptors"]),
    ("veilid-node", &["store-api"]),
    ("store-veilid", &["store-api", "veilid-node"]),
    ("store-iroh", &["store-api", "descriptors", "store-engine"]),
    ("sync-model", &["store-api", "store-engine"]),
    ("net-api", &["store-api"]),
    ("net-iroh", &["store-api", "net-api"]),
    ("sync-sim", &["store-api", "net-api"]),
    (
        "sync",
        &[
            "store-api",
            "descriptors",
            "store-engine",
            "sync-model",
            "net-api",
        ],
    ),
    (
        "larder",
        &[
            "store-api",
            "descriptors",
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

/// Crates that start no tasks and open no connections themselves.
const PURE: [&str; 2] = ["sync-model", "net-api"];

/// The crates that the traits may need: no runtime, no storage library.
const STORE_API: [&str; 4] = ["async-trait", "bytes", "futures-core", "zeroize"];

/// A cycle: the crate, the parent module, and the names of the modules.
type Circle = (&'static str, &'static str, &'static [&'static str]);

/// The known cycles, until they are removed. One that no longer exists must be removed from this list.
const KNOWN_CIRCLES: [Circle; 1] = [
    // A group, its members and repos, and the code that merges and repairs them depend on each other.
    (
        "sync",
        "groups",
        &["group", "members", "merge_devices", "repair", "repo"],
    ),
];

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

/// Returns the folder of a package, which determines its name.
fn folder(name: &Value) -> String {
    let name = text(name);
    name.strip_prefix("larder-").unwrap_or(&name).to_owned()
}

/// Returns the normal dependencies of each package of the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let normal = list(&package["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| folder(&dependency["name"]))
                .collect();
            (folder(&package["name"]), normal)
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
            placed || ["tests", "benches", "sqlite"].contains(&name.as_str()),
            "{name}"
        );
    }
}

#[test]
fn what_is_pure_asks_tokio_for_its_traits_alone() {
    for package in list(&metadata()["packages"]) {
        if !PURE.contains(&folder(&package["name"]).as_str()) {
            continue;
        }
        let dependencies = list(&package["dependencies"]).into_iter();
        let mut tokio = dependencies.filter(|dep| dep["kind"].is_null() && dep["name"] == "tokio");
        let features = tokio.next().map(|tokio| list(&tokio["features"]));
        for feature in features.unwrap_or_default() {
            assert_eq!(feature, "io-util", "{}", package["name"]);
        }
    }
}

#[test]
fn the_traits_need_no_runtime_and_no_library() {
    let found = &dependencies()["store-api"];
    for dependency in found {
        assert!(STORE_API.contains(&dependency.as_str()), "{dependency}");
    }
}

/// Returns every cycle of sibling modules in our libraries, programs and benches: the crate, the parent
/// module, and the names of the modules.
fn circles() -> BTreeSet<(String, String, Vec<String>)> {
    let mut all = BTreeSet::new();
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
                    all.insert((folder(&package["name"]), parent.join("::"), names));
                }
            }
        }
    }
    all
}

#[test]
fn modules_form_no_circles() {
    let found = circles();
    let known: BTreeSet<_> = KNOWN_CIRCLES
        .iter()
        .map(|(package, parent, names)| {
            let names = names.iter().map(ToString::to_string).collect();
            (package.to_string(), parent.to_string(), names)
        })
        .collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(
        new.is_empty(),
        "these modules use each other in a circle: {new:#?}"
    );
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "these cycles no longer exist; remove them from the list: {gone:#?}"
    );
}

/// Reads a crate of these files, and returns its cycles as text.
fn circles_of(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a folder");
        std::fs::write(path, text).expect("a file can be written");
    }
    let modules = Modules::read(&folder.path().join("lib.rs"));
    let circles = modules.paths().flat_map(|parent| {
        let circles = modules::circles(&modules.siblings(parent)).into_iter();
        circles.map(|circle| {
            let names: Vec<_> = circle.into_iter().collect();
            [parent.join("::"), names.join("-")].join(":")
        })
    });
    circles.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_way_to_use_a_module_is_seen() {
    let root = "mod a; mod b; pub use b::B; use a::inner as other; struct Own;";
    let a = "pub mod inner { pub struct Deep; } pub struct A; use crate::b::B;";
    for (uses, is_circle) in [
        // By a path of `use`: alone, among others, renamed, or with a glob.
        ("use crate::a::A;", true),
        ("use crate::{Own, a::{A, inner::Deep}};", true),
        ("use super::a as c;", true),
        ("pub(crate) use crate::a::*;", true),
        ("use super::*; fn f(_: other::Deep) {}", true),
        // By the name that the root gives it.
        ("fn f(_: crate::other::Deep) {}", true),
        // In code, in macros, and in a nested module.
        ("fn f() { let _ = super::a::A; }", true),
        ("macro_rules! m { () => { $crate::a::A } }", true),
        ("fn f() { println!(\"{:?}\", crate::a::A); }", true),
        ("mod within { use super::super::a::A; }", true),
        ("#[cfg(fuzzing)] use crate::a::A;", true),
        // Does not use it at all.
        ("use crate::Own; use self::B as C; use bytes::a;", false),
        ("use super::*; fn f(_: Own, b: B) {}", false),
        ("/// As of [`A`](crate::a::A).\nfn f() {}", false),
        ("pub(in crate::a) fn f() { \"crate::a::A\"; }", false),
        (
            "#[cfg(test)] mod tests { use crate::a::A; fn f() {} }",
            false,
        ),
        ("#[cfg(test)] use crate::a::{A, inner}; fn f() {}", false),
        ("#[cfg(test)] mod tests;", false),
    ] {
        let b = format!("pub struct B; {uses}");
        let circles = circles_of(&[("lib.rs", root), ("a.rs", a), ("b/mod.rs", &b)]);
        assert_eq!(circles, if is_circle { ":a-b" } else { "" }, "{uses}");
    }
}

#[test]
fn circles_are_found_wherever_modules_lie() {
    let nested = [
        ("lib.rs", "mod m; mod n;"),
        ("m/mod.rs", "mod x; mod y; mod z; pub struct Here;"),
        ("m/x.rs", "use super::{Here, y::Y};"),
        ("m/y.rs", "pub struct Y; use super::z::f;"),
        ("m/z.rs", "mod deep; pub fn f() {}"),
        ("m/z/deep.rs", "use crate::m::x; use crate::n;"),
        (
            "n.rs",
            "#[path = \"odd/name.rs\"] mod p; mod q { pub use super::p; }",
        ),
        ("odd/name.rs", "use super::q::p;"),
    ];
    assert_eq!(circles_of(&nested), "m:x-y-z n:p-q");
}
