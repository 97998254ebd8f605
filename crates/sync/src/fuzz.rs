//! Entry points of the fuzzer: each takes any bytes to a parser of this crate, and checks the result.
//! Only in builds with `--cfg fuzzing`; the targets are in `fuzz/` of the repository.

pub use crate::{
    groups::fuzz::kept,
    replicate::fuzz::{get, message, proof},
};
