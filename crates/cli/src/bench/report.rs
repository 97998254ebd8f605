//! The results of a measurement, as a table.

use std::fmt;

use serde::Serialize;

use super::{
    Plan,
    loads::{LOADS, Load, Measure},
    target::Target,
};

/// The machine that measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Its operating system.
    pub system: &'static str,
    /// Its kind of processor.
    pub architecture: &'static str,
    /// The number of cores that the program can use.
    pub cores: usize,
}

/// Says if the larger or the smaller of two numbers is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The greater one.
    More,
    /// The smaller one.
    Less,
}

/// The results of one store with one load, over all runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cell {
    /// One value a run: a rate, seconds or bytes, as the row says.
    pub samples: Vec<f64>,
}

impl Cell {
    /// The median of the samples; of an even number, the mean of the two middle ones. `None` if nothing was measured.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            len if len % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }
}

/// One load over all stores.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The load's short name.
    pub load: &'static str,
    /// The description of the load.
    pub title: &'static str,
    /// The unit of the values.
    pub unit: &'static str,
    /// Says which values are better.
    pub better: Better,
    /// One cell a store.
    pub cells: Vec<Cell>,
}

impl Row {
    fn of(load: &Load, stores: usize) -> Self {
        let (unit, better) = match load.measure {
            Measure::PerSecond => ("/s", Better::More),
            Measure::BytesPerSecond => ("B/s", Better::More),
            Measure::Seconds => ("s", Better::Less),
            Measure::BytesEach => ("B", Better::Less),
        };
        Self {
            load: load.id,
            title: load.title,
            unit,
            better,
            cells: vec![Cell::default(); stores],
        }
    }

    /// Returns the factor by which the store in column `of` is better than the one in column
    /// `than`.
    pub fn ratio(&self, of: usize, than: usize) -> Option<f64> {
        let (of, than) = (self.cells[of].median()?, self.cells[than].median()?);
        let ratio = match self.better {
            Better::More => of / than,
            Better::Less => than / of,
        };
        ratio.is_finite().then_some(ratio)
    }

    /// A value of this row, for people.
    pub fn show(&self, value: f64) -> String {
        match self.unit {
            "/s" => format!("{} /s", significant(value)),
            "B/s" => format!("{} MB/s", significant(value / 1e6)),
            "s" => format!("{} ms", significant(value * 1e3)),
            _ => format!("{} KB", significant(value / 1e3)),
        }
    }
}

