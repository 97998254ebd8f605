//! Each public name of the facade means one thing.

use std::{collections::BTreeMap, fs, path::Path};

/// The paths that the `pub use` declarations of a file name, each with the name that it has there.
fn exported(file: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(file).unwrap();
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .collect();
    let uses = code.split("pub use ").skip(1);
    let mut all = Vec::new();
    for tree in uses.map(|rest| rest.split(';').next().unwrap()) {
        expand("", tree, &mut all);
    }
    all
}

fn expand(prefix: &str, tree: &str, all: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    if let Some((path, list)) = tree.split_once('{') {
        let list = list.strip_suffix('}').expect("a list ends");
        let (mut depth, mut start) = (0, 0);
        for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&format!("{prefix}{path}"), &list[start..at], all);
                    start = at + 1;
                }
                _ => {}
            }
        }
    } else if !tree.is_empty() {
        let (path, name) = match tree.split_once(" as ") {
            Some((path, name)) => (path, name),
            None => (tree, tree.rsplit("::").next().unwrap()),
        };
        all.push((format!("{prefix}{path}"), name.trim().to_owned()));
    }
}

#[test]
fn each_public_name_means_one_thing() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // One item may be exported at several paths.
    let from = |path: &str, home: &str| {
        let path = path
            .replace("larder_net_iroh::", "net_iroh::")
            .replace("iroh::protocol::", "iroh::");
        match path.contains("::") && !path.starts_with("self::") && !path.starts_with("crate::") {
            true => path,
            false => format!("{home}::{path}"),
        }
    };
    let files = [
        "larder/src/lib.rs",
        "larder/src/groups.rs",
        "larder/src/iroh.rs",
    ]
    .map(|file| (file, "larder"));
    let beside = [("store-iroh/src/lib.rs", "store_iroh")];
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, home) in files.into_iter().chain(beside) {
        for (path, name) in exported(&crates.join(file)) {
            if name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase) {
                let paths = found.entry(name).or_default();
                let path = from(&path, home);
                let item = |path: &str| path.rsplit("::").next().unwrap().to_owned();
                // A type of iroh is the same by whatever way.
                let is_irohs = |path: &String| {
                    ["iroh::", "net_iroh::"]
                        .iter()
                        .any(|start| path.starts_with(start))
                };
                let known = |known: &String| {
                    *known == path
                        || (is_irohs(known) && is_irohs(&path) && item(known) == item(&path))
                };
                if !paths.iter().any(known) {
                    paths.push(path);
                }
            }
        }
    }
    assert!(found.len() > 80, "{} names", found.len());
    for name in [
        "CollectionId",
        "Swap",
        "Change",
        "Batch",
        "Edit",
        "TagName",
        "Route",
        "Clock",
        "Tree",
        "Difference",
    ] {
        assert!(found.contains_key(name), "{name} is not there");
    }
    let twice: Vec<_> = found.iter().filter(|(_, paths)| paths.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}
