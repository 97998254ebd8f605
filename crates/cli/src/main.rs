//! The program `larder`.

fn main() -> std::process::ExitCode {
    cli::main()
}