/// Three digits that count, with commas.
fn significant(value: f64) -> String {
    if value >= 100.0 {
        crate::output::Count(value.round() as u64).to_string()
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The results of a measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The machine that the benchmark ran on.
    pub machine: Machine,
    /// The size of the loads.
    pub scale: f64,
    /// The number of runs of each load.
    pub runs: u32,
    /// The stores, with what holds when they say that something is stored.
    pub stores: Vec<(String, &'static str)>,
    /// The index of the store that the others are compared with.
    pub baseline: Option<usize>,
    /// The loads.
    pub rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(plan: Plan, targets: &[Box<dyn Target>], baseline: Option<usize>) -> Self {
        Self {
            machine: Machine {
                system: std::env::consts::OS,
                architecture: std::env::consts::ARCH,
                cores: std::thread::available_parallelism().map_or(1, usize::from),
            },
            scale: plan.scale,
            runs: plan.runs,
            stores: targets
                .iter()
                .map(|target| (target.name().to_owned(), target.durability()))
                .collect(),
            baseline,
            rows: LOADS
                .iter()
                .map(|load| Row::of(load, targets.len()))
                .collect(),
        }
    }

    pub(super) fn add(&mut self, load: &str, column: usize, value: f64) {
        let row = self.rows.iter_mut().find(|row| row.load == load);
        let row = row.expect("every load has a row");
        row.cells[column].samples.push(value);
    }

    /// Returns the conditions of the measurement, in a line.
    pub fn conditions(&self) -> String {
        format!(
            "{} {}, {} core(s); scale {}, median of {} run(s); more than 1 × is better",
            self.machine.system,
            self.machine.architecture,
            self.machine.cores,
            self.scale,
            self.runs
        )
    }
}

/// As a Markdown table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![vec!["load".to_owned()], vec!["---".to_owned()]];
        for (column, (name, durability)) in self.stores.iter().enumerate() {
            lines[0].push(format!("{name} ({durability})"));
            lines[1].push("---:".to_owned());
            if self.is_compared(column) {
                lines[0].push("×".to_owned());
                lines[1].push("---:".to_owned());
            }
        }
        for row in &self.rows {
            let mut line = vec![row.title.to_owned()];
            for (column, cell) in row.cells.iter().enumerate() {
                let value = cell.median().map(|value| row.show(value));
                line.push(value.unwrap_or_else(|| "–".to_owned()));
                if let Some(baseline) = self.baseline.filter(|_| self.is_compared(column)) {
                    let ratio = row.ratio(column, baseline).map(|r| format!("{r:.2} ×"));
                    line.push(ratio.unwrap_or_else(|| "–".to_owned()));
                }
            }
            lines.push(line);
        }
        let widths: Vec<usize> = (0..lines[0].len())
            .map(|i| {
                lines
                    .iter()
                    .map(|line| line[i].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for line in lines {
            for (i, (text, width)) in line.iter().zip(&widths).enumerate() {
                let open = if i == 0 { "| " } else { " | " };
                if i == 0 {
                    write!(f, "{open}{text:<width$}")?;
                } else {
                    write!(f, "{open}{text:>width$}")?;
                }
            }
            writeln!(f, " |")?;
        }
        write!(f, "\n{}", self.conditions())
    }
}

impl Report {
    fn is_compared(&self, column: usize) -> bool {
        self.baseline.is_some_and(|baseline| baseline != column)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report with numbers that are easy to check.
    pub(in super::super) fn example() -> Report {
        let mut report = Report {
            machine: Machine {
                system: "linux",
                architecture: "x86_64",
                cores: 2,
            },
            scale: 0.1,
            runs: 3,
            stores: vec![
                ("redb".to_owned(), "durable"),
                ("iroh-fs".to_owned(), "not durable"),
            ],
            baseline: Some(1),
            rows: LOADS[..2].iter().map(|load| Row::of(load, 2)).collect(),
        };
        for (column, values) in [[30.0, 20_000.0, 25_000.0], [10_000.0, 12_500.0, 20_000.0]]
            .into_iter()
            .enumerate()
        {
            for value in values {
                report.add("add-1k", column, value);
            }
        }
        report.add("disk-1k", 0, 1500.0);
        report
    }

    #[test]
    fn a_table_has_medians_and_ratios_and_shows_what_was_not_measured() {
        let text = example().to_string();
        let expected = "\
| load                                  | redb (durable) |      × | iroh-fs (not durable) |
| ---                                   |           ---: |   ---: |                  ---: |
| add 1 KiB blobs, tagged, 32 in flight |      20,000 /s | 1.60 × |             12,500 /s |
| disk per 1 KiB blob                   |        1.50 KB |      – |                     – |

linux x86_64, 2 core(s); scale 0.1, median of 3 run(s); more than 1 × is better";
        assert_eq!(text, expected);
    }

    #[test]
    fn less_is_better_where_it_is() {
        let mut report = example();
        report.add("disk-1k", 1, 3000.0);
        assert_eq!(report.rows[1].ratio(0, 1), Some(2.0));
        assert_eq!(report.rows[1].ratio(1, 0), Some(0.5));
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        let cell = Cell {
            samples: vec![9.0, 1.0, 3.0, 5.0],
        };
        assert_eq!(cell.median(), Some(4.0));
        assert_eq!(Cell::default().median(), None);
    }
}
