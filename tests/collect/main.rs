//! Tests of collections that race with everything else: nothing reachable is ever deleted.
#![allow(missing_docs, reason = "tests are named for what they show")]

mod load;
mod race;
mod virtual_time;
