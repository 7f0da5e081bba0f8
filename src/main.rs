//! The program stead.

fn main() -> std::process::ExitCode {
    stead::cli::main()
}
