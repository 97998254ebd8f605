//! Errors for people: what failed, on what, and what to do now.

use std::fmt;

use larder::{Error, Kind, api::is_out_of_descriptors, files};

use crate::output::{Lines, Output, Shown, to_stderr};

/// The advice for a process that can open no more files.
const RAISE_THE_LIMIT: &str = "let it open more files, for example with `ulimit -n 1024`, or end \
                               programs that have many open; then run it again: what was stored stays";

/// Something that a person can set right, with the words for it.
#[derive(Debug)]
pub(crate) struct Problem {
    what: String,
    advice: String,
    exit: Exit,
}

/// The ways in which the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    Damaged,
    Interrupted,
    Terminated,
}

impl Exit {
    /// The code that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Damaged => 3,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }
}

impl Problem {
    /// Something failed.
    pub(crate) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            advice: advice.into(),
            exit: Exit::Failed,
        }
    }

    /// The command was not what it must be.
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(what, advice)
        }
    }

    /// Something stored is not what it was.
    pub(crate) fn damaged(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            exit: Exit::Damaged,
            ..Self::new(what, advice)
        }
    }

    /// No stored file or folder has this name.
    pub(crate) fn no_such_name(name: &str) -> Self {
        Self::new(
            format!("nothing is stored under the name {:?}", name),
            "`larder ls` shows what is stored",
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Problem {}

/// Returns true if it was one file or folder that failed, so that the next one may be better.
pub(crate) fn is_about_one(error: &anyhow::Error) -> bool {
    let of_files = error
        .downcast_ref::<Error>()
        .filter(|error| error.operation() == files::OPERATION);
    of_files.is_some_and(|error| {
        !matches!(
            error.kind(),
            Kind::Full | Kind::Closed | Kind::Unavailable | Kind::Corrupt
        )
    })
}

/// An error, as people read it.
#[derive(Debug)]
pub(crate) struct Report {
    /// The description of the failure, down to the cause.
    pub(crate) error: String,
    /// The advice on what to do now.
    pub(crate) advice: Option<String>,
    /// The way in which the program ends.
    pub(crate) exit: Exit,
}

impl Report {
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let problem = error.downcast_ref::<Problem>();
        // Errors about files say what was done; the one below, if any, says what failed.
        let mut of_stores = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<Error>());
        let first = of_stores.next();
        let is_of_files = |error: &&Error| error.operation() == files::OPERATION;
        let store = match first.filter(is_of_files) {
            Some(_) => of_stores.next().or(first),
            None => first,
        };
        Self {
            error: words(error),
            advice: match (problem, store) {
                (Some(problem), _) => Some(problem.advice.clone()),
                _ if error.chain().any(is_out_of_descriptors) => Some(RAISE_THE_LIMIT.to_owned()),
                (None, Some(store)) => match is_of_files(&store) {
                    true => advice_of_system(error),
                    false => advice(store),
                },
                (None, None) => advice_of_system(error),
            },
            exit: problem.map_or(Exit::Failed, |problem| problem.exit),
        }
    }

    /// Makes the report of wrong arguments from the text for people: its first paragraph says what is wrong.
    pub(crate) fn of_usage(text: &str) -> Self {
        let (what, advice) = text.split_once("\n\n").unwrap_or((text, ""));
        let what = what.strip_prefix("error: ").unwrap_or(what);
        let advice = advice.trim();
        Self {
            error: what.trim().to_owned(),
            advice: (!advice.is_empty()).then(|| advice.to_owned()),
            exit: Exit::Usage,
        }
    }

    /// Returns it as an object of JSON, for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({ "error": self.error, "advice": self.advice })
    }

    /// Prints it on stderr, as the rest of the run is printed.
    pub(crate) fn say(&self, out: Output) {
        match out.json {
            true => to_stderr(self.json()),
            false => to_stderr(self),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", Lines(&self.error))?;
        if let Some(advice) = &self.advice {
            write!(f, "\n  now: {}", Lines(advice))?;
        }
        Ok(())
    }
}

