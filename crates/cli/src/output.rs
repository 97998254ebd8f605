//! All that the program prints: results on stdout, everything else on stderr.

use std::{
    fmt::{self, Display},
    io::{self, IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// The output: where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Results as JSON, one object a line.
    pub(crate) json: bool,
    /// No notes and no progress.
    pub(crate) quiet: bool,
    /// A note for each file that is left out.
    pub(crate) verbose: bool,
}

/// The first error of standard output, if the work continued without it.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Returns the error of standard output, if results of work that was done could not be printed.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

impl Output {
    /// One result: `value` as JSON, or its text for people.
    pub(crate) fn result<T: Serialize>(&self, value: &T, text: impl Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, value)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", Lines(&text.to_string()))?;
        }
        // Flush at once, also into a pipe: the reader may wait for this very line.
        out.flush()
    }

    /// The result of work, which goes on whatever becomes of the output: an error is kept until the end.
    pub(crate) fn done<T: Serialize>(&self, value: &T, text: impl Display) {
        keep(self.result(value, text));
    }

    /// The [heading](Self::heading) over results of work.
    pub(crate) fn done_heading(&self, text: impl Display) {
        keep(self.heading(text));
    }

    /// A line of a heading, for people only.
    pub(crate) fn heading(&self, text: impl Display) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", Lines(&text.to_string()))?;
        out.flush()
    }

    /// Something that people may want to know, on stderr.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            to_stderr(Lines(&text.to_string()));
        }
    }

    /// A progress bar on stderr; invisible unless that is a terminal.
    pub(crate) fn progress(
        &self,
        unit: Unit,
        total: Option<u64>,
        what: &'static str,
    ) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(total, self.target(!self.quiet));
        bar.set_style(style(unit, total.is_some()));
        bar.set_message(what);
        bar
    }

    /// Progress bars below each other on stderr; invisible unless that is a terminal, and beside JSON.
    pub(crate) fn bars(&self) -> MultiProgress {
        MultiProgress::with_draw_target(self.target(!self.quiet && !self.json))
    }

    /// Adds a bar to these.
    pub(crate) fn bar_of(
        &self,
        bars: &MultiProgress,
        unit: Unit,
        total: Option<u64>,
    ) -> ProgressBar {
        // A bar that is added to `bars` draws where all of them are drawn.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let bar = bars.add(bar);
        bar.set_style(style(unit, total.is_some()));
        bar
    }

    /// Adds a line with only a message to these; it is cut at the width of the terminal.
    pub(crate) fn line_of(&self, bars: &MultiProgress) -> ProgressBar {
        let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{wide_msg}").expect("the template is valid");
        bars.add(line).with_style(style)
    }

    fn target(&self, wanted: bool) -> ProgressDrawTarget {
        match wanted && io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr_with_hz(8),
            false => ProgressDrawTarget::hidden(),
        }
    }
}

fn keep(printed: io::Result<()>) {
    if let Err(error) = printed {
        // Only the first one says what happened.
        drop(LOST.set(error));
    }
}

/// The least width of a terminal, in columns, that has room for everything a bar can say.
const WIDE: u16 = 72;

fn style(unit: Unit, has_total: bool) -> ProgressStyle {
    let (_, columns) = Term::stderr().size();
    let style = ProgressStyle::with_template(template(unit, has_total, columns));
    let style = style.expect("the templates are valid");
    style.progress_chars("=> ")
}

/// Returns the template of a line that fits a terminal of so many columns.
fn template(unit: Unit, has_total: bool, columns: u16) -> &'static str {
    match (unit, has_total, columns >= WIDE) {
        (Unit::Bytes, true, true) => {
            "{msg} [{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"
        }
        (Unit::Items, true, true) => "{msg} [{wide_bar}] {pos} of {len}, {per_sec}, {eta} left",
        (_, true, false) => "{msg} [{wide_bar}] {percent}%, {eta}",
        (Unit::Bytes, false, true) => "{msg} {bytes}, {bytes_per_sec}",
        (Unit::Bytes, false, false) => "{msg} {bytes}",
        (Unit::Items, false, true) => "{msg} {pos}, {per_sec}",
        (Unit::Items, false, false) => "{msg} {pos}",
    }
}

