//! Names in a store are a stranger's words: the rules here decide which of them may become paths.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::Reason;

/// The longest part of a name, in bytes: the limit of the usual file systems.
pub const MAX_PART_LEN: usize = 255;

/// The longest name, in bytes. It leaves room for the folder to write into within the usual 4,096. A longer one is
/// refused on its way in, so that whatever was stored can be written out.
pub const MAX_NAME_LEN: usize = 3072;

#[cfg(feature = "groups")]
const _: () = assert!(
    MAX_NAME_LEN == larder_sync::tree::MAX_NAME_LEN
        && MAX_PART_LEN == larder_sync::tree::MAX_PART_LEN
);

/// The rules for names that become paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rules {
    /// Names that mean the same file on Linux, macOS and Windows.
    Portable,
    /// Names that are safe on this system, though another may not be able to write them: reserved words, trailing
    /// dots and spaces, backslashes, control characters, and those that Windows forbids.
    Here,
}

/// Returns the relative path for each of `names`, in their order, or the reason why it may become none.
///
/// A path that is returned has normal components only, so that joined to a folder it lies inside it; no two are the
/// same, and none is a folder of another. Of two names that exclude each other the first is accepted. With
/// `folds_case`, names that differ only in case do so too.
pub fn to_paths<'a>(
    names: impl IntoIterator<Item = &'a str>,
    rules: Rules,
    folds_case: bool,
) -> Vec<Result<PathBuf, Reason>> {
    let mut taken = Taken {
        folds_case,
        seen: HashMap::new(),
    };
    let path_of = |name: &str| {
        check(name, rules)?;
        taken.take(name)?;
        Ok(name.split('/').collect())
    };
    names.into_iter().map(path_of).collect()
}

/// Returns a name as a file system sees it that knows no case.
pub(super) fn folded(name: &str) -> String {
    // Upper case first: it joins letters that lower case alone keeps apart, as ß and ẞ do.
    name.to_uppercase().to_lowercase()
}

/// Checks the length of a name that is to be stored.
pub(super) fn check_len(name: &str) -> Result<(), Reason> {
    let is_long = name.len() > MAX_NAME_LEN || name.split('/').any(|p| p.len() > MAX_PART_LEN);
    if is_long {
        Err(Reason::TooLong)
    } else {
        Ok(())
    }
}

/// Checks that `name` alone is acceptable.
fn check(name: &str, rules: Rules) -> Result<(), Reason> {
    let portable = rules == Rules::Portable || cfg!(windows);
    if name.is_empty() {
        return Err(Reason::EmptyName);
    }
    check_len(name)?;
    if name.contains('\0') {
        return Err(Reason::Nul);
    }
    if portable && name.contains('\\') {
        return Err(Reason::Backslash);
    }
    if name.starts_with('/') {
        return Err(Reason::Absolute);
    }
    if portable && name.contains(char::is_control) {
        return Err(Reason::Control);
    }
    // A drive's letter, and a stream of a file, have a colon too.
    if portable && name.contains(['<', '>', ':', '"', '|', '?', '*']) {
        return Err(Reason::Character);
    }
    name.split('/')
        .try_for_each(|part| check_part(part, portable))
}

fn check_part(part: &str, portable: bool) -> Result<(), Reason> {
    if part.is_empty() {
        Err(Reason::EmptyPart)
    } else if part == "." || part == ".." {
        Err(Reason::Dots)
    } else if portable && part.ends_with(['.', ' ']) {
        Err(Reason::TrailingDotOrSpace)
    } else if portable && is_reserved(part) {
        Err(Reason::Reserved)
    } else {
        Ok(())
    }
}

/// Returns true if Windows gives this name, with any extension, to a device.
fn is_reserved(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part);
    let stem = stem.trim_end_matches(' ').to_ascii_uppercase();
    if matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$"
    ) {
        return true;
    }
    let number = stem
        .strip_prefix("COM")
        .or_else(|| stem.strip_prefix("LPT"));
    let mut digits = number.unwrap_or_default().chars();
    matches!(
        (digits.next(), digits.next()),
        (Some('0'..='9' | '¹' | '²' | '³'), None)
    )
}

