//! The name that a member has in a group, unless another is chosen.

use std::process::{Command, Stdio};

use crate::args;

/// The name of a user without one, on a machine without one.
const NOBODY: &str = "somebody";

/// The option for your own name.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MemberName {
    /// Your name in the group; without it, your name on this machine, or that of the machine
    #[arg(id = "member", long = "as", value_name = "NAME", value_parser = args::label)]
    name: Option<String>,
}

impl MemberName {
    /// Returns the name that was asked for.
    pub(crate) fn asked(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the name that was asked for, or the usual one.
    pub(crate) fn get(&self) -> String {
        self.name.clone().unwrap_or_else(usual_name)
    }
}

/// Returns the name of this user, or of this machine.
fn usual_name() -> String {
    let variables = ["USER", "USERNAME", "LOGNAME", "COMPUTERNAME"];
    let of_user = variables
        .iter()
        .find_map(|name| valid(std::env::var(name).ok()?));
    of_user
        .or_else(|| valid(host_name()?))
        .unwrap_or_else(|| NOBODY.to_owned())
}

fn valid(name: String) -> Option<String> {
    args::label(name.trim()).ok()
}

/// Returns the name of this machine, if it has one.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .or_else(|_| {
            let asked = Command::new("hostname").stdin(Stdio::null()).output()?;
            String::from_utf8(asked.stdout).map_err(std::io::Error::other)
        });
    name.ok().filter(|name| name.trim() != "localhost")
}

/// Returns `name`, or the first of `name-2`, `name-3`, … that none of `taken` is.
pub(crate) fn free_name(name: &str, taken: &[String]) -> String {
    let is_free = |name: &String| !taken.contains(name);
    let mut all = std::iter::once(name.to_owned()).chain((2..).map(|n| format!("{name}-{n}")));
    all.find(is_free)
        .expect("there are more numbers than groups")
}

#[cfg(test)]
mod tests {
    use super::free_name;

    #[test]
    fn a_taken_name_gets_a_number() {
        let taken = ["a".to_owned(), "a-2".to_owned(), "b-2".to_owned()];
        assert_eq!(free_name("a", &taken), "a-3");
        assert_eq!(free_name("b", &taken), "b");
    }
}
