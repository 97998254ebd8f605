//! Names in a collection are a stranger's words: what is here decides which of them may become
//! paths, before anything is written.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    path::PathBuf,
};

/// The longest component of a path, in bytes: what the usual file systems allow.
const MAX_COMPONENT_LEN: usize = 255;
/// The longest name, in bytes: leaves room for the target folder within the usual 4,096.
const MAX_NAME_LEN: usize = 3072;
/// The number of refused names that an error shows.
const MAX_SHOWN: usize = 10;

/// The rules for the names that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Names that mean the same file on Linux, macOS and Windows.
    Portable,
    /// Names that are safe on this system, though another may not be able to write them: reserved
    /// words, trailing dots and spaces, backslashes, names that differ only in case.
    Here,
}

/// The reason why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Empty,
    Absolute,
    EmptyComponent,
    Dots,
    Nul,
    Backslash,
    Character,
    Reserved,
    TrailingDotOrSpace,
    TooLong,
    Duplicate,
    CaseClash,
    FileAndFolder,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Empty => "the name is empty",
            Reason::Absolute => "it is an absolute path",
            Reason::EmptyComponent => "a part of the path is empty",
            Reason::Dots => "\".\" or \"..\" would leave or bend the path",
            Reason::Nul => "it contains a NUL byte",
            Reason::Backslash => "it contains a backslash",
            Reason::Character => "it contains a character that this system does not allow",
            Reason::Reserved => "Windows reserves this name for a device",
            Reason::TrailingDotOrSpace => "a part of the path ends with a dot or a space",
            Reason::TooLong => "it is too long",
            Reason::Duplicate => "the name appears twice",
            Reason::CaseClash => "it differs from another name only in upper and lower case",
            Reason::FileAndFolder => "another name uses it as a folder, or the other way round",
        })
    }
}

/// Names that may not become paths. Nothing was written.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The first of them, and why.
    shown: Vec<(String, Reason)>,
    count: usize,
}

impl Refused {
    /// Returns true if [`Rules::Here`] would accept all of the names.
    pub(crate) fn is_about_portability(&self) -> bool {
        self.count == self.shown.len()
            && self.shown.iter().all(|(_, reason)| {
                matches!(
                    reason,
                    Reason::Backslash
                        | Reason::Reserved
                        | Reason::TrailingDotOrSpace
                        | Reason::CaseClash
                )
            })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} unsafe name(s), nothing was written", self.count)?;
        for (name, reason) in &self.shown {
            let shown: String = name.chars().take(100).collect();
            let cut = if shown.len() < name.len() { "…" } else { "" };
            write!(f, "\n  {shown:?}{cut}: {reason}")?;
        }
        if self.count > self.shown.len() {
            write!(f, "\n  and {} more", self.count - self.shown.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// The relative path for each of `names`, in their order, or all that is wrong with them.
///
/// A path that is returned has normal components only, so that joined to a folder it lies inside
/// it; no two are the same, none is a folder of another.
pub(crate) fn to_paths<'a>(
    names: impl IntoIterator<Item = &'a str>,
    rules: Rules,
) -> Result<Vec<PathBuf>, Refused> {
    let mut refused = Refused {
        shown: Vec::new(),
        count: 0,
    };
    let mut taken = Taken::new(rules);
    let mut paths = Vec::new();
    for name in names {
        match check(name, rules).and_then(|()| taken.take(name)) {
            Ok(()) => paths.push(name.split('/').collect()),
            Err(reason) => {
                refused.count += 1;
                if refused.shown.len() < MAX_SHOWN {
                    refused.shown.push((name.to_owned(), reason));
                }
            }
        }
    }
    if refused.count == 0 {
        Ok(paths)
    } else {
        Err(refused)
    }
}

/// Checks that `name` alone is acceptable.
fn check(name: &str, rules: Rules) -> Result<(), Reason> {
    let portable = rules == Rules::Portable || cfg!(windows);
    if name.is_empty() {
        return Err(Reason::Empty);
    }
    if name.len() > MAX_NAME_LEN {
        return Err(Reason::TooLong);
    }
    if name.contains('\0') {
        return Err(Reason::Nul);
    }
    if portable && name.contains('\\') {
        return Err(Reason::Backslash);
    }
    let bytes = name.as_bytes();
    let drive = portable && bytes.len() > 1 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
    if name.starts_with('/') || drive {
        return Err(Reason::Absolute);
    }
    if cfg!(windows) && name.contains(|c: char| c < ' ' || "<>:\"|?*".contains(c)) {
        return Err(Reason::Character);
    }
    name.split('/')
        .try_for_each(|component| check_component(component, portable))
}

fn check_component(component: &str, portable: bool) -> Result<(), Reason> {
    if component.is_empty() {
        Err(Reason::EmptyComponent)
    } else if component == "." || component == ".." {
        Err(Reason::Dots)
    } else if component.len() > MAX_COMPONENT_LEN {
        Err(Reason::TooLong)
    } else if portable && component.ends_with(['.', ' ']) {
        Err(Reason::TrailingDotOrSpace)
    } else if portable && is_reserved(component) {
        Err(Reason::Reserved)
    } else {
        Ok(())
    }
}

/// Returns true if Windows gives this name, with any extension, to a device.
fn is_reserved(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or(component);
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
    rules: Rules,
    /// By the name as a file system that ignores case sees it: the name itself, and what it is.
    seen: HashMap<String, (String, Node)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File,
    Folder,
}

impl Taken {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            seen: HashMap::new(),
        }
    }