/// The files and folders that the names so far need.
struct Taken {
    folds_case: bool,
    /// By the name as the target sees it: the name itself, and its kind.
    seen: HashMap<String, (String, Node)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File,
    Folder,
}

impl Taken {
    /// Takes a name and the folders that it needs, or nothing.
    fn take(&mut self, name: &str) -> Result<(), Reason> {
        let folders = name.match_indices('/').map(|(end, _)| &name[..end]);
        let nodes: Vec<_> = folders
            .map(|folder| (folder, Node::Folder))
            .chain([(name, Node::File)])
            .map(|(path, node)| (self.key(path), path, node))
            .collect();
        for (key, path, node) in &nodes {
            if let Some((other, kind)) = self.seen.get(key) {
                if other != path {
                    return Err(Reason::CaseClash);
                } else if kind != node {
                    return Err(Reason::FileAndFolder);
                } else if *node == Node::File {
                    return Err(Reason::Duplicate);
                }
            }
        }
        for (key, path, node) in nodes {
            if let Entry::Vacant(entry) = self.seen.entry(key) {
                entry.insert((path.to_owned(), node));
            }
        }
        Ok(())
    }

    fn key(&self, path: &str) -> String {
        match self.folds_case {
            true => folded(path),
            false => path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn reason(names: &[&str], rules: Rules) -> Option<Reason> {
        let paths = to_paths(names.iter().copied(), rules, rules == Rules::Portable);
        paths.into_iter().find_map(Result::err)
    }

    #[test]
    fn ordinary_and_odd_names_are_accepted() {
        let names = [
            "a",
            "a.b",
            "folder/a",
            "folder/sub/ü ñ 日本",
            ".hidden",
            "..dots",
            "a..b",
            "con fusion",
            "console",
            "COM10",
            "LPT",
            "xNUL",
            "two words",
            "emoji 🦀",
        ];
        let paths = to_paths(names, Rules::Portable, true);
        assert_eq!(paths[2], Ok("folder/a".into()));
        assert!(paths.iter().all(Result::is_ok));
        if !cfg!(windows) {
            assert_eq!(reason(&["new\nline"], Rules::Here), None);
            assert_eq!(reason(&["a:b", "c/d*"], Rules::Here), None);
        }
    }

    #[test]
    fn each_danger_is_refused_with_its_reason() {
        for (name, expected) in [
            ("", Reason::EmptyName),
            ("/etc/passwd", Reason::Absolute),
            ("//server/share", Reason::Absolute),
            ("C:/windows", Reason::Character),
            ("c:x", Reason::Character),
            ("folder/a:b", Reason::Character),
            ("a*", Reason::Character),
            ("a/b?/c", Reason::Character),
            ("\"a\"", Reason::Character),
            ("<a>", Reason::Character),
            ("a|b", Reason::Character),
            ("..", Reason::Dots),
            (".", Reason::Dots),
            ("a/../b", Reason::Dots),
            ("../a", Reason::Dots),
            ("a/..", Reason::Dots),
            ("a/./b", Reason::Dots),
            ("a//b", Reason::EmptyPart),
            ("a/", Reason::EmptyPart),
            ("a\0b", Reason::Nul),
            ("a\x1b[31mred", Reason::Control),
            ("a\nb", Reason::Control),
            ("a\u{9b}b", Reason::Control),
            ("..\\a", Reason::Backslash),
            ("a\\b", Reason::Backslash),
            ("NUL", Reason::Reserved),
            ("nul.txt", Reason::Reserved),
            ("a/Con", Reason::Reserved),
            ("aux.tar.gz", Reason::Reserved),
            ("COM1", Reason::Reserved),
            ("lpt9.log", Reason::Reserved),
            ("com²", Reason::Reserved),
            ("con .txt", Reason::Reserved),
            ("CONIN$", Reason::Reserved),
            ("a.", Reason::TrailingDotOrSpace),
            ("a /b", Reason::TrailingDotOrSpace),
            ("...", Reason::TrailingDotOrSpace),
        ] {
            assert_eq!(reason(&[name], Rules::Portable), Some(expected), "{name:?}");
        }
        let long = "x".repeat(MAX_PART_LEN + 1);
        assert_eq!(reason(&[&long], Rules::Portable), Some(Reason::TooLong));
        let deep = "a/".repeat(MAX_NAME_LEN / 2) + "a";
        assert_eq!(reason(&[&deep], Rules::Portable), Some(Reason::TooLong));
        assert_eq!(reason(&[&long[1..]], Rules::Portable), None);
    }

    #[test]
    fn of_names_that_meet_the_second_is_refused() {
        for (names, expected) in [
            (["a", "a"], Reason::Duplicate),
            (["a/b", "a/b"], Reason::Duplicate),
            (["Readme", "README"], Reason::CaseClash),
            (["a/x", "A/y"], Reason::CaseClash),
            (["straße", "STRASSE"], Reason::CaseClash),
            (["a", "a/b"], Reason::FileAndFolder),
            (["a/b", "a"], Reason::FileAndFolder),
            (["a/b", "A"], Reason::CaseClash),
        ] {
            let paths = to_paths(names, Rules::Portable, true);
            assert_eq!(paths[0], Ok(names[0].into()), "{names:?}");
            assert_eq!(paths[1], Err(expected), "{names:?}");
            let is_about_case = expected == Reason::CaseClash;
            let paths = to_paths(names, Rules::Portable, false);
            assert_eq!(paths[1].is_ok(), is_about_case, "{names:?}");
        }
        assert_eq!(reason(&["a/x", "a/y", "b"], Rules::Portable), None);
        // A name that is refused takes nothing.
        let paths = to_paths(["a", "b", "b/x/y", "x"], Rules::Portable, true);
        assert_eq!(paths[2], Err(Reason::FileAndFolder));
        assert_eq!(paths[3], Ok("x".into()));
    }

    #[cfg(unix)]
    #[test]
    fn rules_of_this_system_stay_inside_the_folder_too() {
        for names in [
            &["aux.c", "Readme", "README"][..],
            &["a\\b"],
            &["a."],
            &["c:x"],
            &["\x1b"],
        ] {
            assert_eq!(reason(names, Rules::Here), None, "{names:?}");
        }
        for name in ["..", "/a", "a//b", "a\0", "", "a/./b"] {
            assert!(reason(&[name], Rules::Here).is_some(), "{name:?}");
        }
        assert_eq!(reason(&["a", "a"], Rules::Here), Some(Reason::Duplicate));
    }

    fn wild_name() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("..".to_owned()),
            Just(".".to_owned()),
            Just(String::new()),
            Just("NUL".to_owned()),
            Just("C:".to_owned()),
            "[a-bA-B.\\\\ \0]{0,3}",
            any::<String>(),
        ];
        prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #[test]
        fn accepted_names_lie_inside_the_folder(
            names in prop::collection::vec(wild_name(), 0..6),
            portable: bool,
            folds_case: bool,
        ) {
            let rules = if portable { Rules::Portable } else { Rules::Here };
            let paths = to_paths(names.iter().map(String::as_str), rules, folds_case);
            prop_assert_eq!(paths.len(), names.len());
            let paths: Vec<_> = paths.into_iter().flatten().collect();
            let target = Path::new("/target");
            let mut full: Vec<_> = paths.iter().map(|path| target.join(path)).collect();
            for path in &paths {
                prop_assert!(path.components().count() > 0);
                prop_assert!(path.components().all(|c| matches!(c, Component::Normal(_))));
            }
            prop_assert!(full.iter().all(|path| path.starts_with(target) && path != target));
            full.sort();
            for pair in full.windows(2) {
                prop_assert!(pair[0] != pair[1] && !pair[1].starts_with(&pair[0]));
            }
        }
    }
}