/// The chain of causes, each said once. Only those that are written for people have lines: in others a line break is
/// one of a name.
fn words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause_is_ours = cause.is::<Problem>();
        let cause = match cause.downcast_ref::<Error>() {
            Some(error) if error.operation() == files::OPERATION => error.message().to_owned(),
            _ => cause.to_string(),
        };
        let cause = match cause_is_ours {
            true => cause,
            false => Shown(&cause).to_string(),
        };
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// Returns advice about an error of a store.
fn advice(error: &Error) -> Option<String> {
    let value = |key| {
        let found = error.context().find(|(k, _)| *k == key);
        found.map(|(_, value)| value.to_owned())
    };
    let network = matches!(error.operation(), "blobs.fetch" | "endpoint.connect");
    Some(match error.kind() {
        Kind::Corrupt if network => {
            "the other side sent wrong bytes, and nothing of them was kept: ask for a ticket from \
             somebody else"
                .to_owned()
        }
        Kind::Corrupt | Kind::Invalid if error.operation() == "secrets.open" => {
            let file = value("path").unwrap_or_else(|| "of the keys".to_owned());
            format!(
                "bring the file {file} back from a backup; names and blobs of the store can be read \
                 without it, but its groups and its identity cannot"
            )
        }
        Kind::Corrupt if error.operation() == "store.open" => {
            "`larder verify --repair` writes again what is damaged of the store's own files".to_owned()
        }
        Kind::Corrupt => {
            "`larder verify --repair` marks what is damaged as missing; then fetch or add it again"
                .to_owned()
        }
        Kind::Full => {
            "free some space on that disk and run the same command again: what was stored stays"
                .to_owned()
        }
        Kind::Denied if network => {
            "the other side does not serve this: ask for a new ticket".to_owned()
        }
        Kind::Denied if error.operation() == "node.start" => {
            "with --store veilid+insecure:DIR the key lies in the store's folder, where whoever has \
             the folder can read it"
                .to_owned()
        }
        Kind::Denied if error.operation() == "secrets.open" && !error.message().is_empty() => {
            "set LARDER_PASSWORD, or LARDER_SECRETS_KEY to the file of the key, as when the store \
             first served"
                .to_owned()
        }
        Kind::Denied => match value("path") {
            Some(path) => {
                format!("look at the rights of {path}, and whether its disk is mounted read-only")
            }
            None => return None,
        },
        Kind::Unavailable => match value("pid") {
            Some(pid) => {
                format!(
                    "wait for process {pid} or end it (ctrl-c ends `larder share` and `larder serve`), or name another store \
                     with --store; if it is `larder sync --watch`, start that with `larder sync --watch --put-lines`: it then \
                     puts the paths that it reads"
                )
            }
            None if error.operation() == "store.open" => {
                "name each store once, by one path".to_owned()
            }
            None if error.operation() == "endpoint.bind" => "choose another --port".to_owned(),
            None if error.operation() == "endpoint.addresses" => {
                "on Linux, `ip link set lo up` does that for the loopback interface".to_owned()
            }
            None if network => {
                "check that the other side still runs `larder serve` and that both are connected, \
                 then run it again: it goes on where it stopped"
                    .to_owned()
            }
            None => "try again in a moment".to_owned(),
        },
        Kind::NotFound if network => {
            "the other side no longer has it: ask for a new ticket".to_owned()
        }
        Kind::Invalid if error.operation() == "store.open" => {
            "name the folder of a store with --store redb:DIR, or an empty or a new folder for a new store"
                .to_owned()
        }
        Kind::NotFound if error.operation() == "store.open" => {
            "no folder can be made there: name another one with --store redb:DIR".to_owned()
        }
        Kind::Internal => {
            "this may be a defect: run it again with LARDER_LOG=debug and report what it prints"
                .to_owned()
        }
        _ => return None,
    })
}

/// Returns advice about the error of the operating system that is among the causes.
fn advice_of_system(error: &anyhow::Error) -> Option<String> {
    let mut causes = error.chain();
    causes
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .and_then(advice_io)
}