    fn take(&mut self, name: &str) -> Result<(), Reason> {
        for (end, _) in name.match_indices('/') {
            self.take_one(&name[..end], Node::Folder)?;
        }
        self.take_one(name, Node::File)
    }

    fn take_one(&mut self, path: &str, node: Node) -> Result<(), Reason> {
        let key = match self.rules {
            // Upper case first: it joins letters that lower case alone keeps apart, as ß and ẞ do.
            Rules::Portable => path.to_uppercase().to_lowercase(),
            Rules::Here => path.to_owned(),
        };
        match self.seen.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert((path.to_owned(), node));
                Ok(())
            }
            Entry::Occupied(entry) => {
                let (other, kind) = entry.get();
                if other != path {
                    Err(Reason::CaseClash)
                } else if *kind != node {
                    Err(Reason::FileAndFolder)
                } else if node == Node::File {
                    Err(Reason::Duplicate)
                } else {
                    Ok(())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn reason(names: &[&str], rules: Rules) -> Option<Reason> {
        to_paths(names.iter().copied(), rules)
            .err()
            .map(|refused| refused.shown[0].1)
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
        let paths = to_paths(names, Rules::Portable).unwrap();
        assert_eq!(paths[2], Path::new("folder/a"));
        assert_eq!(paths.len(), names.len());
        if !cfg!(windows) {
            assert_eq!(reason(&["new\nline"], Rules::Portable), None);
        }
    }

    #[test]
    fn each_danger_is_refused_with_its_reason() {
        for (name, expected) in [
            ("", Reason::Empty),
            ("/etc/passwd", Reason::Absolute),
            ("//server/share", Reason::Absolute),
            ("C:/windows", Reason::Absolute),
            ("c:x", Reason::Absolute),
            ("..", Reason::Dots),
            (".", Reason::Dots),
            ("a/../b", Reason::Dots),
            ("../a", Reason::Dots),
            ("a/..", Reason::Dots),
            ("a/./b", Reason::Dots),
            ("a//b", Reason::EmptyComponent),
            ("a/", Reason::EmptyComponent),
            ("a\0b", Reason::Nul),
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
        let long = "x".repeat(MAX_COMPONENT_LEN + 1);
        assert_eq!(reason(&[&long], Rules::Portable), Some(Reason::TooLong));
        let deep = "a/".repeat(MAX_NAME_LEN / 2) + "a";
        assert_eq!(reason(&[&deep], Rules::Portable), Some(Reason::TooLong));
        assert_eq!(reason(&[&long[1..]], Rules::Portable), None);
    }

    #[test]
    fn names_that_meet_are_refused() {
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
            assert_eq!(reason(&names, Rules::Portable), Some(expected), "{names:?}");
        }
        assert_eq!(reason(&["a/x", "a/y", "b"], Rules::Portable), None);
    }

    #[cfg(unix)]
    #[test]
    fn rules_of_this_system_stay_inside_the_folder_too() {
        for names in [
            &["aux.c", "Readme", "README"][..],
            &["a\\b"],
            &["a."],
            &["c:x"],
        ] {
            assert_eq!(reason(names, Rules::Here), None, "{names:?}");
        }
        for name in ["..", "/a", "a//b", "a\0", "", "a/./b"] {
            assert!(reason(&[name], Rules::Here).is_some(), "{name:?}");
        }
        assert_eq!(reason(&["a", "a"], Rules::Here), Some(Reason::Duplicate));
    }

    #[test]
    fn the_message_names_them_all_up_to_a_limit() {
        let error = to_paths(["ok", "../up", "NUL"], Rules::Portable).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 unsafe name(s), nothing was written\n  \
             \"../up\": \".\" or \"..\" would leave or bend the path\n  \
             \"NUL\": Windows reserves this name for a device"
        );
        assert!(!error.is_about_portability());
        let many = vec![".."; MAX_SHOWN + 3];
        let error = to_paths(many, Rules::Portable).unwrap_err();
        assert!(error.to_string().ends_with("\n  and 3 more"));
        let error = to_paths(["NUL"], Rules::Portable).unwrap_err();
        assert!(error.is_about_portability());
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
        fn what_is_accepted_lies_inside_the_folder(
            names in prop::collection::vec(wild_name(), 0..6),
            portable: bool,
        ) {
            let rules = if portable { Rules::Portable } else { Rules::Here };
            if let Ok(paths) = to_paths(names.iter().map(String::as_str), rules) {
                prop_assert_eq!(paths.len(), names.len());
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
}
