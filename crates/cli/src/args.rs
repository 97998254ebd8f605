//! The command line.

use std::{ops::Range, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, Subcommand, builder::NonEmptyStringValueParser};
use larder::{StoreUrl, groups::MAX_LABEL_LEN};

use crate::{
    backends::backends,
    commands::{
        add, bench, cat, copy, demo, fetch, gc, get, group, ls, put, rm, secrets, serve, share,
        stats, status, sync, verify,
    },
};

/// Keeps folders, serves and fetches them, verified; and keeps the files of private groups on all of
/// their members' devices.
///
/// A store is a URL: redb:DIR (a folder on this machine), veilid:DIR (a Veilid node's folder, encrypted
/// under a key in the system's keychain; with veilid+insecure:DIR the key lies in the same folder) or
/// mem: (in memory, gone at the end).
#[derive(Debug, Parser)]
#[command(name = "larder", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Shown below the help.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 verify found damage that is not repaired; \
130 interrupted (ctrl-c; `serve`, `share` and `sync --watch` end so, with 0); 143 terminated. A second \
ctrl-c ends at once.
LARDER_LOG=debug shows what happens inside, on stderr.
A redb store keeps its keys encrypted; LARDER_SECRETS_KEY names the file of the key that opens them \
(without it, one in your configuration folder), LARDER_PASSWORD is a password instead.";

/// The options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The store; without it, one in your data folder
    #[arg(long, global = true, env = "LARDER_STORE", value_name = "URL", value_parser = url)]
    pub(crate) store: Option<StoreUrl>,
    /// Print results as JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// Each command's help is the doc comment of its arguments: one here would hide all but its own line.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Add(add::Args),
    Group(group::Args),
    Put(put::Args),
    Sync(sync::Args),
    Status(status::Args),
    Share(share::Args),
    Ls(ls::Args),
    Get(get::Args),
    Cat(cat::Args),
    Rm(rm::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Stats(stats::Args),
    Secrets(secrets::Args),
    Copy(copy::Args),
    Serve(serve::Args),
    Fetch(fetch::Args),
    Bench(bench::Args),
    Demo(demo::Args),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The URL of a store.
pub(crate) fn url(text: &str) -> Result<StoreUrl, String> {
    let url = text.parse().and_then(|url: StoreUrl| {
        backends().check(&url)?;
        Ok(url)
    });
    url.map_err(|error: larder::Error| error.message().to_owned())
}

/// The name of a stored file or folder, as the command line takes it.
pub(crate) fn name() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

/// The name of a group or a member, as the command line takes it.
pub(crate) fn label(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("a name has at least one character".to_owned()),
        len if len > MAX_LABEL_LEN => Err(format!(
            "a name has at most {MAX_LABEL_LEN} bytes, and this one has {len}"
        )),
        _ => Ok(text.to_owned()),
    }
}

/// A range of bytes: `A..B`, `A..` or `..B`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByteRange(pub(crate) Range<u64>);

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str, missing| match part {
            "" => Ok(missing),
            part => part
                .parse()
                .map_err(|_| format!("{part:?} is not a number of bytes")),
        };
        let (start, end) = text
            .split_once("..")
            .ok_or("write a range as A..B, A.. or ..B, in bytes, without B itself")?;
        let range = number(start, 0)?..number(end, u64::MAX)?;
        if range.start > range.end {
            return Err("the range ends before it starts".to_owned());
        }
        Ok(Self(range))
    }
}

/// A number of bytes: as it is, or with `K`, `M`, `G` or `T`, each 1,024 of the one before.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(1_u64),
        "K" | "KIB" => Some(1 << 10),
        "M" | "MIB" => Some(1 << 20),
        "G" | "GIB" => Some(1 << 30),
        "T" | "TIB" => Some(1 << 40),
        _ => None,
    };
    let size = digits.parse::<u64>().ok().zip(unit);
    size.and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| format!("{text:?} is not a size: write 500K, 20M or 4G"))
}

/// A length of time: a number of seconds, or one with `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a time: write 30s, 5m, 12h or 7d"))?;
    let (millis, unit) = match &text[digits.len()..] {
        "ms" => (1, "ms"),
        "" | "s" => (1_000, "s"),
        "m" => (60_000, "m"),
        "h" => (3_600_000, "h"),
        "d" => (86_400_000, "d"),
        other => return Err(format!("{other:?} is not a unit: write ms, s, m, h or d")),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{number}{unit} is too long"))
}

/// A folder that output goes to.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// The folder to write into; it is made where there is none
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) how: OutputHow,
}

/// The options for writing files out.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct OutputHow {
    /// Replace files that are there with other content
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Accept names that are safe here but not on every system: reserved words, trailing dots,
    /// backslashes, names that differ only in case
    #[arg(long)]
    pub(crate) any_name: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_whole_help_of_each_command_shows() {
        let squash = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut args = Args::command();
        args.build();
        for command in args.get_subcommands_mut() {
            let name = command.get_name().to_owned();
            if ["completions", "help"].contains(&name.as_str()) {
                continue;
            }
            let about = command.get_about().map(ToString::to_string);
            let long = command.get_long_about().map(ToString::to_string);
            let (Some(about), Some(long)) = (about, long) else {
                panic!("{name} has no long help: is there a doc comment at its variant?");
            };
            let help = squash(&command.render_long_help().to_string());
            assert!(long.len() > about.len() + 20, "{name}: {long}");
            assert!(help.contains(&squash(&long)), "{name}: {help}");
        }
    }

    #[test]
    fn ranges_are_read_or_explained() {
        let range = |text: &str| text.parse::<ByteRange>().map(|range| range.0);
        assert_eq!(range("1..5"), Ok(1..5));
        assert_eq!(range("7.."), Ok(7..u64::MAX));
        assert_eq!(range("..9"), Ok(0..9));
        assert_eq!(range(".."), Ok(0..u64::MAX));
        assert_eq!(range("x..5").unwrap_err(), "\"x\" is not a number of bytes");
        assert_eq!(
            range("5..1").unwrap_err(),
            "the range ends before it starts"
        );
        assert!(range("5").unwrap_err().starts_with("write a range as A..B"));
        assert!(range("-1..5").is_err());
    }

    #[test]
    fn sizes_are_read_or_explained() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("500k"), Ok(512_000));
        assert_eq!(size("20M"), Ok(20 << 20));
        assert_eq!(size("4GiB"), Ok(4 << 30));
        for wrong in ["", "M", "5X", "-1", "1.5M", "99999999999T"] {
            let error = size(wrong).unwrap_err();
            assert!(error.contains("is not a size: write 500K"), "{error}");
        }
    }

    #[test]
    fn times_are_read_or_explained() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        assert!(duration("").is_err());
        assert!(duration("5 parsecs").is_err());
        assert!(duration("5x").unwrap_err().contains("not a unit"));
        assert!(
            duration("99999999999999999d")
                .unwrap_err()
                .contains("too long")
        );
    }
}
