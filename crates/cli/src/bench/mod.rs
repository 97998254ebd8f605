//! Measures the same loads over any stores, side by side: what `larder bench` and the benches run.
//!
//! Each run makes a new store of each kind in turn, gives it every load, closes it, opens it again
//! and deletes it. The median of the runs counts.

mod data;
mod html;
mod iroh_fs;
mod loads;
mod report;
mod target;

use std::path::PathBuf;

use anyhow::{Context, Result};

pub use self::{
    data::Data,
    html::html,
    iroh_fs::IrohFs,
    loads::{LOADS, Load, Measure},
    report::{Better, Cell, Machine, Report, Row},
    target::{LarderStore, Target, TargetStore},
};

/// The plan of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The size of the loads: 1.0 is 10,000 small blobs and a large one of 1 GiB.
    pub scale: f64,
    /// The number of runs of each load; the median counts.
    pub runs: u32,
}

/// Tells what runs now, as `(run, store, load)`.
pub type Told<'a> = &'a (dyn Fn(u32, &str, &str) + Sync);

/// Runs every load over every target. `baseline` is the index of the target that the others are
/// compared with.
///
/// Folders are made below the targets' own and deleted again.
pub async fn run(
    plan: Plan,
    targets: &[Box<dyn Target>],
    baseline: Option<usize>,
    told: Told<'_>,
) -> Result<Report> {
    let data = Data::new(plan.scale);
    let mut report = Report::new(plan, targets, baseline);
    for run in 0..plan.runs {
        for (column, target) in targets.iter().enumerate() {
            let dir = Folder::below(target.folder())?;
            let measured = loads::run_all(target.as_ref(), &dir.0, &data, |load| {
                told(run, target.name(), load);
            })
            .await
            .with_context(|| format!("{} failed", target.name()))?;
            for (load, value) in measured {
                report.add(load, column, value);
            }
        }
    }
    Ok(report)
}

/// A folder that is deleted in the end.
struct Folder(PathBuf);

impl Folder {
    fn below(parent: Option<&std::path::Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, std::path::Path::to_owned);
        let dir = parent.join(format!("bench-{:08x}", rand::random::<u32>()));
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot make the folder {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a folder stays behind");
        }
    }
}