/// Returns advice about an error of the operating system.
fn advice_io(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    let text = match error.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::NotADirectory => "a part of the path is a file, and no folder: check the path",
        ErrorKind::PermissionDenied => "look at its rights, or run as somebody who may",
        ErrorKind::ReadOnlyFilesystem => "that disk is mounted read-only: choose another",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "free some space on that disk and run the same command again"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::Context;

    use super::*;

    fn text(error: impl Into<anyhow::Error>) -> String {
        Report::of(&error.into()).to_string()
    }

    #[test]
    fn each_error_of_a_store_says_what_to_do() {
        let error = Error::new(
            Kind::Unavailable,
            "store.open",
            "another process has it open",
        )
        .with("path", "/s")
        .with("pid", 7);
        assert_eq!(
            text(error),
            "error: store.open: unavailable: another process has it open (path=/s, pid=7)\n  \
             now: wait for process 7 or end it (ctrl-c ends `larder share` and `larder serve`), or name another store \
             with --store; if it is `larder sync --watch`, start that with `larder sync --watch --put-lines`: it then \
             puts the paths that it reads"
        );
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::io("payload.write", Path::new("/s/p"), full);
        assert_eq!(
            text(error),
            "error: payload.write: no space left (path=/s/p): no storage space\n  \
             now: free some space on that disk and run the same command again: what was stored stays"
        );
        let read_only = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
        let error = Error::io("store.open", Path::new("/s"), read_only);
        assert_eq!(
            text(error),
            "error: store.open: denied (path=/s): read-only filesystem or storage medium\n  \
             now: look at the rights of /s, and whether its disk is mounted read-only"
        );
        let error = Error::new(Kind::Corrupt, "blobs.read", "").with("hash", "ab");
        assert!(text(error).contains("larder verify --repair"));
        let error = Error::new(Kind::Corrupt, "secrets.open", "the file is damaged");
        let error = text(error.with("path", "/s/secrets"));
        assert!(error.contains("bring the file /s/secrets back"), "{error}");
        assert!(!error.contains("--repair"), "{error}");
        let error = Error::new(Kind::Corrupt, "store.open", "the file FORMAT is damaged");
        assert!(text(error).contains("larder verify --repair"));
        let error = Error::new(Kind::Corrupt, "blobs.fetch", "");
        assert!(text(error).contains("somebody else"));
    }

    #[cfg(unix)]
    #[test]
    fn too_many_open_files_are_no_defect() {
        let system = || std::io::Error::from_raw_os_error(24);
        let error = Error::io("payload.read", Path::new("/s/p"), system());
        assert_eq!(
            text(error),
            "error: payload.read: unavailable: too many files and sockets are open; close some, or \
             raise the limit (path=/s/p): Too many open files (os error 24)\n  now: let it open more \
             files, for example with `ulimit -n 1024`, or end programs that have many open; then run \
             it again: what was stored stays"
        );
        let error = Err::<(), _>(system())
            .context("cannot read /x")
            .unwrap_err();
        assert!(text(error).contains("ulimit"));
    }

    #[test]
    fn a_cause_is_said_once_and_a_problem_brings_its_own_advice() {
        let io = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = Err::<(), _>(io).context("cannot read /x").unwrap_err();
        assert_eq!(
            text(error),
            "error: cannot read /x: entity not found\n  now: check the path"
        );
        let error = anyhow::Error::new(Problem::usage("two of them", "write one"));
        let report = Report::of(&error.context("cannot add"));
        assert_eq!(
            report.to_string(),
            "error: cannot add: two of them\n  now: write one"
        );
        assert_eq!(report.exit, Exit::Usage);
    }

    #[test]
    fn what_comes_from_outside_cannot_move_the_cursor() {
        let error = Problem::new("name \u{1b}[2J", "look\nagain");
        assert_eq!(text(error), "error: name \\u{1b}[2J\n  now: look\nagain");
    }
}
