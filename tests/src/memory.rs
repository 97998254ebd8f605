//! Measures the memory of this process, as the kernel counts it.

/// The peak of the memory that the process has allocated since [`Peak::begin`].
#[derive(Debug)]
pub struct Peak {
    before: u64,
}

impl Peak {
    /// Begins to measure.
    ///
    /// # Panics
    /// If the kernel does not provide the figure: these tests run on Linux.
    pub fn begin() -> Self {
        // Resets the peak to the current value.
        std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be reset");
        Self {
            before: status("VmRSS:"),
        }
    }

    /// Returns the number of bytes by which the peak exceeds the beginning.
    pub fn growth(&self) -> u64 {
        status("VmHWM:").saturating_sub(self.before)
    }
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .and_then(|kib| kib.parse().ok())
        .expect("a number of KiB");
    kib * 1024
}
