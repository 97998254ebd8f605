//! Checks that texts advise no option that the command does not have.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory};

use super::Args;

/// The files whose texts several commands show, with those commands. All of them must have an option that such a text
/// names without a command.
const SHARED: [(&str, &[&str]); 7] = [
    ("observed.rs", &["add", "put", "share"]),
    ("app.rs", &["ls"]),
    ("args.rs", &["ls"]),
    ("problem.rs", &["serve", "sync", "share"]),
    ("commands/get.rs", &["get", "fetch"]),
    ("groups/fetch.rs", &["get", "cat"]),
    ("groups/invites.rs", &["sync", "share"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The texts of a source file, without those of its tests and comments.
fn texts(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut texts = Vec::new();
    for line in joined(source).lines() {
        let mut rest = line;
        while let Some(at) = rest.find(['"', '/']) {
            if rest[at..].starts_with("//") {
                break;
            }
            let is_text = rest[at..].starts_with('"') && !rest[..at].ends_with('\'');
            rest = &rest[at + 1..];
            if !is_text {
                continue;
            }
            let mut text = String::new();
            let mut chars = rest.char_indices();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => drop(chars.next()),
                    '"' => {
                        rest = &rest[at + 1..];
                        break;
                    }
                    c => text.push(c),
                }
            }
            texts.push(text);
        }
    }
    texts
}

/// Joins lines that a backslash continues.
fn joined(source: &str) -> String {
    let mut joined = String::new();
    for line in source.lines() {
        match line.strip_suffix('\\') {
            Some(line) => joined += line,
            None => {
                joined += line;
                joined.push('\n');
            }
        }
        if line.ends_with('\\') {
            joined.push(' ');
        }
    }
    joined
}

/// The options that a text names.
fn options(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|name| !name.is_empty())
}

fn has(command: &Command, option: &str) -> bool {
    let mut options = command.get_arguments();
    let is_own = options.any(|arg| arg.get_long() == Some(option));
    is_own || option == "help" || command.get_subcommands().any(|sub| has(sub, option))
}

/// Returns the wrong advice of a file.
fn wrong(program: &Command, file: &str, source: &str) -> Vec<String> {
    let find = |name: &str| program.find_subcommand(name);
    let own = file
        .strip_prefix("commands/")
        .and_then(|path| path.split(['/', '.']).next())
        .filter(|name| find(name).is_some());
    let mut wrong = Vec::new();
    for text in texts(source).iter().filter(|text| text.contains(' ')) {
        for (n, part) in text.split('`').enumerate() {
            let quoted = (n % 2 == 1).then(|| part.strip_prefix("larder ")).flatten();
            let shared = SHARED.iter().find(|(path, _)| *path == file);
            let commands: Vec<&str> = match (quoted, shared, own) {
                (Some(line), ..) => {
                    let mut words = line.split_whitespace();
                    let command = words.find(|word| find(word).is_some());
                    match command {
                        Some(command) => vec![command],
                        None => {
                            wrong.push(format!("{file}: there is no command in {line:?}"));
                            continue;
                        }
                    }
                }
                (None, Some((_, commands)), _) => commands.to_vec(),
                (None, None, Some(own)) => vec![own],
                (None, None, None) => Vec::new(),
            };
            for option in options(part) {
                let lacks = |name: &&str| !has(find(name).expect("a command"), option);
                let is_global = has_global(program, option);
                if !is_global && (commands.is_empty() || commands.iter().any(lacks)) {
                    wrong.push(format!("{file}: {commands:?} has no --{option}: {text:?}"));
                }
            }
        }
    }
    wrong
}

fn has_global(program: &Command, option: &str) -> bool {
    let mut global = program.get_arguments().filter(|arg| arg.is_global_set());
    global.any(|arg| arg.get_long() == Some(option))
}

#[test]
fn no_text_advises_an_option_that_the_command_does_not_have() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let program = Args::command();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut all = Vec::new();
    for path in files {
        let file = path.strip_prefix(&root).unwrap().to_string_lossy();
        let file = file.replace('\\', "/");
        // This file has wrong advice, and that one style sheets.
        if !["commands/advice.rs", "bench/html.rs"].contains(&file.as_str()) {
            all.extend(wrong(&program, &file, &fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn wrong_advice_is_found() {
    let program = Args::command();
    let wrong = |file, text: &str| wrong(&program, file, &format!("f(\"{text}\")")).len();
    assert_eq!(wrong("commands/add.rs", "give it one with --name"), 0);
    assert_eq!(wrong("commands/get.rs", "give it one with --name"), 1);
    assert_eq!(
        wrong("commands/rm.rs", "`larder verify --repair` finds it"),
        0
    );
    assert_eq!(
        wrong("commands/rm.rs", "`larder verify --mend` finds it"),
        1
    );
    assert_eq!(wrong("commands/rm.rs", "`larder frobnicate it` is none"), 1);
    assert_eq!(wrong("groups/watch.rs", "name another --store"), 0);
    assert_eq!(wrong("groups/watch.rs", "with --mirror it goes"), 1);
    // Over two lines, and in a comment.
    assert_eq!(
        wrong("commands/get.rs", "give it \\\n   one with --name"),
        1
    );
    assert_eq!(
        super::advice::wrong(&program, "x.rs", "// \"with --name it\"").len(),
        0
    );
}
