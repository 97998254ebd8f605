//! Counters of the work that is done, for the recorder that the program has installed.
//!
//! With the feature `metrics`, they are counted through the [`metrics`](https://docs.rs/metrics) crate, whose exporters
//! know what to do with them; without it, nothing is counted. All are counters that only grow, over all stores of the
//! process. They are counted once a call, not once a block.

/// A counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counter {
    /// `larder_blobs_added_total`: blobs that were added, also those that were there already.
    BlobsAdded,
    /// `larder_blob_bytes_added_total`: their bytes.
    BytesAdded,
    /// `larder_blob_reads_total`: reads of blobs that were begun.
    BlobReads,
    /// `larder_blob_bytes_read_total`: the verified bytes that they returned.
    BytesRead,
    /// `larder_commits_total`: batches that were committed to collections, the engine's own among them.
    Commits,
    /// `larder_commit_failures_total`: batches that were not, but for those that met another change.
    CommitFailures,
    /// `larder_blobs_collected_total`: blobs that were deleted because nothing keeps them.
    BlobsCollected,
    /// `larder_blob_bytes_collected_total`: their bytes.
    BytesCollected,
    /// `larder_dials_total`: attempts to reach a member of a group.
    Dials,
    /// `larder_dial_failures_total`: those that reached nobody.
    DialFailures,
    /// `larder_sessions_total`: conversations about a group that were begun with a member.
    Sessions,
    /// `larder_sync_bytes_received_total`: verified bytes of files and names that came from members.
    BytesReceived,
    /// `larder_sync_bytes_sent_total`: bytes of files and names that members took.
    BytesSent,
    /// `larder_misconduct_total`: members who lied or were silent for too long.
    Misconduct,
    /// `larder_store_failures_total`: work of replication that failed because of a store of this device.
    StoreFailures,
}

impl Counter {
    /// All of them.
    pub const ALL: [Counter; 15] = [
        Counter::BlobsAdded,
        Counter::BytesAdded,
        Counter::BlobReads,
        Counter::BytesRead,
        Counter::Commits,
        Counter::CommitFailures,
        Counter::BlobsCollected,
        Counter::BytesCollected,
        Counter::Dials,
        Counter::DialFailures,
        Counter::Sessions,
        Counter::BytesReceived,
        Counter::BytesSent,
        Counter::Misconduct,
        Counter::StoreFailures,
    ];

    /// Returns the name by which recorders know it.
    pub const fn name(self) -> &'static str {
        match self {
            Counter::BlobsAdded => "larder_blobs_added_total",
            Counter::BytesAdded => "larder_blob_bytes_added_total",
            Counter::BlobReads => "larder_blob_reads_total",
            Counter::BytesRead => "larder_blob_bytes_read_total",
            Counter::Commits => "larder_commits_total",
            Counter::CommitFailures => "larder_commit_failures_total",
            Counter::BlobsCollected => "larder_blobs_collected_total",
            Counter::BytesCollected => "larder_blob_bytes_collected_total",
            Counter::Dials => "larder_dials_total",
            Counter::DialFailures => "larder_dial_failures_total",
            Counter::Sessions => "larder_sessions_total",
            Counter::BytesReceived => "larder_sync_bytes_received_total",
            Counter::BytesSent => "larder_sync_bytes_sent_total",
            Counter::Misconduct => "larder_misconduct_total",
            Counter::StoreFailures => "larder_store_failures_total",
        }
    }

    /// Adds to it, if the feature `metrics` is on.
    pub fn add(self, n: u64) {
        #[cfg(feature = "metrics")]
        ::metrics::counter!(self.name()).increment(n);
        #[cfg(not(feature = "metrics"))]
        let _ = n;
    }
}

/// Adds up, and counts it all at once when it is dropped.
#[derive(Debug)]
pub struct Sum {
    counter: Counter,
    sum: u64,
}

impl Sum {
    /// Nothing yet.
    pub fn new(counter: Counter) -> Self {
        Self { counter, sum: 0 }
    }

    /// Adds to it.
    pub fn add(&mut self, n: u64) {
        self.sum += n;
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        self.counter.add(self.sum);
    }
}
