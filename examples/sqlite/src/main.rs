//! The program `larder` with one more kind of store: `sqlite:DIR`.

use std::process::ExitCode;

use larder::Backends;
use larder_sqlite::Sqlite;

fn main() -> ExitCode {
    larder_cli::main_with(Backends::default().with(Sqlite))
}
