//! Membership: what sets of operations mean, by a model with partial knowledge and by single cases.

mod cases;
mod epochs;
#[path = "../../src/golden.rs"]
mod golden;
mod hostile;
mod layout;
mod model;
mod properties;
mod secrecy;
mod secrets;
mod support;
