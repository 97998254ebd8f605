//! The values and options that several commands take.

use std::{
    io::ErrorKind,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::builder::NonEmptyStringValueParser;
use larder::{
    StoreUrl,
    files::{GetRequest, Rules},
    groups::MAX_LABEL_LEN,
};

use crate::{backends::backends, output::Shown, problem::Problem};

/// The options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// URL of the store (default: a store in your data folder)
    #[arg(long, global = true, env = "LARDER_STORE", value_name = "URL", value_parser = url)]
    pub(crate) store: Option<StoreUrl>,
    /// Print results as JSON, one object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print more: each file that is left out, and addresses
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
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
        // It is a part of GROUP/MEMBER/PATH, and the name of a folder that is written.
        _ if text == "." || text == ".." => {
            Err("\".\" and \"..\" are no names: choose another".to_owned())
        }
        _ if text.contains('/') => {
            Err("a name has no \"/\", which stands between a group, a member and a path".to_owned())
        }
        _ if text.contains(char::is_control) => {
            Err("a name has no control characters, such as line breaks".to_owned())
        }
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

/// A moment, as the command line takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// In milliseconds since 1970.
    At(i64),
    /// A time from now.
    In(Duration),
}

/// A moment: a day, to its end in UTC, or a time from now.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    let wrong = || format!("{text:?} is no day: write 2027-01-31, or a time from now such as 12h");
    let parts: Vec<_> = text.split('-').collect();
    let [year, month, day] = parts[..] else {
        return duration(text).map(Moment::In);
    };
    let number = |text: &str, most: i64| {
        let number = text.parse::<i64>().ok();
        number
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(wrong)
    };
    let (year, month, day) = (number(year, 9999)?, number(month, 12)?, number(day, 31)?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day > days {
        return Err(wrong());
    }
    // Years begin in March here, so that a leap day is the last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
    // 1 March of the year 0 was 719,468 days before 1970.
    let since = before + day - 1 - 719_468;
    Ok(Moment::At((since + 1) * 86_400_000 - 1))
}

/// A folder that output goes to.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// The folder to write into; it is created if it is missing
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) how: OutputHow,
}

/// The options for writing files out.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct OutputHow {
    /// Replace existing files that have other content
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Accept names that are safe here but not on every system: reserved words, trailing dots, backslashes,
    /// control characters, and the characters < > : " | ? *
    #[arg(long)]
    pub(crate) any_name: bool,
}

/// Checks that a folder for output is one, or can be made.
pub(crate) fn check_folder(folder: &Path) -> Result<(), Problem> {
    match in_the_way(folder) {
        None => Ok(()),
        Some((path, what)) => Err(Problem::usage(
            format!("{} is {what}", Shown(&path.to_string_lossy())),
            "-o names a folder to write into: name another one, or one that does not exist yet",
        )),
    }
}

/// Returns the file or the dangling link that keeps `folder` from being used or made, and a word for it.
pub(crate) fn in_the_way(folder: &Path) -> Option<(&Path, &'static str)> {
    let mut there = folder.ancestors();
    let there = there.find(|path| path.symlink_metadata().is_ok())?;
    match there.metadata() {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some((there, "a file and not a folder")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Some((there, "a link to something that is not there"))
        }
        // Whoever uses it says why it cannot be read.
        Err(_) => None,
    }
}

impl OutputHow {
    /// The request to write into a folder.
    pub(crate) fn request(self, dir: &Path) -> GetRequest {
        let mut request = GetRequest::new(dir);
        request.overwrite = self.overwrite;
        if self.any_name {
            request.rules = Rules::Here;
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_day_or_a_time_from_now() {
        let day = 86_400_000;
        for (text, days) in [
            ("1970-01-01", 1),
            ("2000-02-29", 11_017),
            ("2027-01-31", 20_850),
            ("2100-03-01", 47_542),
        ] {
            assert_eq!(moment(text), Ok(Moment::At(days * day - 1)), "{text}");
        }
        assert_eq!(moment("2h"), Ok(Moment::In(Duration::from_secs(7200))));
        for text in [
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "soon",
            "2027-1",
            "1900-02-29",
        ] {
            assert!(moment(text).is_err(), "{text}");
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
    fn names_of_groups_and_members_are_read_or_explained() {
        for good in ["g", "the hikers", "日本", "a.b", "...", "a:b"] {
            assert_eq!(label(good), Ok(good.to_owned()));
        }
        for wrong in ["", ".", "..", "a/b", "/", "a\nb", "\u{1b}[2J", "a\u{9b}b"] {
            assert!(label(wrong).is_err(), "{wrong:?}");
        }
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
