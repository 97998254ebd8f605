//! Prints the table.

use crate::Figures;

/// The goal of a load.
struct Wanted {
    load: &'static str,
    /// The target ratio to the other system, or the target figure.
    goal: Goal,
}

enum Goal {
    Ratio(f64),
    AtMost(f64),
    /// A figure of the machine, not of a store.
    Fact,
}

const WANTED: [Wanted; 14] = [
    wanted("add 1 KiB (1/s)", Goal::Ratio(1.0)),
    wanted("add 16 KiB (1/s)", Goal::Ratio(1.2)),
    wanted("add 1 GiB (MB/s)", Goal::Ratio(1.2)),
    wanted("plain file, write and sync 1 GiB (MB/s)", Goal::Fact),
    wanted("get 1 KiB (1/s)", Goal::Ratio(2.0)),
    wanted("read 1 GiB (MB/s)", Goal::Ratio(10.0)),
    wanted("read random 16 KiB (1/s)", Goal::Ratio(3.0)),
    wanted("export 1 GiB (MB/s)", Goal::Ratio(1.3)),
    wanted("fetch 1 GiB (MB/s)", Goal::Ratio(1.2)),
    wanted("fetch 10,000 × 1 KiB (1/s)", Goal::Ratio(2.5)),
    wanted("open clean (ms)", Goal::AtMost(20.0)),
    wanted("open after SIGKILL (ms)", Goal::AtMost(600.0)),
    wanted("disk of 1 KiB (B)", Goal::AtMost(1638.0)),
    wanted("memory of 1 GiB (MiB)", Goal::AtMost(64.0)),
];

const fn wanted(load: &'static str, goal: Goal) -> Wanted {
    Wanted { load, goal }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len => sorted[len / 2],
    }
}

fn number(figure: f64) -> String {
    let digits = format!("{:.0}", figure);
    if figure.is_nan() {
        return "–".into();
    }
    if figure < 10.0 {
        return format!("{figure:.1}");
    }
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats the medians, side by side, with the target ratio.
pub fn table(figures: &Figures) -> String {
    let mut out = String::from(
        "| load | larder | iroh-blobs FsStore | ratio | wanted | | larder on Veilid |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for wanted in WANTED {
        let Some(systems) = figures.get(wanted.load) else {
            continue;
        };
        let of = |system: &str| systems.get(system).map_or(f64::NAN, |f| median(f));
        let (ours, theirs, veilid) = (of("larder"), of("iroh-fs"), of("larder-veilid"));
        let ratio = ours / theirs;
        let (goal, met) = match wanted.goal {
            Goal::Ratio(goal) => (format!("≥ {goal} ×"), ratio >= goal),
            Goal::AtMost(goal) => (format!("≤ {goal}"), ours <= goal),
            Goal::Fact => ("–".into(), true),
        };
        let met = match wanted.goal {
            Goal::Fact => "",
            _ if met => "yes",
            _ => "**no**",
        };
        let (ours, theirs, veilid) = (number(ours), number(theirs), number(veilid));
        let load = wanted.load;
        out +=
            &format!("| {load} | {ours} | {theirs} | {ratio:.2} × | {goal} | {met} | {veilid} |\n");
    }
    out
}

/// Formats every figure as JSON.
pub fn json(figures: &Figures) -> String {
    serde_json::to_string_pretty(figures).expect("names and numbers")
}
