//! Output that goes away, or cannot be written: the work is done all the same, and nothing panics.

use std::process::{Command, Stdio};

use super::support::{Ended, Place, noise};

const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "powershell", "elvish"];

/// Runs with a standard output whose reader is gone.
fn unread(command: &mut Command) -> Ended {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    finish(command.stdout(writer))
}

fn finish(command: &mut Command) -> Ended {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    Ended {
        code: output.status.code(),
        out: String::new(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn six(place: &Place) -> Vec<String> {
    let names = (1..=6).map(|n| format!("f{n}"));
    let write = |name: &String| drop(place.write(name, &noise(20_006)[name.len()..]));
    names.inspect(write).collect()
}

#[test]
fn work_is_done_though_nobody_reads_of_it() {
    for json in [&[][..], &["--json"]] {
        let place = Place::new();
        let names = six(&place);
        let args = |command| -> Vec<&str> {
            let names = names.iter().map(String::as_str);
            json.iter().copied().chain([command]).chain(names).collect()
        };
        place.ok(&["group", "create", "g", "--as", "me"]);
        for command in ["add", "put"] {
            let ended = unread(&mut place.command(&args(command)));
            assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{command}");
        }
        let stored = || {
            let all = place.json(&["ls"]);
            all.iter().filter(|item| item["kind"] == "file").count()
        };
        assert_eq!((stored(), place.json(&["ls", "g/me"]).len()), (6, 6));
        let ended = unread(&mut place.command(&args("rm")));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(stored(), 0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error_after_the_work() {
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let place = Place::new();
    let names = six(&place);
    let mut args = vec!["add"];
    args.extend(names.iter().map(String::as_str));
    let ended = finish(place.command(&args).stdout(full()));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .err
            .starts_with("error: cannot write to standard output: "),
        "{ended:?}"
    );
    assert_eq!(place.json(&["ls"]).len(), 6);
    for shell in SHELLS {
        let ended = finish(place.command(&["completions", shell]).stdout(full()));
        assert_eq!(ended.code, Some(1), "{shell}: {ended:?}");
        assert!(
            ended
                .err
                .starts_with("error: cannot write to standard output")
        );
    }
}

#[test]
fn completions_that_nobody_reads_are_no_error() {
    let place = Place::new();
    for shell in SHELLS {
        let ended = unread(&mut place.command(&["completions", shell]));
        assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{shell}");
    }
}
