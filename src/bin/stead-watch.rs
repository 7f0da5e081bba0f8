//! The program that `stead sync --watch` becomes, and that `watch=#true` keeps running. It runs for hours, so it does
//! not load libvirt, which takes memory.

fn main() -> std::process::ExitCode {
    stead::cli::watch_main()
}