/// The unit that a progress bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Items,
}

/// Prints on stderr. Where even that fails, nobody is left to tell.
pub(crate) fn to_stderr(text: impl Display) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// A number of bytes, for people: `1.5 MiB`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes(pub(crate) u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let text = if self.0 < 1024 {
            format!("{} B", self.0)
        } else {
            let mut value = self.0 as f64 / 1024.0;
            let mut unit = 0;
            while value >= 999.95 && unit + 1 < UNITS.len() {
                value /= 1024.0;
                unit += 1;
            }
            format!("{value:.1} {}", UNITS[unit])
        };
        f.pad(&text)
    }
}

/// A speed: bytes in a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate(pub(crate) u64, pub(crate) Duration);

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.1.as_secs_f64().max(1e-6);
        write!(f, "{}/s", Bytes((self.0 as f64 / seconds) as u64))
    }
}

/// A time, for people: `1.5 s`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Duration);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 1.0 {
            write!(f, "{:.0} ms", seconds * 1e3)
        } else {
            write!(f, "{seconds:.1} s")
        }
    }
}

/// A number with commas: `12,345`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count(pub(crate) u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// A name as a terminal may see it: what would move the cursor is escaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() || is_bidi(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

/// A text of the program, which may have lines; whatever else moves the cursor came from outside, and is escaped. A
/// name in such a text must be [`Shown`], so that it makes no lines either.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'a>(pub(crate) &'a str);

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.0.split('\n').enumerate() {
            let open = if i == 0 { "" } else { "\n" };
            write!(f, "{open}{}", Shown(line))?;
        }
        Ok(())
    }
}

/// Returns true if the character reorders the text around it.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (1023 << 10, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>9}|", Bytes(1)), "      1 B|");
        assert_eq!(Count(0).to_string(), "0");
        assert_eq!(Count(999).to_string(), "999");
        assert_eq!(Count(1_234_567).to_string(), "1,234,567");
        assert_eq!(Time(Duration::from_millis(12)).to_string(), "12 ms");
        assert_eq!(Time(Duration::from_millis(2345)).to_string(), "2.3 s");
        let rate = Rate(3 << 20, Duration::from_secs(2));
        assert_eq!(rate.to_string(), "1.5 MiB/s");
    }

    #[test]
    fn a_progress_line_fits_the_terminal() {
        for columns in [40, 72, 80, 200] {
            for (unit, has_total) in [
                (Unit::Bytes, true),
                (Unit::Bytes, false),
                (Unit::Items, true),
                (Unit::Items, false),
            ] {
                let terminal = InMemoryTerm::new(4, columns);
                let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
                let total = has_total.then_some(1_500_000_000);
                // A bar that has ended shows its speed over all its time.
                let bar = ProgressBar::with_draw_target(total, target);
                let bar = bar.with_elapsed(Duration::from_secs(10));
                let style = ProgressStyle::with_template(template(unit, has_total, columns));
                bar.set_style(style.unwrap().progress_chars("=> "));
                bar.set_message("checking");
                bar.set_position(1_234_567_890);
                bar.abandon();
                let shown = terminal.contents();
                assert_eq!(shown.lines().count(), 1, "{columns}: {shown}");
                assert!(shown.starts_with("checking"), "{columns}: {shown}");
            }
        }
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(Shown("ü 日本 🦀").to_string(), "ü 日本 🦀");
        assert_eq!(Shown("a\n\u{1b}[2J").to_string(), "a\\u{a}\\u{1b}[2J");
        assert_eq!(Shown("gpj\u{202e}.exe").to_string(), "gpj\\u{202e}.exe");
        assert_eq!(Lines("a\n\u{1b}[2J\rb").to_string(), "a\n\\u{1b}[2J\\u{d}b");
    }
}
